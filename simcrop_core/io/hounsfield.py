"""Stored values to Hounsfield units, block by block, in as little memory as they allow."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Voxels converted at a time: small enough for temporaries to stay in the processor's cache.
BLOCK = 1 << 18

_INT16 = np.iinfo(np.int16)


class HounsfieldBuffer:
    """Collects the voxels of one volume in file order.

    int16 for as long as every value is a whole number that int16 holds; from the first that is
    not, float32 (what was collected before is carried over exactly). Memory beyond the result
    is a few blocks.

    Parameters
    ----------
    voxels
        Number of voxels to come.
    """

    def __init__(self, voxels: int) -> None:
        self.flat: NDArray[Any] = np.empty(voxels, np.int16)
        self.filled = 0
        #: Whether a value had to be rounded to float32's seven digits.
        self.rounded = False

    def put(self, stored: NDArray[Any], slope: float = 1.0, intercept: float = 0.0) -> None:
        """Append ``stored * slope + intercept``; any real dtype and shape, in memory order."""
        flat = stored.ravel(order="K")
        for start in range(0, flat.size, BLOCK):
            self._put_block(flat[start : start + BLOCK], slope, intercept)

    def _put_block(self, stored: NDArray[Any], slope: float, intercept: float) -> None:
        end = self.filled + stored.size
        if end > self.flat.size:
            raise ValueError("More voxels than the volume has.")
        values = _scaled(stored, slope, intercept)
        if self.flat.dtype == np.int16:
            if _fits_int16(values):
                self.flat[self.filled : end] = values
                self.filled = end
                return
            wider = np.empty(self.flat.size, np.float32)
            wider[: self.filled] = self.flat[: self.filled]
            self.flat = wider
        with np.errstate(over="ignore", invalid="ignore"):
            target = self.flat[self.filled : end]
            target[...] = values
            if values is stored and values.dtype not in (np.float32, np.float16):
                same = (target == values) | ~np.isfinite(values)
                self.rounded |= not bool(same.all())
        self.filled = end


def _scaled(stored: NDArray[Any], slope: float, intercept: float) -> NDArray[Any]:
    """The block in Hounsfield units, without rounding where whole numbers stay whole."""
    if slope == 1 and intercept == 0:
        return stored
    whole = slope.is_integer() and intercept.is_integer()
    small = max(abs(slope), abs(intercept)) <= 2**14  # the result stays within int32
    if whole and small and stored.dtype.kind in "iu" and stored.dtype.itemsize <= 2:
        return stored.astype(np.int32) * np.int32(slope) + np.int32(intercept)
    with np.errstate(over="ignore", invalid="ignore"):
        return stored.astype(np.float64) * slope + intercept


def _fits_int16(values: NDArray[Any]) -> bool:
    if values.dtype == np.int16 or values.size == 0:
        return True
    if values.dtype.kind == "b":
        return True
    low, high = values.min(), values.max()
    if not (low >= _INT16.min and high <= _INT16.max):  # false for NaN as well
        return False
    return values.dtype.kind in "iu" or bool((np.rint(values) == values).all())
