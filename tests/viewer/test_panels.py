"""Panels as a person uses them, without the rest of the window."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from made_structures import Model, Threshold, two_balls
from made_view import Desk

from simcrop_viewer.controller.figures import FigureController
from simcrop_viewer.controller.structures import StructuresController

pytestmark = pytest.mark.usefixtures("display")


def until(desk: Desk, qapp, condition: Callable[[], bool], seconds: float = 60) -> None:
    """Turn the event loop and read the mailbox until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        qapp.processEvents()
        desk.mailbox.read()
        time.sleep(0.01)


# -- figures --------------------------------------------------------------------------------------


@pytest.fixture
def figure_panel(ready: Desk, qtbot):
    from simcrop_viewer.view.figure_panel import FigurePanel

    figures = FigureController(ready.session, ready.jobs, ready.evidence)
    figures.refused.connect(ready.refused.append)
    panel = FigurePanel(ready.session, figures, ready.evidence)
    panel.figures = figures
    panel.resize(420, 900)
    qtbot.addWidget(panel)
    panel.show()
    yield panel
    panel.disconnect_all()


def test_the_preview_follows_what_is_chosen_and_set(
    ready: Desk, figure_panel, qapp, qtbot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qtpy.QtCore import Qt
    from qtpy.QtWidgets import QApplication, QFileDialog

    panel, seen = figure_panel, []
    panel.figures.previewed.connect(seen.append)
    until(ready, qapp, lambda: len(seen) == 1 and panel.picture.has_picture)
    ready.session.select(1)
    until(ready, qapp, lambda: len(seen) == 2)
    assert "(2)" in panel.rows.text()
    qtbot.mouseClick(panel.form.fields["planes"].widget.boxes["coronal"], Qt.LeftButton)
    until(ready, qapp, lambda: len(seen) == 3)
    assert panel.figures.spec().planes == ("axial", "sagittal")
    ready.session.move_to(ready.session.position_mm + 3)  # the planes do not run through it
    time.sleep(0.4)
    qapp.processEvents()
    assert not [job for job in ready.jobs.running if job.is_quiet]
    panel.form.fields["dpi"].put(60)
    out = str(tmp_path / "figure")
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (out, "PDF (*.pdf)"))
    qtbot.mouseClick(panel.save, Qt.LeftButton)
    until(ready, qapp, lambda: bool(panel.told.text()))
    assert (tmp_path / "figure.pdf").exists()
    qtbot.mouseClick(panel.copy, Qt.LeftButton)
    assert "--sentences 1 --planes axial,sagittal --set dpi=60" in QApplication.clipboard().text()
    assert ready.refused == []


def test_without_evidence_the_panel_says_what_to_do(ready: Desk, figure_panel, qapp) -> None:
    panel = figure_panel
    until(ready, qapp, lambda: panel.picture.has_picture)
    ready.evidence.set_model(None)
    until(ready, qapp, lambda: not panel.picture.has_picture)
    assert panel.picture.text() == (
        "The scan has not been encoded. Choose a model and press Encode."
    )
    assert not panel.save.isEnabled()
    assert not panel.copy.isEnabled()


def test_the_last_plane_stays(figure_panel) -> None:
    some = figure_panel.form.fields["planes"].widget
    some.put(("axial", "coronal"))
    some.boxes["axial"].setChecked(False)
    assert some.get() == ("coronal",)
    assert not some.boxes["coronal"].isEnabled()
    some.boxes["sagittal"].setChecked(True)
    assert some.boxes["coronal"].isEnabled()


# -- structures -----------------------------------------------------------------------------------


@pytest.fixture
def structures_panel(desk: Desk, qtbot):
    from simcrop_viewer.view.structures_panel import StructuresPanel

    structures = StructuresController(desk.session, desk.jobs, desk.evidence)
    structures.refused.connect(desk.refused.append)
    panel = StructuresPanel(desk.session, structures, desk.evidence)
    panel.structures = structures
    panel.resize(420, 900)
    qtbot.addWidget(panel)
    panel.show()
    yield panel
    panel.disconnect_all()
    structures.close()


