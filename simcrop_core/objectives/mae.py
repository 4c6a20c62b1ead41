"""MAE: remove most patches, encode the rest, reconstruct what was removed.

He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022. Theirs: masks of 75 %, a
light decoder, the mean squared error of removed patches (best on normalised patches, a switch
here). Ours: the model's three-dimensional encoder and decoder, the same as for SimCroP.
"""

from __future__ import annotations

from simcrop_core.model.simcrop import SimCroP
from simcrop_core.objectives.base import LossTerms, Objective, Ranks
from simcrop_core.objectives.config import MaeConfig
from simcrop_core.objectives.reconstruction import reconstruction_loss, see_visible
from simcrop_core.objectives.requirements import VISION_TRUNK, require_maskable, require_parts
from simcrop_core.study_batch import StudyBatch


class MaeObjective(Objective):
    """Masked image modelling alone; reports are not read."""

    def __init__(self, config: MaeConfig, model: SimCroP) -> None:
        super().__init__()
        require_parts(model, config.kind, "image_decoder")
        require_maskable(model, config.kind, config)
        self.config = config

    def trains(self, name: str) -> bool:
        return name.startswith((*VISION_TRUNK, "image_decoder."))

    def forward(self, model: SimCroP, batch: StudyBatch, ranks: Ranks) -> LossTerms:
        mask, seen = see_visible(self.config, model, batch)
        image = reconstruction_loss(self.config, model, batch, mask, seen, ranks)
        return LossTerms(image, {"image": image})
