"""The ``simcrop-train`` command.

Nothing heavy is imported here: what a command needs, it imports when it runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NoReturn

from simcrop_core import __version__
from simcrop_core.cli import run_command
from simcrop_core.errors import sentence

NAME = "simcrop-train"


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; ``fill`` adds arguments when they are first needed."""

    fill: Callable[[argparse.ArgumentParser], None] | None = None

    def parse_known_args(self, *given: Any, **more: Any) -> Any:
        if self.fill is not None:
            fill, self.fill = self.fill, None
            fill(self)
        return super().parse_known_args(*given, **more)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {sentence(message)} See {self.prog} --help.\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code.

    0 done; 2 refused, with one line on stderr; 130 stopped by Ctrl-C or SIGTERM; 1 a defect.
    """
    return run_command(make_parser, argv, NAME)


def make_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=NAME,
        description="Pre-train SimCroP and its peers, and probe what they learnt. For research use "
        "only, not for diagnosis.",
    )
    parser.add_argument("--version", action="version", version=f"{NAME} {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_run(commands)
    _add_recipes(commands)
    _add_status(commands)
    _add_stop(commands)
    _add_compare(commands)
    _add_table(commands)
    _add_prepare(commands)
    return parser


def _command(
    commands: Any, name: str, module: str, function: str, summary: str, description: str = ""
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=description or summary[:1].upper() + summary[1:] + "."
    )
    parser.set_defaults(run=_later(module, function))
    parser.add_argument("--debug", action="store_true", help="show the traceback of a refusal")
    parser.add_argument("--json", action="store_true", help="answer in JSON; no progress")
    return parser


def _later(module: str, function: str) -> Callable[[argparse.Namespace], int]:
    """A command that is imported when it runs."""

    def run(arguments: argparse.Namespace) -> int:
        return int(getattr(import_module(module), function)(arguments))

    return run


def _add_run(commands: Any) -> None:
    parser = _command(
        commands,
        "run",
        "simcrop_training.running",
        "run_run",
        "train by a recipe",
        "Train by a recipe. Ctrl-C or SIGTERM finishes the step, saves and ends; the same command "
        "with --resume goes on.",
    )
    parser.add_argument("recipe", metavar="RECIPE", help="a name that simcrop-train recipes lists")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the run")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="a.b=c",
        help="change a field of the recipe (may be given several times); recipes --json lists all",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the newest checkpoint; begin where there is none",
    )


def _add_recipes(commands: Any) -> None:
    parser = _command(
        commands,
        "recipes",
        "simcrop_training.listing",
        "run_recipes",
        "list the recipes",
        "List the recipes; with --json also every field with its type, text and default.",
    )
    parser.add_argument("recipe", metavar="RECIPE", nargs="?", help="show this one's settings")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="a.b=c",
        help="show them with this field changed, or what is wrong with it; nothing is started",
    )


def _add_status(commands: Any) -> None:
    parser = _command(
        commands, "status", "simcrop_training.watching", "run_status_of", "say how a run stands"
    )
    parser.add_argument("dir", metavar="DIR", help="folder of the run")


def _add_stop(commands: Any) -> None:
    parser = _command(
        commands,
        "stop",
        "simcrop_training.watching",
        "run_stop",
        "ask a run to finish its step, save and end",
    )
    parser.add_argument("dir", metavar="DIR", help="folder of the run")
    parser.add_argument(
        "--wait",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="wait so long for its end (0: do not wait)",
    )


def _add_compare(commands: Any) -> None:
    parser = _command(
        commands,
        "compare",
        "simcrop_training.watching",
        "run_compare",
        "a table of several runs, and the settings in which they differ",
    )
    parser.add_argument("dirs", metavar="DIR", nargs="+", help="folders of runs")


def _add_table(commands: Any) -> None:
    parser = _command(
        commands,
        "table",
        "simcrop_training.tables",
        "run_table",
        "results of probes and fine-tunings as a table of the paper's form",
        "Print the results of probes and fine-tunings in the form of the paper's tables, its "
        "figures beside them, marked as such.",
    )
    parser.add_argument("kind", choices=["classification", "segmentation", "ablation"])
    parser.add_argument("dirs", metavar="RUN", nargs="+", help="folders of runs that have ended")
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="write it as Markdown, CSV and LaTeX, with a bar chart for each task's labels",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace earlier tables there")


def _add_prepare(commands: Any) -> None:
    parser = _command(
        commands,
        "prepare",
        "simcrop_training.prepare",
        "run_prepare",
        "prepare a data set for training",
    )

    def fill(parser: argparse.ArgumentParser) -> None:
        from simcrop_training.prepare import add_prepare_arguments

        add_prepare_arguments(parser)

    assert isinstance(parser, _Parser)
    parser.fill = fill
