"""The report of a phantom: what is said of it, in which order, in which words.

Everything that is there is said in the Findings; of what is not there and of what is normal a
part is said, as radiologists do, and nothing of what the scan does not show. The order of organs
varies as it does in CT-RATE.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count

import numpy as np

from simcrop_core.phantoms import VALIDATION_SEED
from simcrop_core.phantoms.language_heights import LEVEL_HEIGHTS, ORGAN_HEIGHTS, absent_heights
from simcrop_core.phantoms.language_sentences import (
    Speaker,
    Wording,
    sides_and_levels,
)
from simcrop_core.phantoms.language_words import LUNG_FINDINGS, MASS_MM
from simcrop_core.phantoms.phrases_impression import ADVICE, NORMAL
from simcrop_core.phantoms.plan import FindingPlan, PhantomPlan
from simcrop_core.statements import FINDINGS, Facts, Level, Meaning, Side
from simcrop_core.study import SentenceFacts

#: Number of the report's stream: ``np.random.default_rng([seed, STREAM_REPORT])``.
STREAM_REPORT = 6


@dataclass(frozen=True, slots=True)
class Shown:
    """What a scan shows of a phantom.

    Attributes
    ----------
    plan
        The phantom, with those findings only that the scan shows.
    heights_mm
        From where to where the scan reaches along the body: millimetres of the standard chest
        above the carina (see ``anatomy_frame``).
    axillae
        Whether the scan shows the axillae.
    """

    plan: PhantomPlan
    heights_mm: tuple[float, float]
    axillae: bool

    def holds(self, heights_mm: tuple[float, float]) -> bool:
        """Whether the scan reaches at least from one height to another."""
        low, high = self.heights_mm
        return low <= heights_mm[0] and heights_mm[1] <= high

    @property
    def facts(self) -> Facts:
        """What is true of the scan.

        Where there is a ground-glass nodule, or ground glass around a consolidation, nobody could
        say that the lung has no opacity.
        """
        there = [(f.name, f.side, f.level) for f in self.plan.findings]
        hazy = [
            ("Lung opacity", f.side, f.level)
            for f in self.plan.findings
            if f.name == "Consolidation"
            or f.attributes.get("texture") in ("ground glass", "part-solid")
        ]
        return Facts.from_occurrences(there, hazy)


@dataclass(frozen=True, slots=True)
class WrittenReport:
    """A report's text and what its Findings' sentences state, in order."""

    text: str
    sentences: tuple[SentenceFacts, ...]


# How often a finding is said not to be there, by one who says everything.
_NEGATED: dict[str, float] = {
    "Medical material": 0.05,
    "Arterial wall calcification": 0.15,
    "Cardiomegaly": 0.15,
    "Pericardial effusion": 0.8,
    "Coronary artery wall calcification": 0.15,
    "Hiatal hernia": 0.18,
    "Lymphadenopathy": 0.85,
    "Emphysema": 0.2,
    "Atelectasis": 0.2,
    "Lung nodule": 0.45,
    "Lung opacity": 0.3,
    "Pulmonary fibrotic sequela": 0.15,
    "Pleural effusion": 0.85,
    "Mosaic attenuation pattern": 0.12,
    "Peribronchial thickening": 0.12,
    "Consolidation": 0.55,
    "Bronchiectasis": 0.2,
    "Interlobular septal thickening": 0.15,
}
# The same for the other side or another lobe where the finding is in one.
_NEGATED_ELSEWHERE = {"Pleural effusion": 0.55, "Lung nodule": 0.3, "Consolidation": 0.3}
_NEGATED_ELSEWHERE_ELSE = 0.15
_NEGATED_ONE_PLACE = 0.05  # of one side or lobe only, though it is nowhere

# How often an organ is said to be normal, by one who says everything.
_ORGANS: dict[str, float] = {
    "airways": 0.95,
    "heart": 0.8,
    "vessels": 0.6,
    "aorta": 0.35,
    "pulmonary arteries": 0.2,
    "thyroid": 0.25,
    "esophagus": 0.6,
    "mediastinum": 0.2,
    "lungs": 0.7,
    "no mass": 0.4,
    "pleura": 0.35,
    "liver": 0.5,
    "spleen": 0.3,
    "stomach": 0.1,
    "kidneys": 0.3,
    "adrenal glands": 0.55,
    "upper abdomen": 0.55,
    "spine": 0.6,
    "ribs": 0.2,
    "sternum": 0.12,
    "bones": 0.6,
    "lung window": 0.35,
    "no contrast": 0.35,
    "contrast": 0.2,
}
#: Which part of the phantom a statement about an organ speaks of: a name of ``truth_regions``.
ORGAN_REGIONS: dict[str, str] = {
    "vessels": "great vessels",
    "pulmonary arteries": "pulmonary artery",
    "esophagus": "oesophagus",
    "no mass": "lungs",
    "pleura": "pleural spaces",
    "lung window": "lungs",
    "no contrast": "mediastinum",
    "contrast": "great vessels",
}
_SECTIONS: dict[str, tuple[str, ...]] = {
    "airways": ("airways", "endotracheal tube", "tracheostomy tube"),
    "heart": (
        "heart",
        "no contrast",
        "contrast",
        "Cardiomegaly",
        "Pericardial effusion",
        "Coronary artery wall calcification",
        "coronary stent",
        "bypass clips",
        "valve prosthesis",
    ),
    "vessels": (
        "vessels",
        "aorta",
        "pulmonary arteries",
        "Arterial wall calcification",
        "Medical material",
    ),
    "thyroid": ("thyroid",),
    "esophagus": ("esophagus", "Hiatal hernia", "nasogastric tube"),
    "nodes": ("Lymphadenopathy", "mediastinum"),
    "lungs": ("lungs", "no mass", "lung window", *sorted(LUNG_FINDINGS)),
    "pleura": ("pleura", "Pleural effusion", "pleural drain"),
    "abdomen": ("liver", "spleen", "stomach", "kidneys", "adrenal glands", "upper abdomen"),
    "bones": ("spine", "ribs", "sternum", "bones", "sternal wires"),
}
_SECTION_OF = {name: section for section, names in _SECTIONS.items() for name in names}
_ORDERS: tuple[tuple[float, str], ...] = (
    (0.4, "airways heart vessels thyroid esophagus nodes lungs pleura abdomen bones"),
    (0.15, "airways thyroid nodes heart vessels esophagus lungs pleura abdomen bones"),
    (0.15, "airways lungs pleura heart vessels nodes esophagus thyroid abdomen bones"),
    (0.1, "heart vessels pleura nodes esophagus airways lungs thyroid abdomen bones"),
    (0.1, "lungs pleura airways nodes heart vessels esophagus thyroid abdomen bones"),
    (0.1, "airways esophagus vessels heart nodes thyroid pleura lungs bones abdomen"),
)


def write_report(shown: Shown, wording: Wording = "auto") -> WrittenReport:
    """Write the report of what a scan shows of a phantom.

    ``wording``: ``"seen"`` or ``"unseen"`` for the wordings of training or those held out from it;
    ``"auto"`` is seen, and of phantoms for validation half of the sentences are unseen.
    """
    seed = shown.plan.seed
    validation = wording == "auto" and seed >= VALIDATION_SEED
    rng = np.random.default_rng([seed, STREAM_REPORT])
    speaker = Speaker(
        rng,
        shown.facts,
        "mixed" if validation else "seen" if wording == "auto" else wording,
        axillae=shown.axillae,
        aligned=abs(shown.plan.patient.scoliosis_mm) < 8,
    )
    writer = _Writer(shown, rng, speaker)
    sentences = writer.findings()
    return WrittenReport(_text(rng, sentences, writer.impression()), sentences)


class _Writer:
    def __init__(self, shown: Shown, rng: np.random.Generator, speaker: Speaker) -> None:
        self.shown, self.rng, self.say = shown, rng, speaker
        self.facts = speaker.facts
        self.present = {f.name for f in shown.plan.findings}
        # Some say everything, some next to nothing.
        self.talkative = float(rng.uniform(0.55, 1.35))

    def findings(self) -> tuple[SentenceFacts, ...]:
        items = [*self._present(), *self._absent(), *self._organs()]
        if sum(section == "lungs" for section, _, _ in items) == 1:  # nothing to introduce
            items = [item for item in items if not item[2].wording.startswith("lung-window")]
        shares = np.array([share for share, _ in _ORDERS])
        order = _ORDERS[int(self.rng.choice(len(_ORDERS), p=shares / shares.sum()))][1].split()
        items.sort(key=lambda item: (order.index(item[0]), item[1]))
        return tuple(sentence for _, _, sentence in items)

    def impression(self) -> list[str]:
        lines = []
        told: set[tuple[str, str, str]] = set()
        for finding in _effusions_joined(self.shown.plan.findings):
            key = finding.name, finding.side, finding.level
            if key not in told and self.rng.random() < 0.9:
                told.add(key)
                lines.append(self.say.conclusion(finding))
        lines = [lines[i] for i in self.rng.permutation(len(lines))]
        lines = list(dict.fromkeys(lines)) or ([] if self.present else [self.say.plain(NORMAL)])
        if self.present and (not lines or self.rng.random() < 0.25):
            lines.append(self.say.plain(ADVICE))
        return lines

    # Each gives (section, place within it, sentence).

    def _present(self) -> list[tuple[str, float, SentenceFacts]]:
        items = []
        plans = list(enumerate(self.shown.plan.findings))
        effusions = {f.side: (n, f) for n, f in plans if f.name == "Pleural effusion"}
        if {"left", "right"} <= set(effusions) and self.rng.random() < 0.65:
            (m, right), (n, left) = effusions["right"], effusions["left"]
            plans = [(number, f) for number, f in plans if number not in (m, n)]
            sentence = self.say.effusions(right, left, finding_region(right.name, m, n))
            items.append(("pleura", self.rng.uniform(0.3, 1.2), sentence))
        for number, finding in plans:
            key = finding.attributes.get("device", finding.name)
            section = _SECTION_OF.get(key) or _SECTION_OF[finding.name]
            sentence = self.say.finding(finding, finding_region(finding.name, number))
            items.append((section, self.rng.uniform(0.3, 1.2), sentence))
        return items

    def _absent(self) -> list[tuple[str, float, SentenceFacts]]:
        items = []
        for name in FINDINGS:
            if not self.shown.holds(absent_heights(name)):
                continue
            for side, level in self._absent_places(name):
                region = absent_region(name, side, level)
                sentence = self.say.absent(name, side, level, region)
                items.append((_SECTION_OF[name], self.rng.uniform(0.5, 1.5), sentence))
        return items

    def _absent_places(self, name: str) -> list[tuple[Side, Level]]:
        """Where a finding is said not to be."""
        rng, talk = self.rng, self.talkative
        draws = rng.random(2)
        elsewhere = [p for p in sides_and_levels() if p != ("any", "any")]
        elsewhere = [p for p in elsewhere if self._may_deny(name, *p)]
        some = elsewhere[int(rng.integers(len(elsewhere)))] if elsewhere else None
        if name not in self.present:
            if draws[0] < _NEGATED[name] * talk:
                # Nowhere, unless it is open whether it is there.
                return [("any", "any")] if self.say.is_absent(Meaning.of(name)) else []
            return [some] if some and draws[1] < _NEGATED_ONE_PLACE else []
        if name == "Pleural effusion" and some:
            some = next((p for p in elsewhere if p[1] == "any"), None)
        likely = _NEGATED_ELSEWHERE.get(name, _NEGATED_ELSEWHERE_ELSE) * talk
        return [some] if some and draws[0] < likely else []

    def _may_deny(self, name: str, side: Side, level: Level) -> bool:
        if name not in LUNG_FINDINGS and (name != "Pleural effusion" or level != "any"):
            return False
        if level != "any" and not self.shown.holds(LEVEL_HEIGHTS[level]):
            return False
        return self.say.is_absent(Meaning.of(name, side, level))

    def _organs(self) -> list[tuple[str, float, SentenceFacts]]:
        items = []
        for name, share in _ORGANS.items():
            wanted = self.rng.random() < share * self.talkative
            if wanted and self.shown.holds(ORGAN_HEIGHTS[name]):
                if not self._is_normal(name):
                    continue
                place = -1.0 if name in ("lung window", "no contrast") else self.rng.uniform(0, 1)
                sentence = self.say.organ(name, ORGAN_REGIONS.get(name, name))
                items.append((_SECTION_OF[name], place, sentence))
        return items

    def _is_normal(self, name: str) -> bool:
        plan = self.shown.plan
        devices = {f.attributes.get("device") for f in plan.findings}
        nodules = [f.size_mm or 0 for f in plan.findings if f.name == "Lung nodule"]
        widened = plan.patient.aorta_scale > 1.12
        return {
            "heart": "Cardiomegaly" not in self.present,
            "vessels": not widened,
            "aorta": not widened,
            "mediastinum": not self.present & {"Lymphadenopathy", "Hiatal hernia", "Cardiomegaly"},
            "lungs": not self.present & LUNG_FINDINGS,
            "no mass": max(nodules, default=0) < MASS_MM / 2,
            "pleura": "Pulmonary fibrotic sequela" not in self.present,
            "stomach": "Hiatal hernia" not in self.present and "nasogastric tube" not in devices,
            "esophagus": "Hiatal hernia" not in self.present,
            "upper abdomen": "Hiatal hernia" not in self.present,
            "sternum": "sternal wires" not in devices,
            "bones": "sternal wires" not in devices,
            "no contrast": plan.scanner.contrast == "none",
            "contrast": plan.scanner.contrast != "none",
        }.get(name, True)


def finding_region(name: str, *numbers: int) -> str:
    """Where findings are, by their numbers in the plan: ``"finding 3 lung nodule"``."""
    which = " ".join(map(str, sorted(numbers)))
    return f"finding{'s' * (len(numbers) > 1)} {which} {name.lower()}"


def absent_region(name: str, side: Side, level: Level) -> str:
    """Where a finding would be that is said not to be there: a name of ``truth_regions``."""
    sided = f"{side} " if side in ("left", "right") else ""
    if name in LUNG_FINDINGS:
        if (side, level) == ("left", "middle"):
            return "lingula"
        if level == "any":
            return f"{sided}lung" if sided else "lungs"
        return f"{sided}{level} {'lobe' if sided else 'lobes'}"
    if name == "Pleural effusion":
        return f"{sided}pleural space" if sided else "pleural spaces"
    return {
        "Medical material": "body",
        "Arterial wall calcification": "aorta",
        "Cardiomegaly": "heart",
        "Pericardial effusion": "pericardium",
        "Coronary artery wall calcification": "coronary arteries",
        "Hiatal hernia": "hiatus",
        "Lymphadenopathy": "lymph node stations",
    }[name]


def _text(
    rng: np.random.Generator, sentences: tuple[SentenceFacts, ...], impression: list[str]
) -> str:
    """The report as a text: Findings, then Impression, laid out in one of several ways."""
    findings, conclusion = (
        ("Findings:", "Impression:"),
        ("FINDINGS:", "IMPRESSION:"),
        ("Findings:", "Conclusion:"),
    )[int(rng.integers(3))]
    gap = "\n" if rng.random() < 0.15 else " "
    numbers = count(1)
    mark = ("", "- ", "• ", "1. ")[int(rng.integers(4))]
    lines = [f"{next(numbers)}. {line}" if mark == "1. " else mark + line for line in impression]
    body = gap.join(sentence.text for sentence in sentences)
    between = " " if mark == "" else "\n"
    return f"{findings}\n{body}\n\n{conclusion}\n{between.join(lines)}\n"


def _effusions_joined(findings: tuple[FindingPlan, ...]) -> list[FindingPlan]:
    """The findings with one effusion of both sides in place of one of each."""
    effusions = [f for f in findings if f.name == "Pleural effusion"]
    if {f.side for f in effusions} != {"left", "right"}:
        return list(findings)
    larger = max(effusions, key=lambda f: f.size_mm or 0)
    joined = replace(larger, side="both", attributes={})
    return [joined, *(f for f in findings if f.name != "Pleural effusion")]
