"""A convolutional pyramid in place of the patch embedding, and its way back to finer levels.

The stem reads the whole scan at three levels: fine cells (a quarter of a patch along each axis),
half cells (half a patch), patches. The transformer then mixes the patches over the whole scan, and
what it learnt is handed down to the half cells, and by the segmentation head to the fine ones (the
top-down path of feature pyramids, Lin et al., CVPR 2017).

Tensors are kept with channels last, which is how processors and GPUs convolve fastest.

Shapes in names: B batch; h, w, d cells along the three axes, as ``_BhwdC`` with C channels; N
patches; K patches that are kept (visible); P voxels of a patch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simcrop_core.model.embedding import LAYER_NORM_EPS, Shape3, gather_tokens, patchify

#: Cells of a patch along each axis, at the fine and at the half level.
FINE, HALF = 4, 2
#: Middle and half width of the windows through which voxels are seen, in units of the model's
#: input. With -1000 to 1000 HU: all of it, lung (-1350 to 150), soft tissue (-160 to 240).
_WINDOWS = ((0.0, 1.0), (-0.6, 0.75), (0.04, 0.2))


def windowed(voxels: Tensor) -> Tensor:
    """Voxels through each window, clipped to [-1, 1]; the last axis holds one after the other."""
    return torch.cat([((voxels - m) / half).clamp(-1, 1) for m, half in _WINDOWS], dim=-1)


def seen_voxels(cell: Shape3) -> int:
    """Numbers that are read of a cell of that many voxels."""
    return len(_WINDOWS) * math.prod(cell)


class ResidualBlock(nn.Module):
    """LayerNorm, convolution, GELU, convolution, and the way past them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=LAYER_NORM_EPS)
        self.first = nn.Conv3d(channels, channels, 3, padding=1)
        self.second = nn.Conv3d(channels, channels, 3, padding=1)

    def initialise(self) -> None:
        """Fresh weights from torch's random stream; the block starts as the identity."""
        self.norm.reset_parameters()
        nn.init.kaiming_normal_(self.first.weight, nonlinearity="relu")
        nn.init.zeros_(self.first.bias)  # type: ignore[arg-type]
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, x_BhwdC: Tensor) -> Tensor:
        """Of the same shape."""
        mixed = self.norm(x_BhwdC).permute(0, 4, 1, 2, 3)  # channels first, in the same memory
        mixed = self.second(F.gelu(self.first(mixed)))
        return x_BhwdC + mixed.permute(0, 2, 3, 4, 1)


