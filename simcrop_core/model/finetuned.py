"""A pre-trained model with a fresh segmentation decoder, ready to be fine-tuned."""

from __future__ import annotations

from simcrop_core.model.config import SegmentationConfig, model_config_from
from simcrop_core.model.presets import new_model
from simcrop_core.model.simcrop import SimCroP

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
    settings |= dict.fromkeys(_LEFT_OUT)
    settings["segmentation"] = config.model_dump(mode="json")
    settings["input_spec"] |= {"spacing_mm": spacing_mm, "orientation": orientation}
    made = new_model(model_config_from(settings), seed)
    own = made.state_dict()
    kept = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if name in own and not name.startswith("segmentation.")
    }
    fresh = {name: own[name] for name in own if name.startswith("segmentation.")}
    made.load_state_dict(kept | fresh, strict=True)
    made.text_location = model.text_location
    made._text[:] = model._text
    return made
