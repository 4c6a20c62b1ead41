"""Starting a run on this process: everything is opened, checked and put together here."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning.fabric import Fabric

from simcrop_core.cluster import refuse_in_worker
from simcrop_core.counter_random import seed_of
from simcrop_core.device import Progress, silent
from simcrop_core.errors import SimCroPError
from simcrop_core.model.simcrop import SimCroP
from simcrop_core.objectives import make_objective
from simcrop_core.objectives.base import Ranks
from simcrop_core.train.build import build_model, is_large, trained_config
from simcrop_core.train.checkpoint import (
    Checkpoint,
    read_checkpoint,
    restore_optimiser,
    restore_random,
    step_of,
)
from simcrop_core.train.config import LoopConfig, RunConfig
from simcrop_core.train.curves import Curves
from simcrop_core.train.data import TrainingData, make_phantom_store, open_data
from simcrop_core.train.devices import (
    SUPERVISED,
    accelerator_of,
    make_fabric,
    started_by_launcher,
)
from simcrop_core.train.events import (
    EVENTS_NAME,
    EventLog,
    end_event,
    error_event,
    read_events,
)
from simcrop_core.train.failures import disk_refusal, memory_told, of_the_disk
from simcrop_core.train.heap import keep_freed_memory
from simcrop_core.train.loop import Describe, LoopData, Training
from simcrop_core.train.module import TrainingModule, compile_blocks
from simcrop_core.train.optimiser import make_optimiser
from simcrop_core.train.run import Run
from simcrop_core.train.schedule import Schedule
from simcrop_core.train.stopping import StopAskedError, until_stopped
from simcrop_core.train.validation import Validation

T = TypeVar("T")
# What collectives say when a process they need is gone.
_LOST = ("connection closed", "connection reset", "broken pipe", "socket", "nccl", "gloo")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: after which step, and ``finished`` or ``stopped``."""

    step: int
    reason: str


