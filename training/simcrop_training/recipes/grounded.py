"""Our own objective: sentences led to their place by regions; and it with parts left out."""

from __future__ import annotations

from simcrop_core.objectives.grounded_config import GroundedConfig
from simcrop_core.train.config import RunConfig
from simcrop_training.recipes.paper import at_paper_scale
from simcrop_training.recipes.phantoms import on_tiny_phantoms


def grounded() -> RunConfig:
    """Grounded, as phantom-tiny: regions, contrast by meaning, presence, a finer level."""
    return _variant("grounded", GroundedConfig(cell_weight=1.0))


def grounded_paper_scale() -> RunConfig:
    """Grounded at the paper's resolution and batch, on a store with regions; set data.store."""
    return at_paper_scale(
        "grounded-paper-scale",
        GroundedConfig(cell_weight=1.0),
        preset="grounded",
        vision={"depth": 8, "width": 768, "heads": 12},
        image_decoder={"depth": 4, "width": 512, "heads": 8},
    )


def regions_only() -> RunConfig:
    """Grounded with regions alone: no contrast, no presence."""
    return _variant(
        "grounded-regions",
        GroundedConfig(cell_weight=1.0, contrast_weight=0, presence_weight=0),
    )


def no_regions() -> RunConfig:
    """Grounded without regions: contrast by meaning and presence alone."""
    return _variant("grounded-no-regions", GroundedConfig(region_weight=0))


def no_contrast() -> RunConfig:
    """Grounded without contrast across studies."""
    return _variant("grounded-no-contrast", GroundedConfig(cell_weight=1.0, contrast_weight=0))


def no_presence() -> RunConfig:
    """Grounded without the presence term."""
    return _variant("grounded-no-presence", GroundedConfig(cell_weight=1.0, presence_weight=0))


def linear_stem() -> RunConfig:
    """Grounded with the published linear patch embedding, so without the finer level."""
    return _variant("grounded-linear-stem", GroundedConfig(), stem="linear", cells=None)


def no_cells() -> RunConfig:
    """Grounded without the finer level."""
    return _variant("grounded-no-cells", GroundedConfig(), cells=None)


def pyramid() -> RunConfig:
    """Grounded on a convolutional pyramid, nothing masked."""
    return on_tiny_phantoms(
        "grounded-pyramid",
        GroundedConfig(mask_ratio=0, image_weight=0, cell_weight=1.0),
        vision={
            "depth": 2,
            "width": 192,
            "heads": 6,
            "stem": "pyramid",
            "stem_width": 24,
            "stem_blocks": (2, 2, 2),
            "cells": (2, 2, 2),
        },
        projection_norm=True,
        text_centred=True,
        presence={"of": "statement"},
        without=("fusion", "text_decoder", "image_decoder"),
        fusion={},
        text_decoder={},
        image_decoder={},
    )


def _variant(
    name: str,
    objective: GroundedConfig,
    stem: str = "conv",
    cells: tuple[int, int, int] | None = (2, 2, 2),
) -> RunConfig:
    return on_tiny_phantoms(
        name,
        objective,
        # Not the preset of that name: what it has cannot be taken away again.
        vision={"depth": 3, "width": 192, "heads": 6, "stem": stem, "cells": cells},
        projection_norm=True,
        text_centred=True,
        presence={"of": "statement"},
        without=("fusion", "text_decoder"),
        fusion={},
        text_decoder={},
    )
