"""A list of studies, encoded beforehand, so that opening one need not wait for it."""

from __future__ import annotations

import time
from collections.abc import Callable

from psygnal import Signal

from simcrop_core.datasets.worklist import scan_stamp
from simcrop_core.errors import SimCroPError
from simcrop_viewer.controller.encoding import Encoder
from simcrop_viewer.controller.evidence import EvidenceController
from simcrop_viewer.controller.studies import in_words
from simcrop_viewer.model.jobs import CancelledJobError, Job, Jobs, as_refusal
from simcrop_viewer.model.session import Session
from simcrop_viewer.model.studies import ListedStudy, StudyList

Tell = Callable[[str, int, int], None]
_LANE = "list"
#: What a person waits for; encoding beforehand gives way to it.
_BEFORE_US = ("read", "model")
_LOOK_EVERY_S = 0.05


class StudyEncodingController:
    """Encodes the studies of a list one after the other, and knows which are encoded.

    Attributes
    ----------
    told
        How the last encoding of the list ended, as a sentence; empty where there was none.
    """

    encoding = Signal(Job)  # has been started
    told_changed = Signal()
    refused = Signal(SimCroPError)

    def __init__(
        self, session: Session, jobs: Jobs, studies: StudyList, evidence: EvidenceController
    ) -> None:
        self.list = studies
        self.told = ""
        self._session = session
        self._jobs = jobs
        self._evidence = evidence
        self._job: Job | None = None
        self._signals = (
            (evidence.model_changed, self._model_changed),
            (evidence.placement_changed, self._model_changed),
            (evidence.encoded_changed, self._encoded),
        )
        for signal, answer in self._signals:
            signal.connect(answer)
        studies.listed.connect(self._listed)

    def close(self) -> None:
        """Let go of the evidence."""
        for signal, answer in self._signals:
            signal.disconnect(answer)

    @property
    def job(self) -> Job | None:
        """The encoding of the list that is under way, if any."""
        return self._job if self._job is not None and not self._job.is_over else None

    @property
    def to_encode(self) -> tuple[int, ...]:
        """The rows that the search shows and that are not encoded yet."""
        return tuple(i for i in self.list.shown if self.list.rows[i].state != "encoded")

    def encode_all(self) -> Job | None:
        """Encode the studies that are shown, so that opening one need not wait for it.

        Goes on past a study that fails, which its row then says, and gives way to whatever a
        person asks for meanwhile. None, and a refusal, where there is no list, no model or no
        place to keep what is encoded.
        """
        encoder, indices = self._evidence.encoder, self.to_encode
        refusal = self._cannot()
        if refusal is not None or encoder is None or encoder.cache is None:
            self.refused.emit(refusal or _no_model())
            return None
        if self.job is not None or not indices:
            return None
        rows, limit = self.list.rows, encoder.cache.limit_bytes
        encoded_before = sum(row.state == "encoded" for row in rows)

        def mark(index: int, change: Callable[[ListedStudy], None]) -> None:
            def show() -> None:
                if self.list.rows is rows and self._job is job:
                    change(rows[index])
                    self.list.tell((index,))

            self._jobs.post(show)

        def work(tell: Tell) -> tuple[int, int]:
            done, bytes_each = 0, 0
            for number, index in enumerate(indices):
                say = self._giving_way(tell, number, len(indices))
                say()
                if (encoded_before + done + 1) * bytes_each > limit:
                    raise _no_room(done, len(indices) - number)
                mark(index, _encoding)
                try:
                    name, bytes_each = _encode(rows[index], encoder, say)
                    mark(index, _encoded_as(name))
                    done += 1
                except CancelledJobError:
                    raise
                except Exception as e:  # one study must not end the work on all the others
                    refusal = as_refusal(e)
                    if refusal.code == "cannot-write":
                        raise refusal from e
                    mark(index, _failed_for(in_words(refusal)))
            tell("encoding studies", len(indices), len(indices))
            return done, len(indices) - done

        def end(counts: tuple[int, int]) -> None:
            self._tell(_ended(*counts))

        for index in indices:
            rows[index].state = "waiting"
        self._tell("")
        job = self._jobs.start(
            "Encode the studies", work, end, lane="studies", failed=self.refused.emit
        )
        self._job = job
        job.changed.connect(self._job_changed)
        self.list.tell(indices)
        self.encoding.emit(job)
        return job

    def cannot_encode(self) -> str:
        """Why the list cannot be encoded, as a sentence; empty where it can."""
        refusal = self._cannot()
        return "" if refusal is None else f"{refusal.problem} {refusal.remedy}"

    def forget(self) -> None:
        """Remove all encoded scans from the disk, those of other lists too.

        Nor is anything kept that was begun before.
        """
        self._stop()
        if self._evidence.cache is not None:
            self._evidence.cache.clear()
        self.list.clear_states(("encoded",))

    def _cannot(self) -> SimCroPError | None:
        if not len(self.list):
            return SimCroPError(
                "No studies are listed", code="no-list", remedy="Open a folder or a list first."
            )
        if self._evidence.encoder is None:
            return _no_model()
        if self._evidence.cache is None:
            return SimCroPError(
                "Encoded scans are not kept",
                code="no-cache",
                remedy="Start without --no-cache to encode a list beforehand.",
            )
        return None

    def _giving_way(self, tell: Tell, number: int, total: int) -> Callable[..., None]:
        """Tells how far the list is, and waits while a person waits for something else."""

        def say(*_: object) -> None:
            tell("encoding studies", number, total)
            while self._jobs.is_busy(*_BEFORE_US):
                time.sleep(_LOOK_EVERY_S)
                tell("encoding studies", number, total)

        return say

    def _job_changed(self) -> None:
        if self._job is not None and self._job.is_over:
            self.list.clear_states(("waiting", "encoding"))
            if self._job.state == "cancelled":
                self._tell("Cancelled; what was encoded is kept.")
            if self._job.state != "done":
                self.find_states()

    def _listed(self) -> None:
        self._stop()
        self._tell("")

    def _stop(self) -> None:
        """Encode no more, and hear no more of it: it was for another list or model."""
        if self._job is not None:
            self._job.cancel()
            self._job = None
        self.list.clear_states(("waiting", "encoding"))

    def _model_changed(self) -> None:
        """What was encoded by another model, or elsewhere in the scan, is of no use now."""
        self._stop()
        self.list.clear_states(("encoded", "failed"))
        self.find_states()

    def find_states(self) -> None:
        """Which rows are encoded already, by their files alone."""
        encoder, rows = self._evidence.encoder, self.list.rows
        if encoder is None or encoder.cache is None or not rows:
            return

        def find(tell: Tell) -> list[tuple[int, str]]:
            found = []
            for index, row in enumerate(rows):
                tell("looking for encoded scans", index, len(rows))
                name = encoder.known(row.stamp) if row.stamp else None
                if name is not None:
                    found.append((index, name))
            return found

        def show(found: list[tuple[int, str]]) -> None:
            if not self._is_still(rows, encoder):
                return
            for index, name in found:
                rows[index].pseudonym = name
                if rows[index].state in ("", "failed"):
                    rows[index].state = "encoded"
            self.list.tell(index for index, _ in found)

        self._jobs.start("Look for encoded scans", find, show, lane=_LANE, quiet=True)

    def _is_still(self, rows: tuple[ListedStudy, ...], encoder: Encoder) -> bool:
        """Whether these are listed, and encoded like this."""
        now = self._evidence.encoder
        if self.list.rows is not rows or now is None or now.model is not encoder.model:
            return False
        return now.placement == encoder.placement and now.since == encoder.since

    def _encoded(self) -> None:
        """The study that is open was encoded because a person opened it."""
        study, encoder, index = self._session.study, self._evidence.encoder, self.list.open
        if study is None or encoder is None or encoder.cache is None or index is None:
            return
        if not self._evidence.is_encoded or self._evidence.placed != encoder.placement:
            return
        rows = self.list.rows
        if study.series and study.series != getattr(rows[index].source, "series", ""):
            return  # another series than the list reads

        def remember(tell: Tell) -> bool:
            return encoder.remember(study.stamp, study.volume)

        def show(is_kept: bool) -> None:
            if is_kept and self._is_still(rows, encoder):
                self.list.set_state(index, "encoded")

        self._jobs.start("Remember", remember, show, lane=_LANE, quiet=True)

    def _tell(self, text: str) -> None:
        self.told = text
        self.told_changed.emit()


