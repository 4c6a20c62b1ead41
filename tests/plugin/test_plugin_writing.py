"""Labels of a napari window on disk, read back by nibabel, pydicom and highdicom."""

from __future__ import annotations

import sys
from pathlib import Path

import highdicom
import nibabel
import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))

import napari
from dicom_builder import phantom, write_series
from made_ct import AFFINE, save_nifti
from napari_simcrop.writers import NotSavedError

from simcrop_core.errors import SimCroPError
from simcrop_core.io import read_volume
from simcrop_viewer.layers import placed, unplaced

NAME = "simcrop-viewer"
#: Patient's right, anterior, superior millimetres of the drawn ball's middle, and its radius.
RADIUS = 5.0


@pytest.fixture
def series(tmp_path: Path, viewer: ViewerModel, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DICOM series that is open in the window."""
    folder = tmp_path / "ct"
    write_series(folder, phantom((6, 20, 24)))
    viewer.open(folder, plugin=NAME)
    monkeypatch.setattr(napari, "current_viewer", lambda: viewer)
    return folder


def drawn(viewer: ViewerModel, folder: Path) -> tuple[Labels, np.ndarray]:
    """Labels as napari's own button makes them over the scan, with a ball painted off centre in
    the world; and where it is, RAS millimetres."""
    grid = read_volume(folder).grid
    middle = grid.to_world((5, 14, 2))
    viewer.layers.selection.active = viewer.layers[0]
    viewer._new_labels()
    layer = viewer.layers[-1]
    index = np.moveaxis(np.indices(layer.data.shape), 0, -1).reshape(-1, 3)
    world = index * layer.scale + layer.translate
    r, a, s = middle
    inside = np.linalg.norm(world - (s, -a, -r), axis=1) < RADIUS
    layer.data.reshape(-1)[inside] = 3
    layer.features = {"index": [3], "name": ["Knoten"]}
    return layer, middle


def test_nifti_keeps_the_place_and_the_names(
    tmp_path: Path, viewer: ViewerModel, series: Path
) -> None:
    layer, middle = drawn(viewer, series)
    out = tmp_path / "labels.nii.gz"
    assert layer.save(str(out), plugin=NAME) == [str(out), str(tmp_path / "labels.json")]
    image = nibabel.load(out)
    found = np.argwhere(np.asarray(image.dataobj) == 3)
    assert len(found) == np.count_nonzero(layer.data) > 50
    world = nibabel.affines.apply_affine(image.affine, found)
    assert np.linalg.norm(world - middle, axis=1).max() < RADIUS
    assert np.linalg.norm(world.mean(axis=0) - middle) < 0.5
    (again,) = viewer.open(out, plugin=NAME)
    assert isinstance(again, Labels)
    assert np.array_equal(again.data, layer.data)
    assert list(again.features["name"]) == ["background", "Knoten"]


def test_a_seg_lies_on_the_series_of_the_window(
    tmp_path: Path, viewer: ViewerModel, series: Path
) -> None:
    layer, middle = drawn(viewer, series)
    out = tmp_path / "labels.dcm"
    assert layer.save(str(out), plugin=NAME) == [str(out)]
    seg = highdicom.seg.segread(out)
    assert [(s.SegmentLabel, s.SegmentAlgorithmType) for s in seg.SegmentSequence] == [
        ("Knoten", "MANUAL")
    ]
    volume = seg.get_volume(combine_segments=True)
    found = np.argwhere(volume.array == 1)
    assert len(found) == np.count_nonzero(layer.data)
    world = volume.map_indices_to_reference(found) * (-1, -1, 1)  # LPS to RAS
    assert np.linalg.norm(world - middle, axis=1).max() < RADIUS
    assert np.linalg.norm(world.mean(axis=0) - middle) < 0.5


def test_what_cannot_be_written_is_one_sentence(
    tmp_path: Path, viewer: ViewerModel, series: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, _ = drawn(viewer, series)

    def code(name: str, of: Labels = layer) -> str:
        with pytest.raises(NotSavedError) as caught:
            of.save(str(tmp_path / name), plugin=NAME)
        refusal = caught.value.__cause__
        assert isinstance(refusal, SimCroPError)
        assert str(caught.value) == str(refusal)
        assert "\n" not in str(refusal)
        return refusal.code

    (tmp_path / "taken.json").write_text('{"precious": [1]}')
    assert code("taken.nii.gz") == "exists"
    empty = Labels(np.zeros_like(layer.data), scale=layer.scale, translate=layer.translate)
    assert code("a.dcm", empty) == "no-labels"
    flat = Labels(np.ones((4, 4), np.uint8))
    assert code("a.nii.gz", flat) == "not-labels"
    below = Labels(np.full((4, 4, 4), -1, np.int8))
    assert code("a.nii.gz", below) == "not-labels"
    away = Labels(np.asarray(layer.data), scale=layer.scale, translate=layer.translate + 4)
    assert code("a.dcm", away) == "mask-mismatch"
    second = tmp_path / "second"
    write_series(second, phantom((6, 20, 24)))
    viewer.open(second, plugin=NAME)
    assert code("a.dcm") == "no-series"
    monkeypatch.setattr(napari, "current_viewer", lambda: None)
    assert code("a.dcm") == "no-series"
    assert not list(tmp_path.glob("a.*"))


def test_labels_never_take_the_place_of_the_scan(
    tmp_path: Path, viewer: ViewerModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(napari, "current_viewer", lambda: viewer)
    file = save_nifti(tmp_path / "ct.nii.gz")
    before = file.read_bytes()
    (scan,) = viewer.open(file, plugin=NAME)
    layer = Labels(np.ones(scan.data.shape, np.uint8), scale=scan.scale, translate=scan.translate)
    with pytest.raises(NotSavedError, match="place of the scan"):
        layer.save(str(file), plugin=NAME)
    assert file.read_bytes() == before


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_unplaced_undoes_placed(axes: tuple[int, int, int]) -> None:
    from simcrop_core.geometry import Grid

    affine = np.array(AFFINE)
    affine[:3, :3] = affine[:3, :3][list(axes)]
    grid = Grid((5, 6, 7), affine)
    values = np.arange(210, dtype=np.int32).reshape(grid.shape)
    put = placed(values, grid)
    back, found = unplaced(Labels(put.data_ZYX, **put.place))
    assert found.axcodes == "LPS"
    for voxel in np.ndindex(grid.shape):
        x, y, z = np.round(found.to_voxel(grid.to_world(voxel))).astype(int)
        assert back[x, y, z] == values[voxel]
    micrometres = Labels(
        put.data_ZYX,
        scale=np.array(put.scale) * 1000,
        translate=np.array(put.translate) * 1000,
        units=("um", "um", "um"),
    )
    assert unplaced(micrometres)[1].matches(found)
    with pytest.raises(ValueError, match="no length"):
        unplaced(Labels(put.data_ZYX, units=("s", "mm", "mm")))
