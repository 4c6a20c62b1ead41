"""Runs on phantoms, which need no data: from a test of a minute to a training of hours."""

from __future__ import annotations

from typing import Any

from simcrop_core.objectives.config import ObjectiveConfig, SimCroPConfig
from simcrop_core.train.config import DataConfig, ModelSource, OptimConfig, RunConfig, RunSettings

# A wide chest in few voxels, for a CPU: 8 x 6 x 6 patches of 48 mm; a tenth of those that are
# visible is 7.
_TINY_INPUT = {"shape": (96, 72, 48), "spacing_mm": (4.0, 4.0, 6.0), "patch_shape": (12, 12, 8)}
# Half the paper's resolution, and patches of the paper's 24 mm: 14 x 14 x 14 of them.
_SMALL_INPUT = {"shape": (112, 112, 56), "spacing_mm": (3.0, 3.0, 6.0), "patch_shape": (8, 8, 4)}


def smoke() -> RunConfig:
    """Forty steps on phantoms within a minute of two CPU cores: does everything work here?"""
    return RunConfig(
        name="smoke",
        data=DataConfig(phantoms=12, held_out=4, workers=1),
        model=ModelSource.model_validate(
            {
                "preset": "starter",
                "input_spec": {
                    "shape": (48, 40, 32),
                    "spacing_mm": (8.0, 8.0, 10.0),
                    "patch_shape": (8, 8, 4),
                },
                "text": {"max_tokens": 96},
                "vision": {"depth": 2, "width": 96, "heads": 4},
                "image_decoder": {"depth": 1, "width": 48, "heads": 4},
                "fusion": {"heads": 4},
                "text_decoder": {"depth": 1, "width": 48, "heads": 4, "hidden_width": 96},
            }
        ),
        objective=SimCroPConfig(top_k=8),
        optim=OptimConfig(lr=1e-3, warmup=5, clip_norm=1.0),
        run=RunSettings(
            steps=40, batch_size=4, checkpoint_every=5, validate_every=20, keep=3, previews=2
        ),
    )


def phantom_tiny() -> RunConfig:
    """SimCroP on coarse phantoms with a tiny model: for an hour of a CPU."""
    return on_tiny_phantoms("phantom-tiny", SimCroPConfig(top_k=7))


def phantom_small() -> RunConfig:
    """SimCroP on phantoms at half the paper's resolution, starter model: for hours of a GPU."""
    return on_small_phantoms("phantom-small", SimCroPConfig())


def on_tiny_phantoms(name: str, objective: ObjectiveConfig, **model: Any) -> RunConfig:
    """Any objective as in ``phantom-tiny``; ``model`` changes the model."""
    return RunConfig(
        name=name,
        data=DataConfig(phantoms=2600, held_out=200, workers=2),
        model=ModelSource.model_validate(
            {
                "preset": "starter",
                "input_spec": _TINY_INPUT,
                "text": {"max_tokens": 256},  # as MiniLM was trained; most of a CPU's time is here
                "vision": {"depth": 3, "width": 192, "heads": 6},
                "image_decoder": {"depth": 1, "width": 96, "heads": 4},
                "fusion": {"heads": 4},
                "text_decoder": {"depth": 1, "width": 96, "heads": 4, "hidden_width": 384},
                "projection_width": 128,
                **model,
            }
        ),
        objective=objective,
        optim=OptimConfig(lr=5e-4, warmup=150, clip_norm=1.0),
        run=RunSettings(
            steps=3000, batch_size=16, checkpoint_every=500, validate_every=500, previews=4
        ),
    )


def on_small_phantoms(name: str, objective: ObjectiveConfig, **model: Any) -> RunConfig:
    """Any objective as in ``phantom-small``; ``model`` changes the model."""
    return RunConfig(
        name=name,
        data=DataConfig(phantoms=5200, held_out=208, workers=8),
        model=ModelSource.model_validate(
            {"preset": "starter", "input_spec": _SMALL_INPUT, **model}
        ),
        objective=objective,
        optim=OptimConfig(lr=3e-4, warmup=1000, clip_norm=1.0),
        run=RunSettings(
            steps=20_000,
            batch_size=48,
            checkpoint_every=1000,
            validate_every=1000,
            previews=4,
            compile=True,
        ),
    )
