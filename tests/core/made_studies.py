"""Made-up studies for tests of grounding: blobs in noise, and sentences that speak of them.

The volume is 6 x 4 x 4 patches; its first axis runs to the left, so the first half is the right
side. Three findings differ in texture; each is there or not, on one side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from simcrop_core.input_spec import InputSpec
from simcrop_core.model import (
    ImageDecoderConfig,
    ModelConfig,
    PresenceConfig,
    SimCroP,
    TextConfig,
    VisionConfig,
    new_model,
)
from simcrop_core.statements import FINDINGS, LEVELS, NO_FINDING, SIDES, Facts, Meaning
from simcrop_core.study_batch import StudyBatch

SPEC = InputSpec(shape=(48, 32, 16), patch_shape=(8, 8, 4))
WIDTH = 32  # of the made-up text encoder
NAMES = ("Lung nodule", "Pleural effusion", "Consolidation")
CELLS = (2, 2, 2)


def tiny(seed: int = 0, **changes: object) -> SimCroP:
    """A model that learns within seconds, with every option of the preset ``grounded``."""
    settings: dict[str, object] = {
        "name": "tiny",
        "input_spec": SPEC,
        "vision": VisionConfig(
            depth=2, width=48, heads=4, stem="conv", stem_width=8, cells=CELLS, cell_width=16
        ),
        "text": TextConfig(source="minilm", width=WIDTH),
        "projection_width": 32,
        "projection_norm": True,
        "text_centred": True,
        "presence": PresenceConfig(),
        "image_decoder": ImageDecoderConfig(depth=1, width=24, heads=2),
    }
    return new_model(ModelConfig(**(settings | changes)), seed)


def vector(meaning: Meaning, wording: int) -> np.ndarray:
    """What a text encoder might say: a shared part, the meaning's parts, and the wording's."""

    def part(*key: int) -> np.ndarray:
        return np.random.default_rng([77, *key]).normal(size=WIDTH)

    return (
        3 * part(0)
        + part(1, meaning.finding + 1)
        + part(2, meaning.side)
        + part(3, meaning.present)
        + 0.8 * part(4, meaning.finding + 1, meaning.side, meaning.present)
        + 0.3 * part(5, wording)
    ) / math.sqrt(WIDTH)


@dataclass(frozen=True)
class Made:
    volume: np.ndarray
    sentences: list[tuple[Meaning, np.ndarray, int, np.ndarray | None]]
    counterfactuals: list[tuple[Meaning, np.ndarray]]
    facts: Facts


def made(seed: int, spare: int = 0) -> Made:
    """One study; ``spare`` adds sentences that say nothing of any finding."""
    rng = np.random.default_rng([5, seed])
    shape = SPEC.shape
    volume = rng.normal(0, 0.15, shape)
    i, j, k = np.indices(shape)
    half = i < shape[0] // 2
    texture = {0: 0.9, 1: -0.9, 2: 0.9 * (1 - 2 * ((i // 2 + j // 2 + k // 2) % 2))}
    sentences, flips, there = [], [], []
    for number, name in enumerate(NAMES):
        finding, wording = FINDINGS.index(name), int(rng.integers(4))
        if rng.random() < 0.5:
            side = "right" if rng.random() < 0.5 else "left"
            size = np.array([rng.integers(4, 11), rng.integers(4, 11), rng.integers(3, 7)])
            low = rng.integers(0, np.array([shape[0] // 2, *shape[1:]]) - size)
            low[0] += 0 if side == "right" else shape[0] // 2
            at = np.stack([i, j, k], -1)
            blob = ((at >= low) & (at < low + size)).all(-1)
            volume = np.where(blob, texture[number] + 0.2 * volume, volume)
            meaning = Meaning(finding, SIDES.index(side), 0, 1)
            other = Meaning(finding, SIDES.index("left" if side == "right" else "right"), 0, 1)
            sentences.append((meaning, vector(meaning, wording), 1, blob))
            absent = meaning._replace(present=0)
            flips += [(m, vector(m, wording)) for m in (other, absent)]
            there.append((name, side, "any"))
        else:
            side = int(rng.choice([0, 1, 2]))
            meaning = Meaning(finding, side, 0, 0)
            region = {0: np.ones(shape, bool), 1: ~half, 2: half}[side]
            sentences.append((meaning, vector(meaning, wording), 2, region))
            flip = meaning._replace(present=1)
            flips.append((flip, vector(flip, wording)))
    for n in range(spare):
        meaning = Meaning()
        sentences.append((meaning, vector(meaning, n), 0, half if n % 2 else None))
    return Made(volume.clip(-1, 1), sentences, flips, Facts.from_occurrences(there))


def batch_of(studies: list[Made], seeds: list[int] | None = None, step: int = 0) -> StudyBatch:
    """Studies side by side, as a loader would give them."""
    B = len(studies)
    S = max(len(s.sentences) for s in studies)
    C = max(1, max(len(s.counterfactuals) for s in studies))
    N, cells = SPEC.patches, math.prod(CELLS)
    numbers = torch.tensor(range(B) if seeds is None else seeds)
    out = {
        "sentences_BSD": torch.zeros(B, S, WIDTH),
        "sentence_mask_BS": torch.zeros(B, S, dtype=torch.bool),
        "meaning_BS4": torch.tensor([NO_FINDING, 0, 0, 1]).repeat(B, S, 1),
        "region_BSN": torch.zeros(B, S, N),
        "region_cells_BSNC": torch.zeros(B, S, N, cells),
        "region_mask_BS": torch.zeros(B, S, dtype=torch.bool),
        "outlined_BS": torch.zeros(B, S, dtype=torch.bool),
        "kind_BS": torch.full((B, S), 3),
        "counterfactuals_BCD": torch.zeros(B, C, WIDTH),
        "counterfactual_meaning_BC4": torch.tensor([NO_FINDING, 0, 0, 1]).repeat(B, C, 1),
        "counterfactual_mask_BC": torch.zeros(B, C, dtype=torch.bool),
    }
    for b, study in enumerate(studies):
        for s, (meaning, words, kind, region) in enumerate(study.sentences):
            out["sentences_BSD"][b, s] = torch.from_numpy(words)
            out["sentence_mask_BS"][b, s] = True
            out["meaning_BS4"][b, s] = torch.tensor(meaning)
            out["kind_BS"][b, s] = kind
            if region is not None:
                out["region_mask_BS"][b, s] = out["outlined_BS"][b, s] = True
                out["region_cells_BSNC"][b, s] = cell_coverage(region)
                out["region_BSN"][b, s] = cell_coverage(region).mean(-1)
        for c, (meaning, words) in enumerate(study.counterfactuals):
            out["counterfactuals_BCD"][b, c] = torch.from_numpy(words)
            out["counterfactual_mask_BC"][b, c] = True
            out["counterfactual_meaning_BC4"][b, c] = torch.tensor(meaning)
    facts = np.stack([study.facts.table_FSL for study in studies])
    assert facts.shape[1:] == (len(FINDINGS), len(SIDES), len(LEVELS))
    return StudyBatch(
        volume_B1HWD=torch.from_numpy(np.stack([s.volume for s in studies])[:, None]).float(),
        seeds_B=numbers * 1000 + step,
        index_B=numbers,
        tokens_BL=torch.zeros(B, 4, dtype=torch.long),
        attend_BL=torch.ones(B, 4, dtype=torch.bool),
        special_BL=torch.zeros(B, 4, dtype=torch.bool),
        report_BD=torch.zeros(B, WIDTH),
        facts_BFSL=torch.from_numpy(facts),
        **out,
    )


def cell_coverage(mask: np.ndarray) -> torch.Tensor:
    """Covered share of every cell of every patch, ``(N, C)``, by average pooling."""
    x = torch.from_numpy(mask)[None, None].float()
    size = [p // c for p, c in zip(SPEC.patch_shape, CELLS, strict=True)]
    cells = F.avg_pool3d(x, size, size)[0, 0]
    h, w, d = (n // c for n, c in zip(cells.shape, CELLS, strict=True))
    a, b, c = CELLS
    return cells.reshape(h, a, w, b, d, c).permute(0, 2, 4, 1, 3, 5).reshape(h * w * d, a * b * c)
