"""Fitting a linear head on features.

Shapes in names: N training scans; B scans of a step; D the width of a feature; K labels or classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from simcrop_core.errors import SimCroPError
from simcrop_core.model.finetuned import START_STD
from simcrop_core.train.classification_tasks import Share
from simcrop_core.train.schedule import Schedule

#: Features of scans (rows of the training list) in a pass over the data, ``(B, D)``.
Views = Callable[[NDArray[np.intp], int], NDArray[np.float32]]
#: What a head is worth on the validation scans: the more the better.
Judge = Callable[[nn.Linear], float]


@dataclass(frozen=True, slots=True)
class FittedHead:
    """A head with how it came about.

    Attributes
    ----------
    head
        ``D -> K`` logits, on the CPU.
    losses
        Of each step.
    validations
        ``(passes done, figure)``; empty where nothing was validated.
    steps
        Steps after which the head was kept.
    """

    head: nn.Linear
    losses: tuple[float, ...]
    validations: tuple[tuple[int, float], ...]
    steps: int


def fit_head(
    views: Views,
    truth: NDArray[np.integer],
    width: int,
    classes: int,
    share: Share,
    *,
    weight_decay: float,
    clip_norm: float,
    seed: int,
    judge: Judge | None = None,
    start_validation: int = 0,
    later_wins: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> FittedHead:
    """Fit a linear head as the method's authors do: AdamW, warm-up and cosine, clipped gradients.

    Parameters
    ----------
    views
        Gives the features of scans.
    truth
        ``(N, K)`` of labels 0 or 1, or ``(N,)`` of classes.
    width, classes
        D, and the number of classes; 0 where labels stand by themselves.
    judge
        Judges the head after every pass over the data but the first ``start_validation``; the best
        is kept (of equals the later one if ``later_wins``), and fitting ends when ``patience``
        passes brought nothing better. None: the head is that of the last step.
    seed
        Of the head's first weights and of the order.

    Raises
    ------
    SimCroPError
        ``not-finite``: the loss is no number.
    """
    outputs = classes or truth.shape[1]
    head = _fresh(width, outputs, seed)
    target = torch.from_numpy(truth.astype(np.int64 if classes else np.float32))
    optimiser = torch.optim.AdamW(
        head.parameters(), lr=share.lr, betas=(0.9, 0.999), weight_decay=weight_decay
    )
    schedule = Schedule(share.lr, 0.0, share.warmup, share.steps, share.steps)
    losses: list[float] = []
    validations: list[tuple[int, float]] = []
    best: tuple[float, int, dict[str, Tensor]] | None = None
    worse, epoch = 0, 0
    while len(losses) < share.steps and not (judge and worse >= share.patience):
        for rows in batches(len(truth), share.batch_size, seed, epoch)[: share.steps - len(losses)]:
            x_BD = torch.from_numpy(views(rows, epoch))
            loss = _loss(head(x_BD), target[torch.from_numpy(rows)], classes)
            if not torch.isfinite(loss):
                raise _not_finite(len(losses) + 1)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(head.parameters(), clip_norm)
            for group in optimiser.param_groups:
                group["lr"] = schedule.at(len(losses) + 1)
            optimiser.step()
            losses.append(float(loss.detach()))
            if progress is not None:
                progress(len(losses), share.steps)
        epoch += 1
        if judge is not None and epoch > start_validation:
            figure = judge(head)
            validations.append((epoch, figure))
            if best is None or figure > best[0] or (later_wins and figure == best[0]):
                state = {name: value.clone() for name, value in head.state_dict().items()}
                best, worse = (figure, len(losses), state), 0
            else:
                worse += 1
    if best is not None:
        head.load_state_dict(best[2])
    kept = len(losses) if best is None else best[1]
    return FittedHead(head.requires_grad_(False), tuple(losses), tuple(validations), kept)


def batches(count: int, size: int, seed: int, epoch: int) -> list[NDArray[np.intp]]:
    """The scans of each step of a pass over the data; the last step may have fewer."""
    order = np.random.default_rng([seed, epoch]).permutation(count)
    return [order[start : start + size] for start in range(0, count, size)]


def probabilities(
    head: nn.Linear, features_ND: NDArray[np.float32], classes: int
) -> NDArray[np.float32]:
    """``(N, K)``: of each label by itself, or of the classes together."""
    with torch.inference_mode():
        logits = head(torch.from_numpy(features_ND))
        found = logits.softmax(dim=-1) if classes else logits.sigmoid()
    return np.asarray(found.numpy(), np.float32)


def logits_of(head: nn.Linear, features_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    """``(N, K)``: what is ranked; unlike probabilities, it never saturates."""
    with torch.inference_mode():
        return np.asarray(head(torch.from_numpy(features_ND)).numpy(), np.float32)


def _fresh(width: int, outputs: int, seed: int) -> nn.Linear:
    """Weights near zero, biases zero."""
    head = nn.Linear(width, outputs)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        nn.init.trunc_normal_(head.weight, std=START_STD, generator=generator)
        nn.init.zeros_(head.bias)
    return head


def _loss(logits_BK: Tensor, target: Tensor, classes: int) -> Tensor:
    if classes:
        return F.cross_entropy(logits_BK, target)
    return F.binary_cross_entropy_with_logits(logits_BK, target)


def _not_finite(step: int) -> SimCroPError:
    return SimCroPError(
        f"The loss of step {step} is not a number",
        code="not-finite",
        remedy="Lower head.lr, or choose another model.",
    )
