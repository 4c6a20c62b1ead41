"""Lists of studies to read one after the other, from whatever names studies elsewhere.

A folder, a csv for training (``study, volume, report``) or for ``simcrop batch align`` (``study,
ct, report``), and every word that `open_dataset` knows.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from simcrop_core.datasets.ct_rate import CtRateSource, ct_rate_dataset, find_tables
from simcrop_core.datasets.dataset import Dataset, ReadableScan
from simcrop_core.datasets.folder import folder_dataset
from simcrop_core.datasets.manifest import BATCH_FORM, ManifestSource, file_stamp
from simcrop_core.datasets.table import header_of
from simcrop_core.datasets.volume_check import check_volume
from simcrop_core.errors import SimCroPError
from simcrop_core.report import Report

if TYPE_CHECKING:
    from simcrop_core.device import Progress

#: Folders of CT-RATE's volumes, as published and as the authors' code reads them.
_CT_RATE = ("train", "valid", "train_fixed", "valid_fixed", "train_preprocessed", "dataset")


@runtime_checkable
class ReadableSource(ReadableScan, Protocol):
    """Such a source whose report, too, can be read by itself."""

    def read_report(self) -> Report | None:
        """The report, or None where there is none.

        Raises
        ------
        SimCroPError
            It cannot be read.
        """
        ...


def open_worklist(
    place: str | Path, progress: Progress = lambda what, done, total: None
) -> Dataset:
    """The studies that a folder, a csv or a word such as ``ct-rate:ROOT`` names.

    A folder that holds CT-RATE, reports and all, is read as that; volumes of it that are not there
    are left out. ``progress`` is called now and then with what is done, studies found, and 0.

    Raises
    ------
    SimCroPError
        It names nothing, or what it names cannot be read.
    """
    from simcrop_core.datasets import open_dataset

    path = Path(os.path.expanduser(place))  # Path's own fails for unknown people
    if path.is_dir():
        if _is_ct_rate(path):
            return _there(ct_rate_dataset(path), path)
        return folder_dataset(path, progress)
    if path.is_file() and "ct" in header_of(path):
        return _batch_list(path)
    found = open_dataset(str(place))
    return _there(found, path) if str(place).startswith("ct-rate:") else found


def is_list(path: Path) -> bool:
    """Whether a csv lists studies (and is not one of reports), by its columns."""
    columns = set(header_of(path))
    return "study" in columns and bool(columns & {"volume", "ct"})


def scan_fault(source: ReadableSource) -> SimCroPError | None:
    """What is wrong with a study's scan, as far as it shows without unpacking it."""
    place = source.volume if isinstance(source, ManifestSource) else getattr(source, "path", None)
    return None if place is None else check_volume(Path(place))


def scan_stamp(source: ReadableSource) -> str:
    """What changes when the study's scan does, whatever else its list says of it."""
    if isinstance(source, ManifestSource):
        return repr((source.volume, source.series, file_stamp(Path(source.volume))))
    return source.stamp()


def _is_ct_rate(root: Path) -> bool:
    if not any((root / name).is_dir() for name in _CT_RATE):
        return False
    return bool(find_tables(root)["reports"])


def _there(found: Dataset, root: Path) -> Dataset:
    """Only the volumes that are on this disk: few people hold all of CT-RATE."""
    sources = tuple(s for s in found.sources if isinstance(s, CtRateSource) and s.path.is_file())
    if not sources:
        raise SimCroPError(
            "None of the volumes that the reports name is here",
            path=root,
            code="no-studies",
            remedy="Check that the volumes lie as CT-RATE publishes them.",
        )
    return Dataset(found.name, sources, found.faults)


def _batch_list(path: Path) -> Dataset:
    """The csv of ``simcrop batch align``."""

    def absolute(row: dict[str, Any], column: str) -> str:
        return str((path.parent / row[column]).absolute())

    sources = tuple(
        ManifestSource(
            id=row["study"],
            volume=absolute(row, "ct"),
            report=absolute(row, "report"),
            volume_name=row.get("volume_name", ""),
            series=row.get("series", ""),
        )
        for _, row in BATCH_FORM.read(path)[1]
    )
    return Dataset(path.stem, sources)
