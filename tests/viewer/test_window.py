"""The window as a person uses it: opened, clicked, looked at, closed."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from made_ct import AFFINE, chest, save_nifti

from simcrop_core.alignment_result import AlignmentResult
from simcrop_core.geometry import Grid
from simcrop_core.report import Report
from simcrop_core.volume import CTVolume
from simcrop_viewer.model.display import display_of
from simcrop_viewer.model.session import OpenStudy, statements_of
from simcrop_viewer.model.windows import PRESETS, Window

pytestmark = pytest.mark.usefixtures("display")
REPORT = "Findings: Heart size is normal. There is a nodule on the right. No pleural effusion."


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    scan = save_nifti(tmp_path / "JOHN_DOE.nii.gz")
    said = tmp_path / "JOHN_DOE.txt"
    said.write_text(REPORT)
    return scan, said


@pytest.fixture(scope="module")
def shared(request: pytest.FixtureRequest) -> Iterator[object]:
    """One window for the tests that leave it as it was."""
    app = request.getfixturevalue("qapp")
    from simcrop_viewer.view.window import MainWindow

    made = MainWindow()
    made.show()
    made.qt.resize(made.qt.minimumSizeHint())  # the processor draws every pixel
    end = time.monotonic() + 1
    while time.monotonic() < end:  # until the panes have their sizes
        app.processEvents()
    yield made
    made.close()


@pytest.fixture
def window(shared, study: OpenStudy, qtbot):
    """The window with a study, as if it had just been opened.

    The same study stays open from test to test: opening one takes seconds of software drawing.
    """
    session = shared.session
    if session.study is not study:
        session.show(study)
        qtbot.wait(300)  # the panes get their sizes
    session.select()
    session.set_statements(statements_of(study.report, None))
    session.move_to(study.display.grid.center_mm)
    session.set_window(PRESETS["lung"])
    yield shared
    shared.evidence.set_model(None)
    shared.messages.hide()
    shared.report.find.clear()
    session.overlay.visible = True
    qtbot.waitUntil(lambda: not shared.jobs.running, timeout=60_000)


@pytest.fixture
def aligned(window, report: Report, result: AlignmentResult):
    window.session.set_statements(statements_of(report, result))
    return window


def settled(qtbot, condition: Callable[[], bool], seconds: float = 90) -> None:
    qtbot.waitUntil(condition, timeout=round(1000 * seconds))


def picture(window, name: str) -> np.ndarray:
    return np.asarray(window.panes[name].canvas.screenshot(flash=False))[..., :3].astype(float)


# -- what is seen ---------------------------------------------------------------------------------


@pytest.mark.parametrize("axcodes", ["LPS", "RAS", "SPR"])
def test_a_mark_is_on_the_patients_side_in_every_pane(window, qtbot, axcodes: str) -> None:
    """A bright cube on the patient's right, in front and above, as a photograph shows it."""
    from simcrop_core.geometry import axis_aligned_affine

    shape = (40, 44, 48)
    grid = Grid(shape, axis_aligned_affine(axcodes, (5, 5, 5), (3, -7, 900), shape))
    hu = np.full(shape, -1000, np.int16)
    corners = grid.to_world(np.indices(shape).reshape(3, -1).T)
    place = grid.center_mm + np.array([60, 60, 60])  # right, anterior, superior
    near = (np.abs(corners - place) < 21).all(axis=1).reshape(shape)
    hu[near] = 3000
    volume = CTVolume(hu, grid)
    window.session.show(OpenStudy(volume, display_of(volume)))
    window.session.move_to(place)
    with_mark = {name: picture(window, name) for name in window.panes}
    window.session.set_window(Window(1000, 9000))  # everything is black
    for name, seen in with_mark.items():
        brighter = (seen - picture(window, name)).sum(axis=-1)
        rows, columns = np.nonzero(brighter > 500)
        assert len(rows) > 20, name
        height, width = brighter.shape
        assert rows.mean() < height / 2, f"{name}: above"
        assert columns.mean() < width / 2, f"{name}: right of the patient, or anterior, is left"


