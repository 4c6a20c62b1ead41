"""Work beside the window: what is being done, how far it is, and how to stop it.

Work runs in threads. Everything that is told of it, and every result, arrives on the thread that
``post`` leads to, which is the window's.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, TypeVar

from psygnal import Signal

from simcrop_core.errors import SimCroPError

T = TypeVar("T")
State = Literal["waiting", "running", "stopping", "done", "failed", "cancelled"]
Post = Callable[[Callable[[], None]], None]
_TOLD_EVERY_S = 0.05


class CancelledJobError(Exception):
    """Raised within the work once its job is cancelled."""


class Job:
    """One piece of work.

    Attributes
    ----------
    title
        What is done, for people.
    state
        How it stands.
    lane
        Where it waits for other work.
    what, done, total
        The present stage, and how far it is.
    error
        Why it failed; its cause is what was raised.
    is_quiet
        Whether it is so small and so frequent that nobody wants to be told of it.
    """

    changed = Signal()

    def __init__(self, title: str, *, lane: str = "", quiet: bool = False) -> None:
        self.title = title
        self.lane = lane
        self.is_quiet = quiet
        self.state: State = "waiting"
        self.what, self.done, self.total = "", 0, 0
        self.error: SimCroPError | None = None
        self.wanted = threading.Event()  # to be cancelled
        self._stage_began = time.monotonic()

    @property
    def is_over(self) -> bool:
        return self.state in ("done", "failed", "cancelled")

    @property
    def share(self) -> float | None:
        """How much of the present stage is done, 0 to 1, or None where nobody knows."""
        return self.done / self.total if self.total > 1 else None

    @property
    def seconds_left(self) -> float | None:
        """By the pace of this stage so far."""
        share = self.share
        if not share or self.is_over:
            return None
        return (time.monotonic() - self._stage_began) * (1 - share) / share

    def cancel(self) -> None:
        """Ask the work to end. Its result, should one still come, is dropped."""
        if not self.is_over:
            self.wanted.set()
            self.state = "stopping"
            self.changed.emit()

    def _begin(self) -> None:
        if self.state == "waiting":
            self.state = "running"
            self.changed.emit()

    def _tell(self, what: str, done: int, total: int) -> None:
        if what != self.what:
            self._stage_began = time.monotonic()
        self.what, self.done, self.total = what, done, total
        if not self.is_over:
            self.changed.emit()


class Jobs:
    """Runs work in lanes: work of one lane waits for what was started there before.

    Parameters
    ----------
    post
        Calls a function on the window's thread, soon.
    """

    added = Signal(Job)
    over = Signal(Job)

    def __init__(self, post: Post) -> None:
        self._post = post
        self._lanes: dict[str, ThreadPoolExecutor] = {}
        self.running: list[Job] = []
        self._closed = False

    @property
    def any_told(self) -> bool:
        """Whether something goes on that is not quiet."""
        return any(not job.is_quiet for job in self.running)

    def is_busy(self, *lanes: str) -> bool:
        """Whether something goes on in one of these lanes; may be asked from any thread."""
        return any(job.lane in lanes for job in tuple(self.running))

    def post(self, function: Callable[[], None]) -> None:
        """Call a function on the window's thread, soon; not any more once all is closed."""

        def call() -> None:
            if not self._closed:
                function()

        if not self._closed:
            self._post(call)

    def start(
        self,
        title: str,
        work: Callable[[Callable[[str, int, int], None]], T],
        done: Callable[[T], None],
        *,
        lane: str,
        failed: Callable[[SimCroPError], None] = lambda error: None,
        quiet: bool = False,
    ) -> Job:
        """Begin some work.

        Parameters
        ----------
        title
            For people.
        work
            Called in a thread with a function to tell progress by, which raises
            `CancelledJobError` once the job is cancelled.
        done, failed
            Called on the window's thread with what came out; neither after a cancellation. Where
            ``done`` cannot make anything of it, ``failed`` is called too.
        lane
            Work of the same lane is done one after the other.
        quiet
            Neither ``added`` nor ``over`` tells of it.
        """
        job = Job(title, lane=lane, quiet=quiet)
        self.running.append(job)
        if not quiet:
            self.added.emit(job)
        if lane not in self._lanes:
            self._lanes[lane] = ThreadPoolExecutor(1, thread_name_prefix=f"simcrop-{lane}")
        last_told = [0.0]

        def tell(what: str, steps: int, total: int) -> None:
            if job.wanted.is_set():
                raise CancelledJobError
            now = time.monotonic()
            if now - last_told[0] > _TOLD_EVERY_S or steps == total:
                last_told[0] = now
                self._post(lambda: job._tell(what, steps, total))

        def run() -> None:
            end: Callable[[], None]
            try:
                if job.wanted.is_set():
                    raise CancelledJobError
                self._post(job._begin)
                result = work(tell)
                end = lambda: self._end(job, failed, then=lambda: done(result))  # noqa: E731
            except CancelledJobError:
                job.wanted.set()
                end = lambda: self._end(job, failed)  # noqa: E731
            except BaseException as e:
                refusal = as_refusal(e)
                end = lambda: self._end(job, failed, error=refusal)  # noqa: E731
            if not self._closed:
                self._post(end)

        self._lanes[lane].submit(run)
        return job

    def _end(
        self,
        job: Job,
        failed: Callable[[SimCroPError], None],
        *,
        then: Callable[[], None] = lambda: None,
        error: SimCroPError | None = None,
    ) -> None:
        if self._closed:
            return
        if job.wanted.is_set():
            job.state = "cancelled"
        else:
            try:
                if error is None:
                    then()
            except Exception as e:  # what came out could not be shown
                error = as_refusal(e)
            job.state, job.error = ("failed" if error else "done"), error
            if error is not None:
                failed(error)
        if job in self.running:
            self.running.remove(job)
        job.changed.emit()
        if not job.is_quiet:
            self.over.emit(job)

    def close(self) -> None:
        """Cancel everything; nothing is told any more. Threads end at their next word."""
        self._closed = True
        for job in self.running:
            job.wanted.set()
        self.running.clear()
        for lane in self._lanes.values():
            lane.shutdown(wait=False, cancel_futures=True)


def as_refusal(error: BaseException) -> SimCroPError:
    """Any error as a sentence for people; one that nobody foresaw is called a defect."""
    if isinstance(error, SimCroPError):
        return error
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        refusal = SimCroPError(
            "There is not enough memory for this",
            code="out-of-memory",
            remedy="Close other programs or studies, or choose a smaller model.",
        )
    else:
        # What it says may name a file or a patient: that is for the details.
        refusal = SimCroPError(
            f"A defect in SimCroP Viewer ({type(error).__name__})",
            code="defect",
            remedy="Copy the details and report them; nothing you did is lost.",
        )
    refusal.__cause__ = error
    return refusal
