"""Shapes that findings are drawn with: boxes, tubes, lumps, lobules, and how they mix with a voxel.

All lengths are millimetres in RAS+ world coordinates, and every random texture is a function of the
world position, so that the same finding looks alike on any grid.

Axes: Z, Y, X voxels of a box, in the order in which the chest lies in memory; N points or voxels;
P points along a line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.interpolate import CubicSpline

Float = NDArray[np.float32]
Bool = NDArray[np.bool_]
#: Nothing on a scan is denser: 12 stored bits reach from -1024 to 3071 HU.
HIGHEST_HU = 3071.0
#: The lattice of a texture repeats after so many cells.
LATTICE = 16


@dataclass(frozen=True)
class Box:
    """A part of the voxels, in the order z, y, x, and their positions in mm, to broadcast."""

    slices: tuple[slice, slice, slice]
    x: Float
    y: Float
    z: Float
    spacing_mm: tuple[float, float, float]

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.z.size, self.y.size, self.x.size

    @property
    def voxel_mm(self) -> float:
        """The mean edge of a voxel: over so much an edge is blurred by partial volume."""
        return float(np.mean(self.spacing_mm))

    def points(self, mask_ZYX: Bool) -> Float:
        """The positions ``(N, 3)`` of the voxels in a mask of this box, in the mask's order."""
        k, j, i = np.nonzero(mask_ZYX)
        return np.stack([self.x.ravel()[i], self.y.ravel()[j], self.z.ravel()[k]], axis=1)


def share(distance: Float, blur_mm: float) -> Float:
    """How much of a voxel lies inside a surface at a signed distance (negative inside)."""
    return np.clip(0.5 - distance / max(blur_mm, 1e-6), 0.0, 1.0)


def mix(hu: Float, part: Float, value: Float | np.float32 | float) -> None:
    """Fill a part (0 to 1) of each voxel with a value, in place."""
    hu += part * (value - hu)
    np.minimum(hu, HIGHEST_HU, out=hu)


def smooth_line(points_mm: ArrayLike, step_mm: float) -> Float:
    """A curve ``(P, 3)`` through the points, a point about every ``step_mm``."""
    knots_P3 = np.asarray(points_mm, float)
    lengths = np.linalg.norm(np.diff(knots_P3, axis=0), axis=1)
    keep = np.r_[True, lengths > 1e-3]
    knots_P3 = knots_P3[keep]
    along = np.r_[0.0, np.cumsum(np.linalg.norm(np.diff(knots_P3, axis=0), axis=1))]
    count = max(2, int(np.ceil(along[-1] / step_mm)) + 1)
    if len(knots_P3) < 3:
        return np.linspace(knots_P3[0], knots_P3[-1], count).astype(np.float32)
    curve = CubicSpline(along, knots_P3, axis=0, bc_type="natural")
    return curve(np.linspace(0.0, along[-1], count)).astype(np.float32)


def tube_distance(
    box: Box, points_P3: ArrayLike, radii_P: ArrayLike, reach_mm: float, out: Float | None = None
) -> Float:
    """Signed distance (mm) to the surface of a tube, ``reach_mm`` where it is farther than that.

    The tube follows the line through the points, its radius changing evenly between them. With
    ``out`` the tube is joined to what is already there.
    """
    points = np.asarray(points_P3, np.float32)
    radii = np.broadcast_to(np.asarray(radii_P, np.float32), points.shape[:1])
    distance = np.full(box.shape, reach_mm, np.float32) if out is None else out
    axes = [axis.ravel() for axis in (box.x, box.y, box.z)]
    margin = (np.maximum(radii[:-1], radii[1:]) + reach_mm)[:, None]
    low = np.minimum(points[:-1], points[1:]) - margin
    high = np.maximum(points[:-1], points[1:]) + margin
    spans = [_spans(axis, low[:, k, None], high[:, k, None]) for k, axis in enumerate(axes)]
    for piece, parts in enumerate(zip(*spans, strict=True)):
        if any(part.start >= part.stop for part in parts):
            continue
        start, end, first, last = *points[piece : piece + 2], *radii[piece : piece + 2]
        dx = axes[0][parts[0]] - start[0]
        dy = axes[1][parts[1]][:, None] - start[1]
        dz = axes[2][parts[2]][:, None, None] - start[2]
        step = end - start
        along = np.clip(
            (dx * step[0] + dy * step[1] + dz * step[2]) / max(float(step @ step), 1e-6), 0.0, 1.0
        )
        away = (dx - along * step[0]) ** 2
        away += (dy - along * step[1]) ** 2
        away += (dz - along * step[2]) ** 2
        here = np.sqrt(away) - (first + along * (last - first))
        part = distance[tuple(parts[::-1])]
        np.minimum(part, here, out=part)
    return distance


