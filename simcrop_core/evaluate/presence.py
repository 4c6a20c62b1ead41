"""Whether a model tells true statements from false ones: areas under the curve.

Shapes in names: S statements; V studies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.functional.classification import binary_auroc

from simcrop_core.evaluate.intervals import Estimate, bootstrap
from simcrop_core.statements import FINDINGS, NO_FINDING, UNKNOWN, Facts, Meaning


@dataclass(frozen=True, slots=True)
class Statement:
    """A sentence to be asked of every study.

    Attributes
    ----------
    text, meaning
        The sentence and what it states.
    unseen
        Whether its wording is held out from training; None where nobody knows.
    """

    text: str
    meaning: Meaning
    unseen: bool | None = None


def auc(scores: NDArray[np.floating], truth: NDArray[np.integer]) -> float | None:
    """Area under the ROC curve, ties counted half; None unless both classes are there.

    ``truth`` is 1, 0, or ``UNKNOWN``, which is left out.
    """
    known = truth != UNKNOWN
    labels = truth[known]
    if not (labels == 1).any() or not (labels == 0).any():
        return None
    # Ranks in place of scores: torchmetrics takes what lies outside of [0, 1] through a sigmoid,
    # which could make different scores equal.
    _, ranks = np.unique(scores[known], return_inverse=True)
    positions = torch.from_numpy(ranks.astype(np.float64) / max(1, int(ranks.max())))
    return float(binary_auroc(positions, torch.from_numpy(labels.astype(np.int64))))


def chosen(statements: Sequence[Statement], per_finding: int) -> list[Statement]:
    """At most so many different sentences of each finding, seen and unseen, in the order given.

    Sentences without a finding cannot be false and are left out.
    """
    found: dict[tuple[int, bool | None], list[Statement]] = {}
    texts: set[str] = set()
    for statement in statements:
        if statement.meaning.finding == NO_FINDING or statement.text in texts:
            continue
        same = found.setdefault((statement.meaning.finding, statement.unseen), [])
        if len(same) < per_finding:
            texts.add(statement.text)
            same.append(statement)
    return [statement for key in sorted(found, key=str) for statement in found[key]]


def truth_table(
    statements: Sequence[Statement], studies: Sequence[Facts], *, of_finding: bool = False
) -> NDArray[np.int8]:
    """``(S, V)``: 1 where a statement is true of a study, 0 where it is false, else ``UNKNOWN``.

    With ``of_finding``: whether what it names is there, for a model whose presence means that.
    """
    meanings = [s.meaning._replace(present=1) if of_finding else s.meaning for s in statements]
    return np.array([[facts.truth(m) for facts in studies] for m in meanings], np.int8).reshape(
        len(meanings), len(studies)
    )


def presence_by_finding(
    statements: Sequence[Statement],
    scores_SV: NDArray[np.floating],
    truth_SV: NDArray[np.int8],
    *,
    unseen: bool | None = None,
    draws: int = 200,
) -> dict[str, Estimate]:
    """Each finding's area under the curve, and ``"mean"`` over the findings.

    For each statement its scores in all studies are compared with its truth in them; a finding's
    figure is the mean over its statements. One statement is never compared with another, so no
    prior of the text counts: whoever does not look at the image gets 0.5. ``unseen`` chooses
    statements by their wording. Intervals are by bootstrap over studies.
    """
    rows: dict[str, list[int]] = {}
    for row, statement in enumerate(statements):
        if unseen is None or statement.unseen == unseen:
            rows.setdefault(FINDINGS[statement.meaning.finding], []).append(row)

    def mean(findings: Sequence[str], studies: NDArray[np.intp]) -> float | None:
        """Over the statements of each finding, then over the findings."""
        by_finding = []
        for name in findings:
            areas = [auc(scores_SV[row, studies], truth_SV[row, studies]) for row in rows[name]]
            known = [area for area in areas if area is not None]
            by_finding += [float(np.mean(known))] if known else []
        return float(np.mean(by_finding)) if by_finding else None

    count = truth_SV.shape[1]
    found = {}
    for name in [name for name in FINDINGS if name in rows]:
        estimate = bootstrap(partial(mean, [name]), count, len(rows[name]), draws=draws)
        if estimate is not None:
            found[name] = estimate
    every = sum(map(len, rows.values()))
    overall = bootstrap(partial(mean, list(rows)), count, every, draws=max(20, draws // 10))
    return found if overall is None else {**found, "mean": overall}
