"""Which patches and which tokens are hidden: a function of each study's seed and nothing else.

Shapes in names: B studies; N patches; K patches that stay visible; L tokens of a report, padded;
V words of the vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from simcrop_core.counter_random import bits, uniform
from simcrop_core.errors import SimCroPError
from simcrop_core.model.text import TextEncoder


@dataclass(frozen=True, slots=True)
class PatchMask:
    """Which patches the encoder sees.

    Attributes
    ----------
    keep_BK
        Indices of the visible patches, ascending.
    mask_BN
        True where a patch is removed.
    """

    keep_BK: Tensor
    mask_BN: Tensor


def visible_count(patches: int, ratio: float) -> int:
    """How many of so many patches stay visible: the nearest number, but some and not all."""
    if patches < 2:
        raise ValueError("A volume of fewer than two patches cannot be masked.")
    return min(max(round(patches * (1 - ratio)), 1), patches - 1)


def mask_patches(seeds_B: Tensor, patches: int, ratio: float) -> PatchMask:
    """Remove a share of every volume's patches, those with the largest random numbers."""
    kept = visible_count(patches, ratio)
    order_BN = uniform(seeds_B, patches, "masked patches").argsort(dim=1, stable=True)
    keep_BK = order_BN[:, :kept].sort(dim=1).values
    mask_BN = torch.ones_like(order_BN, dtype=torch.bool).scatter(1, keep_BK, False)
    return PatchMask(keep_BK, mask_BN)


@dataclass(frozen=True, slots=True)
class MaskedReport:
    """Reports with tokens hidden.

    Attributes
    ----------
    ids_BL
        Token numbers as the text encoder reads them.
    masked_BL
        True on tokens that are to be predicted.
    """

    ids_BL: Tensor
    masked_BL: Tensor


def mask_report(
    seeds_B: Tensor,
    tokens_BL: Tensor,
    special_BL: Tensor,
    ratio: float,
    *,
    mask_id: int,
    vocabulary_size: int,
    style: Literal["mask", "bert"] = "mask",
    continues_V: Tensor | None = None,
) -> MaskedReport:
    """Hide a share of every report's tokens: the nearest number, at least one where there is text.

    Parameters
    ----------
    seeds_B
        One seed a report.
    tokens_BL, special_BL
        Token numbers; True on those that are no text (start, end, padding) and never hidden.
    ratio
        Share of the tokens, or of the words where ``continues_V`` is given.
    mask_id, vocabulary_size
        Of the text encoder.
    style
        ``mask``: every hidden token becomes ``mask_id``. ``bert``: 80 % do, 10 % become any token
        of the vocabulary, 10 % stay; all of them are to be predicted.
    continues_V
        True for tokens that go on with a word, see :func:`continuing_tokens`: the tokens of a
        word are then hidden together.
    """
    text_BL = ~special_BL.bool()
    length = tokens_BL.shape[1]
    starts_BL = text_BL
    if continues_V is not None:
        after_text_BL = torch.cat([torch.zeros_like(text_BL[:, :1]), text_BL[:, :-1]], dim=1)
        starts_BL = text_BL & ~(continues_V[tokens_BL] & after_text_BL)
    draw_BL = uniform(seeds_B, length, "masked tokens").masked_fill(~starts_BL, 2.0)
    rank_BL = draw_BL.argsort(dim=1, stable=True).argsort(dim=1, stable=True)
    units_B1 = starts_BL.sum(dim=1, keepdim=True)
    hidden_B1 = (units_B1 * ratio).round().clamp(min=1)
    chosen_BL = starts_BL & (rank_BL < hidden_B1)
    # A token shares the fate of the last start at or before it, which is itself without words.
    place_L = torch.arange(length, device=tokens_BL.device)
    start_BL = place_L.expand_as(tokens_BL).masked_fill(~starts_BL, 0).cummax(dim=1).values
    masked_BL = chosen_BL.gather(1, start_BL) & text_BL
    ids_BL = tokens_BL.masked_fill(masked_BL, mask_id)
    if style == "bert":
        fate_BL = uniform(seeds_B, length, "fate of masked tokens")
        other_BL = bits(seeds_B, length, "other tokens") % vocabulary_size
        ids_BL = torch.where(masked_BL & (fate_BL >= 0.8), other_BL, ids_BL)
        ids_BL = torch.where(masked_BL & (fate_BL >= 0.9), tokens_BL, ids_BL)
    return MaskedReport(ids_BL, masked_BL)


def continuing_tokens(text: TextEncoder) -> Tensor:
    """``(V,)`` bool: tokens that go on with the word before them.

    WordPiece marks them with ``##``; byte-level BPE and SentencePiece mark the first token of a
    word instead (``Ġ`` and ``▁``).

    Raises
    ------
    SimCroPError
        The vocabulary marks no words.
    """
    vocabulary = text.tokenizer.get_vocab()
    pieces = [token for token in vocabulary if token.startswith("##") and len(token) > 2]
    if not pieces:
        mark = next((m for m in "Ġ▁" if any(t.startswith(m) for t in vocabulary)), None)
        if mark is None:
            raise SimCroPError(
                "The text encoder's vocabulary does not tell where words begin, so whole words "
                "cannot be hidden",
                code="no-words",
                remedy="Set report_mask_unit to token.",
            )
        pieces = [token for token in vocabulary if not token.startswith(mark)]
    continues_V = torch.zeros(text.vocabulary_size, dtype=torch.bool)
    continues_V[[vocabulary[token] for token in pieces]] = True
    return continues_V
