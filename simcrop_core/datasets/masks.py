"""Many masks of one scan in little memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Masks(Mapping[str, NDArray[np.bool_]]):
    """Masks by name, ``(X, Y, Z)`` each, kept as the bits of the box that holds them.

    A mask as it is takes a byte a voxel: those of fifty structures are many times the scan. Here
    one is unfolded whenever it is asked for, anew each time.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        self._kept: dict[str, tuple[tuple[slice, ...], NDArray[np.uint8]]] = {}

    def add(self, name: str, mask_XYZ: NDArray[Any]) -> None:
        """Keep a mask; where there is one of this name, in its place."""
        if mask_XYZ.shape != self.shape:
            raise ValueError(f"A mask of {mask_XYZ.shape} is none of a scan of {self.shape}.")
        box = []
        for axis in range(3):
            others = tuple(other for other in range(3) if other != axis)
            touched = np.flatnonzero(mask_XYZ.any(axis=others))
            box.append(slice(int(touched[0]), int(touched[-1]) + 1) if len(touched) else slice(0))
        self._kept[name] = tuple(box), np.packbits(mask_XYZ[tuple(box)])

    def __getitem__(self, name: str) -> NDArray[np.bool_]:
        box, bits = self._kept[name]
        shape = [part.stop - (part.start or 0) for part in box]
        mask_XYZ = np.zeros(self.shape, bool)
        mask_XYZ[box] = np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape)
        return mask_XYZ

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)
