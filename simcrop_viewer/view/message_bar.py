"""One sentence about what went wrong and what to do, above the panels."""

from __future__ import annotations

import traceback

from qtpy.QtWidgets import QApplication, QFrame, QHBoxLayout, QLabel, QPushButton, QToolButton

from simcrop_core.errors import SimCroPError


class MessageBar(QFrame):
    """Hidden until there is something to say."""

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("messages")
        self.setStyleSheet("QFrame#messages { background: #5b2b2b; border-radius: 4px; }")
        self.words = QLabel()
        self.words.setWordWrap(True)
        self._copy = QPushButton("Copy details")
        self._copy.clicked.connect(self._to_clipboard)
        close = QToolButton()
        close.setText("✕")
        close.setAutoRaise(True)
        close.clicked.connect(self.hide)
        row = QHBoxLayout(self)
        row.addWidget(self.words, 1)
        row.addWidget(self._copy)
        row.addWidget(close)
        self._details = ""
        self.hide()

    def tell(self, error: SimCroPError) -> None:
        """Show an error; the next one takes its place. Its details are where it came from."""
        self.words.setText(f"{error.problem} {error.remedy}".strip())
        came = "".join(traceback.format_exception(error))
        self._details = f"{error} [{error.code}]\n{came}"
        self.show()

    def _to_clipboard(self) -> None:
        clipboard = QApplication.clipboard()
        if clipboard is not None:
            clipboard.setText(self._details)
