"""A folder of studies: every scan in it, each with the report that lies beside it.

Scans are files (NIfTI, NRRD, MetaImage, npz) and folders of DICOM slices, also further down; label
maps and masks are told by their names and left out. A report is the text or JSON file named like
the scan, or named ``report``, or the only text of a folder with one scan; or the row of a csv of
reports in the folder that has the name of this scan and of no other.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from simcrop_core.datasets.dataset import Dataset, Fault
from simcrop_core.datasets.manifest import ManifestSource
from simcrop_core.datasets.neutral_name import neutral_name
from simcrop_core.datasets.scans import check_folder
from simcrop_core.errors import SimCroPError
from simcrop_core.io.dicom_header import OtherObject, read_header
from simcrop_core.io.guard import Limits
from simcrop_core.report import read_report
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
#: Words in the names of what lies beside one CT: masks of structures, and scans of another kind.
_BESIDE_THE_CT = re.compile(
    r"(?:^|[-_. \d])(?:"
    r"lm|gt|rois?|gtv|ctv|ptv|pet|suv|dose|rtdose|body|bones?|brain|skull|skin|fat|muscles?|"
    r"lungs?|lobes?|airways?|trachea|bronch\w+|pleura\w*|pericardi\w+|mediastinum|effusions?|"
    r"heart|atri\w+|ventricle\w*|myocardium|aort\w+|arter\w+|veins?|vena|vessels?|"
    r"lesions?|nodules?|tumou?rs?|infections?|opacit\w+|emphysema|calcifications?|"
    r"o?esophagus|stomach|liver|spleen|pancreas|gallbladder|kidneys?|adrenals?|thyroid|duodenum|"
    r"colon|bowel|bladder|prostate|vertebrae?|spine|spinal|ribs?|sternum|clavicul\w+|clavicles?|"
    r"scapulae?|humer\w+|femur|hip|sacrum|glute\w+|iliopsoas|autochthon|costal|brachiocephalic|"
    r"subclavian|carotid|iliac|diaphragm|breasts?|lymph\w*"
    r")(?:$|[-_. \d])",
    re.IGNORECASE,
)
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


@dataclass(slots=True)
class _Left:
    """Folders that could not be read, and those whose folders lie too deep."""

    unread: list[Path] = field(default_factory=list)
    deep: list[Path] = field(default_factory=list)

    def faults(self) -> tuple[Fault, ...]:
        """What was left out, as sentences that name no folder."""
        found = []
        if self.unread:
            one = len(self.unread) == 1
            count = "A folder in it" if one else f"{len(self.unread)} folders in it"
            problem = f"{count} could not be read; studies may be missing."
            found.append(Fault("", "volume", "unreadable", problem, str(self.unread[0])))
        if self.deep:
            problem = f"Folders more than {_MOST_DEPTH} deep were not searched."
            found.append(Fault("", "volume", "too-deep", problem, str(self.deep[0])))
        return tuple(found)


def folder_dataset(root: Path, progress: Progress = lambda what, done, total: None) -> Dataset:
    """The studies in a folder, in the order of their paths.

    Ids are the scans' names where those can name no person, else numbers. Links to folders are
    followed, each folder being searched once. What could not be searched is among the faults.

    Raises
    ------
    SimCroPError
        ``missing``: there is no such folder. ``no-studies``: there is no scan in it.
    """
    check_folder(root)
    root, left = root.absolute(), _Left()
    found = list(_search(root, progress, left))
    if not found:
        problems = [fault.problem.rstrip(".") for fault in left.faults()]
        raise SimCroPError(
            ". ".join(["There is no scan in this folder", *problems]),
            path=root,
            code="no-studies",
            remedy="Choose a folder with CT files or DICOM folders in it, or a csv that lists "
            "studies.",
        )
    found = _with_rows(_with_texts_above(_in_order(found), root, left), root)
    return Dataset("folder", tuple(_sources(found)), left.faults())


def _sources(found: Sequence[_Found]) -> Iterator[ManifestSource]:
    names = [neutral_name(study.name) for study in found]
    often = Counter(name.casefold() for name in names)
    for number, (study, name) in enumerate(zip(found, names, strict=True), 1):
        unique = bool(name) and often[name.casefold()] == 1
        made = f"study-{number:05d}"
        yield ManifestSource(
            id=name if unique else f"{made}-unnamed" if made in often else made,
            volume=str(study.scan),
            report="" if study.report is None else str(study.report),
            volume_name=study.row,
            is_named=unique,
        )


# -- scans ----------------------------------------------------------------------------------------


def _search(root: Path, progress: Progress, left: _Left) -> Iterator[_Found]:
    """What lies in a folder; each folder once, by its own path rather than by a link."""
    count, pending = 0, [root]
    seen = {_identity(folder) for folder in root.resolve().parents}  # a link may lead back there
    while pending:
        walk = os.walk(pending.pop(0), onerror=lambda e: left.unread.append(Path(e.filename)))
        for at, folders, names in walk:
            progress("searching the folder", count, 0)
            folder = Path(at)
            inside = [f for f in folders if not f.startswith(".") and not _is_of_labels(f)]
            folders[:] = []
            identity = _identity(folder)
            if identity in seen or any(name in _NOT_STUDIES for name in names):
                continue
            seen.add(identity)
            if inside and len(folder.relative_to(root).parts) >= _MOST_DEPTH:
                left.deep.append(folder)
            else:
                folders[:] = inside
                pending += [folder / f for f in inside if os.path.islink(folder / f)]
            names = sorted((n for n in names if not n.startswith(".")), key=_natural)
            for study in _studies_in(folder, names, root):
                count += 1
                yield study


def _identity(folder: Path) -> tuple[int, int] | str:
    """The same for a folder and a link to it."""
    with suppress(OSError):
        facts = folder.stat()
        if facts.st_ino:
            return facts.st_dev, facts.st_ino
    return os.path.realpath(folder)


def _regular(folder: Path, names: Iterable[str]) -> Iterator[str]:
    """Those that are files: a pipe or a device would never end to be read."""
    return (name for name in names if os.path.isfile(folder / name))


def _studies_in(folder: Path, names: Sequence[str], root: Path) -> list[_Found]:
    """The scans that lie in a folder itself, with what reports lie in the same folder."""
    texts = _texts(folder, names)
    scans = [n for n in names if n.lower().endswith(_SCANS) and not _is_other(n)]
    scans = _without_masks(list(_regular(folder, scans)))
    if not scans:
        if not _holds_slices(folder, names):
            return []
        report = _report_of("", folder, texts, alone=True)
        if report is None and folder != root:
            report = _report_of(folder.name, folder.parent, _texts_in(folder.parent))
        return [_Found(folder, True, report)]
    alone = len(scans) == 1
    return [
        _Found(folder / name, False, _report_of(_stem(name), folder, texts, alone=alone))
        for name in scans
    ]


def _without_masks(scans: list[str]) -> list[str]:
    """Beside one file that is called the CT, what is named like a structure is a mask of it."""
    named = [name for name in scans if _CT.search(_stem(name))]
    if len(named) != 1:
        return scans

    def is_mask(name: str) -> bool:
        stem = _stem(name)
        return bool(_BESIDE_THE_CT.search(stem)) and not neutral_name(stem)

    return [name for name in scans if name in named or not is_mask(name)]


def _holds_slices(folder: Path, names: Sequence[str]) -> bool:
    """Whether one of a folder's first files is a DICOM image."""
    likely = (n for n in names if not n.lower().endswith((*_REPORTS, ".csv", ".md", ".pdf")))
    for name in islice(_regular(folder, likely), _MOST_LOOKED_AT):
        with suppress(SimCroPError):
            content = read_header(folder / name, Limits())
            if content is not None and not isinstance(content, OtherObject):
                return True
    return False


