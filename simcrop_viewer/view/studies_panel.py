"""A list of studies: search its reports, go through it, encode it beforehand."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QLineEdit, QPushButton, QVBoxLayout, QWidget

from simcrop_viewer.controller.evidence import EvidenceController
from simcrop_viewer.controller.studies import StudiesController
from simcrop_viewer.controller.study_encoding import StudyEncodingController
from simcrop_viewer.model.jobs import Job
from simcrop_viewer.view.studies_table import StudiesTable, StudiesTableModel


class StudiesPanel(QWidget):
    """Search, previous and next, Encode all and Cancel, the table, how many there are."""

    folder_wanted = Signal()
    list_wanted = Signal()
    closed = Signal()

    def __init__(
        self,
        studies: StudiesController,
        encoding: StudyEncodingController,
        evidence: EvidenceController,
    ) -> None:
        super().__init__()
        self._studies = studies
        self._encoding = encoding
        self._list = studies.list
        self.find = QLineEdit()
        self.find.setObjectName("find-studies")
        self.find.setPlaceholderText("Search the reports")
        self.find.setClearButtonEnabled(True)
        self.find.setMinimumWidth(160)
        self.previous, self.next = QPushButton("Previous (PgUp)"), QPushButton("Next (PgDown)")
        self.encode = QPushButton("Encode all")
        self.folder, self.file = QPushButton("Folder ..."), QPushButton("List ...")
        self.folder.setToolTip("List the studies in a folder (Ctrl+L)")
        self.file.setToolTip("Open a csv that lists studies (Ctrl+Shift+L)")
        self.hide_all = QPushButton("Close")
        self.hide_all.setToolTip("Close the list; the study that is open stays")
        self.state = QLabel()
        self.model = StudiesTableModel(self._list, self)
        self.table = StudiesTable(self.model)
        self._lay_out()
        self.find.textChanged.connect(self._list.search)
        self.previous.clicked.connect(lambda: self.step(forward=False))
        self.next.clicked.connect(lambda: self.step(forward=True))
        self.encode.clicked.connect(self.press)
        self.folder.clicked.connect(self.folder_wanted)
        self.file.clicked.connect(self.list_wanted)
        self.hide_all.clicked.connect(self._close)
        self.table.wanted.connect(lambda place: self._studies.open_row(self.model.study_at(place)))
        self._signals = (
            (self._list.listed, self._listed),
            (self._list.shown_changed, self._show_current),
            (self._list.rows_changed, self.tell),
            (self._list.current_changed, self._show_current),
            (encoding.told_changed, self.tell),
            (encoding.encoding, self._follow),
            (evidence.model_changed, self.tell),
        )
        for signal, answer in self._signals:
            signal.connect(answer)
        self.tell()

    def disconnect_all(self) -> None:
        """Let go of the controllers."""
        self.model.disconnect_all()
        for signal, answer in self._signals:
            signal.disconnect(answer)

    def _lay_out(self) -> None:
        top = QHBoxLayout()
        top.addWidget(self.find, 1)
        for button in (
            self.previous,
            self.next,
            self.encode,
            self.folder,
            self.file,
            self.hide_all,
        ):
            top.addWidget(button)
        body = QVBoxLayout(self)
        body.setContentsMargins(6, 4, 6, 4)
        body.setSpacing(4)
        body.addLayout(top)
        body.addWidget(self.table, 1)
        body.addWidget(self.state)

    # -- what can be done -----------------------------------------------------------------------

    def step(self, *, forward: bool) -> None:
        """Open the next study that the search shows, or the one before."""
        self._studies.step(forward=forward)

    def press(self) -> None:
        """Encode the studies that are shown, or cancel that."""
        job = self._encoding.job
        if job is not None:
            job.cancel()
        else:
            self._encoding.encode_all()

    def _close(self) -> None:
        self._studies.close_list()
        self.closed.emit()

    # -- how it stands --------------------------------------------------------------------------

    def _listed(self) -> None:
        self.find.clear()
        self._show_current()

    def _follow(self, job: Job) -> None:
        job.changed.connect(self.tell)
        self.tell()

    def _show_current(self) -> None:
        """Select the row that was asked for last, where it is shown."""
        place = None if self._list.current is None else self.model.place_of(self._list.current)
        if place is not None:
            self.table.selectRow(place)
            self.table.scrollTo(self.model.index(place, 0))
        self.tell()

    def tell(self, *_: object) -> None:
        """Say how everything stands."""
        studies, job = self._list, self._encoding.job
        self.previous.setEnabled(studies.beside(forward=False) is not None)
        self.next.setEnabled(studies.beside(forward=True) is not None)
        if job is not None:
            stopping = job.state == "stopping"
            self.encode.setText("Cancelling ..." if stopping else "Cancel encoding")
            self.encode.setEnabled(not stopping)
        else:
            self._offer_encoding()
        self.state.setText(self._in_words())

    def _offer_encoding(self) -> None:
        why, left = self._encoding.cannot_encode(), len(self._encoding.to_encode)
        some = self._list.words and left
        self.encode.setText(f"Encode these {left}" if some else "Encode all")
        self.encode.setEnabled(not why and left > 0)
        self.encode.setToolTip(
            why or "Encode them in the background, so that opening one need not wait for it"
        )

    def _in_words(self) -> str:
        rows, shown = self._list.rows, self._list.shown
        if not rows:
            return "No studies are listed: open a folder of studies, or a csv that lists them."
        count = f"{len(rows)} studies" if len(rows) != 1 else "1 study"
        if len(shown) < len(rows):
            count = f"{len(shown)} of {count}"
        encoded = sum(row.state == "encoded" for row in rows)
        words = [count, f"{encoded} encoded"] if encoded else [count]
        job = self._encoding.job
        if job is not None and job.total:
            words.append(f"encoding {min(job.done + 1, job.total)} of {job.total}")
        sentences = (f"{', '.join(words)}.", self._list.left_out, self._encoding.told)
        return " ".join(sentence for sentence in sentences if sentence)
