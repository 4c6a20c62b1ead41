"""Fine-tuning for segmentation on the public tasks of the method."""

from __future__ import annotations

from simcrop_core.train.config import OptimConfig, RunSettings
from simcrop_core.train.finetuning import (
    SegmentationAugmentation,
    SegmentationDataConfig,
    SegmentationHeadConfig,
    SegmentationRunConfig,
)


def btcv() -> SegmentationRunConfig:
    """UNETR on the encoder, 13 organs of BTCV: mean Dice."""
    return _run("seg-btcv", SegmentationDataConfig(task="btcv"), 2000, 50, every=1200)


def luna16() -> SegmentationRunConfig:
    """UNETR on the encoder, lungs and trachea of LUNA16: mean Dice."""
    # The authors warm up for 50 epochs, which here is all of the run.
    return _run("seg-luna16", SegmentationDataConfig(task="luna16"), 50, 5, every=3100)


def luna16_10() -> SegmentationRunConfig:
    """UNETR on the encoder, LUNA16 with 10 % of the training scans: mean Dice."""
    data = SegmentationDataConfig(task="luna16", fraction=0.1)
    return _run("seg-luna16-10", data, 400, 50, every=1240)


def btcv_unet() -> SegmentationRunConfig:
    """A residual U-Net that takes the encoder's features in, on BTCV, stronger augmentation."""
    return _unet("seg-btcv-unet", SegmentationDataConfig(task="btcv"), 2000, 50, every=1200)


def luna16_unet() -> SegmentationRunConfig:
    """A residual U-Net that takes the encoder's features in, on LUNA16, stronger augmentation."""
    return _unet("seg-luna16-unet", SegmentationDataConfig(task="luna16"), 50, 5, every=3100)


def _run(
    name: str, data: SegmentationDataConfig, epochs: float, warmup: float, every: int
) -> SegmentationRunConfig:
    return SegmentationRunConfig(
        name=name,
        data=data,
        optim=OptimConfig(lr=1e-4, weight_decay=1e-5, beta2=0.999, warmup=warmup),
        run=RunSettings(
            epochs=epochs,
            batch_size=16,
            validate_every=every,
            checkpoint_every=every,
            previews=0,
            keep=1,
        ),
    )


def _unet(
    name: str,
    data: SegmentationDataConfig,
    epochs: float,
    warmup: float,
    every: int,
) -> SegmentationRunConfig:
    config = _run(name, data, epochs, warmup, every)
    more = {
        "head": SegmentationHeadConfig(kind="unet", feature_width=32),
        "augmentation": SegmentationAugmentation(
            rotation_degrees=15, zoom=0.2, noise=0.1, scale=0.2, scale_chance=0.2, shift_chance=0.2
        ),
        "optim": config.optim.model_copy(update={"clip_norm": 12.0}),
    }
    return config.model_copy(update=more)