def _spans(axis: Float, low_N1: NDArray[np.floating], high_N1: NDArray[np.floating]) -> list[slice]:
    """The run of an axis that lies between limits, for each of N pairs of them."""
    inside = (axis >= low_N1) & (axis <= high_N1)
    first, count = inside.argmax(axis=1).tolist(), inside.sum(axis=1).tolist()
    return [slice(a, a + n) for a, n in zip(first, count, strict=True)]


def thin_share(distance: Float, radius_mm: float, box: Box) -> tuple[Float, Bool]:
    """How much of each voxel a thin tube fills, and the voxels it runs through.

    A wire thinner than a voxel fills only the square of its share of the voxel's width.
    ``distance`` is to the tube's surface.
    """
    least = 0.6 * box.voxel_mm
    drawn = max(radius_mm, least)
    wide = distance - (drawn - radius_mm)
    return share(wide, box.voxel_mm) * min(1.0, (radius_mm / drawn) ** 2), wide <= 0


def thin_sheet_share(distance: Float, half_mm: float, box: Box) -> tuple[Float, Bool]:
    """The same for a sheet: ``distance`` is to its middle, ``half_mm`` half its thickness."""
    width = np.float32(box.voxel_mm)
    half = np.float32(half_mm)
    part = np.clip(distance + width / 2, -half, half)
    part -= np.clip(distance - width / 2, -half, half)
    part /= width
    return part, np.abs(distance) <= max(half_mm, 0.5 * box.voxel_mm)


