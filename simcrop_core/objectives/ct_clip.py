"""CT-CLIP: the pooled volume against the vector of its report, across the batch.

Hamamci et al., "Developing Generalist Foundation Models from a Multimodal Dataset for 3D Computed
Tomography", 2024. Theirs: a CT-ViT whose tokens are averaged, CXR-BERT's CLS vector, linear
projections into a joint space of 512 dimensions, the mean of both directions, a learned
temperature. Ours: the encoder shared by all objectives, the mean of its patches, and a text
encoder that stays frozen. The projections are the model's own, so that what was learned can be
asked of single patches and sentences too.
"""

from __future__ import annotations

from torch import Tensor

from simcrop_core.model.simcrop import SimCroP
from simcrop_core.objectives.contrast import ReportContrast
from simcrop_core.study_batch import StudyBatch


class CtClipObjective(ReportContrast):
    """Contrast of the mean of all patches with the report."""

    def volume_vector(self, model: SimCroP, batch: StudyBatch) -> Tensor:
        return model.vision(batch.volume_B1HWD).patches_BND.mean(dim=1)
