"""``simcrop-train recipes``: what can be run, and what can be set."""

from __future__ import annotations

import argparse

from simcrop_core.cli.terminal import answer
from simcrop_core.train.settings import fields_of
from simcrop_training.recipes import RECIPES, describe, recipe


def run_recipes(arguments: argparse.Namespace) -> int:
    """List recipes, or show one."""
    names = list(RECIPES) if arguments.recipe is None else [arguments.recipe]
    facts = []
    for name in names:
        config = recipe(name)
        facts.append({"name": name, "text": describe(name), "fields": fields_of(config)})
    if arguments.recipe is None:
        width = max(len(name) for name in names)
        lines = [f"{name:<{width}}  {describe(name)}" for name in names]
        lines.append("\nEach is a start: simcrop-train recipes NAME lists what --set can change.")
    else:
        lines = [describe(arguments.recipe), ""]
        for field in facts[0]["fields"]:  # type: ignore[attr-defined]
            lines.append(f"{field['path']} = {field['default']}")
            lines.append(f"    {field['text']}")
    answer(arguments, {"recipes": facts}, lines)
    return 0
