"""Coarse phantoms, an untrained model and processor seconds, for benchmarks that learn."""

from __future__ import annotations

import resource

import numpy as np
from numpy.typing import NDArray

from simcrop_core.geometry import Grid, axis_aligned_affine
from simcrop_core.input_spec import InputSpec
from simcrop_core.model import ModelConfig, SimCroP, TextConfig, VisionConfig, new_model
from simcrop_core.phantoms.plan import plan_phantom
from simcrop_core.phantoms.study import make_phantom
from simcrop_core.study import Study

LUNA_UID = "1.3.6.1.4.1.14519.5.2.1.6279.6001."


def phantom_on(
    seed: int, shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]
) -> Study:
    """A phantom on a grid of this kind, at its scanner's centre."""
    center = plan_phantom(seed).scanner.grid.center_mm
    return make_phantom(seed, Grid(shape, axis_aligned_affine("LPS", spacing_mm, center, shape)))


def labels_of(study: Study) -> dict[str, int]:
    """0 or 1 for each of the 18 findings; what is open counts as absent."""
    return {name: int(label == 1) for name, label in study.facts.labels().items()}


def luna_labels(study: Study) -> NDArray[np.uint8]:
    """The phantom's structures as LUNA16's: left lung, right lung, trachea."""
    assert study.structures_XYZ is not None
    numbers = [_luna_number(name) for name in ("", *study.structure_names)]
    return np.array(numbers, np.uint8)[study.structures_XYZ]


def _luna_number(structure: str) -> int:
    if structure in ("left upper lobe", "left lower lobe"):
        return 1
    if structure.startswith("right ") and structure.endswith(" lobe"):
        return 2
    return 3 if structure == "trachea" else 0


def random_model(spec: InputSpec, depth: int) -> SimCroP:
    """A small model with fresh weights."""
    config = ModelConfig(
        name="random",
        input_spec=spec,
        vision=VisionConfig(depth=depth, width=96, heads=4),
        text=TextConfig(source="minilm", width=384),
    )
    return new_model(config, 0)


def cpu_seconds() -> float:
    """Of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
