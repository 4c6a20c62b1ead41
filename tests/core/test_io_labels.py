"""Masks: read as they are, put in order exactly, refused or resampled where they do not fit."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given
from hypothesis import strategies as st
from made_ct import AFFINE, SHAPE, chest, oblique_affine, save_nifti

from simcrop_core import Grid, SimCroPError, read_volume
from simcrop_core.io import labels_on, read_labels

SMALL = (7, 6, 5)
AXES = [
    a + b + c
    for order in [("RL", "AP", "SI"), ("SI", "RL", "AP"), ("AP", "RL", "SI")]
    for a, b, c in product(*order)
]


def numbers(shape: tuple[int, ...] = SMALL, dtype: type = np.uint8) -> np.ndarray:
    """A mask in which every voxel is told apart."""
    return (np.arange(np.prod(shape)).reshape(shape) + 1).astype(dtype)


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "i8", "u8", "f4", "f8"])
@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_values_of_every_type(tmp_path: Path, dtype: str, suffix: str) -> None:
    top = {"u1": 255, "i1": 127, "u2": 65535, "i2": 32767}.get(dtype, 2**24)
    labels = np.zeros(SHAPE, dtype)
    labels[3:9, 4:8, 5:7] = top
    labels[1, 1, 1] = 1
    path = tmp_path / f"mask{suffix}"
    if suffix == ".nii.gz":
        nib.Nifti1Image(labels, AFFINE, dtype=labels.dtype).to_filename(path)
    else:
        image = sitk.GetImageFromArray(labels.T)
        image.SetSpacing((4.4, 4.8, 4.1))
        sitk.WriteImage(image, str(path), True)
    read, grid = read_labels(path)
    np.testing.assert_array_equal(read, labels)
    assert read.dtype == (np.int16 if top < 2**15 else np.int32)
    assert grid.shape == SHAPE
    with pytest.raises(ValueError, match="read-only"):
        read[0, 0, 0] = 1


@pytest.mark.parametrize("bad", [0.5, np.nan, np.inf, 2.0**25, -1e30])
def test_what_is_no_label_is_refused(tmp_path: Path, bad: float) -> None:
    values = np.zeros(SHAPE, np.float32)
    values[1, 2, 3] = bad
    with pytest.raises(SimCroPError) as caught:
        read_labels(save_nifti(tmp_path / "mask.nii", values))
    assert caught.value.code == "not-labels"


def test_formats_without_masks_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "mask.npz", ct=numbers())
    with pytest.raises(SimCroPError) as caught:
        read_labels(tmp_path / "mask.npz")
    assert caught.value.code == "not-labels"


def test_mask_without_geometry_is_refused(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "mask.nii", numbers(SHAPE, np.int16), sform_code=0, qform_code=0)
    with pytest.raises(SimCroPError) as caught:
        read_labels(path)
    assert caught.value.code == "missing-geometry"


def test_mask_on_the_same_voxels_is_taken_as_it_is() -> None:
    labels = numbers()
    grid = Grid(SMALL, AFFINE)
    rounded = Grid(SMALL, AFFINE.astype(np.float32))
    assert labels_on(grid, labels, rounded) is labels


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("affine", [AFFINE, oblique_affine(20)], ids=["straight", "oblique"])
def test_mask_in_another_order_is_put_in_order_exactly(axes: str, affine: np.ndarray) -> None:
    """Against nibabel's reorientation, for scans and masks of every order of axes."""
    image = nib.Nifti1Image(numbers(), affine)
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(affine), nib.orientations.axcodes2ornt(axes)
    )
    turned = image.as_reoriented(turn)
    own = Grid(turned.shape, turned.affine)
    fitted = labels_on(Grid(SMALL, affine), np.asarray(turned.dataobj), own)
    np.testing.assert_array_equal(fitted, numbers())
    back = labels_on(own, numbers(), Grid(SMALL, affine))
    np.testing.assert_array_equal(back, np.asarray(turned.dataobj))


