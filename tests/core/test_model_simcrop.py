"""The whole model: similarity, presets, identity, configuration fields that each do something."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from simcrop_core.errors import SimCroPError
from simcrop_core.input_spec import InputSpec
from simcrop_core.model import (
    PRESETS,
    FusionConfig,
    ImageDecoderConfig,
    ModelConfig,
    SegmentationConfig,
    SimCroP,
    TextConfig,
    TextDecoderConfig,
    VisionConfig,
    create_model,
    new_model,
    resize_position_embedding,
)

SPEC = InputSpec(shape=(32, 48, 16), patch_shape=(16, 16, 8))
BASE: dict[str, Any] = {
    "name": "small",
    "input_spec": SPEC,
    "vision": VisionConfig(depth=4, width=24, heads=4),
    "text": TextConfig(source="minilm", width=384),
}


def small(**changes: Any) -> SimCroP:
    return new_model(ModelConfig(**(BASE | changes)))


# -- similarity ---------------------------------------------------------------------------------


def test_raw_similarity_is_the_dot_product_of_equation_2() -> None:
    model = small(similarity="raw", text=TextConfig(source="minilm", width=24))
    patches, sentences = torch.randn(12, 24), torch.randn(5, 24)
    got = model.similarity(patches, sentences)
    expected = np.einsum("sd,nd->sn", sentences.numpy(), patches.numpy())
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-5)


def test_cosine_similarity_goes_through_the_projection() -> None:
    model = small()
    patches, sentences = torch.randn(12, 24), torch.randn(5, 384)
    got = model.similarity(patches, sentences).detach().numpy()
    weight = model.text_projection.weight.detach().numpy()
    projected = sentences.numpy() @ weight.T + model.text_projection.bias.detach().numpy()
    for s in range(5):
        for n in range(12):
            a, b = projected[s], patches[n].numpy()
            expected = a @ b / np.sqrt((a @ a) * (b @ b))
            assert got[s, n] == pytest.approx(expected, abs=1e-5)
    assert isinstance(model.vision_projection, torch.nn.Identity)


def test_a_joint_space_projects_both() -> None:
    model = small(projection_width=128)
    assert model.vision_projection.weight.shape == (128, 24)
    assert model.text_projection.weight.shape == (128, 384)
    assert model.similarity(torch.randn(3, 24), torch.randn(2, 384)).shape == (2, 3)


def test_equal_widths_need_no_projection() -> None:
    model = create_model("starter")
    assert isinstance(model.text_projection, torch.nn.Identity)
    assert model.config.vision.width == model.text.width == 384


# -- presets ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("preset", "depth", "width"), [("paper", 8, 768), ("released", 12, 768)])
def test_presets_are_as_published(preset: str, depth: int, width: int) -> None:
    vision = PRESETS[preset]["vision"]
    assert (vision.depth, vision.width, vision.heads) == (depth, width, 12)
    assert PRESETS[preset]["text"] == "microsoft/BiomedVLP-CXR-BERT-specialized"
    assert PRESETS[preset]["image_decoder"].depth == 4
    decoder = PRESETS[preset]["text_decoder"]
    assert (decoder.depth, decoder.width, decoder.heads, decoder.hidden_width) == (6, 768, 12, 3072)


def test_the_same_seed_gives_the_same_weights_and_leaves_the_stream_alone() -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    one = create_model("starter", seed=3)
    assert torch.equal(torch.rand(3), expected)
    two, other = create_model("starter", seed=3), create_model("starter", seed=4)
    assert one.model_id == two.model_id != other.model_id
    trained = create_model("starter", seed=3, for_training=True)
    for name, tensor in one.vision.state_dict().items():
        assert torch.equal(tensor, trained.vision.state_dict()[name])


def test_decoders_come_only_for_training() -> None:
    lean = create_model("starter")
    assert lean.image_decoder is None
    assert lean.fusion is None
    assert lean.text_decoder is None
    full = create_model("starter", for_training=True)
    assert full.config.text_decoder is not None
    assert full.config.text_decoder.vocabulary_size == full.text.vocabulary_size


def test_minilm_in_place_of_cxr_bert_brings_a_projection() -> None:
    model = create_model("paper", text_encoder="minilm", vision=VisionConfig(depth=1))
    assert model.text_projection.weight.shape == (768, 384)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"preset": "huge"}, "no-such-preset"),
        ({"preset": "starter", "segmentation_labels": []}, "bad-config"),
        ({"preset": "starter", "segmentation_labels": ["lung", "Lung"]}, "bad-config"),
        ({"preset": "starter", "segmentation_labels": ["background"]}, "bad-config"),
        ({"preset": "starter", "segmentation_labels": [" "]}, "bad-config"),
        ({"preset": "starter", "similarity": "euclid"}, "bad-config"),
        ({"preset": "starter", "colour": "red"}, "bad-config"),
        ({"preset": "starter", "vision": {"depth": 0}}, "bad-config"),
    ],
)
def test_bad_settings_are_one_sentence(arguments: dict[str, Any], code: str) -> None:
    with pytest.raises(SimCroPError) as refusal:
        create_model(**arguments)
    assert refusal.value.code == code
    assert "\n" not in str(refusal.value)


# -- configurations -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: VisionConfig(width=100, heads=12), "not a multiple of its 12 heads"),
        (lambda: VisionConfig(width=25, heads=5, position="official2axis"), "must be even"),
        (lambda: ImageDecoderConfig(width=500, heads=12), "not a multiple"),
        (lambda: TextDecoderConfig(width=500, heads=12), "not a multiple"),
        (lambda: ModelConfig(**BASE, fusion=FusionConfig()), "give both or neither"),
        (
            lambda: ModelConfig(
                **BASE, fusion=FusionConfig(heads=7), text_decoder=TextDecoderConfig()
            ),
            "not a multiple of its 7 heads",
        ),
        (
            lambda: ModelConfig(
                **(BASE | {"vision": VisionConfig(depth=2, width=24, heads=4)}),
                segmentation=SegmentationConfig(labels=("a",)),
            ),
            "at least 3 blocks",
        ),
        (
            lambda: ModelConfig(
                **BASE, segmentation=SegmentationConfig(labels=("a",), roi=(16, 16, 12))
            ),
            "not made of patches",
        ),
        (
            lambda: ModelConfig(
                **(BASE | {"vision": VisionConfig(width=24, heads=4, position="loaded")}),
                segmentation=SegmentationConfig(labels=("a",), roi=(16, 16, 8)),
            ),
            "choose position official2axis",
        ),
        (
            lambda: ModelConfig(
                **(BASE | {"input_spec": InputSpec(shape=(8000, 16, 8), patch_shape=(16, 16, 8))})
            ),
            "beyond 4096 voxels",
        ),
        (lambda: ModelConfig(**BASE, epochs=3), "Extra inputs are not permitted"),
    ],
)
def test_bad_combinations_are_refused_in_sentences(make: Any, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        make()


def test_every_field_is_described_and_frozen() -> None:
    for config in (
        ModelConfig, VisionConfig, TextConfig, ImageDecoderConfig, FusionConfig,
        TextDecoderConfig, SegmentationConfig,
    ):  # fmt: skip
        assert config.model_config["extra"] == "forbid"
        for name, field in config.model_fields.items():
            assert field.description, f"{config.__name__}.{name}"
    with pytest.raises(ValidationError):
        ModelConfig(**BASE).name = "other"


def test_the_identity_follows_what_changes_results_only() -> None:
    base = small()
    same = [
        {"name": "other"},
        {"provenance": {"trained": "somewhere", "source": "x"}},
        {"text": TextConfig(source="elsewhere/minilm", width=384)},
    ]
    different = [
        {"similarity": "raw"},
        {"text": TextConfig(source="minilm", width=384, sentence_vector="mean")},
        {"text": TextConfig(source="minilm", width=384, fingerprint="0" * 64)},
        {"input_spec": SPEC.model_copy(update={"hu_window": (-1000.0, 500.0)})},
        {"projection_width": 128},
    ]
    assert all(small(**change).model_id == base.model_id for change in same)
    others = {small(**change).model_id for change in different}
    assert len(others) == len(different)
    assert base.model_id not in others


def test_the_identity_follows_the_weights() -> None:
    model = small()
    before = model.model_id
    assert copy.deepcopy(model).model_id == before
    with torch.no_grad():
        model.vision.fc_norm.bias[0] += 1e-6
    assert model.model_id != before


def test_card_says_what_the_model_is() -> None:
    model = create_model("starter", segmentation_labels=["lung"])
    card = model.card()
    assert card["id"] == model.model_id
    assert card["name"] == "starter"
    assert card["trained"] == card["segmentation_trained"] == "untrained"
    assert not model.config.is_trained


# -- resizing positions -------------------------------------------------------------------------


def test_resized_positions_are_recorded_and_fit_the_new_grid() -> None:
    model = small(image_decoder=ImageDecoderConfig(depth=1, width=24, heads=4))
    before = model.model_id
    resized = resize_position_embedding(model, (4, 3, 3))
    assert resized.input_spec.shape == (64, 48, 24)
    assert resized.config.vision.position == "loaded"
    assert resized.config.provenance.changes == (
        "position embeddings resized from 2 x 3 x 2 to 4 x 3 x 3 patches",
    )
    keep = torch.arange(9)[None]
    features = resized.vision(torch.zeros(1, 1, 64, 48, 24), keep)
    assert resized.image_decoder is not None
    assert resized.image_decoder(features, keep).shape == (1, 36, 2048)
    assert model.model_id == before
    assert resized.model_id != before
    with torch.no_grad():
        resized.vision.fc_norm.bias += 1
    assert model.model_id == before  # weights are not shared


def test_positions_are_not_resized_for_a_head_that_they_would_not_fit() -> None:
    model = small(segmentation=SegmentationConfig(labels=("a",), roi=(16, 16, 8)))
    with pytest.raises(SimCroPError, match="choose position official2axis"):
        resize_position_embedding(model, (4, 3, 3))
