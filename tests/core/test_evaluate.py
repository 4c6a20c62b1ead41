"""Evaluation: closed forms, brute force, other libraries, made-up studies with known answers."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_studies import tiny
from scipy.optimize import minimize
from torchmetrics.functional.classification import binary_auroc, multilabel_auroc

from simcrop_core.cli import main
from simcrop_core.evaluate.cases import Case, Said, case_of, coverage, phantom_cases
from simcrop_core.evaluate.dense import LinearSegmenter, linear_segmentation
from simcrop_core.evaluate.grounding import evaluate_grounding
from simcrop_core.evaluate.intervals import bootstrap, mean_over_studies
from simcrop_core.evaluate.pointing import (
    SIZE_CLASSES,
    dice,
    hit_rate,
    point,
    point_at_random,
    size_class,
    size_mm,
)
from simcrop_core.evaluate.presence import Statement, auc, chosen, presence_by_finding, truth_table
from simcrop_core.evaluate.prior import MIN_EXAMPLES, Prior
from simcrop_core.evaluate.probe import linear_probe, pooled_features
from simcrop_core.geometry import Grid, axis_aligned_affine
from simcrop_core.input_spec import InputSpec
from simcrop_core.model import (
    PresenceConfig,
    SimCroP,
    TextConfig,
    VisionConfig,
    create_model,
    load_model,
    save_model,
)
from simcrop_core.patches import PatchGrid
from simcrop_core.statements import FINDINGS, UNKNOWN, Facts, Meaning
from simcrop_core.study import SentenceFacts, Study
from simcrop_core.volume import CTVolume

SPEC = InputSpec(shape=(32, 32, 16), spacing_mm=(4, 4, 8), patch_shape=(8, 8, 4))
GRID = Grid(SPEC.shape, axis_aligned_affine("LPS", SPEC.spacing_mm, (3, -7, 11), SPEC.shape))
EVERYWHERE = np.ones(64, bool)

# -- pointing -----------------------------------------------------------------------------------

coverages = st.lists(st.sampled_from([0.0, 0.0, 0.25, 1.0]), min_size=3, max_size=5).filter(any)


@settings(deadline=None)
@given(cover=coverages)
def test_chance_is_the_mean_over_all_orders_in_which_patches_may_come(cover: list[float]) -> None:
    cover_N, inside = np.array(cover), np.ones(len(cover), bool)
    got = point_at_random(cover_N, inside)
    each = [
        point(np.array(order, float), cover_N, inside)
        for order in itertools.permutations(range(len(cover)))
    ]
    assert got.hit == pytest.approx(np.mean([p.hit for p in each]))
    assert got.hit == pytest.approx((cover_N > 0).mean())
    assert got.precision == pytest.approx(np.mean([p.precision for p in each]))
    assert got.dice == pytest.approx(np.mean([p.dice for p in each]))
    assert got.found == pytest.approx(np.mean([p.found for p in each]), abs=0.13)  # of 300 draws


def test_pointing_by_hand() -> None:
    cover = np.array([0, 0.5, 1, 0, 0.5, 0])
    inside = np.array([True, True, True, True, True, False])
    got = point(np.array([0.3, 0.2, 0.9, 0.8, 0.1, 5.0]), cover, inside)
    assert got.hit == 1  # patch 2; patch 5 lies beyond the scan
    assert got.precision == pytest.approx(1 / 3)  # patches 2, 3, 0
    assert got.dice == pytest.approx(2 * 1 / (2 + 2))  # the volume of two patches: 2 and 3
    assert point(cover, cover, inside).precision == 1
    tied = point(np.array([0.0, 1, 0, 1, 0, 0]), cover, inside)
    assert tied.hit == 0.5
    with pytest.raises(ValueError, match="does not touch"):
        point(cover, np.array([0, 0, 0, 0, 0, 1.0]), inside)


def test_dice_and_hit_rate_as_rexgroundingct_has_them() -> None:
    a, b = np.zeros(10, bool), np.zeros(10, bool)
    a[:4], b[2:8] = True, True
    assert dice(a, b) == pytest.approx(2 * 2 / 10)
    assert dice(a & False, b & False) == 1
    assert hit_rate(np.array([0.0, 0.099, 0.1, 0.5])) == 0.5


def test_sizes_and_their_classes() -> None:
    mask = np.zeros((20, 20, 20), bool)
    mask[2:4, 2:4, 2:4] = True
    mask[10:15, 10:15, 10:15] = True
    assert size_mm(mask, 2.0) == pytest.approx((6 * 125 * 2 / math.pi) ** (1 / 3))
    assert [size_class(x) for x in (7.9, 8, 14.9, 15, 30, 31)] == [
        SIZE_CLASSES[n] for n in (0, 1, 1, 2, 3, 3)
    ]


def test_coverage_is_exact_on_the_models_grid_and_keeps_what_is_small() -> None:
    rng = np.random.default_rng(0)
    mask = rng.random(SPEC.shape) < 0.2
    patches = PatchGrid.over(GRID, SPEC.patch_shape)
    expected = mask.reshape(4, 8, 4, 8, 4, 4).mean(axis=(1, 3, 5)).ravel()
    np.testing.assert_allclose(coverage(mask, GRID, patches), expected, rtol=1e-6)
    # A finer grid, turned round: one of its voxels is an eighth of one of the model's.
    fine = Grid((64, 64, 32), axis_aligned_affine("RAS", (2, 2, 4), (3, -7, 11), (64, 64, 32)))
    small = np.zeros(fine.shape, bool)
    small[5, 60, 30] = True
    got = coverage(small, fine, patches)
    assert got.sum() == pytest.approx(1 / 8 / 256)
    assert int(got.argmax()) == patches.patch_at(fine.to_world((5, 60, 30)))


# -- intervals ----------------------------------------------------------------------------------


def test_intervals_are_over_studies() -> None:
    values, studies = np.repeat([0.0, 1.0], 50), np.repeat([0, 1], 50)
    both = mean_over_studies(values, studies)
    assert both is not None
    assert (both.value, both.low, both.high, both.count) == (0.5, 0.0, 1.0, 100)
    many = mean_over_studies(np.tile([0.0, 1.0], 500), np.arange(1000))
    assert many is not None
    width = 1.96 * 0.5 / math.sqrt(1000)  # of the normal approximation
    assert many.low == pytest.approx(0.5 - width, abs=0.01)
    assert many.high == pytest.approx(0.5 + width, abs=0.01)
    assert mean_over_studies([], []) is None


def test_any_figure_can_have_an_interval() -> None:
    data = np.arange(100.0)
    got = bootstrap(lambda chosen: float(data[chosen].mean()), 100, 7)
    assert got is not None
    assert got.value == pytest.approx(49.5)
    assert got.low == pytest.approx(49.5 - 1.96 * data.std() / 10, abs=1.5)
    assert got.count == 7
    assert bootstrap(lambda chosen: None, 3, 1) is None


# -- presence -----------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    pairs=st.lists(
        st.tuples(st.floats(-1e6, 1e6, width=32), st.sampled_from([0, 1, UNKNOWN])), max_size=30
    )
)
def test_the_area_is_the_chance_that_a_true_one_scores_higher(pairs: Any) -> None:
    scores = np.array([s for s, _ in pairs])
    truth = np.array([t for _, t in pairs], int)
    true, false = scores[truth == 1], scores[truth == 0]
    if not len(true) or not len(false):
        assert auc(scores, truth) is None
        return
    higher = (true[:, None] > false).mean() + (true[:, None] == false).mean() / 2
    assert auc(scores, truth) == pytest.approx(higher, abs=1e-6)


def test_the_area_is_torchmetrics() -> None:
    rng = np.random.default_rng(1)
    scores, truth = rng.random(200), rng.integers(0, 2, 200)
    expected = float(binary_auroc(torch.from_numpy(scores), torch.from_numpy(truth)))
    assert auc(scores, truth) == pytest.approx(expected, abs=1e-6)


def facts(*there: tuple[str, str]) -> Facts:
    return Facts.from_occurrences([(name, side, "any") for name, side in there])  # type: ignore[misc]


STUDIES = [
    facts(("Pleural effusion", "left")),
    facts(("Pleural effusion", "right"), ("Lung nodule", "left")),
    facts(),
    facts(("Lung nodule", "both")),
]
STATEMENTS = [
    Statement("Left effusion.", Meaning.of("Pleural effusion", "left"), False),
    Statement("No effusion.", Meaning.of("Pleural effusion", present=False), True),
    Statement("A nodule.", Meaning.of("Lung nodule"), False),
]


def test_presence_by_finding_by_hand() -> None:
    truth = truth_table(STATEMENTS, STUDIES)
    assert truth.tolist() == [[1, 0, 0, 0], [0, 0, 1, 1], [0, 1, 0, 1]]
    named = truth_table(STATEMENTS, STUDIES, of_finding=True)
    assert named.tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 0, 1]]
    scores = np.array([[0.5, 0.1, 0.9, 0.2], [0.0, 0.1, 0.4, 0.3], [0.2, 0.8, 0.1, 0.15]])
    got = presence_by_finding(STATEMENTS, scores, truth, draws=20)
    assert got["Pleural effusion"].value == pytest.approx((2 / 3 + 1) / 2)
    assert got["Lung nodule"].value == pytest.approx(3 / 4)
    assert got["mean"].value == pytest.approx((5 / 6 + 3 / 4) / 2)
    unseen = presence_by_finding(STATEMENTS, scores, truth, unseen=True, draws=20)
    assert list(unseen) == ["Pleural effusion", "mean"]
    assert unseen["mean"].value == pytest.approx(1.0)


def test_a_prior_of_the_text_alone_is_worth_nothing() -> None:
    """Scores that depend on the sentence and not on the scan give one half for every finding."""
    scores = np.array([[3.0] * 4, [-2.0] * 4, [0.1] * 4])
    truth = truth_table(STATEMENTS, STUDIES)
    got = presence_by_finding(STATEMENTS, scores, truth, draws=20)
    assert {round(e.value, 6) for e in got.values()} == {0.5}


def test_statements_are_chosen_once_and_a_few_of_each() -> None:
    many = [
        Statement(f"Effusion {n % 5}.", Meaning.of("Pleural effusion"), n % 2 == 0)
        for n in range(20)
    ]
    got = chosen([*many, Statement("The liver is normal.", Meaning())], 2)
    assert len({s.text for s in got}) == len(got) == 4
    assert sum(bool(s.unseen) for s in got) == 2


# -- prior --------------------------------------------------------------------------------------


def said(
    meaning: Meaning,
    region: list[float] | None = None,
    kind: Any = "finding",
    name: str | None = "r",
) -> Said:
    cover = None if region is None else np.array(region, np.float32)
    return Said("text", kind, meaning, name, None, cover, None)


def test_the_prior_is_the_mean_region_of_the_meaning() -> None:
    left = Meaning.of("Lung nodule", "left", "upper")
    prior = Prior()
    for _ in range(MIN_EXAMPLES // 2):
        prior.add(said(left, [1, 0, 0]))
        prior.add(said(left, [0, 0.5, 0]))
        prior.add(said(left._replace(level=3), [0, 0, 1]))
        for _ in range(2):
            prior.add(said(Meaning(), [0, 1, 1], kind="organ", name="liver"))
            prior.add(said(Meaning(), [1, 1, 0], kind="organ", name="spleen"))
    prior.add(said(left._replace(side=3), [0, 0, 0]))
    prior.add(said(left, None))

    def region(*args: Any, **more: Any) -> list[float] | None:
        found = prior.region(said(*args, **more))
        return None if found is None else found.round(6).tolist()

    assert region(left) == [0.5, 0.25, 0]
    third = pytest.approx([1 / 3, 1 / 6, 1 / 3], abs=1e-6)
    assert region(left._replace(level=2)) == third  # no example: the side's
    assert region(left._replace(level=3)) == third  # too few: the side's
    every = pytest.approx([5 / 16, 2.5 / 16, 5 / 16], abs=1e-6)
    assert region(left._replace(side=2)) == every  # no example: the finding's
    assert region(left._replace(side=3)) == every  # one example: the finding's
    assert region(Meaning.of("Emphysema")) == every  # no example: all findings'
    assert region(Meaning(), kind="organ", name="liver") == [0, 1, 1]
    assert region(Meaning(), kind="organ", name="thyroid") == [0.5, 1, 0.5]
    assert region(left._replace(present=0), kind="negative") is None


# -- studies ------------------------------------------------------------------------------------

NODULE, EFFUSION = FINDINGS.index("Lung nodule"), FINDINGS.index("Pleural effusion")


def study(number: int) -> Study:
    """A bright ball on one side, or none; sentences that speak of it and of the whole."""
    rng = np.random.default_rng(number)
    x, y, z = np.indices(SPEC.shape)
    side = ("right", "left", None)[number % 3]
    labels = np.where(x < 16, 1, 2).astype(np.uint8)  # the first axis runs to the left
    hu = np.full(SPEC.shape, -800, np.int16)
    regions = {"lungs": np.ones(SPEC.shape, bool)}
    sentences = [SentenceFacts("The lungs are normal.", "organ", Meaning(), "lungs")]
    if side is None:
        sentences.append(
            SentenceFacts(
                "No nodule.", "negative", Meaning.of("Lung nodule", present=False), "lungs"
            )
        )
        there = Facts.from_occurrences([])
    else:
        center = np.array(
            [rng.integers(4, 12) + (16 if side == "left" else 0), rng.integers(6, 26), 8]
        )
        ball = ((x - center[0]) ** 2 + (y - center[1]) ** 2 + (2 * (z - center[2])) ** 2) < 9
        hu[ball], labels[ball] = 700, 3
        regions["ball"] = ball
        wording = f"nodule/{'unseen' if number % 2 else 'seen'}/01"
        sentences.append(
            SentenceFacts(
                f"A nodule on the {side}.", "finding", Meaning.of("Lung nodule", side),  # type: ignore[arg-type]
                "ball", (), wording,
            )
        )  # fmt: skip
        there = Facts.from_occurrences([("Lung nodule", side, "any")])  # type: ignore[list-item]
    return Study(
        id=f"made-{number}",
        volume=CTVolume(hu, GRID),
        sentences=tuple(sentences),
        regions=regions,
        facts=there,
        structures_XYZ=labels,
        structure_names=("right lung", "left lung", "ball"),
    )


def cases(*numbers: int) -> list[Case]:
    return [case_of(study(n), SPEC, structures=True) for n in numbers]


def test_a_case_is_what_the_model_sees_of_a_study() -> None:
    case, made = cases(1)[0], study(1)
    assert case.input_1HWD.shape == (1, *SPEC.shape)
    np.testing.assert_allclose(case.input_1HWD[0], made.volume.hu_XYZ / 1000, atol=1e-3)
    assert case.midline_mm == pytest.approx(GRID.center_mm[0], abs=1.0)
    assert [s.unseen for s in case.said] == [None, True]
    nodule = case.said[1]
    assert nodule.coverage_N is not None
    np.testing.assert_allclose(nodule.coverage_N.sum() * 256, made.regions["ball"].sum(), rtol=1e-5)
    assert nodule.size_mm == pytest.approx(size_mm(made.regions["ball"], 128.0))
    np.testing.assert_array_equal(case.structures_HWD, made.structures_XYZ)
    # A scan that is smaller than the volume: what lies beyond it is never pointed at.
    half = Grid((16, 32, 16), GRID.affine)
    inside = case_of(made, SPEC, scan=half).inside_N.reshape(4, 4, 4)
    assert inside[:2].all()
    assert not inside[2:].any()
    assert case_of(made, SPEC, scan=half).said[1].coverage_N is None  # it lies on the left


class KnowsAll(SimCroP):
    """A model whose tokens are the brightness of their patch and its side."""

    def __init__(self, bright: float, side: float) -> None:
        base = tiny(
            input_spec=SPEC,
            vision={"depth": 1, "width": 8, "heads": 2, "cls_token": False},
            text=TextConfig(source="minilm", width=3),
            projection_width=None,
            projection_norm=False,
            text_centred=False,
            similarity="raw",
            image_decoder=None,
            presence=PresenceConfig(),
        )
        super().__init__(base.config)
        self.presence_head.initialise()  # type: ignore[union-attr]
        self.factors = bright, side
        self.text_projection = torch.nn.Identity()
        self.see, self.vision_forward = None, self.vision.forward
        self.vision.forward = self._tokens  # type: ignore[method-assign]

    def _tokens(self, x_B1HWD: torch.Tensor) -> Any:
        features = self.vision_forward(x_B1HWD)
        value = x_B1HWD[0, 0].reshape(4, 8, 4, 8, 4, 4).amax(dim=(1, 3, 5)).flatten() + 0.8
        left = (torch.arange(64) >= 32).float()
        tokens = torch.zeros(1, 64, 8)
        tokens[0, :, 0], tokens[0, :, 1], tokens[0, :, 2] = value, value * left, value * (1 - left)
        return type(features)(tokens, features.pooled_BD, None)

    def encode_text(self, sentences: Any) -> Any:
        bright, side = self.factors
        rows = [
            [bright * (1 - 2 * ("No " in s)), side * ("left" in s), side * ("right" in s)]
            for s in sentences
        ]
        vectors = torch.zeros(len(rows), 8)
        vectors[:, :3] = torch.tensor(rows)

        class Encoded:
            sentences_SD = vectors

        return Encoded()


def test_a_model_that_sees_and_one_that_is_blind() -> None:
    test = cases(*range(30, 60))
    prior = Prior.of(cases(*range(30)))
    seeing = evaluate_grounding(KnowsAll(1.0, 1.0), test, prior, device="cpu")
    blind = evaluate_grounding(KnowsAll(0.0, 0.0), test, None, device="cpu")
    rows = seeing.rows()
    assert set(rows) >= {"organ", "finding", "negative", "Lung nodule"}
    assert len(rows["finding, seen wording"]) == len(rows["finding, unseen wording"]) == 10
    found = seeing.figures(rows["finding"])
    assert found["pointing"]["model"].value == 1  # type: ignore[union-attr]
    assert found["side"]["model"].value == 1  # type: ignore[union-attr]
    assert found["pointing"]["prior"].value < 0.6  # type: ignore[union-attr]
    assert found["side"]["prior"].value == 1  # type: ignore[union-attr]
    touched = [float((p.said.coverage_N > 0).mean()) for p in rows["finding"]]  # type: ignore[operator]
    assert found["pointing"]["chance"].value == pytest.approx(np.mean(touched))  # type: ignore[union-attr]
    assert seeing.presence["all"]["Lung nodule"].value == pytest.approx(1.0)
    lost = blind.figures(blind.rows()["finding"])
    for figure in ("pointing", "precision", "dice", "side"):
        got, chance = lost[figure]["model"], lost[figure]["chance"]
        assert got is not None
        assert chance is not None
        assert got.value == pytest.approx(chance.value)
    assert lost["pointing"]["prior"] is None
    assert blind.presence["all"]["mean"].value == pytest.approx(0.5)
    text = json.dumps(seeing.to_dict(), allow_nan=False)
    assert json.loads(text)["pointing"]["finding"]["pointing"]["model"]["value"] == 1
    assert any(line.startswith("Lung nodule") for line in seeing.lines())


# -- probes -------------------------------------------------------------------------------------


def test_the_probe_is_penalised_logistic_regression() -> None:
    rng = np.random.default_rng(3)
    train, test = rng.normal(size=(80, 5)), rng.normal(size=(60, 5))
    weights = rng.normal(size=(5, 3))
    label = [
        (x @ weights + rng.normal(size=(len(x), 3)) > 0).astype(np.int8) for x in (train, test)
    ]
    label[0][:7, 1] = UNKNOWN
    label[0][:, 2] = 1  # one class only
    got = linear_probe(train, label[0], test, label[1], names=("a", "b", "c"), penalty=2.0)
    assert list(got.by_label) == ["a", "b"]
    for column, name in enumerate(("a", "b")):
        known = label[0][:, column] >= 0
        mean, spread = train.mean(0), train.std(0)
        x, y = (train[known] - mean) / spread, 2.0 * label[0][known, column] - 1

        def cost(w: np.ndarray, x: np.ndarray = x, y: np.ndarray = y) -> float:
            return np.log1p(np.exp(-y * (x @ w[:5] + w[5]))).sum() + (w[:5] ** 2).sum()

        best = minimize(cost, np.zeros(6), method="BFGS").x
        scores = torch.from_numpy((test - mean) / spread @ best[:5])
        expected = multilabel_auroc(
            torch.sigmoid(scores)[:, None].expand(-1, 2).float(),
            torch.from_numpy(label[1][:, [column, column]]).long(),
            num_labels=2,
        )
        assert got.by_label[name] == pytest.approx(float(expected), abs=0.005)
    assert got.macro == pytest.approx(np.mean(list(got.by_label.values())))


def test_pooled_features_are_the_authors() -> None:
    model = tiny(input_spec=SPEC)
    features, labels = pooled_features(model, cases(0, 2), device="cpu")
    with torch.no_grad():
        x = torch.from_numpy(cases(2)[0].input_1HWD)[None].float()
        expected = model.vision(x).pooled_BD[0]
    np.testing.assert_allclose(features[1], expected, atol=1e-5)
    assert labels.shape == (2, 18)
    assert (labels[0, NODULE], labels[1, NODULE], labels[0, EFFUSION]) == (1, 0, 0)


GROUPS = (("sides", ("left lung", "right lung")), ("ball", ("ball",)))


def test_a_linear_map_finds_again_what_the_tokens_hold() -> None:
    """Tokens that are the labels of their blocks are decoded without loss."""
    case = cases(1)[0]
    segmenter = LinearSegmenter(GROUPS, SPEC.patch_shape, penalty=1e-9)
    labels = segmenter.labels_of(case)
    assert labels.unique().tolist() == [1, 2]
    coarse = labels.clone()
    coarse[:] = labels[::2, ::2, ::1].repeat_interleave(2, 0).repeat_interleave(2, 1)
    coarse[3, 3, 3] = 1
    shares = segmenter._shares(coarse)
    tokens = shares.float() + 0.01 * torch.randn(
        shares.shape, generator=torch.Generator().manual_seed(0)
    )
    segmenter.add(tokens[:, :40], coarse)
    with pytest.raises(ValueError, match="learnt from no study"):
        LinearSegmenter(GROUPS, SPEC.patch_shape).predict(tokens, SPEC.shape)
    assert shares.sum() == pytest.approx(64 * 64)
    exact = LinearSegmenter(GROUPS, SPEC.patch_shape, penalty=1e-9)
    many = [segmenter._shares(exact.labels_of(c)).float() for c in cases(*range(9))]
    for c, x in zip(cases(*range(9)), many, strict=True):
        exact.add(x, exact.labels_of(c))
    got = exact.predict(many[4], SPEC.shape)
    truth = exact.labels_of(cases(4)[0])
    assert float((got == truth).float().mean()) > 0.995
    assert got.shape == truth.shape


def test_segmentation_by_frozen_features_counts_voxels() -> None:
    model = tiny(input_spec=SPEC)
    train, test = cases(*range(6)), cases(7, 10)
    got = linear_segmentation(model, train, test, GROUPS, device="cpu")
    segmenter = LinearSegmenter(GROUPS, SPEC.patch_shape)
    with torch.no_grad():
        tokens = [
            model.vision(torch.from_numpy(c.input_1HWD)[None].float()).patches_BND[0]
            for c in [*train, *test]
        ]
    for case, x in zip(train, tokens, strict=False):
        segmenter.add(x, segmenter.labels_of(case))
    masks = [
        (segmenter.predict(x, SPEC.shape), segmenter.labels_of(c))
        for c, x in zip(test, tokens[6:], strict=True)
    ]
    for number, name in enumerate(("sides", "ball"), start=1):
        p, t = (np.concatenate([(m[i] == number).numpy() for m in masks]) for i in (0, 1))
        assert got[name] == pytest.approx(dice(p, t))
    assert got["sides"] > 0.9
    assert got["mean"] == pytest.approx((got["sides"] + got["ball"]) / 2)


# -- the command --------------------------------------------------------------------------------


def test_the_command_measures_phantoms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = InputSpec(shape=(48, 48, 24), spacing_mm=(8, 8, 16), patch_shape=(8, 8, 4))
    text = {"vision": VisionConfig(depth=1, width=24, heads=2), "projection_width": 16}
    model = create_model("grounded", input_spec=spec, **text)
    save_model(model, tmp_path / "model")
    common = ["evaluate", "grounding", "--model", str(tmp_path / "model"), "--device", "cpu"]
    file = tmp_path / "found.json"
    asked = ["--phantoms", "2", "--prior-phantoms", "1", "--workers", "2", "--json", str(file)]
    assert main([*common, *asked]) == 0
    assert "2 studies" in capsys.readouterr().out
    found = json.loads(file.read_text())
    assert found["studies"] == ["phantom-900000", "phantom-900001"]
    assert (found["seed"], found["phantoms"], found["prior_phantoms"]) == (900000, 2, 1)
    assert set(found["pointing"]["organ"]["pointing"]) == {"model", "prior", "chance"}
    assert "mean" in found["presence_auc"]["all"]
    # The same without the command, and without processes.
    seeds = [900000, 900001]
    alone = evaluate_grounding(load_model(tmp_path / "model"), phantom_cases(seeds, spec))
    for row, figures in alone.to_dict()["pointing"].items():
        for source in ("model", "chance"):
            expected = figures["pointing"][source]["value"]
            assert found["pointing"][row]["pointing"][source]["value"] == pytest.approx(expected)
    assert found["notes"] == []
    one = ["--phantoms", "1", "--prior-phantoms", "0"]
    assert main([*common, *one, "--seed", "5"]) == 0
    assert "may have been trained on them" in capsys.readouterr().out
    assert main([*common, *one, "--seed", "899999", "--json", str(file)]) == 0
    (note,) = json.loads(file.read_text())["notes"]
    assert note["code"] == "may-be-trained-on"
    assert main([*common, "--seed", "899999", "--phantoms", "2"]) == 2
    assert "lie on both sides" in capsys.readouterr().err
    assert main([*common, "--seed", "1", "--phantoms", "1"]) == 2
    assert "would evaluate on" in capsys.readouterr().err
