"""Findings of the pleural space, and airless lung: effusion and atelectasis.

Free fluid lies where gravity puts it. On the back it layers behind the lung, thicker towards the
base, and climbs along the chest wall as far as the lung's recoil lets it: a crescent. Atelectasis:
Woodring and Reed, "Types and mechanisms of pulmonary atelectasis", J Thorac Imaging 11 (1996) 92.
"""

from __future__ import annotations

import numpy as np

from simcrop_core.phantoms.anatomy_labels import LOBES
from simcrop_core.phantoms.findings_scene import AERATED_HU, Scene, grown
from simcrop_core.phantoms.findings_shapes import (
    Bool,
    Box,
    Float,
    mix,
    share,
    texture,
    thin_sheet_share,
)
from simcrop_core.phantoms.plan import FindingPlan

# Weights of height above the back and above the base in the field whose lowest values the fluid
# fills, beside the thickness in front of the chest wall (weight 1).
_UP, _HEADWARDS = 0.5, 0.3


def draw_pleural_effusion(scene: Scene, plan: FindingPlan) -> Bool:
    """Fluid between lung and chest wall, as thick as planned where it is thickest."""
    rng = np.random.default_rng(plan.seed)
    region = scene.part_of_lungs(plan.side)
    box = scene.box_of(region, 4)
    if box is None:
        return scene.empty()
    thickness = float(plan.size_mm or 15.0)
    value = rng.uniform(3, 18) + 2 * texture(box, 8.0, rng)
    if plan.attributes["type"] == "loculated":
        distance = _locule(scene, box, region[box.slices], rng, thickness)
        if distance is None:
            return scene.empty()
        mask = scene.fill_lung(box, share(distance, box.voxel_mm) * region[box.slices], value)
    else:
        field, front = _gravity_field(scene, box, plan.side)
        level = _level(field, front, region[box.slices], thickness)
        scene.fluid[plan.side] = level
        part = share((field - level) * np.float32(1 / (1 + _UP)), box.voxel_mm)
        mask = scene.fill_lung(box, part * region[box.slices], value)
    scene.relabel(box, mask[box.slices], "pleural fluid")
    return mask


def _gravity_field(scene: Scene, box: Box, side: str) -> tuple[Float, Float]:
    """The field that fluid fills from its lowest values, and how far each voxel lies in front of
    the back wall of the healthy lung (mm)."""
    lung = scene.healthy_side(box, side)
    wall = np.where(lung, box.y, np.float32(np.inf)).min(axis=1, keepdims=True)
    front = np.where(np.isfinite(wall), box.y - wall, 0.0).astype(np.float32)
    carina = scene.anatomy.landmarks["carina"]
    height = _UP * (box.y - np.float32(carina[1])) + _HEADWARDS * (box.z - np.float32(carina[2]))
    return height + front, front


def _level(field: Float, front: Float, region: Bool, thickness: float) -> float:
    """The level up to which the fluid is as thick, back to front, as the effusion is to be."""
    thick = region & (front >= thickness)
    if not thick.any():
        return float(field[region].max())
    return float(field[thick].min())


def _locule(
    scene: Scene, box: Box, region: Bool, rng: np.random.Generator, thickness: float
) -> Float | None:
    """Walled-off fluid: a lens against the chest wall, away from the mediastinum."""
    depth = scene.depth_in(box)
    x_wall = scene.anatomy.landmarks["carina"][0]
    aside = np.abs(box.x - np.float32(x_wall)) > 55
    at_wall = box.points(region & (depth > 0) & (depth < 4) & aside & (box.y < np.mean(box.y)))
    if not len(at_wall):
        return None
    center = at_wall[rng.integers(len(at_wall))]
    width = thickness * rng.uniform(1.6, 2.4)
    away = ((box.x - center[0]) ** 2 + (box.y - center[1]) ** 2) / width**2
    away = away + (box.z - center[2]) ** 2 / (1.4 * width) ** 2
    # Its inner border bulges by `thickness` in the middle and meets the pleura at obtuse angles.
    return depth - np.float32(thickness) * np.clip(1 - away, -0.2, 1)


def draw_atelectasis(scene: Scene, plan: FindingPlan) -> Bool:
    """Airless lung: beside fluid, a plate, a wedge, or a whole lobe shrunk to a part of itself."""
    rng = np.random.default_rng(plan.seed)
    kind = plan.attributes["type"]
    if kind == "passive":
        return _passive(scene, plan, rng)
    if kind == "lobar":
        return _lobar(scene, plan, rng)
    return _plate(scene, plan, rng)


def _airless(scene: Scene, box: Box, rng: np.random.Generator) -> Float:
    """Grey values of airless lung: with contrast it enhances more than the fluid beside it."""
    return rng.uniform(30, 55) + (45 if scene.enhanced else 0) + 8 * texture(box, 3.5, rng)


