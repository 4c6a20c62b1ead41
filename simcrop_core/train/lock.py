"""One run a folder: a lock that names its host and process, and that a kill cannot leave behind.

Two guards. The operating system's lock on the file goes with the process, however it ends. Across
hosts, where such locks may not reach, the file tells which host holds it, and its time of change
is renewed every few seconds while the run lives.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from simcrop_core.errors import SimCroPError

LOCK_NAME = "run.lock"
_RENEW_S = 5.0
#: A lock of another host that was not renewed for so long belongs to a run that is dead.
STALE_S = 60.0
_PATIENCE_S = 0.5
_ORPHANS_S = 20.0


class RunLock:
    """Held from :meth:`take` to :meth:`release`.

    Raises
    ------
    SimCroPError
        ``run-locked``: another process trains in this folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None
        self._released = threading.Event()

    def take(self) -> RunLock:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            self._wait(descriptor)
            holder = _read(self.path)
            if holder and holder.get("host") != socket.gethostname() and _fresh(self.path):
                raise _refusal(self.path, holder)
            me = {"host": socket.gethostname(), "process": os.getpid(), "since": time.time()}
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(me).encode(), 0)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        threading.Thread(target=self._renew, name="run-lock", daemon=True).start()
        return self

    def _wait(self, descriptor: int) -> None:
        """Get the system's lock. Who asks for the status holds it for a moment, and children of a
        run that was killed hold it until they notice."""
        start = time.monotonic()
        while not _try_lock(descriptor):
            holder = _read(self.path) or {}
            here = holder.get("host") == socket.gethostname()
            orphaned = here and not _alive(int(holder.get("process", 0)))
            if time.monotonic() - start > (_ORPHANS_S if orphaned else _PATIENCE_S):
                raise _refusal(self.path, holder)
            time.sleep(0.05)

    def release(self) -> None:
        """Let the next run in. The file stays, empty: removing it could remove another's lock."""
        if self._descriptor is None:
            return
        self._released.set()
        with suppress(OSError):
            os.truncate(self._descriptor, 0)
        os.close(self._descriptor)
        self._descriptor = None

    def _renew(self) -> None:
        while not self._released.wait(_RENEW_S):
            try:
                os.utime(self.path)
            except OSError:  # the folder is gone or the disk is away: the run will notice itself
                continue


def lock_holder(path: Path) -> dict[str, Any] | None:
    """``host``, ``process`` and ``since`` of the run that holds the lock, or None."""
    holder = _read(path)
    if holder is None:
        return None
    if holder.get("host") != socket.gethostname():
        return holder if _fresh(path) else None
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        return None if _try_lock(descriptor) else holder
    finally:
        os.close(descriptor)


def _refusal(path: Path, holder: dict[str, Any] | None) -> SimCroPError:
    holder = holder or {}
    return SimCroPError(
        f"Another run trains in this folder (host {holder.get('host', 'unknown')}, process "
        f"{holder.get('process', 'unknown')})",
        code="run-locked",
        remedy="Stop it with `simcrop-train stop`, or choose another folder; if its host died, "
        f"wait {STALE_S:.0f} seconds.",
        path=path.parent,
    )


def _read(path: Path) -> dict[str, Any] | None:
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return holder if isinstance(holder, dict) else None


def _fresh(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime < STALE_S
    except OSError:
        return False


def _alive(process: int) -> bool:
    if process <= 0:
        return False
    if os.name == "nt":  # asking there would end the process
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _try_lock(descriptor: int) -> bool:
    try:
        if os.name == "nt":
            import msvcrt

            # A byte far beyond the text, so that others can still read who holds it.
            os.lseek(descriptor, 1 << 30, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
