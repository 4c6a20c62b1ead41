"""Runs, past and present: a list, and what those that are chosen tell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from qtpy.QtCore import QItemSelectionModel, Qt, Signal
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QFrame,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QPlainTextEdit,
    QPushButton,
    QScrollArea,
    QSlider,
    QSplitter,
    QTableWidget,
    QTableWidgetItem,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

from simcrop_viewer.controller.training import TrainingController
from simcrop_viewer.model.run_charts import number
from simcrop_viewer.model.run_summary import RunSummary, in_words, when
from simcrop_viewer.view.run_curves import COLORS, Curves
from simcrop_viewer.view.run_previews import RunPreviews

_COLUMNS = ("Run", "State", "Step", "Loss")
_FOLDER = int(Qt.ItemDataRole.UserRole)
_STATES = {
    "starting": "#9fb8d0",
    "running": "#56b4e9",
    "stopping": "#9fb8d0",
    "finished": "#7fc97f",
    "failed": "#ff8a80",
    "killed": "#ffb074",
}


class RunsView(QWidget):
    """List, Stop, Resume and Open checkpoint here; curves, log, pictures and figures."""

    checkpoint_wanted = Signal(str)

    def __init__(self, training: TrainingController, choose_place: Callable[[], None]) -> None:
        super().__init__()
        self._training = training
        self._telling = False
        self._told: list[tuple[RunSummary, str | None]] = []
        self.table = _table()
        self.state = _words()
        self.error = _words("color: #ff8a80;")
        self.stop = QPushButton("Stop")
        self.stop.setToolTip("It finishes its step, saves and ends, as by simcrop-train stop")
        self.resume = QPushButton("Resume")
        self.resume.setToolTip("Go on from the newest checkpoint, with the same settings")
        self.open = QPushButton("Open checkpoint here")
        self.place = QPushButton("Other folder ...")
        self.curves = Curves()
        self.smoothing = QSlider(Qt.Orientation.Horizontal)
        self.logarithmic = QCheckBox("Logarithmic")
        self.log = QPlainTextEdit()
        self.log.setReadOnly(True)
        self.previews = RunPreviews()
        self.result = QPlainTextEdit()
        self.result.setReadOnly(True)
        self.differences = QPlainTextEdit()
        self.differences.setReadOnly(True)
        self.nothing = _words()
        self._lay_out()
        self.table.itemSelectionChanged.connect(self._selected)
        self.stop.clicked.connect(lambda: self._with_row(training.stop))
        self.resume.clicked.connect(lambda: self._with_row(lambda row: training.resume(row.folder)))
        self.open.clicked.connect(lambda: self._with_row(self._open))
        self.place.clicked.connect(lambda: choose_place())
        self.smoothing.valueChanged.connect(lambda v: self.curves.set_smoothing(v / 100))
        self.logarithmic.toggled.connect(self.curves.set_logarithmic)
        self.smoothing.setValue(50)
        training.looked.connect(self.tell)
        training.chosen_changed.connect(self.tell)
        training.starting_changed.connect(self.tell)
        self.tell()

    def disconnect_all(self) -> None:
        """Let go of the controller."""
        self._training.looked.disconnect(self.tell)
        self._training.chosen_changed.disconnect(self.tell)
        self._training.starting_changed.disconnect(self.tell)

    def _lay_out(self) -> None:
        self.smoothing.setRange(0, 95)
        self.smoothing.setToolTip("How much a curve is smoothed; the raw one stays behind it")
        how = QHBoxLayout()
        how.addWidget(QLabel("Smooth"))
        how.addWidget(self.smoothing, 1)
        how.addWidget(self.logarithmic)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(self.curves)
        page = QWidget()
        rows = QVBoxLayout(page)
        rows.setContentsMargins(0, 4, 0, 0)
        rows.addLayout(how)
        rows.addWidget(self.nothing)
        rows.addWidget(scroll, 1)
        rows.addWidget(_words(text="— training   ╌• validation   ··· chance"))
        self.tabs = QTabWidget()
        for title, part in (
            ("Curves", page),
            ("Log", self.log),
            ("Previews", self.previews),
            ("Result", self.result),
            ("Differences", self.differences),
        ):
            self.tabs.addTab(part, title)
        buttons = QHBoxLayout()
        for button in (self.stop, self.resume, self.open):
            buttons.addWidget(button)
        top, below = QWidget(), QWidget()
        for part in (top, below):
            QVBoxLayout(part).setContentsMargins(0, 0, 0, 0)
        top.layout().addWidget(self.table)
        head = QHBoxLayout()
        self.where = _words()
        head.addWidget(self.where, 1)
        head.addWidget(self.place)
        top.layout().addLayout(head)
        below.layout().addWidget(self.state)
        below.layout().addWidget(self.error)
        below.layout().addLayout(buttons)
        below.layout().addWidget(self.tabs, 1)
        parts = QSplitter(Qt.Orientation.Vertical)
        parts.addWidget(top)
        parts.addWidget(below)
        parts.setStretchFactor(1, 1)
        parts.setSizes([190, 600])
        parts.setChildrenCollapsible(False)
        body = QVBoxLayout(self)
        body.setContentsMargins(6, 6, 6, 6)
        body.addWidget(parts)

    # -- which ----------------------------------------------------------------------------------

    @property
    def row(self) -> RunSummary | None:
        """The run that buttons, log and pictures are of: the first of the chosen ones."""
        chosen = self._training.chosen
        return self._training.row(chosen[0]) if chosen else None

    def _with_row(self, do: Callable[[RunSummary], Any]) -> None:
        if self.row is not None:
            do(self.row)

    def _open(self, row: RunSummary) -> None:
        if row.checkpoint is not None:
            self.checkpoint_wanted.emit(str(row.checkpoint))

    def _selected(self) -> None:
        if self._telling:
            return
        rows = sorted({index.row() for index in self.table.selectedIndexes()})
        folders = [Path(self.table.item(row, 0).data(_FOLDER)) for row in rows]
        kept = [folder for folder in self._training.chosen if folder in folders]
        self._training.choose([*kept, *(folder for folder in folders if folder not in kept)])

    # -- what they tell -------------------------------------------------------------------------

    def tell(self) -> None:
        """Show what the last look found."""
        chosen = self._training.chosen
        is_of_them = self._training.seen.chosen == chosen
        seen = self._training.seen.of(chosen)
        colors = dict(zip(chosen, COLORS, strict=False))
        self._tell_table(seen.rows, colors)
        self.where.setText(str(self._training.place.folder))
        row = self.row
        self.state.setText(self._in_words(row, len(chosen)))
        self.error.setText(row.error if row is not None else "")
        self.error.setVisible(bool(self.error.text()))
        self.stop.setEnabled(row is not None and row.state in ("starting", "running"))
        self.stop.setText("Stopping ..." if row is not None and row.state == "stopping" else "Stop")
        may_resume = row is not None and row.can_resume and not self._training.is_starting
        self.resume.setEnabled(may_resume)
        self.open.setEnabled(row is not None and row.checkpoint is not None)
        self.open.setToolTip(
            "None is saved yet"
            if row is None or row.checkpoint is None
            else f"{row.checkpoint}\nas the model of the Encode tab"
        )
        self.curves.show_charts(seen.charts, colors)
        self.nothing.setText(self._no_curves(row) if is_of_them and not seen.charts else "")
        self.nothing.setVisible(bool(self.nothing.text()))
        _tell_lines(self.log, seen.log, follow=True)
        self.previews.show_pictures(seen.previews)
        _tell_lines(self.result, seen.result)
        _tell_lines(self.differences, seen.differences)
        for part, there in (
            (self.previews, seen.previews),
            (self.result, seen.result),
            (self.differences, seen.differences),
        ):
            if not is_of_them:  # whoever looks at one page of run after run is left there
                continue
            place = self.tabs.indexOf(part)
            if self.tabs.isTabVisible(place) != bool(there):
                self.tabs.setTabVisible(place, bool(there))

    def _in_words(self, row: RunSummary | None, chosen: int) -> str:
        if row is None:
            return (
                "Choose a run; with Ctrl or Shift several, to compare them."
                if self._training.seen.rows
                else "No runs here yet."
            )
        more = f" (and {chosen - 1} more to compare)" if chosen > 1 else ""
        return f"<b>{row.name}</b>{more}<br>{in_words(row)}"

    def _no_curves(self, row: RunSummary | None) -> str:
        if row is None:
            return ""
        if row.goes_on:
            return row.stage or "No step is taken yet."
        return "This run has no curves."

    def _tell_table(self, rows: tuple[RunSummary, ...], colors: dict[Path, str]) -> None:
        self._telling = True
        table = self.table
        there = [table.item(n, 0).data(_FOLDER) for n in range(table.rowCount())]
        if there != [str(row.folder) for row in rows]:
            table.setRowCount(len(rows))
            for place in range(len(rows)):
                for column in range(len(_COLUMNS)):
                    table.setItem(place, column, QTableWidgetItem())
            self._told = []
        now = [(row, colors.get(row.folder)) for row in rows]
        for place, told in enumerate(now):
            if self._told[place : place + 1] != [told]:  # every change is drawn anew
                self._tell_row(place, *told)
        self._told = now
        self._select([place for place, row in enumerate(rows) if row.folder in colors])
        self._telling = False

    def _tell_row(self, place: int, row: RunSummary, color: str | None) -> None:
        step = "" if row.step is None else f"{row.step:,}"
        cells = (row.name, row.state, step, "" if row.loss is None else number(row.loss))
        for column, text in enumerate(cells):
            item = self.table.item(place, column)
            if item.text() != text:
                item.setText(text)
            if column >= 2:
                right = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
                item.setTextAlignment(right)
        first = self.table.item(place, 0)
        tip = "\n".join(part for part in (row.recipe, when(row.began), str(row.folder)) if part)
        first.setToolTip(tip)
        first.setData(_FOLDER, str(row.folder))
        if first.data(_FOLDER + 1) != color:
            first.setData(_FOLDER + 1, color)
            first.setIcon(_swatch(color))
        state = self.table.item(place, 1)
        state.setToolTip(row.error)
        tone = _STATES.get(row.state)
        if tone:
            state.setForeground(QColor(tone))
        else:
            state.setData(int(Qt.ItemDataRole.ForegroundRole), None)

    def _select(self, places: list[int]) -> None:
        """Mark the chosen rows without being told of it."""
        model = self.table.selectionModel()
        if {index.row() for index in model.selectedRows()} == set(places):
            return
        model.clearSelection()
        flags = QItemSelectionModel.SelectionFlag.Select | QItemSelectionModel.SelectionFlag.Rows
        for place in places:
            model.select(self.table.model().index(place, 0), flags)


def _table() -> QTableWidget:
    table = QTableWidget(0, len(_COLUMNS))
    table.setHorizontalHeaderLabels(list(_COLUMNS))
    table.verticalHeader().setVisible(False)
    table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
    table.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
    table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
    table.setShowGrid(False)
    header = table.horizontalHeader()
    header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
    header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
    return table


def _swatch(color: str | None) -> QIcon:
    swatch = QPixmap(12, 12)
    swatch.fill(QColor(color) if color else Qt.GlobalColor.transparent)
    return QIcon(swatch)


def _tell_lines(view: QPlainTextEdit, lines: tuple[str, ...], *, follow: bool = False) -> None:
    text = "\n".join(lines)
    if view.toPlainText() == text:
        return
    bar = view.verticalScrollBar()
    at_end = bar.value() >= bar.maximum() - 2
    before = bar.value()
    view.setPlainText(text)
    bar.setValue(bar.maximum() if follow and at_end else before)


def _words(style: str = "", text: str = "") -> QLabel:
    label = QLabel(text)
    label.setWordWrap(True)
    label.setStyleSheet(style)
    return label
