"""Training: a run to start, and those that were started."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QTabWidget, QVBoxLayout, QWidget

from simcrop_viewer.view.message_bar import MessageBar

if TYPE_CHECKING:
    from simcrop_viewer.controller.training import TrainingController
    from simcrop_viewer.view.run_form import RunForm
    from simcrop_viewer.view.runs_view import RunsView

_LOOK_EVERY_MS = 500


class TrainingPanel(QWidget):
    """The form of a new run, and the runs; made when they are first seen, so that nobody else
    waits for them, and looking only while they are.

    ``checkpoint_wanted`` carries the folder of a model that is to be used in the window.

    Parameters
    ----------
    training
        Gives the controller once it is needed.
    """

    checkpoint_wanted = Signal(str)
    form: RunForm
    runs: RunsView

    def __init__(self, training: Callable[[], TrainingController]) -> None:
        super().__init__()
        self._give = training
        self._made = self._met = self._closed = False
        self._timer = QTimer(self)
        self._timer.setInterval(_LOOK_EVERY_MS)

    def _make(self) -> None:
        from simcrop_viewer.view.run_form import RunForm
        from simcrop_viewer.view.runs_view import RunsView

        self._made = True
        self._training = self._give()
        self._timer.timeout.connect(self._training.look)
        self.messages = MessageBar()
        self.form = RunForm(self._training)
        self.runs = RunsView(self._training, self.form.choose_place)
        self.tabs = QTabWidget()
        self.tabs.addTab(self.form, "New run")
        self.tabs.addTab(self.runs, "Runs")
        body = QVBoxLayout(self)
        body.setContentsMargins(0, 8, 0, 0)
        body.addWidget(self.messages)
        body.addWidget(self.tabs)
        self.runs.checkpoint_wanted.connect(self.checkpoint_wanted)
        self._training.refused.connect(self.messages.tell)
        self._training.started.connect(self._started)
        self._training.looked.connect(self._meet)

    def disconnect_all(self) -> None:
        """Let go of the controller, and have it let go of the runs, which go on."""
        self._closed = True
        self._timer.stop()
        if self._made:
            self._training.refused.disconnect(self.messages.tell)
            self._training.started.disconnect(self._started)
            self._training.looked.disconnect(self._meet)
            self.form.disconnect_all()
            self.runs.disconnect_all()
            self._training.close()

    def follow(self, seen: bool) -> None:
        """Look again and again while the panel is seen. (A dock behind another one is not hidden
        for Qt; only the dock itself tells.)"""
        if not seen or self._closed:
            self._timer.stop()
        elif not self._timer.isActive():
            if not self._made:
                self._make()
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
