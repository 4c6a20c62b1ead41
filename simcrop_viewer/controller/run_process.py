"""The command ``simcrop-train`` as processes: asked for an answer, or started to outlive us."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from simcrop_core.errors import SimCroPError
from simcrop_core.train.events import LOG_NAME
from simcrop_core.train.lock import LOCK_NAME, lock_holder
from simcrop_viewer.model.run_log import heading, hold, log_is_held
from simcrop_viewer.model.run_summary import RunSummary, process_of
from simcrop_viewer.model.runs_folder import refuse_no_text

_POLL_S = 0.1
#: Children of a run that was killed notice within this time.
_PATIENCE_S = 20.0
Tell = Callable[[str, int, int], None]


def command(words: Sequence[str]) -> list[str]:
    """The program that runs ``simcrop-train`` with this Python, and nothing of the present
    folder (``-P``), where a file may be called as a module is."""
    return [sys.executable, "-P", "-m", "simcrop_training", *words]


def ask(words: Sequence[str], tell: Tell) -> Mapping[str, Any]:
    """What the command answers in JSON; a refusal may be an answer too.

    Parameters
    ----------
    tell
        Called now and then; what it raises ends the command.

    Raises
    ------
    SimCroPError
        It has no answer, or is not there.
    """
    process = subprocess.Popen(
        command(words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        while True:
            tell("asking simcrop-train", 0, 1)
            try:
                said, complained = process.communicate(timeout=_POLL_S)
                break
            except subprocess.TimeoutExpired:
                continue
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    try:
        answer = json.loads(said)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        lines = complained.decode("utf-8", "replace").strip().splitlines()
        raise SimCroPError(
            lines[-1] if lines else "The command simcrop-train gave no answer",
            code="no-answer",
            remedy="Try it in a terminal: simcrop-train recipes.",
        )
    return answer


def start(folder: Path, words: Sequence[str], tell: Tell) -> subprocess.Popen[bytes]:
    """Start a run that goes on when the window is closed; what it prints is kept in its folder.

    Where another process is about to end there, it is waited for; ``tell`` is called meanwhile.

    Raises
    ------
    SimCroPError
        The folder cannot be written or its name is no text, or a process is at work there.
    """
    refuse_no_text(folder, words)
    path = folder / LOG_NAME
    end = time.monotonic() + _PATIENCE_S
    while log_is_held(path):
        if time.monotonic() > end:
            raise _busy(folder)
        tell("waiting for the process that ends", 0, 1)
        time.sleep(_POLL_S)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as log:
            if not hold(log.fileno()):
                raise _busy(folder)
            log.write(heading(words).encode())
            log.flush()
            return subprocess.Popen(
                command(words),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
                **_detached(),
            )
    except OSError as e:
        raise SimCroPError(
            f"The run cannot be started in this folder ({e.strerror})",
            code="cannot-write",
            remedy="Choose another folder of runs.",
            path=folder,
        ) from e


def _detached() -> dict[str, Any]:
    """A session of its own, so that neither a terminal's Ctrl-C nor our end reaches it."""
    if os.name == "nt":
        made: Any = subprocess
        return {"creationflags": made.DETACHED_PROCESS | made.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def ask_to_stop(run: RunSummary, process: subprocess.Popen[bytes] | None) -> None:
    """Ask a run to save and end, as ``simcrop-train stop`` does.

    Parameters
    ----------
    run
        How it stood when it was looked at last.
    process
        It, where this window started it.

    Raises
    ------
    SimCroPError
        It cannot be reached from here.
    """
    from simcrop_core.train.status import request_stop

    if run.trains and request_stop(run.folder):
        return
    if process is not None and process.poll() is not None:
        return  # it has ended meanwhile
    number = _number_to_end(run, process)
    if number is None:
        return
    try:
        os.kill(number, signal.SIGTERM)
    except ProcessLookupError:
        return
    except OSError as e:
        raise SimCroPError(
            f"The run cannot be asked to stop ({e.strerror})",
            code="not-here",
            remedy="Stop it where it was started.",
        ) from e


def _number_to_end(run: RunSummary, process: subprocess.Popen[bytes] | None) -> int | None:
    """The number of a run's process, as its lock tells it now; None where it has ended.

    A number says nothing on another computer, and after its process's end it may be another's.
    """
    holder = lock_holder(run.folder / LOCK_NAME)
    if holder is None:
        if process is not None:
            return process.pid
        if run.process is not None:
            return None
        raise _out_of_reach("The run has not begun yet", "Try again in a moment.")
    if holder.get("host") != socket.gethostname():
        raise _out_of_reach(
            "The run cannot be asked to stop from here", "Stop it on the computer where it runs."
        )
    number = process_of(holder)
    if number is None or run.process not in (None, number):
        raise _out_of_reach("Another process has taken the run over", "Try again in a moment.")
    return number


def _out_of_reach(problem: str, remedy: str) -> SimCroPError:
    return SimCroPError(problem, code="not-here", remedy=remedy)


def _busy(folder: Path) -> SimCroPError:
    return SimCroPError(
        "A process is at work in this folder",
        code="run-locked",
        remedy="Stop it first, or give the run another name.",
        path=folder,
    )
