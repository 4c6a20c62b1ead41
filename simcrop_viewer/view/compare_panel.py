"""A second model for the open study, and how far the two agree, sentence by sentence."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QProgressBar,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from simcrop_viewer.controller.compare import CompareController
from simcrop_viewer.controller.compared import ComparedStatement
from simcrop_viewer.scene import PLANES
from simcrop_viewer.view.model_choice import ModelChoice

_NUMBERS = int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
#: Column titles, each with what it means.
_COLUMNS = (
    ("Sentence", ""),
    ("1st", "The first model's score: standard deviations above unrelated sentences."),
    ("2nd", "The second model's score: standard deviations above unrelated sentences."),
    (
        "Overlap",
        "Of both models' top K patches: what both cover by what either covers, in volume.",
    ),
    ("Apart", "From the middle of one model's best patch to that of the other's."),
)


class ComparePanel(QWidget):
    """Choice of the second model, plane, and a row for each sentence."""

    plane_wanted = Signal(str)

    def __init__(self, compare: CompareController) -> None:
        super().__init__()
        self._compare = compare
        self._telling = False
        self.models = ModelChoice("No second model", self._in_use)
        self.models.setObjectName("second-model")
        self.plane = QComboBox()
        self.plane.setObjectName("compare-plane")
        for plane in PLANES:
            self.plane.addItem(plane.capitalize(), plane)
        self.state = QLabel()
        self.state.setWordWrap(True)
        self.progress = QProgressBar()
        self.stop = QPushButton("Stop comparing")
        self.stop.setObjectName("stop-comparing")
        self.found = QWidget()
        self.table = _table()
        self.here = QLabel()
        self.here.setObjectName("compare-here")
        self.here.setWordWrap(True)
        self.best = [QPushButton("Best patch, 1st model"), QPushButton("Best patch, 2nd model")]
        self._lay_out()
        self.models.wanted.connect(self._want)
        self.stop.clicked.connect(self.press)
        self.plane.activated.connect(lambda *_: self.plane_wanted.emit(self.plane.currentData()))
        self.table.itemSelectionChanged.connect(self._chosen)
        self.best[0].clicked.connect(lambda: compare.go_to_best(0))
        self.best[1].clicked.connect(lambda: compare.go_to_best(1))
        session = compare.session
        self._signals: tuple[tuple[Any, Any], ...] = (
            (compare.changed, self.tell),
            (compare.compared, self._tell_rows),
            (compare.refused, self._refused),
            (session.selection_changed, self._select),
            (session.position_changed, self._tell_here),
        )
        for signal, answer in self._signals:
            signal.connect(answer)
        self.tell()

    def disconnect_all(self) -> None:
        """Let go of session and controller."""
        for signal, answer in self._signals:
            signal.disconnect(answer)

    def _lay_out(self) -> None:
        choice = QFormLayout()
        choice.addRow("Second model", self.models)
        go = QHBoxLayout()
        for button in self.best:
            button.setToolTip("Put the crosshair into its middle, for the sentence chosen last.")
            go.addWidget(button)
        inside = QVBoxLayout(self.found)
        inside.setContentsMargins(0, 0, 0, 0)
        plane = QFormLayout()
        plane.addRow("Plane", self.plane)
        inside.addLayout(plane)
        inside.addWidget(self.table, 1)
        inside.addWidget(self.here)
        inside.addLayout(go)
        body = QVBoxLayout(self)
        body.setContentsMargins(6, 6, 6, 6)
        body.addLayout(choice)
        body.addWidget(self.state)
        body.addWidget(self.progress)
        body.addWidget(self.found, 1)
        body.addWidget(self.stop)
        body.addStretch(0)

    def press(self) -> None:
        """Cancel what is under way where there is nothing to look at yet; else stop comparing."""
        job = self._compare.job
        if job is not None and not self._compare.is_on:
            job.cancel()
        else:
            self._compare.stop()

    def _in_use(self) -> str:
        return self._compare.second_evidence.model_folder

    def _want(self, folder: str) -> None:
        if not folder:
            self._compare.stop()
        elif self._compare.start(folder) is None:
            self.models.show_model(self._in_use())

    def _refused(self, *_: object) -> None:
        self.models.show_model(self._in_use())

    # -- words ----------------------------------------------------------------------------------

    def tell(self) -> None:
        """Say how everything stands."""
        compare, job = self._compare, self._compare.job
        if self._in_use() or job is None:
            self.models.show_model(self._in_use())
        first, second = compare.titles
        if compare.is_on:
            words = f"1st: {first}, 2nd: {second}."
        elif compare.state == "off":
            words = "The open study under another model, beside the one of the Encode tab."
        else:
            words = "The views change once the second model has seen the scan."
        self.state.setText(words)
        going = job is not None
        self.progress.setVisible(going)
        if job is not None:
            self.progress.setRange(0, 100 if job.share is not None else 0)
            self.progress.setValue(round(100 * (job.share or 0)))
            self.progress.setFormat(f"{job.what}: %p %" if job.share is not None else job.what)
        stopping = job is not None and job.state == "stopping"
        cancels = going and not compare.is_on
        self.stop.setText(
            "Cancelling ..." if stopping else "Cancel" if cancels else "Stop comparing"
        )
        self.stop.setEnabled(compare.state != "off" and not stopping)
        self.found.setVisible(compare.is_on)
        self._tell_rows()

    def _tell_rows(self) -> None:
        rows = self._compare.comparison.rows() if self._compare.is_on else []
        self._telling = True
        self.table.setRowCount(len(rows))
        for number, row in enumerate(rows):
            for column, text in enumerate(_cells(row)):
                item = QTableWidgetItem(text)
                if column:
                    item.setTextAlignment(_NUMBERS)
                else:
                    item.setToolTip(row.text)
                self.table.setItem(number, column, item)
        self._telling = False
        self._select()

    def _tell_here(self) -> None:
        session = self._compare.session
        if not self._compare.is_on:
            return
        if not session.selection:
            self.here.setText("Choose a sentence.")
            return
        found = self._compare.comparison.at(session.selection[-1], session.position_mm)
        self.here.setText(
            f"At the crosshair: {'not known yet.' if found is None else _here(*found)}"
        )

    # -- choosing -------------------------------------------------------------------------------

    def _chosen(self) -> None:
        if not self._telling:
            rows = [index.row() for index in self.table.selectionModel().selectedRows()]
            self._compare.session.select(*rows)

    def _select(self) -> None:
        if not self._compare.is_on:
            return
        selection = self._compare.session.selection
        self._telling = True
        self.table.clearSelection()
        for row in selection:
            for column in range(self.table.columnCount()):
                item = self.table.item(row, column)
                if item is not None:
                    item.setSelected(True)
        if selection and self.table.item(selection[-1], 0) is not None:
            self.table.scrollToItem(self.table.item(selection[-1], 0))
        self._telling = False
        self._tell_here()


def _here(first: float | None, second: float | None) -> str:
    if first is None or second is None:
        missing = "neither model" if first is second else "only one model"
        return f"{missing} has a patch here."
    return f"{first:+.1f} SD − {second:+.1f} SD = {first - second:+.1f} SD"


def _cells(row: ComparedStatement) -> tuple[str, ...]:
    agreement = row.agreement
    return (
        row.text,
        "" if row.first_score is None else f"{row.first_score:+.1f}",
        "" if row.second_score is None else f"{row.second_score:+.1f}",
        "" if agreement is None else f"{100 * agreement.overlap:.0f} %",
        "" if agreement is None else f"{agreement.best_apart_mm:.0f} mm",
    )


def _table() -> QTableWidget:
    table = QTableWidget(0, len(_COLUMNS))
    table.setObjectName("compared")
    for column, (title, about) in enumerate(_COLUMNS):
        item = QTableWidgetItem(title)
        item.setToolTip(about)
        table.setHorizontalHeaderItem(column, item)
    table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
    table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
    table.setShowGrid(False)
    table.setWordWrap(False)
    table.verticalHeader().setVisible(False)
    header = table.horizontalHeader()
    header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
    header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
    return table
