"""The parts of a model as frozen configurations; imports no torch."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, field_validator, model_validator

from simcrop_core.frozen import Frozen

CXR_BERT = "microsoft/BiomedVLP-CXR-BERT-specialized"
MINILM = "minilm"
UNTRAINED = "untrained"

FormulaPosition = Literal["sincos3d", "official2axis"]
PositionKind = Literal["sincos3d", "official2axis", "loaded"]


def heads_divide(width: int, heads: int, what: str) -> None:
    """Refuse a width that its heads cannot share (`ValueError`)."""
    if width % heads:
        raise ValueError(f"The {what}'s width {width} is not a multiple of its {heads} heads.")


def _formula_fits(position: PositionKind, width: int, what: str) -> None:
    if position == "official2axis" and width % 2:
        raise ValueError(f"The {what}'s width {width} must be even for position official2axis.")
    if position == "sincos3d" and width < 6:
        raise ValueError(f"The {what}'s width {width} is below 6, too narrow for sincos3d.")


class VisionConfig(Frozen):
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

    stem: Literal["linear", "conv", "pyramid"] = Field(
        default="linear",
        description="How a patch becomes a token: linear, as published; conv: a small "
        "convolutional network inside the patch; pyramid: convolutions over the whole scan at "
        "three levels (quarter patches, half patches, patches).",
    )
    stem_width: int = Field(
        default=24,
        ge=1,
        le=1024,
        description="Channels of the convolutional stem's first layer or of the pyramid's finest "
        "level; doubled at each further.",
    )
    stem_blocks: tuple[int, int, int] = Field(
        default=(1, 2, 2),
        description="Residual blocks of the pyramid at quarter patches (which cost most), half "
        "patches and patches.",
    )
    cells: tuple[int, int, int] | None = Field(
        default=None,
        description="A second, finer level: cells of a patch along each axis, such as (2, 2, 2), "
        "taken from the convolutional stem. None means none; a pyramid's are (2, 2, 2).",
    )
    cell_width: int = Field(
        default=64, ge=1, le=4096, description="Length of a cell's feature vector."
    )

    @model_validator(mode="after")
    def _consistent(self) -> VisionConfig:
        heads_divide(self.width, self.heads, "vision encoder")
        _formula_fits(self.position, self.width, "vision encoder")
        if not all(1 <= blocks <= 16 for blocks in self.stem_blocks):
            raise ValueError(f"A pyramid has 1 to 16 blocks at each level, not {self.stem_blocks}.")
        if self.stem == "pyramid" and self.cells != (2, 2, 2):
            raise ValueError(f"A pyramid's finer level has the cells (2, 2, 2), not {self.cells}.")
        if self.cells is not None:
            if self.stem == "linear":
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


class TextConfig(Frozen):
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


class ImageDecoderConfig(Frozen):
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
        heads_divide(self.width, self.heads, "image decoder")
        _formula_fits(self.position, self.width, "image decoder")
        return self


class FusionConfig(Frozen):
    """Cross-granularity fusion of a volume with its report (paper, Eq. 5; pre-training only)."""

    kind: Literal["residual", "literal"] = Field(
        default="residual",
        description="literal: f^I + f^W as printed; residual: the text is added too, then "
        "LayerNorm and a feed-forward layer.",
    )
    heads: int = Field(default=12, ge=1, le=64, description="Heads of the cross-attention.")


class TextDecoderConfig(Frozen):
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
        heads_divide(self.width, self.heads, "text decoder")
        return self


class PresenceConfig(Frozen):
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


class SegmentationConfig(Frozen):
    """A segmentation head on the vision encoder."""

    kind: Literal["unetr", "unet", "pyramid"] = Field(
        default="unetr",
        description="unetr: UNETR's decoder, on any encoder; unet: a residual U-Net that takes the "
        "encoder's features in at every level; pyramid: the fine cells of a pyramid cut into their "
        "voxels, far cheaper.",
    )
    labels: tuple[str, ...] = Field(
        min_length=1, max_length=255, description="Names of channels 1, 2, ...; 0 is background."
    )
    feature_width: int = Field(
        default=16,
        ge=1,
        le=256,
        description="Channels at full resolution; doubled at each level below (unetr, unet).",
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
    foreground: bool = Field(
        default=False,
        description="Whether only the box of all that is above the window's middle is labelled, "
        "as a head was trained that never saw the air around a body.",
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


class ClassificationConfig(Frozen):
    """A linear head that tells what a scan shows, on the encoder's pooled features."""

    labels: tuple[str, ...] = Field(
        min_length=1, max_length=1000, description="Names of its outputs."
    )
    exclusive: bool = Field(
        default=False,
        description="Whether one and only one of them is true (classes); else each by itself.",
    )
    trained: str = Field(
        default=UNTRAINED, description='"untrained", or what this head was trained on.'
    )

    @model_validator(mode="after")
    def _consistent(self) -> ClassificationConfig:
        if any(not label.strip() or not label.isprintable() for label in self.labels):
            raise ValueError("A label of the classification head has no printable name.")
        if len(set(self.labels)) < len(self.labels):
            raise ValueError("Two labels of the classification head have the same name.")
        if self.exclusive and len(self.labels) < 2:
            raise ValueError("Classes that exclude each other are two or more.")
        return self


class Provenance(Frozen):
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
