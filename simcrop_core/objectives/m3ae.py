"""M3AE: masked image and masked report through co-attention, and image-text matching.

Chen et al., "Multi-Modal Masked Autoencoders for Medical Vision-and-Language Pre-Training",
MICCAI 2022. Theirs: image and text encoders, then six layers in which each side attends to itself
and to the other; a Transformer restores 75 % of the patches from the third layer, a small network
15 % of the words from the last, and the pooled pair tells whether image and text belong together;
each of the three in a pass of its own. Ours: one pass of the encoders for all three, over the
visible patches and the masked report, so matching sees what the other two see; the text encoder
is frozen; the report that does not belong is that of the next study in the global batch.

Shapes in names: B studies; K visible patches; T tokens of one side, U of the other; L tokens of a
report; M masked tokens of the batch; V words; D the width of a vector.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simcrop_core.errors import SimCroPError
from simcrop_core.model.fusion import BERT_NORM_EPS, CrossAttention
from simcrop_core.model.simcrop import SimCroP
from simcrop_core.model.vision import VisionFeatures
from simcrop_core.objectives.base import LossTerms, Objective, Ranks
from simcrop_core.objectives.config import M3aeConfig
from simcrop_core.objectives.losses import full_precision
from simcrop_core.objectives.reconstruction import reconstruction_loss, see_visible
from simcrop_core.objectives.report_masking import ReportMasking, readable, report_terms
from simcrop_core.objectives.requirements import VISION_TRUNK, require_maskable, require_parts
from simcrop_core.study_batch import StudyBatch


class CoAttentionLayer(nn.Module):
    """One side of a layer of co-attention: to itself, to the other side, then feed-forward."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.own = CrossAttention(width, heads)
        self.other = CrossAttention(width, heads)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)
        self.norm1 = nn.LayerNorm(width, eps=BERT_NORM_EPS)
        self.norm2 = nn.LayerNorm(width, eps=BERT_NORM_EPS)
        self.norm3 = nn.LayerNorm(width, eps=BERT_NORM_EPS)

    def forward(
        self,
        own_BTD: Tensor,
        other_BUD: Tensor,
        own_B11T: Tensor | None,
        other_B11U: Tensor | None,
    ) -> Tensor:
        x_BTD = self.norm1(own_BTD + self.own(own_BTD, own_BTD, own_B11T))
        x_BTD = self.norm2(x_BTD + self.other(x_BTD, other_BUD, other_B11U))
        return self.norm3(x_BTD + self.fc2(F.gelu(self.fc1(x_BTD))))


