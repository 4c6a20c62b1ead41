"""Two models in the window: chosen, looked at, stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from made_comparison import compare_by_hand, grid_of, marked

from simcrop_viewer import layers
from simcrop_viewer.model.session import OpenStudy
from simcrop_viewer.view.compare_views import in_words

pytestmark = pytest.mark.usefixtures("display")


@pytest.fixture(scope="module")
def window(request: pytest.FixtureRequest) -> Iterator[object]:
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


def settled(qtbot, condition: Callable[[], bool], seconds: float = 90) -> None:
    qtbot.waitUntil(condition, timeout=round(1000 * seconds))


def choose_folder(window, monkeypatch, folder: Path) -> None:
    """As a person does: the last entry of the box, then a folder in the dialog."""
    from qtpy.QtWidgets import QFileDialog

    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(folder))
    box = window.compare_panel.models
    box.setCurrentIndex(box.count() - 1)
    box.activated.emit(box.count() - 1)


def test_a_second_model_is_chosen_looked_at_and_stopped(
    window, qtbot, monkeypatch, files, model_folder: Path, other_folder: Path
) -> None:
    panel = window.compare_panel
    choose_folder(window, monkeypatch, other_folder)
    assert "No scan is open" in window.messages.words.text()
    window.messages.hide()
    window.use_model(model_folder)
    window.open(*files)
    settled(qtbot, lambda: window.evidence.is_encoded and not window.jobs.running)
    window.tabs.setCurrentWidget(panel)
    window.panes["coronal"].maximised.emit(window.panes["coronal"])  # alone, as it will be again
    seen = window.scenes.seen

    choose_folder(window, monkeypatch, other_folder.with_name("none"))
    settled(qtbot, lambda: window.messages.isVisible() and not window.jobs.running)
    assert window.messages.words.text().count("\n") == 0
    assert panel.models.currentData() == ""
    assert window.scenes.seen == seen
    assert window.panes["coronal"].isVisible()
    window.messages.hide()

    choose_folder(window, monkeypatch, other_folder)
    assert panel.stop.text() == "Cancel"
    assert panel.progress.isVisible()
    settled(qtbot, lambda: window.compare.is_on and not window.jobs.running)
    assert not window.messages.isVisible()
    assert panel.models.currentText() == "other"
    assert window.encode.models.findData(str(other_folder)) >= 0  # offered there too
    assert not window.panes["coronal"].isVisible()
    three = window.centre.three
    assert [pane.isVisible() for pane in three.panes] == [True] * 3
    assert "small" in three.panes[0].title.text()
    assert "other" in three.panes[1].title.text()
    assert "small \N{MINUS SIGN} other" in three.panes[2].title.text()
    assert "standard deviations" in three.caption.text()
    assert "Their patches differ" in three.caption.text()

    panel.table.selectRow(1)
    assert window.session.selection == (1,)
    assert window.report.list.selectedItems()[0].text() == panel.table.item(1, 0).text()
    assert panel.table.item(1, 3).text().endswith(" %")
    assert panel.table.item(1, 4).text().endswith(" mm")
    panel.best[1].click()
    assert panel.here.text().startswith("At the crosshair: ")
    panel.plane.setCurrentIndex(2)
    panel.plane.activated.emit(2)
    assert {pane.scene.name for pane in three.panes} == {"sagittal"}
    assert "small" in three.panes[0].title.text()

    panel.stop.click()
    assert not three.isVisible()
    assert window.scenes.seen == seen
    assert window.panes["coronal"].isVisible()
    assert not window.panes["axial"].isVisible()
    assert window.session.selection == (1,)
    assert panel.models.currentData() == ""
    assert window.compare.second_evidence.model is None
    assert not panel.stop.isEnabled()
    heat = [x for x in window.panes["coronal"].scene.own_layers() if x.name == "Evidence"]
    assert heat[0].visible  # of the sentence that was chosen meanwhile
    window.panes["coronal"].maximised.emit(window.panes["coronal"])
    window.studies.close()


def picture(pane) -> np.ndarray:
    return np.asarray(pane.canvas.screenshot(flash=False))[..., :3].astype(float)


def test_each_models_find_is_on_its_side_of_the_picture(window, qtbot, study: OpenStudy) -> None:
    """The first model points to the patient's right, which is on the left of the screen."""
    middle = study.volume.grid.center_mm
    first = marked(study, grid_of((8, 8, 8), 24, middle), middle + np.array([50, 20, 30]))
    second = marked(study, grid_of((12, 12, 12), 12, middle), middle + np.array([-50, 20, 30]))
    compare_by_hand(window.compare, study, first, second)
    window.compare_panel.plane.setCurrentIndex(0)
    window.compare_panel.plane.activated.emit(0)
    window.session.select(0)
    window.session.move_to(middle + np.array([0, 0, 30]))
    qtbot.wait(500)
    # Every pane shows the plane through the crosshair itself, not the nearest step of a slider.
    z = layers.to_napari(window.session.position_mm)[0]
    for scene in window.centre.three.scenes.scenes:
        assert scene.viewer.dims.point[0] == pytest.approx(z, abs=2e-3)
    pane = window.centre.three.panes[2]
    seen = picture(pane)
    window.session.overlay.visible = False
    qtbot.wait(100)
    bare = picture(pane)
    window.session.overlay.visible = True
    warmer = (seen - bare)[..., 0] - (seen - bare)[..., 2]
    half = warmer.shape[1] / 2
    rows, columns = np.nonzero(warmer > 60)
    assert len(rows) > 20
    assert columns.max() < half  # the first's: orange, on the patient's right
    assert rows.mean() < warmer.shape[0] / 2  # anterior is above
    rows, columns = np.nonzero(warmer < -60)
    assert len(rows) > 4
    assert columns.min() > half  # the second's: blue, on the patient's left
    window.compare.stop()
    qtbot.wait(50)
    assert window.panes["axial"].isVisible()
    assert window.panes["axial"].scene.viewer.dims.point[0] == pytest.approx(z, abs=1e-6)
    window.studies.close()


