"""From voxels to tokens: patches, the two ways of embedding them, and a level finer than patches.

Nothing here looks beyond a patch's own voxels, so patches that are masked need not be computed.

Shapes in names: B batch; H, W, D voxels along the three axes (as ``_B1HWD``); N patches; K patches
that are kept (visible); P voxels of a patch; C cells of a patch; E, or D as the last letter, the
width of a vector.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Shape3 = tuple[int, int, int]

LAYER_NORM_EPS = 1e-6


def patchify(x_B1HWD: Tensor, patch_shape: Shape3) -> Tensor:
    """The voxels of every patch, ``(B, N, P)``: patches and voxels both in C order.

    This is also the target of masked image modelling (paper, Eq. 1).
    """
    B, _, *size = x_B1HWD.shape
    p, q, r = patch_shape
    h, w, d = (n // s for n, s in zip(size, patch_shape, strict=True))
    blocks = x_B1HWD.reshape(B, h, p, w, q, d, r).permute(0, 1, 3, 5, 2, 4, 6)
    return blocks.reshape(B, h * w * d, p * q * r)


def gather_tokens(tokens_BND: Tensor, index_BK: Tensor) -> Tensor:
    """The tokens with the given indices, ``(B, K, D)``."""
    return tokens_BND.gather(1, index_BK[..., None].expand(-1, -1, tokens_BND.shape[-1]))


def _kept(x_B1HWD: Tensor, patch_shape: Shape3, keep_BK: Tensor | None) -> Tensor:
    """Voxels of the patches that are kept, ``(B, K, P)``; of all where none are masked."""
    patches_BNP = patchify(x_B1HWD, patch_shape)
    return patches_BNP if keep_BK is None else gather_tokens(patches_BNP, keep_BK)


class PatchEmbedding(nn.Module):
    """A strided 3D convolution, computed as one matrix product over the patches that are kept."""

    def __init__(self, patch_shape: Shape3, width: int) -> None:
        super().__init__()
        self.patch_shape = patch_shape
        # Holds weight (D, 1, p, q, r) and bias under the checkpoint's names. Its forward is not
        # used: kernel and stride are equal, so the product below is the same sum, and masked
        # patches need not be computed at all.
        self.proj = nn.Conv3d(1, width, kernel_size=patch_shape, stride=patch_shape)

    def initialise(self) -> None:
        """Fresh weights from torch's random stream."""
        nn.init.xavier_uniform_(self.proj.weight.view(len(self.proj.weight), -1))
        nn.init.zeros_(self.proj.bias)  # type: ignore[arg-type]

    def forward(self, x_B1HWD: Tensor, keep_BK: Tensor | None = None) -> Tensor:
        """``(B, 1, H, W, D)`` -> ``(B, N or K, width)``."""
        patches_BKP = _kept(x_B1HWD, self.patch_shape, keep_BK)
        return F.linear(patches_BKP, self.proj.weight.flatten(1), self.proj.bias)


