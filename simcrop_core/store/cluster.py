"""Many small jobs: in this process, in processes of this machine, or on a Dask cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from simcrop_core.cluster import dask_client

if TYPE_CHECKING:
    from distributed import Client

#: Jobs that a worker has before it at any time: the scheduler is not told of 47,000 at once.
_AHEAD = 4


class Submit(Protocol):
    """Runs ``function(*arguments)`` for each ``(name, arguments)``."""

    def __call__(
        self, function: Callable[..., Any], jobs: Iterable[tuple[Any, tuple[Any, ...]]]
    ) -> Iterator[tuple[Any, Any]]:
        """``(name, result)`` as they are done; where a worker died, what to tell a person.

        An exception in a job is raised here.
        """
        ...


@contextmanager
def workers_for(workers: int, scheduler: str | None) -> Iterator[Submit]:
    """Somewhere to run jobs; processes are started with the first job and end with the block.

    Raises
    ------
    SimCroPError
        ``no-scheduler`` or ``no-workers`` (also where they do not start), with the first job.
    """
    if scheduler is None and workers <= 1:
        yield here
        return
    opened: list[Client] = []

    def submit(
        function: Callable[..., Any], jobs: Iterable[tuple[Any, tuple[Any, ...]]]
    ) -> Iterator[tuple[Any, Any]]:
        if not opened:
            opened.append(stack.enter_context(dask_client(workers, scheduler)))
        yield from _on(opened[0], function, jobs)

    with ExitStack() as stack:
        yield submit


def here(
    function: Callable[..., Any], jobs: Iterable[tuple[Any, tuple[Any, ...]]]
) -> Iterator[tuple[Any, Any]]:
    """Run jobs one by one in this process."""
    for name, arguments in jobs:
        yield name, function(*arguments)


def _on(
    client: Client, function: Callable[..., Any], jobs: Iterable[tuple[Any, tuple[Any, ...]]]
) -> Iterator[tuple[Any, Any]]:
    from distributed import as_completed
    from distributed.scheduler import KilledWorker

    waiting = iter(jobs)
    names: dict[Any, Any] = {}

    def send() -> Any:
        job = next(waiting, None)
        if job is None:
            return None
        future = client.submit(function, *job[1], pure=False)
        names[future] = job[0]
        return future

    ahead = _AHEAD * max(1, len(client.scheduler_info()["workers"]))
    done = as_completed([f for f in (send() for _ in range(ahead)) if f is not None])
    for future in done:
        following = send()
        if following is not None:
            done.add(following)
        name = names.pop(future)
        try:
            yield name, future.result()
        except KilledWorker:
            yield name, "The worker process died, most likely of too little memory."
