"""CT-RATE, in the two layouts in which it is found on disk.

As published, ``<root>/train/train_1/train_1_a/train_1_a_1.nii.gz`` (also ``train_fixed``); as the
authors' own code reads it, ``<root>/train_preprocessed/train_1/train_1a/train_1_a_1.nii.gz``. The
same for ``valid``. Beside the volumes, or one folder down, lie csv files that are told apart by
their columns: reports (``VolumeName``, ``Findings_EN``, ``Impressions_EN``), metadata
(``VolumeName``, ``XYSpacing``, ``ZSpacing``, ``RescaleSlope``, ``RescaleIntercept``), labels
(``VolumeName`` and the 18 findings).

The volumes' headers are not to be trusted: spacing and rescale come from the metadata, and the
stored axes run Left, Posterior, Superior whatever the header says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simcrop_core.datasets.dataset import Dataset, Fault, plain_sentences
from simcrop_core.datasets.manifest import fault, file_stamp
from simcrop_core.datasets.stated_geometry import read_despite_header, with_geometry
from simcrop_core.datasets.table import header_of, labels_in, read_table
from simcrop_core.datasets.volume_check import check_volume
from simcrop_core.errors import SimCroPError
from simcrop_core.input_spec import InputSpec
from simcrop_core.io import read_volume
from simcrop_core.report import Report, report_from_parts
from simcrop_core.report_csv import read_csv_rows
from simcrop_core.report_files import Parts
from simcrop_core.statements import FINDINGS, Facts
from simcrop_core.study import Study
from simcrop_core.volume import CTVolume, Note

AXCODES = "LPS"
_NAME = re.compile(r"((train|valid)_\d+)_([a-z]+)_(\d+)")


@dataclass(frozen=True, slots=True)
class Geometry:
    """What the metadata say of a volume.

    Attributes
    ----------
    spacing_mm
        Along the stored axes.
    slope, intercept
        From stored values to Hounsfield units.
    slices
        Number of slices, or 0 where the metadata do not say.
    """

    spacing_mm: tuple[float, float, float]
    slope: float
    intercept: float
    slices: int = 0


@dataclass(frozen=True, slots=True)
class CtRateSource:
    """A volume of CT-RATE with what the csv files say of it; None where they say nothing."""

    id: str
    root: str
    geometry: Geometry | None
    report: Parts | None
    labels: tuple[tuple[str, int], ...] | None
    problems: tuple[tuple[str, str, str], ...] = ()  # part, code, sentence

    @property
    def path(self) -> Path:
        """Where the volume lies, in whichever layout; the published one where it is absent."""
        places = volume_paths(Path(self.root), self.id)
        return next((p for p in places if p.is_file()), places[0])

    @property
    def patient(self) -> str:
        """``train_1`` of ``train_1_a_2``: scans and reconstructions of one patient share it."""
        match = _NAME.fullmatch(self.id)
        return match[1] if match is not None else ""

    def stamp(self) -> str:
        """What the csv files say, and size and time of the volume."""
        said = (self.geometry, self.report, self.labels)
        return repr((said, self.path.parent.name, file_stamp(self.path)))

    def load(
        self, spec: InputSpec | None = None, margin_voxels: tuple[int, int, int] = (0, 0, 0)
    ) -> Study:
        """The study, its geometry and Hounsfield units as the metadata say."""
        volume, report = self.read(), self.read_report()
        facts = Facts.unknown() if self.labels is None else Facts.from_labels(dict(self.labels))
        return Study(self.id, volume, report, plain_sentences(report), facts=facts)

    def read(self) -> CTVolume:
        """The scan alone."""
        for part, code, problem in self.problems:
            if part == "metadata" and code != "missing":
                raise SimCroPError(
                    problem, path=self.path, code=code, remedy="Fetch the metadata csv again."
                )
        return read_ct_rate_volume(self.path, self.geometry)

    def read_report(self) -> Report | None:
        """The report alone; None where the reports say nothing of this volume."""
        if self.report is None or not self.report.parts:
            return None
        return report_from_parts(self.report)

    def faults(self) -> Iterator[Fault]:
        """As in :class:`~simcrop_core.datasets.dataset.DatasetSource`."""
        for part, code, problem in self.problems:
            yield Fault(self.id, part, code, problem, blocks=part == "metadata")
        refused = check_volume(self.path)
        if refused is not None:
            yield fault(self.id, "volume", refused)


def ct_rate_dataset(root: Path, cases: Path | None = None, split: str | None = None) -> Dataset:
    """CT-RATE under ``root``.

    Parameters
    ----------
    root
        The folder that holds the volumes' folders and, there or one folder down, the csv files.
    cases
        A list of volumes (csv with the column VolumeName, and labels): only these, in its order.
        None: every row of the reports.
    split
        ``"train"`` or ``"valid"``: only these.

    Raises
    ------
    SimCroPError
        The root or the csv files are missing or broken; no study is left.
    """
    if split not in (None, "train", "valid"):
        raise SimCroPError(
            f"There is no split {split!r} of CT-RATE",
            code="no-such-split",
            remedy="There are train and valid, which the method also tests on.",
        )
    tables = find_tables(root)
    if not tables["reports"] and cases is None:
        raise SimCroPError(
            "There is no csv of reports here or one folder down",
            path=root,
            code="missing",
            remedy="Name the folder of CT-RATE, or give a list of cases.",
        )
    faults: list[Fault] = []
    reports = _reports(tables["reports"], faults)
    geometry, bad_geometry = _metadata(tables["metadata"])
    labels = _labels(tables["labels"] if cases is None else [*tables["labels"], cases])
    names = list(reports) if cases is None else _names(cases)
    names = [n for n in dict.fromkeys(names) if split is None or n.startswith(f"{split}_")]
    sources = []
    for name in names:
        problems = []
        if name in bad_geometry:
            problems.append(("metadata", "bad-metadata", bad_geometry[name]))
        elif name not in geometry:
            problems.append(("metadata", "missing", "The metadata have no row of this volume."))
        if name not in reports:
            problems.append(("report", "missing", "The reports have no row of this volume."))
        elif not reports[name].parts:
            problems.append(("report", "empty", "The report's row has no text."))
        if name not in labels:
            problems.append(("labels", "missing", "The labels have no row of this volume."))
        sources.append(
            CtRateSource(
                name,
                str(root.absolute()),
                geometry.get(name),
                reports.get(name),
                labels.get(name),
                tuple(problems),
            )
        )
    if not sources:
        raise SimCroPError(
            "No study is left", path=root, code="no-studies", remedy="Check the list and split."
        )
    return Dataset("ct-rate" if split is None else f"ct-rate-{split}", tuple(sources), (*faults,))


def volume_paths(root: Path, name: str) -> list[Path]:
    """Where a volume may lie: as published (also as corrected), and as the authors read it.

    Raises
    ------
    SimCroPError
        ``bad-name``: it is no name of CT-RATE, such as ``train_1_a_1``.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise SimCroPError(
            f"{name!r} is not the name of a volume of CT-RATE",
            code="bad-name",
            remedy="Names are such as train_1_a_1 or valid_20_b_2.nii.gz.",
        )
    patient, split, scan, _ = match.groups()
    published = Path(patient, f"{patient}_{scan}", f"{name}.nii.gz")
    authors = Path(patient, f"{patient}{scan}", f"{name}.nii.gz")
    bases = [root, root / "dataset"]
    return [
        base / folder / inside
        for base in bases
        for folder, inside in (
            (split, published),
            (f"{split}_fixed", published),
            (f"{split}_preprocessed", authors),
        )
    ]


