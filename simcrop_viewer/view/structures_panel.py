"""Structures: find them, look at them one by one, write them."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import Qt
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import (
    QAbstractItemView,
    QColorDialog,
    QFileDialog,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QProgressBar,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from simcrop_viewer.controller.evidence import EvidenceController
from simcrop_viewer.controller.structures import StructuresController
from simcrop_viewer.model.jobs import Job
from simcrop_viewer.model.session import Session
from simcrop_viewer.model.structures import Structure
from simcrop_viewer.view.forms import ModelForm

_SHOWN, _NAME, _VOLUME = range(3)
_LABEL = int(Qt.ItemDataRole.UserRole)
_PATTERN = "NIfTI (*.nii.gz *.nii);;DICOM SEG (*.dcm)"


class StructuresPanel(QWidget):
    """Segment and Cancel, a table of structures, how they are drawn, Save."""

    def __init__(
        self, session: Session, structures: StructuresController, evidence: EvidenceController
    ) -> None:
        super().__init__()
        self._session = session
        self._structures = structures
        self._evidence = evidence
        self._telling = False
        self.segment = QPushButton("Segment")
        self.progress = QProgressBar()
        self.state = QLabel()
        self.state.setWordWrap(True)
        self.table = _table()
        self.show_all, self.show_none = QPushButton("Show all"), QPushButton("Show none")
        self.form = ModelForm(structures.state.settings)
        self.save = QPushButton("Save labels ...")
        self.save.setToolTip("As NIfTI on the scan's own voxels, names and volumes in a .json")
        self._lay_out()
        self.segment.clicked.connect(self.press)
        self.table.itemChanged.connect(self._ticked)
        self.table.cellClicked.connect(self._clicked)
        self.table.cellDoubleClicked.connect(self._choose_color)
        self.show_all.clicked.connect(lambda: structures.state.show_all(True))
        self.show_none.clicked.connect(lambda: structures.state.show_all(False))
        self.save.clicked.connect(self._save)
        self._signals = (
            (structures.state.changed, self._fill),
            (structures.state.shown_changed, self._tell_rows),
            (structures.segmenting, self._follow),
            (structures.exported, self._exported),
            (evidence.model_changed, self.tell),
            (session.study_changed, self.tell),
        )
        for signal, answer in self._signals:
            signal.connect(answer)
        self._fill()

    def disconnect_all(self) -> None:
        """Let go of session and controllers."""
        self.form.disconnect_all()
        for signal, answer in self._signals:
            signal.disconnect(answer)

    def _lay_out(self) -> None:
        which = QHBoxLayout()
        which.addWidget(self.show_all)
        which.addWidget(self.show_none)
        which.addWidget(self.save)
        body = QVBoxLayout(self)
        body.setContentsMargins(6, 6, 6, 6)
        body.addWidget(self.segment)
        body.addWidget(self.progress)
        body.addWidget(self.state)
        body.addWidget(self.table, 1)
        body.addLayout(which)
        body.addWidget(self.form)

    # -- finding them ---------------------------------------------------------------------------

    def press(self) -> None:
        """Segment, or cancel what is under way."""
        job = self._structures.job
        if job is not None:
            job.cancel()
        else:
            self._structures.segment()

    def _follow(self, job: Job) -> None:
        job.changed.connect(self.tell)
        self.tell()

    def tell(self) -> None:
        """Say how everything stands."""
        job, rows = self._structures.job, self._structures.state.rows
        if job is None:
            self.segment.setText("Segment again" if rows else "Segment")
            self.segment.setEnabled(self._cannot() == "")
        else:
            stopping = job.state == "stopping"
            self.segment.setText("Cancelling ..." if stopping else "Cancel")
            self.segment.setEnabled(not stopping)
            self.progress.setRange(0, 100 if job.share is not None else 0)
            self.progress.setValue(round(100 * (job.share or 0)))
            self.progress.setFormat(f"{job.what}: %p %" if job.share is not None else job.what)
        self.progress.setVisible(job is not None)
        self.state.setText(self._in_words())
        for button in (self.save, self.show_all, self.show_none):
            button.setEnabled(bool(rows))

    def _cannot(self) -> str:
        """Why the scan cannot be segmented, or nothing."""
        model = self._evidence.model
        if self._session.study is None:
            return "Open a scan to begin."
        if model is None:
            return "Choose a model in the Encode tab."
        if model.segmentation is None:
            return (
                f"The model {model.config.name!r} has no segmentation head. Choose a model that "
                "was made or trained for segmentation."
            )
        return ""

    def _in_words(self) -> str:
        now = self._structures.state.now
        if now is None:
            return self._cannot()
        untrained = "" if now.is_trained else " Its head is untrained: they mean nothing yet."
        return (
            f"Found by the model {now.model!r}.{untrained} Click a structure to go to its middle, "
            f"double-click its colour to choose another. {self._cannot()}"
        ).strip()

    # -- the table ------------------------------------------------------------------------------

    def _fill(self) -> None:
        self._telling = True
        rows = self._structures.state.rows
        self.table.setRowCount(len(rows))
        for number, row in enumerate(rows):
            for column in (_SHOWN, _NAME, _VOLUME):
                self.table.setItem(number, column, QTableWidgetItem())
            self._tell_row(number, row)
        self._telling = False
        self.tell()

    def _tell_rows(self) -> None:
        self._telling = True
        for number, row in enumerate(self._structures.state.rows):
            self._tell_row(number, row)
        self._telling = False

    def _tell_row(self, number: int, row: Structure) -> None:
        shown, name, volume = (self.table.item(number, column) for column in range(3))
        shown.setData(_LABEL, row.label)
        swatch = QPixmap(14, 14)
        swatch.fill(QColor(row.color))
        shown.setIcon(QIcon(swatch))
        shown.setFlags(
            Qt.ItemFlag.ItemIsEnabled
            | Qt.ItemFlag.ItemIsUserCheckable
            | Qt.ItemFlag.ItemIsSelectable
        )
        checked = Qt.CheckState.Checked if row.is_shown else Qt.CheckState.Unchecked
        shown.setCheckState(checked)
        shown.setToolTip("Show or hide; double-click for another colour")
        name.setText(row.name)
        volume.setText(f"{row.volume_ml:.1f}" if row.center_mm else "none")
        volume.setTextAlignment(
            int(Qt.AlignmentFlag.AlignRight) | int(Qt.AlignmentFlag.AlignVCenter)
        )

    def _label(self, row: int) -> int:
        return int(self.table.item(row, _SHOWN).data(_LABEL))

    def _ticked(self, item: QTableWidgetItem) -> None:
        if not self._telling and item.column() == _SHOWN:
            self._structures.state.show(
                int(item.data(_LABEL)), item.checkState() == Qt.CheckState.Checked
            )

    def _clicked(self, row: int, column: int) -> None:
        if column != _SHOWN:
            self._structures.jump(self._label(row))

    def _choose_color(self, row: int, column: int) -> None:
        if column == _SHOWN:
            now = self._structures.state.rows[row]
            color = QColorDialog.getColor(QColor(now.color), self, f"Colour of {now.name}")
            if color.isValid():
                self._structures.state.set_color(now.label, color.name())

    # -- writing --------------------------------------------------------------------------------

    def _save(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Save the labels", "labels.nii.gz", _PATTERN)
        if path:
            self._structures.export(path if Path(path).suffix else f"{path}.nii.gz")

    def _exported(self, path: str) -> None:
        self.state.setText(f"Saved as {path}, with names and volumes in a .json beside it.")


def _table() -> QTableWidget:
    table = QTableWidget(0, 3)
    table.setObjectName("structures")
    table.setHorizontalHeaderLabels(["Show", "Structure", "Volume in ml"])
    table.verticalHeader().setVisible(False)
    table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
    table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
    table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
    table.setShowGrid(False)
    header = table.horizontalHeader()
    header.setSectionResizeMode(_NAME, QHeaderView.ResizeMode.Stretch)
    for column in (_SHOWN, _VOLUME):
        header.setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
    return table
