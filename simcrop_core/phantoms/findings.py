"""The 18 findings of CT-RATE, planned and drawn into a chest."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from simcrop_core.phantoms.anatomy import Anatomy
from simcrop_core.phantoms.findings_devices import draw_medical_material
from simcrop_core.phantoms.findings_diffuse import (
    draw_bronchiectasis,
    draw_emphysema,
    draw_mosaic,
    draw_peribronchial_thickening,
    draw_septal_thickening,
)
from simcrop_core.phantoms.findings_lung import (
    draw_consolidation,
    draw_fibrotic_sequela,
    draw_nodule,
    draw_opacity,
)
from simcrop_core.phantoms.findings_mediastinum import (
    draw_arterial_calcification,
    draw_cardiomegaly,
    draw_coronary_calcification,
    draw_hiatal_hernia,
    draw_lymphadenopathy,
    draw_pericardial_effusion,
)
from simcrop_core.phantoms.findings_plan import plan_findings
from simcrop_core.phantoms.findings_pleura import draw_atelectasis, draw_pleural_effusion
from simcrop_core.phantoms.findings_scene import Scene, scene_of
from simcrop_core.phantoms.plan import FindingPlan

__all__ = ["draw_finding", "plan_findings"]

DRAWN: dict[str, Callable[[Scene, FindingPlan], NDArray[np.bool_]]] = {
    "Medical material": draw_medical_material,
    "Cardiomegaly": draw_cardiomegaly,
    "Hiatal hernia": draw_hiatal_hernia,
    "Pericardial effusion": draw_pericardial_effusion,
    "Lymphadenopathy": draw_lymphadenopathy,
    "Arterial wall calcification": draw_arterial_calcification,
    "Coronary artery wall calcification": draw_coronary_calcification,
    "Pleural effusion": draw_pleural_effusion,
    "Atelectasis": draw_atelectasis,
    "Emphysema": draw_emphysema,
    "Mosaic attenuation pattern": draw_mosaic,
    "Interlobular septal thickening": draw_septal_thickening,
    "Bronchiectasis": draw_bronchiectasis,
    "Peribronchial thickening": draw_peribronchial_thickening,
    "Lung nodule": draw_nodule,
    "Consolidation": draw_consolidation,
    "Lung opacity": draw_opacity,
    "Pulmonary fibrotic sequela": draw_fibrotic_sequela,
}


def draw_finding(anatomy: Anatomy, plan: FindingPlan) -> NDArray[np.bool_]:
    """Draw a finding into a chest and return its mask ``(X, Y, Z)`` on the chest's grid.

    Changes ``anatomy.hu_XYZ``, and its labels where organs give way. Findings are to be drawn in
    the order of :func:`plan_findings`. The mask is empty where the finding lies wholly outside the
    scanner's field.
    """
    scene = scene_of(anatomy)
    return scene.to_grid(DRAWN[plan.name](scene, plan))
