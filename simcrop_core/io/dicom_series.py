"""Which slices in a folder belong together, and which of the series a person means."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from simcrop_core.errors import SimCroPError
from simcrop_core.io.dicom_elements import MARKS
from simcrop_core.io.dicom_geometry import (
    along_normal,
    is_complete,
    ordered,
    places,
    plane_of,
    usual_step,
)
from simcrop_core.io.dicom_header import (
    SECONDARY_CAPTURE,
    Frame,
)
from simcrop_core.io.dicom_search import Study
from simcrop_core.volume import Note

#: Directions and pixel sizes that differ by more than this do not stack (0.04 mm over a slice).
_ALIKE = 1e-4


@dataclass(frozen=True, slots=True)
class SeriesInfo:
    """One series that may be chosen.

    Attributes
    ----------
    id
        What ``series=`` takes: the series number and a digest, telling nothing of the patient.
    n_slices, shape
        Slices, and voxels along columns, rows and slices.
    plane
        ``"axial"``, ``"coronal"``, ``"sagittal"``, or ``"unknown"`` for images without a place.
    spacing_mm
        Between voxels along columns, rows and slices; the last is 0 for a single slice.
    slice_thickness_mm
        As the header gives it, if it does.
    modality
        ``"CT"``, ``"MR"`` ...; "" if it is none that is known.
    kernel
        The convolution kernel, such as ``"B70f"``; empty where it is not of a known form, since
        the tag takes any text.
    is_localizer
        A scout image, never chosen by itself.
    is_chosen
        Whether reading the folder without ``series=`` reads this one.
    """

    id: str
    n_slices: int
    plane: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    slice_thickness_mm: float | None
    modality: str
    kernel: str
    is_localizer: bool
    is_chosen: bool

    def __str__(self) -> str:
        apart = f", {self.spacing_mm[2]:.3g} mm apart" if self.spacing_mm[2] else ""
        kind = "localizer" if self.is_localizer else self.modality or "unknown modality"
        return f"{self.id} ({self.plane} {kind}, {self.n_slices} slices{apart})"


# Siemens and Philips codes, Canon's FC numbers, and GE's words.
_KERNEL = re.compile(
    r"[A-Z][a-z]?\d{2}[a-z]?|FC\d{2}|[A-Z]{1,2}|STANDARD|SOFT|LUNG|CHEST|DETAIL|"
    r"BONE|BONEPLUS|EDGE|ULTRA"
)


def _known_kernel(text: str) -> str:
    return text if _KERNEL.fullmatch(text) else ""


@dataclass(frozen=True, eq=False)
class Stack:
    """Slices that form one series: parallel, of one size, at different places."""

    id: str
    frames: tuple[Frame, ...]
    #: Images of the same series that cannot be used, which makes it incomplete.
    faulty: tuple[Frame, ...] = ()

    @property
    def n_slices(self) -> int:
        return len(places(self.frames)) if self.is_placed else len(self.frames)

    @property
    def is_placed(self) -> bool:
        return self.frames[0].fault is None

    @property
    def plane(self) -> str:
        return plane_of(self.frames[0]) if self.is_placed else "unknown"

    def info(self, is_chosen: bool) -> SeriesInfo:
        first, n = self.frames[0], self.n_slices
        pixels = first.pixels
        columns, rows = (pixels.columns, pixels.rows) if pixels else (0, 0)
        apart = 0.0
        if self.is_placed and n > 1:
            apart = usual_step(along_normal([g[0] for g in places(self.frames)]))
        spacing = first.pixel_spacing or (0.0, 0.0)
        return SeriesInfo(
            id=self.id,
            n_slices=n,
            plane=self.plane,
            shape=(columns, rows, n),
            spacing_mm=(spacing[1], spacing[0], apart),
            slice_thickness_mm=first.thickness_mm,
            modality=first.modality,
            kernel=_known_kernel(first.kernel),
            is_localizer=first.localizer,
            is_chosen=is_chosen,
        )


def stacks_of(frames: Sequence[Frame]) -> list[Stack]:
    """Slices sorted into series; the largest first.

    One series of the archive becomes several stacks where its slices differ in size, direction,
    frame of reference or kind, or lie at the same places and a header element tells them apart.
    """
    together: dict[tuple[object, ...], list[list[Frame]]] = {}
    faulty: dict[str, list[Frame]] = {}
    for frame in frames:
        if frame.fault:
            faulty.setdefault(frame.series_uid, []).append(frame)
            continue
        pixels = frame.pixels
        assert pixels is not None
        key = (
            frame.series_uid,
            frame.frame_of_reference,
            frame.modality,
            frame.localizer,
            (pixels.rows, pixels.columns, pixels.samples, pixels.photometric),
        )
        for group in together.setdefault(key, []):
            if _parallel(group[0], frame):
                group.append(frame)
                break
        else:
            together[key].append([frame])
    stacks = []
    for groups in together.values():
        for group in groups:
            for mark, part in _told_apart(group):
                blocking = [f for f in faulty.get(part[0].series_uid, []) if _is_slice(f)]
                stacks.append(Stack(_id_of(part[0], mark), tuple(ordered(part)), tuple(blocking)))
    placed = {stack.frames[0].series_uid for stack in stacks}
    stacks += [
        Stack(_id_of(group[0], b""), tuple(group), tuple(group))
        for uid, group in faulty.items()
        if uid not in placed
    ]
    return sorted(stacks, key=_rank)


def _rank(stack: Stack) -> tuple[object, ...]:
    number = stack.frames[0].series_number
    return (-stack.n_slices, 10**9 if number is None else number, stack.id)


def _is_slice(frame: Frame) -> bool:
    """Whether a faulty image stands for a lost slice, and not for a page of text beside them."""
    return not (frame.sop_class == SECONDARY_CAPTURE or frame.localizer)


def _parallel(a: Frame, b: Frame) -> bool:
    turned = max(abs(x - y) for x, y in zip(a.orientation, b.orientation, strict=True))
    scaled = max(abs(x / y - 1) for x, y in zip(a.pixel_spacing, b.pixel_spacing, strict=True))
    return turned <= _ALIKE and scaled <= _ALIKE


def _told_apart(frames: list[Frame]) -> list[tuple[bytes, list[Frame]]]:
    """Slices that share places (phases, acquisitions), split by the first element that can.

    A split counts if every part is complete and the largest covers at least half of the places.
    Acquisitions that follow one another without sharing a place stay together.
    """
    # Files that were copied are no phases: they say so themselves.
    once = list({f.sop_instance or (f.path, f.index): f for f in reversed(frames)}.values())
    if is_complete(once):
        return [(b"", frames)]
    groups = places(once)
    if len(groups) == len(once):
        return [(b"", frames)]
    for i, name in enumerate(MARKS):
        parts: dict[bytes, list[Frame]] = {}
        for frame in once:
            parts.setdefault(frame.marks[i], []).append(frame)
        largest = max(len(part) for part in parts.values())
        if len(parts) < 2 or 2 * largest < len(groups):
            continue
        if all(is_complete(part) for part in parts.values()):
            split: dict[bytes, list[Frame]] = {}
            for frame in frames:
                split.setdefault(frame.marks[i], []).append(frame)
            return [(name.encode() + b"=" + value, part) for value, part in split.items()]
    return [(b"", frames)]


def _id_of(frame: Frame, mark: bytes) -> str:
    pixels = frame.pixels
    described = (
        frame.series_uid,
        frame.frame_of_reference,
        frame.localizer,
        (pixels.rows, pixels.columns, pixels.samples) if pixels else None,
        tuple(round(v, 2) + 0.0 for v in frame.orientation),
        tuple(round(v, 3) for v in frame.pixel_spacing),
        mark,
    )
    digest = hashlib.sha256(repr(described).encode()).hexdigest()[:6]
    return digest if frame.series_number is None else f"{frame.series_number}-{digest}"


def default_stack(stacks: Sequence[Stack], *, allow_any_modality: bool) -> Stack | None:
    """The largest axial CT series; failing that the largest CT in another plane, scouts never."""
    candidates = [s for s in stacks if s.is_placed and not s.frames[0].localizer]
    ct = [s for s in candidates if s.frames[0].modality == "CT"]
    pool = ct or (candidates if allow_any_modality else [])
    axial = [s for s in pool if s.plane == "axial"]
    return next(iter(axial or pool), None)


def stack_of_file(stacks: Sequence[Stack], path: Path) -> Stack | None:
    """The (largest) series a file belongs to; None if no series holds it."""
    for stack in stacks:
        if any(os.path.samefile(path, f.path) for f in stack.frames if f.path.name == path.name):
            return stack
    return None


def choose(
    stacks: Sequence[Stack],
    study: Study,
    path: Path,
    *,
    series: str | None,
    allow_any_modality: bool,
) -> tuple[Stack, list[Note]]:
    """The series that is meant, with a Note where it was this module's choice.

    Raises
    ------
    SimCroPError
        ``unknown-series``, ``not-ct``, ``not-dicom`` or ``no-series``.
    """
    listed = "; ".join(str(stack.info(False)) for stack in stacks[:12])
    if len(stacks) > 12:
        listed += f"; and {len(stacks) - 12} more"
    if series is not None:
        # Who knows the series by its UID may say that, too.
        chosen = next((s for s in stacks if series in (s.id, s.frames[0].series_uid)), None)
        if chosen is None:
            raise SimCroPError(
                "There is no series of this name here",
                code="unknown-series",
                remedy=f"Choose one of: {listed}" if listed else "Choose another folder",
                path=path,
            )
        return chosen, []
    if not stacks:
        kinds = sorted(kind for kind in study.others if kind)
        if kinds:
            raise SimCroPError(
                f"There is no CT here, but {', '.join(kinds)}",
                code="not-ct",
                remedy="Choose the folder of the CT images",
                path=path,
            )
        raise SimCroPError(
            "There is no DICOM image here",
            code="not-dicom",
            remedy="Choose the folder that holds the slices of the CT",
            path=path,
        )
    chosen = default_stack(stacks, allow_any_modality=allow_any_modality)
    if chosen is None:
        if any(s.frames[0].modality == "CT" or not s.is_placed for s in stacks):
            faulty = next((f for s in stacks for f in s.faulty), None)
            if faulty is not None:
                raise faulty.refuse()
            raise SimCroPError(
                f"There is no CT volume here, only scout images or the like: {listed}",
                code="no-series",
                remedy="Choose the folder that holds the slices of the CT",
                path=path,
            )
        raise SimCroPError(
            f"There is no CT here: {listed}",
            code="not-ct",
            remedy="Choose the folder of the CT images, or allow any modality (allow_any_modality)",
            path=path,
        )
    return chosen, _choice_notes(chosen, stacks)


def _choice_notes(chosen: Stack, stacks: Sequence[Stack]) -> list[Note]:
    notes = []
    others = len(stacks) - 1
    if others:
        notes.append(
            Note(
                "series-chosen",
                f"The folder holds {others + 1} series; {chosen.info(True)} was chosen as the "
                "largest axial CT"
                if chosen.plane == "axial"
                else f"The folder holds {others + 1} series and no axial CT; {chosen.info(True)} "
                "was chosen as the largest",
            )
        )
    return notes
