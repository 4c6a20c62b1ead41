"""Areas under the curve and accuracy, held to scikit-learn's."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, recall_score, roc_auc_score

from simcrop_core.evaluate.classification import accuracy, auc_by_label
from simcrop_core.evaluate.intervals import drawn_weights

NAMES = ("a", "b", "c", "d")


@pytest.mark.parametrize("decimals", [1, 6])  # with many ties, and with hardly one
@pytest.mark.parametrize("seed", range(4))
def test_areas_are_scikit_learns(seed: int, decimals: int) -> None:
    rng = np.random.default_rng(seed)
    truth = (rng.random((90, 4)) < [0.5, 0.1, 0.3, 0.8]).astype(np.int16)
    scores = (rng.normal(size=(90, 4)) + truth).round(decimals)
    found = auc_by_label(scores, truth, NAMES, draws=50)
    for column, name in enumerate(NAMES):
        expected = roc_auc_score(truth[:, column], scores[:, column])
        assert found.by_label[name].value == pytest.approx(expected, abs=1e-12)
        assert found.by_label[name].count == truth[:, column].sum()
    assert found.overall is not None
    assert found.overall.value == pytest.approx(
        roc_auc_score(truth, scores, average="macro"), abs=1e-12
    )


def test_intervals_are_those_of_resampled_studies() -> None:
    rng = np.random.default_rng(0)
    truth = (rng.random((60, 2)) < 0.4).astype(np.int16)
    scores = rng.normal(size=(60, 2)) + 0.7 * truth
    found = auc_by_label(scores, truth, ("a", "b"), draws=120, seed=5)
    means, firsts = [], []
    for weights in drawn_weights(60, 120, 5).astype(int):
        rows = np.repeat(np.arange(60), weights)
        areas = [roc_auc_score(truth[rows, k], scores[rows, k]) for k in range(2)]
        means.append(np.mean(areas))
        firsts.append(areas[0])
    assert found.overall is not None
    for estimate, drawn in ((found.overall, means), (found.by_label["a"], firsts)):
        assert (estimate.low, estimate.high) == pytest.approx(np.percentile(drawn, [2.5, 97.5]))
        assert estimate.low < estimate.value < estimate.high


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(120):
        truth = (rng.random((150, 1)) < 0.5).astype(np.int16)
        scores = rng.normal(size=(150, 1)) + truth  # the true area is Phi(1 / sqrt 2)
        found = auc_by_label(scores, truth, ("a",), draws=200).by_label["a"]
        held += found.low <= 0.7602 <= found.high
    assert 0.88 <= held / 120 <= 0.99


def test_labels_of_one_class_are_left_out_and_named() -> None:
    truth = np.array([[1, 0, -1], [0, 0, 1], [1, 0, -1], [0, 0, 0]])
    scores = np.array([[0.9, 0.1, 9.0], [0.2, 0.2, 0.5], [0.1, 0.3, -9.0], [0.15, 0.4, 0.5]])
    found = auc_by_label(scores, truth, ("a", "b", "c"), draws=20)
    assert found.undefined == ("b",)
    assert found.by_label["a"].value == 0.5
    assert found.by_label["c"].value == 0.5  # nobody knows two of them; the others are tied
    assert found.overall is not None
    assert found.overall.value == 0.5
    assert "one class only" in "\n".join(found.lines())
    nothing = auc_by_label(scores[:, 1:2], truth[:, 1:2], ("b",), draws=20)
    assert nothing.overall is None
    json.dumps(nothing.to_dict(), allow_nan=False)
    json.dumps(found.to_dict(), allow_nan=False)


def test_scores_without_an_end_are_ranked() -> None:
    truth = np.array([[0], [1], [0], [1]])
    scores = np.array([[-np.inf], [np.inf], [0.0], [3.0]])
    assert auc_by_label(scores, truth, ("a",), draws=5).by_label["a"].value == 1.0


@pytest.mark.parametrize("seed", range(3))
def test_accuracy_is_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, 80)
    scores = rng.normal(size=(80, 3)) + np.eye(3)[truth]
    found = accuracy(scores, truth, ("x", "y", "z"), draws=100)
    chosen = scores.argmax(axis=1)
    assert found.overall is not None
    assert found.overall.value == pytest.approx(accuracy_score(truth, chosen))
    recalls = recall_score(truth, chosen, average=None)
    assert [e.value for e in found.by_label.values()] == pytest.approx(recalls)
    drawn = [
        accuracy_score(truth[rows], chosen[rows])
        for rows in (np.repeat(np.arange(80), w) for w in drawn_weights(80, 100, 0).astype(int))
    ]
    assert (found.overall.low, found.overall.high) == pytest.approx(
        np.percentile(drawn, [2.5, 97.5])
    )
    assert sum(e.count for e in found.by_label.values()) == found.overall.count == 80


def test_a_class_that_is_not_there_has_no_figure() -> None:
    found = accuracy(np.eye(3)[:2], np.array([0, 1]), ("x", "y", "z"), draws=10)
    assert found.undefined == ("z",)
    assert found.overall is not None
    assert found.overall.value == 1.0
