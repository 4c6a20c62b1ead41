"""The starter model on real scans: do organ sentences point into the organ, how good are the lungs?

The scans lie in the folder that ``SIMCROP_TEST_DATA`` names. Lungs, spinal cord and airways have
masks there. Heart, aorta, spine and liver have none, so they are given here by shapes that were
placed by eye on the scans, well inside the organ: tubes along points, and ellipsoids.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from matplotlib.path import Path as Outline
from numpy.typing import NDArray

from simcrop_core.align import align, encode
from simcrop_core.alignment_result import AlignmentResult
from simcrop_core.evaluate.segmentation import compare
from simcrop_core.geometry import Grid
from simcrop_core.io import labels_on, read_labels, read_volume
from simcrop_core.model.simcrop import SimCroP
from simcrop_core.segment import segment
from simcrop_core.volume import CTVolume

Masks = dict[str, NDArray[np.bool_]]


@dataclass(frozen=True)
class Tube:
    """Points in RAS millimetres joined by straight pieces, and a radius."""

    points_mm: tuple[tuple[float, float, float], ...]
    radius_mm: float

    def holds(self, at_M3: NDArray[np.float64]) -> NDArray[np.bool_]:
        inside = np.zeros(len(at_M3), dtype=bool)
        for a, b in zip(self.points_mm[:-1], self.points_mm[1:], strict=True):
            along = np.subtract(b, a)
            share = np.clip((at_M3 - a) @ along / (along @ along), 0, 1)
            away = np.linalg.norm(at_M3 - a - share[:, None] * along, axis=1)
            inside |= away < self.radius_mm
        return inside


@dataclass(frozen=True)
class Ellipsoid:
    """Centre and half axes in RAS millimetres."""

    center_mm: tuple[float, float, float]
    half_mm: tuple[float, float, float]

    def holds(self, at_M3: NDArray[np.float64]) -> NDArray[np.bool_]:
        return (((at_M3 - self.center_mm) / self.half_mm) ** 2).sum(axis=1) < 1


SHAPES: dict[str, dict[str, Tube | Ellipsoid]] = {
    "nsclc-lung1-001": {
        "heart": Ellipsoid((-25, 240, -518), (45, 40, 40)),
        "aorta": Tube(
            ((-8, 188, -590), (-9, 186, -564), (-15, 174, -532), (-22, 163, -498),
             (-30, 160, -466), (-26, 170, -432), (-10, 200, -420), (10, 232, -430),
             (18, 248, -450), (14, 250, -478)), 12,
        ),
        "spine": Tube(
            ((-5, 165, -660), (-5, 145, -630), (-4, 138, -598), (-2, 132, -564), (0, 133, -532),
             (0, 138, -498), (-3, 145, -466), (-3, 150, -432)), 15,
        ),
        "liver": Ellipsoid((80, 230, -612), (55, 60, 32)),
    },
    "cip-chest64": {
        "heart": Ellipsoid((-12, 182, -228), (38, 36, 32)),
        "aorta": Tube(
            ((-3, 138, -290), (0, 133, -269), (-4, 122, -245), (-8, 115, -217), (-13, 112, -193),
             (-16, 115, -165), (-12, 130, -143), (-4, 150, -136), (5, 168, -150), (3, 172, -178)),
            10,
        ),
        "spine": Tube(
            ((0, 112, -345), (0, 107, -320), (0, 100, -296), (0, 94, -269), (-2, 90, -245),
             (-3, 85, -217), (-3, 84, -193), (-2, 84, -165), (-1, 90, -141), (0, 98, -113)), 13,
        ),
        "liver": Ellipsoid((65, 155, -318), (42, 55, 32)),
    },
}  # fmt: skip

#: What is asked of each organ; none of these sentences is one of the generator's templates.
SENTENCES: dict[str, tuple[str, ...]] = {
    "left lung": ("The left lung is well aerated.", "Left lung parenchyma is normal.",
                  "No abnormality in the left lung."),
    "right lung": ("The right lung is well aerated.", "Right lung parenchyma is normal.",
                   "No abnormality in the right lung."),
    "heart": ("Heart size is normal.", "The cardiac silhouette is not enlarged.",
              "Heart contour and size are normal."),
    "aorta": ("The thoracic aorta is of normal calibre.", "No aneurysm of the aorta.",
              "The aorta has a normal diameter."),
    "spine": ("Vertebral body heights are preserved.", "The thoracic spine is unremarkable.",
              "No lytic lesion is seen in the vertebrae."),
    "liver": ("The liver is homogeneous.", "No mass is seen in the liver.",
              "The imaged part of the liver is normal."),
}  # fmt: skip


def read_scans(data: Path) -> dict[str, tuple[CTVolume, Masks]]:
    """The two whole chests, each with masks on the scan's voxels."""
    found = {}
    for name, read in (("nsclc-lung1-001", _nsclc), ("cip-chest64", _cip)):
        volume, masks = read(data / "ct" / name)
        at_M3 = volume.grid.to_world(np.indices(volume.shape).reshape(3, -1).T)
        for organ, shape in SHAPES[name].items():
            masks[organ] = shape.holds(at_M3).reshape(volume.shape)
        found[name] = (volume, masks)
    return found


