"""Random numbers by seed and position: known values, spread, independence."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from simcrop_core.counter_random import bits, normal, seed_of, stream_number, uniform

MASK = (1 << 64) - 1


def mix(x: int) -> int:
    """SplitMix64's finaliser in Python's unbounded integers."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


@settings(max_examples=50, deadline=None)
@given(st.integers(-(2**63), 2**63 - 1), st.integers(1, 5), st.text(max_size=9))
def test_bits_are_splitmix64_of_seed_and_stream(seed: int, count: int, stream: str) -> None:
    name = int.from_bytes(hashlib.sha256(stream.encode()).digest()[:8], "little")
    start = mix((seed & MASK) ^ name)
    expected = [mix((start + i * 0x9E3779B97F4A7C15) & MASK) for i in range(1, count + 1)]
    got = bits(torch.tensor([seed]), count, stream)[0]
    assert [int(x) & MASK for x in got] == expected
    assert [float(x) for x in uniform(torch.tensor([seed]), count, stream)[0]] == [
        (x >> 40) * 2.0**-24 for x in expected
    ]


def test_the_published_sequence_of_splitmix64() -> None:
    """Seed 1234567 of the reference implementation begins with these numbers."""
    state, got = 1234567, []
    for _ in range(2):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        got.append(mix(state))
    assert got == [6457827717110365317, 3203168211198807973]


def test_numbers_do_not_depend_on_the_batch_or_on_how_many_are_drawn() -> None:
    seeds = torch.tensor([5, -9, 2**62, 0])
    for draw in (bits, uniform):
        whole = draw(seeds, 9, "a")
        assert torch.equal(whole[[2, 0]], draw(seeds[[2, 0]], 9, "a"))
        assert torch.equal(whole[:, :4], draw(seeds, 4, "a"))
        assert not torch.equal(whole, draw(seeds, 9, "b"))
    assert torch.equal(normal(seeds, 8, "a")[1:2], normal(seeds[1:2], 8, "a"))


def test_uniform_and_normal_are_spread_as_they_should_be() -> None:
    seeds = torch.arange(200)  # neighbours, as a careless caller would give
    u = uniform(seeds, 1000, "u").double()
    assert u.min() >= 0
    assert u.max() < 1
    counts = torch.histc(u.flatten(), 20, 0, 1)
    expected = u.numel() / 20
    assert float(((counts - expected) ** 2 / expected).sum()) < 60  # chi2, 19 dof: p about 1e-5
    n = normal(seeds, 1001, "n").double().flatten()
    assert n.shape == (200 * 1001,)
    assert n.isfinite().all()
    four_sigma = 4 / math.sqrt(n.numel())
    assert abs(n.mean()) < four_sigma
    assert abs(n.var() - 1) < math.sqrt(2) * four_sigma
    assert abs((n**3).mean()) < math.sqrt(15) * four_sigma
    assert abs((n**4).mean() - 3) < math.sqrt(96) * four_sigma


def test_seeds_streams_and_places_are_uncorrelated() -> None:
    a = uniform(torch.arange(400), 400, "a").numpy()
    b = uniform(torch.arange(400), 400, "b").numpy()
    for x, y in ((a, b), (a[1:], a[:-1]), (a[:, 1:], a[:, :-1]), (a, a.T)):
        x, y = x.ravel(), y.ravel()
        keep = x != y  # the diagonal of a against its transpose
        assert abs(np.corrcoef(x[keep], y[keep])[0, 1]) < 4.5 / math.sqrt(keep.sum())


def test_seeds_are_made_of_parts_and_fit_an_int64() -> None:
    made = {seed_of(0, epoch, index) for epoch in range(20) for index in range(50)}
    assert len(made) == 1000
    assert all(0 <= seed < 2**63 for seed in made)
    assert seed_of(1, 23) != seed_of(12, 3)
    assert torch.tensor(max(made)).dtype == torch.int64
    assert -(2**63) <= stream_number("masked patches") < 2**63
