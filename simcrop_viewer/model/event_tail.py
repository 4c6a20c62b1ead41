"""Following a run's ``events.jsonl`` by reading only what was added to it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

Event = dict[str, Any]
#: As much of the end of a file as tells how a run stands.
TAIL_BYTES = 1 << 16
_MARK = 64


class EventTail:
    """Reads a growing file of events piece by piece.

    A resumed run cuts its file back and writes on: that is noticed by the size, or by what stands
    before the place that was reached, and the file is read anew.

    Attributes
    ----------
    bytes_read
        All that was ever read, to hold those who follow to reading little.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bytes_read = 0
        self._place = 0
        self._before = b""
        self._file: tuple[int, int] | None = None

    def read(self) -> tuple[bool, list[Event]]:
        """Whether all that was told before is void, and the events that came since.

        A last line without its end waits for the next time.
        """
        try:
            with self.path.open("rb") as file:
                stat = os.fstat(file.fileno())
                same = self._file in (None, (stat.st_dev, stat.st_ino))
                self._file = (stat.st_dev, stat.st_ino)
                anew = not same or stat.st_size < self._place
                if not anew and stat.st_size == self._place and not self._before:
                    return False, []
                if not anew:
                    anew = self._was_cut(file)
                if anew:
                    self._place, self._before = 0, b""
                file.seek(self._place)
                added = file.read()
        except OSError:
            return False, []
        self.bytes_read += len(added)
        whole = added[: added.rfind(b"\n") + 1]
        self._place += len(whole)
        self._before = (self._before + whole)[-_MARK:]
        return anew, events_in(whole)

    def _was_cut(self, file: Any) -> bool:
        file.seek(self._place - len(self._before))
        seen = file.read(len(self._before))
        self.bytes_read += len(seen)
        return bool(seen != self._before)


def last_events(path: Path, most: int = TAIL_BYTES) -> list[Event]:
    """The events in the last part of a file, oldest first; none of a file that is not there."""
    text = last_bytes(path, most)
    return events_in(text[: text.rfind(b"\n") + 1])


def last_bytes(path: Path, most: int = TAIL_BYTES) -> bytes:
    """The end of a file, from the beginning of a line."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - most))
            text = file.read()
    except OSError:
        return b""
    return text[text.find(b"\n") + 1 :] if size > most else text


def events_in(text: bytes) -> list[Event]:
    """The events of whole lines; lines that are none are passed over."""
    found = []
    # Decoded at once: for each line alone it takes half as long again.
    for line in text.decode("utf-8", "replace").split("\n"):
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(event, dict) and isinstance(event.get("event"), str):
            found.append(event)
    return found
