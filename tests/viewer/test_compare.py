"""A second model beside the first: begun, kept in step, ended; and what its views show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_comparison import aligned, compare_by_hand, grid_of, marked
from made_ct import AFFINE, chest, save_nifti
from made_view import Desk, Mailbox

from simcrop_core import align, load_model, read_volume
from simcrop_core.encoded_cache import EncodedCache
from simcrop_core.errors import SimCroPError
from simcrop_core.geometry import Grid
from simcrop_core.volume import CTVolume
from simcrop_viewer import layers
from simcrop_viewer.controller.compare import CompareController
from simcrop_viewer.controller.compare_scenes import CompareScenes
from simcrop_viewer.model.comparison import FULL_COLOUR_SD
from simcrop_viewer.model.display import display_of
from simcrop_viewer.model.jobs import Jobs
from simcrop_viewer.model.session import OpenStudy, Session
from simcrop_viewer.model.windows import PRESETS
from simcrop_viewer.scene import Scene


class Pair:
    """A desk with a comparison on it."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.session = desk, desk.session
        self.compare = CompareController(desk.session, desk.jobs, desk.evidence)
        self.refused: list[SimCroPError] = []
        self.compare.refused.connect(self.refused.append)

    def begin(self, folder: Path) -> None:
        self.compare.start(folder)
        self.desk.wait()


@pytest.fixture
def pair(ready: Desk):
    made = Pair(ready)
    yield made
    made.compare.close()


@pytest.fixture
def compared(pair: Pair, other_folder: Path) -> Pair:
    pair.begin(other_folder)
    assert pair.refused == []
    assert pair.compare.is_on
    return pair


# -- beginning and end ----------------------------------------------------------------------------


def test_the_second_model_finds_what_the_library_finds_with_it(
    pair: Pair, files: tuple[Path, Path], other_folder: Path
) -> None:
    assert pair.compare.start(other_folder) is not None
    assert pair.compare.state == "getting ready"
    assert pair.compare.first.study is None  # nothing half-shown
    pair.desk.wait()
    compare, study = pair.compare, pair.session.study
    assert compare.is_on
    assert compare.titles == ("small", "other")
    assert study is not None
    alone = align(load_model(other_folder), read_volume(files[0]), study.report, top_k=12)
    for index in range(2):
        found = compare.comparison.pair(index)
        assert found is not None
        result = found[1].result
        assert result is not None
        np.testing.assert_allclose(
            result.similarity_SN[index], alone.similarity_SN[index], atol=1e-6
        )
        assert found[0] is pair.session.statements[index]
    for row, statement in zip(compare.comparison.rows(), pair.session.statements, strict=True):
        assert row.text == statement.text
        assert row.first_score == statement.score
        assert row.agreement is not None
        assert 0 <= row.agreement.overlap <= 1


@pytest.mark.parametrize("while_on", [False, True])
def test_a_second_model_that_cannot_be_read_leaves_all_as_it_was(
    pair: Pair, other_folder: Path, tmp_path: Path, while_on: bool
) -> None:
    if while_on:
        pair.begin(other_folder)
    before = pair.session.statements
    pair.begin(tmp_path)
    [error] = pair.refused
    assert error.remedy
    assert pair.compare.is_on is while_on
    assert pair.compare.second_evidence.model_folder == (str(other_folder) if while_on else "")
    assert pair.session.statements is before
    assert pair.desk.evidence.is_encoded


def test_cancelling_ends_it_before_anything_is_shown(pair: Pair, other_folder: Path) -> None:
    job = pair.compare.start(other_folder)
    assert job is not None
    job.cancel()
    pair.desk.wait()
    assert pair.compare.state == "off"
    assert pair.compare.second_evidence.model is None
    assert pair.compare.job is None
    # ... and where the model is there already, and the scan is going through it.
    pair.compare.start(other_folder)
    while pair.compare.second_evidence.model is None:
        pair.desk.mailbox.read()
    encoding = pair.compare.job
    assert encoding is not None
    assert "Encode" in encoding.title
    encoding.cancel()
    pair.desk.wait()
    assert pair.compare.state == "off"
    assert pair.compare.second_evidence.model is None


def test_without_scan_or_first_model_there_is_nothing_to_compare(
    desk: Desk, files: tuple[Path, Path], other_folder: Path
) -> None:
    pair = Pair(desk)
    assert pair.compare.start(other_folder) is None
    desk.studies.open(files[0])
    desk.wait()
    assert pair.compare.start(other_folder) is None
    assert [e.code for e in pair.refused] == ["no-scan", "no-model"]
    assert pair.compare.state == "off"


