"""Statements and facts against every way things could be."""

from __future__ import annotations

from itertools import chain, combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simcrop_core.statements import FINDINGS, LEVELS, NO_FINDING, SIDES, UNKNOWN, Facts, Meaning

NODULE = "Lung nodule"
PLACES = [(side, level) for side in SIDES for level in LEVELS]


def subsets(items: list) -> list[set]:
    return [set(c) for c in chain.from_iterable(combinations(items, n) for n in range(4))]


def worlds(occurrence: tuple[str, str]) -> list[set[tuple[str, str]]]:
    """All that one occurrence may mean: sets of places, "" being the midline or no lobe."""
    side, level = occurrence
    sides = {
        "left": [{"left"}],
        "right": [{"right"}],
        "both": [{"left", "right"}],
        "any": [s or {""} for s in subsets(["left", "right"])[:4]],
    }[side]
    if level != "any":
        found = [set(product(s, [level])) for s in sides]
        # The lingula, the middle of the left lung, is a part of the left upper lobe.
        lingulas = [w | {("left", "upper")} for w in found if ("left", "middle") in w]
        return found + lingulas
    found = []
    for where in sides:
        # What has no lobe of its own may be in any lobes of each of its sides, or in none.
        for levels in product(subsets(list(LEVELS[1:])), repeat=len(where)):
            pairs = zip(sorted(where), levels, strict=True)
            found.append({(s, one) for s, each in pairs for one in each or {""}})
    return found


def holds(world: set[tuple[str, str]], side: str, level: str) -> bool:
    if side == "both":
        return holds(world, "left", level) and holds(world, "right", level)
    return any(side in ("any", s) and level in ("any", one) for s, one in world)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(PLACES), max_size=2))
def test_facts_are_what_holds_in_every_world(occurrences: list[tuple[str, str]]) -> None:
    facts = Facts.from_occurrences((NODULE, side, level) for side, level in occurrences)
    possible = [set().union(*each) for each in product(*map(worlds, occurrences))]
    for side, level in PLACES:
        answers = {holds(world, side, level) for world in possible}
        expected = int(answers.pop()) if len(answers) == 1 else UNKNOWN
        assert facts.truth(Meaning.of(NODULE, side, level)) == expected, (occurrences, side, level)
        denied = facts.truth(Meaning.of(NODULE, side, level, present=False))
        assert denied == (UNKNOWN if expected == UNKNOWN else 1 - expected)
    for name in FINDINGS:
        if name != NODULE:
            assert (facts.table_FSL[FINDINGS.index(name)] == 0).all()


def test_labels_go_in_and_come_out() -> None:
    labels = {name: n % 2 for n, name in enumerate(FINDINGS)}
    facts = Facts.from_labels(labels)
    assert facts.labels() == labels
    present, absent = FINDINGS[1], FINDINGS[0]
    assert facts.truth(Meaning.of(absent, "left", "upper", present=False)) == 1
    assert facts.truth(Meaning.of(present)) == 1
    assert facts.truth(Meaning.of(present, "left")) == UNKNOWN
    assert Facts.from_labels({present: 1}).labels()[absent] == UNKNOWN
    assert set(Facts.unknown().labels().values()) == {UNKNOWN}


def test_a_statement_about_nothing_is_neither_true_nor_false() -> None:
    facts = Facts.from_occurrences([])
    assert Meaning().finding == NO_FINDING
    assert facts.truth(Meaning()) == UNKNOWN
    assert facts.truth(Meaning.of(None)) == UNKNOWN


def test_facts_and_meanings_refuse_what_they_cannot_be() -> None:
    with pytest.raises(ValueError, match="int8"):
        Facts(np.zeros((18, 4, 4)))
    with pytest.raises(ValueError, match="int8"):
        Facts(np.zeros((17, 4, 4), np.int8))
    with pytest.raises(ValueError, match="not in tuple"):
        Meaning.of("Pneumonia")
    with pytest.raises(ValueError, match="read-only"):
        Facts.unknown().table_FSL[0, 0, 0] = 1


def test_what_is_doubtful_is_neither_there_nor_not() -> None:
    opacity, any_ = "Lung opacity", Meaning.of("Lung opacity")
    facts = Facts.from_occurrences([], [(opacity, "left", "lower")])
    assert facts.truth(any_) == UNKNOWN
    assert facts.truth(Meaning.of(opacity, "left", "lower", False)) == UNKNOWN
    assert facts.truth(Meaning.of(opacity, "left", "upper", False)) == 1
    assert facts.truth(Meaning.of(opacity, "right", present=False)) == 1
    both = Facts.from_occurrences([(opacity, "left", "lower")], [(opacity, "left", "any")])
    assert both.truth(any_) == 1
    assert both.truth(Meaning.of(opacity, "left", "upper")) == UNKNOWN
