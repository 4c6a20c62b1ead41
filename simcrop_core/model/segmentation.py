"""UNETR-style segmentation on the vision encoder, from MONAI's blocks.

Importing MONAI takes seconds, so this module is imported only for a model that has a head.

Shapes in names: B batch; C channels (0 is background); H, W, D voxels; h, w, d patches.
"""

from __future__ import annotations

import math

from monai.networks.blocks.dynunet_block import UnetOutBlock, UnetResBlock, get_conv_layer
from monai.networks.blocks.unetr_block import UnetrBasicBlock, UnetrUpBlock
from torch import Tensor, nn

from simcrop_core.model.config import SegmentationConfig
from simcrop_core.model.vision import Shape3, VisionEncoder, check_region

LEVELS = 4  # doublings from patch to voxel in UNETR


def tapped_blocks(depth: int) -> tuple[int, int, int]:
    """Blocks (from 0) whose output feeds the skip paths: a quarter, half, three quarters down.

    3, 6 and 9 of 12 as in the authors' code; 2, 4 and 6 of 8.
    """
    return depth // 4, depth // 2, 3 * depth // 4


def upsampling_kernels(patch_shape: Shape3) -> list[Shape3]:
    """Four kernels, coarse to fine, whose product along each axis is the patch's size.

    A patch of 16 x 16 x 8 gives 2 x 2 x 2 three times, then 2 x 2 x 1.
    """
    axes = []
    for size in patch_shape:
        kernels = [1] * LEVELS
        for prime in sorted(_prime_factors(size), reverse=True):
            kernels[kernels.index(min(kernels))] *= prime
        axes.append(sorted(kernels, reverse=True))
    first, second, third = axes
    return list(zip(first, second, third, strict=True))


def _prime_factors(number: int) -> list[int]:
    factors, divisor = [], 2
    while number > 1:
        while number % divisor == 0:
            factors.append(divisor)
            number //= divisor
        divisor += 1
    return factors


def _upsample(channels_in: int, channels_out: int, kernel: Shape3) -> nn.Module:
    layer: nn.Module = get_conv_layer(
        3,
        channels_in,
        channels_out,
        kernel_size=kernel,
        stride=kernel,
        conv_only=True,
        is_transposed=True,
    )
    return layer


def skip_path(width: int, channels: int, kernels: list[Shape3]) -> nn.Sequential:
    """Patch features brought up by the kernels: first a projection, then residual blocks."""
    path = [_upsample(width, channels, kernels[0])]
    for kernel in kernels[1:]:
        path.append(_upsample(channels, channels, kernel))
        path.append(UnetResBlock(3, channels, channels, 3, 1, norm_name="instance"))
    return nn.Sequential(*path)


class SegmentationNet(nn.Module):
    """Encoder features at four depths -> a label for every voxel.

    Parameters
    ----------
    config
        Labels, widths, region, and how the encoder is used.
    encoder
        The model's own vision encoder; used, not owned, so that it is stored once.
    input_shape
        The model's input in voxels: the region where the configuration names none.
    """

    def __init__(
        self, config: SegmentationConfig, encoder: VisionEncoder, input_shape: Shape3
    ) -> None:
        super().__init__()
        self.config = config
        self.roi: Shape3 = config.roi or input_shape
        self._encoder = (encoder,)  # a tuple, so that it is not registered a second time
        self.taps = tapped_blocks(encoder.config.depth)
        width, f = encoder.config.width, config.feature_width
        kernels = upsampling_kernels(encoder.patch_shape)
        self.skip_voxels = UnetrBasicBlock(3, 1, f, 3, 1, norm_name="instance", res_block=True)
        self.skip_1 = skip_path(width, 2 * f, kernels[:3])
        self.skip_2 = skip_path(width, 4 * f, kernels[:2])
        self.skip_3 = skip_path(width, 8 * f, kernels[:1])
        self.up_3 = up_block(width, 8 * f, kernels[0])
        self.up_2 = up_block(8 * f, 4 * f, kernels[1])
        self.up_1 = up_block(4 * f, 2 * f, kernels[2])
        self.up_voxels = up_block(2 * f, f, kernels[3])
        self.out = UnetOutBlock(3, f, len(config.labels) + 1)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of channels 1, 2, ...; channel 0 is background."""
        return self.config.labels

    def initialise(self) -> None:
        """Fresh weights from torch's random stream, as torch initialises convolutions."""
        for part in self.modules():
            if isinstance(part, nn.Conv3d | nn.ConvTranspose3d | nn.InstanceNorm3d):
                part.reset_parameters()

    def forward(self, x_B1HWD: Tensor) -> Tensor:
        """Logits ``(B, labels + 1, H, W, D)`` of a prepared region of :attr:`roi` voxels.

        Raises
        ------
        SimCroPError
            The input is not of that shape.
        """
        check_region(x_B1HWD, self.roi)
        encoder = self._encoder[0]
        position = "official2axis" if self.config.position == "official2axis" else None
        features = encoder(
            x_B1HWD, taps=self.taps, position=position, cls_token=self.config.cls_token
        )
        first, second, third = (self._volume(tokens) for tokens in features.hidden)
        last = self._volume(encoder.fc_norm(features.patches_BND))
        up = self.up_3(last, self.skip_3(third))
        up = self.up_2(up, self.skip_2(second))
        up = self.up_1(up, self.skip_1(first))
        up = self.up_voxels(up, self.skip_voxels(x_B1HWD))
        logits: Tensor = self.out(up)
        return logits

    def _volume(self, tokens_BND: Tensor) -> Tensor:
        return feature_volume(tokens_BND, self.roi, self._encoder[0].patch_shape)


def feature_volume(tokens_BND: Tensor, roi: Shape3, patch_shape: Shape3) -> Tensor:
    """Patch tokens of a region as a volume of channels, ``(B, D, h, w, d)``."""
    grid = [n // p for n, p in zip(roi, patch_shape, strict=True)]
    assert tokens_BND.shape[1] == math.prod(grid)
    return tokens_BND.transpose(1, 2).unflatten(2, grid).contiguous()


def up_block(channels_in: int, channels_out: int, kernel: Shape3) -> UnetrUpBlock:
    """Brings channels up by a kernel and joins them with those of the finer level."""
    return UnetrUpBlock(
        3, channels_in, channels_out, 3, kernel, norm_name="instance", res_block=True
    )
