"""The losses as pure functions of tensors, each with the equation it stands for.

Shapes in names: B studies; N patches (of the visible ones in alignment); P voxels of a patch;
S sentences, padded; L tokens, padded; M masked tokens of the batch; V words of the vocabulary;
D the width of a vector.

Each loss comes twice: as a mean over this batch, and as ``..._sums``: a total and the number of
things it is a total of, from which :meth:`Ranks.mean` forms the mean over all processes. All are
computed in float32 (float64 stays), whatever autocast is on.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn import functional as F

from simcrop_core.model.vision import Shape3, patchify

__all__ = [
    "masked_image_loss",
    "masked_image_sums",
    "masked_report_loss",
    "masked_token_sums",
    "patchify",
    "similarity_alignment_loss",
    "similarity_alignment_sums",
    "unpatchify",
]

PATCH_VARIANCE_EPS = 1e-6  # MAE's


def exact(x: Tensor) -> Tensor:
    """At least float32."""
    return x if x.dtype == torch.float64 else x.float()


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """The context without autocast on a tensor's device."""
    kind = x.device.type
    if not torch.amp.is_autocast_available(kind):
        return nullcontext()
    return torch.autocast(kind, enabled=False)


def mean_of(total: Tensor, count: Tensor) -> Tensor:
    """``total / count``; 0, with a gradient, where nothing was counted."""
    return total / count.clamp(min=1)


# -- patches ------------------------------------------------------------------------------------


