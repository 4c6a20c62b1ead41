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

from collections.abc import Callable, Iterable

import numpy as np

from simcrop_core.phantoms.plan import FindingPlan, PatientPlan
from simcrop_core.statements import Level, Side

#: Share of phantoms that are healthy.
HEALTHY = 0.09

LUNG_LOBES: tuple[str, ...] = (
    "right upper lobe",
    "right middle lobe",
    "right lower lobe",
    "left upper lobe",
    "lingula",
    "left lower lobe",
)

# Probability that a cause brings a finding. "chance" stands for all that has no cause here.
CAUSES: dict[str, dict[str, float]] = {
    "chance": {
        "Medical material": 0.05,
        "Arterial wall calcification": 0.02,
        "Cardiomegaly": 0.04,
        "Pericardial effusion": 0.08,
        "Coronary artery wall calcification": 0.01,
        "Hiatal hernia": 0.11,
        "Lymphadenopathy": 0.08,
        "Emphysema": 0.03,
        "Atelectasis": 0.11,
        "Lung nodule": 0.19,
        "Lung opacity": 0.07,
        "Pulmonary fibrotic sequela": 0.11,
        "Pleural effusion": 0.04,
        "Mosaic attenuation pattern": 0.06,
        "Peribronchial thickening": 0.03,
        "Consolidation": 0.05,
        "Bronchiectasis": 0.05,
        "Interlobular septal thickening": 0.04,
    },
    "heart failure": {
        "Medical material": 0.25,
        "Cardiomegaly": 0.75,
        "Pericardial effusion": 0.3,
        "Atelectasis": 0.2,
        "Lung opacity": 0.3,
        "Pleural effusion": 0.6,
        "Mosaic attenuation pattern": 0.2,
        "Peribronchial thickening": 0.15,
        "Interlobular septal thickening": 0.55,
    },
    "infection": {
        "Lymphadenopathy": 0.25,
        "Atelectasis": 0.15,
        "Lung opacity": 0.6,
        "Pleural effusion": 0.2,
        "Peribronchial thickening": 0.2,
        "Consolidation": 0.55,
    },
    "tobacco": {
        "Coronary artery wall calcification": 0.15,
        "Arterial wall calcification": 0.15,
        "Emphysema": 0.65,
        "Lung nodule": 0.15,
        "Mosaic attenuation pattern": 0.12,
        "Peribronchial thickening": 0.3,
        "Bronchiectasis": 0.12,
    },
    "airway disease": {
        "Lung nodule": 0.1,
        "Mosaic attenuation pattern": 0.45,
        "Peribronchial thickening": 0.5,
        "Bronchiectasis": 0.55,
        "Atelectasis": 0.1,
    },
    "tumour": {
        "Medical material": 0.3,
        "Pericardial effusion": 0.1,
        "Lymphadenopathy": 0.6,
        "Atelectasis": 0.25,
        "Lung nodule": 0.8,
        "Pleural effusion": 0.3,
        "Interlobular septal thickening": 0.15,
    },
    "scars": {
        "Atelectasis": 0.1,
        "Lung nodule": 0.1,
        "Pulmonary fibrotic sequela": 0.75,
        "Bronchiectasis": 0.2,
        "Interlobular septal thickening": 0.2,
    },
    "intensive care": {
        "Medical material": 0.95,
        "Atelectasis": 0.4,
        "Consolidation": 0.3,
        "Pleural effusion": 0.4,
    },
    "old arteries": {
        "Medical material": 0.12,
        "Arterial wall calcification": 0.85,
        "Coronary artery wall calcification": 0.7,
        "Cardiomegaly": 0.08,
        "Hiatal hernia": 0.12,
    },
}
# How likely each cause is in the ill, at 20 and at 90 years.
CAUSE_CHANCE: dict[str, tuple[float, float]] = {
    "chance": (1.0, 1.0),
    "heart failure": (0.03, 0.26),
    "infection": (0.24, 0.24),
    "tobacco": (0.12, 0.34),
    "airway disease": (0.14, 0.16),
    "tumour": (0.08, 0.22),
    "scars": (0.08, 0.3),
    "intensive care": (0.06, 0.1),
    "old arteries": (0.0, 0.8),
}


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
    draw = _Draw(rng, causes, present)
    plans: list[FindingPlan] = []
    for name, plan in DRAWING_ORDER:
        if name in present:
            plans += plan(draw)
    return tuple(plans)


