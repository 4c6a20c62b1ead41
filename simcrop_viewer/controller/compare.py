"""The open study under a second model, beside the first: encoded, kept in step, told apart."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from psygnal import Signal

from simcrop_core.alignment_result import AlignmentResult
from simcrop_core.errors import SimCroPError
from simcrop_viewer.controller.compared import Comparison, off_borders
from simcrop_viewer.controller.encoding import Tell
from simcrop_viewer.controller.evidence import EvidenceController
from simcrop_viewer.model.body import Body, body_of
from simcrop_viewer.model.jobs import Job, Jobs
from simcrop_viewer.model.model_title import model_title
from simcrop_viewer.model.session import Session

if TYPE_CHECKING:
    from simcrop_core.prepare import Placement

State = Literal["off", "getting ready", "on"]


class CompareController:
    """Keeps two sessions in step with the window's: one for each model.

    Attributes
    ----------
    session
        The window's: what is open, and what people do.
    first, second
        What the views of the two models show: statements with that model's evidence. Empty while
        nothing is compared.
    second_evidence
        The second model, and what it makes of the open study.
    comparison
        What is the same in both, what differs.
    state
        ``"getting ready"`` while the second model is loaded and sees its first study.
    """

    changed = Signal()  # state, or which models
    compared = Signal()  # statements, differences
    refused = Signal(SimCroPError)

    def __init__(self, session: Session, jobs: Jobs, evidence: EvidenceController) -> None:
        self.session = session
        self.first, self.second = Session(), Session()
        self.first.overlay = session.overlay
        self.second_evidence = EvidenceController(
            self.second, jobs, evidence.cache, which="second model"
        )
        self.state: State = "off"
        self._evidence = evidence
        self._jobs = jobs
        self._job: Job | None = None
        self._encoding: Job | None = None  # the latest by which the second model sees a study
        self.comparison = Comparison(session, self.first, self.second)
        self._told_k = 0
        self._signals = (
            (session.study_changed, self._study_changed),
            (session.report_changed, self._report_changed),
            (session.statements_changed, self._statements_changed),
            (session.selection_changed, self._select),
            (session.hint_changed, self._hint),
            (session.position_changed, self._move),
            (session.window_changed, self._set_window),
            (session.overlay.events, self._suit_overlay),
            (evidence.encoding, self._first_is_encoded_anew),
            (evidence.encoded_changed, self._keep_up),
            (evidence.model_changed, self._first_model_changed),
            (self.second.statements_changed, self._second_came),
            (self.second_evidence.encoded_changed, self._encoded),
            (self.second_evidence.refused, self.refused.emit),
        )
        for signal, answer in self._signals:
            signal.connect(answer)

    def close(self) -> None:
        """Let go of session and models."""
        for signal, answer in self._signals:
            signal.disconnect(answer)

    @property
    def is_on(self) -> bool:
        return self.state == "on"

    @property
    def job(self) -> Job | None:
        """What the second model is waited for with, if anything."""
        return self._job if self._job is not None and not self._job.is_over else None

    @property
    def titles(self) -> tuple[str, str]:
        """What to call the two models."""
        folders = (self._evidence.model_folder, self.second_evidence.model_folder)
        first, second = (model_title(Path(folder)) if folder else "none" for folder in folders)
        return (first, second) if first != second else (f"{first} (1)", f"{second} (2)")

    # -- beginning and end ----------------------------------------------------------------------

    def start(self, folder: str | Path) -> Job | None:
        """Load a second model and send the open study through it; then compare.

        None, and a refusal, where no scan is open or there is no first model. The four views stay
        until all is there, and also where it fails or is cancelled; what another second model was
        compared by goes once the weights of this one are read.
        """
        if self.session.study is None or self._evidence.model is None:
            scan = self.session.study is None
            self.refused.emit(
                SimCroPError(
                    "No scan is open" if scan else "There is no first model to compare with",
                    code="no-scan" if scan else "no-model",
                    remedy="Open one first." if scan else "Choose one in the Encode tab.",
                )
            )
            return None
        if not self.is_on:
            self.state = "getting ready"
        return self._follow(self.second_evidence.load(folder, then=self._loaded))

    def stop(self) -> None:
        """Compare no longer; the second model is let go of."""
        if self.state == "off":
            return
        self.state = "off"
        job, self._job = self._job, None
        if job is not None:
            job.cancel()
        self.second_evidence.set_model(None)
        self.first.show(None)
        self.second.show(None)
        self.comparison.body = None
        self.changed.emit()

    def _follow(self, job: Job | None) -> Job | None:
        self._job = job
        if job is not None:
            job.changed.connect(lambda: self._job_changed(job))
        self.changed.emit()
        return job

    def _job_changed(self, job: Job) -> None:
        if job is not self._job:
            return
        if job.is_over and job.state != "done" and not self.second_evidence.is_encoded:
            if job is self._encoding or self.second_evidence.model is None:
                self.stop()  # it failed or was cancelled, and there is nothing to compare with
                return
            self._job = None  # another model was wanted; the one before goes on
            self._keep_up()
        self.changed.emit()

    def _loaded(self) -> None:
        if self.session.study is None:
            self.stop()
            return
        self._take_study()
        self._encode(self._evidence.placed or self._evidence.placement)

    def _take_study(self) -> None:
        """Give the second model the study that is open."""
        study = self.session.study
        assert study is not None
        if self.second.study is study:
            return
        self.comparison.body = None
        if self._job is self._encoding:  # of another study: it is cancelled now, which ends nothing
            self._job = self._encoding = None
        self.second.show(study)

        def found(body: Body) -> None:
            if self.second.study is not None and self.second.study.number == study.number:
                self.comparison.body = body
                self.compared.emit()

        def work(tell: Tell) -> Body:
            return body_of(study.display)

        self._jobs.start(
            "Find the body", work, found, lane="read", failed=self.refused.emit, quiet=True
        )

    def _encode(self, placement: Placement) -> None:
        second = self.second_evidence
        second.device, second.placement = self._evidence.device, placement
        second.remember(self._questions())
        self._encoding = second.encode()
        self._follow(self._encoding)

    def _encoded(self) -> None:
        if not self.second_evidence.is_encoded or self.state == "off":
            return
        if not self.is_on:
            self.state = "on"
            self.first.show(self.session.study)
        self._suit_overlay()
        self._set_window()
        self._move()
        self._statements_changed()
        self.changed.emit()

    # -- what goes on in the window -------------------------------------------------------------

    def _study_changed(self) -> None:
        if self.state == "off":
            return
        if self.session.study is None:
            self.stop()
        elif self.second_evidence.model is not None:
            self._take_study()
            if self.is_on:
                self.first.show(self.session.study)
                self.changed.emit()

    def _report_changed(self) -> None:
        study = self.session.study
        if self.second.study is not None and study is not None and study.report is not None:
            self.second.set_report(study.report, study.volume_name)

    def _first_is_encoded_anew(self, *_: object) -> None:
        self._see_the_same(self._evidence.placement)

    def _keep_up(self) -> None:
        if self._evidence.placed is not None:
            self._see_the_same(self._evidence.placed)

    def _see_the_same(self, placement: Placement) -> None:
        """The first model sees the study, or another part of it: so does the second."""
        second = self.second_evidence
        if self.state == "off" or second.model is None or self.session.study is None:
            return
        if self.job is None and not (second.is_encoded and second.placed == placement):
            self._encode(placement)

    def _first_model_changed(self) -> None:
        if self._evidence.model is None:
            self.stop()
        elif self.state != "off":
            self.changed.emit()

    def _statements_changed(self) -> None:
        if self.second.study is None:
            return
        second = self.second_evidence
        new = [text for text in self._questions() if text not in second.asked]
        if second.is_encoded:
            if new:
                second.recall(new, lambda: None)
        else:
            second.remember(new)
        if self.is_on:
            self.first.set_statements(self.session.statements)
            self._second_came()

    def _second_came(self) -> None:
        if self.is_on:
            self._select()
            self.compared.emit()

    def _questions(self) -> list[str]:
        return [s.text for s in self.session.statements if s.is_query]

    def _select(self) -> None:
        if self.is_on:
            self.first.select(*self.session.selection)
            places = (self.comparison.place(index) for index in self.session.selection)
            self.second.select(*(place for place in places if place is not None))

    def _hint(self) -> None:
        if self.is_on:
            hinted = self.session.hinted
            index = None if hinted is None else self.session.statements.index(hinted)
            self.first.hint(index)
            self.second.hint(None if index is None else self.comparison.place(index))

    def _move(self) -> None:
        if self.is_on:
            for session in (self.first, self.second):
                session.move_to(off_borders(self.session.position_mm))

    def _set_window(self) -> None:
        if self.is_on:
            self.first.set_window(self.session.window)
            self.second.set_window(self.session.window)

    def _suit_overlay(self, *_: object) -> None:
        """Draw the second model's evidence as the first's, with as many top patches, but no more
        than a tenth of a coarse grid where the first has no more than that either."""
        if not self.is_on:
            return
        now, own = self.session.overlay, self.second.overlay
        before = own.top_k
        for name in type(now).model_fields:
            if name != "top_k":
                setattr(own, name, getattr(now, name))
        first, second = _tenth(self.session), _tenth(self.second)
        capped = second is not None and (first is None or now.top_k <= first)
        own.top_k = min(now.top_k, second) if capped and second is not None else now.top_k
        if own.top_k != before or self._told_k != now.top_k:
            self._told_k = now.top_k
            self.compared.emit()

    def go_to_best(self, which: Literal[0, 1]) -> None:
        """Put the crosshair into the first or the second model's best patch for what is chosen."""
        if not self.session.selection:
            return
        pair = self.comparison.pair(self.session.selection[-1])
        if pair is not None:
            result: AlignmentResult | None = pair[which].result
            assert result is not None
            self.session.move_to(result.patches.center(int(result.top(pair[which].row)[0])))


def _tenth(session: Session) -> int | None:
    """A tenth of the patches in the scan, by the evidence that is there."""
    results = (s.result for s in session.statements if s.result is not None)
    result = next(results, None)
    return None if result is None else max(1, int(np.count_nonzero(result.inside_N)) // 10)