def test_letters_stand_where_the_body_is(window) -> None:
    wanted = {
        "axial": {"middle_left": "R", "middle_right": "L", "top_center": "A"},
        "coronal": {"middle_left": "R", "middle_right": "L", "top_center": "S"},
        "sagittal": {"middle_left": "A", "middle_right": "P", "bottom_center": "I"},
    }
    for name, letters in wanted.items():
        overlays = window.panes[name].scene.viewer.canvas.overlays
        for position, letter in letters.items():
            assert overlays[f"orient_{position}"].text == letter


def test_evidence_is_in_the_picture_and_h_hides_it(aligned, qtbot) -> None:
    aligned.session.select(0)
    qtbot.wait(300)
    shown = picture(aligned, "axial")
    press(qtbot, aligned, "H")
    hidden = picture(aligned, "axial")
    assert np.abs(hidden - shown).max() > 60
    press(qtbot, aligned, "H")
    assert np.abs(picture(aligned, "axial") - shown).max() == 0


def test_the_title_names_the_study_and_says_what_this_is_not(window, study: OpenStudy) -> None:
    title = window.qt.windowTitle()
    assert study.name in title
    assert "Research use only, not for diagnosis" in title


# -- keys, mouse, panels --------------------------------------------------------------------------


def press(qtbot, window, key: str) -> None:
    from qtpy.QtGui import QKeySequence
    from qtpy.QtWidgets import QShortcut

    [shortcut] = [s for s in window.qt.findChildren(QShortcut) if s.key() == QKeySequence(key)]
    shortcut.activated.emit()


def test_keys_go_through_the_report_and_the_windows(aligned, qtbot) -> None:
    press(qtbot, aligned, "J")
    press(qtbot, aligned, "J")
    assert aligned.session.selection == (1,)
    press(qtbot, aligned, "K")
    assert aligned.session.selection == (0,)
    press(qtbot, aligned, "U")
    assert aligned.session.selection == (1,)  # the first without support
    press(qtbot, aligned, "F4")
    assert aligned.session.window == PRESETS["bone"]
    press(qtbot, aligned, "H")
    assert not aligned.session.overlay.visible


KEYS = (
    "J", "K", "U", "H", "F1", "F2", "F3", "F4", "Ctrl+O", "Ctrl+Shift+O", "Ctrl+R", "Ctrl+Shift+V",
    "Ctrl+E", "Ctrl+S", "Ctrl+W", "Ctrl+L", "Ctrl+Shift+L", "PgUp", "PgDown",
)  # fmt: skip


@pytest.mark.parametrize("key", KEYS)
def test_no_other_part_of_the_window_claims_our_keys(shared, key: str) -> None:
    from qtpy.QtGui import QKeySequence
    from qtpy.QtWidgets import QAction, QShortcut

    wanted = QKeySequence(key)
    assert len([s for s in shared.qt.findChildren(QShortcut) if s.key() == wanted]) == 1
    assert not [a.text() for a in shared.qt.findChildren(QAction) if wanted in a.shortcuts()]


def test_sentences_that_a_search_hides_are_stepped_over(aligned) -> None:
    aligned.report.find.setText("nodule")
    aligned.report.step(forward=True)
    aligned.report.step(forward=True)
    assert aligned.session.selection == (3,)
    aligned.report.step(forward=True)
    assert aligned.session.selection == (3,)
    aligned.report.step(forward=False)
    assert aligned.session.selection == (0,)
    aligned.session.show(aligned.session.study)
    assert aligned.report.find.text() == ""


