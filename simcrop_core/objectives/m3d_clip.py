"""M3D-CLIP: the volume's CLS token against the vector of its report, across all processes.

Bai et al., "M3D: Advancing 3D Medical Image Analysis with Multi-Modal Large Language Models",
2024. Theirs: a 3D ViT and a BERT that are both trained, CLS tokens, linear projections of 768
dimensions, features gathered from all processes, a learned scale. Ours: the shared encoder, a
text encoder that stays frozen and is read as the model reads sentences, and the scale as the
exponential of what is learned, as in CLIP. The projections are the model's own.
"""

from __future__ import annotations

from torch import Tensor

from simcrop_core.model.simcrop import SimCroP
from simcrop_core.objectives.config import M3dClipConfig
from simcrop_core.objectives.contrast import ReportContrast
from simcrop_core.objectives.requirements import require_cls_token
from simcrop_core.study_batch import StudyBatch


class M3dClipObjective(ReportContrast):
    """Contrast of the CLS token with the report."""

    def __init__(self, config: M3dClipConfig, model: SimCroP) -> None:
        require_cls_token(model, config.kind)
        super().__init__(config, model)

    def volume_vector(self, model: SimCroP, batch: StudyBatch) -> Tensor:
        cls_BD = model.vision(batch.volume_B1HWD).cls_BD
        assert cls_BD is not None
        return cls_BD
