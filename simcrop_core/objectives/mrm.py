"""MRM: masked record modelling, of the image and of its report.

Zhou et al., "Advancing Radiograph Representation Learning with Masked Record Modeling", ICLR 2023.
Theirs: the visible patches alone are encoded (75 % are masked); their mean is added to the
embedding of every report token (half are masked), from which a BERT of six layers predicts the
masked ones; the image decoder restores patches at twice the resolution of the input. Ours: the
same in three dimensions with the model's own decoders, at the resolution of the input, and
``[MASK]`` for every hidden token. The frozen text encoder is not read.
"""

from __future__ import annotations

from torch import nn

from simcrop_core.model.simcrop import SimCroP
from simcrop_core.objectives.base import LossTerms, Objective, Ranks
from simcrop_core.objectives.config import MrmConfig
from simcrop_core.objectives.reconstruction import reconstruction_loss, see_visible
from simcrop_core.objectives.report_masking import ReportMasking, readable, report_terms
from simcrop_core.objectives.requirements import (
    VISION_TRUNK,
    require_maskable,
    require_parts,
    require_words,
)
from simcrop_core.study_batch import StudyBatch


class MrmObjective(Objective):
    """L_image + weight L_report. Terms: ``image``, ``report`` and ``report_accuracy``.

    Owns the embedding of words and the projection of the pooled image.
    """

    def __init__(self, config: MrmConfig, model: SimCroP) -> None:
        super().__init__()
        require_parts(model, config.kind, "image_decoder", "text_decoder")
        require_maskable(model, config.kind, config)
        require_words(model, config.kind)
        assert model.config.text_decoder is not None
        width = model.config.text_decoder.width
        self.config = config
        self.masking = ReportMasking(config, model)
        self.words = nn.Embedding(model.text.vocabulary_size, width)
        self.image_in = nn.Linear(model.config.vision.width, width)
        nn.init.normal_(self.words.weight, std=0.02)
        nn.init.xavier_uniform_(self.image_in.weight)
        nn.init.zeros_(self.image_in.bias)

    def trains(self, name: str) -> bool:
        trained = (*VISION_TRUNK, "vision.fc_norm.", "image_decoder.", "text_decoder.")
        return name.startswith(trained)

    def forward(self, model: SimCroP, batch: StudyBatch, ranks: Ranks) -> LossTerms:
        assert model.text_decoder is not None
        mask, seen = see_visible(self.config, model, batch)
        image = reconstruction_loss(self.config, model, batch, mask, seen, ranks)
        report = self.masking(batch)
        fused_BLD = self.words(report.ids_BL) + self.image_in(seen.pooled_BD)[:, None]
        logits_MV = model.text_decoder(fused_BLD, readable(batch), report.masked_BL)
        terms = {"image": image, **report_terms(logits_MV, report, batch, ranks)}
        return LossTerms(image + self.config.report_weight * terms["report"], terms)
