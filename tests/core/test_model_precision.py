"""In which arithmetic the encoder should run, and what bf16 costs in exactness."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from simcrop_core.model import VisionConfig, VisionEncoder, encode_precision


@pytest.mark.parametrize(("tiles", "expected"), [(True, "bf16"), (False, "fp32")])
def test_cpus_take_bf16_only_with_matrix_units(
    monkeypatch: pytest.MonkeyPatch, tiles: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles)
    assert encode_precision("cpu") == expected


@pytest.mark.parametrize(("supported", "expected"), [(True, "bf16"), (False, "fp32")])
def test_gpus_take_bf16_where_they_have_it(
    monkeypatch: pytest.MonkeyPatch, supported: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: supported)
    assert encode_precision("cuda:1") == expected
    assert encode_precision("mps") == "fp32"


def test_bf16_features_point_the_same_way() -> None:
    encoder = VisionEncoder(VisionConfig(depth=4, width=96, heads=4), (4, 4, 4), (8, 8, 4))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder.initialise()
        x = torch.rand(1, 1, 32, 32, 16) * 2 - 1
    with torch.inference_mode():
        exact = encoder(x)
        with torch.autocast("cpu", torch.bfloat16):
            rough = encoder(x)
    assert rough.patches_BND.dtype == torch.float32
    assert not torch.equal(rough.patches_BND, exact.patches_BND)
    assert F.cosine_similarity(rough.patches_BND, exact.patches_BND, dim=-1).min() > 0.999
    assert F.cosine_similarity(rough.pooled_BD, exact.pooled_BD, dim=-1).min() > 0.999
