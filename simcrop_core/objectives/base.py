"""What every objective is: a module from a model and a batch to named losses.

Shapes in names: B studies on this process; G studies on all processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from simcrop_core.model.simcrop import SimCroP
    from simcrop_core.study_batch import StudyBatch


@dataclass(frozen=True, slots=True)
class Ranks:
    """The processes that train together; a single one by default.

    Losses are formed with :meth:`mean`, so that their average over the processes (which is what
    distributed training does with gradients) is what one process with all studies would get.
    """

    rank: int = 0
    world_size: int = 1

    @classmethod
    def current(cls) -> Ranks:
        """Those of torch.distributed, if it is running."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return cls(torch.distributed.get_rank(), torch.distributed.get_world_size())
        return cls()

    def gather(self, x_B: Tensor) -> Tensor:
        """``(B, ...)`` of every process, in the order of the processes, ``(G, ...)``; gradients
        flow back to where they came from. All processes give the same shape."""
        if self.world_size == 1:
            return x_B
        return _Gather.apply(x_B)

    def mean(self, total: Tensor, count: Tensor | float) -> Tensor:
        """``sum of totals / sum of counts`` over the processes, scaled so that the average over
        the processes is that mean; 0 (with a gradient) where nothing was counted."""
        counted = torch.as_tensor(count, dtype=torch.float32, device=total.device).detach().clone()
        if self.world_size > 1:
            torch.distributed.all_reduce(counted)
        return total * self.world_size / counted.clamp(min=1)


class _Gather(torch.autograd.Function):
    """The same tensor of every process, one after the other; gradients are summed over the
    processes and each takes its own. Both ways by collectives that all backends have."""

    @staticmethod
    def forward(ctx: Any, x_B: Tensor) -> Tensor:
        x_B = x_B.contiguous()
        parts = [torch.empty_like(x_B) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(parts, x_B)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad_G: Tensor) -> Tensor:
        summed_G = grad_G.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(summed_G)
        count = torch.distributed.get_world_size()
        return summed_G.chunk(count)[torch.distributed.get_rank()]


@dataclass(frozen=True, slots=True)
class LossTerms:
    """The losses of a step.

    Attributes
    ----------
    total
        Scalar to be minimised.
    terms
        Named scalars it is made of, before their weights, and figures worth watching; detached
        ones have no part in the total.
    """

    total: Tensor
    terms: Mapping[str, Tensor]


class Objective(nn.Module):
    """A pre-training objective; may own parameters (temperatures, heads) beside the model's.

    ``forward(model, batch, ranks)`` gives :class:`LossTerms`. All randomness comes from
    ``batch.seeds_B`` by :mod:`simcrop_core.counter_random`. An objective refuses, at
    construction, a model that lacks a part it needs.
    """

    def trains(self, name: str) -> bool:
        """Whether the model's parameter of this name gets a gradient; others are left alone."""
        return True

    def forward(self, model: SimCroP, batch: StudyBatch, ranks: Ranks) -> LossTerms:
        raise NotImplementedError