def test_structures_are_found_listed_ticked_gone_to_and_saved(
    desk: Desk, structures_panel, qapp, qtbot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qtpy.QtCore import Qt
    from qtpy.QtWidgets import QFileDialog

    panel, table, state = (
        structures_panel,
        structures_panel.table,
        structures_panel.structures.state,
    )
    assert panel.state.text() == "Open a scan to begin."
    study, centers = two_balls("LPS")
    desk.session.show(study)
    assert panel.state.text() == "Choose a model in the Encode tab."
    desk.evidence.set_model(Model(None))
    assert "has no segmentation head" in panel.state.text()
    assert not panel.segment.isEnabled()
    desk.evidence.set_model(Model(Threshold()))
    qtbot.mouseClick(panel.segment, Qt.LeftButton)
    assert panel.segment.text() == "Cancel"
    assert panel.progress.isVisible()
    until(desk, qapp, lambda: table.rowCount() == 3 and not desk.jobs.running)
    assert [table.item(row, 1).text() for row in range(3)] == list(Threshold.labels)
    volumes = [f"{row.volume_ml:.1f}" for row in state.rows[:2]]
    assert [table.item(row, 2).text() for row in range(3)] == [*volumes, "none"]
    assert panel.segment.text() == "Segment again"

    place = table.visualItemRect(table.item(1, 1)).center()
    qtbot.mouseClick(table.viewport(), Qt.LeftButton, pos=place)
    assert abs(desk.session.position_mm - centers[1]).max() < 2.5
    table.item(0, 0).setCheckState(Qt.Unchecked)
    assert [row.is_shown for row in state.rows] == [False, True, True]
    qtbot.mouseClick(panel.show_none, Qt.LeftButton)
    assert table.item(1, 0).checkState() == Qt.Unchecked
    out = str(tmp_path / "labels")
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (out, ""))
    qtbot.mouseClick(panel.save, Qt.LeftButton)
    until(desk, qapp, lambda: panel.state.text().startswith("Saved as"))
    assert {path.name for path in tmp_path.iterdir()} == {"labels.nii.gz", "labels.json"}
    assert desk.refused == []


def test_segmenting_is_cancelled_by_the_same_button(
    desk: Desk, structures_panel, qapp, qtbot
) -> None:
    from qtpy.QtCore import Qt

    panel = structures_panel
    desk.session.show(two_balls("LPS")[0])
    desk.evidence.set_model(Model(Threshold()))
    qtbot.mouseClick(panel.segment, Qt.LeftButton)
    qtbot.mouseClick(panel.segment, Qt.LeftButton)
    assert panel.segment.text() == "Cancelling ..."
    until(desk, qapp, lambda: not desk.jobs.running)
    assert panel.segment.text() == "Segment"
    assert panel.table.rowCount() == 0
    assert not panel.progress.isVisible()


def test_a_colour_is_chosen_by_a_double_click(
    desk: Desk, structures_panel, qapp, qtbot, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qtpy.QtGui import QColor
    from qtpy.QtWidgets import QColorDialog

    panel = structures_panel
    desk.session.show(two_balls("LPS")[0])
    desk.evidence.set_model(Model(Threshold()))
    panel.press()
    until(desk, qapp, lambda: not desk.jobs.running)
    monkeypatch.setattr(QColorDialog, "getColor", lambda *_: QColor("#123456"))
    panel.table.cellDoubleClicked.emit(1, 0)
    assert [row.color == "#123456" for row in panel.structures.state.rows] == [False, True, False]
    monkeypatch.setattr(QColorDialog, "getColor", lambda *_: QColor())  # no colour was chosen
    panel.table.cellDoubleClicked.emit(0, 0)
    assert panel.structures.state.rows[0].color != "#000000"


# -- the report -----------------------------------------------------------------------------------


def test_lines_of_the_report_break_between_words_and_only_endless_words_within(
    desk: Desk, qtbot
) -> None:
    from qtpy.QtGui import QFontMetrics

    from simcrop_viewer.model.session import Statement
    from simcrop_viewer.view.report_panel import ReportPanel
    from simcrop_viewer.view.sentence_list import WRAP, wrapped_text

    panel = ReportPanel(desk.session, desk.evidence)
    qtbot.addWidget(panel)
    texts = ("The transverse diameter of the heart is minimally increased.", "a" * 90)
    desk.session.set_statements(tuple(Statement(text, "findings") for text in texts))
    model = panel.list.model()
    plain, endless = (wrapped_text(model.index(row, 0)) for row in (1, 2))  # below their heading
    assert plain == texts[0]
    metrics, rect = QFontMetrics(panel.font()), panel.rect()
    rect.setWidth(metrics.horizontalAdvance("a" * 40))
    assert metrics.boundingRect(rect, WRAP, endless).width() <= rect.width()
    assert metrics.boundingRect(rect, WRAP, texts[1]).width() > rect.width()
    panel.disconnect_all()


# -- encoding -------------------------------------------------------------------------------------


def test_the_input_is_placed_where_a_person_chooses(ready: Desk, qapp, qtbot) -> None:
    from qtpy.QtCore import Qt

    from simcrop_viewer.view.encode_panel import EncodePanel

    panel = EncodePanel(ready.session, ready.evidence)
    qtbot.addWidget(panel)
    assert panel.encode.text() == "Encode again (Ctrl+E)"
    assert "untrained: what it points at means nothing" in panel.about.text()
    place = panel.placement.findData("tiled")
    panel.placement.setCurrentIndex(place)
    panel.placement.activated.emit(place)
    assert panel.encode.text() == "Encode (Ctrl+E)"
    before = panel.notes.count()
    qtbot.mouseClick(panel.encode, Qt.LeftButton)
    until(ready, qapp, lambda: ready.evidence.placed == "tiled" and not ready.jobs.running)
    assert panel.encode.text() == "Encode again (Ctrl+E)"
    told = [panel.notes.item(n).text() for n in range(panel.notes.count())]
    assert len(told) <= before  # nothing is left out now
    assert not [note for note in told if "left out" in note]
    panel.disconnect_all()
