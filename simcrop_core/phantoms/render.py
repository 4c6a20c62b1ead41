"""Renders a phantom: the chest, then its findings, then the scanner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from simcrop_core.geometry import Grid
from simcrop_core.phantoms.anatomy import Anatomy
from simcrop_core.phantoms.anatomy_build import build_anatomy
from simcrop_core.phantoms.plan import PhantomPlan
from simcrop_core.phantoms.scanner import AIR_HU, field, scan
from simcrop_core.volume import CTVolume, Note

T = TypeVar("T", bound=np.generic)
Slices = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class Rendered:
    """A phantom on a grid.

    Attributes
    ----------
    volume
        The scan, int16, with a note that it is artificial.
    structures_XYZ
        uint8 labels, :data:`~simcrop_core.phantoms.anatomy_labels.STRUCTURES`.
    finding_masks
        One mask for each finding of the plan, in order; empty where it lies outside the scan.
    anatomy
        The drawn chest with its findings, before noise, on the slices that the scan holds.
    drawn
        These slices, as a box of the grid.
    """

    volume: CTVolume
    structures_XYZ: NDArray[np.uint8]
    finding_masks: tuple[NDArray[np.bool_], ...]
    anatomy: Anatomy
    drawn: Slices


def render(plan: PhantomPlan, grid: Grid | None = None) -> Rendered:
    """Draw a phantom on its scanner's own grid, or on any axis-aligned one.

    Outside the scanner's field of view there is air, as ``prepare`` pads a scan.
    """
    from simcrop_core.phantoms.findings import draw_finding  # findings need the anatomy's types

    grid = plan.scanner.grid if grid is None else grid
    drawn = drawn_box(plan, grid)
    part = grid.window([cut.start for cut in drawn], [cut.stop - cut.start for cut in drawn])
    part = grid if part.shape == grid.shape else part
    anatomy = build_anatomy(plan, part)
    masks = tuple(draw_finding(anatomy, f) for f in plan.findings)
    values = scan(anatomy.hu_XYZ, plan, part)
    seen = field(plan, part)
    for array in (*masks, anatomy.labels_XYZ, anatomy.lobes_XYZ):
        seen.clear(array)
    note = Note("artificial", "This is an artificial chest, drawn by the phantom generator.")
    whole = _placed(values, drawn, grid.shape, int(AIR_HU))
    volume = CTVolume(whole, grid, format="array", notes=(note,))
    labels = _placed(anatomy.labels_XYZ, drawn, grid.shape, 0)
    masks = tuple(_placed(mask, drawn, grid.shape, 0) for mask in masks)
    return Rendered(volume, labels, masks, anatomy, drawn)


def drawn_box(plan: PhantomPlan, grid: Grid) -> Slices:
    """The slices of a grid that the scan holds, whole planes; one where it holds none."""
    up = grid.nearest_axes()[0].index(2)
    cut = field(plan, grid).box[up]
    cut = cut if cut.start < cut.stop else slice(0, 1)
    i, j, k = (cut if axis == up else slice(0, n) for axis, n in enumerate(grid.shape))
    return i, j, k


def _placed(part: NDArray[T], box: Slices, shape: tuple[int, int, int], fill: int) -> NDArray[T]:
    """An array of a grid of which a box is given, in the same order of memory."""
    if part.shape == shape:
        return part
    order = np.argsort([-abs(step) for step in part.strides])
    size = [shape[axis] for axis in order]
    # Zeros cost nothing where nobody looks.
    out = np.full(size, fill, part.dtype) if fill else np.zeros(size, part.dtype)
    out = out.transpose(np.argsort(order))
    out[box] = part
    return out
