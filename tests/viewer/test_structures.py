"""Structures of the window: right side, right millimetres, shown, hidden, written, refused."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from made_structures import RADIUS, Model, Threshold, two_balls
from made_view import Desk

from simcrop_core.geometry import Grid, axis_aligned_affine
from simcrop_core.input_spec import InputSpec
from simcrop_core.volume import CTVolume
from simcrop_viewer import layers
from simcrop_viewer.controller.scenes import SceneController
from simcrop_viewer.controller.structures import StructuresController
from simcrop_viewer.model.display import display_of
from simcrop_viewer.model.session import OpenStudy
from simcrop_viewer.model.structures import color_of_label, measured
from simcrop_viewer.scene import SCENES, Scene


class Room:
    """A desk with panes and structures."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.scenes = {name: Scene(name) for name in SCENES}
        self.drawn = SceneController(desk.session, list(self.scenes.values()))
        self.structures = StructuresController(
            desk.session, desk.jobs, desk.evidence, list(self.scenes.values())
        )
        self.structures.refused.connect(desk.refused.append)

    def segment(self, kind: str = "LPS", head: Threshold | None = None) -> np.ndarray:
        study, centers = two_balls(kind)
        self.desk.session.show(study)
        self.desk.evidence.set_model(Model(head or Threshold()))
        self.structures.segment()
        self.desk.wait()
        return centers


@pytest.fixture
def room(desk: Desk):
    made = Room(desk)
    yield made
    made.structures.close()
    made.drawn.close()


def shown_at(scene: Scene, world_mm: np.ndarray) -> int:
    """What the pane's layer of structures has at a RAS point, as it is drawn."""
    layer = scene.structures
    assert layer is not None
    index = np.floor(np.array(layer.world_to_data(layers.to_napari(world_mm))) + 0.5).astype(int)
    label = int(layer.data[tuple(index)])
    return label if layer.visible and layer.colormap.map(label)[..., 3] > 0 else 0


@pytest.mark.parametrize("kind", ["LPS", "RAS", "SPR", "oblique"])
def test_structures_are_on_the_patients_own_side_and_of_their_own_size(
    room: Room, tmp_path: Path, kind: str
) -> None:
    right, left = room.segment(kind)
    assert room.desk.refused == []
    first, second, third = room.structures.state.rows
    assert [r.name for r in (first, second, third)] == list(Threshold.labels)
    for row, center in ((first, right), (second, left)):
        np.testing.assert_allclose(row.center_mm, center, atol=2.5)
        assert row.volume_ml == pytest.approx(4 / 3 * np.pi * RADIUS**3 / 1000, rel=0.08)
    assert (third.volume_ml, third.center_mm) == (0, None)
    middle = room.desk.session.study.volume.grid.center_mm  # type: ignore[union-attr]
    mirrored = right * (-1, 1, 1) + middle * (2, 0, 0)
    for scene in room.scenes.values():
        seen = [shown_at(scene, place) for place in (right, left, mirrored, middle)]
        assert seen == [1, 2, 0, 0], scene.name
    room.structures.export(tmp_path / "labels.nii.gz")
    room.desk.wait()
    image = nib.load(tmp_path / "labels.nii.gz")
    voxels = np.linalg.inv(image.affine) @ np.append(np.array([right, left]).T, [[1, 1]], axis=0)
    x, y, z = np.floor(voxels[:3] + 0.5).astype(int)
    assert np.asarray(image.dataobj)[x, y, z].tolist() == [1, 2]


def test_a_structure_is_hidden_coloured_and_gone_to(room: Room) -> None:
    right, left = room.segment()
    state = room.structures.state
    drawn = {name: scene.structures for name, scene in room.scenes.items()}
    state.show(1, False)
    state.set_color(2, "#102030")
    for name, scene in room.scenes.items():
        assert scene.structures is drawn[name]  # the same layer
        assert [shown_at(scene, place) for place in (right, left)] == [0, 2]
        color = scene.structures.colormap.map(2)
        np.testing.assert_allclose(color[:3], np.array([16, 32, 48]) / 255, atol=0.01)
    # In 3D a hidden structure is not there at all: it would hide what is behind it.
    assert 1 not in room.scenes["3d"].structures.data
    assert 1 in room.scenes["axial"].structures.data
    room.structures.jump(1)
    np.testing.assert_allclose(room.desk.session.position_mm, right, atol=2.5)
    room.structures.jump(3)  # there is none of it
    np.testing.assert_allclose(room.desk.session.position_mm, right, atol=2.5)
    state.show_all(False)
    assert not any(scene.structures.visible for scene in room.scenes.values())
    state.show_all(True)
    state.settings.draw, state.settings.opacity = "outlines", 0.7
    axial, solid = room.scenes["axial"].structures, room.scenes["3d"].structures
    assert (axial.contour, solid.contour, axial.opacity) == (2, 0, 0.7)
    state.settings.visible = False
    assert not axial.visible


def test_structures_lie_above_the_scan_below_evidence_and_cannot_be_painted(room: Room) -> None:
    room.segment()
    for scene in room.scenes.values():
        order, layer = scene.viewer.layers, scene.structures
        assert order.index(layer) == len(scene.scan)
        assert order.selection.active is scene.scan[0]
        assert not layer.editable


