"""Checkpoints: model folders with what training needs besides, whole or not there at all.

A checkpoint is filled in a hidden folder, every file is flushed to the disk, the manifest with
the digests of all files is written last, and the folder is renamed. Whatever moment a kill
chooses, a folder that carries a checkpoint's name is whole. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from simcrop_core.errors import SimCroPError
from simcrop_core.model import load_model, save_model
from simcrop_core.model.config import ModelConfig
from simcrop_core.model.simcrop import SimCroP, without_weights
from simcrop_core.outputs import exchange

CHECKPOINTS_NAME = "checkpoints"
MANIFEST_NAME = "manifest.json"
TRAINING_NAME = "training.json"
_OBJECTIVE, _OPTIMISER, _RANDOM = "objective", "optimiser", "random"
_FORMAT = "simcrop-checkpoint"
_NAME = re.compile(r"step-(\d{8})")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The state of a run after a step; all tensors whole and on the CPU.

    Attributes
    ----------
    step
        Optimiser steps taken.
    config
        The run's configuration, as plain data.
    model_config, model
        The model's configuration and weights.
    objective
        The objective's own weights.
    optimiser
        AdamW's state: ``exp_avg.NAME``, ``exp_avg_sq.NAME``, ``step.NAME`` by parameter.
    loader
        State of the loader of each process.
    random
        State of torch's random streams: ``cpu.RANK``, ``cuda.RANK``.
    validation_loss
        That of this step, or None where there was no validation.
    """

    step: int
    config: dict[str, Any]
    model_config: ModelConfig
    model: Mapping[str, Tensor]
    objective: Mapping[str, Tensor]
    optimiser: Mapping[str, Tensor]
    loader: Sequence[Any]
    random: Mapping[str, Tensor] = field(default_factory=dict)
    validation_loss: float | None = None


# -- the disk -----------------------------------------------------------------------------------


def checkpoint_name(step: int) -> str:
    return f"step-{step:08d}"


def write_checkpoint(checkpoint: Checkpoint, folder: Path) -> Path:
    """Write a checkpoint as ``folder/step-...``, whole or not at all; an earlier one of the same
    step is replaced.

    Raises
    ------
    SimCroPError
        ``save-failed``: what was there before is as it was.
    """
    target = folder / checkpoint_name(checkpoint.step)
    hidden = folder / f".{target.name}.{secrets.token_hex(4)}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            _fill(checkpoint, hidden)
            # In one step where the system can: a kill leaves the old one or the new one.
            if not (target.exists() and exchange(hidden, target)):
                if target.exists():
                    _remove(target)
                os.rename(hidden, target)
            _flush(folder)
        finally:
            shutil.rmtree(hidden, ignore_errors=True)
    except (OSError, SafetensorError) as e:
        raise SimCroPError(
            f"The checkpoint could not be saved: {getattr(e, 'strerror', None) or e}",
            code="save-failed",
            remedy="Check that the disk has room and that you may write there.",
            path=target,
        ) from e
    return target


def _fill(checkpoint: Checkpoint, hidden: Path) -> None:
    model = without_weights(checkpoint.model_config)
    model.load_state_dict(dict(checkpoint.model), strict=True, assign=True)
    save_model(model, hidden)
    for name in (_OBJECTIVE, _OPTIMISER, _RANDOM):
        tensors = {key: tensor.contiguous() for key, tensor in getattr(checkpoint, name).items()}
        save_file(tensors, hidden / f"{name}.safetensors")
        shutil.copymode(hidden / "config.json", hidden / f"{name}.safetensors")
    facts = {
        "step": checkpoint.step,
        "config": checkpoint.config,
        "loader": list(checkpoint.loader),
        "validation_loss": checkpoint.validation_loss,
    }
    (hidden / TRAINING_NAME).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    files = {}
    for path in sorted(hidden.iterdir()):
        _flush(path)
        files[path.name] = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
    manifest = {
        "format": _FORMAT,
        "schema": 1,
        "step": checkpoint.step,
        "validation_loss": checkpoint.validation_loss,
        "files": files,
    }
    path = hidden / MANIFEST_NAME
    path.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    _flush(path)
    _flush(hidden)


def read_checkpoint(folder: Path, *, text_encoder: str | None = None) -> tuple[Checkpoint, SimCroP]:
    """A checkpoint and its model, in evaluation mode.

    Raises
    ------
    SimCroPError
        ``damaged-checkpoint`` or what :func:`load_model` raises.
    """
    verify(folder)
    model = load_model(folder, text_encoder=text_encoder)
    try:
        facts = json.loads((folder / TRAINING_NAME).read_text(encoding="utf-8"))
        tensors = {
            name: load_file(folder / f"{name}.safetensors")
            for name in (_OBJECTIVE, _OPTIMISER, _RANDOM)
        }
        checkpoint = Checkpoint(
            step=facts["step"],
            config=facts["config"],
            model_config=model.config,
            model=model.state_dict(),
            loader=facts["loader"],
            validation_loss=facts["validation_loss"],
            **tensors,
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as e:
        raise _damaged(folder, "its files do not say what they must") from e
    return checkpoint, model


def run_of(folder: Path) -> Any:
    """The configuration, as plain data, of the run that a checkpoint is of.

    Raises
    ------
    SimCroPError
        ``damaged-checkpoint``.
    """
    try:
        return json.loads((folder / TRAINING_NAME).read_text(encoding="utf-8"))["config"]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise _damaged(folder, f"its {TRAINING_NAME} cannot be read") from e


def verify(folder: Path) -> dict[str, Any]:
    """Compare every file of a checkpoint with the manifest, which is returned.

    Raises
    ------
    SimCroPError
        ``damaged-checkpoint``.
    """
    manifest = read_manifest(folder)
    for name, stated in manifest["files"].items():
        path = folder / name
        try:
            whole = path.stat().st_size == stated["bytes"] and _sha256(path) == stated["sha256"]
        except (OSError, KeyError, TypeError) as e:
            raise _damaged(folder, f"{name} cannot be read") from e
        if not whole:
            raise _damaged(folder, f"{name} is not as it was saved")
    return manifest


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest alone; the files are not looked at."""
    try:
        manifest = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
        known = manifest["format"] == _FORMAT and isinstance(manifest["files"], dict)
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise _damaged(folder, f"its {MANIFEST_NAME} cannot be read") from e
    if not known:
        raise _damaged(folder, f"its {MANIFEST_NAME} is of another kind")
    return dict(manifest)


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))


def step_of(path: Path) -> int:
    """The step that a checkpoint's folder is named after."""
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1])


