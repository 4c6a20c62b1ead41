"""The model: encoders, decoders, segmentation head, and their life on disk.

Importing this package is cheap: torch is imported when something that needs it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOME = {
    "ClassificationConfig": "config",
    "with_classification": "classification",
    "FusionConfig": "config",
    "ImageDecoderConfig": "config",
    "ModelConfig": "config",
    "PresenceConfig": "config",
    "Provenance": "config",
    "SegmentationConfig": "config",
    "TextConfig": "config",
    "TextDecoderConfig": "config",
    "VisionConfig": "config",
    "model_info": "info",
    "ImageDecoder": "image_decoder",
    "VisionEncoder": "vision",
    "VisionFeatures": "vision",
    "patchify": "vision",
    "EncodedSentences": "text",
    "TextEncoder": "text",
    "TokenBatch": "text",
    "text_encoder_sources": "text_folder",
    "CrossGranularityFusion": "fusion",
    "TextDecoder": "fusion",
    "SegmentationNet": "segmentation",
    "SimCroP": "simcrop",
    "PRESETS": "presets",
    "create_model": "presets",
    "new_model": "presets",
    "load_model": "checkpoint",
    "save_model": "checkpoint",
    "resize_position_embedding": "simcrop",
    "ImportReport": "importer",
    "import_checkpoint": "importer",
}

__all__ = [
    "PRESETS",
    "ClassificationConfig",
    "CrossGranularityFusion",
    "EncodedSentences",
    "FusionConfig",
    "ImageDecoder",
    "ImageDecoderConfig",
    "ImportReport",
    "ModelConfig",
    "PresenceConfig",
    "Provenance",
    "SegmentationConfig",
    "SegmentationNet",
    "SimCroP",
    "TextConfig",
    "TextDecoder",
    "TextDecoderConfig",
    "TextEncoder",
    "TokenBatch",
    "VisionConfig",
    "VisionEncoder",
    "VisionFeatures",
    "create_model",
    "import_checkpoint",
    "load_model",
    "model_info",
    "new_model",
    "patchify",
    "resize_position_embedding",
    "save_model",
    "text_encoder_sources",
    "with_classification",
]

if TYPE_CHECKING:
    from simcrop_core.model.checkpoint import load_model, save_model
    from simcrop_core.model.classification import with_classification
    from simcrop_core.model.config import (
        ClassificationConfig,
        FusionConfig,
        ImageDecoderConfig,
        ModelConfig,
        PresenceConfig,
        Provenance,
        SegmentationConfig,
        TextConfig,
        TextDecoderConfig,
        VisionConfig,
    )
    from simcrop_core.model.fusion import CrossGranularityFusion, TextDecoder
    from simcrop_core.model.image_decoder import ImageDecoder
    from simcrop_core.model.importer import ImportReport, import_checkpoint
    from simcrop_core.model.info import model_info
    from simcrop_core.model.presets import PRESETS, create_model, new_model
    from simcrop_core.model.segmentation import SegmentationNet
    from simcrop_core.model.simcrop import SimCroP, resize_position_embedding
    from simcrop_core.model.text import EncodedSentences, TextEncoder, TokenBatch
    from simcrop_core.model.text_folder import text_encoder_sources
    from simcrop_core.model.vision import VisionEncoder, VisionFeatures, patchify


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