def _encode(row: ListedStudy, encoder: Encoder, say: Callable[..., None]) -> tuple[str, int]:
    """Read a study's scan, and encode it unless that is kept; its pseudonym, and the bytes."""
    stamp = scan_stamp(row.source)
    volume = row.source.read()
    encoded = encoder.find(volume)
    if encoded is None:
        encoded = encoder.encode(volume, say)
        encoder.keep(volume, encoded)
    encoder.remember(stamp, volume)
    return volume.pseudonym, encoded.patches_ND.nbytes


def _encoding(row: ListedStudy) -> None:
    row.state = "encoding"


def _encoded_as(name: str) -> Callable[[ListedStudy], None]:
    def change(row: ListedStudy) -> None:
        row.state, row.pseudonym = "encoded", name
        if not row.fault.startswith("Report:"):
            row.fault = ""

    return change


def _failed_for(fault: str) -> Callable[[ListedStudy], None]:
    def change(row: ListedStudy) -> None:
        row.state, row.fault = "failed", fault

    return change


def _ended(done: int, failed: int) -> str:
    rest = f"; {failed} could not be, for the reason beside it" if failed else ""
    return f"Encoding is done: {done} new{rest}."


def _no_model() -> SimCroPError:
    return SimCroPError(
        "There is no model to encode with",
        code="no-model",
        remedy="Choose one in the Encode tab.",
    )


def _no_room(done: int, left: int) -> SimCroPError:
    return SimCroPError(
        f"The room for encoded scans is used up: {done} were encoded, {left} were not",
        code="no-room",
        remedy="The others are encoded when they are opened; search for fewer studies.",
    )
