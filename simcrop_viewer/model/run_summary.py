"""How runs stand, read from their folders without disturbing them and without much reading."""

from __future__ import annotations

import json
import math
import re
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeGuard

from simcrop_core.train.events import EVENTS_NAME, LOG_NAME
from simcrop_core.train.lock import LOCK_NAME, lock_holder
from simcrop_viewer.model.event_tail import Event, last_bytes, last_events
from simcrop_viewer.model.model_title import CHECKPOINTS_NAME, MODEL_NAME, step_of
from simcrop_viewer.model.run_log import log_is_held, section_of

State = Literal["starting", "running", "stopping", "finished", "stopped", "failed", "killed"]
CONFIG_NAME, RESULT_NAME, STOP_NAME = "config.json", "result.json", "stop"
_RATE_OVER = 100
_PROGRESS = re.compile(r"^(.*): ([0-9]{1,18}) of ([0-9]{1,18})$")
_OURS = "simcrop-train: "


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run as a row of a list tells it.

    Attributes
    ----------
    folder
        Its folder.
    recipe
        What it was started by; ``""`` where that is not known yet.
    state
        ``starting`` from its command to its first word, then as ``simcrop-train status`` calls it;
        ``stopping`` once it is asked to stop.
    step, steps
        How far it is, and of how many; None where it takes none or nobody knows.
    loss, validation_loss, samples_per_s
        Newest figures, or None.
    seconds_left
        By its pace of late; None where it is not going on.
    stage
        What it does, as its log says (``"preparing studies: 3 of 12"``), or ``""``.
    checkpoint
        The newest model folder that it made, or None.
    error
        The sentence that it ended with, or ``""``.
    process, is_here
        Who runs it, and whether on this computer.
    trains
        Whether it is a training run, which looks for a wish to stop in its folder.
    began
        Seconds since 1970.
    """

    folder: Path
    recipe: str
    state: State
    step: int | None = None
    steps: int | None = None
    loss: float | None = None
    validation_loss: float | None = None
    samples_per_s: float | None = None
    seconds_left: float | None = None
    stage: str = ""
    checkpoint: Path | None = None
    error: str = ""
    process: int | None = None
    is_here: bool = True
    trains: bool = False
    began: float = 0.0

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def goes_on(self) -> bool:
        """Whether it is under way."""
        return self.state in ("starting", "running", "stopping")

    @property
    def can_resume(self) -> bool:
        return not self.goes_on and self.state != "finished" and bool(self.recipe)


def is_run(folder: Path) -> bool:
    """Whether a folder looks like that of a run."""
    return any((folder / name).is_file() for name in (LOG_NAME, LOCK_NAME, EVENTS_NAME))


def runs_in(place: Path) -> list[Path]:
    """The runs directly in a folder, newest first."""
    found = []
    with suppress(OSError):
        for folder in place.iterdir():
            with suppress(OSError):
                if not folder.name.startswith(".") and is_run(folder):
                    found.append((folder.stat().st_mtime, folder))
    return [folder for _, folder in sorted(found, reverse=True)]


def config_of(folder: Path) -> tuple[Mapping[str, Any], bool]:
    """What was asked for, as plain data, and whether it is a training run's, which names its
    format; empty where none is there or it is damaged."""
    with suppress(OSError, ValueError, RecursionError):
        data = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
        if isinstance(data, dict):
            inner = data.get("config", data)
            if isinstance(inner, dict):
                return inner, isinstance(data.get("format"), str)
    return {}, False


def summary_of(folder: Path) -> RunSummary:
    """How the run in a folder stands; never fails, whatever is in it."""
    try:
        return _summary(folder)
    except Exception:  # one folder must not hide all others
        return RunSummary(folder, "", "failed", error="This folder cannot be read.")


def _summary(folder: Path) -> RunSummary:
    config, trains = config_of(folder)
    events = last_events(folder / EVENTS_NAME)
    log = section_of(last_bytes(folder / LOG_NAME).decode("utf-8", "replace"))
    holder = lock_holder(folder / LOCK_NAME)
    state, error = _state(folder, events, log.began, log.lines, holder)
    steps = [event for event in events if event["event"] == "step"]
    newest = steps[-1] if steps else {}
    checkpoint = newest_model(folder)
    step = _step(newest, checkpoint)
    total = _total(config, log.lines)
    alive = state in ("running", "stopping")
    since = _number(holder or {}, "since") or 0.0
    rate = _steps_per_s([event for event in steps if (_number(event, "time") or 0) >= since])
    left = None
    if alive and rate and total and step is not None:
        left = _number({"left": max(0.0, (total - step) / rate)}, "left")
    validation = next((e for e in reversed(events) if e["event"] == "validation"), {})
    return RunSummary(
        folder=folder,
        recipe=str(config.get("name") or log.recipe),
        state=state,
        step=step,
        steps=total,
        loss=_number(newest, "loss"),
        validation_loss=_number(validation, "loss"),
        samples_per_s=_mean([_number(e, "samples_per_s") for e in steps[-20:]]),
        seconds_left=left,
        stage=_stage(log.lines) if state in ("running", "stopping", "starting") else "",
        checkpoint=checkpoint,
        error=error,
        process=process_of(holder),
        # The system's lock on a log may be seen from other computers: who holds the run tells.
        is_here=_here(holder) if holder else log_is_held(folder / LOG_NAME),
        trains=trains,
        began=log.began or since or _mtime(folder / CONFIG_NAME),
    )


def _state(
    folder: Path, events: Sequence[Event], began: float, lines: Sequence[str], holder: Any
) -> tuple[State, str]:
    """How a run stands, and why it failed if it did."""
    if holder:
        return ("stopping" if (folder / STOP_NAME).exists() else "running"), ""
    last = events[-1] if events else {}
    told = _number(last, "time", 0.0) or 0.0
    result = _mtime(folder / RESULT_NAME)
    said = _last_word(lines)
    if log_is_held(folder / LOG_NAME) and max(told, result) < began:
        return "starting", ""
    # The command's own last word counts where the run wrote nothing since it was started.
    if said and max(told, result) <= began:
        return ("stopped", "") if said.startswith("Stopped.") else ("failed", said)
    if began > max(told, result):
        return "killed", ""
    if last.get("event") == "error":
        return "failed", str(last.get("message") or "")
    if last.get("event") == "end":
        return ("stopped" if last.get("reason") == "stopped" else "finished"), ""
    if result and result >= told:
        return "finished", ""
    return "killed", ""


def _last_word(lines: Sequence[str]) -> str:
    """How the command refused or ended, as it said itself; or ``""``."""
    for line in reversed(lines):
        if line.startswith(_OURS):
            return line.removeprefix(_OURS)
    return ""


def _step(newest: Event, checkpoint: Path | None) -> int | None:
    saved = None if checkpoint is None else step_of(checkpoint)
    told = newest.get("step")
    found = [number for number in (told, saved) if _is_count(number)]
    return max(found) if found else None


def newest_model(folder: Path) -> Path | None:
    """The model folder that was written last: what came with a result, or a checkpoint."""
    model = folder / MODEL_NAME
    if (folder / RESULT_NAME).is_file() and (model / CONFIG_NAME).is_file():
        return model
    found = ((step_of(path), path) for path in (folder / CHECKPOINTS_NAME).glob("step-*"))
    saved = [(step, path) for step, path in found if step is not None]
    return max(saved)[1] if saved else None


def _total(config: Mapping[str, Any], lines: Sequence[str]) -> int | None:
    """How many steps there are to be: as asked for, or as the log says of a run by epochs."""
    run = config.get("run")
    asked = run.get("steps") if isinstance(run, Mapping) else None
    if _is_count(asked):
        return asked
    for line in reversed(lines):
        match = _PROGRESS.match(line)
        if match and match[1].startswith("loss"):
            return int(match[3])
    return None


def _stage(lines: Sequence[str]) -> str:
    for line in reversed(lines):
        match = _PROGRESS.match(line)
        if match:
            return "" if match[1].startswith("loss") else line
    return ""


def _steps_per_s(steps: Sequence[Event]) -> float | None:
    """The pace of the last steps, with what lies between them."""
    some = [event for event in steps[-_RATE_OVER:] if _is_count(event.get("step"))]
    if len(some) < 2:
        return None
    seconds = (_number(some[-1], "time", 0.0) or 0.0) - (_number(some[0], "time", 0.0) or 0.0)
    return (some[-1]["step"] - some[0]["step"]) / seconds if seconds > 0 else None


def process_of(holder: Mapping[str, Any] | None) -> int | None:
    """The number of the process that holds a run's lock; None where nobody does."""
    number = (holder or {}).get("process")
    return number if isinstance(number, int) and number > 0 else None


