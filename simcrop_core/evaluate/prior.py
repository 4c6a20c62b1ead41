"""Where sentences of a meaning usually point: the baseline that never looks at the image."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from simcrop_core.evaluate.cases import Case, Said
from simcrop_core.statements import NO_FINDING

_Key = tuple[object, ...]


class Prior:
    """The mean training region of each statement's meaning, on the grid of patches.

    A statement of which training has no example falls back to the same finding with less detail:
    without level, without side, then to all sentences of its kind.
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
                if said.coverage_N is not None:
                    prior.add(said)
        return prior

    def add(self, said: Said) -> None:
        """Learn from one sentence with a region."""
        assert said.coverage_N is not None
        for key in _keys(said):
            total = self._sums.setdefault(key, np.zeros(len(said.coverage_N)))
            total += said.coverage_N
            self._counts[key] = self._counts.get(key, 0) + 1

    def region(self, said: Said) -> NDArray[np.float64] | None:
        """The mean region of what a sentence means, ``(N,)``; None where nothing is known."""
        for key in _keys(said):
            if key in self._sums:
                return self._sums[key] / self._counts[key]
        return None


def _keys(said: Said) -> list[_Key]:
    """What a sentence means, from all that is known of it to its kind alone."""
    finding, side, level, present = said.meaning
    kind: _Key = (said.kind,)
    if finding == NO_FINDING:
        # The only meaning of a normal statement is the organ that it speaks of.
        return [kind if said.region is None else (said.kind, said.region), kind]
    return [
        (said.kind, finding, side, level, present),
        (said.kind, finding, side, present),
        (said.kind, finding, present),
        kind,
    ]
