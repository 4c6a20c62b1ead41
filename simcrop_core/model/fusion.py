"""Cross-granularity fusion of a volume with its report, and the decoder of masked reports.

Shapes in names: B reports; T tokens of a report; K visible patches; M masked tokens of the whole
batch; V words of the vocabulary; D the width of a vector.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simcrop_core.model.config import FusionConfig, TextDecoderConfig

BERT_NORM_EPS = 1e-12


def _heads(x_BTD: Tensor, heads: int) -> Tensor:
    B, T, D = x_BTD.shape
    return x_BTD.view(B, T, heads, D // heads).transpose(1, 2)


class CrossAttention(nn.Module):
    """Report tokens ask, patches answer: ``(B, T, D)``; all of them, or those attended to."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)

    def forward(
        self, text_BTD: Tensor, patches_BKD: Tensor, attend_B11K: Tensor | None = None
    ) -> Tensor:
        mixed = F.scaled_dot_product_attention(
            _heads(self.query(text_BTD), self.heads),
            _heads(self.key(patches_BKD), self.heads),
            _heads(self.value(patches_BKD), self.heads),
            attn_mask=attend_B11K,
        )
        return self.proj(mixed.transpose(1, 2).flatten(2))


class CrossGranularityFusion(nn.Module):
    """What the text decoder reads (paper, Eq. 5).

    f^I, the mean of the visible patches (instance level), and f^W = CrossAttention(f_t, f_v)
    (word-patch level), are added. ``literal`` stops there. ``residual`` adds the text tokens
    themselves and goes on through LayerNorm and a feed-forward layer, as in related work.
    The CLS token of the encoder takes part in neither.
    """

    def __init__(
        self, config: FusionConfig, vision_width: int, text_width: int, width: int
    ) -> None:
        super().__init__()
        self.config = config
        self.vision_in = nn.Identity() if vision_width == width else nn.Linear(vision_width, width)
        self.text_in = nn.Identity() if text_width == width else nn.Linear(text_width, width)
        self.attention = CrossAttention(width, config.heads)
        if config.kind == "residual":
            self.norm1 = nn.LayerNorm(width, eps=BERT_NORM_EPS)
            self.fc1 = nn.Linear(width, 4 * width)
            self.fc2 = nn.Linear(4 * width, width)
            self.norm2 = nn.LayerNorm(width, eps=BERT_NORM_EPS)

    def initialise(self) -> None:
        """Fresh weights from torch's random stream."""
        _initialise_bert(self)

    def forward(
        self,
        text_BTD: Tensor,
        patches_BKD: Tensor,
        *,
        instance_level: bool = True,
        word_level: bool = True,
    ) -> Tensor:
        """Text tokens and visible patches -> fused tokens ``(B, T, width)``.

        ``instance_level`` and ``word_level`` say whether f^I and f^W are added (paper, Table 3).
        """
        text = self.text_in(text_BTD)
        patches = self.vision_in(patches_BKD)
        fused = torch.zeros_like(text)
        if instance_level:
            fused = fused + patches.mean(dim=1, keepdim=True)
        if word_level:
            fused = fused + self.attention(text, patches)
        if self.config.kind == "literal":
            return fused
        fused = self.norm1(text + fused)
        return self.norm2(fused + self.fc2(F.gelu(self.fc1(fused))))


class BertLayer(nn.Module):
    """One post-norm BERT layer."""

    def __init__(self, width: int, heads: int, hidden_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm1 = nn.LayerNorm(width, eps=BERT_NORM_EPS)
        self.fc1 = nn.Linear(width, hidden_width)
        self.fc2 = nn.Linear(hidden_width, width)
        self.norm2 = nn.LayerNorm(width, eps=BERT_NORM_EPS)

    def forward(self, x_BTD: Tensor, attend_B11T: Tensor) -> Tensor:
        query, key, value = (_heads(part, self.heads) for part in self.qkv(x_BTD).chunk(3, -1))
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=attend_B11T)
        x_BTD = self.norm1(x_BTD + self.proj(mixed.transpose(1, 2).flatten(2)))
        return self.norm2(x_BTD + self.fc2(F.gelu(self.fc1(x_BTD))))


class TextDecoder(nn.Module):
    """Fused tokens -> words in the places that were masked (paper, Eq. 6)."""

    def __init__(self, config: TextDecoderConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.pos_embed = nn.Parameter(torch.zeros(1, config.max_tokens, width))
        self.norm_in = nn.LayerNorm(width, eps=BERT_NORM_EPS)
        self.layers = nn.ModuleList(
            BertLayer(width, config.heads, config.hidden_width) for _ in range(config.depth)
        )
        self.transform = nn.Linear(width, width)
        self.norm_out = nn.LayerNorm(width, eps=BERT_NORM_EPS)
        self.words = nn.Linear(width, config.vocabulary_size)

    def initialise(self) -> None:
        """Fresh weights from torch's random stream, spread as BERT's."""
        _initialise_bert(self)
        nn.init.normal_(self.pos_embed, std=0.02)

    def forward(self, fused_BTD: Tensor, attend_BT: Tensor, masked_BT: Tensor) -> Tensor:
        """Logits over the vocabulary for the masked tokens only, ``(M, V)``.

        Parameters
        ----------
        fused_BTD
            From :class:`CrossGranularityFusion`.
        attend_BT
            True where there is a token, False on padding.
        masked_BT
            True where a token was masked; rows of the result follow in C order.
        """
        T = fused_BTD.shape[1]
        assert self.config.max_tokens >= T, "reports are cut to the decoder's length before"
        x_BTD = self.norm_in(fused_BTD + self.pos_embed[:, :T])
        attend_B11T = attend_BT.bool()[:, None, None, :]
        for layer in self.layers:
            x_BTD = layer(x_BTD, attend_B11T)
        masked_MD = x_BTD[masked_BT.bool()]
        return self.words(self.norm_out(F.gelu(self.transform(masked_MD))))


def _initialise_bert(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=0.02)
            nn.init.zeros_(part.bias)
        elif isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
