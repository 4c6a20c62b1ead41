"""Words for a finding: which wordings it takes, and what fills their slots.

All choices between synonyms are made by given numbers in [0, 1), so that a counterfactual made with
the same numbers differs from its sentence in what is flipped and in nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from simcrop_core.phantoms.language_places import lung_place, place_slots
from simcrop_core.phantoms.phrases_absent import MASS_NOUNS, NOUNS
from simcrop_core.phantoms.plan import FindingPlan
from simcrop_core.statements import Level, Side

#: The findings whose place is a lung or a lobe.
LUNG_FINDINGS = frozenset(
    {
        "Emphysema",
        "Atelectasis",
        "Lung nodule",
        "Lung opacity",
        "Pulmonary fibrotic sequela",
        "Mosaic attenuation pattern",
        "Peribronchial thickening",
        "Consolidation",
        "Bronchiectasis",
        "Interlobular septal thickening",
    }
)
#: From this size (mm) on a nodule is a mass (Fleischner Society glossary, 2008: above 30 mm).
MASS_MM = 30.0

_SEVERITY: dict[str, tuple[str, ...]] = {
    "mild": ("mild", "minimal", "slight"),
    "moderate": ("moderate", "moderate", "moderate"),
    "severe": ("marked", "severe", "pronounced"),
}
_SEVERITY_OF_AMOUNT: dict[str, tuple[str, ...]] = {
    "mild": ("minimal", "small", "mild"),
    "moderate": ("moderate", "moderate", "moderate"),
    "severe": ("large", "massive", "marked"),
}
_SEVERITY_OF_EXTENT: dict[str, tuple[str, ...]] = {
    "mild": ("limited", "mild", "minimal"),
    "moderate": ("moderate", "moderate", "moderate"),
    "severe": ("extensive", "widespread", "severe"),
}
_AMOUNTS = frozenset({"Pleural effusion", "Pericardial effusion"})
_EXTENTS = frozenset({"Arterial wall calcification", "Emphysema"})
_ADVERB: dict[str, tuple[str, ...]] = {
    "mild": ("mildly", "slightly", "minimally"),
    "moderate": ("moderately", "moderately", "moderately"),
    "severe": ("markedly", "markedly", "considerably"),
}
_KINDS: dict[str, tuple[str, ...]] = {
    "solid": ("solid", "solid", "solid"),
    "part-solid": ("part-solid", "subsolid", "partly solid"),
    "ground glass": ("ground-glass", "ground glass", "ground-glass"),
    "calcified": ("calcified", "calcific", "calcified"),
    "linear": ("linear", "plate-like", "linear"),
    "subsegmental": ("subsegmental", "subsegmental", "subsegmental"),
    "lobar": ("lobar", "lobar", "complete lobar"),
    "passive": ("passive", "compressive", "passive"),
    "centrilobular": ("centrilobular", "centriacinar", "centrilobular"),
    "apical": ("pleuroparenchymal", "pleuroparenchymal", "pleuroparenchymal"),
    "band": ("linear", "band-like", "linear"),
    "reticulation": ("reticular", "reticulonodular", "reticular"),
    "cylindrical": ("cylindrical", "tubular", "cylindrical"),
    "patchy": ("patchy", "patchy", "multifocal"),
    "diffuse": ("diffuse", "widespread", "diffuse"),
    "smooth": ("smooth", "well-defined", "smooth"),
}
_COUNTS = {2: "two", 3: "three", 4: "four"}
_STATIONS = {
    "aortopulmonary window": ("in the aortopulmonary window", "at the aortopulmonary level"),
    "subcarinal": ("in the subcarinal region", "at the subcarinal level"),
    "prevascular": ("in the prevascular area", "at the prevascular level"),
    "paraoesophageal": ("in the paraesophageal area", "next to the esophagus"),
    "right hilar": ("in the right hilar region", "at the right hilum"),
    "left hilar": ("in the left hilar region", "at the left hilum"),
    "right axillary": ("in the right axilla", "in the right axillary region"),
    "left axillary": ("in the left axilla", "in the left axillary region"),
}
_AORTIC_SITES = {
    "aortic arch": ("the aortic arch", "the arch of the aorta"),
    "aorta": ("the thoracic aorta", "the aorta"),
    "aorta and its branches": (
        "the aorta and its branches",
        "the aorta and the supraaortic vessels",
    ),
}
_VESSELS = {
    "LAD": "left anterior descending artery",
    "RCA": "right coronary artery",
    "LCx": "circumflex artery",
}
_CONTENTS = {"stomach": "stomach", "fat": "fat", "air-fluid level": "an air-fluid level"}


def topic(finding: FindingPlan) -> str:
    """The key of the wordings that say a finding is there."""
    if finding.name == "Medical material":
        return finding.attributes.get("device", "device")
    if finding.name == "Lung nodule":
        if finding.count > 1:
            return "Lung nodules"
        return "Lung mass" if (finding.size_mm or 0) > MASS_MM else "Lung nodule"
    if finding.name == "Lymphadenopathy" and finding.count > 1:
        return "Lymphadenopathies"
    if finding.name == "Emphysema" and finding.attributes.get("type") == "bullous":
        return "Bullae"
    return finding.name


def finding_slots(finding: FindingPlan, choices: Sequence[float]) -> dict[str, str]:
    """What fills the slots of a finding's wordings; what is not known of it has no slot."""
    slots = place_slots(finding.side, finding.level, choices)
    if finding.name in LUNG_FINDINGS:
        place = _place(finding, choices)
        slots |= {"place": place, "in_place": f"in {place}", "has": _has(place)}
    slots |= _severity(finding, choices)
    if finding.size_mm is not None:
        slots["size"] = size_text(finding.size_mm, choices[2])
    kinds = finding.attributes
    for slot, key in (("kind", "texture"), ("kind", "type"), ("margin", "margin")):
        word = kinds.get(key, "")
        if word and slot not in slots and word not in ("nodule", "mass", "free", "bullous"):
            slots[slot] = _pick(_KINDS.get(word, (word,)), choices[3])
    pattern = kinds.get("distribution", kinds.get("extent", ""))
    if pattern and finding.name in ("Lung opacity", "Consolidation"):
        slots["pattern"] = _pick(_KINDS.get(pattern, (pattern,)), choices[3])
        slots.pop("kind", None)
    if finding.count > 1:
        slots["count"] = _count(finding.count, choices[4])
    return slots | _hedges(finding, choices) | _special(finding, choices)


