"""LUNA16, as published and as the authors of the method store it.

As published (https://luna16.grand-challenge.org), ``<root>/subset0/SERIES.mhd`` to ``subset9``,
lungs and trachea in ``<root>/seg-lungs-LUNA16/SERIES.mhd`` (values 3 left lung, 4 right lung,
5 trachea) and nodules in ``annotations.csv`` (``seriesuid, coordX, coordY, coordZ, diameter_mm``;
millimetres, LPS). As the authors' code reads it, ``<root>/images/SERIES.nii.gz`` and
``<root>/masks_processed/SERIES.nii.gz`` (values 1, 2, 3). Their csv lists say whether a scan has a
nodule; their JSON lists pair scans with masks.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simcrop_core.datasets.dataset import Dataset, Fault
from simcrop_core.datasets.lists import check_once, is_json, read_case_list
from simcrop_core.datasets.masks import Masks
from simcrop_core.datasets.scans import (
    ScanSource,
    bad_mask_label,
    check_folder,
    check_names,
    first_there,
    refuse_split,
    whole,
    without_suffix,
)
from simcrop_core.datasets.split_list import listed_scans
from simcrop_core.datasets.table import header_of, read_table
from simcrop_core.errors import SimCroPError
from simcrop_core.geometry import Grid
from simcrop_core.volume import CTVolume, Note

STRUCTURES = ("left lung", "right lung", "trachea")
_NATIVE_MASKS = "seg-lungs-LUNA16"
_NATIVE_FIRST = 3
_NAME = r"\d+(\.\d+)+"
_ANNOTATION = ("seriesuid", "coordX", "coordY", "coordZ", "diameter_mm")
_ROOM_MM = 2000.0
# Beyond any of the published annotations, and beyond what is called a nodule (30 mm).
_LARGEST_MM = 100.0


class Nodule(NamedTuple):
    """RAS millimetres of a nodule's centre, and its diameter."""

    x_mm: float
    y_mm: float
    z_mm: float
    diameter_mm: float


@dataclass(frozen=True, slots=True)
class LunaSource(ScanSource):
    """A scan of LUNA16 with its annotated nodules."""

    nodules: tuple[Nodule, ...] = ()

    def renumbered(self, labels_XYZ: NDArray[Any]) -> NDArray[np.uint8]:
        """Published masks count from 3."""
        if Path(self.mask).parent.name != _NATIVE_MASKS:
            return ScanSource.renumbered(self, labels_XYZ)
        first, last = _NATIVE_FIRST, _NATIVE_FIRST + len(STRUCTURES) - 1
        known = (labels_XYZ == 0) | ((labels_XYZ >= first) & (labels_XYZ <= last))
        if not known.all():
            value = int(labels_XYZ[~known].flat[0])
            raise bad_mask_label(self.mask, value, f"0 and {first} to {last}")
        return np.where(labels_XYZ == 0, 0, labels_XYZ - (first - 1)).astype(np.uint8)

    def read_structures(self, volume: CTVolume) -> tuple[NDArray[np.uint8] | None, list[Note]]:
        """The lungs and the trachea; whether left and right lie where they should."""
        labels_XYZ, notes = ScanSource.read_structures(self, volume)
        if labels_XYZ is not None:
            left, right = (_middle_x(labels_XYZ == number, volume.grid) for number in (1, 2))
            if left is not None and right is not None and left > right:
                text = "The mask's left lung lies to the right of its right lung"
                notes.append(Note("sides-disagree", text))
        return labels_XYZ, notes

    def read_regions(self, volume: CTVolume) -> tuple[Masks, list[Note]]:
        """A ball for each nodule: ``"nodule 1"`` and so on, in the order of the annotations."""
        masks, outside = Masks(volume.shape), 0
        for number, nodule in enumerate(self.nodules, start=1):
            mask = ball(volume.grid, nodule)
            if mask is None:
                outside += 1
            else:
                masks.add(f"nodule {number}", mask)
        notes = []
        if outside:
            text = f"{outside} of {len(self.nodules)} annotated nodules lie outside of the scan"
            notes.append(Note("nodule-elsewhere", text))
        return masks, notes


def ball(grid: Grid, nodule: Nodule) -> NDArray[np.bool_] | None:
    """The voxels whose centres lie within a nodule's radius, and always the one that holds its
    centre; None where its centre lies outside of the scan."""
    center = np.array(nodule[:3])
    if not bool(grid.contains(center)):
        return None
    mask = np.zeros(grid.shape, bool)
    at = grid.to_voxel(center)
    mask[tuple(np.floor(at + 0.5).astype(int))] = True
    # Voxels along an axis that a ball reaches: the rows of the inverse say how fast they pass.
    inverse = np.linalg.inv(grid.affine[:3, :3])
    reach = np.linalg.norm(inverse, axis=1) * nodule.diameter_mm / 2
    low = np.maximum(np.floor(at - reach), 0).astype(int)
    high = np.minimum(np.ceil(at + reach) + 1, grid.shape).astype(int)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    voxels = np.stack(
        np.meshgrid(*[np.arange(a, b) for a, b in zip(low, high, strict=True)], indexing="ij"),
        axis=-1,
    )
    distance = np.linalg.norm(grid.to_world(voxels) - center, axis=-1)
    mask[box] |= distance <= nodule.diameter_mm / 2
    return mask