def test_a_click_on_a_sentence_selects_it_and_with_control_several(aligned, qtbot) -> None:
    from qtpy.QtCore import Qt

    sentences = aligned.report.list
    aligned.tabs.setCurrentWidget(aligned.report)
    rows = [sentences.item(r) for r in range(sentences.count())]
    texts = [row for row in rows if row.data(int(Qt.ItemDataRole.UserRole)) is not None]
    assert [t.text() for t in texts] == [s.text for s in aligned.session.statements]

    def click(row: int, modifier=Qt.KeyboardModifier.NoModifier) -> None:
        place = sentences.visualItemRect(texts[row]).center()
        qtbot.mouseClick(sentences.viewport(), Qt.MouseButton.LeftButton, modifier, place)

    click(2)
    assert aligned.session.selection == (2,)
    click(0, Qt.KeyboardModifier.ControlModifier)
    assert aligned.session.selection == (2, 0)
    click(1)
    assert aligned.session.selection == (1,)


def test_the_pointer_on_a_sentence_shows_its_evidence_until_it_leaves(aligned, qtbot) -> None:
    from qtpy.QtCore import QEvent, QPoint
    from qtpy.QtWidgets import QApplication

    session, sentences = aligned.session, aligned.report.list
    aligned.tabs.setCurrentWidget(aligned.report)
    item = next(sentences.item(r) for r in range(9) if "effusion" in sentences.item(r).text())
    qtbot.mouseMove(sentences.viewport(), QPoint(2, 2))
    qtbot.mouseMove(sentences.viewport(), sentences.visualItemRect(item).center())
    assert session.hinted is None  # it may only pass by
    settled(qtbot, lambda: session.hinted is session.statements[1])
    assert session.selection == ()
    QApplication.sendEvent(sentences, QEvent(QEvent.Type.Leave))
    assert session.hinted is None


def test_the_frame_of_the_best_patch_goes_by_itself(aligned, qtbot) -> None:
    aligned.session.select(0)
    scene = aligned.panes["axial"].scene
    assert scene.frame_mm is not None
    settled(qtbot, lambda: scene.frame_mm is None)


def test_the_report_is_found_in_and_filtered(aligned) -> None:
    panel = aligned.report

    def visible() -> list[str]:
        rows = [panel.list.item(r) for r in range(panel.list.count())]
        return [row.text() for row in rows if not row.isHidden()]

    panel.find.setText("nodule")
    assert visible() == [
        "Findings", "There is a nodule in the right upper lobe.",
        "Impression", "Nodule in the right lung.",
    ]  # fmt: skip
    panel.section.setCurrentIndex(panel.section.findData("impression"))
    assert visible() == ["Impression", "Nodule in the right lung."]
    panel.find.clear()
    panel.section.setCurrentIndex(0)
    assert len(visible()) == 6


def test_every_control_of_the_form_sets_the_overlay_and_shows_it(window) -> None:
    form, overlay = window.overlay.form, window.session.overlay
    before = overlay.model_dump()
    wanted = {
        "visible": False, "top_k": 17, "draw": "heat", "threshold": 0.25, "opacity": 0.75,
        "colormap": "viridis", "normalise": "shared", "smooth": True,
    }  # fmt: skip
    assert set(wanted) == set(form.fields) == set(before)
    for name, value in wanted.items():
        form.fields[name].put(value)
        assert getattr(overlay, name) == value, name
    for name, value in before.items():
        setattr(overlay, name, value)
        assert form.fields[name].get() == value, name


def test_width_and_level_are_typed_and_shown(window) -> None:
    panel = window.overlay
    panel.width_hu.setValue(800)
    panel.level_hu.setValue(-200)
    assert window.session.window == Window(800, -200)
    window.session.set_window(PRESETS["soft"])
    assert (panel.width_hu.value(), panel.level_hu.value()) == PRESETS["soft"]
    assert panel.presets["soft"].isChecked()
    assert not panel.presets["lung"].isChecked()


