"""The report: sections and sentences to read and to choose from, and a line for own words."""

from __future__ import annotations

import re
from html import escape
from typing import Any

from numpy.typing import ArrayLike
from qtpy.QtCore import QEvent, QModelIndex, QRect, QSize, Qt, QTimer, Signal
from qtpy.QtGui import QColor, QFont, QKeyEvent, QPainter, QPalette
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QVBoxLayout,
    QWidget,
)

from simcrop_core.report import SECTION_TITLES
from simcrop_viewer.controller.evidence import EvidenceController
from simcrop_viewer.controller.scenes import ONE_COLOR, color_of
from simcrop_viewer.model.session import Session, Statement

_INDEX = int(Qt.ItemDataRole.UserRole)
_SCORE = _INDEX + 1
_COLOR = _INDEX + 2
_HEADING = _INDEX + 3
_TITLES = {**SECTION_TITLES, "query": "Your own words"}
_WRAP = int(Qt.TextFlag.TextWordWrap)
#: A word longer than this may be broken.
_LONG_WORD = re.compile(r"\S{28}(?=\S)")
_PAD = 6
_STRIPE = 4
_SCORE_WIDTH = 84
#: How long the pointer rests on a sentence before its evidence is shown.
_HOVER_MS = 150
#: Sentences that are named for a place.
_MOST_HERE = 4