def test_stopping_lets_go_of_the_second_model_and_nothing_else(compared: Pair) -> None:
    before = compared.session.statements
    compared.session.select(1)
    compared.compare.stop()
    assert compared.compare.state == "off"
    assert compared.compare.second_evidence.model is None
    assert compared.compare.first.study is None
    assert compared.session.statements is before
    assert compared.session.selection == (1,)
    compared.session.select(0)
    assert compared.compare.first.selection == ()


@pytest.mark.parametrize("how", ["study", "model"])
def test_comparing_ends_with_the_study_or_the_first_model(compared: Pair, how: str) -> None:
    if how == "study":
        compared.desk.studies.close()
    else:
        compared.desk.evidence.set_model(None)
    compared.desk.wait()
    assert compared.compare.state == "off"
    assert compared.compare.second.study is None


def test_what_is_stopped_while_it_is_being_loaded_stays_away(
    pair: Pair, other_folder: Path
) -> None:
    pair.compare.start(other_folder)
    pair.desk.studies.close()
    pair.desk.wait()
    assert pair.compare.state == "off"
    assert pair.compare.second_evidence.model is None


# -- kept in step ---------------------------------------------------------------------------------


def test_another_study_goes_through_both_models(compared: Pair, tmp_path: Path) -> None:
    other = save_nifti(tmp_path / "b.nii.gz", np.roll(chest(), 3, axis=0), AFFINE)
    said = tmp_path / "b.txt"
    said.write_text("Findings: Emphysema.")
    compared.desk.studies.open(other, said)
    compared.desk.wait()
    compared.desk.evidence.encode()  # as the window does
    compared.desk.wait()
    assert compared.compare.is_on
    [row] = compared.compare.comparison.rows()
    assert row.text == "Emphysema."
    assert row.agreement is not None
    found = compared.compare.comparison.pair(0)
    assert found is not None
    assert compared.session.study is not None
    for statement in found:
        assert statement.result is not None
        assert statement.result.volume.sha256 == compared.session.study.volume.sha256
    assert compared.compare.comparison.difference(0) is not None


def test_a_study_that_is_opened_while_another_is_encoded_goes_through_both_too(
    compared: Pair, study: OpenStudy
) -> None:
    evidence, compare = compared.desk.evidence, compared.compare
    volume = CTVolume(np.roll(chest(), 3, axis=0), Grid(chest().shape, AFFINE))
    compared.session.show(study)
    evidence.encode()
    assert compare.job is not None
    assert "Encode" in compare.job.title
    compared.session.show(OpenStudy(volume, display_of(volume), study.report))
    evidence.encode()
    compared.desk.wait()
    assert compare.is_on
    assert compared.refused == []
    found = compare.comparison.pair(0)
    assert found is not None
    for statement in found:
        assert statement.result is not None
        assert statement.result.volume.sha256 == volume.sha256


def test_a_placement_that_is_chosen_counts_once_the_first_model_is_asked(
    compared: Pair, study: OpenStudy
) -> None:
    evidence, second = compared.desk.evidence, compared.compare.second_evidence
    evidence.placement = "tiled"
    compared.desk.studies.paste_report("Findings: Emphysema in both lungs.")
    compared.desk.wait()
    assert (evidence.placed, second.placed) == ("center", "center")
    compared.session.show(study)
    assert compared.compare.job is None  # nobody has asked for an encoding
    evidence.encode()
    compared.desk.wait()
    assert (evidence.placed, second.placed) == ("tiled", "tiled")
    assert compared.compare.is_on


def test_questions_and_another_report_are_answered_by_both(compared: Pair) -> None:
    compared.desk.evidence.ask("a mass on the left")
    compared.desk.wait()
    row = compared.compare.comparison.rows()[2]
    assert row.text == "a mass on the left"
    assert row.second_score is not None
    assert compared.compare.second.selected[0].text == "a mass on the left"
    compared.desk.studies.paste_report("Findings: Emphysema in both lungs.")
    compared.desk.wait()
    rows = compared.compare.comparison.rows()
    assert [row.text for row in rows] == ["Emphysema in both lungs.", "a mass on the left"]
    assert all(row.agreement is not None for row in rows)