class _Draw:
    """Random choices for the plans of one phantom, and what else it has."""

    def __init__(self, rng: np.random.Generator, causes: set[str], present: set[str]) -> None:
        self.rng = rng
        self.causes = causes
        self.present = present
        self.effusions: list[FindingPlan] = []
        self.taken: set[str] = set()  # lobes that a dense finding already fills

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def between(self, low: float, high: float) -> float:
        return round(float(self.rng.uniform(low, high)), 1)

    def pick(self, options: Iterable[str], weights: Iterable[float] | None = None) -> str:
        options = list(options)
        share = None if weights is None else np.asarray(list(weights), float)
        return str(self.rng.choice(options, p=None if share is None else share / share.sum()))

    def severity(self, *shares: float) -> str:
        return self.pick(("mild", "moderate", "severe"), shares or (0.45, 0.35, 0.2))

    def side(self, both: float = 0.0) -> Side:
        return self.pick(("both", "left", "right"), (both, (1 - both) / 2, (1 - both) / 2))  # type: ignore[return-value]

    def lobe(self, weights: tuple[float, ...] = (3, 1, 3, 3, 1, 3), fill: bool = False) -> str:
        """A lobe; with ``fill`` one that no dense finding fills yet, which it then does."""
        free = [
            0.0 if lobe in self.taken else weight
            for lobe, weight in zip(LUNG_LOBES, weights, strict=True)
        ]
        lobe = self.pick(LUNG_LOBES, free if sum(free) else weights)
        if fill:
            self.taken.add(lobe)
        return lobe

    def finding(self, name: str, **fields: object) -> FindingPlan:
        seed = int(self.rng.integers(2**31))
        lobe = fields.get("lobe")
        if lobe:
            fields = {"side": lobe_side(str(lobe)), "level": lobe_level(str(lobe))} | fields
        return FindingPlan(name, seed=seed, **fields)  # type: ignore[arg-type]


def lobe_side(lobe: str) -> Side:
    """The patient's side of a lobe."""
    return "right" if lobe.startswith("right") else "left"


def lobe_level(lobe: str) -> Level:
    """The third of the lung that a lobe is: the middle lobe and the lingula are the middle."""
    return "upper" if "upper" in lobe else "lower" if "lower" in lobe else "middle"


def _cardiomegaly(draw: _Draw) -> list[FindingPlan]:
    # Cardiothoracic ratio above 0.5; how much larger each grade is, is the anatomy's matter.
    return [draw.finding("Cardiomegaly", severity=draw.severity())]


def _hiatal_hernia(draw: _Draw) -> list[FindingPlan]:
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


def _pericardial_effusion(draw: _Draw) -> list[FindingPlan]:
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


def _pleural_effusion(draw: _Draw) -> list[FindingPlan]:
    both = draw.chance(0.65 if "heart failure" in draw.causes else 0.3)
    sides: tuple[Side, ...] = ("right", "left") if both else (draw.side(),)
    for side in sides:
        severity = draw.severity(0.5, 0.35, 0.15)
        low, high = {"mild": (9, 20), "moderate": (20, 40), "severe": (40, 75)}[severity]
        loculated = not both and severity != "severe" and draw.chance(0.2)
        draw.effusions.append(
            draw.finding(
                "Pleural effusion",
                side=side,
                size_mm=draw.between(low, high),
                severity=severity,
                attributes={"type": "loculated" if loculated else "free"},
            )
        )
    return draw.effusions


def _atelectasis(draw: _Draw) -> list[FindingPlan]:
    plans = []
    for effusion in draw.effusions:
        if effusion.attributes["type"] == "free" and draw.chance(0.75):
            lobe = f"{effusion.side} lower lobe"
            plans.append(
                draw.finding(
                    "Atelectasis",
                    lobe=lobe,
                    size_mm=draw.between(6, 16),
                    severity=effusion.severity,
                    attributes={"type": "passive", "effusion_mm": f"{effusion.size_mm}"},
                )
            )
    if plans and draw.chance(0.7):
        return plans
    for _ in range(1 + draw.chance(0.35)):
        kind = draw.pick(("linear", "subsegmental", "lobar"), (0.6, 0.28, 0.12))
        if kind == "lobar" and not draw.effusions:
            lobe = draw.lobe((2, 2, 2, 2, 0, 2), fill=True)
            severity, size = draw.severity(0, 0.5, 0.5), None
        else:
            kind = "linear" if kind == "lobar" else kind
            lobe = draw.lobe((1, 3, 4, 1, 3, 4))
            severity = draw.severity(0.7, 0.3, 0)
            size = draw.between(25, 60) if kind == "linear" else draw.between(18, 40)
        plans.append(
            draw.finding(
                "Atelectasis", lobe=lobe, size_mm=size, severity=severity, attributes={"type": kind}
            )
        )
    return plans


