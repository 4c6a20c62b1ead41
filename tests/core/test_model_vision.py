"""The vision encoder against the authors' one, written anew; positions against numpy."""

from __future__ import annotations

import math

import authors_encoder as authors
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from simcrop_core.errors import SimCroPError
from simcrop_core.model import ImageDecoder, ImageDecoderConfig, VisionConfig, VisionEncoder
from simcrop_core.model.vision import (
    gather_tokens,
    patchify,
    position_embedding,
    resized_positions,
)

GRID, PATCH = (3, 2, 4), (4, 6, 2)
SHAPE = (12, 12, 8)
N = math.prod(GRID)


def encoder_of(state: authors.State, **config: object) -> VisionEncoder:
    settings = {"depth": 3, "width": 24, "heads": 4, "position": "loaded"} | config
    encoder = VisionEncoder(VisionConfig(**settings), GRID, PATCH)
    encoder.load_state_dict(state)
    return encoder.eval()


@pytest.fixture(scope="module")
def state() -> authors.State:
    return authors.random_state(3, 24, PATCH, N + 1)


@pytest.fixture(scope="module")
def volume() -> torch.Tensor:
    return torch.rand(2, 1, *SHAPE, generator=torch.Generator().manual_seed(5)) * 2 - 1


def test_features_are_the_authors(state: authors.State, volume: torch.Tensor) -> None:
    patches, pooled, after = authors.encode(state, volume, PATCH, heads=4)
    with torch.no_grad():
        features = encoder_of(state)(volume, taps=(2, 0))
    torch.testing.assert_close(features.patches_BND, patches, atol=1e-5, rtol=0)
    torch.testing.assert_close(features.pooled_BD, pooled, atol=1e-5, rtol=0)
    torch.testing.assert_close(features.hidden[0], after[2], atol=1e-5, rtol=0)
    torch.testing.assert_close(features.hidden[1], after[0], atol=1e-5, rtol=0)
    assert not torch.allclose(features.hidden[0], features.hidden[1], atol=1e-2)


def test_in_double_precision_features_are_the_authors_to_the_last_digits(
    state: authors.State, volume: torch.Tensor
) -> None:
    exact = {name: tensor.double() for name, tensor in state.items()}
    patches, pooled, _ = authors.encode(exact, volume.double(), PATCH, heads=4)
    with torch.no_grad():
        features = encoder_of(state).double()(volume.double())
    torch.testing.assert_close(features.patches_BND, patches, atol=1e-12, rtol=0)
    torch.testing.assert_close(features.pooled_BD, pooled, atol=1e-12, rtol=0)


def test_without_a_cls_token_features_are_the_authors(volume: torch.Tensor) -> None:
    state = authors.random_state(3, 24, PATCH, N, cls_token=False)
    patches, pooled, _ = authors.encode(state, volume, PATCH, heads=4)
    with torch.no_grad():
        features = encoder_of(state, cls_token=False)(volume)
    torch.testing.assert_close(features.patches_BND, patches, atol=1e-5, rtol=0)
    torch.testing.assert_close(features.pooled_BD, pooled, atol=1e-5, rtol=0)
    assert features.cls_BD is None


def test_leaving_the_cls_token_out_is_an_encoder_without_one(
    state: authors.State, volume: torch.Tensor
) -> None:
    bare = {k: v for k, v in state.items() if k != "cls_token"}
    bare["pos_embed"] = state["pos_embed"][:, 1:]
    expected, _, _ = authors.encode(bare, volume, PATCH, heads=4)
    with torch.no_grad():
        features = encoder_of(state)(volume, cls_token=False)
    torch.testing.assert_close(features.patches_BND, expected, atol=1e-5, rtol=0)
    assert features.cls_BD is None


def test_patch_embedding_is_the_strided_convolution(volume: torch.Tensor) -> None:
    encoder = encoder_of(authors.random_state(3, 24, PATCH, N + 1))
    proj = encoder.patch_embed.proj
    expected = F.conv3d(volume, proj.weight, proj.bias, stride=PATCH).flatten(2).transpose(1, 2)
    torch.testing.assert_close(encoder.patch_embed(volume), expected, atol=1e-5, rtol=1e-5)


def test_patches_are_numbered_with_depth_fastest() -> None:
    x = torch.zeros(1, 1, *SHAPE)
    x[0, 0, 4:8, 0:6, 6:8] = 1  # patch (1, 0, 3)
    filled = patchify(x, PATCH).sum(dim=-1)[0].nonzero().flatten().tolist()
    assert filled == [1 * 2 * 4 + 0 * 4 + 3]
    ramp = torch.arange(math.prod(SHAPE)).reshape(1, 1, *SHAPE)
    own = patchify(ramp, PATCH)[0, 11].reshape(PATCH)
    assert torch.equal(own, ramp[0, 0, 4:8, 0:6, 6:8])


