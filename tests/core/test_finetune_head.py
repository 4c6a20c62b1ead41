"""Fitting a head, dropped branches, and the label map between two data sets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from made_probe import SPEC, tiny_model
from pydantic import ValidationError
from sklearn.linear_model import LogisticRegression
from torch import nn

from simcrop_core.datasets.radchestct import FINDINGS_OF
from simcrop_core.errors import SimCroPError
from simcrop_core.evaluate.presence import auc
from simcrop_core.finetune.config import ProbeConfig
from simcrop_core.finetune.features import FeatureMaker, ahead, dropped_branches, stream
from simcrop_core.finetune.head import batches, fit_head, logits_of, probabilities
from simcrop_core.finetune.transfer import as_radchestct
from simcrop_core.statements import FINDINGS
from simcrop_core.train.classification_tasks import TASKS, Share


def share(**changes: object) -> Share:
    settings = {
        "training": "x", "lr": 0.05, "steps": 300, "warmup": 30, "batch_size": 16, "patience": 5,
        "paper": 0.0,
    }  # fmt: skip
    return Share(**{**settings, **changes})  # type: ignore[arg-type]


def made(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features, and three labels of which two follow from them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 6)).astype(np.float32)
    noise = rng.normal(size=(3, count))
    y = np.stack([x[:, 0] + 0.3 * noise[0] > 0, x[:, 1] - x[:, 2] > 0.5, noise[2] > 0], 1)
    return x, y.astype(np.int16)


def fit(x: np.ndarray, y: np.ndarray, classes: int = 0, **changes: object):
    settings: dict[str, object] = {"weight_decay": 1e-5, "clip_norm": 1.0, "seed": 0}
    mine = ("judge", "start_validation", "later_wins", "seed")
    settings |= {name: changes.pop(name) for name in mine if name in changes}
    width, settled = x.shape[1], share(**changes)
    return fit_head(lambda rows, epoch: x[rows], y, width, classes, settled, **settings)


def test_a_head_finds_what_logistic_regression_finds() -> None:
    x, y = made(400)
    fitted = fit(x, y, steps=1500)
    assert len(fitted.losses) == fitted.steps == 1500
    scores = logits_of(fitted.head, x)
    for column in range(2):
        exact = LogisticRegression(C=1e5).fit(x, y[:, column])
        assert auc(scores[:, column], y[:, column]) == pytest.approx(
            auc(exact.decision_function(x), y[:, column]), abs=0.01
        )
        weights = fitted.head.weight[column].numpy()
        cosine = weights @ exact.coef_[0] / np.linalg.norm(weights) / np.linalg.norm(exact.coef_)
        assert cosine > 0.98
    assert auc(logits_of(fitted.head, made(400, 1)[0])[:, 2], made(400, 1)[1][:, 2]) < 0.6


def test_classes_exclude_each_other() -> None:
    x, _ = made(300)
    truth = x[:, :3].argmax(axis=1)
    fitted = fit(x, truth, classes=3, steps=600)
    found = probabilities(fitted.head, x, 3)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    assert (found.argmax(axis=1) == truth).mean() > 0.95
    one_by_one = probabilities(fitted.head, x, 0)
    assert not np.allclose(one_by_one.sum(axis=1), 1)


def test_each_step_is_adamw_with_warm_up_and_a_cosine() -> None:
    """Step by step the same as AdamW written out by hand."""
    x, y = made(40)
    fitted = fit(x, y, steps=20, warmup=4, batch_size=16, lr=0.02)
    weight = fit(x, y, steps=1, warmup=0, lr=1e-30).head.weight.double().numpy().copy()
    bias = np.zeros(3)
    first = {"w": np.zeros_like(weight), "b": np.zeros(3)}
    second = {"w": np.zeros_like(weight), "b": np.zeros(3)}
    order = [rows for epoch in range(9) for rows in batches(40, 16, 0, epoch)]
    for step, rows in enumerate(order[:20], start=1):
        rate = 0.02 * (step / 4 if step < 4 else (1 + np.cos(np.pi * (step - 4) / 16)) / 2)
        error = 1 / (1 + np.exp(-(x[rows] @ weight.T + bias))) - y[rows]
        slope = {"w": error.T @ x[rows] / error.size, "b": error.sum(axis=0) / error.size}
        length = np.sqrt(sum((g**2).sum() for g in slope.values()))
        for name, value in (("w", weight), ("b", bias)):
            g = slope[name] * min(1.0, 1.0 / (length + 1e-6))
            first[name] = 0.9 * first[name] + 0.1 * g
            second[name] = 0.999 * second[name] + 0.001 * g**2
            value *= 1 - rate * 1e-5
            direction = first[name] / (1 - 0.9**step)
            value -= rate * direction / (np.sqrt(second[name] / (1 - 0.999**step)) + 1e-8)
    np.testing.assert_allclose(fitted.head.weight.numpy(), weight, atol=2e-4)
    np.testing.assert_allclose(fitted.head.bias.numpy(), bias, atol=2e-4)


def test_every_scan_is_seen_once_in_a_pass_and_passes_differ() -> None:
    one, other = (batches(10, 4, 3, epoch) for epoch in (0, 1))
    assert [len(rows) for rows in one] == [4, 4, 2]
    assert sorted(np.concatenate(one)) == list(range(10))
    assert np.concatenate(one).tolist() != np.concatenate(other).tolist()


@pytest.mark.parametrize(("later_wins", "kept"), [(True, 3), (False, 2)])
def test_the_best_validation_is_kept_and_patience_ends(later_wins: bool, kept: int) -> None:
    figures = iter([0.5, 0.8, 0.8, 0.7, 0.6, 0.4, 0.9])
    heads = []

    def judge(head: nn.Linear) -> float:
        heads.append(head.weight.detach().clone())
        return next(figures)

    x, y = made(32)
    fitted = fit(x, y, judge=judge, later_wins=later_wins, patience=3, start_validation=1)
    assert fitted.validations[0] == (2, 0.5)  # the first pass is not validated
    assert len(fitted.validations) == (6 if later_wins else 5)
    assert torch.equal(fitted.head.weight, heads[kept - 1])
    assert fitted.steps == 2 * (kept + 1)  # two steps a pass, one pass unseen


def test_a_loss_that_is_no_number_ends_in_a_sentence() -> None:
    x, y = made(20)
    x[3] = np.inf
    with pytest.raises(SimCroPError, match="loss of step 1 is not a number"):
        fit(x, y, batch_size=20)


# -- features -----------------------------------------------------------------------------------


def test_no_branch_is_dropped_at_rate_0_and_all_is_as_before_afterwards() -> None:
    vision = tiny_model().vision.eval()
    x = torch.randn(2, 1, *SPEC.shape)
    with torch.no_grad():
        plain = vision(x).pooled_BD
        with dropped_branches(vision, [stream(0, "a", 0), stream(0, "b", 0)], rate=0.0):
            assert torch.equal(vision(x).pooled_BD, plain)
        with dropped_branches(vision, [stream(0, "a", 0), stream(0, "b", 0)], rate=0.9):
            dropped = vision(x).pooled_BD
        assert torch.equal(vision(x).pooled_BD, plain)
    assert not torch.allclose(dropped, plain)


def test_dropped_branches_are_stochastic_depth() -> None:
    """Sample by sample the block written out by hand, with the stream's own draws."""
    vision = tiny_model(3).vision.eval()
    x = torch.randn(3, 1, *SPEC.shape)
    rate, names = 0.6, ("a", "b", "c")
    with torch.no_grad(), dropped_branches(vision, [stream(7, n, 2) for n in names], rate=rate):
        made = vision(x).patches_BND
    left_out = 0
    for row, name in enumerate(names):
        rng = stream(7, name, 2)
        tokens = None

        def first(module: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
            nonlocal tokens
            tokens = given[0]

        handle = vision.blocks[0].register_forward_pre_hook(first)
        with torch.no_grad():
            vision(x[row : row + 1])
            handle.remove()
            assert tokens is not None
            for number, block in enumerate(vision.blocks):
                kept = 1 - rate * number  # two blocks: 0 and the whole rate
                for norm, branch in ((block.norm1, block.attn), (block.norm2, block.mlp)):
                    factor = float(rng.random() < kept) / kept
                    left_out += factor == 0
                    tokens = tokens + factor * branch(norm(tokens))
        torch.testing.assert_close(made[row], tokens[0, 1:], atol=1e-5, rtol=1e-5)
    assert left_out > 0


def test_features_do_not_depend_on_who_is_encoded_together() -> None:
    model = tiny_model(1)
    rng = np.random.default_rng(0)
    views = [rng.normal(size=SPEC.shape).astype(np.float32) for _ in range(5)]
    whose = [("s", n) for n in range(5)]
    for drop in (False, True):
        one = FeatureMaker(model, drop_path=drop)
        together = one.encode(views, whose if drop else ())
        pairs = zip(views, whose, strict=True)
        alone = np.concatenate([one.encode([v], [w] if drop else ()) for v, w in pairs])
        np.testing.assert_allclose(together, alone, atol=1e-5)


def test_features_that_are_no_numbers_are_refused() -> None:
    maker = FeatureMaker(tiny_model())
    with pytest.raises(SimCroPError, match="not numbers"):
        maker.encode([np.full(SPEC.shape, np.nan, np.float32)])


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_what_is_made_ahead_comes_in_order(workers: int) -> None:
    made = list(ahead(range(20), lambda n: n * n, workers))
    assert made == [(n, n * n) for n in range(20)]

    def broken(n: int) -> int:
        if n == 4:
            raise SimCroPError("No.", code="x", remedy="None.")
        return n

    with pytest.raises(SimCroPError, match="No"):
        list(ahead(range(20), broken, workers))


# -- CT-RATE -> RadChestCT ----------------------------------------------------------------------


def test_the_label_map_is_by_meaning() -> None:
    scores = np.random.default_rng(0).random((50, 18))
    mapped = as_radchestct(scores)
    assert mapped.shape == (50, 16)
    column = list(FINDINGS_OF)
    either = [FINDINGS.index(n) for n in FINDINGS_OF["Calcification"]]
    np.testing.assert_allclose(mapped[:, 1], scores[:, either].max(axis=1), rtol=1e-6)
    for name, finding in (("Hietal Hernia", "Hiatal hernia"), ("Bronchiectasis", "Bronchiectasis")):
        expected = scores[:, FINDINGS.index(finding)]
        np.testing.assert_allclose(mapped[:, column.index(name)], expected, rtol=1e-6)


def test_released_takes_the_better_calcification() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, (80, 16))
    scores = rng.random((80, 18))
    coronary = FINDINGS.index("Coronary artery wall calcification")
    scores[:, coronary] = truth[:, 1] + 0.1 * scores[:, coronary]
    scores[:, FINDINGS.index("Arterial wall calcification")] *= 2
    released = as_radchestct(scores, truth)
    np.testing.assert_allclose(released[:, 1], scores[:, coronary], rtol=1e-6)
    others = [k for k in range(16) if k != 1]
    np.testing.assert_array_equal(released[:, others], as_radchestct(scores)[:, others])
    clean = auc(as_radchestct(scores)[:, 1], truth[:, 1])
    assert auc(released[:, 1], truth[:, 1]) == 1.0
    assert clean is not None
    assert clean < 1.0