class ReportPanel(QWidget):
    """Sentences; the chosen ones' evidence is what the views show."""

    def __init__(self, session: Session, evidence: EvidenceController) -> None:
        super().__init__()
        self._session = session
        self._evidence = evidence
        self._telling = False
        self.list = _Sentences()
        self.list.setObjectName("sentences")
        self.find = QLineEdit()
        self.find.setPlaceholderText("Find in the report")
        self.find.setClearButtonEnabled(True)
        self.section = QComboBox()
        self.section.setToolTip("Show one section only")
        self.ask = _History()
        self.ask.setObjectName("ask")
        self.ask.setPlaceholderText("Ask in your own words, such as: nodule in the left upper lobe")
        self.ask_button = QPushButton("Ask")
        self.state = QLabel()
        self.state.setWordWrap(True)
        self.here = QLabel()
        self.here.setObjectName("here")
        self.here.setWordWrap(True)
        self.here.setTextFormat(Qt.TextFormat.RichText)
        self.here.linkActivated.connect(lambda index: self._session.select(int(index)))
        self.here.hide()
        self.previous = QPushButton("Previous (K)")
        self.next = QPushButton("Next sentence (J)")
        self._lay_out()
        self.previous.clicked.connect(lambda: self.step(forward=False))
        self.next.clicked.connect(lambda: self.step(forward=True))
        self.list.itemSelectionChanged.connect(self._chosen)
        # A pointer that only passes by changes nothing.
        self._hovering = QTimer(self)
        self._hovering.setSingleShot(True)
        self._hovering.setInterval(_HOVER_MS)
        self._hovering.timeout.connect(self._hint)
        self._hovered: int | None = None
        self.list.hovered.connect(self._hover)
        self.find.textChanged.connect(self._filter)
        self.section.currentIndexChanged.connect(self._filter)
        self.ask.returnPressed.connect(self._ask)
        self.ask_button.clicked.connect(self._ask)
        session.statements_changed.connect(self._fill)
        session.selection_changed.connect(self._select)
        evidence.encoded_changed.connect(self._tell_state)
        evidence.model_changed.connect(self._tell_state)
        session.study_changed.connect(self._tell_state)
        session.study_changed.connect(self.find.clear)
        self._fill()
        self._tell_state()

    def disconnect_all(self) -> None:
        """Let go of session and controller."""
        self._hovering.stop()
        self._session.statements_changed.disconnect(self._fill)
        self._session.selection_changed.disconnect(self._select)
        self._session.study_changed.disconnect(self._tell_state)
        self._session.study_changed.disconnect(self.find.clear)
        self._evidence.encoded_changed.disconnect(self._tell_state)
        self._evidence.model_changed.disconnect(self._tell_state)

    def _lay_out(self) -> None:
        top = QHBoxLayout()
        top.addWidget(self.find, 1)
        top.addWidget(self.section)
        steps = QHBoxLayout()
        steps.addWidget(self.previous)
        steps.addWidget(self.next)
        own = QHBoxLayout()
        own.addWidget(self.ask, 1)
        own.addWidget(self.ask_button)
        body = QVBoxLayout(self)
        body.setContentsMargins(6, 6, 6, 6)
        body.addLayout(top)
        body.addWidget(self.list, 1)
        body.addWidget(self.here)
        body.addWidget(self.state)
        body.addLayout(steps)
        body.addLayout(own)

    # -- the list -------------------------------------------------------------------------------

    def _fill(self) -> None:
        self.here.hide()
        self._telling = True
        self.list.clear()
        section = None
        for index, statement in enumerate(self._session.statements):
            if statement.section != section:
                section = statement.section
                self._add_heading(section)
            self._add_sentence(index, statement)
        self._telling = False
        self._fill_sections()
        self._select()

    def _add_heading(self, section: str) -> None:
        item = QListWidgetItem(_TITLES.get(section, section.capitalize()))
        item.setData(_HEADING, section)
        item.setFlags(Qt.ItemFlag.NoItemFlags)
        self.list.addItem(item)

    def _add_sentence(self, index: int, statement: Statement) -> None:
        item = QListWidgetItem(statement.text)
        item.setData(_INDEX, index)
        score = statement.score
        if score is not None:
            item.setData(_SCORE, (score, bool(statement.is_supported)))
            item.setToolTip(_in_words(statement))
        self.list.addItem(item)

    def _fill_sections(self) -> None:
        there = list(dict.fromkeys(s.section for s in self._session.statements))
        wanted = [("All sections", ""), *((_TITLES.get(s, s), s) for s in there)]
        now = self.section.currentData()
        self.section.blockSignals(True)
        self.section.clear()
        for title, data in wanted:
            self.section.addItem(title, data)
        self.section.setCurrentIndex(max(0, self.section.findData(now)))
        self.section.blockSignals(False)
        self._filter()

    def _filter(self) -> None:
        words, wanted = self.find.text().casefold().split(), self.section.currentData()
        heading, shown = None, False
        statements = self._session.statements
        for row in range(self.list.count()):
            item = self.list.item(row)
            if item.data(_HEADING) is not None:
                if heading is not None:
                    heading.setHidden(not shown)
                heading, shown = item, False
                continue
            statement = statements[item.data(_INDEX)]
            fits = all(word in statement.text.casefold() for word in words)
            fits = fits and (not wanted or statement.section == wanted)
            item.setHidden(not fits)
            shown = shown or fits
        if heading is not None:
            heading.setHidden(not shown)

    # -- choosing -------------------------------------------------------------------------------

    def _hover(self, index: int | None) -> None:
        """The pointer is on a sentence, or on none."""
        self._hovered = index
        if index is None:
            self._hovering.stop()
            self._session.hint(None)
        else:
            self._hovering.start()

    def _hint(self) -> None:
        self._session.hint(self._hovered)

    def _chosen(self) -> None:
        if self._telling:
            return
        self._hovering.stop()
        rows = [item.data(_INDEX) for item in self.list.selectedItems()]
        before = [i for i in self._session.selection if i in rows]
        self._session.select(*before, *(i for i in sorted(rows) if i not in before))

    def _select(self) -> None:
        selection = self._session.selection
        self._telling = True
        for row in range(self.list.count()):
            item = self.list.item(row)
            index = item.data(_INDEX)
            if index is None:
                continue
            chosen = index in selection
            item.setSelected(chosen)
            color = None
            if chosen:
                color = color_of(selection.index(index), len(selection) > 1)
            item.setData(_COLOR, color)
            if chosen and index == selection[-1]:
                self.list.setCurrentItem(item, self.list.selectionModel().SelectionFlag.NoUpdate)
                self.list.scrollToItem(item)
        self._telling = False

    def step(self, *, forward: bool) -> None:
        """Choose the next sentence, or the one before, among those that the filters show."""
        rows = (self.list.item(row) for row in range(self.list.count()))
        shown = [row.data(_INDEX) for row in rows if not row.isHidden()]
        self._session.step(forward, [i for i in shown if i is not None])

    def show_here(self, world_mm: ArrayLike) -> None:
        """Which sentences look most like the patch at a place that was clicked."""
        ranked = self._evidence.statements_at(world_mm)[:_MOST_HERE]
        statements = self._session.statements
        lines = [
            f'{value:+.1f} &nbsp;<a href="{index}" style="color: {ONE_COLOR}">'
            f"{escape(statements[index].text)}</a>"
            for index, value in ranked
        ]
        self.here.setText("<b>Most like this place</b><br>" + "<br>".join(lines))
        self.here.setToolTip(
            "Standard deviations of this place's similarity above a sentence's mean in the scan"
        )
        self.here.setVisible(bool(ranked))

    def select_unsupported(self) -> None:
        """Choose the first sentence without support, or the next one."""
        wanted = [i for i, s in enumerate(self._session.statements) if s.is_supported is False]
        if wanted:
            now = self._session.selection[-1] if self._session.selection else -1
            self._session.select(next((i for i in wanted if i > now), wanted[0]))

    def _ask(self) -> None:
        text = self.ask.text().strip()
        if text:
            self.ask.remember(text)
            self._evidence.ask(text)

    def _tell_state(self) -> None:
        study = self._session.study
        ready = self._evidence.is_encoded
        self.ask.setEnabled(ready)
        self.ask_button.setEnabled(ready)
        if study is None:
            text = "Open a scan to begin: drop a folder or a file here, or press Ctrl+O."
        elif study.report is None:
            text = "This scan has no report. Open one, or paste it (Ctrl+Shift+V)."
            text += " You can ask in your own words." if ready else ""
        elif self._evidence.model is None:
            text = "Choose a model in the Encode tab to see where each sentence points."
        elif not ready:
            text = "Press Encode (Ctrl+E) to see where each sentence points."
        else:
            text = ""
        self.state.setText(text)
        self.state.setVisible(bool(text))


