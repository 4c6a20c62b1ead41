"""In which arithmetic the encoder runs."""

from __future__ import annotations

from typing import Literal

import torch

Precision = Literal["fp32", "bf16"]


def encode_precision(device: torch.device | str) -> Precision:
    """The arithmetic in which encoding is fast and safe on a device.

    bf16 on GPUs that support it and on CPUs with matrix units for it (AMX); fp32 elsewhere: a
    CPU without these units gains little or nothing from bf16.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    if kind == "cpu" and _cpu_has_bf16_matrix_units():
        return "bf16"
    return "fp32"


def _cpu_has_bf16_matrix_units() -> bool:
    # torch asks the processor, and the operating system for leave to use its tiles.
    supported = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(supported()) if supported is not None else False