def unpatchify(patches_BNP: Tensor, patch_shape: Shape3, shape: Shape3) -> Tensor:
    """The inverse of :func:`patchify`: ``(B, N, P)`` -> ``(B, 1, H, W, D)``.

    ``shape`` is ``(H, W, D)``, the voxels of the volume along its axes.
    """
    p, q, r = patch_shape
    h, w, d = (n // s for n, s in zip(shape, patch_shape, strict=True))
    blocks = patches_BNP.reshape(-1, h, w, d, p, q, r).permute(0, 1, 4, 2, 5, 3, 6)
    return blocks.reshape(-1, 1, *shape)


# -- Eq. 1: masked image modelling --------------------------------------------------------------


def masked_image_sums(
    pred_BNP: Tensor,
    target_BNP: Tensor,
    mask_BN: Tensor,
    *,
    masked_only: bool = True,
    normalize_patches: bool = False,
) -> tuple[Tensor, Tensor]:
    """Total of the patches' mean squared errors, and the number of patches."""
    with full_precision(pred_BNP):
        target_BNP = exact(target_BNP)
        if normalize_patches:
            variance, mean = torch.var_mean(target_BNP, dim=-1, keepdim=True, correction=1)
            target_BNP = (target_BNP - mean) / (variance + PATCH_VARIANCE_EPS).sqrt()
        error_BN = (exact(pred_BNP) - target_BNP).square().mean(dim=-1)
        counted_BN = mask_BN.to(error_BN) if masked_only else torch.ones_like(error_BN)
        return (error_BN * counted_BN).sum(), counted_BN.sum()


def masked_image_loss(
    pred_BNP: Tensor,
    target_BNP: Tensor,
    mask_BN: Tensor,
    *,
    masked_only: bool = True,
    normalize_patches: bool = False,
) -> Tensor:
    """Mean squared error of reconstructed patches (paper, Eq. 1).

    Parameters
    ----------
    pred_BNP, target_BNP
        Voxels of all patches in the order of :func:`patchify`.
    mask_BN
        1 (or True) where a patch was removed, 0 where the encoder saw it.
    masked_only
        Whether only removed patches count (as in MAE, MRM and M3AE), or all, as Eq. 1 is printed.
    normalize_patches
        Whether each target patch is brought to mean 0 and variance 1 first, with MAE's unbiased
        variance and its epsilon of 1e-6.
    """
    return mean_of(
        *masked_image_sums(
            pred_BNP,
            target_BNP,
            mask_BN,
            masked_only=masked_only,
            normalize_patches=normalize_patches,
        )
    )


# -- Eq. 2-4: similarity-driven alignment -------------------------------------------------------


def similarity_alignment_sums(
    patches_BND: Tensor,
    sentences_BSD: Tensor,
    sentence_mask_BS: Tensor,
    *,
    top_k: int,
    temperature: float,
    normalize: bool,
) -> tuple[Tensor, Tensor]:
    """Total of the reports' losses, and the number of reports with at least two sentences."""
    if top_k < 1:
        raise ValueError(f"A sentence is aligned with at least one patch, not {top_k}.")
    with full_precision(patches_BND):
        there_BS = sentence_mask_BS.bool()
        patches_BND = exact(patches_BND)
        sentences_BSD = exact(sentences_BSD).masked_fill(~there_BS[..., None], 0)
        if normalize:
            patches_BND = F.normalize(patches_BND, dim=-1)
            sentences_BSD = F.normalize(sentences_BSD, dim=-1)
        # Eq. 2: the similarity of every sentence with every visible patch.
        sim_BSN = sentences_BSD.detach() @ patches_BND.detach().transpose(1, 2)
        # Eq. 3: the mean of the K most similar patches, as a product with weights of 0 and 1 / K.
        K = min(top_k, sim_BSN.shape[-1])
        chosen_BSK = sim_BSN.topk(K, dim=-1).indices
        weight_BSN = torch.zeros_like(sim_BSN).scatter(-1, chosen_BSK, 1 / K)
        aligned_BSD = weight_BSN @ patches_BND
        if normalize:
            aligned_BSD = F.normalize(aligned_BSD, dim=-1)
        # Eq. 4: InfoNCE among the sentences of one report, in both directions.
        logits_BSS = aligned_BSD @ sentences_BSD.transpose(1, 2) / temperature
        # A finite stand-in for minus infinity: a report without sentences must not give NaN.
        least = torch.finfo(logits_BSS.dtype).min / 4
        logits_BSS = logits_BSS.masked_fill(~(there_BS[:, :, None] & there_BS[:, None]), least)
        log_likelihood_BS = (logits_BSS.log_softmax(2) + logits_BSS.log_softmax(1)).diagonal(
            dim1=1, dim2=2
        )
        loss_BS = -log_likelihood_BS.where(there_BS, torch.zeros_like(log_likelihood_BS))
        sentences_B = there_BS.sum(dim=1)
        counted_B = (sentences_B >= 2).to(loss_BS)
        loss_B = loss_BS.sum(dim=1) / sentences_B.clamp(min=1)
        return (loss_B * counted_B).sum(), counted_B.sum()


def similarity_alignment_loss(
    patches_BND: Tensor,
    sentences_BSD: Tensor,
    sentence_mask_BS: Tensor,
    *,
    top_k: int,
    temperature: float,
    normalize: bool,
) -> Tensor:
    """Similarity-driven alignment of a report's sentences with patches (paper, Eq. 2-4).

    Each sentence is compared with every visible patch; the mean of the ``top_k`` patches most
    like it is its aligned feature; aligned features and sentences of one report are contrasted
    with each other by InfoNCE in both directions, summed and divided by the number of sentences.
    The loss is the mean over the reports with at least two sentences, 0 (with a gradient) where
    there is none. The choice of patches has no gradient.

    Parameters
    ----------
    patches_BND, sentences_BSD
        Visible patches and sentences in their joint space.
    sentence_mask_BS
        True where there is a sentence, False on padding.
    top_k
        Patches a sentence chooses; all of them where there are fewer.
    temperature
        Of the InfoNCE.
    normalize
        True: patches and sentences become unit vectors first, and their means after, so that
        every product of Eq. 2 and 4 is a cosine. False: dot products of vectors as they are.
    """
    return mean_of(
        *similarity_alignment_sums(
            patches_BND,
            sentences_BSD,
            sentence_mask_BS,
            top_k=top_k,
            temperature=temperature,
            normalize=normalize,
        )
    )


# -- Eq. 6: masked report modelling -------------------------------------------------------------


def masked_token_sums(logits_MV: Tensor, tokens_M: Tensor) -> tuple[Tensor, Tensor]:
    """Total of the cross-entropies of masked tokens, and their number."""
    with full_precision(logits_MV):
        total = F.cross_entropy(exact(logits_MV), tokens_M, reduction="sum")
        return total, torch.full_like(total, len(tokens_M), requires_grad=False)


def masked_report_loss(logits_BLV: Tensor, tokens_BL: Tensor, masked_BL: Tensor) -> Tensor:
    """Mean cross-entropy of the masked tokens, and of no others (paper, Eq. 6).

    Parameters
    ----------
    logits_BLV
        Scores of all words of the vocabulary at every token.
    tokens_BL
        The tokens of the report as they were before masking.
    masked_BL
        True (or 1) where a token was masked.
    """
    masked_BL = masked_BL.bool()
    return mean_of(*masked_token_sums(logits_BLV[masked_BL], tokens_BL[masked_BL]))
