"""Renders a phantom: the chest, then its findings, then the scanner."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simcrop_core.geometry import Grid
from simcrop_core.phantoms.anatomy import Anatomy
from simcrop_core.phantoms.anatomy_build import build_anatomy
from simcrop_core.phantoms.plan import PhantomPlan
from simcrop_core.phantoms.scanner import field, scan
from simcrop_core.volume import CTVolume, Note


@dataclass(frozen=True, eq=False)
class Rendered:
    """A phantom on a grid.

    Attributes
    ----------
    volume
        The scan, int16, with a note that it is artificial.
    structures_XYZ
        uint8 labels, :data:`~simcrop_core.phantoms.anatomy.STRUCTURES`.
    finding_masks
        One mask for each finding of the plan, in order; empty where it lies outside the scan.
    anatomy
        The drawn chest with its findings, before noise.
    """

    volume: CTVolume
    structures_XYZ: NDArray[np.uint8]
    finding_masks: tuple[NDArray[np.bool_], ...]
    anatomy: Anatomy


def render(plan: PhantomPlan, grid: Grid | None = None) -> Rendered:
    """Draw a phantom on its scanner's own grid, or on any axis-aligned one.

    Outside the scanner's field of view there is air, as ``prepare`` pads a scan.
    """
    from simcrop_core.phantoms.findings import draw_finding  # findings need the anatomy's types

    grid = plan.scanner.grid if grid is None else grid
    anatomy = build_anatomy(plan, grid)
    masks = tuple(draw_finding(anatomy, f) for f in plan.findings)
    values = scan(anatomy.hu_XYZ, plan, grid)
    seen = field(plan, grid)
    for array in (*masks, anatomy.labels_XYZ, anatomy.lobes_XYZ):
        seen.clear(array)
    note = Note("artificial", "This is an artificial chest, drawn by the phantom generator.")
    volume = CTVolume(values, grid, format="array", notes=(note,))
    return Rendered(volume, np.asarray(anatomy.labels_XYZ), masks, anatomy)
