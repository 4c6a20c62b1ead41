"""``simcrop-train run``: one process here, or several that live and die together."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from simcrop_core.cli import INTERRUPTED
from simcrop_core.cli.terminal import progress_bar
from simcrop_core.errors import SimCroPError
from simcrop_core.finetune.config import ProbeConfig
from simcrop_core.train.config import RunConfig
from simcrop_core.train.finetuning import SegmentationRunConfig
from simcrop_core.train.finetuning_classification import ClassificationRunConfig
from simcrop_core.train.settings import with_settings
from simcrop_training.recipes import any_recipe

_LOST = 3  # a process that lost a partner; whoever started both says which
_LINE_EVERY_S = 30.0


def run_run(arguments: argparse.Namespace) -> int:
    """Train; see :func:`simcrop_training.cli.make_parser`."""
    config = with_settings(any_recipe(arguments.recipe), arguments.set)
    if isinstance(config, ProbeConfig):
        from simcrop_training.probing import run_probe_recipe

        # A file or a scheduler's log gets a line now and then, as of other runs.
        bar = progress_bar(arguments) if sys.stderr.isatty() else _progress(quiet=arguments.json)
        with bar as tell:
            return run_probe_recipe(arguments, config, tell)
    if isinstance(config, SegmentationRunConfig | ClassificationRunConfig):
        from simcrop_training.finetuning import run_finetuning

        with _stop_request() as stop, _progress(quiet=arguments.json) as tell:
            return run_finetuning(arguments, config, stop, tell, _say_end)
    with _stop_request() as stop:
        from simcrop_core.train.devices import SUPERVISED, started_by_launcher

        if config.run.nodes == 1 and config.run.devices > 1 and not started_by_launcher():
            return _run_several(arguments, config, stop)
        from simcrop_core.train.launch import train

        first = int(os.environ.get("RANK", 0)) == 0
        try:
            with _progress(quiet=arguments.json or not first) as tell:
                outcome = train(
                    arguments.out, config, resume=arguments.resume, stop=stop, tell=tell
                )
        except SimCroPError as e:
            if e.code == "rank-lost" and SUPERVISED in os.environ:
                return _LOST
            raise
        if first:
            _say_end(arguments, outcome.step, outcome.reason)
    # Who was asked to stop by a signal says so to whoever waits for it.
    return INTERRUPTED if stop.asked and outcome.reason == "stopped" else 0


def _run_several(arguments: argparse.Namespace, config: RunConfig, stop: _Stop) -> int:
    from simcrop_core.train.launch import tell_lost_process
    from simcrop_core.train.supervisor import python_command, supervise

    words = ["run", arguments.recipe, "--out", arguments.out]
    words += [f"--set={setting}" for setting in arguments.set]
    words += [f"--{flag}" for flag in ("resume", "json", "debug") if getattr(arguments, flag)]
    try:
        return supervise(
            python_command("simcrop_training", words), config.run.devices, stopping=stop
        )
    except SimCroPError as e:
        tell_lost_process(arguments.out, e)
        raise


def _say_end(arguments: argparse.Namespace, step: int, reason: str) -> None:
    if arguments.json:
        print(json.dumps({"out": arguments.out, "step": step, "reason": reason}))
        return
    print(f"{reason.capitalize()} after step {step}; the run is in {arguments.out}.")
    if reason == "stopped":
        command = f"simcrop-train run {arguments.recipe} --out {arguments.out}"
        for setting in arguments.set:
            command += f" --set {setting}"
        print(f"Go on with: {command} --resume")


class _Stop:
    """Whether a signal asked to stop, or whoever started this process is gone."""

    def __init__(self) -> None:
        from simcrop_core.train.devices import SUPERVISED

        self.asked = False
        self._parent = os.getppid() if SUPERVISED in os.environ else None

    def __call__(self) -> bool:
        return self.asked or (self._parent is not None and os.getppid() != self._parent)


@contextmanager
def _stop_request() -> Iterator[_Stop]:
    """Turn the first Ctrl-C or SIGTERM into a wish, and a second Ctrl-C into an end at once."""
    stop = _Stop()

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not stop.asked and stop._parent is None:
            print("\nStopping after this step, and saving.", file=sys.stderr)
        stop.asked = True

    before = {}
    try:
        before[signal.SIGTERM] = signal.signal(signal.SIGTERM, ask)
        # A terminal sends Ctrl-C to all processes; whoever started them passes it on.
        ours = signal.SIG_IGN if stop._parent is not None else ask
        before[signal.SIGINT] = signal.signal(signal.SIGINT, ours)
    except ValueError:  # not in the main thread: the caller owns the signals
        pass
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Any]:
    """A bar on a terminal, a line now and then elsewhere."""
    from tqdm import tqdm

    shown: Any = None
    last_line = 0.0
    stage = ""

    def tell(what: str, done: int, total: int) -> None:
        nonlocal shown, last_line, stage
        if quiet:
            return
        if not sys.stderr.isatty():
            now = time.monotonic()
            if total > 1 and (now - last_line > _LINE_EVERY_S or done == total):
                print(f"{what}: {done} of {total}", file=sys.stderr, flush=True)
                last_line = now
            return
        if what.split()[0] != stage:
            stage = what.split()[0]
            if shown is not None:
                shown.close()
            shown = tqdm(total=total, initial=done, file=sys.stderr, leave=False)
        shown.set_description(what)
        shown.update(done - shown.n)

    try:
        yield tell
    finally:
        if shown is not None:
            shown.close()
