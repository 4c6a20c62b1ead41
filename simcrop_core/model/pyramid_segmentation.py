"""Segmentation from the fine cells of a pyramid, each cut into its voxels.

Shapes in names: B batch; M fine cells, P voxels of one; C channels, or classes (0 is background);
h, w, d fine cells along the three axes, as ``_BhwdC``; H, W, D voxels.
"""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F

from simcrop_core.model.config import SegmentationConfig
from simcrop_core.model.embedding import LAYER_NORM_EPS, Shape3, patchify
from simcrop_core.model.pyramid import (
    ConvPyramid,
    ResidualBlock,
    parted,
    seen_voxels,
    windowed,
)
from simcrop_core.model.segmentation_head import SegmentationHead
from simcrop_core.model.vision import VisionEncoder, VisionFeatures, check_region


class PyramidSegmentation(SegmentationHead):
    """Features of a pyramid -> a label for every voxel.

    What half cells have learnt is handed down to their fine cells, each of which gives its voxels a
    few channels each (sub-pixel convolution, Shi et al., CVPR 2016). With these and with its own
    value, a voxel finds its class by two layers that all voxels share. No cell needs another
    here, so training may look at any choice of them.
    """

    def __init__(
        self, config: SegmentationConfig, encoder: VisionEncoder, input_shape: Shape3
    ) -> None:
        super().__init__(config, encoder, input_shape)
        assert isinstance(encoder.patch_embed, ConvPyramid)
        self.cell_shape = encoder.patch_embed.fine_shape
        channels, width = encoder.config.stem_width, config.feature_width
        self.classes = len(config.labels) + 1
        self.context = nn.Linear(2 * channels, 8 * channels)
        self.block = ResidualBlock(channels)
        self.norm = nn.LayerNorm(channels, eps=LAYER_NORM_EPS)
        self.cut = nn.Linear(channels, math.prod(self.cell_shape) * width)
        self.own = nn.Linear(seen_voxels((1, 1, 1)), width)
        self.out = nn.Linear(width, self.classes)

    def initialise(self) -> None:
        """As :meth:`SegmentationHead.initialise`."""
        for layer in (self.context, self.cut, self.own, self.out):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.norm.reset_parameters()
        self.block.initialise()

    def fine(self, features: VisionFeatures) -> Tensor:
        """The fine cells with their context, ``(B, h, w, d, C)``."""
        assert features.fine_BhwdC is not None
        assert features.half_BhwdC is not None
        fine = features.fine_BhwdC + parted(self.context(features.half_BhwdC))
        return self.norm(self.block(fine))

    def logits(self, fine_MC: Tensor, voxels_MP: Tensor) -> Tensor:
        """Logits of the voxels of any fine cells, ``(..., M, P, classes)``."""
        given = self.cut(fine_MC).unflatten(-1, (voxels_MP.shape[-1], -1))
        return self.out(F.gelu(given + self.own(windowed(voxels_MP[..., None]))))

    def forward(self, x_B1HWD: Tensor) -> Tensor:
        """As :meth:`SegmentationHead.forward`."""
        check_region(x_B1HWD, self.roi)
        fine = self.fine(self.encoder(x_B1HWD))
        voxels = patchify(x_B1HWD, self.cell_shape)
        logits = self.logits(fine.flatten(1, 3), voxels)
        B, h, w, d = fine.shape[:4]
        p, q, r = self.cell_shape
        cells = logits.view(B, h, w, d, p, q, r, self.classes)
        return cells.permute(0, 7, 1, 4, 2, 5, 3, 6).reshape(B, self.classes, *self.roi)
