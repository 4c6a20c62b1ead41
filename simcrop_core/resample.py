"""Trilinear resampling from one grid onto another, exact in geometry and small in memory.

A point takes part if it lies within the source's voxels, that is up to half a voxel beyond the
outermost centres; between the outermost centre and that edge the outermost value holds.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simcrop_core.geometry import FloatArray, Grid

Array = NDArray[Any]

# Slabs that a thread works on at a time: 112, the paper's depth, make four rounds.
_BLOCK = 28


def resample_linear(
    values_XYZ: Array,
    source: Grid,
    target: Grid,
    *,
    fill: float | None,
    window: tuple[float, float] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
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
    # target voxel -> source voxel
    matrix = np.linalg.inv(source.affine) @ target.affine
    axes = _aligned_axes(matrix, target.shape)
    if axes is None:
        return _resample_oblique(values_XYZ, matrix, target.shape, fill, window)
    return _resample_aligned(values_XYZ, matrix, axes, target.shape, fill, window)


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


def _resample_aligned(
    values_XYZ: Array,
    matrix: FloatArray,
    axes: list[int],
    shape: tuple[int, int, int],
    fill: float | None,
    window: tuple[float, float] | None,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    # Source axes in the order of memory: planes of the slowest are contiguous.
    order = sorted(range(3), key=lambda axis: -abs(values_XYZ.strides[axis]))
    planes = values_XYZ.transpose(order)
    target_of = [axes.index(axis) for axis in order]
    taps = [
        _taps(matrix, ours, theirs, values_XYZ.shape[ours], shape[theirs])
        for ours, theirs in zip(order, target_of, strict=True)
    ]
    slab_taps, row, column = taps
    # Only the part of a plane that is needed is touched.
    rows = slice(int(row.lower.min()), int(row.upper.max()) + 1)
    columns = slice(int(column.lower.min()), int(column.upper.max()) + 1)
    row_low, row_high = row.lower - rows.start, row.upper - rows.start
    column_low, column_high = column.lower - columns.start, column.upper - columns.start
    row_weight = row.weight[:, None]

    out = np.empty(shape, dtype=np.float32)
    out_slabs = out.transpose(target_of)
    blank = 0.0 if fill is None else float(_windowed(np.array([fill], np.float32), window)[0])

    def block(start: int) -> None:
        """A few slabs, put together in cache before they are written across the output."""
        stop = min(start + _BLOCK, len(slab_taps.lower))
        mixed = np.empty((stop - start, len(row_low), len(column_low)), dtype=np.float32)
        for index in range(start, stop):
            plane = planes[slab_taps.lower[index], rows, columns].astype(np.float32)
            weight = slab_taps.weight[index]
            if weight > 0:
                above = planes[slab_taps.upper[index], rows, columns].astype(np.float32)
                above -= plane
                above *= weight
                plane += above
            line = plane.take(row_low, axis=0)
            step = plane.take(row_high, axis=0)
            step -= line
            step *= row_weight
            line += step
            # Columns run across memory: contiguous after a transposition.
            turned = np.ascontiguousarray(line.T)
            low = turned.take(column_low, axis=0)
            high = turned.take(column_high, axis=0)
            high -= low
            high *= column.weight[:, None]
            low += high
            mixed[index - start] = _windowed(low, window).T
        if fill is not None:
            for axis, tap in enumerate(taps):
                part = tap.inside[start:stop] if axis == 0 else tap.inside
                if not part.all():
                    mixed[(slice(None),) * axis + (~part,)] = blank
        out_slabs[start:stop] = mixed

    _in_threads(lambda n: block(n * _BLOCK), -(-len(slab_taps.lower) // _BLOCK))
    inside = np.ones(shape, dtype=bool)
    for tap, axis in zip(taps, target_of, strict=True):
        inside &= tap.inside.reshape([-1 if other == axis else 1 for other in range(3)])
    return out, inside


def _resample_oblique(
    values_XYZ: Array,
    matrix: FloatArray,
    shape: tuple[int, int, int],
    fill: float | None,
    window: tuple[float, float] | None,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    from scipy.ndimage import affine_transform

    out = np.empty(shape, dtype=np.float32)
    inside_out = np.empty(shape, dtype=bool)
    x, y = (np.arange(n, dtype=np.float64) for n in shape[:2])

    def slab(k: int) -> None:
        plane = affine_transform(
            values_XYZ,
            matrix[:3, :3],
            offset=matrix[:3, 3] + matrix[:3, 2] * k,
            output_shape=(shape[0], shape[1], 1),
            output=np.float32,
            order=1,
            mode="nearest",
        )[:, :, 0]
        inside_out[:, :, k] = _inside(_plane_coordinates(matrix, x, y, float(k)), values_XYZ.shape)
        if fill is not None:
            plane[~inside_out[:, :, k]] = fill
        out[:, :, k] = _windowed(plane, window)

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
