"""What models are trained for: SimCroP, its peers, and the losses they are made of.

Importing this package is cheap: settings need no torch, and torch is imported when something
that needs it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simcrop_core.model.simcrop import SimCroP
    from simcrop_core.model.vision import patchify
    from simcrop_core.objectives.base import LossTerms, Objective, Ranks
    from simcrop_core.objectives.config import (
        CtClipConfig,
        M3aeConfig,
        M3dClipConfig,
        MaeConfig,
        MrmConfig,
        ObjectiveConfig,
        SimCroPConfig,
    )
    from simcrop_core.objectives.grounded_config import GroundedConfig
    from simcrop_core.objectives.losses import (
        masked_image_loss,
        masked_report_loss,
        similarity_alignment_loss,
        unpatchify,
    )

_HOME = {
    "CtClipConfig": "config",
    "GroundedConfig": "grounded_config",
    "LossTerms": "base",
    "M3aeConfig": "config",
    "M3dClipConfig": "config",
    "MaeConfig": "config",
    "MrmConfig": "config",
    "Objective": "base",
    "ObjectiveConfig": "config",
    "Ranks": "base",
    "SimCroPConfig": "config",
    "masked_image_loss": "losses",
    "masked_report_loss": "losses",
    "patchify": "losses",
    "similarity_alignment_loss": "losses",
    "unpatchify": "losses",
}

# Where each kind of objective is implemented: module and class.
_IMPLEMENTATION = {
    "simcrop": ("simcrop", "SimCroPObjective"),
    "mae": ("mae", "MaeObjective"),
    "mrm": ("mrm", "MrmObjective"),
    "m3ae": ("m3ae", "M3aeObjective"),
    "ct_clip": ("ct_clip", "CtClipObjective"),
    "m3d_clip": ("m3d_clip", "M3dClipObjective"),
    "grounded": ("grounded", "GroundedObjective"),
}

__all__ = [
    "CtClipConfig",
    "GroundedConfig",
    "LossTerms",
    "M3aeConfig",
    "M3dClipConfig",
    "MaeConfig",
    "MrmConfig",
    "Objective",
    "ObjectiveConfig",
    "Ranks",
    "SimCroPConfig",
    "make_objective",
    "masked_image_loss",
    "masked_report_loss",
    "patchify",
    "similarity_alignment_loss",
    "unpatchify",
]


def make_objective(config: ObjectiveConfig, model: SimCroP, *, seed: int = 0) -> Objective:
    """The objective that a configuration asks for, on the model's device.

    Parameters
    ----------
    config
        One of the settings in :mod:`simcrop_core.objectives.config`.
    model
        What is to be trained; it stays as it is.
    seed
        Of the fresh weights of an objective's own heads.

    Raises
    ------
    SimCroPError
        The model lacks a part that the objective needs.
    """
    import torch

    module, name = _IMPLEMENTATION[config.kind]
    implementation = getattr(import_module(f"{__name__}.{module}"), name)
    with torch.random.fork_rng(devices=[]):  # the caller's random stream stays where it is
        torch.manual_seed(seed)
        objective: Objective = implementation(config, model)
    return objective.to(model.device)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
