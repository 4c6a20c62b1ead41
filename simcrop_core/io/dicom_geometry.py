"""From the places of slices to one grid: order, gaps, uneven spacing, gantry tilt.

All positions and directions here are DICOM's: LPS+ millimetres. Slices are ordered along their
normal, the cross product of the row and column directions, never by a number in the header.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simcrop_core.errors import SimCroPError
from simcrop_core.geometry import LPS_TO_RAS, FloatArray, Grid
from simcrop_core.io.dicom_header import Frame
from simcrop_core.volume import Note

#: Slices nearer to each other than this are at the same place.
SAME_PLACE_MM = 0.01
#: A slice may lie this far from its place on a regular grid: written positions are rounded.
JITTER_MM, JITTER_OF_SPACING = 0.01, 0.01
#: Sideways a slice may lie this share of a pixel from the line through all slices.
SIDEWAYS_OF_PIXEL = 0.05
#: Uneven distances are resampled up to these multiples of the usual one, and refused beyond.
UNEVEN = (0.5, 1.5)
#: A distance counts as missing slices when it is this near to a whole multiple of the usual one.
WHOLE = 0.1
#: Gaps are never filled where more than this share of the stack would be invented.
MOST_FILLED = 0.25
#: Gantries tilt to about 30 degrees; more means that positions and orientation disagree.
MOST_TILT_DEG = 45.0
#: Slices are tilted, worth a word, when they drift by this many pixels from first to last.
DRIFT_OF_PIXEL = 0.1


@dataclass(frozen=True)
class StackPlan:
    """How the slices of one series become an array.

    Attributes
    ----------
    frames
        Slices from low to high along the normal, no two at the same place.
    taps
        One per slice of the array: ``(lower, weight)`` is
        ``(1 - weight) * frames[lower] + weight * frames[lower + 1]``.
    copies
        ``(kept, other)``: slices at the same place, whose pixels have to agree.
    grid
        Of the array (columns, rows, slices), RAS+.
    notes
        What was decided.
    """

    frames: tuple[Frame, ...]
    taps: tuple[tuple[int, float], ...]
    copies: tuple[tuple[Frame, Frame], ...]
    grid: Grid
    notes: tuple[Note, ...]


def normal_of(frame: Frame) -> FloatArray:
    """Unit vector at right angles to a slice, LPS+."""
    normal = np.cross(frame.orientation[:3], frame.orientation[3:])
    return np.asarray(normal / np.linalg.norm(normal))


def plane_of(frame: Frame) -> str:
    """``"axial"``, ``"coronal"`` or ``"sagittal"``, whichever is nearest."""
    axis = int(np.argmax(np.abs(normal_of(frame))))
    return ("sagittal", "coronal", "axial")[axis]


def along_normal(frames: Sequence[Frame]) -> FloatArray:
    """Millimetres of each slice along the normal of the first."""
    return np.array([f.position for f in frames]) @ normal_of(frames[0])


def ordered(frames: Sequence[Frame]) -> list[Frame]:
    """From low to high along the normal; slices at one place by path, so that order is stable."""
    at = np.round(along_normal(frames) / SAME_PLACE_MM)
    order = sorted(range(len(frames)), key=lambda i: (at[i], frames[i].path, frames[i].index))
    return [frames[i] for i in order]


def places(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Ordered slices, those at the same place along the normal together."""
    line = ordered(frames)
    at = along_normal(line)
    groups = [[line[0]]]
    for frame, step in zip(line[1:], np.diff(at), strict=True):
        if abs(step) < SAME_PLACE_MM:
            groups[-1].append(frame)
        else:
            groups.append([frame])
    return groups


