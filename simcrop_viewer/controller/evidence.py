"""From a scan and sentences to evidence: models, encoding, questions in one's own words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from numpy.typing import ArrayLike
from psygnal import Signal

from simcrop_core.alignment_result import AlignmentResult
from simcrop_core.encoded import Encoded
from simcrop_core.encoded_cache import EncodedCache
from simcrop_core.errors import SimCroPError
from simcrop_core.volume import Note
from simcrop_viewer.controller.encoding import (
    TOP_K,
    Encoder,
    Tell,
    kept_or_why,
    read_model,
    usual_k,
)
from simcrop_viewer.model.jobs import Job, Jobs
from simcrop_viewer.model.ranking import ranked_at
from simcrop_viewer.model.session import OpenStudy, Session, Statement, statements_of

if TYPE_CHECKING:
    from simcrop_core.device import Progress
    from simcrop_core.model import SimCroP
    from simcrop_core.prepare import Placement

T = TypeVar("T")
_LANE = "model"


@dataclass(frozen=True, slots=True, eq=False)
class _Evidence:
    """An encoded scan and what its report's sentences look like in it.

    ``was_kept`` says whether it was taken from the disk; ``trouble`` is why it could not be kept.
    """

    study: int
    encoded: Encoded
    report: AlignmentResult | None
    placement: Placement
    was_kept: bool = False
    trouble: SimCroPError | None = None


class EvidenceController:
    """Holds the model, and keeps the session's statements supplied with evidence.

    Attributes
    ----------
    device
        ``"auto"``, ``"cpu"``, ``"cuda:0"`` and so on.

    Parameters
    ----------
    cache
        Where encoded scans are kept, so that a study that is opened again need not wait; None
        keeps none.
    which
        Which model it is, among the jobs' titles; empty where there is but one.
    """

    model_changed = Signal()
    placement_changed = Signal()
    encoded_changed = Signal()
    encoding = Signal(Job)  # has been started
    refused = Signal(SimCroPError)

    def __init__(
        self, session: Session, jobs: Jobs, cache: EncodedCache | None = None, which: str = ""
    ) -> None:
        self._which = f" ({which})" if which else ""
        self.device = "auto"
        self._placement: Placement = "center"
        self.cache = cache
        self._session = session
        self._jobs = jobs
        self._model: SimCroP | None = None
        self._evidence: _Evidence | None = None
        self._job: Job | None = None
        self._loading: Job | None = None
        self._folder = ""
        self._usual_k = TOP_K
        self._asked: tuple[str, ...] = ()  # about the open study
        session.study_changed.connect(self._study_changed)
        session.report_changed.connect(self._report_changed)

    # -- the model ------------------------------------------------------------------------------

    @property
    def model(self) -> SimCroP | None:
        return self._model

    @property
    def model_folder(self) -> str:
        """Where the model in use was loaded from, or ``""``."""
        return self._folder if self._model is not None else ""

    def load(self, folder: str | Path, then: Callable[[], None] = lambda: None) -> Job:
        """Load a model; the one in use stays until the new one is whole."""

        def use(model: SimCroP) -> None:
            self._loading = None
            self.adopt(model, folder)
            then()

        if self._loading is not None:
            self._loading.cancel()
        self._loading = self._start("Load the model", lambda tell: read_model(folder, tell), use)
        return self._loading

    def adopt(self, model: SimCroP, folder: str | Path) -> None:
        """Use a model that was read from a folder."""
        self._folder = str(folder)
        self.set_model(model)

    def set_model(self, model: SimCroP | None) -> None:
        """Use a model; evidence by another one goes."""
        if self._loading is not None:
            self._loading.cancel()
        if model is self._model:
            return
        if self._job is not None:
            self._job.cancel()
        self._model = model
        self._forget()
        study = self._session.study
        self._session.set_statements(statements_of(None if study is None else study.report, None))
        self.model_changed.emit()

    # -- encoding -------------------------------------------------------------------------------

    @property
    def placement(self) -> Placement:
        """Where the model's input lies in the scan, from the next encoding on: in its middle, on
        the lungs, or in overlapping windows over all of it."""
        return self._placement

    @placement.setter
    def placement(self, placement: Placement) -> None:
        if placement != self._placement:
            self._placement = placement
            self.placement_changed.emit()

    @property
    def encoder(self) -> Encoder | None:
        """How scans are encoded from now on; None without a model."""
        if self._model is None:
            return None
        since = None if self.cache is None else self.cache.times_cleared
        return Encoder(self._model, self._placement, self.device, self.cache, since)

    @property
    def is_encoded(self) -> bool:
        """Whether the open scan has been through the model."""
        return self._evidence is not None

    @property
    def notes(self) -> tuple[Note, ...]:
        """What was done to the open scan on the way into the model, reading included."""
        return () if self._evidence is None else self._evidence.encoded.volume.notes

    @property
    def placed(self) -> Placement | None:
        """The placement of the evidence that is there."""
        return None if self._evidence is None else self._evidence.placement

    @property
    def was_kept(self) -> bool:
        """Whether the scan was encoded earlier, and what came of it taken from the disk."""
        return self._evidence is not None and self._evidence.was_kept

    def encode(self, *, anew: bool = False) -> Job | None:
        """Send the scan through the model, then compare every sentence and question with it.

        None where there is no study or no model. Evidence that is there stays until the new one
        has come. With ``anew``, what was kept of an earlier time is not looked for.
        """
        study, model, encoder = self._session.study, self._model, self.encoder
        if study is None or model is None or encoder is None:
            return None
        if self._job is not None:
            self._job.cancel()

        def work(tell: Tell) -> _Evidence:
            encoded = None if anew else encoder.find(study.volume)
            was_kept, trouble = encoded is not None, None
            if encoded is None:
                encoded = encoder.encode(study.volume, tell)
                trouble = kept_or_why(encoder, study.volume, encoded)
            result = self._aligned(model, encoded, study, tell) if _has_text(study) else None
            return _Evidence(study.number, encoded, result, encoder.placement, was_kept, trouble)

        def take(evidence: _Evidence) -> None:
            now = self._session.study
            if now is None or now.number != evidence.study or self._model is not model:
                return  # it came late, for something that is closed
            if now.report is not study.report:
                evidence = replace(evidence, report=None)
            self._take(evidence)
            if now.report is not study.report:
                self._report_changed()
            if evidence.trouble is not None:
                self.refused.emit(evidence.trouble)

        self._job = self._start("Encode the scan", work, take)
        self.encoding.emit(self._job)
        return self._job

    def ask(self, text: str) -> Job | None:
        """Compare a person's own words with the encoded scan, and select them.

        None, and a refusal, where the scan is not encoded yet.
        """
        evidence, model = self._evidence, self._model
        if not text.strip():
            self.refused.emit(
                SimCroPError(
                    "There is nothing to ask", code="empty-query", remedy="Type a sentence first."
                )
            )
            return None
        if evidence is None or model is None:
            self.refused.emit(_not_encoded())
            return None

        return self._compare((text,), lambda found: self._session.select(*found))

    def recall(self, texts: Sequence[str], then: Callable[[], None]) -> Job | None:
        """Compare words that were asked before with the encoded scan, without selecting them.

        None where the scan is not encoded.
        """
        if self._evidence is None or self._model is None:
            return None
        self.remember(texts)
        return self._compare(texts, lambda found: then())

    def remember(self, texts: Sequence[str]) -> None:
        """Ask these once the scan is encoded."""
        self._asked += tuple(text for text in texts if text not in self._asked)

    @property
    def asked(self) -> tuple[str, ...]:
        """All questions about the open study, those included that are still being answered."""
        return self._asked

    def _compare(self, texts: Sequence[str], then: Callable[[list[int]], None]) -> Job:
        """Add words to the statements, each once; ``then`` learns where they stand."""
        evidence, model = self._evidence, self._model
        assert evidence is not None
        assert model is not None

        def work(tell: Tell) -> AlignmentResult:
            from simcrop_core.align import align

            return align(
                model,
                evidence.encoded,
                queries=texts,
                top_k=usual_k(evidence.encoded),
                device=self.device,
                progress=tell,
            )

        def take(result: AlignmentResult) -> None:
            now = self._evidence
            if now is None:
                return
            if now.encoded is not evidence.encoded:
                if now.study == evidence.study:  # it was encoded again meanwhile
                    self._compare(texts, then)
                return
            statements, places = list(self._session.statements), []
            for row, sentence in enumerate(result.sentences):
                asked = [s.text if s.is_query else None for s in statements]
                if sentence.text not in asked:
                    statements.append(Statement(sentence.text, sentence.section, result, row))
                    asked.append(sentence.text)
                places.append(asked.index(sentence.text))
            own = tuple(s.text for s in statements if s.is_query)
            self._asked = (*own, *(text for text in self._asked if text not in own))
            if len(statements) > len(self._session.statements):
                self._session.set_statements(tuple(statements))
            then(places)

        return self._start("Ask", work, take)

    # -- all of it in one -----------------------------------------------------------------------

    @property
    def top_k(self) -> int:
        """Patches that an alignment holds for each sentence.

        Raises
        ------
        SimCroPError
            The scan is not encoded.
        """
        if self._evidence is None:
            raise _not_encoded()
        return usual_k(self._evidence.encoded)

    def alignment(self) -> Callable[[Progress], AlignmentResult]:
        """How to come by one alignment of the report and all questions, in the statements' order.

        Returns
        -------
        callable
            For a thread: takes a function to tell progress by. It holds on to what is shown now.

        Raises
        ------
        SimCroPError
            The scan is not encoded, or there is no sentence.
        """
        evidence, model, study = self._evidence, self._model, self._session.study
        if evidence is None or model is None or study is None:
            raise _not_encoded()
        questions = tuple(s.text for s in self._session.statements if s.is_query)
        if not self._session.statements:
            raise SimCroPError(
                "There is no sentence yet",
                code="no-sentences",
                remedy="Open a report, or ask in your own words.",
            )
        result = evidence.report
        if result is not None and not questions:
            return lambda tell: result
        return lambda tell: self._aligned(model, evidence.encoded, study, tell, questions)

    # -- from place to sentences ----------------------------------------------------------------

    def statements_at(self, world_mm: ArrayLike) -> list[tuple[int, float]]:
        """Which statements look most like the patch at a RAS point, best first; as
        `simcrop_viewer.model.ranking.ranked_at`."""
        return ranked_at(self._session.statements, world_mm)

    # -- inside ---------------------------------------------------------------------------------

    def _start(self, title: str, work: Callable[[Tell], T], take: Callable[[T], None]) -> Job:
        return self._jobs.start(
            title + self._which, work, take, lane=_LANE, failed=self.refused.emit
        )

    def _aligned(
        self,
        model: SimCroP,
        encoded: Encoded,
        study: OpenStudy,
        tell: Progress,
        questions: Sequence[str] = (),
    ) -> AlignmentResult:
        from simcrop_core.align import align

        return align(
            model,
            encoded,
            study.report,
            queries=questions,
            top_k=usual_k(encoded),
            device=self.device,
            progress=tell,
        )

    def _take(self, evidence: _Evidence) -> None:
        self._evidence = evidence
        self._suit_k(usual_k(evidence.encoded))
        study = self._session.study
        report = None if study is None else study.report
        self._session.set_statements(statements_of(report, evidence.report))
        self.encoded_changed.emit()
        if self._asked:
            self.recall(self._asked, lambda: None)

    def _suit_k(self, usual: int) -> None:
        """Show as many patches as scores are told by, unless a person chose another number."""
        overlay = self._session.overlay
        if overlay.top_k == self._usual_k:
            overlay.top_k = usual
        self._usual_k = usual

    def _study_changed(self) -> None:
        self._asked = ()
        if self._job is not None:
            self._job.cancel()
        self._forget()

    def _report_changed(self) -> None:
        """Compare a new report with the scan as it was encoded."""
        evidence, model, study = self._evidence, self._model, self._session.study
        if evidence is None or model is None or study is None:
            return

        def work(tell: Tell) -> _Evidence:
            result = None
            if _has_text(study):
                result = self._aligned(model, evidence.encoded, study, tell)
            return replace(evidence, report=result)

        def take(found: _Evidence) -> None:
            now = self._session.study
            if now is not None and now.report is study.report and self._model is model:
                self._take(found)

        self._start("Read the sentences", work, take)

    def _forget(self) -> None:
        if self._evidence is not None:
            self._evidence = None
            self.encoded_changed.emit()


def _has_text(study: OpenStudy) -> bool:
    return study.report is not None and bool(study.report.sentences)


def _not_encoded() -> SimCroPError:
    return SimCroPError(
        "The scan has not been encoded",
        code="not-encoded",
        remedy="Choose a model and press Encode.",
    )
