"""AdamW over all that is trained, without decay of 1-D tensors."""

from __future__ import annotations

import torch
from torch import nn

from simcrop_core.train.config import OptimConfig


def make_optimiser(module: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW in two groups, as MAE, MRM and ECAMP have them: tensors of two dimensions and more
    decay; biases, norms, temperatures and other tensors of one or none do not. Fused where the
    device has it."""
    trained = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        fused=all(p.device.type in ("cuda", "cpu") for p in trained),
    )
