"""Looking at a folder of runs again and again, and reading little each time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from simcrop_core.train.events import EVENTS_NAME, LOG_NAME
from simcrop_core.train.lock import LOCK_NAME
from simcrop_viewer.model.event_tail import last_bytes
from simcrop_viewer.model.model_title import step_of
from simcrop_viewer.model.run_charts import Chart, RunCurves, charts_of
from simcrop_viewer.model.run_result import differences, result_lines
from simcrop_viewer.model.run_summary import (
    CONFIG_NAME,
    RESULT_NAME,
    STOP_NAME,
    RunSummary,
    runs_in,
    summary_of,
)

_STAMPED = (EVENTS_NAME, LOG_NAME, CONFIG_NAME, LOCK_NAME, RESULT_NAME, STOP_NAME)
_LOG_BYTES = 1 << 14
_LOG_LINES = 200
_Stamp = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What one look found.

    Attributes
    ----------
    rows
        The runs of the folder, newest first.
    charts
        Curves of the chosen runs together; the same object while nothing is new.
    log
        The last lines that the first chosen run printed.
    previews
        Its pictures, by step, each with the name of its case.
    result
        What it found, in lines, where it is a run that has a result.
    differences
        The settings in which several chosen runs differ.
    chosen
        The runs that all but the rows are of.
    """

    rows: tuple[RunSummary, ...] = ()
    charts: tuple[Chart, ...] = ()
    log: tuple[str, ...] = ()
    previews: tuple[tuple[int, tuple[Path, ...]], ...] = ()
    result: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()
    chosen: tuple[Path, ...] = ()

    def with_started(self, folder: Path) -> Seen:
        """The same, but for a run that was started since."""
        rows = (replace(r, state="starting") if r.folder == folder else r for r in self.rows)
        return replace(self, rows=tuple(rows))

    def of(self, chosen: Sequence[Path]) -> Seen:
        """Only what is of these runs; of a run that is newly chosen nothing is seen yet."""
        chosen = tuple(chosen)
        if chosen == self.chosen:
            return self
        kept = replace(self, charts=_only(self.charts, chosen), differences=(), chosen=chosen)
        if chosen[:1] == self.chosen[:1]:
            return kept
        return replace(kept, log=(), previews=(), result=())


def _only(charts: Sequence[Chart], runs: Sequence[Path]) -> tuple[Chart, ...]:
    """The curves of some runs, of those that there are."""
    kept = [(c.title, tuple(line for line in c.lines if line.run in runs)) for c in charts]
    return tuple(Chart(title, lines) for title, lines in kept if lines)


@dataclass(slots=True)
class RunWatch:
    """Remembers what it saw; used by one thread at a time."""

    _rows: dict[Path, tuple[_Stamp, RunSummary]] = field(default_factory=dict)
    _curves: dict[Path, RunCurves] = field(default_factory=dict)
    _charts: tuple[Chart, ...] = ()
    _result: tuple[_Stamp, tuple[str, ...]] = ((), ())
    _differ: tuple[_Stamp, tuple[str, ...]] = ((), ())

    def look(self, place: Path, chosen: Sequence[Path]) -> Seen:
        """The runs in a folder, and more of those that are chosen."""
        folders = runs_in(place)
        rows = [self._row(folder) for folder in folders]
        self._rows = {folder: self._rows[folder] for folder in folders}
        rows.sort(key=lambda row: row.began, reverse=True)
        first = chosen[0] if chosen else None
        return Seen(
            tuple(rows),
            self._charts_of(chosen),
            () if first is None else log_of(first),
            () if first is None else previews_of(first),
            () if first is None else self._result_of(first),
            self._differences_of(chosen),
            tuple(chosen),
        )

    def _row(self, folder: Path) -> RunSummary:
        stamp = _stamp(folder, _STAMPED)
        before = self._rows.get(folder)
        # One that is under way may end without a trace.
        if before is None or before[0] != stamp or before[1].goes_on:
            self._rows[folder] = before = (stamp, summary_of(folder))
        return before[1]

    def _charts_of(self, chosen: Sequence[Path]) -> tuple[Chart, ...]:
        same = list(self._curves) == list(chosen)
        self._curves = {path: self._curves.get(path) or RunCurves(path) for path in chosen}
        news = [curves.look() for curves in self._curves.values()]
        if any(news) or not same:
            self._charts = charts_of(list(self._curves.values()))
        return self._charts

    def _differences_of(self, chosen: Sequence[Path]) -> tuple[str, ...]:
        if len(chosen) < 2:
            return ()
        stamp = tuple((hash(path), hash(_stamp(path, (CONFIG_NAME,)))) for path in chosen)
        if stamp != self._differ[0]:
            self._differ = (stamp, differences(chosen))
        return self._differ[1]

    def _result_of(self, folder: Path) -> tuple[str, ...]:
        path = folder / RESULT_NAME
        stamp = (*_stamp(folder, (RESULT_NAME,)), (hash(path), 0))
        if stamp != self._result[0]:
            self._result = (stamp, result_lines(path))
        return self._result[1]


def log_of(folder: Path) -> tuple[str, ...]:
    """The last lines of a run's log."""
    text = last_bytes(folder / LOG_NAME, _LOG_BYTES).decode("utf-8", "replace")
    return tuple(text.splitlines()[-_LOG_LINES:])


def previews_of(folder: Path) -> tuple[tuple[int, tuple[Path, ...]], ...]:
    """A run's pictures of its fixed cases, by step."""
    found = []
    with suppress(OSError):
        for step in (folder / "previews").iterdir():
            number = step_of(step)
            pictures = sorted(step.glob("[!.]*.png"))
            if number is not None and pictures:
                found.append((number, tuple(pictures)))
    return tuple(sorted(found))


def _stamp(folder: Path, names: Sequence[str]) -> _Stamp:
    def one(name: str) -> tuple[int, int]:
        try:
            stat = os.stat(folder / name)
        except OSError:
            return (0, 0)
        return (stat.st_mtime_ns, stat.st_size)

    return tuple(one(name) for name in names)
