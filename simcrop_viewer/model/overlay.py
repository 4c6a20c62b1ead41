"""How evidence is drawn over the scan, and the numbers that are drawn."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from psygnal import EventedModel
from pydantic import ConfigDict, Field

from simcrop_core.alignment_result import AlignmentResult

Draw = Literal["heat", "outlines", "both"]
Normalise = Literal["sentence", "shared"]
#: Colour maps that stay readable on dark lung and on bright bone.
Colours = Literal["inferno", "magma", "plasma", "turbo", "viridis"]


class OverlaySettings(EventedModel):
    """What the overlay looks like; each field's change is told by ``events``."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    visible: bool = Field(default=True, title="Show", description="Show the evidence (H).")
    top_k: int = Field(
        default=64,
        ge=1,
        le=1024,
        title="K",
        description="Patches that are outlined: the most similar ones.",
    )
    draw: Draw = Field(
        default="both",
        title="Draw",
        description="Heat for all patches, outlines of the top K, or both.",
    )
    threshold: float = Field(
        default=0.5,
        ge=0.0,
        le=0.99,
        title="Threshold",
        description="Patches below this share of the scale are left clear.",
    )
    opacity: float = Field(default=0.5, ge=0.0, le=1.0, title="Opacity", description="Of the heat.")
    colormap: Colours = Field(
        default="inferno", title="Colours", description="Of the heat of one sentence."
    )
    normalise: Normalise = Field(
        default="sentence",
        title="Scale",
        description="From the least to the greatest similarity of the sentence, or of all "
        "sentences and questions.",
    )
    smooth: bool = Field(
        default=False,
        title="Smooth",
        description="Interpolate between patches; the blocks are what the model says.",
    )


def heat(
    result: AlignmentResult, sentence: int, scale: tuple[float, float], threshold: float
) -> NDArray[np.float32]:
    """Heat of a sentence on the patch grid, ``(I, J, K)`` in 0 to 1.

    0 is clear: below the threshold, and beyond the scan. What is drawn at all has at least a
    small value, so that a map that is clear at 0 shows it.
    """
    low, high = scale
    values_N = result.similarity_SN[sentence].astype(np.float64)
    share_N = np.clip((values_N - low) / max(high - low, 1e-12), 0.0, 1.0)
    drawn_N = result.inside_N & (share_N >= threshold) & (share_N > 0)
    # Above the threshold the whole scale of colours is used.
    above_N = (share_N - threshold) / max(1 - threshold, 1e-12)
    return result.patches.as_map(np.where(drawn_N, 0.02 + 0.98 * above_N, 0.0))


def scale_of(result: AlignmentResult, sentence: int) -> tuple[float, float]:
    """A sentence's least and greatest similarity in the scan."""
    values_N = result.similarity_SN[sentence][result.inside_N]
    return float(values_N.min()), float(values_N.max())


def chosen_mask(result: AlignmentResult, sentence: int, k: int) -> NDArray[np.bool_]:
    """The top ``k`` patches of a sentence on the patch grid, ``(I, J, K)``.

    ``k`` may be more than the result lists: the others are looked up in its similarities.
    """
    best = result.top(sentence, k)
    if k > len(best):
        inside = np.flatnonzero(result.inside_N)
        order = np.argsort(-result.similarity_SN[sentence, inside], kind="stable")
        best = inside[order[:k]]
    mask_N = np.zeros(len(result.patches), dtype=bool)
    mask_N[best] = True
    return mask_N.reshape(result.patches.shape)
