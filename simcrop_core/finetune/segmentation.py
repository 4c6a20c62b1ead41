"""Fine-tuning for segmentation from its configuration to figures and a model folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from simcrop_core.datasets.scans import ScanSource
from simcrop_core.device import Progress, silent
from simcrop_core.evaluate.segmentation import SegmentationResult, evaluate_segmentation
from simcrop_core.finetune.segmentation_scans import (
    check_masks,
    list_of,
    open_split,
    parted,
    read_case,
    share_of,
)
from simcrop_core.finetune.segmentation_training import assemble
from simcrop_core.finetune.tuned import (
    best_checkpoint,
    given,
    origin_notes,
    run_and_test,
    write_result,
)
from simcrop_core.model.checkpoint import load_model
from simcrop_core.model.config import SegmentationConfig
from simcrop_core.model.finetuned import with_segmentation
from simcrop_core.model.simcrop import SimCroP
from simcrop_core.train.checkpoint import step_of
from simcrop_core.train.finetuning import SegmentationRunConfig
from simcrop_core.train.launch import Outcome
from simcrop_core.train.stopping import StopAskedError, until_stopped
from simcrop_core.volume import Note

_RELEASED_ORIENTATION = "RAS"


@dataclass(frozen=True, slots=True, eq=False)
class FineTuned:
    """What a fine-tuning gave.

    Attributes
    ----------
    config
        Its configuration.
    scans
        How many were trained on, validated on and tested on.
    steps, kept_after_step
        Steps that were taken; the step whose weights were kept.
    test
        Figures on the test scans, at their own resolution.
    notes
        What a reader of the figures must know.
    """

    config: SegmentationRunConfig
    scans: dict[str, int]
    steps: int
    kept_after_step: int
    test: SegmentationResult
    notes: tuple[Note, ...]

    @property
    def paper_percent(self) -> float | None:
        """What the paper gives for SimCroP on this share, if it does."""
        return self.config.task.paper.get(self.config.data.fraction)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "schema": 1,
            "kind": "segmentation",
            "task": self.config.task.name,
            "protocol": self.config.protocol,
            "fraction": self.config.data.fraction,
            "config": self.config.model_dump(mode="json"),
            "scans": self.scans,
            "steps": self.steps,
            "kept_after_step": self.kept_after_step,
            "test": self.test.to_dict(),
            "paper_percent": self.paper_percent,
            "notes": [note.to_dict() for note in self.notes],
        }

    def lines(self) -> list[str]:
        """The same for people."""
        config, count = self.config, self.scans
        lines = [
            f"{config.task.name}, {config.data.fraction:.0%} of its training scans "
            f"({count['training']}), protocol {config.protocol}; tested on {count['testing']}",
            f"Weights of step {self.kept_after_step} of {self.steps}",
            "",
            *self.test.lines(),
        ]
        if self.paper_percent is not None:
            lines += ["", f"The paper's SimCroP: mean Dice {self.paper_percent:.1f} %"]
        return lines + [f"  note: {note.text}" for note in self.notes]


def run_segmentation(
    out: str | os.PathLike[str],
    config: SegmentationRunConfig,
    *,
    resume: bool = False,
    stop: Callable[[], bool] = lambda: False,
    tell: Progress = silent,
) -> FineTuned | Outcome:
    """Fine-tune in a run's folder, then test; writes ``model`` and ``result.json`` there.

    Arguments and the folder are those of :func:`simcrop_core.train.launch.train`; a run that was
    stopped or killed goes on with ``resume``.

    Returns
    -------
    FineTuned, or Outcome of a run that was stopped.

    Raises
    ------
    SimCroPError
        Model, list, scan or mask is missing or damaged, or what training raises.
    """
    place = Path(out).expanduser().absolute()
    lists = _Lists.of(config)
    try:
        check_masks(lists.testing, until_stopped(tell, stop))
    except StopAskedError:
        return Outcome(0, "stopped")
    return run_and_test(
        place,
        config,
        partial(starting_model, config),
        partial(assemble, config, lists.training, lists.held_out),
        partial(_tested, place, config, lists),
        resume=resume,
        stop=stop,
        tell=tell,
    )


def starting_model(config: SegmentationRunConfig) -> SimCroP:
    """The pre-trained model with the fresh decoder of a configuration.

    Raises
    ------
    SimCroPError
        There is no such model, its weights are not those of its configuration, or its encoder
        cannot have this decoder.
    """
    model = load_model(given(config.model, "model"))
    released = config.protocol == "released"
    known = model.config.vision.position != "loaded" or config.head.roi == model.input_spec.shape
    head = SegmentationConfig(
        kind=config.head.kind,
        labels=config.task.structures,
        feature_width=config.head.feature_width,
        roi=config.head.roi,
        position="encoder" if known and not released else "official2axis",
        cls_token=not released,
        foreground=True,
    )
    return with_segmentation(
        model,
        head,
        spacing_mm=config.spacing_mm,
        orientation=_RELEASED_ORIENTATION if released else model.input_spec.orientation,
        seed=config.run.seed,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Lists:
    """The scans of a fine-tuning."""

    training: list[ScanSource]
    held_out: list[ScanSource]
    testing: list[ScanSource]
    notes: tuple[Note, ...]

    @classmethod
    def of(cls, config: SegmentationRunConfig) -> _Lists:
        task, data = config.task, config.data
        root = Path(os.path.expanduser(given(data.root, "data.root")))
        path = list_of(task, data, root)
        training = open_split(task, root, path, "train")
        if data.fraction not in task.lists:
            training = share_of(training, data.fraction)
        testing = open_split(task, root, path, task.testing)
        notes = []
        if both := {s.id for s in training} & {s.id for s in testing}:
            text = f"{len(both)} scans are trained on and tested on"
            notes.append(Note("seen-scans", text))
        if config.protocol == "clean":
            training, held_out = parted(training, data.held_out)
        else:
            held_out = testing
            text = (
                f"The weights were chosen by {len(testing)} of the scans that they are tested on, "
                "as the authors' code does: the figures are too good"
            )
            notes.append(Note("chosen-on-test", text))
        return cls(training, held_out, testing, tuple(notes))

    def counts(self) -> dict[str, int]:
        return {
            "training": len(self.training),
            "validation": len(self.held_out),
            "testing": len(self.testing),
        }


def _tested(
    place: Path, config: SegmentationRunConfig, lists: _Lists, outcome: Outcome, say: Progress
) -> FineTuned:
    chosen = best_checkpoint(place)
    model = load_model(chosen)
    notes = [*lists.notes, *origin_notes(config.model, validated=bool(lists.held_out))]
    tested = evaluate_segmentation(
        model,
        (read_case(source) for source in lists.testing),
        total=len(lists.testing),
        overlap=config.overlap,
        device=config.run.accelerator,
        precision=config.run.precision,
        progress=say,
    )
    result = FineTuned(config, lists.counts(), outcome.step, step_of(chosen), tested, tuple(notes))
    write_result(place, model, result.to_dict())
    return result
