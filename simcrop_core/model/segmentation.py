"""UNETR-style segmentation on the vision encoder, from MONAI's blocks.

Importing MONAI takes seconds, so this module is imported only for a model that has a head.

Shapes in names: B batch; C channels (0 is background); H, W, D voxels; h, w, d patches.
"""

from __future__ import annotations

from monai.networks.blocks.dynunet_block import UnetOutBlock, UnetResBlock, get_conv_layer
from monai.networks.blocks.unetr_block import UnetrBasicBlock, UnetrUpBlock
from torch import Tensor, nn

from simcrop_core.model.config import SegmentationConfig
from simcrop_core.model.segmentation_head import SegmentationHead
from simcrop_core.model.vision import Shape3, VisionEncoder, check_region

LEVELS = 4  # doublings from patch to voxel in UNETR


def tapped_blocks(depth: int) -> tuple[int, int, int]:
    """Blocks (from 0) whose output feeds the skip paths: a quarter, half, three quarters down.

    3, 6 and 9 of 12 as in the authors' code; 2, 4 and 6 of 8; all of 3.
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


class TappedHead(SegmentationHead):
    """A head of convolutions on a transformer's tokens at four depths."""

    def __init__(
        self, config: SegmentationConfig, encoder: VisionEncoder, input_shape: Shape3
    ) -> None:
        super().__init__(config, encoder, input_shape)
        self.taps = tapped_blocks(encoder.config.depth)

    def initialise(self) -> None:
        """Fresh weights from torch's random stream, as torch initialises convolutions."""
        for part in self.modules():
            if isinstance(part, nn.Conv3d | nn.ConvTranspose3d | nn.InstanceNorm3d):
                part.reset_parameters()

    def volumes(self, x_B1HWD: Tensor) -> list[Tensor]:
        """The tokens of a region at the tapped depths and at the end, each ``(B, D, h, w, d)``.

        Raises
        ------
        SimCroPError
            The input is not of :attr:`roi` voxels.
        """
        check_region(x_B1HWD, self.roi)
        encoder = self.encoder
        position = "official2axis" if self.config.position == "official2axis" else None
        found = encoder(x_B1HWD, taps=self.taps, position=position, cls_token=self.config.cls_token)
        grid = [n // p for n, p in zip(self.roi, encoder.patch_shape, strict=True)]
        return [
            tokens_BND.transpose(1, 2).unflatten(2, grid).contiguous()
            for tokens_BND in (*found.hidden, encoder.fc_norm(found.patches_BND))
        ]


class SegmentationNet(TappedHead):
    """UNETR: a skip path up from each depth."""

    def __init__(
        self, config: SegmentationConfig, encoder: VisionEncoder, input_shape: Shape3
    ) -> None:
        super().__init__(config, encoder, input_shape)
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

    def forward(self, x_B1HWD: Tensor) -> Tensor:
        """As :meth:`SegmentationHead.forward`."""
        first, second, third, last = self.volumes(x_B1HWD)
        up = self.up_3(last, self.skip_3(third))
        up = self.up_2(up, self.skip_2(second))
        up = self.up_1(up, self.skip_1(first))
        up = self.up_voxels(up, self.skip_voxels(x_B1HWD))
        logits: Tensor = self.out(up)
        return logits


def up_block(channels_in: int, channels_out: int, kernel: Shape3) -> UnetrUpBlock:
    """Brings channels up by a kernel and joins them with those of the finer level."""
    return UnetrUpBlock(
        3, channels_in, channels_out, 3, kernel, norm_name="instance", res_block=True
    )
