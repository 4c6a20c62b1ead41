"""What a sample costs, counted operation by operation on shapes alone, against known figures."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.fx.experimental import _config as fx_config
from torch.utils.flop_counter import FlopCounterMode

from simcrop_core.input_spec import InputSpec
from simcrop_core.model import PRESETS, ModelConfig, TextConfig
from simcrop_core.model.simcrop import SimCroP, without_weights
from simcrop_core.objectives import Ranks, SimCroPConfig, make_objective

GIGA = 1e9
TOKENS, VOCABULARY, WIDTH = 512, 30522, 768


@cache
def bert() -> Any:
    """CXR-BERT's network as the objective uses it, on the meta device."""
    from transformers.models.bert import BertConfig, BertModel

    with torch.device("meta"):
        network = BertModel(BertConfig(), add_pooling_layer=False).requires_grad_(False)

    @torch.no_grad()
    def encode(ids_BT: torch.Tensor, attend_BT: torch.Tensor) -> torch.Tensor:
        # Without the mask, whose values it would ask for; they cost nothing.
        return network(input_ids=ids_BT).last_hidden_state

    encode.mask_id, encode.vocabulary_size, encode.window = 103, VOCABULARY, 512
    return encode


def preset(name: str) -> SimCroP:
    parts = dict(PRESETS[name])
    parts["text"] = TextConfig()
    model = without_weights(ModelConfig(name=name, input_spec=InputSpec(), **parts))
    model._text[:] = [bert()]
    return model


def flops(function: Any) -> float:
    with FlopCounterMode(display=False) as counter, torch.device("meta"):
        function()
    return counter.get_total_flops() / GIGA


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.zeros(*shape, dtype=dtype, device="meta")


class Shapes(SimpleNamespace):
    """A batch of one study of which only the shapes are known."""

    def __len__(self) -> int:
        return 1


def test_parts_cost_what_is_known() -> None:
    model = preset("paper")
    encoder, decoder = model.vision.blocks[0], model.image_decoder.blocks[0]
    assert flops(lambda: encoder(meta(1, 687, WIDTH))) == pytest.approx(11.2, rel=0.03)
    assert flops(lambda: decoder(meta(1, 2745, WIDTH))) == pytest.approx(62.0, rel=0.03)
    ids, attend = meta(1, TOKENS, dtype=torch.long), meta(1, TOKENS, dtype=torch.bool)
    assert flops(lambda: model.text(ids, attend)) == pytest.approx(96.6, rel=0.03)


@pytest.mark.parametrize(("name", "expected"), [("paper", 1370), ("released", 1510)])
def test_a_sample_costs_what_is_known(name: str, expected: float) -> None:
    """Forward and backward through SimCroP's objective, a report of 512 tokens, all text cached
    that can be."""
    model = preset(name)
    config = SimCroPConfig()
    objective = make_objective(config, model)
    S = 20
    batch = Shapes(
        volume_B1HWD=meta(1, 1, 224, 224, 112),
        seeds_B=meta(1, dtype=torch.long),
        sentences_BSD=meta(1, S, WIDTH),
        sentence_mask_BS=meta(1, S, dtype=torch.bool),
        tokens_BL=meta(1, TOKENS, dtype=torch.long),
        attend_BL=meta(1, TOKENS, dtype=torch.bool),
        special_BL=meta(1, TOKENS, dtype=torch.bool),
    )
    # On shapes alone it is not known how many tokens are masked: all are taken to be.
    with fx_config.patch(meta_nonzero_assume_all_nonzero=True):
        counted = flops(lambda: objective(model, batch, Ranks()).total.backward())
    unmasked = TOKENS - round(config.report_mask_ratio * (TOKENS - 2))
    counted -= 3 * 2 * unmasked * WIDTH * (VOCABULARY + WIDTH) / GIGA
    print(f"{name}: {counted:.0f} GF")
    assert counted == pytest.approx(expected, rel=0.03)
