"""Stored studies side by side, still on the CPU and not yet cropped.

Shapes in names: as in :mod:`simcrop_core.store.loader`; F findings, S sides, L levels in facts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from simcrop_core.statements import FINDINGS, LEVELS, SIDES
from simcrop_core.store.cells import count_dtype
from simcrop_core.store.settings import StoreSettings
from simcrop_core.store.store import RawSample, Store
from simcrop_core.study import KINDS


class Lengths(NamedTuple):
    """To how many sentences, counterfactuals and tokens a batch is padded."""

    sentences: int
    counterfactuals: int
    tokens: int


@dataclass(eq=False)
class RawBatch:
    """What the loader gives and :func:`simcrop_core.store.batching.to_batch` takes.

    Attributes
    ----------
    volume_BXYZ, structures_BXYZ
        int16 Hounsfield units and uint8 labels, with margin.
    regions_RXYZ
        Voxels of each cell that a region covers: the regions of all studies, one after the other.
    region_row_BS
        Which of them each sentence has, -1 for none.
    kind_BS, meaning_BS4, sentences_BSD, ...
        As in :class:`~simcrop_core.study_batch.StudyBatch`.
    ids
        Of the studies.
    epoch, step
        Where in the run the batch stands.
    """

    settings: StoreSettings
    volume_BXYZ: Tensor
    structures_BXYZ: Tensor | None
    regions_RXYZ: Tensor
    region_row_BS: Tensor
    seeds_B: Tensor
    index_B: Tensor
    sentences_BSD: Tensor
    sentence_mask_BS: Tensor
    tokens_BL: Tensor
    attend_BL: Tensor
    special_BL: Tensor
    report_BD: Tensor
    meaning_BS4: Tensor
    kind_BS: Tensor
    facts_BFSL: Tensor
    counterfactuals_BCD: Tensor
    counterfactual_meaning_BC4: Tensor
    counterfactual_mask_BC: Tensor
    ids: tuple[str, ...] = ()
    epoch: int = 0
    step: int = 0

    def __len__(self) -> int:
        return len(self.volume_BXYZ)

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def allocate(
    store: Store,
    volumes: Tensor,
    maps: Tensor | None,
    samples: Sequence[RawSample],
    lengths: Lengths,
    pin_memory: bool,
) -> RawBatch:
    """An empty batch of padding; volumes and label maps have been unpacked already."""
    assert store.text is not None
    count, width = len(volumes), store.text.encoder.width
    s, c, n = lengths
    regions = sum(len(sample.record.regions) for sample in samples)
    kind = getattr(torch, count_dtype(store.settings.cell_shape).name)

    def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(shape, dtype=dtype, pin_memory=pin_memory)

    def full(value: int, *shape: int) -> Tensor:
        return torch.full(shape, value, dtype=torch.int64, pin_memory=pin_memory)

    def flags(*shape: int) -> Tensor:
        return zeros(*shape, dtype=torch.bool)

    meaning = torch.tensor([-1, 0, 0, 1])
    return RawBatch(
        settings=store.settings,
        volume_BXYZ=volumes,
        structures_BXYZ=maps,
        regions_RXYZ=zeros(regions, *store.settings.cells, dtype=kind),
        region_row_BS=full(-1, count, s),
        seeds_B=full(0, count),
        index_B=full(0, count),
        sentences_BSD=zeros(count, s, width),
        sentence_mask_BS=flags(count, s),
        tokens_BL=full(store.text.encoder.pad_id, count, n),
        attend_BL=flags(count, n),
        special_BL=flags(count, n).fill_(True),
        report_BD=zeros(count, width),
        meaning_BS4=full(0, count, s, 4).add_(meaning),
        kind_BS=full(KINDS.index("unknown"), count, s),
        facts_BFSL=zeros(count, len(FINDINGS), len(SIDES), len(LEVELS), dtype=torch.int8),
        counterfactuals_BCD=zeros(count, c, width),
        counterfactual_meaning_BC4=full(0, count, c, 4).add_(meaning),
        counterfactual_mask_BC=flags(count, c),
        ids=tuple(sample.id for sample in samples),
    )


def fill(batch: RawBatch, samples: Sequence[RawSample], seeds: Sequence[int]) -> None:
    """Put the studies' small parts into the batch's rows."""
    first = 0
    for row, (sample, seed) in enumerate(zip(samples, seeds, strict=True)):
        record = sample.record
        batch.index_B[row] = sample.index
        batch.facts_BFSL[row] = torch.from_numpy(record.facts_FSL.copy())
        batch.report_BD[row] = torch.from_numpy(sample.report_D)
        _fill_sentences(batch, row, sample, seed, first)
        _fill_counterfactuals(batch, row, sample, seed)
        _fill_tokens(batch, row, sample)
        count = len(record.regions)
        batch.regions_RXYZ[first : first + count] = torch.from_numpy(record.regions_RXYZ)
        first += count


def _fill_sentences(
    batch: RawBatch, row: int, sample: RawSample, seed: int, first_region: int
) -> None:
    record = sample.record
    picked = _picked(len(record.sentences), batch.kind_BS.shape[1], seed)
    n = len(picked)
    batch.sentence_mask_BS[row, :n] = True
    batch.sentences_BSD[row, :n] = torch.from_numpy(sample.sentences_SD[picked])
    batch.meaning_BS4[row, :n] = torch.from_numpy(record.meanings_S4[picked].astype(np.int64))
    batch.kind_BS[row, :n] = torch.from_numpy(record.kinds_S[picked].astype(np.int64))
    region_S = record.region_S[picked].astype(np.int64)
    region_S[region_S >= 0] += first_region
    batch.region_row_BS[row, :n] = torch.from_numpy(region_S)


def _fill_counterfactuals(batch: RawBatch, row: int, sample: RawSample, seed: int) -> None:
    record = sample.record
    picked = _picked(len(record.alternates), batch.counterfactual_mask_BC.shape[1], seed)
    n = len(picked)
    meanings = record.alternate_meanings_C4[picked].astype(np.int64)
    batch.counterfactual_mask_BC[row, :n] = True
    batch.counterfactuals_BCD[row, :n] = torch.from_numpy(sample.counterfactuals_CD[picked])
    batch.counterfactual_meaning_BC4[row, :n] = torch.from_numpy(meanings)


def _fill_tokens(batch: RawBatch, row: int, sample: RawSample) -> None:
    tokens, special = sample.tokens_L, sample.special_L
    limit = batch.tokens_BL.shape[1]
    if len(tokens) > limit:  # the closing token is kept
        kept = np.r_[0 : limit - 1, len(tokens) - 1]
        tokens, special = tokens[kept], special[kept]
    n = len(tokens)
    batch.tokens_BL[row, :n] = torch.from_numpy(tokens.astype(np.int64))
    batch.special_BL[row, :n] = torch.from_numpy(special)
    batch.attend_BL[row, :n] = True


def _picked(count: int, limit: int, seed: int) -> np.ndarray:
    """All of them, or as many as there is room for, drawn by the study's seed; in order."""
    if count <= limit:
        return np.arange(count)
    return np.sort(np.random.Generator(np.random.Philox(seed)).permutation(count)[:limit])
