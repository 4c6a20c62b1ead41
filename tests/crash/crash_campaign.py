"""Kill -9 at random moments of training runs, also while they save; count what is lost.

    python tests/crash/crash_campaign.py --kills 110 --json benchmarks/results/crash.json \
        --doc docs/reliability.md

A run of a small model goes on from kill to kill until it is at its end; then its losses and its
last weights are compared, bit for bit, with those of a run that was never stopped, and the next
run begins. After every kill all checkpoints that the run had acknowledged in its events are read
whole. Kills are of two kinds, in turn: after a random time, and a random moment after a save has
begun. Most runs are forked from a process that has loaded everything; some are the command.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))

from boxes import command_settings, make_box_store, merged, tiny_settings
from processes import start

from simcrop_core.model import save_model
from simcrop_core.train.build import build_model
from simcrop_core.train.checkpoint import verify
from simcrop_core.train.config import RunConfig
from simcrop_core.train.events import EVENTS_NAME, read_events
from simcrop_core.train.launch import train

TRAINING, OUTPUT = "simcrop_training", "output.txt"
WAIT_S = 300.0  # of a run that nobody kills
BEGIN, END = "<!-- crash: begin -->", "<!-- crash: end -->"


@dataclass
class Tally:
    """What came out."""

    kills: int = 0
    while_saving: int = 0
    by_command: int = 0
    runs_finished: int = 0
    acknowledged: int = 0
    lost: int = 0
    cut_lines_left: int = 0
    resumed_from: list[int] = field(default_factory=list)
    losses_compared: int = 0
    losses_differing: int = 0
    weights_differing: int = 0

    @property
    def defects(self) -> int:
        return self.lost + self.losses_differing + self.weights_differing


class Campaign:
    """A store, a model and a reference run; then kills.

    Parameters
    ----------
    folder
        Scratch.
    seed
        Of the moments.
    steps
        Of a run.
    """

    def __init__(self, folder: Path, seed: int, steps: int = 40) -> None:
        self.folder = folder
        self.steps = steps
        self.random = random.Random(seed)
        self.tally = Tally()
        store = make_box_store(folder / "store")
        changes: dict[str, Any] = {
            "run": {"steps": steps, "checkpoint_every": 2, "validate_every": 10, "keep": 1000}
        }
        settings = merged(tiny_settings(store), changes)
        model = build_model(RunConfig.model_validate(settings).model, 0)
        save_model(model, folder / "model")
        settings["model"] = {"preset": None, "folder": str(folder / "model")}
        self.settings = settings
        self.words = command_settings(store, folder / "model", **changes)
        self.reference = folder / "reference"
        self._wait(self._start(self.reference))
        self.losses = _losses(self.reference)
        assert len(self.losses) == steps, "the reference run did not come to its end"

    def run(self, kills: int, by_command: int) -> Tally:
        """Kill so many times, the last ``by_command`` of them the command itself."""
        number = 0
        while self.tally.kills < kills:
            number += 1
            self._one_run(self.folder / f"run-{number}", kills, by_command)
        return self.tally

    def _one_run(self, run: Path, kills: int, by_command: int) -> None:
        while self.tally.kills < kills:
            command = kills - self.tally.kills <= by_command
            process = self._start_command(run) if command else self._start(run)
            if not self._kill(process, run, command):
                break  # it came to its end first
            self._check(run)
        else:
            self._wait(self._start(run))  # the last run is brought to its end
        self._compare(run)

    # -- processes ------------------------------------------------------------------------------

    def _start(self, run: Path) -> BaseProcess:
        """The run, in a process that has loaded everything already."""
        return start(partial(_train, self.folder, run, self.settings))

    def _start_command(self, run: Path) -> BaseProcess:
        self.tally.by_command += 1
        words = ["run", "smoke", "--out", str(run), "--resume", *self.words]
        return start(partial(_become, self.folder, [sys.executable, "-m", TRAINING, *words]))

    def _wait(self, process: BaseProcess) -> None:
        process.join(WAIT_S)
        if process.is_alive():
            process.kill()
            raise RuntimeError(f"A run that nobody killed was not done after {WAIT_S} s.")
        self._refuse_failure(process)

    def _ended(self, process: BaseProcess) -> bool:
        """Whether a child ended by itself."""
        if process.is_alive():
            return False
        self._refuse_failure(process)
        return True

    def _refuse_failure(self, process: BaseProcess) -> None:
        if process.exitcode:
            text = (self.folder / OUTPUT).read_text(errors="replace")
            raise RuntimeError(f"A run that nobody killed failed: {text[-2000:]}")

    def _kill(self, process: BaseProcess, run: Path, command: bool) -> bool:
        """End a run at some moment; False where it ended before."""
        saving = self.tally.kills % 2 == 1
        before = len(_acknowledged(run)) + self.random.randrange(3)
        deadline = time.monotonic() + (60 if command else 20)
        while time.monotonic() < deadline:
            if self._ended(process):
                return False
            if saving and _saving(run) and len(_acknowledged(run)) >= before:
                time.sleep(self.random.random() * 0.02)
                break
            if not saving and self.random.random() < 0.01:
                break
            time.sleep(0.0005 if saving else 0.01)
        if self._ended(process):
            return False
        process.kill()
        process.join()
        self.tally.kills += 1
        self.tally.while_saving += _saving(run)
        return True

    # -- checks ---------------------------------------------------------------------------------

    def _check(self, run: Path) -> None:
        """Every checkpoint that was acknowledged is there and whole."""
        acknowledged = _acknowledged(run)
        self.tally.acknowledged += len(acknowledged)
        events = run / EVENTS_NAME
        if events.exists():
            data = events.read_bytes()
            self.tally.cut_lines_left += bool(data) and not data.endswith(b"\n")
        for path in acknowledged:
            try:
                verify(run / path)
            except Exception as e:
                self.tally.lost += 1
                print(f"LOST {run / path}: {e}", file=sys.stderr)
        steps = [int(path[-8:]) for path in acknowledged]
        self.tally.resumed_from.append(max(steps, default=0))

    def _compare(self, run: Path) -> None:
        """The run's losses and weights are those of the run that was never stopped."""
        losses = _losses(run)
        self.tally.runs_finished += 1
        self.tally.losses_compared += len(self.losses)
        self.tally.losses_differing += sum(
            losses.get(step) != loss for step, loss in self.losses.items()
        ) + (len(losses) != len(self.losses))
        for name in ("model", "optimiser", "objective"):
            same = self._digest(run, name) == self._digest(self.reference, name)
            self.tally.weights_differing += not same
        shutil.rmtree(run)

    def _digest(self, run: Path, name: str) -> str:
        path = run / "checkpoints" / f"step-{self.steps:08d}" / f"{name}.safetensors"
        return hashlib.sha256(path.read_bytes()).hexdigest()


