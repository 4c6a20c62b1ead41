"""The Training panel as a person uses it."""

from __future__ import annotations

import gc
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from made_runs import (
    append,
    checkpoint,
    end_event,
    error_event,
    made_run,
    recipes,
    step,
    steps,
    validation_event,
)

from simcrop_core.train.lock import lock_holder
from simcrop_viewer.controller.training import TrainingController
from simcrop_viewer.model.runs_folder import RunsFolder

pytestmark = pytest.mark.usefixtures("display")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    made = tmp_path / "runs"
    made.mkdir()
    return made


@pytest.fixture
def shown(desk, place: Path, qtbot, qapp) -> Iterator[Callable[[], object]]:
    """Makes the panel over the runs that are there, with the recipes known."""
    from simcrop_viewer.view.training_panel import TrainingPanel

    made = []

    def show():
        kept = RunsFolder()
        kept.folder = place
        training = TrainingController(desk.jobs, kept)
        training.form.offer(recipes())
        panel = TrainingPanel(lambda: training)
        panel.training = training
        panel.resize(430, 900)
        qtbot.addWidget(panel)
        panel.follow(True)
        panel.show()
        made.append(panel)
        return panel

    yield show
    for panel in made:
        panel.disconnect_all()


@pytest.fixture
def until(desk, qapp) -> Callable[..., None]:
    def turn(condition: Callable[[], bool], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end
            qapp.processEvents()
            desk.mailbox.read()
            time.sleep(0.01)

    return turn


def cell(panel, name: str, column: int) -> str:
    table = panel.runs.table
    for place in range(table.rowCount()):
        if table.item(place, 0).text() == name:
            return str(table.item(place, column).text())
    return ""


def painted(widget) -> np.ndarray:
    """What a widget draws, as colours."""
    from qtpy.QtGui import QImage

    image = widget.grab().toImage().convertToFormat(QImage.Format.Format_RGB32)
    bits = image.constBits()
    bits.setsize(image.sizeInBytes())
    return np.frombuffer(bits, np.uint8).reshape(image.height(), -1)[:, : 4 * image.width()].copy()


def has_color(widget, color: str) -> bool:
    from qtpy.QtGui import QColor

    wanted = QColor(color)
    pixels = painted(widget).reshape(-1, 4).astype(int)  # blue, green, red
    near = np.abs(pixels[:, :3] - [wanted.blue(), wanted.green(), wanted.red()]).max(axis=1)
    return bool((near < 40).sum() > 20)


# -- the form -------------------------------------------------------------------------------------


def test_what_is_wrong_stands_beside_its_field(shown, qtbot, until) -> None:
    from qtpy.QtCore import Qt

    form = shown().form
    rate = form.rows["optim.lr"]
    assert "Highest learning rate." in rate.widget.toolTip()
    assert "Above 0 and 10 or less." in rate.widget.toolTip()
    assert form.start.isEnabled()
    assert "model.vision.depth" not in form.rows
    rate.widget.clear()
    qtbot.keyClicks(rate.widget, "-1")
    assert rate.fault.isVisible()
    assert rate.fault.text() == "Above 0 and 10 or less."
    assert not form.start.isEnabled()
    rate.widget.clear()
    qtbot.keyClicks(rate.widget, "0.5")
    assert not rate.fault.isVisible()
    assert rate.label.font().bold()
    assert form.command.toPlainText().endswith("--set optim.lr=0.5")
    qtbot.mouseClick(form.copy, Qt.LeftButton)
    from qtpy.QtWidgets import QApplication

    assert QApplication.clipboard().text() == form.command.toPlainText()


def test_what_fields_say_together_is_judged_by_the_command(shown, until) -> None:
    form = shown().form
    form.more.setChecked(True)
    form.rows["run.accumulation"].put("3")
    until(lambda: "cannot be dealt out evenly" in form.faults.text())
    assert not form.start.isEnabled()
    form.rows["run.batch_size"].put("6")
    until(lambda: form.start.isEnabled())
    assert not form.faults.isVisible()


def test_all_other_fields_are_under_more_and_can_be_looked_for(shown, qapp) -> None:
    panel = shown()
    form = panel.form
    assert set(form.rows) == {setting.path for setting in panel.training.form.first}
    form.more.setChecked(True)
    assert set(form.rows) == set(panel.training.form.recipe.paths) - {"name"}
    form.find.setText("mask ratio")
    seen = {
        path for path, row in form.rows.items() if row.line is not None and row.line.isVisible()
    }
    assert seen == {"objective.mask_ratio", "objective.report_mask_ratio"}
    form.find.clear()
    form.more.setChecked(False)
    assert not form.rows["objective.mask_ratio"].body.isVisible()


def test_another_recipe_has_another_form(shown, until) -> None:
    panel = shown()
    form = panel.form
    assert not {"data.root", "model"} & set(form.rows)
    form.recipes.setCurrentIndex(form.recipes.findData("probe-luna16"))
    form.recipes.activated.emit(form.recipes.currentIndex())
    assert {"data.root", "data.lists", "model", "protocol"} <= set(form.rows)
    assert form.about.text().startswith("Linear probe on LUNA16")
    assert form.name.text() == "probe-luna16-1"
    form.rows["protocol"].put("released")
    assert "--set protocol=released" in form.command.toPlainText()
    form.recipes.setCurrentIndex(form.recipes.findData("smoke"))
    form.recipes.activated.emit(form.recipes.currentIndex())
    form.more.setChecked(True)
    form.rows["objective.kind"].put("mae")
    until(lambda: "objective.top_k" not in form.rows)
    assert "objective.mask_ratio" in form.rows
    assert form.rows["objective.kind"].widget.currentText() == "mae"


def test_a_folder_is_chosen_beside_its_field(
    shown, tmp_path: Path, qtbot, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qtpy.QtCore import Qt
    from qtpy.QtWidgets import QFileDialog, QToolButton

    panel = shown()
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path / "store"))
    row = panel.form.rows["data.store"]
    qtbot.mouseClick(row.body.findChild(QToolButton), Qt.LeftButton)
    assert f"--set data.store={tmp_path}/store" in panel.form.command.toPlainText()
    qtbot.mouseClick(panel.form.place, Qt.LeftButton)
    assert panel.training.place.folder == tmp_path / "store"
    assert f"--out {tmp_path}/store/smoke-1" in panel.form.command.toPlainText()


