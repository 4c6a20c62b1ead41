"""Smooth surfaces are asked on a coarse lattice and interpolated to the voxels.

The lattice is tied to the patient, not to the grid, so that every grid sees the same chest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from simcrop_core.phantoms.anatomy_canvas import Box, Canvas

Volume = NDArray[np.float32]


class Lattice:
    """Points every ``step_mm`` around the voxels of a box."""

    def __init__(self, canvas: Canvas, box: Box, step_mm: float) -> None:
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

    def reached(self, mask: NDArray[np.bool_]) -> slice:
        """The voxels along y that a mask of lattice points can have a part in."""
        near = (self._y[:, mask.any(axis=(0, 2))] != 0).any(axis=1)
        found = np.flatnonzero(near)
        return slice(int(found[0]), int(found[-1]) + 1) if found.size else slice(0, 0)

    def rows(self, values: Volume, ys: slice = slice(None)) -> Callable[[slice], Volume]:
        """Interpolates along x and y at once, and along z for the slices asked for.

        ``ys`` are the voxels along y that are wanted.
        """
        wide = np.empty((*values.shape[:2], len(self._x)), np.float32)
        for some, near in _pieces(self._x):
            np.matmul(values[:, :, near], self._x[some, near].T, out=wide[:, :, some])
        lines = self._y[ys]
        planes = np.empty((len(values), len(lines), len(self._x)), np.float32)
        for some, near in _pieces(lines):
            np.matmul(lines[some, near], wide[:, near], out=planes[:, some])
        flat = planes.reshape(len(planes), -1)

        def slab(slices: slice) -> Volume:
            weights = self._z[slices]
            used = np.flatnonzero(weights.any(axis=0))
            part = slice(used[0], used[-1] + 1)
            out = weights[:, part] @ flat[part]
            return np.asarray(out.reshape(len(weights), *planes.shape[1:]))

        return slab

    def voxels(self, values: Volume) -> Volume:
        """Values at all voxels of the box."""
        return self.rows(values)(slice(None))


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
