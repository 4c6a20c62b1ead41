"""Means over studies with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval and the number of things it was formed of."""

    value: float
    low: float
    high: float
    count: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def mean_over_studies(
    values: Sequence[float] | NDArray[np.floating],
    studies: Sequence[int] | NDArray[np.integer],
    *,
    draws: int = 1000,
    seed: int = 0,
) -> Estimate | None:
    """The mean of values with the percentile bootstrap over whole studies; None of no values.

    Sentences of one study are not independent, so studies are drawn, each with all its values.
    """
    values_F = np.asarray(values, np.float64)
    if values_F.size == 0:
        return None
    _, number = np.unique(np.asarray(studies), return_inverse=True)
    totals = np.bincount(number, weights=values_F)
    counts = np.bincount(number).astype(np.float64)
    weight = drawn_weights(len(totals), draws, seed)
    means = (weight @ totals) / (weight @ counts)
    low, high = np.percentile(means, [2.5, 97.5])
    return Estimate(float(values_F.mean()), float(low), float(high), int(values_F.size))


def bootstrap(
    figure: Callable[[NDArray[np.intp]], float | None],
    studies: int,
    count: int,
    *,
    draws: int = 200,
    seed: int = 0,
) -> Estimate | None:
    """Any figure of a choice of studies (indices, with repetition), with its interval.

    Draws for which it does not exist are left out; None where it does not exist at all.
    """
    value = figure(np.arange(studies))
    if value is None:
        return None
    rng = np.random.default_rng(seed)
    drawn = [figure(np.sort(rng.integers(studies, size=studies))) for _ in range(draws)]
    found = [x for x in drawn if x is not None]
    low, high = np.percentile(found, [2.5, 97.5]) if found else (value, value)
    return Estimate(value, float(low), float(high), count)


def drawn_weights(studies: int, draws: int, seed: int) -> NDArray[np.float64]:
    """How often each draw of the bootstrap holds each study, ``(draws, studies)``."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(studies, np.full(studies, 1 / studies), size=draws).astype(np.float64)