# -- runs -----------------------------------------------------------------------------------------


def test_past_runs_are_listed_compared_and_say_how_they_ended(
    shown, place: Path, until, qapp
) -> None:
    from simcrop_viewer.view.run_curves import COLORS

    metrics = {"pointing_findings": 0.3, "chance_findings": 0.1}
    good = made_run(place / "good", *steps(1, 30), end_event(30, "finished"), steps=30)
    append(good, validation_event(30, 1.0, {}, metrics), end_event(30, "finished"))
    checkpoint(good, 30)
    sentence = "The loss is not finite. Lower the learning rate."
    made_run(place / "bad", *steps(1, 20), error_event(20, "nan", sentence))
    panel = shown()
    runs = panel.runs
    until(lambda: runs.table.rowCount() == 2 and bool(runs.curves.charts))
    assert panel.tabs.currentWidget() is panel.form  # nothing is under way
    panel.tabs.setCurrentWidget(runs)
    assert [cell(panel, "good", n) for n in (1, 2, 3)] == ["finished", "30", "0.3333"]
    assert cell(panel, "bad", 1) == "failed"
    panel.training.choose([place / "bad"])
    until(lambda: runs.error.text() == sentence)
    assert runs.resume.isEnabled()
    assert not runs.open.isEnabled()
    assert not runs.stop.isEnabled()
    until(lambda: len(runs.curves.charts) == 5)
    assert has_color(runs.curves, COLORS[0])
    assert not has_color(runs.curves, COLORS[1])
    runs.table.selectAll()
    until(lambda: len(panel.training.chosen) == 2 and len(runs.curves.charts) == 6)
    assert panel.training.chosen[0] == place / "bad"  # it keeps its colour
    assert has_color(runs.curves, COLORS[0])
    assert has_color(runs.curves, COLORS[1])
    until(lambda: "run.steps: 40 | 30" in runs.differences.toPlainText())
    assert runs.tabs.isTabVisible(runs.tabs.indexOf(runs.differences))
    runs.logarithmic.setChecked(True)
    runs.smoothing.setValue(90)
    assert has_color(runs.curves, COLORS[1])


def test_curves_grow_as_the_run_does_and_are_drawn_only_then(shown, place: Path, until) -> None:
    folder = made_run(place / "smoke-1", *steps(1, 3))
    panel = shown()
    curves = panel.runs.curves
    panel.tabs.setCurrentWidget(panel.runs)
    until(lambda: bool(curves.charts))
    before, drawn = curves.charts, painted(curves)
    looks = []
    panel.training.looked.connect(lambda: looks.append(1))
    until(lambda: len(looks) >= 2)
    assert curves.charts is before
    append(folder, step(4, 20.0))
    until(lambda: curves.charts is not before)
    assert curves.charts[0].lines[0].steps_P.tolist() == [1, 2, 3, 4]
    assert painted(curves).tobytes() != drawn.tobytes()


