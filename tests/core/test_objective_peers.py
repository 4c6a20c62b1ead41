"""The peers, each against its method spelled out, with every setting and refusal."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from made_batch import PATCH, PATCHES, WORDS, small_model, studies
from pydantic import TypeAdapter, ValidationError

from simcrop_core.errors import SimCroPError
from simcrop_core.model import VisionConfig
from simcrop_core.objectives import (
    CtClipConfig,
    LossTerms,
    M3aeConfig,
    M3dClipConfig,
    MaeConfig,
    MrmConfig,
    ObjectiveConfig,
    Ranks,
    SimCroPConfig,
    make_objective,
    masked_image_loss,
    patchify,
)
from simcrop_core.objectives.masking import continuing_tokens, mask_patches, mask_report

BATCH = studies(range(4))
CONFIGS = [SimCroPConfig, MaeConfig, MrmConfig, M3aeConfig, CtClipConfig, M3dClipConfig]
PEERS = CONFIGS[1:]
CLIPS = [CtClipConfig, M3dClipConfig]


@pytest.fixture(autouse=True)
def _same_numbers_each_time() -> None:
    torch.manual_seed(0)


def made(config: Any, model=None):
    model = model or small_model()
    objective = make_objective(config, model)
    for parameter in objective.parameters():  # so that biases and zeros play their part
        if parameter.ndim:
            parameter.data += 0.05 * torch.randn(parameter.shape)
    return model, objective


def step(config: Any, batch=BATCH) -> LossTerms:
    torch.manual_seed(0)
    model, objective = made(config)
    return objective(model, batch, Ranks())


def seen_of(model, ratio: float = 0.75):
    mask = mask_patches(BATCH.seeds_B, PATCHES, ratio)
    return mask, model.vision(BATCH.volume_B1HWD, mask.keep_BK)


def image_of(model, mask, features) -> torch.Tensor:
    return masked_image_loss(
        model.image_decoder(features, mask.keep_BK),
        patchify(BATCH.volume_B1HWD, PATCH),
        mask.mask_BN,
    )


def hidden(ratio: float, **options: Any):
    return mask_report(
        BATCH.seeds_B, BATCH.tokens_BL, BATCH.special_BL, ratio,
        mask_id=WORDS.index("[MASK]"), vocabulary_size=len(WORDS), **options,
    )  # fmt: skip


def cross_entropy(logits_MV: torch.Tensor, tokens_M: torch.Tensor) -> torch.Tensor:
    return -logits_MV.log_softmax(-1)[torch.arange(len(tokens_M)), tokens_M].mean()


# -- each method --------------------------------------------------------------------------------


def test_mae_is_masked_reconstruction_and_nothing_else() -> None:
    model, objective = made(MaeConfig())
    terms = objective(model, BATCH, Ranks())
    torch.testing.assert_close(terms.total, image_of(model, *seen_of(model)))
    assert set(terms.terms) == {"image"}
    assert not list(objective.parameters())


def test_mrm_reads_words_and_the_pooled_image() -> None:
    model, objective = made(MrmConfig(report_weight=0.5))
    terms = objective(model, BATCH, Ranks())
    mask, seen = seen_of(model)
    report = hidden(0.5)
    pooled = model.vision.fc_norm(seen.patches_BND.mean(1))
    tokens = objective.words.weight[report.ids_BL] + objective.image_in(pooled)[:, None]
    logits = model.text_decoder(tokens, BATCH.attend_BL, report.masked_BL)
    lost = cross_entropy(logits, BATCH.tokens_BL[report.masked_BL])
    torch.testing.assert_close(terms.terms["report"], lost)
    torch.testing.assert_close(terms.total, image_of(model, mask, seen) + 0.5 * lost)


def attention(part, own, other, attend=None) -> torch.Tensor:
    """Multi-head attention a head at a time."""
    size = own.shape[-1] // part.heads
    query, key, value = part.query(own), part.key(other), part.value(other)
    out = torch.zeros_like(query)
    for b in range(len(own)):
        there = slice(None) if attend is None else attend[b]
        for head in range(part.heads):
            columns = slice(head * size, (head + 1) * size)
            scores = query[b, :, columns] @ key[b, there, columns].T / math.sqrt(size)
            out[b, :, columns] = scores.softmax(-1) @ value[b, there, columns]
    return part.proj(out)


def layer(part, own, other, own_attend=None, other_attend=None) -> torch.Tensor:
    x = part.norm1(own + attention(part.own, own, own, own_attend))
    x = part.norm2(x + attention(part.other, x, other, other_attend))
    return part.norm3(x + part.fc2(torch.nn.functional.gelu(part.fc1(x))))


def test_m3ae_is_co_attention_reconstruction_words_and_matching() -> None:
    config = M3aeConfig(depth=3, image_layer=2, report_weight=0.5, match_weight=0.25)
    model, objective = made(config)
    terms = objective(model, BATCH, Ranks())
    mask, seen = seen_of(model)
    report = hidden(0.15, style="bert", continues_V=continuing_tokens(model.text))
    frozen = model.text(report.ids_BL, BATCH.attend_BL)

    def attend(text: torch.Tensor, there: torch.Tensor):
        image = objective.image_in(torch.cat([seen.cls_BD[:, None], seen.patches_BND], 1))
        x, y = objective.text_in(text) + objective.side_2D[1], image + objective.side_2D[0]
        images = [y]
        for on_text, on_image in zip(objective.text_layers, objective.image_layers, strict=True):
            x, y = layer(on_text, x, y, there, None), layer(on_image, y, x, None, there)
            images.append(y)
        pooled = [objective.image_pool(y[:, 0]).tanh(), objective.text_pool(x[:, 0]).tanh()]
        return x, images, objective.belongs(torch.cat(pooled, -1))[:, 0]

    x, images, own = attend(frozen, BATCH.attend_BL)
    features = replace(seen, cls_BD=images[2][:, 0], patches_BND=images[2][:, 1:])
    image = image_of(model, mask, features)
    inner = torch.nn.functional.gelu(objective.transform(x[report.masked_BL]))
    logits = objective.words(objective.norm_words(inner))
    lost = cross_entropy(logits, BATCH.tokens_BL[report.masked_BL])
    following = [1, 2, 3, 0]
    _, _, other = attend(frozen[following], BATCH.attend_BL[following])
    match = -(own.sigmoid().log().sum() + (1 - other.sigmoid()).log().sum()) / 8
    for name, value in {"image": image, "report": lost, "match": match}.items():
        torch.testing.assert_close(terms.terms[name], value, msg=name, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(terms.total, image + 0.5 * lost + 0.25 * match)
    right = (own > 0).sum() + (other <= 0).sum()
    assert terms.terms["match_accuracy"].item() == pytest.approx(right.item() / 8)


@pytest.mark.parametrize("config", CLIPS)
def test_clips_are_symmetric_infonce_over_the_batch(config: Any) -> None:
    model, objective = made(config(temperature=0.2))
    terms = objective(model, BATCH, Ranks())
    seen = model.vision(BATCH.volume_B1HWD)
    vector = seen.patches_BND.mean(1) if config is CtClipConfig else seen.cls_BD
    image = (vector / vector.norm(dim=1, keepdim=True)).detach().double()
    text = model.text_projection(BATCH.report_BD)
    text = (text / text.norm(dim=1, keepdim=True)).detach().double()
    total = 0.0
    for i in range(4):
        own = math.exp(image[i] @ text[i] / 0.2)
        total -= math.log(own / sum(math.exp(image[i] @ text[j] / 0.2) for j in range(4))) / 8
        total -= math.log(own / sum(math.exp(image[j] @ text[i] / 0.2) for j in range(4))) / 8
    assert terms.total.item() == pytest.approx(total, rel=1e-5)
    right = ((image @ text.T).argmax(1) == torch.arange(4)).double().mean()
    assert terms.terms["contrast_accuracy"].item() == pytest.approx(right.item())
    assert terms.terms["temperature"].item() == pytest.approx(0.2)


@pytest.mark.parametrize("config", CLIPS)
def test_the_temperature_is_learned_and_bounded(config: Any) -> None:
    model, objective = made(config())
    objective(model, BATCH, Ranks()).total.backward()
    assert objective.log_scale.grad.abs() > 0
    objective.log_scale.data.fill_(20.0)
    assert objective(model, BATCH, Ranks()).terms["temperature"].item() == pytest.approx(0.01)


def test_ct_clip_reads_all_patches_and_m3d_clip_the_cls_token_alone() -> None:
    for config, reads_cls in ((CtClipConfig, False), (M3dClipConfig, True)):
        model, objective = made(config())
        encode = model.vision.forward
        calls = []

        def spoiled(*args: Any, _encode=encode, _calls=calls, **options: Any):
            _calls.append((len(args), options))
            seen = _encode(*args, **options)
            return replace(seen, cls_BD=torch.full_like(seen.cls_BD, torch.nan))

        model.vision.forward = spoiled
        assert objective(model, BATCH, Ranks()).total.isnan().item() == reads_cls
        assert calls == [(1, {})]  # the volume and nothing else: no patch is left out


# -- settings -----------------------------------------------------------------------------------

MASKED = [
    ({"mask_ratio": 0.5}, "image"),
    ({"masked_only": False}, "image"),
    ({"normalize_patches": True}, "image"),
]
WORDED = [
    ({"report_mask_ratio": 0.75}, "report"),
    ({"report_weight": 2.0}, "total"),
]
MOVES = [
    *((MaeConfig, *case) for case in MASKED),
    *((MrmConfig, *case) for case in MASKED + WORDED),
    (MrmConfig, {"report_mask_unit": "word"}, "report"),
    (MrmConfig, {"report_mask_style": "bert"}, "report"),
    *((M3aeConfig, *case) for case in MASKED + WORDED),
    (M3aeConfig, {"report_mask_unit": "token"}, "report"),
    (M3aeConfig, {"report_mask_style": "mask", "report_mask_ratio": 0.5}, "report"),
    (M3aeConfig, {"depth": 4}, "match"),
    (M3aeConfig, {"image_layer": 1}, "image"),
    (M3aeConfig, {"match_weight": 2.0}, "total"),
    (CtClipConfig, {"temperature": 0.5}, "contrast"),
    (M3dClipConfig, {"temperature": 0.5}, "contrast"),
]


@pytest.mark.parametrize(("config", "change", "moved"), MOVES)
def test_every_setting_moves_a_loss(config: Any, change: dict[str, Any], moved: str) -> None:
    # BERT's way of masking shows only where enough tokens are hidden.
    base = {"report_mask_ratio": 0.5} if "report_mask_style" in change else {}
    before, after = step(config(**base)), step(config(**(base | change)))
    one, other = (t.total if moved == "total" else t.terms[moved] for t in (before, after))
    assert abs(one - other) > 1e-6
    if moved == "total":
        weighted = set(before.terms) - {"total"}
        assert all(torch.equal(before.terms[n], after.terms[n]) for n in weighted)


def test_no_setting_is_left_untested() -> None:
    for config in PEERS:
        tested = {name for c, change, _ in MOVES if c is config for name in change}
        assert tested == set(config.model_fields) - {"kind"}


def test_settings_are_told_apart_by_kind_and_say_what_they_are() -> None:
    union: TypeAdapter[Any] = TypeAdapter(ObjectiveConfig)
    for config in CONFIGS:
        kind = config.model_fields["kind"].default
        assert type(union.validate_python({"kind": kind})) is config
        for name, field in config.model_fields.items():
            assert field.description
            assert len(field.description) > 15, f"{kind}.{name}"
        with pytest.raises(ValidationError):
            config(temprature=1)
        with pytest.raises(ValidationError):
            config().kind = "mae"
    with pytest.raises(ValidationError):
        union.validate_python({"kind": "fvlm"})
    with pytest.raises(ValidationError, match="after layer 3 of 2"):
        M3aeConfig(depth=2)


def test_settings_need_no_torch() -> None:
    code = (
        "import sys; from simcrop_core.objectives import SimCroPConfig, ObjectiveConfig;"
        "SimCroPConfig(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# -- what all have in common --------------------------------------------------------------------


@pytest.mark.parametrize("config", PEERS)
def test_every_parameter_that_is_said_to_be_trained_is(config: Any) -> None:
    model, objective = made(config(), small_model(projection_width=12))
    objective(model, BATCH, Ranks()).total.backward()
    got = {n for n, p in model.named_parameters() if p.grad is not None}
    assert got == {n for n, _ in model.named_parameters() if objective.trains(n)}
    assert all(p.grad is not None and p.grad.isfinite().all() for p in objective.parameters())


@pytest.mark.parametrize("config", PEERS)
def test_losses_do_not_depend_on_the_order_of_the_batch(config: Any) -> None:
    order = [1, 2, 3, 0]  # a rotation: M3AE pairs each study with the next
    one, other = step(config()), step(config(), studies(order))
    for name, value in one.terms.items():
        torch.testing.assert_close(other.terms[name], value, msg=name, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("config", PEERS)
def test_losses_stay_float32_and_near_under_autocast(config: Any) -> None:
    exact = step(config())
    with torch.autocast("cpu", torch.bfloat16):
        terms = step(config())
    assert terms.total.dtype == torch.float32
    assert terms.total.item() == pytest.approx(exact.total.item(), rel=0.03)


@pytest.mark.parametrize("config", CONFIGS)
def test_fresh_heads_follow_the_seed_and_leave_the_callers_numbers_alone(config: Any) -> None:
    model = small_model()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one = make_objective(config(), model, seed=3).state_dict()
    assert torch.equal(torch.rand(1), expected)
    same = make_objective(config(), model, seed=3).state_dict()
    other = make_objective(config(), model, seed=4).state_dict()
    assert all(torch.equal(one[name], same[name]) for name in one)
    random = {name for name in one if one[name].unique().numel() > 2}
    assert all(not torch.equal(one[name], other[name]) for name in random)
    assert bool(random) == (config in (MrmConfig, M3aeConfig))


@pytest.mark.parametrize("config", [M3aeConfig, *CLIPS])
def test_one_study_alone_is_refused_in_training(config: Any) -> None:
    model, objective = made(config())
    with pytest.raises(SimCroPError, match="only one"):
        objective(model, studies([0]), Ranks())
    terms = objective.eval()(model, studies([0]), Ranks())
    assert terms.total.isfinite()


def test_models_that_lack_a_part_are_refused() -> None:
    headless = VisionConfig(depth=2, width=24, heads=4, cls_token=False)
    same_width = VisionConfig(depth=1, width=16, heads=4)
    for config, change, word in [
        (MaeConfig, {"image_decoder": None}, "mae needs a decoder of masked patches"),
        (MrmConfig, {"image_decoder": None}, "mrm needs a decoder of masked patches"),
        (MrmConfig, {"fusion": None, "text_decoder": None}, "mrm needs a decoder of masked rep"),
        (M3aeConfig, {"image_decoder": None}, "m3ae needs a decoder of masked patches"),
        (M3dClipConfig, {"vision": headless}, "m3d_clip reads the CLS token"),
        (CtClipConfig, {"vision": same_width}, "takes the frozen report vectors as they are"),
    ]:
        with pytest.raises(SimCroPError, match=word) as refusal:
            make_objective(config(), small_model(**change))
        assert refusal.value.remedy
    assert step(M3aeConfig()).total.isfinite()
    model = small_model(vision=headless)
    for config in (MaeConfig, MrmConfig, M3aeConfig, CtClipConfig):
        _, objective = made(config(), model)
        assert objective(model, BATCH, Ranks()).total.isfinite()