def usual_step(at: FloatArray) -> float:
    """The usual distance between neighbours: the (lower) median."""
    steps = np.sort(np.diff(at))
    return float(steps[(len(steps) - 1) // 2])


def is_complete(frames: Sequence[Frame]) -> bool:
    """Whether no two slices share a place and none is missing between first and last."""
    groups = places(frames)
    if len(groups) != len(frames):
        return False
    if len(groups) < 3:
        return True
    at = along_normal([g[0] for g in groups])
    return bool(np.diff(at).max() <= UNEVEN[1] * usual_step(at))


def plan_stack(frames: Sequence[Frame], *, fill_gaps: bool, path: Path) -> StackPlan:
    """Where every slice of the array comes from, and its grid.

    Raises
    ------
    SimCroPError
        ``not-a-volume``, ``missing-slice``, ``uneven-spacing``, ``shifted-slices`` or
        ``orientation-positions``.
    """
    groups = places(frames)
    line = [g[0] for g in groups]
    copies = tuple((g[0], other) for g in groups for other in g[1:])
    if len(line) < 2:
        raise SimCroPError(
            "This series has a single slice, so it is no volume",
            code="not-a-volume",
            remedy="Choose the folder that holds the whole series",
            path=path,
        )
    for kept, other in copies:
        if not np.allclose(kept.position, other.position, atol=SAME_PLACE_MM):
            raise _refusal(
                path,
                "Two slices lie side by side in the same plane instead of one above the other",
                "shifted-slices",
            )
    places_mm = np.array([f.position for f in line])
    normal = normal_of(line[0])
    at = places_mm @ normal
    index = _regular_index(at)
    notes: list[Note] = []
    if index is None:
        index = _resampled_index(at, path, notes)
    elif index[-1] + 1 > len(line):
        notes.append(_missing(at, index, fill_gaps, path))
    slices = round(index[-1]) + 1
    step_mm = (places_mm[-1] - places_mm[0]) / (slices - 1)
    _check_sideways(places_mm, index, step_mm, normal, line[0], path)
    notes += _tilt_notes(line[0], step_mm, normal, slices, path)
    notes += _spacing_notes(line[0], at, index, float(step_mm @ normal))
    lps = np.eye(4)
    lps[:3, 0] = _unit(line[0].orientation[:3]) * line[0].pixel_spacing[1]
    lps[:3, 1] = _unit(line[0].orientation[3:]) * line[0].pixel_spacing[0]
    lps[:3, 2] = step_mm
    lps[:3, 3] = places_mm[0]
    pixels = line[0].pixels
    assert pixels is not None
    grid = Grid((pixels.columns, pixels.rows, slices), LPS_TO_RAS @ lps)
    return StackPlan(tuple(line), _taps(index, slices), copies, grid, tuple(notes))


def _unit(direction: Sequence[float]) -> FloatArray:
    vector = np.asarray(direction, dtype=np.float64)
    return np.asarray(vector / np.linalg.norm(vector))


def _refusal(path: Path, problem: str, code: str) -> SimCroPError:
    return SimCroPError(problem, code=code, remedy="Export the series again", path=path)


def _regular_index(at: FloatArray) -> FloatArray | None:
    """The slice number of each place on a regular grid that may have gaps, None if there is none.

    A single step always is regular: nothing tells that a slice is missing between two.
    """
    usual = usual_step(at)
    ratio = np.diff(at) / usual
    steps = np.rint(ratio)
    if (steps < 1).any() or (np.abs(ratio - steps) > WHOLE).any():
        return None
    index = np.concatenate([[0.0], np.cumsum(steps)])
    regular = at[0] + index * (at[-1] - at[0]) / index[-1]
    spacing = (at[-1] - at[0]) / index[-1]
    off = np.abs(at - regular).max()
    return index if off <= max(JITTER_MM, JITTER_OF_SPACING * spacing) else None


def _resampled_index(at: FloatArray, path: Path, notes: list[Note]) -> FloatArray:
    """Fractional slice numbers of uneven places on the evenly spaced grid they are brought to."""
    steps, usual = np.diff(at), usual_step(at)
    widest = int(np.argmax(steps))
    if steps[widest] > UNEVEN[1] * usual:
        raise SimCroPError(
            f"The slices are usually {usual:.3g} mm apart, but {steps[widest]:.3g} mm between the "
            f"slice positions {at[widest]:.2f} and {at[widest + 1]:.2f} mm: slices are missing",
            code="missing-slice",
            remedy="Copy or export the whole series again",
            path=path,
        )
    if steps.min() < UNEVEN[0] * usual:
        raise SimCroPError(
            f"The distances between slices vary from {steps.min():.3g} to {steps.max():.3g} mm",
            code="uneven-spacing",
            remedy="Export a series with evenly spaced slices",
            path=path,
        )
    slices = max(round((at[-1] - at[0]) / usual), 1) + 1
    spacing = (at[-1] - at[0]) / (slices - 1)
    notes.append(
        Note(
            "uneven-spacing",
            f"The distances between slices vary from {steps.min():.4g} to {steps.max():.4g} mm; "
            f"the scan was resampled to {slices} slices {spacing:.4g} mm apart",
        )
    )
    return np.asarray((at - at[0]) / spacing)


def _missing(at: FloatArray, index: FloatArray, fill_gaps: bool, path: Path) -> Note:
    """The Note on filled gaps, or the refusal that names them."""
    holes = np.diff(index) - 1
    missing = int(holes.sum())
    gaps = [
        f"{int(holes[i])} between the slice positions {at[i]:.2f} and {at[i + 1]:.2f} mm"
        for i in np.flatnonzero(holes)
    ]
    named = "; ".join(gaps[:3]) + (f"; and {len(gaps) - 3} more gaps" if len(gaps) > 3 else "")
    slices = "slice is" if missing == 1 else "slices are"
    too_many = missing > MOST_FILLED * (index[-1] + 1)
    if fill_gaps and not too_many:
        return Note(
            "filled-gap",
            f"{missing} missing {'slice was' if missing == 1 else 'slices were'} filled by "
            f"interpolation: {named}",
        )
    raise SimCroPError(
        f"{missing} {slices} missing: {named}",
        code="missing-slice",
        remedy="Copy or export the whole series again"
        if too_many
        else "Copy or export the whole series again, or ask to fill gaps (fill_gaps)",
        path=path,
    )


def _check_sideways(
    places_mm: FloatArray,
    index: FloatArray,
    step_mm: FloatArray,
    normal: FloatArray,
    frame: Frame,
    path: Path,
) -> None:
    """Refuse slices that are shifted against each other beyond what a tilt explains."""
    off = places_mm - (places_mm[0] + index[:, None] * step_mm)
    sideways = np.linalg.norm(off - np.outer(off @ normal, normal), axis=1)
    if sideways.max() > max(JITTER_MM, SIDEWAYS_OF_PIXEL * min(frame.pixel_spacing)):
        at = places_mm[int(np.argmax(sideways))] @ normal
        raise _refusal(
            path,
            f"The slice at {at:.2f} mm is shifted sideways by {sideways.max():.2f} mm against "
            "the others",
            "shifted-slices",
        )


def _tilt_notes(
    frame: Frame, step_mm: FloatArray, normal: FloatArray, slices: int, path: Path
) -> list[Note]:
    along = float(step_mm @ normal)
    across = float(np.linalg.norm(step_mm - along * normal))
    angle = float(np.degrees(np.arctan2(across, along)))
    if angle > MOST_TILT_DEG:
        raise _refusal(
            path,
            f"The slices are stacked at {angle:.0f} degrees to the direction they face, so their "
            "positions and their orientation contradict each other",
            "orientation-positions",
        )
    if across * (slices - 1) > DRIFT_OF_PIXEL * min(frame.pixel_spacing):
        return [
            Note(
                "gantry-tilt",
                f"The gantry was tilted by {angle:.1f} degrees; the slices are kept where they "
                "lie, and resampled for the model and for display",
            )
        ]
    if abs(frame.tilt_tag_deg) > 0.05:
        return [
            Note(
                "tilt-tag",
                f"The header names a gantry tilt of {frame.tilt_tag_deg:.1f} degrees, but the "
                "slices are stacked straight; positions are believed, the tilt is ignored",
            )
        ]
    return []


def _spacing_notes(frame: Frame, at: FloatArray, index: FloatArray, spacing: float) -> list[Note]:
    notes = []
    off = float(np.abs(at - at[0] - index * spacing).max())
    if off > JITTER_MM:
        notes.append(
            Note(
                "slice-jitter",
                f"Slices lie up to {off:.3f} mm from evenly spaced places and were taken as even",
            )
        )
    tag = frame.spacing_tag_mm
    if tag and abs(tag - spacing) > max(JITTER_MM, JITTER_OF_SPACING * spacing):
        notes.append(
            Note(
                "spacing-tag",
                f"The header names {tag:.4g} mm between slices, their positions {spacing:.4g} mm; "
                "positions are believed",
            )
        )
    thickness = frame.thickness_mm
    if thickness and thickness > 0 and spacing > UNEVEN[1] * thickness:
        notes.append(
            Note(
                "slices-apart",
                f"The slices are {thickness:.3g} mm thick and {spacing:.3g} mm apart: what lies "
                "between them was not recorded",
            )
        )
    return notes


def _taps(index: FloatArray, slices: int) -> tuple[tuple[int, float], ...]:
    """For each slice of the array the recorded slices below and above, and the upper's weight."""
    wanted = np.arange(slices, dtype=np.float64)
    lower: NDArray[np.intp] = np.searchsorted(index, wanted + 1e-9, side="right") - 1
    lower = lower.clip(0, len(index) - 2)
    weight = (wanted - index[lower]) / (index[lower + 1] - index[lower])
    last = lower == len(index) - 2
    # A whole weight is a recorded slice: it is copied, not computed.
    lower = np.where(last & (weight > 1 - 1e-6), len(index) - 1, lower)
    weight = np.where((lower == len(index) - 1) | (weight < 1e-6), 0.0, weight)
    return tuple((int(i), float(w)) for i, w in zip(lower, weight, strict=True))
