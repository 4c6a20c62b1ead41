"""A small model with a small text encoder made in memory, and batches of made-up studies."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import BertProcessing
from torch import nn
from torch.nn import functional as F

from simcrop_core.counter_random import seed_of
from simcrop_core.input_spec import InputSpec
from simcrop_core.model import (
    FusionConfig,
    ImageDecoderConfig,
    ModelConfig,
    SimCroP,
    TextConfig,
    TextDecoderConfig,
    VisionConfig,
    new_model,
)
from simcrop_core.model.text import TextEncoder
from simcrop_core.study_batch import StudyBatch

GRID, PATCH = (4, 4, 2), (3, 2, 2)
PATCHES = math.prod(GRID)
TEXT_WIDTH = 16
WORDS = (
    "[PAD] [UNK] [CLS] [SEP] [MASK] no pleural eff ##usion heart is normal left cal ##ci ##fied "
    "mass in the lung ."
).split()
REPORTS = [
    "no pleural effusion . heart is normal . calcified mass in the left lung .",
    "heart is normal . no mass .",
    "no effusion in the lung . calcified effusion .",
    "normal heart . normal lung . no calcified mass . no left pleural effusion .",
]


class WordNetwork(nn.Module):
    """In BERT's stead, with its inputs and output: tokens, places, and one round of attention.

    Quick to make and to import, and what it gives a token depends on all tokens attended to.
    """

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(
            hidden_size=TEXT_WIDTH,
            vocab_size=len(WORDS),
            max_position_embeddings=32,
            model_type="bert",
        )
        generator = torch.Generator().manual_seed(3)
        self.words = nn.Parameter(torch.randn(len(WORDS), TEXT_WIDTH, generator=generator))
        self.places = nn.Parameter(torch.randn(32, TEXT_WIDTH, generator=generator))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        x_BTD = self.words[input_ids] + self.places[: input_ids.shape[1]]
        mixed_BTD = F.scaled_dot_product_attention(
            x_BTD, x_BTD, x_BTD, attn_mask=attention_mask.bool()[:, None]
        )
        return SimpleNamespace(last_hidden_state=F.layer_norm(x_BTD + mixed_BTD, [TEXT_WIDTH]))


def text_encoder() -> TextEncoder:
    """A frozen text encoder of twenty-one words, some of several tokens."""
    numbers = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(WordPiece(numbers, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    config = TextConfig(source="made", width=TEXT_WIDTH, max_tokens=32)
    return TextEncoder(config, WordNetwork(), tokenizer)


def small_model(**changes: Any) -> SimCroP:
    """Everything that pre-training needs, with numbers small enough for loops."""
    parts: dict[str, Any] = {
        "name": "small",
        "input_spec": InputSpec(
            shape=tuple(g * p for g, p in zip(GRID, PATCH, strict=True)), patch_shape=PATCH
        ),
        "vision": VisionConfig(depth=2, width=24, heads=4),
        "text": TextConfig(source="made", width=TEXT_WIDTH, max_tokens=32),
        "image_decoder": ImageDecoderConfig(depth=1, width=24, heads=4),
        "fusion": FusionConfig(heads=4),
        "text_decoder": TextDecoderConfig(
            depth=1, width=24, heads=4, hidden_width=48, max_tokens=32, vocabulary_size=len(WORDS)
        ),
    }
    model = new_model(ModelConfig(**(parts | changes)), seed=1)
    model.use_text_encoder(text_encoder())
    # Biases and norms that start at 0 and 1 would hide mistakes.
    for name, parameter in model.named_parameters():
        generator = torch.Generator().manual_seed(seed_of("noise", name))
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model.train()


def studies(
    indices: range | list[int], sentences: tuple[int, ...] = (3, 2, 1, 4), length: int = 28
) -> StudyBatch:
    """Studies of a made-up data set: each depends on its index and nothing else.

    ``sentences`` says how many each study has, again and again; ``length`` is the number of
    tokens that reports are padded to.
    """
    S, C = max(sentences), 2
    model_input = tuple(g * p for g, p in zip(GRID, PATCH, strict=True))
    rows: dict[str, list[torch.Tensor]] = {}
    for index in indices:
        generator = torch.Generator().manual_seed(1000 + index)
        there = torch.arange(S) < sentences[index % len(sentences)]
        encoding = _tokenizer().encode(REPORTS[index % len(REPORTS)])
        count = len(encoding.ids)
        tokens = torch.zeros(length, dtype=torch.long)
        tokens[:count] = torch.tensor(encoding.ids)
        special = torch.ones(length, dtype=torch.bool)
        special[1 : count - 1] = False
        volume = torch.randn((1, *model_input), generator=generator).clamp(-1, 1)
        row = {
            "volume_B1HWD": volume,
            "seeds_B": torch.tensor(7919 * index + 11),
            "index_B": torch.tensor(index),
            "sentences_BSD": torch.randn(S, TEXT_WIDTH, generator=generator) * there[:, None],
            "sentence_mask_BS": there,
            "tokens_BL": tokens,
            "attend_BL": torch.arange(length) < count,
            "special_BL": special,
            "report_BD": torch.randn(TEXT_WIDTH, generator=generator),
            "meaning_BS4": torch.zeros(S, 4, dtype=torch.long),
            "region_BSN": torch.zeros(S, PATCHES),
            "region_mask_BS": torch.zeros(S, dtype=torch.bool),
            "outlined_BS": torch.zeros(S, dtype=torch.bool),
            "kind_BS": torch.full((S,), 3),
            "facts_BFSL": torch.full((18, 4, 4), -1, dtype=torch.int8),
            "counterfactuals_BCD": torch.zeros(C, TEXT_WIDTH),
            "counterfactual_meaning_BC4": torch.zeros(C, 4, dtype=torch.long),
            "counterfactual_mask_BC": torch.zeros(C, dtype=torch.bool),
        }
        for name, value in row.items():
            rows.setdefault(name, []).append(value)
    return StudyBatch(**{name: torch.stack(values) for name, values in rows.items()})


def _tokenizer() -> Tokenizer:
    if not _TOKENIZER:
        _TOKENIZER.append(text_encoder().tokenizer)
    return _TOKENIZER[0]


_TOKENIZER: list[Tokenizer] = []
