"""A scan as it is shown: axes along the body's, whatever the file's are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simcrop_core.geometry import Grid, axis_aligned_affine
from simcrop_core.resample import resample_linear
from simcrop_core.volume import CTVolume

#: What is shown beyond the voxels of an oblique scan.
AIR_HU = -1024
#: An oblique scan is shown on a grid of at most this many voxels.
_MOST_VOXELS = 150_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Display:
    """Voxels to show.

    Attributes
    ----------
    hu_XYZ
        Hounsfield units; the scan's own array where its axes run along the body's.
    grid
        Where they lie; axis-aligned.
    """

    hu_XYZ: NDArray[np.int16] | NDArray[np.float32]
    grid: Grid


def display_of(volume: CTVolume) -> Display:
    """The scan itself or, where its axes are oblique, the scan resampled along the body's axes
    (of which a note tells since the scan was read)."""
    if volume.grid.is_axis_aligned:
        return Display(volume.hu_XYZ, volume.grid)
    grid = upright(volume.grid)
    shown, _ = resample_linear(volume.hu_XYZ, volume.grid, grid, fill=AIR_HU)
    return Display(shown, grid)


def upright(grid: Grid) -> Grid:
    """An LPS grid that holds all of ``grid`` at its own spacing, or at a wider one if need be."""
    low, high = grid.bounds_mm()
    world, _ = grid.nearest_axes()
    spacing = np.empty(3)
    spacing[list(world)] = grid.spacing_mm
    extent = high - low
    wider = max(1.0, float(np.prod(extent / spacing) / _MOST_VOXELS) ** (1 / 3))
    spacing = spacing * wider
    shape = np.maximum(1, np.ceil(extent / spacing)).astype(int)
    affine = axis_aligned_affine("LPS", spacing.tolist(), (low + high) / 2, shape.tolist())
    return Grid((int(shape[0]), int(shape[1]), int(shape[2])), affine)


def hu_at(volume: CTVolume, world_mm: ArrayLike) -> float | None:
    """Hounsfield units of the scan's own voxel at a RAS point, or None beyond the scan."""
    point = np.asarray(world_mm, dtype=np.float64)
    if not np.isfinite(point).all() or not volume.grid.contains(point):
        return None
    x, y, z = np.floor(volume.grid.to_voxel(point) + 0.5).astype(int)
    return float(volume.hu_XYZ[x, y, z])


def place_in_words(world_mm: ArrayLike) -> str:
    """A RAS point as people read it: ``"R 31.0  P 12.5  S 210.0 mm"``."""
    parts = []
    for value, (positive, negative) in zip(
        np.asarray(world_mm, dtype=np.float64), (("R", "L"), ("A", "P"), ("S", "I")), strict=True
    ):
        rounded = round(float(value), 1)
        parts.append(f"{positive if rounded >= 0 else negative} {abs(rounded):.1f}")
    return "  ".join(parts) + " mm"