def read_ct_rate_volume(path: Path, geometry: Geometry | None) -> CTVolume:
    """A volume with the geometry and rescale of its metadata instead of its header's.

    A preprocessed file (resampled, so that it has another number of slices than the metadata
    say) is read by its header, with a Note.

    Raises
    ------
    SimCroPError
        ``no-metadata`` for a volume as published of which the metadata say nothing; else as
        reading a volume does.
    """
    preprocessed = path.parents[2].name.endswith("_preprocessed")
    if geometry is None:
        if not preprocessed:
            raise SimCroPError(
                "The metadata say nothing of this volume, and its header is not to be trusted",
                path=path,
                code="no-metadata",
                remedy="Put the metadata csv of CT-RATE beside the volumes.",
            )
        return _by_header(path)
    spacing = geometry.spacing_mm
    rescale = (geometry.slope, geometry.intercept)
    volume = read_despite_header(path, AXCODES, spacing, rescale=rescale)
    if preprocessed and geometry.slices and volume.shape[2] != geometry.slices:
        return _by_header(path)
    return with_geometry(volume, AXCODES, spacing, "the metadata's")


def _by_header(path: Path) -> CTVolume:
    note = Note(
        "preprocessed",
        "This preprocessed volume was read by its own header, which the metadata do not describe",
    )
    return read_volume(path).with_notes([note])


