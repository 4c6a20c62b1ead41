"""Settings of the objective ``grounded``; imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from simcrop_core.objectives.config_parts import MaskedImageFields
from simcrop_core.study import Kind


class GroundedConfig(MaskedImageFields):
    """Sentences led to their place by regions, contrast by meaning, and presence.

    A weight of 0 leaves its part out. What belongs to the network (stem, finer level, joint
    space, presence) is set in the model's own configuration.
    """

    kind: Literal["grounded"] = Field(
        default="grounded", description="Regions, contrast by meaning and presence; ours."
    )
    mask_ratio: float = Field(
        default=0.5,
        ge=0,
        lt=1,
        description="Share of a volume's patches that is removed before the encoder sees it; with "
        "0 nothing is, and image_weight must be 0.",
    )
    image_weight: float = Field(
        default=1.0, ge=0, description="Weight of the removed patches' reconstruction (Eq. 1)."
    )
    region_weight: float = Field(
        default=1.0,
        ge=0,
        description="Weight of region supervision: a sentence's similarities against how much of "
        "each visible patch its region covers.",
    )
    cell_weight: float = Field(
        default=0.0,
        ge=0,
        description="Weight of the same on the cells of a model with the finer level.",
    )
    contrast_weight: float = Field(
        default=1.0,
        ge=0,
        description="Weight of the contrast across studies: a sentence against volumes in which "
        "it is false, a volume against sentences that are false in it.",
    )
    presence_weight: float = Field(
        default=5.0,
        ge=0,
        description="Weight of presence: whether each statement of the batch is true in each "
        "volume.",
    )
    segmentation_weight: float = Field(
        default=0.0,
        ge=0,
        description="Weight of segmentation, for a model with a head of kind pyramid and studies "
        "with label maps of its classes; needs mask_ratio 0.",
    )
    segmentation_cells: int = Field(
        default=4096,
        ge=1,
        le=1_000_000,
        description="Fine cells (a quarter of a patch along each axis) of a scan that are "
        "segmented in a step.",
    )
    align_weight: float = Field(
        default=0.0, ge=0, description="Weight of SimCroP's own alignment (Eq. 2-4)."
    )
    top_k: int = Field(default=64, ge=1, description="Patches of SimCroP's own alignment (K).")
    counterfactuals: bool = Field(
        default=True,
        description="Whether sentences with side, level or presence flipped take part in "
        "contrast and presence.",
    )
    regions_of: tuple[Kind, ...] = Field(
        default=("organ", "finding", "negative", "unknown"),
        description="Kinds of sentences whose regions are used.",
    )
    region_floor: float = Field(
        default=0.25,
        ge=0,
        lt=1,
        description="Patches that a region covers by less than this share of its most covered "
        "patch are left out of its target.",
    )
    temperature: float = Field(
        default=0.07,
        ge=0.01,
        le=10,
        description="Temperature of regions and of contrast at the start (learned, each for "
        "itself, never below 0.01), and of SimCroP's own alignment (fixed).",
    )

    @model_validator(mode="after")
    def _has_something_to_learn(self) -> GroundedConfig:
        if self.mask_ratio == 0 and self.image_weight > 0:
            raise ValueError(
                "With mask_ratio 0 there is nothing to reconstruct; set image_weight to 0."
            )
        if self.mask_ratio > 0 and self.segmentation_weight > 0:
            raise ValueError(
                "What is masked cannot be segmented; set mask_ratio or segmentation_weight to 0."
            )
        if not (self.scores_statements or self.uses_regions or self.align_weight):
            raise ValueError(
                "With region_weight, cell_weight, contrast_weight, presence_weight and "
                "align_weight all 0, no sentence is ever read; choose the objective mae."
            )
        if self.uses_regions and not self.regions_of:
            raise ValueError("Region supervision needs at least one kind in regions_of.")
        return self

    @property
    def scores_statements(self) -> bool:
        """Whether statements are pooled to one score a volume."""
        return self.contrast_weight > 0 or self.presence_weight > 0

    @property
    def uses_regions(self) -> bool:
        """Whether regions are looked at, on patches or cells."""
        return self.region_weight > 0 or self.cell_weight > 0
