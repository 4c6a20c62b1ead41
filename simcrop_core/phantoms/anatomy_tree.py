"""Trees of airways, pulmonary arteries and veins that fill the lobes, and how they are painted.

Growth after Tawhai, Pullan and Hunter (Ann Biomed Eng 2000): a cloud of points fills a lobe, each
branch grows towards the middle of the points it feeds, then splits them in two. All branches of a
generation grow at once. Calibres fall with the number of points fed (Murray's law, exponent
2.6). An artery runs beside each airway; veins run between them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from simcrop_core.phantoms.anatomy import LABELS, LOBES, Tree
from simcrop_core.phantoms.anatomy_cage import Cage
from simcrop_core.phantoms.anatomy_canvas import Canvas, mix
from simcrop_core.phantoms.anatomy_courses import Course
from simcrop_core.phantoms.anatomy_frame import Frame
from simcrop_core.phantoms.anatomy_heart import HeartShape

FloatArray = NDArray[np.float64]
Volume = NDArray[np.float32]

_MURRAY = 1 / 2.6
#: Lobe -> where its bronchus starts (end of this course) and where it begins to divide; calibre.
_BRONCHI: dict[str, tuple[str, tuple[float, float, float], float]] = {
    "right upper lobe": ("right main bronchus", (43, -18, -8), 3.8),
    "right middle lobe": ("bronchus intermedius", (42, -8, -50), 2.9),
    "right lower lobe": ("bronchus intermedius", (36, -31, -56), 3.9),
    "left upper lobe": ("left main bronchus", (-54, -15, -25), 3.9),
    "left lower lobe": ("left lower trunk", (-47, -38, -57), 3.8),
}
_ARTERIES: dict[str, tuple[str, float, float]] = {
    "right upper lobe": ("right pulmonary artery", 5.6, 0.6),
    "right middle lobe": ("right interlobar artery", 4.4, 0.8),
    "right lower lobe": ("right interlobar artery", 6.6, 1.0),
    "left upper lobe": ("left pulmonary artery", 6.0, 0.9),
    "left lower lobe": ("left interlobar artery", 6.5, 1.0),
}
_VEINS: dict[str, tuple[str, float]] = {
    "right upper lobe": ("right upper pulmonary vein", 5.4),
    "right middle lobe": ("right upper pulmonary vein", 4.2),
    "right lower lobe": ("right lower pulmonary vein", 5.8),
    "left upper lobe": ("left upper pulmonary vein", 5.5),
    "left lower lobe": ("left lower pulmonary vein", 5.5),
}


#: Mains: name, parent (number in this list), generation, thickness of the wall.
_MAIN_AIRWAYS = (
    ("trachea", -1, 0, 1.6),
    ("right main bronchus", 0, 1, 1.3),
    ("left main bronchus", 0, 1, 1.3),
    ("bronchus intermedius", 1, 2, 1.3),
    ("left lower trunk", 2, 2, 1.2),
)
_MAIN_ARTERIES = (
    ("pulmonary trunk", -1, 0, 0.0),
    ("right pulmonary artery", 0, 1, 0.0),
    ("left pulmonary artery", 0, 1, 0.0),
    ("right interlobar artery", 1, 2, 0.0),
    ("left interlobar artery", 2, 2, 0.0),
)
_MAIN_VEINS = (
    ("right upper pulmonary vein", -1, 0, 0.0),
    ("right lower pulmonary vein", -1, 0, 0.0),
    ("left upper pulmonary vein", -1, 0, 0.0),
    ("left lower pulmonary vein", -1, 0, 0.0),
)
_Mains = tuple[tuple[str, int, int, float], ...]
_CLOUD_MM = 11.0
_CACHED = 60_000


def grow_trees(cage: Cage, heart: HeartShape, frame: Frame) -> dict[str, Tree]:
    """Grow ``airways``, ``arteries`` and ``veins`` of a person; in RAS millimetres."""
    rng = np.random.default_rng([cage.patient.seed, 13])
    tubes = cage.tubes
    hubs = {lobe: np.array(hub, float) for lobe, (_, hub, _) in _BRONCHI.items()}
    grown = _grow(np.stack([hubs[lobe] for lobe in LOBES]), *_cloud(cage, heart, rng), rng)
    stems = {n: _Stem(c, tubes[c][0][-1], hubs[n], r) for n, (c, _, r) in _BRONCHI.items()}
    airways = _tree(tubes, _MAIN_AIRWAYS, stems, grown, shift=0.0, wall=True)
    stems = {}
    for lobe, (course, radius, share) in _ARTERIES.items():
        points = tubes[course][0]
        start = points[round(share * (len(points) - 1))]
        stems[lobe] = _Stem(course, start, hubs[lobe], radius)
    arteries = _tree(tubes, _MAIN_ARTERIES, stems, grown, shift=1.0, wall=False)
    ends = np.stack([tubes[_VEINS[lobe][0]][0][-1] for lobe in LOBES])
    grown = _grow(ends, *_cloud(cage, heart, rng), rng)
    stems = {n: _Stem(c, tubes[c][0][-2], tubes[c][0][-1], r) for n, (c, r) in _VEINS.items()}
    veins = _tree(tubes, _MAIN_VEINS, stems, grown, shift=0.0, wall=False)
    trees = {"airways": airways, "arteries": arteries, "veins": veins}
    return {name: _to_world(frame, tree) for name, tree in trees.items()}


@dataclass(frozen=True, slots=True, eq=False)
class _Stem:
    """How a lobe hangs on the main branches: its parent, from there to its hub, calibre."""

    parent: str
    start: FloatArray
    hub: FloatArray
    radius: float


def _cloud(
    cage: Cage, heart: HeartShape, rng: np.random.Generator
) -> tuple[FloatArray, NDArray[np.int64]]:
    """Points spread evenly through the lungs, and the number of the lobe (0 to 4) of each."""
    axes = [np.arange(a, b, _CLOUD_MM) for a, b in ((-138, 139), (-108, 86), (-205, 104))]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    points = points + rng.uniform(-0.45, 0.45, points.shape) * _CLOUD_MM
    x, y, z = points.T.astype(np.float32)
    inside = cage.inside(x, y, z)
    keep = inside < -1.5
    x, y, z, inside, points = x[keep], y[keep], z[keep], inside[keep], points[keep]
    sac = heart.chambers(x, y, z)["pericardium"]
    lungs = cage.lungs(inside, cage.mediastinum(x, y, z, sac), cage.diaphragm(x, y, z))
    keep = lungs < -1.5
    x, y, z, points = x[keep], y[keep], z[keep], points[keep]
    upper = cage.oblique_fissure(x, y, z) > 0
    top = cage.horizontal_fissure(x, y, z) > 0
    right = np.where(upper, np.where(top, 0, 1), 2)
    return points, np.where(x > 0, right, np.where(upper, 3, 4))


@dataclass(frozen=True, slots=True, eq=False)
class _Grown:
    """Branches as arrays: ends, how many points each feeds, lobe, parent (-1 at the hub), level."""

    start_N3: FloatArray
    end_N3: FloatArray
    fed_N: NDArray[np.int64]
    lobe_N: NDArray[np.int64]
    parent_N: NDArray[np.int64]
    level_N: NDArray[np.int64]
    total_L: NDArray[np.int64]


def _grow(
    hubs_L3: FloatArray, points_P3: FloatArray, lobe_P: NDArray[np.int64], rng: np.random.Generator
) -> _Grown:
    group = lobe_P.copy()
    tips, owner = hubs_L3.copy(), np.full(len(hubs_L3), -1)
    lobes, made = np.arange(len(hubs_L3)), []
    alive = points_P3
    total = np.bincount(lobe_P, minlength=len(hubs_L3))
    number = 0
    for level in range(14):
        count = np.bincount(group, minlength=len(tips))
        safe = np.maximum(count, 1)[:, None]
        center = np.stack([np.bincount(group, alive[:, k], len(tips)) for k in range(3)], 1) / safe
        share = np.where(count > 2, rng.uniform(0.36, 0.5, len(tips)), 0.85)
        # The first divisions, into segments, follow each other closely.
        share = (share * (0.3, 0.5, 0.85, 1.0)[min(level, 3)])[:, None]
        ends = tips + (center - tips) * share
        made.append((tips, ends, count, lobes, owner, np.full(len(tips), level)))
        # Split each cloud at its middle, across the widest direction.
        offset = alive - center[group]
        spread = np.zeros((len(tips), 3, 3))
        for i in range(3):
            for j in range(i, 3):
                spread[:, i, j] = np.bincount(group, offset[:, i] * offset[:, j], len(tips))
                spread[:, j, i] = spread[:, i, j]
        axis = np.linalg.eigh(spread)[1][:, :, -1]
        axis = axis + rng.normal(0, 0.18, axis.shape)
        along = (offset * axis[group]).sum(axis=1)
        children = group * 2 + (along > 0)
        going = count[group] > 1
        alive, children = alive[going], children[going]
        if not len(alive):
            break
        used, group = np.unique(children, return_inverse=True)
        parents = used // 2
        tips, owner, lobes = ends[parents], parents + number, lobes[parents]
        number += len(count)
    arrays = [np.concatenate(part) for part in zip(*made, strict=True)]
    return _Grown(*arrays, total)  # type: ignore[call-arg]


def _tree(
    tubes: dict[str, Course],
    mains: _Mains,
    stems: dict[str, _Stem],
    grown: _Grown,
    *,
    shift: float,
    wall: bool,
) -> Tree:
    """Hang the grown branches on their stems, with calibres; arteries beside the airways."""
    names = [name for name, *_ in mains]
    points = [tubes[name][0] for name in names]
    radius = [tubes[name][1] for name in names]
    rows = [(-1, _side(n), g, p, w) for n, p, g, w in mains]
    beside = np.zeros((len(LOBES), 3))
    for number, lobe in enumerate(LOBES):
        stem, side = stems[lobe], 1 if lobe.startswith("right") else -1
        away = np.array((0.55 * side, 0.3, 0.75 if "upper" in lobe else -0.2))
        beside[number] = shift * away / np.linalg.norm(away)
        end = stem.hub + beside[number] * (1.5 * stem.radius + 0.5)
        points.append(np.stack([stem.start, 0.5 * (stem.start + end), end]))
        radius.append(np.full(3, stem.radius))
        parent = names.index(stem.parent)
        rows.append((number, side, mains[parent][2] + 1, parent, 1.1 if wall else 0.0))
    share = grown.fed_N / grown.total_L[grown.lobe_N].clip(1)
    radius_L = np.array([stems[lobe].radius for lobe in LOBES])
    calibre = radius_L[grown.lobe_N] * np.clip(share, 1e-4, 1) ** _MURRAY
    top = grown.parent_N < 0
    before = np.where(top, radius_L[grown.lobe_N], calibre[grown.parent_N])
    length = np.linalg.norm(grown.end_N3 - grown.start_N3, axis=1, keepdims=True)
    heading = (grown.end_N3 - grown.start_N3) / np.maximum(length, 1e-6)
    # A branch leaves along its parent's way and bends into its own.
    bend = np.where(top[:, None], 0, heading[grown.parent_N] - heading)
    middle = 0.5 * (grown.start_N3 + grown.end_N3) + 0.14 * length * bend
    aside, near, far = beside[grown.lobe_N], 1.5 * before + 0.5, 1.5 * calibre + 0.5
    curves_N33 = np.stack(
        [
            grown.start_N3 + aside * near[:, None],
            middle + aside * (0.5 * (near + far))[:, None],
            grown.end_N3 + aside * far[:, None],
        ],
        axis=1,
    )
    widths_N3 = np.stack([0.5 * (before + calibre), calibre, calibre], axis=1)
    # Beyond the segments' branches an airway's wall is too thin to be seen.
    keep = (share > 1 / 30) & (grown.fed_N > 1) if wall else grown.fed_N > 0
    place = np.cumsum(keep) - 1 + len(rows)
    first_L = len(mains) + np.arange(len(LOBES))
    parent_N = np.where(top, first_L[grown.lobe_N], place[grown.parent_N])
    start = np.array([row[2] for row in rows])[first_L][grown.lobe_N] + 1
    table = np.array([row[:4] for row in rows])
    lobe_M = grown.lobe_N[keep]
    count = np.concatenate([[len(p) for p in points], np.full(keep.sum(), 3)])
    thick = 0.3 + 0.15 * calibre[keep] if wall else np.zeros(keep.sum())
    return Tree(
        points_P3=np.concatenate([*points, curves_N33[keep].reshape(-1, 3)]),
        radius_P=np.concatenate([*radius, widths_N3[keep].reshape(-1)]),
        first_B=np.concatenate([[0], np.cumsum(count)]),
        lobe_B=np.concatenate([table[:, 0], lobe_M]),
        side_B=np.concatenate([table[:, 1], np.where(lobe_M < 3, 1, -1)]),
        generation_B=np.concatenate([table[:, 2], (start + grown.level_N)[keep]]),
        parent_B=np.concatenate([table[:, 3], parent_N[keep]]),
        wall_B=np.concatenate([[row[4] for row in rows], thick]),
    )


def _side(name: str) -> int:
    if "right" in name or "intermedius" in name:
        return 1
    return -1 if "left" in name else 0


def _to_world(frame: Frame, tree: Tree) -> Tree:
    k = frame.mean_scale
    return replace(
        tree,
        points_P3=frame.world(tree.points_P3),
        radius_P=tree.radius_P * k,
        wall_B=tree.wall_B * k,
    )


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
