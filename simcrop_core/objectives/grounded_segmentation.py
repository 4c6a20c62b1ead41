"""Segmentation as a part of the objective ``grounded``: a choice of fine cells, its loss.

All voxels of a scan would be far more than a step needs. Some fine cells are drawn, half of them
evenly and half from where rare classes are, and each counts by how unlikely it was drawn, so that
sums over the drawn cells are those over all cells on average (Horvitz and Thompson, 1952).

Shapes in names: B studies; M fine cells of a study, R of them drawn; P voxels of a cell; C classes
(0 is background).
"""

from __future__ import annotations

import torch
from torch import Tensor

from simcrop_core.counter_random import uniform

_EPSILON = 1e-6


def draw_cells(
    classes_BMP: Tensor, seeds_B: Tensor, count: int, classes: int
) -> tuple[Tensor, Tensor]:
    """Numbers ``(B, R)`` of the cells that are drawn, and what each counts, ``(B, R)`` float32.

    Parameters
    ----------
    classes_BMP
        Class of each voxel.
    seeds_B
        Each study's only source of randomness.
    count
        Cells to draw of each study; all where there are fewer.
    classes
        How many there are, background included.
    """
    M = classes_BMP.shape[1]
    chosen, weights = [], []
    for cells_MP, u_M in zip(classes_BMP, uniform(seeds_B, M, "segmentation/cells"), strict=True):
        held_MC = torch.zeros(M, classes, device=cells_MP.device)
        held_MC.scatter_(1, cells_MP.long(), 1.0)
        # The rarest class in a cell says how often it is drawn: each class about equally often.
        rarest_M = (held_MC / held_MC.sum(dim=0).clamp(min=1)).amax(dim=1)
        odds_M = 0.5 / M + 0.5 * rarest_M / rarest_M.sum()
        # The smallest exponential variables draw without putting back (Efraimidis, Spirakis 2006);
        # given the next smallest, how likely each was drawn is known (bottom-k, Cohen 2007).
        keys_M = -torch.log(u_M.clamp(min=2.0**-25)) / odds_M
        least_R = keys_M.topk(min(count + 1, M), largest=False, sorted=True)
        next_key = least_R.values[count] if count < M else torch.inf
        picked_R = least_R.indices[:count]
        chosen.append(picked_R)
        weights.append(-1 / torch.expm1(-next_key * odds_M[picked_R]))
    return torch.stack(chosen), torch.stack(weights)


def segmentation_loss(
    logits_NPC: Tensor, classes_NP: Tensor, weight_N: Tensor
) -> tuple[Tensor, Tensor]:
    """Cross-entropy plus one minus the mean soft Dice; and the mean Dice of the labels.

    The mean is over the classes that are there, background left out, of all N cells together
    (nnU-Net's batch Dice, Isensee et al., 2021); each voxel counts as its cell does.

    Parameters
    ----------
    logits_NPC
        Float32.
    classes_NP
        int64.
    weight_N
        What each cell counts.
    """
    log_VC, truth_V = logits_NPC.flatten(0, 1).log_softmax(dim=-1), classes_NP.flatten()
    weight_V = weight_N[:, None].expand_as(classes_NP).flatten()
    own_V = log_VC.gather(1, truth_V[:, None])[:, 0]
    entropy = -(own_V * weight_V).sum() / weight_V.sum()
    sizes_C = _by_class(weight_V, truth_V, log_VC.shape[-1])
    soft_C = _by_class(own_V.exp() * weight_V, truth_V, len(sizes_C))
    soft = _dice(soft_C, weight_V @ log_VC.exp(), sizes_C)
    with torch.no_grad():
        given_V = log_VC.argmax(dim=-1)
        hard_C = _by_class(weight_V * (given_V == truth_V), truth_V, len(sizes_C))
        hard = _dice(hard_C, _by_class(weight_V, given_V, len(sizes_C)), sizes_C)
    return entropy + 1 - soft, hard


def _by_class(values_V: Tensor, classes_V: Tensor, classes: int) -> Tensor:
    return values_V.new_zeros(classes).index_add(0, classes_V, values_V)


def _dice(both_C: Tensor, given_C: Tensor, truth_C: Tensor) -> Tensor:
    """The mean over the labels that are there, from sizes with background first."""
    there_C = truth_C[1:] > 0
    dice_C = 2 * both_C[1:] / (given_C + truth_C)[1:].clamp(min=_EPSILON)
    return (dice_C * there_C).sum() / there_C.sum().clamp(min=1)
