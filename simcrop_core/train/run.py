"""A run on disk: a folder with its configuration, events, checkpoints, pictures and logs.

::

    config.json                what was asked for
    events.jsonl               what happened, see events.py
    checkpoints/step-00000040  model folders with the state of training, see checkpoint.py
    previews/step-00000040     pictures of a few held-out studies
    tensorboard/               the same figures for TensorBoard
    scans/                     prepared scans of a fine-tuning
    failures/                  steps that gave no finite loss, see failures.py
    run.lock                   which process trains here, see lock.py
    stop                       there while somebody asks the run to stop
    log.txt                    what the command printed, of runs that the window started
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from simcrop_core.errors import SimCroPError
from simcrop_core.outputs import is_partial, refuse_unwritable, remove_partial, whole_file
from simcrop_core.train.config import LoopConfig
from simcrop_core.train.events import (
    EVENTS_NAME,
    LOG_NAME,
    Event,
    EventLog,
    checkpoint_event,
    cut_back,
    read_events,
)
from simcrop_core.train.lock import LOCK_NAME, RunLock
from simcrop_core.train.settings import CONFIGS, AnyRunConfig, checked

CONFIG_NAME = "config.json"
STOP_NAME = "stop"
CHECKPOINTS_NAME = "checkpoints"
SCANS_NAME = "scans"
TENSORBOARD_NAME = "tensorboard"
# What a run that took no step leaves behind.
_OF_NO_STEP = (CONFIG_NAME, EVENTS_NAME, "quarantine.jsonl", TENSORBOARD_NAME)
# What may differ when a run is resumed: losses stay as they would have been, to the last bit or,
# for the second half, but for rounding.
_FREE = {
    ("data", "workers"),
    ("data", "store"),
    ("data", "phantom_folder"),
    ("data", "prepared"),
    ("run", "checkpoint_every"),
    ("run", "validate_every"),
    ("run", "keep"),
    ("run", "previews"),
    ("run", "accelerator"),
    ("run", "devices"),
    ("run", "nodes"),
    ("run", "strategy"),
    ("run", "compile"),
}


class Run:
    """A run's folder, held by this process; make one with :meth:`create` or :meth:`resume`.

    Attributes
    ----------
    folder
        Where it is.
    config
        What was asked for.
    log
        Takes events.
    """

    def __init__(self, folder: Path, config: LoopConfig, lock: RunLock) -> None:
        self.folder = folder
        self.config = config
        self.log = EventLog(folder / EVENTS_NAME)
        self._lock = lock
        self._told: int | None = None  # the step of the newest checkpoint event
        self._left: set[Path] = set()  # old checkpoints that are not removed, told of once

    @staticmethod
    def check(folder: Path, config: LoopConfig, resume: bool) -> bool:
        """Whether a run in this folder goes on from another process's; nothing is changed.

        Raises
        ------
        SimCroPError
            What :meth:`create` or :meth:`resume` would refuse, as far as it shows now.
        """
        if resume and (folder / CONFIG_NAME).exists() and not never_stepped(folder):
            _refuse_other(read_run_config(folder), config, folder)
            return True
        _refuse_run(folder)
        refuse_unwritable(folder)
        if folder.is_dir():
            _refuse_other_things(folder)
        return False

    @classmethod
    def create(cls, folder: str | os.PathLike[str], config: LoopConfig) -> Run:
        """A new run in a folder that is empty or not there yet, or that holds one which ended
        before its first step.

        Raises
        ------
        SimCroPError
            Another run is or was here, the folder holds other things, or it cannot be written.
        """
        place = Path(folder).expanduser().absolute()
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise _cannot_make(e, place) from e
        _refuse_run(place)
        _refuse_other_things(place)
        lock = RunLock(place / LOCK_NAME).take()
        try:
            _refuse_run(place)  # another was faster
            remove_partial(place, [CONFIG_NAME])
            for name in _OF_NO_STEP:
                if (place / name).is_dir():
                    shutil.rmtree(place / name)
                else:
                    (place / name).unlink(missing_ok=True)
            _write_config(place, config)
            return cls(place, config, lock)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def resume(cls, folder: str | os.PathLike[str], config: LoopConfig | None = None) -> Run:
        """A run that is to go on.

        Parameters
        ----------
        folder
            Its folder.
        config
            What is asked for now; None for what was asked for then. It may differ only in what
            leaves the losses as they would have been.

        Raises
        ------
        SimCroPError
            There is no run, another process has it, or the configurations differ.
        """
        place = Path(folder).expanduser().absolute()
        before = read_run_config(place)
        if config is not None:
            _refuse_other(before, config, place)
        lock = RunLock(place / LOCK_NAME).take()
        try:
            # Who asked for a stop asked the process that is gone.
            (place / STOP_NAME).unlink(missing_ok=True)
            if config is not None and config != before:
                _write_config(place, config)
            return cls(place, config or before, lock)
        except BaseException:
            lock.release()
            raise

    def rewind(self, step: int) -> None:
        """Forget what was told after a step, from which the run now goes on."""
        self.log.close()
        cut_back(self.folder / EVENTS_NAME, step)
        self.log = EventLog(self.folder / EVENTS_NAME)

    def save(self, checkpoint: Any) -> Path:
        """Save a checkpoint, tell of it, and remove those that are not to be kept.

        Parameters
        ----------
        checkpoint
            A :class:`simcrop_core.train.checkpoint.Checkpoint`.

        Raises
        ------
        SimCroPError
            ``save-failed``, ``disk-full`` or ``disk-failed``: earlier checkpoints are as they
            were.
        """
        from simcrop_core.train.checkpoint import prune, write_checkpoint
        from simcrop_core.train.failures import disk_refusal

        place = self.folder / CHECKPOINTS_NAME
        try:
            self.log.sync()  # no checkpoint may be newer than the events before it
            path = write_checkpoint(checkpoint, place)
            if checkpoint.step != self._told:  # a disk may have been full between line and sync
                self.log.write(checkpoint_event(checkpoint.step, f"{CHECKPOINTS_NAME}/{path.name}"))
                self._told = checkpoint.step
            self.log.sync()
            left = prune(place, self.config.run.keep)
        except OSError as e:
            raise disk_refusal(e, self.folder) from e
        for old, why in left:
            if old not in self._left:
                print(f"{why} {old} is left as it is.", file=sys.stderr)
        self._left |= {old for old, _ in left}
        return path

    def latest(self) -> Path | None:
        """The newest whole checkpoint, or None; damaged newer ones are set aside, with a word.

        Raises
        ------
        SimCroPError
            ``no-checkpoint``: some were saved, and none is whole.
        """
        from simcrop_core.train.checkpoint import checkpoints, remove_leftovers, verify

        place = self.folder / CHECKPOINTS_NAME
        remove_leftovers(place)
        for path in reversed(checkpoints(place)):
            try:
                verify(path)
            except SimCroPError as e:
                aside = path.with_name(f"damaged-{path.name}-{os.getpid()}")
                os.rename(path, aside)
                print(f"{e} It is set aside as {aside.name}.", file=sys.stderr)
                continue
            return path
        if any(event["event"] == "checkpoint" for event in self.events()):
            raise SimCroPError(
                "The run saved checkpoints, and none of them is there and whole",
                code="no-checkpoint",
                remedy="Bring one back from a copy, or start a new run in another folder.",
                path=place,
            )
        return None

    def events(self) -> Iterator[Event]:
        """What happened, oldest first."""
        return read_events(self.folder / EVENTS_NAME)

    def stop_requested(self) -> bool:
        """Whether somebody asked the run to stop."""
        return (self.folder / STOP_NAME).exists()

    def close(self) -> None:
        """Let go of the folder."""
        with suppress(OSError):
            (self.folder / STOP_NAME).unlink(missing_ok=True)
        self.log.close()
        self._lock.release()


def never_stepped(folder: Path) -> bool:
    """Whether the run in a folder, if there is one, ended before its first step."""
    if (folder / CHECKPOINTS_NAME).exists():
        return False
    return not any(event["event"] == "step" for event in read_events(folder / EVENTS_NAME))


def _refuse_run(place: Path) -> None:
    if (place / CONFIG_NAME).exists() and not never_stepped(place):
        raise SimCroPError(
            "There is a run here already",
            code="exists",
            remedy="Go on with it by --resume, or name another folder.",
            path=place,
        )


def _refuse_other_things(place: Path) -> None:
    try:
        entries = {entry.name for entry in place.iterdir()}
    except OSError as e:
        raise _cannot_make(e, place) from e
    entries -= {LOCK_NAME, STOP_NAME, LOG_NAME, "phantoms", SCANS_NAME, *_OF_NO_STEP}
    others = sorted(name for name in entries if not is_partial(name, [CONFIG_NAME]))
    if others:
        raise SimCroPError(
            f"This folder holds other things ({', '.join(others[:3])})",
            code="exists",
            remedy="Name a new or an empty folder.",
            path=place,
        )


def _cannot_make(error: OSError, place: Path) -> SimCroPError:
    return SimCroPError(
        f"The run's folder cannot be made ({error.strerror})",
        code="cannot-write",
        remedy="Name another folder.",
        path=place,
    )


def _write_config(place: Path, config: LoopConfig) -> None:
    data = {"format": config.format, "config": config.model_dump(mode="json")}
    with whole_file(place / CONFIG_NAME) as hidden:
        hidden.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def read_run_config(folder: Path) -> AnyRunConfig:
    """The configuration of the run in a folder.

    Raises
    ------
    SimCroPError
        There is none, or it is damaged.
    """
    path = folder / CONFIG_NAME
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as e:
        raise SimCroPError(
            "There is no run in this folder",
            code="no-run",
            remedy="Check the name, or start one with `simcrop-train run`.",
            path=folder,
        ) from e
    except (OSError, ValueError) as e:
        raise _no_config(path) from e
    kind = CONFIGS.get(str(data.get("format"))) if isinstance(data, dict) else None
    if kind is None:
        raise _no_config(path)
    return checked(kind, data.get("config"), path=str(path))


def _no_config(path: Path) -> SimCroPError:
    return SimCroPError(
        "This is not the configuration of a run",
        code="bad-config",
        remedy="Start a new run in another folder.",
        path=path,
    )


def _refuse_other(before: LoopConfig, now: LoopConfig, place: Path) -> None:
    old, new = before.model_dump(mode="json"), now.model_dump(mode="json")
    differing = [
        ".".join(path)
        for path in sorted(_leaves(old) | _leaves(new))
        if _at(old, path) != _at(new, path) and path not in _FREE
    ]
    if differing:
        shown = ", ".join(differing[:5]) + (" and others" if len(differing) > 5 else "")
        raise SimCroPError(
            f"The run was started with other settings ({shown})",
            code="other-config",
            remedy="Resume it with the settings it was started with, or start a new run elsewhere.",
            path=place,
        )


def _leaves(tree: Any, path: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    if not isinstance(tree, dict):
        return {path}
    return {leaf for key, value in tree.items() for leaf in _leaves(value, (*path, key))}


def _at(tree: Any, path: tuple[str, ...]) -> Any:
    for step in path:
        tree = tree.get(step) if isinstance(tree, dict) else None
    return tree
