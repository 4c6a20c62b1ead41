"""What the tests of the application share."""

from __future__ import annotations

import time
from collections.abc import Callable

from simcrop_core.encoded_cache import EncodedCache
from simcrop_core.errors import SimCroPError
from simcrop_viewer.controller.evidence import EvidenceController
from simcrop_viewer.controller.study import StudyController
from simcrop_viewer.model.jobs import Jobs
from simcrop_viewer.model.session import Session


def best_patch(row: int) -> int:
    return 100 * row + 107


class Mailbox(list[Callable[[], None]]):
    """Stands for the window's event loop: what is posted waits until it is read."""

    def read(self) -> None:
        while self:
            self.pop(0)()


def wait(mailbox: Mailbox, jobs: Jobs, seconds: float = 60) -> None:
    """Read the mailbox until all jobs are over."""
    end = time.monotonic() + seconds
    while (jobs.running or mailbox) and time.monotonic() < end:
        mailbox.read()
        time.sleep(0.005)
    assert not jobs.running, [job.title for job in jobs.running]


class Desk:
    """Session and controllers, without a window."""

    def __init__(self, jobs: Jobs, mailbox: Mailbox, cache: EncodedCache | None = None) -> None:
        self.jobs, self.mailbox = jobs, mailbox
        self.session = Session()
        self.studies = StudyController(self.session, jobs)
        self.evidence = EvidenceController(self.session, jobs, cache)
        self.refused: list[SimCroPError] = []
        self.studies.refused.connect(self.refused.append)
        self.evidence.refused.connect(self.refused.append)

    def wait(self) -> None:
        wait(self.mailbox, self.jobs)
