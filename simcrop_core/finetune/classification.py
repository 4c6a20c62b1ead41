"""Fine-tuning of a whole encoder for classification, from its configuration to figures and a model.

Shapes in names: N scans; K labels or classes; F findings of CT-RATE.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from simcrop_core.device import Progress, select_device, silent
from simcrop_core.evaluate.classification import auc_by_label
from simcrop_core.finetune.classification_training import assemble, figures, logits_of_scans
from simcrop_core.finetune.lists import Scans, held_out_of, open_scans, radchestct_scans
from simcrop_core.finetune.told import ClassificationFit
from simcrop_core.finetune.transfer import LABELS, as_radchestct
from simcrop_core.finetune.tuned import (
    best_checkpoint,
    given,
    origin_notes,
    run_and_test,
    write_result,
)
from simcrop_core.model.checkpoint import load_model
from simcrop_core.model.config import ClassificationConfig
from simcrop_core.model.finetuned import with_head
from simcrop_core.model.simcrop import SimCroP
from simcrop_core.train.checkpoint import step_of
from simcrop_core.train.classification_tasks import Task
from simcrop_core.train.finetuning_classification import ClassificationRunConfig
from simcrop_core.train.launch import Outcome
from simcrop_core.volume import Note


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TunedClassifier(ClassificationFit):
    """What a fine-tuning gave.

    Attributes
    ----------
    steps, kept_after_step
        Steps that were taken; the step whose weights were kept.
    """

    config: ClassificationRunConfig
    steps: int
    kept_after_step: int

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return self.shared() | {
            "kind": "classification",
            "protocol": "clean",
            "steps": self.steps,
            "kept_after_step": self.kept_after_step,
        }

    def lines(self) -> list[str]:
        """The same for people."""
        config, count = self.config, self.scans
        head = [
            f"{config.task.name}, the whole encoder fine-tuned on {config.data.fraction:.0%} of "
            f"its training scans ({count['training']}); tested on {count['testing']}",
            f"Weights of step {self.kept_after_step} of {self.steps}",
        ]
        return head + self.told("The same on RadChestCT") + self.noted()


def run_classification(
    out: str | os.PathLike[str],
    config: ClassificationRunConfig,
    *,
    resume: bool = False,
    stop: Callable[[], bool] = lambda: False,
    tell: Progress = silent,
) -> TunedClassifier | Outcome:
    """Fine-tune in a run's folder, then test; writes ``model`` and ``result.json`` there.

    Arguments and the folder are those of :func:`simcrop_core.train.launch.train`; a run that was
    stopped or killed goes on with ``resume``.

    Returns
    -------
    TunedClassifier, or Outcome of a run that was stopped.

    Raises
    ------
    SimCroPError
        Model, list or scan is missing or damaged, or what training raises.
    """
    place = Path(out).expanduser().absolute()
    lists = _Lists.of(config)
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


def starting_model(config: ClassificationRunConfig) -> SimCroP:
    """The pre-trained model with a head that is near zero.

    Raises
    ------
    SimCroPError
        There is no such model, or its weights are not those of its configuration.
    """
    task = config.task
    head = ClassificationConfig(labels=task.labels, exclusive=task.classes > 0)
    return with_head(load_model(given(config.model, "model")), head, seed=config.run.seed)


def _tested(
    place: Path,
    config: ClassificationRunConfig,
    lists: _Lists,
    outcome: Outcome,
    say: Progress,
) -> TunedClassifier:
    chosen = best_checkpoint(place)
    model = load_model(chosen)
    notes = [*lists.notes, *origin_notes(config.model, validated=lists.held_out is not None)]
    model.to(select_device(config.run.accelerator))
    scores_NK = logits_of_scans(config, model, lists.testing, say, "testing")
    test = figures(config, scores_NK, lists.testing, config.draws)
    external = None
    if lists.external is not None:
        found_NF = logits_of_scans(config, model, lists.external, say, "testing on RadChestCT")
        chances_NF = torch.from_numpy(found_NF).double().sigmoid().numpy()
        truth_NK = lists.external.labels_NK
        external = auc_by_label(
            as_radchestct(chances_NF), truth_NK, LABELS, draws=config.draws, seed=config.run.seed
        )
    result = TunedClassifier(
        config=config,
        model=model.card(),
        scans=lists.counts(),
        steps=outcome.step,
        kept_after_step=step_of(chosen),
        test=test,
        external=external,
        notes=tuple(notes),
    )
    write_result(place, model, result.to_dict())
    return result


@dataclass(frozen=True, slots=True, eq=False)
class _Lists:
    """The scans of a fine-tuning; ``held_out`` is None where nothing is chosen by it."""

    training: Scans
    held_out: Scans | None
    testing: Scans
    external: Scans | None
    notes: tuple[Note, ...]

    @classmethod
    def of(cls, config: ClassificationRunConfig) -> _Lists:
        task = config.task
        root, lists = (
            Path(os.path.expanduser(given(getattr(config.data, name), f"data.{name}")))
            for name in ("root", "lists")
        )
        training = open_scans(task, root, lists, task.shares[config.data.fraction].training)
        testing = open_scans(task, root, lists, task.testing)
        external = None
        if config.data.external is not None:
            external = radchestct_scans(Path(os.path.expanduser(config.data.external)), lists)
        notes = [*testing.notes, *(() if external is None else external.notes)]
        if both := set(training.ids) & set(testing.ids):
            text = f"{len(both)} scans are in the training list and in the test list"
            notes.append(Note("seen-scans", text))
        held_out = _own_validation(task, root, lists, testing, config.data.held_out)
        if held_out is None:
            training, held_out = held_out_of(training, config.data.held_out)
        return cls(training, held_out, testing, external, tuple(notes))

    def counts(self) -> dict[str, int]:
        return {
            "training": len(self.training),
            "validation": 0 if self.held_out is None else len(self.held_out),
            "testing": len(self.testing),
            "external": 0 if self.external is None else len(self.external),
        }


def _own_validation(
    task: Task, root: Path, lists: Path, testing: Scans, wanted: int | None
) -> Scans | None:
    """The task's validation list, where it is to be used and shares no scan with the test list."""
    if wanted is not None:
        return None
    found = open_scans(task, root, lists, task.validation)
    return None if set(found.ids) & set(testing.ids) else found
