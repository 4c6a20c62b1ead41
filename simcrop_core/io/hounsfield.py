"""Stored values to Hounsfield units, block by block, in as little memory as they allow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from simcrop_core.geometry import Grid
from simcrop_core.volume import Note

#: Voxels converted at a time: small enough for temporaries to stay in the processor's cache.
BLOCK = 1 << 18
#: What stands in for NaN and infinity: air.
FILL_HU = -1024

_INT16 = np.iinfo(np.int16)
_PAGE = 4096


class HounsfieldBuffer:
    """Collects the voxels of one volume in file order, and what is to be known of them.

    int16 for as long as every value is a whole number that int16 holds; from the first that is
    not, float32 (what was collected before is carried over exactly). Memory beyond the result
    is a few blocks.

    Parameters
    ----------
    voxels
        Number of voxels to come.

    Attributes
    ----------
    flat
        The voxels.
    filled
        How many have come.
    low, high
        The smallest and the largest value.
    nonfinite
        How many values were NaN or infinite and became `FILL_HU`.
    rounded
        Whether a value had to be rounded to float32's seven digits.
    """

    def __init__(self, voxels: int) -> None:
        self.flat: NDArray[Any] = np.empty(voxels, np.int16)
        self.filled = 0
        self.low = np.inf
        self.high = -np.inf
        self.nonfinite = 0
        self.rounded = False

    def put(self, stored: NDArray[Any], slope: float = 1.0, intercept: float = 0.0) -> None:
        """Append ``stored * slope + intercept``; any real dtype and shape, in memory order."""
        flat = stored.ravel(order="K")
        for start in range(0, flat.size, BLOCK):
            self._put_block(flat[start : start + BLOCK], slope, intercept)

    def claim(self, start: int, stop: int) -> None:
        """Make the system provide the memory of voxels that nobody has written yet."""
        self.flat[start : stop : _PAGE // 2] = 0

    def placed(self, start: int, stop: int) -> None:
        """Take note of int16 values that were written to their place in ``flat``."""
        self._span(self.flat[start:stop])
        self.filled = stop

    def _put_block(self, stored: NDArray[Any], slope: float, intercept: float) -> None:
        end = self.filled + stored.size
        if end > self.flat.size:
            raise ValueError("More voxels than the volume has.")
        values = _scaled(stored, slope, intercept)
        if self.flat.dtype == np.int16:
            if _fits_int16(values):
                self.flat[self.filled : end] = values
                self.placed(self.filled, end)
                return
            wider = np.empty(self.flat.size, np.float32)
            wider[: self.filled] = self.flat[: self.filled]
            self.flat = wider
        target = self.flat[self.filled : end]
        with np.errstate(over="ignore", invalid="ignore"):
            target[...] = values
            if values is stored and values.dtype not in (np.float32, np.float16):
                same = (target == values) | ~np.isfinite(values)
                self.rounded |= not bool(same.all())
        bad = ~np.isfinite(target)
        if bad.any():
            self.nonfinite += int(np.count_nonzero(bad))
            target[bad] = FILL_HU
        self._span(target)
        self.filled = end

    def _span(self, values: NDArray[Any]) -> None:
        if values.size:
            self.low = min(self.low, float(values.min()))
            self.high = max(self.high, float(values.max()))


@dataclass(frozen=True, slots=True)
class Stored:
    """What a reader found in a file, before anybody judged it.

    Attributes
    ----------
    buffer
        The voxels, complete.
    grid
        Their geometry.
    notes
        What was found on the way.
    order
        How the voxels lie in memory: ``"F"`` if the first axis runs fastest.
    """

    buffer: HounsfieldBuffer
    grid: Grid
    notes: tuple[Note, ...] = ()
    order: Literal["F", "C"] = "F"

    @property
    def values_XYZ(self) -> NDArray[Any]:
        """int16 or float32, not copied."""
        return self.buffer.flat.reshape(self.grid.shape, order=self.order)


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
