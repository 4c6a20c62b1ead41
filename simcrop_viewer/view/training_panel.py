"""Training: a run to start, and those that were started."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QTabWidget, QVBoxLayout, QWidget

from simcrop_viewer.controller.training import TrainingController
from simcrop_viewer.view.message_bar import MessageBar
from simcrop_viewer.view.run_form import RunForm
from simcrop_viewer.view.runs_view import RunsView

_LOOK_EVERY_MS = 500


class TrainingPanel(QWidget):
    """The form of a new run, and the runs; both look only while they are seen.

    ``checkpoint_wanted`` carries the folder of a model that is to be used in the window.
    """

    checkpoint_wanted = Signal(str)

    def __init__(self, training: TrainingController) -> None:
        super().__init__()
        self._training = training
        self._met = self._closed = False
        self.messages = MessageBar()
        self.form = RunForm(training)
        self.runs = RunsView(training, self.form.choose_place)
        self.tabs = QTabWidget()
        self.tabs.addTab(self.form, "New run")
        self.tabs.addTab(self.runs, "Runs")
        body = QVBoxLayout(self)
        body.setContentsMargins(0, 8, 0, 0)
        body.addWidget(self.messages)
        body.addWidget(self.tabs)
        self._timer = QTimer(self)
        self._timer.setInterval(_LOOK_EVERY_MS)
        self._timer.timeout.connect(training.look)
        self.runs.checkpoint_wanted.connect(self.checkpoint_wanted)
        training.refused.connect(self.messages.tell)
        training.started.connect(self._started)
        training.looked.connect(self._meet)

    def disconnect_all(self) -> None:
        """Let go of the controller."""
        self._closed = True
        self._timer.stop()
        self._training.refused.disconnect(self.messages.tell)
        self._training.started.disconnect(self._started)
        self._training.looked.disconnect(self._meet)
        self.form.disconnect_all()
        self.runs.disconnect_all()

    def follow(self, seen: bool) -> None:
        """Look again and again while the panel is seen. (A dock behind another one is not hidden
        for Qt; only the dock itself tells.)"""
        if not seen or self._closed:
            self._timer.stop()
        elif not self._timer.isActive():
            self._training.ask_for_recipes()
            self._training.look()
            self._timer.start()

    def _meet(self) -> None:
        """At the first look: follow a run that is under way, or show the newest one."""
        if self._met:
            return
        self._met = True
        rows = self._training.seen.rows
        going = [row.folder for row in rows if row.goes_on]
        if not self._training.chosen and rows:
            self._training.choose(going[:1] or [rows[0].folder])
        if going:
            self.tabs.setCurrentWidget(self.runs)

    def _started(self, folder: Path) -> None:
        self.messages.hide()
        self.tabs.setCurrentWidget(self.runs)
