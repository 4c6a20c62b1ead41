"""Sentences with their masks, listed in a csv: anyone's own scans, to evaluate grounding on.

A row is a sentence. Columns: ``study``, ``ct``, ``sentence`` and ``mask``; if wanted ``report``
(a file as :func:`~simcrop_core.report.read_report` takes it, or the text itself), ``label`` (the
value of a label map that is meant; without it every value but 0), ``finding`` (one of the 18),
``side`` (left, right, both), ``kind`` (finding, organ, negative). ``sentence`` is text, found again
in the report if there is one, or its number in the report, from 0 as in ``alignment.json``; blank
stands for the only sentence of the report. Paths start at the csv's folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from simcrop_core.datasets.masks import Masks
from simcrop_core.datasets.table import TableForm, of_row, there
from simcrop_core.errors import SimCroPError
from simcrop_core.io import labels_on, read_labels, read_volume
from simcrop_core.report import Report, read_report
from simcrop_core.statements import FINDINGS, SIDES, Meaning, Side
from simcrop_core.study import KINDS, Kind, SentenceFacts, Study
from simcrop_core.volume import CTVolume, Note

_FORM = TableForm(
    required=("study", "ct", "sentence", "mask"),
    optional=("report", "label", "finding", "side", "kind"),
    may_be_blank=("sentence",),
    code="bad-cases",
    remedy="Write a csv with the columns study, ct, sentence, mask and, if wanted, report, "
    "label, finding, side, kind.",
)
_REPORT_SUFFIXES = (".txt", ".json", ".csv", ".dcm")


@dataclass(frozen=True, slots=True)
class GroundedRow:
    """A sentence and its mask; ``label`` 0 stands for every value but 0."""

    number: int
    sentence: SentenceFacts
    mask: str
    label: int = 0


@dataclass(frozen=True, slots=True)
class GroundedSource:
    """A study of such a csv; paths are absolute."""

    id: str
    csv: str
    ct: str
    rows: tuple[GroundedRow, ...]

    def load(self) -> Study:
        """The scan with the masks on its own voxels; what was done to them is among its notes.

        Raises
        ------
        SimCroPError
            A scan or mask cannot be read, is empty or lies elsewhere; the sentence names the row.
        """
        with of_row(self.rows[0].number):
            volume = read_volume(self.ct)
        masks = Masks(volume.shape)
        notes: list[Note] = []
        for row in self.rows:
            name = row.sentence.region
            assert name is not None
            if name in masks:
                continue
            with of_row(row.number):
                mask, resampled = mask_on(volume, Path(row.mask), row.label)
            masks.add(name, mask)
            if resampled:
                notes.append(
                    Note(
                        "mask-resampled",
                        f"Row {row.number}: the mask has other voxels than the scan; each voxel "
                        "of the scan took the label at its place",
                    )
                )
        sentences = tuple(row.sentence for row in self.rows)
        return Study(self.id, volume.with_notes(notes), None, sentences, masks)


def read_grounded_csv(path: Path) -> tuple[GroundedSource, ...]:
    """The studies of a csv, in the order in which it first names them.

    Raises
    ------
    SimCroPError
        The csv, a cell, a report or a name in it is wrong; the sentence names the row.
    """
    reports: dict[str, Report] = {}
    studies: dict[str, list[GroundedRow]] = {}
    scans: dict[str, str] = {}
    for number, row in _FORM.read(path)[1]:
        with of_row(number):
            ct, mask = (there(path.parent / row[name], name) for name in ("ct", "mask"))
            if scans.setdefault(row["study"], ct) != ct:
                raise _FORM.refusal(
                    path, f"The study {row['study']!r} has another scan in an earlier row"
                )
            label = _label(row.get("label", ""), path)
            facts = _facts(row, _said(row, path, reports), f"{mask} {label}", path)
            studies.setdefault(row["study"], []).append(GroundedRow(number, facts, mask, label))
    return tuple(
        GroundedSource(study, str(path), scans[study], tuple(said))
        for study, said in studies.items()
    )


def mask_on(volume: CTVolume, path: Path, label: int = 0) -> tuple[NDArray[np.bool_], bool]:
    """A mask on the voxels of a scan, and whether it had to be resampled for that.

    Raises
    ------
    SimCroPError
        ``empty-mask``, ``mask-elsewhere``, and what reading it says.
    """
    labels_XYZ, grid = read_labels(path)
    meant = np.asarray(labels_XYZ != 0 if label == 0 else labels_XYZ == label)
    if not meant.any():
        what = "The mask is empty" if label == 0 else f"The mask has no voxel of the label {label}"
        raise SimCroPError(
            what, path=path, code="empty-mask", remedy="Leave the row out, or name another mask."
        )
    resampled = False
    try:
        placed = labels_on(volume.grid, meant, grid, path=path)
    except SimCroPError as e:
        if e.code != "mask-mismatch":
            raise
        placed = labels_on(volume.grid, meant, grid, resample=True, path=path)
        resampled = True
    if not placed.any():
        raise SimCroPError(
            "What the mask marks lies outside of the scan, or between its voxels",
            path=path,
            code="mask-elsewhere",
            remedy="Choose the mask that belongs to this scan.",
        )
    return np.asarray(placed, bool), resampled


# -- cells --------------------------------------------------------------------------------------


def _said(row: Mapping[str, str], path: Path, reports: dict[str, Report]) -> str:
    """The sentence that a row means, as an encoder reads it."""
    cell = " ".join(row["sentence"].split())
    if not row.get("report"):
        if not cell or cell.isdigit():
            raise _FORM.refusal(path, "The column sentence holds no words, and there is no report")
        return cell
    if row["report"] not in reports:
        reports[row["report"]] = _report(row["report"], path)
    sentences = [s.statement for s in reports[row["report"]].sentences]
    if cell.isdigit() and int(cell) < len(sentences):
        return sentences[int(cell)]
    if not cell and len(sentences) == 1:
        return sentences[0]
    for sentence in sentences:
        if cell and sentence.casefold().rstrip(".") == cell.casefold().rstrip("."):
            return sentence
    shown = f"{cell[:60]!r} is not" if cell else "The column sentence is blank, which says nothing"
    raise SimCroPError(
        f"{shown} among the {len(sentences)} sentences of the report",
        path=path,
        code="no-such-sentence",
        remedy="Give it as it stands there, or its number, from 0.",
    )


def _report(cell: str, path: Path) -> Report:
    """A file, or the text itself."""
    file = path.parent / cell
    try:
        exists = file.exists()
    except (OSError, ValueError):
        exists = False
    words = any(c.isspace() for c in cell) and not cell.lower().endswith(_REPORT_SUFFIXES)
    if not exists and words:
        return Report.from_text(cell)
    return read_report(there(file, "report"))


def _label(cell: str, path: Path) -> int:
    if not cell:
        return 0
    if not cell.isdigit() or not 0 < int(cell) < 2**31:
        raise _FORM.refusal(path, f"The label {cell[:20]!r} is not a whole number from 1 up")
    return int(cell)


def _facts(row: Mapping[str, str], text: str, region: str, path: Path) -> SentenceFacts:
    finding = _one_of(row.get("finding", ""), FINDINGS, "finding", path)
    side = _one_of(row.get("side", ""), SIDES, "side", path) or "any"
    kind = _one_of(row.get("kind", ""), KINDS, "kind", path) or (
        "finding" if finding else "unknown"
    )
    meaning = Meaning.of(finding or None, cast(Side, side), present=kind != "negative")
    return SentenceFacts(text, cast(Kind, kind), meaning, region)


def _one_of(cell: str, names: tuple[str, ...], column: str, path: Path) -> str:
    by_word = {name.casefold(): name for name in names}
    if cell and cell.casefold() not in by_word:
        raise SimCroPError(
            f"{cell[:40]!r} is no {column}",
            path=path,
            code="bad-cases",
            remedy=f"There are {', '.join(names)}; or leave the cell blank.",
        )
    return by_word.get(cell.casefold(), "")
