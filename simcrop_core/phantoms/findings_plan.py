"""Which findings a phantom has: causes that bring findings together, and what each looks like.

A phantom is healthy or has causes (heart failure, infection, tobacco, ...); each cause brings each
of the 18 findings with some probability, so that effusion comes with atelectasis and emphysema with
thick bronchi. How often findings come together follows what is usual in CT-RATE's labels (mean 3.5
findings a scan, one scan in ten without any); the rarer ones are made commoner here, so that each
is in about 10 to 35 % of phantoms.

Plans are in the order in which they are drawn: what moves organs or fills the lung first, what only
tints aerated lung later.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from simcrop_core.phantoms.findings_causes import CAUSE_CHANCE, CAUSES, HEALTHY
from simcrop_core.phantoms.findings_choice import Choice
from simcrop_core.phantoms.findings_plan_lung import (
    plan_atelectasis,
    plan_bronchial,
    plan_consolidation,
    plan_emphysema,
    plan_fibrotic_sequela,
    plan_mosaic,
    plan_nodules,
    plan_opacity,
    plan_pleural_effusion,
    plan_septal_thickening,
)
from simcrop_core.phantoms.plan import FindingPlan, PatientPlan
from simcrop_core.statements import Side


def plan_findings(rng: np.random.Generator, patient: PatientPlan) -> tuple[FindingPlan, ...]:
    """Draw the findings of a phantom, in the order in which they are to be drawn into it."""
    if rng.random() < HEALTHY:
        return ()
    age = float(np.clip((patient.age_years - 20) / 70, 0, 1))
    absent = dict.fromkeys(CAUSES["chance"], 1.0)
    causes = set()
    for cause, (young, old) in CAUSE_CHANCE.items():
        if rng.random() < young + (old - young) * age:
            causes.add(cause)
            for name, chance in CAUSES[cause].items():
                absent[name] *= 1 - chance
    present = {name for name, miss in absent.items() if rng.random() < 1 - miss}
    if "Pleural effusion" in present and rng.random() < 0.5:
        present.add("Atelectasis")
    if not present:
        present = {"Lung nodule"}
    draw = Choice(rng, causes, present)
    plans: list[FindingPlan] = []
    for name, plan in DRAWING_ORDER:
        if name in present:
            plans += plan(draw)
    return tuple(plans)


def _cardiomegaly(draw: Choice) -> list[FindingPlan]:
    # Cardiothoracic ratio above 0.5; how much larger each grade is, is the anatomy's matter.
    return [draw.finding("Cardiomegaly", severity=draw.severity())]


def _hiatal_hernia(draw: Choice) -> list[FindingPlan]:
    severity = draw.severity(0.55, 0.3, 0.15)
    low, high = {"mild": (22, 35), "moderate": (35, 55), "severe": (55, 85)}[severity]
    content = draw.pick(("stomach", "fat", "air-fluid level"), (0.5, 0.2, 0.3))
    size = draw.between(low, high)
    return [
        draw.finding(
            "Hiatal hernia",
            size_mm=size,
            severity=severity,
            attributes={"type": "sliding", "content": content},
        )
    ]


def _pericardial_effusion(draw: Choice) -> list[FindingPlan]:
    # Thickness grades: below 10 mm small, 10 to 20 mm moderate, above 20 mm large (ESC 2015).
    severity = draw.severity(0.55, 0.3, 0.15)
    low, high = {"mild": (5, 10), "moderate": (10, 18), "severe": (20, 25)}[severity]
    round_it = {"mild": 0.3, "moderate": 0.6, "severe": 0.95}[severity]
    extent = "circumferential" if draw.chance(round_it) else "dependent"
    return [
        draw.finding(
            "Pericardial effusion",
            size_mm=draw.between(low, high),
            severity=severity,
            attributes={"extent": extent},
        )
    ]


#: Stations of lymph nodes (IASLC map, Rusch 2009, in words), with their side and how common.
NODE_STATIONS: dict[str, tuple[Side, float]] = {
    "right upper paratracheal": ("right", 1.5),
    "left upper paratracheal": ("left", 0.7),
    "right lower paratracheal": ("right", 3),
    "left lower paratracheal": ("left", 1.2),
    "prevascular": ("any", 1.2),
    "aortopulmonary window": ("left", 1.8),
    "subcarinal": ("any", 3),
    "right hilar": ("right", 1.8),
    "left hilar": ("left", 1.8),
    "right axillary": ("right", 1.2),
    "left axillary": ("left", 1.2),
    "paraoesophageal": ("any", 0.5),
}


def _lymphadenopathy(draw: Choice) -> list[FindingPlan]:
    number = 1 + int(draw.rng.binomial(3, 0.5 if "tumour" in draw.causes else 0.25))
    names, weights = list(NODE_STATIONS), np.array([w for _, w in NODE_STATIONS.values()])
    chosen = draw.rng.choice(names, number, replace=False, p=weights / weights.sum())
    plans = []
    for station in map(str, chosen):
        # Enlarged is 10 mm or more across the short axis.
        size = round(float(np.clip(10 + draw.rng.exponential(5), 10.2, 30)), 1)
        plans.append(
            draw.finding(
                "Lymphadenopathy",
                side=NODE_STATIONS[station][0],
                size_mm=size,
                count=int(draw.rng.choice([1, 1, 2, 3])) if size < 20 else 1,
                severity="mild" if size < 15 else "moderate" if size < 22 else "severe",
                attributes={"station": station},
            )
        )
    return plans


def _aortic_calcification(draw: Choice) -> list[FindingPlan]:
    severity = draw.severity(0.4, 0.4, 0.2)
    site = draw.pick(("aortic arch", "aorta", "aorta and its branches"), (0.4, 0.35, 0.25))
    count = {"mild": 2, "moderate": 6, "severe": 14}[severity] + int(draw.rng.integers(3))
    return [
        draw.finding(
            "Arterial wall calcification",
            count=count,
            severity=severity,
            attributes={"site": site},
        )
    ]


def _coronary_calcification(draw: Choice) -> list[FindingPlan]:
    severity = draw.severity(0.45, 0.35, 0.2)
    number = {"mild": 1, "moderate": 2, "severe": 3}[severity]
    order = ["LAD", "RCA", "LCx"] if draw.chance(0.6) else ["LAD", "LCx", "RCA"]
    return [
        draw.finding(
            "Coronary artery wall calcification",
            count=number * {"mild": 2, "moderate": 3, "severe": 5}[severity],
            severity=severity,
            attributes={"vessels": ", ".join(order[:number])},
        )
    ]


def _medical_material(draw: Choice) -> list[FindingPlan]:
    devices: list[str] = []
    if "intensive care" in draw.causes:
        devices.append("central venous catheter")
        if draw.chance(0.55):
            devices.append("nasogastric tube")
        if draw.chance(0.5):
            airway = draw.pick(("endotracheal tube", "tracheostomy tube"), (0.7, 0.3))
            devices.append(airway)
    if "tumour" in draw.causes and draw.chance(0.7):
        devices.append("port catheter")
    if draw.effusions and draw.effusions[0].attributes["type"] == "free" and draw.chance(0.35):
        devices.append("pleural drain")
    if "Coronary artery wall calcification" in draw.present and draw.chance(0.5):
        devices.append("coronary stent")
    if draw.chance(0.3) or ("heart failure" in draw.causes and draw.chance(0.4)):
        devices.append("pacemaker")
    if not devices or draw.chance(0.2):
        devices += draw.pick(
            ("sternal wires", "sternal wires,bypass clips", "sternal wires,valve prosthesis"),
            (0.3, 0.4, 0.3),
        ).split(",")
    if not devices:
        devices.append("port catheter")
    return [_device(draw, device) for device in devices]


def _device(draw: Choice, device: str) -> FindingPlan:
    side: Side = "any"
    attributes = {"device": device}
    if device == "pacemaker":
        side = "left" if draw.chance(0.8) else "right"
        attributes["leads"] = draw.pick(("1", "2"), (0.35, 0.65))
    elif device in ("port catheter", "central venous catheter"):
        side = "right" if draw.chance(0.75) else "left"
    elif device == "pleural drain":
        side = draw.effusions[0].side
    elif device == "coronary stent":
        attributes["vessel"] = draw.pick(("LAD", "RCA", "LCx"), (0.5, 0.3, 0.2))
    elif device == "valve prosthesis":
        attributes["valve"] = draw.pick(("aortic", "mitral"), (0.65, 0.35))
    return draw.finding("Medical material", side=side, attributes=attributes)


#: Finding and how it is planned, in drawing order.
DRAWING_ORDER: tuple[tuple[str, Callable[[Choice], list[FindingPlan]]], ...] = (
    ("Cardiomegaly", _cardiomegaly),
    ("Hiatal hernia", _hiatal_hernia),
    ("Pericardial effusion", _pericardial_effusion),
    ("Pleural effusion", plan_pleural_effusion),
    ("Atelectasis", plan_atelectasis),
    ("Consolidation", plan_consolidation),
    ("Lung nodule", plan_nodules),
    ("Pulmonary fibrotic sequela", plan_fibrotic_sequela),
    ("Bronchiectasis", plan_bronchial("Bronchiectasis")),
    ("Peribronchial thickening", plan_bronchial("Peribronchial thickening")),
    ("Lung opacity", plan_opacity),
    ("Emphysema", plan_emphysema),
    ("Mosaic attenuation pattern", plan_mosaic),
    ("Interlobular septal thickening", plan_septal_thickening),
    ("Lymphadenopathy", _lymphadenopathy),
    ("Arterial wall calcification", _aortic_calcification),
    ("Coronary artery wall calcification", _coronary_calcification),
    ("Medical material", _medical_material),
)