def _spline_weights(line_mm: Float, cell_mm: float) -> Float:
    """Weights ``(X, LATTICE)`` of the cubic B-spline on a lattice that repeats."""
    place = line_mm / cell_mm
    whole = np.floor(place).astype(int)
    t = (place - whole).astype(np.float32)
    pieces = (
        (1 - t) ** 3 / 6,
        (3 * t**3 - 6 * t**2 + 4) / 6,
        (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
        t**3 / 6,
    )
    weights = np.zeros((line_mm.size, LATTICE), np.float32)
    rows = np.arange(line_mm.size)
    for offset, piece in enumerate(pieces):
        weights[rows, (whole + offset - 1) % LATTICE] += piece
    return weights


def texture(box: Box, cell_mm: float, rng: np.random.Generator) -> Float:
    """A smooth random field with lumps of about twice ``cell_mm``: mean 0, deviation about 1."""
    lattice = rng.standard_normal((LATTICE, LATTICE, LATTICE)).astype(np.float32)
    x, y, z = (_spline_weights(axis.ravel(), cell_mm) for axis in (box.x, box.y, box.z))
    field = (z @ lattice.transpose(2, 1, 0).reshape(LATTICE, -1)).reshape(-1, LATTICE, LATTICE)
    field = np.matmul(y, field)  # (Z, Y, LATTICE)
    # The cubic B-spline averages: along an axis its mean square weight is 0.479.
    return np.matmul(field, x.T) * np.float32(0.479**-1.5)


def finer(coarse: Float, stride: Sequence[int], cuts: Sequence[slice]) -> Float:
    """Linear interpolation of every ``stride``-th voxel to the voxels of the slices."""
    weights = []
    for cut, step, count in zip(cuts, stride, coarse.shape, strict=True):
        where = np.arange(cut.start, cut.stop) / step
        low = np.minimum(where.astype(int), count - 1)
        table = np.zeros((where.size, count), np.float32)
        rows = np.arange(where.size)
        table[rows, low] = 1 - (where - low)
        table[rows, np.minimum(low + 1, count - 1)] += where - low
        weights.append(table)
    z, y, x = weights
    rough = (z @ coarse.reshape(coarse.shape[0], -1)).reshape(-1, *coarse.shape[1:])
    return np.matmul(np.matmul(y, rough), x.T)


def depth_of(mask_ZYX: Bool, spacing_mm: Sequence[float]) -> Float:
    """Distance (mm) of a mask's voxels to the nearest one outside it; 0 there.

    Exact (Saito and Toriwaki, Pattern Recognition 1994), one axis after the other; for shapes not
    deeper than some tens of voxels faster than SciPy's transform.
    """
    far = np.float32(sum((n * s) ** 2 for n, s in zip(mask_ZYX.shape, spacing_mm, strict=True)))
    square = np.multiply(mask_ZYX, far)
    for axis, (count, step) in enumerate(zip(mask_ZYX.shape, spacing_mm, strict=True)):
        source, deepest = square.copy(), float(square.max(initial=0))
        for k in range(1, count):
            away = np.float32((k * step) ** 2)
            if away >= deepest:
                break
            ahead = (slice(None),) * axis
            head, tail = (*ahead, slice(k, None)), (*ahead, slice(None, -k))
            np.minimum(square[head], source[tail] + away, out=square[head])
            np.minimum(square[tail], source[head] + away, out=square[tail])
            if k % 8 == 0:
                deepest = float(square.max(initial=0))
    return np.sqrt(square)


def outside_distance(mask: Bool, box: Box) -> Float:
    """Distance (mm) of a box's voxels to a mask in it, to about 1 mm; 0 inside."""
    stride = tuple(max(1, round(2.9 / step)) for step in box.spacing_mm[::-1])
    coarse = ~mask[:: stride[0], :: stride[1], :: stride[2]]
    spacing = [k * step for k, step in zip(stride, box.spacing_mm[::-1], strict=True)]
    away = ndimage.distance_transform_edt(coarse, sampling=spacing).astype(np.float32)
    away = np.maximum(away - np.float32(0.5 * np.mean(spacing)), 0)
    return np.where(mask, np.float32(0), finer(away, stride, [slice(0, n) for n in mask.shape]))


def lobule_walls(points_N3: Float, size_mm: float, seed: int) -> Float:
    """Distance (mm) of points to the walls between cells like secondary pulmonary lobules.

    Cells are those of points scattered about a lattice of ``size_mm``; the distance is that to the
    wall between the two nearest.
    """
    jitter = np.random.default_rng(seed).uniform(0.2, 0.8, (3, LATTICE**3)).astype(np.float32)
    out = np.empty(len(points_N3), np.float32)
    for start in range(0, len(points_N3), 1 << 14):  # what fits into the processor's cache
        part = points_N3[start : start + (1 << 14)]
        out[start : start + len(part)] = _wall_distance(part / np.float32(size_mm), jitter)
    # Neighbouring points are about one cell apart: |a - b|^2 - |a - c|^2 is twice the distance.
    out *= np.float32(size_mm / 2)
    return out


def _wall_distance(place_N3: Float, jitter: Float) -> Float:
    axes = [np.ascontiguousarray(place_N3[:, axis]) for axis in range(3)]
    bases = [np.floor(axis - np.float32(0.5)) for axis in axes]
    # By axis and by the two nearest cells along it: part of the flat index, and where the cell is.
    steps, shifts = [], []
    for axis, base, stride in zip(axes, bases, (LATTICE**2, LATTICE, 1), strict=True):
        whole = base.astype(np.int32)
        steps.append([((whole + k) % LATTICE) * stride for k in (0, 1)])
        shifts.append([base + np.float32(k) - axis for k in (0, 1)])
    first = np.full(len(place_N3), np.inf, np.float32)
    second = first.copy()
    for i, j, k in np.ndindex(2, 2, 2):
        flat = steps[0][i] + steps[1][j] + steps[2][k]
        away = np.square(jitter[0].take(flat) + shifts[0][i])
        away += np.square(jitter[1].take(flat) + shifts[1][j])
        away += np.square(jitter[2].take(flat) + shifts[2][k])
        np.minimum(second, np.maximum(first, away), out=second)
        np.minimum(first, away, out=first)
    return second - first


def directions(count: int) -> NDArray[np.float64]:
    """Directions ``(N, 3)`` spread evenly over the sphere (Fibonacci lattice)."""
    index = np.arange(count) + 0.5
    height = 1 - 2 * index / count
    turn = np.pi * (1 + 5**0.5) * index
    ring = np.sqrt(1 - height**2)
    return np.stack([ring * np.cos(turn), ring * np.sin(turn), height], axis=1)


@dataclass(frozen=True)
class Lump:
    """A lobulated body about a centre: radius by direction, and a turned box of half axes.

    Radius in a direction u: 1 / |A u| * (1 + lobulation * sum of a few smooth waves).
    """

    centre_mm: NDArray[np.float64]
    shape_33: NDArray[np.float64]
    waves_M3: NDArray[np.float64]
    phases_M: NDArray[np.float64]
    lobulation: float

    def radius(self, unit_N3: NDArray[np.floating]) -> NDArray[np.floating]:
        round_N = 1.0 / np.linalg.norm(unit_N3 @ self.shape_33, axis=-1)
        if not self.lobulation:
            return round_N
        waves = np.cos(unit_N3 @ self.waves_M3.T + self.phases_M).mean(axis=-1)
        return round_N * (1.0 + self.lobulation * waves)

    def _radius(self, unit_3N: Float) -> Float:
        """The same for many directions at once, in single precision."""
        turned_3N = self.shape_33.T.astype(np.float32) @ unit_3N
        turned_3N *= turned_3N
        round_N = 1 / np.sqrt(turned_3N.sum(axis=0))
        if not self.lobulation:
            return round_N
        waves_N = np.zeros_like(round_N)
        for wave, phase in zip(self.waves_M3, self.phases_M, strict=True):
            part = wave.astype(np.float32) @ unit_3N
            part += np.float32(phase)
            waves_N += np.cos(part, out=part)
        waves_N *= np.float32(self.lobulation / len(self.phases_M))
        waves_N += 1
        round_N *= waves_N
        return round_N

    def distance(self, box: Box) -> Float:
        """Signed distance to the surface along the ray from the centre, mm."""
        x, y, z = (
            axis - np.float32(centre)
            for axis, centre in zip((box.x, box.y, box.z), self.centre_mm, strict=True)
        )
        away = np.sqrt(x**2 + y**2 + z**2)
        scale = 1.0 / np.maximum(away, 1e-3)
        unit = np.empty((3, *away.shape), np.float32)
        for line, out in zip((x, y, z), unit, strict=True):
            np.multiply(line, scale, out=out)
        return away - self._radius(unit.reshape(3, -1)).reshape(away.shape)


def make_lump(
    rng: np.random.Generator,
    centre_mm: ArrayLike,
    longest_mm: float,
    *,
    lobulation: float = 0.0,
    flattening: float = 0.2,
    shortest_mm: float | None = None,
) -> Lump:
    """A body whose longest diameter is exactly ``longest_mm``.

    ``flattening`` is how much shorter the other axes may be; with ``shortest_mm`` they are that.
    """
    turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    ratio = 1 - flattening * rng.uniform(0, 1, 2)
    if shortest_mm is not None:
        ratio = np.full(2, shortest_mm / longest_mm)
    half = 0.5 * longest_mm * np.r_[1.0, ratio]
    waves = rng.standard_normal((6, 3)) * 3.0
    phases = rng.uniform(0, 2 * np.pi, 6)
    lump = Lump(np.asarray(centre_mm, float), turn @ np.diag(1 / half), waves, phases, lobulation)
    if not lobulation:
        return lump
    unit = directions(400)
    surface = unit * lump.radius(unit)[:, None]
    gram = surface @ surface.T
    square = np.diag(gram)
    longest = np.sqrt(np.max(square[:, None] + square[None] - 2 * gram))
    return Lump(lump.centre_mm, lump.shape_33 * longest / longest_mm, waves, phases, lobulation)
