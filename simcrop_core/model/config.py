"""What a model is made of, as frozen configurations; imports no torch.

All configurations live in one module, apart from the networks they describe, so that a model
folder can be read and checked (``simcrop models info``) without loading torch. Unknown keys are
refused, and combinations that make no sense are refused in full sentences.
"""

from __future__ import annotations

import hashlib
import json
import math
from os import PathLike
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from simcrop_core.errors import SimCroPError
from simcrop_core.input_spec import InputSpec

CXR_BERT = "microsoft/BiomedVLP-CXR-BERT-specialized"
MINILM = "minilm"
SCHEMA_VERSION = 1
UNTRAINED = "untrained"

FormulaPosition = Literal["sincos3d", "official2axis"]
PositionKind = Literal["sincos3d", "official2axis", "loaded"]

# Fields that came after the first models were saved, with what those models do. While a model
# keeps to that, they have no part in its identity, so that it stays what it was.
_LATER: dict[str, dict[str, Any]] = {
    "vision": {"stem": "linear", "stem_width": 24, "cells": None, "cell_width": 64},
    "": {
        "projection_norm": False,
        "text_centred": False,
        "cell_sharpness": 20.0,
        "presence": None,
    },
}


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _heads_divide(width: int, heads: int, what: str) -> None:
    if width % heads:
        raise ValueError(f"The {what}'s width {width} is not a multiple of its {heads} heads.")


def _formula_fits(position: PositionKind, width: int, what: str) -> None:
    if position == "official2axis" and width % 2:
        raise ValueError(f"The {what}'s width {width} must be even for position official2axis.")
    if position == "sincos3d" and width < 6:
        raise ValueError(f"The {what}'s width {width} is below 6, too narrow for sincos3d.")


class VisionConfig(_Config):
    """The vision encoder: a ViT over the patches of a CT (grid and patches: ``InputSpec``)."""

    depth: int = Field(
        default=8, ge=1, le=64, description="Transformer blocks (paper 8, released 12)."
    )
    width: int = Field(
        default=768, ge=8, le=4096, description="Length of a patch's feature vector."
    )
    heads: int = Field(default=12, ge=1, le=64, description="Attention heads.")
    mlp_ratio: float = Field(
        default=4.0,
        gt=0,
        le=16,
        description="Width of a block's hidden layer over the encoder's width.",
    )
    cls_token: bool = Field(
        default=True, description="Whether a CLS token is put before the patches; never pooled."
    )
    position: PositionKind = Field(
        default="sincos3d",
        description="Position embedding: sincos3d (all three axes), official2axis (the authors' "
        "formula, blind to the depth axis) or loaded (came with a checkpoint; this grid only).",
    )

    stem: Literal["linear", "conv"] = Field(
        default="linear",
        description="How a patch becomes a token: linear, as published, or conv: a small "
        "convolutional network inside the patch.",
    )
    stem_width: int = Field(
        default=24,
        ge=1,
        le=1024,
        description="Channels of the convolutional stem's first layer; doubled at each further.",
    )
    cells: tuple[int, int, int] | None = Field(
        default=None,
        description="A second, finer level: cells of a patch along each axis, such as (2, 2, 2), "
        "taken from the convolutional stem. None means none.",
    )
    cell_width: int = Field(
        default=64, ge=1, le=4096, description="Length of a cell's feature vector."
    )

    @model_validator(mode="after")
    def _consistent(self) -> VisionConfig:
        _heads_divide(self.width, self.heads, "vision encoder")
        _formula_fits(self.position, self.width, "vision encoder")
        if self.cells is not None:
            if self.stem != "conv":
                raise ValueError("A finer level (cells) needs the convolutional stem.")
            if min(self.cells) < 1 or not 2 <= math.prod(self.cells) <= 64:
                raise ValueError(
                    f"A patch is cut into 2 to 64 cells, such as (2, 2, 2), not {self.cells}."
                )
        return self

    @property
    def hidden_width(self) -> int:
        """Width of the hidden layer of a block's MLP."""
        return round(self.width * self.mlp_ratio)


class TextConfig(_Config):
    """The frozen text encoder: where it is found and how a sentence becomes one vector."""

    source: str = Field(
        default=CXR_BERT,
        min_length=1,
        description="minilm (the installed package), a folder, or a hub id already in the "
        "person's cache; nothing is ever downloaded.",
    )
    width: int = Field(
        default=768, ge=1, le=8192, description="Length of the encoder's token vectors."
    )
    sentence_vector: Literal["cls", "mean"] = Field(
        default="cls",
        description="A sentence's vector: that of its first token, or the tokens' mean.",
    )
    max_tokens: int = Field(
        default=512, ge=8, le=8192, description="Tokens read of one text, special ones included."
    )
    fingerprint: str | None = Field(
        default=None,
        pattern="^[0-9a-f]{64}$",
        description="Digest of the encoder's weights and vocabulary; checked when it is loaded. "
        "None where the encoder was not at hand when the model was made.",
    )


