"""BTCV: abdomens with 13 organs, ``<root>/imagesTr/btcv_001.nii.gz`` and
``<root>/labelsTr/btcv_001.nii.gz``, split by a JSON list in the form of the Medical Segmentation
Decathlon."""

from __future__ import annotations

from pathlib import Path

from simcrop_core.datasets.dataset import Dataset
from simcrop_core.datasets.scans import ScanSource, check_folder, whole
from simcrop_core.datasets.split_list import list_in, listed_scans

#: Values 1 to 13 of the label maps.
ORGANS = (
    "spleen",
    "right kidney",
    "left kidney",
    "gallbladder",
    "oesophagus",
    "liver",
    "stomach",
    "aorta",
    "inferior vena cava",
    "portal and splenic veins",
    "pancreas",
    "right adrenal gland",
    "left adrenal gland",
)


def btcv_dataset(root: Path, cases: Path | None = None, split: str | None = None) -> Dataset:
    """BTCV under ``root``.

    Parameters
    ----------
    root
        The folder that holds ``imagesTr`` and ``labelsTr``.
    cases
        The JSON list; ``dataset.json`` in ``root`` by default.
    split
        ``"train"``, ``"valid"`` or ``"test"`` of the list; None: all of it.

    Raises
    ------
    SimCroPError
        The root or the list is missing or broken; no study is left.
    """
    check_folder(root)
    listed = listed_scans(list_in(root, cases, "BTCV"), split, len(ORGANS))
    sources = [
        ScanSource(
            id=scan.name,
            volume=str((root / scan.image).absolute()),
            mask=str((root / scan.mask).absolute()) if scan.mask else "",
            structures=ORGANS if scan.mask else (),
        )
        for scan in listed
    ]
    return whole("btcv" if split is None else f"btcv-{split}", sources, (), root)
