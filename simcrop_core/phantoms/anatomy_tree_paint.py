"""Paints the trees of airways, arteries and veins: balls close together along their branches."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from simcrop_core.phantoms.anatomy import Tree
from simcrop_core.phantoms.anatomy_canvas import Canvas, mix
from simcrop_core.phantoms.anatomy_labels import LABELS

FloatArray = NDArray[np.float64]
Volume = NDArray[np.float32]
#: So many numbers at once stay in the processor's cache.
_CACHED = 60_000


def paint_trees(
    canvas: Canvas,
    lobes: NDArray[np.uint8],
    trees: dict[str, Tree],
    artery_hu: float,
    vein_hu: float,
) -> None:
    """Paint the parts of the trees (in RAS millimetres) that lie in the lobes."""
    airways = trees["airways"]
    total = np.zeros(lobes.size, np.float32)
    for tree, hu in ((trees["veins"], vein_hu), (trees["arteries"], artery_hu)):
        _paint_tree(canvas, lobes, total, tree, 0.0, hu, "pulmonary vessels", deep=False)
    _paint_tree(canvas, lobes, total, airways, 1.0, 20.0, "airway walls", deep=True)
    _paint_tree(canvas, lobes, total, airways, 0.0, -975.0, "bronchi", deep=True)


def _paint_tree(
    canvas: Canvas,
    lobes: NDArray[np.uint8],
    total: Volume,
    tree: Tree,
    walls: float,
    hu: float,
    name: str,
    *,
    deep: bool,
) -> None:
    points_3N, radius = _dense(tree, walls, float(canvas.spacing.min()))
    where, share = _splat(canvas, points_3N, radius, total)
    if not where.size:
        return
    labels = canvas.labels.reshape(-1)
    before = labels.take(where)
    open_ = lobes.reshape(-1).take(where) > 0
    open_ |= before == LABELS["mediastinal fat"]
    if deep:
        open_ |= before == LABELS["airway walls"]
    else:
        open_ &= (before != LABELS["bronchi"]) & (before != LABELS["trachea"])
    where, share = where[open_], share[open_]
    values = canvas.hu.reshape(-1)
    value = values.take(where)
    mix(value, share, hu)
    values[where] = value
    labels[where[share >= 0.5]] = LABELS[name]


def _dense(tree: Tree, walls: float, spacing: float) -> tuple[FloatArray, Volume]:
    """Points close together along the branches in the lobes, and the radius at each."""
    branch = np.repeat(np.arange(len(tree.lobe_B)), np.diff(tree.first_B))
    joined = np.flatnonzero((branch[1:] == branch[:-1]) & (tree.lobe_B[branch[1:]] >= 0))
    starts, stops = tree.points_P3[joined], tree.points_P3[joined + 1]
    more = walls * tree.wall_B[branch[joined]]
    r0, r1 = tree.radius_P[joined] + more, tree.radius_P[joined + 1] + more
    length = np.linalg.norm(stops - starts, axis=1)
    step = np.maximum(0.7 * spacing, 0.45 * np.minimum(r0, r1))
    count = np.maximum(np.ceil(length / step).astype(int), 1)
    within = np.arange(count.sum()) - np.repeat(count.cumsum() - count, count)
    t = (within + 0.5) / np.repeat(count, count)

    def between(first: FloatArray, last: FloatArray) -> FloatArray:
        out = np.repeat(last - first, count)
        out *= t
        out += np.repeat(first, count)
        return out

    points = [between(first, last) for first, last in zip(starts.T, stops.T, strict=True)]
    return np.stack(points), between(r0, r1).astype(np.float32)


def _splat(
    canvas: Canvas, points_3N: FloatArray, radius: Volume, total: Volume
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Flat numbers of the voxels near points, and the share of each that balls there fill.

    ``total`` holds a zero for each voxel of the canvas, before and after.
    """
    width = np.float32(canvas.width * canvas.frame.mean_scale)
    start = np.array([line[0] for line in canvas.lines])
    step = np.array([line[1] - line[0] if line.size > 1 else 1.0 for line in canvas.lines])
    voxel = (points_3N - start[:, None]) / step[:, None]
    near = np.rint(voxel)
    voxel -= near
    voxel *= step[:, None]
    rest, near = voxel.astype(np.float32), near.astype(np.int32)
    limit = np.array([0, 1.0, 1.7, 2.6, 4.0, 30.0], np.float32)
    found: list[NDArray[np.int64]] = []
    shares: list[NDArray[np.float32]] = []
    for low, high in pairwise(limit):
        chosen = np.flatnonzero((radius > low) & (radius <= high))
        # Thick slices: balls that lie low in their voxel reach others than those that lie high.
        over = rest[2].take(chosen) > 0
        halves = (chosen[over], chosen[~over]) if chosen.size > 2000 else (chosen,)
        for rows in halves:
            if rows.size:
                balls = near.take(rows, axis=1), rest.take(rows, axis=1), radius.take(rows)
                _splat_alike(canvas.shape, *balls, step, width, found, shares)
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.float32)
    where, share = np.concatenate(found), np.concatenate(shares)
    np.maximum.at(total, where, share)
    # A voxel may be named several times, each time with the same share.
    share = total.take(where)
    total[where] = 0
    return where, share


