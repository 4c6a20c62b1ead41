"""Voxel <-> world: the only affine arithmetic in the project.

Arrays are ``(X, Y, Z)``; world is millimetres, RAS+: +x points to the patient's Right,
+y Anterior, +z Superior (the NIfTI convention). A voxel's integer index is its centre, so voxel
``i`` covers ``[i - 0.5, i + 0.5)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

_AXIS_LETTERS = ("RL", "AP", "SI")  # (towards +, towards -) of the world's three axes
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Where an array of voxels lies in the patient.

    Attributes
    ----------
    shape
        Voxels along the array's three axes.
    affine
        4 x 4, float64: homogeneous voxel index -> RAS millimetres of the voxel's centre.
    """

    shape: tuple[int, int, int]
    affine: FloatArray

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        affine = np.array(self.affine, dtype=np.float64)
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(f"A grid needs three positive sizes, not {self.shape}.")
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise ValueError("A grid's affine must be 4 x 4 and finite.")
        if not np.array_equal(affine[3], [0, 0, 0, 1]):
            raise ValueError("The last row of a grid's affine must be 0 0 0 1.")
        with np.errstate(all="ignore"):  # what overflows here is refused, not warned of
            lengths = np.linalg.norm(affine[:3, :3], axis=0)
            volume = abs(np.linalg.det(affine[:3, :3] / lengths))
        if not (np.isfinite(lengths).all() and (lengths > 0).all() and volume >= 1e-3):
            raise ValueError("A grid's affine must be invertible.")
        affine.setflags(write=False)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    def __reduce__(self) -> tuple[Any, ...]:
        # Made anew where it is unpickled, so that its affine is read-only there too.
        return Grid, (self.shape, self.affine)

    # -- points ---------------------------------------------------------------------------------

    def to_world(self, voxel_N3: ArrayLike) -> FloatArray:
        """RAS millimetres of (fractional) voxel indices; the last axis holds x, y, z."""
        voxel = np.asarray(voxel_N3, dtype=np.float64)
        return voxel @ self.affine[:3, :3].T + self.affine[:3, 3]

    def to_voxel(self, world_N3: ArrayLike) -> FloatArray:
        """Fractional voxel indices of RAS millimetres; the last axis holds x, y, z."""
        world = np.asarray(world_N3, dtype=np.float64)
        return (world - self.affine[:3, 3]) @ np.linalg.inv(self.affine[:3, :3]).T

    def contains(self, world_N3: ArrayLike) -> NDArray[np.bool_]:
        """Whether RAS points lie within the voxels' boxes (half a voxel beyond outer centres)."""
        voxel = self.to_voxel(world_N3)
        return np.asarray(((voxel >= -0.5) & (voxel < np.array(self.shape) - 0.5)).all(axis=-1))

    # -- facts ----------------------------------------------------------------------------------

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along each array axis."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def center_mm(self) -> FloatArray:
        """RAS millimetres of the middle of the whole array."""
        return self.to_world((np.array(self.shape) - 1) / 2)

    @property
    def voxel_volume_mm3(self) -> float:
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    @property
    def axcodes(self) -> str:
        """Direction in which each array axis grows, to the nearest body axis: ``"LPS"``."""
        return "".join(
            _AXIS_LETTERS[world][0 if sign > 0 else 1]
            for world, sign in zip(*self.nearest_axes(), strict=True)
        )

    def nearest_axes(self) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """For each array axis the world axis nearest to it (a permutation), and the sign."""
        cosines = self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)
        world = max(
            permutations(range(3)),
            key=lambda p: sum(abs(cosines[p[axis], axis]) for axis in range(3)),
        )
        signs = tuple(1 if cosines[world[axis], axis] >= 0 else -1 for axis in range(3))
        return world, signs  # type: ignore[return-value]

    @property
    def obliquity_deg(self) -> float:
        """Largest angle between an array axis and the body axis nearest to it, in degrees."""
        cosines = self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)
        world, _ = self.nearest_axes()
        along = np.array([cosines[world[axis], axis] for axis in range(3)])
        across = np.linalg.norm(cosines, axis=0) ** 2 - along**2
        return float(np.degrees(np.arctan2(np.sqrt(across.clip(0)), abs(along))).max())

    @property
    def is_axis_aligned(self) -> bool:
        """Whether every array axis runs along a body axis (drift over the array < 0.01 voxel)."""
        world, _ = self.nearest_axes()
        off_axis = np.array(self.affine[:3, :3])
        off_axis[list(world), range(3)] = 0
        drift_mm = np.abs(off_axis) * np.array(self.shape)
        return bool(drift_mm.max() < 0.01 * min(self.spacing_mm))

    @property
    def is_sheared(self) -> bool:
        """Whether the array axes are not at right angles (as under gantry tilt)."""
        cosines = self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)
        return bool(np.abs(cosines.T @ cosines - np.eye(3)).max() > 1e-3)

    def bounds_mm(self) -> tuple[FloatArray, FloatArray]:
        """Least and greatest RAS millimetres reached by the voxels' boxes."""
        corners = np.stack(
            np.meshgrid(*[(-0.5, n - 0.5) for n in self.shape], indexing="ij"), axis=-1
        ).reshape(-1, 3)
        world = self.to_world(corners)
        return world.min(axis=0), world.max(axis=0)

    def matches(self, other: Grid, tolerance_mm: float = 0.01) -> bool:
        """Whether both describe the same voxels: equal shape, no corner further off than this."""
        if self.shape != other.shape:
            return False
        corners = np.stack(
            np.meshgrid(*[(0, n - 1) for n in self.shape], indexing="ij"), axis=-1
        ).reshape(-1, 3)
        apart = np.linalg.norm(self.to_world(corners) - other.to_world(corners), axis=-1)
        return bool(apart.max() <= tolerance_mm)

    # -- grids from grids -----------------------------------------------------------------------

    def window(self, start: Sequence[int], shape: Sequence[int]) -> Grid:
        """The grid of a block that starts at voxel ``start`` (which may lie outside)."""
        affine = np.array(self.affine)
        affine[:3, 3] = self.to_world(np.asarray(start, dtype=np.float64))
        return Grid((int(shape[0]), int(shape[1]), int(shape[2])), affine)

    def coarsened(self, factor: Sequence[int]) -> Grid:
        """The grid whose voxels are blocks of ``factor`` of this one's (sizes must divide)."""
        sizes = np.array(factor)
        if (np.array(self.shape) % sizes).any():
            raise ValueError(f"{tuple(factor)} does not divide {self.shape}.")
        affine = np.array(self.affine)
        affine[:3, :3] = affine[:3, :3] * sizes
        affine[:3, 3] = self.to_world((sizes - 1) / 2)
        shape = np.array(self.shape) // sizes
        return Grid((int(shape[0]), int(shape[1]), int(shape[2])), affine)

    def __repr__(self) -> str:
        size = " x ".join(str(n) for n in self.shape)
        spacing = " x ".join(f"{s:.4g}" for s in self.spacing_mm)
        oblique = "" if self.is_axis_aligned else f", oblique by {self.obliquity_deg:.1f} deg"
        return f"Grid({size} voxels of {spacing} mm, axes to {self.axcodes}{oblique})"


def axis_aligned_affine(
    axcodes: str, spacing_mm: Sequence[float], center_mm: ArrayLike, shape: Sequence[int]
) -> FloatArray:
    """The affine of an axis-aligned array centred on ``center_mm``.

    ``axcodes`` names where each array axis grows to, such as ``"LPS"``.
    """
    affine = np.eye(4)
    affine[:3, :3] = 0
    worlds = [next((w for w, pair in enumerate(_AXIS_LETTERS) if c in pair), 3) for c in axcodes]
    if sorted(worlds) != [0, 1, 2]:
        raise ValueError(f"{axcodes!r} does not name three body directions.")
    for axis, (letter, world) in enumerate(zip(axcodes, worlds, strict=True)):
        sign = 1.0 if letter == _AXIS_LETTERS[world][0] else -1.0
        affine[world, axis] = sign * float(spacing_mm[axis])
    middle = (np.array(shape, dtype=np.float64) - 1) / 2
    affine[:3, 3] = np.asarray(center_mm, dtype=np.float64) - affine[:3, :3] @ middle
    return affine
