"""A folder of studies: every scan in it, each with the report that lies beside it.

Scans are files (NIfTI, NRRD, MetaImage, npz) and folders of DICOM slices, also further down; label
maps and masks are told by their names, or by lying beside one file that is called the CT, and left
out. A report is the text or JSON file named like the scan, or named ``report``, or the only text
of a folder with one scan; or the row of a csv of reports in the folder that has the scan's name.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from simcrop_core.datasets.dataset import Dataset
from simcrop_core.datasets.manifest import ManifestSource
from simcrop_core.datasets.neutral_name import neutral_name
from simcrop_core.datasets.scans import check_folder
from simcrop_core.errors import SimCroPError
from simcrop_core.io.dicom_header import OtherObject, read_header
from simcrop_core.io.guard import Limits
from simcrop_core.report_csv import read_csv_rows

if TYPE_CHECKING:
    from simcrop_core.device import Progress

_SCANS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".npz")
_REPORTS = (".txt", ".json")
_LABELS = re.compile(
    r"(?:^|[-_. ])(?:masks?|labels?|labelmap|seg|segs|segmentations?|structures|annotations?|"
    r"heatmap|rtstruct)(?:$|[-_. ])",
    re.IGNORECASE,
)
_CT = re.compile(r"(?:^|[-_. ])(?:ct|scan|image|img|volume)(?:$|[-_. \d])", re.IGNORECASE)
#: Names that say nothing, so that the folder's is taken.
_GENERIC = ("ct", "scan", "image", "volume", "img", "dicom", "series")
_NO_REPORTS = re.compile(r"licen[cs]e|readme|notice|citation|requirements|changes", re.IGNORECASE)
#: Folders of results, models and runs.
_NOT_STUDIES = ("alignment.json", "config.json", "config.yaml")
_MOST_DEPTH = 8
#: Files of a folder that are looked into for DICOM.
_MOST_LOOKED_AT = 3


@dataclass(frozen=True, slots=True)
class _Found:
    """A scan and its report; ``is_folder`` of DICOM."""

    scan: Path
    is_folder: bool
    report: Path | None = None
    row: str = ""

    @property
    def stem(self) -> str:
        return self.scan.name if self.is_folder else _stem(self.scan.name)

    @property
    def name(self) -> str:
        """By which people know it: its file's, or its folder's where that says nothing."""
        generic = self.stem.lower() in _GENERIC
        return self.scan.parent.name if generic else self.stem


def folder_dataset(root: Path, progress: Progress = lambda what, done, total: None) -> Dataset:
    """The studies in a folder, in the order of their paths.

    Ids are the scans' names where those can name no person, else numbers.

    Raises
    ------
    SimCroPError
        ``missing``: there is no such folder. ``no-studies``: there is no scan in it.
    """
    check_folder(root)
    found = _in_order(list(_search(root, progress)))
    if not found:
        raise SimCroPError(
            "There is no scan in this folder",
            path=root,
            code="no-studies",
            remedy="Choose a folder with CT files or DICOM folders in it, or a csv that lists "
            "studies.",
        )
    found = _with_rows(found, root)
    names = [neutral_name(study.name) for study in found]
    often = Counter(name.casefold() for name in names)
    sources = []
    for number, (study, name) in enumerate(zip(found, names, strict=True), 1):
        unique = name and often[name.casefold()] == 1
        sources.append(
            ManifestSource(
                id=name if unique else f"study-{number:05d}",
                volume=str(study.scan.absolute()),
                report="" if study.report is None else str(study.report.absolute()),
                volume_name=study.row,
            )
        )
    return Dataset("folder", tuple(sources))


# -- scans ----------------------------------------------------------------------------------------


def _search(root: Path, progress: Progress) -> Iterator[_Found]:
    count = 0
    for at, folders, names in os.walk(root):
        progress("searching the folder", count, 0)
        folder = Path(at)
        deep = len(folder.relative_to(root).parts) >= _MOST_DEPTH
        inside = (f for f in folders if not f.startswith(".") and not _is_of_labels(f))
        folders[:] = [] if deep else sorted(inside, key=_natural)
        names = sorted((n for n in names if not n.startswith(".")), key=_natural)
        if any(name in _NOT_STUDIES for name in names):
            folders[:] = []
            continue
        for study in _studies_in(folder, names):
            count += 1
            yield study


def _studies_in(folder: Path, names: Sequence[str]) -> list[_Found]:
    """The scans that lie in a folder itself, with what reports lie in the same folder."""
    texts = [n for n in names if n.lower().endswith(_REPORTS) and not _NO_REPORTS.search(n)]
    scans = [n for n in names if n.lower().endswith(_SCANS) and not _is_other(n)]
    named = [name for name in scans if _CT.search(_stem(name))]
    scans = named if len(named) == 1 else scans  # one is called the CT: the others are masks
    if not scans:
        if not _holds_slices(folder, names):
            return []
        above = _texts_beside(folder)
        report = _report_of("", folder, texts, alone=True)
        return [_Found(folder, True, report or _report_of(folder.name, folder.parent, above))]
    alone = len(scans) == 1
    return [
        _Found(folder / name, False, _report_of(_stem(name), folder, texts, alone=alone))
        for name in scans
    ]


def _holds_slices(folder: Path, names: Sequence[str]) -> bool:
    """Whether one of a folder's first files is a DICOM image."""
    likely = [n for n in names if not n.lower().endswith((*_REPORTS, ".csv", ".md", ".pdf"))]
    for name in likely[:_MOST_LOOKED_AT]:
        with suppress(SimCroPError):
            content = read_header(folder / name, Limits())
            if content is not None and not isinstance(content, OtherObject):
                return True
    return False


