"""One sentence about what went wrong and what to do, above the panels."""

from __future__ import annotations

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

    def tell(self, error: SimCroPError, details: str = "") -> None:
        """Show an error; the next one takes its place."""
        self.words.setText(f"{error.problem} {error.remedy}".strip())
        self._details = "\n".join(part for part in (f"{error} [{error.code}]", details) if part)
        self.show()

    def _to_clipboard(self) -> None:
        clipboard = QApplication.clipboard()
        if clipboard is not None:
            clipboard.setText(self._details)
