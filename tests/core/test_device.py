"""Where and in which arithmetic the encoder runs, and what bf16 costs in exactness."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from simcrop_core.device import resolve_precision, select_device
from simcrop_core.errors import SimCroPError
from simcrop_core.model import VisionConfig, VisionEncoder


@pytest.mark.parametrize(("supported", "expected"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_bf16_on_gpus_that_have_it_and_fp32_on_every_cpu(
    monkeypatch: pytest.MonkeyPatch, supported: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: supported)
    assert resolve_precision(torch.device("cuda:1")) == expected
    assert resolve_precision(torch.device("cpu")) == "fp32"


def test_what_is_asked_for_is_taken_and_nonsense_refused() -> None:
    assert resolve_precision(torch.device("cpu"), "bf16") == "bf16"
    assert resolve_precision(torch.device("cuda"), "fp32") == "fp32"
    with pytest.raises(SimCroPError, match="precision"):
        resolve_precision(torch.device("cpu"), "fp8")  # type: ignore[arg-type]
    for name in ("tpu", "cuda:x", "cuda:99", ""):
        with pytest.raises(SimCroPError, match="device"):
            select_device(name)
    assert select_device("cpu").type == "cpu"


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
