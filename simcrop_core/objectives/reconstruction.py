"""Masked image modelling as every masked objective does it: see some patches, rebuild the rest.

Shapes in names: B studies; H, W, D voxels; N patches; K visible patches; P voxels of a patch; as
the last letter after other letters D is the width of a vector.
"""

from __future__ import annotations

import math

from torch import Tensor

from simcrop_core.model.simcrop import SimCroP
from simcrop_core.model.vision import VisionFeatures, patchify
from simcrop_core.objectives.base import Ranks
from simcrop_core.objectives.config_parts import MaskedImageFields
from simcrop_core.objectives.losses import masked_image_sums
from simcrop_core.objectives.masking import PatchMask, mask_patches
from simcrop_core.study_batch import StudyBatch


def see_visible(
    config: MaskedImageFields, model: SimCroP, batch: StudyBatch
) -> tuple[PatchMask, VisionFeatures]:
    """Hide patches and encode the others alone: f_v = E_v(I_u, E_pos)."""
    patches = math.prod(model.vision.grid_shape)
    mask = mask_patches(batch.seeds_B, patches, config.mask_ratio)
    return mask, model.vision(batch.volume_B1HWD, mask.keep_BK)


def reconstruction_loss(
    config: MaskedImageFields,
    model: SimCroP,
    batch: StudyBatch,
    mask: PatchMask,
    features: VisionFeatures,
    ranks: Ranks,
) -> Tensor:
    """The error of the voxels that the image decoder gives for these features (paper, Eq. 1)."""
    assert model.image_decoder is not None
    pred_BNP = model.image_decoder(features, mask.keep_BK)
    target_BNP = patchify(batch.volume_B1HWD, model.vision.patch_shape)
    return ranks.mean(
        *masked_image_sums(
            pred_BNP,
            target_BNP,
            mask.mask_BN,
            masked_only=config.masked_only,
            normalize_patches=config.normalize_patches,
        )
    )
