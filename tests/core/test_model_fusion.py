"""Cross-granularity fusion and the text decoder, against Eq. 5 spelled out."""

from __future__ import annotations

import math

import pytest
import torch

from simcrop_core.model import (
    CrossGranularityFusion,
    FusionConfig,
    TextDecoder,
    TextDecoderConfig,
    create_model,
)

WIDTH, HEADS = 24, 3


def fusion(kind: str, vision_width: int = WIDTH, text_width: int = WIDTH) -> CrossGranularityFusion:
    config = FusionConfig(kind=kind, heads=HEADS)
    made = CrossGranularityFusion(config, vision_width, text_width, WIDTH)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made.initialise()
        for parameter in made.parameters():  # so that biases and norms play their part
            parameter.data += 0.1 * torch.randn(parameter.shape)
    return made.eval()


def cross_attention(made: CrossGranularityFusion, text: torch.Tensor, seen: torch.Tensor):
    a = made.attention
    size = WIDTH // HEADS
    query, key, value = a.query(text), a.key(seen), a.value(seen)
    out = torch.zeros_like(query)
    for b in range(len(text)):
        for head in range(HEADS):
            part = slice(head * size, (head + 1) * size)
            weights = (query[b, :, part] @ key[b, :, part].T / math.sqrt(size)).softmax(-1)
            out[b, :, part] = weights @ value[b, :, part]
    return a.proj(out)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["literal", "residual"])
def test_fusion_is_equation_5(kind: str) -> None:
    made = fusion(kind)
    text, seen = torch.randn(2, 5, WIDTH), torch.randn(2, 7, WIDTH)
    fused = seen.mean(dim=1)[:, None] + cross_attention(made, text, seen)
    if kind == "residual":
        hidden = made.norm1(text + fused)
        inner = made.fc1(hidden)
        inner = 0.5 * inner * (1 + torch.erf(inner / math.sqrt(2)))
        fused = made.norm2(hidden + made.fc2(inner))
    torch.testing.assert_close(made(text, seen), fused, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_literal_fusion_is_blind_to_text_where_all_patches_are_alike() -> None:
    seen = torch.randn(1, 1, WIDTH).expand(1, 7, WIDTH)
    text = torch.randn(1, 2, WIDTH)
    literal, residual = fusion("literal")(text, seen), fusion("residual")(text, seen)
    torch.testing.assert_close(literal[0, 0], literal[0, 1], atol=1e-5, rtol=0)
    assert not torch.allclose(residual[0, 0], residual[0, 1], atol=1e-2)


@torch.no_grad()
def test_order_of_patches_does_not_matter_and_widths_are_brought_together() -> None:
    made = fusion("residual", vision_width=16, text_width=40)
    text, seen = torch.randn(2, 5, 40), torch.randn(2, 7, 16)
    torch.testing.assert_close(
        made(text, seen), made(text, seen[:, torch.randperm(7)]), atol=1e-5, rtol=0
    )
    assert made(text, seen).shape == (2, 5, WIDTH)


def decoder() -> TextDecoder:
    config = TextDecoderConfig(
        depth=2, width=WIDTH, heads=HEADS, hidden_width=48, max_tokens=16, vocabulary_size=50
    )
    made = TextDecoder(config)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        made.initialise()
    return made


def test_logits_are_of_the_masked_tokens_in_order() -> None:
    made = decoder().eval()
    fused, attend = torch.randn(2, 6, WIDTH), torch.ones(2, 6, dtype=torch.bool)
    masked = torch.zeros(2, 6, dtype=torch.bool)
    masked[0, [1, 4]] = True
    masked[1, 2] = True
    every = made(fused, attend, torch.ones_like(masked)).reshape(2, 6, 50)
    some = made(fused, attend, masked)
    assert some.shape == (3, 50)
    torch.testing.assert_close(some, every[masked], atol=1e-5, rtol=0)


def test_padding_is_not_seen_and_places_are() -> None:
    made = decoder().eval()
    fused = torch.randn(1, 6, WIDTH)
    attend = torch.tensor([[1, 1, 1, 1, 0, 0]], dtype=torch.bool)
    masked = torch.tensor([[0, 1, 0, 1, 0, 0]], dtype=torch.bool)
    other = fused.clone()
    other[:, 4:] = 9
    torch.testing.assert_close(
        made(fused, attend, masked), made(other, attend, masked), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(
        made(fused, attend, masked), made(fused[:, :4], attend[:, :4], masked[:, :4]),
        atol=1e-5, rtol=0,
    )  # fmt: skip
    alike = made(fused[:, :1].expand(1, 4, WIDTH), attend[:, :4], attend[:, :4])
    assert (alike[0] - alike[1]).abs().max() > 1e-4


def test_masked_words_can_be_learned_through_image_and_text() -> None:
    """The whole path of pre-training: visible patches and masked report to masked words."""
    from simcrop_core.input_spec import InputSpec
    from simcrop_core.model import ImageDecoderConfig, VisionConfig

    model = create_model(
        "starter",
        for_training=True,
        input_spec=InputSpec(shape=(32, 32, 16)),
        vision=VisionConfig(depth=1, width=24, heads=4),
        image_decoder=ImageDecoderConfig(depth=1, width=24, heads=4),
        text_decoder=TextDecoderConfig(depth=1, width=48, heads=6, hidden_width=96),
    ).train()
    text = model.text
    tokens = text.tokenize(["No pleural effusion is seen.", "Normal heart."])
    masked = ~tokens.special_BT
    masked[:, 1] = False
    ids = tokens.ids_BT.masked_fill(masked, text.mask_id)
    words = text(ids, tokens.attend_BT)
    volume, keep = torch.rand(2, 1, 32, 32, 16), torch.tensor([[0, 3], [5, 6]])
    assert model.fusion is not None
    assert model.text_decoder is not None
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(25):
        seen = model.vision(volume, keep).patches_BND
        logits = model.text_decoder(model.fusion(words, seen), tokens.attend_BT, masked)
        assert logits.shape == (int(masked.sum()), text.vocabulary_size)
        loss = torch.nn.functional.cross_entropy(logits, tokens.ids_BT[masked])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log(text.vocabulary_size), rel=0.1)
    assert losses[-1] < 0.5 * losses[0]
    assert model.vision.blocks[0].attn.qkv.weight.grad.any()
