"""The authors' published encoder, written anew in plain torch from its description.

Names are timm's. Attention is spelled out; nothing of ``simcrop_core`` is used.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

Shape3 = tuple[int, int, int]
State = dict[str, Tensor]


def random_state(
    depth: int,
    width: int,
    patch: Shape3,
    rows: int,
    *,
    seed: int = 0,
    cls_token: bool = True,
    spread_of: float = 0.05,
) -> State:
    """A state dictionary with the released names, filled at random with sizes as after training."""
    g = torch.Generator().manual_seed(seed)

    def spread(*shape: int, scale: float = spread_of) -> Tensor:
        return torch.randn(*shape, generator=g) * scale

    state = {
        "pos_embed": spread(1, rows, width, scale=0.5),
        "patch_embed.proj.weight": spread(width, 1, *patch),
        "patch_embed.proj.bias": spread(width),
        "fc_norm.weight": 1 + spread(width, scale=0.3),
        "fc_norm.bias": spread(width, scale=0.3),
    }
    if cls_token:
        state["cls_token"] = spread(1, 1, width, scale=0.5)
    for i in range(depth):
        b = f"blocks.{i}."
        for norm in ("norm1", "norm2"):
            state[f"{b}{norm}.weight"] = 1 + spread(width, scale=0.3)
            state[f"{b}{norm}.bias"] = spread(width, scale=0.3)
        for name, out, into in (
            ("attn.qkv", 3 * width, width),
            ("attn.proj", width, width),
            ("mlp.fc1", 4 * width, width),
            ("mlp.fc2", width, 4 * width),
        ):
            state[f"{b}{name}.weight"] = spread(out, into)
            state[f"{b}{name}.bias"] = spread(out)
    return state


def encode(
    state: State,
    x_B1HWD: Tensor,
    patch: Shape3,
    heads: int,
    keep: list[int] | None = None,
    attend_to: list[int] | None = None,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Patch tokens after the last block, their mean through ``fc_norm``, tokens after each block.

    ``keep`` keeps only these patches; ``attend_to`` keeps all but lets nobody look at the others.
    """
    B, _, H, W, D = x_B1HWD.shape
    p, q, r = patch
    h, w, d = H // p, W // q, D // r
    blocks = x_B1HWD.reshape(B, 1, h, p, w, q, d, r)
    voxels = torch.einsum("nchpwqdr->nhwdpqrc", blocks).reshape(B, h * w * d, p * q * r)
    weight = state["patch_embed.proj.weight"]
    tokens = voxels @ weight.reshape(weight.shape[0], -1).T + state["patch_embed.proj.bias"]
    special = int("cls_token" in state)
    tokens = tokens + state["pos_embed"][:, special:]
    if keep is not None:
        tokens = tokens[:, keep]
    if special:
        cls = (state["cls_token"] + state["pos_embed"][:, :1]).expand(B, -1, -1)
        tokens = torch.cat([cls, tokens], dim=1)
    blocked = torch.zeros(tokens.shape[1])
    if attend_to is not None:
        blocked[special:] = -math.inf
        blocked[[special + i for i in attend_to]] = 0
    after = []
    for i in range(1 + max(int(n.split(".")[1]) for n in state if n.startswith("blocks."))):
        tokens = _block(state, f"blocks.{i}.", tokens, heads, blocked)
        after.append(tokens[:, special:])
    patches = tokens[:, special:]
    pooled = _norm(patches.mean(dim=1), state["fc_norm.weight"], state["fc_norm.bias"])
    return patches, pooled, after


def _norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    mean = x.mean(dim=-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(dim=-1, keepdim=True)
    return (x - mean) / torch.sqrt(variance + 1e-6) * weight + bias


def _block(state: State, b: str, x: Tensor, heads: int, blocked: Tensor) -> Tensor:
    B, T, D = x.shape
    y = _norm(x, state[b + "norm1.weight"], state[b + "norm1.bias"])
    qkv = y @ state[b + "attn.qkv.weight"].T + state[b + "attn.qkv.bias"]
    q, k, v = (
        part.reshape(B, T, heads, D // heads).transpose(1, 2) for part in qkv.split(D, dim=-1)
    )
    scores = q @ k.transpose(-1, -2) / math.sqrt(D // heads) + blocked
    y = (scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(B, T, D)
    x = x + y @ state[b + "attn.proj.weight"].T + state[b + "attn.proj.bias"]
    y = _norm(x, state[b + "norm2.weight"], state[b + "norm2.bias"])
    y = y @ state[b + "mlp.fc1.weight"].T + state[b + "mlp.fc1.bias"]
    y = 0.5 * y * (1 + torch.erf(y / math.sqrt(2)))
    return x + y @ state[b + "mlp.fc2.weight"].T + state[b + "mlp.fc2.bias"]


def two_axis_positions(grid: Shape3, width: int) -> np.ndarray:
    """The authors' formula, patch by patch: depth fastest, no row for a CLS token."""
    rate = np.exp(np.arange(0, width, 2) * -(np.log(10000.0) / width))
    rows = []
    for h in range(grid[0]):
        for w in range(grid[1]):
            for _ in range(grid[2]):
                row = np.zeros(width)
                row[0::2] = np.sin(h * rate)
                row[1::2] = np.cos(w * rate)
                rows.append(row)
    return np.array(rows)
