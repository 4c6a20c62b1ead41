"""A canvas of voxels to paint shapes on, in the order z, y, x for speed.

Shapes are given in patient coordinates; the canvas finds the voxels that a box of the body can
reach, and mixes each voxel's value by the share of it that a shape fills.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simcrop_core.geometry import Grid
from simcrop_core.phantoms.anatomy_frame import Frame
from simcrop_core.phantoms.shapes import capsule, coverage

Volume = NDArray[np.float32]
T = TypeVar("T", bound=np.generic)
Box = tuple[slice, slice, slice]
#: So many voxels are painted at once.
_CACHED = 50_000
Corner = Sequence[float] | NDArray[np.float64]


class Canvas:
    """Hounsfield units and labels being painted; axis-aligned grids of any orientation."""

    def __init__(self, grid: Grid, frame: Frame) -> None:
        if not grid.is_axis_aligned:
            raise ValueError("A phantom is drawn on an axis-aligned grid.")
        self.grid, self.frame = grid, frame
        worlds, _ = grid.nearest_axes()
        #: Array axis of the grid that runs along world x, y, z.
        self.axis_of = tuple(worlds.index(w) for w in range(3))
        self.lines = [
            (
                grid.affine[w, 3]
                + grid.affine[w, self.axis_of[w]] * np.arange(grid.shape[self.axis_of[w]])
            ).astype(np.float32)
            for w in range(3)
        ]
        x, y, z = self.lines
        self.xw, self.yw, self.zw = x[None, None, :], y[None, :, None], z[:, None, None]
        self._parts = frame.parts(self.xw, self.yw, self.zw)
        self.z = self._parts[4]
        self.shape = (z.size, y.size, x.size)
        self.hu = np.full(self.shape, -1000, np.float32)
        self.labels = np.zeros(self.shape, np.uint8)
        self.spacing = np.array([abs(grid.affine[w, self.axis_of[w]]) for w in range(3)])
        scale = frame.mean_scale
        #: Width over which a surface is spread, in patient millimetres.
        self.width = float(np.cbrt(self.spacing.prod())) / scale
        c, s = np.cos(frame.roll_rad), np.sin(frame.roll_rad)
        kx, ky = frame.slope
        self._turn_33 = np.array([(c, -s, kx), (s, c, ky), (0, 0, 1)])
        self._scale_3 = np.array(frame.scale)
        self._step_3 = np.array(
            [
                float(v[1] - v[0]) if v.size > 1 else float(self.spacing[w])
                for w, v in enumerate(self.lines)
            ]
        )
        self._offset_3 = np.array(frame.offset_mm) - [float(v[0]) for v in self.lines]

    def box(self, low: Corner, high: Corner, margin: float = 0.0) -> Box | None:
        """Slices (z, y, x) that hold a box in patient coordinates, or None: off the grid."""
        return self.boxes(np.array([low], float), np.array([high], float), np.array([margin]))[0]

    def boxes(
        self,
        low_N3: NDArray[np.float64],
        high_N3: NDArray[np.float64],
        margin_N: NDArray[np.float64],
    ) -> list[Box | None]:
        """Such slices for many boxes at once."""
        reach_N1 = (margin_N + self.width)[:, None]
        middle_N3 = (low_N3 + high_N3) * (0.5 * self._scale_3)
        half_N3 = (np.abs(high_N3 - low_N3) * 0.5 + reach_N1) * self._scale_3
        # Each world axis is a sum of terms, whose least and greatest values add up.
        center_N3 = middle_N3 @ self._turn_33.T
        wide_N3 = half_N3 @ np.abs(self._turn_33).T
        push_2N, slack_2N = self.frame.push(center_N3, wide_N3)
        center_N3[:, :2] += push_2N.T
        wide_N3[:, :2] += slack_2N.T
        center_N3 = (center_N3 + self._offset_3) / self._step_3
        wide_N3 = wide_N3 / np.abs(self._step_3)
        first = np.maximum(np.ceil(center_N3 - wide_N3).astype(int), 0)
        last = np.minimum(np.floor(center_N3 + wide_N3).astype(int) + 1, self.shape[::-1])
        return [
            (slice(a[2], b[2]), slice(a[1], b[1]), slice(a[0], b[0]))
            if a[0] < b[0] and a[1] < b[1] and a[2] < b[2]
            else None
            for a, b in zip(first.tolist(), last.tolist(), strict=True)
        ]

    def at(self, box: Box) -> tuple[Volume, Volume, Volume]:
        """Patient coordinates in a box."""
        px, move_x, py, move_y, pz = self.parts(box)
        return px + move_x, py + move_y, pz

    def parts(self, box: Box) -> tuple[Volume, Volume, Volume, Volume, Volume]:
        """The terms of the patient coordinates in a box: see :meth:`Frame.parts`."""
        px, move_x, py, move_y, pz = self._parts
        zs, ys, xs = box
        return px[:, :, xs], move_x[zs, ys], py[:, ys], move_y[zs, :, xs], pz[zs]

    def at_flat(self, box: Box, where: NDArray[np.intp]) -> tuple[Volume, Volume, Volume]:
        """Patient coordinates of some voxels of a box, by their flat numbers in it."""
        px, move_x, py, move_y, pz = self.parts(box)
        row = where // px.size
        k = row // py.size
        i, j = where - row * px.size, row - k * py.size
        x = px.ravel().take(i) + move_x.ravel().take(row)
        y = py.ravel().take(j) + move_y.ravel().take(k * px.size + i)
        return x, y, pz.ravel().take(k)

    def paint(self, box: Box, distance: Volume, hu: float, label: int) -> None:
        """Fill the inside of a surface, a few slices at a time, as the processor's cache holds."""
        zs, ys, xs = box
        count = max(1, _CACHED // max(1, distance[0].size))
        for first in range(0, len(distance), count):
            part = distance[first : first + count]
            here = slice(zs.start + first, zs.start + first + len(part)), ys, xs
            self.blend(here, coverage(part, self.width), hu, label)

    def blend(
        self, box: Box, share: Volume, hu: float | Volume, label: int | None, least: float = 0.5
    ) -> None:
        """Mix values into a box by each voxel's share, and label where the share is ``least``."""
        target = self.hu[box]
        change = hu - target
        change *= share
        target += change
        if label is not None:
            np.copyto(self.labels[box], np.uint8(label), where=share >= least)

    def blend_some(
        self, box: Box, where: NDArray[np.intp], share: Volume, hu: float | Volume, label: int
    ) -> None:
        """As :meth:`blend`, for some voxels of a box, by their flat numbers in it."""
        at = self.numbers(box, where)
        values = self.hu.reshape(-1)
        value = values.take(at)
        mix(value, share, hu)
        values[at] = value
        self.labels.reshape(-1)[at[share >= 0.5]] = label

    def numbers(self, box: Box, where: NDArray[np.intp]) -> NDArray[np.intp]:
        """The flat numbers in the canvas of voxels that are given by those in a box."""
        zs, ys, xs = box
        wide, deep = xs.stop - xs.start, ys.stop - ys.start
        row = where // wide
        k = row // deep
        line = (k + zs.start) * self.shape[1] + (row - k * deep + ys.start)
        return line * self.shape[2] + (where - row * wide + xs.start)

    def bone(
        self, box: Box, distance: Volume, cortex: float, marrow: float, wall_mm: float, name: int
    ) -> None:
        """Fill the inside of a surface with marrow behind a hard shell."""
        core = coverage(distance + np.float32(wall_mm), self.width)
        self.blend(box, coverage(distance, self.width), cortex + core * (marrow - cortex), name)

    def tube(self, points_N3: ArrayLike, radius_N: ArrayLike, hu: float, name: int) -> None:
        """Fill a tube through points."""
        for box, distance in self.capsules(points_N3, radius_N):
            self.paint(box, distance, hu, name)

    def capsules(
        self, points_N3: ArrayLike, radius_N: ArrayLike, beyond_mm: float = 0.0
    ) -> Iterator[tuple[Box, Volume]]:
        """Boxes and distances, one for each straight piece of a tube."""
        points, radius = np.asarray(points_N3, float), np.asarray(radius_N, float)
        margin = np.maximum(radius[:-1], radius[1:]) + beyond_mm
        for k, box in enumerate(self.boxes(points[:-1], points[1:], margin)):
            if box is not None:
                distance = capsule(
                    *self.at(box), points[k], points[k + 1], radius[k], radius[k + 1]
                )
                yield box, distance

    def to_grid(self, array_zyx: NDArray[T]) -> NDArray[T]:
        """A view of an array of the canvas in the grid's own order of axes."""
        order = [2 - w for w in self.grid.nearest_axes()[0]]
        return array_zyx.transpose(order)


def overlap(one: Box, other: Box) -> Box | None:
    """The box that two have in common."""
    z, y, x = (
        slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one, other, strict=True)
    )
    return (z, y, x) if all(part.start < part.stop for part in (z, y, x)) else None


def within(inner: Box, outer: Box) -> Box:
    """Where a box lies in one that holds it."""
    z, y, x = (
        slice(a.start - b.start, a.stop - b.start) for a, b in zip(inner, outer, strict=True)
    )
    return z, y, x


def mix(value: Volume, share: Volume, hu: float | Volume) -> None:
    """Mix other values into some, in place, each by its share."""
    change = np.subtract(hu, value, dtype=np.float32)
    change *= share
    value += change
