"""A batch of studies as training sees it: what the loader makes and objectives read.

Shapes in names: B studies; H, W, D voxels; N patches; S sentences of the Findings, padded;
C counterfactual sentences, padded (at the end of ``region_cells_BSNC``: cells of a patch); L tokens
of the report, padded; F findings; D (last) the width of the frozen text encoder's vectors.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class StudyBatch:
    """Studies side by side, all on one device.

    Attributes
    ----------
    volume_B1HWD
        Model input in [-1, 1], augmented.
    seeds_B
        int64: the only source of randomness for each study's part in this step, a function of
        (run's seed, epoch, index) and so the same however studies are dealt out to processes.
    index_B
        int64: which studies of the data set.
    sentences_BSD
        Frozen vectors of the sentences before projection, float32; zero where padded.
    sentence_mask_BS
        True where there is a sentence.
    tokens_BL, attend_BL, special_BL
        Findings and Impression as token numbers; True on tokens; True on tokens that are no text.
    report_BD
        Frozen vector of the whole report (the text encoder's sentence vector of it), float32.
    meaning_BS4
        int64 :class:`~simcrop_core.statements.Meaning` of each sentence; finding -1 unknown.
    region_BSN
        How much of each patch the region of the sentence covers, float32 in [0, 1].
    region_mask_BS
        True where the sentence has a region that is in the input at least in part.
    outlined_BS
        True where the sentence has a region, be it in the input or not.
    kind_BS
        int64: 0 organ, 1 finding, 2 negative, 3 unknown or padding.
    facts_BFSL
        int8 :class:`~simcrop_core.statements.Facts`.
    counterfactuals_BCD, counterfactual_meaning_BC4, counterfactual_mask_BC
        As for sentences.
    structures_BHWD
        uint8 label map of the input, or None.
    region_cells_BSNC
        As ``region_BSN``, for the C cells of each patch of a model with the finer level (in C
        order in their patch), or None.
    """

    volume_B1HWD: Tensor
    seeds_B: Tensor
    index_B: Tensor
    sentences_BSD: Tensor
    sentence_mask_BS: Tensor
    tokens_BL: Tensor
    attend_BL: Tensor
    special_BL: Tensor
    report_BD: Tensor
    meaning_BS4: Tensor
    region_BSN: Tensor
    region_mask_BS: Tensor
    outlined_BS: Tensor
    kind_BS: Tensor
    facts_BFSL: Tensor
    counterfactuals_BCD: Tensor
    counterfactual_meaning_BC4: Tensor
    counterfactual_mask_BC: Tensor
    structures_BHWD: Tensor | None = None
    region_cells_BSNC: Tensor | None = None

    def __len__(self) -> int:
        return len(self.volume_B1HWD)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> StudyBatch:
        """The same batch on another device."""
        moved = {
            f.name: value.to(device, non_blocking=non_blocking)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), Tensor)
        }
        return replace(self, **moved)
