"""A residual U-Net on the scan's voxels that takes the vision encoder's features in.

Its own path of convolutions is nnU-Net's (Isensee et al. 2024, residual encoder): what UNETR lacks
is detail below the size of a patch, which convolutions at full and half resolution give. Each level
is joined with the encoder's features of the same resolution, the coarsest with all of them.

Importing MONAI takes seconds, so this module is imported only for a model that has such a head.

Shapes in names: B batch; C channels (0 is background); H, W, D voxels.
"""

from __future__ import annotations

import torch
from monai.networks.blocks.dynunet_block import UnetOutBlock, UnetResBlock
from torch import Tensor, nn

from simcrop_core.model.config import SegmentationConfig
from simcrop_core.model.segmentation import (
    LEVELS,
    TappedHead,
    skip_path,
    up_block,
    upsampling_kernels,
)
from simcrop_core.model.vision import Shape3, VisionEncoder

#: More channels than this at coarse levels cost much and bring little (nnU-Net's bound).
MOST_CHANNELS = 320
#: Coarser outputs that are trained too (deep supervision).
SUPERVISED = 2


class ResidualUNet(TappedHead):
    """Voxels and encoder features at four depths -> a label for every voxel."""

    def __init__(
        self, config: SegmentationConfig, encoder: VisionEncoder, input_shape: Shape3
    ) -> None:
        super().__init__(config, encoder, input_shape)
        width = encoder.config.width
        kernels = upsampling_kernels(encoder.patch_shape)  # coarse to fine
        c = [min(config.feature_width * 2**level, MOST_CHANNELS) for level in range(LEVELS + 1)]
        self.voxels = _block(1, c[0])
        self.down = nn.ModuleList(
            nn.Sequential(
                nn.Conv3d(c[level - 1], c[level], kernel, stride=kernel),
                _block(c[level], c[level]),
                _block(c[level], c[level]),
            )
            for level, kernel in enumerate(reversed(kernels), start=1)
        )
        # Features of the earliest tap go up the farthest, as in UNETR.
        self.features = nn.ModuleList(
            skip_path(width, c[level], kernels[: LEVELS - level]) for level in range(1, LEVELS)
        )
        self.join = nn.ModuleList(_block(2 * c[level], c[level]) for level in range(1, LEVELS))
        self.patches = nn.Conv3d((len(self.taps) + 1) * width, c[LEVELS], 1)
        self.bottom = _block(2 * c[LEVELS], c[LEVELS])
        self.up = nn.ModuleList(
            up_block(c[level + 1], c[level], kernels[LEVELS - 1 - level]) for level in range(LEVELS)
        )
        classes = len(config.labels) + 1
        self.outs = nn.ModuleList(
            UnetOutBlock(3, c[level], classes) for level in range(SUPERVISED + 1)
        )

    def forward(self, x_B1HWD: Tensor) -> Tensor:
        """As :meth:`SegmentationHead.forward`."""
        logits: Tensor = self.outs[0](self._levels(x_B1HWD)[0])
        return logits

    def scales(self, x_B1HWD: Tensor) -> list[Tensor]:
        """Logits as :meth:`forward`, then those of the next coarser levels, on their voxels."""
        levels = self._levels(x_B1HWD)
        return [out(level) for out, level in zip(self.outs, levels, strict=False)]

    def _levels(self, x_B1HWD: Tensor) -> list[Tensor]:
        """Channels of each level, fine to coarse."""
        volumes = self.volumes(x_B1HWD)
        levels = [self.voxels(x_B1HWD)]
        for level, down in enumerate(self.down, start=1):
            levels.append(down(levels[-1]))
            if level < LEVELS:
                features = self.features[level - 1](volumes[level - 1])
                levels[-1] = self.join[level - 1](torch.cat([levels[-1], features], dim=1))
        patches = self.patches(torch.cat(volumes, dim=1))
        levels[LEVELS] = self.bottom(torch.cat([levels[LEVELS], patches], dim=1))
        for level in reversed(range(LEVELS)):
            levels[level] = self.up[level](levels[level + 1], levels[level])
        return levels


def _block(channels_in: int, channels_out: int) -> UnetResBlock:
    return UnetResBlock(3, channels_in, channels_out, 3, 1, norm_name="instance")
