"""SimCroP as a whole: Eq. 7 put together by hand, every switch, and what must not matter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from made_batch import PATCH, PATCHES, TEXT_WIDTH, WORDS, small_model, studies
from pydantic import ValidationError

from simcrop_core.errors import SimCroPError
from simcrop_core.input_spec import InputSpec
from simcrop_core.model import (
    FusionConfig,
    ImageDecoderConfig,
    TextDecoderConfig,
    VisionConfig,
)
from simcrop_core.model.vision import VisionFeatures
from simcrop_core.objectives import (
    LossTerms,
    Ranks,
    SimCroPConfig,
    make_objective,
    masked_image_loss,
    patchify,
    similarity_alignment_loss,
)
from simcrop_core.objectives.masking import mask_patches, mask_report
from simcrop_core.objectives.report_masking import readable

BATCH = studies(range(4))


@pytest.fixture(autouse=True)
def _same_numbers_each_time() -> None:
    torch.manual_seed(0)


def step(model=None, batch=BATCH, **changes: Any) -> LossTerms:
    model = model or small_model()
    config = SimCroPConfig(**({"top_k": 3} | changes))
    return make_objective(config, model)(model, batch, Ranks())


def gradients(model, terms: LossTerms) -> dict[str, torch.Tensor]:
    """Of the parameters that got one."""
    model.zero_grad()
    terms.total.backward()
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


# -- the equations together ---------------------------------------------------------------------


@pytest.mark.parametrize("similarity", ["cosine", "raw"])
def test_the_total_is_equation_7(similarity: str) -> None:
    model = small_model(similarity=similarity)
    terms = step(model, temperature=0.2, align_weight=0.5, report_weight=0.25)
    mask = mask_patches(BATCH.seeds_B, PATCHES, 0.75)
    seen = model.vision(BATCH.volume_B1HWD, mask.keep_BK)
    image = masked_image_loss(
        model.image_decoder(seen, mask.keep_BK), patchify(BATCH.volume_B1HWD, PATCH), mask.mask_BN
    )
    align = similarity_alignment_loss(
        seen.patches_BND,
        model.text_projection(BATCH.sentences_BSD),
        BATCH.sentence_mask_BS,
        top_k=3,
        temperature=0.2,
        normalize=similarity == "cosine",
    )
    report = mask_report(
        BATCH.seeds_B, BATCH.tokens_BL, BATCH.special_BL, 0.75,
        mask_id=WORDS.index("[MASK]"), vocabulary_size=len(WORDS),
    )  # fmt: skip
    with torch.no_grad():
        words = model.text.network(
            input_ids=report.ids_BL, attention_mask=BATCH.attend_BL.long()
        ).last_hidden_state
    logits = model.text_decoder(
        model.fusion(words, seen.patches_BND), BATCH.attend_BL, report.masked_BL
    )
    target = BATCH.tokens_BL[report.masked_BL]
    words_lost = -logits.log_softmax(-1)[torch.arange(len(target)), target].mean()
    for name, value in {"image": image, "align": align, "report": words_lost}.items():
        torch.testing.assert_close(terms.terms[name], value, msg=name)
    torch.testing.assert_close(terms.total, image + 0.5 * align + 0.25 * words_lost)
    right = (logits.argmax(-1) == target).float().mean()
    assert terms.terms["report_accuracy"].item() == pytest.approx(right.item())
    assert terms.terms["align_left_out"].item() == 0.25  # one of the four has a single sentence


# -- switches -----------------------------------------------------------------------------------

ROWS = {  # the paper's Table 3, and the alignment alone, which the table lacks
    "IL": (False, True, False),
    "WL": (False, False, True),
    "IL+WL": (False, True, True),
    "SA+IL": (True, True, False),
    "SA+WL": (True, False, True),
    "all": (True, True, True),
    "SA": (True, False, False),
}


def row(name: str) -> dict[str, bool]:
    switches = "similarity_alignment", "instance_level", "word_level"
    return dict(zip(switches, ROWS[name], strict=True))


@pytest.mark.parametrize("name", ROWS)
def test_rows_of_the_ablation_drop_their_terms_and_no_others(name: str) -> None:
    aligned, instance, word = ROWS[name]
    model = small_model()
    terms = step(model, **row(name))
    assert ("align" in terms.terms) == ("align_left_out" in terms.terms) == aligned
    assert ("report" in terms.terms) == (instance or word)
    torch.testing.assert_close(
        terms.total, sum(terms.terms[n] for n in ("image", "align", "report") if n in terms.terms)
    )
    got = gradients(model, terms)
    assert any(n.startswith("text_projection.") for n in got) == aligned
    assert any(n.startswith("fusion.attention.") for n in got) == word
    assert any(n.startswith("text_decoder.") for n in got) == (instance or word)


def test_rows_that_model_reports_differ_in_their_report_loss() -> None:
    for kind in ("literal", "residual"):
        model = small_model(fusion=FusionConfig(kind=kind, heads=4))
        losses = {n: step(model, **row(n)).terms["report"].item() for n in ("IL", "WL", "IL+WL")}
        assert len({round(loss, 5) for loss in losses.values()}) == 3


def test_instance_level_is_the_mean_and_word_level_the_attention() -> None:
    model = small_model(fusion=FusionConfig(kind="literal", heads=4)).eval()
    text, seen = torch.randn(2, 5, TEXT_WIDTH), torch.randn(2, 7, 24)
    instance = model.fusion(text, seen, word_level=False)
    word = model.fusion(text, seen, instance_level=False)
    torch.testing.assert_close(instance, seen.mean(1, keepdim=True).expand(2, 5, 24))
    torch.testing.assert_close(word, model.fusion.attention(model.fusion.text_in(text), seen))
    torch.testing.assert_close(instance + word, model.fusion(text, seen))


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        ({"mask_ratio": 0.5}, {"image", "align", "report"}),
        ({"masked_only": False}, {"image"}),
        ({"normalize_patches": True}, {"image"}),
        ({"top_k": 5}, {"align"}),
        ({"temperature": 0.1}, {"align"}),
        ({"report_mask_ratio": 0.5}, {"report"}),
        ({"report_mask_unit": "word"}, {"report"}),
        ({"report_mask_style": "bert"}, {"report"}),
        ({"align_weight": 2.0}, {"total"}),
        ({"report_weight": 2.0}, {"total"}),
        ({"similarity_alignment": False}, {"total"}),
        ({"instance_level": False}, {"report"}),
        ({"word_level": False}, {"report"}),
    ],
)
def test_every_setting_moves_what_it_should(change: dict[str, Any], moved: set[str]) -> None:
    model = small_model()
    before, after = step(model), step(model, **change)
    for name in ("image", "align", "report"):
        if name in after.terms:
            differs = not torch.equal(before.terms[name], after.terms[name])
            assert differs == (name in moved), name
    assert not torch.equal(before.total, after.total)


def test_no_setting_is_left_untested() -> None:
    mark = test_every_setting_moves_what_it_should.pytestmark[0]
    tested = {name for change, _ in mark.args[1] for name in change}
    assert tested == set(SimCroPConfig.model_fields) - {"kind"}


@pytest.mark.parametrize("change", [{"similarity": "raw"}, {"projection_width": 10}])
def test_settings_of_the_model_that_belong_to_the_method(change: dict[str, Any]) -> None:
    before, after = step(small_model()).terms, step(small_model(**change)).terms
    assert torch.equal(before["image"], after["image"])
    assert abs(before["align"] - after["align"]) > 1e-3


# -- what must not matter -----------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0.5, 0.75])
def test_losses_belong_to_the_studies_whatever_their_order(ratio: float) -> None:
    model = small_model()
    order = [2, 0, 3, 1]
    one = step(model, mask_ratio=ratio)
    other = step(model, studies(order), mask_ratio=ratio)
    for name, value in one.terms.items():
        torch.testing.assert_close(other.terms[name], value, msg=name)


def test_the_cls_token_enters_neither_mean_nor_attention_nor_alignment() -> None:
    model = small_model()
    encode = model.vision.forward

    def spoiled(*args: Any, **options: Any) -> VisionFeatures:
        seen = encode(*args, **options)
        return replace(seen, cls_BD=torch.full_like(seen.cls_BD, torch.nan))

    before = step(model)
    model.vision.forward = spoiled
    after = step(model)
    assert after.terms["image"].isnan()  # it does go through the image decoder
    for name in ("align", "report"):
        assert torch.equal(before.terms[name], after.terms[name])


def test_removed_patches_are_never_seen() -> None:
    mask = mask_patches(BATCH.seeds_B, PATCHES, 0.75).mask_BN
    blocks = patchify(BATCH.volume_B1HWD, PATCH).masked_fill(mask[..., None], 0.5)
    from simcrop_core.objectives import unpatchify

    changed = replace(BATCH, volume_B1HWD=unpatchify(blocks, PATCH, BATCH.volume_B1HWD.shape[2:]))
    model = small_model()
    before, after = step(model), step(model, changed)
    for name in ("align", "report"):
        assert torch.equal(before.terms[name], after.terms[name])
    assert not torch.equal(before.terms["image"], after.terms["image"])


def test_padding_of_reports_does_not_matter() -> None:
    model = small_model()
    torch.testing.assert_close(step(model).total, step(model, studies(range(4), length=32)).total)


def test_studies_without_report_do_no_harm() -> None:
    empty = replace(
        studies([0, 1]),
        tokens_BL=torch.zeros(2, 5, dtype=torch.long),
        attend_BL=torch.zeros(2, 5, dtype=torch.bool),
        special_BL=torch.ones(2, 5, dtype=torch.bool),
        sentence_mask_BS=torch.zeros(2, 4, dtype=torch.bool),
    )
    # Attention to nothing is NaN on some devices, so there is always a token to attend to.
    assert readable(empty).tolist() == [[True, False, False, False, False]] * 2
    assert torch.equal(readable(BATCH), BATCH.attend_BL)
    model = small_model()
    terms = step(model, empty)
    assert terms.terms["align"].item() == terms.terms["report"].item() == 0
    assert terms.terms["align_left_out"].item() == 1
    got = gradients(model, terms)
    assert all(gradient.isfinite().all() for gradient in got.values())
    assert not got["text_decoder.words.weight"].any()


def test_the_text_encoder_stays_frozen_and_quiet() -> None:
    model = small_model()
    gradients(model, step(model))
    assert not model.text.training
    assert all(p.grad is None and not p.requires_grad for p in model.text.parameters())
    assert torch.equal(step(model).total, step(model).total)


@pytest.mark.parametrize("kind", ["literal", "residual"])
@pytest.mark.parametrize("name", ROWS)
def test_it_says_itself_which_parameters_it_trains(name: str, kind: str) -> None:
    model = small_model(fusion=FusionConfig(kind=kind, heads=4), projection_width=12)
    objective = make_objective(SimCroPConfig(**row(name)), model)
    got = gradients(model, objective(model, BATCH, Ranks()))
    assert set(got) == {n for n, _ in model.named_parameters() if objective.trains(n)}


# -- precision and compilation ------------------------------------------------------------------


def test_bf16_autocast_changes_losses_little_and_keeps_them_in_float32() -> None:
    model = small_model()
    exact = step(model)
    with torch.autocast("cpu", torch.bfloat16):
        terms = step(model)
    assert terms.total.dtype == torch.float32
    for name in ("image", "report"):  # in alignment, rounding may choose other patches
        assert terms.terms[name].dtype == torch.float32
        assert terms.terms[name].item() == pytest.approx(exact.terms[name].item(), rel=0.02)
    assert all(g.isfinite().all() for g in gradients(model, terms).values())


def test_compiled_blocks_give_the_same_gradients() -> None:
    model, compiled = small_model(), small_model()
    for part in (*compiled.vision.blocks, *compiled.image_decoder.blocks):
        part.compile(backend="eager", fullgraph=True)
    plain, other = gradients(model, step(model)), gradients(compiled, step(compiled))
    assert plain.keys() == other.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(other[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


def test_other_grids_patches_and_encoders_without_cls() -> None:
    model = small_model(
        input_spec=InputSpec(shape=(12, 12, 4), patch_shape=(4, 3, 1)),
        vision=VisionConfig(depth=1, width=24, heads=4, cls_token=False),
        image_decoder=ImageDecoderConfig(depth=1, width=12, heads=2),
    )
    batch = replace(BATCH, volume_B1HWD=torch.randn(4, 1, 12, 12, 4))
    terms = step(model, batch)
    assert all(value.isfinite() for value in terms.terms.values())


# -- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"mask_ratio": 0.0}, "greater than 0"),
        ({"mask_ratio": 1.0}, "less than 1"),
        ({"report_mask_ratio": 1.0}, "less than 1"),
        ({"top_k": 0}, "greater than or equal to 1"),
        ({"temperature": 0.0}, "greater than 0"),
        ({"align_weight": 0.0}, "greater than 0"),
        ({"report_weight": -1.0}, "greater than 0"),
        ({"gamma": 0.5}, "Extra inputs"),
        (
            {"similarity_alignment": False, "instance_level": False, "word_level": False},
            "choose the objective mae",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(change: dict[str, Any], word: str) -> None:
    with pytest.raises(ValidationError, match=word):
        SimCroPConfig(**change)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"image_decoder": None}, "model-lacks-part"),
        ({"fusion": None, "text_decoder": None}, "model-lacks-part"),
        (
            {
                "text_decoder": TextDecoderConfig(
                    depth=1, width=24, heads=4, hidden_width=48, vocabulary_size=5
                )
            },
            "vocabulary-mismatch",
        ),
        ({"input_spec": InputSpec(shape=(4, 4, 4), patch_shape=(4, 4, 4))}, "too-few-patches"),
        ({"input_spec": InputSpec(shape=(4, 4, 2), patch_shape=(1, 1, 1))}, "patch-too-small"),
    ],
)
def test_models_that_lack_a_part_are_refused(change: dict[str, Any], code: str) -> None:
    with pytest.raises(SimCroPError) as refusal:
        make_objective(SimCroPConfig(normalize_patches=True), small_model(**change))
    assert refusal.value.code == code
    assert "simcrop" in refusal.value.problem


def test_without_report_modelling_no_report_decoder_is_needed() -> None:
    model = small_model(fusion=None, text_decoder=None)
    terms = step(model, instance_level=False, word_level=False)
    assert set(terms.terms) == {"image", "align", "align_left_out"}
