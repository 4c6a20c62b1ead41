"""Trilinear resampling from one grid onto another, exact in geometry and small in memory.

A point takes part if it lies within the source's voxels, that is up to half a voxel beyond the
outermost centres; between the outermost centre and that edge the outermost value holds.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from simcrop_core.geometry import FloatArray, Grid

Array = NDArray[Any]
Resampled = tuple[NDArray[np.float32], NDArray[np.bool_]]

# Slabs that a thread works on at a time: 112, the paper's depth, make four rounds.
_BLOCK = 28


def resample_linear(
    values_XYZ: Array,
    source: Grid,
    target: Grid,
    *,
    fill: float | None,
    window: tuple[float, float] | None = None,
) -> Resampled:
    """Trilinear values on ``target``.

    Parameters
    ----------
    values_XYZ
        The source's values; any real type, any memory order.
    source, target
        Where the values lie and where they are wanted.
    fill
        Value beyond the source, or None to repeat its outermost voxels.
    window
        ``(low, high)``: clip to it and map it to [-1, 1].

    Returns
    -------
    tuple of float32 array and bool array, both of ``target.shape``
        The values, and which target voxels lie within the source.
    """
    return begin_resampling(values_XYZ, source, target, fill=fill, window=window).finish()


class Resampling(Protocol):
    """A resampling that may begin before all of its source's values are there."""

    def advance(self, filled: int) -> None:
        """Do what can be done once the first ``filled`` values, in order of memory, are there;
        from one thread at a time."""

    def finish(self) -> Resampled:
        """Do all that is left, in threads; as `resample_linear`."""


def begin_resampling(
    values_XYZ: Array,
    source: Grid,
    target: Grid,
    *,
    fill: float | None,
    window: tuple[float, float] | None = None,
) -> Resampling:
    """`resample_linear`, of values that may still be on their way into ``values_XYZ``."""
    # target voxel -> source voxel
    matrix = np.linalg.inv(source.affine) @ target.affine
    axes = _aligned_axes(matrix, target.shape)
    if axes is None:
        return _ObliqueResampling(values_XYZ, matrix, target.shape, fill, window)
    return _AlignedResampling(values_XYZ, matrix, axes, target.shape, fill, window)


def _aligned_axes(matrix: FloatArray, target_shape: tuple[int, int, int]) -> list[int] | None:
    """For each target axis the one source axis it runs along, or None if any runs across."""
    linear = matrix[:3, :3]
    axes = [int(np.argmax(np.abs(linear[:, axis]))) for axis in range(3)]
    if len(set(axes)) != 3:
        return None
    across = np.array(linear)
    across[axes, range(3)] = 0
    drift_voxels = np.abs(across) * np.array(target_shape)
    # Beside an edge of 1000 HU this much drift changes half a Hounsfield unit.
    return axes if drift_voxels.max() < 5e-4 else None


class _Taps(NamedTuple):
    """Where the samples of one target axis come from."""

    lower: NDArray[np.intp]
    upper: NDArray[np.intp]
    weight: NDArray[np.float32]  # of the upper neighbour
    inside: NDArray[np.bool_]  # whether the source covers the sample


def _taps(
    matrix: FloatArray, source_axis: int, target_axis: int, n_source: int, n_target: int
) -> _Taps:
    at = matrix[source_axis, target_axis] * np.arange(n_target) + matrix[source_axis, 3]
    # Sub-micrometre noise of the inverse must not blur voxels that coincide.
    at = np.where(np.abs(at - np.rint(at)) < 1e-6, np.rint(at), at)
    inside = (at >= -0.5) & (at < n_source - 0.5)
    at = np.clip(at, 0, n_source - 1)
    lower = np.minimum(np.floor(at).astype(np.intp), max(n_source - 2, 0))
    upper = np.minimum(lower + 1, n_source - 1)
    return _Taps(lower, upper, (at - lower).astype(np.float32), inside)


