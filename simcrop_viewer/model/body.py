"""Which part of a scan is the patient, roughly: to leave the air around out of statistics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simcrop_core.geometry import Grid
from simcrop_viewer.model.display import Display

#: Between air and fat, noise and partial volume included.
_BODY_HU = -300
#: The body is looked for on voxels of about this size: its border need not be sharper.
_STEP_MM = 4.0


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """The patient with what is inside, lungs included, on a coarse grid of the scan's voxels.

    Attributes
    ----------
    mask_XYZ, grid
        Every so many-th of the scan's voxels.
    scan
        The scan's own grid.
    """

    mask_XYZ: NDArray[np.bool_]
    grid: Grid
    scan: Grid

    def holds(self, world_N3: ArrayLike) -> NDArray[np.bool_]:
        """Whether RAS points lie in the body, ``(N,)``; none does beyond the scan."""
        voxel = np.floor(self.grid.to_voxel(world_N3) + 0.5).astype(int)
        near = np.clip(voxel, 0, np.array(self.grid.shape) - 1)
        own = np.floor(self.scan.to_voxel(world_N3) + 0.5)
        there = ((own >= 0) & (own < np.array(self.scan.shape))).all(axis=-1)
        return np.asarray(there & self.mask_XYZ[tuple(np.moveaxis(near, -1, 0))])


def body_of(display: Display) -> Body:
    """The largest connected thing denser than air, with all that it encloses in axial planes.

    A table or clothes that do not touch the body in the coarse picture are left out.
    """
    from scipy.ndimage import binary_fill_holes, label

    steps = [max(1, round(_STEP_MM / s)) for s in display.grid.spacing_mm]
    dense = display.hu_XYZ[tuple(slice(None, None, step) for step in steps)] > _BODY_HU
    affine = np.array(display.grid.affine)
    affine[:3, :3] = affine[:3, :3] * steps
    x, y, z = dense.shape
    grid = Grid((x, y, z), affine)
    labels, count = label(dense)
    if count:
        largest = np.bincount(labels.ravel())[1:].argmax() + 1
        dense = labels == largest
    world, _ = grid.nearest_axes()
    up = world.index(2)
    planes = np.moveaxis(dense, up, 0)
    filled = np.stack([binary_fill_holes(plane) for plane in planes])
    return Body(np.moveaxis(filled, 0, up), grid, display.grid)
