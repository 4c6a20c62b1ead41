"""Which patches and tokens are hidden: how many, which, and from what they are drawn."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_batch import REPORTS, WORDS, studies, text_encoder

from simcrop_core.counter_random import uniform
from simcrop_core.errors import SimCroPError
from simcrop_core.objectives.masking import (
    MaskedReport,
    continuing_tokens,
    mask_patches,
    mask_report,
    visible_count,
)

MASK_ID = WORDS.index("[MASK]")
SEEDS = torch.arange(300) * 97 + 13


# -- patches ------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 60), st.floats(0.01, 0.99), st.integers(0, 2**62))
def test_visible_and_masked_patches_share_out_the_volume(n: int, ratio: float, seed: int) -> None:
    mask = mask_patches(torch.tensor([seed, seed + 1]), n, ratio)
    kept = visible_count(n, ratio)
    assert 1 <= kept <= n - 1
    assert abs(kept - n * (1 - ratio)) <= 0.5 or kept in (1, n - 1)
    assert mask.keep_BK.shape == (2, kept)
    for row, keep in zip(mask.mask_BN, mask.keep_BK, strict=True):
        assert keep.tolist() == (~row).nonzero().flatten().tolist()


def test_the_paper_keeps_686_of_2744_patches() -> None:
    assert mask_patches(torch.tensor([0]), 2744, 0.75).keep_BK.shape == (1, 686)


def test_masks_follow_the_studies_when_the_batch_is_shuffled() -> None:
    order = torch.randperm(len(SEEDS), generator=torch.Generator().manual_seed(0))
    one, other = mask_patches(SEEDS, 32, 0.75), mask_patches(SEEDS[order], 32, 0.75)
    assert torch.equal(one.keep_BK[order], other.keep_BK)
    assert torch.equal(one.mask_BN[order], other.mask_BN)
    assert len(one.keep_BK.unique(dim=0)) == len(SEEDS)


def test_every_patch_is_hidden_as_often_as_any_other() -> None:
    often_N = mask_patches(torch.arange(4000), 32, 0.75).mask_BN.float().mean(dim=0)
    assert (often_N - 0.75).abs().max() < 5 * (0.75 * 0.25 / 4000) ** 0.5


def test_patches_with_the_largest_numbers_are_removed() -> None:
    draw = uniform(SEEDS, 32, "masked patches")
    mask = mask_patches(SEEDS, 32, 0.75).mask_BN
    assert (draw.masked_fill(mask, 0).amax(1) <= draw.masked_fill(~mask, 1).amin(1)).all()


# -- reports ------------------------------------------------------------------------------------


def hide(ratio: float = 0.75, count: int = 300, **options) -> tuple[MaskedReport, SimpleNamespace]:
    batch = studies(range(4))
    rows = torch.arange(count) % 4
    tokens, special = batch.tokens_BL[rows], batch.special_BL[rows]
    options = {"mask_id": MASK_ID, "vocabulary_size": len(WORDS)} | options
    report = mask_report(SEEDS[:count], tokens, special, ratio, **options)
    return report, SimpleNamespace(tokens=tokens, special=special, rows=rows)


@pytest.mark.parametrize("ratio", [0.01, 0.15, 0.5, 0.75, 0.99])
def test_the_share_of_tokens_asked_for_is_hidden(ratio: float) -> None:
    report, given_ = hide(ratio)
    assert not (report.masked_BL & given_.special).any()
    texts = (~given_.special).sum(dim=1)
    expected = (texts * ratio).round().clamp(min=1)
    assert torch.equal(report.masked_BL.sum(dim=1), expected.long())
    assert torch.equal(report.ids_BL[~report.masked_BL], given_.tokens[~report.masked_BL])
    assert (report.ids_BL[report.masked_BL] == MASK_ID).all()


def test_an_empty_report_has_nothing_hidden() -> None:
    tokens = torch.tensor([[2, 3, 0]])
    report = mask_report(
        torch.tensor([1]), tokens, torch.ones(1, 3).bool(), 0.75, mask_id=4, vocabulary_size=21
    )
    assert not report.masked_BL.any()
    assert torch.equal(report.ids_BL, tokens)


def test_hidden_tokens_are_drawn_evenly_and_by_the_seed_alone() -> None:
    batch = studies(range(4))
    seeds = torch.arange(4000)
    row = torch.zeros(4000, dtype=torch.long)
    options = {"mask_id": MASK_ID, "vocabulary_size": len(WORDS)}
    tokens, special = batch.tokens_BL[row], batch.special_BL[row]
    often = mask_report(seeds, tokens, special, 0.5, **options).masked_BL.float().mean(dim=0)
    text = ~special[0]
    share = round(0.5 * int(text.sum())) / int(text.sum())
    assert (often[text] - share).abs().max() < 5 * (0.25 / 4000) ** 0.5
    order = torch.randperm(4, generator=torch.Generator().manual_seed(3))
    one = mask_report(batch.seeds_B, batch.tokens_BL, batch.special_BL, 0.5, **options)
    other = mask_report(
        batch.seeds_B[order], batch.tokens_BL[order], batch.special_BL[order], 0.5, **options
    )
    assert torch.equal(one.ids_BL[order], other.ids_BL)


def words_of(row: torch.Tensor, special: torch.Tensor) -> list[list[int]]:
    """Places of the tokens of each word, by the spelling of WordPiece."""
    words: list[list[int]] = []
    for place, token in enumerate(row.tolist()):
        if special[place]:
            continue
        if WORDS[token].startswith("##"):
            words[-1].append(place)
        else:
            words.append([place])
    return words


@pytest.mark.parametrize("ratio", [0.15, 0.75])
def test_words_are_hidden_whole(ratio: float) -> None:
    report, given_ = hide(ratio, continues_V=continuing_tokens(text_encoder()))
    pieces = 0
    for row, special, masked in zip(given_.tokens, given_.special, report.masked_BL, strict=True):
        words = words_of(row, special)
        hidden = [word for word in words if masked[word].all()]
        assert all(masked[word].all() or not masked[word].any() for word in words)
        assert len(hidden) == max(1, round(ratio * len(words)))
        assert masked.sum() == sum(map(len, hidden))
        pieces += sum(len(word) > 1 for word in hidden)
    assert pieces > 20
    by_token, _ = hide(ratio)
    assert not torch.equal(by_token.masked_BL, report.masked_BL)


def test_berts_way_hides_eighty_changes_ten_and_leaves_ten() -> None:
    report, given_ = hide(0.75, style="bert")
    plain, _ = hide(0.75)
    assert torch.equal(report.masked_BL, plain.masked_BL)
    now, before = report.ids_BL[report.masked_BL], given_.tokens[report.masked_BL]
    count = len(now)
    share = {"mask": (now == MASK_ID), "stays": (now == before)}
    rest = now[~share["mask"] & ~share["stays"]]
    sigma = (0.8 * 0.2 / count) ** 0.5
    any_token = 0.1 / len(WORDS)  # a random token may be the mask, or the one that was there
    assert abs(share["mask"].float().mean() - 0.8 - any_token) < 5 * sigma
    assert abs(share["stays"].float().mean() - 0.1 - any_token) < 5 * sigma
    assert set(rest.tolist()) == set(range(len(WORDS))) - {MASK_ID}
    assert torch.equal(report.ids_BL[~report.masked_BL], given_.tokens[~report.masked_BL])


@pytest.mark.parametrize("mark", ["Ġ", "▁"])
def test_vocabularies_that_mark_the_first_token_of_a_word(mark: str) -> None:
    vocabulary = {"<s>": 0, f"{mark}lung": 1, "s": 2, f"{mark}mass": 3}
    text = SimpleNamespace(
        tokenizer=SimpleNamespace(get_vocab=lambda: vocabulary), vocabulary_size=4
    )
    assert continuing_tokens(text).tolist() == [True, False, True, False]
    # The first text token starts a word whatever its spelling.
    tokens, special = torch.tensor([[0, 2, 1, 2]]), torch.tensor([[True, False, False, False]])
    report = mask_report(
        torch.tensor([4]), tokens, special, 0.5, mask_id=9, vocabulary_size=4,
        continues_V=continuing_tokens(text),
    )  # fmt: skip
    assert report.masked_BL.tolist() in ([[0, 1, 0, 0]], [[0, 0, 1, 1]])


def test_a_vocabulary_without_marks_is_refused() -> None:
    text = SimpleNamespace(
        tokenizer=SimpleNamespace(get_vocab=lambda: {"lung": 0}), vocabulary_size=1
    )
    with pytest.raises(SimCroPError, match="where words begin"):
        continuing_tokens(text)


def test_the_reports_of_these_tests_have_words_of_several_tokens() -> None:
    assert any(len(word) > 1 for word in words_of(*(x[0] for x in _first_report())))
    assert len(REPORTS) == 4


def _first_report() -> tuple[torch.Tensor, torch.Tensor]:
    batch = studies([0])
    return batch.tokens_BL, batch.special_BL
