"""The segmentation head on the encoder: any patch, any region, and it learns."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from simcrop_core.errors import SimCroPError
from simcrop_core.input_spec import InputSpec
from simcrop_core.model import (
    ModelConfig,
    SegmentationConfig,
    SegmentationNet,
    SimCroP,
    TextConfig,
    VisionConfig,
    new_model,
)
from simcrop_core.model.segmentation import tapped_blocks, upsampling_kernels


def model_with_head(
    shape: tuple[int, int, int], patch: tuple[int, int, int], depth: int = 4, **head: Any
) -> SimCroP:
    return new_model(
        ModelConfig(
            name="segmenting",
            input_spec=InputSpec(shape=shape, patch_shape=patch),
            vision=VisionConfig(depth=depth, width=24, heads=4),
            text=TextConfig(source="minilm", width=384),
            segmentation=SegmentationConfig(
                **({"labels": ("left lung", "right lung"), "feature_width": 4} | head)
            ),
        )
    )


def head_of(model: SimCroP) -> SegmentationNet:
    assert model.segmentation is not None
    return model.segmentation


@pytest.mark.parametrize(("depth", "taps"), [(12, (3, 6, 9)), (8, (2, 4, 6)), (4, (1, 2, 3))])
def test_taps_are_the_published_ones(depth: int, taps: tuple[int, int, int]) -> None:
    assert tapped_blocks(depth) == taps


@given(st.tuples(*[st.integers(1, 64)] * 3))
def test_kernels_multiply_to_the_patch(patch: tuple[int, int, int]) -> None:
    kernels = upsampling_kernels(patch)
    assert len(kernels) == 4
    for axis in range(3):
        sizes = [kernel[axis] for kernel in kernels]
        assert math.prod(sizes) == patch[axis]
        assert sizes == sorted(sizes, reverse=True)


def test_kernels_of_the_papers_patch() -> None:
    assert upsampling_kernels((16, 16, 8)) == [(2, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 1)]


@pytest.mark.parametrize(
    ("shape", "patch"),
    [((32, 48, 24), (16, 16, 8)), ((24, 16, 8), (8, 8, 8)), ((24, 24, 12), (12, 6, 4))],
)
def test_every_voxel_gets_logits_whatever_the_patch(
    shape: tuple[int, int, int], patch: tuple[int, int, int]
) -> None:
    model = model_with_head(shape, patch)
    with torch.no_grad():
        logits = head_of(model)(torch.rand(2, 1, *shape))
    assert logits.shape == (2, 3, *shape)
    assert head_of(model).labels == ("left lung", "right lung")


def test_a_region_smaller_than_the_input() -> None:
    model = model_with_head((64, 64, 32), (16, 16, 8), roi=(32, 16, 16))
    head = head_of(model)
    assert head.roi == (32, 16, 16)
    with torch.no_grad():
        assert head(torch.rand(1, 1, 32, 16, 16)).shape == (1, 3, 32, 16, 16)
    with pytest.raises(SimCroPError) as refusal:
        head(torch.rand(1, 1, 64, 64, 32))
    assert refusal.value.code == "input-shape"


def test_the_authors_convention_needs_no_formula_of_the_encoders_own() -> None:
    model = model_with_head(
        (64, 64, 32), (16, 16, 8), roi=(32, 32, 16), position="official2axis", cls_token=False
    )
    x = torch.rand(1, 1, 32, 32, 16)
    with torch.no_grad():
        before = head_of(model)(x)
        model.vision.pos_embed += 1  # as if loaded; the region's positions are computed anew
        model.vision.cls_token += 1  # and the CLS token takes no part
        torch.testing.assert_close(head_of(model)(x), before)
        model.vision.blocks[0].attn.proj.bias += 1
        assert not torch.allclose(head_of(model)(x), before)


@pytest.mark.parametrize("change", [{"position": "official2axis"}, {"cls_token": False}])
def test_position_and_cls_token_change_the_result(change: dict[str, Any]) -> None:
    x = torch.rand(1, 1, 32, 32, 16)
    with torch.no_grad():
        base = head_of(model_with_head((32, 32, 16), (16, 16, 8)))(x)
        changed = head_of(model_with_head((32, 32, 16), (16, 16, 8), **change))(x)
    assert not torch.allclose(base, changed, atol=1e-6)


def test_weights_of_the_encoder_are_stored_once_and_followed() -> None:
    model = model_with_head((32, 32, 16), (16, 16, 8))
    assert not any("encoder" in name for name in model.state_dict())
    head, x = head_of(model), torch.rand(1, 1, 32, 32, 16)
    with torch.no_grad():
        before = head(x)
        model.vision.fc_norm.weight += 0.5
        assert not torch.allclose(head(x), before)
    assert model.double().segmentation is head
    assert head(x.double()).dtype == torch.float64


def test_the_head_learns_a_label_and_gradients_reach_the_encoder() -> None:
    torch.manual_seed(0)
    model = model_with_head((8, 16, 8), (4, 4, 4), labels=("bright",)).train()
    x = torch.rand(1, 1, 8, 16, 8) * 0.2 - 0.9
    x[:, :, 2:6, 5:12, 2:5] += 1.0
    truth = (x[:, 0] > -0.3).long()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(30):
        logits = head_of(model)(x)
        loss = torch.nn.functional.cross_entropy(logits, truth)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    found = head_of(model)(x).argmax(dim=1)
    overlap = 2 * (found * truth).sum() / (found.sum() + truth.sum())
    assert overlap > 0.95
    gradient = model.vision.patch_embed.proj.weight.grad
    assert gradient is not None
    assert gradient.any()
