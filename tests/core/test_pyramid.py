"""The convolutional pyramid, its finer level, its segmentation head, and how they are trained."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_studies import SPEC, batch_of, made, tiny
from monai.losses import DiceLoss
from pydantic import ValidationError
from torch.nn import functional as F

from simcrop_core.errors import SimCroPError
from simcrop_core.model import SegmentationConfig, SimCroP, VisionConfig, load_model, save_model
from simcrop_core.model.pyramid import ConvPyramid, HalfCells, merged, parted, windowed
from simcrop_core.model.pyramid_segmentation import PyramidSegmentation
from simcrop_core.objectives import GroundedConfig, Ranks, make_objective
from simcrop_core.objectives.grounded_segmentation import draw_cells, segmentation_loss
from simcrop_core.study_batch import StudyBatch

ALONE = Ranks()
LABELS = ("bright", "dark")
VISION = VisionConfig(
    depth=1, width=24, heads=2, stem="pyramid", stem_width=8, stem_blocks=(1, 1, 1),
    cells=(2, 2, 2), cell_width=16,
)  # fmt: skip


def model_of(**changes: Any) -> SimCroP:
    head = SegmentationConfig(kind="pyramid", labels=LABELS, feature_width=2)
    settings: dict[str, Any] = {"vision": VISION, "segmentation": head, "image_decoder": None}
    return awake(tiny(**(settings | changes)))


def awake(model: SimCroP) -> SimCroP:
    """Residual blocks start as the identity: give them something to do."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("second.weight"):
                torch.nn.init.normal_(parameter, std=0.05)
    return model


def stem_of(model: SimCroP) -> ConvPyramid:
    assert isinstance(model.vision.patch_embed, ConvPyramid)
    return model.vision.patch_embed


def head_of(model: SimCroP) -> PyramidSegmentation:
    assert isinstance(model.segmentation, PyramidSegmentation)
    return model.segmentation


def labelled(studies: int = 4, first: int = 0) -> StudyBatch:
    """Made studies with a label map of what is bright and what is dark."""
    batch = batch_of([made(first + n) for n in range(studies)])
    x = batch.volume_B1HWD[:, 0]
    maps = torch.zeros(x.shape, dtype=torch.uint8)
    maps[x > 0.5], maps[x < -0.5] = 1, 2
    return replace(batch, structures_BHWD=maps)


# -- the stem -----------------------------------------------------------------------------------


def test_merging_takes_blocks_in_c_order_and_parting_undoes_it() -> None:
    x = torch.arange(2 * 4 * 6 * 2 * 3).reshape(2, 4, 6, 2, 3)
    got = merged(x)
    assert got.shape == (2, 2, 3, 1, 24)
    expected = [x[1, 2 + a, 4 + b, c, n] for a in (0, 1) for b in (0, 1) for c in (0, 1) for n in range(3)]  # fmt: skip  # noqa: E501
    assert torch.equal(got[1, 1, 2, 0], torch.stack(expected))
    assert torch.equal(parted(got), x)


def test_windows_are_those_of_a_radiologist() -> None:
    """With the usual range of -1000 to 1000 HU: everything, lung, soft tissue."""
    hu = torch.tensor([-1000.0, -600, -160, 40, 140, 240, 1000])
    seen = windowed((hu / 1000)[:, None])
    torch.testing.assert_close(seen[:, 0], hu / 1000)
    torch.testing.assert_close(seen[:, 1], ((hu + 600) / 750).clamp(-1, 1))
    torch.testing.assert_close(seen[:, 2], ((hu - 40) / 200).clamp(-1, 1))


