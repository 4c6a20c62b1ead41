"""The starter model: grounding and segmentation together, on a convolutional pyramid."""

from __future__ import annotations

from typing import Any

from simcrop_core.objectives.grounded_config import GroundedConfig
from simcrop_core.phantoms.truth_classes import CLASSES
from simcrop_core.store.settings import AugmentationConfig
from simcrop_core.train.config import DataConfig, ModelSource, OptimConfig, RunConfig, RunSettings

_OBJECTIVE = GroundedConfig(mask_ratio=0, image_weight=0, cell_weight=1.0, segmentation_weight=1.0)
# Noise and blur come with the phantoms; to add more costs a CPU a third of a step.
_AUGMENTATION = AugmentationConfig(shift_hu=30, scale=0.05, probability=0.5)


def starter() -> RunConfig:
    """The starter model: regions, contrast, presence and segmentation on phantoms; CPU hours."""
    return RunConfig(
        name="starter",
        data=DataConfig(phantoms=3000, held_out=48, workers=2, augmentation=_AUGMENTATION),
        model=_model(
            # Half the voxels across the body that the paper's input has, on the same 14 x 14 x 14
            # patches of 24 mm: what a CPU can train on and encode while one waits.
            input_spec={
                "shape": (112, 112, 112),
                "spacing_mm": (3.0, 3.0, 3.0),
                "patch_shape": (8, 8, 8),
            },
        ),
        objective=_OBJECTIVE,
        optim=OptimConfig(lr=1e-3, warmup=100, clip_norm=1.0),
        run=RunSettings(
            steps=2000,
            batch_size=8,
            precision="bf16",
            checkpoint_every=50,
            validate_every=500,
            previews=4,
        ),
    )


def starter_tiny() -> RunConfig:
    """The starter model on coarse phantoms, narrow: does it learn? Minutes of a CPU."""
    return RunConfig(
        name="starter-tiny",
        data=DataConfig(phantoms=24, held_out=8, workers=1),
        model=_model(
            input_spec={
                "shape": (48, 40, 32),
                "spacing_mm": (8.0, 8.0, 10.0),
                "patch_shape": (8, 8, 4),
            },
            vision={"depth": 2, "width": 96, "heads": 4, "stem_width": 8, "stem_blocks": (1, 1, 1)},
            projection_width=64,
        ),
        objective=_OBJECTIVE,
        optim=OptimConfig(lr=1e-3, warmup=5, clip_norm=1.0),
        run=RunSettings(steps=40, batch_size=4, checkpoint_every=20, validate_every=20, previews=2),
    )


def _model(**changes: Any) -> ModelSource:
    return ModelSource.model_validate(
        {"preset": "pyramid", "segmentation_labels": CLASSES, **changes}
    )