class ImageDecoderConfig(_Config):
    """The decoder of masked image modelling (pre-training only)."""

    depth: int = Field(default=4, ge=1, le=64, description="Transformer blocks.")
    width: int = Field(default=768, ge=8, le=4096, description="Length of its token vectors.")
    heads: int = Field(default=12, ge=1, le=64, description="Attention heads.")
    position: PositionKind = Field(
        default="sincos3d",
        description="Position embedding of the decoder; kinds as in the encoder.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> ImageDecoderConfig:
        _heads_divide(self.width, self.heads, "image decoder")
        _formula_fits(self.position, self.width, "image decoder")
        return self


class FusionConfig(_Config):
    """Cross-granularity fusion of a volume with its report (paper, Eq. 5; pre-training only)."""

    kind: Literal["residual", "literal"] = Field(
        default="residual",
        description="literal: f^I + f^W as printed; residual: the text is added too, then "
        "LayerNorm and a feed-forward layer.",
    )
    heads: int = Field(default=12, ge=1, le=64, description="Heads of the cross-attention.")


class TextDecoderConfig(_Config):
    """The BERT decoder that predicts masked report tokens (pre-training only)."""

    depth: int = Field(default=6, ge=1, le=64, description="BERT layers.")
    width: int = Field(default=768, ge=8, le=4096, description="Length of its token vectors.")
    heads: int = Field(default=12, ge=1, le=64, description="Attention heads.")
    hidden_width: int = Field(
        default=3072, ge=8, le=16384, description="Width of the feed-forward layer."
    )
    max_tokens: int = Field(default=512, ge=8, le=8192, description="Longest report, in tokens.")
    vocabulary_size: int = Field(
        default=30522,
        ge=2,
        le=1_000_000,
        description="Tokens it chooses among: the text encoder's.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> TextDecoderConfig:
        _heads_divide(self.width, self.heads, "text decoder")
        return self


class PresenceConfig(_Config):
    """How likely a sentence is true of a scan: its similarities pooled, then a logistic curve."""

    of: Literal["statement", "finding"] = Field(
        default="statement",
        description="What the probability is of: that the statement is true (no effusion: that "
        "there is none), or that the finding it names is there (no effusion: that there is one).",
    )
    sharpness: float = Field(
        default=20.0,
        gt=0,
        le=1000,
        description="b of the pooling (1/b)(log sum exp(b s) - log N) before training; learned.",
    )
    temperature: float = Field(
        default=0.07, gt=0, le=100, description="Of the logistic curve before training; learned."
    )


class SegmentationConfig(_Config):
    """A UNETR-style segmentation head on the vision encoder."""

    labels: tuple[str, ...] = Field(
        min_length=1, max_length=255, description="Names of channels 1, 2, ...; 0 is background."
    )
    feature_width: int = Field(
        default=16,
        ge=1,
        le=256,
        description="Channels at full resolution; doubled at each level below.",
    )
    roi: tuple[int, int, int] | None = Field(
        default=None,
        description="Voxels it looks at in one go; None means the model's whole input.",
    )
    position: Literal["encoder", "official2axis"] = Field(
        default="encoder",
        description="Positions of the patches: the encoder's own, or the authors' two-axis "
        "formula computed for the region, as their segmentation code does.",
    )
    cls_token: bool = Field(
        default=True,
        description="Whether the encoder's CLS token takes part (the authors' code leaves it out).",
    )
    trained: str = Field(
        default=UNTRAINED, description='"untrained", or what this head was trained on.'
    )

    @field_validator("labels")
    @classmethod
    def _labels_named(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if any(not label.strip() or not label.isprintable() for label in labels):
            raise ValueError("A segmentation label has no printable name.")
        if len({label.casefold() for label in labels}) < len(labels):
            raise ValueError("Two segmentation labels have the same name.")
        if "background" in {label.casefold() for label in labels}:
            raise ValueError("Background is always channel 0 and must not be among the labels.")
        return labels


class Provenance(_Config):
    """Where the weights come from, for people and result files."""

    trained: str = Field(
        default=UNTRAINED,
        min_length=1,
        description='"untrained", or what the weights were trained on.',
    )
    source: str = Field(
        default="", description="How the model was made: a preset, a checkpoint's name."
    )
    changes: tuple[str, ...] = Field(
        default=(), description="What was changed since, such as resized position embeddings."
    )


class ModelConfig(_Config):
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
        if (self.fusion is None) != (self.text_decoder is None):
            raise ValueError("Fusion and text decoder work together: give both or neither.")
        if self.fusion is not None and self.text_decoder is not None:
            _heads_divide(self.text_decoder.width, self.fusion.heads, "fusion")
        if self.segmentation is not None:
            self._segmentation_fits(self.segmentation)
        return self

    def _segmentation_fits(self, head: SegmentationConfig) -> None:
        if self.vision.depth < 4:
            raise ValueError(
                f"A segmentation head needs an encoder of at least 4 blocks, not "
                f"{self.vision.depth}."
            )
        roi, patch = head.roi or self.input_spec.shape, self.input_spec.patch_shape
        if any(r < 1 or r % p for r, p in zip(roi, patch, strict=True)):
            raise ValueError(f"The segmentation region {roi} is not made of patches of {patch}.")
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
            for field, before in fields.items():
                if settings[field] == before:
                    settings.pop(field)
        if kept["segmentation"] is not None:
            kept["segmentation"].pop("trained")
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