class M3aeObjective(Objective):
    """L_image + weight L_report + weight L_match.

    Terms: ``image``, ``report``, ``report_accuracy``, ``match`` and ``match_accuracy``. Owns the
    layers of co-attention and the heads for words and matching.
    """

    def __init__(self, config: M3aeConfig, model: SimCroP) -> None:
        super().__init__()
        require_parts(model, config.kind, "image_decoder")
        require_maskable(model, config.kind, config)
        self.config = config
        self.masking = ReportMasking(config, model)
        self.window = model.text.window
        width, heads = model.config.vision.width, model.config.vision.heads
        self.image_in = nn.Linear(width, width)
        self.text_in = nn.Linear(model.config.text.width, width)
        self.side_2D = nn.Parameter(torch.zeros(2, width))
        self.image_layers = nn.ModuleList(
            CoAttentionLayer(width, heads) for _ in range(config.depth)
        )
        self.text_layers = nn.ModuleList(
            CoAttentionLayer(width, heads) for _ in range(config.depth)
        )
        self.transform = nn.Linear(width, width)
        self.norm_words = nn.LayerNorm(width, eps=BERT_NORM_EPS)
        self.words = nn.Linear(width, model.text.vocabulary_size)
        self.image_pool = nn.Linear(width, width)
        self.text_pool = nn.Linear(width, width)
        self.belongs = nn.Linear(2 * width, 1)
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.normal_(part.weight, std=0.02)
                nn.init.zeros_(part.bias)
        nn.init.normal_(self.side_2D, std=0.02)

    def trains(self, name: str) -> bool:
        return name.startswith((*VISION_TRUNK, "image_decoder."))

    def forward(self, model: SimCroP, batch: StudyBatch, ranks: Ranks) -> LossTerms:
        alone = len(batch) * ranks.world_size < 2
        if self.training and alone:
            raise SimCroPError(
                "The objective m3ae matches volumes with reports and was given only one study",
                code="batch-too-small",
                remedy="Train with a batch of at least two studies.",
            )
        config = self.config
        mask, seen = see_visible(config, model, batch)
        report = self.masking(batch)
        attend_BL = readable(batch)
        text_BLD = model.text(report.ids_BL, attend_BL)
        image_BTD, middle_BTD, words_BLD = self._attend(seen, text_BLD, attend_BL)
        features = _as_features(seen, middle_BTD)
        terms = {"image": reconstruction_loss(config, model, batch, mask, features, ranks)}
        masked_MD = words_BLD[report.masked_BL]
        logits_MV = self.words(self.norm_words(F.gelu(self.transform(masked_MD))))
        terms |= report_terms(logits_MV, report, batch, ranks)
        matched_B = other_B = self._match_logits(seen, image_BTD, words_BLD)
        if not alone:
            other_BLD, other_attend_BL = self._next_reports(text_BLD, attend_BL, ranks)
            image_BTD, _, words_BLD = self._attend(seen, other_BLD, other_attend_BL)
            other_B = self._match_logits(seen, image_BTD, words_BLD)
        terms |= _match_terms(matched_B, other_B[:0] if alone else other_B, ranks)
        total = (
            terms["image"]
            + config.report_weight * terms["report"]
            + config.match_weight * terms["match"]
        )
        return LossTerms(total, terms)

    def _attend(
        self, seen: VisionFeatures, text_BLD: Tensor, attend_BL: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Co-attention: the image after the last layer and where its decoder reads, the text
        after the last layer. Image tokens are CLS, if there is one, then the visible patches."""
        patches_BKD = seen.patches_BND
        if seen.cls_BD is not None:
            patches_BKD = torch.cat([seen.cls_BD[:, None], patches_BKD], dim=1)
        image_BTD = self.image_in(patches_BKD) + self.side_2D[0]
        words_BLD = self.text_in(text_BLD) + self.side_2D[1]
        attend_B11L = attend_BL[:, None, None]
        middle_BTD = image_BTD
        pairs = zip(self.image_layers, self.text_layers, strict=True)
        for number, (image_layer, text_layer) in enumerate(pairs, start=1):
            image_BTD, words_BLD = (
                image_layer(image_BTD, words_BLD, None, attend_B11L),
                text_layer(words_BLD, image_BTD, attend_B11L, None),
            )
            if number == self.config.image_layer:
                middle_BTD = image_BTD
        return image_BTD, middle_BTD, words_BLD

    def _match_logits(self, seen: VisionFeatures, image_BTD: Tensor, words_BLD: Tensor) -> Tensor:
        """Whether volume and report belong together, ``(B,)``, from both sides' first tokens; the
        mean of the patches stands for the image where the encoder has no CLS token."""
        image_BD = image_BTD[:, 0] if seen.cls_BD is not None else image_BTD.mean(dim=1)
        pooled = [self.image_pool(image_BD).tanh(), self.text_pool(words_BLD[:, 0]).tanh()]
        return self.belongs(torch.cat(pooled, dim=-1))[:, 0]

    def _next_reports(
        self, text_BLD: Tensor, attend_BL: Tensor, ranks: Ranks
    ) -> tuple[Tensor, Tensor]:
        """The report of the next study of the global batch, for every study of this process."""
        if ranks.world_size == 1:
            return text_BLD.roll(-1, dims=0), attend_BL.roll(-1, dims=0)
        # Only the first report of the next process is not at hand; reports differ in length.
        room = self.window - text_BLD.shape[1]
        first_GLD = ranks.gather(F.pad(text_BLD[:1], (0, 0, 0, room)))
        first_GL = ranks.gather(F.pad(attend_BL[:1].long(), (0, room)))
        following = (ranks.rank + 1) % ranks.world_size
        length = max(text_BLD.shape[1], int(first_GL[following].sum()))
        room = length - text_BLD.shape[1]
        other_BLD = F.pad(text_BLD[1:], (0, 0, 0, room))
        other_BL = F.pad(attend_BL[1:], (0, room))
        return (
            torch.cat([other_BLD, first_GLD[following, None, :length]]),
            torch.cat([other_BL, first_GL[following, None, :length].bool()]),
        )


def _as_features(seen: VisionFeatures, image_BTD: Tensor) -> VisionFeatures:
    """Image tokens after co-attention in the shape that the image decoder reads."""
    if seen.cls_BD is None:
        return replace(seen, patches_BND=image_BTD)
    return replace(seen, cls_BD=image_BTD[:, 0], patches_BND=image_BTD[:, 1:])


def _match_terms(matched_B: Tensor, other_B: Tensor, ranks: Ranks) -> dict[str, Tensor]:
    """Binary cross-entropy over pairs that belong together and pairs that do not."""
    with full_precision(matched_B):
        logits = torch.cat([matched_B, other_B]).float()
        belongs = torch.cat([torch.ones_like(matched_B), torch.zeros_like(other_B)]).float()
        total = F.binary_cross_entropy_with_logits(logits, belongs, reduction="sum")
    right = ((logits.detach() > 0) == belongs.bool()).sum().float()
    return {
        "match": ranks.mean(total, len(logits)),
        "match_accuracy": ranks.mean(right, len(logits)),
    }
