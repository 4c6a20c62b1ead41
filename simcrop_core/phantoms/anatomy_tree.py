"""Trees of airways, pulmonary arteries and veins that fill the lobes, and how they are painted.

Growth after Tawhai, Pullan and Hunter (Ann Biomed Eng 2000): a cloud of points fills a lobe, each
branch grows towards the middle of the points it feeds, then splits them in two. All branches of a
generation grow at once. Calibres fall with the number of points fed (Murray's law, exponent
3). An artery runs beside each airway; veins run between them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simcrop_core.phantoms.anatomy import LABELS, LOBES, Branch
from simcrop_core.phantoms.anatomy_cage import Cage
from simcrop_core.phantoms.anatomy_canvas import Canvas
from simcrop_core.phantoms.anatomy_courses import Course
from simcrop_core.phantoms.anatomy_frame import Frame
from simcrop_core.phantoms.anatomy_heart import HeartShape

FloatArray = NDArray[np.float64]

_MURRAY = 1 / 3
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


@dataclass(frozen=True, slots=True, eq=False)
class Trees:
    """The three trees in patient coordinates."""

    airways: tuple[Branch, ...]
    arteries: tuple[Branch, ...]
    veins: tuple[Branch, ...]

    def world(self, frame: Frame) -> tuple[tuple[Branch, ...], ...]:
        """The trees in RAS millimetres."""
        return tuple(_to_world(frame, t) for t in (self.airways, self.arteries, self.veins))


def grow_trees(cage: Cage, heart: HeartShape) -> Trees:
    """Grow the trees of a person."""
    rng = np.random.default_rng([cage.patient.seed, 13])
    tubes = cage.tubes
    air_points, air_lobes = _cloud(cage, heart, rng, 10.5)
    hubs = np.array([_BRONCHI[lobe][1] for lobe in LOBES], float)
    grown = _grow(hubs, air_points, air_lobes, rng)
    airways = [_root(tubes, "trachea", -1, 0, 1.6), _root(tubes, "right main bronchus", 0, 1, 1.3)]
    airways += [_root(tubes, "left main bronchus", 0, 1, 1.3)]
    airways += [_root(tubes, "bronchus intermedius", 1, 2, 1.3)]
    airways += [_root(tubes, "left lower trunk", 2, 2, 1.2)]
    parents = {"right main bronchus": 1, "left main bronchus": 2}
    parents |= {"bronchus intermedius": 3, "left lower trunk": 4}
    stems = {}
    for lobe, (course, hub, radius) in _BRONCHI.items():
        stems[lobe] = (parents[course], tubes[course][0][-1], np.array(hub, float), radius)
    _attach(airways, stems, grown, shift=0.0, least=0.0, wall=True)
    arteries = [_root(tubes, "pulmonary trunk", -1, 0, 0.0)]
    arteries += [_root(tubes, "right pulmonary artery", 0, 1, 0.0)]
    arteries += [_root(tubes, "left pulmonary artery", 0, 1, 0.0)]
    arteries += [_root(tubes, "right interlobar artery", 1, 2, 0.0)]
    arteries += [_root(tubes, "left interlobar artery", 2, 2, 0.0)]
    parents = {"right pulmonary artery": 1, "left pulmonary artery": 2}
    parents |= {"right interlobar artery": 3, "left interlobar artery": 4}
    stems = {}
    for lobe, (course, radius, share) in _ARTERIES.items():
        points = tubes[course][0]
        start = points[round(share * (len(points) - 1))]
        stems[lobe] = (parents[course], start, np.array(_BRONCHI[lobe][1], float), radius)
    _attach(arteries, stems, grown, shift=1.0, least=0.0, wall=False)
    vein_points, vein_lobes = _cloud(cage, heart, rng, 10.5)
    ends = np.stack([tubes[_VEINS[lobe][0]][0][-1] for lobe in LOBES])
    grown = _grow(ends, vein_points, vein_lobes, rng)
    names = sorted({course for course, _ in _VEINS.values()})
    veins = [_root(tubes, name, -1, 0, 0.0) for name in names]
    stems = {}
    for lobe, (course, radius) in _VEINS.items():
        end = tubes[course][0][-1]
        stems[lobe] = (names.index(course), end, end + 0.01, radius)
    _attach(veins, stems, grown, shift=0.0, least=0.0, wall=False)
    return Trees(tuple(airways), tuple(arteries), tuple(veins))


def _cloud(
    cage: Cage, heart: HeartShape, rng: np.random.Generator, step: float
) -> tuple[FloatArray, NDArray[np.int64]]:
    """Points spread evenly through the lungs, and the number of the lobe (0 to 4) of each."""
    axes = [np.arange(a, b, step) for a, b in ((-138, 139), (-108, 86), (-205, 104))]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    points = points + rng.uniform(-0.45, 0.45, points.shape) * step
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


def _root(tubes: dict[str, Course], name: str, parent: int, generation: int, wall: float) -> Branch:
    points, radius = tubes[name]
    side = "right" if "right" in name or "intermedius" in name else "left" if "left" in name else ""
    return Branch(points, radius, "", side, generation, parent, wall)


def _attach(
    tree: list[Branch],
    stems: dict[str, tuple[int, FloatArray, FloatArray, float]],
    grown: _Grown,
    *,
    shift: float,
    least: float,
    wall: bool,
) -> None:
    """Hang the grown branches on their stems, with calibres; arteries beside the airways."""
    first = {}
    offsets = {}
    for lobe, (parent, start, hub, radius) in stems.items():
        side = lobe.split()[0]
        sign = 1.0 if side == "right" else -1.0
        away = np.array((0.55 * sign, 0.3, 0.75 if "upper" in lobe else -0.2))
        offsets[lobe] = away / np.linalg.norm(away)
        end = hub + offsets[lobe] * shift * (radius + 3.0)
        first[lobe] = len(tree)
        points = np.stack([start, 0.5 * (start + end), end])
        depth = tree[parent].generation + 1
        thick = 1.1 if wall else 0.0
        tree.append(Branch(points, np.full(3, radius), lobe, side, depth, parent, thick))
    share = grown.fed_N / grown.total_L[grown.lobe_N].clip(1)
    radius0 = np.array([stems[lobe][3] for lobe in LOBES])
    keep = (share > 1 / 30) & (grown.fed_N > 1) if wall else grown.fed_N > 0
    calibre = radius0[grown.lobe_N] * np.clip(share, 1e-4, 1) ** _MURRAY
    place = np.full(len(share), -1)
    place[keep] = np.arange(keep.sum()) + len(tree)
    before = np.where(grown.parent_N >= 0, calibre[grown.parent_N], radius0[grown.lobe_N])
    way = grown.end_N3 - grown.start_N3
    length = np.linalg.norm(way, axis=1, keepdims=True)
    heading = way / np.maximum(length, 1e-6)
    bend = np.where(grown.parent_N[:, None] >= 0, heading[grown.parent_N] - heading, 0)
    middle = 0.5 * (grown.start_N3 + grown.end_N3) + 0.14 * length * bend
    beside = np.stack([offsets[lobe] for lobe in LOBES])[grown.lobe_N] * shift
    gap_start, gap_end = 1.5 * before + 0.5, 1.5 * calibre + 0.5
    curves = np.stack(
        [
            grown.start_N3 + beside * gap_start[:, None],
            middle + beside * (0.5 * (gap_start + gap_end))[:, None],
            grown.end_N3 + beside * gap_end[:, None],
        ],
        axis=1,
    )
    calibres = np.stack([0.5 * (before + calibre), calibre, calibre], axis=1)
    for n in np.flatnonzero(keep):
        lobe = LOBES[grown.lobe_N[n]]
        parent = place[grown.parent_N[n]] if grown.parent_N[n] >= 0 else first[lobe]
        depth = tree[first[lobe]].generation + 1 + int(grown.level_N[n])
        thick = float(0.3 + 0.15 * calibre[n]) if wall else 0.0
        side = lobe.split()[0]
        tree.append(Branch(curves[n], calibres[n], lobe, side, depth, int(parent), thick))


def _to_world(frame: Frame, tree: tuple[Branch, ...]) -> tuple[Branch, ...]:
    sizes = np.array([len(b.points_N3) for b in tree])
    points = np.split(frame.world(np.concatenate([b.points_N3 for b in tree])), sizes.cumsum()[:-1])
    k = frame.mean_scale
    return tuple(
        Branch(p, b.radius_N * k, b.lobe, b.side, b.generation, b.parent, b.wall_mm * k)
        for b, p in zip(tree, points, strict=True)
    )


def paint_trees(
    canvas: Canvas,
    lobes: NDArray[np.uint8],
    trees: tuple[tuple[Branch, ...], ...],
    artery_hu: float,
    vein_hu: float,
) -> None:
    """Paint the parts of the trees (in RAS millimetres) that lie in the lobes."""
    airways, arteries, veins = trees
    for tree, hu in ((veins, vein_hu), (arteries, artery_hu)):
        _paint_tree(canvas, lobes, tree, 0.0, hu, "pulmonary vessels", deep=False)
    _paint_tree(canvas, lobes, airways, 1.0, 20.0, "airway walls", deep=True)
    _paint_tree(canvas, lobes, airways, 0.0, -975.0, "bronchi", deep=True)


def _paint_tree(
    canvas: Canvas,
    lobes: NDArray[np.uint8],
    tree: tuple[Branch, ...],
    walls: float,
    hu: float,
    name: str,
    *,
    deep: bool,
) -> None:
    branches = [b for b in tree if b.lobe]
    points, radius = _dense(branches, walls, float(canvas.spacing.min()))
    where, share = _splat(canvas, points, radius)
    if not where.size:
        return
    labels = canvas.labels.reshape(-1)
    free = lobes.reshape(-1)[where] > 0
    fat = labels[where] == LABELS["mediastinal fat"]
    wall = labels[where] == LABELS["airway walls"]
    open_ = free | fat | (wall if deep else False)
    if not deep:
        open_ &= ~np.isin(labels[where], [LABELS["bronchi"], LABELS["trachea"]])
    where, share = where[open_], share[open_]
    values = canvas.hu.reshape(-1)
    values[where] += share * (np.float32(hu) - values[where])
    full = where[share >= 0.5]
    labels[full] = LABELS[name]


def _dense(branches: list[Branch], walls: float, spacing: float) -> tuple[FloatArray, FloatArray]:
    """Points close together along all branches, and the radius at each, vectorised."""
    starts = np.concatenate([b.points_N3[:-1] for b in branches])
    stops = np.concatenate([b.points_N3[1:] for b in branches])
    r0 = np.concatenate([b.radius_N[:-1] + walls * b.wall_mm for b in branches])
    r1 = np.concatenate([b.radius_N[1:] + walls * b.wall_mm for b in branches])
    length = np.linalg.norm(stops - starts, axis=1)
    step = np.maximum(0.6 * spacing, 0.4 * np.minimum(r0, r1))
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
    found, shares = [], []
    for low, high in zip(limit[:-1], limit[1:], strict=True):
        chosen = (radius > low) & (radius <= high)
        if not chosen.any():
            continue
        r = radius[chosen].astype(np.float32)
        near = np.rint(voxel[chosen]).astype(np.int32)
        reach = r.max() + 0.5 * width
        halves = np.ceil(reach / np.abs(step) - 0.45).astype(int).clip(1)
        ball = np.stack(np.meshgrid(*[np.arange(-h, h + 1) for h in halves], indexing="ij"), -1)
        ball = ball.reshape(-1, 3).astype(np.int32)
        ball = ball[np.linalg.norm(ball * step, axis=1) <= reach + 0.6 * np.abs(step).max()]
        at = [near[:, k, None] + ball[None, :, k] for k in range(3)]
        inside = np.ones(at[0].shape, bool)
        far = np.zeros(at[0].shape, np.float32)
        for k in range(3):
            inside &= (at[k] >= 0) & (at[k] < size[k])
            gap = (at[k] - voxel[chosen][:, k, None].astype(np.float32)) * np.float32(step[k])
            far += gap * gap
        share = 0.5 + (r[:, None] - np.sqrt(far)) / width
        # A thread thinner than a voxel fills only its own cross-section of it.
        share = np.clip(share, 0, 1) * np.minimum(1, 3.1 * (r / width) ** 2 + 0.02)[:, None]
        inside &= share > 0.01
        flat = (at[2] * size[1] + at[1]).astype(np.int64) * size[0] + at[0]
        found.append(flat[inside])
        shares.append(share[inside].astype(np.float32))
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.float32)
    where, share = np.concatenate(found), np.concatenate(shares)
    total = np.zeros(int(np.prod(canvas.shape)), np.float32)
    np.maximum.at(total, where, share)
    where = np.flatnonzero(total)
    return where, total[where]
