"""Loss and Dice of fine-tuning against MONAI's and against loops over voxels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from made_segmentation import ROI, SPACING, tiny_encoder
from monai.losses import DiceCELoss
from monai.metrics import DiceMetric
from torch.nn import functional as F

from simcrop_core.evaluate.segmentation import LabelledCase, evaluate_segmentation
from simcrop_core.finetune.crops import CropBatch
from simcrop_core.finetune.segmentation_training import (
    SegmentationObjective,
    dice_by_class,
    figures_of,
)
from simcrop_core.geometry import Grid, axis_aligned_affine
from simcrop_core.model import SimCroP
from simcrop_core.model.config import SegmentationConfig
from simcrop_core.model.finetuned import with_segmentation
from simcrop_core.objectives.base import Ranks
from simcrop_core.segment import segment
from simcrop_core.volume import CTVolume

LABELS = ("left lung", "right lung", "trachea")


def model_with(kind: str = "unetr", **changes: object) -> SimCroP:
    config = SegmentationConfig(kind=kind, labels=LABELS, feature_width=4, roi=ROI, **changes)  # type: ignore[arg-type]
    return with_segmentation(tiny_encoder(), config, spacing_mm=SPACING, orientation="LPS", seed=1)


def crops(count: int = 2) -> CropBatch:
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(count, 1, *ROI, generator=rng) * 2 - 1
    labels = torch.randint(0, 4, (count, *ROI), generator=rng).to(torch.uint8)
    return CropBatch(x, labels, torch.arange(count))


# -- the loss -----------------------------------------------------------------------------------


def loop_loss(logits: torch.Tensor, labels: torch.Tensor, *, background: bool) -> float:
    """Squared Dice loss, averaged over crops and classes, plus cross-entropy over voxels."""
    p = torch.softmax(logits.double(), dim=1).detach().numpy()
    total = []
    for b in range(len(p)):
        for c in range(0 if background else 1, p.shape[1]):
            truth = labels[b].numpy() == c
            both = 2 * (p[b, c] * truth).sum()
            total.append(1 - both / ((p[b, c] ** 2).sum() + truth.sum() + 1e-6))
    picked = np.take_along_axis(p, labels[:, None].numpy().astype(int), axis=1)
    return float(np.mean(total) - np.log(picked).mean())


@pytest.mark.parametrize("background", [False, True])
def test_the_loss_is_monai_s_and_that_of_a_loop(background: bool) -> None:
    model, batch = model_with(), crops()
    objective = SegmentationObjective(background=background)
    losses = objective(model, batch, Ranks())
    assert model.segmentation is not None
    logits = model.segmentation(batch.volume_B1HWD)
    theirs = DiceCELoss(
        include_background=background, to_onehot_y=True, softmax=True, squared_pred=True,
        smooth_nr=0.0, smooth_dr=1e-6,
    )(logits, batch.labels_BHWD[:, None].float())  # fmt: skip
    assert float(losses.total.detach()) == pytest.approx(float(theirs.detach()), abs=1e-6)
    expected = loop_loss(logits, batch.labels_BHWD, background=background)
    assert float(losses.total) == pytest.approx(expected, abs=1e-5)
    assert float(losses.total) == pytest.approx(sum(map(float, losses.terms.values())), abs=1e-6)


def test_coarser_outputs_count_half_each() -> None:
    model, batch = model_with("unet"), crops()
    losses = SegmentationObjective(background=True)(model, batch, Ranks())
    scales = model.segmentation.scales(batch.volume_B1HWD)  # type: ignore[union-attr, operator]
    expected, weights = 0.0, 0.0
    for level, logits in enumerate(scales):
        size = tuple(n >> level for n in ROI) if level else ROI
        step = ROI[0] // logits.shape[2]
        labels = batch.labels_BHWD[:, ::step, ::step, ::step]
        assert tuple(logits.shape[2:]) == tuple(labels.shape[1:])
        assert logits.shape[2] >= size[0]
        expected += 0.5**level * loop_loss(logits, labels, background=True)
        weights += 0.5**level
    assert float(losses.total) == pytest.approx(expected / weights, abs=1e-5)
    torch.testing.assert_close(scales[0], model.segmentation(batch.volume_B1HWD))  # type: ignore[misc]


def test_what_is_trained_is_the_decoder_and_if_wanted_the_encoder() -> None:
    names = [name for name, _ in model_with().named_parameters()]
    tuned = SegmentationObjective(background=True)
    frozen = SegmentationObjective(background=True, encoder=False)
    assert {n.split(".")[0] for n in names if tuned.trains(n)} == {"vision", "segmentation"}
    assert {n.split(".")[0] for n in names if frozen.trains(n)} == {"segmentation"}


# -- Dice ---------------------------------------------------------------------------------------


def test_validation_s_dice_is_monai_s() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, (3, 9, 8, 7))
    truth[1][truth[1] == 2] = 0  # a case without a structure
    truth[2] = 0  # one without any
    found = np.where(rng.random(truth.shape) < 0.6, truth, rng.integers(0, 4, truth.shape))
    rows = np.array([dice_by_class(f, t, 4) for f, t in zip(found, truth, strict=True)])

    def one_hot(labels: np.ndarray) -> torch.Tensor:
        return F.one_hot(torch.from_numpy(labels), 4).permute(0, 4, 1, 2, 3)

    metric = DiceMetric(include_background=True, reduction="none")
    theirs = metric(y_pred=one_hot(found), y=one_hot(truth)).numpy()
    np.testing.assert_allclose(rows, theirs, atol=1e-6)
    figures = figures_of(rows, LABELS)
    # The mean over cases of the mean over classes, as MONAI's MEAN gives it over a batch.
    means = [np.nanmean(row) for row in theirs]
    assert figures["dice_with_background"] == pytest.approx(np.mean(means), abs=1e-6)
    inside = [np.nanmean(row[1:]) for row in theirs if not np.isnan(row[1:]).all()]
    assert figures["dice"] == pytest.approx(np.mean(inside), abs=1e-6)
    assert figures["dice right lung"] == pytest.approx(theirs[0, 2], abs=1e-6)


def test_dice_with_the_background_is_that_of_a_loop() -> None:
    model = model_with()
    rng = np.random.default_rng(3)
    shape = (22, 20, 18)
    cases = []
    for number in range(2):
        hu = rng.integers(-1000, 1000, shape).astype(np.int16)
        labels = rng.integers(0, 4, shape).astype(np.uint8)
        grid = Grid(shape, axis_aligned_affine("LPS", SPACING, (0, 0, 0), shape))
        names = dict(enumerate(LABELS, start=1))
        cases.append(LabelledCase(f"case {number}", CTVolume(hu, grid), labels, grid, names))
    result = evaluate_segmentation(model, cases, device="cpu")
    means, inside = [], []
    for case in cases:
        found = segment(model, case.volume, device="cpu").labels_XYZ
        by_class = []
        for label in range(4):
            own, true = found == label, case.labels_XYZ == label
            by_class.append(2 * (own & true).sum() / (own.sum() + true.sum()))
        assert result.background[case.id] == pytest.approx(by_class[0])
        means.append(np.mean(by_class))
        inside.append(np.mean(by_class[1:]))
    assert result.with_background().value == pytest.approx(np.mean(means))  # type: ignore[union-attr]
    assert result.over_cases()["dice"].value == pytest.approx(np.mean(inside))  # type: ignore[union-attr]
    written = result.to_dict()
    assert written["mean_over_cases_with_background"]["dice"]["value"] == pytest.approx(
        np.mean(means)
    )
    assert written["cases"]["case 0"]["background"]["dice"] == result.background["case 0"]


# -- the body's box -----------------------------------------------------------------------------


def test_a_head_of_the_foreground_labels_nothing_around_a_body() -> None:
    shape = (40, 36, 32)
    hu = np.full(shape, -1000, np.int16)
    hu[10:30, 8:26, 6:28] = np.random.default_rng(0).integers(50, 900, (20, 18, 22))
    grid = Grid(shape, axis_aligned_affine("LPS", SPACING, (0, 0, 0), shape))
    volume = CTVolume(hu, grid)
    inner_grid = grid.window((10, 8, 6), (20, 18, 22))
    inner = CTVolume(hu[10:30, 8:26, 6:28], inner_grid)
    model = model_with(foreground=True)
    plain = model_with()
    plain.load_state_dict(model.state_dict())
    found = segment(model, volume, device="cpu").labels_XYZ
    body = segment(plain, inner, device="cpu").labels_XYZ
    np.testing.assert_array_equal(found[10:30, 8:26, 6:28], body)
    outside = found.copy()
    outside[10:30, 8:26, 6:28] = 0
    assert not outside.any()
    assert segment(plain, volume, device="cpu").labels_XYZ[:10].any()
    # A scan of air alone, and one smaller than a window.
    assert segment(model, CTVolume(hu[:5], grid.window((0, 0, 0), (5, 36, 32))), device="cpu")
    small = segment(model, CTVolume(hu[10:14, 8:12, 6:9], grid.window((10, 8, 6), (4, 4, 3))))
    assert small.labels_XYZ.shape == (4, 4, 3)


# -- the decoder --------------------------------------------------------------------------------


def test_a_pyramid_s_own_decoder_is_trained_too() -> None:
    encoder = tiny_encoder(stem="pyramid", stem_width=8, cells=(2, 2, 2), cell_width=8)
    config = SegmentationConfig(kind="pyramid", labels=LABELS, feature_width=4, roi=ROI)
    model = with_segmentation(encoder, config, spacing_mm=SPACING, orientation="LPS", seed=1)
    losses = SegmentationObjective(background=False)(model, crops(), Ranks())
    losses.total.backward()
    assert all(p.grad is not None for p in model.segmentation.parameters())  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["unetr", "unet"])
def test_a_decoder_reads_every_tap_and_the_voxels(kind: str) -> None:
    model = model_with(kind)
    head, x = model.segmentation, crops(1).volume_B1HWD
    assert head is not None
    head(x).square().sum().backward()
    for name, parameter in model.named_parameters():
        if name.startswith("segmentation.outs.") and not name.startswith("segmentation.outs.0"):
            continue  # coarser outputs
        unused = "vision.cls_token", "vision_projection", "text_projection"
        if name.startswith(("vision.", "segmentation.")) and name not in unused:
            assert parameter.grad is not None, name
    again = model_with(kind)
    np.testing.assert_equal(again.weights_sha256(), model.weights_sha256())
    assert tuple(head(x).shape) == (1, 4, *ROI)


def test_a_u_net_is_saved_and_loaded(tmp_path_factory: pytest.TempPathFactory) -> None:
    from simcrop_core.model import load_model, save_model

    model = model_with("unet")
    folder = save_model(model, tmp_path_factory.mktemp("unet") / "model")
    x = crops(1).volume_B1HWD
    own = load_model(folder)
    with torch.no_grad():
        torch.testing.assert_close(own.segmentation(x), model.segmentation(x))  # type: ignore[misc]
    assert own.config.segmentation is not None
    assert own.config.segmentation.kind == "unet"
    assert math.prod(own.input_spec.shape) == 32**3
