"""A phantom's label map in the classes of a segmentation head."""

from __future__ import annotations

import numpy as np
import pytest

from simcrop_core.datasets import open_dataset
from simcrop_core.errors import SimCroPError
from simcrop_core.input_spec import InputSpec
from simcrop_core.phantoms.anatomy_labels import GROUPS, LOBES
from simcrop_core.phantoms.study import make_phantom, prepared_grid, survey
from simcrop_core.phantoms.truth_classes import CLASSES
from simcrop_core.study import Study

SPEC = InputSpec(shape=(112, 112, 56), spacing_mm=(3.0, 3.0, 6.0), patch_shape=(8, 8, 4))
NAMED = {
    "Pleural effusion": "pleural effusion",
    "Pericardial effusion": "pericardial effusion",
    "Lung opacity": "ground glass",
    "Consolidation": "consolidation",
    "Lung nodule": "nodule",
}


def both(seed: int) -> tuple[Study, Study]:
    """A phantom with all structures, and the same with classes."""
    grid = prepared_grid(seed, SPEC)
    return make_phantom(seed, grid), make_phantom(seed, grid, labels="classes")


@pytest.mark.parametrize("seed", [0, 2, 3, 5])
def test_classes_are_the_organs_with_the_findings_on_top(seed: int) -> None:
    study, classed = both(seed)
    assert classed.structure_names == CLASSES
    assert classed.structures_XYZ is not None
    assert study.structures_XYZ is not None
    assert np.array_equal(classed.volume.hu_XYZ, study.volume.hu_XYZ)
    label = {name: classed.structures_XYZ == n for n, name in enumerate(CLASSES, 1)}

    def structures(*names: str) -> np.ndarray:
        return np.isin(
            study.structures_XYZ, [study.structure_names.index(name) + 1 for name in names]
        )

    findings = np.zeros(classed.volume.shape, bool)
    held = [f.name for f in survey(seed).plan.findings]
    for name, class_name in reversed(NAMED.items()):
        masks = [
            study.regions[region]
            for region in study.regions
            if region.startswith("finding ") and region.endswith(f" {name.lower()}")
        ]
        marked = np.any(masks, axis=0) if masks else np.zeros_like(findings)
        assert (name in held) >= bool(marked.any())
        # The last of the findings wins where two meet.
        assert np.array_equal(label[class_name], marked & ~findings)
        findings |= marked
    for class_name, names in {
        "aorta": ("aorta",),
        "liver": ("liver",),
        "spleen": ("spleen",),
        "ribs": ("ribs",),
        "spine": GROUPS["spine"],
    }.items():
        assert np.array_equal(label[class_name], structures(*names) & ~findings), class_name
    lungs = label["left lung"] | label["right lung"]
    assert (lungs | findings)[structures(*LOBES)].all()
    assert not lungs[structures("aorta", "liver", "trachea")].any()
    # Left is left: the grid's first axis runs to the left or to the right, as its letters say.
    x = {s: np.argwhere(label[f"{s} lung"]).mean(axis=0) for s in ("left", "right")}
    mm = {side: classed.volume.grid.to_world(place)[0] for side, place in x.items()}
    assert mm["left"] < 0 < mm["right"]


def test_only_phantoms_have_classes() -> None:
    first, second = (open_dataset("phantoms:3-4", classes=c).sources[0] for c in (False, True))
    assert first.stamp() != second.stamp()
    with pytest.raises(SimCroPError, match="Only phantoms have label maps of classes"):
        open_dataset("manifest.csv", classes=True)