def _here(holder: Mapping[str, Any]) -> bool:
    return bool(holder.get("host") == socket.gethostname())


def _is_count(value: Any) -> TypeGuard[int]:
    """Whether it can be a number of steps; nonsense may have hundreds of digits."""
    return isinstance(value, int) and 0 <= value < 1 << 53


def _number(event: Mapping[str, Any], name: str, default: float | None = None) -> float | None:
    value = event.get(name)
    with suppress(OverflowError):  # a whole number may have hundreds of digits
        if isinstance(value, int | float) and math.isfinite(value):
            return float(value)
    return default


def _mean(values: Sequence[float | None]) -> float | None:
    some = [value for value in values if value is not None]
    return sum(some) / len(some) if some else None


def _mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def in_words(run: RunSummary) -> str:
    """State, progress and pace in a line."""
    parts: list[str] = [run.state]
    if run.step is not None:
        parts.append(f"step {run.step:,}" + (f" of {run.steps:,}" if run.steps else ""))
    if run.goes_on:
        if run.stage and run.step is None:
            parts.append(run.stage)
        if run.samples_per_s:
            parts.append(f"{run.samples_per_s:.3g} studies/s")
        if run.seconds_left is not None:
            parts.append(f"{duration(run.seconds_left)} left")
        if not run.is_here:
            parts.append("on another computer")
    if run.loss is not None:
        parts.append(f"loss {run.loss:.4g}")
    if run.validation_loss is not None:
        parts.append(f"validation {run.validation_loss:.4g}")
    return " · ".join(parts)


def duration(seconds: float) -> str:
    """A time as people say it: ``"45 s"``, ``"12 min"``, ``"3 h 20 min"``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def when(began: float) -> str:
    """A time of day and its date, in this place's time."""
    with suppress(ValueError, OverflowError, OSError):  # no time that there is
        return f"{datetime.fromtimestamp(began, UTC).astimezone():%Y-%m-%d %H:%M}" if began else ""
    return ""