class ConvPyramid(nn.Module):
    """Voxels -> features of the fine cells, the half cells and the patches.

    Unlike the other stems it looks beyond a patch. Where patches are masked, their voxels are not
    read: their fine cells start at zero.

    Parameters
    ----------
    patch_shape
        Voxels of a patch; multiples of 4.
    stem_width
        Channels of the fine cells; doubled at each coarser level.
    blocks
        Residual blocks at the three levels, fine ones first.
    width
        Length of a token.
    """

    def __init__(self, patch_shape: Shape3, stem_width: int, blocks: Shape3, width: int) -> None:
        super().__init__()
        self.patch_shape = patch_shape
        self.fine_shape = _divided(patch_shape, FINE)
        fine, half, coarse = stem_width, 2 * stem_width, 4 * stem_width
        self.embed = nn.Linear(seen_voxels(self.fine_shape), fine)
        self.fine_blocks = nn.Sequential(*[ResidualBlock(fine) for _ in range(blocks[0])])
        self.to_half = nn.Linear(8 * fine, half)
        self.half_blocks = nn.Sequential(*[ResidualBlock(half) for _ in range(blocks[1])])
        self.to_coarse = nn.Linear(8 * half, coarse)
        self.coarse_blocks = nn.Sequential(*[ResidualBlock(coarse) for _ in range(blocks[2])])
        self.norm = nn.LayerNorm(coarse, eps=LAYER_NORM_EPS)
        self.out = nn.Linear(coarse, width)

    def initialise(self) -> None:
        """Fresh weights from torch's random stream."""
        for layer in (self.embed, self.to_half, self.to_coarse, self.out):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.norm.reset_parameters()
        for part in self.modules():
            if isinstance(part, ResidualBlock):
                part.initialise()

    def forward(
        self, x_B1HWD: Tensor, keep_BK: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Features of the fine and the half cells, and the tokens ``(B, N or K, width)``."""
        grid = _cells(x_B1HWD, self.patch_shape)
        fine = self.embed(windowed(patchify(x_B1HWD, self.fine_shape)))
        fine = fine.unflatten(1, _cells(x_B1HWD, self.fine_shape))
        if keep_BK is not None:
            fine = fine * _kept_cells(keep_BK, grid, FINE)[..., None].to(fine.dtype)
        fine = self.fine_blocks(fine)
        half = self.half_blocks(self.to_half(merged(fine)))
        coarse = self.coarse_blocks(self.to_coarse(merged(half)))
        tokens = self.out(self.norm(coarse)).flatten(1, 3)
        return fine, half, tokens if keep_BK is None else gather_tokens(tokens, keep_BK)


class HalfCells(nn.Module):
    """The finer level: each half cell with what its patch has learnt of the whole scan.

    Parameters
    ----------
    channels
        Of the half cells in the stem.
    context_width
        Length of the patches' tokens.
    width
        Length of a cell's vector.
    """

    def __init__(self, channels: int, context_width: int, width: int) -> None:
        super().__init__()
        self.context_norm = nn.LayerNorm(context_width, eps=LAYER_NORM_EPS)
        self.context = nn.Linear(context_width, HALF**3 * channels)
        self.block = ResidualBlock(channels)
        self.norm = nn.LayerNorm(channels, eps=LAYER_NORM_EPS)
        self.out = nn.Linear(channels, width)

    def initialise(self) -> None:
        """Fresh weights from torch's random stream."""
        for layer in (self.context, self.out):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.context_norm.reset_parameters()
        self.norm.reset_parameters()
        self.block.initialise()

    def forward(
        self, half_BhwdC: Tensor, tokens_BKD: Tensor, keep_BK: Tensor | None, grid: Shape3
    ) -> tuple[Tensor, Tensor]:
        """All half cells with their context, and the vectors ``(B, N or K, 8, width)``.

        The cells of a patch are in C order. Patches that were masked hand nothing down.
        """
        context = self.context(self.context_norm(tokens_BKD))
        if keep_BK is not None:
            whole = context.new_zeros(len(context), math.prod(grid), context.shape[-1])
            context = whole.scatter(
                1, keep_BK[..., None].expand(-1, -1, context.shape[-1]), context
            )
        half = self.block(half_BhwdC + parted(context.unflatten(1, grid)))
        cells = self.out(self.norm(half))
        cells_BNCE = _blocks(cells).flatten(4, 6).flatten(1, 3)
        if keep_BK is not None:
            index = keep_BK[..., None, None].expand(-1, -1, *cells_BNCE.shape[2:])
            cells_BNCE = cells_BNCE.gather(1, index)
        return half, cells_BNCE


def _divided(shape: Shape3, parts: int) -> Shape3:
    a, b, c = (n // parts for n in shape)
    return a, b, c


def _cells(x_B1HWD: Tensor, cell: Shape3) -> Shape3:
    """How many cells of that many voxels an input has along each axis."""
    h, w, d = (n // c for n, c in zip(x_B1HWD.shape[2:], cell, strict=True))
    return h, w, d


def _kept_cells(keep_BK: Tensor, grid: Shape3, parts: int) -> Tensor:
    """True for cells of visible patches, ``(B, h, w, d)`` with ``parts`` cells a patch and axis."""
    patches = torch.zeros(len(keep_BK), math.prod(grid), dtype=torch.bool, device=keep_BK.device)
    cells = patches.scatter(1, keep_BK, True).unflatten(1, grid)
    for axis in (1, 2, 3):
        cells = cells.repeat_interleave(parts, dim=axis)
    return cells


def _blocks(x_BhwdC: Tensor) -> Tensor:
    """Cells in blocks of 2 x 2 x 2: ``(B, h/2, w/2, d/2, 2, 2, 2, C)``."""
    h, w, d = (n // 2 for n in x_BhwdC.shape[1:4])
    blocks = x_BhwdC.unflatten(3, (d, 2)).unflatten(2, (w, 2)).unflatten(1, (h, 2))
    return blocks.permute(0, 1, 3, 5, 2, 4, 6, 7)


def merged(x_BhwdC: Tensor) -> Tensor:
    """Blocks of 2 x 2 x 2 cells become one with all their channels, cells in C order."""
    return _blocks(x_BhwdC).flatten(4)


def parted(x_BhwdC: Tensor) -> Tensor:
    """The inverse of :func:`merged`."""
    h, w, d = x_BhwdC.shape[1:4]
    blocks = x_BhwdC.unflatten(4, (2, 2, 2, -1)).permute(0, 1, 4, 2, 5, 3, 6, 7)
    return blocks.reshape(len(x_BhwdC), 2 * h, 2 * w, 2 * d, -1)
