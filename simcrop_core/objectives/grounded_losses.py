"""The losses of the objective ``grounded`` as pure functions of tensors.

Shapes in names: B volumes on this process; G volumes on all processes; S sentences; T statements
(sentences and counterfactuals of all studies); N places (visible patches, or their cells);
F findings, S sides, L levels in ``facts_BFSL``. Every loss is a total and the number of things it
is a total of, for :meth:`Ranks.mean`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from simcrop_core.statements import NO_FINDING, UNKNOWN

# A finite stand-in for minus infinity: a row without any entry must not give NaN.
_LEAST = torch.finfo(torch.float32).min / 4


def facts_of(meaning_T4: Tensor, facts_BFSL: Tensor) -> Tensor:
    """Whether what each statement speaks of is there: ``(B, T)`` int8, 1, 0 or ``UNKNOWN``.

    The statement's own polarity has no part: "no effusion" speaks of an effusion.
    """
    finding, side, level, _ = meaning_T4.unbind(-1)
    fact_BT = facts_BFSL[:, finding.clamp(min=0), side, level]
    return fact_BT.masked_fill(finding == NO_FINDING, UNKNOWN)


def truth_of(meaning_T4: Tensor, facts_BFSL: Tensor) -> Tensor:
    """Whether each statement is true of each study: ``(B, T)`` int8, 1, 0 or ``UNKNOWN``.

    :meth:`simcrop_core.statements.Facts.truth` for all pairs at once.
    """
    fact_BT = facts_of(meaning_T4, facts_BFSL)
    true_BT = (fact_BT == meaning_T4[:, 3]).to(torch.int8)
    return true_BT.masked_fill(fact_BT == UNKNOWN, UNKNOWN)


def region_targets(region_SN: Tensor, floor: float) -> tuple[Tensor, Tensor]:
    """Where a sentence should point: ``(S, N)`` with rows that sum to 1, and ``(S,)`` whether.

    In proportion to how much of each place its region covers; places that it covers by less than
    ``floor`` times the most covered one are left out. Rows without a region are 0 and False.
    """
    most_S1 = region_SN.amax(dim=-1, keepdim=True)
    kept_SN = region_SN.masked_fill(region_SN < floor * most_S1, 0)
    target_SN = kept_SN / kept_SN.sum(dim=-1, keepdim=True).clamp(min=1e-12)
    return target_SN, most_S1[..., 0] > 0


def region_sums(
    similarity_SN: Tensor, region_SN: Tensor, wanted_S: Tensor, temperature: Tensor, floor: float
) -> tuple[Tensor, Tensor]:
    """Total of KL(q || softmax(s / tau)) and the number of sentences with a region.

    q is that of :func:`region_targets`; ``wanted_S`` is True for sentences that take part.
    """
    target_SN, there_S = region_targets(region_SN, floor)
    log_p_SN = (similarity_SN.float() / temperature).log_softmax(dim=-1)
    loss_S = (torch.special.xlogy(target_SN, target_SN) - target_SN * log_p_SN).sum(dim=-1)
    counted_S = (wanted_S & there_S).to(loss_S)
    return (loss_S * counted_S).sum(), counted_S.sum()


def sentence_contrast_sums(
    logits_GR: Tensor, own_R: Tensor, truth_GR: Tensor, anchor_R: Tensor
) -> tuple[Tensor, Tensor]:
    """Sentences against volumes: -log of a sentence's own volume among it and all false ones.

    Parameters
    ----------
    logits_GR
        Scores over temperature of R sentences in all volumes.
    own_R
        Number of each sentence's own volume.
    truth_GR
        Truth of each sentence in each volume; volumes in which it is true or unknown have no part.
    anchor_R
        True for sentences that take part, each true of its own volume.
    """
    negative_GR = truth_GR == 0
    own_logit_R = logits_GR.gather(0, own_R[None])[0]
    others_R = logits_GR.masked_fill(~negative_GR, _LEAST).logsumexp(dim=0)
    counted_R = (anchor_R & negative_GR.any(dim=0)).to(logits_GR)
    return (F.softplus(others_R - own_logit_R) * counted_R).sum(), counted_R.sum()


def volume_contrast_sums(
    logits_BT: Tensor, false_BT: Tensor, own_BS: Tensor, anchor_BS: Tensor
) -> tuple[Tensor, Tensor]:
    """Volumes against statements: -log of each own sentence among it and all false statements.

    Parameters
    ----------
    logits_BT
        Scores over temperature of all statements in the volumes of this process.
    false_BT
        True where a statement is false of the volume.
    own_BS
        Numbers (in T) of each volume's own sentences.
    anchor_BS
        True for sentences that take part, each true of its own volume.
    """
    own_logit_BS = logits_BT.gather(1, own_BS)
    others_B1 = logits_BT.masked_fill(~false_BT, _LEAST).logsumexp(dim=1, keepdim=True)
    counted_BS = (anchor_BS & false_BT.any(dim=1, keepdim=True)).to(logits_BT)
    return (F.softplus(others_B1 - own_logit_BS) * counted_BS).sum(), counted_BS.sum()


def presence_sums(logits_BT: Tensor, truth_BT: Tensor, wanted_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Total binary cross-entropy of log odds against truth, and the number of known pairs."""
    counted_BT = (wanted_BT & (truth_BT != UNKNOWN)).to(logits_BT)
    loss_BT = F.binary_cross_entropy_with_logits(
        logits_BT, (truth_BT == 1).to(logits_BT), reduction="none"
    )
    return (loss_BT * counted_BT).sum(), counted_BT.sum()
