"""Real scans: values and places as nibabel and SimpleITK have them."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from made_ct import note_codes

from simcrop_core import SimCroPError, read_volume, write_volume
from simcrop_core.io import read_labels

SCANS = [
    ("totalseg-aorta-crop/ct_cropped.nii.gz", {"partial-chest"}),
    ("totalseg-abdomen/example_ct.nii.gz", set()),
    ("cip-chest64/ct-64.nrrd", set()),
    ("elastix-lung-crop/3DCT_lung.mha", {"partial-chest"}),
]
MASKS = [
    "totalseg-aorta-crop/aorta.nii.gz",
    "totalseg-aorta-crop/vertebrae_T12.nii.gz",
    "totalseg-abdomen/example_seg_fast_force_split.nii.gz",
    "totalseg-dicom-jpeg2000/example_seg_dicom.nii.gz",
    "cip-chest64/lm-64.nrrd",
    "dcmqi-ct-seg/liver_seg.nrrd",
    "elastix-lung-crop/3DCT_lung_baseline_mask.mha",
]


@pytest.mark.parametrize(("name", "notes"), SCANS)
def test_scan_as_simpleitk_has_it(real_data: Path, name: str, notes: set[str]) -> None:
    path = real_data / "ct" / name
    volume = read_volume(path)
    image = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(volume.hu_XYZ, sitk.GetArrayViewFromImage(image).T)
    assert volume.hu_XYZ.dtype == np.int16
    assert note_codes(volume) == notes
    rng = np.random.default_rng(0)
    for voxel in rng.integers(0, volume.shape, (100, 3)).tolist():
        expected = np.array(image.TransformIndexToPhysicalPoint(voxel)) * (-1, -1, 1)
        np.testing.assert_allclose(volume.grid.to_world(voxel), expected, atol=2e-3)


@pytest.mark.parametrize("name", [n for n, _ in SCANS if n.endswith(".nii.gz")])
def test_scan_as_nibabel_has_it(real_data: Path, name: str) -> None:
    path = real_data / "ct" / name
    image = nib.load(path)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.hu_XYZ, np.asanyarray(image.dataobj))
    np.testing.assert_array_equal(volume.grid.affine, image.affine)
    assert volume.grid.axcodes == "".join(nib.aff2axcodes(image.affine))


@pytest.mark.parametrize("name", MASKS)
def test_mask_is_refused_as_a_scan_and_read_as_a_mask(real_data: Path, name: str) -> None:
    path = real_data / "ct" / name
    with pytest.raises(SimCroPError) as caught:
        read_volume(path)
    assert caught.value.code == "not-a-ct"
    labels, grid = read_labels(path)
    image = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(labels, sitk.GetArrayViewFromImage(image).T)
    last = [n - 1 for n in grid.shape]
    expected = np.array(image.TransformIndexToPhysicalPoint(last)) * (-1, -1, 1)
    np.testing.assert_allclose(grid.to_world(last), expected, atol=2e-3)


@pytest.mark.parametrize("name", [n for n, _ in SCANS])
def test_scan_survives_writing_in_any_format(real_data: Path, name: str, tmp_path: Path) -> None:
    volume = read_volume(real_data / "ct" / name)
    write_volume(tmp_path / "ours.nii.gz", volume)
    image = sitk.ReadImage(str(tmp_path / "ours.nii.gz"))
    for suffix in ("nrrd", "mha", "mhd", "nii"):
        sitk.WriteImage(image, str(tmp_path / f"theirs.{suffix}"), True)
        again = read_volume(tmp_path / f"theirs.{suffix}")
        np.testing.assert_array_equal(again.hu_XYZ, volume.hu_XYZ)
        assert again.grid.matches(volume.grid, tolerance_mm=5e-3)


@pytest.mark.parametrize("name", ["totalseg-aorta-crop/ct_cropped.nii.gz"])
def test_flipped_bits_in_a_real_scan(real_data: Path, name: str, tmp_path: Path) -> None:
    good = (real_data / "ct" / name).read_bytes()
    right = read_volume(real_data / "ct" / name).hu_XYZ
    rng = np.random.default_rng(11)
    path = tmp_path / "ct.nii.gz"
    for bit in rng.integers(0, 8 * len(good), 60):
        data = bytearray(good)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        try:
            read = read_volume(path).hu_XYZ
        except SimCroPError:
            continue
        np.testing.assert_array_equal(read, right)
