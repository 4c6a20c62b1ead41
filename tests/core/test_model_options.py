"""What a model can have beyond the paper: conv stem, finer level, centred text, presence."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_ct import AFFINE, chest
from pydantic import ValidationError
from scipy.special import logsumexp
from torch.nn import functional as F

from simcrop_core.align import Encoded, align, encode
from simcrop_core.errors import SimCroPError
from simcrop_core.geometry import Grid
from simcrop_core.input_spec import InputSpec
from simcrop_core.model import (
    FusionConfig,
    ImageDecoderConfig,
    ModelConfig,
    PresenceConfig,
    SegmentationConfig,
    SimCroP,
    TextConfig,
    TextDecoderConfig,
    VisionConfig,
    create_model,
    load_model,
    new_model,
    save_model,
)
from simcrop_core.model.embedding import ConvStem, pool_cells
from simcrop_core.volume import CTVolume

SPEC = InputSpec(shape=(32, 48, 16), patch_shape=(16, 16, 8))
CONV = VisionConfig(depth=2, width=24, heads=4, stem="conv", stem_width=4)
CELLS = CONV.model_copy(update={"cells": (2, 2, 2), "cell_width": 6})
BASE: dict[str, Any] = {
    "name": "small",
    "input_spec": SPEC,
    "vision": VisionConfig(depth=2, width=24, heads=4),
    "text": TextConfig(source="minilm", width=384),
}
RICH = {
    "vision": CELLS,
    "projection_width": 16,
    "projection_norm": True,
    "text_centred": True,
    "presence": PresenceConfig(),
}


def small(seed: int = 0, **changes: Any) -> SimCroP:
    return new_model(ModelConfig(**(BASE | changes)), seed)


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# -- models saved before there were options -----------------------------------------------------

# Identities as computed before any of the options existed.
BEFORE: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("53088328f9e73116739279eaf17c711798c00fe5b0075e6984ffbc6ae32347e4", {}),
    "joint": (
        "0924eed4179c0de11994c37b76d0e25962093941224b7b9d9e05bcd778d79283",
        {"projection_width": 16, "similarity": "raw"},
    ),
    "decoders": (
        "0a060764068c96a7335377b64b703ccf50d3f4aba8be719300ebdb40afa8bda3",
        {
            "image_decoder": ImageDecoderConfig(depth=1, width=12, heads=2),
            "fusion": FusionConfig(heads=2),
            "text_decoder": TextDecoderConfig(
                depth=1, width=12, heads=2, hidden_width=24, vocabulary_size=100
            ),
        },
    ),
    "segmentation": (
        "a58771ef1dec67c6bf32cf4dfb51ca984073e2b89da7b20a9aaf23871771a63d",
        {"segmentation": SegmentationConfig(labels=("a", "b"), feature_width=2)},
    ),
}
NEW_FIELDS = ("projection_norm", "text_centred", "cell_sharpness", "presence")
NEW_VISION_FIELDS = ("stem", "stem_width", "cells", "cell_width")


def as_before(changes: dict[str, Any]) -> ModelConfig:
    return ModelConfig(
        name="small",
        input_spec=InputSpec(shape=(16, 16, 8), patch_shape=(8, 8, 4)),
        vision=VisionConfig(depth=4, width=24, heads=4),
        text=TextConfig(source="minilm", width=384),
        **changes,
    )


@pytest.mark.parametrize("name", BEFORE)
def test_models_from_before_the_options_load_unchanged(name: str, tmp_path: Path) -> None:
    identity, changes = BEFORE[name]
    model = new_model(as_before(changes), 3)
    assert model.config.identity() == identity
    save_model(model, tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    stored = json.loads(path.read_text())
    for field in NEW_FIELDS:
        del stored["config"][field]
    for field in NEW_VISION_FIELDS:
        del stored["config"]["vision"][field]
    path.write_text(json.dumps(stored))
    loaded = load_model(tmp_path / "model")
    assert loaded.model_id == model.model_id
    expected = {"vision", "text_projection", *changes} - {"similarity", "projection_width"}
    if "projection_width" in changes:
        expected.add("vision_projection")
    assert {key.split(".")[0] for key in loaded.state_dict()} == expected


def test_every_option_is_part_of_the_identity() -> None:
    base = ModelConfig(**(BASE | RICH)).identity()
    cells = CELLS.model_dump()
    changes: list[dict[str, Any]] = [
        {"projection_norm": False},
        {"text_centred": False},
        {"cell_sharpness": 5.0},
        {"presence": None},
        {"presence": PresenceConfig(of="finding")},
        {"vision": VisionConfig(**(cells | {"stem_width": 8}))},
        {"vision": VisionConfig(**(cells | {"cell_width": 8}))},
        {"vision": VisionConfig(**(cells | {"cells": (4, 2, 2)}))},
        {"vision": CONV},
    ]
    found = {ModelConfig(**(BASE | RICH | change)).identity() for change in changes}
    assert len(found | {base}) == len(changes) + 1


def test_a_model_with_all_options_comes_back_bit_for_bit(tmp_path: Path) -> None:
    model = small(3, **RICH)
    model.set_text_mean(numbers(384))
    loaded = load_model(save_model(model, tmp_path / "model"))
    assert loaded.model_id == model.model_id
    assert torch.equal(loaded.text_mean, model.text_mean)
    x = numbers(1, 1, *SPEC.shape)
    with torch.no_grad():
        one, two = model.vision(x).evidence_BNE[0], loaded.vision(x).evidence_BNE[0]
    sentences = numbers(3, 384, seed=1)
    assert torch.equal(model.similarity(one, sentences), loaded.similarity(two, sentences))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: VisionConfig(cells=(2, 2, 2)), "needs the convolutional stem"),
        (lambda: VisionConfig(stem="conv", cells=(1, 1, 1)), "2 to 64 cells"),
        (lambda: VisionConfig(stem="conv", cells=(8, 8, 8)), "2 to 64 cells"),
        (
            lambda: ModelConfig(
                **(BASE | {"vision": CONV.model_copy(update={"cells": (3, 2, 2)})})
            ),
            "cannot be cut into",
        ),
    ],
)
def test_cells_that_cannot_be_are_refused(make: Any, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        make()


# -- convolutional stem -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patch", "cells"),
    [
        ((16, 16, 8), (1, 1, 1)),
        ((16, 16, 8), (2, 2, 2)),
        ((12, 6, 5), (2, 3, 1)),
        ((8, 8, 1), (4, 2, 1)),
    ],
)
def test_the_stem_is_its_convolutions_on_each_patch_alone(
    patch: tuple[int, int, int], cells: tuple[int, int, int]
) -> None:
    stem = ConvStem(patch, cells, 3, 10)
    stem.initialise()
    grid = (2, 1, 2)
    x = numbers(2, 1, *[g * p for g, p in zip(grid, patch, strict=True)])
    with torch.no_grad():
        got, tokens = stem.cells(x), stem(x)
        for n, (i, j, k) in enumerate(np.ndindex(*grid)):
            p, q, r = patch
            own = x[:, :, i * p : (i + 1) * p, j * q : (j + 1) * q, k * r : (k + 1) * r]
            expected = stem.layers(own)
            assert tuple(expected.shape[2:]) == cells
            flat = expected.flatten(2).transpose(1, 2)
            torch.testing.assert_close(got[:, n], flat, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(
                tokens[:, n], stem.out(flat.flatten(1)), atol=1e-5, rtol=1e-5
            )


def test_masked_patches_have_no_part_in_stem_and_cells() -> None:
    model = small(vision=CELLS)
    x, keep = numbers(1, 1, *SPEC.shape), torch.tensor([[7, 2, 9]])
    other = x.clone()
    other[:, :, :16, :16, :8] = 0.3  # patch 0, which is masked
    with torch.no_grad():
        one, two = model.vision(x, keep), model.vision(other, keep)
        whole = model.vision(x, torch.arange(12)[None])
        unmasked = model.vision(x)
    assert torch.equal(one.evidence_BNE, two.evidence_BNE)
    assert one.evidence_BNE.shape == (1, 3, 24 + 8 * 6)
    torch.testing.assert_close(whole.evidence_BNE, unmasked.evidence_BNE)


def test_cells_lie_where_their_features_say() -> None:
    """A corner of the patch reaches its own cell and none beside it along the halved axes."""
    stem = ConvStem((16, 16, 4), (2, 2, 1), 4, 8)
    stem.initialise()
    x = torch.zeros(1, 1, 16, 16, 4)
    bright = x.clone()
    bright[..., 15, 0, 2] = 1  # cell (1, 0, 0), number 2
    with torch.no_grad():
        change = (stem.cells(bright) - stem.cells(x)).abs().sum(-1)[0, 0]
    assert change.nonzero().flatten().tolist() == [2]


def test_all_parameters_of_the_options_learn() -> None:
    model = small(**RICH)
    evidence = model.vision(numbers(1, 1, *SPEC.shape)).evidence_BNE[0]
    chance = model.presence(model.similarity(evidence, numbers(4, 384)))
    F.binary_cross_entropy(chance, torch.tensor([1.0, 0, 1, 0])).backward()
    unused = {
        name
        for name, p in model.named_parameters()
        if p.grad is None or not bool(p.grad.abs().max() > 0)
    }
    assert unused == {"vision.fc_norm.weight", "vision.fc_norm.bias"}


# -- similarity ---------------------------------------------------------------------------------


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_similarity_with_all_options_in_double_precision() -> None:
    model = small(**RICH)
    model.set_text_mean(numbers(384, seed=4))
    with torch.no_grad():
        for p in (model.projection_norm.weight, model.projection_norm.bias):
            p.add_(numbers(*p.shape, seed=5) / 3)
    evidence, sentences = numbers(12, 24 + 8 * 6, seed=1), numbers(5, 384, seed=2)
    got = model.similarity(evidence, sentences).detach().numpy()
    w = {k: v.double().numpy() for k, v in model.state_dict().items()}
    h, cells = evidence[:, :24].double().numpy(), evidence[:, 24:].double().numpy()
    h = (h - h.mean(1, keepdims=True)) / np.sqrt(h.var(1, keepdims=True) + 1e-6)
    h = h * w["projection_norm.weight"] + w["projection_norm.bias"]
    z = unit(h @ w["vision_projection.weight"].T + w["vision_projection.bias"])
    c = cells.reshape(12, 8, 6) @ w["cell_projection.weight"].T + w["cell_projection.bias"]
    t = sentences.double().numpy() - numbers(384, seed=4).double().numpy()
    t = unit(t @ w["text_projection.weight"].T + w["text_projection.bias"])
    own = np.einsum("sd,nd->sn", t, z)
    finer = np.einsum("sd,ncd->snc", t, unit(c))
    expected = logsumexp(20 * (own[..., None] + finer) / 2, axis=-1, b=1 / 8) / 20
    np.testing.assert_allclose(got, expected, atol=1e-5)
    levels = model.similarity_levels(evidence, sentences)
    np.testing.assert_allclose(levels[0].detach().numpy(), own, atol=1e-5)
    assert levels[1] is not None
    np.testing.assert_allclose(levels[1].detach().numpy(), finer, atol=1e-5)


@settings(deadline=None)
@given(
    own=st.floats(-1, 1),
    finer=st.lists(st.floats(-1, 1), min_size=2, max_size=27),
    sharpness=st.floats(1, 200),
)
def test_a_patch_lies_between_mean_and_best_of_its_cells(
    own: float, finer: list[float], sharpness: float
) -> None:
    cells = torch.tensor(finer, dtype=torch.float64)
    pooled = float(pool_cells(torch.tensor([own], dtype=torch.float64), cells[None], sharpness))
    both = (own + cells) / 2
    assert float(both.mean()) - 1e-9 <= pooled <= float(both.max()) + 1e-9
    assert pooled >= float(both.max()) - math.log(len(finer)) / sharpness - 1e-9


def test_cells_like_their_patch_leave_it_as_it_is() -> None:
    own = numbers(3, 4)
    cells = own[..., None].expand(3, 4, 8)
    torch.testing.assert_close(pool_cells(own, cells, 20.0), own)


def test_evidence_of_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match="evidence_BNE"):
        small(**RICH).similarity(numbers(12, 24), numbers(2, 384))


def test_a_centred_model_does_not_see_what_all_sentences_share() -> None:
    plain, centred = small(projection_width=16), small(projection_width=16, text_centred=True)
    patches, sentences, shared = numbers(12, 24), numbers(3, 384, seed=1), 5 * numbers(384, seed=2)
    before = centred.similarity(patches, sentences)
    torch.testing.assert_close(before, plain.similarity(patches, sentences))  # the mean is zero
    centred.set_text_mean(shared)
    torch.testing.assert_close(
        centred.similarity(patches, sentences + shared), before, atol=1e-4, rtol=0
    )
    with pytest.raises(ValueError, match="text_centred"):
        plain.set_text_mean(shared)


# -- presence -----------------------------------------------------------------------------------


def test_presence_in_double_precision() -> None:
    model = small(**RICH)
    head = model.presence_head
    assert head is not None
    with torch.no_grad():
        head.bias.fill_(-0.7)
    similarity = numbers(5, 12) / 4
    mask = torch.arange(12) % 3 > 0
    s = similarity.double().numpy()
    for seen, chosen in ((None, s), (mask, s[:, mask.numpy()])):
        pooled = (logsumexp(20 * chosen, axis=1) - np.log(chosen.shape[1])) / 20
        expected = 1 / (1 + np.exp(-(pooled / 0.07 - 0.7)))
        got = model.presence(similarity, seen).detach().numpy()
        np.testing.assert_allclose(got, expected, rtol=1e-4)


def test_presence_starts_from_its_settings() -> None:
    head = small(presence=PresenceConfig(sharpness=3.0, temperature=0.5)).presence_head
    assert head is not None
    assert float(head.log_sharpness.detach().exp()) == pytest.approx(3.0)
    assert float(head.log_temperature.detach().exp()) == pytest.approx(0.5)


def test_a_model_without_presence_says_so() -> None:
    with pytest.raises(SimCroPError) as refusal:
        small().presence(numbers(2, 12))
    assert refusal.value.code == "no-presence"


# -- the way of a user --------------------------------------------------------------------------


def test_a_scan_is_encoded_stored_and_aligned_on_the_patch_grid(tmp_path: Path) -> None:
    spec = InputSpec(shape=(64, 64, 32), spacing_mm=(4, 4, 8), patch_shape=(16, 16, 8))
    model = create_model(
        "grounded", input_spec=spec, vision=VisionConfig(**(CELLS.model_dump() | {"width": 48}))
    )
    volume = CTVolume(chest(), Grid(chest().shape, AFFINE))
    encoded = encode(model, volume)
    encoded.save(tmp_path / "scan.npz")
    result = align(model, Encoded.load(tmp_path / "scan.npz"), queries=["No effusion."], top_k=8)
    assert encoded.patches_ND.shape == (64, 48 + 8 * 6)
    assert result.similarity_SN.shape == (1, 64)
    assert result.to_dict()["schema"] == 1
    direct = model.similarity(
        torch.from_numpy(encoded.patches_ND), model.encode_text(["No effusion."]).sentences_SD
    )
    np.testing.assert_allclose(result.similarity_SN, direct.detach().numpy(), atol=1e-6)


def test_the_preset_has_every_option_and_no_decoder_of_text() -> None:
    model = create_model("grounded", for_training=True)
    config = model.config
    assert config.vision.stem == "conv"
    assert config.vision.cells == (2, 2, 2)
    assert config.projection_norm
    assert config.text_centred
    assert config.presence is not None
    assert model.image_decoder is not None
    assert model.text_decoder is None
