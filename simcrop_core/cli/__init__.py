"""The ``simcrop`` command.

Nothing heavy is imported here: what a command needs, it imports when it runs.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType

from simcrop_core.cli.parser import make_parser
from simcrop_core.cli.terminal import in_command_words
from simcrop_core.errors import SimCroPError

REFUSED = 2
FAILED = 1
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code, see :func:`run_command`."""
    return run_command(make_parser, argv, "simcrop")


def run_command(
    make_parser: Callable[[], ArgumentParser], argv: Sequence[str] | None, name: str
) -> int:
    """Run one command of a parser whose commands set ``run`` and have ``--debug``.

    Returns
    -------
    int
        0 done; 2 refused, with one line on stderr; 130 stopped by Ctrl-C; 1 a defect in SimCroP.
    """
    # A stream that the caller closed is None.
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - open until the end
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            arguments = make_parser().parse_args(_joined(sys.argv[1:] if argv is None else argv))
        except SystemExit:
            sys.stdout.flush()  # help may wait in a buffer, and fail when nobody listens any more
            raise
    except OSError as e:  # some versions of argparse let it through when they print help
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(e, BrokenPipeError):  # whoever read it has gone
            return 0
        _say(f"{name}: The help could not be printed ({e.strerror}).")
        return REFUSED
    _stop_on_terminate()
    try:
        code: int = arguments.run(arguments)
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as e:
            raise SimCroPError(
                f"The answer could not be printed ({e.strerror}).",
                code="cannot-print",
                remedy="What was to be written is written.",
            ) from e
        return code
    except SimCroPError as e:
        if arguments.debug:
            raise
        problem, remedy = in_command_words(e.problem), in_command_words(e.remedy)
        _say(f"{name}: {SimCroPError(problem, code=e.code, remedy=remedy, path=e.path)}")
        return REFUSED
    except KeyboardInterrupt:
        _leave_in_peace()
        if arguments.debug:
            raise
        _say(f"{name}: Stopped. Nothing was left half-written.")
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; Python must not complain when it closes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except MemoryError:
        if arguments.debug:
            raise
        _say(f"{name}: Memory ran out. Close other programs, or cut the scan, and repeat.")
        return REFUSED
    except Exception as e:
        if arguments.debug:
            raise
        _say(
            f"{name}: A defect in SimCroP ({type(e).__name__}: {' '.join(str(e).split())[:300]}). "
            "Please report it with what --debug prints."
        )
        return FAILED


def _joined(argv: Sequence[str]) -> list[str]:
    """Arguments with negative numbers tied to their option, which argparse takes for options."""
    words: list[str] = []
    for word in argv:
        if (
            words
            and re.fullmatch(r"-[\d.][\d.,eE+-]*", word)
            and re.fullmatch(r"--\w[\w-]*", words[-1])
        ):
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words


def _say(line: str) -> None:
    # A progress bar may stand on the line.
    clear = "\r\x1b[K" if sys.stderr.isatty() else ""
    print(f"{clear}{line}", file=sys.stderr)


def _leave_in_peace() -> None:
    """Signals come in pairs: none may break off the word about the first."""
    with suppress(ValueError):  # not in the main thread: the caller owns the signals
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)


def _stop_on_terminate() -> None:
    """Make a plain ``kill`` end as Ctrl-C does: clean-up runs, nothing stays half-written."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not in the main thread: the caller owns the signals
        return
