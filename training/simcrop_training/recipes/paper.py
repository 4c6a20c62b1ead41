"""Runs at the paper's scale, on a store of CT-RATE that ``simcrop-train prepare`` made.

Name the store with ``--set data.store=DIR``.
"""

from __future__ import annotations

from typing import Any

from simcrop_core.objectives.config import ObjectiveConfig, SimCroPConfig
from simcrop_core.train.config import DataConfig, ModelSource, OptimConfig, RunConfig, RunSettings


def simcrop_paper() -> RunConfig:
    """SimCroP as its paper says: 8-layer ViT-B, CT-RATE, 140 epochs, batch 48; set data.store."""
    return at_paper_scale("simcrop-paper", SimCroPConfig(), preset="paper")


def simcrop_released() -> RunConfig:
    """SimCroP with the encoder of the released weights: 12 layers, 2-axis positions; data.store."""
    return at_paper_scale("simcrop-released", SimCroPConfig(), preset="released")


def simcrop_large() -> RunConfig:
    """SimCroP with a ViT-L encoder, shared out over 8 devices (FSDP2); set data.store."""
    config = at_paper_scale(
        "simcrop-large",
        SimCroPConfig(),
        preset="paper",
        vision={"depth": 24, "width": 1024, "heads": 16},
    )
    return config.model_copy(update={"run": config.run.model_copy(update={"devices": 8})})


def at_paper_scale(name: str, objective: ObjectiveConfig, **model: Any) -> RunConfig:
    """Any objective with the paper's data, schedule and batch; ``model`` is the model."""
    return RunConfig(
        name=name,
        data=DataConfig(store="ct-rate", held_out=480, workers=16),
        model=ModelSource.model_validate(model),
        objective=objective,
        optim=OptimConfig(),
        run=RunSettings(
            epochs=140,
            batch_size=48,
            checkpoint_every=1000,
            validate_every=1000,
            previews=4,
            compile=True,
        ),
    )
