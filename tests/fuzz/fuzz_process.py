"""One reading in a process of its own, held to limits; every end it can come to has a name."""

from __future__ import annotations

import json
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simcrop_core.errors import SimCroPError

#: Hidden by Python from people who run a program, so they are no noise.
_UNSEEN = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)


@dataclass(frozen=True, slots=True)
class Read:
    """What a reader gave.

    ``fingerprint`` is a digest of everything it holds, ``vital`` of that which a checksum in the
    file covers, where that is not all of it.
    """

    fingerprint: str
    notes: tuple[tuple[str, str], ...] = ()
    vital: str = ""


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """What one reading may use: memory beyond the parent's, processor time, time on the clock.

    Work is judged by processor time; the clock only finds what waits for ever, so it leaves room
    for a machine that others use as well.
    """

    memory_bytes: int = 3 << 29
    cpu_s: int = 20
    wall_s: float = 90.0


@dataclass(slots=True)
class Ending:
    """How a reading ended.

    ``kind`` is ``loaded``, ``refused``, or one of the defects ``exception``, ``crash``,
    ``timeout``, ``memory``, ``bad refusal``, ``noise`` and ``left behind``.
    """

    kind: str
    text: str = ""
    code: str = ""
    read: Read | None = None
    seconds: float = 0.0
    grown_mib: float = 0.0
    left: list[str] = field(default_factory=list)


def end_of(
    read: Callable[[Path], Read], folder: Path, opened: Path, limits: ProcessLimits
) -> Ending:
    """Let ``read`` open a path within ``folder`` in a forked process, and say how it ended.

    Anything that appears in ``folder`` or in the process's own temporary folder, and anything
    printed, is a defect too.
    """
    scratch = Path(tempfile.mkdtemp(prefix="fuzz-scratch-"))
    (scratch / "temp").mkdir()
    before = _entries(folder)
    start = time.monotonic()
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receive)
        _in_child(read, folder, opened, scratch, limits, send)
    os.close(send)
    with suppress(OSError):
        os.setpgid(child, child)
    said = _listen(receive, start + limits.wall_s)
    os.close(receive)
    if said is None:
        with suppress(OSError):
            os.killpg(child, signal.SIGKILL)
    _, status, _ = os.wait4(child, 0)
    with suppress(OSError):  # what the reading started: the codecs' processes
        os.killpg(child, signal.SIGKILL)
    ending = _ending(said, status)
    ending.seconds = time.monotonic() - start
    noise = (scratch / "noise").read_text(errors="replace") if (scratch / "noise").exists() else ""
    if noise and ending.kind in ("loaded", "refused"):
        ending.kind, ending.text = "noise", noise[-2000:]
    ending.left = sorted(_entries(folder) - before) + sorted(_entries(scratch / "temp"))
    # A reading that was ended from outside cannot tidy up.
    if ending.left and ending.kind in ("loaded", "refused"):
        ending.kind, ending.text = "left behind", ", ".join(ending.left)
    shutil.rmtree(scratch, ignore_errors=True)
    return ending


def _entries(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*")}


def _in_child(
    read: Callable[[Path], Read],
    folder: Path,
    opened: Path,
    scratch: Path,
    limits: ProcessLimits,
    send: int,
) -> None:
    try:
        os.setpgid(0, 0)
        noise = os.open(scratch / "noise", os.O_WRONLY | os.O_CREAT, 0o600)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(noise, 1)
        os.dup2(noise, 2)
        sys.stdout = open(1, "w", closefd=False, buffering=1)  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False, buffering=1)  # noqa: SIM115
        tempfile.tempdir = str(scratch / "temp")
        os.environ["TMPDIR"] = tempfile.tempdir
        warnings.resetwarnings()
        warnings.simplefilter("always")
        for unseen in _UNSEEN:
            warnings.simplefilter("ignore", unseen)
        at_start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        memory = pages * resource.getpagesize() + limits.memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_s, limits.cpu_s + 2))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        said = _said(read, folder, opened)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        said["grown_mib"] = (peak - at_start) / 1024
        sys.stdout.flush()
        sys.stderr.flush()
        message = json.dumps(said).encode() + b"\n"
        while message:
            message = message[os.write(send, message) :]
        os._exit(0)
    finally:
        os._exit(70)


def _said(read: Callable[[Path], Read], folder: Path, opened: Path) -> dict[str, Any]:
    try:
        found = read(opened)
    except SimCroPError as e:
        fault = _fault_of_refusal(e, folder)
        kind = "bad refusal" if fault else "refused"
        return {"kind": kind, "code": e.code, "text": f"{fault}: {e}" if fault else str(e)}
    except MemoryError:
        return {"kind": "memory", "text": traceback.format_exc()[-2000:]}
    except BaseException:
        return {"kind": "exception", "text": traceback.format_exc()[-2000:]}
    return {"kind": "loaded", "read": [found.fingerprint, found.notes, found.vital]}


def _fault_of_refusal(error: SimCroPError, folder: Path) -> str:
    """What a refusal lacks; empty where it is as it should be."""
    text = str(error)
    if not error.problem or not error.remedy or not error.code:
        return "no problem, code or remedy"
    if len(text.splitlines()) != 1 or not text.isprintable():
        return "not one line"
    if error.path is None or not str(error.path).startswith(str(folder)) or str(folder) not in text:
        return "names no file"
    return ""


def _listen(receive: int, until: float) -> bytes | None:
    """The one line that the child says; what there was of it if it ended; None when time is up."""
    said = b""
    while not said.endswith(b"\n"):
        left = until - time.monotonic()
        if left <= 0 or not select.select([receive], [], [], left)[0]:
            return None
        piece = os.read(receive, 1 << 16)
        if not piece:
            break
        said += piece
    return said


def _ending(said: bytes | None, status: int) -> Ending:
    if said is None:
        return Ending("timeout", "It took too long.")
    if not said.endswith(b"\n"):
        if os.WIFSIGNALED(status):
            name = signal.Signals(os.WTERMSIG(status)).name
            return Ending("timeout" if name in ("SIGXCPU", "SIGKILL") else "crash", name)
        return Ending("crash", f"The process ended with {os.waitstatus_to_exitcode(status)}.")
    words = json.loads(said)
    read = None
    if words["kind"] == "loaded":
        fingerprint, notes, vital = words["read"]
        read = Read(fingerprint, tuple((code, text) for code, text in notes), vital)
    return Ending(
        words["kind"], words.get("text", ""), words.get("code", ""), read, 0.0, words["grown_mib"]
    )