def _nsclc(folder: Path) -> tuple[CTVolume, Masks]:
    volume = read_volume(folder / "image")
    (contours,) = (folder / "mask_rtstruct").glob("*.dcm")
    masks = filled_contours(contours, volume.grid)
    return volume, {"left lung": masks["Lung-Left"], "right lung": masks["Lung-Right"]}


def _cip(folder: Path) -> tuple[CTVolume, Masks]:
    volume = read_volume(folder / "ct-64.nrrd")
    labels, grid = read_labels(folder / "lm-64.nrrd")
    region = labels_on(volume.grid, labels, grid) & 0xFF
    return volume, {
        "left lung": np.isin(region, (9, 10, 11)),
        "right lung": np.isin(region, (12, 13, 14)),
    }


def filled_contours(path: Path, grid: Grid) -> Masks:
    """The contours of an RTSTRUCT, filled slice by slice; holes by the even-odd rule."""
    data = pydicom.dcmread(path)
    names = {roi.ROINumber: roi.ROIName for roi in data.StructureSetROISequence}
    xy = np.indices(grid.shape[:2]).reshape(2, -1).T
    masks: Masks = {}
    for roi in data.ROIContourSequence:
        mask = np.zeros(grid.shape, dtype=bool)
        for contour in roi.ContourSequence:
            lps = np.array(contour.ContourData, dtype=float).reshape(-1, 3)
            ijk = grid.to_voxel(lps * (-1, -1, 1))
            k = round(float(ijk[:, 2].mean()))
            inside = Outline(ijk[:, :2]).contains_points(xy).reshape(grid.shape[:2])
            mask[:, :, k] ^= inside
        masks[names[roi.ReferencedROINumber]] = mask
    return masks


def measure(model: SimCroP, scans: Mapping[str, tuple[CTVolume, Masks]]) -> dict[str, object]:
    """Pointing of organ sentences and Dice of the lungs, by scan."""
    facts: dict[str, object] = {}
    for name, (volume, masks) in scans.items():
        encoded = encode(model, volume, placement="lungs")
        asked = [(organ, text) for organ, texts in SENTENCES.items() for text in texts]
        result = align(model, encoded, queries=[text for _, text in asked])
        touched = (masks[organ] for organ, _ in asked)
        hits = [_touches(result, number, mask, volume) for number, mask in enumerate(touched)]
        sentences = [
            {"organ": organ, "sentence": text, "hit": hit}
            for (organ, text), hit in zip(asked, hits, strict=True)
        ]
        own = segment(model, volume)
        labels_XYZ = labels_on(volume.grid, own.labels_XYZ, own.grid, resample=True)
        label_of = {structure: label for label, structure in own.names.items()}
        lungs = {
            side: compare(labels_XYZ == label_of[side], masks[side], volume.grid.spacing_mm)
            for side in ("left lung", "right lung")
        }
        facts[name] = {
            "sentences": sentences,
            "hits": sum(hits),
            "of": len(sentences),
            "dice": {side: score.dice for side, score in lungs.items()},
            "hausdorff95_mm": {side: score.hausdorff95_mm for side, score in lungs.items()},
        }
    return facts


def _touches(
    result: AlignmentResult, sentence: int, mask_XYZ: NDArray[np.bool_], volume: CTVolume
) -> bool:
    """Whether the most similar patch holds a voxel of the mask."""
    box = result.patches.box(int(result.top(sentence, 1)[0]))
    corners = volume.grid.to_voxel(np.array([box.low_mm, box.high_mm]))
    low = np.maximum(np.ceil(corners.min(axis=0)), 0).astype(int)
    high = np.floor(corners.max(axis=0)).astype(int) + 1
    return bool(mask_XYZ[tuple(slice(a, max(a, b)) for a, b in zip(low, high, strict=True))].any())
