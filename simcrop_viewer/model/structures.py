"""What is segmented: structures with a colour, a volume and a middle, shown or hidden."""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from psygnal import EventedModel, Signal
from pydantic import ConfigDict, Field

from simcrop_core.geometry import Grid

Tell = Callable[[str, int, int], None]
#: From one structure's hue to the next: neighbours in the table look different.
_GOLDEN = 0.618034


class StructureSettings(EventedModel):
    """How structures are drawn."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    visible: bool = Field(default=True, title="Show", description="Show the structures.")
    draw: Literal["filled", "outlines"] = Field(
        default="filled", title="Draw", description="In the planes: filled, or outlines alone."
    )
    opacity: float = Field(default=0.45, ge=0.0, le=1.0, title="Opacity")


@dataclass(frozen=True, slots=True)
class Structure:
    """One label.

    Attributes
    ----------
    label, name
        Its number among the labels, and what it is.
    color
        ``"#rrggbb"``.
    volume_ml
        Millilitres.
    center_mm
        RAS millimetres of its middle: its centroid where that lies within it, else a place of it
        near there. None where it has no voxel.
    is_shown
        Whether it is drawn.
    """

    label: int
    name: str
    color: str
    volume_ml: float
    center_mm: tuple[float, float, float] | None
    is_shown: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Structures:
    """All structures of a scan, and where they are on the grid on which it is shown.

    ``labels_XYZ`` is uint8; ``model`` is the name of the model that found them.
    """

    rows: tuple[Structure, ...]
    labels_XYZ: NDArray[np.uint8]
    grid: Grid
    model: str
    is_trained: bool


class StructuresState:
    """The structures of the open scan, if it was segmented."""

    changed = Signal()  # others, or none
    shown_changed = Signal()  # colours, and which are shown

    def __init__(self) -> None:
        self.settings = StructureSettings()
        self._now: Structures | None = None

    @property
    def now(self) -> Structures | None:
        return self._now

    @property
    def rows(self) -> tuple[Structure, ...]:
        return () if self._now is None else self._now.rows

    def put(self, structures: Structures | None) -> None:
        if structures is not self._now:
            self._now = structures
            self.changed.emit()

    def show(self, label: int, shown: bool) -> None:
        """Show one structure, or hide it."""
        self._set(label, is_shown=shown)

    def show_all(self, shown: bool) -> None:
        """Show every structure, or none."""
        self._replace(tuple(replace(row, is_shown=shown) for row in self.rows))

    def set_color(self, label: int, color: str) -> None:
        """``"#rrggbb"``."""
        self._set(label, color=color)

    def _set(self, label: int, **fields: object) -> None:
        self._replace(
            tuple(
                replace(row, **fields) if row.label == label else row  # type: ignore[arg-type]
                for row in self.rows
            )
        )

    def _replace(self, rows: tuple[Structure, ...]) -> None:
        if self._now is not None and rows != self._now.rows:
            self._now = replace(self._now, rows=rows)
            self.shown_changed.emit()


def color_of_label(number: int) -> str:
    """A colour for the structure of this number, unlike its neighbours', bright enough for CT."""
    value = (0.95, 0.8)[number // 6 % 2]
    red, green, blue = colorsys.hsv_to_rgb((0.03 + number * _GOLDEN) % 1, 0.7, value)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


def measured(
    labels_XYZ: NDArray[np.uint8], grid: Grid, names: dict[int, str], tell: Tell
) -> tuple[Structure, ...]:
    """Volume and middle of each label.

    Parameters
    ----------
    labels_XYZ, grid
        The labels on the scan's own voxels.
    names
        Label -> structure; each has a row, also one without a voxel.
    """
    size, depth = max(names, default=0) + 1, labels_XYZ.shape[2]
    counts_LZ = np.zeros((size, depth), np.int64)
    sums_L3 = np.zeros((size, 3))
    for z in range(depth):
        tell("measuring", z, depth)
        plane = labels_XYZ[:, :, z]
        x, y = np.nonzero(plane)
        found = plane[x, y]
        counts_LZ[:, z] = np.bincount(found, minlength=size)[:size]
        for axis, index in enumerate((x, y)):
            sums_L3[:, axis] += np.bincount(found, weights=index, minlength=size)[:size]
    tell("measuring", depth, depth)
    counts_L = counts_LZ.sum(axis=1)
    sums_L3[:, 2] = counts_LZ @ np.arange(depth)
    return tuple(
        Structure(
            label,
            name,
            color_of_label(number),
            float(counts_L[label] * grid.voxel_volume_mm3 / 1000),
            _middle(labels_XYZ, grid, label, sums_L3[label], counts_LZ[label]),
        )
        for number, (label, name) in enumerate(names.items())
    )


def _middle(
    labels_XYZ: NDArray[np.uint8],
    grid: Grid,
    label: int,
    sums_3: NDArray[np.float64],
    counts_Z: NDArray[np.int64],
) -> tuple[float, float, float] | None:
    count = int(counts_Z.sum())
    if not count:
        return None
    centroid = sums_3 / count
    x, y, z = np.floor(centroid + 0.5).astype(int)
    if labels_XYZ[x, y, z] != label:  # as in a ring or a pair: the nearest place in a near slice
        slices = np.flatnonzero(counts_Z)
        z = int(slices[np.argmin(abs(slices - centroid[2]))])
        xs, ys = np.nonzero(labels_XYZ[:, :, z] == label)
        steps = grid.spacing_mm
        away = ((xs - centroid[0]) * steps[0]) ** 2 + ((ys - centroid[1]) * steps[1]) ** 2
        nearest = int(np.argmin(away))
        centroid = np.array([xs[nearest], ys[nearest], z], dtype=np.float64)
    r, a, s = grid.to_world(centroid)
    return float(r), float(a), float(s)
