"""Worker processes: this machine's own, or those of a Dask cluster."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from simcrop_core.errors import SimCroPError

if TYPE_CHECKING:
    from distributed import Client
    from tornado.ioloop import IOLoop

#: Seconds that a scheduler has to answer and its workers have to come.
TIMEOUT_S = 20


@contextmanager
def dask_client(workers: int, scheduler: str | None) -> Iterator[Client]:
    """A Dask client of ``workers`` processes that end with it, or of the scheduler at an address.

    Raises
    ------
    SimCroPError
        No scheduler answers, it has no workers, or they do not start.
    """
    own = _local_client(workers) if scheduler is None else _remote_client(scheduler)
    with ExitStack() as stack:
        try:
            client = stack.enter_context(own)
        except RuntimeError as e:
            raise _not_started() from e
        yield client


def refuse_in_worker() -> None:
    """Refuse to begin anew in a worker process that is only importing the script it serves.

    Worker processes import the script that started them; without a guard the script would do in
    each of them what it is doing already.

    Raises
    ------
    SimCroPError
        ``no-workers``.
    SystemExit
        The same in a worker of :func:`dask_client`, whose starter says it.
    """
    process = multiprocessing.current_process()
    if getattr(process, "_inheriting", False):  # as multiprocessing itself asks
        raise SystemExit(1) if "Nanny" in process.name else _not_started()


def _not_started() -> SimCroPError:
    return SimCroPError(
        "The worker processes did not start",
        code="no-workers",
        remedy='If this is a script, put what it does under `if __name__ == "__main__":`, since '
        "worker processes import it.",
    )


@contextmanager
def _remote_client(scheduler: str) -> Iterator[Client]:
    from distributed import Client

    try:
        client = Client(scheduler, timeout=TIMEOUT_S)
    except (OSError, ValueError, TimeoutError) as e:
        raise SimCroPError(
            f"No Dask scheduler answers at {scheduler}.",
            code="no-scheduler",
            remedy="Start one with dask scheduler, and check the address.",
        ) from e
    with client:
        try:
            client.wait_for_workers(1, timeout=TIMEOUT_S)
        except TimeoutError as e:
            raise SimCroPError(
                f"The Dask scheduler at {scheduler} has no workers.",
                code="no-workers",
                remedy=f"Start some with dask worker {scheduler}.",
            ) from e
        yield client


@contextmanager
def _local_client(workers: int) -> Iterator[Client]:
    import dask
    from distributed import Client, LocalCluster

    # Torch must share the cores among the worker processes.
    threads = str(max(1, (os.cpu_count() or 1) // workers))
    settings = {
        # A study that kills its worker is tried once more, then given up.
        "distributed.scheduler.allowed-failures": 1,
        "distributed.nanny.environ.OMP_NUM_THREADS": threads,
        "distributed.nanny.pre-spawn-environ.OMP_NUM_THREADS": threads,
    }
    others = set(multiprocessing.active_children())
    asyncio_log = logging.getLogger("asyncio")
    level = asyncio_log.level
    try:
        with (
            dask.config.set(settings),
            _loop_without_interrupts() as loop,
            LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                memory_limit=0,
                dashboard_address="127.0.0.1:0",
                host="127.0.0.1",
                silence_logs=50,
                loop=loop,
            ) as cluster,
            Client(cluster) as client,
        ):
            try:
                yield client
            except BaseException:
                # Stopped half-way: asyncio would tell of every task that nobody waits for now.
                asyncio_log.setLevel(logging.CRITICAL + 1)
                raise
    finally:
        for worker in set(multiprocessing.active_children()) - others:
            worker.kill()  # one in the middle of a long step may outlive its cluster
            worker.join()
        if asyncio_log.level != level:
            gc.collect()  # it tells when they are collected
            asyncio_log.setLevel(level)


@contextmanager
def _loop_without_interrupts() -> Iterator[IOLoop]:
    """A loop whose thread, and so every worker process that it starts, is not told of Ctrl-C.

    A terminal sends it to all processes at once; it is for this one to stop its workers.
    """
    from multiprocessing.resource_tracker import ensure_running

    from distributed.utils import LoopRunner

    ensure_running()  # else the first worker's thread starts it, and that lets Ctrl-C through
    runner = LoopRunner(asynchronous=False)
    with _interrupts_blocked():
        runner.start()
    try:
        yield runner.loop
    finally:
        runner.stop()


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Let threads that are started here inherit that they are not told of Ctrl-C."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
