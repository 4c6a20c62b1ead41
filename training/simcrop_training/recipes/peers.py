"""Peers of SimCroP: other objectives on the same encoder, data and schedule as ``phantom-tiny``.

At other scales: ``--set objective.kind=...`` on ``phantom-small`` or ``simcrop-paper``.
"""

from __future__ import annotations

from simcrop_core.objectives.config import (
    CtClipConfig,
    M3aeConfig,
    M3dClipConfig,
    MaeConfig,
    MrmConfig,
)
from simcrop_core.train.config import RunConfig
from simcrop_training.recipes.phantoms import on_tiny_phantoms


def mae() -> RunConfig:
    """MAE, as phantom-tiny: masked patches alone."""
    return on_tiny_phantoms("mae", MaeConfig(), **_leaving_out("fusion", "text_decoder"))


def mrm() -> RunConfig:
    """MRM, as phantom-tiny: masked patches, and masked reports from the pooled image."""
    return on_tiny_phantoms("mrm", MrmConfig())


def m3ae() -> RunConfig:
    """M3AE, as phantom-tiny: masked patches and tokens by co-attention, image-text matching."""
    return on_tiny_phantoms("m3ae", M3aeConfig(depth=2, image_layer=1))


def ct_clip() -> RunConfig:
    """CT-CLIP, as phantom-tiny: pooled volumes against reports."""
    return on_tiny_phantoms(
        "ct-clip",
        CtClipConfig(),
        **_leaving_out("image_decoder", "fusion", "text_decoder"),
    )


def m3d_clip() -> RunConfig:
    """M3D-CLIP, as phantom-tiny: CLS tokens against reports."""
    return on_tiny_phantoms(
        "m3d-clip",
        M3dClipConfig(),
        **_leaving_out("image_decoder", "fusion", "text_decoder"),
    )


def _leaving_out(*parts: str) -> dict[str, object]:
    """A model without parts that the objective does not train."""
    return {"without": parts, **{part: {} for part in parts}}
