"""Opening and closing studies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from psygnal import Signal

from simcrop_core.errors import SimCroPError
from simcrop_core.io import read_volume
from simcrop_core.report import Report, read_report, report_from_parts
from simcrop_core.report_files import Part, Parts
from simcrop_viewer.model.display import display_of
from simcrop_viewer.model.jobs import Job, Jobs
from simcrop_viewer.model.session import OpenStudy, Session


class StudyController:
    """Reads scans and reports beside the window; what is open changes only once all is read."""

    opened = Signal(str, object)  # the scan's path, and the report's or None
    refused = Signal(SimCroPError)

    def __init__(self, session: Session, jobs: Jobs) -> None:
        self._session = session
        self._jobs = jobs
        self._reading: Job | None = None

    def open(
        self,
        scan: str | Path,
        report: str | Path | None = None,
        *,
        then: Callable[[], None] = lambda: None,
    ) -> Job:
        """Read a scan and its report; a study that cannot be read leaves what is open as it is.

        An earlier reading that is still under way is given up.
        """
        self.give_up()

        def read(tell: Callable[[str, int, int], None]) -> OpenStudy:
            tell("reading the report", 0, 3)
            said = None if report is None else read_report(report)
            tell("reading the scan", 1, 3)
            volume = read_volume(scan)
            tell("laying the scan out", 2, 3)
            _ = volume.sha256  # takes a moment, and everything later asks for it
            study = OpenStudy(volume, display_of(volume), said)
            tell("reading", 3, 3)
            return study

        def show(study: OpenStudy) -> None:
            self._session.show(study)
            self.opened.emit(str(scan), None if report is None else str(report))
            then()

        self._reading = self._jobs.start(
            "Open a study", read, show, lane="read", failed=self.refused.emit
        )
        return self._reading

    def open_report(self, path: str | Path) -> Job | None:
        """Give the open scan another report; None where there is no scan, or not yet."""
        study = self._ready_for_report()
        if study is None:
            return None

        def show(report: Report) -> None:
            now = self._session.study
            if now is not None and now.number == study.number:
                self._session.set_report(report)
            else:
                self.refused.emit(_no_scan("The scan that the report was for is no longer open"))

        return self._jobs.start(
            "Open a report",
            lambda tell: read_report(path),
            show,
            lane="read",
            failed=self.refused.emit,
        )

    def paste_report(self, text: str) -> None:
        """Give the open scan a report from its text."""
        if self._ready_for_report() is None:
            return
        try:
            self._session.set_report(report_from_parts(Parts([Part(None, text)])))
        except SimCroPError as e:
            self.refused.emit(e)

    def give_up(self) -> None:
        """Let what is being read go, since something else is to be shown."""
        if self._reading is not None:
            self._reading.cancel()

    def close(self) -> None:
        self.give_up()
        self._session.show(None)

    def _ready_for_report(self) -> OpenStudy | None:
        """The open study; a report never goes to a scan that is about to be replaced."""
        reading = self._reading is not None and not self._reading.is_over
        study = None if reading else self._session.study
        if study is None:
            self.refused.emit(
                _no_scan("A scan is still being read" if reading else "No scan is open")
            )
        return study


def _no_scan(problem: str) -> SimCroPError:
    return SimCroPError(problem, code="no-scan", remedy="Open the report once its scan is there.")
