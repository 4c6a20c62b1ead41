"""Trees of airways, pulmonary arteries and veins that fill the lobes.

Growth after Tawhai, Pullan and Hunter (Ann Biomed Eng 2000): a cloud of points fills a lobe, each
branch grows towards the middle of the points it feeds, then splits them in two. All branches of a
generation grow at once. Calibres fall with the number of points fed (Murray's law, exponent
2.6). An artery runs beside each airway; veins run between them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from simcrop_core.phantoms.anatomy import Tree
from simcrop_core.phantoms.anatomy_cage import Cage
from simcrop_core.phantoms.anatomy_courses import Course
from simcrop_core.phantoms.anatomy_frame import Frame
from simcrop_core.phantoms.anatomy_heart import HeartShape
from simcrop_core.phantoms.anatomy_labels import LOBES

FloatArray = NDArray[np.float64]

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
    cavity = cage.cavity(inside, cage.diaphragm(x, y, z))
    keep = cavity < -1.5
    x, y, z, cavity, points = x[keep], y[keep], z[keep], cavity[keep], points[keep]
    sac = heart.chambers(x, y, z)["pericardium"]
    lungs = cage.lungs(cavity, cage.mediastinum(x, y, z, sac))
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
        # Split each cloud at its middle, across the widest direction; one point is no cloud.
        sway, clouds = rng.normal(0, 0.18, (len(tips), 3)), count > 1
        going = clouds[group]
        alive, group = alive[going], group[going]
        if not len(alive):
            break
        offset = alive - center[group]
        spread = np.zeros((len(tips), 3, 3))
        for i in range(3):
            for j in range(i, 3):
                spread[:, i, j] = np.bincount(group, offset[:, i] * offset[:, j], len(tips))
                spread[:, j, i] = spread[:, i, j]
        sway[clouds] += np.linalg.eigh(spread[clouds])[1][:, :, -1]
        along = (offset * sway[group]).sum(axis=1)
        children = group * 2 + (along > 0)
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
