"""The loop: from a batch to a step, until the run's end.

Everything random comes from the seeds in the batches, so that a resumed run takes the same steps
as one that was never stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning.fabric import Fabric
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from simcrop_core.device import Progress, silent
from simcrop_core.errors import SimCroPError
from simcrop_core.model.config import ModelConfig
from simcrop_core.objectives.base import Ranks
from simcrop_core.train.checkpoint import (
    Checkpoint,
    optimiser_state,
    random_state,
    whole_state,
    write_checkpoint,
)
from simcrop_core.train.config import LoopConfig, RunConfig
from simcrop_core.train.curves import Curves
from simcrop_core.train.events import disk_is_full, end_event, error_event, step_event
from simcrop_core.train.failures import (
    describe_failure,
    failure_folder,
    non_finite,
    save_batches,
)
from simcrop_core.train.module import TrainingModule, average_scalars, fields_of_batch, is_sharded
from simcrop_core.train.run import Run
from simcrop_core.train.schedule import Schedule
from simcrop_core.train.stopping import StopAskedError
from simcrop_core.train.validation import Validated, Validation

#: How often a run that waits for room on the disk looks again.
PAUSE_S = 10.0


@dataclass(frozen=True, slots=True)
class Step:
    """What a step gave, averaged over the processes."""

    loss: float
    terms: dict[str, float]
    grad_norm: float
    stop: bool


#: A model's configuration and the step after which it is saved -> the one to be saved.
Describe = Callable[[ModelConfig, int], ModelConfig]


class LoopLoader(Protocol):
    """Endless batches whose place can be kept and found again."""

    def __iter__(self) -> Iterator[Any]: ...

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state: Any, /) -> None: ...


class LoopData(Protocol):
    """What a process trains on, as far as the loop knows it."""

    @property
    def loader(self) -> LoopLoader: ...

    @property
    def held_out(self) -> Any: ...

    def batch(self, raw: Any, device: torch.device) -> Any: ...


@dataclass(eq=False)
class Training:
    """All that takes part in a run on this process.

    Attributes
    ----------
    config, fabric, schedule, data, validation
        As configured.
    described
        The model's configuration, with what its weights were trained on until a step.
    module, wrapped
        Model and objective, and the same as Fabric distributes them.
    optimiser
        AdamW.
    step
        Steps taken.
    run
        The folder, on the first process; None on the others.
    folder
        Where it is, on all.
    curves
        TensorBoard, on the first process.
    stop
        Whether somebody on this process wants the run to end.
    """

    config: LoopConfig
    fabric: Fabric
    module: TrainingModule
    wrapped: nn.Module
    optimiser: torch.optim.Optimizer
    schedule: Schedule
    data: LoopData
    validation: Validation
    described: Describe
    folder: Path
    run: Run | None
    curves: Curves | None = None
    step: int = 0
    stop: Callable[[], bool] = lambda: False
    tell: Progress = silent
    ranks: Ranks = field(default_factory=Ranks.current)

    def __call__(self) -> str:
        """Train to the end; ``finished``, or ``stopped`` where somebody asked for that.

        Raises
        ------
        SimCroPError
            The loss is not finite, memory ran out, or data or disk failed.
        """
        batches = iter(self.data.loader)
        saved = self.step if self.step else None
        owing = self._owes_validation()
        validated, stop = self._validate() if owing else (None, False)
        owing = stop
        if validated:
            self._save(validated.loss)
        while self.step < self.schedule.steps and not stop and not self.validation.enough():
            started = time.perf_counter()
            taken = self._take_step(batches)
            self.step += 1
            stop = taken.stop
            seconds = time.perf_counter() - started
            self._tell_step(taken, self.config.run.batch_size / seconds)
            last = self.step == self.schedule.steps
            last = self.step == self.schedule.steps
            validated, owing = None, self.validation.due(self.step, last)
            if owing and not stop:
                validated, stop = self._validate()
                owing = stop
            if last or stop or validated or self.step % self.config.run.checkpoint_every == 0:
                self._save(validated.loss if validated else None)
                saved = self.step
        if saved != self.step:
            self._save(None)
        whole = self.step == self.schedule.steps or self.validation.enough()
        reason = "finished" if whole and not owing else "stopped"
        if self.run is not None:
            self.run.log.write(end_event(self.step, reason))
            self.run.log.sync()
        return reason

    def _validate(self) -> tuple[Validated | None, bool]:
        """What validation gave, and whether it was broken off by a wish to stop."""
        try:
            return self.validation(self), False
        except StopAskedError:
            return None, True

    def _owes_validation(self) -> bool:
        """Whether the step from which the run goes on was to be validated and was not, since
        somebody asked to stop."""
        last = self.step == self.schedule.steps
        if not self.step or self.data.held_out is None or not self.validation.due(self.step, last):
            return False
        done = self.run is not None and any(
            event["event"] == "validation" and event["step"] == self.step
            for event in self.run.events()
        )
        return self.somebody(self.run is not None and not done)

    def wants_to_stop(self) -> bool:
        """Whether somebody asks this process, or the run's folder, to stop."""
        return self.stop() or (self.run is not None and self.run.stop_requested())

    @property
    def sharded(self) -> bool:
        """Whether the processes share the weights out."""
        return is_sharded(self.module)

    # -- a step ---------------------------------------------------------------------------------

    def _take_step(self, batches: Iterator[Any]) -> Step:
        lr = self.schedule.at(self.step + 1)
        parts = [
            self.data.batch(next(batches), self.fabric.device)
            for _ in range(self.config.run.accumulation)
        ]
        names, figures = self._backward(parts)
        average_scalars(self.module)
        norm = gradient_norm(self.module)
        taken = self._agree(names, figures, norm)
        if taken is None:
            raise self._keep_failure(parts, names, figures)
        clip = self.config.optim.clip_norm
        if clip is not None:
            shorten_gradient(self.module, norm, clip)
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return taken

    def _backward(self, parts: Sequence[Any]) -> tuple[list[str], Tensor]:
        """Gradients of the mean over the parts; names and means of loss and terms."""
        rows = []
        names: list[str] = []
        for number, part in enumerate(parts, start=1):
            waits = self.ranks.world_size > 1 and number < len(parts)
            with self.fabric.no_backward_sync(self.wrapped, enabled=waits):
                total, terms = self.wrapped(fields_of_batch(part))
                self.fabric.backward(total / len(parts))
            names = list(terms)
            rows.append(torch.stack([total.detach(), *terms.values()]).float())
        return names, torch.stack(rows).mean(dim=0)

    def _agree(self, names: Sequence[str], figures: Tensor, norm: Tensor) -> Step | None:
        """What all processes saw together; None where one of them has no finite loss."""
        wants = self.wants_to_stop()
        bad = ~(figures[0].isfinite() & norm.isfinite())
        shared = torch.stack([bad.float(), bad.new_tensor(wants).float(), norm.float()])
        if self.ranks.world_size > 1:
            both = self.ranks_mean(torch.cat([figures, shared]))
            figures, shared = both[: len(figures)], both[len(figures) :]
        some_bad, some_want, length = shared.tolist()
        if some_bad > 0:
            return None
        loss, *terms = figures.tolist()
        return Step(loss, dict(zip(names, terms, strict=True)), length, some_want > 0)

    def ranks_mean(self, figures: Tensor) -> Tensor:
        """Figures averaged over the processes."""
        if self.ranks.world_size == 1:
            return figures
        figures = figures.clone()
        torch.distributed.all_reduce(figures)
        return figures / self.ranks.world_size

    def somebody(self, says: bool) -> bool:
        """Whether one of the processes says so; all must ask."""
        device = self.fabric.device
        return bool(self.ranks_mean(torch.tensor(float(says), device=device)) > 0)

    def _keep_failure(
        self, parts: Sequence[Any], names: Sequence[str], figures: Tensor
    ) -> SimCroPError:
        """Save the state before the step and what every process saw; nothing was changed yet."""
        folder = failure_folder(self.folder, self.step)
        checkpoint = self.checkpoint(None)
        losses = dict(zip(["loss", *names], figures.tolist(), strict=True))
        lost: list[str | None] = [None]
        try:
            save_batches(folder, self.ranks.rank, parts)
            if self.run is not None:
                write_checkpoint(checkpoint, folder)
                describe_failure(folder, self.config, losses)
        except SimCroPError as e:
            lost = [e.problem]
        except (OSError, SafetensorError) as e:
            lost = [str(e)]
        if self.ranks.world_size > 1:  # none may wait for one that could not write
            lost = lost * self.ranks.world_size
            torch.distributed.all_gather_object(lost, lost[0])
        losses.pop("loss")
        why = next(filter(None, lost), None)
        known = self.config.format == RunConfig.format
        return non_finite(self.step + 1, losses, folder, why, replayed=known)

    def _tell_step(self, taken: Step, samples_per_s: float) -> None:
        if self.run is None:
            return
        lr = self.schedule.at(self.step)
        self.run.log.write(step_event(self.step, taken.loss, taken.terms, lr, samples_per_s))
        if self.curves is not None:
            self.curves.step(self.step, taken.loss, taken.terms, lr, samples_per_s, taken.grad_norm)
        self.tell(f"loss {taken.loss:.4f}", self.step, self.schedule.steps)

    # -- saving ---------------------------------------------------------------------------------

    def checkpoint(self, validation_loss: float | None) -> Checkpoint:
        """The state as it is now; all processes must ask, and the first one gets it."""
        keep = self.run is not None
        device, rank = self.fabric.device, self.ranks.rank
        if validation_loss is not None and not math.isfinite(validation_loss):
            validation_loss = None  # never the best
        random = random_state(device, rank)
        randoms, loaders = [random], [self.data.loader.state_dict()]
        if self.ranks.world_size > 1:
            randoms = [{} for _ in range(self.ranks.world_size)]
            torch.distributed.all_gather_object(randoms, random)
            loaders = loaders * self.ranks.world_size
            torch.distributed.all_gather_object(loaders, self.data.loader.state_dict())
        model = self.module.model
        return Checkpoint(
            step=self.step,
            config=self.config.model_dump(mode="json"),
            model_config=self.described(model.config, self.step),
            model=whole_state(model, keep=keep),
            objective=whole_state(self.module.objective, keep=keep),
            optimiser=optimiser_state(self.module, self.optimiser, keep=keep),
            loader=loaders,
            random={name: state for states in randoms for name, state in states.items()},
            validation_loss=validation_loss,
        )

    def _save(self, validation_loss: float | None) -> None:
        """Save; while the disk is full, wait for room, and say so."""
        checkpoint = self.checkpoint(validation_loss)
        told = False
        while True:
            full, error = False, None
            if self.run is not None:
                try:
                    self.run.save(checkpoint)
                except SimCroPError as e:
                    full, error = disk_is_full(e), e
            full, error = self.fabric.broadcast((full, error))
            if error is None:
                return
            if not full:
                raise error
            wants = self.somebody(self.wants_to_stop())
            if wants:
                raise _gave_up(self.folder, self.step)
            if not told and self.run is not None:
                message = _waiting(self.folder, self.step)
                self.run.log.write(error_event(self.step, "disk-full", message))
                self.tell(message, self.step, self.schedule.steps)
            told = True
            self._pause()

    def _pause(self) -> None:
        """Wait a while on the first process, less if it is asked to stop; the others wait for
        what it tells them next."""
        until = time.monotonic() + PAUSE_S
        while self.run is not None and time.monotonic() < until and not self.wants_to_stop():
            time.sleep(min(1.0, PAUSE_S))


