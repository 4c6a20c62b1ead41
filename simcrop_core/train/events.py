"""What happened in a run: ``events.jsonl``, one JSON object a line.

Kinds: ``step``, ``validation``, ``checkpoint``, ``end``, ``error``. All carry ``event``, ``step``
and ``time`` (seconds since 1970). The file only grows while a run lives. A resumed run first cuts
it back to the checkpoint it starts from, so that no step is told twice.
"""

from __future__ import annotations

import errno
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from safetensors import SafetensorError

EVENTS_NAME = "events.jsonl"
#: What the command printed, where whoever started it keeps that in the run's folder.
LOG_NAME = "log.txt"
_FULL = (errno.ENOSPC, errno.EDQUOT)
Event = dict[str, Any]


def step_event(
    step: int, loss: float, terms: Mapping[str, float], lr: float, samples_per_s: float
) -> Event:
    """An optimiser step that was taken."""
    return {
        "event": "step",
        "step": step,
        "loss": loss,
        "terms": dict(terms),
        "lr": lr,
        "samples_per_s": samples_per_s,
        "time": time.time(),
    }


def validation_event(
    step: int, loss: float, terms: Mapping[str, float], metrics: Mapping[str, float]
) -> Event:
    """The held-out studies after a step; ``metrics`` such as pointing accuracy."""
    return {
        "event": "validation",
        "step": step,
        "loss": loss,
        "terms": dict(terms),
        "metrics": dict(metrics),
        "time": time.time(),
    }


def checkpoint_event(step: int, path: str) -> Event:
    """A checkpoint that is whole and on the disk; ``path`` is relative to the run's folder."""
    return {"event": "checkpoint", "step": step, "path": path, "time": time.time()}


def end_event(step: int, reason: str) -> Event:
    """The run ended by itself: ``finished`` or ``stopped``."""
    return {"event": "end", "step": step, "reason": reason, "time": time.time()}


def error_event(step: int, code: str, message: str) -> Event:
    """The run ended by a fault in the step after ``step``."""
    return {"event": "error", "step": step, "code": code, "message": message, "time": time.time()}


class EventLog:
    """Appends events to a file; each is with the system before the next step begins.

    Numbers that are not finite are written as null, since JSON has no others. While the disk is
    full, lines wait in memory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("ab", buffering=0)
        self._waiting = b""

    def write(self, event: Mapping[str, Any]) -> None:
        """Append one event: one write of one line."""
        line = json.dumps(_finite(event), ensure_ascii=True, allow_nan=False)
        self._waiting += line.encode() + b"\n"
        try:
            self._put()
        except OSError as e:
            if not disk_is_full(e):
                raise

    def sync(self) -> None:
        """Wait until all is on the disk itself.

        Raises
        ------
        OSError
            It cannot be, such as on a full disk.
        """
        self._put()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let go of the file; lines for which there is no room are lost."""
        with suppress(OSError):
            self._put()
        with suppress(OSError):
            self._file.close()

    def _put(self) -> None:
        while self._waiting:
            self._waiting = self._waiting[self._file.write(self._waiting) or 0 :]

    def __enter__(self) -> EventLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def read_events(path: Path) -> Iterator[Event]:
    """The events of a file, oldest first; a last line that a kill cut short is left out."""
    for _, event in _lines(path):
        yield event


def cut_back(path: Path, step: int) -> None:
    """Keep what was told up to and including ``step``: cut before the first later event.

    A line that was cut short goes too. The file stays the same file, so that whoever follows it
    goes on.
    """
    if not path.exists():
        return
    keep = 0
    for end, event in _lines(path):
        if int(event.get("step", 0)) > step:
            break
        keep = end
    if keep < path.stat().st_size:
        os.truncate(path, keep)


def disk_is_full(error: BaseException | None) -> bool:
    """Whether an error, or what it came from, says that there is no room left."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        # safetensors writes by itself and gives the system's error as a text.
        if isinstance(error, SafetensorError) and any(
            f"(os error {number})" in str(error) for number in _FULL
        ):
            return True
        error = error.__cause__
    return False


def _lines(path: Path) -> Iterator[tuple[int, Event]]:
    """Whole lines with the offset of their end."""
    if not path.exists():
        return
    end = 0
    with path.open("rb") as file:
        for line in file:
            end += len(line)
            if not line.endswith(b"\n"):
                return
            try:
                event = json.loads(line)
            except ValueError:
                return
            if not isinstance(event, dict) or "event" not in event:
                return
            yield end, event


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
