"""A bright ball at known millimetres, written by other libraries, must be found where it is.

The truth of every case is computed in this file, from directions, spacings and an origin, and
the files are written by nibabel, pydicom and SimpleITK. Our own `Grid` only takes part in
reading. Millimetres are RAS+ here unless a name says LPS.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from dicom_builder import write_series
from scipy.spatial.transform import Rotation

from simcrop_core import InputSpec, prepare, read_volume

AIR, BALL = -1000.0, 700.0
RADIUS_MM, EDGE_MM = 9.0, 1.5
SPEC = InputSpec(shape=(96, 96, 48), patch_shape=(16, 16, 8))
LPS = np.array([-1.0, -1.0, 1.0])


def directions(axcodes: str) -> np.ndarray:
    """Unit columns that point to the named sides, such as "LPS"."""
    unit = {
        "R": (1, 0, 0),
        "L": (-1, 0, 0),
        "A": (0, 1, 0),
        "P": (0, -1, 0),
        "S": (0, 0, 1),
        "I": (0, 0, -1),
    }
    return np.array([unit[letter] for letter in axcodes], dtype=float).T


def turned(axcodes: str, *degrees: float) -> np.ndarray:
    return Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() @ directions(axcodes)


@dataclass(frozen=True)
class Case:
    writer: str
    directions: np.ndarray
    spacing: tuple[float, float, float] = (2.0, 2.0, 3.0)
    shape: tuple[int, int, int] = (64, 60, 44)
    center: tuple[float, float, float] = (0.0, 0.0, 0.0)
    tilt_deg: float = 0.0

    @property
    def affine(self) -> np.ndarray:
        """Voxel -> RAS; slices slide along the second axis where the gantry is tilted."""
        affine = np.eye(4)
        columns = self.directions.copy()
        columns[:, 2] += np.tan(np.radians(self.tilt_deg)) * columns[:, 1]
        affine[:3, :3] = columns * self.spacing
        affine[:3, 3] = np.array(self.center) - affine[:3, :3] @ ((np.array(self.shape) - 1) / 2)
        return affine

    def hu_of_ball(self, ball_mm: np.ndarray) -> np.ndarray:
        voxels = np.indices(self.shape).reshape(3, -1)
        world = self.affine[:3, :3] @ voxels + self.affine[:3, 3:]
        apart = np.linalg.norm(world - ball_mm[:, None], axis=0)
        inside = 1 / (1 + np.exp((apart - RADIUS_MM) / EDGE_MM * 4))
        return np.rint(AIR + (BALL - AIR) * inside).astype(np.int16).reshape(self.shape)


CASES = {
    "nifti-RAS": Case("nifti", directions("RAS")),
    "nifti-LPS": Case("nifti", directions("LPS")),
    "nifti-LAS-left-handed": Case("nifti", directions("LAS")),
    "nifti-PIR-permuted": Case("nifti", directions("PIR"), (3, 2, 2), (44, 64, 60)),
    "nifti-SLA-permuted": Case("nifti", directions("SLA"), (1.2, 2.5, 2.5), (90, 50, 50)),
    "nifti-oblique": Case("nifti", turned("LPS", 9, -14, 25)),
    "nifti-far-away": Case("nifti", directions("LAS"), center=(1500.5, -2210.25, 3333.3)),
    "nifti-thick": Case("nifti", directions("RAS"), (0.9, 0.9, 7.5), (120, 120, 18)),
    "nifti-sheared": Case("nifti", directions("RAS"), tilt_deg=18),
    "dicom-supine": Case("dicom", directions("LPS")),
    "dicom-prone": Case("dicom", directions("RAS")),
    "dicom-decubitus": Case("dicom", directions("PRS")),
    "dicom-flipped-rows": Case("dicom", directions("LAI")),
    "dicom-coronal": Case("dicom", directions("LIP"), (2, 2, 2.5), (60, 64, 50)),
    "dicom-sagittal": Case("dicom", directions("PIL"), (2, 2, 2.5), (60, 64, 50)),
    "dicom-oblique-far": Case("dicom", turned("LPS", -20, 11, 40), center=(-400, 900, -1234.5)),
    "dicom-tilted": Case("dicom", directions("LPS"), tilt_deg=-21),
    "dicom-tilted-oblique": Case("dicom", turned("LPS", 5, 3, -12), (1.5, 2.5, 4), tilt_deg=12),
    "metaimage-oblique": Case("mha", turned("LPS", 15, 8, -30), (1.7, 2.3, 2.9)),
    "nrrd-flipped": Case("nrrd", directions("RPI"), center=(77.7, -310.0, 55.5)),
    "nrrd-anisotropic-oblique": Case(
        "nrrd", turned("PSR", 4, -6, 8), (3.1, 0.8, 1.9), (40, 140, 60)
    ),
}


def write(case: Case, hu_XYZ: np.ndarray, folder: Path) -> Path:
    if case.writer == "nifti":
        image = nibabel.Nifti1Image(hu_XYZ, case.affine)
        image.header.set_xyzt_units("mm")
        nibabel.save(image, folder / "ball.nii.gz")
        return folder / "ball.nii.gz"
    if case.writer == "dicom":
        slices = case.affine[:3, 2:3] * np.arange(case.shape[2]) + case.affine[:3, 3:]
        row, column = case.directions[:, 0] * LPS, case.directions[:, 1] * LPS
        write_series(
            folder / "series",
            hu_XYZ.transpose(2, 1, 0),
            spacing=case.spacing,
            orientation=tuple(np.round(np.concatenate([row, column]), 8)),
            positions=slices.T * LPS,
        )
        return folder / "series"
    image = sitk.GetImageFromArray(hu_XYZ.transpose(2, 1, 0))
    image.SetSpacing(case.spacing)
    image.SetDirection((case.directions * LPS[:, None]).ravel())
    image.SetOrigin(case.affine[:3, 3] * LPS)
    sitk.WriteImage(image, str(folder / f"ball.{case.writer}"))
    return folder / f"ball.{case.writer}"


def centroid(weights_XYZ: np.ndarray) -> np.ndarray:
    """Fractional voxel index of the centre of what is brighter than air."""
    total = weights_XYZ.sum(dtype=np.float64)
    return np.array(
        [
            (
                weights_XYZ.sum(axis=tuple(a for a in range(3) if a != axis), dtype=np.float64)
                @ np.arange(n)
            )
            / total
            for axis, n in enumerate(weights_XYZ.shape)
        ]
    )


@pytest.mark.parametrize("name", CASES)
def test_the_ball_is_found_where_it_was_put(tmp_path, name):
    case = CASES[name]
    rng = np.random.default_rng(sum(map(ord, name)))
    # Inside the scan and inside the model's input: within 30 % of a half-extent of the centre,
    # and off voxel centres.
    offset = rng.uniform(-0.3, 0.3, 3) * np.array(case.shape) / 2
    ball_mm = case.affine[:3, :3] @ ((np.array(case.shape) - 1) / 2 + offset) + case.affine[:3, 3]
    hu_XYZ = case.hu_of_ball(ball_mm)
    assert hu_XYZ.max() > 0.9 * BALL
    volume = read_volume(write(case, hu_XYZ, tmp_path))

    # As read: through the volume's grid to millimetres, and back to voxels.
    found = centroid(volume.hu_XYZ.astype(np.float64) - AIR)
    error_voxels = np.abs(volume.grid.to_voxel(ball_mm) - found)
    assert error_voxels.max() < 0.1
    error_mm = np.abs(volume.grid.to_world(found) - ball_mm)
    assert np.all(error_mm < 0.5 * np.abs(case.affine[:3, :3]).max(axis=1))

    # As the model sees it.
    prepared = prepare(volume, SPEC)
    values_HWD = prepared.input_1HWD[0].numpy().astype(np.float64) + 1
    seen = centroid(values_HWD)
    error_voxels = np.abs(prepared.grid.to_voxel(ball_mm) - seen)
    assert error_voxels.max() < 0.25
    assert np.abs(prepared.grid.to_world(seen) - ball_mm).max() < 0.75  # half of 1.5 mm

    # The patch: by millimetres, by its box, and by counting voxels without any grid.
    patch = prepared.patches.patch_at(ball_mm)
    assert patch is not None
    covering = [i for i in range(len(prepared.patches)) if prepared.patches.box(i).covers(ball_mm)]
    assert covering == [patch]
    counted = np.floor((seen + 0.5) / SPEC.patch_shape).astype(int)
    assert patch == np.ravel_multi_index(counted, SPEC.grid_shape)
    assert values_HWD[prepared.patches.voxels(patch)].max() > 1