def test_in_3d_many_voxels_become_fewer_at_the_same_places(room: Room) -> None:
    shape = (30, 26, 450)
    grid = Grid(shape, axis_aligned_affine("LPS", (4, 4, 1), (0, 0, 0), shape))
    hu = np.full(shape, -500, np.int16)
    hu[8:14, 6:12, 300:330] = 500
    volume = CTVolume(hu, grid)
    room.desk.session.show(OpenStudy(volume, display_of(volume)))
    room.desk.evidence.set_model(Model(Threshold()))
    room.structures.segment()
    room.desk.wait()
    place = grid.to_world([11, 9, 315])
    assert room.scenes["3d"].structures.data.shape == (150, 26, 30)
    for scene in room.scenes.values():
        assert shown_at(scene, place) == 1
        assert shown_at(scene, place - [0, 0, 40]) == 0


def test_another_study_has_none_and_another_model_leaves_them(room: Room) -> None:
    room.segment()
    room.desk.evidence.set_model(None)
    assert len(room.structures.state.rows) == 3
    room.desk.session.show(two_balls("LPS")[0])
    assert room.structures.state.rows == ()
    assert all(scene.structures is None for scene in room.scenes.values())


def test_a_run_that_is_cancelled_or_late_changes_nothing(room: Room) -> None:
    room.segment()
    before = room.structures.state.now
    job = room.structures.segment()
    job.cancel()
    room.desk.wait()
    assert (job.state, room.structures.state.now) == ("cancelled", before)
    room.structures.segment()
    room.desk.session.show(two_balls("RAS")[0])
    room.desk.wait()
    assert room.structures.state.now is None
    assert room.desk.refused == []


def test_what_cannot_be_done_is_said_in_a_sentence(room: Room, tmp_path: Path) -> None:
    desk = room.desk
    room.structures.segment()
    desk.session.show(two_balls("LPS")[0])
    room.structures.segment()
    room.structures.export(tmp_path / "labels.nii.gz")
    desk.evidence.set_model(Model(None))
    room.structures.segment()
    desk.wait()
    room.segment()
    room.structures.export(tmp_path / "labels.png")
    desk.wait()
    assert [e.code for e in desk.refused] == [
        "no-scan", "no-model", "no-labels", "no-segmentation-head", "unknown-suffix",
    ]  # fmt: skip
    assert "has no segmentation head" in desk.refused[3].problem
    assert not list(tmp_path.iterdir())


def test_labels_are_written_as_the_command_writes_them(
    desk: Desk, files: tuple[Path, Path], tmp_path: Path
) -> None:
    from simcrop_core.cli import main
    from simcrop_core.model import VisionConfig, create_model, save_model

    model = create_model(
        "starter",
        input_spec=InputSpec(shape=(32, 32, 16), spacing_mm=(7, 7, 14), patch_shape=(16, 16, 8)),
        vision=VisionConfig(depth=4, width=48, heads=4),
        segmentation_labels=("left lung", "right lung"),
    )
    save_model(model, tmp_path / "model")
    room = Room(desk)
    desk.studies.open(files[0])
    desk.evidence.load(tmp_path / "model")
    desk.wait()
    room.structures.segment()
    desk.wait()
    room.structures.export(files[0])
    report = tmp_path / "report.json"
    report.write_text('{"findings": "A nodule."}')
    room.structures.export(tmp_path / "report.nii.gz")
    for _ in range(2):  # a pair of earlier labels is replaced
        room.structures.export(tmp_path / "mine.nii.gz")
        desk.wait()
    assert [e.code for e in desk.refused] == ["same-file", "exists"]
    assert report.read_text() == '{"findings": "A nodule."}'
    assert not (tmp_path / "report.nii.gz").exists()
    words = ["segment", str(files[0]), "--model", str(tmp_path / "model"), "--out"]
    assert main([*words, str(tmp_path / "its.nii.gz")]) == 0
    for suffix in (".nii.gz", ".json"):
        mine, its = ((tmp_path / f"{name}{suffix}").read_bytes() for name in ("mine", "its"))
        assert mine == its
    said = json.loads((tmp_path / "mine.json").read_text())
    assert said["labels"] == {"1": "left lung", "2": "right lung"}
    assert not room.structures.state.now.is_trained  # type: ignore[union-attr]


def test_the_middle_of_a_ring_is_a_place_of_the_ring() -> None:
    x, y = np.indices((41, 41)) - 20
    ring = np.zeros((41, 41, 9), np.uint8)
    ring[(np.hypot(x, y) > 12) & (np.hypot(x, y) < 16), 2:7] = 1
    grid = Grid(ring.shape, np.diag([-1.0, -1.0, 2.0, 1.0]))
    [row] = measured(ring, grid, {1: "ring"}, lambda *_: None)
    i, j, k = np.round(grid.to_voxel(np.array(row.center_mm))).astype(int)
    assert ring[i, j, k] == 1
    assert k == 4
    assert row.volume_ml == pytest.approx(np.count_nonzero(ring) * 2 / 1000)


def test_neighbouring_structures_look_different() -> None:
    colors = [color_of_label(number) for number in range(12)]
    assert len(set(colors)) == 12
    parts = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in colors])
    assert np.abs(np.diff(parts, axis=0)).sum(axis=1).min() > 90
