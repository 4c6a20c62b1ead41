"""Calls from threads, carried out by the window's event loop."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from qtpy.QtCore import QObject, Qt, Signal, Slot


class Poster(QObject):
    """Carries functions from any thread to the one that this object was made on."""

    _posted = Signal(object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._posted.connect(self._call, Qt.ConnectionType.QueuedConnection)

    def __call__(self, function: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the window is gone; nobody waits for this
            self._posted.emit(function)

    @Slot(object)  # type: ignore[untyped-decorator]
    def _call(self, function: Callable[[], None]) -> None:
        function()
