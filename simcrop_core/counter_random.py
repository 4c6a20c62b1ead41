"""Random numbers as a function of a seed and a position: the same on every device.

A sample's random numbers depend on nothing but its own seed and the name of the stream, so they
are the same in any batch, on any process, and after any restart.

Source of the mixing function: SplitMix64 (Steele, Lea and Flood, 2014).
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15
_MIX1 = 0xBF58476D1CE4E5B9
_MIX2 = 0x94D049BB133111EB


def _signed(value: int) -> int:
    """The int64 with the same bits as an unsigned 64-bit number."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical shift of int64, whose own shift would copy the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift_right(x, 30)) * _signed(_MIX1)
    x = (x ^ _shift_right(x, 27)) * _signed(_MIX2)
    return x ^ _shift_right(x, 31)


def stream_number(stream: str) -> int:
    """The int64 that stands for a stream's name."""
    return _signed(int.from_bytes(hashlib.sha256(stream.encode()).digest()[:8], "little"))


def bits(seeds_B: Tensor, count: int, stream: str) -> Tensor:
    """``(B, count)`` int64, all 64 bits random."""
    start_B1 = _mix(seeds_B.long() ^ stream_number(stream))[:, None]
    steps_N = torch.arange(1, count + 1, device=seeds_B.device) * _signed(_GOLDEN)
    return _mix(start_B1 + steps_N)


def uniform(seeds_B: Tensor, count: int, stream: str) -> Tensor:
    """``(B, count)`` float32 in [0, 1)."""
    return _shift_right(bits(seeds_B, count, stream), 40).float() * 2.0**-24


def normal(seeds_B: Tensor, count: int, stream: str) -> Tensor:
    """``(B, count)`` float32, standard normal (Box-Muller)."""
    half = (count + 1) // 2
    radius = torch.sqrt(-2 * torch.log1p(-uniform(seeds_B, half, stream + "/radius")))
    angle = 2 * torch.pi * uniform(seeds_B, half, stream + "/angle")
    both = torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=1)
    return both[:, :count]


def seed_of(*parts: int | str) -> int:
    """A non-negative seed below 2**63 made of numbers and names, such as (seed, epoch, index)."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
