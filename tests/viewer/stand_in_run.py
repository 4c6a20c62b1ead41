"""Stands for ``simcrop-train run``: the folder, the locks and the words of a run, without torch."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from made_runs import append, checkpoint, step
from simcrop_training.recipes import any_recipe

from simcrop_core.train.events import EVENTS_NAME, end_event, read_events
from simcrop_core.train.lock import RunLock
from simcrop_core.train.settings import with_settings


def main(words: list[str]) -> int:
    """Trains in steps of 20 ms, as many as ``run.steps`` says, or until somebody asks to stop."""
    folder = Path(words[words.index("--out") + 1])
    settings = dict(word.split("=", 1) for word in words if "=" in word)
    if "refuse" in settings:
        print("simcrop-train: This is refused. Do something else.", file=sys.stderr)
        return 2
    if words[1].startswith("probe"):
        return probe(folder)
    total = int(settings.get("run.steps", 5))
    if "--resume" not in words:
        (folder / "kept").write_text(" ".join(words))
        config = with_settings(any_recipe("smoke"), [f"run.steps={total}"])
        told = {"format": "simcrop-run", "config": config.model_dump(mode="json")}
        (folder / "config.json").write_text(json.dumps(told))
    (folder / "stop").unlink(missing_ok=True)
    lock = RunLock(folder / "run.lock").take()
    done = max((e["step"] for e in read_events(folder / EVENTS_NAME)), default=0)
    reason = "finished"
    for number in range(done + 1, total + 1):
        append(folder, step(number))
        time.sleep(0.02)
        if (folder / "stop").exists():
            reason = "stopped"
            break
    checkpoint(folder, number)
    append(folder, end_event(number, reason))
    print(f"{reason.capitalize()} after step {number}", flush=True)
    lock.release()
    return 0


def probe(folder: Path) -> int:
    """Waits for a signal, as a probe that encodes for hours."""
    lock = RunLock(folder / "run.lock").take()
    try:
        print("encoding scans: 3 of 900", flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        print("simcrop-train: Stopped. Nothing was left half-written.", file=sys.stderr)
        return 130
    lock.release()
    (folder / "result.json").write_text(json.dumps({"task": "LUNA16"}))
    return 0


if __name__ == "__main__":
    import signal

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    sys.exit(main(sys.argv[1:]))