def luna16_dataset(root: Path, cases: Path | None = None, split: str | None = None) -> Dataset:
    """LUNA16 under ``root``.

    Parameters
    ----------
    root
        The folder that holds ``subset0`` and so on, or ``images``.
    cases
        A csv list of scans with the label 0 or 1, or a JSON list of scans and masks: only these.
        None: every scan there is.
    split
        ``"train"``, ``"valid"`` or ``"test"`` of a JSON list.

    Raises
    ------
    SimCroPError
        The root, the list or the annotations are missing or broken; no study is left.
    """
    check_folder(root)
    by_json = cases is not None and is_json(cases)
    if not by_json:
        refuse_split(split, "LUNA16", "Name a JSON list with --list, or a csv of the split.")
    there = _scans(root)
    labels: dict[str, int] = {}
    if cases is None:
        names = sorted(there)
    elif by_json:
        names = [scan.name for scan in listed_scans(cases, split, len(STRUCTURES))]
    else:
        listed = read_case_list(cases, classes=2)
        names = [without_suffix(name) for name in listed.names]
        check_once(names, cases)
        labels = dict(zip(names, listed.labels_NK[:, 0].tolist(), strict=True))
    if cases is not None:
        check_names(names, _NAME, "LUNA16", "1.3.6.1.4.1.14519.5.2.1.6279.6001.1", cases)
    nodules, faults = _annotations(root, set(there) | set(names))
    sources = []
    for name in names:
        own = nodules.get(name, ())
        # A scan without a nodule of the list may have smaller ones: absence is not known.
        positive = labels.get(name) == 1 or bool(own)
        mask = next((p for p in mask_places(root, name) if p.is_file()), None)
        if name in labels and nodules and labels[name] != bool(own):
            said = "no nodule" if labels[name] == 0 else "a nodule"
            text = f"The list says {said} and the annotations have {len(own)}."
            faults.append(Fault(name, "labels", "labels-disagree", text, str(cases)))
        sources.append(
            LunaSource(
                id=name,
                volume=there.get(name) or first_there(_places(root, name)),
                labels=(("Lung nodule", 1),) if positive else (),
                mask="" if mask is None else str(mask.absolute()),
                structures=() if mask is None else STRUCTURES,
                nodules=own,
            )
        )
    return whole("luna16" if split is None else f"luna16-{split}", sources, faults, root)


def mask_places(root: Path, name: str) -> list[Path]:
    """Where lungs and trachea of a scan may lie: as the authors store them, and as published."""
    return [
        root / "masks_processed" / f"{name}.nii.gz",
        root / _NATIVE_MASKS / f"{name}.mhd",
    ]


def _places(root: Path, name: str) -> list[Path]:
    return [root / "images" / f"{name}.nii.gz", root / f"{name}.mhd", root / f"{name}.nii.gz"]


def _scans(root: Path) -> dict[str, str]:
    """Name -> file, of all scans there are; the authors' before the published."""
    found: dict[str, str] = {}
    for pattern in ("images/*.nii.gz", "subset*/*.mhd", "*.mhd", "*.nii.gz"):
        for path in sorted(root.glob(pattern)):
            found.setdefault(without_suffix(path.name), str(path.absolute()))
    return found


def _annotations(root: Path, known: set[str]) -> tuple[dict[str, tuple[Nodule, ...]], list[Fault]]:
    """The nodules by scan, of the csv files with their columns in the folder or one below."""
    rows: dict[str, dict[Nodule, None]] = {}
    faults = []
    for path in sorted([*root.glob("*.csv"), *root.glob("*/*.csv")]):
        if not set(_ANNOTATION) <= set(header_of(path)):
            continue
        for number, row in enumerate(read_table(path)[1], start=2):
            name = row["seriesuid"]
            if name not in known:
                text = f"Row {number} of the annotations is of a scan that is not here."
                faults.append(Fault("", "labels", "unknown-scan", text, str(path)))
                continue
            rows.setdefault(name, {})[_nodule(row, number, path)] = None
    return {name: tuple(found) for name, found in rows.items()}, faults


def _nodule(row: dict[str, str], number: int, path: Path) -> Nodule:
    try:
        x, y, z, diameter = (float(row[name]) for name in _ANNOTATION[1:])
    except ValueError:
        x = y = z = diameter = float("nan")
    possible = max(abs(x), abs(y), abs(z)) <= _ROOM_MM and 0 < diameter <= _LARGEST_MM
    if not possible:
        raise SimCroPError(
            f"Row {number}: The nodule's place or diameter is not possible",
            path=path,
            code="bad-annotation",
            remedy="Fetch annotations.csv again.",
        )
    return Nodule(-x, -y, z, diameter)


def _middle_x(mask: NDArray[np.bool_], grid: Grid) -> float | None:
    """x of a mask's middle, RAS millimetres; None of an empty one."""
    if not mask.any():
        return None
    middle = [
        float(np.average(np.arange(n), weights=mask.sum(axis=tuple({0, 1, 2} - {axis}))))
        for axis, n in enumerate(mask.shape)
    ]
    return float(grid.to_world(middle)[0])
