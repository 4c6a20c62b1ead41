"""``simcrop-train recipes``: what can be run, and what can be set."""

from __future__ import annotations

import argparse

from simcrop_core.cli.terminal import answer
from simcrop_core.train.settings import fields_of
from simcrop_training.recipes import ALL, any_recipe, describe


def run_recipes(arguments: argparse.Namespace) -> int:
    """List recipes, or show one."""
    names = [*ALL] if arguments.recipe is None else [arguments.recipe]
    fields = {name: fields_of(any_recipe(name)) for name in names}
    facts = [{"name": name, "text": describe(name), "fields": fields[name]} for name in names]
    if arguments.recipe is None:
        width = max(len(name) for name in names)
        lines = [f"{name:<{width}}  {describe(name)}" for name in names]
        lines.append("\nEach is a start: simcrop-train recipes NAME lists what --set can change.")
    else:
        lines = [describe(arguments.recipe), ""]
        for field in fields[arguments.recipe]:
            lines += [f"{field['path']} = {field['default']}", f"    {field['text']}"]
    answer(arguments, {"recipes": facts}, lines)
    return 0
