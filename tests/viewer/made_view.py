"""What the tests of the application share."""

from __future__ import annotations

import time
from collections.abc import Callable

from simcrop_viewer.model.jobs import Jobs


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
