"""Masks: reading them, and bringing them onto the scan they belong to."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcrop_core.errors import SimCroPError
from simcrop_core.geometry import Grid
from simcrop_core.io.checks import check_geometry
from simcrop_core.io.guard import Limits
from simcrop_core.io.hounsfield import Stored
from simcrop_core.io.read import read_stored
from simcrop_core.io.sniff import sniff
from simcrop_core.io.stated import Stated

#: Two grids are the same where no voxel lies further apart than this share of a voxel.
_SAME = 0.05


def read_labels(
    path: str | PathLike[str], *, limits: Limits | None = None
) -> tuple[NDArray[Any], Grid]:
    """Read a mask: NIfTI, NRRD or MetaImage.

    Returns
    -------
    labels_XYZ
        int16, or int32 where the file's numbers need it; the file's axes; read-only.
    grid
        Its geometry.

    Raises
    ------
    SimCroPError
        ``not-labels`` where values are not whole numbers, else for every fault of the file.
    """
    file = Path(path)
    with np.errstate(all="ignore"):  # impossible numbers are refused below, in a sentence
        stored = _read(file, Stated(limits=limits or Limits()))
        check_geometry(stored.grid, file)
        values = stored.values_XYZ
        if stored.buffer.nonfinite:
            raise not_labels(file)
        if values.dtype != np.int16:
            values = _whole(values, file)
    values.setflags(write=False)
    return values, stored.grid


def _read(path: Path, stated: Stated) -> Stored:
    found = sniff(path)
    if found.format not in ("DICOM", "NPZ"):
        return read_stored(path, found, stated)
    raise SimCroPError(
        f"Masks are not read from {found.format} files",
        code="not-labels",
        remedy="Convert the mask to NIfTI, NRRD or MetaImage",
        path=path,
    )


def _whole(values: NDArray[Any], path: Path) -> NDArray[np.int32]:
    # float32 counts without gaps up to 2^24; the buffer holds larger numbers only rounded.
    labels = np.asarray(values.astype(np.int32, order="K"))
    if abs(values).max() > 2**24 or (labels != values).any():
        raise not_labels(path)
    return labels


def not_labels(path: Path) -> SimCroPError:
    """The refusal of values that are no labels."""
    return SimCroPError(
        "The values are not whole numbers, so they are no labels",
        code="not-labels",
        remedy="Choose the mask, not an image or a map of probabilities",
        path=path,
    )


def labels_on(
    grid: Grid,
    labels_XYZ: NDArray[Any],
    labels_grid: Grid,
    *,
    resample: bool = False,
    path: str | PathLike[str] | None = None,
) -> NDArray[Any]:
    """Bring a mask onto the voxels of ``grid``.

    A mask whose voxels are the same ones in another order (an axis flipped or exchanged) is put
    in order exactly. Any other is refused, unless resampling was asked for: then each voxel
    takes the label of the mask's voxel it lies in, and 0 beyond the mask.

    Parameters
    ----------
    grid
        The scan's.
    labels_XYZ, labels_grid
        The mask and its own grid.
    resample
        Whether nearest-neighbour resampling is wanted.
    path
        The mask's file, for the message.

    Raises
    ------
    SimCroPError
        ``mask-mismatch``: it does not fit and resampling was not asked for; ``mask-elsewhere``:
        mask and scan have no place in common.
    """
    if labels_XYZ.shape != labels_grid.shape:
        raise ValueError(f"Labels {labels_XYZ.shape} do not fit their grid {labels_grid.shape}.")
    tolerance_mm = _SAME * min(grid.spacing_mm)
    if grid.matches(labels_grid, tolerance_mm):
        return labels_XYZ
    reordered = _reordered(grid, labels_XYZ, labels_grid, tolerance_mm)
    if reordered is not None:
        return reordered
    if not resample:
        raise SimCroPError(
            f"The mask does not lie on the scan's voxels: mask {labels_grid!r}, scan {grid!r}",
            code="mask-mismatch",
            remedy="Check that it belongs to this scan; if it does, ask for nearest-neighbour "
            "resampling",
            path=path,
        )
    nearest, touched = _nearest(grid, labels_XYZ, labels_grid)
    if not touched:
        raise SimCroPError(
            "The mask and the scan have no place in common",
            code="mask-elsewhere",
            remedy="Choose the mask that belongs to this scan",
            path=path,
        )
    return nearest


def _reordered(
    grid: Grid, labels_XYZ: NDArray[Any], labels_grid: Grid, tolerance_mm: float
) -> NDArray[Any] | None:
    """The mask as a view with flipped and exchanged axes, if that makes it fit."""
    world, signs = grid.nearest_axes()
    own_world, own_signs = labels_grid.nearest_axes()
    order = [own_world.index(axis) for axis in world]
    flips = [signs[a] != own_signs[order[a]] for a in range(3)]
    directions = np.array(labels_grid.affine[:3, :3][:, order])
    start = np.zeros(3)
    for axis, flip in enumerate(flips):
        if flip:
            start[order[axis]] = labels_grid.shape[order[axis]] - 1
            directions[:, axis] *= -1
    affine = np.eye(4)
    affine[:3, :3] = directions
    affine[:3, 3] = labels_grid.to_world(start)
    shape = tuple(labels_grid.shape[a] for a in order)
    if not Grid(shape, affine).matches(grid, tolerance_mm):  # type: ignore[arg-type]
        return None
    steps = tuple(slice(None, None, -1 if flip else 1) for flip in flips)
    return np.asarray(labels_XYZ.transpose(order)[steps])


def _nearest(grid: Grid, labels_XYZ: NDArray[Any], labels_grid: Grid) -> tuple[NDArray[Any], bool]:
    """Nearest neighbours, one plane of the scan at a time; whether any voxel was within."""
    out = np.zeros(grid.shape, labels_XYZ.dtype, order="F")
    to_labels = np.linalg.inv(labels_grid.affine) @ grid.affine
    x, y = np.meshgrid(np.arange(grid.shape[0]), np.arange(grid.shape[1]), indexing="ij")
    touched = False
    for z in range(grid.shape[2]):
        inside = np.ones(grid.shape[:2], dtype=bool)
        index = []
        for axis in range(3):
            row = to_labels[axis]
            at = np.floor(row[0] * x + row[1] * y + (row[2] * z + row[3]) + 0.5).astype(np.int64)
            inside &= (at >= 0) & (at < labels_grid.shape[axis])
            index.append(at)
        if inside.any():
            touched = True
            out[:, :, z][inside] = labels_XYZ[tuple(i[inside] for i in index)]
    return out, touched
