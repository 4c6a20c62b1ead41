"""Sessions: saved in a moment, opened whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from simcrop_core.errors import SimCroPError
from simcrop_core.io import read_volume
from simcrop_core.report import read_report
from simcrop_viewer.controller.encoding import read_model
from simcrop_viewer.controller.evidence import EvidenceController
from simcrop_viewer.controller.study import StudyController
from simcrop_viewer.model.display import display_of
from simcrop_viewer.model.figure import FigureSettings
from simcrop_viewer.model.jobs import Job, Jobs
from simcrop_viewer.model.session import OpenStudy, Session
from simcrop_viewer.model.session_file import (
    SUFFIX,
    SavedSession,
    report_digest,
    saved_session,
)
from simcrop_viewer.model.windows import Window

if TYPE_CHECKING:
    from simcrop_core.model import SimCroP

Tell = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    """All that a session names, read and found to be what it was."""

    saved: SavedSession
    study: OpenStudy
    model: SimCroP | None
    model_folder: Path | None


class SessionsController:
    """Writes what is open into a file, and opens such files."""

    opened = Signal(str)
    saved = Signal(str)
    refused = Signal(SimCroPError)

    def __init__(
        self,
        session: Session,
        jobs: Jobs,
        studies: StudyController,
        evidence: EvidenceController,
        figure: FigureSettings,
    ) -> None:
        self._session = session
        self._jobs = jobs
        self._studies = studies
        self._evidence = evidence
        self._figure = figure
        self._opening: Job | None = None
        self._awaited: _Read | None = None  # its scan is being encoded
        self._selected: tuple[int, ...] = ()  # of its report, until then
        evidence.encoded_changed.connect(self._encoded)

    def close(self) -> None:
        """Let go of the evidence."""
        self._evidence.encoded_changed.disconnect(self._encoded)

    def save(self, path: str | Path) -> bool:
        """Write what is open into a file; False, and a refusal, where that cannot be done."""
        path = Path(path)
        if path.suffix.lower() != SUFFIX:
            path = path.with_name(path.name + SUFFIX)
        model = self._evidence.model
        named = None if model is None else (self._evidence.model_folder, model.model_id)
        try:
            placement = self._evidence.placed or self._evidence.placement
            saved = saved_session(self._session, self._figure, named, path, placement)
            self._with_what_is_to_come(saved).write(path)
        except SimCroPError as e:
            self.refused.emit(e)
            return False
        self.saved.emit(str(path))
        return True

    def _with_what_is_to_come(self, saved: SavedSession) -> SavedSession:
        """With the questions that have no answer yet, and what is to be selected then."""
        questions, selection = self._evidence.asked, saved.selection
        found, session = self._awaited, self._session
        if found is not None and session.study is found.study:
            questions = (*found.saved.questions, *(q for q in questions if q not in
                         found.saved.questions))  # fmt: skip
            if session.selection == self._selected:
                selection = found.saved.selection
        return saved.model_copy(update={"questions": questions, "selection": selection})

    def open(self, path: str | Path) -> Job:
        """Read a session and all that it names; the window changes only once all is there and
        found to be what it was."""
        path = Path(path)
        self._studies.give_up()
        if self._opening is not None:
            self._opening.cancel()
        using = self._evidence.model

        def show(found: _Read) -> None:
            self._show(found)
            self.opened.emit(str(path))

        self._opening = self._jobs.start(
            "Open a session",
            lambda tell: _read(path, using, tell),
            show,
            lane="read",
            failed=self.refused.emit,
        )
        return self._opening

    def _show(self, found: _Read) -> None:
        saved, session = found.saved, self._session
        for name in type(session.overlay).model_fields:
            setattr(session.overlay, name, getattr(saved.overlay, name))
        for name in type(self._figure).model_fields:
            setattr(self._figure, name, getattr(saved.figure, name))
        session.set_window(Window(*saved.window))
        self._evidence.placement = saved.placement
        if found.model is None:
            self._evidence.set_model(None)
        else:
            assert found.model_folder is not None
            self._evidence.adopt(found.model, found.model_folder)
        self._awaited = None if found.model is None else found
        session.show(found.study)
        session.select(*saved.selection)  # of the report; questions come with the evidence
        session.move_to(saved.position_mm)
        self._selected = session.selection
        if found.model is not None:
            self._evidence.encode()

    def _encoded(self) -> None:
        """The session's scan has its evidence: ask again what was asked then."""
        found, session = self._awaited, self._session
        if found is None or not self._evidence.is_encoded:
            return
        self._awaited = None
        if session.study is None or session.study.number != found.study.number:
            return  # something else was opened meanwhile
        saved = found.saved
        # Encoding suits the number of patches to the scan; the session knows which was wanted.
        session.overlay.top_k = saved.overlay.top_k

        def select() -> None:
            if session.selection == self._selected:  # nobody chose anything while it was encoded
                place = session.position_mm
                session.select(*saved.selection)
                session.move_to(place)

        if saved.questions:
            self._evidence.recall(saved.questions, select)


def _read(path: Path, using: SimCroP | None, tell: Tell) -> _Read:
    tell("reading the session", 0, 4)
    saved = SavedSession.read(path)
    scan = saved.scan.find("scan", path)
    said = None if saved.report is None else saved.report.find("report", path)
    folder = None if saved.model is None else saved.model.find("model", path)
    tell("reading the report", 1, 4)
    row = None if saved.report is None else saved.report.which
    report = None if said is None else read_report(said, volume_name=row)
    if report is not None and saved.report is not None:
        saved.report.check("report", report_digest(report))
    count = len(saved.questions) + (0 if report is None else len(report.sentences))
    if any(not 0 <= index < count for index in saved.selection):
        raise SimCroPError(
            f"The session selects a sentence that there is not (there are {count})",
            path=path,
            code="not-a-session",
            remedy="Choose a file that was saved with Save session.",
        )
    tell("reading the scan", 2, 4)
    volume = read_volume(scan, series=saved.scan.which)
    saved.scan.check("scan", volume.sha256)
    model = None
    if saved.model is not None and folder is not None:
        tell("reading the model", 3, 4)
        if using is not None and using.model_id == saved.model.digest:
            model = using
        else:
            model = read_model(folder, lambda what, *_: tell(what, 3, 4))
            saved.model.check("model", model.model_id)
    tell("reading", 4, 4)
    study = OpenStudy(volume, display_of(volume), report, series=saved.scan.which, volume_name=row)
    return _Read(saved, study, model, folder)
