"""Regions on cells: small, and exact under every crop by whole cells."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcrop_core.store.settings import Shape


def occupancy(mask_XYZ: NDArray[np.bool_], cell: Shape) -> NDArray[Any]:
    """How many voxels of each cell a mask covers.

    Parameters
    ----------
    mask_XYZ
        bool; its sizes are multiples of ``cell``.
    cell
        Voxels of a cell.

    Returns
    -------
    uint8 array, or uint16 where a cell has more than 255 voxels
        One number a cell.
    """
    x, y, z = mask_XYZ.shape
    a, b, c = cell
    kind = count_dtype(cell)
    # One axis at a time, the slowest first: whole planes are added at once.
    counts = mask_XYZ.astype(np.uint8).reshape(x // a, a, y * z).sum(axis=1, dtype=kind)
    counts = counts.reshape(x // a, y // b, b, z).sum(axis=2, dtype=kind)
    return np.asarray(counts.reshape(x // a, y // b, z // c, c).sum(axis=3, dtype=kind))


def count_dtype(cell: Shape) -> np.dtype[Any]:
    """The type that counts the voxels of a cell."""
    return np.min_scalar_type(int(np.prod(cell)))
