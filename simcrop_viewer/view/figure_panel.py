"""The figure for print: how it will look, what is on it, and where it goes."""

from __future__ import annotations

from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QPixmap, QShowEvent
from qtpy.QtWidgets import (
    QApplication,
    QFileDialog,
    QFrame,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QSplitter,
    QVBoxLayout,
    QWidget,
)

from simcrop_core.errors import SimCroPError
from simcrop_core.figure_spec import FigureSpec
from simcrop_viewer.controller.evidence import EvidenceController
from simcrop_viewer.controller.figures import FigureController
from simcrop_viewer.model.session import Session
from simcrop_viewer.view.forms import ModelForm
from simcrop_viewer.view.picture import Picture

#: Read well in print, over lung and over bone.
COLORMAPS = ("autumn_r", "inferno", "magma", "plasma", "viridis", "YlOrRd", "cool")
_AFTER_MS = 350
_PATTERNS = "PNG (*.png);;PDF (*.pdf);;SVG (*.svg)"


class FigurePanel(QWidget):
    """Preview, form, Save and Copy command."""

    def __init__(
        self, session: Session, figures: FigureController, evidence: EvidenceController
    ) -> None:
        super().__init__()
        self._session = session
        self._figures = figures
        self._evidence = evidence
        self._drawn: FigureSpec | None = None
        self.picture = Picture()
        self.rows = QLabel()
        self.rows.setWordWrap(True)
        self.form = ModelForm(figures.settings, {"colormap": COLORMAPS}, dense=True)
        self.save = QPushButton("Save ...")
        self.save.setToolTip("As PNG, PDF or SVG; in PDF and SVG text stays text")
        self.copy = QPushButton("Copy command")
        self.copy.setToolTip("The command lines that make the same figure")
        self.told = QLabel()
        self.told.setWordWrap(True)
        self._lay_out()
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_AFTER_MS)
        self._timer.timeout.connect(self.refresh)
        self.save.clicked.connect(self._save)
        self.copy.clicked.connect(self._copy)
        self._signals = (
            (figures.settings.events, self._changed),
            (session.overlay.events.top_k, self._changed),
            (session.selection_changed, self._changed),
            (session.statements_changed, self._forget),
            (session.position_changed, self._changed),
            (session.window_changed, self._changed),
            (evidence.encoded_changed, self._forget),
            (figures.previewed, self._show),
            (figures.not_previewed, self._cannot),
            (figures.saved, self._saved),
        )
        for signal, answer in self._signals:
            signal.connect(answer)
        self._changed()

    def disconnect_all(self) -> None:
        """Let go of session and controllers."""
        self._timer.stop()
        self.form.disconnect_all()
        for signal, answer in self._signals:
            signal.disconnect(answer)

    def _lay_out(self) -> None:
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(self.form)
        scroll.setMaximumHeight(self.form.sizeHint().height())  # all else is the picture's
        parts = QSplitter(Qt.Orientation.Vertical)
        parts.addWidget(self.picture)
        parts.addWidget(scroll)
        parts.setChildrenCollapsible(False)
        parts.setStretchFactor(0, 1)
        buttons = QHBoxLayout()
        buttons.addWidget(self.save)
        buttons.addWidget(self.copy)
        body = QVBoxLayout(self)
        body.setContentsMargins(6, 6, 6, 6)
        body.addWidget(parts, 1)
        body.addWidget(self.rows)
        body.addWidget(self.told)
        body.addLayout(buttons)

    # -- the preview ----------------------------------------------------------------------------

    def _forget(self) -> None:
        self._drawn = None
        self._changed()

    def _changed(self, *_: object) -> None:
        ready = self._evidence.is_encoded
        self.save.setEnabled(ready)
        self.copy.setEnabled(ready)
        chosen = self._session.selection
        self.rows.setText(_rows_in_words(chosen) if ready else "")
        self.told.clear()
        if self.isVisible():
            self._timer.start()

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._timer.start()

    def refresh(self) -> None:
        """Draw the preview anew if it would look different."""
        if not self.isVisible():
            return
        try:
            spec = self._figures.spec()
        except SimCroPError as e:
            self._cannot(e)
            return
        if spec != self._drawn:
            self._drawn = spec
            self.picture.wait()
            self._figures.preview()

    def _show(self, png: bytes) -> None:
        picture = QPixmap()
        picture.loadFromData(png)
        self.picture.show_picture(picture)

    def _cannot(self, error: SimCroPError) -> None:
        self._drawn = None
        self.picture.say(f"{error.problem} {error.remedy}")

    # -- where it goes --------------------------------------------------------------------------

    def _save(self) -> None:
        path, kind = QFileDialog.getSaveFileName(self, "Save the figure", "figure.png", _PATTERNS)
        if path:
            if "." not in path.replace("\\", "/").rsplit("/", 1)[-1]:
                path += "." + kind[:3].lower()
            self._figures.save(path)

    def _saved(self, path: str) -> None:
        self.told.setText(f"Saved as {path}")

    def _copy(self) -> None:
        clipboard = QApplication.clipboard()
        if clipboard is None:
            return
        try:
            clipboard.setText(self._figures.command())
        except SimCroPError as e:
            self._figures.refused.emit(e)
        else:
            self.told.setText("Copied: two lines for a terminal, simcrop align and simcrop figure.")


def _rows_in_words(chosen: tuple[int, ...]) -> str:
    if not chosen:
        return "Rows: the six sentences with the highest scores. Choose others in the report."
    numbers = ", ".join(str(index + 1) for index in chosen)
    return f"Rows: the chosen sentences ({numbers}), in the order in which they were chosen."
