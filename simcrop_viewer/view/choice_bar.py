"""A question above the panels: which series of a folder, which row of a csv."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, QSortFilterProxyModel, Qt
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import (
    QAbstractItemView,
    QFrame,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QLineEdit,
    QPushButton,
    QTableView,
    QVBoxLayout,
)

from simcrop_viewer.controller.study import StudyController
from simcrop_viewer.model.question import Question

_ROLE = Qt.ItemDataRole
#: With more rows than this there is a line to search them by.
_FEW = 12
_MOST_SEEN = 8
_NARROW_PX, _WIDE_PX = 50, 100


class ChoiceBar(QFrame):
    """Hidden until something has to be chosen; nothing else waits for the answer."""

    def __init__(self, studies: StudyController) -> None:
        super().__init__()
        self.setObjectName("choice")
        self.setStyleSheet("QFrame#choice { background: #2f4858; border-radius: 4px; }")
        self._studies = studies
        self.words = QLabel()
        self.words.setWordWrap(True)
        self.find = QLineEdit()
        self.find.setPlaceholderText("Search")
        self.find.setClearButtonEnabled(True)
        self.table = _Table()
        self._rows = QSortFilterProxyModel(self)
        self._rows.setFilterKeyColumn(-1)
        self._rows.setFilterCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
        self._model: _Rows | None = None
        self.table.setModel(self._rows)
        self.take = QPushButton("Open")
        self.leave = QPushButton("Cancel")
        self._lay_out()
        self.find.textChanged.connect(self._search)
        self.find.returnPressed.connect(self._take)
        self.table.doubleClicked.connect(lambda *_: self._take())
        self.table.entered_key = self._take
        self.take.clicked.connect(self._take)
        self.leave.clicked.connect(studies.dismiss)
        studies.question_changed.connect(self.tell)
        self.hide()

    def disconnect_all(self) -> None:
        """Let go of the controller."""
        self._studies.question_changed.disconnect(self.tell)

    def _lay_out(self) -> None:
        buttons = QHBoxLayout()
        buttons.addWidget(self.find, 1)
        buttons.addStretch()
        buttons.addWidget(self.take)
        buttons.addWidget(self.leave)
        body = QVBoxLayout(self)
        body.addWidget(self.words)
        body.addWidget(self.table)
        body.addLayout(buttons)

    def tell(self) -> None:
        """Show the question that waits, or nothing."""
        question = self._studies.question
        self.setVisible(question is not None)
        before, self._model = self._model, None if question is None else _Rows(question)
        self._rows.setSourceModel(self._model)
        if before is not None:
            before.deleteLater()
        self.find.clear()
        if question is None:
            return
        self.words.setText(question.text)
        few = len(question.rows) <= _FEW
        self.find.setVisible(not few)
        # A long table is not measured.
        self._fit(QHeaderView.ResizeMode.ResizeToContents if few else QHeaderView.ResizeMode.Fixed)
        seen = min(len(question.rows), _MOST_SEEN) + 1
        self.table.setFixedHeight(seen * self.table.verticalHeader().defaultSectionSize() + 24)
        self._select(question.usual)
        self.table.setFocus()

    def _fit(self, mode: QHeaderView.ResizeMode) -> None:
        header, last = self.table.horizontalHeader(), self._rows.columnCount() - 1
        for column in range(last):
            header.setSectionResizeMode(column, mode)
            if mode == QHeaderView.ResizeMode.Fixed:
                header.resizeSection(column, _NARROW_PX if column == 0 else _WIDE_PX)
        header.setSectionResizeMode(last, QHeaderView.ResizeMode.Stretch)

    def _select(self, row: int) -> None:
        if self._rows.rowCount():
            at = min(row, self._rows.rowCount() - 1)
            self.table.selectRow(at)
            self.table.scrollTo(self._rows.index(at, 0))

    def _search(self, text: str) -> None:
        self._rows.setFilterFixedString(text)
        self._select(0)

    def _take(self) -> None:
        at = self.table.currentIndex()
        if at.isValid():
            self._studies.answer(self._rows.mapToSource(at).row())


class _Rows(QAbstractTableModel):
    def __init__(self, question: Question) -> None:
        super().__init__()
        self._question = question

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(self._question.rows)

    def columnCount(self, parent: QModelIndex | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(self._question.columns)

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = int(_ROLE.DisplayRole)
    ) -> Any:
        if orientation == Qt.Orientation.Horizontal and role == _ROLE.DisplayRole:
            return self._question.columns[section]
        return None

    def data(self, index: QModelIndex, role: int = int(_ROLE.DisplayRole)) -> Any:
        if role in (_ROLE.DisplayRole, _ROLE.ToolTipRole) and index.isValid():
            return self._question.rows[index.row()][index.column()]
        return None


class _Table(QTableView):
    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("choices")
        self.entered_key = lambda: None
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.horizontalHeader().setDefaultAlignment(
            Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
        )
        rows = self.verticalHeader()
        rows.setVisible(False)
        rows.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        rows.setDefaultSectionSize(self.fontMetrics().height() + 6)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self.entered_key()
        else:
            super().keyPressEvent(event)