def _passive(scene: Scene, plan: FindingPlan, rng: np.random.Generator) -> Bool:
    level = scene.fluid.get(plan.side)
    region = scene.lung(plan)
    box = scene.box_of(region, 3)
    if level is None or box is None:
        return scene.empty()
    field, _ = _gravity_field(scene, box, plan.side)
    thickness = float(plan.size_mm or 10.0)
    over = (field - np.float32(level)) * np.float32(1 / (1 + _UP))
    distance = over - thickness * (1 + 0.2 * texture(box, 10.0, rng))
    part = share(distance, 1.5 * box.voxel_mm) * region[box.slices]
    value = _airless(scene, box, rng)
    mask = scene.fill_lung(box, part, value)
    # The fluid's own soft edge was mixed with air that is now gone.
    hu = scene.hu[box.slices]
    edge = grown(mask[box.slices]) & scene.solid[box.slices] & (hu < 0)
    hu[edge] = value[edge]
    return mask


def _plate(scene: Scene, plan: FindingPlan, rng: np.random.Generator) -> Bool:
    """A flat or slightly bent band, mostly level, that reaches the pleura."""
    size = float(plan.size_mm or 35.0)
    linear = plan.attributes["type"] == "linear"
    thick = float(rng.uniform(2.0, 4.0) if linear else rng.uniform(6, 11))
    region = scene.lung(plan)
    center = scene.place(rng, region, size / 4, (0.25 * size, 0.5 * size))
    box = None if center is None else scene.box(center, size / 2 + 4)
    if center is None or box is None:
        return scene.empty()
    normal = np.array([rng.normal(0, 0.45), rng.normal(0, 0.5), 1.0])
    normal /= np.linalg.norm(normal)
    long = np.cross(normal, rng.normal(size=3))
    long /= np.linalg.norm(long)
    short = np.cross(normal, long)
    dx, dy, dz = (a - np.float32(c) for a, c in zip((box.x, box.y, box.z), center, strict=True))
    u, v, w = (axis[0] * dx + axis[1] * dy + axis[2] * dz for axis in (long, short, normal))
    bend = rng.normal(0, 0.1)
    w = w + np.float32(bend / size) * u**2 * 4 + np.float32(0.5) * texture(box, 8.0, rng)
    breadth = size * rng.uniform(0.6, 0.9)
    outline = np.sqrt((u / (size / 2)) ** 2 + (v / (breadth / 2)) ** 2)
    taper = np.clip(1.25 - outline, 0.35, 1.0)
    sheet, touched = thin_sheet_share(w / taper, thick / 2, box)
    inside = (outline < 1) & scene.territory(plan)[box.slices]
    free = inside & (scene.lobes[box.slices] > 0) & ~scene.solid[box.slices]
    mix(scene.hu[box.slices], sheet * free, _airless(scene, box, rng))
    mask = touched & free
    scene.solid[box.slices] |= mask
    return scene.seen_in(box, mask)


# Where a collapsed lobe goes (patient coordinates, mm) and how much of its place it keeps: the
# upper lobes against the mediastinum, the middle lobe to the right border of the heart, the lower
# lobes beside the spine.
_COLLAPSE: dict[str, tuple[tuple[float, float, float], tuple[float, float, float], float]] = {
    "right upper lobe": ((22, 10, 45), (1.0, 0.75, 0.6), 0.3),
    "right middle lobe": ((42, 30, -62), (0.8, 0.7, 1.3), 0.35),
    "right lower lobe": ((32, -48, -95), (1.0, 0.9, 0.42), 0.3),
    "left upper lobe": ((-32, 42, 5), (1.1, 0.75, 0.5), 0.32),
    "left lower lobe": ((-34, -50, -95), (1.0, 0.9, 0.42), 0.3),
}
# The lobe that takes the room a collapsed one leaves.
_NEIGHBOUR = {
    "right upper lobe": "right lower lobe",
    "right middle lobe": "right upper lobe",
    "right lower lobe": "right upper lobe",
    "left upper lobe": "left lower lobe",
    "left lower lobe": "left upper lobe",
}


def _lobar(scene: Scene, plan: FindingPlan, rng: np.random.Generator) -> Bool:
    """A lobe without air at its anchor; its neighbour, stretched and darker, takes the room."""
    lobe = plan.lobe
    region = scene.lobes == LOBES.index(lobe) + 1
    box = scene.box_of(region, 3)
    if box is None:
        return scene.empty()
    anchor, weights, keep = _COLLAPSE[lobe]
    place = scene.world(anchor)
    away = sum(
        (weight * (axis - np.float32(at))) ** 2
        for axis, at, weight in zip((box.x, box.y, box.z), place, weights, strict=True)
    )
    inside = region[box.slices]
    distance = np.sqrt(np.asarray(away, np.float32)) + 1.5 * texture(box, 9.0, rng)
    keep *= {"moderate": 1.2, "severe": 0.85}[plan.severity]
    level = float(np.quantile(distance[inside][::7], keep))
    part = share(distance - level, box.voxel_mm) * inside
    rest = inside & (part < 0.5)
    mask = scene.fill_lung(box, part, _airless(scene, box, rng))
    neighbour = LOBES.index(_NEIGHBOUR[lobe]) + 1
    scene.lobes[box.slices][rest] = neighbour
    label = scene.labels[box.slices]
    label[rest & (label == 14 + LOBES.index(lobe))] = 13 + neighbour
    hu = scene.hu[box.slices]
    hu[rest & (hu < AERATED_HU)] -= 25
    return mask
