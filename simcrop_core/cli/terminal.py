"""Progress bars and answers on the terminal."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simcrop_core.device import Progress
    from simcrop_core.model import SimCroP
    from simcrop_core.report import Report
    from simcrop_core.volume import CTVolume, Note


@contextmanager
def progress_bar(arguments: argparse.Namespace) -> Iterator[Progress]:
    """A bar on stderr that tells what is being done; nothing with ``--json``."""
    from tqdm import tqdm

    bar: Any = None
    shown = ""

    def tell(what: str, done: int, total: int) -> None:
        nonlocal bar, shown
        if what != shown:
            shown = what
            if bar is not None:
                bar.close()
            bar = tqdm(
                desc=what,
                total=total,
                file=sys.stderr,
                leave=False,
                delay=0.5,
                disable=arguments.json or not sys.stderr.isatty(),
            )
        bar.total = total
        bar.update(done - bar.n)

    try:
        yield tell
    finally:
        if bar is not None:
            bar.close()


def answer(arguments: argparse.Namespace, facts: dict[str, Any], lines: list[str]) -> None:
    """Print ``facts`` as JSON if asked, else ``lines``."""
    if arguments.json:
        # ASCII, so that no terminal's encoding can spoil it.
        print(json.dumps(facts, indent=1, allow_nan=False))
    else:
        print("\n".join(lines))


#: Options of `read_volume` whose names are no words of the language, wherever they stand; those
#: that are, only where they are named as options.
_OPTION = re.compile(
    r"(?:\b(spacing_mm|axcodes|fill_gaps|allow_missing_geometry|allow_any_modality)\b"
    r"|(?<=option )(rescale|series)\b|(?<=\()(rescale)(?=[)=]))"
    r"(?:=(?:\(([^()]*)\)|\"([^\"]*)\"))?"
)
_NAMES = {"spacing_mm": "spacing", "axcodes": "axes"}
_EXAMPLE = re.compile(r"(?<=such as )\(([-\d., ]+)\)")


def in_command_words(text: str) -> str:
    """A message of the library, with the options of the command in place of Python's.

    ``rescale=(1, -1024)`` becomes ``--rescale 1,-1024``.
    """

    def named(match: re.Match[str]) -> str:
        name = match[1] or match[2] or match[3]
        value = match[4] or match[5]
        option = "--" + _NAMES.get(name, name).replace("_", "-")
        return option if value is None else f"{option} {value.replace(' ', '')}"

    return _EXAMPLE.sub(lambda example: example[1].replace(" ", ""), _OPTION.sub(named, text))


def note_lines(notes: tuple[Note, ...] | list[Note]) -> list[str]:
    return [f"  note: {in_command_words(note.text)}" for note in notes]


def reading_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options of `read_volume` that were given on the command line."""
    options = {
        "series": arguments.series,
        "fill_gaps": arguments.fill_gaps,
        "spacing_mm": arguments.spacing,
        "axcodes": arguments.axes,
        "rescale": arguments.rescale,
        "allow_missing_geometry": arguments.allow_missing_geometry,
        "allow_any_modality": arguments.allow_any_modality,
    }
    return {name: value for name, value in options.items() if value not in (None, False)}


def read_scan(arguments: argparse.Namespace, path: str | None = None) -> CTVolume:
    """Read the scan named on the command line with the options given there."""
    from simcrop_core.io import read_volume

    return read_volume(Path(arguments.ct if path is None else path), **reading_options(arguments))


def read_words(arguments: argparse.Namespace) -> Report | None:
    """Read the report named on the command line, if one is."""
    from simcrop_core.errors import SimCroPError
    from simcrop_core.report import read_report

    if arguments.report is None:
        if arguments.volume_name or arguments.encoding:
            raise SimCroPError(
                "--volume-name and --encoding say how to read a report, and none was given.",
                code="no-report",
                remedy="Name the report with --report.",
            )
        return None
    return read_report(
        Path(arguments.report), volume_name=arguments.volume_name, encoding=arguments.encoding
    )


def load(arguments: argparse.Namespace) -> SimCroP:
    """Load the model named on the command line."""
    from simcrop_core.model import load_model

    return load_model(arguments.model, text_encoder=getattr(arguments, "text_encoder", None))
