"""A pre-trained model with a fresh decoder or head, ready to be fine-tuned."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from simcrop_core.model.config import ClassificationConfig, SegmentationConfig, model_config_from
from simcrop_core.model.presets import new_model
from simcrop_core.model.simcrop import SimCroP

#: Deviation of a linear head's first weights.
START_STD = 2e-5
#: What only pre-training needs, and heads that fit an encoder that is not changed.
_LEFT_OUT = ("image_decoder", "fusion", "text_decoder", "classification")


def with_segmentation(
    model: SimCroP,
    config: SegmentationConfig,
    *,
    spacing_mm: tuple[float, float, float],
    orientation: str,
    seed: int,
) -> SimCroP:
    """A copy of the model with fresh weights of this head, for scans at this spacing.

    Parts that only pre-training needs are left out, and so is a classification head.

    Parameters
    ----------
    model
        Stays as it is.
    config
        Of the head.
    spacing_mm, orientation
        How scans are resampled for it; the rest of the model's input stays.
    seed
        Of the head's weights.

    Raises
    ------
    SimCroPError
        ``bad-config``: this encoder cannot have that head.
    """
    settings = model.config.model_dump(mode="json")
    settings["segmentation"] = config.model_dump(mode="json")
    settings["input_spec"] |= {"spacing_mm": spacing_mm, "orientation": orientation}
    return _made(model, settings, "segmentation", seed)


def with_head(model: SimCroP, config: ClassificationConfig, *, seed: int) -> SimCroP:
    """A copy of the model with a linear head on the pooled features whose weights are near zero;
    parts that only pre-training needs are left out, and so is a segmentation head."""
    settings = model.config.model_dump(mode="json")
    settings["segmentation"] = None
    settings["classification"] = config.model_dump(mode="json")
    made = _made(model, settings, "classification", seed)
    assert made.classification is not None
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        nn.init.trunc_normal_(made.classification.weight, std=START_STD, generator=generator)
        nn.init.zeros_(made.classification.bias)
    return made


def _made(model: SimCroP, settings: dict[str, Any], part: str, seed: int) -> SimCroP:
    """A model of these settings with the model's weights, those of one part fresh."""
    left_out = {name: None for name in _LEFT_OUT if name != part}
    made = new_model(model_config_from(settings | left_out), seed)
    own = made.state_dict()
    kept = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if name in own and not name.startswith(f"{part}.")
    }
    fresh = {name: own[name] for name in own if name.startswith(f"{part}.")}
    made.load_state_dict(kept | fresh, strict=True)
    made.text_location = model.text_location
    made._text[:] = model._text
    return made