def test_the_window_follows_the_sentence_when_asked(aligned) -> None:
    aligned.session.set_window(PRESETS["bone"])
    aligned.session.select(2)  # the heart
    assert aligned.session.window == PRESETS["bone"]
    aligned.overlay.follow.setChecked(True)
    aligned.session.select(0)  # a nodule
    assert aligned.session.window == PRESETS["lung"]
    aligned.overlay.follow.setChecked(False)


class Mouse:
    """What napari hands to a mouse callback."""

    def __init__(self, **facts: object) -> None:
        self.type, self.modifiers, self.delta = "mouse_press", (), (0, 0)
        self.button, self.pos, self.position = 1, (100, 100), (0.0, 0.0, 0.0)
        self.__dict__.update(facts)


def test_the_wheel_steps_through_planes_and_with_control_it_zooms(window) -> None:
    pane = window.panes["axial"]
    viewer = pane.scene.viewer
    before = window.session.position_mm.copy()
    pane._wheel(viewer, Mouse(delta=(0, -1)))
    assert window.session.position_mm[2] == pytest.approx(before[2] - 4.1)  # towards the feet
    zoom = viewer.scene.camera.zoom
    pane._wheel(viewer, Mouse(delta=(0, 1), modifiers=("Control",)))
    assert viewer.scene.camera.zoom > zoom
    assert window.session.position_mm[2] == pytest.approx(before[2] - 4.1)


def test_a_click_puts_the_crosshair_and_a_drag_does_not(window) -> None:
    from simcrop_viewer import layers

    pane, world = window.panes["coronal"], window.session.position_mm + np.array([15, 0, 20])
    point = tuple(layers.to_napari(world))
    event = Mouse(position=point)
    for _ in pane._drag(pane.scene.viewer, event):
        event.type = "mouse_release"
    np.testing.assert_allclose(window.session.position_mm, world)
    event = Mouse(position=tuple(layers.to_napari(world + 9)))
    for number, _ in enumerate(pane._drag(pane.scene.viewer, event)):
        event.type, event.pos = ("mouse_move", "mouse_release")[number > 0], (140, 100)
    np.testing.assert_allclose(window.session.position_mm, world)


def test_a_right_drag_sets_window_and_level_and_pans_again_afterwards(window) -> None:
    pane, before = window.panes["sagittal"], window.session.window
    event = Mouse(button=2)
    for number, _ in enumerate(pane._drag(pane.scene.viewer, event)):
        assert not pane.scene.viewer.scene.camera.mouse_pan
        event.type, event.pos = ("mouse_move", "mouse_move", "mouse_release")[number], (120, 90)
    assert window.session.window == Window(before.width + 80, before.level + 40)
    assert pane.scene.viewer.scene.camera.mouse_pan


def test_the_pointer_tells_hounsfield_units_and_place(window, study: OpenStudy) -> None:
    from simcrop_viewer import layers

    pane = window.panes["axial"]
    world = study.volume.grid.to_world([12, 20, 30])
    pane._hover(pane.scene.viewer, Mouse(position=tuple(layers.to_napari(world))))
    assert pane._hovered.text().startswith(f"{study.volume.hu_XYZ[12, 20, 30]} HU")
    pane._hover(pane.scene.viewer, Mouse(position=(1e5, 0, 0)))
    assert pane._hovered.text() == ""


def test_a_pane_is_shown_alone_and_all_again(window) -> None:
    panes = window.panes
    panes["coronal"].maximised.emit(panes["coronal"])
    assert [name for name, pane in panes.items() if pane.isVisible()] == ["coronal"]
    panes["coronal"].maximised.emit(panes["coronal"])
    assert all(pane.isVisible() for pane in panes.values())


# -- from file to overlay -------------------------------------------------------------------------


@pytest.fixture
def encoded(shared, qtbot, files, model_folder: Path):
    """The window with a study from files and its evidence; opened once for the tests in a row."""
    if not shared.evidence.is_encoded:
        shared.use_model(model_folder)
        settled(qtbot, lambda: shared.evidence.model is not None)
        shared.open(*files)
        settled(qtbot, lambda: shared.evidence.is_encoded)
    yield shared
    shared.messages.hide()


