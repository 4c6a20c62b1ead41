"""The six rows of the paper's Table 3, as ``phantom-tiny``: SA, IL and WL on and off.

Fig. 3's two sweeps: ``--set objective.top_k=...`` and ``--set objective.report_mask_ratio=...`` on
``ablation-all``.
"""

from __future__ import annotations

from simcrop_core.objectives.config import SimCroPConfig
from simcrop_core.train.config import RunConfig
from simcrop_training.recipes.phantoms import on_tiny_phantoms


def il() -> RunConfig:
    """Table 3, row IL: masked reports from the instance level alone."""
    return _row("ablation-il", instance_level=True)


def wl() -> RunConfig:
    """Table 3, row WL: masked reports from the word-patch level alone."""
    return _row("ablation-wl", word_level=True)


def il_wl() -> RunConfig:
    """Table 3, row IL + WL: masked reports from both levels, no alignment."""
    return _row("ablation-il-wl", instance_level=True, word_level=True)


def sa_il() -> RunConfig:
    """Table 3, row SA + IL: alignment, and masked reports from the instance level."""
    return _row("ablation-sa-il", similarity_alignment=True, instance_level=True)


def sa_wl() -> RunConfig:
    """Table 3, row SA + WL: alignment, and masked reports from the word-patch level."""
    return _row("ablation-sa-wl", similarity_alignment=True, word_level=True)


def sa_il_wl() -> RunConfig:
    """Table 3, last row: SimCroP whole."""
    return _row("ablation-all", similarity_alignment=True, instance_level=True, word_level=True)


def _row(
    name: str,
    *,
    similarity_alignment: bool = False,
    instance_level: bool = False,
    word_level: bool = False,
) -> RunConfig:
    objective = SimCroPConfig(
        top_k=7,
        similarity_alignment=similarity_alignment,
        instance_level=instance_level,
        word_level=word_level,
    )
    return on_tiny_phantoms(name, objective)
