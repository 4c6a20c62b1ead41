"""Work beside the window: progress, cancelling, failing, results that come too late."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from made_view import Mailbox, wait

from simcrop_core.errors import SimCroPError
from simcrop_viewer.model.jobs import Job, Jobs

Tell = Callable[[str, int, int], None]


def test_a_result_arrives_where_the_mail_is_read(jobs: Jobs, mailbox: Mailbox) -> None:
    there: list[object] = []
    job = jobs.start(
        "Count",
        lambda tell: threading.current_thread().name,
        lambda name: there.append((name, threading.current_thread().name)),
        lane="a",
    )
    assert there == []
    wait(mailbox, jobs)
    assert job.state == "done"
    [(worked, told)] = there
    assert str(worked).startswith("simcrop-a")
    assert told == threading.current_thread().name


def test_progress_is_told_with_its_share_and_time_left(jobs: Jobs, mailbox: Mailbox) -> None:
    seen: list[tuple[str, float | None]] = []

    def work(tell: Tell) -> None:
        for step in range(5):
            tell("stepping", step, 4)
            time.sleep(0.06)

    job = jobs.start("Step", work, lambda _: None, lane="a")
    job.changed.connect(lambda: seen.append((job.what, job.share)))
    wait(mailbox, jobs)
    shares = [share for what, share in seen if what == "stepping"]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_cancelled_work_ends_at_its_next_word_and_gives_nothing(
    jobs: Jobs, mailbox: Mailbox
) -> None:
    begun, words, there = threading.Event(), [], []

    def work(tell: Tell) -> str:
        for step in range(2000):
            words.append(step)
            begun.set()
            tell("stepping", step, 2000)
            time.sleep(0.005)
        return "all"

    job = jobs.start("Step", work, there.append, lane="a", failed=there.append)
    begun.wait(10)
    job.cancel()
    assert job.state == "stopping"
    wait(mailbox, jobs)
    assert job.state == "cancelled"
    assert there == []
    assert len(words) < 2000


def test_a_result_that_comes_after_cancelling_is_dropped(jobs: Jobs, mailbox: Mailbox) -> None:
    go, there = threading.Event(), []
    job = jobs.start("Wait", lambda tell: go.wait(10), there.append, lane="a")
    job.cancel()
    go.set()
    wait(mailbox, jobs)
    assert (job.state, there) == ("cancelled", [])


def test_work_of_one_lane_waits_and_of_two_does_not(jobs: Jobs, mailbox: Mailbox) -> None:
    go, order = threading.Event(), []

    def slow(tell: Tell) -> None:
        go.wait(10)
        order.append("slow")

    jobs.start("Slow", slow, lambda _: None, lane="a")
    jobs.start("After it", lambda tell: order.append("after"), lambda _: None, lane="a")
    beside = threading.Event()
    jobs.start("Beside", lambda tell: beside.set(), lambda _: None, lane="b")
    assert beside.wait(10)
    assert order == []
    go.set()
    wait(mailbox, jobs)
    assert order == ["slow", "after"]


@pytest.mark.parametrize(
    ("error", "code", "word"),
    [
        (SimCroPError("No.", code="no", remedy="Do."), "no", "No."),
        (MemoryError(), "out-of-memory", "not enough memory"),
        (RuntimeError("CUDA out of memory. Tried"), "out-of-memory", "not enough memory"),
        (KeyError("x"), "defect", "A defect in SimCroP Viewer (KeyError"),
    ],
)
def test_whatever_fails_is_one_sentence(
    jobs: Jobs, mailbox: Mailbox, error: Exception, code: str, word: str
) -> None:
    said: list[SimCroPError] = []

    def work(tell: Tell) -> None:
        raise error

    job: Job = jobs.start("Fail", work, lambda _: pytest.fail("done"), lane="a", failed=said.append)
    wait(mailbox, jobs)
    assert job.state == "failed"
    assert said[0].code == code
    assert word in str(said[0])
    assert error in (said[0], said[0].__cause__)


def test_a_result_that_cannot_be_shown_is_a_failure(jobs: Jobs, mailbox: Mailbox) -> None:
    def show(_: object) -> None:
        raise ZeroDivisionError("in the view")

    said: list[SimCroPError] = []
    job = jobs.start("Show", lambda tell: 1, show, lane="a", failed=said.append)
    wait(mailbox, jobs)
    assert job.state == "failed"
    assert said == [job.error]
    assert said[0].code == "defect"
    assert "in the view" not in str(said[0])  # it may name a patient: it is in the details
    assert "in the view" in str(said[0].__cause__)


def test_closing_ends_everything_and_nothing_is_told_any_more() -> None:
    mailbox, words = Mailbox(), []
    jobs = Jobs(mailbox.append)
    begun, ended = threading.Event(), threading.Event()

    def work(tell: Tell) -> None:
        try:
            while True:
                begun.set()
                tell("stepping", 1, 2)
                time.sleep(0.005)
        finally:
            ended.set()

    jobs.start("Endless", work, words.append, lane="a", failed=words.append)
    jobs.start("Never begun", lambda tell: words.append("begun"), words.append, lane="a")
    assert begun.wait(10)
    jobs.close()
    assert ended.wait(10)
    mailbox.read()
    assert words == []