def _in_words(statement: Statement) -> str:
    assert statement.result is not None
    found = statement.result.sentences[statement.row]
    support = "" if statement.is_supported else "No support. "
    return (
        f"{support}Its best patches stand out further than those of {found.null_percentile:.0f} % "
        f"of unrelated sentences ({found.score:+.1f} standard deviations from their mean)."
    )


class _Sentences(QListWidget):
    hovered = Signal(object)  # the sentence under the pointer, or None

    def __init__(self) -> None:
        super().__init__()
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setItemDelegate(_SentenceDelegate(self))
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setResizeMode(QListWidget.ResizeMode.Adjust)
        self.setMouseTracking(True)
        self.itemEntered.connect(lambda item: self.hovered.emit(item.data(_INDEX)))
        self.viewportEntered.connect(lambda: self.hovered.emit(None))

    def leaveEvent(self, event: QEvent) -> None:
        self.hovered.emit(None)
        super().leaveEvent(event)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.text().lower() in ("j", "k", "h", "u"):
            event.ignore()  # keys of the window, not a search for a sentence by its first letter
            return
        super().keyPressEvent(event)


class _SentenceDelegate(QStyledItemDelegate):
    """Sentences wrapped as in a text, with a stripe in their colour and their score."""

    def sizeHint(self, option: QStyleOptionViewItem, index: QModelIndex) -> QSize:
        heading = index.data(_HEADING) is not None
        width = self.parent().viewport().width()
        room = width - 2 * _PAD - _STRIPE - (0 if heading else _SCORE_WIDTH)
        font = _font(option.font, heading)
        from qtpy.QtGui import QFontMetrics

        bounds = QFontMetrics(font).boundingRect(
            QRect(0, 0, max(60, room), 10_000),
            _WRAP,
            _text(index),
        )
        return QSize(width, bounds.height() + 2 * _PAD)

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex) -> None:
        painter.save()
        heading = index.data(_HEADING) is not None
        rect, palette = option.rect, option.palette
        chosen = bool(option.state & QStyle.StateFlag.State_Selected)
        if chosen:
            painter.fillRect(rect, palette.color(QPalette.ColorRole.Highlight).darker(160))
        elif option.state & QStyle.StateFlag.State_MouseOver and not heading:
            painter.fillRect(rect, palette.color(QPalette.ColorRole.AlternateBase))
        color = index.data(_COLOR)
        if color:
            painter.fillRect(QRect(rect.left(), rect.top(), _STRIPE, rect.height()), QColor(color))
        text = rect.adjusted(_STRIPE + _PAD, _PAD, -_PAD - (0 if heading else _SCORE_WIDTH), -_PAD)
        painter.setFont(_font(option.font, heading))
        score: Any = index.data(_SCORE)
        faint = score is not None and not score[1]
        pen = palette.color(QPalette.ColorRole.Text)
        if faint and not chosen:
            pen.setAlpha(150)
        painter.setPen(pen)
        painter.drawText(text, _WRAP, _text(index))
        if score is not None:
            self._paint_score(painter, rect, score)
        painter.restore()

    def _paint_score(self, painter: QPainter, rect: QRect, score: tuple[float, bool]) -> None:
        value, supported = score
        box = QRect(rect.right() - _SCORE_WIDTH, rect.top() + _PAD, _SCORE_WIDTH - _PAD, 16)
        painter.setPen(QColor("#7bd88f" if supported else "#e0a458"))
        text = f"{value:+.1f}" if supported else "no support"
        painter.drawText(
            box, int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter), text
        )


def _text(index: QModelIndex) -> str:
    """What is written: Qt breaks lines between words, and at these marks within long ones."""
    text = str(index.data(int(Qt.ItemDataRole.DisplayRole)))
    return _LONG_WORD.sub("\\g<0>\N{ZERO WIDTH SPACE}", text)


def _font(base: QFont, heading: bool) -> QFont:
    font = QFont(base)
    font.setBold(heading)
    return font


class _History(QLineEdit):
    """A line that remembers what was asked; the arrow keys go through it."""

    def __init__(self) -> None:
        super().__init__()
        self._asked: list[str] = []
        self._at = 0

    def remember(self, text: str) -> None:
        if text in self._asked:
            self._asked.remove(text)
        self._asked.append(text)
        self._at = len(self._asked)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        step = {Qt.Key.Key_Up: -1, Qt.Key.Key_Down: 1}.get(event.key())
        if step is None or not self._asked:
            super().keyPressEvent(event)
            return
        self._at = min(max(self._at + step, 0), len(self._asked))
        self.setText(self._asked[self._at] if self._at < len(self._asked) else "")