def test_a_study_is_opened_encoded_and_asked(encoded, qtbot) -> None:
    window = encoded
    assert [s.text for s in window.session.statements][2] == "No pleural effusion."
    assert all(s.score is not None for s in window.session.statements)
    window.report.ask.setText("mass in the left lung")
    window.report.ask_button.click()
    settled(qtbot, lambda: window.session.selection == (3,))
    assert window.report.list.item(window.report.list.count() - 1).text() == "mass in the left lung"
    everywhere = [window.qt.windowTitle(), window.encode.scan.text()]
    everywhere += [layer.name for s in window.scenes.scenes for layer in s.viewer.layers]
    assert not any("JOHN" in text for text in everywhere)


def test_a_click_names_the_sentences_that_look_most_like_the_place(encoded) -> None:
    window = encoded
    ranked = window.evidence.statements_at(window.session.position_mm)
    window.panes["axial"].clicked.emit(window.session.position_mm)
    words = window.report.here.text()
    order = [words.index(window.session.statements[index].text) for index, _ in ranked]
    assert order == sorted(order)
    window.report.here.linkActivated.emit(str(ranked[0][0]))
    assert window.session.selection == (ranked[0][0],)
    window.panes["axial"].clicked.emit([1e6, 0, 0])
    assert not window.report.here.isVisible()


def test_a_study_that_is_opened_while_another_is_encoded_is_encoded_itself(
    shared, qtbot, files, model_folder: Path, tmp_path: Path
) -> None:
    window = shared
    window.studies.close()
    other = save_nifti(tmp_path / "b.nii.gz", np.roll(chest(), 3, axis=0), AFFINE)
    window.use_model(model_folder)
    settled(qtbot, lambda: window.evidence.model is not None)
    window.open(*files)
    settled(qtbot, lambda: any(job.title.startswith("Encode") for job in window.jobs.running))
    window.open(other, files[1])
    settled(qtbot, lambda: window.evidence.is_encoded and not window.jobs.running)
    np.testing.assert_array_equal(window.session.study.volume.hu_XYZ, np.roll(chest(), 3, axis=0))
    assert window.encode.encode.text().startswith("Encode again")
    window.studies.close()
    window.evidence.set_model(None)


def test_the_box_of_models_shows_the_one_in_use(shared, qtbot, model_folder: Path) -> None:
    window = shared
    window.use_model(model_folder)
    settled(qtbot, lambda: window.evidence.model is not None)
    assert window.encode.models.currentData() == str(model_folder)
    window.use_model(model_folder.with_name("none"))
    settled(qtbot, lambda: window.messages.isVisible())
    assert window.encode.models.currentData() == str(model_folder)
    assert window.encode.models.findData(str(model_folder.with_name("none"))) < 0
    window.evidence.set_model(None)
    assert window.encode.models.currentData() == ""
    window.messages.hide()


def test_details_of_a_failure_are_copied(window, qtbot, monkeypatch, files) -> None:
    import simcrop_viewer.controller.study as study_module

    monkeypatch.setattr(study_module, "read_volume", lambda *_, **__: 1 / 0)
    window.open(files[0])
    settled(qtbot, lambda: window.messages.isVisible())
    assert "ZeroDivisionError" in window.messages.words.text()
    assert "Traceback" in window.messages._details


def test_a_file_that_is_no_scan_gets_one_sentence(window, qtbot, files, study: OpenStudy) -> None:
    window.open(files[1])
    settled(qtbot, lambda: window.messages.isVisible())
    assert window.session.study is study
    words = window.messages.words.text()
    assert words.count("\n") == 0
    assert words.endswith(".")