# -- the csv files ------------------------------------------------------------------------------


def metadata_of(root: Path) -> dict[str, Geometry]:
    """Geometry by volume, from the csv files of metadata in a folder; none where there are none."""
    return _metadata(find_tables(root)["metadata"])[0]


def find_tables(root: Path) -> dict[str, list[Path]]:
    """The csv files of reports, metadata and labels in a folder and one folder down.

    Raises
    ------
    SimCroPError
        ``missing``: there is no such folder.
    """
    if not root.is_dir():
        raise SimCroPError(
            "There is no such folder", path=root, code="missing", remedy="Check the name."
        )
    found: dict[str, list[Path]] = {"reports": [], "metadata": [], "labels": []}
    for path in sorted([*root.glob("*.csv"), *root.glob("*/*.csv"), *root.glob("dataset/*/*.csv")]):
        columns = set(header_of(path))
        if "VolumeName" not in columns:
            continue
        if columns & {"Findings_EN", "Impressions_EN"}:
            found["reports"].append(path)
        elif columns >= {"XYSpacing", "ZSpacing", "RescaleSlope", "RescaleIntercept"}:
            found["metadata"].append(path)
        elif columns >= set(FINDINGS):
            found["labels"].append(path)
    return found


def _stem(name: str) -> str:
    return name.removesuffix(".nii.gz")


def _names(path: Path) -> list[str]:
    header, rows = read_table(path)
    if "VolumeName" not in header:
        raise SimCroPError(
            "The list has no column VolumeName",
            path=path,
            code="csv",
            remedy="Use a list as published, such as train_list.csv.",
        )
    names = [_stem(row["VolumeName"]) for row in rows]
    for name in names:
        volume_paths(Path(), name)
    return names


def _reports(paths: Iterable[Path], faults: list[Fault]) -> dict[str, Parts]:
    found: dict[str, Parts] = {}
    for path in paths:
        for name, parts in read_csv_rows(path, "utf-8"):
            if _NAME.fullmatch(name) is None:
                problem = f"The reports name a volume {name[:60]!r}, which is none of CT-RATE's."
                faults.append(Fault("", "report", "bad-name", problem, str(path)))
            elif name in found and found[name].parts != parts.parts:
                problem = "The reports have two different rows of this volume; the first is used."
                faults.append(Fault(name, "report", "twice", problem, str(path)))
            else:
                found.setdefault(name, parts)
    return found


def _metadata(paths: Iterable[Path]) -> tuple[dict[str, Geometry], dict[str, str]]:
    """Geometry by volume, and what is wrong with rows that cannot be used."""
    found: dict[str, Geometry] = {}
    bad: dict[str, str] = {}
    for path in paths:
        for row in read_table(path)[1]:
            name = _stem(row["VolumeName"])
            try:
                found.setdefault(name, _geometry(row))
            except (ValueError, TypeError, IndexError):
                bad[name] = "The metadata's spacing or rescale of this volume cannot be read."
    return found, {name: problem for name, problem in bad.items() if name not in found}


def _geometry(row: dict[str, str]) -> Geometry:
    """A row of the metadata; ``XYSpacing`` is text such as ``"[0.68, 0.68]"``."""
    x, y = (float(v) for v in json.loads(row["XYSpacing"]))
    spacing = (x, y, float(row["ZSpacing"]))
    slope, intercept = float(row["RescaleSlope"]), float(row["RescaleIntercept"])
    slices = row.get("NumberofSlices", "")
    values = np.array([*spacing, slope, intercept])
    if not np.isfinite(values).all() or min(spacing) <= 0 or slope == 0:
        raise ValueError("impossible")
    return Geometry(spacing, slope, intercept, int(float(slices)) if slices else 0)


def _labels(paths: Iterable[Path]) -> dict[str, tuple[tuple[str, int], ...]]:
    found: dict[str, tuple[tuple[str, int], ...]] = {}
    for path in paths:
        header, rows = read_table(path)
        names = tuple(name for name in FINDINGS if name in header)
        for row in rows if names else ():
            found.setdefault(_stem(row["VolumeName"]), (*labels_in(row, names, path).items(),))
    return found