def test_the_pointer_asks_for_figures(shown, place: Path, until, qtbot) -> None:
    from qtpy.QtCore import QPoint, QPointF

    made_run(place / "smoke-1", *(step(n, 5.0 if n < 6 else 1.0) for n in range(1, 11)))
    panel = shown()
    panel.tabs.setCurrentWidget(panel.runs)
    curves = panel.runs.curves
    until(lambda: bool(curves.charts))
    said: list[str] = []
    true = curves._words
    curves._words = lambda *words: said.append(true(*words)) or said[-1]
    painted(curves)
    assert said[0] == "1"  # the newest
    said.clear()
    inside = curves.place(0)
    qtbot.mouseMove(curves, QPoint(int(inside.left() + 52), int(inside.center().y())))
    curves._pointer = QPointF(inside.left() + 52, inside.center().y())
    painted(curves)
    assert said[-len(curves.charts)] == "1: 5"
    made_run(place / "longer", *(step(n, 2.0) for n in range(1, 21)))
    panel.training.choose([place / "smoke-1", place / "longer"])
    until(lambda: len(curves.charts[0].lines) == 2)
    curves._pointer = QPointF(curves.place(0).right() - 14, inside.center().y())
    painted(curves)
    assert said[-len(curves.charts)] == "20: -, 2"  # beyond the end of the first


def test_looking_ends_when_the_panel_is_not_seen(shown, place: Path, until) -> None:
    panel = shown()
    assert panel._timer.isActive()
    panel.follow(False)
    assert not panel._timer.isActive()
    panel.follow(True)
    assert panel._timer.isActive()
    panel.disconnect_all()
    panel.follow(True)  # a dock that goes says so late
    assert not panel._timer.isActive()
    panel.disconnect_all = lambda: None


def test_pictures_of_fixed_cases_go_with_the_steps(shown, place: Path, until) -> None:
    from qtpy.QtGui import QColor, QPixmap

    folder = made_run(place / "smoke-1", *steps(1, 3))

    def draw(at: int, color: str) -> None:
        where = folder / "previews" / f"step-{at:08d}"
        where.mkdir(parents=True)
        for case in ("a", "b"):
            picture = QPixmap(40, 20)
            picture.fill(QColor(color))
            picture.save(str(where / f"{case}.png"))

    draw(10, "#ff0000")
    panel = shown()
    panel.tabs.setCurrentWidget(panel.runs)
    view = panel.runs.previews
    until(lambda: view.cases.count() == 2)
    panel.runs.tabs.setCurrentWidget(view)
    assert (view.step.text(), has_color(view.picture, "#ff0000")) == ("step 10", True)
    draw(20, "#00ff00")
    until(lambda: view.step.text() == "step 20")  # the newest is followed
    assert has_color(view.picture, "#00ff00")
    view.steps.setValue(0)
    assert has_color(view.picture, "#ff0000")
    draw(30, "#0000ff")
    until(lambda: view.steps.maximum() == 2)
    assert view.step.text() == "step 10"  # who looks back is left there


def test_what_is_of_one_run_is_never_shown_as_anothers(shown, place: Path, until, qapp) -> None:
    from qtpy.QtGui import QColor, QPixmap

    for name in ("a", "b"):
        folder = made_run(place / name, *steps(1, 3), end_event(3, "finished"))
        (folder / "log.txt").write_text(f"words of {name}\n")
        (folder / "result.json").write_text(json.dumps({"task": f"task of {name}"}))
        where = folder / "previews" / "step-00000010"
        where.mkdir(parents=True)
        picture = QPixmap(40, 20)
        picture.fill(QColor("#ff0000"))
        picture.save(str(where / f"case-{name}.png"))
    panel = shown()
    panel.tabs.setCurrentWidget(panel.runs)
    runs = panel.runs
    a, b = place / "a", place / "b"
    panel.training.choose([a])
    until(lambda: "words of a" in runs.log.toPlainText() and runs.previews.cases.count() == 1)
    runs.tabs.setCurrentWidget(runs.result)
    panel.training.choose([b])  # nobody has looked since
    assert "<b>b</b>" in runs.state.text()
    assert runs.log.toPlainText() == ""
    assert runs.result.toPlainText() == ""
    assert runs.previews.cases.count() == 0
    assert not has_color(runs.previews, "#ff0000")
    assert runs.curves.charts == ()
    assert runs.nothing.text() == ""
    assert runs.tabs.currentWidget() is runs.result
    until(lambda: "words of b" in runs.log.toPlainText())
    assert "task of b" in runs.result.toPlainText()
    assert runs.tabs.currentWidget() is runs.result
    until(lambda: bool(runs.curves.charts))
    panel.training.choose([b, a])  # what is of the first one stays
    assert "words of b" in runs.log.toPlainText()
    assert {line.run for chart in runs.curves.charts for line in chart.lines} == {b}
    until(lambda: len(runs.curves.charts[0].lines) == 2)