def _in_order(found: list[_Found]) -> list[_Found]:
    """Sorted; and a report that lies above the only scan of its folder goes to that."""
    above = Counter(study.scan.parent for study in found if study.is_folder)
    files = {study.scan.parent for study in found if not study.is_folder}
    whole = []
    for study in found:
        parent = study.scan.parent
        if study.is_folder and study.report is None and above[parent] == 1 and parent not in files:
            texts = _texts_beside(study.scan)
            study = replace(study, report=_report_of("", parent, texts, alone=True))
        whole.append(study)
    return sorted(whole, key=lambda study: [_natural(part) for part in study.scan.parts])


# -- reports --------------------------------------------------------------------------------------


def _texts_beside(folder: Path) -> list[str]:
    with suppress(OSError):
        names = sorted(e.name for e in os.scandir(folder.parent) if e.is_file())
        return [n for n in names if n.lower().endswith(_REPORTS) and not _NO_REPORTS.search(n)]
    return []


def _report_of(stem: str, folder: Path, texts: Sequence[str], alone: bool = False) -> Path | None:
    """The report named like the scan; for the only scan also ``report``, and the only text."""
    wanted = {stem.lower(), f"{stem}_report".lower(), f"{stem}-report".lower()} if stem else set()
    named = [name for name in texts if Path(name).stem.lower() in wanted]
    if not named and alone:
        plain = [name for name in texts if name.lower().endswith(".txt")]
        named = [name for name in texts if Path(name).stem.lower() == "report"]
        named = named or (plain if len(plain) == 1 else [])
    return folder / named[0] if named else None


def _with_rows(found: list[_Found], root: Path) -> list[_Found]:
    """Rows of the csv files of reports in the folder, for scans without a report of their own."""
    rows: dict[str, Path] = {}
    if any(study.report is None for study in found):
        for path in sorted(root.glob("*.csv")):
            with suppress(SimCroPError, OSError):
                for name, parts in read_csv_rows(path, "utf-8"):
                    if parts.parts:
                        rows.setdefault(name, path)
    return [
        replace(study, report=rows[study.stem], row=study.stem)
        if study.report is None and study.stem in rows
        else study
        for study in found
    ]


def _is_of_labels(folder: str) -> bool:
    return bool(_LABELS.search(folder)) and not _CT.search(folder)


def _is_other(name: str) -> bool:
    """Whether a file is a label map or of our own making, by its name."""
    return bool(_LABELS.search(_stem(name))) or name.endswith(".encoded.npz")


def _stem(name: str) -> str:
    return next((name[: -len(s)] for s in _SCANS if name.lower().endswith(s)), name)


def _natural(name: str) -> list[tuple[int, int, str]]:
    """So that ``case-10`` comes after ``case-9``."""
    parts = re.findall(r"\d+|\D+", name.casefold())
    return [(0, int(part[:18]), part) if part.isdecimal() else (1, 0, part) for part in parts]
