"""Scans, label maps and sessions in a napari window: the right side, the right millimetre."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels
from napari.utils.notifications import NotificationSeverity, notification_manager
from npe2 import PluginManager, PluginManifest

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))

from dicom_builder import phantom, write_series
from made_ct import AFFINE, chest, oblique_affine, save_nifti
from napari_simcrop.readers import get_reader

from simcrop_core.errors import SimCroPError
from simcrop_core.geometry import Grid
from simcrop_core.io import read_volume, write_labels
from simcrop_core.sample import sample_study

NAME = "simcrop-viewer"


def value_at(layer: Image | Labels, ras_mm: np.ndarray) -> float:
    """A layer's value at a place of the patient: napari's world is Superior, Posterior, Left."""
    r, a, s = ras_mm
    index = np.round(layer.world_to_data((s, -a, -r))).astype(int)
    return float(np.asarray(layer.data)[tuple(index)])


def assert_lies_as(layer: Image | Labels, values_XYZ: np.ndarray, grid: Grid, count: int) -> None:
    """``count`` voxels drawn by chance are where the grid says."""
    rng = np.random.default_rng(1)
    for voxel in rng.integers(0, grid.shape, (count, 3)):
        assert value_at(layer, grid.to_world(voxel)) == values_XYZ[tuple(voxel)]


@pytest.mark.parametrize("axes", ["LPS", "RAS", "IPR"])
def test_a_file_is_one_layer_in_millimetres(tmp_path: Path, viewer: ViewerModel, axes: str) -> None:
    affine = np.array(AFFINE)
    if axes == "RAS":
        affine[:2] *= -1
    if axes == "IPR":
        affine = affine[[2, 1, 0, 3]]
    file = save_nifti(tmp_path / "ct.nii.gz", affine=affine)
    (layer,) = viewer.open(file, plugin=NAME)
    volume = read_volume(file)
    assert (layer.name, type(layer)) == ("CT", Image)
    assert [str(unit) for unit in layer.units] == ["millimeter"] * 3
    assert tuple(layer.contrast_limits) == (-1350.0, 150.0)
    assert layer.metadata["simcrop"]["source"] == str(file)
    assert_lies_as(layer, np.asarray(volume.hu_XYZ), volume.grid, 200)


def test_a_dicom_folder_is_known_by_its_content(tmp_path: Path, viewer: ViewerModel) -> None:
    folder = tmp_path / "scan"
    for number, file in enumerate(write_series(folder, phantom((6, 20, 24)))):
        file.rename(folder / f"IM{number:04d}")
    (folder / "0-readme.txt").write_text("not a slice")
    (layer,) = viewer.open(folder, plugin=NAME)
    volume = read_volume(folder)
    assert_lies_as(layer, np.asarray(volume.hu_XYZ), volume.grid, 200)
    assert layer.metadata["simcrop"]["format"] == "DICOM"


def test_a_label_map_has_its_names_and_an_oblique_one_lies_on_its_scan(
    tmp_path: Path, viewer: ViewerModel
) -> None:
    volume = read_volume(save_nifti(tmp_path / "ct.nii.gz", affine=oblique_affine()))
    grid = volume.grid
    labels = np.zeros(grid.shape, np.uint8)
    labels[3:12, 4:20, 2:9], labels[-14:-3, 10:30, 5:] = 2, 5
    write_labels(tmp_path / "labels.nii.gz", labels, grid)
    card = {"schema": 1, "labels": {"2": "left lung", "5": "heart"}, "volume_ml": {}}
    (tmp_path / "labels.json").write_text(json.dumps(card))
    (scan,) = viewer.open(tmp_path / "ct.nii.gz", plugin=NAME)
    (layer,) = viewer.open(tmp_path / "labels.nii.gz", plugin=NAME)
    assert isinstance(layer, Labels)
    assert list(layer.features["name"]) == ["background", "left lung", "heart"]
    assert layer.data.shape == scan.data.shape
    assert np.allclose((layer.scale, layer.translate), (scan.scale, scan.translate))
    for label in (2, 5):
        middle = grid.to_world(np.argwhere(labels == label).mean(axis=0))
        assert value_at(layer, middle) == label
    heart = layer.world_to_data(np.array([1.0, -1.0, -1.0]) * middle[::-1])
    assert "heart" in "".join(layer._get_properties(heart, world=False))


def test_a_json_of_something_else_makes_no_label_map(tmp_path: Path, viewer: ViewerModel) -> None:
    file = save_nifti(tmp_path / "ct.nii.gz")
    for text in ('{"Manufacturer": "X"}', "[1]", "{", '{"labels": [1]}', "{}"):
        (tmp_path / "ct.json").write_text(text)
        assert isinstance(viewer.open(file, plugin=NAME)[0], Image), text


def test_a_session_brings_its_scan_in_its_window(tmp_path: Path, viewer: ViewerModel) -> None:
    from simcrop_viewer.model.display import display_of
    from simcrop_viewer.model.figure import FigureSettings
    from simcrop_viewer.model.session import OpenStudy, Session
    from simcrop_viewer.model.session_file import saved_session
    from simcrop_viewer.model.windows import Window

    volume = read_volume(save_nifti(tmp_path / "ct.nii.gz"))
    session = Session()
    session.show(OpenStudy(volume, display_of(volume)))
    session.set_window(Window(350, 50))
    place = tmp_path / "s.simcrop"
    saved_session(session, FigureSettings(), None, place).write(place)
    (layer,) = viewer.open(place, plugin=NAME)
    assert tuple(layer.contrast_limits) == (-125.0, 225.0)
    save_nifti(tmp_path / "ct.nii.gz", chest(seed=5))
    with pytest.raises(SimCroPError, match="no longer the one"):
        viewer.open(place, plugin=NAME)


def test_what_is_no_scan_is_left_to_others(tmp_path: Path) -> None:
    text, empty = tmp_path / "notes.nii", tmp_path / "folder"
    text.write_text("not a scan at all " * 99)
    empty.mkdir()
    (empty / "a.txt").write_text("a")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    missing = tmp_path / "nothing.nii"
    for path in (text, empty, pictures, missing):
        assert get_reader(str(path)) is None, path
    files = write_series(tmp_path / "ct", phantom((4, 8, 8)))
    assert get_reader([str(f) for f in files]) is not None
    other = save_nifti(tmp_path / "ct.nii.gz")
    assert get_reader([str(other), str(other)]) is None


def test_napari_asks_for_scans_alone(tmp_path: Path, plugin: PluginManifest) -> None:
    manager = PluginManager.instance()
    asked = {
        name: bool(list(manager.iter_compatible_readers([str(tmp_path / name)])))
        for name in ("A.NII.GZ", "a.nii", "a.mha", "a.nrrd", "a.dcm", "a.png", "a.tif", "a.json")
    }
    assert [name for name, ours in asked.items() if ours] == list(asked)[:5]
    assert list(manager.iter_compatible_readers([str(tmp_path)]))


def test_a_refusal_is_naparis_error_in_one_sentence(tmp_path: Path, viewer: ViewerModel) -> None:
    file = save_nifti(tmp_path / "ct.nii.gz")
    file.write_bytes(file.read_bytes()[:-4000])
    with pytest.raises(SimCroPError) as caught:
        viewer.open(file, plugin=NAME)
    assert "\n" not in str(caught.value)
    assert caught.value.remedy in str(caught.value)
    shown = notification_manager.records[-1]
    assert (shown.severity, shown.message) == (NotificationSeverity.ERROR, str(caught.value))
    assert len(viewer.layers) == 0


def test_the_sample_study_is_three_layers_on_one_place(viewer: ViewerModel) -> None:
    scan, structures, findings = viewer.open_sample(NAME, "sample")
    study = sample_study()
    grid = study.volume.grid
    assert_lies_as(scan, np.asarray(study.volume.hu_XYZ), grid, 100)
    assert study.structures_XYZ is not None
    assert_lies_as(structures, study.structures_XYZ, grid, 100)
    names = dict(zip(findings.features["index"], findings.features["name"], strict=True))
    nodule = next(label for label, name in names.items() if name == "lung nodule")
    middle = np.argwhere(study.regions["finding 1 lung nodule"]).mean(axis=0)
    assert value_at(findings, grid.to_world(middle)) == nodule
    assert grid.to_world(middle)[0] > 0  # on the right, as the report says
    assert "right" in scan.metadata["simcrop"]["report"]
