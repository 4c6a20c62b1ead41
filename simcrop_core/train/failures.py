"""Steps that went wrong: kept so that they can be replayed, or told in a sentence."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from simcrop_core.device import autocast
from simcrop_core.errors import SimCroPError
from simcrop_core.input_spec import InputSpec
from simcrop_core.objectives import make_objective
from simcrop_core.objectives.base import Ranks
from simcrop_core.outputs import whole_file
from simcrop_core.study_batch import StudyBatch
from simcrop_core.train.checkpoint import read_checkpoint, run_of
from simcrop_core.train.config import RunSettings
from simcrop_core.train.events import disk_is_full
from simcrop_core.train.settings import run_config_from

if TYPE_CHECKING:
    from simcrop_core.train.config import LoopConfig

FAILURES_NAME = "failures"


# -- losses that are no numbers -----------------------------------------------------------------


def save_batches(folder: Path, rank: int, batches: Sequence[Any]) -> None:
    """Keep what a process saw in a step, beside the checkpoint of the state before it.

    Raises
    ------
    SimCroPError, SafetensorError
        It cannot be written.
    """
    for part, batch in enumerate(batches):
        tensors = {
            field.name: value.detach().cpu().contiguous()
            for field in fields(batch)
            if isinstance(value := getattr(batch, field.name), Tensor)
        }
        with whole_file(folder / f"batch-rank-{rank}-part-{part}.safetensors") as hidden:
            save_file(tensors, hidden)


def non_finite(
    step: int,
    terms: dict[str, float],
    folder: Path,
    lost: str | None = None,
    *,
    replayed: bool = True,
) -> SimCroPError:
    """The refusal of a step whose loss or gradient is not finite; ``lost`` says why its batch and
    states could not be kept, ``replayed`` whether :func:`replay_failure` knows this kind of run.
    """
    bad = [name for name, value in terms.items() if not math.isfinite(value)]
    what = f"the terms {', '.join(bad)}" if bad else "the gradient"
    remedy = "resume with a lower optim.lr or with optim.clip_norm."
    if lost is None:
        kept = "its batch and all states are kept"
        replay = "Replay it with simcrop_core.train.replay_failure, or "
        remedy = f"{replay}{remedy}" if replayed else f"{remedy[0].upper()}{remedy[1:]}"
    else:
        kept = f"its batch and states could not be kept ({lost.rstrip('.')})"
        remedy = f"Check the disk, and {remedy}"
    return SimCroPError(
        f"Step {step} gave no finite loss ({what}), so it was not taken; {kept}",
        code="loss-not-finite",
        remedy=remedy,
        path=folder,
    )


def replay_failure(
    folder: Path, *, device: str = "cpu", text_encoder: str | None = None
) -> Iterator[dict[str, float]]:
    """The losses of a step that failed, once more: one dictionary for each kept batch.

    Each process's part is looked at by itself, so that losses that compare studies across
    processes see fewer of them.

    Parameters
    ----------
    folder
        In the run's ``failures``.
    device
        Where to compute.
    text_encoder
        Where the text encoder is now; None where the run had it.
    """
    state = next(folder.glob("step-*"))
    config = run_config_from(run_of(state), path=str(state))
    encoder = text_encoder or config.model.text_encoder
    checkpoint, model = read_checkpoint(state, text_encoder=encoder)
    model.train().to(device)
    objective = make_objective(config.objective, model)
    objective.load_state_dict(dict(checkpoint.objective))
    for path in sorted(folder.glob("batch-*.safetensors")):
        batch = StudyBatch(**load_file(path)).to(device)
        with torch.no_grad(), autocast(model.device, config.run.precision):
            losses = objective(model, batch, Ranks())
        yield {"loss": float(losses.total), **{k: float(v) for k, v in losses.terms.items()}}


# -- the disk -----------------------------------------------------------------------------------


def of_the_disk(error: OSError) -> bool:
    """Whether the system said it of a file: libraries raise OSError for much else."""
    return error.errno is not None and not isinstance(error, (ConnectionError, TimeoutError))


def disk_refusal(error: OSError, place: Path) -> SimCroPError:
    """What the system says of a disk that cannot be written or read, in one sentence."""
    code = "disk-full" if disk_is_full(error) else "disk-failed"
    return SimCroPError(
        f"The system refused to read or write ({error.strerror or type(error).__name__})",
        code=code,
        remedy="Check the disk, its room and that you may write there, and go on with --resume.",
        path=str(error.filename) if error.filename else place,
    )


# -- memory -------------------------------------------------------------------------------------


@contextmanager
def memory_told(run: RunSettings, spec: InputSpec) -> Iterator[None]:
    """Turn running out of memory into one sentence with a proposal; nothing is tried again.

    Raises
    ------
    SimCroPError
        ``out-of-memory``.
    """
    try:
        yield
    except RuntimeError as e:
        if not _is_memory(e):
            raise
        raise _out_of_memory(run, spec, e) from e
    except MemoryError as e:
        raise _out_of_memory(run, spec, e) from e


def _is_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def _out_of_memory(run: RunSettings, spec: InputSpec, error: BaseException) -> SimCroPError:
    used = ""
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        peak = torch.cuda.max_memory_allocated()
        used = f"; {_gib(peak)} of {_gib(total)} were in use, {_gib(free)} are free"
    shares = run.batch_size // run.world_size
    more = next((n for n in range(run.accumulation + 1, shares + 1) if shares % n == 0), None)
    voxels = math.prod(spec.shape)
    if more is not None:
        remedy = f"Set run.accumulation to {more}, which needs less memory"
    else:
        remedy = "Set run.precision to bf16, run.strategy to fsdp on several devices, or choose a "
        remedy += "smaller model"
    detail = str(error).split("\n")[0]
    return SimCroPError(
        f"Memory ran out with {run.part_size} studies of {spec.patches} patches "
        f"({run.part_size * voxels * 4:,} bytes of voxels) on a device at once{used}. {detail}",
        code="out-of-memory",
        remedy=remedy,
    )


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


def failure_folder(run_folder: Path, step: int) -> Path:
    """Where the step after ``step`` is kept if it fails."""
    return run_folder / FAILURES_NAME / f"after-{step:08d}"


def describe_failure(folder: Path, config: LoopConfig, losses: dict[str, float]) -> None:
    """Write beside a failed step what it gave."""
    facts = {name: str(value) for name, value in losses.items()}
    text = json.dumps({"run": config.name, "losses": facts}, indent=1) + "\n"
    with whole_file(folder / "losses.json") as hidden:
        hidden.write_text(text, encoding="utf-8")
