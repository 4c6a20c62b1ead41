"""The buffer that turns stored values into Hounsfield units, against one-step arithmetic."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from simcrop_core.io import hounsfield, payload
from simcrop_core.io.guard import Limits
from simcrop_core.io.hounsfield import HounsfieldBuffer

DTYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8"]


@given(
    parts=st.lists(
        st.sampled_from(DTYPES).flatmap(
            lambda d: hnp.arrays(
                d,
                st.integers(0, 30),
                elements=(
                    hnp.from_dtype(np.dtype(d))
                    if d[0] != "f"
                    else st.one_of(
                        st.integers(-40000, 40000).map(float),
                        st.floats(-40000, 40000, width=32),
                    )
                ),
            )
        ),
        min_size=1,
        max_size=5,
    ),
    slope=st.sampled_from([1.0, 2.0, -1.0, 0.5, 1e-3]),
    intercept=st.sampled_from([0.0, -1024.0, 0.25]),
    block=st.integers(1, 20),
)
def test_blocks_of_any_type(
    parts: list[np.ndarray], slope: float, intercept: float, block: int
) -> None:
    exact = np.concatenate([p.astype(np.float64) * slope + intercept for p in parts])
    buffer = HounsfieldBuffer(exact.size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hounsfield, "BLOCK", block)
        for part in parts:
            buffer.put(part, slope, intercept)
    assert buffer.filled == exact.size
    whole = (np.rint(exact) == exact).all() and (abs(exact + 0.5) <= 32768).all()
    assert buffer.flat.dtype == (np.int16 if whole else np.float32)
    np.testing.assert_array_equal(buffer.flat, exact.astype(buffer.flat.dtype))
    if exact.size:
        assert (buffer.low, buffer.high) == (buffer.flat.min(), buffer.flat.max())


def test_more_than_announced_is_an_error() -> None:
    buffer = HounsfieldBuffer(3)
    buffer.put(np.zeros(2, np.int16))
    with pytest.raises(ValueError, match="More voxels"):
        buffer.put(np.zeros(2, np.int16))


def test_memory_order_is_kept() -> None:
    values = np.asfortranarray(np.arange(24, dtype=np.int32).reshape(2, 3, 4))
    buffer = HounsfieldBuffer(24)
    buffer.put(values)
    np.testing.assert_array_equal(buffer.flat.reshape((2, 3, 4), order="F"), values)


@pytest.mark.parametrize(("value", "rounded"), [(0.1, True), (0.5, False), (np.nan, False)])
def test_rounding_to_float32_is_known(value: float, rounded: bool) -> None:
    buffer = HounsfieldBuffer(2)
    buffer.put(np.array([value, 1e3]))
    assert buffer.rounded is rounded


def test_what_is_no_number_becomes_air_and_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hounsfield, "BLOCK", 4)
    values = np.arange(12, dtype=np.float32)
    values[[5, 6, 11]] = np.nan, -np.inf, np.inf
    buffer = HounsfieldBuffer(values.size)
    buffer.put(values)
    assert buffer.nonfinite == 3
    assert not buffer.rounded
    np.testing.assert_array_equal(buffer.flat[[5, 6, 11]], -1024)
    np.testing.assert_array_equal(buffer.flat[[0, 4, 7, 10]], [0, 4, 7, 10])
    assert (buffer.low, buffer.high) == (-1024, 10)


@pytest.mark.parametrize("dtype", ["<i2", ">i2"])
@pytest.mark.parametrize("stretch", [1, 7, 60, 5000, 6000, 10**6])
def test_int16_goes_to_its_place_in_stretches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, stretch: int
) -> None:
    """Whatever the stretches, memory claimed ahead never writes over what was unpacked."""
    monkeypatch.setattr(payload, "_STRETCH", stretch)
    shape = (10, 20, 30) if stretch > 50 else (3, 5, 4)
    values = np.random.default_rng(stretch).integers(-2000, 3000, shape).astype(dtype)
    file = tmp_path / "v.gz"
    file.write_bytes(gzip.compress(values.tobytes(), 1))
    with payload.Payload(file, "gzip") as stream:
        buffer = payload.read_voxels(stream, shape, np.dtype(dtype), Limits())
        assert stream.finish() == 0
    np.testing.assert_array_equal(buffer.flat, values.ravel())
    assert buffer.flat.dtype == np.int16
    assert (buffer.filled, buffer.low, buffer.high) == (values.size, values.min(), values.max())
