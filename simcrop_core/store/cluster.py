"""Many small jobs: in this process, in processes of this machine, or on a Dask cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from simcrop_core.errors import SimCroPError

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
        ``no-scheduler`` or ``no-workers``, with the first job.
    """
    if scheduler is None and workers <= 1:
        yield _here
        return
    opened: list[Any] = []

    def submit(
        function: Callable[..., Any], jobs: Iterable[tuple[Any, tuple[Any, ...]]]
    ) -> Iterator[tuple[Any, Any]]:
        if not opened:
            context = _client(workers, scheduler)
            opened.extend([context, context.__enter__()])
        yield from _on(opened[1], function, jobs)

    try:
        yield submit
    finally:
        if opened:
            opened[0].__exit__(None, None, None)


def _here(
    function: Callable[..., Any], jobs: Iterable[tuple[Any, tuple[Any, ...]]]
) -> Iterator[tuple[Any, Any]]:
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


@contextmanager
def _client(workers: int, scheduler: str | None) -> Iterator[Client]:
    """A Dask client of the scheduler, or of worker processes of its own."""
    import dask
    from distributed import Client, LocalCluster

    if scheduler is not None:
        try:
            client = Client(scheduler, timeout=20)
        except (OSError, ValueError, TimeoutError) as e:
            raise SimCroPError(
                f"No Dask scheduler answers at {scheduler}",
                code="no-scheduler",
                remedy="Start one with dask scheduler, and check the address.",
            ) from e
        with client:
            try:
                client.wait_for_workers(1, timeout=20)
            except TimeoutError as e:
                raise SimCroPError(
                    f"The Dask scheduler at {scheduler} has no workers",
                    code="no-workers",
                    remedy=f"Start some with dask worker {scheduler}.",
                ) from e
            yield client
        return
    threads = str(max(1, (os.cpu_count() or 1) // workers))
    settings = {
        # A study that kills its worker is tried once more, then given up.
        "distributed.scheduler.allowed-failures": 1,
        "distributed.nanny.environ.OMP_NUM_THREADS": threads,
        "distributed.nanny.pre-spawn-environ.OMP_NUM_THREADS": threads,
    }
    with (
        dask.config.set(settings),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            memory_limit=0,
            dashboard_address="127.0.0.1:0",
            host="127.0.0.1",
            silence_logs=50,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client