class _AlignedResampling:
    """Axes that run along each other: a slab of the target needs two planes of the source."""

    def __init__(
        self,
        values_XYZ: Array,
        matrix: FloatArray,
        axes: list[int],
        shape: tuple[int, int, int],
        fill: float | None,
        window: tuple[float, float] | None,
    ) -> None:
        # Source axes in the order of memory: planes of the slowest are contiguous.
        order = sorted(range(3), key=lambda axis: -abs(values_XYZ.strides[axis]))
        target_of = [axes.index(axis) for axis in order]
        self.taps = [
            _taps(matrix, ours, theirs, values_XYZ.shape[ours], shape[theirs])
            for ours, theirs in zip(order, target_of, strict=True)
        ]
        slab, row, column = self.taps
        # Only the part of a plane that is needed is touched.
        rows = slice(int(row.lower.min()), int(row.upper.max()) + 1)
        columns = slice(int(column.lower.min()), int(column.upper.max()) + 1)
        self.planes = values_XYZ.transpose(order)[:, rows, columns]
        self.row_low, self.row_high = row.lower - rows.start, row.upper - rows.start
        self.column_low = column.lower - columns.start
        self.column_high = column.upper - columns.start
        self.window = window
        self.blank: float | None = None
        if fill is not None:
            self.blank = float(_windowed(np.array([fill], np.float32), window)[0])
        self.out = np.empty(shape, dtype=np.float32)
        self.out_slabs = self.out.transpose(target_of)
        self.inside = np.ones(shape, dtype=bool)
        for tap, axis in zip(self.taps, target_of, strict=True):
            self.inside &= tap.inside.reshape([-1 if other == axis else 1 for other in range(3)])
        self._plane_voxels = values_XYZ.size // len(self.planes)
        # Slabs in the order in which their planes lie in memory.
        slabs = range(len(slab.lower))[:: 1 if slab.lower[0] <= slab.lower[-1] else -1]
        self._blocks = deque(
            _Block(self, slabs[start : start + _BLOCK]) for start in range(0, len(slabs), _BLOCK)
        )

    def advance(self, filled: int) -> None:
        planes = filled // self._plane_voxels
        while self._blocks and self._blocks[0].advance(planes):
            self._blocks.popleft()

    def finish(self) -> Resampled:
        _in_threads(lambda n: self._blocks[n].advance(len(self.planes)), len(self._blocks))
        return self.out, self.inside


class _Scratch(NamedTuple):
    """Memory for one slab at a time, in cache; rows and columns of source (RC) and target (HW)."""

    plane_RC: NDArray[np.float32]
    above_RC: NDArray[np.float32]
    line_HC: NDArray[np.float32]
    step_HC: NDArray[np.float32]
    turned_CH: NDArray[np.float32]
    high_WH: NDArray[np.float32]


class _Block:
    """A few slabs, put together in cache before they are written across the output."""

    def __init__(self, whole: _AlignedResampling, slabs: Sequence[int]) -> None:
        self._whole = whole
        self._left = deque(slabs)
        self._first, self._count = min(slabs), len(slabs)
        self._scratch: _Scratch | None = None
        self._mixed_SWH: NDArray[np.float32]

    def advance(self, planes: int) -> bool:
        """Make the slabs that need only the first ``planes`` planes; whether all are made."""
        slab = self._whole.taps[0]
        while self._left and slab.upper[self._left[0]] < planes:
            if self._scratch is None:
                self._scratch = self._allocated()
            index = self._left.popleft()
            if self._whole.blank is None or slab.inside[index]:
                self._make(index, self._mixed_SWH[index - self._first], self._scratch)
        if not self._left and self._scratch is not None:
            self._write()
            self._scratch = None
            del self._mixed_SWH
        return not self._left

    def _allocated(self) -> _Scratch:
        whole = self._whole
        r, c = whole.planes.shape[1:]
        h, w = len(whole.row_low), len(whole.column_low)
        self._mixed_SWH = np.empty((self._count, w, h), np.float32)
        shapes = ((r, c), (r, c), (h, c), (h, c), (c, h), (w, h))
        return _Scratch(*(np.empty(shape, np.float32) for shape in shapes))

    def _make(self, index: int, low_WH: NDArray[np.float32], scratch: _Scratch) -> None:
        whole = self._whole
        slab, row, column = whole.taps
        plane, above, line, step, turned, high_WH = scratch
        np.copyto(plane, whole.planes[slab.lower[index]], casting="unsafe")
        weight = slab.weight[index]
        if weight > 0:
            np.copyto(above, whole.planes[slab.upper[index]], casting="unsafe")
            above -= plane
            above *= weight
            plane += above
        # All indices are valid: "clip" only spares the copy that a refusal would need.
        plane.take(whole.row_low, axis=0, out=line, mode="clip")
        plane.take(whole.row_high, axis=0, out=step, mode="clip")
        step -= line
        step *= row.weight[:, None]
        line += step
        # Columns run across memory: contiguous after a transposition.
        np.copyto(turned, line.T)
        turned.take(whole.column_low, axis=0, out=low_WH, mode="clip")
        turned.take(whole.column_high, axis=0, out=high_WH, mode="clip")
        high_WH -= low_WH
        high_WH *= column.weight[:, None]
        low_WH += high_WH
        _windowed(low_WH, whole.window)

    def _write(self) -> None:
        whole, mixed_SWH = self._whole, self._mixed_SWH
        slabs = slice(self._first, self._first + self._count)
        if whole.blank is not None:
            slab, row, column = whole.taps
            for axis, inside in enumerate((slab.inside[slabs], column.inside, row.inside)):
                if not inside.all():
                    mixed_SWH[(slice(None),) * axis + (~inside,)] = whole.blank
        whole.out_slabs[slabs] = mixed_SWH.swapaxes(1, 2)


