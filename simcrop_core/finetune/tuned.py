"""What fine-tunings of all kinds share: validation by a figure, the best weights, the result."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from simcrop_core.device import Progress
from simcrop_core.errors import SimCroPError
from simcrop_core.model.checkpoint import load_model, save_model
from simcrop_core.model.config import Provenance
from simcrop_core.model.simcrop import SimCroP
from simcrop_core.objectives.base import Objective, Ranks
from simcrop_core.outputs import whole_file
from simcrop_core.train.checkpoint import checkpoints, read_manifest, verify
from simcrop_core.train.config import LoopConfig
from simcrop_core.train.events import validation_event
from simcrop_core.train.launch import Assemble, Opened, Outcome, launch
from simcrop_core.train.lock import LOCK_NAME, RunLock
from simcrop_core.train.loop import Training
from simcrop_core.train.module import TrainingModule, compile_blocks
from simcrop_core.train.run import CHECKPOINTS_NAME
from simcrop_core.train.stopping import StopAskedError, until_stopped
from simcrop_core.train.validation import Validated, Validation
from simcrop_core.volume import Note

Result = TypeVar("Result")
RESULT, MODEL = "result.json", "model"

#: Figures of the model as it is now, by name; told what is done.
Measure = Callable[[Training, Progress], Mapping[str, float]]


class FigureValidation(Validation):
    """Figures on scans that are not trained on, every so many steps and at the end.

    The loss is one minus the figure that weights are chosen by, so that the best checkpoint is the
    one of the least.

    Parameters
    ----------
    every
        Steps from one to the next.
    chosen
        Name of that figure.
    patience
        Validations without a better one after which the run ends; None: never.
    before
        Losses of earlier validations of the run.
    """

    def __init__(
        self,
        every: int,
        measure: Measure,
        chosen: str,
        patience: int | None,
        before: Sequence[float],
    ) -> None:
        super().__init__(every, 0)
        self.measure, self.chosen, self.patience = measure, chosen, patience
        self.losses = list(before)

    def enough(self) -> bool:
        """Whether so many validations as ``patience`` says brought nothing better."""
        if self.patience is None or not self.losses:
            return False
        since_best = len(self.losses) - 1 - int(np.argmin(self.losses))
        return since_best >= self.patience

    def __call__(self, training: Training) -> Validated | None:
        """As :meth:`Validation.__call__`."""
        if training.data.held_out is None:
            return None
        tell = until_stopped(training.tell, training.wants_to_stop)
        training.wrapped.eval()
        try:
            figures = dict(self.measure(training, tell))
        finally:
            training.wrapped.train()
        loss = 1.0 - figures[self.chosen]
        self.losses.append(loss)
        if training.run is not None:
            training.run.log.write(validation_event(training.step, loss, {}, figures))
            if training.curves is not None:
                training.curves.validation(training.step, {"loss": loss, **figures})
        return Validated(loss, {}, figures)


def run_and_test(
    place: Path,
    config: LoopConfig,
    build: Callable[[], SimCroP],
    assemble: Assemble,
    test: Callable[[Outcome, Progress], Result],
    *,
    resume: bool,
    stop: Callable[[], bool],
    tell: Progress,
) -> Result | Outcome:
    """Fine-tune in a run's folder, then test what came of it; arguments as of
    :func:`simcrop_core.train.launch.launch`.

    Returns
    -------
    What ``test`` gave, or Outcome of a run that was stopped.
    """
    outcome = launch(place, config, build, assemble, resume=resume, stop=stop, tell=tell)
    if outcome.reason != "finished":
        return outcome
    lock = RunLock(place / LOCK_NAME).take()
    try:
        return test(outcome, until_stopped(tell, stop))
    except StopAskedError:
        return Outcome(outcome.step, "stopped")
    finally:
        lock.release()


def module_of(
    config: LoopConfig, model: SimCroP, objective: Objective, batch: type[Any]
) -> TrainingModule:
    """What is trained; only what the objective trains has gradients."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(objective.trains(name))
    module = TrainingModule(model, objective, Ranks(), batch).train()
    if config.run.compile:
        compile_blocks(module)
    return module


def origin_notes(source: str | None, *, validated: bool) -> list[Note]:
    """What a reader of the figures must know of where the weights come from."""
    notes = []
    if not load_model(given(source, "model")).config.is_trained:
        text = "The encoder was not pre-trained: the figures say what a random start gives"
        notes.append(Note("untrained", text))
    if not validated:
        text = "No scan was held out: the weights are those of the last step"
        notes.append(Note("not-validated", text))
    return notes


def earlier_losses(opened: Opened) -> list[float]:
    """The losses of a run's validations up to the checkpoint that it goes on from."""
    state = opened.state
    if opened.run is None or state is None:
        return []
    events = (e for e in opened.run.events() if e["event"] == "validation")
    return [float(e["loss"]) for e in events if e["step"] <= state.step]


def trained_on(before: Provenance, trained: str, run_name: str) -> Provenance:
    """The provenance with what the weights were last trained on, by the run of this name."""
    earlier, _, last = before.trained.rpartition("; then ")
    if f", run {run_name}, step " not in last:  # not of this run's own checkpoint
        earlier = before.trained
    return Provenance(**(before.model_dump() | {"trained": f"{earlier}; then {trained}"}))


def best_checkpoint(place: Path) -> Path:
    """The checkpoint of the least validation loss; the newest where nothing was validated.

    Raises
    ------
    SimCroPError
        ``damaged-checkpoint``, or there is none.
    """
    found = checkpoints(place / CHECKPOINTS_NAME)
    if not found:
        raise SimCroPError(
            "The run has no checkpoint",
            path=place,
            code="no-checkpoint",
            remedy="Start a new run in another folder.",
        )
    losses = {path: read_manifest(path)["validation_loss"] for path in found}
    validated = {path: float(loss) for path, loss in losses.items() if loss is not None}
    chosen = min(validated, key=lambda path: validated[path]) if validated else found[-1]
    verify(chosen)
    return chosen


def write_result(place: Path, model: SimCroP, result: Mapping[str, Any]) -> None:
    """Write the model's folder, and last the result: where it is, all is there."""
    save_model(model.cpu(), place / MODEL, overwrite=(place / MODEL).exists())
    with whole_file(place / RESULT) as hidden:
        text = json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False)
        hidden.write_text(f"{text}\n", encoding="utf-8")


def given(value: str | None, field: str) -> str:
    """A field that must be set.

    Raises
    ------
    SimCroPError
        ``option``: it is not.
    """
    if value is None:
        raise SimCroPError(
            f"It is not said where the fine-tuning finds its {field}",
            code="option",
            remedy=f"Add --set {field}=FOLDER.",
        )
    return value