def test_the_stem_is_strided_convolutions_on_windowed_voxels() -> None:
    """Against torch's own convolutions, with the blocks as they start: doing nothing."""
    stem = stem_of(tiny(vision=VISION, image_decoder=None))
    x = torch.rand(2, 1, *SPEC.shape) * 2 - 1
    fine, half, tokens = stem(x)
    windows = torch.stack([windowed(x.flatten()[:, None])[:, n] for n in range(3)])
    volume = windows.reshape(3, 2, *SPEC.shape).transpose(0, 1)
    p, q, r = stem.fine_shape
    weight = stem.embed.weight.reshape(-1, 3, p, q, r)
    expected = F.conv3d(volume, weight, stem.embed.bias, stride=(p, q, r))
    torch.testing.assert_close(fine, expected.permute(0, 2, 3, 4, 1), atol=1e-5, rtol=1e-4)
    for layer, got in ((stem.to_half, half), (stem.to_coarse, None)):
        weight = layer.weight.reshape(len(layer.weight), 2, 2, 2, -1).permute(0, 4, 1, 2, 3)
        expected = F.conv3d(expected, weight, layer.bias, stride=2)
        if got is not None:
            torch.testing.assert_close(got, expected.permute(0, 2, 3, 4, 1), atol=1e-5, rtol=1e-4)
    coarse = stem.norm(expected.flatten(2).transpose(1, 2))
    torch.testing.assert_close(tokens, stem.out(coarse), atol=1e-5, rtol=1e-4)


def test_what_is_masked_changes_nothing() -> None:
    model = model_of()
    keep = torch.tensor([[0, 3, 50, 95], [95, 4, 7, 8]])
    x = torch.rand(2, 1, *SPEC.shape)
    other = torch.rand(2, 1, *SPEC.shape)
    grid = SPEC.grid_shape
    hidden = torch.ones(2, SPEC.patches, dtype=torch.bool).scatter(1, keep, False)
    cells = hidden.unflatten(1, grid)
    for axis, size in enumerate(SPEC.patch_shape, 1):
        cells = cells.repeat_interleave(size, dim=axis)
    with torch.no_grad():
        one = model.vision(x, keep)
        two = model.vision(torch.where(cells[:, None], other, x), keep)
        third = model.vision(torch.where(cells[:, None], x, other), keep)
    assert one.patches_BND.shape == (2, 4, 24)
    assert one.cells_BNCE is not None
    assert one.cells_BNCE.shape == (2, 4, 8, 16)
    assert torch.equal(one.evidence_BNE, two.evidence_BNE)
    assert not torch.allclose(one.evidence_BNE, third.evidence_BNE)


def test_keeping_all_patches_is_masking_none_in_any_order() -> None:
    model, x = model_of(), torch.rand(1, 1, *SPEC.shape)
    order = torch.randperm(SPEC.patches)[None]
    with torch.no_grad():
        whole, kept = model.vision(x).evidence_BNE, model.vision(x, order).evidence_BNE
    torch.testing.assert_close(kept, whole[:, order[0]], atol=1e-5, rtol=1e-4)


def test_a_cell_is_where_its_number_says() -> None:
    """A change in one half cell changes just that cell, in C order in its patch."""
    model = tiny(vision=VISION, image_decoder=None)  # blocks that do nothing yet
    finer = model.vision.cell_head
    assert isinstance(finer, HalfCells)
    with torch.no_grad():
        finer.context.weight.zero_()  # what the patch hands down is another matter
    x = torch.zeros(1, 1, *SPEC.shape)
    for number in (0, 1, 2, 4, 7):
        a, b, c = np.unravel_index(number, (2, 2, 2))
        patch = np.ravel_multi_index((3, 1, 2), SPEC.grid_shape)
        changed = x.clone()
        low = 3 * 8 + 4 * a, 1 * 8 + 4 * b, 2 * 4 + 2 * c
        changed[0, 0, low[0] : low[0] + 4, low[1] : low[1] + 4, low[2] : low[2] + 2] = 0.5
        with torch.no_grad():
            before, after = (model.vision(v).cells_BNCE for v in (x, changed))
        assert before is not None
        assert after is not None
        differs = (before - after).abs().amax(dim=-1)[0] > 1e-6
        assert differs.nonzero().tolist() == [[int(patch), number]]


