"""The last step of every reader: is this a CT a person can rely on, and what should they know?

Nothing here changes a value.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcrop_core.errors import SimCroPError
from simcrop_core.geometry import Grid
from simcrop_core.io.hounsfield import FILL_HU, HounsfieldBuffer, Stored
from simcrop_core.volume import CTVolume, Note

#: More NaN or infinity than this share of the voxels is damage, not an accident.
MOST_NONFINITE = 1e-3
SPACING_MM = (0.1, 20.0)
#: No corner of a scan is farther from the origin along an axis.
FARTHEST_MM = 1e6
THICK_MM = 5.0
#: A whole chest reaches further than this along every body axis.
CHEST_MM = 200.0
#: Voxels looked at to judge the values (a regular sample).
_SAMPLE = 400_000


def finish(
    stored: Stored, *, source: Path | None, format: str, allow_any_modality: bool = False
) -> CTVolume:
    """Check values and geometry of a volume that has been read, and name what is unusual.

    Parameters
    ----------
    stored
        What was read; its voxels are kept, not copied.
    source, format
        As in `CTVolume`.
    allow_any_modality
        Take values that do not look like CT, with a Note.

    Raises
    ------
    SimCroPError
        ``not-a-volume``, ``implausible-spacing``, ``non-finite``, ``constant`` or ``not-a-ct``.
    """
    found = list(stored.notes)
    grid, buffer, hu_XYZ = stored.grid, stored.buffer, stored.values_XYZ
    check_geometry(grid, source)
    found += _judge_nonfinite(buffer, source)
    if buffer.rounded:
        found.append(
            Note("rounded", "The values have more digits than float32 holds and were rounded to it")
        )
    low, high = buffer.low, buffer.high
    if low == high:
        raise SimCroPError(
            f"Every voxel has the same value ({low:g})",
            code="constant",
            remedy="Export the scan again: this file holds no image",
            path=source,
        )
    found += _judge_values(_sample(hu_XYZ), low, high, source, allow_any_modality)
    found += _geometry_notes(grid, {note.code for note in found})
    return CTVolume(hu_XYZ, grid, source, format, tuple(found))


def check_geometry(grid: Grid, path: Path | None) -> None:
    """Refuse what is no volume or has a spacing no CT scanner makes.

    Raises
    ------
    SimCroPError
        ``not-a-volume`` or ``implausible-spacing``.
    """
    if min(grid.shape) < 2:
        raise SimCroPError(
            f"This is a single image of {' x '.join(map(str, grid.shape))} voxels, not a volume",
            code="not-a-volume",
            remedy="Choose a file or folder that holds the whole scan",
            path=path,
        )
    least, most = SPACING_MM
    if not all(least <= s <= most for s in grid.spacing_mm):
        spacing = " x ".join(f"{s:.4g}" for s in grid.spacing_mm)
        raise SimCroPError(
            f"The voxels are said to be {spacing} mm, outside of {least:g} to {most:g} mm",
            code="implausible-spacing",
            remedy="Export the scan again with its true spacing in millimetres",
            path=path,
        )
    if float(np.abs(grid.bounds_mm()).max()) > FARTHEST_MM:
        raise SimCroPError(
            "The scan is said to lie more than a kilometre from the scanner's origin, where no "
            "millimetre is certain",
            code="implausible-position",
            remedy="Export the scan again with its true position",
            path=path,
        )


def _judge_nonfinite(buffer: HounsfieldBuffer, path: Path | None) -> list[Note]:
    count = buffer.nonfinite
    if not count:
        return []
    share = count / buffer.flat.size
    if share > MOST_NONFINITE:
        raise SimCroPError(
            f"{share:.1%} of the voxels are not numbers (NaN or infinite)",
            code="non-finite",
            remedy="Export the scan again: this file is damaged or was computed wrongly",
            path=path,
        )
    voxels = "1 voxel was not a number" if count == 1 else f"{count} voxels were not numbers"
    return [Note("non-finite", f"{voxels} (NaN or infinite) and became {FILL_HU} HU (air)")]


def _sample(hu_XYZ: NDArray[Any]) -> NDArray[np.float32]:
    """About `_SAMPLE` voxels, regularly spaced along the three axes."""
    step = max(1, int(np.ceil((hu_XYZ.size / _SAMPLE) ** (1 / 3))))
    steps = [min(step, max(1, n // 8)) for n in hu_XYZ.shape]
    start = [s // 2 for s in steps]
    view = hu_XYZ[start[0] :: steps[0], start[1] :: steps[1], start[2] :: steps[2]]
    return np.sort(view, axis=None).astype(np.float32)


def _judge_values(
    ordered: NDArray[np.float32], low: float, high: float, path: Path | None, allowed: bool
) -> list[Note]:
    """Whether the values can be Hounsfield units, and where air lies.

    Refusals keep to what no CT in Hounsfield units can be: a range narrower than the contrast
    between fat and muscle, or no value below zero (no air, no fat) unless the histogram is that
    of a CT whose offset was left out. All else that is odd gets a Note.
    """
    reason = _not_hounsfield(ordered, low, high)
    if reason and not allowed:
        raise SimCroPError(
            f"This does not look like a CT in Hounsfield units: {reason}",
            code="not-a-ct",
            remedy="Choose the CT itself, or allow any modality (allow_any_modality) if it is one",
            path=path,
        )
    if reason:
        return [Note("not-a-ct", f"Read as asked although it does not look like a CT: {reason}")]
    notes = []
    value, share = _padding(ordered)
    if share:
        notes.append(
            Note(
                "padding",
                f"{share:.0%} of the voxels hold {value:g}, which marks places outside of the "
                "field of view and counts as air",
            )
        )
        ordered = ordered[ordered != value]
    offset = _missing_offset(ordered) if low >= 0 else 0
    darkest = float(ordered[ordered.size // 200])
    if offset:
        notes.append(
            Note(
                "air-level",
                f"Air lies near {darkest:.0f}, not near -1000 HU: an offset of {-offset} seems to "
                "have been left out, so densities and windows will be wrong "
                f"(rescale=(1, {-offset}) applies it)",
            )
        )
    elif not -1200 <= darkest <= -700:
        notes.append(
            Note(
                "air-level",
                f"The darkest voxels lie near {darkest:.0f} HU; air should lie near -1000 HU",
            )
        )
    return notes


def _not_hounsfield(ordered: NDArray[np.float32], low: float, high: float) -> str:
    if high - low <= 25:
        return f"all values lie between {low:g} and {high:g}, as in a mask or a normalised image"
    if low < 0:
        return ""
    if high <= 255:
        return f"all values lie between {low:g} and {high:g}, as in a picture or a mask"
    if int(np.count_nonzero(np.diff(ordered))) < 256:
        return "it has few different values and none below zero, as in a mask"
    if not _missing_offset(ordered):
        return "no value lies below zero, so there is neither air nor fat"
    return ""


def _missing_offset(ordered: NDArray[np.float32]) -> int:
    """The offset at which a CT without negative values was stored, 0 if it looks like none."""
    for offset in (1024, 8192):
        air = int(np.searchsorted(ordered, offset - 400))
        tissue = ordered.size - air
        between = np.searchsorted(ordered, (offset - 200, offset + 300))
        soft = int(between[1] - between[0])
        if tissue >= 0.05 * ordered.size and soft >= 0.5 * tissue and air >= 0.01 * ordered.size:
            return offset
    return 0


def _padding(ordered: NDArray[np.float32]) -> tuple[float, float]:
    """The lowest value and its share, if it is one far below air that fills a region."""
    value = float(ordered[0])
    share = float(np.searchsorted(ordered, value, side="right")) / ordered.size
    return (value, share) if value < -1200 and 0.005 <= share < 1 else (value, 0.0)


def _geometry_notes(grid: Grid, already: set[str]) -> list[Note]:
    notes = []
    if grid.is_sheared and "gantry-tilt" not in already:
        notes.append(
            Note(
                "sheared",
                "The scan's axes are not at right angles; it is resampled for the model and for "
                "display",
            )
        )
    elif not grid.is_axis_aligned and "gantry-tilt" not in already:
        notes.append(
            Note(
                "oblique",
                f"The scan is turned against the body's axes by {grid.obliquity_deg:.1f} degrees; "
                "it is resampled for the model and for display",
            )
        )
    thickest = max(grid.spacing_mm)
    if thickest > THICK_MM:
        notes.append(
            Note("thick-slices", f"The slices are {thickest:.3g} mm apart: small findings may hide")
        )
    low, high = grid.bounds_mm()
    extent = high - low
    if extent.min() < CHEST_MM:
        size = " x ".join(f"{e:.0f}" for e in extent)
        notes.append(
            Note(
                "partial-chest",
                f"The scan covers {size} mm (left-right, front-back, head-foot), less than a "
                "whole chest",
            )
        )
    return notes