def test_the_input_lies_where_that_of_the_first_lies(compared: Pair) -> None:
    compared.desk.evidence.placement = "tiled"
    compared.desk.evidence.encode()
    compared.desk.wait()
    assert compared.compare.second_evidence.placed == "tiled"
    assert compared.compare.is_on


def test_a_scan_that_was_encoded_before_is_taken_from_the_disk(
    jobs: Jobs,
    mailbox: Mailbox,
    files: tuple[Path, Path],
    model_folder: Path,
    other_folder: Path,
    tmp_path: Path,
) -> None:
    pair = Pair(Desk(jobs, mailbox, EncodedCache(tmp_path / "cache")))
    pair.desk.studies.open(*files)
    pair.desk.evidence.load(model_folder)
    pair.desk.wait()
    pair.desk.evidence.encode()
    for was_kept in (False, True):
        pair.begin(other_folder)
        assert pair.compare.second_evidence.was_kept is was_kept
        pair.compare.stop()
    pair.compare.close()


def test_as_many_patches_are_outlined_as_for_the_first_but_few_of_a_coarse_grid(
    compared: Pair,
) -> None:
    first, second = compared.compare.first.overlay, compared.compare.second.overlay
    assert first.top_k == 51  # a tenth of 8 x 8 x 8
    assert second.top_k == 12  # a tenth of 5 x 5 x 5
    compared.session.overlay.top_k = 5
    assert second.top_k == 5
    compared.session.overlay.top_k = 200
    assert second.top_k == 200
    compared.session.overlay.threshold = 0.3
    assert second.threshold == 0.3


# -- what the views show --------------------------------------------------------------------------

#: Right, anterior and superior of the scan's middle; and its mirror image on the left.
RIGHT, LEFT = np.array([50.0, 20.0, 30.0]), np.array([-50.0, 20.0, 30.0])


@pytest.fixture
def by_hand(session: Session, study: OpenStudy, jobs: Jobs):
    """The first model points to the patient's right, the second, with smaller patches, left."""
    from simcrop_viewer.controller.evidence import EvidenceController

    compare = CompareController(session, jobs, EvidenceController(session, jobs))
    views = CompareScenes(compare, [Scene("axial") for _ in range(3)])
    middle = study.volume.grid.center_mm
    first = marked(study, grid_of((8, 8, 8), 24, middle), middle + RIGHT)
    second = marked(study, grid_of((12, 12, 12), 12, middle), middle + LEFT)
    compare_by_hand(compare, study, first, second)
    yield compare, views, middle
    views.close()
    compare.close()


def value_at(scene: Scene, world_mm: np.ndarray) -> float:
    [heat] = [x for x in scene.own_layers() if x.name.startswith("Evidence") and x.visible]
    index = np.round(heat.world_to_data(layers.to_napari(world_mm + 1e-3))).astype(int)
    if (index < 0).any() or (index >= heat.data.shape).any():
        return 0.0
    return float(heat.data[tuple(index)])


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_the_difference_lies_on_the_side_of_the_model_that_found_it(by_hand, plane) -> None:
    compare, views, middle = by_hand
    views.plane = plane
    compare.session.select(0)
    first, second, apart = views.scenes
    assert value_at(first, middle + RIGHT) == 1
    assert value_at(first, middle + LEFT) == 0
    assert value_at(second, middle + LEFT) == 1
    assert value_at(second, middle + RIGHT) == 0
    assert value_at(apart, middle + RIGHT) == 1  # the first's
    assert value_at(apart, middle + LEFT) == pytest.approx(0.02)  # the second's
    assert abs(value_at(apart, middle) - 0.51) < 0.1
    # The second model's input ends here, and the first's goes on, in the body.
    beyond = middle + np.array([0, 0, 85])
    assert compare.comparison.at(0, beyond)[1] is None
    assert value_at(apart, beyond) == 0
    assert value_at(apart, middle + np.array([70, 70, 0])) == 0  # in the air beside the body


def test_differences_are_of_standard_deviations(by_hand) -> None:
    compare, _, middle = by_hand
    found = compare.comparison.difference(0)
    first, second = compare.comparison.at(0, middle + RIGHT)
    patch = found.common.patches.patch_at(middle + RIGHT + 1e-3)
    assert found.values_N[patch] == pytest.approx(first - second)
    assert first - second > FULL_COLOUR_SD


