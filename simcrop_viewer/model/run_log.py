"""What a run's command prints: kept in its folder, and held by the process while it lives.

Each start writes a heading. The system's lock on the open file goes with the process and its
children, however they end, so that a window that is opened later knows whether one is alive.
"""

from __future__ import annotations

import os
import re
import shlex
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_HEADING = re.compile(r"^=== (\S+) process started$", re.MULTILINE)
_COMMAND = "$ simcrop-train "


@dataclass(frozen=True, slots=True)
class LogSection:
    """What was printed since the last start: when that was (seconds since 1970; 0: unknown), the
    command's words after its name, and the lines."""

    began: float
    words: tuple[str, ...]
    lines: tuple[str, ...]

    @property
    def recipe(self) -> str:
        return self.words[1] if self.words[:1] == ("run",) and len(self.words) > 1 else ""


def heading(words: Sequence[str], now: float | None = None) -> str:
    """What stands in a log before what a command prints."""
    moment = datetime.fromtimestamp(time.time() if now is None else now, UTC)
    began = moment.isoformat(timespec="milliseconds")
    return f"=== {began} process started\n{_COMMAND}{shlex.join(words)}\n"


def section_of(text: str) -> LogSection:
    """The last start in a log."""
    began, start = 0.0, 0
    for match in _HEADING.finditer(text):
        with suppress(ValueError):
            began, start = datetime.fromisoformat(match[1]).timestamp(), match.end() + 1
    lines = text[start:].splitlines()
    words: list[str] = []
    if lines and lines[0].startswith(_COMMAND):
        with suppress(ValueError):
            words = shlex.split(lines.pop(0).removeprefix(_COMMAND))
    return LogSection(began, tuple(words), tuple(line for line in lines if line.strip()))


def hold(descriptor: int) -> bool:
    """Mark an open log as held, by this process and those that inherit it; False where another
    holds it."""
    if os.name == "nt":
        return True
    import fcntl

    for _ in range(20):  # who looks whether it is held holds it for a moment
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            time.sleep(0.02)
    return False


def log_is_held(path: Path) -> bool:
    """Whether a process that prints into a log is alive; False where nobody can know."""
    if os.name == "nt":
        return False
    import fcntl

    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