def test_it_comes_back_from_the_disk_as_it_was(tmp_path: Path) -> None:
    model, x = model_of(), torch.rand(1, 1, *SPEC.shape)
    save_model(model, tmp_path / "m")
    again = load_model(tmp_path / "m")
    assert again.model_id == model.model_id
    with torch.no_grad():
        assert torch.equal(again.vision(x).evidence_BNE, model.vision(x).evidence_BNE)
        assert torch.equal(head_of(again)(x), head_of(model)(x))


@pytest.mark.parametrize(
    ("vision", "head", "says"),
    [
        ({"cells": None}, {}, "has the cells"),
        ({"cells": (4, 4, 4)}, {}, "has the cells"),
        ({"stem_blocks": (0, 1, 1)}, {}, "1 to 16 blocks"),
        ({"stem": "conv"}, {"kind": "pyramid"}, "needs an encoder with the stem pyramid"),
        ({}, {"kind": "pyramid", "cls_token": False}, "uses the encoder as it is"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    vision: dict[str, Any], head: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValidationError, match=says):
        tiny(
            vision=VisionConfig(**(VISION.model_dump() | vision)),
            segmentation=SegmentationConfig(labels=LABELS, **head),
        )


# -- the segmentation head ----------------------------------------------------------------------


def test_the_head_puts_every_voxel_in_its_place() -> None:
    model, x = model_of(), torch.rand(2, 1, *SPEC.shape)
    head = head_of(model)
    p, q, r = head.cell_shape
    with torch.no_grad():
        logits = head(x)
        fine = head.fine(model.vision(x))
        assert logits.shape == (2, 3, *SPEC.shape)
        for i, j, k in ((0, 0, 0), (5, 3, 2), (23, 15, 15)):
            block = x[1, 0, i * p : i * p + p, j * q : j * q + q, k * r : k * r + r]
            cell = head.logits(fine[1, i, j, k][None], block.reshape(1, -1))[0]
            got = logits[1, :, i * p : i * p + p, j * q : j * q + q, k * r : k * r + r]
            torch.testing.assert_close(got, cell.T.reshape(3, p, q, r), atol=1e-5, rtol=1e-4)
    with pytest.raises(SimCroPError) as refusal:
        head(torch.rand(1, 1, 8, 8, 4))
    assert refusal.value.code == "input-shape"


def test_drawn_cells_are_different_and_rare_classes_are_among_them() -> None:
    classes = torch.zeros(3, 2000, 8, dtype=torch.uint8)
    classes[:, 700:704, 5] = 3
    classes[:, 1000:1500] = 1
    index, weight = draw_cells(classes, torch.tensor([1, 2, 3]), 256, 4)
    assert index.shape == weight.shape == (3, 256)
    assert all(len(set(row.tolist())) == 256 for row in index)
    assert len({tuple(row.tolist()) for row in index}) == 3
    for row in index:
        assert {700, 701, 702, 703} <= set(row.tolist())  # a third of half of all draws is theirs
    again, _ = draw_cells(classes[1:2], torch.tensor([2]), 256, 4)
    assert torch.equal(again[0], index[1])  # each study's own affair
    everything, _ = draw_cells(classes, torch.tensor([1, 2, 3]), 10**6, 4)
    assert everything.shape == (3, 2000)


def test_drawn_cells_stand_for_all() -> None:
    """What a class's drawn cells count is how many there are, on average over many draws."""
    classes = torch.zeros(1, 4000, 2, dtype=torch.uint8)
    classes[:, :100] = 1
    classes[:, 100:1100] = 2
    shares = []
    for seed in range(40):
        index, weight = draw_cells(classes, torch.tensor([seed]), 200, 3)
        drawn = classes[0, index[0], 0]
        shares.append([float(weight[0][drawn == c].sum()) for c in range(3)])
    np.testing.assert_allclose(np.mean(shares, axis=0), [2900, 100, 1000], rtol=0.03)
    assert Counter(classes[0, index[0], 0].tolist())[1] > 20  # 5 if drawn evenly


def test_the_loss_is_cross_entropy_and_dice() -> None:
    """Against torch's and MONAI's, with equal weights; and as if rows were there twice."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20, 4, 4, generator=generator, dtype=torch.float64)
    classes = torch.randint(0, 4, (20, 4), generator=generator)
    classes[classes == 2] = 0  # a class that is not there has no part
    loss, hard = segmentation_loss(logits, classes, torch.ones(20, dtype=torch.float64))
    flat, truth = logits.flatten(0, 1), classes.flatten()
    one_hot = F.one_hot(truth, 4)
    dice = DiceLoss(reduction="none", smooth_nr=0, smooth_dr=0)
    each = dice(flat.softmax(-1).T[None, [1, 3]], one_hot.T[None, [1, 3]])
    torch.testing.assert_close(loss, F.cross_entropy(flat, truth) + each.mean())
    given = flat.argmax(-1)
    expected = [
        2 * ((given == c) & (truth == c)).sum() / ((given == c).sum() + (truth == c).sum())
        for c in (1, 3)
    ]
    torch.testing.assert_close(hard, torch.stack(expected).double().mean())
    weight = torch.ones(20, dtype=torch.float64)
    weight[:5] = 2
    doubled = segmentation_loss(
        torch.cat([logits, logits[:5]]), torch.cat([classes, classes[:5]]), torch.ones(25).double()
    )
    for got, want in zip(segmentation_loss(logits, classes, weight), doubled, strict=True):
        torch.testing.assert_close(got, want)


# -- trained together ---------------------------------------------------------------------------

_UNMASKED: dict[str, Any] = {"mask_ratio": 0, "image_weight": 0, "segmentation_weight": 1.0}


@pytest.mark.parametrize(
    "settings",
    [
        {"cell_weight": 1.0},
        {"segmentation_weight": 0.0},
        {"region_weight": 0, "contrast_weight": 0, "presence_weight": 0, "align_weight": 1.0},
    ],
)
def test_what_is_trained_is_what_the_objective_says(settings: dict[str, Any]) -> None:
    model = model_of().train()
    objective = make_objective(GroundedConfig(**(_UNMASKED | settings)), model)
    objective(model, labelled(), ALONE).total.backward()
    trained = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert trained == {n for n, _ in model.named_parameters() if objective.trains(n)}


def test_it_learns_to_segment_and_to_point_at_once() -> None:
    model = tiny(
        vision=VISION.model_copy(update={"width": 48, "heads": 4}),
        segmentation=SegmentationConfig(kind="pyramid", labels=LABELS),
        image_decoder=None,
    ).train()
    config = GroundedConfig(**_UNMASKED, presence_weight=1.0, segmentation_cells=512)
    objective = make_objective(config, model)
    fast = list(head_of(model).parameters())
    slow = [p for n, p in model.named_parameters() if not n.startswith("segmentation.")]
    optimiser = torch.optim.AdamW(
        [{"params": fast, "lr": 3e-2}, {"params": [*slow, *objective.parameters()]}], lr=3e-3
    )
    for step in range(40):
        optimiser.zero_grad()
        objective(model, labelled(4, 4 * step), ALONE).total.backward()
        optimiser.step()
    test = labelled(16, 5000)
    with torch.no_grad():
        terms = objective(model.eval(), test, ALONE).terms
        given = head_of(model)(test.volume_B1HWD).argmax(dim=1)
    assert test.structures_BHWD is not None
    assert float(terms["dice"]) > 0.85
    assert float((given == test.structures_BHWD).float().mean()) > 0.95
    assert float(terms["pointing"]) > 0.8


def test_label_maps_and_a_head_are_asked_for() -> None:
    model = model_of()
    objective = make_objective(GroundedConfig(**_UNMASKED), model)
    with pytest.raises(SimCroPError) as refusal:
        objective(model, batch_of([made(0), made(1)]), ALONE)
    assert refusal.value.code == "no-label-maps"
    with pytest.raises(SimCroPError) as refusal:
        make_objective(GroundedConfig(**_UNMASKED), model_of(segmentation=None))
    assert refusal.value.code == "model-lacks-part"
    with pytest.raises(ValidationError, match="masked cannot be segmented"):
        GroundedConfig(segmentation_weight=1.0)
