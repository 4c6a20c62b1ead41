"""Reading CT from DICOM: a folder, one file of a series, or one file with many frames.

Geometry comes from each slice's position and direction, values from each slice's own rescale.
The array keeps the stored order of rows and columns; where it lies is the affine's business.
"""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcrop_core.errors import SimCroPError
from simcrop_core.io.checks import finish
from simcrop_core.io.dicom_geometry import StackPlan, plan_stack
from simcrop_core.io.dicom_header import Frame, OtherObject, damaged, read_header
from simcrop_core.io.dicom_pixels import (
    AIR_HU,
    LOSSY,
    FrameReader,
    check_format,
    padded,
    trimmed,
)
from simcrop_core.io.dicom_search import search
from simcrop_core.io.dicom_series import (
    SeriesInfo,
    Stack,
    choose,
    default_stack,
    stack_of_file,
    stacks_of,
)
from simcrop_core.io.guard import Limits, reading, regular_size
from simcrop_core.io.hounsfield import HounsfieldBuffer, Stored
from simcrop_core.volume import CTVolume, Note

#: Rescale types that are Hounsfield units, or do not say.
_HOUNSFIELD = {"", "HU", "US"}


def read_dicom(
    path: Path,
    *,
    series: str | None = None,
    fill_gaps: bool = False,
    allow_any_modality: bool = False,
    limits: Limits | None = None,
) -> CTVolume:
    """A CT in Hounsfield units from a folder of DICOM files, or from one file of a series.

    Parameters
    ----------
    path
        A folder, searched with its subfolders; a file, which stands for its series in its folder.
    series
        Which series, by its id from `list_series` (or its SeriesInstanceUID); by default the
        largest axial CT.
    fill_gaps
        Interpolate missing slices instead of refusing.
    allow_any_modality
        Take images that are not CT, their values unchanged.
    limits
        What the volume may cost; the defaults of `Limits` if not given.

    Returns
    -------
    CTVolume
        ``hu_XYZ`` with x along columns, y along rows, z along the slices' normal.

    Raises
    ------
    SimCroPError
        Wherever the slices do not make one volume, naming the file at fault.
    """
    limits = limits or Limits()
    path = Path(path)
    stack, notes = _find(path, series, allow_any_modality, limits)
    plan = _planned(stack, path, fill_gaps=fill_gaps, allow_any_modality=allow_any_modality)
    limits.check(plan.grid.shape, 2, path)
    buffer, found = _Filling(plan, limits).run()
    notes += [*plan.notes, *_value_notes(stack.frames), *found]
    return finish(
        Stored(buffer, plan.grid, tuple(notes)),
        source=path,
        format="DICOM",
        allow_any_modality=allow_any_modality,
    )


def slices_of(path: Path, *, series: str | None = None, limits: Limits | None = None) -> StackPlan:
    """The slices that `read_dicom` would read, and the grid they make; from the headers alone.

    Raises
    ------
    SimCroPError
        As `read_dicom`, but for what the pixels say.
    """
    stack, _ = _find(Path(path), series, False, limits or Limits())
    return _planned(stack, Path(path), fill_gaps=False, allow_any_modality=False)


def _planned(stack: Stack, path: Path, *, fill_gaps: bool, allow_any_modality: bool) -> StackPlan:
    if stack.faulty:
        raise stack.faulty[0].refuse()
    modality = stack.frames[0].modality
    if modality != "CT" and not allow_any_modality:
        raise SimCroPError(
            f"The images are {modality or 'of an unknown modality'}, not CT",
            code="not-ct",
            remedy="Choose the CT series, or allow any modality (allow_any_modality)",
            path=path,
        )
    for frame in stack.frames:
        check_format(frame)
    return plan_stack(stack.frames, fill_gaps=fill_gaps, path=path)


def list_series(path: Path, *, limits: Limits | None = None) -> tuple[SeriesInfo, ...]:
    """The series in a folder, or beside a file, from the headers alone; the largest first.

    Raises
    ------
    SimCroPError
        Where a file that is part of a series cannot be read.
    """
    path, limits = Path(path), limits or Limits()
    with reading(path):
        path.stat()
    if not path.is_dir():
        regular_size(path)
        content = read_header(path, limits)
        if isinstance(content, OtherObject) and not content.kind:
            path = path.parent  # a directory file (DICOMDIR) stands for its folder
    stacks = stacks_of(search(path, limits).frames)
    chosen = (
        default_stack(stacks, allow_any_modality=False)
        if path.is_dir()
        else stack_of_file(stacks, path)
    )
    return tuple(stack.info(stack is chosen) for stack in stacks)


def _find(
    path: Path, series: str | None, allow_any_modality: bool, limits: Limits
) -> tuple[Stack, list[Note]]:
    """The slices that are meant, and what to say of the choice."""
    with reading(path):
        path.stat()
    if not path.is_dir():
        regular_size(path)
        content = read_header(path, limits)
        if content is None:
            raise SimCroPError(
                "This is not a DICOM file",
                code="not-dicom",
                remedy="Choose a file of the CT, or its folder",
                path=path,
            )
        if not isinstance(content, OtherObject):
            return _series_of(path, content, series, allow_any_modality, limits)
        if content.kind:
            raise SimCroPError(
                f"This is {content.kind}, not a CT",
                code="not-ct",
                remedy="Choose a file of the CT, or its folder",
                path=path,
            )
        path = path.parent  # a directory file (DICOMDIR) stands for its folder
    study = search(path, limits)
    stack, notes = choose(
        stacks_of(study.frames),
        study,
        path,
        series=series,
        allow_any_modality=allow_any_modality,
    )
    return stack, [*notes, *study.notes()]