def _into(folder: Path) -> None:
    """What this process and those that it becomes print goes to a file."""
    out = os.open(folder / OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)


def _train(folder: Path, run: Path, settings: dict[str, Any]) -> None:
    _into(folder)
    train(run, RunConfig.model_validate(settings), resume=True)


def _become(folder: Path, words: list[str]) -> None:
    _into(folder)
    os.execv(words[0], words)


def _saving(run: Path) -> bool:
    return any((run / "checkpoints").glob(".*.partial"))


def _acknowledged(run: Path) -> list[str]:
    events = read_events(run / EVENTS_NAME)
    return [event["path"] for event in events if event["event"] == "checkpoint"]


def _losses(run: Path) -> dict[int, float]:
    found: dict[int, float] = {}
    for event in read_events(run / EVENTS_NAME):
        if event["event"] == "step":
            assert event["step"] not in found, "a step is told twice"
            found[event["step"]] = event["loss"]
    return found


def _report(tally: Tally, seconds: float) -> str:
    return "\n".join(
        [
            BEGIN,
            f"`make crash`: {tally.kills} times `kill -9` in {seconds / 60:.0f} minutes, "
            f"Python {platform.python_version()}.",
            "",
            "| | |",
            "|---|---:|",
            f"| kills | {tally.kills} |",
            f"| of these while a checkpoint was being saved | {tally.while_saving} |",
            f"| of these of the command itself, from its start on | {tally.by_command} |",
            f"| acknowledged checkpoints read after the kills | {tally.acknowledged} |",
            f"| lost or damaged among them | {tally.lost} |",
            f"| events cut short in the middle of a line | {tally.cut_lines_left} |",
            f"| runs brought to their end | {tally.runs_finished} |",
            f"| losses compared with the run that was never stopped | {tally.losses_compared} |",
            f"| losses that differed in any bit | {tally.losses_differing} |",
            f"| files of final weights and optimiser states that differed | "
            f"{tally.weights_differing} |",
            END,
        ]
    )


def _write_doc(path: Path, report: str) -> None:
    text = path.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(before + report + after, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=110)
    parser.add_argument("--by-command", type=int, default=10, help="the last of them")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the tally here")
    parser.add_argument("--doc", type=Path, help="renew the table in this document")
    arguments = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="simcrop-crash-") as scratch:
        campaign = Campaign(Path(scratch), arguments.seed)
        tally = campaign.run(arguments.kills, arguments.by_command)
    seconds = time.monotonic() - started
    facts = {**asdict(tally), "defects": tally.defects, "seconds": round(seconds, 1)}
    facts |= {"seed": arguments.seed, "python": platform.python_version()}
    if arguments.json:
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n")
    report = _report(tally, seconds)
    if arguments.doc:
        _write_doc(arguments.doc, report)
    print(report)
    return 1 if tally.defects else 0


if __name__ == "__main__":
    sys.exit(main())
