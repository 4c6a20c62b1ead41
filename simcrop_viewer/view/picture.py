"""A picture as large as fits."""

from __future__ import annotations

from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QPixmap, QResizeEvent
from qtpy.QtWidgets import QLabel, QSizePolicy


class Picture(QLabel):
    """A picture as large as fits, or words in its place."""

    def __init__(self) -> None:
        super().__init__()
        self.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.setWordWrap(True)
        self.setMinimumSize(QSize(160, 160))
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Ignored)
        self._whole = QPixmap()

    @property
    def has_picture(self) -> bool:
        return not self._whole.isNull()

    def show_picture(self, picture: QPixmap) -> None:
        self._whole = picture
        self.setEnabled(True)
        self._fit()

    def wait(self) -> None:
        """What is shown is no longer so; something else is being drawn."""
        if self.has_picture:
            self.setEnabled(False)
        else:
            self.setText("Drawing ...")

    def say(self, words: str) -> None:
        self._whole = QPixmap()
        self.setEnabled(True)
        self.clear()  # setting no words would leave the picture
        self.setText(words)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit()

    def _fit(self) -> None:
        if self.has_picture:
            ratio = self.devicePixelRatioF()
            scaled = self._whole.scaled(
                self.size() * ratio,
                Qt.AspectRatioMode.KeepAspectRatio,
                Qt.TransformationMode.SmoothTransformation,
            )
            scaled.setDevicePixelRatio(ratio)
            self.setPixmap(scaled)
