"""One plane under two models, and their difference, side by side."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

from qtpy.QtCore import Qt
from qtpy.QtGui import QColor, QLinearGradient, QPainter, QPaintEvent, QResizeEvent
from qtpy.QtWidgets import QGridLayout, QLabel, QSizePolicy, QVBoxLayout, QWidget

from simcrop_viewer import layers
from simcrop_viewer.controller.compare import CompareController
from simcrop_viewer.controller.compare_scenes import CompareScenes
from simcrop_viewer.layers import PlaneName
from simcrop_viewer.model.comparison import FULL_COLOUR_SD, CommonGrid
from simcrop_viewer.scene import Scene
from simcrop_viewer.view.pane import Pane

#: Three panes stand in a row where the room is this many times as wide as it is high.
_WIDE = 1.6
_FIRST, _SECOND = layers.to_hex(layers.FIRST_MORE), layers.to_hex(layers.SECOND_MORE)


class CompareViews(QWidget):
    """Three panes, with a legend and what has to be said of them: in a row where there is width
    for it, else the difference below the two models.

    Parameters
    ----------
    compare
        What is compared.
    later
        Calls a function once the window is laid out.
    """

    def __init__(
        self, compare: CompareController, later: Callable[[Callable[[], None]], None]
    ) -> None:
        super().__init__()
        self._compare = compare
        self._later = later
        scenes = [Scene("axial") for _ in range(3)]
        self.panes = [Pane(scene, compare.session) for scene in scenes]
        self.scenes = CompareScenes(compare, scenes)
        self.legend = Legend()
        self.caption = QLabel()
        self.caption.setObjectName("compare-caption")
        self.caption.setWordWrap(True)
        self.words = QWidget()
        self.words.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self._alone: Pane | None = None
        self._in_a_row: bool | None = None
        beside = QVBoxLayout(self.words)
        beside.setContentsMargins(8, 4, 8, 4)
        beside.addWidget(self.legend)
        beside.addWidget(self.caption)
        beside.addStretch(1)
        for pane in self.panes:
            pane.title.setMinimumWidth(60)  # a long name must not push the others
            pane.maximised.connect(self._maximise)
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setSpacing(3)
        self._arrange(in_a_row=False)
        for signal in (compare.changed, compare.compared):
            signal.connect(self.tell)
        self.tell()
        for pane in self.panes:
            pane.tell_where()

    def _arrange(self, *, in_a_row: bool) -> None:
        if in_a_row == self._in_a_row:
            return
        self._in_a_row = in_a_row
        for widget in (*self.panes, self.words):
            self._grid.removeWidget(widget)
        columns = 3 if in_a_row else 2
        for number, pane in enumerate(self.panes):
            self._grid.addWidget(pane, number // columns, number % columns)
        if in_a_row:
            self._grid.addWidget(self.words, 1, 0, 1, 3)
        else:
            self._grid.addWidget(self.words, 1, 1)
        for column in range(3):
            self._grid.setColumnStretch(column, 1 if column < columns else 0)
        self._stretch()
        self._later(self.fit)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._arrange(in_a_row=self.width() > _WIDE * self.height())

    def let_go(self) -> None:
        """Let go of what is compared, and of the canvases."""
        for signal in (self._compare.changed, self._compare.compared):
            signal.disconnect(self.tell)
        self.scenes.close()
        for pane in self.panes:
            pane.let_go(canvas=True)

    def fit(self) -> None:
        """The whole scan in each pane."""
        self.scenes.fit()

    def show_plane(self, plane: PlaneName) -> None:
        """Look at another plane, in all three."""
        self.scenes.plane = plane
        for pane in self.panes:
            pane.tell_where()

    def tell(self) -> None:
        """Name the models, and say what is subtracted from what."""
        if not self._compare.is_on:
            return
        first, second = self._compare.titles
        titles = (
            f'<b style="color: {_FIRST}">{escape(first)}</b>',
            f'<b style="color: {_SECOND}">{escape(second)}</b>',
            f"<b>Difference: {escape(first)} − {escape(second)}</b>",
        )
        for pane, title in zip(self.panes, titles, strict=True):
            pane.title.setText(title)
            pane.title.setToolTip(title)
        self.legend.name(first, second)
        top = (self._compare.first.overlay.top_k, self._compare.second.overlay.top_k)
        self.caption.setText(in_words(first, second, self._compare.comparison.common(), top))

    def _maximise(self, pane: Pane) -> None:
        self._alone = pane if self._alone is None else None
        for other in self.panes:
            other.setVisible(self._alone in (None, other))
        self._stretch()

    def _stretch(self) -> None:
        """Give the room to the rows in which there are panes now."""
        above = self._in_a_row or self._alone is not self.panes[2]
        below = not self._in_a_row and self._alone in (None, self.panes[2])
        self._grid.setRowStretch(0, int(above))
        self._grid.setRowStretch(1, int(below))


def in_words(first: str, second: str, common: CommonGrid | None, top: tuple[int, int]) -> str:
    """What is subtracted from what, and how it was made comparable; as rich text."""
    first, second = escape(first), escape(second)
    words = [
        f"<b>{first} \N{MINUS SIGN} {second}</b>, for the sentence that was chosen last.",
        "Similarities of two models have no common scale, so each is told in standard deviations "
        "(SD) from its own mean over its own patches in the body.",
    ]
    if common is not None and not common.is_same:
        coarse, fine = (first, second) if common.is_of_second else (second, first)
        size = " x ".join(f"{s:.3g}" for s in common.patches.size_mm)
        words.append(
            f"Their patches differ: the difference is drawn on those of {fine} ({size} mm), and "
            f"the patch of {coarse} that covers the middle of each counts."
        )
    words.append("Beyond the grey line not both models have a patch in the body: nothing is drawn.")
    if top[0] != top[1]:
        words.append(
            f"Outlined: the top {top[0]} patches of {first}, the top {top[1]} of {second}."
        )
    return " ".join(words)


class Legend(QWidget):
    """The colours of the difference, with their numbers."""

    _BAR = 12

    def __init__(self) -> None:
        super().__init__()
        self.setFixedSize(300, 46)
        self._ends = ("", "")

    def name(self, first: str, second: str) -> None:
        """Say which model has which end."""
        self._ends = (f"{second} more", f"{first} more")
        self.setToolTip(
            f"Orange: {first} finds the sentence more like the place than {second} does, in "
            "standard deviations of each; blue: less."
        )
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        width = self.width()
        colors = [QColor.fromRgbF(*color) for color in (layers.SECOND_MORE, layers.FIRST_MORE)]
        gradient = QLinearGradient(0, 0, width, 0)
        gradient.setColorAt(0, colors[0])
        gradient.setColorAt(0.5, QColor("#202020"))
        gradient.setColorAt(1, colors[1])
        line = self.fontMetrics().height()
        half = width // 2 - 4
        metrics = self.fontMetrics()
        sides = (Qt.AlignmentFlag.AlignLeft, Qt.AlignmentFlag.AlignRight)
        painter.setPen(self.palette().color(self.foregroundRole()))
        for number, (text, side) in enumerate(zip(self._ends, sides, strict=True)):
            words = metrics.elidedText(text, Qt.TextElideMode.ElideMiddle, half)
            painter.drawText(number * (width - half), 0, half, line, int(side), words)
        painter.fillRect(0, line, width, self._BAR, gradient)
        limit = f"{FULL_COLOUR_SD:.0f}"
        low, high = f"\u2264 \u2212{limit} SD", f"\u2265 +{limit} SD"
        marks = ((low, sides[0]), ("0", Qt.AlignmentFlag.AlignHCenter), (high, sides[1]))
        for text, side in marks:
            painter.drawText(0, line + self._BAR, width, line, int(side), text)
        painter.end()
