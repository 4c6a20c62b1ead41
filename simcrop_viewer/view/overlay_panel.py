"""How evidence is drawn, and the window of the scan."""

from __future__ import annotations

from qtpy.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QGroupBox,
    QHBoxLayout,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from simcrop_viewer.model.session import Session
from simcrop_viewer.model.windows import PRESETS, TITLES, Window, window_for
from simcrop_viewer.view.forms import ModelForm


class OverlayPanel(QWidget):
    """Controls of the overlay and of the window."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self.form = ModelForm(session.overlay)
        evidence = QGroupBox("Evidence")
        inside = QVBoxLayout(evidence)
        inside.setContentsMargins(0, 4, 0, 0)
        inside.addWidget(self.form)
        body = QVBoxLayout(self)
        body.setContentsMargins(6, 6, 6, 6)
        body.addWidget(evidence)
        body.addWidget(self._window_box())
        body.addStretch(1)
        session.window_changed.connect(self._tell_window)
        session.selection_changed.connect(self._follow)
        self._tell_window()

    def disconnect_all(self) -> None:
        """Let go of the session."""
        self.form.disconnect_all()
        self._session.window_changed.disconnect(self._tell_window)
        self._session.selection_changed.disconnect(self._follow)

    def _window_box(self) -> QGroupBox:
        box = QGroupBox("Window")
        presets = QHBoxLayout()
        self.presets: dict[str, QPushButton] = {}
        for number, name in enumerate(PRESETS, 1):
            button = QPushButton(f"{TITLES[name]} (F{number})")
            button.setCheckable(True)
            button.setToolTip("Width {:g}, level {:g} HU".format(*PRESETS[name]))
            button.clicked.connect(lambda *_, name=name: self._session.set_window(PRESETS[name]))
            self.presets[name] = button
            presets.addWidget(button)
        self.width_hu, self.level_hu = QDoubleSpinBox(), QDoubleSpinBox()
        self.width_hu.setRange(1, 8000)
        self.level_hu.setRange(-4000, 4000)
        values = QHBoxLayout()
        for spin, prefix in ((self.width_hu, "Width "), (self.level_hu, "Level ")):
            spin.setDecimals(0)
            spin.setSingleStep(10)
            spin.setPrefix(prefix)
            spin.setSuffix(" HU")
            spin.setKeyboardTracking(False)
            spin.valueChanged.connect(self._edited)
            values.addWidget(spin)
        self.follow = QCheckBox("Choose the window by the sentence")
        self.follow.setToolTip("A sentence on a nodule is looked at in the lung window, and so on.")
        inside = QVBoxLayout(box)
        inside.addLayout(presets)
        inside.addLayout(values)
        inside.addWidget(self.follow)
        return box

    def _edited(self) -> None:
        wanted = Window(self.width_hu.value(), self.level_hu.value())
        now = self._session.window
        if wanted != Window(round(now.width), round(now.level)):
            self._session.set_window(wanted)

    def _tell_window(self) -> None:
        window = self._session.window
        for spin, value in ((self.width_hu, window.width), (self.level_hu, window.level)):
            spin.blockSignals(True)
            spin.setValue(round(value))
            spin.blockSignals(False)
        for name, button in self.presets.items():
            button.setChecked(PRESETS[name] == window)

    def _follow(self) -> None:
        selected = self._session.selected
        if self.follow.isChecked() and selected:
            name = window_for(selected[-1].text)
            if name is not None:
                self._session.set_window(PRESETS[name])
