"""``simcrop figure``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from simcrop_core.cli.terminal import answer, progress_bar, read_scan
from simcrop_core.errors import SimCroPError


def run_figure(arguments: argparse.Namespace) -> int:
    from simcrop_core.alignment_result import AlignmentResult
    from simcrop_core.figure import draw_figure, save_figure

    spec = figure_spec(arguments)
    with progress_bar(arguments) as progress:
        result = AlignmentResult.read(arguments.alignment)
        progress("reading the scan", 0, 1)
        volume = read_scan(arguments)
        progress("drawing", 0, 1)
        save_figure(draw_figure(volume, result, spec), Path(arguments.out))
    facts = {"figure": arguments.out, "spec": spec.model_dump(mode="json")}
    answer(arguments, facts, [f"Written to {arguments.out}"])
    return 0


def figure_spec(arguments: argparse.Namespace) -> Any:
    """The figure's spec from the command line; ``--set FIELD=VALUE`` takes JSON or plain text."""
    import json

    from simcrop_core.figure import FigureSpec

    fields: dict[str, Any] = {
        "sentences": arguments.sentences,
        "planes": arguments.planes,
        "position_mm": arguments.position,
    }
    fields = {name: value for name, value in fields.items() if value is not None}
    for setting in arguments.set:
        name, equals, text = setting.partition("=")
        if not equals:
            raise SimCroPError(
                f"--set takes FIELD=VALUE, not {setting!r}.",
                code="bad-setting",
                remedy="simcrop figure --help lists the fields.",
            )
        try:
            fields[name.strip()] = json.loads(text)
        except ValueError:
            fields[name.strip()] = text
    return FigureSpec(**fields)