def test_a_probe_shows_its_figures_and_no_curves(shown, place: Path, until) -> None:
    folder = place / "probe-1"
    folder.mkdir()
    (folder / "run.lock").touch()
    (folder / "config.json").write_text('{"name": "probe-luna16"}')
    (folder / "result.json").write_text(
        '{"task": "LUNA16", "test": {"metric": "auc", "overall": {"value": 0.75}}}'
    )
    (folder / "model").mkdir()
    (folder / "model" / "config.json").touch()
    panel = shown()
    panel.tabs.setCurrentWidget(panel.runs)
    until(lambda: "over all: 0.750" in panel.runs.result.toPlainText())
    assert panel.runs.nothing.text() == "This run has no curves."
    wanted = []
    panel.checkpoint_wanted.connect(wanted.append)
    panel.runs.open.click()
    assert wanted == [str(folder / "model")]


# -- a real run in the window ---------------------------------------------------------------------


@pytest.fixture
def window(place: Path, qapp) -> Iterator[Callable[[], object]]:
    from simcrop_viewer.view.window import MainWindow

    made = []

    def show():
        kept = RunsFolder()
        kept.folder = place
        window = MainWindow(runs=kept)
        window.show()
        made.append(window)
        return window

    yield show
    for window in made:
        window.close()
    for lock in place.glob("*/run.lock"):
        holder = lock_holder(lock)
        if holder:
            os.kill(holder["process"], signal.SIGKILL)


def test_a_run_is_started_found_again_stopped_and_opened(window, place: Path, qtbot) -> None:
    from qtpy.QtCore import Qt, QTimer

    first = window()
    qtbot.waitUntil(first.docks["side"].isVisible, timeout=20_000)
    qtbot.wait(300)
    assert "training" not in vars(first)  # nobody wants to know of runs yet
    assert not first.training_panel._timer.isActive()
    first.docks["training"].raise_()
    form = first.training_panel.form
    qtbot.waitUntil(lambda: bool(first.training.form.recipes), timeout=60_000)
    form.more.setChecked(True)
    for path, text in (
        ("data.phantoms", "4"),
        ("data.held_out", "2"),
        ("run.batch_size", "2"),
        ("run.steps", "4000"),
        ("data.workers", "0"),
    ):
        form.rows[path].put(text)
    qtbot.waitUntil(form.start.isEnabled, timeout=60_000)
    qtbot.mouseClick(form.start, Qt.LeftButton)
    folder = place / "smoke-1"
    qtbot.waitUntil(lambda: first.training.chosen == (folder,), timeout=20_000)
    assert first.training_panel.tabs.currentWidget() is first.training_panel.runs
    timers = first.training_panel.findChildren(QTimer)
    assert any(timer.isActive() for timer in timers)
    first.close()
    assert not any(timer.isActive() for timer in timers)
    left = [t for t in threading.enumerate() if t.name.startswith("simcrop-training")]
    for thread in left:
        thread.join(10)
    assert not [t for t in left if t.is_alive()]

    again = window()
    again.docks["training"].raise_()
    panel = again.training_panel
    qtbot.waitUntil(lambda: again.training.chosen == (folder,), timeout=20_000)
    assert panel.tabs.currentWidget() is panel.runs  # it is still under way
    qtbot.waitUntil(lambda: bool(panel.runs.curves.charts), timeout=240_000)
    qtbot.waitUntil(panel.runs.open.isEnabled, timeout=120_000)
    assert "left" in panel.runs.state.text()
    qtbot.mouseClick(panel.runs.stop, Qt.LeftButton)
    qtbot.waitUntil(lambda: cell(panel, "smoke-1", 1) == "stopped", timeout=60_000)
    qtbot.mouseClick(panel.runs.open, Qt.LeftButton)
    qtbot.waitUntil(lambda: again.evidence.model is not None, timeout=120_000)
    assert again.tabs.currentWidget() is again.encode
    assert again.encode.models.currentText().startswith("smoke-1, step ")
    assert "run smoke, step" in again.encode.about.text()
    again.close()
    gc.collect()
