"""Settings that several objectives share; imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from simcrop_core.frozen import Frozen


class ObjectiveFields(Frozen):
    """Root of all settings of objectives."""


class MaskedImageFields(ObjectiveFields):
    """Masked image modelling: which patches are removed, and what their reconstruction costs."""

    mask_ratio: float = Field(
        default=0.75,
        gt=0,
        lt=1,
        description="Share of a volume's patches that is removed before the encoder sees it.",
    )
    masked_only: bool = Field(
        default=True,
        description="Whether only removed patches count in the reconstruction's error; "
        "otherwise all patches do, as Eq. 1 is printed.",
    )
    normalize_patches: bool = Field(
        default=False,
        description="Whether each target patch is brought to mean 0 and variance 1 first (MAE).",
    )


class MaskedReportFields(ObjectiveFields):
    """Masked report modelling: which tokens are hidden, and behind what."""

    report_mask_ratio: float = Field(
        default=0.75,
        gt=0,
        lt=1,
        description="Share of a report's tokens (or words) that is hidden (gamma).",
    )
    report_mask_unit: Literal["token", "word"] = Field(
        default="token",
        description="token: each token for itself; word: all tokens of a word together.",
    )
    report_mask_style: Literal["mask", "bert"] = Field(
        default="mask",
        description="mask: a hidden token always becomes [MASK]; bert: 80 % become [MASK], 10 % "
        "any token of the vocabulary, 10 % stay as they are.",
    )


class LearnedTemperatureFields(ObjectiveFields):
    """Contrast of whole volumes with whole reports, with a temperature that is learned."""

    temperature: float = Field(
        default=0.07,
        ge=0.01,
        le=10,
        description="Temperature at the start; it is learned and never falls below 0.01.",
    )