def test_masked_forward_is_the_authors_on_the_visible(
    state: authors.State, volume: torch.Tensor
) -> None:
    keep = [[5, 0, 17, 9], [5, 0, 17, 9]]
    patches, pooled, _ = authors.encode(state, volume, PATCH, heads=4, keep=keep[0])
    with torch.no_grad():
        features = encoder_of(state)(volume, torch.tensor(keep))
    torch.testing.assert_close(features.patches_BND, patches, atol=1e-5, rtol=0)
    torch.testing.assert_close(features.pooled_BD, pooled, atol=1e-5, rtol=0)


def test_masked_forward_is_the_full_one_with_masked_attention(
    state: authors.State, volume: torch.Tensor
) -> None:
    keep = [1, 4, 8, 20, 23]
    full, _, _ = authors.encode(state, volume, PATCH, heads=4, attend_to=keep)
    with torch.no_grad():
        seen = encoder_of(state)(volume, torch.tensor([keep, keep])).patches_BND
    torch.testing.assert_close(seen, full[:, keep], atol=1e-5, rtol=0)


@settings(max_examples=15, deadline=None)
@given(order=st.permutations(range(8)))
def test_order_of_the_visible_patches_only_orders_the_result(order: list[int]) -> None:
    state = authors.random_state(2, 24, PATCH, N + 1)
    encoder = encoder_of(state, depth=2)
    volume = torch.rand(1, 1, *SHAPE, generator=torch.Generator().manual_seed(1))
    keep = torch.tensor([[2, 3, 5, 7, 11, 13, 17, 19]])
    with torch.no_grad():
        straight = encoder(volume, keep)
        mixed = encoder(volume, keep[:, order])
    torch.testing.assert_close(mixed.patches_BND, straight.patches_BND[:, order], atol=1e-5, rtol=0)
    torch.testing.assert_close(mixed.pooled_BD, straight.pooled_BD, atol=1e-5, rtol=0)


def test_each_sample_of_a_batch_keeps_its_own_patches(
    state: authors.State, volume: torch.Tensor
) -> None:
    encoder = encoder_of(state)
    keep = torch.tensor([[0, 1, 2], [21, 4, 9]])
    with torch.no_grad():
        both = encoder(volume, keep).patches_BND
        alone = encoder(volume[1:], keep[1:]).patches_BND
    torch.testing.assert_close(both[1:], alone, atol=1e-5, rtol=0)


