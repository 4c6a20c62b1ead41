"""What a scan must hold of the body so that a report may speak of it.

Heights are millimetres of the standard adult chest above the carina (see ``anatomy_frame``), as
measured in many phantoms; the posture and build of a patient move an organ by some 15 mm.
"""

from __future__ import annotations

from simcrop_core.phantoms.language_words import LUNG_FINDINGS
from simcrop_core.phantoms.plan import FindingPlan

Heights = tuple[float, float]

_HEART, _AORTA, _LUNGS, _BASES = (-122, -5), (-130, 55), (-130, 60), (-165, 60)
_ABDOMEN, _BONES, _SOME = (-185, -90), (-100, 60), (-60, 20)

#: An organ may be called normal where the scan reaches so far: over its usual extent, or over what
#: of it makes it worth a word.
ORGAN_HEIGHTS: dict[str, Heights] = {
    "airways": (-15, 40),
    "heart": _HEART,
    "vessels": _AORTA,
    "aorta": _AORTA,
    "pulmonary arteries": (-55, 8),
    "thyroid": (66, 122),
    "esophagus": (-135, 60),
    "mediastinum": (-122, 60),
    "lungs": _LUNGS,
    "no mass": _LUNGS,
    "pleura": _LUNGS,
    "liver": (-155, -90),
    "spleen": (-190, -120),
    "stomach": (-200, -110),
    "kidneys": (-205, -150),
    "adrenal glands": (-205, -160),
    "upper abdomen": _ABDOMEN,
    "spine": _BONES,
    "ribs": _BONES,
    "sternum": (-128, 47),
    "bones": _BONES,
    "lung window": _SOME,
    "no contrast": _SOME,
    "contrast": _SOME,
}
#: A third of the lungs may be said to be free of something.
LEVEL_HEIGHTS: dict[str, Heights] = {
    "upper": (-45, 80),
    "middle": (-125, -25),
    "lower": (-160, 25),
}
_ABSENT: dict[str, Heights] = {
    "Medical material": (-150, 96),
    "Arterial wall calcification": _AORTA,
    "Cardiomegaly": _HEART,
    "Pericardial effusion": _HEART,
    "Coronary artery wall calcification": _HEART,
    "Hiatal hernia": (-140, -105),
    "Lymphadenopathy": (-60, 60),
    "Pleural effusion": _BASES,
}

# A finding is in the scan where it reaches so far. Lungs are not here: a finding of a lobe is drawn
# into the part of it that the scan holds.
_PRESENT: dict[str, Heights] = {
    "Cardiomegaly": (-100, -25),
    "Pericardial effusion": (-100, -40),
    "Coronary artery wall calcification": (-75, -40),
    "Hiatal hernia": (-130, -115),
}
_STATIONS: dict[str, Heights] = {
    "right upper paratracheal": (30, 60),
    "left upper paratracheal": (30, 60),
    "right lower paratracheal": (0, 30),
    "left lower paratracheal": (0, 30),
    "prevascular": (0, 40),
    "aortopulmonary window": (-10, 20),
    "right axillary": (30, 96),
    "left axillary": (30, 96),
    "paraoesophageal": (-90, -30),
}
_DEVICES: dict[str, Heights] = {
    "pacemaker": (-20, 90),
    "port catheter": (-20, 90),
    "central venous catheter": (-20, 40),
    "endotracheal tube": (20, 60),
    "tracheostomy tube": (40, 96),
    "pleural drain": (-120, -80),
    "coronary stent": (-75, -40),
    "valve prosthesis": (-75, -40),
}
_SITES: dict[str, Heights] = {"aortic arch": (0, 50), "aorta and its branches": (0, 80)}
_EVERYWHERE = (-40.0, -20.0)  # every scan holds the hila


def absent_heights(name: str) -> Heights:
    """How far a scan must reach for a finding to be said to be absent."""
    return _ABSENT.get(name, _SOME)


def present_heights(finding: FindingPlan) -> Heights:
    """How far a scan must reach to show a finding."""
    kinds = finding.attributes
    if finding.name in LUNG_FINDINGS:
        if kinds.get("type") == "apical":
            return 40, 85
        if kinds.get("type") in ("passive", "reticulation"):
            return -140, -100
        return {"upper": (-10, 0), "lower": (-90, -60)}.get(finding.level, _EVERYWHERE)
    if finding.name == "Pleural effusion":
        return (-140, -100) if finding.severity == "mild" else (-120, -90)
    if finding.name == "Lymphadenopathy":
        return _STATIONS.get(kinds["station"], _EVERYWHERE)
    if finding.name == "Medical material":
        return _DEVICES.get(kinds["device"], _EVERYWHERE)
    if finding.name == "Arterial wall calcification":
        return _SITES.get(kinds["site"], _EVERYWHERE)
    return _PRESENT[finding.name]
