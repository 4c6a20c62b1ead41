"""A wish to stop, seen while something other than a step is under way."""

from __future__ import annotations

from collections.abc import Callable

from simcrop_core.device import Progress


class StopAskedError(Exception):
    """Somebody asked the run to stop; what was under way is left for when it goes on."""


def until_stopped(tell: Progress, stop: Callable[[], bool]) -> Progress:
    """Progress that is passed on, and that ends what reports it once a stop is asked for.

    Raises
    ------
    StopAskedError
        From within the call that reports.
    """

    def told(what: str, done: int, total: int) -> None:
        tell(what, done, total)
        if stop():
            raise StopAskedError

    return told
