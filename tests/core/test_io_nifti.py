"""NIfTI: values and places as nibabel has them, and every row of faults that concerns it."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_ct import AFFINE, SHAPE, chest, note_codes, oblique_affine, save_nifti

from simcrop_core import SimCroPError, read_volume
from simcrop_core.geometry import Grid


def refused(path: Path, code: str, **options: object) -> SimCroPError:
    with pytest.raises(SimCroPError) as caught:
        read_volume(path, **options)  # type: ignore[arg-type]
    assert caught.value.code == code
    assert caught.value.path == str(path)
    assert caught.value.remedy
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("name", ["ct.nii", "ct.nii.gz"])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("endian", ["<", ">"])
def test_values_and_affine_as_nibabel_reads_them(
    tmp_path: Path, name: str, version: int, endian: str
) -> None:
    path = save_nifti(tmp_path / name, affine=oblique_affine(), version=version, endian=endian)
    theirs = nib.load(path)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.hu_XYZ, np.asanyarray(theirs.dataobj))
    np.testing.assert_array_equal(volume.grid.affine, theirs.affine)
    assert volume.hu_XYZ.dtype == np.int16
    assert volume.hu_XYZ.flags.f_contiguous
    assert volume.format == "NIfTI"
    assert volume.source == path
    assert note_codes(volume) == {"oblique"}


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "i8", "u8", "f4", "f8"])
@pytest.mark.parametrize("endian", ["<", ">"])
def test_whole_numbers_of_every_type_become_int16(tmp_path: Path, dtype: str, endian: str) -> None:
    low, high = (0, 250) if dtype == "u1" else (-120, 120) if dtype == "i1" else (0, 2000)
    values = np.random.default_rng(1).integers(low, high, SHAPE).astype(dtype)
    path = save_nifti(tmp_path / "ct.nii.gz", values, endian=endian, scl_slope=2, scl_inter=-1000)
    volume = read_volume(path)
    assert volume.hu_XYZ.dtype == np.int16
    np.testing.assert_array_equal(volume.hu_XYZ, values.astype(np.int64) * 2 - 1000)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    slope=st.floats(0.01, 3).map(lambda v: float(np.float32(v))),
    intercept=st.floats(-9000, 9000).map(lambda v: float(np.float32(v))),
)
def test_rescale_slope_and_intercept_as_nibabel(
    tmp_path: Path, slope: float, intercept: float
) -> None:
    path = save_nifti(tmp_path / "ct.nii", chest(), scl_slope=slope, scl_inter=intercept)
    volume = read_volume(path, allow_any_modality=True)
    expected = chest() * np.float64(slope) + np.float64(intercept)
    whole = (np.rint(expected) == expected).all() and abs(expected).max() < 32000
    assert volume.hu_XYZ.dtype == (np.int16 if whole else np.float32)
    np.testing.assert_allclose(volume.hu_XYZ, expected, rtol=1e-6, atol=1e-3)


@pytest.mark.parametrize(("slope", "inter"), [(0, 77), (np.nan, np.nan), (np.nan, 5), (1, 0)])
def test_rescale_absent(tmp_path: Path, slope: float, inter: float) -> None:
    path = save_nifti(tmp_path / "ct.nii", scl_slope=slope, scl_inter=inter)
    np.testing.assert_array_equal(read_volume(path).hu_XYZ, chest())


@pytest.mark.parametrize(("slope", "inter"), [(np.inf, 0), (1, np.nan), (2, -np.inf)])
def test_rescale_impossible_is_refused_unless_told(
    tmp_path: Path, slope: float, inter: float
) -> None:
    path = save_nifti(tmp_path / "ct.nii", scl_slope=slope, scl_inter=inter)
    refused(path, "rescale")
    np.testing.assert_array_equal(read_volume(path, rescale=(1, 0)).hu_XYZ, chest())


def test_rescale_stated_replaces_the_headers(tmp_path: Path) -> None:
    """CT-RATE: slope and intercept come from its table, not from the file."""
    path = save_nifti(tmp_path / "ct.nii.gz", chest() + np.int16(1200), scl_slope=3, scl_inter=9)
    volume = read_volume(path, rescale=(1, -1200))
    np.testing.assert_array_equal(volume.hu_XYZ, chest())


def test_values_beyond_int16_become_float32(tmp_path: Path) -> None:
    values = chest().astype(np.int32)
    values[5, 5, 5] = 70_000
    volume = read_volume(save_nifti(tmp_path / "ct.nii", values))
    assert volume.hu_XYZ.dtype == np.float32
    np.testing.assert_array_equal(volume.hu_XYZ, values)


def test_float64_digits_are_rounded_with_a_note(tmp_path: Path) -> None:
    values = chest() + 0.123456789012
    volume = read_volume(save_nifti(tmp_path / "ct.nii", values))
    np.testing.assert_array_equal(volume.hu_XYZ, values.astype(np.float32))
    assert note_codes(volume) == {"rounded"}


# -- geometry: sform and qform ------------------------------------------------------------------


def test_sform_and_qform_both_zero_is_refused_unless_told(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "ct.nii.gz", sform_code=0, qform_code=0)
    assert "left and right" in refused(path, "missing-geometry").problem
    assumed = read_volume(path, allow_missing_geometry=True)
    assert assumed.grid.axcodes == "RAS"
    assert assumed.spacing_mm == pytest.approx((4.4, 4.8, 4.1))
    assert "assumption" in assumed.notes[0].text
    stated = read_volume(path, allow_missing_geometry=True, axcodes="PIR", spacing_mm=(4.7, 4.9, 5))
    assert stated.grid.axcodes == "PIR"
    assert stated.spacing_mm == (4.7, 4.9, 5)
    assert note_codes(stated) == {"missing-geometry"}
    np.testing.assert_array_equal(stated.hu_XYZ, chest())


def test_stated_geometry_for_a_file_that_has_its_own_is_refused(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "ct.nii")
    refused(path, "option", spacing_mm=(1, 1, 1))
    refused(path, "option", axcodes="LPS", allow_missing_geometry=True)


def test_sform_and_qform_disagreeing_uses_the_sform_with_a_note(tmp_path: Path) -> None:
    image = nib.Nifti1Image(chest(), AFFINE)
    image.set_sform(oblique_affine(), 1)
    image.set_qform(AFFINE, 1)
    image.to_filename(tmp_path / "ct.nii")
    volume = read_volume(tmp_path / "ct.nii")
    np.testing.assert_allclose(volume.grid.affine, oblique_affine(), atol=1e-4)
    assert "forms-disagree" in note_codes(volume)


def test_sform_and_qform_agreeing_has_no_note(tmp_path: Path) -> None:
    image = nib.Nifti1Image(chest(), None)
    image.set_sform(oblique_affine(), 1)
    image.set_qform(oblique_affine(), 1)
    image.to_filename(tmp_path / "ct.nii")
    assert note_codes(read_volume(tmp_path / "ct.nii")) == {"oblique"}


@pytest.mark.parametrize("degrees", [0.0, 7.0, 90.0, 135.0, 180.0])
def test_qform_alone_as_nibabel(tmp_path: Path, degrees: float) -> None:
    image = nib.Nifti1Image(chest(), None)
    image.set_qform(oblique_affine(degrees), 1)
    image.set_sform(None, 0)
    image.to_filename(tmp_path / "ct.nii")
    theirs = nib.load(tmp_path / "ct.nii")
    volume = read_volume(tmp_path / "ct.nii")
    np.testing.assert_allclose(volume.grid.affine, theirs.affine, atol=1e-3)
    np.testing.assert_allclose(volume.grid.affine, oblique_affine(degrees), atol=2e-3)


@pytest.mark.parametrize(
    "fields",
    [
        {"srow_x": 0, "srow_y": 0, "srow_z": 0},
        {"srow_z": (10.0, 0, 0, 5)},
        {"srow_x": np.nan},
        {"srow_y": (0, np.inf, 0, 0)},
        {"sform_code": 0, "qform_code": 1, "quatern_b": 0.9, "quatern_c": 0.9},
        {"sform_code": 0, "qform_code": 1, "pixdim": (1, 0, 1, 1, 0, 0, 0, 0)},
        {"sform_code": 0, "qform_code": 1, "quatern_d": np.nan},
        {"sform_code": 0, "qform_code": 1, "pixdim": (1, -1, 1, 1, 0, 0, 0, 0)},
    ],
)
def test_singular_geometry_is_refused(tmp_path: Path, fields: dict[str, object]) -> None:
    refused(save_nifti(tmp_path / "ct.nii", **fields), "singular-geometry")


@pytest.mark.parametrize("size", [1e200, 1e-200])
@pytest.mark.filterwarnings("error")
def test_sizes_beyond_all_measure_are_refused(tmp_path: Path, size: float) -> None:
    path = save_nifti(tmp_path / "ct.nii", version=2, srow_x=(size, 0, 0, 0), xyzt_units=1)
    refused(path, "singular-geometry")
    bare = save_nifti(
        tmp_path / "bare.nii", version=2, sform_code=0, qform_code=0, pixdim=size, xyzt_units=1
    )
    refused(bare, "singular-geometry", allow_missing_geometry=True)


def test_oblique_affine_is_kept_with_a_note(tmp_path: Path) -> None:
    volume = read_volume(save_nifti(tmp_path / "ct.nii", affine=oblique_affine(25)))
    np.testing.assert_allclose(volume.grid.affine, oblique_affine(25), atol=1e-4)
    assert note_codes(volume) == {"oblique"}


def test_sheared_affine_is_kept_with_a_note(tmp_path: Path) -> None:
    affine = oblique_affine(0, shear=0.3)
    volume = read_volume(save_nifti(tmp_path / "ct.nii", affine=affine))
    np.testing.assert_allclose(volume.grid.affine, affine, atol=1e-4)
    assert volume.grid.is_sheared
    assert note_codes(volume) == {"sheared"}


@pytest.mark.parametrize("axes", ["RAS", "LPS", "LAS", "PIR", "SAL"])
def test_flips_keep_every_voxel_at_its_place(tmp_path: Path, axes: str) -> None:
    """The same scan stored along other axes has the same value at each place."""
    image = nib.Nifti1Image(chest(), AFFINE)
    turned = image.as_reoriented(
        nib.orientations.ornt_transform(
            nib.io_orientation(AFFINE), nib.orientations.axcodes2ornt(axes)
        )
    )
    turned.to_filename(tmp_path / "ct.nii.gz")
    volume = read_volume(tmp_path / "ct.nii.gz")
    assert volume.grid.axcodes == axes
    rng = np.random.default_rng(0)
    voxels = rng.integers(0, SHAPE, (200, 3))
    there = np.rint(volume.grid.to_voxel(Grid(SHAPE, AFFINE).to_world(voxels))).astype(int)
    np.testing.assert_array_equal(volume.hu_XYZ[tuple(there.T)], chest()[tuple(voxels.T)])


@pytest.mark.parametrize(("unit", "factor"), [(1, 1000.0), (3, 0.001)])
def test_metres_and_micrometres_are_converted_with_a_note(
    tmp_path: Path, unit: int, factor: float
) -> None:
    affine = AFFINE.copy()
    affine[:3] /= factor
    volume = read_volume(save_nifti(tmp_path / "ct.nii", affine=affine, xyzt_units=unit))
    np.testing.assert_allclose(volume.grid.affine, AFFINE, rtol=1e-5, atol=1e-3)
    assert note_codes(volume) == {"unit"}


def test_spacing_that_disagrees_with_the_sform_has_a_note(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "ct.nii", qform_code=0, pixdim=(1, 1, 1, 1, 0, 0, 0, 0))
    volume = read_volume(path)
    assert volume.spacing_mm == pytest.approx((4.4, 4.8, 4.1))
    assert note_codes(volume) == {"spacing-disagrees"}


# -- what the file holds ------------------------------------------------------------------------


def test_4d_with_singleton_axes_is_squeezed(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "ct.nii", chest()[..., None, None])
    np.testing.assert_array_equal(read_volume(path).hu_XYZ, chest())


def test_4d_is_refused(tmp_path: Path) -> None:
    refused(save_nifti(tmp_path / "ct.nii", np.stack([chest()] * 2, -1)), "several-volumes")


def test_rgb_and_complex_are_refused(tmp_path: Path) -> None:
    rgb = np.zeros(SHAPE, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    refused(save_nifti(tmp_path / "rgb.nii", rgb), "not-grey")
    refused(save_nifti(tmp_path / "c.nii", chest().astype(np.complex64)), "not-grey")


def test_2d_is_refused(tmp_path: Path) -> None:
    refused(save_nifti(tmp_path / "a.nii", chest()[:, :, 0]), "not-a-volume")
    refused(save_nifti(tmp_path / "b.nii", chest()[:, :, :1]), "not-a-volume")


def test_few_nan_and_inf_become_air_with_a_note(tmp_path: Path) -> None:
    values = chest().astype(np.float32)
    values[0, 0, 0], values[5, 6, 7], values[1, 2, 3] = np.nan, np.inf, -np.inf
    volume = read_volume(save_nifti(tmp_path / "ct.nii.gz", values))
    expected = chest()
    expected[0, 0, 0] = expected[5, 6, 7] = expected[1, 2, 3] = -1024
    np.testing.assert_array_equal(volume.hu_XYZ, expected)
    assert note_codes(volume) == {"non-finite"}
    assert "3 voxels" in volume.notes[0].text


def test_many_nan_are_refused(tmp_path: Path) -> None:
    values = chest().astype(np.float32)
    values[:, 20, 3] = np.nan
    values[:, 20:24, 5] = np.inf
    refused(save_nifti(tmp_path / "ct.nii", values), "non-finite")


@pytest.mark.parametrize("value", [0, -1000, 37])
def test_constant_volume_is_refused(tmp_path: Path, value: int) -> None:
    refused(save_nifti(tmp_path / "ct.nii.gz", np.full(SHAPE, value, np.int16)), "constant")


# -- the header ---------------------------------------------------------------------------------


def test_nifti_pair_is_refused_with_the_way_out(tmp_path: Path) -> None:
    nib.Nifti1Pair(chest(), AFFINE).to_filename(tmp_path / "ct.hdr")
    assert ".nii.gz" in refused(tmp_path / "ct.hdr", "nifti-pair").remedy


def test_analyze_is_refused(tmp_path: Path) -> None:
    nib.AnalyzeImage(chest(), AFFINE).to_filename(tmp_path / "ct.hdr")
    assert "Analyze" in refused(tmp_path / "ct.hdr", "not-a-volume").problem


@pytest.mark.parametrize(
    "fields",
    [
        {"dim": (3, -5, 44, 50, 1, 1, 1, 1)},
        {"dim": (3, 0, 44, 50, 1, 1, 1, 1)},
        {"dim": (9, 48, 44, 50, 1, 1, 1, 1)},
        {"dim": (-1, 48, 44, 50, 1, 1, 1, 1)},
        {"vox_offset": 3},
        {"vox_offset": 1e30},
        {"vox_offset": np.nan},
        {"vox_offset": 1e9},
        {"xyzt_units": 7},
    ],
)
def test_impossible_headers_are_refused(tmp_path: Path, fields: dict[str, object]) -> None:
    refused(save_nifti(tmp_path / "ct.nii.gz", **fields), "damaged-header")


def test_vox_offset_zero_means_behind_the_header(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "ct.nii", vox_offset=0)
    np.testing.assert_array_equal(read_volume(path).hu_XYZ, chest())


@pytest.mark.parametrize("name", ["ct.nii", "ct.nii.gz"])
def test_extensions_are_passed_over(tmp_path: Path, name: str) -> None:
    image = nib.Nifti1Image(chest(), AFFINE)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 5000))
    image.to_filename(tmp_path / name)
    np.testing.assert_array_equal(read_volume(tmp_path / name).hu_XYZ, chest())


def test_bytes_behind_the_voxels_have_a_note(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "ct.nii")
    path.write_bytes(path.read_bytes() + b"junk")
    assert note_codes(read_volume(path)) == {"extra-data"}


# -- is it a CT? --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ((chest() > -500).astype(np.uint8), "mask"),
        ((chest() > -500).astype(np.uint8) * 117, "mask"),
        ((chest().clip(-1000, 1000) + 1000) / 2000.0, "normalised"),
        (chest().clip(-1000, 1000) / 1000.0, "normalised"),
        (((chest().clip(-1000, 1000) + 1000) / 8).clip(0, 255).astype(np.uint8), "picture"),
        (np.random.default_rng(0).gamma(2, 150, SHAPE).astype(np.int16), "air"),
    ],
    ids=["mask", "labels", "zero-to-one", "minus-one-to-one", "eight-bit", "magnetic-resonance"],
)
def test_not_a_ct_is_refused_unless_told(tmp_path: Path, values: np.ndarray, says: str) -> None:
    path = save_nifti(tmp_path / "ct.nii.gz", values)
    assert says in refused(path, "not-a-ct").problem
    volume = read_volume(path, allow_any_modality=True)
    assert "not-a-ct" in note_codes(volume)
    np.testing.assert_allclose(volume.hu_XYZ, values, rtol=1e-6)


@pytest.mark.parametrize("offset", [1024, 1000, 8192])
def test_ct_whose_air_is_not_near_minus_1000_has_a_note(tmp_path: Path, offset: int) -> None:
    values = (chest() + np.int16(offset)).clip(0)
    path = save_nifti(tmp_path / "ct.nii.gz", values)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.hu_XYZ, values)
    assert note_codes(volume) == {"air-level"}
    assert f"rescale=(1, -{8192 if offset == 8192 else 1024})" in volume.notes[0].text


@pytest.mark.parametrize("shift", [-1024, 500])
def test_ct_that_was_shifted_has_a_note(tmp_path: Path, shift: int) -> None:
    path = save_nifti(tmp_path / "ct.nii.gz", chest() + np.int16(shift))
    assert note_codes(read_volume(path)) == {"air-level"}


@pytest.mark.parametrize("padding", [-8192, -3024, -2000])
def test_ct_with_padding_keeps_it_and_has_a_note(tmp_path: Path, padding: int) -> None:
    values = chest()
    values[:4] = padding
    volume = read_volume(save_nifti(tmp_path / "ct.nii.gz", values))
    np.testing.assert_array_equal(volume.hu_XYZ, values)
    assert note_codes(volume) == {"padding"}
    assert str(padding) in volume.notes[0].text


def test_ct_has_no_note_on_its_values(tmp_path: Path) -> None:
    assert read_volume(save_nifti(tmp_path / "ct.nii.gz")).notes == ()


def test_very_thick_slices_have_a_note(tmp_path: Path) -> None:
    volume = read_volume(save_nifti(tmp_path / "a.nii", affine=np.diag([5, 5, 7.5, 1])))
    assert note_codes(volume) == {"thick-slices"}
    assert "7.5 mm" in volume.notes[0].text
    assert (
        note_codes(read_volume(save_nifti(tmp_path / "b.nii", affine=np.diag([5, 5, 5, 1]))))
        == set()
    )


def test_partial_chest_has_a_note(tmp_path: Path) -> None:
    volume = read_volume(save_nifti(tmp_path / "ct.nii", chest()[:, :, :20]))
    assert note_codes(volume) == {"partial-chest"}
    assert "211 x 211 x 82 mm" in volume.notes[0].text


@pytest.mark.parametrize("step", [0.05, 25.0])
def test_implausible_spacing_is_refused(tmp_path: Path, step: float) -> None:
    path = save_nifti(tmp_path / "ct.nii", affine=np.diag([5, 5, step, 1]))
    refused(path, "implausible-spacing")


@pytest.mark.parametrize(("mm", "taken"), [(9e5, True), (-1e7, False), (1e38, False)])
def test_a_scan_beyond_any_table_is_refused(tmp_path: Path, mm: float, taken: bool) -> None:
    affine = AFFINE.copy()
    affine[1, 3] = mm
    path = save_nifti(tmp_path / "far.nii.gz", chest(), affine)
    if taken:
        assert read_volume(path).grid.to_world((0, 0, 0))[1] == pytest.approx(mm)
    else:
        refused(path, "implausible-position")
