"""Lists of studies: listed, looked over, opened one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from psygnal import Signal

from simcrop_core.datasets.worklist import (
    ReadableSource,
    open_worklist,
    scan_fault,
    scan_stamp,
)
from simcrop_core.errors import SimCroPError
from simcrop_viewer.controller.study import StudyController
from simcrop_viewer.model.jobs import Job, Jobs, as_refusal
from simcrop_viewer.model.session import Session
from simcrop_viewer.model.studies import ListedStudy, Said, StudyList

Tell = Callable[[str, int, int], None]
_LANE = "list"
_SHOW_EVERY_S = 0.3


@dataclass(frozen=True, slots=True)
class _Seen:
    """What looking at a study's files told."""

    index: int
    said: Said
    text: str
    fault: str
    stamp: str


class StudiesController:
    """Fills a list of studies and goes through it.

    Attributes
    ----------
    list
        What is listed.
    """

    opening = Signal()  # a study of the list is asked for
    opened = Signal()  # and shown
    looked_over = Signal()  # what can be known of the list's files is known
    refused = Signal(SimCroPError)

    def __init__(self, session: Session, jobs: Jobs, studies: StudyController) -> None:
        self.list = StudyList()
        self._session = session
        self._jobs = jobs
        self._studies = studies
        self._listing: Job | None = None
        self._number = 0  # of the study that is open, where the list has it
        session.study_changed.connect(self._study_changed)

    def close(self) -> None:
        """Let go of the session."""
        self._session.study_changed.disconnect(self._study_changed)

    # -- the list -------------------------------------------------------------------------------

    def open_list(self, place: str | Path) -> Job:
        """List the studies that a folder, a csv or a data set's word names.

        What is listed stays until the new list is there; then reports and files are looked at.
        """
        if self._listing is not None:
            self._listing.cancel()

        def find(tell: Tell) -> tuple[tuple[ReadableSource, ...], str]:
            found = open_worklist(place, tell)
            # Of tables, a fault may quote a row: those are for the one who prepares a store.
            left_out = (f.problem for f in found.faults if f.part == "volume" and not f.study)
            sources = tuple(s for s in found.sources if isinstance(s, ReadableSource))
            return sources, " ".join(left_out)

        def show(found: tuple[tuple[ReadableSource, ...], str]) -> None:
            self.list.put(*found)
            self._look_over()

        self._listing = self._jobs.start(
            "List the studies",
            find,
            show,
            lane=_LANE,
            failed=self.refused.emit,
        )
        return self._listing

    def close_list(self) -> None:
        """List nothing; the study that is open stays."""
        if self._listing is not None:
            self._listing.cancel()
        self.list.put(())

    def _look_over(self) -> None:
        """Read the reports and look at the scans' files; rows tell what is known as it comes."""
        rows = self.list.rows

        def look(tell: Tell) -> None:
            seen: list[_Seen] = []
            last = time.monotonic()
            for index, row in enumerate(rows):
                tell("reading the reports", index, len(rows))
                seen.append(_seen(index, row.source))
                if time.monotonic() - last > _SHOW_EVERY_S:
                    self._post_seen(rows, seen)
                    seen, last = [], time.monotonic()
            self._post_seen(rows, seen)
            tell("reading the reports", len(rows), len(rows))

        self._listing = self._jobs.start(
            "Look the studies over",
            look,
            lambda _: self.looked_over.emit(),
            lane=_LANE,
            failed=self.refused.emit,
        )

    def _post_seen(self, rows: Sequence[ListedStudy], seen: list[_Seen]) -> None:
        def show() -> None:
            if self.list.rows is not rows:
                return
            for one in seen:
                row = rows[one.index]
                row.tell_report(one.said, one.text)
                row.stamp, row.fault = one.stamp, row.fault or one.fault
            self.list.tell(one.index for one in seen)

        self._jobs.post(show)

    # -- going through it -----------------------------------------------------------------------

    def open_row(self, index: int) -> Job | None:
        """Open a study; one that cannot be read leaves what is open, and its row says why."""
        rows = self.list.rows
        if not 0 <= index < len(rows):
            return None
        row = rows[index]
        self.list.go(index)
        self.opening.emit()

        def then() -> None:
            study = self._session.study
            if study is None or self.list.rows is not rows:
                return
            row.pseudonym, row.fault = study.name, ""
            self._number = study.number
            self.list.mark_open(index)
            self.list.tell((index,))
            self.opened.emit()

        def failed(error: SimCroPError) -> None:
            if self.list.rows is rows:
                row.fault = in_words(error)
                self.list.tell((index,))

        return self._studies.open_source(row.source, then=then, failed=failed)

    def step(self, *, forward: bool) -> Job | None:
        """Open the next study of those that the search shows, or the one before."""
        beside = self.list.beside(forward)
        return None if beside is None else self.open_row(beside)

    def _study_changed(self) -> None:
        study = self._session.study
        if study is None or study.number != self._number:
            self.list.mark_open(None)


def _seen(index: int, source: ReadableSource) -> _Seen:
    """Look at a study's report and files; nothing of it can end the looking."""
    said: Said = "none"
    text = fault = ""
    try:
        report = source.read_report()
        if report is not None:
            said, text = "there", report.text
    except Exception as e:
        refusal = as_refusal(e)
        said = "several" if refusal.code == "volume-name" else "broken"
        fault = "" if said == "several" else f"Report: {in_words(refusal)}"
    try:
        stamp, refused = scan_stamp(source), scan_fault(source)
        fault = fault if refused is None else in_words(refused)
    except Exception as e:
        stamp, fault = "", in_words(as_refusal(e))
    return _Seen(index, said, text, fault, stamp)


def in_words(error: SimCroPError) -> str:
    """Without the file, which may name a person."""
    return f"{error.problem} {error.remedy}".strip()
