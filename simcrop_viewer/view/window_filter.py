"""What happens to the window as a whole: it is closed, and files are dropped on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, QObject

if TYPE_CHECKING:
    from simcrop_viewer.view.window import MainWindow


class WindowFilter(QObject):
    """Sees the window close, and what is dropped anywhere on it."""

    def __init__(self, window: MainWindow) -> None:
        super().__init__(window.qt)
        self._window = window
        window.qt.setAcceptDrops(True)
        window.qt.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        kind = event.type()
        if kind == QEvent.Type.Close and watched is self._window.qt:
            self._window.let_go()
        if kind in (QEvent.Type.DragEnter, QEvent.Type.DragMove, QEvent.Type.Drop):
            return self._dropped(event)
        return False

    def _dropped(self, event: Any) -> bool:
        """Take files before napari does, which knows neither reports nor Hounsfield units."""
        paths = [url.toLocalFile() for url in event.mimeData().urls() if url.isLocalFile()]
        if not paths:
            return False
        event.acceptProposedAction()
        if event.type() == QEvent.Type.Drop:
            self._window.open_dropped(paths)
        return True
