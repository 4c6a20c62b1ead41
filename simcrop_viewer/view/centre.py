"""The middle of the window: the four views or, while models are compared, three of one plane."""

from __future__ import annotations

from collections.abc import Callable

from napari.qt import QtViewer
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QSplitter, QStackedLayout, QWidget

from simcrop_viewer.controller.compare import CompareController
from simcrop_viewer.controller.scenes import SceneController
from simcrop_viewer.layers import PlaneName
from simcrop_viewer.model.session import Session
from simcrop_viewer.view.compare_views import CompareViews
from simcrop_viewer.view.pane import Pane


class FourViews(QSplitter):
    """Axial, coronal, sagittal and 3D; any of them alone by a double click.

    Parameters
    ----------
    scenes, session
        What the panes show, and what the mouse in them changes.
    canvas
        napari's own view, which shows the first of the scenes.
    """

    maximised = Signal()

    def __init__(self, scenes: SceneController, session: Session, canvas: QtViewer) -> None:
        super().__init__(Qt.Orientation.Vertical)
        first, *others = scenes.scenes
        made = [Pane(first, session, canvas), *(Pane(scene, session) for scene in others)]
        self.panes = {pane.scene.name: pane for pane in made}
        self._own = canvas
        self._alone: Pane | None = None
        self._rows = []
        for pair in (made[:2], made[2:]):
            row = QSplitter(Qt.Orientation.Horizontal)
            row.setHandleWidth(3)
            for pane in pair:
                row.addWidget(pane)
                pane.maximised.connect(self._maximise)
            row.setSizes([1000, 1000])
            self.addWidget(row)
            self._rows.append(row)
        self.setSizes([1000, 1000])
        self.setHandleWidth(3)

    @property
    def seen(self) -> list[Pane]:
        """The panes that are not hidden behind one that stands alone."""
        return list(self.panes.values()) if self._alone is None else [self._alone]

    def _maximise(self, pane: Pane) -> None:
        self._alone = pane if self._alone is None else None
        for other in self.panes.values():
            other.setVisible(other in self.seen)
        for row in self._rows:
            row.setVisible(any(row.isAncestorOf(other) for other in self.seen))
        self.maximised.emit()

    def let_go(self) -> None:
        """Let go of the session, and of the canvases that are ours."""
        for pane in self.panes.values():
            pane.let_go(canvas=pane.canvas is not self._own)


class Centre(QWidget):
    """The four views, and in their place those of two models while these are compared.

    Parameters
    ----------
    four, scenes
        The usual views, and what keeps them up to date.
    compare
        What is compared.
    later
        Calls a function once the window is laid out.
    """

    pane_made = Signal(object)

    def __init__(
        self,
        four: FourViews,
        scenes: SceneController,
        compare: CompareController,
        later: Callable[[Callable[[], None]], None],
    ) -> None:
        super().__init__()
        self.four = four
        self.three: CompareViews | None = None
        self._scenes = scenes
        self._compare = compare
        self._later = later
        self._was_on = False
        # One in the place of the other: the docks around keep their widths.
        self._stack = QStackedLayout(self)
        self._stack.addWidget(four)
        four.maximised.connect(self._show_seen)
        compare.changed.connect(self._changed)

    def _changed(self) -> None:
        on = self._compare.is_on
        if on == self._was_on:
            return
        self._was_on = on
        if on and self.three is None:
            self.three = CompareViews(self._compare, self._later)
            self._stack.addWidget(self.three)
            for pane in self.three.panes:
                self.pane_made.emit(pane)
        assert self.three is not None
        self._stack.setCurrentWidget(self.three if on else self.four)
        self._show_seen()
        if on:
            self._later(self.three.fit)

    def show_plane(self, plane: PlaneName) -> None:
        """Compare in another plane."""
        if self.three is not None:
            self.three.show_plane(plane)

    def _show_seen(self) -> None:
        """Panes behind others are brought up to date once they are seen."""
        shown = [] if self._was_on else self.four.seen
        self._scenes.show_only([pane.scene for pane in shown])

    def let_go(self) -> None:
        """Let go of sessions and canvases."""
        self._compare.changed.disconnect(self._changed)
        self.four.let_go()
        if self.three is not None:
            self.three.let_go()
