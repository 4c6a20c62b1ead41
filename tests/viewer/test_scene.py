"""What the panes show: right side, right millimetre, without a window."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from made_view import Mailbox, best_patch
from napari.layers import Layer

from simcrop_core.alignment_result import AlignmentResult
from simcrop_core.geometry import Grid, axis_aligned_affine
from simcrop_core.patches import PatchGrid
from simcrop_core.report import Report
from simcrop_core.volume import CTVolume
from simcrop_viewer import layers
from simcrop_viewer.controller.scenes import SceneController, color_of
from simcrop_viewer.model.display import display_of
from simcrop_viewer.model.session import OpenStudy, Session, Statement, statements_of
from simcrop_viewer.model.windows import PRESETS, Window
from simcrop_viewer.scene import SCENES, Scene

AXES = [
    "".join(letters)
    for order in itertools.permutations(("RL", "AP", "SI"))
    for letters in itertools.product(*order)
]


@pytest.mark.parametrize("axcodes", AXES)
def test_every_voxel_is_where_it_is_in_the_patient(axcodes: str) -> None:
    shape = (5, 6, 7)
    affine = axis_aligned_affine(axcodes, (1.5, 2.0, 3.5), (12.0, -40.0, 300.0), shape)
    grid = Grid(shape, affine)
    values = np.arange(np.prod(shape)).reshape(shape)
    placed = layers.placed(values, grid)
    assert placed.data_ZYX.base is not None  # a view, nothing copied
    layer = Layer.create(placed.data_ZYX, placed.place, "image")
    for voxel in np.ndindex(*shape):
        point = layers.to_napari(grid.to_world(voxel))
        index = tuple(np.round(layer.world_to_data(point)).astype(int))
        assert layer.data[index] == values[voxel]


def test_coordinates_there_and_back() -> None:
    world = np.random.default_rng(0).normal(size=(9, 3))
    np.testing.assert_allclose(layers.to_world(layers.to_napari(world)), world)
    # Superior, Posterior and Left grow.
    np.testing.assert_array_equal(layers.to_napari([1, 0, 0]), [0, 0, -1])
    np.testing.assert_array_equal(layers.to_napari([0, 1, 0]), [0, -1, 0])
    np.testing.assert_array_equal(layers.to_napari([0, 0, 1]), [1, 0, 0])


def test_oblique_arrays_are_refused() -> None:
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
    with pytest.raises(ValueError, match="axis-aligned"):
        layers.placed(np.zeros((9, 9, 9)), Grid((9, 9, 9), affine))


@pytest.fixture
def panes(session: Session):
    controller = SceneController(session, [Scene(name) for name in SCENES])
    session.show(session.study)
    yield {scene.name: scene for scene in controller.scenes}
    controller.close()


@pytest.fixture
def shown(session: Session, report: Report, result: AlignmentResult, panes: dict[str, Scene]):
    session.set_statements(statements_of(report, result))
    return panes


def evidence(scene: Scene) -> list[Layer]:
    return [x for x in scene.own_layers() if x.name.startswith("Evidence") and x.visible]


def boxes(scene: Scene) -> list[Layer]:
    return [x for x in scene.own_layers() if x.name.startswith("Top") and x.visible]


def test_the_panes_show_the_plane_through_the_crosshair(
    session: Session, study: OpenStudy, panes: dict[str, Scene]
) -> None:
    voxel = np.array([10, 30, 41])
    session.move_to(study.volume.grid.to_world(voxel))
    point = layers.to_napari(study.volume.grid.to_world(voxel))
    for axis, name in enumerate(("axial", "coronal", "sagittal")):
        scene = panes[name]
        assert scene.viewer.dims.point[axis] == pytest.approx(point[axis], abs=1e-6)
        assert scene.viewer.dims.order == layers.ORDER[name]
        [scan] = scene.scan
        seen = scan._slice.image.raw
        hu = study.volume.hu_XYZ
        # Rows and columns of the pane, as napari slices them, from the scan's own array (LPS).
        wanted = {
            "axial": hu[:, :, voxel[2]].T,
            "coronal": hu[:, voxel[1], :].T,
            "sagittal": hu[voxel[0], :, :].T,
        }[name]
        np.testing.assert_array_equal(np.squeeze(seen), wanted)


def test_stepping_through_a_pane_moves_the_crosshair_and_the_other_panes(
    session: Session, panes: dict[str, Scene]
) -> None:
    before = session.position_mm.copy()
    axial = panes["axial"].viewer
    axial.dims.set_point(0, axial.dims.point[0] + 12.3)
    assert session.position_mm[2] == pytest.approx(before[2] + 12.3, abs=2.1)  # a plane's step
    np.testing.assert_allclose(session.position_mm[:2], before[:2])
    for name, own in (("coronal", 1), ("sagittal", 2)):
        cross = panes[name]._cross
        assert cross is not None
        assert len(cross._view_data) == len(cross.data)  # in the plane that is shown
        lines = cross.data[np.abs(cross.data[:, 1]).sum(axis=1) > 0]
        assert len(lines) == 4
        flat = [line[0][0] for line in lines if not line[1][0]]
        assert flat == pytest.approx([session.position_mm[2]] * 2)
        assert not lines[:, 1, own].any()


def test_the_window_is_that_of_all_panes(session: Session, panes: dict[str, Scene]) -> None:
    session.set_window(PRESETS["bone"])
    for scene in panes.values():
        assert all(tuple(s.contrast_limits) == PRESETS["bone"].limits for s in scene.scan)
    panes["coronal"].scan[0].contrast_limits = (-100, 100)  # as by napari's own control
    assert session.window == Window(200, 0)
    assert tuple(panes["axial"].scan[0].contrast_limits) == (-100, 100)


def test_choosing_a_sentence_shows_its_heat_and_jumps_to_its_best_patch(
    session: Session, result: AlignmentResult, shown: dict[str, Scene]
) -> None:
    session.select(2)
    center = result.patches.center(best_patch(2))
    np.testing.assert_allclose(session.position_mm, center)
    for scene in shown.values():
        [heat] = evidence(scene)
        index = tuple(np.round(heat.world_to_data(layers.to_napari(center))).astype(int))
        assert heat.data[index] == heat.data.max() == pytest.approx(1)
        corner = result.patches.center(2)  # padding: similar, and never shown
        index = tuple(np.round(heat.world_to_data(layers.to_napari(corner))).astype(int))
        assert heat.data[index] == 0
        assert heat.colormap.map([0.0])[0, 3] == 0
        assert heat.colormap.map([0.02])[0, 3] > 0.5


def test_layers_stay_while_sentences_change(session: Session, shown: dict[str, Scene]) -> None:
    session.select(0)
    before = {name: [id(x) for x in scene.viewer.layers] for name, scene in shown.items()}
    data = {name: [id(x.data) for x in scene.viewer.layers] for name, scene in shown.items()}
    for index in (1, 2, 3, 0):
        session.select(index)
        session.overlay.top_k = 20 + index
    assert before == {n: [id(x) for x in s.viewer.layers] for n, s in shown.items()}
    assert data == {n: [id(x.data) for x in s.viewer.layers] for n, s in shown.items()}


def looks(scene: Scene) -> list[dict[str, object]]:
    """All of a pane that a person sees, by layer, then of the pane."""
    seen: list[dict[str, object]] = []
    for layer in scene.viewer.layers:
        if layer.visible:
            names = ("name", "scale", "translate", "opacity", "gamma", "contrast_limits", "affine")
            facts = {n: np.asarray(getattr(layer, n)).tolist() for n in names if hasattr(layer, n)}
            facts["data"] = np.asarray(layer.data)
            facts["colormap"] = getattr(getattr(layer, "colormap", None), "name", None)
            facts["width"] = getattr(layer, "edge_width", None)
            seen.append(facts)
    camera, dims = scene.viewer.scene.camera, scene.viewer.dims
    if not scene.is_3d:  # the whole scan is shown, and nothing beside it
        middle, across = scene._bounds.mean(axis=0), list(dims.order[1:])
        np.testing.assert_allclose(camera.center[1:], middle[across], atol=1e-6)
    facts = {"center": camera.center, "zoom": camera.zoom, "angles": camera.angles}
    seen.append({n: np.round(v, 6).tolist() for n, v in facts.items()})
    plane = None if scene.is_3d else round(dims.point[dims.order[0]], 6)
    seen.append({"order": dims.order, "ndisplay": dims.ndisplay, "plane": plane})
    return seen


@pytest.mark.parametrize(
    ("axcodes", "same_shape", "touched"),
    [("RAS", True, False), ("SPL", False, True)],
)
def test_another_study_looks_as_if_it_had_been_the_first(
    session: Session,
    report: Report,
    result: AlignmentResult,
    shown: dict[str, Scene],
    axcodes: str,
    same_shape: bool,
    touched: bool,
) -> None:
    session.select(1)
    first = {name: scene.scan for name, scene in shown.items()}
    for layer in (layer for scene in shown.values() for layer in scene.scan):
        layer.visible = False  # by somebody, in napari's own controls
        if touched:
            layer.affine, layer.name = np.diag([1, -1, 1, 1]), "Doe John"
    shape = (50, 41, 36)
    grid = Grid(shape, axis_aligned_affine(axcodes, (6.0, 7.0, 9.5), (31, -12, 480), shape))
    hu = np.random.default_rng(5).integers(-1000, 900, shape).astype(np.int16)
    volume = CTVolume(hu, grid)
    study = OpenStudy(volume, display_of(volume), report)
    session.show(study)
    for name, scene in shown.items():
        assert (scene.scan is first[name]) == (not touched)
        assert not evidence(scene)
        assert not boxes(scene)
    cells = (10, 9, 8) if same_shape else (9, 9, 8)
    affine = axis_aligned_affine("LPS", (24, 24, 24), grid.center_mm, cells)
    moved = replace(result, patches=PatchGrid(Grid(cells, affine), (4, 4, 4)))
    if not same_shape:
        count = len(moved.patches)
        moved = replace(
            moved,
            similarity_SN=moved.similarity_SN[:, :count],
            inside_N=moved.inside_N[:count],
            top_SK=np.minimum(moved.top_SK, count - 1),
        )
    session.set_statements(statements_of(report, moved))
    session.select(1)
    other = SceneController(session, [Scene(name) for name in SCENES])
    try:
        session.show(study)
        session.set_statements(statements_of(report, moved))
        session.select(1)
        for fresh in other.scenes:
            pairs = zip(looks(fresh), looks(shown[fresh.name]), strict=True)
            for wanted, found in pairs:
                np.testing.assert_equal(found, wanted)
    finally:
        other.close()


def test_outlines_lie_on_the_borders_of_the_chosen_patches(
    session: Session, result: AlignmentResult, shown: dict[str, Scene]
) -> None:
    session.overlay.top_k = 1
    session.select(1)
    box = result.patches.box(best_patch(1))
    low, high = (layers.to_napari(c) for c in (box.low_mm, box.high_mm))
    least, most = np.minimum(low, high), np.maximum(low, high)
    for axis, name in enumerate(("axial", "coronal", "sagittal")):
        [lines] = boxes(shown[name])
        drawn = lines.data[np.abs(lines.data[:, 1]).sum(axis=1) > 0]
        assert len(drawn) == 4
        ends = np.concatenate([drawn[:, 0], drawn.sum(axis=1)]) * lines.scale + lines.translate
        for across in set(range(3)) - {axis}:
            assert ends[:, across].min() == pytest.approx(least[across])
            assert ends[:, across].max() == pytest.approx(most[across])
        assert ends[:, axis] == pytest.approx((least[axis] + most[axis]) / 2)
    [solid] = boxes(shown["3d"])
    assert (np.abs(solid.data[:, 1]).sum(axis=1) > 0).sum() == 12


def test_several_sentences_have_a_colour_each(session: Session, shown: dict[str, Scene]) -> None:
    session.select(0, 1, 3)
    for scene in shown.values():
        assert len(evidence(scene)) == 3
        wanted = [{color_of(number, True)} for number in range(3)]
        found = [{layers.to_hex(row) for row in x.edge_color} for x in boxes(scene)]
        assert found == wanted
    session.select(1)
    for scene in shown.values():
        assert len(evidence(scene)) == len(boxes(scene)) == 1


def test_what_is_switched_off_is_not_there(session: Session, shown: dict[str, Scene]) -> None:
    session.select(0)
    session.overlay.draw = "outlines"
    assert not any(evidence(s) for s in shown.values())
    assert all(boxes(s) for s in shown.values())
    session.overlay.draw = "heat"
    assert all(evidence(s) for s in shown.values())
    assert not any(boxes(s) for s in shown.values())
    session.overlay.visible = False
    assert not any(evidence(s) or boxes(s) for s in shown.values())


def test_each_control_of_the_overlay_changes_the_picture(
    session: Session, shown: dict[str, Scene]
) -> None:
    session.select(0)
    scene = shown["axial"]

    def picture() -> tuple[object, ...]:
        heat, lines = evidence(scene)[0], boxes(scene)[0]
        return (
            heat.data.tobytes(), heat.opacity, heat.interpolation2d, heat.colormap.name,
            lines.data.tobytes(),
        )  # fmt: skip

    before = picture()
    for name, value in (
        ("top_k", 11), ("normalise", "shared"), ("threshold", 0.3), ("opacity", 0.9),
        ("colormap", "viridis"), ("smooth", True),
    ):  # fmt: skip
        setattr(session.overlay, name, value)
        assert picture() != before, name
        before = picture()


def test_a_layer_that_was_deleted_is_missed_by_nobody(
    session: Session, shown: dict[str, Scene]
) -> None:
    session.select(0)
    scene = shown["axial"]
    for layer in list(scene.viewer.layers):
        scene.viewer.layers.remove(layer)
    session.select(1)
    session.set_window(PRESETS["bone"])
    session.move_to(session.position_mm + 5)
    assert [x.name for x in scene.viewer.layers] == ["Evidence", "Top patches"]  # made anew
    session.show(session.study)
    assert [x.name for x in scene.viewer.layers] == ["CT", "Crosshair"]


def test_a_pane_stays_what_its_letters_say(session: Session, shown: dict[str, Scene]) -> None:
    session.select(0)
    for name in ("axial", "coronal", "sagittal"):
        viewer = shown[name].viewer
        viewer.dims.roll()
        assert viewer.dims.order == layers.ORDER[name]
        viewer.dims.transpose()
        assert viewer.dims.order == layers.ORDER[name]
        viewer.dims.ndisplay = 3
        assert viewer.dims.ndisplay == 2
        viewer.scene.camera.orientation2d = ("down", "left")
        found = tuple(str(o) for o in viewer.scene.camera.orientation2d)
        assert found == layers.ORIENTATION_2D[name]
        viewer.canvas.grid.enabled = True
        assert not viewer.canvas.grid.enabled
    shown["3d"].viewer.dims.ndisplay = 2
    assert shown["3d"].viewer.dims.ndisplay == 3


def test_a_layer_with_more_dimensions_is_taken_out_with_a_word(
    session: Session, panes: dict[str, Scene]
) -> None:
    said: list[str] = []
    scene = panes["axial"]
    scene.removed = said.append
    mailbox = Mailbox()
    scene.later = mailbox.append
    scene.viewer.add_image(np.zeros((2, 3, 5, 5)))
    mailbox.read()
    assert len(said) == 1
    assert scene.viewer.dims.ndim == 3
    session.move_to(session.position_mm + np.array([0, 0, 30]))
    assert scene.viewer.dims.point[0] == pytest.approx(session.position_mm[2], abs=2.1)
    flat = scene.viewer.add_image(np.zeros((9, 9)))
    assert flat in scene.viewer.layers
    assert len(said) == 1


def test_a_shared_scale_is_that_of_all_statements(
    session: Session, report: Report, result: AlignmentResult, shown: dict[str, Scene]
) -> None:
    """Also of questions, whose similarities are in results of their own."""
    weak = replace(
        result,
        sentences=(replace(result.sentences[0], section="query", span=None),),
        similarity_SN=result.similarity_SN[:1] / 2,
        top_SK=result.top_SK[:1],
    )
    asked = Statement("a question", "query", weak, 0)
    session.set_statements((*statements_of(report, result), asked))
    session.overlay.threshold = 0.1
    session.select(4)
    [alone] = evidence(shown["axial"])
    assert alone.data.max() == pytest.approx(1)
    session.overlay.normalise = "shared"
    assert 0.3 < alone.data.max() < 0.6


def test_of_more_statements_than_colours_the_last_are_chosen(
    session: Session, report: Report, result: AlignmentResult, shown: dict[str, Scene]
) -> None:
    session.set_statements(statements_of(report, result) * 3)
    session.select(*range(9))
    assert session.selection == (3, 4, 5, 6, 7, 8)
    assert len(evidence(shown["axial"])) == 6


def test_evidence_that_comes_later_does_not_move_the_crosshair(
    session: Session, report: Report, result: AlignmentResult, shown: dict[str, Scene]
) -> None:
    session.select(0)
    session.move_to(session.position_mm + 30)
    place = session.position_mm
    session.set_statements(statements_of(report, result))
    assert session.position_mm is place


def test_closing_leaves_nothing_of_a_study(session: Session, shown: dict[str, Scene]) -> None:
    session.select(0, 1)
    session.show(None)
    for scene in shown.values():
        assert len(scene.viewer.layers) == 0


def test_foreign_layers_stay(session: Session, panes: dict[str, Scene]) -> None:
    viewer = panes["axial"].viewer
    own = viewer.add_points([[0, 0, 0]], name="mine")
    session.show(None)
    assert list(viewer.layers) == [own]


def test_no_layer_names_file_or_patient(shown: dict[str, Scene], session: Session) -> None:
    session.select(0, 1)
    names = {layer.name for scene in shown.values() for layer in scene.viewer.layers}
    assert names <= {
        "CT", "CT, axial", "CT, coronal", "CT, sagittal", "Crosshair", "Evidence", "Evidence 2",
        "Top patches", "Top patches 2",
    }  # fmt: skip


def test_three_dimensions_are_seen_from_the_front(panes: dict[str, Scene]) -> None:
    camera = panes["3d"].viewer.scene.camera
    assert tuple(str(o) for o in camera.orientation) == layers.ORIENTATION_3D
    view, up = np.array(camera.view_direction), np.array(camera.up_direction)
    assert view[1] > 0.7  # towards posterior
    assert up[0] > 0.7  # superior is up


def test_panes_that_cannot_be_seen_wait_until_they_can(session: Session) -> None:
    scenes = {name: Scene(name) for name in SCENES}
    controller = SceneController(session, list(scenes.values()))
    session.study_changed.emit()
    before = scenes["coronal"].viewer.dims.point
    axial = scenes["axial"].viewer.dims.point
    controller.show_only([scenes["axial"]])
    session.move_to(session.position_mm + 20)
    assert scenes["axial"].viewer.dims.point != axial
    assert scenes["coronal"].viewer.dims.point == before
    controller.show_only(list(scenes.values()))
    axis = {"coronal": 1, "sagittal": 2}
    for name, number in axis.items():
        place = layers.to_napari(session.position_mm)[number]
        assert scenes[name].viewer.dims.point[number] == pytest.approx(place, abs=3)
    assert scenes["coronal"].viewer.dims.point != before
    controller.close()


def test_a_sentence_that_is_pointed_at_shows_its_heat_until_the_pointer_leaves(
    session: Session, shown: dict[str, Scene], result: AlignmentResult
) -> None:
    session.select(0, 2)
    place = session.position_mm.copy()
    before = {name: [x.data.copy() for x in evidence(s)] for name, s in shown.items()}
    session.hint(1)
    for scene in shown.values():
        (layer,) = evidence(scene)
        assert layer.opacity < session.overlay.opacity
        assert boxes(scene) == []
    heat = evidence(shown["axial"])[0].data
    at = tuple(np.argwhere(heat == heat.max())[0])
    world = layers.to_world(evidence(shown["axial"])[0].data_to_world(at))
    np.testing.assert_allclose(world, result.patches.center(best_patch(1)))
    np.testing.assert_array_equal(session.position_mm, place)  # nobody is led away
    session.hint(None)
    for name, scene in shown.items():
        assert [x.opacity for x in evidence(scene)] == [session.overlay.opacity] * 2
        for layer, data in zip(evidence(scene), before[name], strict=True):
            np.testing.assert_array_equal(layer.data, data)
        assert len(boxes(scene)) == 2


def test_a_hint_ends_with_whatever_is_done(session: Session, shown: dict[str, Scene]) -> None:
    session.hint(1)
    assert session.hinted is session.statements[1]
    session.select(1)
    assert session.hinted is None
    assert len(boxes(shown["axial"])) == 1
    session.hint(1)  # is shown already
    assert session.hinted is None
    session.hint(99)
    assert session.hinted is None
    session.hint(0)
    session.select(1)  # as before
    assert session.hinted is None
    assert len(boxes(shown["axial"])) == 1
    session.hint(0)
    session.set_statements(session.statements[:1])
    assert session.hinted is None
    session.hint(0)
    session.show(None)
    assert session.hinted is None


def test_only_outlines_are_hinted_at_where_only_outlines_are_drawn(
    session: Session, shown: dict[str, Scene]
) -> None:
    session.overlay.draw = "outlines"
    session.hint(1)
    assert evidence(shown["axial"]) == []
    assert len(boxes(shown["axial"])) == 1
    session.hint(None)
    assert boxes(shown["axial"]) == []


def frame(scene: Scene) -> np.ndarray:
    """Corners that the innermost ring of the frame spans, which is drawn with the crosshair."""
    [cross] = [x for x in scene.viewer.layers if x.name == "Crosshair"]
    assert {layers.to_hex(row) for row in cross.edge_color[4:]} == {"#ffffff"}
    lines = cross.data[4:8]
    lines = lines[np.abs(lines[:, 1]).max(axis=1) > 0]
    return np.concatenate([lines[:, 0], lines.sum(axis=1)])


def test_the_best_patch_is_framed_until_the_flash_ends_or_somebody_moves(
    session: Session, shown: dict[str, Scene], result: AlignmentResult
) -> None:
    session.select(1)
    box = result.patches.box(best_patch(1))
    low, high = np.sort(layers.to_napari(np.stack(box)), axis=0)
    for name in ("axial", "coronal", "sagittal"):
        across = list(layers.ORDER[name][1:])
        corners = frame(shown[name])[:, across]
        np.testing.assert_allclose(corners.min(axis=0), low[across])
        np.testing.assert_allclose(corners.max(axis=0), high[across])
        assert len(corners) == 8
    session.move_to(session.position_mm + 5)
    assert len(frame(shown["axial"])) == 0
    session.select(0)
    assert len(frame(shown["axial"])) == 8
    session.overlay.visible = False
    assert len(frame(shown["axial"])) == 8


def test_a_frame_ends(session: Session, panes: dict[str, Scene], report, result) -> None:
    controller = SceneController(session, [Scene("axial")])
    flashed: list[None] = []
    controller.flashed.connect(lambda: flashed.append(None))
    session.show(session.study)
    session.set_statements(statements_of(report, result))
    scene = controller.scenes[0]
    for number in (1, 2):
        session.select(0)
        assert len(flashed) == number
        assert len(frame(scene)) == 8
        controller.end_flash()
        assert len(frame(scene)) == 0
        session.select()  # the crosshair stays: choosing it again frames it again
    controller.close()
