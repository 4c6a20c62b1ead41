"""Runs seen from outside, by what their folders tell: nothing of a run is disturbed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from simcrop_core.errors import SimCroPError
from simcrop_core.train.events import EVENTS_NAME, Event, read_events
from simcrop_core.train.lock import LOCK_NAME, lock_holder
from simcrop_core.train.run import CHECKPOINTS_NAME, STOP_NAME, read_run_config


@dataclass(frozen=True, slots=True)
class RunStatus:
    """How a run stands, as told by its folder; the run itself is not disturbed.

    Attributes
    ----------
    name, state
        The run's recipe; ``running``, ``finished``, ``stopped``, ``failed``, ``killed`` or
        ``new``.
    step, loss, validation_loss, samples_per_s
        Newest figures, or None.
    checkpoint
        Newest checkpoint, relative to the folder, or None.
    host, process
        Who trains, or None.
    error
        The newest error's sentence where it failed, else None.
    """

    name: str
    state: str
    step: int
    loss: float | None
    validation_loss: float | None
    samples_per_s: float | None
    checkpoint: str | None
    host: str | None
    process: int | None
    error: str | None


def run_status(folder: str | os.PathLike[str]) -> RunStatus:
    """How the run in a folder stands.

    Raises
    ------
    SimCroPError
        There is no run.
    """
    place = Path(folder).expanduser()
    config = read_run_config(place)
    holder = lock_holder(place / LOCK_NAME)
    newest: dict[str, Event] = {}
    last: Event = {}
    for event in read_events(place / EVENTS_NAME):
        newest[event["event"]] = last = event
    step = newest.get("step", {})
    checkpoint = newest.get("checkpoint", {}).get("path")
    # Events may be lost, and checkpoints be there; their names sort by step.
    saved = max((p.name for p in (place / CHECKPOINTS_NAME).glob("step-[0-9]*")), default="")
    if saved and not checkpoint:
        checkpoint = f"{CHECKPOINTS_NAME}/{saved}"
    states = {"end": last.get("reason", "finished"), "error": "failed"}
    state = states.get(last.get("event", ""), "killed" if last or saved else "new")
    return RunStatus(
        name=config.name,
        state="running" if holder else str(state),
        step=max(int(step.get("step", 0)), int(saved.rpartition("-")[2] or 0)),
        loss=step.get("loss"),
        validation_loss=newest.get("validation", {}).get("loss"),
        samples_per_s=step.get("samples_per_s"),
        checkpoint=checkpoint,
        host=holder["host"] if holder else None,
        process=holder["process"] if holder else None,
        error=last.get("message") if last.get("event") == "error" else None,
    )


def request_stop(folder: str | os.PathLike[str]) -> bool:
    """Ask the run in a folder to finish its step, save and end; False where none is running.

    Raises
    ------
    SimCroPError
        There is no run, or the folder cannot be written.
    """
    place = Path(folder).expanduser()
    read_run_config(place)
    if lock_holder(place / LOCK_NAME) is None:
        return False
    try:
        (place / STOP_NAME).touch()
    except OSError as e:
        raise SimCroPError(
            f"The run cannot be asked to stop ({e.strerror})",
            code="cannot-write",
            remedy="Check that you may write in its folder, or end its process with SIGTERM.",
            path=place,
        ) from e
    return True