# -- settings -----------------------------------------------------------------------------------


def test_settings_are_the_published_ones() -> None:
    got = {
        (name, fraction): (s.lr, s.steps, s.warmup, s.batch_size)
        for name, task in TASKS.items()
        for fraction, s in task.shares.items()
    }
    assert got == {
        ("ct-rate", 0.01): (1.5e-3, 1000, 150, 32),
        ("ct-rate", 0.1): (3e-3, 10000, 1500, 64),
        ("ct-rate", 1.0): (3e-3, 10000, 1500, 64),
        ("radchestct", 0.1): (1.5e-3, 2000, 80, 32),
        ("radchestct", 1.0): (3e-3, 2000, 200, 128),
        ("cc-ccii", 0.01): (1.5e-3, 200, 20, 29),
        ("cc-ccii", 0.1): (1.5e-3, 2000, 150, 32),
        ("cc-ccii", 1.0): (1.5e-3, 2000, 200, 128),
        ("luna16", 0.1): (1.5e-3, 200, 20, 31),
        ("luna16", 1.0): (1.5e-3, 2000, 200, 32),
    }


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"data": {"task": "radchestct", "fraction": 0.01}}, "RadChestCT has no list of 0.01"),
        ({"data": {"task": "luna16", "external": "x"}}, "Only a head of CT-RATE"),
        ({"head": {"warmup": 2000}}, "warm-up of 2000 steps does not end"),
        ({"protocol": "other"}, "clean"),
        ({"colour": "red"}, "Extra inputs"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change: dict[str, object], word: str) -> None:
    base = {"name": "x", "data": {"task": "radchestct", "fraction": 0.1}}
    with pytest.raises(ValidationError, match=word):
        ProbeConfig.model_validate(base | change)


def test_what_is_set_by_hand_goes_before_the_published() -> None:
    config = ProbeConfig.model_validate(
        {"name": "x", "data": {"task": "cc-ccii", "fraction": 0.01}, "head": {"lr": 0.5}}
    )
    assert (config.share.lr, config.share.steps, config.share.batch_size) == (0.5, 200, 29)