def train(
    folder: str | os.PathLike[str],
    config: RunConfig,
    *,
    resume: bool = False,
    stop: Callable[[], bool] = lambda: False,
    tell: Progress = silent,
) -> Outcome:
    """Train in a folder, to the end or until somebody asks to stop.

    With several devices every process calls this, started by
    :func:`simcrop_core.train.supervisor.supervise` or torchrun.

    Parameters
    ----------
    folder
        Of the run: new or empty; or, with ``resume``, one to go on with.
    config
        What to do.
    resume
        Go on from the newest checkpoint; a run that is not there yet is begun.
    stop
        Asked after every step, every batch of a validation and every phantom that is made.
    tell
        Told what is done, how far, and of how many.

    Raises
    ------
    SimCroPError
        Settings, data or devices do not fit, the folder is taken, a loss is not finite, memory
        ran out, a process was lost. What ends a run that had begun is in its events too.
    """
    return launch(
        folder,
        config,
        partial(build_model, config.model, config.run.seed),
        partial(_assemble, config),
        resume=resume,
        text_encoder=config.model.text_encoder,
        stop=stop,
        tell=tell,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """What :func:`launch` has opened, for the rest of a run to be put together from.

    Attributes
    ----------
    fabric, place
        Of the run.
    run
        The folder, on the first process; None on the others.
    model
        Freshly built, or as in the checkpoint.
    state
        The checkpoint that the run goes on from, or None.
    tell, stop
        As :func:`train` takes them.
    """

    fabric: Fabric
    place: Path
    run: Run | None
    model: SimCroP
    state: Checkpoint | None
    tell: Progress
    stop: Callable[[], bool]

    @property
    def ranks(self) -> Ranks:
        return Ranks(self.fabric.global_rank, self.fabric.world_size)

    def asked_to_stop(self) -> bool:
        """Whether somebody wants the run to end, in this process or by its folder."""
        return self.stop() or (self.run is not None and self.run.stop_requested())

    def training(
        self,
        config: LoopConfig,
        module: TrainingModule,
        data: LoopData,
        steps_per_pass: float,
        validation: Validation,
        described: Describe,
    ) -> Training:
        """The loop over all that takes part, everything but the weights as in the checkpoint."""
        module = module.to(self.fabric.device)
        wrapped = self.fabric.setup_module(module)
        training = Training(
            config=config,
            fabric=self.fabric,
            module=module,
            wrapped=wrapped,
            optimiser=make_optimiser(module, config.optim),
            schedule=Schedule.of(config, steps_per_pass),
            data=data,
            validation=validation,
            described=described,
            folder=self.place,
            run=self.run,
            stop=self.stop,
            tell=self.tell,
            ranks=self.ranks,
        )
        if (state := self.state) is not None:
            rank = training.ranks.rank
            training.step = state.step
            restore_optimiser(module, training.optimiser, state.optimiser)
            data.loader.load_state_dict(state.loader[min(rank, len(state.loader) - 1)])
            restore_random(state.random, self.fabric.device, rank)
        return training


#: Puts everything that takes part together.
Assemble = Callable[[Opened], Training]


def launch(
    folder: str | os.PathLike[str],
    config: LoopConfig,
    build: Callable[[], SimCroP],
    assemble: Assemble,
    *,
    resume: bool = False,
    text_encoder: str | None = None,
    stop: Callable[[], bool] = lambda: False,
    tell: Progress = silent,
) -> Outcome:
    """Run the loop in a folder, whatever is trained; arguments and errors as :func:`train`.

    Parameters
    ----------
    build
        Makes or loads the model.
    assemble
        Puts together what takes part.
    text_encoder
        For a model that goes on from a checkpoint, which holds no frozen one.
    """
    refuse_in_worker()
    place = Path(folder).expanduser().absolute()
    if config.run.devices == config.run.nodes == 1 and not started_by_launcher():
        Run.check(place, config, resume)  # before a model is built; several look once they are met
    if accelerator_of(config.run) == "cpu":
        keep_freed_memory()
    model = build()
    fabric = make_fabric(config.run, large=is_large(model.config))
    fabric.launch()
    run = _open_run(fabric, place, config, resume)
    training: Training | None = None
    step = 0
    try:
        checkpoint = _on_first(fabric, place, lambda: run.latest() if run is not None else None)
        step = 0 if checkpoint is None else step_of(checkpoint)
        if step and run is not None and not any(e["event"] == "step" for e in run.events()):
            print(f"{EVENTS_NAME} tells of no step before {step}: it was lost.", file=sys.stderr)
        with memory_told(config.run, model.input_spec):
            torch.manual_seed(seed_of(config.run.seed, "torch", fabric.global_rank))
            state = None
            if checkpoint is not None:
                state, model = read_checkpoint(checkpoint, text_encoder=text_encoder)
            opened = Opened(fabric, place, run, model.train(), state, tell, stop)
            training = assemble(opened)
            if run is not None:
                run.rewind(training.step)
                training.curves = Curves(place, training.step)
            reason = training()
        return Outcome(training.step, reason)
    except StopAskedError:  # before the first step that was to be taken
        if run is not None:
            run.rewind(step)
            run.log.write(end_event(step, "stopped"))
        return Outcome(step, "stopped")
    except BaseException as e:
        refusal = _refusal(e, fabric.world_size, place)
        _tell_error(refusal, place, run, training.step if training is not None else 0)
        if refusal is e:
            raise
        raise refusal from e
    finally:
        if training is not None and training.curves is not None:
            training.curves.close()
        if run is not None:
            run.close()


def _open_run(fabric: Fabric, place: Path, config: LoopConfig, resume: bool) -> Run | None:
    """The folder, held by the first process; None on the others."""
    opened: list[Run] = []

    def open_it() -> None:
        goes_on = Run.check(place, config, resume)
        opened.append(Run.resume(place, config) if goes_on else Run.create(place, config))

    _on_first(fabric, place, open_it)
    return opened[0] if opened else None


def _on_first(fabric: Fabric, place: Path, do: Callable[[], T]) -> T:
    """Do something on the first process; all get what it gave, or end if it could not."""
    result: T | None = None
    error: Exception | None = None
    if fabric.is_global_zero:
        try:
            result = do()
        except OSError as e:
            error = disk_refusal(e, place) if of_the_disk(e) else e
            if error is not e:
                error.__cause__ = e
        except Exception as e:  # whatever it is, the others must not wait for what never comes
            error = e
    stopped = isinstance(error, StopAskedError)
    shared: Any = fabric.broadcast((result, error is not None, stopped))
    result, failed, stopped = shared
    if error is not None:
        raise error
    if failed:
        raise StopAskedError if stopped else SystemExit(2)  # the first process tells why
    return result


def _assemble(config: RunConfig, opened: Opened) -> Training:
    fabric, place, model, state = opened.fabric, opened.place, opened.model, opened.state

    def make_phantoms() -> Path:
        return make_phantom_store(config, model.config, place, opened.tell, opened.asked_to_stop)

    if config.data.store is None:
        store = _on_first(fabric, place, make_phantoms)
    else:
        store = Path(config.data.store).expanduser()
    data = open_data(config, model.config, store, place, opened.ranks)
    # A model that goes on from a folder keeps the mean it was trained with.
    if state is None and model.config.text_centred and config.model.folder is None:
        tell = until_stopped(opened.tell, opened.asked_to_stop)
        model.set_text_mean(_sentence_mean(fabric, place, data, tell))
    return opened.training(
        config,
        _module(config, model, opened.ranks, state),
        data,
        len(data.loader) / config.run.accumulation,
        Validation(config.run.validate_every, config.run.previews),
        lambda before, step: trained_config(before, config.name, config.objective, step),
    )


def _sentence_mean(fabric: Fabric, place: Path, data: TrainingData, tell: Progress) -> torch.Tensor:
    """The mean that all processes centre on, computed by the first: a large store takes minutes."""
    return _on_first(fabric, place, lambda: data.sentence_mean(tell))


def _module(
    config: RunConfig, model: SimCroP, ranks: Ranks, state: Checkpoint | None
) -> TrainingModule:
    """Model and objective, with gradients for what the objective trains."""
    objective = make_objective(config.objective, model, seed=config.run.seed)
    if state is not None:
        objective.load_state_dict(dict(state.objective))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(objective.trains(name))
    module = TrainingModule(model, objective, ranks).train()
    if config.run.compile:
        compile_blocks(module)
    return module


# -- what went wrong ----------------------------------------------------------------------------


def _refusal(error: BaseException, processes: int, place: Path) -> BaseException:
    """The error as a refusal, where it is one that a person can act on."""
    if isinstance(error, OSError) and of_the_disk(error):
        return disk_refusal(error, place)
    if isinstance(error, RuntimeError) and not isinstance(error, SimCroPError) and processes > 1:
        words = str(error).lower()
        if isinstance(error, torch.distributed.DistError) or any(w in words for w in _LOST):
            return SimCroPError(
                f"Another process of the run is gone ({' '.join(str(error).split())[:200]})",
                code="rank-lost",
                remedy="Start the run again with --resume; it goes on from the newest checkpoint.",
            )
    return error


def _tell_error(error: BaseException, place: Path, run: Run | None, step: int) -> None:
    """Write what ended the run into its events."""
    if isinstance(error, SystemExit):
        return  # another process tells
    if isinstance(error, SimCroPError):
        code, message = error.code, f"{error.problem} {error.remedy}"
        if code == "rank-lost" and SUPERVISED in os.environ:
            return  # the supervisor knows which process it was, and tells
    elif isinstance(error, KeyboardInterrupt):
        code, message = "interrupted", "The run was ended within a step, which is not saved."
    else:
        code = "defect"
        message = f"A defect in SimCroP ({type(error).__name__}: {' '.join(str(error).split())})."
    event = error_event(step, code, message)
    with suppress(OSError):  # of a disk that fails the command itself still tells
        if run is not None:
            run.log.write(event)
            return
        with EventLog(place / EVENTS_NAME) as log:
            log.write(event)


def tell_lost_process(folder: str | os.PathLike[str], error: SimCroPError) -> None:
    """Write into a run's events that one of its processes died; called from outside, once all
    have ended."""
    path = Path(folder).expanduser() / EVENTS_NAME
    if not path.exists():
        return
    step = max((int(e["step"]) for e in read_events(path) if e["event"] == "step"), default=0)
    with suppress(OSError), EventLog(path) as log:
        log.write(error_event(step, error.code, f"{error.problem} {error.remedy}"))
