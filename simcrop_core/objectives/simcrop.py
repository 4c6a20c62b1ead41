"""SimCroP: similarity-driven cross-granularity pre-training.

"SimCroP: Radiograph Representation Learning with Similarity-driven Cross-granularity Pre-training",
MICCAI 2025, section 2. What the paper leaves open, and our choice, is in docs/objectives.md.
"""

from __future__ import annotations

from torch import Tensor

from simcrop_core.model.simcrop import SimCroP
from simcrop_core.objectives.base import LossTerms, Objective, Ranks
from simcrop_core.objectives.config import SimCroPConfig
from simcrop_core.objectives.losses import full_precision, similarity_alignment_sums
from simcrop_core.objectives.reconstruction import reconstruction_loss, see_visible
from simcrop_core.objectives.report_masking import ReportMasking, readable, report_terms
from simcrop_core.objectives.requirements import (
    JOINT_SPACE,
    VISION_TRUNK,
    require_maskable,
    require_parts,
    require_words,
)
from simcrop_core.study_batch import StudyBatch


class SimCroPObjective(Objective):
    """L_MIM + lambda1 L_align + lambda2 L_MLM (paper, Eq. 7), each a switch but the first.

    Terms: ``image``, ``align`` with ``align_left_out`` (share of studies with fewer than two
    sentences, which have no InfoNCE), ``report`` with ``report_accuracy``.
    """

    def __init__(self, config: SimCroPConfig, model: SimCroP) -> None:
        super().__init__()
        self.config = config
        require_parts(model, config.kind, "image_decoder")
        require_maskable(model, config.kind, config)
        self.masking: ReportMasking | None = None
        if config.models_reports:
            require_parts(model, config.kind, "fusion", "text_decoder")
            require_words(model, config.kind)
            self.masking = ReportMasking(config, model)
        fusion = model.config.fusion
        # Printed literally, Eq. 5 has the report's tokens as queries alone.
        self._reads_text = config.word_level or (
            config.instance_level and fusion is not None and fusion.kind == "residual"
        )

    def trains(self, name: str) -> bool:
        if name.startswith((*VISION_TRUNK, "image_decoder.")):
            return True
        if name.startswith(JOINT_SPACE):
            return self.config.similarity_alignment
        if name.startswith("fusion.attention."):
            return self.config.word_level
        if name.startswith("fusion.text_in."):
            return self._reads_text
        return self.config.models_reports and name.startswith(("fusion.", "text_decoder."))

    def forward(self, model: SimCroP, batch: StudyBatch, ranks: Ranks) -> LossTerms:
        config = self.config
        mask, seen = see_visible(config, model, batch)
        terms = {"image": reconstruction_loss(config, model, batch, mask, seen, ranks)}
        total = terms["image"]
        if config.similarity_alignment:
            terms |= self._alignment(model, batch, seen.patches_BND, ranks)
            total = total + config.align_weight * terms["align"]
        if config.models_reports:
            terms |= self._report(model, batch, seen.patches_BND, ranks)
            total = total + config.report_weight * terms["report"]
        return LossTerms(total, terms)

    def _alignment(
        self, model: SimCroP, batch: StudyBatch, patches_BKD: Tensor, ranks: Ranks
    ) -> dict[str, Tensor]:
        """Eq. 2-4 in the model's joint space, by the similarity that the model answers with."""
        with full_precision(patches_BKD):
            total, reports = similarity_alignment_sums(
                model.project_patches(patches_BKD.float()),
                model.project_sentences(batch.sentences_BSD.float()),
                batch.sentence_mask_BS,
                top_k=self.config.top_k,
                temperature=self.config.temperature,
                normalize=model.config.similarity == "cosine",
            )
        return {
            "align": ranks.mean(total, reports),
            "align_left_out": ranks.mean(len(batch) - reports, len(batch)),
        }

    def _report(
        self, model: SimCroP, batch: StudyBatch, patches_BKD: Tensor, ranks: Ranks
    ) -> dict[str, Tensor]:
        """Eq. 5 and 6: fuse what is left of the report with the volume, predict the rest."""
        assert self.masking is not None
        assert model.fusion is not None
        assert model.text_decoder is not None
        report = self.masking(batch)
        attend_BL = readable(batch)
        text_BLD = model.text(report.ids_BL, attend_BL)  # f_t = E_t(T_m, T_u), frozen
        fused_BLD = model.fusion(
            text_BLD,
            patches_BKD,
            instance_level=self.config.instance_level,
            word_level=self.config.word_level,
        )
        logits_MV = model.text_decoder(fused_BLD, attend_BL, report.masked_BL)
        return report_terms(logits_MV, report, batch, ranks)