def _series_of(
    path: Path,
    frames: tuple[Frame, ...],
    series: str | None,
    allow_any_modality: bool,
    limits: Limits,
) -> tuple[Stack, list[Note]]:
    """The series in the file's folder to which the file belongs."""
    fault = next((f for f in frames if f.fault), None)
    if fault is not None:
        raise fault.refuse()
    study = search(path, limits)
    stacks = stacks_of([f for f in study.frames if f.series_uid == frames[0].series_uid])
    if series is not None:
        return choose(stacks, study, path, series=series, allow_any_modality=allow_any_modality)
    stack = stack_of_file(stacks, path)
    if stack is None:
        raise damaged(path, "The file changed while it was read")
    if len(stacks) == 1:
        return stack, []
    return stack, [
        Note(
            "series-chosen",
            f"The series consists of {len(stacks)} stacks of slices; {stack.info(True)} is the "
            "one this file belongs to",
        )
    ]


def _value_notes(frames: tuple[Frame, ...]) -> list[Note]:
    notes = []
    if not all(f.has_rescale for f in frames) and frames[0].modality == "CT":
        notes.append(
            Note(
                "no-rescale",
                "Slices do not say how their values become Hounsfield units; they were taken as "
                "Hounsfield units",
            )
        )
    if any(f.rescale_type not in _HOUNSFIELD for f in frames) and frames[0].modality == "CT":
        notes.append(
            Note(
                "rescale-type",
                "The header says that the values are something else than Hounsfield units",
            )
        )
    if any(f.lossy or (f.pixels and f.pixels.transfer_syntax in LOSSY) for f in frames):
        notes.append(
            Note("lossy", "The images were compressed with loss: small details may be changed")
        )
    return notes


class _Filling:
    """Fills the array slice by slice, in (slice, row, column) memory order."""

    def __init__(self, plan: StackPlan, limits: Limits) -> None:
        self._plan = plan
        self._limits = limits
        self._voxels = prod(plan.grid.shape)
        self._padding = 0
        self._unused_bits = 0
        self._recent: dict[tuple[Path, int], tuple[NDArray[Any], float, float]] = {}

    def run(self) -> tuple[HounsfieldBuffer, list[Note]]:
        """Hounsfield units, x fastest, and Notes."""
        buffer = HounsfieldBuffer(self._voxels)
        with FrameReader(self._limits, self._plan.frames) as self._reader:
            for kept, other in self._plan.copies:
                self._check_copy(kept, other)
            self._recent.clear()
            self._padding = self._unused_bits = 0
            for lower, weight in self._plan.taps:
                frame = self._plan.frames[lower]
                if weight == 0:
                    buffer.put(*self._scaled(frame))
                else:
                    buffer.put(self._between(frame, self._plan.frames[lower + 1], weight))
        return buffer, self._notes()

    def _check_copy(self, kept: Frame, other: Frame) -> None:
        if not np.array_equal(self._hounsfield(kept), self._hounsfield(other)):
            raise SimCroPError(
                f"There is another slice at the same place ({self._place(kept)}) with different "
                "content, and nothing in the headers tells which of them belongs to the scan",
                code="duplicate-slices",
                remedy="Keep one of the two, or export the series again",
                path=other.path,
            )

    def _place(self, frame: Frame) -> str:
        return ", ".join(f"{v:.1f}" for v in frame.position) + " mm"

    def _scaled(self, frame: Frame) -> tuple[NDArray[Any], float, float]:
        """Values with the slope and intercept that make them Hounsfield units."""
        key = (frame.path, frame.index)
        if key not in self._recent:
            if len(self._recent) > 1:  # two are enough to interpolate between
                del self._recent[next(iter(self._recent))]
            self._recent[key] = self._read(frame)
        return self._recent[key]

    def _read(self, frame: Frame) -> tuple[NDArray[Any], float, float]:
        stored = self._reader.stored(frame)
        clean, had_unused = trimmed(frame, stored)
        self._unused_bits += had_unused
        padding = padded(frame, stored, clean)
        if padding is None:
            return clean, frame.slope, frame.intercept
        hu = clean * frame.slope + frame.intercept
        hu[padding] = AIR_HU
        self._padding += int(padding.sum())
        return hu, 1.0, 0.0

    def _hounsfield(self, frame: Frame) -> NDArray[np.float64]:
        values, slope, intercept = self._scaled(frame)
        return np.asarray(values * np.float64(slope) + intercept)

    def _between(self, below: Frame, above: Frame, weight: float) -> NDArray[np.float64]:
        """A slice interpolated between two; whole Hounsfield units stay whole."""
        mixed = (1 - weight) * self._hounsfield(below) + weight * self._hounsfield(above)
        scales = (below.slope, below.intercept, above.slope, above.intercept)
        return np.rint(mixed) if all(v.is_integer() for v in scales) else mixed

    def _notes(self) -> list[Note]:
        notes = []
        dropped = len(self._plan.copies)
        if dropped:
            slices = "1 slice was" if dropped == 1 else f"{dropped} slices were"
            notes.append(
                Note("duplicate-slices", f"{slices} there twice with the same content and dropped")
            )
        if self._padding:
            share = self._padding / self._voxels
            notes.append(
                Note(
                    "padding",
                    f"{share:.1%} of the voxels were marked as outside of the field of view and "
                    f"became {AIR_HU} HU (air)",
                )
            )
        if self._unused_bits:
            notes.append(
                Note(
                    "unused-bits",
                    "Bits of the pixels that do not belong to the image (such as an overlay) were "
                    "left out",
                )
            )
        return notes
