"""``simcrop models create | import | copy | info``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from simcrop_core.cli.terminal import answer, progress_bar


def run_create(arguments: argparse.Namespace) -> int:
    from simcrop_core.model import create_model, model_info, save_model

    labels = None
    if arguments.segmentation is not None:
        labels = tuple(name.strip() for name in arguments.segmentation.split(","))
    with progress_bar(arguments) as progress:
        progress("making the weights", 0, 1)
        model = create_model(
            arguments.preset,
            text_encoder=arguments.text_encoder,
            segmentation_labels=labels,
            seed=arguments.seed,
        )
        progress("writing", 0, 1)
        save_model(model, Path(arguments.out), overwrite=arguments.overwrite)
    facts = model_info(arguments.out)
    answer(
        arguments,
        facts,
        [*_lines(facts), f"Written to {arguments.out}. Its weights are untrained."],
    )
    return 0


def run_import(arguments: argparse.Namespace) -> int:
    from simcrop_core.model import import_checkpoint, model_info, save_model

    with progress_bar(arguments) as progress:
        progress("reading the checkpoint", 0, 1)
        model, report = import_checkpoint(
            Path(arguments.checkpoint), text_encoder=arguments.text_encoder
        )
        progress("writing", 0, 1)
        save_model(model, Path(arguments.out), overwrite=arguments.overwrite)
    facts = {**model_info(arguments.out), "import": report.to_dict()}
    answer(arguments, facts, [*_lines(facts), *report.lines(), f"Written to {arguments.out}"])
    return 0


def run_copy(arguments: argparse.Namespace) -> int:
    from simcrop_core.model import load_model, model_info, save_model
    from simcrop_core.model.inference import without_decoders

    with progress_bar(arguments) as progress:
        progress("reading the model", 0, 1)
        model = without_decoders(load_model(arguments.model), arguments.name)
        progress("writing", 0, 1)
        save_model(model, Path(arguments.out), overwrite=arguments.overwrite, half=arguments.half)
    facts = model_info(arguments.out)
    answer(arguments, facts, [*_lines(facts), f"Written to {arguments.out}"])
    return 0


def run_info(arguments: argparse.Namespace) -> int:
    from simcrop_core.model import model_info

    facts = model_info(arguments.folder)
    answer(arguments, facts, _lines(facts))
    return 0


def _shown(value: Any) -> Any:
    """Sizes as ``2 x 3``, names as a list."""
    if not isinstance(value, list | tuple):
        return value
    words = any(isinstance(part, str) for part in value)
    return (", " if words else " x ").join(map(str, value))


def _lines(facts: dict[str, Any], indent: str = "") -> list[str]:
    """Nested facts as indented lines."""
    lines: list[str] = []
    for name, value in facts.items():
        if name == "import":
            continue
        if isinstance(value, dict):
            lines += [f"{indent}{name}:", *_lines(value, indent + "  ")]
        else:
            lines.append(f"{indent}{name}: {_shown(value)}")
    return lines
