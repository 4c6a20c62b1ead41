"""What a model is made of, as frozen configurations; imports no torch.

Configurations live apart from the networks they describe (the parts in ``config_parts.py``), so
that a model folder can be read and checked (``simcrop models info``) without loading torch. Unknown
keys are refused, and combinations that make no sense are refused in full sentences.
"""

from __future__ import annotations

import hashlib
import json
from os import PathLike
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from simcrop_core.errors import SimCroPError
from simcrop_core.frozen import Frozen
from simcrop_core.input_spec import InputSpec
from simcrop_core.model.config_parts import CXR_BERT as CXR_BERT
from simcrop_core.model.config_parts import MINILM as MINILM
from simcrop_core.model.config_parts import UNTRAINED as UNTRAINED
from simcrop_core.model.config_parts import ClassificationConfig as ClassificationConfig
from simcrop_core.model.config_parts import FormulaPosition as FormulaPosition
from simcrop_core.model.config_parts import FusionConfig as FusionConfig
from simcrop_core.model.config_parts import ImageDecoderConfig as ImageDecoderConfig
from simcrop_core.model.config_parts import PositionKind as PositionKind
from simcrop_core.model.config_parts import PresenceConfig as PresenceConfig
from simcrop_core.model.config_parts import Provenance as Provenance
from simcrop_core.model.config_parts import SegmentationConfig as SegmentationConfig
from simcrop_core.model.config_parts import TextConfig as TextConfig
from simcrop_core.model.config_parts import TextDecoderConfig as TextDecoderConfig
from simcrop_core.model.config_parts import VisionConfig as VisionConfig
from simcrop_core.model.config_parts import heads_divide

SCHEMA_VERSION = 1

# Fields that came after the first models were saved, with what those models do. While a model
# keeps to that, they have no part in its identity, so that it stays what it was.
_LATER: dict[str, dict[str, Any]] = {
    "vision": {
        "stem": "linear",
        "stem_width": 24,
        "stem_blocks": [1, 2, 2],
        "cells": None,
        "cell_width": 64,
    },
    "segmentation": {"kind": "unetr", "foreground": False},
    "": {
        "projection_norm": False,
        "text_centred": False,
        "cell_sharpness": 20.0,
        "presence": None,
        "classification": None,
    },
}


