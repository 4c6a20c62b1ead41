"""What is going on beside the window, each with its progress and a way to stop it."""

from __future__ import annotations

from qtpy.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget

from simcrop_viewer.model.jobs import Job, Jobs


class JobsPanel(QWidget):
    """A row for each job; rows of finished ones go."""

    def __init__(self, jobs: Jobs) -> None:
        super().__init__()
        self._rows: dict[Job, _Row] = {}
        self._body = QVBoxLayout(self)
        self._body.setContentsMargins(6, 2, 6, 2)
        self._idle = QLabel("Nothing is going on.")
        self._body.addWidget(self._idle)
        self._body.addStretch(1)
        self._jobs = jobs
        jobs.added.connect(self._add)
        jobs.over.connect(self._remove)

    def disconnect_all(self) -> None:
        """Let go of the jobs."""
        self._jobs.added.disconnect(self._add)
        self._jobs.over.disconnect(self._remove)

    def _add(self, job: Job) -> None:
        row = _Row(job)
        self._rows[job] = row
        self._body.insertWidget(self._body.count() - 1, row)
        self._idle.setVisible(False)

    def _remove(self, job: Job) -> None:
        row = self._rows.pop(job, None)
        if row is not None:
            row.setParent(None)
            row.deleteLater()
        self._idle.setVisible(not self._rows)


class _Row(QWidget):
    def __init__(self, job: Job) -> None:
        super().__init__()
        self._job = job
        self._words = QLabel()
        self._progress = QProgressBar()
        self._progress.setFixedWidth(180)
        self._cancel = QPushButton("Cancel")
        self._cancel.clicked.connect(job.cancel)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._words, 1)
        row.addWidget(self._progress)
        row.addWidget(self._cancel)
        job.changed.connect(self._tell)
        self._tell()

    def _tell(self) -> None:
        job = self._job
        left = job.seconds_left
        later = "" if left is None or left < 2 else f", {left:.0f} s left"
        stage = f": {job.what}" if job.what else ""
        waiting = " (waiting)" if job.state == "waiting" else ""
        stopping = job.state == "stopping"
        self._words.setText(f"{job.title}{stage}{later}{waiting}")
        self._progress.setRange(0, 100 if job.share is not None else 0)
        self._progress.setValue(round(100 * (job.share or 0)))
        self._cancel.setText("Cancelling ..." if stopping else "Cancel")
        self._cancel.setEnabled(not stopping)
