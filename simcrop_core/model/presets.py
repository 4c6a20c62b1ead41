"""Models by name: ``paper``, ``released``, ``starter``, ``grounded`` and ``pyramid``."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any, Literal

import torch
from pydantic import ValidationError

from simcrop_core.errors import SimCroPError
from simcrop_core.input_spec import InputSpec
from simcrop_core.model.config import (
    CXR_BERT,
    MINILM,
    FusionConfig,
    ImageDecoderConfig,
    ModelConfig,
    PresenceConfig,
    Provenance,
    SegmentationConfig,
    TextDecoderConfig,
    VisionConfig,
    bad_config,
)
from simcrop_core.model.simcrop import SimCroP
from simcrop_core.model.text import text_config_for

# Each preset: vision encoder, text encoder, and the decoders that pre-training adds.
PRESETS: MappingProxyType[str, dict[str, Any]] = MappingProxyType(
    {
        "paper": {
            "vision": VisionConfig(depth=8, width=768, heads=12),
            "text": CXR_BERT,
            "image_decoder": ImageDecoderConfig(),
            "fusion": FusionConfig(),
            "text_decoder": TextDecoderConfig(),
        },
        "released": {
            "vision": VisionConfig(depth=12, width=768, heads=12, position="official2axis"),
            "text": CXR_BERT,
            "image_decoder": ImageDecoderConfig(position="official2axis"),
            "fusion": FusionConfig(),
            "text_decoder": TextDecoderConfig(),
        },
        # As wide as MiniLM's vectors, so that sentences need no projection.
        "starter": {
            "vision": VisionConfig(depth=6, width=384, heads=6),
            "text": MINILM,
            "image_decoder": ImageDecoderConfig(depth=2, width=192, heads=6),
            "fusion": FusionConfig(heads=6),
            "text_decoder": TextDecoderConfig(depth=2, width=384, heads=6, hidden_width=1536),
        },
        # For the objective of the same name: all that helps sentences to find their place, and
        # nothing of what reads masked reports.
        "grounded": {
            "vision": VisionConfig(depth=6, width=384, heads=6, stem="conv", cells=(2, 2, 2)),
            "text": MINILM,
            "projection_width": 128,
            "projection_norm": True,
            "text_centred": True,
            "presence": PresenceConfig(),
            "image_decoder": ImageDecoderConfig(depth=2, width=192, heads=6),
        },
        # The same on a convolutional pyramid: for small lesions, segmentation and speed on a CPU.
        "pyramid": {
            "vision": VisionConfig(
                depth=2, width=256, heads=4, stem="pyramid", stem_width=32, cells=(2, 2, 2)
            ),
            "text": MINILM,
            "projection_width": 128,
            "projection_norm": True,
            "text_centred": True,
            "presence": PresenceConfig(),
        },
    }
)


def create_model(
    preset: str,
    *,
    text_encoder: str | None = None,
    segmentation_labels: Sequence[str] | None = None,
    seed: int = 0,
    for_training: bool = False,
    input_spec: InputSpec | None = None,
    sentence_vector: Literal["cls", "mean"] | None = None,
    **overrides: Any,
) -> SimCroP:
    """A new, untrained model.

    Parameters
    ----------
    preset
        ``"paper"`` (8 layers), ``"released"`` (12), ``"starter"`` (small, for a CPU),
        ``"grounded"`` (small, with a convolutional stem, a finer level and presence) or
        ``"pyramid"`` (the same on a convolutional pyramid).
    text_encoder
        ``"minilm"``, a folder, or a hub id in the person's cache, in place of the preset's.
    segmentation_labels
        Names of the labels of a segmentation head; None gives none.
    seed
        The same seed gives the same weights.
    for_training
        Whether the decoders of pre-training are part of the model. Without them its folder
        holds only what inference needs.
    input_spec
        How scans are prepared; the paper's by default.
    sentence_vector
        How a sentence becomes one vector; by default MiniLM's mean, others' first token.
    overrides
        Further fields of :class:`ModelConfig` in place of the preset's.

    Raises
    ------
    SimCroPError
        No such preset, a text encoder that is missing, or settings that do not go together.
    """
    if preset not in PRESETS:
        raise SimCroPError(
            f"There is no preset {preset!r}",
            code="no-such-preset",
            remedy=f"Choose one of {', '.join(PRESETS)}.",
        )
    if isinstance(segmentation_labels, str):
        raise TypeError("segmentation_labels is a sequence of names, not one string.")
    parts = dict(PRESETS[preset])
    encoder = None
    if "text" not in overrides:
        parts["text"], encoder = text_config_for(text_encoder or parts["text"], sentence_vector)
    if not for_training:
        for name in ("image_decoder", "fusion", "text_decoder"):
            parts.pop(name, None)
    elif encoder is not None and "text_decoder" in parts:
        decoder = parts["text_decoder"]
        parts["text_decoder"] = decoder.model_copy(
            update={"vocabulary_size": encoder.vocabulary_size}
        )
    try:
        if segmentation_labels is not None:
            vision = parts["vision"]
            parts["segmentation"] = SegmentationConfig(
                kind="pyramid" if vision.stem == "pyramid" else "unetr",
                labels=tuple(segmentation_labels),
            )
        parts |= {
            "name": preset,
            "input_spec": input_spec or InputSpec(),
            "provenance": Provenance(source=f"preset {preset}, seed {seed}"),
        }
        config = ModelConfig(**(parts | overrides))
    except ValidationError as e:
        raise bad_config(e) from e
    model = new_model(config, seed)
    if encoder is not None:
        model.use_text_encoder(encoder)
    return model


def new_model(config: ModelConfig, seed: int = 0) -> SimCroP:
    """A model with fresh weights for a configuration, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):  # making layers draws numbers; the caller's stay his
        model = SimCroP(config)
    model.initialise(seed)
    return model.eval()