def absent_slots(
    name: str, side: Side, level: Level, choices: Sequence[float], *, axillae: bool = True
) -> dict[str, str]:
    """What fills the slots of the wordings that say a finding is not there.

    ``axillae``: whether the scan shows them, so that their lymph nodes may be spoken of.
    """
    slots = place_slots(side, level, choices, absent=True)
    slots["noun"] = _pick(NOUNS[name], choices[3])
    slots["mass"] = _pick(MASS_NOUNS[name], choices[3])
    one_side = side in ("left", "right")
    where: tuple[str, ...]
    if name in LUNG_FINDINGS:
        where = (slots["in_place"],)
    elif name == "Pleural effusion":
        where = (slots["on_side"], f"in {slots['hemithorax']}")
    elif name == "Lymphadenopathy":
        where = ("in the mediastinum", "in the mediastinum or at the hila", "within the sections")
        if axillae:
            slots["axillae"] = ""
            where += (
                "in the mediastinal, hilar and axillary regions",
                "in the chest or the axillae",
            )
        if one_side:
            where = (f"on the {side}", f"on the {side} side")
    else:
        where = {
            "Medical material": ("in the chest", "within the sections"),
            "Arterial wall calcification": ("in the aorta", "in the thoracic aorta"),
            "Cardiomegaly": ("in this examination", "on these sections"),
            "Pericardial effusion": ("in this examination", "around the heart"),
            "Coronary artery wall calcification": ("in this examination", "around the heart"),
            "Hiatal hernia": ("at the lower end of the esophagus", "at the esophageal hiatus"),
        }[name]
        if one_side:
            where = (f"on the {side}", f"on the {side} side")
    slots["where"] = _pick(where, choices[4])
    return slots