def drop(widget, *paths: Path) -> None:
    from qtpy.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
    from qtpy.QtGui import QDragEnterEvent, QDropEvent
    from qtpy.QtWidgets import QApplication

    held = QMimeData()
    held.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    copy, left, none = (
        Qt.DropAction.CopyAction, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier,
    )  # fmt: skip
    QApplication.sendEvent(widget, QDragEnterEvent(QPoint(9, 9), copy, held, left, none))
    QApplication.sendEvent(widget, QDropEvent(QPointF(9, 9), copy, held, left, none))


def test_scans_and_reports_are_dropped_anywhere(shared, qtbot, files) -> None:
    window = shared
    window.studies.close()
    drop(window.panes["3d"].canvas, files[1])
    assert "No scan is open" in window.messages.words.text()
    drop(window.panes["axial"].canvas, *files)
    settled(qtbot, lambda: window.session.study is not None)
    assert len(window.session.statements) == 3
    other = files[1].with_name("other.txt")
    other.write_text("Findings: Emphysema.")
    drop(window.qt, other)
    settled(qtbot, lambda: len(window.session.statements) == 1)
    drop(window.qt, files[0], files[0].parent)
    assert "one study is shown at a time" in window.messages.words.text()
    window.studies.close()


def test_a_session_is_saved_dropped_and_among_what_was_open_lately(
    encoded, qtbot, files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qtpy.QtWidgets import QFileDialog

    window, path = encoded, tmp_path / "mine.simcrop"
    window.open(*files)  # those of this test, which are still there
    settled(qtbot, lambda: window.session.study.volume.source == files[0])
    settled(qtbot, lambda: window.evidence.is_encoded and not window.jobs.running)
    window.session.select(1)
    window.session.set_window(Window(700, -111))
    offered = []
    monkeypatch.setattr(
        QFileDialog, "getSaveFileName", lambda *a: offered.append(a[2]) or (str(path), "")
    )
    press(qtbot, window, "Ctrl+S")
    assert path.exists()
    assert offered == [f"{window.session.study.name}.simcrop"]
    window.studies.close()
    window.session.set_window(PRESETS["lung"])
    drop(window.panes["axial"].canvas, path)
    settled(qtbot, lambda: window.evidence.is_encoded and not window.jobs.running)
    assert window.session.window == Window(700, -111)
    assert window.session.selection == (1,)
    files[0].unlink()
    window.menu.fill_recent()
    first, second = window.menu.recent.actions()[:2]
    assert first.text().startswith("mine.simcrop")
    assert second.text().startswith("JOHN_DOE.nii.gz")
    first.trigger()
    settled(qtbot, lambda: window.messages.isVisible())
    assert window.messages.words.text() == (
        "The scan of this session is not where it was. "
        "Put it back, or open the study from where it is now."
    )
    assert window.session.selection == (1,)


# -- closing --------------------------------------------------------------------------------------


def test_closing_while_work_runs_leaves_no_thread_behind(qtbot, files, model_folder: Path) -> None:
    from simcrop_viewer.view.window import MainWindow

    before = set(threading.enumerate())
    window = MainWindow()
    window.show()
    window.use_model(model_folder)
    window.open(*files)
    assert window.jobs.running
    window.close()

    def left() -> list[str]:
        new = set(threading.enumerate()) - before
        return [thread.name for thread in new if thread.name.startswith("simcrop-")]

    settled(qtbot, lambda: not left())


def test_opening_and_closing_a_study_again_and_again_holds_no_scan(shared, qtbot, report) -> None:
    held = []
    for _ in range(2):
        volume = CTVolume(chest().copy(), Grid(chest().shape, AFFINE))
        held.append(weakref.ref(volume))
        shared.session.show(OpenStudy(volume, display_of(volume), report))
        shared.session.select(0)
        shared.studies.close()
        del volume
        qtbot.wait(10)
    gc.collect()
    assert sum(ref() is not None for ref in held) == 0
