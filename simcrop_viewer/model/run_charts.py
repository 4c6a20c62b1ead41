"""Curves of runs: what was told at each step, thinned to what can be drawn.

Training and validation of one quantity share a chart; so do a pointing accuracy and its chance.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from simcrop_core.train.events import EVENTS_NAME
from simcrop_viewer.model.event_tail import Event, EventTail

Kind = Literal["training", "validation", "reference"]
#: Points of a curve that are drawn at most; of more, each stands for several.
MOST_POINTS = 400
#: Steps beyond are no steps; figures hold all below exactly.
_MOST_STEPS = 1 << 53
_TITLES = {"samples_per_s": "studies/s", "lr": "learning rate"}
#: Charts of how fast a run goes, after those of what it learns.
SPEEDS = ("studies/s", "learning rate")


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """One curve of one run.

    Attributes
    ----------
    run
        The run's folder.
    kind
        ``reference`` is what chance would reach.
    steps_P, values_P
        Its points.
    low_P, high_P
        The least and the greatest value that each point stands for.
    """

    run: Path
    kind: Kind
    steps_P: NDArray[np.float64]
    values_P: NDArray[np.float64]
    low_P: NDArray[np.float64]
    high_P: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Chart:
    """One quantity: a title and the curves of all runs that tell of it."""

    title: str
    lines: tuple[Line, ...]


@dataclass(slots=True)
class _Series:
    steps: array[float] = field(default_factory=lambda: array("d"))
    values: array[float] = field(default_factory=lambda: array("d"))


class RunCurves:
    """All figures of one run; every look reads only what was added to its events."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tail = EventTail(folder / EVENTS_NAME)
        self._series: dict[tuple[str, Kind], _Series] = {}
        self._lines: dict[tuple[str, Kind], Line] | None = None

    def look(self) -> bool:
        """Read what is new; whether anything was."""
        anew, events = self.tail.read()
        if anew:
            self._series = {}
        for event in events:
            self._take(event)
        if anew or events:
            self._lines = None
        return anew or bool(events)

    @property
    def lines(self) -> dict[tuple[str, Kind], Line]:
        """Curves by the title of their chart and their kind."""
        if self._lines is None:
            self._lines = {key: _line(self.folder, key[1], s) for key, s in self._series.items()}
        return self._lines

    def _take(self, event: Event) -> None:
        step = event.get("step")
        if not isinstance(step, int) or not 0 <= step < _MOST_STEPS:
            return
        if event["event"] == "step":
            for name in ("loss", "lr", "samples_per_s"):
                self._put(_TITLES.get(name, name), "training", step, event.get(name))
            self._put_all("training", step, event.get("terms"))
        elif event["event"] == "validation":
            self._put("loss", "validation", step, event.get("loss"))
            self._put_all("validation", step, event.get("terms"))
            self._put_all("validation", step, event.get("metrics"))

    def _put_all(self, kind: Kind, step: int, values: Any) -> None:
        for name, value in values.items() if isinstance(values, dict) else ():
            title, which = str(name), kind
            if title.startswith("chance_"):
                title, which = f"pointing_{title.removeprefix('chance_')}", "reference"
            self._put(title.replace("_", " "), which, step, value)

    def _put(self, title: str, kind: Kind, step: int, value: Any) -> None:
        if not isinstance(value, int | float) or isinstance(value, bool):
            return
        with suppress(OverflowError):  # a whole number may have hundreds of digits
            if math.isfinite(value):
                series = self._series.setdefault((title, kind), _Series())
                series.steps.append(step)
                series.values.append(value)


def charts_of(runs: Sequence[RunCurves]) -> tuple[Chart, ...]:
    """The charts of some runs together: the loss, its terms, the metrics, then speed and rate."""
    found: dict[str, list[Line]] = {}
    for run in runs:
        for (title, _), line in run.lines.items():
            found.setdefault(title, []).append(line)

    def order(title: str) -> tuple[int, int, str]:
        metric = not any(line.kind == "training" for line in found[title])
        last = SPEEDS.index(title) + 1 if title in SPEEDS else 0
        return (0 if title == "loss" else 1 + last * 2 + metric, 0, title if metric else "")

    return tuple(Chart(title, tuple(found[title])) for title in sorted(found, key=order))


def _line(run: Path, kind: Kind, series: _Series) -> Line:
    steps, values = np.array(series.steps), np.array(series.values)
    each = math.ceil(len(steps) / MOST_POINTS)
    if each <= 1:
        return Line(run, kind, steps, values, values, values)
    starts = np.arange(0, len(steps), each)
    counts = np.diff(np.append(starts, len(steps)))
    return Line(
        run,
        kind,
        np.add.reduceat(steps, starts) / counts,
        np.add.reduceat(values, starts) / counts,
        np.minimum.reduceat(values, starts),
        np.maximum.reduceat(values, starts),
    )


def smoothed(values_P: NDArray[np.float64], weight: float) -> NDArray[np.float64]:
    """An exponential mean of what came before; ``weight`` 0 leaves the values as they are."""
    if weight <= 0 or len(values_P) < 3:
        return values_P
    made, mean, share = np.empty_like(values_P), 0.0, 0.0
    for place, value in enumerate(values_P):
        mean = weight * mean + (1 - weight) * float(value)
        share = weight * share + (1 - weight)  # the first values have none before them
        made[place] = mean / share
    return made


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers between two, at least one and about ``most`` of them."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low] if math.isfinite(low) else []
    raw = (high - low) / max(1, most)
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * by for by in (1, 2, 2.5, 5, 10) if size * by >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)] or [(low + high) / 2]


def number(value: float) -> str:
    """A figure beside an axis or a curve, as short as it can be told."""
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:.4g}"
    if 1e4 <= abs(value) < 1e9 and value == int(value):
        text = f"{value / 1e6:.4g}M" if abs(value) >= 1e6 else f"{value / 1e3:.4g}k"
        return text
    return f"{value:.2g}"
