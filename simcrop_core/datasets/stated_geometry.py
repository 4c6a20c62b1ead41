"""Scans whose headers are not to be trusted, read with the geometry that is known of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from simcrop_core.errors import SimCroPError
from simcrop_core.geometry import Grid, axis_aligned_affine
from simcrop_core.io import read_volume
from simcrop_core.io.checks import check_geometry
from simcrop_core.volume import CTVolume, Note

#: Notes that follow from the header's geometry, which is replaced.
_OF_HEADER = frozenset(
    {
        "forms-disagree",
        "missing-geometry",
        "oblique",
        "partial-chest",
        "sheared",
        "spacing-disagrees",
        "thick-slices",
    }
)

Spacing = tuple[float, float, float]


def read_despite_header(
    path: Path,
    axcodes: str,
    spacing_mm: Spacing,
    *,
    rescale: tuple[float, float] | None = None,
    allow_any_modality: bool = False,
) -> CTVolume:
    """A scan, also one that does not say how the patient lies in it; :func:`with_geometry` then
    puts what is known in place of what its header says.

    Parameters
    ----------
    axcodes, spacing_mm
        Along the stored axes.
    rescale, allow_any_modality
        As :func:`~simcrop_core.io.read_volume`.

    Raises
    ------
    SimCroPError
        As reading a volume does.
    """
    try:
        return read_volume(path, rescale=rescale, allow_any_modality=allow_any_modality)
    except SimCroPError as e:
        if e.code != "missing-geometry":
            raise
    return read_volume(
        path,
        rescale=rescale,
        allow_any_modality=allow_any_modality,
        allow_missing_geometry=True,
        axcodes=axcodes,
        spacing_mm=spacing_mm,
    )


def with_geometry(volume: CTVolume, axcodes: str, spacing_mm: Spacing, whose: str) -> CTVolume:
    """The scan with another geometry than its header's, centred on the origin.

    Parameters
    ----------
    axcodes, spacing_mm
        Along the stored axes.
    whose
        Where they come from, for the note: ``"the metadata's"``.

    Raises
    ------
    SimCroPError
        No scanner makes such a scan.
    """
    affine = axis_aligned_affine(axcodes, spacing_mm, (0, 0, 0), volume.shape)
    grid = Grid(volume.shape, affine)
    check_geometry(grid, volume.source)
    said = volume.grid
    notes = [n for n in volume.notes if n.code not in _OF_HEADER]
    if said.axcodes != grid.axcodes or not np.allclose(said.spacing_mm, grid.spacing_mm, rtol=0.01):
        wrong = " x ".join(f"{s:.3g}" for s in said.spacing_mm)
        notes.append(
            Note(
                "header-not-trusted",
                f"The header says voxels of {wrong} mm, axes to {said.axcodes}; {whose} spacing "
                f"and axes to {axcodes} are used",
            )
        )
    return replace(volume, grid=grid, notes=tuple(notes))
