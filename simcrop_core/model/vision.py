"""The vision encoder: a plain ViT over the patches of a CT.

Shapes in names: B batch; H, W, D voxels along the three axes (as ``_B1HWD``); N patches;
K patches that are kept (visible); T tokens, that is patches and CLS; P voxels of a patch; C cells
of a patch; E, or D as the last letter, the width of a vector (as in ``_BND``).

Patches are numbered in C order over the grid (H, W, D): the depth axis runs fastest. Names of the
parameters are those of the authors' checkpoint, so that it loads as it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simcrop_core.errors import SimCroPError
from simcrop_core.model.config import (
    FormulaPosition,
    PositionKind,
    VisionConfig,
)
from simcrop_core.model.embedding import LAYER_NORM_EPS as LAYER_NORM_EPS
from simcrop_core.model.embedding import CellHead, ConvStem
from simcrop_core.model.embedding import PatchEmbedding as PatchEmbedding
from simcrop_core.model.embedding import Shape3 as Shape3
from simcrop_core.model.embedding import gather_tokens as gather_tokens
from simcrop_core.model.embedding import patchify as patchify
from simcrop_core.model.pyramid import ConvPyramid, HalfCells

# -- positions ----------------------------------------------------------------------------------


def position_embedding(kind: FormulaPosition, grid_shape: Shape3, width: int) -> Tensor:
    """Fixed position embedding of every patch of a grid, ``(N, width)`` float32.

    ``sincos3d`` gives each axis its own third of the vector: sines then cosines of its index at
    ``width // 6`` wavelengths, ``1 / 10000 ** (i / (width // 6))``; columns left over are zero.
    ``official2axis`` is the authors' formula: even columns are sines of the first axis' index,
    odd columns cosines of the second's, at ``exp(-i ln(10000) / width)``; the depth axis is not
    encoded.
    """
    index_3N = torch.stack(
        torch.meshgrid(
            *[torch.arange(n, dtype=torch.float64, device="cpu") for n in grid_shape], indexing="ij"
        )
    ).flatten(1)
    table_ND = torch.zeros(index_3N.shape[1], width, dtype=torch.float64, device="cpu")
    if kind == "official2axis":
        column = torch.arange(0, width, 2, dtype=torch.float64, device="cpu")
        rate = torch.exp(column * (-math.log(10000.0) / width))
        table_ND[:, 0::2] = torch.sin(index_3N[0][:, None] * rate)
        table_ND[:, 1::2] = torch.cos(index_3N[1][:, None] * rate)
    else:
        waves = width // 6
        rate = 10000.0 ** (-torch.arange(waves, dtype=torch.float64, device="cpu") / waves)
        for axis in range(3):
            phase = index_3N[axis][:, None] * rate
            start = 2 * waves * axis
            table_ND[:, start : start + waves] = torch.sin(phase)
            table_ND[:, start + waves : start + 2 * waves] = torch.cos(phase)
    return table_ND.float()


def token_positions(
    kind: FormulaPosition, grid_shape: Shape3, width: int, cls_token: bool
) -> Tensor:
    """Position embedding of all tokens, ``(1, T, width)``; the row of the CLS token is zero."""
    table_ND = position_embedding(kind, grid_shape, width)
    if cls_token:
        table_ND = torch.cat([table_ND.new_zeros(1, width), table_ND])
    return table_ND[None]


def resized_positions(
    positions_1TD: Tensor, old_grid: Shape3, new_grid: Shape3, cls_token: bool
) -> Tensor:
    """A position embedding stretched trilinearly from one grid to another; CLS row kept."""
    special = positions_1TD[:, :1] if cls_token else positions_1TD[:, :0]
    table_1ND = positions_1TD[:, special.shape[1] :]
    volume = table_1ND.transpose(1, 2).reshape(1, -1, *old_grid)
    volume = F.interpolate(volume, size=new_grid, mode="trilinear", align_corners=False)
    return torch.cat([special, volume.flatten(2).transpose(1, 2)], dim=1).contiguous()


# -- blocks -------------------------------------------------------------------------------------


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        B, T, D = x_BTD.shape
        qkv = self.qkv(x_BTD).view(B, T, 3, self.heads, D // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).reshape(B, T, D))


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between."""

    def __init__(self, width: int, hidden_width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden_width)
        self.fc2 = nn.Linear(hidden_width, width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x_BTD)))


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, heads: int, hidden_width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(width, hidden_width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_BTD = x_BTD + self.attn(self.norm1(x_BTD))
        return x_BTD + self.mlp(self.norm2(x_BTD))


def initialise_transformer(module: nn.Module) -> None:
    """Fill linear layers and norms as MAE does: Xavier-uniform weights, zero biases."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            nn.init.zeros_(part.bias)
        elif isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)


# -- encoder ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class VisionFeatures:
    """What the encoder gives.

    Attributes
    ----------
    patches_BND
        Patch tokens after the last block, before ``fc_norm``, CLS left out; those of the kept
        patches, in the order given, where some were masked.
    pooled_BD
        The mean of these, through ``fc_norm``.
    cls_BD
        The CLS token after the last block, or None where the encoder has none.
    hidden
        Patch tokens after the blocks asked for, in that order.
    cells_BNCE
        Vectors of the cells of these patches, cells in C order in their patch; None where the
        encoder has no finer level.
    fine_BhwdC, half_BhwdC
        Features of a pyramid's fine cells (a quarter of a patch along each axis) and of its half
        cells, these with what their patches learnt; None for other stems.
    """

    patches_BND: Tensor
    pooled_BD: Tensor
    cls_BD: Tensor | None
    hidden: tuple[Tensor, ...] = ()
    cells_BNCE: Tensor | None = None
    fine_BhwdC: Tensor | None = None
    half_BhwdC: Tensor | None = None

    @property
    def evidence_BNE(self) -> Tensor:
        """All that a sentence is compared with, one row a patch: its token, then its cells."""
        if self.cells_BNCE is None:
            return self.patches_BND
        cells = self.cells_BNCE.flatten(2).to(self.patches_BND.dtype)
        return torch.cat([self.patches_BND, cells], dim=-1)


def check_region(x_B1HWD: Tensor, roi: Shape3) -> None:
    """Refuse what is no batch of regions of that shape."""
    if tuple(x_B1HWD.shape[1:]) != (1, *roi):
        raise SimCroPError(
            f"The segmentation head takes regions of {roi} voxels, not {tuple(x_B1HWD.shape[2:])}",
            code="input-shape",
            remedy="Cut the prepared scan into regions of that shape.",
        )


class VisionEncoder(nn.Module):
    """CT -> patch features (paper, section 2; the authors' published encoder to the letter).

    Parameters
    ----------
    config
        Depth, width, heads, position embedding.
    grid_shape
        Patches along the three axes.
    patch_shape
        Voxels of a patch.
    """

    pos_embed: Tensor

    def __init__(self, config: VisionConfig, grid_shape: Shape3, patch_shape: Shape3) -> None:
        super().__init__()
        self.config = config
        self.grid_shape = grid_shape
        self.patch_shape = patch_shape
        width = config.width
        self.patch_embed: PatchEmbedding | ConvStem | ConvPyramid
        self.cell_head: CellHead | HalfCells | None = None
        if config.stem == "pyramid":
            self.patch_embed = ConvPyramid(
                patch_shape, config.stem_width, config.stem_blocks, width
            )
            self.cell_head = HalfCells(2 * config.stem_width, width, config.cell_width)
        elif config.stem == "conv":
            stem = ConvStem(patch_shape, config.cells or (1, 1, 1), config.stem_width, width)
            self.patch_embed = stem
            if config.cells is not None:
                self.cell_head = CellHead(
                    stem.channels, width, math.prod(config.cells), config.cell_width
                )
        else:
            self.patch_embed = PatchEmbedding(patch_shape, width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width)) if config.cls_token else None
        tokens = math.prod(grid_shape) + config.cls_token
        self.register_buffer("pos_embed", torch.zeros(1, tokens, width))
        self.blocks = nn.ModuleList(
            Block(width, config.heads, config.hidden_width) for _ in range(config.depth)
        )
        self.fc_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)

    def initialise(self) -> None:
        """Fresh weights from torch's random stream; positions by their formula."""
        initialise_transformer(self)
        self.patch_embed.initialise()
        if isinstance(self.cell_head, HalfCells):
            self.cell_head.initialise()
        if self.cls_token is not None:
            nn.init.normal_(self.cls_token, std=0.02)
        if self.config.position != "loaded":
            self.pos_embed.copy_(
                token_positions(
                    self.config.position,
                    self.grid_shape,
                    self.config.width,
                    self.cls_token is not None,
                )
            )

    def forward(
        self,
        x_B1HWD: Tensor,
        keep_BK: Tensor | None = None,
        *,
        taps: Sequence[int] = (),
        position: FormulaPosition | None = None,
        cls_token: bool = True,
    ) -> VisionFeatures:
        """Encode prepared volumes.

        Parameters
        ----------
        x_B1HWD
            Model input, values in [-1, 1].
        keep_BK
            Indices of the visible patches for masked modelling; only these are computed.
        taps
            Blocks (from 0) whose output is wanted in ``hidden``.
        position
            Compute positions by this formula in place of the encoder's own.
        cls_token
            False leaves the CLS token out, as the authors' segmentation does.

        Raises
        ------
        SimCroPError
            The input is not one channel of whole patches, or its grid differs from the
            encoder's and the position embedding is one that was loaded.
        """
        grid_shape = self._grid_of(x_B1HWD)
        positions_1TD = self._positions(grid_shape, position)
        cells_BKCE: Tensor | None = None
        fine: Tensor | None = None
        half: Tensor | None = None
        if isinstance(self.patch_embed, ConvPyramid):
            fine, half, tokens = self.patch_embed(x_B1HWD, keep_BK)
        elif isinstance(self.patch_embed, ConvStem):
            cells_BKCE = self.patch_embed.cells(x_B1HWD, keep_BK)
            tokens = self.patch_embed.tokens(cells_BKCE)
        else:
            tokens = self.patch_embed(x_B1HWD, keep_BK)
        own_positions = positions_1TD[:, positions_1TD.shape[1] - math.prod(grid_shape) :]
        if keep_BK is not None:
            own_positions = gather_tokens(own_positions.expand(len(tokens), -1, -1), keep_BK)
        tokens = tokens + own_positions
        special = 0
        if self.cls_token is not None and cls_token:
            special = 1
            first = (self.cls_token + positions_1TD[:, :1]).expand(len(tokens), -1, -1)
            tokens = torch.cat([first.to(tokens.dtype), tokens], dim=1)
        hidden: dict[int, Tensor] = {}
        for number, block in enumerate(self.blocks):
            tokens = block(tokens)
            if number in taps:
                hidden[number] = tokens[:, special:]
        patches_BND = tokens[:, special:]
        if isinstance(self.cell_head, HalfCells):
            assert half is not None
            half, cells_BKCE = self.cell_head(half, patches_BND, keep_BK, grid_shape)
        elif self.cell_head is not None and cells_BKCE is not None:
            cells_BKCE = self.cell_head(cells_BKCE, patches_BND)
        else:
            cells_BKCE = None
        return VisionFeatures(
            patches_BND=patches_BND,
            pooled_BD=self.fc_norm(patches_BND.mean(dim=1)),
            cls_BD=tokens[:, 0] if special else None,
            hidden=tuple(hidden[number] for number in taps),
            cells_BNCE=cells_BKCE,
            fine_BhwdC=fine,
            half_BhwdC=half,
        )

    def _grid_of(self, x_B1HWD: Tensor) -> Shape3:
        if x_B1HWD.ndim != 5 or x_B1HWD.shape[1] != 1:
            raise SimCroPError(
                f"The encoder takes volumes of shape (batch, 1, H, W, D), not "
                f"{tuple(x_B1HWD.shape)}",
                code="input-shape",
                remedy="Prepare the scan with the model's own input settings.",
            )
        size = tuple(x_B1HWD.shape[2:])
        if any(n < p or n % p for n, p in zip(size, self.patch_shape, strict=True)):
            raise SimCroPError(
                f"An input of {size} voxels is not made of patches of {self.patch_shape}",
                code="input-shape",
                remedy="Prepare the scan with the model's own input settings.",
            )
        h, w, d = (n // p for n, p in zip(size, self.patch_shape, strict=True))
        return h, w, d

    def _positions(self, grid_shape: Shape3, position: FormulaPosition | None) -> Tensor:
        """Positions ``(1, T, D)`` for a grid: the stored ones wherever they apply."""
        if position is None and grid_shape == self.grid_shape:
            return self.pos_embed
        kind: PositionKind = position or self.config.position
        has_cls = self.cls_token is not None
        if position is None and (kind == "loaded" or not self.follows_formula(kind)):
            raise SimCroPError(
                f"The model's position embedding was loaded for a grid of {self.grid_shape} "
                f"patches and the input has {grid_shape}",
                code="grid-mismatch",
                remedy="Give an input of the model's own shape, or resize the position embedding.",
            )
        assert kind != "loaded"
        table = token_positions(kind, grid_shape, self.config.width, has_cls)
        return table.to(self.pos_embed)

    def follows_formula(self, kind: FormulaPosition) -> bool:
        """Whether the stored positions are those of the formula (a loaded table always wins)."""
        table = token_positions(
            kind, self.grid_shape, self.config.width, self.cls_token is not None
        )
        return bool((table.to(self.pos_embed) - self.pos_embed).abs().max() < 1e-3)
