"""Each equation against loops in float64 that were written from the paper's formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from simcrop_core.objectives import (
    masked_image_loss,
    masked_report_loss,
    patchify,
    similarity_alignment_loss,
    unpatchify,
)

Array = NDArray[np.float64]
SETTINGS = settings(max_examples=40, deadline=None)
sizes = st.integers(1, 4)
seeds = st.integers(0, 2**32 - 1)


@pytest.fixture(autouse=True)
def _same_numbers_each_time() -> None:
    torch.manual_seed(0)


# -- patches ------------------------------------------------------------------------------------


@SETTINGS
@given(st.tuples(sizes, sizes, sizes), st.tuples(sizes, sizes, sizes), sizes, seeds)
def test_patches_are_cut_in_c_order_and_put_back(
    grid: tuple[int, int, int], patch: tuple[int, int, int], batch: int, seed: int
) -> None:
    shape = tuple(g * p for g, p in zip(grid, patch, strict=True))
    volume = np.random.default_rng(seed).normal(size=(batch, 1, *shape))
    expected = np.zeros((batch, math.prod(grid), math.prod(patch)))
    for b in range(batch):
        for i, j, k in np.ndindex(*shape):
            (h, p), (w, q), (d, r) = (divmod(n, s) for n, s in zip((i, j, k), patch, strict=True))
            number = (h * grid[1] + w) * grid[2] + d
            voxel = (p * patch[1] + q) * patch[2] + r
            expected[b, number, voxel] = volume[b, 0, i, j, k]
    patches = patchify(torch.from_numpy(volume), patch)
    np.testing.assert_array_equal(patches.numpy(), expected)
    np.testing.assert_array_equal(unpatchify(patches, patch, shape).numpy(), volume)


# -- Eq. 1 --------------------------------------------------------------------------------------


def image_loss(
    pred: Array, target: Array, mask: Array, masked_only: bool, normalize: bool
) -> float:
    """Eq. 1 in words: the squared error of a voxel, averaged over patches and their voxels."""
    errors = []
    B, N, P = pred.shape
    for b in range(B):
        for n in range(N):
            if masked_only and not mask[b, n]:
                continue
            goal = target[b, n]
            if normalize:
                mean = sum(goal) / P
                variance = sum((v - mean) ** 2 for v in goal) / (P - 1)
                goal = (goal - mean) / math.sqrt(variance + 1e-6)
            errors.append(sum((pred[b, n, v] - goal[v]) ** 2 for v in range(P)) / P)
    return sum(errors) / len(errors) if errors else 0.0


@SETTINGS
@given(sizes, sizes, st.integers(2, 6), seeds, st.booleans(), st.booleans(), st.booleans())
def test_image_loss_is_equation_1(
    B: int, N: int, P: int, seed: int, masked_only: bool, normalize: bool, none_masked: bool
) -> None:
    rng = np.random.default_rng(seed)
    pred, target = rng.normal(size=(2, B, N, P))
    mask = np.zeros((B, N)) if none_masked else rng.integers(0, 2, size=(B, N)).astype(float)
    expected = image_loss(pred, target, mask, masked_only, normalize)
    for dtype, close in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
        for kind in (dtype, torch.bool):
            got = masked_image_loss(
                torch.from_numpy(pred).to(dtype),
                torch.from_numpy(target).to(dtype),
                torch.from_numpy(mask).to(kind),
                masked_only=masked_only,
                normalize_patches=normalize,
            )
            assert got.item() == pytest.approx(expected, rel=close, abs=close)


def test_image_loss_by_default_counts_removed_patches_as_they_are() -> None:
    pred, target = torch.zeros(1, 2, 2), torch.tensor([[[1.0, 3.0], [100.0, 100.0]]])
    assert masked_image_loss(pred, target, torch.tensor([[1, 0]])).item() == 5.0


def test_flat_patches_stay_finite_when_normalised() -> None:
    pred = torch.zeros(1, 2, 4, requires_grad=True)
    loss = masked_image_loss(pred, torch.ones(1, 2, 4), torch.ones(1, 2), normalize_patches=True)
    loss.backward()
    assert loss.item() == 0.0
    assert pred.grad is not None
    assert pred.grad.isfinite().all()


# -- Eq. 2-4 ------------------------------------------------------------------------------------


def unit(vector: Array) -> Array:
    return vector / math.sqrt(sum(vector**2))


def alignment_loss(
    patches: Array, sentences: Array, there: Array, top_k: int, temperature: float, normalize: bool
) -> float:
    """Eq. 2-4, a report at a time."""
    losses = []
    for b in range(len(patches)):
        said = [sentences[b, s] for s in range(sentences.shape[1]) if there[b, s]]
        seen = list(patches[b])
        if len(said) < 2:
            continue
        if normalize:
            said, seen = [unit(v) for v in said], [unit(v) for v in seen]
        aligned = []
        for sentence in said:
            similarity = [float(sentence @ patch) for patch in seen]  # Eq. 2
            ranking = sorted(range(len(seen)), key=lambda n: similarity[n], reverse=True)
            best = ranking[:top_k]
            mean = sum(seen[n] for n in best) / len(best)  # Eq. 3
            aligned.append(unit(mean) if normalize else mean)
        total = 0.0
        for i in range(len(said)):  # Eq. 4
            own = math.exp(aligned[i] @ said[i] / temperature)
            others = sum(math.exp(aligned[i] @ other / temperature) for other in said)
            total -= math.log(own / others)
            others = sum(math.exp(other @ said[i] / temperature) for other in aligned)
            total -= math.log(own / others)
        losses.append(total / len(said))
    return sum(losses) / len(losses) if losses else 0.0


@SETTINGS
@given(
    sizes,
    st.integers(1, 12),
    st.integers(1, 6),
    st.integers(2, 6),
    st.integers(1, 14),
    st.floats(0.3, 2),
    st.booleans(),
    seeds,
)
def test_alignment_is_equations_2_to_4(
    B: int, N: int, S: int, D: int, top_k: int, temperature: float, normalize: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    patches, sentences = rng.normal(size=(B, N, D)), rng.normal(size=(B, S, D))
    there = rng.integers(0, 2, size=(B, S)).astype(bool)
    sentences[~there] = 0  # as padding is
    expected = alignment_loss(patches, sentences, there, top_k, temperature, normalize)
    got = similarity_alignment_loss(
        torch.from_numpy(patches),
        torch.from_numpy(sentences),
        torch.from_numpy(there),
        top_k=top_k,
        temperature=temperature,
        normalize=normalize,
    )
    assert got.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


def align(patches: torch.Tensor, sentences: torch.Tensor, there: torch.Tensor, **changes):
    options = {"top_k": 2, "temperature": 0.07, "normalize": True} | changes
    return similarity_alignment_loss(patches, sentences, there, **options)


def test_a_perfect_alignment_costs_nothing_and_one_without_image_costs_two_log_sentences() -> None:
    sentences = torch.eye(4)[None]
    there = torch.ones(1, 4, dtype=torch.bool)
    assert align(sentences, sentences, there, top_k=1).item() == pytest.approx(0, abs=1e-4)
    blank = torch.ones(1, 5, 4)
    assert align(blank, sentences, there).item() == pytest.approx(2 * math.log(4), rel=1e-5)


@pytest.mark.parametrize("counts", [(0, 1), (0, 0), (1, 1)])
def test_reports_of_fewer_than_two_sentences_give_zero_with_a_gradient(counts) -> None:
    patches = torch.randn(2, 5, 3, requires_grad=True)
    sentences = torch.randn(2, 4, 3, requires_grad=True)
    there = torch.arange(4) < torch.tensor(counts)[:, None]
    loss = align(patches, sentences, there)
    loss.backward()
    assert loss.item() == 0
    for x in (patches, sentences):
        assert x.grad is not None
        assert not x.grad.any()


def test_padding_and_reports_without_contrast_have_no_part() -> None:
    patches, sentences = torch.randn(3, 6, 4), torch.randn(3, 5, 4)
    there = torch.arange(5) < torch.tensor([3, 1, 4])[:, None]
    loss = align(patches, sentences, there)
    spoiled = sentences.clone()
    spoiled[1] = -7.0
    spoiled[~there] = torch.nan
    torch.testing.assert_close(align(patches, spoiled, there), loss)
    torch.testing.assert_close(align(patches[[0, 2]], sentences[[0, 2]], there[[0, 2]]), loss)
    patches.requires_grad_()
    align(patches, spoiled, there).backward()
    assert patches.grad is not None
    assert patches.grad.isfinite().all()


def test_more_patches_than_there_are_means_all_of_them() -> None:
    patches, sentences = torch.randn(2, 6, 4), torch.randn(2, 3, 4)
    there = torch.ones(2, 3, dtype=torch.bool)
    torch.testing.assert_close(
        align(patches, sentences, there, top_k=1000), align(patches, sentences, there, top_k=6)
    )
    with pytest.raises(ValueError, match="at least one patch"):
        align(patches, sentences, there, top_k=0)


def test_lengths_matter_only_without_normalisation() -> None:
    patches, sentences = torch.randn(1, 6, 4), torch.randn(1, 3, 4)
    there = torch.ones(1, 3, dtype=torch.bool)
    stretched = patches * torch.tensor([1, 2, 3, 4, 5, 6.0])[None, :, None], 3 * sentences
    torch.testing.assert_close(align(*stretched, there), align(patches, sentences, there))
    raw = align(patches, sentences, there, normalize=False)
    assert abs(align(*stretched, there, normalize=False) - raw) > 1e-3


def test_only_chosen_patches_get_a_gradient() -> None:
    patches = torch.randn(1, 9, 4, dtype=torch.float64, requires_grad=True)
    sentences = torch.randn(1, 3, 4, dtype=torch.float64)
    there = torch.ones(1, 3, dtype=torch.bool)
    align(patches, sentences, there, normalize=False).backward()
    chosen = (sentences @ patches.transpose(1, 2)).topk(2, dim=-1).indices.unique()
    assert patches.grad is not None
    assert patches.grad[0].any(dim=-1).nonzero().flatten().tolist() == chosen.tolist()


# -- Eq. 6 --------------------------------------------------------------------------------------


@SETTINGS
@given(sizes, st.integers(1, 5), st.integers(2, 7), seeds)
def test_report_loss_is_equation_6(B: int, L: int, V: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits, tokens = rng.normal(size=(B, L, V)), rng.integers(0, V, size=(B, L))
    masked = rng.integers(0, 2, size=(B, L))
    costs = []
    for b, i in np.argwhere(masked):
        scores = [math.exp(v) for v in logits[b, i]]
        costs.append(-math.log(scores[tokens[b, i]] / sum(scores)))
    expected = sum(costs) / len(costs) if costs else 0.0
    arguments = torch.from_numpy(logits), torch.from_numpy(tokens)
    for kind in (torch.bool, torch.float32):
        got = masked_report_loss(*arguments, torch.from_numpy(masked).to(kind))
        assert got.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_nothing_masked_costs_nothing_and_has_a_gradient() -> None:
    logits = torch.randn(2, 3, 5, requires_grad=True)
    loss = masked_report_loss(logits, torch.zeros(2, 3, dtype=torch.long), torch.zeros(2, 3))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


# -- gradients and precision --------------------------------------------------------------------


def double(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def test_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    mask = torch.tensor([[1, 0, 1]])
    check = torch.autograd.gradcheck
    for masked_only in (True, False):
        assert check(
            lambda p, t, m=masked_only: masked_image_loss(
                p, t, mask, masked_only=m, normalize_patches=True
            ),
            (double(1, 3, 4), double(1, 3, 4)),
        )
    there = torch.tensor([[1, 1, 0], [1, 1, 1]]).bool()
    for normalize in (True, False):
        assert check(
            lambda p, s, n=normalize: align(p, s, there, normalize=n, temperature=0.5),
            (double(2, 5, 3), double(2, 3, 3)),
        )
    tokens = torch.tensor([[1, 0, 3]])
    assert check(lambda x: masked_report_loss(x, tokens, mask), (double(1, 3, 4),))


def test_losses_of_bf16_are_formed_in_float32_also_under_autocast() -> None:
    torch.manual_seed(1)
    pred, target = torch.randn(2, 1, 3, 300).bfloat16()
    mask = torch.ones(1, 3)
    patches, sentences = torch.randn(1, 40, 64).bfloat16(), torch.randn(1, 5, 64).bfloat16()
    there = torch.ones(1, 5, dtype=torch.bool)
    logits, tokens = 8 * torch.randn(1, 3, 50).bfloat16(), torch.tensor([[1, 2, 3]])

    def losses() -> list[torch.Tensor]:
        return [
            masked_image_loss(pred, target, mask, normalize_patches=True),
            align(patches, sentences, there, top_k=7),
            masked_report_loss(logits, tokens, mask),
        ]

    plain = losses()
    with torch.autocast("cpu", torch.bfloat16):
        under = losses()
    pred, target, patches, sentences, logits = (
        x.double() for x in (pred, target, patches, sentences, logits)
    )
    for a, b, exact in zip(plain, under, losses(), strict=True):
        assert a.dtype == b.dtype == torch.float32
        assert a.item() == b.item()
        assert a.item() == pytest.approx(exact.item(), rel=1e-5)
