"""A list of studies as a table; thousands of rows cost no more than those that are seen."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, Qt, Signal
from qtpy.QtGui import QColor, QFont, QKeyEvent
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableView, QWidget

from simcrop_viewer.model.studies import ListedStudy, StudyList

NUMBER, NAME, REPORT, STATE, NOTE = range(5)
_TITLES = ("No.", "Study", "Report", "Encoded", "Note")
_SAID = {"": "", "there": "yes", "none": "none", "several": "choose", "broken": "broken"}
_STATES = {
    "": "",
    "waiting": "waiting",
    "encoding": "encoding ...",
    "encoded": "yes",
    "failed": "failed",
}
_FAULT, _GOOD = QColor("#e0a458"), QColor("#7bd88f")
_ROLE = Qt.ItemDataRole
#: Keys that mean something in the whole window, and not a search by first letter.
_KEYS_OF_THE_WINDOW = ("j", "k", "h", "u")


class StudiesTableModel(QAbstractTableModel):
    """The rows of a list that its search shows."""

    def __init__(self, studies: StudyList, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._list = studies
        self._places: dict[int, int] = {}
        self._signals = (
            (studies.listed, self._reset),
            (studies.shown_changed, self._reset),
            (studies.rows_changed, self._tell),
        )
        for signal, answer in self._signals:
            signal.connect(answer)
        self._reset()

    def disconnect_all(self) -> None:
        """Let go of the list."""
        for signal, answer in self._signals:
            signal.disconnect(answer)

    def place_of(self, index: int) -> int | None:
        """Which row of the table a study is in; None while the search hides it."""
        return self._places.get(index)

    def study_at(self, place: int) -> int:
        """Which study a row of the table is."""
        return self._list.shown[place]

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(self._places)

    def columnCount(self, parent: QModelIndex | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(_TITLES)

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = int(_ROLE.DisplayRole)
    ) -> Any:
        if orientation == Qt.Orientation.Horizontal and role == _ROLE.DisplayRole:
            return _TITLES[section]
        return None

    def data(self, index: QModelIndex, role: int = int(_ROLE.DisplayRole)) -> Any:
        if not index.isValid() or index.row() >= len(self._list.shown):
            return None
        at = self._list.shown[index.row()]
        row, column = self._list.rows[at], index.column()
        if role == _ROLE.DisplayRole:
            return self._text(row, column)
        if role == _ROLE.ToolTipRole:
            return self._text(row, column) if column == NOTE else None
        if role == _ROLE.TextAlignmentRole and column == NUMBER:
            return int(Qt.AlignmentFlag.AlignRight) | int(Qt.AlignmentFlag.AlignVCenter)
        if role == _ROLE.ForegroundRole:
            return _color(row, column)
        if role == _ROLE.FontRole and at == self._list.open:
            font = QFont()
            font.setBold(True)
            return font
        return None

    def _text(self, row: ListedStudy, column: int) -> str:
        if column == NUMBER:
            return str(row.number)
        if column == NAME:
            return row.name
        if column == REPORT:
            return _SAID[row.said]
        if column == STATE:
            return _STATES[row.state]
        return row.fault or (row.excerpt(self._list.words) if self._list.words else "")

    def _reset(self) -> None:
        self.beginResetModel()
        self._places = {index: place for place, index in enumerate(self._list.shown)}
        self.endResetModel()

    def _tell(self, indices: tuple[int, ...]) -> None:
        places = [p for p in (self._places.get(i) for i in indices) if p is not None]
        if places:
            first, last = self.index(min(places), 0), self.index(max(places), NOTE)
            self.dataChanged.emit(first, last)


def _color(row: ListedStudy, column: int) -> QColor | None:
    if column == STATE and row.state == "encoded":
        return _GOOD
    if (column == NOTE and row.fault) or (column == STATE and row.state == "failed"):
        return _FAULT
    if column == REPORT and row.said == "broken":
        return _FAULT
    return None


class StudiesTable(QTableView):
    """The table; Enter or a double click opens a study."""

    wanted = Signal(int)  # a row of the table

    def __init__(self, model: StudiesTableModel) -> None:
        super().__init__()
        self.setObjectName("studies")
        self.setModel(model)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setTextElideMode(Qt.TextElideMode.ElideRight)
        self.setTabKeyNavigation(False)
        self.setMinimumHeight(70)
        rows = self.verticalHeader()
        rows.setVisible(False)
        # All of one height, so that nobody measures thousands of them.
        rows.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        rows.setDefaultSectionSize(self.fontMetrics().height() + 6)
        header = self.horizontalHeader()
        header.setStretchLastSection(True)
        header.setHighlightSections(False)
        header.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        for column, width in ((NUMBER, 52), (NAME, 150), (REPORT, 70), (STATE, 90)):
            self.setColumnWidth(column, width)
        self.doubleClicked.connect(lambda index: self.wanted.emit(index.row()))

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and self.currentIndex().isValid():
            self.wanted.emit(self.currentIndex().row())
        elif event.text().lower() in _KEYS_OF_THE_WINDOW:
            event.ignore()
        else:
            super().keyPressEvent(event)
