"""Small data sets in the layouts of the public ones, made of phantoms."""

from __future__ import annotations

import csv
import json
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK

from simcrop_core.datasets.btcv import ORGANS
from simcrop_core.datasets.radchestct import FINDINGS_OF
from simcrop_core.geometry import Grid, axis_aligned_affine
from simcrop_core.phantoms.plan import plan_phantom
from simcrop_core.phantoms.study import make_phantom
from simcrop_core.study import Study

#: Wide enough for a chest, coarse enough for a test; axes of unequal length.
SHAPE, SPACING = (48, 40, 36), (8.0, 8.0, 9.0)
LUNA_UID = "1.3.6.1.4.1.14519.5.2.1.6279.6001."


@cache
def phantom(seed: int) -> Study:
    """A phantom on a coarse grid, on its scanner's centre, axes to L, P and S."""
    center = plan_phantom(seed).scanner.grid.center_mm
    affine = axis_aligned_affine("LPS", SPACING, center, SHAPE)
    return make_phantom(seed, Grid(SHAPE, affine))


def labels_of(seed: int) -> dict[str, int]:
    """0 or 1 for each of the 18 findings; what a phantom leaves open is 0."""
    return {name: int(label == 1) for name, label in phantom(seed).facts.labels().items()}


def write_list(path: Path, rows: list[dict[str, object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def save(path: Path, array: np.ndarray, affine: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, affine)
    nib.save(image, path)
    return path


def save_itk(path: Path, array: np.ndarray, grid: Grid) -> Path:
    """A MetaImage by SimpleITK, whose world is LPS."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ grid.affine
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing(grid.spacing_mm)
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / np.array(grid.spacing_mm)).ravel().tolist())
    SimpleITK.WriteImage(image, path)
    return path


# -- CT-RATE ------------------------------------------------------------------------------------


def make_ct_rate(root: Path, seeds: dict[str, int], layout: str = "published") -> Path:
    """CT-RATE of ``name -> seed``, with lying headers, and its csv files."""
    reports, metadata, labels = [], [], []
    for name, seed in seeds.items():
        study = phantom(seed)
        patient, scan = name.rsplit("_", 2)[0], name.split("_")[2]
        split = name.split("_")[0]
        inside = {
            "published": Path(split, patient, f"{patient}_{scan}"),
            "preprocessed": Path(f"{split}_preprocessed", patient, f"{patient}{scan}"),
        }[layout]
        stored = np.asarray(study.volume.hu_XYZ, np.int16) + np.int16(1024)
        save(root / inside / f"{name}.nii.gz", stored, np.eye(4))
        assert study.report is not None
        words = {s: " ".join(x.text for x in study.report.in_section(s)) for s in ("findings",)}
        file = f"{name}.nii.gz"
        reports.append({"VolumeName": file, "Findings_EN": words["findings"], "Impressions_EN": ""})
        metadata.append(
            {
                "VolumeName": file,
                "RescaleIntercept": -1024,
                "RescaleSlope": 1,
                "XYSpacing": f"[{SPACING[0]}, {SPACING[1]}]",
                "ZSpacing": SPACING[2],
                "NumberofSlices": SHAPE[2],
            }
        )
        labels.append({"VolumeName": file, **labels_of(seed)})
    write_list(root / "reports.csv", reports)
    write_list(root / "metadata.csv", metadata)
    write_list(root / "labels.csv", labels)
    return root


def ct_rate_list(path: Path, seeds: dict[str, int]) -> Path:
    return write_list(
        path, [{"VolumeName": f"{name}.nii.gz", **labels_of(s)} for name, s in seeds.items()]
    )


# -- RadChestCT ---------------------------------------------------------------------------------


def make_radchestct(root: Path, seeds: dict[str, int], layout: str = "published") -> Path:
    """RadChestCT of ``name -> seed``: slices first, from the head down; or as NIfTI."""
    for name, seed in seeds.items():
        volume = phantom(seed).volume
        if layout == "published":
            array = np.flip(volume.hu_XYZ.transpose(2, 1, 0), axis=0).clip(-1000, 1000)
            root.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(root / f"{name}.npz", ct=array.astype(np.int16))
        else:
            save(root / "images" / f"{name}.nii.gz", volume.hu_XYZ, volume.grid.affine)
    return root


def radchestct_row(seed: int) -> dict[str, int]:
    """The 16 labels of a phantom, in the lists' own order."""
    own = labels_of(seed)
    return {name: int(any(own[f] for f in findings)) for name, findings in FINDINGS_OF.items()}


def radchestct_list(path: Path, seeds: dict[str, int]) -> Path:
    return write_list(
        path, [{"NoteAcc_DEID": name, **radchestct_row(s)} for name, s in seeds.items()]
    )


# -- CC-CCII ------------------------------------------------------------------------------------


def make_cc_ccii(root: Path, seeds: dict[str, int]) -> Path:
    """CC-CCII of ``name -> seed``: slices first, from the head down, with a lying header."""
    for name, seed in seeds.items():
        array = np.flip(phantom(seed).volume.hu_XYZ.transpose(2, 1, 0), axis=0)
        save(root / "images_resized" / f"{name}.nii.gz", array, np.eye(4))
    return root


def cc_ccii_list(path: Path, labels: dict[str, int]) -> Path:
    rows: list[dict[str, object]] = [
        {"img_list": f"{name}.nii.gz", "label": label} for name, label in labels.items()
    ]
    return write_list(path, rows)


# -- LUNA16 -------------------------------------------------------------------------------------


def lungs_of(seed: int) -> np.ndarray:
    """Label map: 1 left lung, 2 right lung, 3 trachea."""
    study = phantom(seed)
    assert study.structures_XYZ is not None
    names = ("", *study.structure_names)
    number = [
        1 if n in ("left upper lobe", "left lower lobe")
        else 2 if n.startswith("right ") and n.endswith(" lobe")
        else 3 if n == "trachea" else 0
        for n in names
    ]  # fmt: skip
    return np.array(number, np.uint8)[study.structures_XYZ]


def make_luna16(
    root: Path,
    seeds: dict[str, int],
    layout: str = "published",
    nodules: dict[str, list[tuple[float, float, float, float]]] | None = None,
) -> Path:
    """LUNA16 of ``name -> seed``; nodules in RAS millimetres, by name."""
    for number, (name, seed) in enumerate(seeds.items()):
        volume, lungs = phantom(seed).volume, lungs_of(seed)
        if layout == "published":
            save_itk(root / f"subset{number % 10}" / f"{name}.mhd", volume.hu_XYZ, volume.grid)
            native = np.where(lungs > 0, lungs + 2, 0).astype(np.uint8)
            save_itk(root / "seg-lungs-LUNA16" / f"{name}.mhd", native, volume.grid)
        else:
            affine = volume.grid.affine
            save(root / "images" / f"{name}.nii.gz", volume.hu_XYZ, affine)
            save(root / "masks_processed" / f"{name}.nii.gz", lungs, affine)
    rows: list[dict[str, object]] = [
        {"seriesuid": name, "coordX": -x, "coordY": -y, "coordZ": z, "diameter_mm": d}
        for name, found in (nodules or {}).items()
        for x, y, z, d in found
    ]
    if rows:
        write_list(root / "annotations.csv", rows)
    return root


def luna16_list(path: Path, labels: dict[str, int]) -> Path:
    rows: list[dict[str, object]] = [
        {"image_id": f"{name}.nii.gz", "label": label} for name, label in labels.items()
    ]
    return write_list(path, rows)


def mask_list(path: Path, labels: tuple[str, ...], splits: dict[str, list[object]]) -> Path:
    """A JSON list as the Medical Segmentation Decathlon has them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    named = {str(number): name for number, name in enumerate(("background", *labels))}
    path.write_text(json.dumps({"labels": named, **splits}))
    return path


# -- BTCV ---------------------------------------------------------------------------------------

_ORGAN_OF = {
    "spleen": "spleen", "kidneys": "right kidney", "gallbladder": "gallbladder",
    "oesophagus": "oesophagus", "liver": "liver", "stomach": "stomach", "aorta": "aorta",
    "inferior vena cava": "inferior vena cava", "pancreas": "pancreas",
}  # fmt: skip


def organs_of(seed: int) -> np.ndarray:
    """Label map with the numbers of ``ORGANS``; a phantom's paired organs count as the right."""
    study = phantom(seed)
    assert study.structures_XYZ is not None
    number = [0] + [
        ORGANS.index(_ORGAN_OF[n]) + 1 if n in _ORGAN_OF else 0 for n in study.structure_names
    ]
    return np.array(number, np.uint8)[study.structures_XYZ]


def make_btcv(root: Path, splits: dict[str, dict[str, int]]) -> Path:
    """BTCV of ``split -> name -> seed``, with its list; scans of ``test`` have no masks."""
    listed: dict[str, list[object]] = {}
    for split, seeds in splits.items():
        for name, seed in seeds.items():
            volume = phantom(seed).volume
            folder = "imagesTs" if split == "test" else "imagesTr"
            image, mask = f"{folder}/{name}.nii.gz", f"labelsTr/{name}.nii.gz"
            save(root / image, volume.hu_XYZ, volume.grid.affine)
            if split == "test":
                listed.setdefault(split, []).append(image)
                continue
            save(root / mask, organs_of(seed), volume.grid.affine)
            listed.setdefault(split, []).append({"image": image, "label": mask})
    mask_list(root / "dataset.json", ORGANS, listed)
    return root