@pytest.mark.parametrize(
    "other",
    [
        Grid(SMALL, AFFINE + np.array([[0, 0, 0, 0.5], [0] * 4, [0] * 4, [0] * 4])),
        Grid((7, 6, 6), AFFINE),
        Grid(SMALL, AFFINE @ np.diag([1, 1, 1.1, 1])),
        Grid(SMALL, oblique_affine(3)),
    ],
    ids=["moved", "larger", "stretched", "turned"],
)
def test_mask_that_does_not_belong_is_refused_unless_resampled(other: Grid) -> None:
    grid = Grid(SMALL, AFFINE)
    labels = numbers(other.shape)
    with pytest.raises(SimCroPError) as caught:
        labels_on(grid, labels, other, path="mask.nii.gz")
    assert caught.value.code == "mask-mismatch"
    assert "nearest-neighbour" in caught.value.remedy
    assert caught.value.path == "mask.nii.gz"
    got = labels_on(grid, labels, other, resample=True)
    assert got.shape == SMALL
    assert set(np.unique(got)) <= {0, *np.unique(labels)}


@given(
    # Whole thousandths: ITK's own inverse goes astray on subnormal numbers.
    degrees=st.integers(-40_000, 40_000).map(lambda n: n / 1000),
    shift=st.tuples(*[st.integers(-9000, 9000).map(lambda n: n / 1000)] * 3),
    scale=st.floats(0.4, 2.5),
)
def test_nearest_neighbours_as_simpleitk(
    degrees: float, shift: tuple[float, float, float], scale: float
) -> None:
    affine = oblique_affine(degrees)
    affine[:3, :3] *= scale
    affine[:3, 3] += shift
    own = Grid((9, 8, 7), affine)
    labels = numbers(own.shape, np.int16)
    grid = Grid(SMALL, AFFINE)
    got = labels_on(grid, labels, own, resample=True)
    # Where a point lies close to the border between two voxels either answer is right.
    at = own.to_voxel(grid.to_world(np.stack(np.indices(SMALL), -1)))
    clear = (abs(at - np.floor(at) - 0.5) > 1e-6).all(axis=-1)
    image = sitk.GetImageFromArray(labels.T)
    set_grid(image, own)
    frame = sitk.GetImageFromArray(np.zeros(SMALL[::-1], np.int16))
    set_grid(frame, grid)
    expected = sitk.GetArrayFromImage(
        sitk.Resample(image, frame, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    ).T
    np.testing.assert_array_equal(got[clear], expected[clear])


def set_grid(image: sitk.Image, grid: Grid) -> None:
    lps = np.diag([-1.0, -1, 1, 1]) @ grid.affine
    image.SetSpacing(grid.spacing_mm)
    image.SetDirection((lps[:3, :3] / np.array(grid.spacing_mm)).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())


def test_mask_elsewhere_is_refused_even_then() -> None:
    far = AFFINE.copy()
    far[0, 3] += 5000
    with pytest.raises(SimCroPError) as caught:
        labels_on(Grid(SMALL, AFFINE), numbers(), Grid(SMALL, far), resample=True)
    assert caught.value.code == "mask-elsewhere"


def test_labels_must_fit_their_own_grid() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        labels_on(Grid(SMALL, AFFINE), numbers((2, 2, 2)), Grid(SMALL, AFFINE))


def test_real_mask_stored_las_fits_the_scan_read_as_lps(real_data: Path) -> None:
    folder = real_data / "ct" / "totalseg-dicom-jpeg2000"
    volume = read_volume(folder)
    labels, grid = read_labels(folder / "example_seg_dicom.nii.gz")
    assert (volume.grid.axcodes, grid.axcodes) == ("LPS", "LAS")
    fitted = labels_on(volume.grid, labels, grid)
    liver = volume.hu_XYZ[fitted == 5]
    assert liver.size > 100_000
    assert 40 < np.median(liver) < 200
    np.testing.assert_array_equal(fitted, labels[:, ::-1])


def test_real_masks_lie_on_their_scans(real_data: Path) -> None:
    folder = real_data / "ct"
    aorta, lung = (
        "totalseg-aorta-crop/aorta.nii.gz",
        "elastix-lung-crop/3DCT_lung_baseline_mask.mha",
    )
    for scan, mask, low, high in [
        ("totalseg-aorta-crop/ct_cropped.nii.gz", aorta, 100, 600),
        ("elastix-lung-crop/3DCT_lung.mha", lung, -950, -500),
    ]:
        volume = read_volume(folder / scan)
        labels = labels_on(volume.grid, *read_labels(folder / mask))
        assert low < np.median(volume.hu_XYZ[labels > 0]) < high


def test_chest_is_not_touched_by_reading_it_as_labels(tmp_path: Path) -> None:
    labels, _ = read_labels(save_nifti(tmp_path / "ct.nii.gz"))
    np.testing.assert_array_equal(labels, chest())
