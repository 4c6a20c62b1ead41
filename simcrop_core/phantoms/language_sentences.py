"""Sentences about a phantom with what they state, where, and what they would be if flipped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from simcrop_core.phantoms.language_grammar import Template
from simcrop_core.phantoms.language_words import (
    LUNG_FINDINGS,
    absent_slots,
    example,
    finding_slots,
    size_text,
    topic,
)
from simcrop_core.phantoms.phrases_absent import FRAMES, OWN
from simcrop_core.phantoms.phrases_impression import CONCLUSIONS
from simcrop_core.phantoms.phrases_lungs import PRESENT as PRESENT_IN_LUNGS
from simcrop_core.phantoms.phrases_mediastinum import DEVICES
from simcrop_core.phantoms.phrases_mediastinum import PRESENT as PRESENT_IN_MEDIASTINUM
from simcrop_core.phantoms.phrases_organs import INTRODUCTIONS, ORGANS
from simcrop_core.phantoms.plan import FindingPlan
from simcrop_core.statements import LEVELS, SIDES, Facts, Level, Meaning, Side
from simcrop_core.study import Alternate, SentenceFacts

Wording = Literal["seen", "unseen", "auto"]
#: Share of a validation phantom's sentences whose wording is unseen.
UNSEEN_SHARE = 0.5

PRESENT: Mapping[str, tuple[Template, ...]] = {
    **PRESENT_IN_LUNGS,
    **PRESENT_IN_MEDIASTINUM,
    **DEVICES,
}
_CHOICES = 40
_OWN_NEGATION = 0.45
_FLIPPED_SIDE: dict[Side, Side] = {"left": "right", "right": "left"}
#: Findings with a side that a sentence can name.
SIDED = LUNG_FINDINGS | {"Pleural effusion", "Lymphadenopathy", "Medical material"}


@dataclass
class Speaker:
    """Makes sentences for one phantom.

    Attributes
    ----------
    rng
        Decides between wordings.
    facts
        What is true of the scan: counterfactuals are false of it.
    wording
        Which wordings may be used.
    axillae
        Whether the scan shows the axillae.
    aligned
        Whether the spine is straight.
    """

    rng: np.random.Generator
    facts: Facts
    wording: Literal["seen", "unseen", "mixed"]
    axillae: bool = True
    aligned: bool = True

    def __post_init__(self) -> None:
        self._used: set[str] = set()

    # -- kinds of sentences ----------------------------------------------------------------------

    def finding(self, finding: FindingPlan, region: str) -> SentenceFacts:
        """A sentence that says a finding is there."""
        unseen, choices = self._begin()
        template = self._template(PRESENT[topic(finding)], finding_slots(finding, choices), unseen)
        meaning = Meaning.of(finding.name, finding.side, finding.level)

        def say(other: FindingPlan) -> str:
            return template.fill(finding_slots(other, choices), choices[8:])

        flipped: list[tuple[str, Meaning]] = []
        for other in (*_other_sides(finding), *_other_levels(finding, choices[7])):
            if template.fits(finding_slots(other, choices)):
                flipped.append((say(other), Meaning.of(other.name, other.side, other.level)))
        side: Side = "any" if finding.side == "both" else finding.side
        flipped.append(self._absent_text(finding.name, side, finding.level, choices, unseen))
        return self._made(say(finding), "finding", meaning, region, flipped, template.id)

    def effusions(self, right: FindingPlan, left: FindingPlan, region: str) -> SentenceFacts:
        """One sentence for effusions on both sides."""
        unseen, choices = self._begin()
        sizes = right.size_mm or 0.0, left.size_mm or 0.0
        slots = {
            "size_right": size_text(sizes[0], choices[2]),
            "size_left": size_text(sizes[1], choices[2]),
            "size_max": size_text(max(sizes), choices[2]),
        }
        template = self._template(PRESENT["Pleural effusions"], slots, unseen)
        meaning = Meaning.of("Pleural effusion", "both")
        absent = self._absent_text("Pleural effusion", "any", "any", choices, unseen)
        text = template.fill(slots, choices[8:])
        return self._made(text, "finding", meaning, region, [absent], template.id)

    def absent(self, name: str, side: Side, level: Level, region: str) -> SentenceFacts:
        """A sentence that says a finding is not there."""
        unseen, choices = self._begin()
        template, slots = self._absent(name, side, level, choices, unseen)
        text = template.fill(slots, choices[8:])
        flipped: list[tuple[str, Meaning]] = []
        shown = example(name, side, level, choices)
        places = [shown, *_other_sides(shown), *_other_levels(shown, choices[7])]
        for other in places[1:]:
            others = absent_slots(name, other.side, other.level, choices, axillae=self.axillae)
            if template.fits(others):
                meaning = Meaning.of(name, other.side, other.level, present=False)
                flipped.append((template.fill(others, choices[8:]), meaning))
        words = finding_slots(shown, choices)
        presence = self._template(PRESENT[topic(shown)], words, unseen, fresh=False)
        flipped.append((presence.fill(words, choices[8:]), Meaning.of(name, shown.side, level)))
        meaning = Meaning.of(name, side, level, present=False)
        return self._made(text, "negative", meaning, region, flipped, template.id)

    def organ(self, name: str, region: str) -> SentenceFacts:
        """A sentence that says an organ is normal, or how it was looked at."""
        unseen, choices = self._begin()
        slots = {"aligned": ""} if self.aligned else {}
        template = self._template({**ORGANS, **INTRODUCTIONS}[name], slots, unseen)
        meaning, flipped = Meaning(), []
        if name == "heart":  # of normal size: not enlarged
            meaning = Meaning.of("Cardiomegaly", present=False)
            shown = example("Cardiomegaly", "any", "any", choices)
            words = finding_slots(shown, choices)
            enlarged = self._template(PRESENT["Cardiomegaly"], words, unseen, fresh=False)
            flipped.append((enlarged.fill(words, choices[8:]), Meaning.of("Cardiomegaly")))
        text = template.fill(slots, choices[8:])
        return self._made(text, "organ", meaning, region, flipped, template.id)

    def conclusion(self, finding: FindingPlan) -> str:
        """A finding in the few words of an Impression."""
        unseen, choices = self._begin()
        options = CONCLUSIONS.get(topic(finding)) or CONCLUSIONS[finding.name]
        slots = finding_slots(finding, choices)
        template = self._template(options, slots, unseen, fresh=False)
        return template.fill(slots, choices[8:])

    def plain(self, options: Sequence[Template]) -> str:
        """A sentence without slots."""
        unseen, choices = self._begin()
        return self._template(options, {}, unseen, fresh=False).fill({}, choices[8:])

    def is_absent(self, stated: Meaning) -> bool:
        """Whether it is sure that what a statement speaks of is not there.

        The lingula counts as the middle of the left lung, and yet lies in the left upper lobe.
        """
        places = [stated]
        if stated.level == LEVELS.index("upper") and stated.side != SIDES.index("right"):
            places.append(stated._replace(level=LEVELS.index("middle")))
            if stated.side == SIDES.index("any"):
                places[1] = places[1]._replace(side=SIDES.index("left"))
        return all(self.facts.truth(place._replace(present=0)) == 1 for place in places)

    def _is_false(self, stated: Meaning) -> bool:
        if stated.present:
            return self.is_absent(stated)
        return self.facts.truth(stated) == 0

    # -- parts -----------------------------------------------------------------------------------

    def _begin(self) -> tuple[bool, list[float]]:
        """Whether the next sentence is of unseen wording, and its choices."""
        choices = [float(c) for c in self.rng.random(_CHOICES)]
        if self.wording == "mixed":
            return choices[-1] < UNSEEN_SHARE, choices
        return self.wording == "unseen", choices

    def _template(
        self,
        options: Iterable[Template],
        slots: Mapping[str, str],
        unseen: bool,
        *,
        fresh: bool = True,
    ) -> Template:
        """One of the wordings that fit, of the asked kind; if ``fresh`` not one used already."""
        fitting = [t for t in options if t.fits(slots)]
        right = [t for t in fitting if t.unseen == unseen] or [t for t in fitting if not t.unseen]
        new = [t for t in right if t.id not in self._used] if fresh else right
        chosen = (new or right)[int(self.rng.integers(len(new or right)))]
        if fresh:
            self._used.add(chosen.id)
        return chosen

    def _absent(
        self, name: str, side: Side, level: Level, choices: Sequence[float], unseen: bool
    ) -> tuple[Template, dict[str, str]]:
        slots = absent_slots(name, side, level, choices, axillae=self.axillae)
        own = [t for t in OWN[name] if t.fits(slots) and t.unseen == unseen]
        placed = side in ("left", "right") or level != "any"
        if placed:  # a wording of its own must say where
            own = [t for t in own if _says_where(t)]
        options = own if own and choices[6] < _OWN_NEGATION else FRAMES
        return self._template(options, slots, unseen), slots

    def _absent_text(
        self, name: str, side: Side, level: Level, choices: Sequence[float], unseen: bool
    ) -> tuple[str, Meaning]:
        slots = absent_slots(name, side, level, choices, axillae=self.axillae)
        template = self._template(FRAMES, slots, unseen, fresh=False)
        return template.fill(slots, choices[8:]), Meaning.of(name, side, level, present=False)

    def _made(
        self,
        text: str,
        kind: Literal["organ", "finding", "negative"],
        meaning: Meaning,
        region: str,
        flipped: Iterable[tuple[str, Meaning]],
        wording: str,
    ) -> SentenceFacts:
        false = tuple(
            Alternate(other, stated)
            for other, stated in flipped
            if other != text and self._is_false(stated)
        )
        return SentenceFacts(text, kind, meaning, region, false, wording)


def _says_where(template: Template) -> bool:
    return any(
        slot in template.pattern
        for slot in ("{in_place}", "{where}", "{on_side}", "{hemithorax}", "{pleural_space}")
    )


def _other_sides(finding: FindingPlan) -> list[FindingPlan]:
    """The finding on the other side, where it has one that can be named."""
    if finding.name not in SIDED or finding.side not in _FLIPPED_SIDE:
        return []
    side = _FLIPPED_SIDE[finding.side]
    swap: Callable[[str], str] = lambda text: text.replace(finding.side, side)  # noqa: E731
    attributes = {key: swap(value) for key, value in finding.attributes.items()}
    if "station" in attributes and attributes == dict(finding.attributes):
        return []  # a station of one side only
    return [replace(finding, side=side, lobe=swap(finding.lobe), attributes=attributes)]


def _other_levels(finding: FindingPlan, choice: float) -> list[FindingPlan]:
    """The finding in another lobe of the same side."""
    if finding.name not in LUNG_FINDINGS or finding.level == "any":
        return []
    others: list[Level] = [level for level in LEVELS[1:] if level != finding.level]
    return [replace(finding, level=others[int(choice * len(others))])]


def sides_and_levels() -> list[tuple[Side, Level]]:
    """Every place that a statement can name."""
    return [(side, level) for side in SIDES[:3] for level in LEVELS]
