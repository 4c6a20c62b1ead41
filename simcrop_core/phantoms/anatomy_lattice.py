"""Smooth surfaces are asked on a coarse lattice and interpolated to the voxels.

The lattice is tied to the patient, not to the grid, so that every grid sees the same chest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from simcrop_core.phantoms.anatomy_canvas import Box, Canvas, Corner, within

Volume = NDArray[np.float32]


class Lattice:
    """Points every ``step_mm`` around the voxels of a box."""

    def __init__(self, canvas: Canvas, box: Box, step_mm: float) -> None:
        self.box = box
        lines, weights = [], []
        for world, part in zip(range(3), (box[2], box[1], box[0]), strict=True):
            voxels = canvas.lines[world][part].astype(np.float64)
            origin = canvas.frame.offset_mm[world]
            place = (voxels - origin) / step_mm
            first, last = int(np.floor(place.min())) - 1, int(np.floor(place.max())) + 2
            lines.append((origin + step_mm * np.arange(first, last + 1)).astype(np.float32))
            weights.append(_catmull_rom(place - first, last - first + 1))
        #: World coordinates of the points along x, y and z.
        self.lines = lines
        x, y, z = lines
        self.points = canvas.frame.patient(x[None, None, :], y[None, :, None], z[:, None, None])
        self._x, self._y, self._z = weights

    def __call__(self, surface: Callable[..., Volume], *more: Volume) -> Volume:
        """A function of patient coordinates (and of other lattice values) on the lattice."""
        shape = np.broadcast_shapes(*(p.shape for p in self.points))
        return np.broadcast_to(surface(*self.points, *more), shape)

    def part(
        self, surface: Callable[..., Volume], low: Corner, high: Corner, beyond: float
    ) -> Volume:
        """A function on the points in a box of patient coordinates; ``beyond`` outside it."""
        shape = np.broadcast_shapes(*(p.shape for p in self.points))
        out = np.full(shape, beyond, np.float32)
        cuts = []
        for axis in range(3):  # of the array: z, y, x
            k = 2 - axis
            held = (self.points[k] >= low[k]) & (self.points[k] <= high[k])
            hits = np.flatnonzero(held.any(axis=tuple(a for a in range(3) if a != axis)))
            if not hits.size:
                return out
            cuts.append(slice(int(hits[0]), int(hits[-1]) + 1))
        x, y, z = self.points
        here = cuts[0], cuts[1], cuts[2]
        out[here] = surface(x[here], y[here], z[cuts[0]])
        return out

    def reached(self, mask: NDArray[np.bool_]) -> slice:
        """The voxels along y that a mask of lattice points can have a part in."""
        near = (self._y[:, mask.any(axis=(0, 2))] != 0).any(axis=1)
        found = np.flatnonzero(near)
        return slice(int(found[0]), int(found[-1]) + 1) if found.size else slice(0, 0)

    def rows(self, values: Volume, ys: slice = slice(None)) -> Callable[[slice], Volume]:
        """Interpolates along x and y at once, and along z for the slices asked for.

        ``ys`` are the voxels along y that are wanted.
        """
        wide, lines = self._wide(values, self._x), self._y[ys]
        planes = np.empty((len(wide), len(lines), wide.shape[2]), np.float32)
        pieces = list(_pieces(lines))
        flat, missing = planes.reshape(len(planes), -1), np.ones(len(planes), bool)

        def slab(slices: slice) -> Volume:
            weights = self._z[slices]
            used = np.flatnonzero(weights.any(axis=0))
            part = slice(used[0], used[-1] + 1)
            # Planes are made when they are first asked for: often not all are.
            for k in part.start + np.flatnonzero(missing[part]):
                for some, near in pieces:
                    np.matmul(lines[some, near], wide[k, near], out=planes[k, some])
            missing[part] = False
            out = weights[:, part] @ flat[part]
            return np.asarray(out.reshape(len(weights), *planes.shape[1:]))

        return slab

    def _planes(self, values: Volume, ys: slice, xs: slice) -> Volume:
        wide, lines = self._wide(values, self._x[xs]), self._y[ys]
        planes = np.empty((len(wide), len(lines), wide.shape[2]), np.float32)
        for some, near in _pieces(lines):
            np.matmul(lines[some, near], wide[:, near], out=planes[:, some])
        return planes

    @staticmethod
    def _wide(values: Volume, columns: Volume) -> Volume:
        """Interpolated along x."""
        wide = np.empty((*values.shape[:2], len(columns)), np.float32)
        for some, near in _pieces(columns):
            np.matmul(values[:, :, near], columns[some, near].T, out=wide[:, :, some])
        return wide

    def voxels(self, values: Volume, box: Box | None = None) -> Volume:
        """Values at all voxels of the box or of one in it."""
        zs, ys, xs = within(self.box if box is None else box, self.box)
        used = np.flatnonzero(self._z[zs].any(axis=0))
        near = slice(int(used[0]), int(used[-1]) + 1)
        planes = self._planes(values[near], ys, xs)
        weights, flat = self._z[zs, near], planes.reshape(len(planes), -1)
        out = np.empty((len(weights), flat.shape[1]), np.float32)
        for some, held in _pieces(weights):
            np.matmul(weights[some, held], flat[held], out=out[some])
        return out.reshape(-1, *planes.shape[1:])

    def near(self, values: Volume, reach_mm: float = 0.0) -> Box | None:
        """The part of the box that a surface can reach, given its distance; None for nothing."""
        close = values < np.float32(reach_mm)
        parts = []
        for axis, weights in enumerate((self._z, self._y, self._x)):
            others = tuple(a for a in range(3) if a != axis)
            found = np.flatnonzero((weights[:, close.any(axis=others)] != 0).any(axis=1))
            if not found.size:
                return None
            start = self.box[axis].start
            parts.append(slice(start + int(found[0]), start + int(found[-1]) + 1))
        return parts[0], parts[1], parts[2]


def _pieces(weights: Volume) -> Iterator[tuple[slice, slice]]:
    """Runs of voxels and the lattice points with a share in them, for weights mostly zero."""
    first = (weights != 0).argmax(axis=1)
    last = weights.shape[1] - (weights[:, ::-1] != 0).argmax(axis=1)
    count = max(4, round(8 * len(weights) / weights.shape[1]))
    for start in range(0, len(weights), count):
        some = slice(start, min(start + count, len(weights)))
        yield some, slice(int(first[some].min()), int(last[some].max()))


def _catmull_rom(place: NDArray[np.float64], count: int) -> Volume:
    """Weights (voxels, lattice points) of the cubic that passes through the points."""
    base = np.clip(np.floor(place).astype(int), 1, count - 3)
    t = place - base
    rows = np.arange(len(place))
    out = np.zeros((len(place), count), np.float32)
    for offset, weight in (
        (-1, -0.5 * t + t**2 - 0.5 * t**3),
        (0, 1 - 2.5 * t**2 + 1.5 * t**3),
        (1, 0.5 * t + 2 * t**2 - 1.5 * t**3),
        (2, -0.5 * t**2 + 0.5 * t**3),
    ):
        out[rows, base + offset] += weight.astype(np.float32)
    return out