def test_gradients_reach_every_parameter(state: authors.State, volume: torch.Tensor) -> None:
    encoder = encoder_of(state).train()
    features = encoder(volume)
    (features.pooled_BD**2).sum().backward()
    missing = [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert missing == []
    assert not encoder.pos_embed.requires_grad


# -- positions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", [(3, 2, 4), (6, 6, 6), (1, 5, 2)])
@pytest.mark.parametrize("width", [24, 32])
def test_two_axis_positions_are_the_authors(grid: tuple[int, int, int], width: int) -> None:
    expected = authors.two_axis_positions(grid, width)
    got = position_embedding("official2axis", grid, width).numpy()
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert np.array_equal(got[0], got[grid[2] - 1])  # blind to depth, as published


@pytest.mark.parametrize(("width", "waves"), [(24, 4), (768, 128), (32, 5)])
def test_three_axis_positions_against_numpy(width: int, waves: int) -> None:
    grid = (3, 2, 4)
    got = position_embedding("sincos3d", grid, width).numpy()
    for number, index in enumerate(np.ndindex(*grid)):
        row = []
        for axis in range(3):
            phase = [index[axis] / 10000 ** (i / waves) for i in range(waves)]
            row += [*np.sin(phase), *np.cos(phase)]
        row += [0.0] * (width - len(row))
        np.testing.assert_allclose(got[number], row, atol=1e-6)
    assert len(np.unique(got.round(5), axis=0)) == math.prod(grid)


def fresh(position: str) -> VisionEncoder:
    config = VisionConfig(depth=1, width=24, heads=4, position=position)
    encoder = VisionEncoder(config, GRID, PATCH)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder.initialise()
    return encoder.eval()


@pytest.mark.parametrize("position", ["sincos3d", "official2axis"])
def test_fresh_encoder_holds_its_formula_with_a_zero_cls_row(position: str) -> None:
    table = fresh(position).pos_embed[0]
    assert not table[0].any()
    assert torch.equal(table[1:], position_embedding(position, GRID, 24))


def test_another_grid_is_computed_by_formula_and_refused_for_a_loaded_table() -> None:
    smaller = torch.rand(1, 1, 8, 12, 4, generator=torch.Generator().manual_seed(2))
    encoder = fresh("sincos3d")
    own = VisionEncoder(encoder.config, (2, 2, 2), PATCH)
    own.load_state_dict(
        encoder.state_dict()
        | {
            "pos_embed": torch.cat(
                [torch.zeros(1, 24), position_embedding("sincos3d", (2, 2, 2), 24)]
            )[None]
        }
    )
    with torch.no_grad():
        torch.testing.assert_close(encoder(smaller).patches_BND, own.eval()(smaller).patches_BND)
        two_axis = encoder(smaller, position="official2axis").patches_BND
    assert not torch.allclose(two_axis, own(smaller).patches_BND)
    encoder.pos_embed += 0.1  # no longer the formula's: a loaded table always wins
    with pytest.raises(SimCroPError, match="loaded for a grid") as refusal:
        encoder(smaller)
    assert refusal.value.code == "grid-mismatch"
    with pytest.raises(SimCroPError, match="loaded for a grid"):
        encoder_of(authors.random_state(3, 24, PATCH, N + 1))(smaller)


@pytest.mark.parametrize(
    "shape", [(1, 12, 12, 8), (1, 2, 12, 12, 8), (1, 1, 12, 12, 7), (1, 1, 12, 0, 8)]
)
def test_an_input_of_the_wrong_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(SimCroPError) as refusal:
        fresh("sincos3d")(torch.zeros(shape))
    assert refusal.value.code == "input-shape"


def test_resized_positions_keep_a_linear_table_linear() -> None:
    ramp = torch.arange(4.0)[:, None, None].expand(4, 2, 2).reshape(1, 16, 1)
    table = torch.cat([torch.full((1, 1, 1), 9.0), ramp], dim=1)
    got = resized_positions(table, (4, 2, 2), (8, 2, 2), cls_token=True)
    assert got[0, 0, 0] == 9
    middle = got[0, 1:, 0].reshape(8, 2, 2)[1:-1, 0, 0]
    torch.testing.assert_close(middle.diff(), torch.full((5,), 0.5))
    same = resized_positions(table, (4, 2, 2), (4, 2, 2), cls_token=True)
    torch.testing.assert_close(same, table)


# -- decoder of masked modelling ----------------------------------------------------------------


def decoder(cls_token: bool = True, **config: object) -> ImageDecoder:
    settings = {"depth": 2, "width": 36, "heads": 3} | config
    made = ImageDecoder(ImageDecoderConfig(**settings), 24, GRID, PATCH, cls_token)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        made.initialise()
    return made


def test_decoder_gives_the_voxels_of_every_patch_and_learns(volume: torch.Tensor) -> None:
    encoder, image_decoder = fresh("sincos3d").train(), decoder()
    keep = torch.stack([torch.randperm(N, generator=torch.Generator().manual_seed(i))[:6]
                        for i in range(2)])  # fmt: skip
    target = patchify(volume, PATCH)
    hidden = torch.ones(2, N).scatter(1, keep, 0)[..., None]
    parameters = [*encoder.parameters(), *image_decoder.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=3e-3)
    losses = []
    for _ in range(60):
        voxels = image_decoder(encoder(volume, keep), keep)
        assert voxels.shape == (2, N, math.prod(PATCH))
        loss = (((voxels - target) ** 2) * hidden).sum() / (hidden.sum() * math.prod(PATCH))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    untouched = [n for n, p in image_decoder.named_parameters() if not p.grad.any()]
    assert untouched == []


def test_mask_tokens_stand_where_patches_are_masked() -> None:
    """With identity blocks every masked patch differs from another by its position alone."""
    image_decoder = decoder(width=24, depth=1)
    image_decoder.blocks = torch.nn.ModuleList()
    image_decoder.norm = torch.nn.Identity()
    image_decoder.pred = torch.nn.Identity()
    image_decoder.embed = torch.nn.Identity()
    image_decoder.pos_embed.zero_()
    keep = torch.tensor([[7, 2], [0, 23]])
    encoder = fresh("sincos3d")
    with torch.no_grad():
        features = encoder(torch.rand(2, 1, *SHAPE), keep)
        tokens = image_decoder(features, keep)
    assert torch.equal(gather_tokens(tokens, keep), features.patches_BND)
    masked = torch.ones(2, N, dtype=torch.bool).scatter(1, keep, False)
    assert torch.equal(tokens[masked], image_decoder.mask_token[0].expand(2 * (N - 2), -1))


def test_decoder_without_a_cls_token() -> None:
    keep = torch.tensor([[3, 1, 0]])
    encoder = VisionEncoder(VisionConfig(depth=1, width=24, heads=4, cls_token=False), GRID, PATCH)
    encoder.initialise()
    voxels = decoder(cls_token=False)(encoder(torch.rand(1, 1, *SHAPE), keep), keep)
    assert voxels.shape == (1, N, math.prod(PATCH))
