"""The statements of a step: whose they are, which of them count, how well each fits each volume.

Shapes in names as in ``grounded.py``; F findings.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from simcrop_core.model.simcrop import SimCroP
from simcrop_core.objectives.base import Ranks
from simcrop_core.study import KINDS
from simcrop_core.study_batch import StudyBatch

_FINDING = KINDS.index("finding")


@dataclass(frozen=True, slots=True, eq=False)
class Statements:
    """The sentences and counterfactuals of all studies on all processes.

    Attributes
    ----------
    vectors_GMD, meaning_GM4
        Frozen vectors and meanings, each study's sentences before its counterfactuals.
    mask_GM
        True where there is a statement that takes part.
    seen_GM
        False for a hidden sentence (:func:`hidden_sentences`).
    facts_GFSL
        What is true of each study.
    """

    vectors_GMD: Tensor
    meaning_GM4: Tensor
    mask_GM: Tensor
    seen_GM: Tensor
    facts_GFSL: Tensor

    @classmethod
    def of_all(
        cls, batch: StudyBatch, hidden_BS: Tensor, ranks: Ranks, *, counterfactuals: bool
    ) -> Statements:
        flips_BC = batch.counterfactual_mask_BC
        if not counterfactuals:
            flips_BC = torch.zeros_like(flips_BC)
        mask_BM = torch.cat([batch.sentence_mask_BS, flips_BC], dim=1)
        seen_BM = torch.cat([~hidden_BS, torch.ones_like(flips_BC)], dim=1)
        meaning = torch.cat([batch.meaning_BS4, batch.counterfactual_meaning_BC4], dim=1)
        vectors = torch.cat([batch.sentences_BSD, batch.counterfactuals_BCD], dim=1)
        return cls(
            vectors_GMD=ranks.gather(vectors),
            meaning_GM4=ranks.gather(meaning),
            mask_GM=ranks.gather(mask_BM.to(torch.uint8)).bool(),
            seen_GM=ranks.gather(seen_BM.to(torch.uint8)).bool(),
            facts_GFSL=ranks.gather(batch.facts_BFSL),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """All statements in the volumes of this process.

    Attributes
    ----------
    scores_BT
        Pooled similarities.
    truth_BT
        1 true, 0 false, ``UNKNOWN``.
    wanted_BT
        True where a statement is none of padding and does not turn on a hidden finding.
    own_BM
        Numbers in T of each volume's own statements.
    """

    scores_BT: Tensor
    truth_BT: Tensor
    wanted_BT: Tensor
    own_BM: Tensor


def hidden_sentences(batch: StudyBatch, region_BSK: Tensor) -> Tensor:
    """Sentences of findings that are outlined, but in no visible patch, ``(B, S)`` bool.

    They are masked, or lie outside the crop. ``region_BSK`` is what the regions cover of the
    visible patches.
    """
    outlined_BS = (batch.kind_BS == _FINDING) & batch.outlined_BS & batch.sentence_mask_BS
    return outlined_BS & ~(region_BSK > 0).any(dim=-1)


def turns_on_hidden(
    batch: StudyBatch, hidden_BS: Tensor, meaning_T4: Tensor, truth_BT: Tensor
) -> Tensor:
    """Where nothing that is visible decides a statement, ``(B, T)`` bool.

    A finding of which every sentence is hidden can be seen nowhere: then it says nothing of the
    volume that the finding is called present (which is true) or absent (which is false).
    """
    finding_BS = batch.meaning_BS4[..., 0]
    visible_BS = (batch.kind_BS == _FINDING) & batch.sentence_mask_BS & ~hidden_BS

    def findings(of_BS: Tensor) -> Tensor:
        counts_BF = torch.zeros(batch.facts_BFSL.shape[:2], device=of_BS.device)
        of_BS = of_BS & (finding_BS >= 0)
        return counts_BF.scatter_add(1, finding_BS.clamp(min=0), of_BS.float()) > 0

    unseen_BF = findings(hidden_BS) & ~findings(visible_BS)
    finding_T, present_T = meaning_T4[:, 0], meaning_T4[:, 3]
    unseen_BT = unseen_BF[:, finding_T.clamp(min=0)] & (finding_T >= 0)
    return unseen_BT & (truth_BT == present_T)


def visible(values_BSN: Tensor, keep_BK: Tensor) -> Tensor:
    """The values of the visible patches, ``(B, S, K, ...)``; axes behind N are kept."""
    index = keep_BK.reshape(len(keep_BK), 1, -1, *[1] * (values_BSN.ndim - 3))
    shape = (*values_BSN.shape[:2], keep_BK.shape[1], *values_BSN.shape[3:])
    return values_BSN.gather(2, index.expand(shape))


def score_statements(model: SimCroP, evidence_BKE: Tensor, vectors_TD: Tensor) -> Tensor:
    """The pooled similarity of every statement with every volume, ``(B, T)`` float32.

    Similarities of one volume are kept at a time and computed again for the gradient: all of them
    together would be the largest thing in memory.
    """
    head = model.presence_head
    assert head is not None

    def one(evidence_KE: Tensor) -> Tensor:
        return head.pool(model.similarity(evidence_KE, vectors_TD))

    return torch.stack(
        [
            checkpoint(one, evidence_KE, use_reentrant=False)
            if torch.is_grad_enabled()
            else one(evidence_KE)
            for evidence_KE in evidence_BKE
        ]
    )


def padded_alike(batch: StudyBatch, ranks: Ranks) -> StudyBatch:
    """The batch with as many places for sentences and counterfactuals as any process has."""
    if ranks.world_size == 1:
        return batch
    counts = [batch.sentence_mask_BS.shape[1], batch.counterfactual_mask_BC.shape[1]]
    most = torch.tensor(counts, device=batch.seeds_B.device)
    torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
    more_s, more_c = (most - torch.tensor(counts, device=most.device)).tolist()

    def pad(x: Tensor, more: int) -> Tensor:
        return F.pad(x, (0, 0) * (x.ndim - 2) + (0, more))

    return replace(
        batch,
        sentences_BSD=pad(batch.sentences_BSD, more_s),
        sentence_mask_BS=pad(batch.sentence_mask_BS, more_s),
        meaning_BS4=pad(batch.meaning_BS4, more_s),
        region_BSN=pad(batch.region_BSN, more_s),
        region_mask_BS=pad(batch.region_mask_BS, more_s),
        outlined_BS=pad(batch.outlined_BS, more_s),
        kind_BS=pad(batch.kind_BS, more_s),
        counterfactuals_BCD=pad(batch.counterfactuals_BCD, more_c),
        counterfactual_meaning_BC4=pad(batch.counterfactual_meaning_BC4, more_c),
        counterfactual_mask_BC=pad(batch.counterfactual_mask_BC, more_c),
    )
