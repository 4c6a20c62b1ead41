"""Which device computes, and how precisely."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn

from simcrop_core.errors import SimCroPError

Precision = Literal["auto", "fp32", "bf16"]
Progress = Callable[[str, int, int], None]  # what is being done, steps done, steps in all


def silent(what: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode, and afterwards in the mode that it was in."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def resolve_precision(device: torch.device, precision: Precision = "auto") -> str:
    """``"fp32"`` or ``"bf16"``; ``"auto"`` is bf16 on a GPU that has it, else fp32.

    On a CPU ``"auto"`` is always fp32, so that every machine gives the same figures; ``"bf16"``
    is faster on CPUs with bf16 matrix units.

    Raises
    ------
    SimCroPError
        The precision is unknown.
    """
    if precision not in ("auto", "fp32", "bf16"):
        raise SimCroPError(
            f"There is no precision {precision!r}.",
            code="unknown-precision",
            remedy="Use auto, fp32 or bf16.",
        )
    if precision != "auto":
        return precision
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"


def autocast(device: torch.device, precision: Precision = "auto") -> torch.autocast:
    """The context in which to compute, see `resolve_precision`."""
    wanted = resolve_precision(device, precision) == "bf16"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=wanted)


def select_device(name: str = "auto") -> torch.device:
    """``"auto"`` (the first CUDA GPU, else the CPU), ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.

    Raises
    ------
    SimCroPError
        The name is unknown, or there is no such GPU.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    kind, _, number = name.partition(":")
    if kind != "cuda" or not (number.isdigit() or name == "cuda"):
        raise SimCroPError(
            f"There is no device {name!r}.",
            code="unknown-device",
            remedy="Use auto, cpu, or cuda:0, cuda:1 and so on.",
        )
    index = int(number or 0)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if index >= count:
        found = "no GPU was found" if count == 0 else f"only {count} GPU(s) were found"
        raise SimCroPError(
            f"The device {name} was asked for, but {found}.",
            code="no-such-device",
            remedy="Use --device auto or cpu; simcrop doctor shows what torch sees.",
        )
    return torch.device("cuda", index)
