"""Folders of runs as their processes leave them, without training anything."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

from simcrop_core.train.events import (
    checkpoint_event,
    end_event,
    error_event,
    step_event,
    validation_event,
)
from simcrop_viewer.model.recipes import Recipe, recipes_from

__all__ = [
    "append",
    "checkpoint",
    "checkpoint_event",
    "end_event",
    "error_event",
    "made_run",
    "recipes",
    "step",
    "steps",
    "validation_event",
]


@lru_cache
def told_recipes() -> dict[str, Any]:
    """What the command answers, asked once."""
    answer = subprocess.run(
        [sys.executable, "-m", "simcrop_training", "recipes", "--json"],
        capture_output=True,
        check=True,
    )
    return json.loads(answer.stdout)


def recipes() -> tuple[Recipe, ...]:
    return recipes_from(told_recipes())


def step(number: int, loss: float | None = None, **more: Any) -> dict[str, Any]:
    loss = 10.0 / number if loss is None else loss
    return step_event(number, loss, {"image": loss / 2, "align": loss / 2}, 1e-3, 8.0) | more


def steps(first: int, last: int) -> list[dict[str, Any]]:
    """Steps, two a second, the last one now."""
    now = time.time()
    return [step(n, time=now - (last - n) / 2) for n in range(first, last + 1)]


def append(folder: Path, *events: dict[str, Any]) -> None:
    with (folder / "events.jsonl").open("a") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)


def made_run(
    folder: Path, *events: dict[str, Any], recipe: str = "smoke", steps: int | None = 40
) -> Path:
    """A training run that told these events."""
    folder.mkdir(parents=True)
    config = {"name": recipe, "run": {"steps": steps}}
    (folder / "config.json").write_text(json.dumps({"format": "simcrop-run", "config": config}))
    append(folder, *events)
    return folder


def checkpoint(folder: Path, number: int) -> Path:
    path = folder / "checkpoints" / f"step-{number:08d}"
    path.mkdir(parents=True)
    return path
