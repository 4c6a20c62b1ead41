"""Masked report modelling as every objective with reports does it.

Shapes in names: B studies; L tokens of a report, padded; M masked tokens of the batch; V words of
the vocabulary.
"""

from __future__ import annotations

from torch import Tensor, nn

from simcrop_core.model.simcrop import SimCroP
from simcrop_core.objectives.base import Ranks
from simcrop_core.objectives.config_parts import MaskedReportFields
from simcrop_core.objectives.losses import masked_token_sums
from simcrop_core.objectives.masking import MaskedReport, continuing_tokens, mask_report
from simcrop_core.study_batch import StudyBatch


class ReportMasking(nn.Module):
    """Hides tokens of reports in the way that an objective's settings ask for."""

    continues_V: Tensor | None

    def __init__(self, config: MaskedReportFields, model: SimCroP) -> None:
        super().__init__()
        self.config = config
        self.mask_id = model.text.mask_id
        self.vocabulary_size = model.text.vocabulary_size
        by_word = config.report_mask_unit == "word"
        words = continuing_tokens(model.text).to(model.device) if by_word else None
        self.register_buffer("continues_V", words, persistent=False)

    def forward(self, batch: StudyBatch) -> MaskedReport:
        return mask_report(
            batch.seeds_B,
            batch.tokens_BL,
            batch.special_BL,
            self.config.report_mask_ratio,
            mask_id=self.mask_id,
            vocabulary_size=self.vocabulary_size,
            style=self.config.report_mask_style,
            continues_V=self.continues_V,
        )


def readable(batch: StudyBatch) -> Tensor:
    """``attend_BL``, the first place always among them: attention to nothing at all is NaN on
    some devices, and a study without report must not spoil its batch."""
    attend_BL = batch.attend_BL.bool().clone()
    attend_BL[:, 0] = True
    return attend_BL


def report_terms(
    logits_MV: Tensor, report: MaskedReport, batch: StudyBatch, ranks: Ranks
) -> dict[str, Tensor]:
    """``report``, the cross-entropy of masked tokens (paper, Eq. 6), and ``report_accuracy``, the
    share of them for which the right word scored best."""
    tokens_M = batch.tokens_BL[report.masked_BL]
    total, count = masked_token_sums(logits_MV, tokens_M)
    right = (logits_MV.detach().argmax(dim=-1) == tokens_M).sum().float()
    return {"report": ranks.mean(total, count), "report_accuracy": ranks.mean(right, count)}