class ModelConfig(Frozen):
    """Everything that makes a SimCroP model except its weights; saved with every model."""

    schema_version: Literal[1] = Field(default=1, description="Version of this layout.")
    name: str = Field(min_length=1, max_length=200, description="What people call the model.")
    input_spec: InputSpec = Field(description="How a scan is prepared for the model.")
    vision: VisionConfig = Field(default=VisionConfig(), description="Vision encoder.")
    text: TextConfig = Field(default=TextConfig(), description="Frozen text encoder.")
    projection_width: int | None = Field(
        default=None,
        ge=1,
        le=8192,
        description="None: sentence vectors meet patch vectors as they are where widths agree, "
        "else through a linear layer text -> vision. A number: both are projected to a joint "
        "space of this width (128 in related work).",
    )
    similarity: Literal["cosine", "raw"] = Field(
        default="cosine", description="cosine: vectors are L2-normalised; raw: dot product (Eq. 2)."
    )
    projection_norm: bool = Field(
        default=False, description="Whether a LayerNorm comes before the patches' projection."
    )
    text_centred: bool = Field(
        default=False,
        description="Whether a mean sentence vector, saved with the weights, is taken off before "
        "the sentences' projection; vectors of one encoder share most of their direction.",
    )
    cell_sharpness: float = Field(
        default=20.0,
        gt=0,
        le=1000,
        description="How far a patch's similarity follows the best of its cells (finer level).",
    )
    presence: PresenceConfig | None = Field(
        default=None, description="Whether a sentence is true of the scan, as a probability."
    )
    image_decoder: ImageDecoderConfig | None = Field(
        default=None, description="Decoder of masked image modelling; only pre-training needs it."
    )
    fusion: FusionConfig | None = Field(
        default=None, description="Cross-granularity fusion; only pre-training needs it."
    )
    text_decoder: TextDecoderConfig | None = Field(
        default=None, description="Decoder of masked reports; only pre-training needs it."
    )
    segmentation: SegmentationConfig | None = Field(default=None, description="Segmentation head.")
    classification: ClassificationConfig | None = Field(
        default=None, description="Classification head."
    )
    provenance: Provenance = Field(default=Provenance(), description="Origin of the weights.")

    @model_validator(mode="after")
    def _consistent(self) -> ModelConfig:
        if max(self.input_spec.shape) > 4096:
            raise ValueError("An input beyond 4096 voxels along an axis is not supported.")
        if self.input_spec.patches > 262_144:
            raise ValueError(
                f"An input of {self.input_spec.patches} patches is beyond the limit of 262144."
            )
        cells, patch = self.vision.cells, self.input_spec.patch_shape
        if cells is not None and (
            cells == patch or any(p % c for p, c in zip(patch, cells, strict=True))
        ):
            raise ValueError(f"Patches of {patch} voxels cannot be cut into {cells} cells.")
        if self.vision.stem == "pyramid" and any(p % 4 for p in patch):
            raise ValueError(f"A pyramid needs patches of multiples of 4 voxels, not {patch}.")
        if (self.fusion is None) != (self.text_decoder is None):
            raise ValueError("Fusion and text decoder work together: give both or neither.")
        if self.fusion is not None and self.text_decoder is not None:
            heads_divide(self.text_decoder.width, self.fusion.heads, "fusion")
        if self.segmentation is not None:
            self._segmentation_fits(self.segmentation)
        return self

    def _segmentation_fits(self, head: SegmentationConfig) -> None:
        if head.kind == "pyramid":
            self._pyramid_head_fits(head)
        elif self.vision.depth < 3:  # three of its depths are looked at
            raise ValueError(
                f"A segmentation head needs an encoder of at least 3 blocks, not "
                f"{self.vision.depth}."
            )
        roi, patch = head.roi or self.input_spec.shape, self.input_spec.patch_shape
        if any(r < 1 or r % p for r, p in zip(roi, patch, strict=True)):
            raise ValueError(f"The segmentation region {roi} is not made of patches of {patch}.")
        if head.kind == "unet" and all(r == p for r, p in zip(roi, patch, strict=True)):
            raise ValueError(
                f"A head of kind unet needs a region of two patches or more, not {roi}."
            )
        if head.position == "official2axis" and self.vision.width % 2:
            raise ValueError("Position official2axis needs an encoder of even width.")
        if (
            head.position == "encoder"
            and self.vision.position == "loaded"
            and roi != self.input_spec.shape
        ):
            raise ValueError(
                f"The loaded position embedding knows only {self.input_spec.shape} voxels, not "
                f"the segmentation region {roi}; choose position official2axis for the head."
            )

    def _pyramid_head_fits(self, head: SegmentationConfig) -> None:
        if self.vision.stem != "pyramid":
            raise ValueError(
                "A segmentation head of kind pyramid needs an encoder with the stem pyramid; "
                "choose kind unetr."
            )
        if head.position != "encoder" or not head.cls_token:
            raise ValueError(
                "A segmentation head of kind pyramid uses the encoder as it is: position encoder, "
                "with its CLS token."
            )

    @property
    def is_trained(self) -> bool:
        """Whether the encoder's weights come from training."""
        return self.provenance.trained != UNTRAINED

    @property
    def joint_width(self) -> int:
        """Width of the space in which sentences and patches are compared."""
        return self.projection_width or self.vision.width

    def identity(self) -> str:
        """Digest of all that changes results; not of names, origin or where text is found."""
        kept = self.model_dump(mode="json", exclude={"name", "provenance"})
        kept["text"].pop("source")
        for part, fields in _LATER.items():
            settings = kept[part] if part else kept
            for field, before in fields.items() if settings else ():
                if settings[field] == before:
                    settings.pop(field)
        for head in ("segmentation", "classification"):
            if kept.get(head) is not None:
                kept[head].pop("trained")
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def model_config_from(data: Any, *, path: str | PathLike[str] | None = None) -> ModelConfig:
    """A checked configuration; a bad one becomes one sentence that lists what is wrong.

    Raises
    ------
    SimCroPError
        ``code="bad-config"``.
    """
    try:
        return ModelConfig.model_validate(data)
    except ValidationError as e:
        raise bad_config(e, path=path) from e


def bad_config(error: ValidationError, *, path: str | PathLike[str] | None = None) -> SimCroPError:
    """The first few faults of a configuration as one refusal."""
    faults = []
    for fault in error.errors()[:5]:
        where = ".".join(str(step) for step in fault["loc"])
        text = fault["msg"].removeprefix("Value error, ").rstrip(".")
        faults.append(f"{where}: {text}" if where else text)
    count = error.error_count()
    return SimCroPError(
        f"Found {count} error{'s' * (count != 1)} in the model's configuration: "
        + "; ".join(faults),
        code="bad-config",
        remedy="Correct the configuration or make the model again.",
        path=path,
    )
