"""Patch <-> voxel <-> world, for the patches into which the model's input is cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simcrop_core.geometry import FloatArray, Grid


class Box(NamedTuple):
    """An axis-aligned box in RAS millimetres: its least and its greatest corner, each ``(3,)``."""

    low_mm: FloatArray
    high_mm: FloatArray

    def covers(self, world_mm: ArrayLike) -> bool:
        point = np.asarray(world_mm, dtype=np.float64)
        return bool(((self.low_mm <= point) & (point <= self.high_mm)).all())


@dataclass(frozen=True, slots=True, eq=False)
class PatchGrid:
    """The grid of patches over a model's input.

    A patch is named by ``(i, j, k)`` along the input's axes, or by its flat index in C order
    (the last axis, depth, fastest), the order in which the encoder returns its tokens.

    Attributes
    ----------
    grid
        One "voxel" per patch: ``grid.affine`` maps ``(i, j, k)`` to the patch's centre.
    patch_shape
        Input voxels of a patch along the three axes.
    """

    grid: Grid
    patch_shape: tuple[int, int, int]

    @classmethod
    def over(cls, input_grid: Grid, patch_shape: Sequence[int]) -> PatchGrid:
        """The patches of an input; its sizes must be multiples of ``patch_shape``."""
        p, q, r = (int(n) for n in patch_shape)
        return cls(input_grid.coarsened((p, q, r)), (p, q, r))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Patches along the input's axes."""
        return self.grid.shape

    @property
    def affine(self) -> FloatArray:
        """4 x 4: patch ``(i, j, k)`` -> RAS millimetres of its centre."""
        return self.grid.affine

    @property
    def size_mm(self) -> tuple[float, float, float]:
        """Extent of a patch along the input's axes."""
        return self.grid.spacing_mm

    def __len__(self) -> int:
        i, j, k = self.shape
        return i * j * k

    def ijk(self, index: int) -> tuple[int, int, int]:
        """``(i, j, k)`` of a flat index."""
        if not 0 <= index < len(self):
            raise IndexError(f"There is no patch {index} among {len(self)}.")
        i, j, k = np.unravel_index(index, self.shape)
        return int(i), int(j), int(k)

    def index(self, ijk: Sequence[int]) -> int:
        """Flat index of ``(i, j, k)``."""
        i, j, k = ijk
        if any(not 0 <= n < size for n, size in zip((i, j, k), self.shape, strict=True)):
            raise IndexError(f"There is no patch {tuple(ijk)} in a grid of {self.shape}.")
        return int(np.ravel_multi_index((i, j, k), self.shape))

    def patch_at(self, world_mm: ArrayLike) -> int | None:
        """Flat index of the patch that covers a RAS point, or None beyond the input."""
        point = np.asarray(world_mm, dtype=np.float64)
        if point.shape != (3,):
            raise ValueError("patch_at takes one point: x, y, z in millimetres.")
        if not np.isfinite(point).all() or not self.grid.contains(point):
            return None
        nearest = np.floor(self.grid.to_voxel(point) + 0.5).astype(int)
        return self.index(nearest.tolist())

    def box(self, index: int) -> Box:
        """The patch's extent in RAS millimetres."""
        center = self.center(index)
        half = np.abs(self.grid.affine[:3, :3]).sum(axis=1) / 2
        return Box(center - half, center + half)

    def center(self, index: int) -> FloatArray:
        """RAS millimetres of the patch's centre, ``(3,)``."""
        return self.grid.to_world(self.ijk(index))

    def centers(self) -> FloatArray:
        """RAS millimetres of all patches' centres, ``(N, 3)``, in flat order."""
        return self.grid.to_world(np.indices(self.shape).reshape(3, -1).T)

    def voxels(self, index: int) -> tuple[slice, slice, slice]:
        """The patch's voxels in the input."""
        (i, j, k), (p, q, r) = self.ijk(index), self.patch_shape
        return slice(i * p, i * p + p), slice(j * q, j * q + q), slice(k * r, k * r + r)

    def as_map(self, values_N: ArrayLike) -> NDArray[np.float32]:
        """Values of the patches as an array on the patch grid, ``(I, J, K)`` float32."""
        return np.asarray(values_N, dtype=np.float32).reshape(self.shape)

    def __repr__(self) -> str:
        shape = " x ".join(str(n) for n in self.shape)
        size = " x ".join(f"{s:.4g}" for s in self.size_mm)
        return f"PatchGrid({shape} patches of {size} mm, axes to {self.grid.axcodes})"
