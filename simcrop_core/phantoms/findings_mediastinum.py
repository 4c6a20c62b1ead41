"""Findings of the mediastinum: a large heart, fluid round it, hernia, nodes, calcified arteries.

Sizes: pericardial effusion by its thickness (Adler et al., ESC guidelines, Eur Heart J 36 (2015)
2921); nodes are enlarged from 10 mm short axis on, stations after Rusch et al., J Thorac Oncol 4
(2009) 568; calcium is what exceeds 130 HU (Agatston et al., J Am Coll Cardiol 15 (1990) 827).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simcrop_core.phantoms.anatomy import Centreline
from simcrop_core.phantoms.anatomy_labels import GROUPS, LABELS
from simcrop_core.phantoms.findings_scene import Scene, one_of
from simcrop_core.phantoms.findings_shapes import (
    Bool,
    Box,
    Float,
    directions,
    make_lump,
    mix,
    outside_distance,
    share,
    texture,
    thin_share,
    thin_sheet_share,
    tube_distance,
)
from simcrop_core.phantoms.plan import FindingPlan

# What gives way to a mass in the mediastinum; lung does too.
_SOFT = ("mediastinal fat", "azygos vein", "pulmonary vessels")


def draw_cardiomegaly(scene: Scene, plan: FindingPlan) -> Bool:
    """The heart, which was drawn large from the start."""
    return scene.seen(scene.structure(*GROUPS["heart"]))


def _gives_way(scene: Scene, box: Box, *names: str) -> Bool:
    lung = (scene.lobes[box.slices] > 0) & ~scene.solid[box.slices]
    soft = one_of(scene.labels[box.slices], [LABELS[name] for name in names])
    return soft & ~scene.solid[box.slices] | lung


def draw_pericardial_effusion(scene: Scene, plan: FindingPlan) -> Bool:
    """Fluid round the heart: behind the left ventricle first, all around when there is much."""
    rng = np.random.default_rng(plan.seed)
    heart = scene.structure(*GROUPS["heart"])
    size = float(plan.size_mm or 8.0)
    box = scene.box_of(heart, size + 4)
    if box is None:
        return scene.empty()
    away = outside_distance(heart[box.slices], box)
    center = scene.anatomy.heart.center_mm
    dx, dy, dz = (a - np.float32(c) for a, c in zip((box.x, box.y, box.z), center, strict=True))
    length = np.sqrt(dx**2 + dy**2 + dz**2) + np.float32(1e-3)
    # On the back fluid gathers behind and beside the left ventricle.
    toward = (-0.72 * dx - 0.62 * dy - 0.3 * dz) / length
    if plan.attributes["extent"] == "circumferential":
        thick = 0.6 + 0.4 * np.clip(1.3 * toward, -0.5, 1)
    else:
        thick = np.clip(1.6 * toward - 0.35, 0, 1)
    distance = away - np.float32(size) * thick
    free = _gives_way(scene, box, *_SOFT) & ~heart[box.slices]
    part = share(distance, box.voxel_mm) * (free & (thick > 0.05))
    mask = part >= 0.5
    value = rng.uniform(2, 22) + 2 * texture(box, 8.0, rng)
    mix(scene.hu[box.slices], part, value)
    scene.relabel(box, mask, "pericardial fluid")
    return scene.seen_in(box, mask)


def draw_hiatal_hernia(scene: Scene, plan: FindingPlan) -> Bool:
    """Stomach or fat that has slid through the hiatus, behind the heart."""
    rng = np.random.default_rng(plan.seed)
    size = float(plan.size_mm or 30.0)
    hiatus = scene.anatomy.landmarks["hiatus"]
    box = scene.box(hiatus + np.array([0, 0, 0.4 * size]), 1.3 * size + 12)
    if box is None:
        return scene.empty()
    free = _gives_way(scene, box, *_SOFT, "oesophagus")
    # A large one spreads to both sides, for spine and heart leave little room front to back.
    flat = float(np.clip(1.05 - size / 140, 0.55, 0.9))
    half = 0.5 * size * np.array([1.0, flat, 0.5 + 0.5 * flat])
    ball = np.concatenate([directions(60) * s for s in (1.0, 0.6)]) * half
    whole = scene.empty()
    whole[box.slices] = free
    shifts = rng.uniform((-0.3, -0.3, 0.3), (0.3, 0.3, 0.55), (60, 3)) * size
    fits = scene.lookup(whole, (hiatus + shifts)[:, None] + ball).mean(axis=1)
    center = hiatus + shifts[int(np.argmax(fits))]
    dx, dy, dz = (a - np.float32(c) for a, c in zip((box.x, box.y, box.z), center, strict=True))
    radius = np.sqrt((dx / half[0]) ** 2 + (dy / half[1]) ** 2 + (dz / half[2]) ** 2)
    surface = (radius - 1) * np.float32(half.min()) + np.float32(0.6) * texture(box, 9.0, rng)
    outer = share(surface, box.voxel_mm) * free
    mask = outer >= 0.5
    inner = share(surface + np.float32(rng.uniform(2.5, 4.5)), box.voxel_mm)
    inside = _hernia_content(scene, plan, rng, box, dy / half[1])
    wall = np.float32(rng.uniform(35, 50) + (25 if scene.enhanced else 0))
    value = wall + inner * (inside - wall)
    if plan.attributes["content"] == "fat":
        value = inside
    mix(scene.hu[box.slices], outer, value)
    scene.relabel(box, mask, "stomach" if plan.attributes["content"] != "fat" else "abdominal fat")
    return scene.seen_in(box, mask)


def _hernia_content(
    scene: Scene, plan: FindingPlan, rng: np.random.Generator, box: Box, height: Float
) -> Float:
    """Grey values inside; gas lies in front, for the patient lies on the back."""
    content = plan.attributes["content"]
    if content == "fat":
        strands = np.abs(texture(box, 4.0, rng)) < 0.12
        return np.float32(-98) + 4 * texture(box, 5.0, rng) + 70 * strands
    food = np.float32(rng.uniform(8, 35)) + 10 * texture(box, 3.5, rng)
    level = rng.uniform(-0.1, 0.3) if content == "air-fluid level" else rng.uniform(0.45, 0.8)
    gas = np.clip((height - np.float32(level)) * 8 + 0.5, 0, 1)
    return food + gas * (np.float32(-960) - food)


# Centres of the stations in patient coordinates (mm), and how far a node may lie from them.
_STATIONS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "right upper paratracheal": ((17, 2, 58), (7, 8, 10)),
    "left upper paratracheal": ((-15, -2, 52), (6, 8, 9)),
    "right lower paratracheal": ((17, -1, 14), (6, 7, 8)),
    "left lower paratracheal": ((-14, -13, 8), (5, 6, 6)),
    "prevascular": ((-6, 34, 26), (12, 9, 14)),
    "aortopulmonary window": ((-25, 2, 8), (6, 9, 6)),
    "subcarinal": ((2, -16, -24), (7, 6, 8)),
    "right hilar": ((42, -13, -26), (8, 9, 9)),
    "left hilar": ((-48, -20, -22), (8, 9, 9)),
    "right axillary": ((128, 5, 45), (22, 25, 28)),
    "left axillary": ((-128, 5, 45), (22, 25, 28)),
    "paraoesophageal": ((3, -30, -62), (9, 7, 18)),
}


def draw_lymphadenopathy(scene: Scene, plan: FindingPlan) -> Bool:
    """Enlarged nodes of a station; the largest has the planned short axis."""
    station = plan.attributes["station"]
    axilla = "axillary" in station
    place, spread = _STATIONS[station]
    whole = scene.empty()
    size = float(plan.size_mm or 12.0)
    for number in range(plan.count):
        rng = np.random.default_rng([plan.seed, number])
        short = size if number == 0 else max(10.2, size * float(rng.uniform(0.7, 0.95)))
        room = scene.box(scene.world(place), max(spread) + 2 * short + 8)
        if room is None:
            continue
        names = ("subcutaneous fat",) if axilla else _SOFT
        free = scene.empty()
        free[room.slices] = _gives_way(scene, room, *names)
        if axilla:
            free[room.slices] &= scene.lobes[room.slices] == 0
        free &= ~whole
        whole |= _node(scene, rng, free, np.array(place), np.array(spread), short, axilla)
    return scene.seen(whole)


def _node(
    scene: Scene,
    rng: np.random.Generator,
    free: Bool,
    place: NDArray[np.float64],
    spread: NDArray[np.float64],
    short: float,
    axilla: bool,
) -> Bool:
    long = short * float(rng.uniform(1.15, 1.6))
    tried = scene.world(place + rng.uniform(-1, 1, (160, 3)) * spread)
    ball = np.concatenate([directions(40), 0.6 * directions(20)]) * (short / 2 + 0.5)
    fits = scene.lookup(free, tried[:, None] + ball).mean(axis=1)
    # Of places as good, the one nearest to the station's middle.
    off = np.linalg.norm((tried - scene.world(place)) / spread, axis=1)
    center = tried[int(np.argmax(fits - 0.02 * off))]
    lump = make_lump(rng, center, long, shortest_mm=short)
    box = scene.box(center, long / 2 + 4)
    if box is None:
        return scene.empty()
    distance = lump.distance(box) * np.float32(short / long)
    part = share(distance, box.voxel_mm) * free[box.slices]
    value = rng.uniform(28, 48) + (30 if scene.enhanced else 0) + 4 * texture(box, 4.0, rng)
    if axilla:  # these keep a fatty hilum
        value = value - 70 * share(distance + 0.32 * short, box.voxel_mm)
    mix(scene.hu[box.slices], part, value)
    mask = part >= 0.5
    scene.lobes[box.slices][mask] = 0
    scene.relabel(
        box,
        mask & (scene.labels[box.slices] > 0),
        "mediastinal fat" if not axilla else "subcutaneous fat",
    )
    out = scene.empty()
    out[box.slices] = mask
    return out


def draw_arterial_calcification(scene: Scene, plan: FindingPlan) -> Bool:
    """Plaques in the wall of the aorta, and at times of its branches."""
    rng = np.random.default_rng(plan.seed)
    lines = scene.anatomy.centrelines
    aorta = lines["aorta"]
    height = np.array([p[2] for p in aorta.at(np.linspace(0, 1, 200))[0]])
    top = float(np.argmax(height)) / 199
    whole = scene.empty()
    for number in range(plan.count):
        site = plan.attributes["site"]
        line, fraction = aorta, float(rng.normal(top, 0.05))
        if site != "aortic arch" and number % 2:
            fraction = float(rng.uniform(top, 0.85))
        if site == "aorta and its branches" and number % 3 == 2:
            names = ("brachiocephalic artery", "left subclavian", "left carotid")
            line = lines[names[int(rng.integers(3))]]
            fraction = float(rng.uniform(0.0, 0.25))
        whole |= _plaque(scene, rng, line, fraction, plan.severity)
    return whole


def _plaque(
    scene: Scene, rng: np.random.Generator, line: Centreline, fraction: float, severity: str
) -> Bool:
    """A shell of calcium along the wall of a vessel."""
    (before, at, after), (_, radius, _) = line.at(
        np.clip([fraction - 0.01, fraction, fraction + 0.01], 0, 1)
    )
    along = (after - before) / max(float(np.linalg.norm(after - before)), 1e-6)
    across = np.cross(along, rng.normal(size=3))
    across /= np.linalg.norm(across)
    wall = at + across * radius
    reach = float(rng.uniform(2.0, {"mild": 5.0, "moderate": 7.0, "severe": 11.0}[severity]))
    box = scene.box(wall, reach + 4)
    if box is None:
        return scene.empty()
    share_of_line = min(0.5, 2 * (reach + radius) / line.length_mm)
    points, radii = line.at(np.linspace(fraction - share_of_line, fraction + share_of_line, 12))
    surface = tube_distance(box, points, radii, 12.0)
    away = np.sqrt(
        (box.x - np.float32(wall[0])) ** 2
        + (box.y - np.float32(wall[1])) ** 2
        + (box.z - np.float32(wall[2])) ** 2
    )
    half = float(rng.uniform(0.7, 1.3))
    sheet, touched = thin_sheet_share(surface + half, half, box)
    part = sheet * share(away - reach, box.voxel_mm)
    mask = touched & (away <= reach)
    mix(scene.hu[box.slices], part, np.float32(rng.uniform(500, 1300)))
    return scene.seen_in(box, mask)


_CORONARIES = {
    "LAD": ("left main coronary", "left anterior descending"),
    "LCx": ("circumflex",),
    "RCA": ("right coronary",),
}


def draw_coronary_calcification(scene: Scene, plan: FindingPlan) -> Bool:
    """Plaques along the planned coronary arteries, mostly in their first half."""
    rng = np.random.default_rng(plan.seed)
    vessels = plan.attributes["vessels"].split(", ")
    whole = scene.empty()
    for number in range(plan.count):
        names = _CORONARIES[vessels[number % len(vessels)]]
        line = scene.anatomy.centrelines[names[-1] if rng.random() < 0.8 else names[0]]
        start = float(rng.beta(1.2, 2.2))
        length = float(rng.uniform(3, {"mild": 6, "moderate": 10, "severe": 18}[plan.severity]))
        points, _ = line.at(np.linspace(start, start + length / line.length_mm, 5))
        points = points + rng.normal(0, 0.6, 3)
        radius = float(rng.uniform(0.9, 1.7))
        box = scene.box(points, 5)
        if box is None:
            continue
        distance = tube_distance(box, points, radius, 4.0)
        part, touched = thin_share(distance, radius, box)
        mix(scene.hu[box.slices], part, np.float32(rng.uniform(500, 1200)))
        whole |= scene.seen_in(box, touched & (part > 0.1))
    return whole
