"""Where slices lie: orientations, tilt, gaps, uneven spacing, duplicates; SimpleITK as witness."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from dicom_builder import AXIAL, phantom, slice_positions, write_series
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from scipy.spatial.transform import Rotation

from simcrop_core.errors import SimCroPError
from simcrop_core.io.dicom import read_dicom
from simcrop_core.volume import CTVolume

TURNED = Rotation.from_euler("xyz", [12, -20, 33], degrees=True).as_matrix()
ORIENTATIONS = {
    "supine": AXIAL,
    "prone": (-1, 0, 0, 0, -1, 0),
    "decubitus-left": (0, 1, 0, -1, 0, 0),
    "decubitus-right": (0, -1, 0, 1, 0, 0),
    "flipped-rows": (1, 0, 0, 0, -1, 0),
    "flipped-columns": (-1, 0, 0, 0, 1, 0),
    "coronal": (1, 0, 0, 0, 0, -1),
    "sagittal": (0, 1, 0, 0, 0, -1),
    "oblique": tuple(np.round(np.concatenate([TURNED[:, 0], TURNED[:, 1]]), 8)),
}


def codes(volume: CTVolume) -> list[str]:
    return [note.code for note in volume.notes]


def refusal(path: Path, **options) -> SimCroPError:
    with pytest.raises(SimCroPError) as caught:
        read_dicom(path, **options)
    return caught.value


def expected_world(positions, orientation, spacing, ijk) -> np.ndarray:
    """RAS millimetres of pixels (column i, row j) of slice k, straight from PS3.3 C.7.6.2.1.1."""
    i, j, k = np.asarray(ijk).T
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    lps = positions[k] + i[:, None] * row * spacing[0] + j[:, None] * column * spacing[1]
    return lps * [-1, -1, 1]


def sitk_series(folder: Path) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def assert_same_as_simpleitk(volume: CTVolume, image: sitk.Image) -> None:
    assert image.GetSize() == volume.shape
    corners = [
        [i, j, k]
        for i in (0, volume.shape[0] - 1)
        for j in (0, volume.shape[1] - 1)
        for k in (0, volume.shape[2] - 1)
    ]
    for corner in corners:
        physical = np.array(image.TransformIndexToPhysicalPoint(corner)) * [-1, -1, 1]
        np.testing.assert_allclose(volume.grid.to_world(corner), physical, atol=2e-4)
    np.testing.assert_array_equal(volume.hu_XYZ, sitk.GetArrayFromImage(image).T)


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_every_orientation_is_exact(tmp_path, name):
    hu, spacing, origin = phantom(), (0.8, 0.7, 2.5), (31.5, -250.25, 1200.5)
    orientation = ORIENTATIONS[name]
    write_series(tmp_path, hu, spacing=spacing, orientation=orientation, origin=origin)
    volume = read_dicom(tmp_path)
    np.testing.assert_array_equal(volume.hu_XYZ, hu.transpose(2, 1, 0))
    positions = slice_positions(6, spacing=spacing, orientation=orientation, origin=origin)
    ijk = np.array([[0, 0, 0], [23, 0, 0], [0, 19, 0], [0, 0, 5], [7, 11, 3]])
    np.testing.assert_allclose(
        volume.grid.to_world(ijk), expected_world(positions, orientation, spacing, ijk), atol=1e-5
    )
    assert_same_as_simpleitk(volume, sitk_series(tmp_path))


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
    spacing=st.tuples(st.floats(0.3, 3), st.floats(0.3, 3), st.floats(0.5, 8)),
    origin=st.tuples(*[st.floats(-2000, 2000)] * 3),
    tilt=st.floats(-30, 30),
)
def test_any_direction_spacing_place_and_tilt(tmp_path_factory, angles, spacing, origin, tilt):
    folder = tmp_path_factory.mktemp("any")
    matrix = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    orientation = np.concatenate([matrix[:, 0], matrix[:, 1]])
    hu = phantom((4, 6, 8))
    where = {"spacing": spacing, "orientation": orientation, "origin": origin, "tilt_deg": tilt}
    write_series(folder, hu, **where)
    volume = read_dicom(folder)
    ijk = np.array(list(np.ndindex(8, 6, 4)))
    positions = slice_positions(4, **where)
    np.testing.assert_allclose(
        volume.grid.to_world(ijk), expected_world(positions, orientation, spacing, ijk), atol=1e-4
    )
    np.testing.assert_array_equal(volume.hu_XYZ, hu.transpose(2, 1, 0))


@pytest.mark.parametrize("tilt", [-22.5, 4.0, 17.0])
def test_gantry_tilt_is_kept_as_a_shear_with_its_angle(tmp_path, tilt):
    hu, spacing = phantom(), (0.8, 0.7, 2.5)
    write_series(tmp_path, hu, spacing=spacing, tilt_deg=tilt, tags={"GantryDetectorTilt": -99})
    volume = read_dicom(tmp_path)
    (note,) = [n for n in volume.notes if n.code == "gantry-tilt"]
    assert f"{abs(tilt):.1f} degrees" in note.text
    assert volume.grid.is_sheared
    np.testing.assert_array_equal(volume.hu_XYZ, hu.transpose(2, 1, 0))
    positions = slice_positions(6, spacing=spacing, tilt_deg=tilt, origin=(-9.0, 5.0, -120.0))
    ijk = np.array([[0, 0, 0], [23, 19, 0], [0, 0, 5], [7, 11, 3]])
    np.testing.assert_allclose(
        volume.grid.to_world(ijk), expected_world(positions, AXIAL, spacing, ijk), atol=1e-6
    )


def test_a_tilt_that_only_the_tag_names_is_ignored_with_a_note(tmp_path):
    write_series(tmp_path, phantom(), tags={"GantryDetectorTilt": 15})
    volume = read_dicom(tmp_path)
    (note,) = [n for n in volume.notes if n.code == "tilt-tag"]
    assert "15.0 degrees" in note.text
    assert not volume.grid.is_sheared
    assert volume.grid.is_axis_aligned


def test_positions_and_orientation_that_contradict_each_other_are_refused(tmp_path):
    positions = np.arange(6)[:, None] * np.array([0.2, 3.0, 0.5])
    write_series(tmp_path, phantom(), positions=positions)
    assert refusal(tmp_path).code == "orientation-positions"


def test_instance_numbers_and_names_have_no_say(tmp_path):
    hu = phantom()

    def edit(k: int, ds: Dataset) -> None:
        ds.InstanceNumber = [4, 1, 6, 2, 5, 3][k]

    write_series(
        tmp_path, hu[::-1], positions=slice_positions(6, spacing=(1, 1, 2))[::-1], edit=edit
    )
    np.testing.assert_array_equal(read_dicom(tmp_path).hu_XYZ, hu.transpose(2, 1, 0))


# -- missing and uneven -------------------------------------------------------------------------


def ramp(n: int) -> np.ndarray:
    """Slices whose values are linear in z, so that interpolation is known exactly."""
    base = phantom((1, 20, 24)).astype(np.int32)[0]
    return base[None] + 10 * np.arange(n)[:, None, None]


def test_a_missing_slice_is_refused_and_named(tmp_path):
    files = write_series(tmp_path, ramp(12), origin=(0, 0, -120))
    files[5].unlink()
    files[6].unlink()
    error = refusal(tmp_path)
    assert error.code == "missing-slice"
    assert "2 slices are missing: 2 between the slice positions -110.00 and -102.50 mm" in str(
        error
    )
    assert "fill_gaps" in error.remedy


def test_filled_gaps_are_interpolated_linearly_with_a_note(tmp_path):
    hu = ramp(12)
    files = write_series(tmp_path, hu)
    whole = read_dicom(tmp_path)
    files[5].unlink()
    files[6].unlink()
    volume = read_dicom(tmp_path, fill_gaps=True)
    assert volume.grid.matches(whole.grid, 1e-6)
    np.testing.assert_array_equal(volume.hu_XYZ, whole.hu_XYZ)
    (note,) = [n for n in volume.notes if n.code == "filled-gap"]
    assert "2 missing slices were filled" in note.text


def test_several_gaps_are_all_counted(tmp_path):
    files = write_series(tmp_path, ramp(40))
    for k in (3, 10, 11, 20, 30):
        files[k].unlink()
    assert "5 slices are missing" in refusal(tmp_path).problem
    assert read_dicom(tmp_path, fill_gaps=True).shape == (24, 20, 40)


def test_a_stack_that_is_mostly_gap_is_not_filled(tmp_path):
    files = write_series(tmp_path, ramp(20))
    for k in range(6, 14):
        files[k].unlink()
    error = refusal(tmp_path, fill_gaps=True)
    assert error.code == "missing-slice"
    assert "fill" not in error.remedy


def test_rounded_positions_are_a_regular_grid(tmp_path):
    positions = slice_positions(30, spacing=(1, 1, 1.25), origin=(0, 0, -100))
    rough = positions + np.random.default_rng(0).uniform(-0.004, 0.004, (30, 1)) * [0, 0, 1]
    rough[[0, -1]] = positions[[0, -1]]
    write_series(tmp_path, phantom((30, 8, 8)), positions=rough, spacing=(1, 1, 1.25))
    volume = read_dicom(tmp_path)
    assert codes(volume) == ["partial-chest"]
    np.testing.assert_allclose(volume.grid.to_world([0, 0, 29]), positions[29] * [-1, -1, 1])


def test_jitter_below_a_hundredth_is_regular_with_a_note(tmp_path):
    positions = slice_positions(30, spacing=(1, 1, 5))
    positions[7, 2] += 0.03
    hu = phantom((30, 8, 8))
    write_series(tmp_path, hu, positions=positions, spacing=(1, 1, 5))
    volume = read_dicom(tmp_path)
    assert "slice-jitter" in codes(volume)
    np.testing.assert_array_equal(volume.hu_XYZ, hu.transpose(2, 1, 0))


def test_uneven_spacing_is_resampled_to_even_with_a_note(tmp_path):
    rng = np.random.default_rng(1)
    z = np.cumsum(np.concatenate([[0], rng.uniform(2.2, 2.8, 19)]))
    base = phantom((1, 8, 8)).astype(np.float64)[0]
    hu = np.rint(base[None] + 8 * z[:, None, None])
    positions = np.stack([0 * z, 0 * z, z], axis=1)
    write_series(tmp_path, hu, positions=positions, spacing=(1, 1, 2.5))
    volume = read_dicom(tmp_path)
    assert "uneven-spacing" in codes(volume)
    assert volume.hu_XYZ.dtype == np.int16
    assert volume.shape[2] == round(z[-1] / np.median(np.diff(z))) + 1
    even = volume.grid.to_world(np.array([[0, 0, k] for k in range(volume.shape[2])]))[:, 2]
    np.testing.assert_allclose(even[[0, -1]], z[[0, -1]], atol=1e-6)
    np.testing.assert_allclose(np.diff(even), np.diff(even)[0], atol=1e-9)
    expected = base[None] + 8 * even[:, None, None]
    assert np.abs(volume.hu_XYZ.transpose(2, 1, 0) - expected).max() <= 1.0  # rounding only


def test_jitter_above_a_hundredth_is_resampled(tmp_path):
    z = np.arange(20) * 2.5
    z[7] += 0.1
    base = phantom((1, 8, 8)).astype(np.float64)[0]
    hu = np.rint(base[None] + 8 * z[:, None, None])
    write_series(tmp_path, hu, positions=z[:, None] * [0, 0, 1], spacing=(1, 1, 2.5))
    volume = read_dicom(tmp_path)
    assert "uneven-spacing" in codes(volume)
    expected = base[None] + 8 * 2.5 * np.arange(20)[:, None, None]
    assert np.abs(volume.hu_XYZ.transpose(2, 1, 0) - expected).max() <= 1.0


def test_spacing_that_is_too_uneven_is_refused(tmp_path):
    z = np.array([0, 1, 2, 3, 4, 4.3, 5.3, 6.3, 7.3])
    write_series(tmp_path / "a", phantom((9, 8, 8)), positions=z[:, None] * [0, 0, 1])
    assert refusal(tmp_path / "a").code == "uneven-spacing"
    z = np.array([0, 1, 2, 3, 4, 5.7, 6.7, 7.7])
    write_series(tmp_path / "b", phantom((8, 8, 8)), positions=z[:, None] * [0, 0, 1])
    error = refusal(tmp_path / "b", fill_gaps=True)
    assert error.code == "missing-slice"
    assert "between the slice positions 4.00 and 5.70 mm" in error.problem


def test_a_slice_shifted_sideways_is_refused(tmp_path):
    positions = slice_positions(8, spacing=(1, 1, 2))
    positions[3, 0] += 0.5
    write_series(tmp_path, phantom((8, 8, 8)), positions=positions)
    error = refusal(tmp_path)
    assert error.code == "shifted-slices"
    assert "at 6.00 mm is shifted sideways by 0.50 mm" in error.problem


def test_notes_on_spacing(tmp_path):
    write_series(tmp_path / "a", phantom(), tags={"SpacingBetweenSlices": 5})
    (note,) = [n for n in read_dicom(tmp_path / "a").notes if n.code == "spacing-tag"]
    assert "5 mm" in note.text
    assert "2.5 mm" in note.text
    write_series(tmp_path / "b", phantom(), tags={"SliceThickness": 1, "SpacingBetweenSlices": 2.5})
    assert "slices-apart" in codes(read_dicom(tmp_path / "b"))


def test_a_single_slice_is_no_volume(tmp_path):
    write_series(tmp_path, phantom((1, 8, 8)))
    assert refusal(tmp_path).code == "not-a-volume"


@pytest.mark.parametrize("value", ["nan", "inf", "1_0", "0,7", "abc"])
def test_positions_that_are_no_numbers_are_refused(tmp_path, value):
    files = write_series(tmp_path, phantom(), transfer_syntax="explicit", shuffle_names=False)
    raw = files[2].read_bytes()
    written = b"-9.0\\5.0\\-115.0"
    assert raw.count(written) == 1
    damaged = value.encode().ljust(len(written) - 4) + b"\\5\\1"
    files[2].write_bytes(raw.replace(written, damaged))
    error = refusal(tmp_path)
    assert error.path == str(files[2])
    assert "ImagePositionPatient" in error.problem
    assert value not in error.problem


# -- the real series ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "files"),
    [
        ("nsclc-lung1-001/image", "*"),
        ("crlm-1004", "*.dcm"),
        ("totalseg-dicom-jpeg2000", "CT*"),
        ("dcmqi-ct-seg", "0*.dcm"),
    ],
)
def test_real_series_equal_simpleitk(real_data, folder, files):
    path = real_data / "ct" / folder
    volume = read_dicom(path)
    reader = sitk.ImageSeriesReader()
    by_position = {}
    for file in path.glob(files):
        header = pydicom.dcmread(file, stop_before_pixels=True)
        if header.Modality == "CT":
            by_position[float(header.ImagePositionPatient[2])] = str(file)
    reader.SetFileNames([by_position[z] for z in sorted(by_position)])
    image = reader.Execute()
    theirs = sitk.GetArrayFromImage(image).copy()
    padding = theirs == -3024
    assert padding.any() == ("padding" in codes(volume))
    theirs[padding] = -1024  # declared as padding (-2000 stored): air here, with a Note
    same = sitk.GetImageFromArray(theirs)
    same.CopyInformation(image)
    assert_same_as_simpleitk(volume, same)
