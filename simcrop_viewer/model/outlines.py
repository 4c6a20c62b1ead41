"""Outlines of chosen patches, as straight lines between the corners of a grid's cells.

Coordinates are those of the mask's array: a cell's index is its middle, so its sides lie half a
cell off. Lines are ``(M, 2, 3)``: where each begins, and how far it goes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Lines = NDArray[np.float64]


def plane_outlines(mask: NDArray[np.bool_], normal: int) -> Lines:
    """Outlines of the chosen cells in each plane across axis ``normal``, in the plane's middle.

    Sides between two chosen cells are left out, so that the outline is that of their union.
    """
    lines = []
    for across in range(3):
        if across == normal:
            continue
        along = 3 - normal - across
        for side in (-1, 1):
            open_side = mask & ~_neighbours(mask, across, side)
            start = np.argwhere(open_side).astype(np.float64)
            start[:, across] += side / 2
            start[:, along] -= 0.5
            lines.append(_with_direction(start, along))
    return np.concatenate(lines)


def solid_outlines(mask: NDArray[np.bool_]) -> Lines:
    """Edges of the solid that the chosen cells make up, for 3D; flat faces stay free of lines."""
    padded = np.pad(mask, 1)
    lines = []
    for along in range(3):
        first, second = (axis for axis in range(3) if axis != along)
        # The four cells that meet in each edge of the grid.
        cells = [
            np.roll(padded, (a, b), axis=(first, second))
            for a, b in ((0, 0), (1, 0), (0, 1), (1, 1))
        ]
        count = np.sum(cells, axis=0)
        across_the_corner = (count == 2) & (cells[0] == cells[3])
        start = np.argwhere((count % 2 == 1) | across_the_corner).astype(np.float64) - 1
        start -= 0.5
        lines.append(_with_direction(start, along))
    return np.concatenate(lines)


def _neighbours(mask: NDArray[np.bool_], axis: int, side: int) -> NDArray[np.bool_]:
    """Whether the next cell to one side is chosen; there is none beyond the grid."""
    moved = np.zeros_like(mask)
    ahead: list[slice] = [slice(None)] * 3
    behind: list[slice] = [slice(None)] * 3
    ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
    if side > 0:
        moved[tuple(behind)] = mask[tuple(ahead)]
    else:
        moved[tuple(ahead)] = mask[tuple(behind)]
    return moved


def _with_direction(start: NDArray[np.float64], along: int) -> Lines:
    direction = np.zeros_like(start)
    direction[:, along] = 1.0
    return np.stack([start, direction], axis=1)