def _waiting(folder: Path, step: int) -> str:
    return (
        f"The disk of {folder} is full: the run pauses at step {step} with all earlier "
        "checkpoints intact, and goes on when there is room."
    )


def _gave_up(folder: Path, step: int) -> SimCroPError:
    return SimCroPError(
        f"The run was stopped while the disk was full, so step {step} is not saved; all earlier "
        "checkpoints are intact",
        code="disk-full",
        remedy="Make room, and start the run again with --resume.",
        path=folder,
    )


def gradient_norm(module: nn.Module) -> Tensor:
    """Length of the whole gradient, over all processes that share it out."""
    grads = [p.grad for p in module.parameters() if p.grad is not None]
    if not grads:
        return torch.zeros(())
    # Gradients that the processes share out and those that each holds are measured apart.
    kinds: list[list[Tensor]] = [[], []]
    for grad in grads:
        kinds[isinstance(grad, DTensor)].append(grad)
    norms = [torch.nn.utils.get_total_norm(kind) for kind in kinds if kind]
    norms = [norm.full_tensor() if isinstance(norm, DTensor) else norm for norm in norms]
    return torch.linalg.vector_norm(torch.stack(norms))


def shorten_gradient(module: nn.Module, norm: Tensor, longest: float) -> None:
    """Scale the gradient to the longest that is allowed, if it is longer."""
    factor = (longest / (norm + 1e-6)).clamp(max=1.0)
    for parameter in module.parameters():
        if parameter.grad is not None:
            parameter.grad.mul_(factor.to(parameter.grad.device))
