"""Curves of runs: one small chart for each quantity, drawn by Qt itself.

No plotting library is needed for a few hundred points, and none could be drawn as quickly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QEvent, QPointF, QRectF, QSize, Qt
from qtpy.QtGui import (
    QColor,
    QFont,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPalette,
    QPen,
    QPolygonF,
)
from qtpy.QtWidgets import QSizePolicy, QWidget

from simcrop_viewer.model.run_charts import SPEEDS, Chart, Line, number, smoothed, ticks

#: Of the chosen runs in their order; told apart by people who do not see red and green too.
COLORS = ("#56b4e9", "#e69f00", "#2ec4a0", "#f07ab0", "#f0e442", "#ff7043")
_WIDTH, _HEIGHT, _GAP = 340, 150, 8
_LEFT, _RIGHT, _TOP, _BOTTOM = 50.0, 12.0, 22.0, 18.0
_Points = NDArray[np.float64]


class Curves(QWidget):
    """Charts side by side as far as there is room; the pointer asks for figures."""

    def __init__(self) -> None:
        super().__init__()
        self.charts: tuple[Chart, ...] = ()
        self.colors: Mapping[Path, str] = {}
        self.smoothing = 0.0
        self.logarithmic = False
        self._smooth: dict[tuple[int, float], _Points] = {}
        self._pointer: QPointF | None = None
        self.setMouseTracking(True)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Minimum)

    def show_charts(self, charts: Sequence[Chart], colors: Mapping[Path, str]) -> None:
        """Draw these; nothing is drawn anew where they are the same."""
        if charts is self.charts and colors == self.colors:
            return
        self.charts, self.colors = tuple(charts), dict(colors)
        if isinstance(charts, tuple):
            self.charts = charts
        self._smooth = {}
        self._fit()

    def set_smoothing(self, weight: float) -> None:
        """How much of what came before a curve keeps, 0 to below 1."""
        self.smoothing = min(0.99, max(0.0, weight))
        self._smooth = {}
        self.update()

    def set_logarithmic(self, wanted: bool) -> None:
        """Show the loss and its terms by their orders of magnitude."""
        self.logarithmic = wanted
        self.update()

    # -- where the charts are -------------------------------------------------------------------

    @property
    def columns(self) -> int:
        return max(1, min(len(self.charts) or 1, self.width() // _WIDTH))

    def sizeHint(self) -> QSize:
        rows = math.ceil(len(self.charts) / self.columns)
        return QSize(_WIDTH, max(1, rows) * (_HEIGHT + _GAP))

    def minimumSizeHint(self) -> QSize:
        return QSize(160, self.sizeHint().height())

    def place(self, index: int) -> QRectF:
        """Where a chart is drawn, with its title and its axes."""
        row, column = divmod(index, self.columns)
        width = (self.width() - _GAP * (self.columns - 1)) / self.columns
        return QRectF(column * (width + _GAP), row * (_HEIGHT + _GAP), width, _HEIGHT)

    def _fit(self) -> None:
        self.setMinimumHeight(self.sizeHint().height())
        self.updateGeometry()
        self.update()

    def resizeEvent(self, event: object) -> None:
        super().resizeEvent(event)
        self._fit()

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        self._pointer = QPointF(event.pos())
        self.update()

    def leaveEvent(self, event: QEvent) -> None:
        self._pointer = None
        self.update()

    # -- drawing --------------------------------------------------------------------------------

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        font = QFont(self.font())
        font.setPointSizeF(max(7.0, font.pointSizeF() * 0.85))
        painter.setFont(font)
        span = _span([line.steps_P for chart in self.charts for line in chart.lines])
        for index, chart in enumerate(self.charts):
            place = self.place(index)
            if place.intersects(QRectF(event.rect())):
                self._draw(painter, place, chart, span)
        painter.end()

    def _draw(
        self, painter: QPainter, place: QRectF, chart: Chart, span: tuple[float, float]
    ) -> None:
        inner = place.adjusted(_LEFT, _TOP, -_RIGHT, -_BOTTOM)
        axes = _Axes(inner, span, self._range(chart), self._is_log(chart))
        text = self.palette().color(QPalette.ColorRole.WindowText)
        faint = QColor(text)
        faint.setAlpha(45)
        self._draw_axes(painter, axes, text, faint)
        painter.save()
        painter.setClipRect(inner.adjusted(-1, -1, 1, 1))
        for line in reversed(chart.lines):  # the first run is on top
            self._draw_line(painter, axes, line)
        painter.restore()
        bold = QFont(painter.font())
        bold.setBold(True)
        plain = painter.font()
        painter.setPen(text)
        painter.setFont(bold)
        title = QRectF(place.left() + _LEFT, place.top(), inner.width(), _TOP)
        middle = int(Qt.AlignmentFlag.AlignVCenter)
        painter.drawText(title, middle | int(Qt.AlignmentFlag.AlignLeft), chart.title)
        painter.setFont(plain)
        words = self._words(painter, axes, chart)
        painter.setPen(text)
        painter.drawText(title, middle | int(Qt.AlignmentFlag.AlignRight), words)

    def _draw_axes(self, painter: QPainter, axes: _Axes, text: QColor, faint: QColor) -> None:
        inner = axes.inner
        muted = QColor(text)
        muted.setAlpha(170)
        for value in axes.marks():
            y = axes.y(value)
            painter.setPen(QPen(faint, 1))
            painter.drawLine(QPointF(inner.left(), y), QPointF(inner.right(), y))
            painter.setPen(muted)
            room = QRectF(inner.left() - _LEFT, y - 8, _LEFT - 5, 16)
            flags = int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            painter.drawText(room, flags, number(value))
        marks = [step for step in ticks(*axes.span, 4) if step == int(step)]
        for step in marks:
            room = QRectF(axes.x(step) - 30, inner.bottom() + 2, 60, _BOTTOM - 2)
            if room.right() <= inner.right() + 30:
                painter.drawText(room, int(Qt.AlignmentFlag.AlignHCenter), number(step))

    def _draw_line(self, painter: QPainter, axes: _Axes, line: Line) -> None:
        color = QColor(self.colors.get(line.run, COLORS[0]))
        weak = QColor(color)
        weak.setAlpha(70)
        shown = self._shown(line)
        if line.kind == "training":
            if line.low_P is not line.values_P:
                band = axes.points(line.steps_P, line.high_P)
                band += axes.points(line.steps_P[::-1], line.low_P[::-1])
                painter.setPen(Qt.PenStyle.NoPen)
                weak.setAlpha(45)
                painter.setBrush(weak)
                painter.drawPolygon(QPolygonF(band))
                painter.setBrush(Qt.BrushStyle.NoBrush)
            elif shown is not line.values_P:
                painter.setPen(QPen(weak, 1))
                painter.drawPolyline(QPolygonF(axes.points(line.steps_P, line.values_P)))
        pen = QPen(color, 1.8 if line.kind == "training" else 1.3)
        if line.kind == "validation":
            pen.setStyle(Qt.PenStyle.DashLine)
        elif line.kind == "reference":
            weak.setAlpha(150)
            pen = QPen(weak, 1.2, Qt.PenStyle.DotLine)
        points = axes.points(line.steps_P, shown)
        painter.setPen(pen)
        painter.drawPolyline(QPolygonF(points))
        if line.kind == "validation" or len(points) == 1:
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(color)
            for point in points if len(points) <= 60 else ():
                painter.drawEllipse(point, 2.6, 2.6)
            painter.setBrush(Qt.BrushStyle.NoBrush)

    def _words(self, painter: QPainter, axes: _Axes, chart: Chart) -> str:
        """The figures under the pointer, or the newest ones of a run that is alone."""
        runs = {line.run for line in chart.lines}
        pointer = self._pointer
        inner = axes.inner
        if pointer is None or not (inner.left() <= pointer.x() <= inner.right()):
            if len(runs) > 1:
                return ""
            return _figures([(line, -1) for line in chart.lines])
        step = axes.step(pointer.x())
        muted = QColor(self.palette().color(QPalette.ColorRole.WindowText))
        muted.setAlpha(110)
        painter.setPen(QPen(muted, 1))
        painter.drawLine(QPointF(pointer.x(), inner.top()), QPointF(pointer.x(), inner.bottom()))
        near = [(line, int(np.abs(line.steps_P - step).argmin())) for line in chart.lines]
        if len(runs) > 1:
            kind = chart.lines[0].kind
            words = [_at(line, place, step) for line, place in near if line.kind == kind]
            return f"{number(round(step))}: {', '.join(words)}"
        return f"{number(round(step))}: {_figures(near)}"

    def _shown(self, line: Line) -> _Points:
        if line.kind != "training" or self.smoothing <= 0:
            return line.values_P
        key = (id(line), self.smoothing)
        if key not in self._smooth:
            self._smooth[key] = smoothed(line.values_P, self.smoothing)
        return self._smooth[key]

    def _is_log(self, chart: Chart) -> bool:
        trained = any(line.kind == "training" for line in chart.lines)
        is_loss = trained and chart.title not in SPEEDS
        positive = all(float(line.low_P.min()) > 0 for line in chart.lines)
        return self.logarithmic and is_loss and positive

    def _range(self, chart: Chart) -> tuple[float, float]:
        return _span([x for line in chart.lines for x in (line.low_P, line.high_P)])


class _Axes:
    """From steps and values to places in a rectangle, and back."""

    def __init__(
        self, inner: QRectF, span: tuple[float, float], values: tuple[float, float], log: bool
    ) -> None:
        self.inner, self.log = inner, log
        self.span = span if span[1] > span[0] else (span[0] - 1, span[1] + 1)
        low, high = (math.log10(v) for v in values) if log else values
        room = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
        self.low, self.high = low - room, high + room
        self._only = values[0] if values[0] == values[1] else None

    def marks(self) -> list[float]:
        if self._only is not None:
            return [self._only]
        if not self.log:
            return ticks(self.low, self.high, 4)
        whole = [10.0**p for p in range(math.ceil(self.low), math.floor(self.high) + 1)]
        if len(whole) >= 2:
            return whole
        return [v for v in ticks(10**self.low, 10**self.high, 4) if v > 0]

    def x(self, step: float) -> float:
        share = (step - self.span[0]) / (self.span[1] - self.span[0])
        return self.inner.left() + share * self.inner.width()

    def y(self, value: float) -> float:
        value = math.log10(value) if self.log else value
        return self.inner.bottom() - (value - self.low) / (self.high - self.low) * (
            self.inner.height()
        )

    def step(self, x: float) -> float:
        share = (x - self.inner.left()) / self.inner.width()
        return self.span[0] + share * (self.span[1] - self.span[0])

    def points(self, steps_P: _Points, values_P: _Points) -> list[QPointF]:
        return [
            QPointF(self.x(step), self.y(value))
            for step, value in zip(steps_P.tolist(), values_P.tolist(), strict=True)
        ]


def _span(arrays: Sequence[_Points]) -> tuple[float, float]:
    some = [array for array in arrays if len(array)]
    if not some:
        return 0.0, 1.0
    return min(float(a.min()) for a in some), max(float(a.max()) for a in some)


def _at(line: Line, place: int, step: float) -> str:
    """A run's figure at a step; a dash beyond its end."""
    beyond = step > line.steps_P[-1] + 1
    return "-" if beyond else number(float(line.values_P[place]))


def _figures(near: Sequence[tuple[Line, int]]) -> str:
    """``8.31 · validation 9.02``; a figure that chance would reach is called so."""
    names = {"training": "", "validation": "validation ", "reference": "chance "}
    order = {"training": 0, "validation": 1, "reference": 2}
    alone = not any(line.kind == "training" for line, _ in near)
    words = []
    for line, place in sorted(near, key=lambda one: order[one[0].kind]):
        name = "" if alone and line.kind == "validation" else names[line.kind]
        words.append(f"{name}{number(float(line.values_P[place]))}")
    return " · ".join(words)
