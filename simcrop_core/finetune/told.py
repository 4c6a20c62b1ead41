"""What the results of all fits for classification say of themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from simcrop_core.evaluate.classification import ClassificationResult
from simcrop_core.finetune.config import ProbeConfig
from simcrop_core.train.finetuning_classification import ClassificationRunConfig
from simcrop_core.volume import Note


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ClassificationFit:
    """A fit for classification, and its figures.

    Attributes
    ----------
    config, model
        Its configuration, and what the model says of itself.
    scans
        How many were trained on, validated on (0: none) and tested on.
    test, external
        On the test list; on RadChestCT's, where a head of CT-RATE was tried on it.
    notes
        What a reader of the figures must know.
    """

    config: ProbeConfig | ClassificationRunConfig
    model: dict[str, Any]
    scans: dict[str, int]
    test: ClassificationResult
    external: ClassificationResult | None
    notes: tuple[Note, ...]

    def shared(self) -> dict[str, Any]:
        """What all of them write, ready for JSON."""
        return {
            "schema": 1,
            "task": self.config.task.name,
            "fraction": self.config.data.fraction,
            "config": self.config.model_dump(mode="json"),
            "model": self.model,
            "scans": self.scans,
            "test": self.test.to_dict(),
            "external": None if self.external is None else self.external.to_dict(),
            "notes": [note.to_dict() for note in self.notes],
        }

    def told(self, elsewhere: str) -> list[str]:
        """The figures for people; ``elsewhere`` are words for those on RadChestCT."""
        lines = ["", *self.test.lines()]
        if self.external is not None:
            lines += ["", f"{elsewhere} ({self.scans['external']} scans)"]
            lines += ["", *self.external.lines()]
        return lines

    def noted(self) -> list[str]:
        """The notes for people."""
        return [f"  note: {note.text}" for note in self.notes]
