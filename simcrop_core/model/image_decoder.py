"""The decoder of masked image modelling.

Shapes in names as in ``vision.py``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from simcrop_core.model.config import ImageDecoderConfig
from simcrop_core.model.embedding import LAYER_NORM_EPS, Shape3
from simcrop_core.model.vision import (
    Block,
    VisionFeatures,
    initialise_transformer,
    token_positions,
)


class ImageDecoder(nn.Module):
    """Visible patch features and mask tokens -> the voxels of every patch (paper, Eq. 1).

    Parameters
    ----------
    config
        Depth, width, heads, position embedding.
    encoder_width
        Width of the features it reads.
    grid_shape, patch_shape
        As the encoder's.
    cls_token
        Whether the encoder has a CLS token, which then goes through the decoder too.
    """

    pos_embed: Tensor

    def __init__(
        self,
        config: ImageDecoderConfig,
        encoder_width: int,
        grid_shape: Shape3,
        patch_shape: Shape3,
        cls_token: bool,
    ) -> None:
        super().__init__()
        self.config = config
        self.grid_shape = grid_shape
        self.has_cls = cls_token
        width = config.width
        self.embed = nn.Linear(encoder_width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        tokens = math.prod(grid_shape) + cls_token
        self.register_buffer("pos_embed", torch.zeros(1, tokens, width))
        self.blocks = nn.ModuleList(
            Block(width, config.heads, 4 * width) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.pred = nn.Linear(width, math.prod(patch_shape))

    def initialise(self) -> None:
        """Fresh weights from torch's random stream; positions by their formula."""
        initialise_transformer(self)
        nn.init.normal_(self.mask_token, std=0.02)
        if self.config.position != "loaded":
            self.pos_embed.copy_(
                token_positions(
                    self.config.position, self.grid_shape, self.config.width, self.has_cls
                )
            )

    def forward(self, features: VisionFeatures, keep_BK: Tensor) -> Tensor:
        """Voxels of all patches, ``(B, N, P)``, those of :func:`patchify`.

        ``features`` are the encoder's for the visible patches ``keep_BK``, in that order.
        """
        visible_BKD = self.embed(features.patches_BND)
        B, _, D = visible_BKD.shape
        N = math.prod(self.grid_shape)
        tokens = self.mask_token.to(visible_BKD.dtype).expand(B, N, D)
        tokens = tokens.scatter(1, keep_BK[..., None].expand(-1, -1, D), visible_BKD)
        if self.has_cls:
            assert features.cls_BD is not None
            tokens = torch.cat([self.embed(features.cls_BD)[:, None], tokens], dim=1)
        tokens = tokens + self.pos_embed
        for block in self.blocks:
            tokens = block(tokens)
        return self.pred(self.norm(tokens[:, int(self.has_cls) :]))
