"""Models to disk and back: written whole or not at all, loaded exactly or refused.

Third-party exceptions about files are turned into :class:`SimCroPError` here.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from simcrop_core.errors import SimCroPError
from simcrop_core.model.model_folder import (
    CARD_NAME,
    CONFIG_NAME,
    WEIGHTS_NAME,
    StoredModel,
    locate_model,
    previous_of,
    read_stored_model,
)
from simcrop_core.model.simcrop import SimCroP, model_id, weights_digest, without_weights
from simcrop_core.model.weights_file import read_header
from simcrop_core.outputs import exchange

_SHOWN = 5  # names listed in a message before "and N more"


# -- saving -------------------------------------------------------------------------------------


def save_model(
    model: SimCroP,
    folder: str | PathLike[str],
    *,
    overwrite: bool = False,
    half: bool = False,
) -> Path:
    """Save a model as a folder, whole or not at all.

    It is written into a hidden folder beside the target, flushed to the disk and renamed. A model
    that is replaced is swapped in one step, so that a kill leaves either the old or the new one.
    The text encoder is not copied: the configuration says where it is and what its digest is.

    Parameters
    ----------
    model
        Stays as it is.
    folder
        Where to.
    overwrite
        Replace a model that is there; never another folder.
    half
        Round weights to half precision (float16), for a file of half the size. What is loaded is
        then another model, with an id of its own.

    Raises
    ------
    SimCroPError
        Something is there already, the disk is full or not writable, or a weight is beyond the
        range of half precision.
    """
    target = Path(folder).expanduser().absolute()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _restore_previous(target)
        _refuse_existing(target, overwrite)
        _remove_stale(target)
        hidden = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
        hidden.mkdir()
        try:
            _write(model, hidden, half)
            _put_in_place(hidden, target)
        finally:
            shutil.rmtree(hidden, ignore_errors=True)
    except (OSError, SafetensorError) as e:
        raise SimCroPError(
            f"The model could not be saved: {getattr(e, 'strerror', None) or e}",
            code="save-failed",
            remedy="Check that the disk has room and that you may write there.",
            path=target,
        ) from e
    return target


def _write(model: SimCroP, folder: Path, half: bool) -> None:
    state = {
        name: tensor.detach().to("cpu", torch.float32).contiguous()
        for name, tensor in sorted(model.state_dict().items())
    }
    kept = {name: _rounded(name, tensor) for name, tensor in state.items()} if half else state
    digest = weights_digest([(name, tensor.float()) for name, tensor in kept.items()])
    stored = StoredModel(folder, model.config, digest, model_id(model.config, digest))
    save_file(kept, folder / WEIGHTS_NAME, metadata={"format": "pt"})
    text = json.dumps(stored.to_dict(), indent=2, ensure_ascii=False) + "\n"
    (folder / CONFIG_NAME).write_text(text, encoding="utf-8")
    # safetensors writes for its owner alone; others may read a model as the umask says.
    shutil.copymode(folder / CONFIG_NAME, folder / WEIGHTS_NAME)
    for name in (WEIGHTS_NAME, CONFIG_NAME):
        _flush(folder / name)
    _flush(folder)


def _rounded(name: str, tensor: Tensor) -> Tensor:
    half = tensor.half()
    if half.isfinite().all():
        return half
    raise SimCroPError(
        f"The weights {name} are beyond the range of half precision",
        code="beyond-half",
        remedy="Save the model in full precision.",
    )


def _flush(path: Path) -> None:
    """Wait until a file or folder is on the disk itself."""
    if path.is_dir() and os.name == "nt":
        return  # folders cannot be opened there; the rename itself is journalled
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refuse_existing(target: Path, overwrite: bool) -> None:
    if not target.exists() and not target.is_symlink():
        return
    names = {entry.name for entry in target.iterdir()} if target.is_dir() else {target.name}
    if not names:
        return
    if not overwrite:
        raise SimCroPError(
            "There is something here already",
            code="exists",
            remedy="Choose another folder, or allow it to be overwritten.",
            path=target,
        )
    if target.is_symlink() or not names <= {CONFIG_NAME, WEIGHTS_NAME, CARD_NAME}:
        raise SimCroPError(
            "This is not a model folder, so it is not overwritten",
            code="not-a-model",
            remedy="Choose another folder.",
            path=target,
        )


def _put_in_place(hidden: Path, target: Path) -> None:
    if not target.exists() or not any(target.iterdir()):
        if os.name == "nt" and target.exists():
            target.rmdir()
        os.rename(hidden, target)
        _flush(target.parent)
        return
    if not exchange(hidden, target):
        # No swap in one step here: for a moment only the hidden name of the old model exists,
        # and that is where loading looks next.
        os.rename(target, previous_of(target))
        _flush(target.parent)
        try:
            os.rename(hidden, target)
        except OSError:
            os.rename(previous_of(target), target)
            raise
    _flush(target.parent)
    shutil.rmtree(previous_of(target), ignore_errors=True)


def _restore_previous(target: Path) -> None:
    """Finish or undo a replacement that was stopped half-way."""
    previous = previous_of(target)
    if not previous.is_dir():
        return
    if target.exists():
        shutil.rmtree(previous, ignore_errors=True)
    else:
        os.rename(previous, target)


def _remove_stale(target: Path) -> None:
    """Remove what killed saves of this model left behind more than a day ago."""
    for left in target.parent.glob(f".{target.name}.????????.partial"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > 86_400:
                shutil.rmtree(left, ignore_errors=True)


# -- loading ------------------------------------------------------------------------------------


def load_model(
    name_or_dir: str | PathLike[str],
    *,
    device: str | torch.device = "cpu",
    text_encoder: str | None = None,
) -> SimCroP:
    """Load a model, in evaluation mode.

    Parameters
    ----------
    name_or_dir
        Its folder, or its name in ``SIMCROP_MODELS`` or ``~/.simcrop/models``, or of one that
        comes with the software.
    device
        Where to put it.
    text_encoder
        Where its text encoder is, if not where the model says. It is loaded when first used and
        must be the same encoder.

    Raises
    ------
    SimCroPError
        There is no model, its files are damaged, names or shapes of weights do not fit its
        configuration (they are listed), or weights or settings are not those that were saved.
    """
    stored = read_stored_model(locate_model(name_or_dir))
    path = stored.folder / WEIGHTS_NAME
    header = read_header(path)
    model = without_weights(stored.config, text_location=text_encoder)
    found = {name: tensor.shape for name, tensor in header.items()}
    _refuse_misfits(model, found, path)
    if {tensor.dtype for tensor in header.values()} not in ({"F32"}, {"F16"}):
        raise _altered(path)
    try:
        # Mapped, not read: pages come from the disk's cache when they are first used.
        tensors = {name: tensor.float() for name, tensor in load_file(path).items()}
    except (SafetensorError, OSError, ValueError, RuntimeError) as e:
        raise _altered(path) from e
    fill(model, tensors)
    digest = model.weights_sha256()
    if digest != stored.weights_sha256:
        raise _altered(path)
    if model_id(stored.config, digest) != stored.model_id:
        raise SimCroPError(
            "The model's settings are not those it was saved with",
            code="altered-config",
            remedy="Get the model again; to change a setting, make and save a new model.",
            path=stored.folder / CONFIG_NAME,
        )
    try:
        return model.eval().to(device)
    except (RuntimeError, AssertionError) as e:
        raise SimCroPError(
            f"The model could not be put on device {str(device)!r}",
            code="no-device",
            remedy="Use the device cpu.",
            path=stored.folder,
        ) from e


def fill(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a model that was built without weights its own; names and shapes have been checked."""
    model.load_state_dict(dict(tensors), strict=True, assign=True)


def expected_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Name and shape of everything that is saved of a model."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def misfits(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> str:
    """Missing, unexpected and mis-shaped names in words; empty where all fits."""
    kinds = {
        "missing": [name for name in expected if name not in found],
        "unexpected": [name for name in found if name not in expected],
        "of another shape": [
            f"{name} {found[name]} instead of {shape}"
            for name, shape in expected.items()
            if name in found and tuple(found[name]) != shape
        ],
    }
    return "; ".join(
        f"{len(names)} {kind}: {', '.join(names[:_SHOWN])}"
        + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
        for kind, names in kinds.items()
        if names
    )


def _refuse_misfits(model: SimCroP, found: Mapping[str, tuple[int, ...]], path: Path) -> None:
    faults = misfits(expected_shapes(model), found)
    if faults:
        raise SimCroPError(
            f"The weights do not fit the model's configuration ({faults})",
            code="weights-mismatch",
            remedy="Get the model again, or import the checkpoint anew.",
            path=path,
        )


def _altered(path: Path) -> SimCroPError:
    return SimCroPError(
        "The weights are damaged or are not those that were saved with this model",
        code="damaged-weights",
        remedy="Get the model again from its source, or save it again.",
        path=path,
    )
