"""A list that reads like a report, and a line that remembers what was asked."""

from __future__ import annotations

import re
from typing import Any

from qtpy.QtCore import QEvent, QModelIndex, QRect, QSize, Qt, Signal
from qtpy.QtGui import QColor, QFont, QFontMetrics, QKeyEvent, QPainter, QPalette
from qtpy.QtWidgets import (
    QAbstractItemView,
    QLineEdit,
    QListWidget,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
)

#: What an item holds: a statement's number; score and whether it is supported; colour; that it is
#: a heading.
INDEX = int(Qt.ItemDataRole.UserRole)
SCORE = INDEX + 1
COLOR = INDEX + 2
HEADING = INDEX + 3
WRAP = int(Qt.TextFlag.TextWordWrap)
#: A word longer than this may be broken.
_LONG_WORD = re.compile(r"\S{28}(?=\S)")
_PAD = 6
_STRIPE = 4
_SCORE_WIDTH = 84


class SentenceList(QListWidget):
    """Sentences under headings; several may be chosen."""

    hovered = Signal(object)  # the sentence under the pointer, or None

    def __init__(self) -> None:
        super().__init__()
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setItemDelegate(_SentenceDelegate(self))
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setResizeMode(QListWidget.ResizeMode.Adjust)
        self.setMouseTracking(True)
        self.itemEntered.connect(lambda item: self.hovered.emit(item.data(INDEX)))
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
        heading = index.data(HEADING) is not None
        width = self.parent().viewport().width()
        room = width - 2 * _PAD - _STRIPE - (0 if heading else _SCORE_WIDTH)
        font = _font(option.font, heading)
        bounds = QFontMetrics(font).boundingRect(
            QRect(0, 0, max(60, room), 10_000),
            WRAP,
            wrapped_text(index),
        )
        return QSize(width, bounds.height() + 2 * _PAD)

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex) -> None:
        painter.save()
        heading = index.data(HEADING) is not None
        rect, palette = option.rect, option.palette
        chosen = bool(option.state & QStyle.StateFlag.State_Selected)
        if chosen:
            painter.fillRect(rect, palette.color(QPalette.ColorRole.Highlight).darker(160))
        elif option.state & QStyle.StateFlag.State_MouseOver and not heading:
            painter.fillRect(rect, palette.color(QPalette.ColorRole.AlternateBase))
        color = index.data(COLOR)
        if color:
            painter.fillRect(QRect(rect.left(), rect.top(), _STRIPE, rect.height()), QColor(color))
        text = rect.adjusted(_STRIPE + _PAD, _PAD, -_PAD - (0 if heading else _SCORE_WIDTH), -_PAD)
        painter.setFont(_font(option.font, heading))
        score: Any = index.data(SCORE)
        faint = score is not None and not score[1]
        pen = palette.color(QPalette.ColorRole.Text)
        if faint and not chosen:
            pen.setAlpha(150)
        painter.setPen(pen)
        painter.drawText(text, WRAP, wrapped_text(index))
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


def wrapped_text(index: QModelIndex) -> str:
    """What is written: Qt breaks lines between words, and at these marks within long ones."""
    text = str(index.data(int(Qt.ItemDataRole.DisplayRole)))
    return _LONG_WORD.sub("\\g<0>\N{ZERO WIDTH SPACE}", text)


def _font(base: QFont, heading: bool) -> QFont:
    font = QFont(base)
    font.setBold(heading)
    return font


class HistoryLine(QLineEdit):
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
