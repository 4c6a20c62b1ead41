"""Linear probe: logistic regression on frozen, pooled features.

Shapes in names: V studies; D the width of a feature; F labels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from simcrop_core.device import Precision, autocast, evaluating, select_device
from simcrop_core.evaluate.cases import Case
from simcrop_core.evaluate.presence import auc
from simcrop_core.model.simcrop import SimCroP
from simcrop_core.statements import FINDINGS, UNKNOWN


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """Area under the curve of each label, and their unweighted mean.

    A label of which training or test has one class only is left out.
    """

    by_label: dict[str, float]

    @property
    def macro(self) -> float:
        return float(np.mean(list(self.by_label.values()))) if self.by_label else float("nan")


def pooled_features(
    model: SimCroP,
    cases: Iterable[Case],
    *,
    device: str = "auto",
    precision: Precision = "auto",
) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """Features ``(V, D)``, the mean of the patch tokens through ``fc_norm`` (as the authors'
    classification reads them), and labels ``(V, 18)`` in the order of ``FINDINGS``."""
    where = select_device(device)
    features, labels = [], []
    with evaluating(model.to(where)), torch.inference_mode(), autocast(where, precision):
        for case in cases:
            x = torch.from_numpy(case.input_1HWD)[None].float().to(where)
            features.append(model.vision(x).pooled_BD[0].float().cpu().numpy())
            labels.append(list(case.facts.labels().values()))
    return np.stack(features), np.array(labels, np.int8)


def linear_probe(
    train_VD: NDArray[np.floating],
    train_VF: NDArray[np.integer],
    test_VD: NDArray[np.floating],
    test_VF: NDArray[np.integer],
    *,
    names: tuple[str, ...] = FINDINGS,
    penalty: float = 1.0,
) -> ProbeResult:
    """Fit one logistic regression a label on training features and rank the test's.

    Features are brought to mean 0 and variance 1 by the training's; the penalty is half the sum of
    squared weights times ``penalty``, beside the summed cross-entropy (the intercept is free).
    Labels that are ``UNKNOWN`` are left out. The fit is convex, so that it has no seed.
    """
    mean, spread = train_VD.mean(axis=0), train_VD.std(axis=0)
    spread = np.where(spread > 0, spread, 1)
    found = {}
    for column, name in enumerate(names):
        known = train_VF[:, column] != UNKNOWN
        labels = train_VF[known, column]
        if len(set(labels.tolist())) < 2:
            continue
        x_VD = torch.from_numpy((train_VD[known] - mean) / spread).double()
        weight_D, _ = logistic_regression(x_VD, torch.from_numpy(labels).double(), penalty)
        scores = (test_VD - mean) / spread @ weight_D.numpy()
        area = auc(scores, test_VF[:, column])
        if area is not None:
            found[name] = area
    return ProbeResult(found)


def logistic_regression(x_VD: Tensor, y_V: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """Weights ``(D,)`` and intercept of penalised logistic regression, by L-BFGS."""
    weights = torch.zeros(x_VD.shape[1] + 1, dtype=x_VD.dtype, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weights],
        max_iter=500,
        tolerance_grad=1e-8,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        solver.zero_grad()
        logits = x_VD @ weights[:-1] + weights[-1]
        value = F.binary_cross_entropy_with_logits(logits, y_V, reduction="sum")
        value = value + penalty / 2 * weights[:-1].square().sum()
        value.backward()
        return value

    solver.step(loss)
    return weights.detach()[:-1], weights.detach()[-1]
