"""The buffer that turns stored values into Hounsfield units, against one-step arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from simcrop_core.io import hounsfield
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
