"""Model and objective as one module, so that one wrapper distributes both; and its blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from simcrop_core.model.fusion import BertLayer
from simcrop_core.model.vision import Block
from simcrop_core.objectives.base import Objective, Ranks
from simcrop_core.objectives.m3ae import CoAttentionLayer
from simcrop_core.study_batch import StudyBatch

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

    from simcrop_core.model.simcrop import SimCroP


class TrainingModule(nn.Module):
    """What is trained: a model and its objective.

    ``forward`` takes the fields of a batch by name (wrappers do not look into frozen dataclasses)
    and gives the total loss and the named terms, the latter detached: only the total is for
    gradients. ``batch`` is the dataclass that the objective reads.
    """

    def __init__(
        self, model: SimCroP, objective: Objective, ranks: Ranks, batch: type[Any] = StudyBatch
    ) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.ranks = ranks
        self.batch = batch

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        losses = self.objective(self.model, self.batch(**batch), self.ranks)
        return losses.total, {name: term.detach() for name, term in losses.terms.items()}


def fields_of_batch(batch: Any) -> dict[str, Any]:
    """The fields of a batch by name."""
    return {field.name: getattr(batch, field.name) for field in fields(batch)}


def transformer_blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The transformer blocks of model and objective: encoders, decoders, co-attention."""
    for part in module.modules():
        if isinstance(part, Block | BertLayer | CoAttentionLayer):
            yield part


def compile_blocks(module: nn.Module) -> None:
    """Compile each block by itself: one compilation serves all blocks of a kind, and what is
    between them stays plain Python."""
    for block in transformer_blocks(module):
        block.compile()


def shard(module: nn.Module, mesh: DeviceMesh, *, bf16: bool) -> nn.Module:
    """Share the module out over the devices of a mesh (FSDP2), block by block.

    Weights and gradients are summed in float32; with ``bf16`` blocks are sent as bf16, which is
    how autocast would read them. Single numbers (temperatures) cannot be shared out: each process
    keeps its own, see :func:`average_scalars`.
    """
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if bf16 else None,
        reduce_dtype=torch.float32,
        cast_forward_inputs=False,
    )
    for block in transformer_blocks(module):
        # A block that is not trained may not be used either, and FSDP2 waits for those it shards.
        if any(p.requires_grad for p in block.parameters()):
            fully_shard(block, mesh=mesh, mp_policy=policy)
    scalars = {p for p in module.parameters() if p.ndim == 0}
    fully_shard(module, mesh=mesh, ignored_params=scalars)
    return module


def is_sharded(module: nn.Module) -> bool:
    """Whether the processes share the module's weights out."""
    return any(isinstance(p, DTensor) for p in module.parameters())


def average_scalars(module: nn.Module) -> None:
    """Average over the processes the gradients that sharing out leaves to each of them."""
    if not is_sharded(module):
        return
    for parameter in module.parameters():
        if isinstance(parameter, DTensor) or not parameter.requires_grad:
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        torch.distributed.all_reduce(parameter.grad)
        parameter.grad /= torch.distributed.get_world_size()
