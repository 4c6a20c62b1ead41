"""What to call a model by the folder it is in."""

from __future__ import annotations

from pathlib import Path

#: Where runs put what they learnt: a folder for each step, or one for all.
CHECKPOINTS_NAME, MODEL_NAME = "checkpoints", "model"


def model_title(folder: Path) -> str:
    """What to call a model's folder: one that a run made by its run, any other by its name."""
    step = step_of(folder)
    if folder.parent.name == CHECKPOINTS_NAME and step is not None:
        return f"{folder.parent.parent.name}, step {step:,}"
    if folder.name == MODEL_NAME:
        return folder.parent.name
    return folder.name


def step_of(folder: Path) -> int | None:
    """The number in the name of a step's folder, ``step-00000010``; None of any other."""
    start, number = folder.name[:5], folder.name[5:]
    there = start == "step-" and number.isascii() and number.isdecimal()
    return int(number) if there else None
