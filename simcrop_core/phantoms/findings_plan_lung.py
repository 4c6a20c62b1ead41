"""What findings of lungs and pleura look like, where, and how large: their plans."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from simcrop_core.phantoms.findings_choice import Choice
from simcrop_core.phantoms.plan import FindingPlan
from simcrop_core.statements import Side


def plan_pleural_effusion(draw: Choice) -> list[FindingPlan]:
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
        if severity == "severe":
            draw.fill(f"{side} lower lobe")
    return draw.effusions


def plan_atelectasis(draw: Choice) -> list[FindingPlan]:
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
            lobe = draw.lobe((2, 2, 2, 2, 0, 2))
            draw.fill(lobe)
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


def plan_consolidation(draw: Choice) -> list[FindingPlan]:
    plans = []
    for _ in range(1 + draw.chance(0.3)):
        lobe = draw.lobe((2, 2, 4, 2, 1, 4), fill=True)
        whole = 0.0 if lobe == "lingula" else 0.2
        extent = draw.pick(("patchy", "segmental", "lobar"), (0.35, 0.45, whole))
        if extent == "lobar":
            draw.fill(lobe)
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


def plan_nodules(draw: Choice) -> list[FindingPlan]:
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


def _nodule(draw: Choice, size: float, texture: str, margin: str) -> FindingPlan:
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


def plan_fibrotic_sequela(draw: Choice) -> list[FindingPlan]:
    kind = draw.pick(("apical", "band", "reticulation"), (0.45, 0.35, 0.2))
    attributes = {"type": kind}
    severity = draw.severity(0.65, 0.3, 0.05)
    if kind == "apical":
        side, level = draw.side(both=0.6, level="upper"), "upper"
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
                side=draw.side(both=0.8, level="lower"),
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


def plan_bronchial(name: str) -> Callable[[Choice], list[FindingPlan]]:
    def plan(draw: Choice) -> list[FindingPlan]:
        attributes = {}
        if name == "Bronchiectasis":
            kind = draw.pick(("cylindrical", "varicose", "cystic"), (0.6, 0.2, 0.2))
            attributes = {"type": kind}
        if draw.chance(0.45):
            level = draw.pick(("any", "lower", "upper"), (0.5, 0.4, 0.1))
            side = draw.side(both=0.85, level=level)
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


def plan_opacity(draw: Choice) -> list[FindingPlan]:
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
        level = draw.pick(("any", "lower", "upper"), (0.5, 0.35, 0.15))
        return [
            draw.finding(
                "Lung opacity",
                side=draw.side(both=0.75, level=level),
                level=level,
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


def plan_emphysema(draw: Choice) -> list[FindingPlan]:
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
            side=draw.side(both=0.85, level=level),
            level=level,
            severity=severity,
            attributes=attributes,
        )
    ]


def plan_mosaic(draw: Choice) -> list[FindingPlan]:
    level = draw.pick(("any", "lower"), (0.7, 0.3))
    return [
        draw.finding(
            "Mosaic attenuation pattern",
            side=draw.side(both=0.9, level=level),
            level=level,
            severity=draw.severity(),
        )
    ]


def plan_septal_thickening(draw: Choice) -> list[FindingPlan]:
    both = 0.9 if "heart failure" in draw.causes else 0.6
    level = draw.pick(("lower", "any", "upper"), (0.55, 0.35, 0.1))
    return [
        draw.finding(
            "Interlobular septal thickening",
            side=draw.side(both=both, level=level),
            level=level,
            severity=draw.severity(),
        )
    ]
