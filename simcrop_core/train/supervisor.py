"""Several processes on one computer that live and die together.

Each is told its place by the environment variables that torch and Fabric know. When one ends
badly, it is named, and the others are ended too: nobody waits for a process that is gone.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from simcrop_core.errors import SimCroPError
from simcrop_core.train.devices import SUPERVISED

_POLL_S = 0.05


def supervise(
    command: Sequence[str],
    processes: int,
    *,
    stopping: Callable[[], bool] = lambda: False,
    grace_s: float = 10.0,
) -> int:
    """Run a command in several processes and wait for all.

    Parameters
    ----------
    command
        Program and arguments, the same for all.
    processes
        How many.
    stopping
        Asked often; once it is true, the processes are asked to stop (SIGTERM) and waited for.

    grace_s
        How long the others have to end by themselves once one ended badly.

    Returns
    -------
    int
        The exit code of the first process that ended badly, if it refused by itself; else 0.

    Raises
    ------
    SimCroPError
        ``rank-died``: one was killed or crashed.
    """
    running = _start(command, processes)
    asked = False
    try:
        while True:
            codes = [process.poll() for process in running]
            bad = [rank for rank, code in enumerate(codes) if code not in (None, 0)]
            if bad:
                return _end_badly(running, codes, grace_s)
            if all(code == 0 for code in codes):
                return 0
            if not asked and stopping():
                asked = True
                for process in running:
                    process.send_signal(signal.SIGTERM)
            time.sleep(_POLL_S)
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
            process.wait()


def _start(command: Sequence[str], processes: int) -> list[subprocess.Popen[bytes]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = os.environ | {
        SUPERVISED: "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(processes),
        "NODE_RANK": "0",
    }
    # They divide the cores among themselves, as torchrun would have them do.
    common.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    common.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    return [
        subprocess.Popen(list(command), env=common | {"LOCAL_RANK": str(rank), "RANK": str(rank)})
        for rank in range(processes)
    ]


def _end_badly(
    running: Sequence[subprocess.Popen[bytes]], codes: Sequence[int | None], grace_s: float
) -> int:
    # Who loses a partner ends soon after it: a moment tells who was first in trouble.
    end = time.monotonic() + grace_s
    codes = list(codes)
    while None in codes and time.monotonic() < end:
        time.sleep(_POLL_S)
        codes = [process.poll() for process in running]
    killed = [rank for rank, code in enumerate(codes) if code is not None and code < 0]
    refused = [code for code in codes if code is not None and code > 0]
    if killed:
        rank = killed[0]
        number = -(codes[rank] or 0)
        raise SimCroPError(
            f"Process {rank} of the run (number {running[rank].pid}) was killed by "
            f"{_signal_name(number)}; the others were ended",
            code="rank-died",
            remedy="Start the run again with --resume; if the system killed it, it was probably "
            "out of memory.",
        )
    return min(refused)  # 2, a refusal, says more than what losing a partner provokes


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def python_command(module: str, arguments: Sequence[str]) -> list[str]:
    """The command that runs a module with this Python, and nothing of the present folder."""
    return [sys.executable, "-P", "-m", module, *arguments]
