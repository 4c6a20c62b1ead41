"""Where sentences of a meaning usually point: the baseline that never looks at the image."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from simcrop_core.evaluate.cases import Case, Said
from simcrop_core.statements import NO_FINDING, Meaning
from simcrop_core.study import Kind

#: Examples that a meaning needs before its mean region is worth more than that of the same finding
#: with less detail.
MIN_EXAMPLES = 10

_Key = tuple[object, ...]


class Prior:
    """The mean training region of each statement's meaning, on the grid of patches.

    A statement of which training has fewer than `MIN_EXAMPLES` falls back to the same finding with
    less detail: without level, without side, then to all sentences of its kind.
    """

    def __init__(self) -> None:
        self._sums: dict[_Key, NDArray[np.float64]] = {}
        self._counts: dict[_Key, int] = {}

    @classmethod
    def of(cls, cases: Iterable[Case]) -> Prior:
        """The prior of training cases; none of them may be evaluated on."""
        prior = cls()
        for case in cases:
            for said in case.said:
                prior.add(said)
        return prior

    def add(self, said: Said) -> None:
        """Learn from one sentence, if it has a region."""
        if said.coverage_N is not None:
            self.learn(said.kind, said.meaning, said.region, said.coverage_N)

    def learn(
        self, kind: Kind, meaning: Meaning, region: str | None, coverage_N: NDArray[np.floating]
    ) -> None:
        """Learn from how much of each patch the region of a sentence covers."""
        for key in _keys(kind, meaning, region):
            total = self._sums.setdefault(key, np.zeros(len(coverage_N)))
            total += coverage_N
            self._counts[key] = self._counts.get(key, 0) + 1

    def region(self, said: Said) -> NDArray[np.float64] | None:
        """The mean region of what a sentence means, ``(N,)``; None where nothing is known."""
        keys = _keys(said.kind, said.meaning, said.region)
        known = [key for key in keys if key in self._sums]
        often = [key for key in known if self._counts[key] >= MIN_EXAMPLES]
        # Where even the kind is rare, what is known of most sentences.
        key = next(iter(often or known[-1:]), None)
        return None if key is None else self._sums[key] / self._counts[key]


def _keys(kind: Kind, meaning: Meaning, region: str | None) -> list[_Key]:
    """What a sentence means, from all that is known of it to its kind alone."""
    finding, side, level, present = meaning
    alone: _Key = (kind,)
    if finding == NO_FINDING:
        # The only meaning of a normal statement is the organ that it speaks of.
        return [alone] if region is None else [(kind, region), alone]
    return [
        (kind, finding, side, level, present),
        (kind, finding, side, present),
        (kind, finding, present),
        alone,
    ]