class ConvStem(nn.Module):
    """A small convolutional network inside each patch, in place of one linear layer.

    Strided convolutions bring the patch down to its cells (to a single one where the encoder has
    no finer level), with more channels at each step; a linear layer over all cells gives the
    token. Each patch is padded with zeros and sees nothing of its neighbours, as in the stem for
    masked image modelling of "Three things everyone should know about vision transformers"
    (Touvron et al., 2022), which this follows in purpose, not in its layers.

    Parameters
    ----------
    patch_shape
        Voxels of a patch.
    cells
        Cells of a patch along each axis; each divides the patch.
    stem_width
        Channels of the first convolution; doubled at each further one.
    width
        Length of a token.
    """

    def __init__(self, patch_shape: Shape3, cells: Shape3, stem_width: int, width: int) -> None:
        super().__init__()
        self.patch_shape = patch_shape
        layers: list[nn.Module] = []
        channels, wider, size = 1, stem_width, patch_shape
        while size != cells:
            steps = [_step(s, c) for s, c in zip(size, cells, strict=True)]
            kernel, stride, padding = (_shape3(step[i] for step in steps) for i in range(3))
            layers += [nn.Conv3d(channels, wider, kernel, stride, padding), nn.GELU()]
            size = _shape3(s // n for s, n in zip(size, stride, strict=True))
            channels, wider = wider, 2 * wider
        self.layers = nn.Sequential(*layers)
        self.channels = channels
        self.out = nn.Linear(channels * math.prod(cells), width)

    def initialise(self) -> None:
        """Fresh weights from torch's random stream."""
        for layer in self.layers:
            if isinstance(layer, nn.Conv3d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.xavier_uniform_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x_B1HWD: Tensor, keep_BK: Tensor | None = None) -> Tensor:
        """``(B, 1, H, W, D)`` -> ``(B, N or K, width)``."""
        return self.tokens(self.cells(x_B1HWD, keep_BK))

    def cells(self, x_B1HWD: Tensor, keep_BK: Tensor | None = None) -> Tensor:
        """Features of the cells, in C order in their patch: ``(B, N or K, C, channels)``."""
        patches_BKP = _kept(x_B1HWD, self.patch_shape, keep_BK)
        volumes = patches_BKP.reshape(-1, 1, *self.patch_shape)
        features = self.layers(volumes).flatten(2).transpose(1, 2)
        return features.unflatten(0, patches_BKP.shape[:2])

    def tokens(self, cells_BKCE: Tensor) -> Tensor:
        """The patches' tokens from their cells, ``(B, K, width)``."""
        return self.out(cells_BKCE.flatten(2))


def _shape3(numbers: Iterable[int]) -> Shape3:
    i, j, k = numbers
    return i, j, k


def _step(size: int, cells: int) -> tuple[int, int, int]:
    """Kernel, stride and padding along one axis, one step nearer to the cells.

    An axis is divided by its smallest prime: halves by kernels of 3 that overlap, others by
    disjoint blocks. One that is short enough already is convolved as it is.
    """
    ratio = size // cells
    stride = next((n for n in range(2, ratio + 1) if ratio % n == 0), 1)
    kernel = max(3, stride) if size > 1 else 1
    return kernel, stride, kernel // 2 if stride < 3 else 0


class CellHead(nn.Module):
    """The finer level: what a cell looks like, joined with what its patch has learnt of the scan.

    The stem's features of a cell know nothing beyond their patch; the patch's token after the
    last block does, and gives each of its cells a part of its own.

    Parameters
    ----------
    stem_width
        Channels of the stem's cells.
    context_width
        Length of the patches' tokens.
    cells
        Cells of a patch.
    width
        Length of a cell's vector.
    """

    def __init__(self, stem_width: int, context_width: int, cells: int, width: int) -> None:
        super().__init__()
        self.cells = cells
        self.own = nn.Linear(stem_width, width)
        self.context_norm = nn.LayerNorm(context_width, eps=LAYER_NORM_EPS)
        self.context = nn.Linear(context_width, cells * width)
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.fc1 = nn.Linear(width, 2 * width)
        self.fc2 = nn.Linear(2 * width, width)

    def forward(self, cells_BKCE: Tensor, patches_BKD: Tensor) -> Tensor:
        """Cells of the stem and patch tokens -> cells' vectors, ``(B, K, C, width)``."""
        context = self.context(self.context_norm(patches_BKD))
        x = self.own(cells_BKCE) + context.unflatten(-1, (self.cells, -1))
        return x + self.fc2(F.gelu(self.fc1(self.norm(x))))


def pool_cells(patches_SN: Tensor, cells_SNC: Tensor, sharpness: float) -> Tensor:
    """A patch's similarity from its own and its cells': ``(S, N)``.

    Each cell's similarity is averaged with its patch's; over the cells, the log-mean-exp with the
    given sharpness b is taken::

        s_p = 1/b log mean_c exp(b (a_p + a_pc) / 2)

    Where all cells are like their patch this is the patch's own similarity. One cell that stands
    out lifts its patch, by at most its excess less ``log(C) / b``: a small lesion counts although
    it fills little of the patch.
    """
    # The patch's own part is the same in all terms and goes before the sum.
    pooled_SN = torch.logsumexp(sharpness / 2 * cells_SNC, dim=-1) - math.log(cells_SNC.shape[-1])
    return patches_SN / 2 + pooled_SN / sharpness
