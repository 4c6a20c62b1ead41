"""Recipes: functions that return a complete configuration of a run.

The first line of a recipe's docstring is its description. What a recipe leaves at its default is
what the method's paper says, see the fields' own texts.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

from simcrop_core.errors import SimCroPError
from simcrop_core.finetune.config import ProbeConfig
from simcrop_core.train.config import RunConfig
from simcrop_core.train.finetuning import SegmentationRunConfig
from simcrop_core.train.finetuning_classification import ClassificationRunConfig
from simcrop_training.recipes import (
    ablations,
    grounded,
    paper,
    peers,
    phantoms,
    probes,
    segmentations,
    starter,
    tunings,
)

#: Pre-training.
RECIPES: dict[str, Callable[[], RunConfig]] = {
    "smoke": phantoms.smoke,
    "phantom-tiny": phantoms.phantom_tiny,
    "phantom-small": phantoms.phantom_small,
    "starter": starter.starter,
    "starter-tiny": starter.starter_tiny,
    "simcrop-paper": paper.simcrop_paper,
    "simcrop-released": paper.simcrop_released,
    "simcrop-large": paper.simcrop_large,
    "mae": peers.mae,
    "mrm": peers.mrm,
    "m3ae": peers.m3ae,
    "ct-clip": peers.ct_clip,
    "m3d-clip": peers.m3d_clip,
    "ablation-il": ablations.il,
    "ablation-wl": ablations.wl,
    "ablation-il-wl": ablations.il_wl,
    "ablation-sa-il": ablations.sa_il,
    "ablation-sa-wl": ablations.sa_wl,
    "ablation-all": ablations.sa_il_wl,
    "grounded": grounded.grounded,
    "grounded-paper-scale": grounded.grounded_paper_scale,
    "grounded-regions": grounded.regions_only,
    "grounded-no-regions": grounded.no_regions,
    "grounded-no-contrast": grounded.no_contrast,
    "grounded-no-presence": grounded.no_presence,
    "grounded-linear-stem": grounded.linear_stem,
    "grounded-no-cells": grounded.no_cells,
    "grounded-pyramid": grounded.pyramid,
}

#: Linear probes of what was pre-trained.
PROBES: dict[str, Callable[[], ProbeConfig]] = {
    "probe-ct-rate": probes.ct_rate,
    "probe-radchestct": probes.radchestct,
    "probe-cc-ccii": probes.cc_ccii,
    "probe-luna16": probes.luna16,
}

#: Fine-tuning for segmentation.
SEGMENTATIONS: dict[str, Callable[[], SegmentationRunConfig]] = {
    "seg-btcv": segmentations.btcv,
    "seg-luna16": segmentations.luna16,
    "seg-luna16-10": segmentations.luna16_10,
    "seg-btcv-unet": segmentations.btcv_unet,
    "seg-luna16-unet": segmentations.luna16_unet,
}

#: Fine-tuning of whole encoders for classification.
TUNINGS: dict[str, Callable[[], ClassificationRunConfig]] = {
    "tune-ct-rate": tunings.ct_rate,
    "tune-radchestct": tunings.radchestct,
    "tune-cc-ccii": tunings.cc_ccii,
    "tune-luna16": tunings.luna16,
}

AnyConfig = RunConfig | ProbeConfig | SegmentationRunConfig | ClassificationRunConfig
#: All recipes, by name.
ALL: dict[str, Callable[[], AnyConfig]] = {
    **RECIPES,
    **PROBES,
    **TUNINGS,
    **SEGMENTATIONS,
}


def recipe(name: str) -> RunConfig:
    """The configuration of a recipe for pre-training.

    Raises
    ------
    SimCroPError
        ``no-such-recipe``.
    """
    if name not in RECIPES:
        raise _unknown(name)
    return RECIPES[name]()


def any_recipe(name: str) -> AnyConfig:
    """The configuration of a recipe of any kind; errors as :func:`recipe`."""
    if name not in ALL:
        raise _unknown(name)
    return ALL[name]()


def describe(name: str) -> str:
    """What a recipe is, in a line."""
    return (inspect.getdoc(ALL[name]) or "").splitlines()[0]


def _unknown(name: str) -> SimCroPError:
    return SimCroPError(
        f"There is no recipe {name!r}",
        code="no-such-recipe",
        remedy="simcrop-train recipes lists them.",
    )
