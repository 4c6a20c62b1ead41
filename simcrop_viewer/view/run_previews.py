"""Pictures that a run drew of a few fixed cases, from step to step."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import Qt
from qtpy.QtGui import QPixmap
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLabel, QSlider, QVBoxLayout, QWidget

from simcrop_viewer.view.picture import Picture

_Pictures = tuple[tuple[int, tuple[Path, ...]], ...]


class RunPreviews(QWidget):
    """One case at a time; a slider goes through the steps, and follows the newest one."""

    def __init__(self) -> None:
        super().__init__()
        self._pictures: _Pictures = ()
        self._shown: Path | None = None
        self.picture = Picture()
        self.cases = QComboBox()
        self.steps = QSlider(Qt.Orientation.Horizontal)
        self.step = QLabel()
        row = QHBoxLayout()
        row.addWidget(self.cases, 1)
        row.addWidget(self.steps, 2)
        row.addWidget(self.step)
        body = QVBoxLayout(self)
        body.setContentsMargins(0, 4, 0, 0)
        body.addLayout(row)
        body.addWidget(self.picture, 1)
        self.cases.activated.connect(lambda _: self._show())
        self.steps.valueChanged.connect(lambda _: self._show())

    def show_pictures(self, pictures: _Pictures) -> None:
        """Take the pictures that there are."""
        if pictures == self._pictures:
            return
        at_end = self.steps.value() >= self.steps.maximum()
        before = self._pictures
        self._pictures = pictures
        names = sorted({path.stem for _, some in pictures for path in some})
        if names != [self.cases.itemText(n) for n in range(self.cases.count())]:
            now = self.cases.currentText()
            self.cases.clear()
            self.cases.addItems(names)
            self.cases.setCurrentIndex(max(0, self.cases.findText(now)))
        self.steps.setRange(0, max(0, len(pictures) - 1))
        if at_end or not _same_run(before, pictures):
            self.steps.setValue(self.steps.maximum())
        self._show()

    def _show(self) -> None:
        if not self._pictures:
            self._shown = None
            self.step.setText("")
            self.picture.say("")
            return
        step, some = self._pictures[min(self.steps.value(), len(self._pictures) - 1)]
        self.step.setText(f"step {step:,}")
        path = next((path for path in some if path.stem == self.cases.currentText()), some[0])
        if path != self._shown:
            self._shown = path
            picture = QPixmap(str(path))
            if picture.isNull():
                self.picture.say("This picture cannot be read.")
            else:
                self.picture.show_picture(picture)


def _same_run(before: _Pictures, now: _Pictures) -> bool:
    return bool(before) and before[0][1][0].parents[1] == now[0][1][0].parents[1] if now else False
