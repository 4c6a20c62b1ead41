"""Anyone's own studies, listed in a csv.

Columns: ``study`` (its id), ``volume``, ``report`` (may be blank); if wanted ``patient`` (the same
word for all studies of a person, kept out of the store), ``volume_name`` (the row of a csv of
reports), ``series`` (of a DICOM folder), ``truth`` (a ``truth.json`` as
``simcrop phantom`` writes it: what each sentence of the Findings says, and its mask), ``mask:NAME``
(a mask of the structure of that name) and any of the 18 findings as labels 0, 1 or blank. Paths
start at the manifest's folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
from numpy.typing import NDArray

from simcrop_core.datasets.dataset import Dataset, Fault, plain_sentences
from simcrop_core.datasets.masks import Masks
from simcrop_core.datasets.table import TableForm, labels_in
from simcrop_core.datasets.volume_check import check_volume
from simcrop_core.errors import SimCroPError
from simcrop_core.input_spec import InputSpec
from simcrop_core.io import labels_on, read_labels, read_volume
from simcrop_core.report import Report, read_report, report_from_parts
from simcrop_core.report_csv import read_csv_rows
from simcrop_core.report_files import Parts
from simcrop_core.statements import FINDINGS, LEVELS, SIDES, Facts, Meaning
from simcrop_core.study import Kind, SentenceFacts, Study
from simcrop_core.volume import CTVolume

_MASK = "mask:"
_FORM = TableForm(
    required=("study", "volume"),
    optional=("report", "patient", "volume_name", "series", "truth", *FINDINGS),
    also=lambda name: name.startswith(_MASK) and bool(name[len(_MASK) :].strip()),
    code="bad-manifest",
    remedy="Write a csv with the columns study, volume and report and, if needed, patient, "
    "volume_name, series, truth, mask:NAME and the names of findings.",
)
#: The csv that ``simcrop batch align`` takes.
BATCH_FORM = TableForm(
    required=("study", "ct", "report"),
    optional=("volume_name", "series"),
    code="bad-manifest",
    remedy="Write a csv with the columns study (a name of letters, digits, '-', '_' and '.', "
    "each once), ct and report and, if needed, volume_name and series; put quotation marks "
    "around cells with commas.",
)


@dataclass(frozen=True, slots=True)
class ManifestSource:
    """A row of a manifest; paths are absolute, blank where the cell is.

    ``masks`` are ``(name, path)``; ``labels`` are ``(finding, 0 or 1)``. ``is_named`` is False
    where the id is a number that nobody but the list knows.
    """

    id: str
    volume: str
    report: str = ""
    volume_name: str = ""
    series: str = ""
    truth: str = ""
    masks: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, int], ...] = ()
    patient: str = field(default="", repr=False)  # changes no file, so it is no part of the stamp
    is_named: bool = field(default=True, repr=False)  # nor does this

    def stamp(self) -> str:
        """The row, and size and time of its files."""
        own = [self.volume, self.report, self.truth, *(path for _, path in self.masks)]
        files = [Path(name) for name in own if name]
        if self.truth:
            files += sorted(Path(self.truth).parent.rglob("*.nii.gz"))
        return repr((self, [file_stamp(path) for path in files]))

    def read(self) -> CTVolume:
        """The scan alone."""
        return read_volume(self.volume, series=self.series or None)

    def read_report(self) -> Report | None:
        """The report alone."""
        return _report(self.report, self.volume_name) if self.report else None

    def load(
        self, spec: InputSpec | None = None, margin_voxels: tuple[int, int, int] = (0, 0, 0)
    ) -> Study:
        """The study as its files give it."""
        volume, report = self.read(), self.read_report()
        masks = Masks(volume.shape)
        for name, path in self.masks:
            masks.add(name, _mask(Path(path), volume))
        structures, names = _structures(masks, volume)
        sentences, facts = plain_sentences(report), Facts.unknown()
        if self.truth:
            sentences, facts = read_truth(Path(self.truth), volume, report, masks)
        if self.labels:
            facts = Facts.from_labels(dict(self.labels))
        return Study(self.id, volume, report, sentences, masks, facts, structures, names)

    def faults(self) -> Iterator[Fault]:
        """As in :class:`~simcrop_core.datasets.dataset.DatasetSource`."""
        refused = check_volume(Path(self.volume))
        if refused is not None:
            yield fault(self.id, "volume", refused)
        if self.report:
            try:
                _report(self.report, self.volume_name)
            except SimCroPError as e:
                yield fault(self.id, "report", e)
        else:
            yield Fault(self.id, "report", "empty", "The study has no report.")
        for name, path in self.masks:
            refused = check_volume(Path(path))
            if refused is not None:
                problem = f"{name}: {refused.problem}"
                yield Fault(self.id, "mask", refused.code, problem, path, blocks=True)
        if self.truth:
            try:
                _read_json(Path(self.truth))
            except SimCroPError as e:
                yield fault(self.id, "truth", e)


def read_manifest_dataset(path: Path) -> Dataset:
    """The data set of a manifest.

    Raises
    ------
    SimCroPError
        The csv is missing or broken, or has a column that means nothing.
    """
    header, rows = _FORM.read(path)
    findings = tuple(name for name in FINDINGS if name in header)
    masks = tuple(name for name in header if name.startswith(_MASK))

    def absolute(cell: str) -> str:
        return str((path.parent / cell).absolute()) if cell else ""

    sources = []
    for _, row in rows:
        sources.append(
            ManifestSource(
                id=row["study"],
                volume=absolute(row["volume"]),
                report=absolute(row.get("report", "")),
                volume_name=row.get("volume_name", ""),
                series=row.get("series", ""),
                truth=absolute(row.get("truth", "")),
                masks=tuple((n[len(_MASK) :].strip(), absolute(row[n])) for n in masks if row[n]),
                labels=tuple(labels_in(row, findings, path).items()),
                patient=row.get("patient", ""),
            )
        )
    return Dataset(path.stem, tuple(sources))


def read_truth(
    path: Path, volume: CTVolume, report: Report | None, masks: Masks
) -> tuple[tuple[SentenceFacts, ...], Facts]:
    """Sentences and facts from a ``truth.json``, whose masks are put to the others.

    Raises
    ------
    SimCroPError
        It is damaged, does not belong to the report, or a mask does not fit the scan.
    """
    truth = _read_json(path)
    stated = plain_sentences(report)
    read: set[str] = set()
    sentences: list[SentenceFacts] = []
    try:
        entries = list(truth["sentences"])
        facts = Facts.from_labels({name: int(v) for name, v in truth.get("labels", {}).items()})
        if len(entries) != len(stated):
            raise _foreign_truth(path, len(entries), len(stated))
        for entry, sentence in zip(entries, stated, strict=True):
            kind = entry["kind"] if entry["kind"] in get_args(Kind) else "unknown"
            mask = entry.get("mask_file")
            if mask and mask not in read:
                masks.add(mask, _mask(path.parent / mask, volume))
                read.add(mask)
            meaning = Meaning()
            if entry.get("finding") in FINDINGS:
                side, level = entry.get("side"), entry.get("level")
                meaning = Meaning.of(
                    entry["finding"],
                    side if side in SIDES else "any",
                    level if level in LEVELS else "any",
                    present=kind != "negative",
                )
            sentences.append(SentenceFacts(sentence.text, cast(Kind, kind), meaning, mask or None))
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        if isinstance(e, SimCroPError):
            raise
        raise _bad_truth(path) from e
    return tuple(sentences), facts


def file_stamp(path: Path) -> list[Any]:
    """Size and time of a file, or of all files in a folder."""
    try:
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        if path.suffix.lower() in (".mhd", ".nhdr"):  # the voxels lie beside the header
            files = sorted(p for p in path.parent.iterdir() if p.is_file())
        return [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in files]
    except OSError:
        return ["absent"]


def fault(study: str, part: str, refused: SimCroPError) -> Fault:
    """A refusal as a fault."""
    return Fault(study, part, refused.code, refused.problem, refused.path or "", blocks=True)


def _report(path: str, volume_name: str) -> Report:
    """A report; a csv of many is read once for all of its rows."""
    if volume_name and path.lower().endswith(".csv"):
        parts = _csv_rows(path, Path(path).stat().st_mtime_ns if Path(path).exists() else 0).get(
            volume_name.removesuffix(".nii.gz")
        )
        if parts is not None and parts.parts:
            return report_from_parts(parts, Path(path))
    return read_report(path, volume_name=volume_name or None)


@lru_cache(maxsize=4)
def _csv_rows(path: str, changed_ns: int) -> dict[str, Parts]:
    """The rows of a csv by name; those of a name that is there twice are left to the reader."""
    found: dict[str, Parts] = {}
    twice: set[str] = set()
    try:
        for name, parts in read_csv_rows(Path(path), "utf-8"):
            if name in found and found[name] != parts:
                twice.add(name)
            found[name] = parts
    except (SimCroPError, OSError):
        return {}  # the reader of one row says what is wrong
    return {name: parts for name, parts in found.items() if name not in twice}


def _mask(path: Path, volume: CTVolume) -> NDArray[np.bool_]:
    labels_XYZ, grid = read_labels(path)
    return np.asarray(labels_on(volume.grid, labels_XYZ, grid, path=path) != 0)


def _structures(
    masks: Mapping[str, NDArray[np.bool_]], volume: CTVolume
) -> tuple[NDArray[np.uint8] | None, tuple[str, ...]]:
    """One label map of the masks; where they overlap, the later one stands."""
    if not masks:
        return None, ()
    labels = np.zeros(volume.shape, np.uint8)
    for number, mask in enumerate(masks.values(), 1):
        labels[mask] = number
    return labels, tuple(masks)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise _bad_truth(path) from e
    if not isinstance(data, dict):
        raise _bad_truth(path)
    return data


def _bad_truth(path: Path) -> SimCroPError:
    return SimCroPError(
        "The truth of the study is absent or damaged",
        path=path,
        code="bad-truth",
        remedy="Write it again, as simcrop phantom does.",
    )


def _foreign_truth(path: Path, own: int, report: int) -> SimCroPError:
    return SimCroPError(
        f"The truth speaks of {own} sentences and the report's Findings have {report}",
        path=path,
        code="foreign-truth",
        remedy="Give the report that the truth was written with.",
    )
