"""Scans of public data sets that come without reports: files found by name, chosen by lists."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcrop_core.datasets.dataset import Dataset, Fault
from simcrop_core.datasets.manifest import fault, file_stamp
from simcrop_core.datasets.masks import Masks
from simcrop_core.datasets.volume_check import check_volume
from simcrop_core.errors import SimCroPError
from simcrop_core.input_spec import InputSpec
from simcrop_core.io import labels_on, read_labels, read_volume
from simcrop_core.statements import Facts
from simcrop_core.study import Study
from simcrop_core.volume import CTVolume, Note


@dataclass(frozen=True, slots=True)
class ScanSource:
    """A scan with what a list says of it; paths are absolute, blank where there is none.

    Attributes
    ----------
    volume, mask
        The scan, and its label map.
    labels
        ``(finding, 0 or 1)`` as far as the list's labels mean one of CT-RATE's findings.
    structures
        Names of the label map's values 1, 2, ...
    patient
        Whose it is, where the data set says it.
    """

    id: str
    volume: str
    labels: tuple[tuple[str, int], ...] = ()
    mask: str = ""
    structures: tuple[str, ...] = ()
    patient: str = ""

    @property
    def path(self) -> Path:
        """Where the scan lies."""
        return Path(self.volume)

    def read(self) -> CTVolume:
        """The scan, as this data set stores it."""
        return read_volume(self.volume)

    def read_report(self) -> None:
        """None: these data sets come without reports."""

    def read_structures(self, volume: CTVolume) -> tuple[NDArray[np.uint8] | None, list[Note]]:
        """The label map on the scan's voxels, and what is to be known of it."""
        if not self.mask:
            return None, []
        labels_XYZ, grid = read_labels(self.mask)
        placed = labels_on(volume.grid, self.renumbered(labels_XYZ), grid, path=self.mask)
        return np.asarray(placed, np.uint8), []

    def renumbered(self, labels_XYZ: NDArray[Any]) -> NDArray[np.uint8]:
        """The stored label map with the numbers of :attr:`structures`.

        Raises
        ------
        SimCroPError
            ``bad-label``: it holds a number that means nothing.
        """
        low, high = int(labels_XYZ.min()), int(labels_XYZ.max())
        if low < 0 or high > len(self.structures):
            meant = f"0 to {len(self.structures)}"
            raise bad_mask_label(self.mask, low if low < 0 else high, meant)
        return np.asarray(labels_XYZ, np.uint8)

    def read_regions(self, volume: CTVolume) -> tuple[Masks, list[Note]]:
        """Masks of what lies in the scan, by name, and what is to be known of them."""
        return Masks(volume.shape), []

    def load(
        self, spec: InputSpec | None = None, margin_voxels: tuple[int, int, int] = (0, 0, 0)
    ) -> Study:
        """The study: it has no report.

        Raises
        ------
        SimCroPError
            Scan or mask cannot be read, or do not belong together.
        """
        volume = self.read()
        structures_XYZ, notes = self.read_structures(volume)
        regions, more = self.read_regions(volume)
        return Study(
            self.id,
            volume.with_notes([*notes, *more]),
            regions=regions,
            facts=Facts.from_labels(dict(self.labels)),
            structures_XYZ=structures_XYZ,
            structure_names=() if structures_XYZ is None else self.structures,
        )

    def stamp(self) -> str:
        """What the lists say, and size and time of the files."""
        return repr((self, [file_stamp(Path(name)) for name in (self.volume, self.mask) if name]))

    def faults(self) -> Iterator[Fault]:
        """As in :class:`~simcrop_core.datasets.dataset.DatasetSource`."""
        for part, name in (("volume", self.volume), ("mask", self.mask)):
            refused = check_volume(Path(name)) if name else None
            if refused is not None:
                yield fault(self.id, part, refused)


def bad_mask_label(path: str, value: int, meant: str) -> SimCroPError:
    """The refusal of a label map with a value that means nothing."""
    return SimCroPError(
        f"The mask holds the value {value}, and only {meant} mean something",
        path=path,
        code="bad-label",
        remedy="Fetch the mask again, or name the folder that it belongs to.",
    )


def whole(name: str, sources: Sequence[ScanSource], faults: Iterable[Fault], root: Path) -> Dataset:
    """The data set of these scans.

    Raises
    ------
    SimCroPError
        ``no-studies``.
    """
    if not sources:
        raise SimCroPError(
            "No study is left",
            path=root,
            code="no-studies",
            remedy="Check folder and list.",
        )
    return Dataset(name, tuple(sources), tuple(faults))


def check_folder(root: Path) -> None:
    """Refuse what is no folder.

    Raises
    ------
    SimCroPError
        ``missing``.
    """
    if not root.is_dir():
        raise SimCroPError(
            "There is no such folder", path=root, code="missing", remedy="Check the name."
        )


def check_names(names: Iterable[str], pattern: str, of: str, example: str, path: Path) -> None:
    """Refuse a list that names what this data set cannot have.

    Raises
    ------
    SimCroPError
        ``bad-name``.
    """
    for name in names:
        if re.fullmatch(pattern, name) is None:
            raise SimCroPError(
                f"{name[:80]!r} is not the name of a scan of {of}",
                path=path,
                code="bad-name",
                remedy=f"Names are such as {example}; use a list of {of}.",
            )


def first_there(places: Sequence[Path]) -> str:
    """The first place where there is a file; the first of all where there is none."""
    return str(next((p for p in places if p.is_file()), places[0]).absolute())


def without_suffix(name: str) -> str:
    """A scan's id, of the name of its file."""
    for suffix in (".nii.gz", ".nii", ".npz", ".mhd"):
        if name.endswith(suffix):
            return name.removesuffix(suffix)
    return name


def refuse_split(split: str | None, of: str, remedy: str) -> None:
    """Refuse a split where the data set has none, or none of this name.

    Raises
    ------
    SimCroPError
        ``no-such-split``.
    """
    if split is not None:
        raise SimCroPError(
            f"There is no split {split!r} of {of}", code="no-such-split", remedy=remedy
        )
