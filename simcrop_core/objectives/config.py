"""The settings of every objective; imports no torch.

``ObjectiveConfig`` is their union, told apart by ``kind``. What belongs to the network rather
than to its training (kind of similarity, projection, sentence vector, kind of fusion, decoders'
sizes) is set in :class:`simcrop_core.model.ModelConfig` and saved with the model.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from simcrop_core.objectives.config_parts import (
    LearnedTemperatureFields,
    MaskedImageFields,
    MaskedReportFields,
)
from simcrop_core.objectives.grounded_config import GroundedConfig


class SimCroPConfig(MaskedImageFields, MaskedReportFields):
    """SimCroP as in its paper; the three switches are the rows of the paper's Table 3."""

    kind: Literal["simcrop"] = Field(default="simcrop", description="SimCroP (MICCAI 2025).")
    similarity_alignment: bool = Field(
        default=True,
        description="SA: align each sentence with the patches most like it (Eq. 2-4). Off, the "
        "term is left out.",
    )
    instance_level: bool = Field(
        default=True,
        description="IL: the report decoder reads the mean of the visible patches (f^I in Eq. 5).",
    )
    word_level: bool = Field(
        default=True,
        description="WL: the report decoder reads what each token finds in the visible patches by "
        "cross-attention (f^W in Eq. 5). With IL and WL off no report is modelled.",
    )
    top_k: int = Field(
        default=64,
        ge=1,
        description="Patches a sentence is aligned with (K); all visible ones if there are fewer.",
    )
    temperature: float = Field(
        default=0.07, gt=0, le=10, description="Temperature of the alignment's InfoNCE (tau)."
    )
    align_weight: float = Field(
        default=1.0, gt=0, description="Weight of the alignment in the total (lambda 1 in Eq. 7)."
    )
    report_weight: float = Field(
        default=1.0,
        gt=0,
        description="Weight of masked report modelling in the total (lambda 2 in Eq. 7).",
    )

    @model_validator(mode="after")
    def _says_something_of_the_report(self) -> SimCroPConfig:
        if not (self.similarity_alignment or self.models_reports):
            raise ValueError(
                "With similarity_alignment, instance_level and word_level all off, SimCroP never "
                "looks at the report; choose the objective mae."
            )
        return self

    @property
    def models_reports(self) -> bool:
        """Whether masked reports are modelled at all."""
        return self.instance_level or self.word_level


class MaeConfig(MaskedImageFields):
    """MAE: masked patches only, no report."""

    kind: Literal["mae"] = Field(default="mae", description="Masked autoencoder (CVPR 2022).")


class MrmConfig(MaskedImageFields, MaskedReportFields):
    """MRM: masked patches, and masked report tokens from the pooled image."""

    kind: Literal["mrm"] = Field(default="mrm", description="Masked record modelling (ICLR 2023).")
    report_mask_ratio: float = Field(
        default=0.5,
        gt=0,
        lt=1,
        description="Share of a report's tokens (or words) that is hidden; half in MRM's paper.",
    )
    report_weight: float = Field(
        default=1.0, gt=0, description="Weight of masked report modelling in the total."
    )


class M3aeConfig(MaskedImageFields, MaskedReportFields):
    """M3AE: masked patches and tokens through co-attention, and image-text matching."""

    kind: Literal["m3ae"] = Field(
        default="m3ae", description="Multi-modal masked autoencoder (MICCAI 2022)."
    )
    report_mask_ratio: float = Field(
        default=0.15,
        gt=0,
        lt=1,
        description="Share of a report's words (or tokens) that is hidden; 15 % in M3AE.",
    )
    report_mask_unit: Literal["token", "word"] = Field(
        default="word",
        description="token: each token for itself; word: all tokens of a word together (M3AE).",
    )
    report_mask_style: Literal["mask", "bert"] = Field(
        default="bert",
        description="mask: a hidden token always becomes [MASK]; bert (M3AE): 80 % become [MASK], "
        "10 % any token of the vocabulary, 10 % stay as they are.",
    )
    depth: int = Field(
        default=6, ge=1, le=64, description="Layers of co-attention between image and report."
    )
    image_layer: int = Field(
        default=3,
        ge=0,
        le=64,
        description="Layers of co-attention after which the image decoder reads the patches; "
        "words are always predicted after the last.",
    )
    report_weight: float = Field(
        default=1.0, gt=0, description="Weight of masked report modelling in the total."
    )
    match_weight: float = Field(
        default=1.0, gt=0, description="Weight of image-text matching in the total."
    )

    @model_validator(mode="after")
    def _layer_exists(self) -> M3aeConfig:
        if self.image_layer > self.depth:
            raise ValueError(
                f"The image decoder cannot read after layer {self.image_layer} of "
                f"{self.depth} layers of co-attention."
            )
        return self


class CtClipConfig(LearnedTemperatureFields):
    """CT-CLIP: the pooled volume against the report's vector."""

    kind: Literal["ct_clip"] = Field(
        default="ct_clip", description="CT-CLIP: contrast of pooled volume and report."
    )


class M3dClipConfig(LearnedTemperatureFields):
    """M3D-CLIP: the volume's CLS token against the report's vector."""

    kind: Literal["m3d_clip"] = Field(
        default="m3d_clip", description="M3D-CLIP: contrast of CLS tokens."
    )


# A further objective adds its class to this union, and where it is implemented to _IMPLEMENTATION
# in __init__.py; settings in a file of their own build upon config_parts.py.
ObjectiveConfig = Annotated[
    SimCroPConfig
    | MaeConfig
    | MrmConfig
    | M3aeConfig
    | CtClipConfig
    | M3dClipConfig
    | GroundedConfig,
    Field(discriminator="kind"),
]