def _splat_alike(
    shape: tuple[int, int, int],
    near_3N: NDArray[np.int32],
    rest_3N: Volume,
    radius_N: Volume,
    step: FloatArray,
    width: np.float32,
    found: list[NDArray[np.int64]],
    shares: list[Volume],
) -> None:
    """Append numbers and shares of the voxels that balls of about one size fill."""
    size = np.array(shape[::-1])
    reach = float(radius_N.max() + 0.5 * width)
    low, high = rest_3N.min(axis=1), rest_3N.max(axis=1)
    counts = np.floor((reach + np.maximum(-low, high)) / np.abs(step)).astype(int).clip(1)
    sides = [np.arange(-n, n + 1, dtype=np.int32) for n in counts]
    # Along each axis: how far a neighbour is at least, for any of these balls.
    gaps = [
        np.maximum(np.maximum(low[k] - side * step[k], side * step[k] - high[k]), 0) ** 2
        for k, side in enumerate(sides)
    ]
    gap = gaps[0][:, None, None] + gaps[1][:, None] + gaps[2]
    ball = np.stack([side[at] for side, at in zip(sides, np.nonzero(gap < reach**2), strict=True)])
    held = _within(near_3N, counts, size - counts)
    some = _within(near_3N, -counts, size + counts) & ~held
    for rows, edge in ((held, False), (some, True)):
        numbers = np.flatnonzero(rows)
        # As many balls at once as the processor's cache holds.
        for part in np.array_split(numbers, max(1, -(-numbers.size * ball.shape[1] // _CACHED))):
            if part.size:
                balls = near_3N.take(part, axis=1), rest_3N.take(part, axis=1), radius_N.take(part)
                _splat_balls(*balls, ball, step, width, size, edge, found, shares)


def _within(
    near_3N: NDArray[np.int32], first_3: NDArray[np.int64], stop_3: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Which points lie between limits on all axes."""
    inside = np.ones(near_3N.shape[1], bool)
    for near, first, stop in zip(near_3N, first_3.tolist(), stop_3.tolist(), strict=True):
        inside &= near >= first
        inside &= near < stop
    return inside


def _splat_balls(
    near_3N: NDArray[np.int32],
    rest_3N: Volume,
    radius_N: Volume,
    ball_3B: NDArray[np.int32],
    step: FloatArray,
    width: np.float32,
    size: NDArray[np.int64],
    edge: bool,
    found: list[NDArray[np.int64]],
    shares: list[Volume],
) -> None:
    """Append numbers and shares of the voxels that balls fill; ``edge``: some leave the canvas."""
    ball_mm = (ball_3B * step[:, None]).astype(np.float32)
    share = np.subtract(ball_mm[0], rest_3N[0][:, None])
    share *= share
    gap = np.empty_like(share)
    for k in (1, 2):
        np.subtract(ball_mm[k], rest_3N[k][:, None], out=gap)
        gap *= gap
        share += gap
    np.sqrt(share, out=share)
    share *= np.float32(-1 / width)
    share += (radius_N / width + np.float32(0.5))[:, None]
    np.minimum(share, 1, out=share)
    # A thread thinner than a voxel fills only its own cross-section of it.
    share *= np.minimum(1, 3.1 * (radius_N / width) ** 2 + np.float32(0.02))[:, None]
    hit = share > 0.01
    if edge:
        for k in range(3):
            at = near_3N[k][:, None] + ball_3B[k]
            hit &= (at >= 0) & (at < size[k])
    base = (near_3N[2].astype(np.int64) * size[1] + near_3N[1]) * size[0] + near_3N[0]
    jump = (ball_3B[2] * size[1] + ball_3B[1]) * size[0] + ball_3B[0]
    where = np.flatnonzero(hit)
    row = where // len(jump)
    numbers = base.take(row)
    numbers += jump.take(where - row * len(jump))
    found.append(numbers)
    shares.append(share.reshape(-1).take(where))
