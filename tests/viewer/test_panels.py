"""Panels as a person uses them, without the rest of the window."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from made_view import Desk

from simcrop_viewer.controller.figures import FigureController

pytestmark = pytest.mark.usefixtures("display")


def until(desk: Desk, qapp, condition: Callable[[], bool], seconds: float = 60) -> None:
    """Turn the event loop and read the mailbox until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        qapp.processEvents()
        desk.mailbox.read()
        time.sleep(0.01)


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
