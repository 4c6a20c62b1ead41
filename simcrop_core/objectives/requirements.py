"""What an objective asks of a model, checked before training starts."""

from __future__ import annotations

import math

from torch import nn

from simcrop_core.errors import SimCroPError
from simcrop_core.model.simcrop import SimCroP
from simcrop_core.objectives.config_parts import MaskedImageFields

#: Names of the encoder's parameters that every objective trains, and of those that make the space
#: in which sentences and patches are compared.
VISION_TRUNK = ("vision.patch_embed.", "vision.cls_token", "vision.blocks.")
JOINT_SPACE = ("vision_projection.", "projection_norm.", "text_projection.")

_PARTS = {
    "image_decoder": "a decoder of masked patches",
    "text_decoder": "a decoder of masked reports",
    "fusion": "a fusion of volume and report",
}


def require_parts(model: SimCroP, objective: str, *names: str) -> None:
    """Refuse a model that lacks one of the named parts."""
    for name in names:
        if getattr(model, name) is None:
            raise SimCroPError(
                f"The objective {objective} needs {_PARTS[name]}, and the model "
                f"{model.config.name!r} has none",
                code="model-lacks-part",
                remedy=f"Give the model its {name}, as the presets have for training.",
            )


def require_cls_token(model: SimCroP, objective: str) -> None:
    """Refuse a model whose encoder has no CLS token."""
    if not model.config.vision.cls_token:
        raise SimCroPError(
            f"The objective {objective} reads the CLS token, and the encoder of the model "
            f"{model.config.name!r} has none",
            code="model-lacks-part",
            remedy="Set the model's vision.cls_token to true, or choose the objective ct_clip.",
        )


def require_text_projection(model: SimCroP, objective: str) -> None:
    """Refuse a model that takes the frozen encoder's vectors as they are."""
    if isinstance(model.text_projection, nn.Identity):
        raise SimCroPError(
            f"The objective {objective} contrasts volumes with reports in a space that is learned, "
            f"and the model {model.config.name!r} takes the frozen report vectors as they are",
            code="model-lacks-part",
            remedy="Set the model's projection_width, for example to 512.",
        )


def require_words(model: SimCroP, objective: str) -> None:
    """Refuse a report decoder that cannot choose among all words of the text encoder."""
    assert model.config.text_decoder is not None
    chosen, known = model.config.text_decoder.vocabulary_size, model.text.vocabulary_size
    if chosen < known:
        raise SimCroPError(
            f"The objective {objective} predicts words of the text encoder, which has {known}, "
            f"and the model's text decoder chooses among {chosen}",
            code="vocabulary-mismatch",
            remedy=f"Set the model's text_decoder.vocabulary_size to {known}.",
        )


def require_maskable(model: SimCroP, objective: str, config: MaskedImageFields) -> None:
    """Refuse a model whose patches cannot be masked, or cannot be normalised."""
    spec = model.config.input_spec
    if spec.patches < 2:
        raise SimCroPError(
            f"The objective {objective} hides some patches of a volume and shows others, and the "
            "model's input has only one",
            code="too-few-patches",
            remedy="Use a larger input or smaller patches.",
        )
    if config.normalize_patches and math.prod(spec.patch_shape) < 2:
        raise SimCroPError(
            f"The objective {objective} cannot normalise patches of a single voxel",
            code="patch-too-small",
            remedy="Set normalize_patches to false, or use larger patches.",
        )