def _in_order(found: list[_Found]) -> list[_Found]:
    return sorted(found, key=lambda study: [_natural(part) for part in study.scan.parts])


# -- reports --------------------------------------------------------------------------------------


def _texts_in(folder: Path) -> list[str]:
    with suppress(OSError):
        return _texts(folder, sorted(os.listdir(folder)))
    return []


def _texts(folder: Path, names: Iterable[str]) -> list[str]:
    """Those of a folder's files that may be reports."""
    likely = (n for n in names if n.lower().endswith(_REPORTS) and not _NO_REPORTS.search(n))
    return list(_regular(folder, likely))


def _report_of(stem: str, folder: Path, texts: Sequence[str], alone: bool = False) -> Path | None:
    """The report named like the scan; for the only scan also ``report``, and the only text."""
    wanted = {stem.lower(), f"{stem}_report".lower(), f"{stem}-report".lower()} if stem else set()
    named = _first_report(folder, [name for name in texts if Path(name).stem.lower() in wanted])
    if named is None and alone:
        plain = [name for name in texts if name.lower().endswith(".txt")]
        named = _first_report(folder, [n for n in texts if Path(n).stem.lower() == "report"])
        if named is None and len(plain) == 1:
            named = folder / plain[0]
    return named


def _first_report(folder: Path, names: Sequence[str]) -> Path | None:
    """A text, else a JSON that says something of the scan: others tell how it was made."""
    for name in names:
        if name.lower().endswith(".txt"):
            return folder / name
    return next((folder / name for name in names if _tells_findings(folder / name)), None)


def _tells_findings(path: Path) -> bool:
    with suppress(SimCroPError, OSError):
        report = read_report(path)
        return bool(report.in_section("findings") or report.in_section("impression"))
    return False


def _with_texts_above(found: list[_Found], root: Path, left: _Left) -> list[_Found]:
    """The report that lies beside a DICOM folder, where it can be of no other scan."""
    below = Counter(folder for study in found for folder in study.scan.parents)
    unsure = {above for folder in (*left.unread, *left.deep) for above in (folder, *folder.parents)}
    whole = []
    for study in found:
        parent = study.scan.parent
        only = below[parent] == 1 and parent not in unsure and study.scan != root
        if study.is_folder and study.report is None and only:
            study = replace(study, report=_report_of("", parent, _texts_in(parent), alone=True))
        whole.append(study)
    return whole


def _with_rows(found: list[_Found], root: Path) -> list[_Found]:
    """Rows of the csv files of reports in the folder, for scans without a report of their own.

    A name that several scans have says of none whose row it is.
    """
    rows: dict[str, Path] = {}
    often = Counter(study.stem for study in found)
    if any(study.report is None for study in found):
        for path in sorted(root.glob("*.csv")):
            with suppress(SimCroPError, OSError):
                for name, parts in read_csv_rows(path, "utf-8") if path.is_file() else ():
                    if parts.parts:
                        rows.setdefault(name, path)
    return [
        replace(study, report=rows[study.stem], row=study.stem)
        if study.report is None and study.stem in rows and often[study.stem] == 1
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
