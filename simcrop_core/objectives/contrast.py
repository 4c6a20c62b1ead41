"""Contrast of whole volumes with whole reports, across all processes.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021.

Shapes in names: B studies on this process; G studies on all processes; D the width of a vector.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simcrop_core.errors import SimCroPError
from simcrop_core.model.simcrop import SimCroP
from simcrop_core.objectives.base import LossTerms, Objective, Ranks
from simcrop_core.objectives.config import CtClipConfig, M3dClipConfig
from simcrop_core.objectives.losses import full_precision
from simcrop_core.objectives.requirements import (
    JOINT_SPACE,
    VISION_TRUNK,
    require_text_projection,
)
from simcrop_core.study_batch import StudyBatch

MAX_SCALE = 100.0  # CLIP's: the temperature never falls below 0.01


def contrast_sums(
    image_BD: Tensor, report_BD: Tensor, scale: Tensor, ranks: Ranks
) -> tuple[Tensor, Tensor]:
    """Total over this process's studies of InfoNCE by cosine, the mean of both directions, and
    how often the right report scored best; the others are the studies of all processes."""
    with full_precision(image_BD):
        image_BD = F.normalize(image_BD.float(), dim=-1)
        report_BD = F.normalize(report_BD.float(), dim=-1)
        images_GD, reports_GD = ranks.gather(image_BD), ranks.gather(report_BD)
        by_image_BG = scale * image_BD @ reports_GD.T
        by_report_BG = scale * report_BD @ images_GD.T
        B = len(image_BD)
        own_B = torch.arange(B, device=image_BD.device) + ranks.rank * B
        total = (
            F.cross_entropy(by_image_BG, own_B, reduction="sum")
            + F.cross_entropy(by_report_BG, own_B, reduction="sum")
        ) / 2
        return total, (by_image_BG.detach().argmax(dim=1) == own_B).sum().float()


class ReportContrast(Objective):
    """InfoNCE between volumes and reports, with a learned temperature; see its two kinds.

    Terms: ``contrast``, ``contrast_accuracy`` (share of volumes whose own report scored best) and
    ``temperature``.
    """

    def __init__(self, config: CtClipConfig | M3dClipConfig, model: SimCroP) -> None:
        super().__init__()
        require_text_projection(model, config.kind)
        self.config = config
        self.log_scale = nn.Parameter(torch.tensor(-math.log(config.temperature)))

    def trains(self, name: str) -> bool:
        return name.startswith((*VISION_TRUNK, *JOINT_SPACE))

    def volume_vector(self, model: SimCroP, batch: StudyBatch) -> Tensor:
        """One vector a volume, ``(B, D)``, before projection."""
        raise NotImplementedError

    def forward(self, model: SimCroP, batch: StudyBatch, ranks: Ranks) -> LossTerms:
        B = len(batch)
        if self.training and B * ranks.world_size < 2:
            raise SimCroPError(
                f"The objective {self.config.kind} tells studies apart and was given only one",
                code="batch-too-small",
                remedy="Train with a batch of at least two studies.",
            )
        image_BD = self.volume_vector(model, batch)
        with full_precision(image_BD):
            image_BD = model.project_patches(image_BD.float())
            report_BD = model.project_sentences(batch.report_BD.float())
            scale = self.log_scale.clamp(max=math.log(MAX_SCALE)).exp()
        total, right = contrast_sums(image_BD, report_BD, scale, ranks)
        contrast = ranks.mean(total, B)
        return LossTerms(
            contrast,
            {
                "contrast": contrast,
                "contrast_accuracy": ranks.mean(right, B),
                "temperature": 1 / scale.detach(),
            },
        )
