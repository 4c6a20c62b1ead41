"""A phantom's voxels in the classes of a segmentation head: organs, and findings on them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from simcrop_core.phantoms.plan import FindingPlan
from simcrop_core.phantoms.render import Rendered
from simcrop_core.phantoms.truth_regions import regions_of

#: Organs, and the name of the region of each; a later one takes the voxels of an earlier one.
#: Lungs hold the vessels and bronchi inside them, airways are those outside the lungs.
_ORGANS = {
    "left lung": "left lung",
    "right lung": "right lung",
    "trachea and bronchi": "airways",
    "heart": "heart",
    "aorta": "aorta",
    "spine": "spine",
    "ribs": "ribs",
    "liver": "liver",
    "spleen": "spleen",
}
#: Findings in the same order of precedence, by their names among the 18.
_FINDINGS = {
    "pleural effusion": "Pleural effusion",
    "pericardial effusion": "Pericardial effusion",
    "ground glass": "Lung opacity",
    "consolidation": "Consolidation",
    "nodule": "Lung nodule",
}
#: Names of labels 1, 2, ...
CLASSES: tuple[str, ...] = (*_ORGANS, *_FINDINGS)


def classes_of(rendered: Rendered, findings: Sequence[FindingPlan]) -> NDArray[np.uint8]:
    """Label map ``(X, Y, Z)`` of a rendered phantom, in :data:`CLASSES`; 0 is none of them.

    Parameters
    ----------
    findings
        Those of its plan, in the order of ``rendered.finding_masks``.
    """
    labels = np.zeros(rendered.volume.shape, np.uint8, order="F")
    regions = regions_of(rendered, _ORGANS.values(), {})
    for number, region in enumerate(_ORGANS.values(), 1):
        if region in regions:
            box, mask = regions.box(region)
            labels[box][mask] = number
    for number, name in enumerate(_FINDINGS.values(), len(_ORGANS) + 1):
        for finding, mask in zip(findings, rendered.finding_masks, strict=True):
            if finding.name == name:
                labels[mask] = number
    return labels
