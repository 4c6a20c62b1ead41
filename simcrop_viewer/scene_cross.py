"""The crosshair of a pane, and the frame around the best patch, as one layer of lines."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from napari.layers import Vectors
from numpy.typing import NDArray

from simcrop_core.patches import Box
from simcrop_viewer import layers

_CROSS_COLOR = "#ffd54f"
_FRAME_COLOR, _FRAME_RINGS = "#ffffff", 6
#: The crosshair is open around its middle, so that it hides nothing there.
_GAP_MM = 8.0


def cross_layer() -> Vectors:
    """The layer, still without a place."""
    return layers.lines_layer("Crosshair", _CROSS_COLOR, 1.0, opacity=0.7)


def place_cross(
    cross: Vectors, bounds_mm: NDArray[np.float64], order: tuple[int, int, int] | None
) -> None:
    """Suit the layer to a scan: lines in millimetres, about a pixel wide; in 2D they lie in
    whichever plane is shown.

    Parameters
    ----------
    bounds_mm
        ``(2, 3)``, the scan's least and greatest millimetres in napari's axes.
    order
        The pane's axes, the one stepped through first; None in 3D, where there is no cross.
    """
    low, high = bounds_mm
    cross.edge_width = float((high - low).max()) / 300
    if order is None:
        return
    normal, *across = order
    # Rows for the cross, then for the frame, all within the scan: what lies elsewhere would be a
    # part of the whole that a view shows.
    rows, is_new = np.zeros((4 + 4 * _FRAME_RINGS, 2, 3)), len(cross.data) == 0
    rows[:, 0, across] = bounds_mm[:, across].mean(axis=0)
    cross.data = rows
    if is_new:  # colours are set once for all
        cross.edge_color = [_CROSS_COLOR] * 4 + [_FRAME_COLOR] * (4 * _FRAME_RINGS)
    scale, translate = np.ones(3), np.zeros(3)
    scale[normal] = 4 * (high - low)[normal]  # every plane is nearest to the lines'
    translate[normal] = bounds_mm[:, normal].mean()
    cross.scale, cross.translate = scale, translate


def draw_cross(
    cross: Vectors,
    bounds_mm: NDArray[np.float64],
    position_mm: NDArray[np.float64],
    across: tuple[int, ...],
    frame_mm: Box | None,
) -> None:
    """Lines through a position along two axes, to the ends of the scan, and a frame if any."""
    low, high = bounds_mm
    lines = []
    for axis in across:
        for begin, end in (
            (low[axis], position_mm[axis] - _GAP_MM),
            (position_mm[axis] + _GAP_MM, high[axis]),
        ):
            start, direction = np.zeros((2, 3))
            for other in across:
                start[other] = position_mm[other]
            start[axis], direction[axis] = begin, max(0.0, end - begin)
            lines.append([start, direction])
    if frame_mm is not None:
        lines += _frame(frame_mm, across, float(cross.edge_width))
    layers.set_lines(cross, np.array(lines))


def _frame(
    frame_mm: Box, across: tuple[int, ...], width: float
) -> Iterator[list[NDArray[np.float64]]]:
    """The frame's sides in the pane's own plane: rings of lines, one around the other, since all
    lines of a layer are of one width."""
    box = np.sort(layers.to_napari(np.array(frame_mm)), axis=0)
    for ring in range(_FRAME_RINGS):
        grown = ring * 0.9 * width
        corners = box + np.array([[-grown], [grown]])
        for axis, other in (across, across[::-1]):
            for side in corners[:, other]:
                start, direction = np.zeros((2, 3))
                start[axis], start[other] = corners[0, axis], side
                direction[axis] = corners[1, axis] - corners[0, axis]
                yield [start, direction]