def example(name: str, side: Side, level: Level, choices: Sequence[float]) -> FindingPlan:
    """A finding as it might be, for the counterfactual of a sentence that says it is not there."""
    lobe = "right lower lobe" if level != "any" else ""
    made = FindingPlan(name, side, level, lobe, severity="mild")
    kinds: dict[str, tuple[str, ...]] = {
        "Emphysema": ("centrilobular", "paraseptal", "panlobular"),
        "Atelectasis": ("linear", "subsegmental", "linear"),
        "Pulmonary fibrotic sequela": ("band", "reticulation", "band"),
        "Bronchiectasis": ("cylindrical", "varicose", "cylindrical"),
        "Hiatal hernia": ("sliding",),
    }
    if name in kinds:
        return replace(made, attributes={"type": _pick(kinds[name], choices[5])})
    if name == "Lung nodule":
        return replace(made, size_mm=4 + round(20 * choices[5]), attributes={"texture": "solid"})
    if name == "Lung opacity":
        return replace(made, attributes={"distribution": "patchy"})
    if name in ("Pleural effusion", "Pericardial effusion"):
        said = "both" if name == "Pleural effusion" and side == "any" else side
        return replace(made, side=said, size_mm=8 + round(20 * choices[5]))
    if name == "Lymphadenopathy":
        station = f"{side} hilar" if side in ("left", "right") else "subcarinal"
        return replace(made, size_mm=11 + round(8 * choices[5]), attributes={"station": station})
    if name == "Arterial wall calcification":
        return replace(made, attributes={"site": "aorta"})
    if name == "Coronary artery wall calcification":
        return replace(made, attributes={"vessels": "LAD"})
    if name == "Medical material":
        device = "pacemaker" if side in ("left", "right") else "sternal wires"
        return replace(made, attributes={"device": device})
    return made


def size_text(size_mm: float, choice: float) -> str:
    """A length as reports give it: halves of a millimetre below 10 mm; large ones also in cm."""
    if size_mm >= 20 and choice > 0.75:
        return f"{size_mm / 10:.1f}".removesuffix(".0") + " cm"
    if size_mm < 10:
        return f"{round(size_mm * 2) / 2:g} mm"
    return f"{size_mm:.0f} mm"


def _pick(options: Sequence[str], choice: float) -> str:
    return options[int(choice * len(options))]


def _place(finding: FindingPlan, choices: Sequence[float]) -> str:
    if finding.attributes.get("type") == "apical" and finding.level == "upper" and choices[6] < 0.6:
        apices = {"both": ("the apices of both lungs", "both lung apices")}
        side = finding.side
        one = (f"the apex of the {side} lung", f"the {side} lung apex")
        return _pick(apices.get(side, one), choices[0])
    return lung_place(finding.side, finding.level, choices, absent=False)


def _has(place: str) -> str:
    several = ("both", "the lungs", "the upper lobes", "the lower lobes", "the apices", "the right "
               "middle lobe and", "the middle lobe and")  # fmt: skip
    return "have" if place.startswith(several) else "has"


def _severity(finding: FindingPlan, choices: Sequence[float]) -> dict[str, str]:
    name, grade = finding.name, finding.severity
    focal = finding.attributes.get("distribution") == "focal"
    if name in ("Lung nodule", "Lymphadenopathy", "Medical material", "Consolidation") or focal:
        return {}
    words = (
        _SEVERITY_OF_AMOUNT
        if name in _AMOUNTS
        else _SEVERITY_OF_EXTENT
        if name in _EXTENTS
        else _SEVERITY
    )
    return {
        "severity": _pick(words[grade], choices[1]),
        "severity_ly": _pick(_ADVERB[grade], choices[1]),
    }


def _count(count: int, choice: float) -> str:
    if count in _COUNTS and choice < 0.5:
        return _COUNTS[count]
    return _pick(("a few", "several") if count < 5 else ("several", "multiple", "numerous"), choice)


