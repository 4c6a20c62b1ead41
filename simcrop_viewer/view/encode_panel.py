"""Which model looks at the scan, and what was done to the scan on the way."""

from __future__ import annotations

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QLabel,
    QListWidget,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from simcrop_viewer.controller.evidence import EvidenceController
from simcrop_viewer.model.jobs import Job
from simcrop_viewer.model.session import Session
from simcrop_viewer.view.model_choice import ModelChoice

#: Where the model's input lies in the scan: title, word, explanation.
_PLACEMENTS = (
    ("Middle of the scan", "center", "One window in the middle; what lies beyond is left out."),
    ("On the lungs", "lungs", "One window, centred on the lungs; for scans with much beside them."),
    ("All of the scan", "tiled", "Overlapping windows over all of it: slower, complete."),
)


class EncodePanel(QWidget):
    """Model, device, notes; Encode and Cancel."""

    model_wanted = Signal(str)

    def __init__(self, session: Session, evidence: EvidenceController) -> None:
        super().__init__()
        self._session = session
        self._evidence = evidence
        self._job: Job | None = None
        self.models = ModelChoice("No model", lambda: evidence.model_folder)
        self.models.setObjectName("models")
        self.about = _words()
        self.device = QLabel("not known yet")
        self.placement = QComboBox()
        self.placement.setObjectName("placement")
        for title, word, about in _PLACEMENTS:
            self.placement.addItem(title, word)
            place = self.placement.count() - 1
            self.placement.setItemData(place, about, int(Qt.ItemDataRole.ToolTipRole))
        self.scan = _words()
        self.notes = QListWidget()
        self.notes.setWordWrap(True)
        self.notes.setSelectionMode(QListWidget.SelectionMode.NoSelection)
        self.encode = QPushButton("Encode (Ctrl+E)")
        self.encode.setObjectName("encode")
        self.progress = QProgressBar()
        self.progress.setTextVisible(True)
        self.progress.setVisible(False)
        self._lay_out()
        self.models.wanted.connect(self.model_wanted)
        self.placement.activated.connect(self._place)
        self.encode.clicked.connect(self.press)
        evidence.encoding.connect(self._follow)
        session.study_changed.connect(self.tell)
        session.report_changed.connect(self.tell)
        evidence.model_changed.connect(self.tell)
        evidence.encoded_changed.connect(self.tell)
        self.tell()

    def disconnect_all(self) -> None:
        """Let go of session and controller."""
        self._session.study_changed.disconnect(self.tell)
        self._session.report_changed.disconnect(self.tell)
        self._evidence.model_changed.disconnect(self.tell)
        self._evidence.encoded_changed.disconnect(self.tell)
        self._evidence.encoding.disconnect(self._follow)

    def _lay_out(self) -> None:
        rows = QFormLayout()
        rows.addRow("Model", self.models)
        rows.addRow("", self.about)
        rows.addRow("Device", self.device)
        rows.addRow("Input", self.placement)
        rows.addRow("Scan", self.scan)
        body = QVBoxLayout(self)
        body.setContentsMargins(6, 6, 6, 6)
        body.addLayout(rows)
        body.addWidget(QLabel("What was done to the scan and the report:"))
        body.addWidget(self.notes, 1)
        body.addWidget(self.progress)
        body.addWidget(self.encode)

    def press(self) -> None:
        """Encode, or cancel what is under way."""
        if self._job is not None and not self._job.is_over:
            self._job.cancel()
            return
        # As it is there already, it is asked for anew; with another input, what was kept will do.
        same = self._evidence.placed == self._evidence.placement
        self._evidence.encode(anew=same)

    def _place(self) -> None:
        self._evidence.placement = self.placement.currentData()
        self._tell_job()

    def _follow(self, job: Job) -> None:
        self._job = job
        job.changed.connect(self._tell_job)
        self._tell_job()

    def tell(self) -> None:
        """Say how everything stands."""
        self.placement.setCurrentIndex(self.placement.findData(self._evidence.placement))
        study, model = self._session.study, self._evidence.model
        if study is None:
            self.scan.setText("none is open")
        else:
            volume = study.volume
            size = " x ".join(str(n) for n in volume.shape)
            spacing = " x ".join(f"{s:.3g}" for s in volume.spacing_mm)
            self.scan.setText(
                f"{study.name}: {volume.format}, {size} voxels of {spacing} mm, "
                f"axes to {volume.grid.axcodes}"
            )
        self.notes.clear()
        notes = () if study is None else study.notes
        # Of those on the way into the model, the ones that reading had not told.
        notes += tuple(note for note in self._evidence.notes if note not in notes)
        for note in notes:
            self.notes.addItem(f"• {note.text}")
        if study is not None and not notes:
            self.notes.addItem("Nothing: it was read as it is.")
        if self._evidence.was_kept:
            self.notes.addItem("• It was encoded earlier; that was kept and is shown.")
        if model is None:
            self.about.setText("")
        else:
            from simcrop_core.device import select_device

            self.device.setText(str(select_device(self._evidence.device)).upper())
            card = model.card()
            trained = str(card["trained"])
            if trained == "untrained":
                trained = "untrained: what it points at means nothing"
            self.about.setText(f"{card['name']}, {trained}")
        self._tell_job()

    def _tell_job(self) -> None:
        job = self._job
        going = job is not None and not job.is_over
        ready = self._session.study is not None and self._evidence.model is not None
        self.encode.setEnabled(going or ready)
        if going:
            assert job is not None
            stopping = job.state == "stopping"
            self.encode.setText("Cancelling ..." if stopping else "Cancel")
            self.encode.setEnabled(not stopping)
            self.progress.setRange(0, 100 if job.share is not None else 0)
            self.progress.setValue(round(100 * (job.share or 0)))
            self.progress.setFormat(f"{job.what}: %p %" if job.share is not None else job.what)
        else:
            same = self._evidence.placed == self._evidence.placement
            again = "Encode again" if self._evidence.is_encoded and same else "Encode"
            self.encode.setText(f"{again} (Ctrl+E)")
        self.progress.setVisible(going)


def _words() -> QLabel:
    label = QLabel()
    label.setWordWrap(True)
    return label
