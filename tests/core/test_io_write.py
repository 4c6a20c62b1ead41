"""Written files: read back alike by us, nibabel and SimpleITK, silent about the patient, whole."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_ct import AFFINE, SHAPE, chest, oblique_affine
from test_geometry import grids

from simcrop_core import CTVolume, Grid, Note, SimCroPError, read_volume, write_labels, write_volume
from simcrop_core.io import read_labels, write_map

GRID = Grid(SHAPE, AFFINE)
AFFINES = {
    "straight": AFFINE,
    "oblique": oblique_affine(30),
    "sheared": oblique_affine(10, shear=0.3),
    "right-handed": np.diag([4.4, 4.8, 4.1, 1]),
    "half-turn": np.diag([-4.4, -4.8, 4.1, 1]),
    "permuted": oblique_affine(0)[:, [2, 0, 1, 3]],
}


def volume(affine: np.ndarray = AFFINE, dtype: type = np.int16) -> CTVolume:
    return CTVolume(chest().astype(dtype), Grid(SHAPE, affine))


@pytest.mark.parametrize("name", ["ct.nii", "ct.nii.gz", "CT.NII.GZ"])
@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_volume_comes_back(tmp_path: Path, name: str, affine: np.ndarray) -> None:
    path = tmp_path / name
    write_volume(path, volume(affine))
    back = read_volume(path)
    np.testing.assert_array_equal(back.hu_XYZ, chest())
    assert back.hu_XYZ.dtype == np.int16
    assert back.grid.matches(Grid(SHAPE, affine), tolerance_mm=1e-3)
    theirs = nib.load(path)
    np.testing.assert_array_equal(np.asanyarray(theirs.dataobj), chest())
    np.testing.assert_allclose(theirs.affine, affine, atol=1e-4)


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_qform_says_the_same_or_nothing(tmp_path: Path, affine: np.ndarray) -> None:
    write_volume(tmp_path / "ct.nii", volume(affine))
    image = nib.load(tmp_path / "ct.nii")
    assert image.header["sform_code"] == 1
    if Grid(SHAPE, affine).is_sheared:
        assert image.header["qform_code"] == 0
    else:
        assert image.header["qform_code"] == 1
        np.testing.assert_allclose(image.get_qform(), affine, atol=1e-3)
        itk = sitk.ReadImage(str(tmp_path / "ct.nii"))
        for voxel in [(0, 0, 0), (47, 3, 49)]:
            place = np.array(itk.TransformIndexToPhysicalPoint(voxel)) * (-1, -1, 1)
            np.testing.assert_allclose(place, Grid(SHAPE, affine).to_world(voxel), atol=1e-2)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(grids(sheared=False), st.booleans())
def test_qform_of_any_rotation_as_nibabel_reads_it(
    tmp_path: Path, grid: Grid, packed: bool
) -> None:
    path = tmp_path / ("m.nii.gz" if packed else "m.nii")
    write_map(path, np.zeros(grid.shape, np.float32), grid)
    header = nib.load(path).header
    np.testing.assert_allclose(header.get_sform(), grid.affine, atol=1e-4)
    if header["qform_code"] == 0:
        # Near half a turn the three numbers of a qform leave the fourth to chance: nibabel's own
        # best one misses a corner by as much.
        best = nib.Nifti1Header()
        best.set_qform(grid.affine, 1)
        corners = np.array(list(itertools.product(*[(0, n - 1) for n in grid.shape])))
        apart = nib.affines.apply_affine(best.get_qform(), corners) - grid.to_world(corners)
        assert np.linalg.norm(apart, axis=1).max() > 0.02 * min(grid.spacing_mm)
        return
    assert header["qform_code"] == 1
    np.testing.assert_allclose(header.get_qform(), grid.affine, atol=2e-3)


def test_float_volume_and_any_memory_order(tmp_path: Path) -> None:
    values = np.ascontiguousarray(chest() + np.float32(0.25))
    write_volume(tmp_path / "ct.nii.gz", CTVolume(values, GRID))
    back = read_volume(tmp_path / "ct.nii.gz")
    assert back.hu_XYZ.dtype == np.float32
    np.testing.assert_array_equal(back.hu_XYZ, values)
    flipped = CTVolume(chest()[::-1, :, ::-1], GRID)
    write_volume(tmp_path / "f.nii", flipped)
    np.testing.assert_array_equal(read_volume(tmp_path / "f.nii").hu_XYZ, flipped.hu_XYZ)


@pytest.mark.parametrize("name", ["ct.nii", "ct.nii.gz"])
def test_same_volume_same_bytes_and_nothing_of_the_patient(tmp_path: Path, name: str) -> None:
    named = CTVolume(
        chest(), GRID, Path("/CANARY/CANARY.nii"), "NIfTI", (Note("CANARY", "CANARY"),)
    )
    (tmp_path / "CANARY").mkdir()
    write_volume(tmp_path / "CANARY" / name, named)
    write_volume(tmp_path / name, volume())
    data = (tmp_path / name).read_bytes()
    assert (tmp_path / "CANARY" / name).read_bytes() == data
    assert b"CANARY" not in data
    image = nib.load(tmp_path / name)
    for field in ("descrip", "db_name", "aux_file", "intent_name"):
        assert bytes(image.header[field]).strip(b"\0") == b""
    assert len(image.header.extensions) == 0
    assert image.header.get_xyzt_units()[0] == "mm"
    assert image.header["cal_max"] == image.header["cal_min"] == 0
    if name.endswith("gz"):
        assert data[3] == 0  # no name, no comment
        assert data[4:8] == bytes(4)  # no time


@pytest.mark.parametrize(
    ("top", "dtype"), [(1, np.uint8), (255, np.uint8), (256, np.uint16), (70000, np.int32)]
)
def test_labels_come_back_in_the_smallest_type(tmp_path: Path, top: int, dtype: type) -> None:
    labels = np.zeros(SHAPE, np.int64)
    labels[2:5, 3:9, 4:6] = top
    write_labels(tmp_path / "mask.nii.gz", labels, GRID)
    assert nib.load(tmp_path / "mask.nii.gz").get_data_dtype() == dtype
    back, grid = read_labels(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(back, labels)
    assert grid.matches(GRID)
    assert sorted(os.listdir(tmp_path)) == ["mask.nii.gz"]


def test_label_names_go_beside(tmp_path: Path) -> None:
    names = {2: "lung ü", 1: "aorta"}
    write_labels(tmp_path / "mask.nii.gz", chest() > 0, GRID, names)
    text = (tmp_path / "mask.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"1": "aorta", "2": "lung ü"}
    np.testing.assert_array_equal(read_labels(tmp_path / "mask.nii.gz")[0], chest() > 0)


def test_what_is_no_mask_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="whole numbers"):
        write_labels(tmp_path / "m.nii", chest() * 0.5, GRID)
    with pytest.raises(ValueError, match="between 0"):
        write_labels(tmp_path / "m.nii", chest(), GRID)
    with pytest.raises(ValueError, match="does not fit"):
        write_labels(tmp_path / "m.nii", np.ones((2, 2, 2), int), GRID)
    assert os.listdir(tmp_path) == []


def test_map_comes_back(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=SHAPE)
    write_map(tmp_path / "heat.nii.gz", values, GRID)
    image = nib.load(tmp_path / "heat.nii.gz")
    assert image.get_data_dtype() == np.float32
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), values.astype(np.float32))
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-4)


# -- whole or not at all ------------------------------------------------------------------------


def refused(path: Path, code: str) -> None:
    with pytest.raises(SimCroPError) as caught:
        write_volume(path, volume())
    assert caught.value.code == code
    assert caught.value.path == str(path)


@pytest.mark.parametrize("name", ["ct", "ct.nrrd", "ct.gz", ".nii", ".nii.gz"])
def test_other_names_are_refused(tmp_path: Path, name: str) -> None:
    refused(tmp_path / name, "suffix")
    assert os.listdir(tmp_path) == []


def test_folder_that_is_not_there_is_made_unless_a_file_is_in_the_way(tmp_path: Path) -> None:
    write_volume(tmp_path / "new" / "ct.nii", volume())
    assert os.listdir(tmp_path / "new") == ["ct.nii"]
    (tmp_path / "file").write_text("in the way")
    refused(tmp_path / "file" / "ct.nii", "cannot-write")


def test_name_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "ct.nii").mkdir()
    refused(tmp_path / "ct.nii", "cannot-write")
    assert os.listdir(tmp_path) == ["ct.nii"]


def test_too_large_for_the_format(tmp_path: Path) -> None:
    long = np.zeros((2, 2, 40_000), np.int16)
    with pytest.raises(SimCroPError) as caught:
        write_volume(tmp_path / "ct.nii", CTVolume(long, Grid(long.shape, AFFINE)))
    assert caught.value.code == "too-large"


@pytest.mark.parametrize("name", ["ct.nii", "ct.nii.gz"])
def test_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    write_volume(path, volume())
    before = path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SimCroPError) as caught:
        write_volume(path, volume(oblique_affine()))
    assert "No space left" in caught.value.problem
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [name]


def test_interruption_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ct.nii.gz"
    write_volume(path, volume())
    before = path.read_bytes()

    def interrupted(a: object, b: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_volume(path, volume(oblique_affine()))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["ct.nii.gz"]


def test_new_file_replaces_the_old_and_obeys_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "ct.nii.gz"
    write_volume(path, volume())
    write_volume(path, volume(oblique_affine()))
    assert read_volume(path).grid.matches(Grid(SHAPE, oblique_affine()))
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
