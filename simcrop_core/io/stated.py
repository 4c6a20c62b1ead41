"""What the person states or permits where a file is silent, and the geometry built from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simcrop_core.errors import SimCroPError
from simcrop_core.geometry import Grid, axis_aligned_affine
from simcrop_core.io.guard import Limits
from simcrop_core.volume import Note


@dataclass(frozen=True, slots=True)
class Stated:
    """The options of `read_volume`, checked for being possible at all.

    Attributes
    ----------
    spacing_mm
        Millimetres between voxels along the array's axes as stored, where the file lacks them.
    axcodes
        Body direction in which each stored axis grows (``"LPS"``), where the file lacks it.
    rescale
        ``(slope, intercept)`` used instead of what the file says.
    allow_missing_geometry
        Read a file that does not say how the patient lies in it.
    allow_any_modality
        Read values that do not look like CT.
    limits
        The largest volume that is read.
    """

    spacing_mm: tuple[float, float, float] | None = None
    axcodes: str | None = None
    rescale: tuple[float, float] | None = None
    allow_missing_geometry: bool = False
    allow_any_modality: bool = False
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.spacing_mm is not None:
            spacing = _numbers(self.spacing_mm, 3)
            if spacing is None or min(spacing) <= 0:
                raise _impossible("spacing_mm", "three positive numbers, such as (0.8, 0.8, 0.8)")
            object.__setattr__(self, "spacing_mm", spacing)
        if self.axcodes is not None:
            try:
                axis_aligned_affine(self.axcodes, (1, 1, 1), (0, 0, 0), (1, 1, 1))
            except (ValueError, TypeError) as e:
                raise _impossible("axcodes", 'three body directions, such as "LPS"') from e
        if self.rescale is not None:
            rescale = _numbers(self.rescale, 2)
            if rescale is None or rescale[0] == 0:
                raise _impossible("rescale", "a slope and an intercept, such as (1, -1024)")
            object.__setattr__(self, "rescale", rescale)

    def grid_without_geometry(
        self, shape: tuple[int, int, int], spacing_mm: Sequence[float] | None, path: Path
    ) -> tuple[Grid, Note]:
        """The grid of a file that does not say how the patient lies in it, if that is allowed.

        The array's middle becomes the world's origin. Axes that nobody stated are taken to grow
        Right, Anterior and Superior, and the Note says so.

        Raises
        ------
        SimCroPError
            ``missing-geometry`` unless it was allowed, or where the spacing is unknown as well.
        """
        if not self.allow_missing_geometry:
            raise SimCroPError(
                "The file does not say how the patient lies in it, so left and right are unknown",
                code="missing-geometry",
                remedy="Export the scan again with its orientation, or allow it to be missing "
                "(allow_missing_geometry) and state axcodes",
                path=path,
            )
        used = self.spacing_mm or _numbers(spacing_mm or (), 3)
        if used is None or min(used) <= 0:
            raise SimCroPError(
                "The file does not say how large its voxels are",
                code="missing-geometry",
                remedy="State the spacing in millimetres along the stored axes (spacing_mm)",
                path=path,
            )
        axcodes = self.axcodes or "RAS"
        affine = axis_aligned_affine(axcodes, used, (0.0, 0.0, 0.0), shape)
        grid = affine_grid(shape, affine, path)
        how = "as stated" if self.axcodes else "by assumption: left and right may be exchanged"
        return grid, Note(
            "missing-geometry",
            f"The file does not say how the patient lies in it; its axes grow to {axcodes}, {how}",
        )

    def refuse_geometry(self, path: Path) -> None:
        """For a file that has its own geometry: nobody may state another.

        Raises
        ------
        SimCroPError
            ``option``.
        """
        for name, value in (("spacing_mm", self.spacing_mm), ("axcodes", self.axcodes)):
            if value is not None:
                raise option_refused(name, "the file states its own geometry", path)


def option_refused(name: str, why: str, path: Path) -> SimCroPError:
    """The refusal of an option that does not apply."""
    return SimCroPError(
        f"The option {name} does not apply here: {why}",
        code="option",
        remedy="Leave the option out",
        path=path,
    )


def affine_grid(shape: tuple[int, int, int], affine: NDArray[np.float64], path: Path) -> Grid:
    """A grid from a file's affine.

    Raises
    ------
    SimCroPError
        ``singular-geometry``: it is not finite or maps the voxels onto a plane.
    """
    try:
        return Grid(shape, affine)
    except ValueError as e:
        raise SimCroPError(
            "The file's geometry is impossible: it puts all voxels onto a plane, a line or nowhere",
            code="singular-geometry",
            remedy="Export the scan again with its orientation and spacing",
            path=path,
        ) from e


def _numbers(values: Sequence[float], count: int) -> tuple[float, ...] | None:
    try:
        numbers = tuple(float(v) for v in values)
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == count and np.isfinite(numbers).all() else None


def _impossible(name: str, form: str) -> SimCroPError:
    return SimCroPError(
        f"The option {name} has an impossible value",
        code="option",
        remedy=f"Give {form}",
    )