def _consolidation(draw: _Draw) -> list[FindingPlan]:
    plans = []
    for _ in range(1 + draw.chance(0.3)):
        lobe = draw.lobe((2, 2, 4, 2, 1, 4), fill=True)
        whole = 0.0 if lobe == "lingula" else 0.2
        extent = draw.pick(("patchy", "segmental", "lobar"), (0.35, 0.45, whole))
        low, high = {"patchy": (20, 38), "segmental": (35, 70), "lobar": (0, 0)}[extent]
        plans.append(
            draw.finding(
                "Consolidation",
                lobe=lobe,
                size_mm=None if extent == "lobar" else draw.between(low, high),
                severity={"patchy": "mild", "segmental": "moderate", "lobar": "severe"}[extent],
                attributes={
                    "extent": extent,
                    "air bronchogram": "yes" if draw.chance(0.75) else "no",
                },
            )
        )
    return plans


def _nodules(draw: _Draw) -> list[FindingPlan]:
    tumour = "tumour" in draw.causes
    plans = []
    if tumour and draw.chance(0.4):
        size = draw.between(31, 58)
        margin = draw.pick(("spiculated", "lobulated"), (0.6, 0.4))
        plans.append(_nodule(draw, size, "solid", margin))
    if tumour and draw.chance(0.3):  # metastases
        low = draw.between(4, 10)
        plans.append(
            draw.finding(
                "Lung nodule",
                side="both",
                size_mm=round(low * draw.between(1.3, 2.5), 1),
                count=int(draw.rng.integers(4, 10)),
                severity="moderate",
                attributes={"texture": "solid", "margin": "smooth", "least_mm": f"{low}"},
            )
        )
    if not plans or draw.chance(0.35):
        for _ in range(1 + int(draw.rng.binomial(2, 0.3))):
            size = round(float(np.clip(draw.rng.lognormal(np.log(8), 0.55), 3, 30)), 1)
            texture = draw.pick(("solid", "part-solid", "ground glass"), (0.72, 0.1, 0.18))
            if size < 6:
                texture = "solid"
            if texture == "solid" and size < 15 and draw.chance(0.2):
                texture = "calcified"
            smooth = texture in ("calcified", "ground glass") or size < 8
            margin = draw.pick(
                ("smooth", "lobulated", "spiculated"), (1, 0, 0) if smooth else (0.4, 0.3, 0.3)
            )
            plans.append(_nodule(draw, size, texture, margin))
    return plans


def _nodule(draw: _Draw, size: float, texture: str, margin: str) -> FindingPlan:
    places = ("parenchymal", "subpleural", "perifissural")
    perifissural = 0.15 if size < 10 and margin == "smooth" and texture == "solid" else 0.0
    place = draw.pick(places, (0.6, 0.3, perifissural))
    kind = "mass" if size > 30 else "nodule"
    return draw.finding(
        "Lung nodule",
        # A mass has no room in the small lobes.
        lobe=draw.lobe((4, 1.5, 3, 3, 1, 3) if size < 25 else (4, 0, 3, 3, 0, 3)),
        size_mm=size,
        severity="mild" if size < 8 else "moderate" if size <= 30 else "severe",
        attributes={"texture": texture, "margin": margin, "location": place, "type": kind},
    )


def _fibrotic_sequela(draw: _Draw) -> list[FindingPlan]:
    kind = draw.pick(("apical", "band", "reticulation"), (0.45, 0.35, 0.2))
    attributes = {"type": kind}
    severity = draw.severity(0.65, 0.3, 0.05)
    if kind == "apical":
        side, level = draw.side(both=0.6), "upper"
        return [
            draw.finding(
                "Pulmonary fibrotic sequela",
                side=side,
                level=level,
                lobe="" if side == "both" else f"{side} upper lobe",
                severity=severity,
                attributes=attributes,
            )
        ]
    if kind == "reticulation":
        return [
            draw.finding(
                "Pulmonary fibrotic sequela",
                side=draw.side(both=0.8),
                level="lower",
                severity=severity,
                attributes=attributes,
            )
        ]
    return [
        draw.finding(
            "Pulmonary fibrotic sequela",
            lobe=draw.lobe((3, 2, 3, 3, 2, 3)),
            size_mm=draw.between(25, 55),
            severity=severity,
            attributes=attributes,
        )
        for _ in range(1 + draw.chance(0.3))
    ]


def _bronchial(name: str) -> Callable[[_Draw], list[FindingPlan]]:
    def plan(draw: _Draw) -> list[FindingPlan]:
        attributes = {}
        if name == "Bronchiectasis":
            kind = draw.pick(("cylindrical", "varicose", "cystic"), (0.6, 0.2, 0.2))
            attributes = {"type": kind}
        if draw.chance(0.45):
            side, level = (
                draw.side(both=0.85),
                draw.pick(("any", "lower", "upper"), (0.5, 0.4, 0.1)),
            )
            return [
                draw.finding(
                    name,
                    side=side,
                    level=level,
                    severity=draw.severity(),
                    attributes=attributes,
                )
            ]
        lobe = draw.lobe((2, 3, 4, 1, 2, 4))
        return [draw.finding(name, lobe=lobe, severity=draw.severity(), attributes=attributes)]

    return plan


