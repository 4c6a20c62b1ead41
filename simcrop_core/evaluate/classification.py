"""How well scores tell labels: areas under the ROC curve and accuracy, with intervals.

Shapes in names: N studies; K labels, or classes; B draws of the bootstrap; G groups of tied scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcrop_core.evaluate.intervals import Estimate, drawn_weights
from simcrop_core.statements import UNKNOWN

_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class ClassificationResult:
    """A figure for each label or class and one over all of them.

    Attributes
    ----------
    metric
        ``"auc"``: area under the ROC curve, the mean over labels unweighted; ``"accuracy"``: share
        of studies whose most likely class is true, and of each class the share that is found.
    overall, by_label
        The figures with their 95 % intervals by bootstrap over studies.
    undefined
        Labels for which there is no figure: positives or negatives are missing.
    """

    metric: str
    overall: Estimate | None
    by_label: dict[str, Estimate]
    undefined: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "metric": self.metric,
            "overall": None if self.overall is None else self.overall.to_dict(),
            "by_label": {name: found.to_dict() for name, found in self.by_label.items()},
            "undefined": list(self.undefined),
        }

    def lines(self) -> list[str]:
        """The same for people: a row a label, with its number of positives or studies."""
        width = max([len("mean"), *map(len, self.by_label), *map(len, self.undefined)])
        what = "AUC (95 %)" if self.metric == "auc" else "accuracy (95 %)"
        count = "positives" if self.metric == "auc" else "studies"
        rows = [f"{'':<{width}}  {what:<24}  {count}"]
        for name, found in self.by_label.items():
            rows.append(f"{name:<{width}}  {found!s:<24}  {found.count}")
        rows += [f"{name:<{width}}  one class only" for name in self.undefined]
        name = "mean" if self.metric == "auc" else "all"
        rows.append(f"{name:<{width}}  {'-' if self.overall is None else self.overall}")
        return [row.rstrip() for row in rows]


def auc_by_label(
    scores_NK: NDArray[np.floating],
    truth_NK: NDArray[np.integer],
    names: Sequence[str],
    *,
    draws: int = 1000,
    seed: int = 0,
) -> ClassificationResult:
    """Areas under the ROC curve of labels that are 1, 0 or ``UNKNOWN``, which is left out.

    Ties count half. The mean is over the labels that have both classes; so it is in each draw.
    """
    studies = len(truth_NK)
    weights_BN = np.concatenate([np.ones((1, studies)), drawn_weights(studies, draws, seed)])
    columns = zip(scores_NK.T, truth_NK.T, strict=True)
    areas_KB = np.stack([_areas(scores, truth, weights_BN) for scores, truth in columns])
    each = {
        name: _estimate(areas_B, int((truth == 1).sum()))
        for name, areas_B, truth in zip(names, areas_KB, truth_NK.T, strict=True)
    }
    known = ~np.isnan(areas_KB)
    with np.errstate(invalid="ignore"):
        means_B = np.where(known, areas_KB, 0).sum(axis=0) / known.sum(axis=0)
    by_label, undefined = _parted(each)
    return ClassificationResult("auc", _estimate(means_B, len(by_label)), by_label, undefined)


def accuracy(
    scores_NK: NDArray[np.floating],
    truth_N: NDArray[np.integer],
    names: Sequence[str],
    *,
    draws: int = 1000,
    seed: int = 0,
) -> ClassificationResult:
    """Share of studies whose class of the highest score is the true one, and that of each class."""
    studies = len(truth_N)
    weights_BN = np.concatenate([np.ones((1, studies)), drawn_weights(studies, draws, seed)])
    right_N = scores_NK.argmax(axis=1) == truth_N
    each = {}
    for number, name in enumerate(names):
        own_N = truth_N == number
        with np.errstate(invalid="ignore", divide="ignore"):
            shares_B = weights_BN @ (own_N & right_N) / (weights_BN @ own_N)
        each[name] = _estimate(shares_B, int(own_N.sum()))
    overall = _estimate(weights_BN @ right_N / studies, studies)
    return ClassificationResult("accuracy", overall, *_parted(each))


def _parted(
    each: Mapping[str, Estimate | None],
) -> tuple[dict[str, Estimate], tuple[str, ...]]:
    """The labels that have a value, and the names of those that have none."""
    known = {name: found for name, found in each.items() if found is not None}
    return known, tuple(name for name in each if name not in known)


def _estimate(values_B: NDArray[np.float64], count: int) -> Estimate | None:
    """The first value, with the interval of the others; None where it does not exist."""
    if np.isnan(values_B[0]):
        return None
    value, drawn = float(values_B[0]), values_B[1:][~np.isnan(values_B[1:])]
    low, high = np.percentile(drawn, [2.5, 97.5]) if len(drawn) else (value, value)
    return Estimate(value, float(low), float(high), count)


def _areas(
    scores_N: NDArray[np.floating], truth_N: NDArray[np.integer], weights_BN: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The area for each row of weights; NaN where a class has none."""
    known = truth_N != UNKNOWN
    scores, truth = scores_N[known], truth_N[known]
    if not len(scores):
        return np.full(len(weights_BN), np.nan)
    order = np.argsort(scores, kind="stable")
    ranked = scores[order]
    first_G = np.concatenate([[0], np.flatnonzero(ranked[1:] > ranked[:-1]) + 1])
    positive = truth[order] == 1
    areas = []
    for start in range(0, len(weights_BN), _AT_ONCE):
        weights = weights_BN[start : start + _AT_ONCE, known][:, order]
        pos_BG = np.add.reduceat(weights * positive, first_G, axis=1)
        neg_BG = np.add.reduceat(weights * ~positive, first_G, axis=1)
        below_BG = np.cumsum(neg_BG, axis=1) - neg_BG / 2
        with np.errstate(invalid="ignore", divide="ignore"):
            won_B = (pos_BG * below_BG).sum(axis=1)
            areas.append(won_B / (pos_BG.sum(axis=1) * neg_BG.sum(axis=1)))
    return np.concatenate(areas)