@pytest.mark.slow
def test_closing_while_two_models_are_compared_leaves_nothing_behind(
    qtbot, monkeypatch, files, model_folder: Path, other_folder: Path
) -> None:
    from qtpy.QtCore import QTimer

    from simcrop_viewer.view.window import MainWindow

    before = set(threading.enumerate())
    window = MainWindow()
    window.show()
    window.use_model(model_folder)
    window.open(*files)
    settled(qtbot, lambda: window.evidence.is_encoded and not window.jobs.running)
    window.compare.start(other_folder)
    settled(qtbot, lambda: window.compare.is_on)
    window.compare.start(other_folder)  # and another one is on its way
    window.close()
    assert not [t for t in window.centre.findChildren(QTimer) if t.isActive()]

    def left() -> list[str]:
        new = set(threading.enumerate()) - before
        return [thread.name for thread in new if thread.name.startswith("simcrop-")]

    settled(qtbot, lambda: not left())


def test_the_caption_names_what_counts() -> None:
    from simcrop_viewer.model.comparison import common_grid

    coarse, fine = grid_of((2, 2, 2), 20), grid_of((4, 4, 4), 10)
    words = in_words("a<b", "c", common_grid(coarse, fine), (64, 6))
    assert "a&lt;b \N{MINUS SIGN} c" in words
    assert "on those of c (10 x 10 x 10 mm)" in words
    assert "top 64 patches of a&lt;b, the top 6 of c" in words
    words = in_words("a", "c", common_grid(fine, coarse), (9, 9))
    assert "on those of a " in words
    assert "Outlined" not in words
    assert "differ:" not in in_words("a", "c", common_grid(fine, fine), (9, 9))
