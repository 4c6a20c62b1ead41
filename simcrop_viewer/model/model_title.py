"""What to call a model by the folder it is in."""

from __future__ import annotations

from pathlib import Path

#: Where runs put what they learnt: a folder for each step, or one for all.
CHECKPOINTS_NAME, MODEL_NAME = "checkpoints", "model"


def model_title(folder: Path) -> str:
    """What to call a model's folder: one that a run made by its run, any other by its name."""
    if folder.parent.name == CHECKPOINTS_NAME and folder.name[5:].isdigit():
        return f"{folder.parent.parent.name}, step {int(folder.name[5:]):,}"
    if folder.name == MODEL_NAME:
        return folder.parent.name
    return folder.name