class _ObliqueResampling:
    """Axes that run across each other: everything waits for the last value."""

    def __init__(
        self,
        values_XYZ: Array,
        matrix: FloatArray,
        shape: tuple[int, int, int],
        fill: float | None,
        window: tuple[float, float] | None,
    ) -> None:
        self._values_XYZ, self._matrix, self._shape = values_XYZ, matrix, shape
        self._fill, self._window = fill, window

    def advance(self, filled: int) -> None:
        pass

    def finish(self) -> Resampled:
        from scipy.ndimage import affine_transform

        shape, matrix, fill = self._shape, self._matrix, self._fill
        out = np.empty(shape, dtype=np.float32)
        inside_out = np.empty(shape, dtype=bool)
        x, y = (np.arange(n, dtype=np.float64) for n in shape[:2])

        def slab(k: int) -> None:
            plane = affine_transform(
                self._values_XYZ,
                matrix[:3, :3],
                offset=matrix[:3, 3] + matrix[:3, 2] * k,
                output_shape=(shape[0], shape[1], 1),
                output=np.float32,
                order=1,
                mode="nearest",
            )[:, :, 0]
            coordinates = _plane_coordinates(matrix, x, y, float(k))
            inside_out[:, :, k] = _inside(coordinates, self._values_XYZ.shape)
            if fill is not None:
                plane[~inside_out[:, :, k]] = fill
            out[:, :, k] = _windowed(plane, self._window)

        _in_threads(slab, shape[2])
        return out, inside_out


def _plane_coordinates(
    matrix: FloatArray, x: FloatArray, y: FloatArray, k: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Source voxel coordinates of the target plane ``(x, y, k)``, each ``(len(x), len(y))``."""
    a, b, c = (
        row[0] * x[:, None] + row[1] * y[None, :] + (row[2] * k + row[3]) for row in matrix[:3]
    )
    return a, b, c


def _inside(
    coordinates: tuple[FloatArray, FloatArray, FloatArray], shape: tuple[int, ...]
) -> NDArray[np.bool_]:
    within = np.ones(coordinates[0].shape, dtype=bool)
    for at, n in zip(coordinates, shape, strict=True):
        # A millionth of a voxel of slack: rounding must not open seams at the edge.
        within &= (at >= -0.5 - 1e-6) & (at < n - 0.5 + 1e-6)
    return within


def _windowed(
    values: NDArray[np.float32], window: tuple[float, float] | None
) -> NDArray[np.float32]:
    if window is None:
        return values
    low, high = window
    np.clip(values, low, high, out=values)
    values -= (low + high) / 2
    values *= 2 / (high - low)
    return values


def _in_threads(slab: Any, count: int) -> None:
    """Run ``slab(0..count-1)``; NumPy and SciPy release the lock inside."""
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for _ in pool.map(slab, range(count)):
            pass
