"""Shapes as distances: negative inside, millimetres, on any arrays that broadcast.

Distances are exact for spheres and tubes and close to exact near the surface else, which is all
that the share of a voxel inside a surface (its partial volume) needs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
Volume = NDArray[np.float32]
Numbers = Sequence[float] | FloatArray


def clip(values: Volume, low: float, high: float) -> Volume:
    """Clip in place; on the small arrays here numpy's own takes twice as long."""
    np.maximum(values, np.float32(low), out=values)
    return np.minimum(values, np.float32(high), out=values)


def coverage(distance: Volume, width_mm: float) -> Volume:
    """Share of a voxel ``width_mm`` wide that lies inside a surface at this distance."""
    share = distance * np.float32(-1 / width_mm)
    share += np.float32(0.5)
    return clip(share, 0, 1)


def sheet_coverage(distance: Volume, thickness_mm: float, width_mm: float) -> Volume:
    """Share of a voxel that a sheet fills, thinner than the voxel or not."""
    half = thickness_mm / 2
    w = np.float32(width_mm / 2)
    share = clip(distance + w, -half, half)
    share -= clip(distance - w, -half, half)
    share /= np.float32(width_mm)
    return share


def ellipsoid(
    x: Volume,
    y: Volume,
    z: Volume,
    center: Numbers,
    half: Numbers,
    axes_33: ArrayLike | None = None,
) -> Volume:
    """Distance to an ellipsoid, exact on its surface to first order."""
    u, v, w = (a - np.float32(c) for a, c in zip((x, y, z), center, strict=True))
    if axes_33 is not None:
        r = np.asarray(axes_33, np.float32)
        u, v, w = (r[k, 0] * u + r[k, 1] * v + r[k, 2] * w for k in range(3))
    a, b, c = (np.float32(1 / float(h)) for h in half)
    u, v, w = u * a, v * b, w * c
    u *= u
    v *= v
    w *= w
    # With k1 and k2 the lengths of (u, v, w) and of its gradient: k1 (k1 - 1) / k2.
    square = u + v
    square = square + w
    u *= a * a
    v *= b * b
    w *= c * c
    slope = u + v
    slope = slope + w
    np.sqrt(slope, out=slope)
    np.maximum(slope, np.float32(1e-4), out=slope)
    square -= np.sqrt(square)
    square /= slope
    return square


def capsule(
    x: Volume, y: Volume, z: Volume, a: ArrayLike, b: ArrayLike, radius_a: float, radius_b: float
) -> Volume:
    """Distance to a straight tube with round ends that tapers."""
    p, q = np.asarray(a, np.float32), np.asarray(b, np.float32)
    d = q - p
    length2 = np.float32(max(float(d @ d), 1e-6))
    u, v, w = x - p[0], y - p[1], z - p[2]
    along = u * d[0] + v * d[1]
    along = along + w * d[2]
    gap = u * u + v * v
    gap = gap + w * w
    # With t the place along the axis, from 0 to 1: |u|^2 - 2 t (u d) + t^2 d^2.
    t = clip(along / length2, 0, 1)
    along *= -2
    along += t * length2
    along *= t
    gap += along
    np.sqrt(np.maximum(gap, 0, out=gap), out=gap)
    t *= np.float32(radius_b - radius_a)
    gap -= t
    gap -= np.float32(radius_a)
    return gap


def smooth_union(a: Volume, b: Volume, blend_mm: float) -> Volume:
    """The union of two shapes with the crease between them filled over ``blend_mm``."""
    return np.minimum(a, b) - _crease(a, b, blend_mm)


def smooth_intersection(a: Volume, b: Volume, blend_mm: float) -> Volume:
    """What two shapes share, with the edge rounded over ``blend_mm``."""
    return np.maximum(a, b) + _crease(a, b, blend_mm)


def _crease(a: Volume, b: Volume, blend_mm: float) -> Volume:
    h = a - b
    np.abs(h, out=h)
    np.subtract(np.float32(blend_mm), h, out=h)
    np.maximum(h, 0, out=h)
    h *= h
    h *= np.float32(0.25 / blend_mm)
    return np.asarray(h, np.float32)


def grain(
    parts: tuple[Volume, Volume, Volume, Volume, Volume],
    rng: np.random.Generator,
    length_mm: float,
    waves: int = 6,
) -> Volume:
    """An irregular pattern about 1 in size: waves of about one length in random directions.

    ``parts`` are the terms of the patient coordinates, of ``Frame.parts``. The phase of a wave is
    a term of (z, y) and one of (z, x): the sum of the waves is a product of matrices for each z.
    """
    px, move_x, py, move_y, pz = parts
    size = np.float32(1 / np.sqrt(waves / 2))
    lines, columns = [], []
    for _ in range(waves):
        way = rng.normal(0, 1, 3)
        way *= 2 * np.pi / (length_mm * rng.uniform(0.7, 1.5) * np.linalg.norm(way))
        a, b, c = way.astype(np.float32)
        line = a * move_x + b * py + c * pz + np.float32(rng.uniform(0, 6.28))
        column = a * px + b * move_y
        lines += [np.sin(line), np.cos(line)]
        columns += [np.cos(column) * size, np.sin(column) * size]
    return np.matmul(np.concatenate(lines, axis=2), np.concatenate(columns, axis=1))


def spline(
    points_N3: ArrayLike, step_mm: float = 4.0, radius: ArrayLike | None = None
) -> tuple[FloatArray, FloatArray]:
    """A smooth curve through points, about evenly spaced, and the radius along it."""
    points = np.asarray(points_N3, float)
    gaps = np.sqrt(np.linalg.norm(np.diff(points, axis=0), axis=1))
    s = np.concatenate([[0.0], np.cumsum(np.maximum(gaps, 1e-3))])
    length = np.linalg.norm(np.diff(points, axis=0), axis=1).sum()
    t = np.linspace(0, s[-1], max(2, int(length / step_mm) + 1))
    curve = _natural_cubic(s, points, t)
    widths = np.broadcast_to(1.0 if radius is None else np.asarray(radius, float), s.shape)
    return curve, np.interp(t, s, widths)


def _natural_cubic(s: FloatArray, points_N3: FloatArray, t: FloatArray) -> FloatArray:
    """The natural cubic spline through points at ``s``, asked at ``t``."""
    # SciPy's CubicSpline gives the same, but takes three times as long to set up (0.3 ms more for
    # each of some 50 courses), and the courses of a person are asked once.
    h = np.diff(s)
    slope = np.diff(points_N3, axis=0) / h[:, None]
    system = np.eye(len(s))
    inner = np.arange(1, len(s) - 1)
    system[inner, inner - 1], system[inner, inner + 1] = h[:-1], h[1:]
    system[inner, inner] = 2 * (h[:-1] + h[1:])
    bend = np.zeros_like(points_N3)
    bend[1:-1] = 6 * np.diff(slope, axis=0)
    bend = np.asarray(np.linalg.solve(system, bend), np.float64)
    k = np.clip(np.searchsorted(s, t, side="right") - 1, 0, len(h) - 1)
    u, width = (t - s[k])[:, None], h[k][:, None]
    first, last = bend[k], bend[k + 1]
    linear = slope[k] - width * (2 * first + last) / 6
    return points_N3[k] + u * (linear + u * (first / 2 + u * (last - first) / (6 * width)))