def _hedges(finding: FindingPlan, choices: Sequence[float]) -> dict[str, str]:
    """What a radiologist thinks it may be: no statement of its own."""
    kinds, size = finding.attributes, finding.size_mm or 0
    hedges: dict[str, str] = {}
    infections = (
        " (infection?)",
        ", evaluated primarily in favor of infection",
        ", which may be compatible with an infectious process",
        " (pneumonia?)",
        ", suggesting pneumonic infiltration",
    )
    if finding.name in ("Lung opacity", "Consolidation"):
        hedges["hedge_infection"] = _pick(infections, choices[5])
        hedges["hedge_in_brackets"] = _pick((" (infection?)", " (viral pneumonia?)"), choices[5])
    if finding.name == "Lung nodule":
        if kinds.get("location") == "perifissural":
            hedges["hedge_nodule"] = " (intrapulmonary lymph node?)"
            hedges["nearby"] = _pick(
                (", adjacent to the fissure", ", next to the fissure"), choices[5]
            )
        elif kinds.get("location") == "subpleural":
            hedges["nearby"] = _pick(
                (", adjacent to the pleura", ", close to the pleura"), choices[5]
            )
        if kinds.get("margin") == "spiculated" or size > MASS_MM:
            suspicious = (" (malignancy?)", ", suspicious for malignancy", " (primary tumor?)")
            hedges["hedge_mass"] = _pick(suspicious, choices[5])
            hedges["hedge_nodule"] = hedges["hedge_mass"]
        elif finding.count > 3:
            hedges["hedge_nodule"] = " (metastases?)"
        if size < 8 and kinds.get("texture") == "solid":
            hedges["hedge_in"] = ", nonspecific"
    if finding.name == "Mosaic attenuation pattern":
        causes = (" (small airway disease?)", " (small vessel disease?)", " (air trapping?)")
        hedges["hedge_mosaic"] = _pick(causes, choices[5])
    if finding.name == "Interlobular septal thickening":
        causes = (" (pulmonary edema?)", " (interstitial edema?)", ", possibly of cardiac origin")
        hedges["hedge_septa"] = _pick(causes, choices[5])
    if finding.name == "Peribronchial thickening":
        hedges["hedge_airways"] = _pick((" (bronchitis?)", " (airway disease?)"), choices[5])
    return hedges


def _special(finding: FindingPlan, choices: Sequence[float]) -> dict[str, str]:
    """Slots of single findings: vessels, stations, devices."""
    kinds: Mapping[str, str] = finding.attributes
    slots: dict[str, str] = {}
    if kinds.get("air bronchogram") == "yes":
        words = ("with air bronchograms", "containing air bronchograms", "with an air bronchogram")
        slots["bronchogram"] = _pick(words, choices[4])
    if "site" in kinds:
        artery = _pick(_AORTIC_SITES.get(kinds["site"], (f"the {kinds['site']}",)), choices[3])
        slots |= {
            "artery": artery,
            "along": f"along {artery}",
            "on_wall": f"on the wall of {artery}",
        }
    if "vessels" in kinds:
        vessels = [f"the {_VESSELS.get(v, v)}" for v in kinds["vessels"].split(", ")]
        listed = " and ".join([", ".join(vessels[:-1]), vessels[-1]] if vessels[1:] else vessels)
        vague = len(vessels) > 1 and choices[4] < 0.5
        slots["coronary"] = "the coronary arteries" if vague else listed
        slots["have"] = "have" if len(vessels) > 1 else "has"
    if "station" in kinds:
        station = kinds["station"]
        usual = (f"in the {station} area", f"at the {station} level")
        slots["at_station"] = _pick(_STATIONS.get(station, usual), choices[3])
    if kinds.get("content") in _CONTENTS:
        slots["content"] = _CONTENTS[kinds["content"]]
    if "leads" in kinds:
        slots["leads"] = (
            "one lead" if kinds["leads"] == "1" else f"{_COUNTS[int(kinds['leads'])]} leads"
        )
    if "vessel" in kinds:
        slots["vessel"] = _VESSELS.get(kinds["vessel"], kinds["vessel"])
    if "valve" in kinds:
        slots["valve"] = kinds["valve"]
    if "device" in kinds:
        side = f"{finding.side}-sided " if finding.side in ("left", "right") else ""
        slots["device"] = side + kinds["device"]
    return slots
