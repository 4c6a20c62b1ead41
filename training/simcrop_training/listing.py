"""``simcrop-train recipes``: what can be run, and what can be set."""

from __future__ import annotations

import argparse
from typing import Any

from simcrop_core.cli import REFUSED
from simcrop_core.cli.terminal import answer
from simcrop_core.errors import SimCroPError
from simcrop_core.train.settings import faults_of, fields_of, with_settings
from simcrop_training.recipes import ALL, any_recipe, describe


def run_recipes(arguments: argparse.Namespace) -> int:
    """List recipes, or show one, with settings changed or with what is wrong with them."""
    if arguments.recipe is None:
        if arguments.set:
            raise SimCroPError(
                "It is not said which recipe to set this in",
                code="option",
                remedy="Name the recipe before --set.",
            )
        return _list_all(arguments)
    config = any_recipe(arguments.recipe)
    faults = faults_of(config, arguments.set) if arguments.json else []
    if not faults:
        config = with_settings(config, arguments.set)
    text, fields = describe(arguments.recipe), fields_of(config)
    lines = [text, ""]
    for field in fields:
        lines += [f"{field['path']} = {field['default']}", f"    {field['text']}"]
    facts: dict[str, Any] = {
        "recipes": [{"name": arguments.recipe, "text": text, "fields": fields}]
    }
    facts |= {"faults": [fault._asdict() for fault in faults]} if arguments.set else {}
    answer(arguments, facts, lines)
    return REFUSED if faults else 0


def _list_all(arguments: argparse.Namespace) -> int:
    names = [*ALL]
    facts = [
        {"name": name, "text": describe(name), "fields": fields_of(any_recipe(name))}
        for name in names
    ]
    width = max(len(name) for name in names)
    lines = [f"{name:<{width}}  {describe(name)}" for name in names]
    lines.append("\nEach is a start: simcrop-train recipes NAME lists what --set can change.")
    answer(arguments, {"recipes": facts}, lines)
    return 0
