"""Arguments that several commands share, and how a value on the command line is read."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

PLACEMENTS = ("center", "lungs", "tiled")


def later(module: str, function: str) -> Callable[[argparse.Namespace], int]:
    """A command that is imported when it runs."""

    def run(arguments: argparse.Namespace) -> int:
        command = getattr(import_module(f"simcrop_core.cli.{module}"), function)
        return int(command(arguments))

    return run


def add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], summary: str, **more: Any
) -> argparse.ArgumentParser:
    """Add a command or verb that runs ``run``."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=more.pop("description", summary + "."), **more
    )
    parser.set_defaults(run=run)
    parser.add_argument("--debug", action="store_true", help="show the traceback of a refusal")
    parser.add_argument("--json", action="store_true", help="answer in JSON; no progress bars")
    return parser


def add_volume_options(parser: argparse.ArgumentParser) -> None:
    """How the scan is read."""
    group = parser.add_argument_group("reading the scan")
    group.add_argument("--series", metavar="ID", help="which DICOM series (simcrop inspect lists)")
    group.add_argument(
        "--fill-gaps", action="store_true", help="interpolate missing DICOM slices, with a note"
    )
    group.add_argument(
        "--spacing",
        type=numbers(3, "millimetres", positive=True),
        metavar="X,Y,Z",
        help="millimetres between voxels along the array's axes, where the file has none (npz)",
    )
    group.add_argument(
        "--axes",
        metavar="LPS",
        help="body direction in which each array axis grows, where the file has none (npz)",
    )
    group.add_argument(
        "--rescale",
        type=numbers(2, "numbers"),
        metavar="SLOPE,INTERCEPT",
        help="from stored values to HU, in place of the file's own (not DICOM)",
    )
    group.add_argument(
        "--allow-missing-geometry",
        action="store_true",
        help="read a file that does not say where its voxels lie, with a note",
    )
    group.add_argument(
        "--allow-any-modality", action="store_true", help="read what does not look like CT"
    )


def add_report_options(parser: argparse.ArgumentParser) -> None:
    """Which report, and how it is read."""
    group = parser.add_argument_group("reading the report")
    group.add_argument("--report", metavar="R", help="text, JSON, CT-RATE csv or DICOM SR")
    group.add_argument("--volume-name", metavar="NAME", help="which row of a csv of reports")
    group.add_argument("--encoding", metavar="NAME", help="the report's code page, if not UTF-8")


def add_compute_options(parser: argparse.ArgumentParser) -> None:
    """Where and how precisely is computed."""
    group = parser.add_argument_group("computing")
    group.add_argument(
        "--device", default="auto", metavar="auto|cpu|cuda:N", help="where to compute"
    )
    group.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16"),
        default="auto",
        help="auto is fp32 on a CPU and bf16 on a GPU that has it",
    )


def add_model_option(parser: argparse.ArgumentParser, *, reads_text: bool = True) -> None:
    """Which model."""
    parser.add_argument("--model", required=True, metavar="M", help="model folder")
    if reads_text:
        parser.add_argument(
            "--text-encoder", metavar="T", help="where the model's text encoder is now"
        )


def add_align_options(parser: argparse.ArgumentParser) -> None:
    """How patches are chosen."""
    parser.add_argument(
        "--top-k", type=whole_number(1), default=64, metavar="K", help="patches per sentence (64)"
    )
    parser.add_argument(
        "--placement",
        choices=PLACEMENTS,
        default="center",
        help="where the model's input lies in a larger scan: its centre, the lungs, or tiles "
        "over all of it",
    )


def whole_number(least: int) -> Callable[[str], int]:
    """A whole number from ``least`` up."""

    def convert(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} up")
        return number

    return convert


def numbers(
    count: int | None, what: str, *, positive: bool = False, whole: bool = False
) -> Callable[[str], tuple[float, ...]]:
    """Numbers with commas between."""

    def convert(text: str) -> tuple[float, ...]:
        try:
            values = tuple((int if whole else float)(part) for part in text.split(","))
        except ValueError:
            values = ()
        wrong_count = not values or (count is not None and len(values) != count)
        if wrong_count or any(v != v or abs(v) > 1e9 or (positive and v <= 0) for v in values):
            wanted = "" if count is None else f"{count} "
            raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}{what} with commas between")
        return values

    return convert


def choices(names: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """Some of these names, with commas between."""

    def convert(text: str) -> tuple[str, ...]:
        chosen = tuple(part.strip() for part in text.split(","))
        if not all(part in names for part in chosen):
            raise argparse.ArgumentTypeError(f"{text!r}: choose from {', '.join(names)}")
        return chosen

    return convert