@pytest.mark.parametrize("second_mm", [10, 12, 31])
def test_what_is_told_at_a_point_is_what_is_drawn_there(
    by_hand, study: OpenStudy, second_mm: float
) -> None:
    compare, _, middle = by_hand
    rng = np.random.default_rng(0)
    results = []
    for size in (24, second_mm):
        patches = grid_of((8, 8, 8), size, middle)
        values = rng.normal(size=(len(study.report.sentences), len(patches)))  # type: ignore[union-attr]
        results.append(aligned(study.volume, patches, values))
    compare_by_hand(compare, study, *results)
    found, told = compare.comparison.difference(0), 0
    for point in middle + rng.uniform(-90, 90, (300, 3)):
        cell = found.common.patches.patch_at(point)
        if cell is not None and np.isfinite(found.values_N[cell]):
            first, second = compare.comparison.at(0, point)
            assert found.values_N[cell] == pytest.approx(first - second)
            told += 1
    assert told > 20


def test_all_three_are_at_one_place_plane_window_and_zoom(by_hand, study: OpenStudy) -> None:
    compare, views, middle = by_hand
    compare.session.select(1)
    compare.session.move_to(middle + RIGHT)
    compare.session.set_window(PRESETS["bone"])
    for scene in views.scenes:
        z, _, _ = layers.to_napari(middle + RIGHT)
        assert scene.viewer.dims.point[0] == pytest.approx(z, abs=0.01)
        assert tuple(scene.scan[0].contrast_limits) == PRESETS["bone"].limits
    for scene in views.scenes:
        camera = scene.viewer.scene.camera
        camera.zoom = camera.zoom * 1.3
        camera.center = (0.0, 11.0, float(views.scenes.index(scene)))
        for other in views.scenes:
            assert other.viewer.scene.camera.zoom == camera.zoom
            assert other.viewer.scene.camera.center == camera.center
    # A step through one of them moves the crosshair of all.
    axial = views.scenes[2].viewer
    axial.dims.set_point(0, axial.dims.point[0] + 12.3)
    step = compare.session.position_mm[2] - (middle + RIGHT)[2]
    assert step == pytest.approx(12.3, abs=2.1)
    for scene in views.scenes:
        assert scene.viewer.dims.point[0] == pytest.approx(axial.dims.point[0], abs=0.01)


def test_another_plane_has_its_own_letters(by_hand) -> None:
    _, views, _ = by_hand
    for plane in ("coronal", "sagittal", "axial"):
        views.plane = plane
        for scene in views.scenes:
            assert scene.viewer.dims.order == layers.ORDER[plane]
            for position, letter in layers.LETTERS[plane].items():
                assert scene.viewer.canvas.overlays[f"orient_{position}"].text == letter


def test_what_is_pointed_at_is_compared_until_the_pointer_leaves(by_hand, study) -> None:
    compare, views, middle = by_hand
    heat = lambda: [x for x in views.scenes[2].own_layers() if x.name == "Evidence" and x.visible]  # noqa: E731
    assert not heat()
    compare.session.hint(2)
    assert value_at(views.scenes[2], middle + RIGHT) == 1
    assert value_at(views.scenes[1], middle + LEFT) == 1
    compare.session.hint(None)
    assert not heat()
    compare.session.select(0)
    compare.session.overlay.visible = False
    assert not heat()
    compare.session.overlay.visible = True
    assert heat()


def test_the_crosshair_goes_to_either_models_best_patch(by_hand) -> None:
    compare, _, middle = by_hand
    compare.session.select(0)
    for which, place, half in ((0, RIGHT, 12), (1, LEFT, 6)):
        compare.go_to_best(which)
        assert np.abs(compare.session.position_mm - (middle + place)).max() <= half


def test_on_a_border_of_patches_what_is_drawn_is_what_is_told(by_hand) -> None:
    """Middles of the first's patches are corners of the second's."""
    compare, views, _ = by_hand
    compare.session.select(0)
    compare.go_to_best(0)
    apart = views.scenes[2]
    [heat] = [x for x in apart.own_layers() if x.name == "Evidence" and x.visible]
    shown = np.asarray(heat._slice.image.raw)
    patch = heat.world_to_data(layers.to_napari(compare.session.position_mm + 1e-3))
    np.testing.assert_array_equal(np.squeeze(shown), heat.data[round(patch[0])])
    [outlines] = [x for x in apart.own_layers() if x.name == "Top patches" and x.visible]
    drawn = outlines.data[outlines._view_indices]
    drawn = drawn[np.abs(drawn[:, 1]).sum(axis=1) > 0]
    assert len(drawn)
    assert set(drawn[:, 0, 0]) == {round(patch[0])}
