"""RadChestCT, as published and as the authors of the method store it.

As published (https://zenodo.org/records/6406114), ``<root>/trn00001.npz`` with one array ``ct``:
resampled to 0.8 mm, clipped to -1000 to 1000 HU, slices first and from the head down, then rows
to the back, then columns to the left (so says the code that made it,
rachellea/ct-volume-preprocessing). As the authors' code reads it,
``<root>/images/trn00001.nii.gz``, by its header. The lists name the scans ``trn``, ``val`` and
``tst`` with a number, without a suffix, and give 16 labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from simcrop_core.datasets.dataset import Dataset, Fault
from simcrop_core.datasets.lists import CaseList, read_case_list
from simcrop_core.datasets.scans import (
    ScanSource,
    check_folder,
    check_names,
    first_there,
    refuse_split,
    whole,
    without_suffix,
)
from simcrop_core.io import read_volume
from simcrop_core.volume import CTVolume

AXCODES = "IPL"
SPACING_MM = (0.8, 0.8, 0.8)
_NAME = r"(trn|val|tst)\d{5}"
_PREFIX = {"train": "trn", "valid": "val", "test": "tst"}

#: Label of RadChestCT -> the findings of CT-RATE that it means. ``Calcification`` is either of
#: two; ``Hietal Hernia`` is spelled so. Mosaic attenuation has no label here.
FINDINGS_OF: dict[str, tuple[str, ...]] = {
    "Medical material": ("Medical material",),
    "Calcification": ("Arterial wall calcification", "Coronary artery wall calcification"),
    "Cardiomegaly": ("Cardiomegaly",),
    "Pericardial effusion": ("Pericardial effusion",),
    "Hietal Hernia": ("Hiatal hernia",),
    "Lymphadenopathy": ("Lymphadenopathy",),
    "Emphysema": ("Emphysema",),
    "Atelectasis": ("Atelectasis",),
    "Lung nodule": ("Lung nodule",),
    "Lung opacity": ("Lung opacity",),
    "Pulmonary fibrotic sequela": ("Pulmonary fibrotic sequela",),
    "Pleural effusion": ("Pleural effusion",),
    "Peribronchial thickening": ("Peribronchial thickening",),
    "Consolidation": ("Consolidation",),
    "Bronchiectasis": ("Bronchiectasis",),
    "Interlobular septal thickening": ("Interlobular septal thickening",),
}

#: The same in every row of every published list, so also wherever a part of one agrees.
_TWINS = ("Pericardial effusion", "Pleural effusion")


@dataclass(frozen=True, slots=True)
class RadChestSource(ScanSource):
    """A scan of RadChestCT."""

    def read(self) -> CTVolume:
        """The scan; an .npz has no geometry of its own."""
        if not self.volume.endswith(".npz"):
            return read_volume(self.volume)
        return read_volume(self.volume, spacing_mm=SPACING_MM, axcodes=AXCODES)


def radchestct_dataset(root: Path, cases: Path | None = None, split: str | None = None) -> Dataset:
    """RadChestCT under ``root``.

    Parameters
    ----------
    root
        The folder that holds the scans, or their folder ``images``.
    cases
        A list of scans with their labels: only these, in its order. None: every scan there is.
    split
        ``"train"``, ``"valid"`` or ``"test"``: only these.

    Raises
    ------
    SimCroPError
        The root or the list is missing or broken; no study is left.
    """
    check_folder(root)
    if split not in (None, *_PREFIX):
        refuse_split(split, "RadChestCT", f"There are {', '.join(_PREFIX)}.")
    listed = None if cases is None else read_case_list(cases, classes=2)
    if cases is not None and listed is not None:
        check_names(listed.names, _NAME, "RadChestCT", "trn00001", cases)
    names = _there(root) if listed is None else listed.names
    labels = {} if listed is None else _labels(listed)
    prefix = "" if split is None else _PREFIX[split]
    sources = [
        RadChestSource(name, first_there(scan_places(root, name)), labels.get(name, ()))
        for name in names
        if name.startswith(prefix)
    ]
    notes = () if listed is None else listed.notes_on(_twins(listed))
    faults = [Fault("", "labels", note.code, note.text, str(cases)) for note in notes]
    return whole("radchestct" if split is None else f"radchestct-{split}", sources, faults, root)


def scan_places(root: Path, name: str) -> list[Path]:
    """Where a scan may lie: as published, and as the authors of the method store it."""
    return [
        folder / f"{name}{suffix}"
        for folder, suffix in (
            (root, ".npz"),
            (root / "images", ".nii.gz"),
            (root / "images", ".npz"),
            (root, ".nii.gz"),
        )
    ]


def _there(root: Path) -> list[str]:
    places = [*root.glob("*"), *root.glob("images/*")]
    names = {without_suffix(p.name) for p in places if p.name.endswith((".npz", ".nii.gz"))}
    return sorted(name for name in names if name.startswith(tuple(_PREFIX.values())))


def _twins(cases: CaseList) -> tuple[tuple[str, str], ...]:
    """Pairs of labels of which one at least is wrong."""
    if _TWINS not in cases.twins and cases.agree(*_TWINS):
        return (*cases.twins, _TWINS)
    return cases.twins


def _labels(cases: CaseList) -> dict[str, tuple[tuple[str, int], ...]]:
    """What each row says of CT-RATE's findings.

    Of two labels that are the same in every row one at least is wrong, and nobody knows which:
    neither is believed. A merged label that is 1 leaves open which of its findings is there.
    """
    doubtful = {name for pair in _twins(cases) for name in pair}
    found = {}
    for name, row in zip(cases.names, cases.labels_NK.tolist(), strict=True):
        said = []
        for column, label in zip(cases.columns, row, strict=True):
            findings = () if column in doubtful else FINDINGS_OF.get(column, ())
            if label == 0 or len(findings) == 1:
                said += [(finding, label) for finding in findings]
        found[name] = tuple(said)
    return found