def _opacity(draw: _Draw) -> list[FindingPlan]:
    pattern = draw.pick(("focal", "patchy", "diffuse"), (0.4, 0.4, 0.2))
    if "heart failure" in draw.causes and "infection" not in draw.causes:
        pattern = "diffuse"
    if pattern == "focal":
        return [
            draw.finding(
                "Lung opacity",
                lobe=draw.lobe((3, 1, 3, 3, 1, 3)),
                size_mm=draw.between(18, 55),
                attributes={"type": "ground glass", "distribution": pattern},
            )
            for _ in range(1 + draw.chance(0.35))
        ]
    if pattern == "patchy":
        return [
            draw.finding(
                "Lung opacity",
                side=draw.side(both=0.75),
                level=draw.pick(("any", "lower", "upper"), (0.5, 0.35, 0.15)),
                count=int(draw.rng.integers(4, 9)),
                severity=draw.severity(0.3, 0.5, 0.2),
                attributes={"type": "ground glass", "distribution": pattern},
            )
        ]
    return [
        draw.finding(
            "Lung opacity",
            side="both",
            severity=draw.severity(0, 0.5, 0.5),
            attributes={"type": "ground glass", "distribution": pattern},
        )
    ]


def _emphysema(draw: _Draw) -> list[FindingPlan]:
    kind = draw.pick(
        ("centrilobular", "paraseptal", "panlobular", "bullous"), (0.5, 0.25, 0.1, 0.15)
    )
    attributes = {"type": kind}
    severity = draw.severity()
    if kind == "bullous":
        lobe = draw.lobe((4, 0.5, 1, 4, 0.5, 1))
        low, high = {"mild": (15, 25), "moderate": (25, 45), "severe": (45, 70)}[severity]
        return [
            draw.finding(
                "Emphysema",
                lobe=lobe,
                size_mm=draw.between(low, high),
                count=1 + int(draw.rng.integers(3)),
                severity=severity,
                attributes=attributes,
            )
        ]
    level = "lower" if kind == "panlobular" else draw.pick(("upper", "any"), (0.75, 0.25))
    return [
        draw.finding(
            "Emphysema",
            side=draw.side(both=0.85),
            level=level,
            severity=severity,
            attributes=attributes,
        )
    ]


def _mosaic(draw: _Draw) -> list[FindingPlan]:
    return [
        draw.finding(
            "Mosaic attenuation pattern",
            side=draw.side(both=0.9),
            level=draw.pick(("any", "lower"), (0.7, 0.3)),
            severity=draw.severity(),
        )
    ]


def _septal(draw: _Draw) -> list[FindingPlan]:
    both = 0.9 if "heart failure" in draw.causes else 0.6
    return [
        draw.finding(
            "Interlobular septal thickening",
            side=draw.side(both=both),
            level=draw.pick(("lower", "any", "upper"), (0.55, 0.35, 0.1)),
            severity=draw.severity(),
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


def _lymphadenopathy(draw: _Draw) -> list[FindingPlan]:
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


def _aortic_calcification(draw: _Draw) -> list[FindingPlan]:
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


def _coronary_calcification(draw: _Draw) -> list[FindingPlan]:
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


def _medical_material(draw: _Draw) -> list[FindingPlan]:
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


def _device(draw: _Draw, device: str) -> FindingPlan:
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
DRAWING_ORDER: tuple[tuple[str, Callable[[_Draw], list[FindingPlan]]], ...] = (
    ("Cardiomegaly", _cardiomegaly),
    ("Hiatal hernia", _hiatal_hernia),
    ("Pericardial effusion", _pericardial_effusion),
    ("Pleural effusion", _pleural_effusion),
    ("Atelectasis", _atelectasis),
    ("Consolidation", _consolidation),
    ("Lung nodule", _nodules),
    ("Pulmonary fibrotic sequela", _fibrotic_sequela),
    ("Bronchiectasis", _bronchial("Bronchiectasis")),
    ("Peribronchial thickening", _bronchial("Peribronchial thickening")),
    ("Lung opacity", _opacity),
    ("Emphysema", _emphysema),
    ("Mosaic attenuation pattern", _mosaic),
    ("Interlobular septal thickening", _septal),
    ("Lymphadenopathy", _lymphadenopathy),
    ("Arterial wall calcification", _aortic_calcification),
    ("Coronary artery wall calcification", _coronary_calcification),
    ("Medical material", _medical_material),
)