def prune(folder: Path, keep: int) -> list[tuple[Path, str]]:
    """Keep the newest checkpoints and the one of the least validation loss; remove the others.

    Returns
    -------
    list of path and sentence
        Checkpoints that are left where they are and not counted, since their manifest cannot be
        read or the system does not let them go, and why.
    """
    left: list[tuple[Path, str]] = []
    losses: dict[Path, float | None] = {}
    for path in checkpoints(folder):
        try:
            loss = read_manifest(path)["validation_loss"]
            losses[path] = None if loss is None else float(loss)
        except SimCroPError as e:
            left.append((path, e.problem))
        except (KeyError, TypeError, ValueError):
            left.append((path, f"The checkpoint's {MANIFEST_NAME} has no validation loss."))
    validated = {path: loss for path, loss in losses.items() if loss is not None}
    found = list(losses)
    kept = {*found[-keep:], *sorted(validated, key=lambda path: validated[path])[:1]}
    for path in found:
        if path in kept:
            continue
        try:
            _remove(path)
        except OSError as e:
            left.append((path, f"The checkpoint cannot be removed ({e.strerror})."))
    return left


def remove_leftovers(folder: Path) -> None:
    """Remove what killed saves left behind; nobody else may be saving there."""
    for path in folder.glob(".*"):
        shutil.rmtree(path, ignore_errors=True)


def _remove(path: Path) -> None:
    # Renamed first: half of a checkpoint must never carry a checkpoint's name.
    hidden = path.with_name(f".{path.name}.{secrets.token_hex(4)}.removed")
    os.rename(path, hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def _damaged(folder: Path, what: str) -> SimCroPError:
    return SimCroPError(
        f"The checkpoint is damaged: {what}",
        code="damaged-checkpoint",
        remedy="Resume from another checkpoint of the run.",
        path=folder,
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """Wait until a file or folder is on the disk itself."""
    if path.is_dir() and os.name == "nt":
        return  # folders cannot be opened there
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# -- from and to what trains --------------------------------------------------------------------


def whole(named: Iterable[tuple[str, Tensor]], *, keep: bool = True) -> dict[str, Tensor]:
    """Tensors on the CPU, those that the processes share out put together.

    All processes must ask for the same; who has nothing to do with them does not ``keep`` them.
    """
    found = {}
    for name, tensor in named:
        full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if keep:
            found[name] = full.detach().to("cpu", copy=True)
    return found


def whole_state(module: nn.Module, *, keep: bool = True) -> dict[str, Tensor]:
    """Weights and buffers by name, see :func:`whole`."""
    return whole(module.state_dict().items(), keep=keep)


def optimiser_state(
    module: nn.Module, optimiser: torch.optim.Optimizer, *, keep: bool = True
) -> dict[str, Tensor]:
    """The optimiser's state by kind and parameter, see :func:`whole`.

    A parameter that never had a gradient has no state, and gets none.
    """
    named = (
        (f"{kind}.{name}", value)
        for name, parameter in module.named_parameters()
        for kind, value in optimiser.state.get(parameter, {}).items()
    )
    return whole(named, keep=keep)


def restore_optimiser(
    module: nn.Module, optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> None:
    """Give an optimiser the state that :func:`optimiser_state` read."""
    parameters = dict(module.named_parameters())
    for key, value in tensors.items():
        kind, _, name = key.partition(".")
        parameter = parameters[name]
        state = optimiser.state.setdefault(parameter, {})
        state[kind] = value.to(parameter.device) if kind == "step" else _like(value, parameter)


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    value = value.to(parameter.device, copy=True)
    if isinstance(parameter, DTensor):
        return distribute_tensor(value, parameter.device_mesh, parameter.placements)
    return value


def random_state(device: torch.device, rank: int) -> dict[str, Tensor]:
    """The state of torch's random streams on this process."""
    state = {f"cpu.{rank}": torch.get_rng_state()}
    if device.type == "cuda":
        state[f"cuda.{rank}"] = torch.cuda.get_rng_state(device)
    return state


def restore_random(state: Mapping[str, Tensor], device: torch.device, rank: int) -> None:
    """Go on with the random streams of :func:`random_state`."""
    if f"cpu.{rank}" in state:
        torch.set_rng_state(state[f"cpu.{rank}"])
    if f"cuda.{rank}" in state and device.type == "cuda":
        torch.cuda.set_rng_state(state[f"cuda.{rank}"], device)
