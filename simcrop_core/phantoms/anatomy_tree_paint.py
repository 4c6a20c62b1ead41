"""Paints the trees of airways, arteries and veins: balls close together along their branches."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from simcrop_core.phantoms.anatomy import LABELS, Tree
from simcrop_core.phantoms.anatomy_canvas import Canvas, mix

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
    for tree, hu in ((trees["veins"], vein_hu), (trees["arteries"], artery_hu)):
        _paint_tree(canvas, lobes, tree, 0.0, hu, "pulmonary vessels", deep=False)
    _paint_tree(canvas, lobes, airways, 1.0, 20.0, "airway walls", deep=True)
    _paint_tree(canvas, lobes, airways, 0.0, -975.0, "bronchi", deep=True)


def _paint_tree(
    canvas: Canvas,
    lobes: NDArray[np.uint8],
    tree: Tree,
    walls: float,
    hu: float,
    name: str,
    *,
    deep: bool,
) -> None:
    points, radius = _dense(tree, walls, float(canvas.spacing.min()))
    where, share = _splat(canvas, points, radius)
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


def _dense(tree: Tree, walls: float, spacing: float) -> tuple[FloatArray, FloatArray]:
    """Points close together along the branches in the lobes, and the radius at each."""
    branch = np.repeat(np.arange(len(tree.lobe_B)), np.diff(tree.first_B))
    joined = np.flatnonzero((branch[1:] == branch[:-1]) & (tree.lobe_B[branch[1:]] >= 0))
    starts, stops = tree.points_P3[joined], tree.points_P3[joined + 1]
    more = walls * tree.wall_B[branch[joined]]
    r0, r1 = tree.radius_P[joined] + more, tree.radius_P[joined + 1] + more
    length = np.linalg.norm(stops - starts, axis=1)
    step = np.maximum(0.7 * spacing, 0.45 * np.minimum(r0, r1))
    count = np.maximum(np.ceil(length / step).astype(int), 1)
    piece = np.repeat(np.arange(len(count)), count)
    within = np.arange(count.sum()) - np.repeat(count.cumsum() - count, count)
    t = (within + 0.5) / count[piece]
    points = starts[piece] + (stops - starts)[piece] * t[:, None]
    return points, r0[piece] + (r1 - r0)[piece] * t


def _splat(
    canvas: Canvas, points: FloatArray, radius: FloatArray
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Flat numbers of the voxels near points, and the share of each that balls there fill."""
    width = np.float32(canvas.width * canvas.frame.mean_scale)
    start = np.array([line[0] for line in canvas.lines])
    step = np.array([line[1] - line[0] if line.size > 1 else 1.0 for line in canvas.lines])
    size = np.array(canvas.shape[::-1])
    voxel = (points - start) / step
    limit = np.array([0, 1.0, 1.7, 2.6, 4.0, 30.0])
    found: list[NDArray[np.int64]] = []
    shares: list[NDArray[np.float32]] = []
    for low, high in pairwise(limit):
        chosen = (radius > low) & (radius <= high)
        if not chosen.any():
            continue
        r = radius[chosen].astype(np.float32)
        near = np.rint(voxel[chosen]).astype(np.int32)
        rest = (voxel[chosen] - near).astype(np.float32)
        reach = r.max() + 0.5 * width
        halves = np.ceil(reach / np.abs(step) - 0.45).astype(int).clip(1)
        ball = np.stack(np.meshgrid(*[np.arange(-h, h + 1) for h in halves], indexing="ij"), -1)
        ball = ball.reshape(-1, 3).astype(np.int32)
        ball = ball[np.linalg.norm(ball * step, axis=1) <= reach + 0.6 * np.abs(step).max()]
        within = ((near >= halves) & (near < size - halves)).all(axis=1)
        some = ((near >= -halves) & (near < size + halves)).all(axis=1) & ~within
        for rows, edge in ((within, False), (some, True)):
            if not rows.any():
                continue
            numbers = np.flatnonzero(rows)
            # As many balls at once as the processor's cache holds.
            for part in np.array_split(numbers, -(-numbers.size * len(ball) // _CACHED)):
                _splat_balls(
                    near[part], rest[part], r[part], ball, step, width, size, edge, found, shares
                )
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.float32)
    where, share = np.concatenate(found), np.concatenate(shares)
    total = np.zeros(int(np.prod(canvas.shape)), np.float32)
    np.maximum.at(total, where, share)
    # A voxel may be named several times, each time with the same share.
    return where, total.take(where)


def _splat_balls(
    near_N3: NDArray[np.int32],
    rest_N3: Volume,
    radius_N: Volume,
    ball_B3: NDArray[np.int32],
    step: FloatArray,
    width: np.float32,
    size: NDArray[np.int64],
    edge: bool,
    found: list[NDArray[np.int64]],
    shares: list[Volume],
) -> None:
    """Append numbers and shares of the voxels that balls fill; ``edge``: some leave the canvas."""
    share = np.zeros((len(near_N3), len(ball_B3)), np.float32)
    gap = np.empty_like(share)
    for k in range(3):
        scale = np.float32(step[k])
        np.subtract(ball_B3[:, k] * scale, (rest_N3[:, k] * scale)[:, None], out=gap)
        gap *= gap
        share += gap
    np.sqrt(share, out=share)
    share *= -1 / width
    share += (radius_N / width + np.float32(0.5))[:, None]
    np.minimum(share, 1, out=share)
    # A thread thinner than a voxel fills only its own cross-section of it.
    share *= np.minimum(1, 3.1 * (radius_N / width) ** 2 + np.float32(0.02))[:, None]
    hit = share > 0.01
    if edge:
        for k in range(3):
            at = near_N3[:, k, None] + ball_B3[None, :, k]
            hit &= (at >= 0) & (at < size[k])
    base = (near_N3[:, 2].astype(np.int64) * size[1] + near_N3[:, 1]) * size[0] + near_N3[:, 0]
    jump = (ball_B3[:, 2] * size[1] + ball_B3[:, 1]) * size[0] + ball_B3[:, 0]
    where = np.flatnonzero(hit)
    row, column = np.divmod(where, len(ball_B3))
    found.append(base.take(row) + jump.take(column))
    shares.append(share.reshape(-1).take(where))
