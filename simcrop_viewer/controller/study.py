"""Opening and closing studies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from psygnal import Signal

from simcrop_core.datasets.manifest import ManifestSource
from simcrop_core.datasets.worklist import ReadableSource, scan_stamp
from simcrop_core.errors import SimCroPError
from simcrop_core.io import read_volume, series_to_choose
from simcrop_core.report import Report, read_report, report_from_parts
from simcrop_core.report_csv import read_csv_rows
from simcrop_core.report_files import Part, Parts
from simcrop_core.volume import CTVolume
from simcrop_viewer.model.display import display_of
from simcrop_viewer.model.jobs import Job, Jobs
from simcrop_viewer.model.question import Question, which_row, which_series
from simcrop_viewer.model.session import OpenStudy, Session

T = TypeVar("T")
Then = Callable[[], None]
Failed = Callable[[SimCroPError], None]
Tell = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class _Files:
    """What is to be read; ``series`` and ``row`` None where nobody said which.

    ``listed`` is the study of a list that these are the files of.
    """

    scan: str | Path
    report: str | Path | None
    series: str | None
    row: str | None
    listed: ReadableSource | None


class StudyController:
    """Reads scans and reports beside the window; what is open changes only once all is read.

    Where a folder holds several series or a csv several reports, a question is asked first.
    """

    opened = Signal(str, object, object, object)  # scan, report, series, row: paths and words
    question_changed = Signal()
    refused = Signal(SimCroPError)

    def __init__(self, session: Session, jobs: Jobs) -> None:
        self._session = session
        self._jobs = jobs
        self._reading: Job | None = None
        self._question: Question | None = None
        self._answered: Callable[[str], object] = lambda key: None

    # -- opening --------------------------------------------------------------------------------

    def open(
        self,
        scan: str | Path,
        report: str | Path | None = None,
        *,
        series: str | None = None,
        volume_name: str | None = None,
        listed: ReadableSource | None = None,
        then: Then = lambda: None,
        failed: Failed = lambda error: None,
    ) -> Job:
        """Read a scan and its report; a study that cannot be read leaves what is open as it is.

        An earlier reading that is still under way is given up.

        Parameters
        ----------
        series
            Of a DICOM folder; ``""`` the usual one; None asks where there are several.
        volume_name
            The row of a csv of reports; None takes the scan's name, and else asks.
        listed
            The study of a list whose files these are.
        then, failed
            Called when it is shown, or cannot be.
        """
        files = _Files(scan, report, series, volume_name, listed)

        def show(found: OpenStudy | Question) -> None:
            if isinstance(found, Question):
                is_row = files.row is None and found.columns[0] == "Row"
                self._ask(
                    found,
                    lambda key: self.open(
                        scan,
                        report,
                        series=series if is_row else key,
                        volume_name=key if is_row else volume_name,
                        listed=listed,
                        then=then,
                        failed=failed,
                    ),
                )
                return
            self._session.show(found)
            said = None if report is None else str(report)
            self.opened.emit(str(scan), said, found.series, found.volume_name)
            then()

        return self._open(lambda tell: _read(files, tell), show, failed)

    def open_source(
        self,
        source: ReadableSource,
        *,
        then: Then = lambda: None,
        failed: Failed = lambda error: None,
    ) -> Job:
        """Open a study of a list, as `open` does."""
        if isinstance(source, ManifestSource):
            return self.open(
                source.volume,
                source.report or None,
                series=source.series or None,
                volume_name=source.volume_name or None,
                listed=source,
                then=then,
                failed=failed,
            )

        def read(tell: Tell) -> OpenStudy:
            tell("reading the report", 0, 3)
            said = source.read_report()
            tell("reading the scan", 1, 3)
            stamp, volume = scan_stamp(source), source.read()
            # Its file alone does not say how it is read: nothing may lead back to that.
            return replace(_laid_out(replace(volume, source=None), said, tell), stamp=stamp)

        def show(study: OpenStudy) -> None:
            self._session.show(study)
            then()

        return self._open(read, show, failed)

    def _open(self, read: Callable[[Tell], T], show: Callable[[T], None], failed: Failed) -> Job:
        self.give_up()

        def refuse(error: SimCroPError) -> None:
            self.refused.emit(error)
            failed(error)

        self._reading = self._jobs.start("Open a study", read, show, lane="read", failed=refuse)
        return self._reading

    # -- reports --------------------------------------------------------------------------------

    def open_report(self, path: str | Path, *, volume_name: str | None = None) -> Job | None:
        """Give the open scan another report; None where there is no scan, or not yet."""
        study = self._ready_for_report()
        if study is None:
            return None
        self.dismiss()

        def show(found: tuple[Report, str | None] | Question) -> None:
            now = self._session.study
            if now is None or now.number != study.number:
                self.refused.emit(_no_scan("The scan that the report was for is no longer open"))
            elif isinstance(found, Question):
                self._ask(found, lambda key: self.open_report(path, volume_name=key))
            else:
                self._session.set_report(*found)

        return self._jobs.start(
            "Open a report",
            lambda tell: _said(path, volume_name, study.volume.source),
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

    # -- questions ------------------------------------------------------------------------------

    @property
    def question(self) -> Question | None:
        """What has to be answered before the study can be opened."""
        return self._question

    def answer(self, row: int) -> None:
        """Choose a row of the question; the study is opened with it."""
        question, answered = self._question, self._answered
        if question is not None and 0 <= row < len(question.keys):
            self.dismiss()
            answered(question.keys[row])

    def dismiss(self) -> None:
        """Leave the question unanswered; what is open stays."""
        if self._question is not None:
            self._question, self._answered = None, lambda key: None
            self.question_changed.emit()

    def _ask(self, question: Question, answered: Callable[[str], object]) -> None:
        self._question, self._answered = question, answered
        self.question_changed.emit()

    # -- ending ---------------------------------------------------------------------------------

    def give_up(self) -> None:
        """Let what is being read go, since something else is to be shown."""
        self.dismiss()
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


def _read(files: _Files, tell: Tell) -> OpenStudy | Question:
    tell("reading the report", 0, 3)
    report, row = None, None
    if files.report is not None:
        said = _said(files.report, files.row, files.scan)
        if isinstance(said, Question):
            return said
        report, row = said
    tell("reading the scan", 1, 3)
    found = series_to_choose(files.scan) if files.series is None else ()
    if found:
        return which_series(found)
    stamp = "" if files.listed is None else scan_stamp(files.listed)
    volume = read_volume(files.scan, series=files.series or None)
    study = _laid_out(volume, report, tell)
    return replace(study, series=files.series, volume_name=row, stamp=stamp)


def _laid_out(volume: CTVolume, report: Report | None, tell: Tell) -> OpenStudy:
    tell("laying the scan out", 2, 3)
    _ = volume.sha256  # takes a moment, and everything later asks for it
    study = OpenStudy(volume, display_of(volume), report)
    tell("reading", 3, 3)
    return study


def _said(
    path: str | Path, row: str | None, scan: str | Path | None
) -> tuple[Report, str | None] | Question:
    """A report and its row; of a csv of many, the row that is named like the scan."""
    try:
        return read_report(path, volume_name=row), row
    except SimCroPError as e:
        if e.code != "volume-name" or row is not None:
            raise
    if scan is not None:
        name = Path(scan).name
        try:
            return read_report(path, volume_name=name), name
        except SimCroPError as e:
            if e.code != "volume-name":
                raise
    rows = [(name, parts) for name, parts in read_csv_rows(Path(path), "utf-8") if name]
    return which_row(rows)


def _no_scan(problem: str) -> SimCroPError:
    return SimCroPError(problem, code="no-scan", remedy="Open the report once its scan is there.")
