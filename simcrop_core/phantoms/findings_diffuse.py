"""Findings spread through the lungs: emphysema, mosaic attenuation, thick septa, and bronchi.

Sizes and places: Hansell et al., "Fleischner Society: Glossary of Terms for Thoracic Imaging",
Radiology 246 (2008) 697: secondary lobules are 10 to 25 mm across; centrilobular emphysema makes
holes without walls, mostly in the upper zones; a bronchus is dilated when its lumen is wider than
its artery, and normally shows no lumen within 1 cm of the pleura.
"""

from __future__ import annotations

import numpy as np

from simcrop_core.phantoms.anatomy import Branch
from simcrop_core.phantoms.findings_lung import tint
from simcrop_core.phantoms.findings_scene import Scene
from simcrop_core.phantoms.findings_shapes import (
    Bool,
    Box,
    Float,
    lobule_walls,
    mix,
    share,
    smooth_line,
    texture,
    thin_sheet_share,
    tube_distance,
)
from simcrop_core.phantoms.plan import FindingPlan

#: Grey value of lung that is only air.
HOLE_HU = -975.0


def draw_emphysema(scene: Scene, plan: FindingPlan) -> Bool:
    """Lung destroyed: small holes, a row of cysts under the pleura, bullae, or all of it darker."""
    rng = np.random.default_rng(plan.seed)
    region = scene.lung(plan)
    box = scene.box_of(region)
    if box is None:
        return scene.empty()
    kind = plan.attributes["type"]
    if kind == "panlobular":
        return _panlobular(scene, plan, rng, box, region)
    free = region[box.slices] & ~scene.solid[box.slices]
    if kind == "centrilobular":
        holes = _small_holes(scene, plan, rng, box, region)
    elif kind == "paraseptal":
        holes = _row_of_cysts(scene, plan, rng, box, free)
    else:
        holes = _bullae(scene, plan, rng, box, region)
    hu = scene.hu[box.slices]
    part = share(holes, box.voxel_mm) * free
    if kind != "centrilobular":  # cysts and bullae have walls, and push the vessels aside
        wall, _ = thin_sheet_share(holes, 0.5, box)
        mix(hu, wall * free * (hu < -300), np.float32(-350))
    mix(hu, part, np.float32(HOLE_HU))
    mask = part >= 0.5
    scene.solid[box.slices] |= mask
    return scene.seen_in(box, mask)


def _small_holes(
    scene: Scene, plan: FindingPlan, rng: np.random.Generator, box: Box, region: Bool
) -> Float:
    """Round holes of 3 to 11 mm, at most one to a lobule, more of them towards the apex."""
    share_of_lobules = {"mild": 0.3, "moderate": 0.55, "severe": 0.9}[plan.severity]
    widest = {"mild": 3.0, "moderate": 4.2, "severe": 5.5}[plan.severity]
    cell = 14.0
    low = np.array([box.x.min(), box.y.min(), box.z.min()])
    high = np.array([box.x.max(), box.y.max(), box.z.max()])
    count = int(np.prod((high - low) / cell + 1))
    points = rng.uniform(low, high, (count, 3)).astype(np.float32)
    radii = rng.uniform(1.6, widest, count)
    higher = (points[:, 2] - low[2]) / max(float(high[2] - low[2]), 1.0)
    keep = rng.random(count) < share_of_lobules * (0.35 + 0.65 * higher)
    keep &= scene.lookup(region, points)
    out = np.full(box.shape, 6.0, np.float32)
    for point, radius in zip(points[keep], radii[keep], strict=True):
        other = point + rng.normal(0, 0.7 * radius, 3)
        tube_distance(box, [point, other], [radius, 0.8 * radius], 2.5, out=out)
    return out


def _row_of_cysts(
    scene: Scene, plan: FindingPlan, rng: np.random.Generator, box: Box, free: Bool
) -> Float:
    """Cysts side by side under the pleura, in stretches: distance to their surface."""
    reach = {"mild": 6.0, "moderate": 9.0, "severe": 13.0}[plan.severity]
    spread = {"mild": 0.9, "moderate": 0.55, "severe": 0.1}[plan.severity]
    depth = scene.depth_in(box)
    zone = free & (depth < reach + 3)
    stretch = (spread - texture(box, 17.0, rng)) * 6
    out = np.full(box.shape, 6.0, np.float32)
    walls = lobule_walls(box.points(zone), reach * rng.uniform(1.0, 1.3), plan.seed)
    out[zone] = np.maximum(np.maximum(depth[zone] - reach, stretch[zone]), 0.9 - walls)
    return out


def _bullae(
    scene: Scene, plan: FindingPlan, rng: np.random.Generator, box: Box, region: Bool
) -> Float:
    """Large thin-walled spheres of air against the pleura."""
    radii = [float(plan.size_mm or 30.0) / 2]
    radii += list(rng.uniform(0.35, 0.7, plan.count - 1) * radii[0])
    out = np.full(box.shape, 6.0, np.float32)
    for radius in radii:
        center = scene.place(rng, region, radius, (radius, radius + 3))
        if center is not None:
            tube_distance(box, [center, center + 0.1], radius, 6.0, out=out)
    return out


def _panlobular(
    scene: Scene, plan: FindingPlan, rng: np.random.Generator, box: Box, region: Bool
) -> Bool:
    """Even darkening with thin vessels, no holes to be told apart."""
    fall = {"mild": 45.0, "moderate": 70.0, "severe": 95.0}[plan.severity]
    inside = region[box.slices] & ~scene.solid[box.slices]
    weight = np.clip(0.9 + 0.15 * texture(box, 12.0, rng), 0, 1) * inside
    hu = scene.hu[box.slices]
    vessel = np.clip((hu + 850) / 300, 0, 1)
    hu -= weight * (fall * (1 - vessel) + 120 * vessel * (hu < 0))
    np.maximum(hu, -1005, out=hu)
    return scene.seen_in(box, inside)


def draw_mosaic(scene: Scene, plan: FindingPlan) -> Bool:
    """Patches of darker and of lighter lung that follow lobules; fewer vessels in the dark."""
    rng = np.random.default_rng(plan.seed)
    region = scene.lung(plan)
    box = scene.box_of(region)
    if box is None:
        return scene.empty()
    contrast = {"mild": 80.0, "moderate": 115.0, "severe": 150.0}[plan.severity]
    field = texture(box, 13.0, rng) + 0.45 * texture(box, 6.0, rng)
    # Steep between patches, as lobules end at their septa.
    light = np.clip(field * np.float32(2.5), -1, 1) * np.float32(0.5) + np.float32(0.5)
    inside = region[box.slices] & ~scene.solid[box.slices]
    tint(scene, box, light * inside, 0.62 * contrast)
    dark = (1 - light) * inside
    hu = scene.hu[box.slices]
    vessel = np.clip((hu + 820) / 300, 0, 1) * (hu < 150)
    hu -= dark * (0.38 * contrast * (1 - vessel) + 170 * vessel)
    np.maximum(hu, -1000, out=hu, where=inside)
    return scene.seen_in(box, inside)


def draw_septal_thickening(scene: Scene, plan: FindingPlan) -> Bool:
    """Walls of lobules as thin lines, polygons of 10 to 25 mm, densest under the pleura."""
    rng = np.random.default_rng(plan.seed)
    region = scene.lung(plan)
    box = scene.box_of(region)
    if box is None:
        return scene.empty()
    reach = {"mild": 13.0, "moderate": 19.0, "severe": 28.0}[plan.severity]
    half = {"mild": 0.45, "moderate": 0.6, "severe": 0.85}[plan.severity]
    gaps = {"mild": 0.2, "moderate": -0.2, "severe": -0.7}[plan.severity]
    # Not every septum is thick: stretches of lung are spared.
    patchy = np.clip((texture(box, 12.0, rng) - gaps) * 2.5, 0, 1)
    patchy *= np.clip((reach - scene.depth_in(box)) * np.float32(0.25), 0, 1)
    zone = region[box.slices] & ~scene.solid[box.slices] & (patchy > 0.05)
    wall = np.full(box.shape, 9.0, np.float32)
    wall[zone] = lobule_walls(box.points(zone), float(rng.uniform(15, 22)), plan.seed)
    part, touched = thin_sheet_share(wall, half, box)
    mix(scene.hu[box.slices], part * patchy * zone, np.float32(-60))
    return scene.seen_in(box, touched & zone & (patchy > 0.4))


def _bronchi(scene: Scene, plan: FindingPlan, side: str) -> list[Branch]:
    """Segmental and smaller bronchi of the lung or lobe that a plan names."""
    lobe = "left upper lobe" if plan.lobe == "lingula" else plan.lobe
    chosen = []
    for branch in scene.anatomy.branches("airways", lobe=lobe, side=side):
        if not branch.lobe or branch.generation < 3 or branch.radius_N[0] > 3.2:
            continue
        level = "any" if plan.lobe else plan.level
        named = level in ("any", *branch.lobe.split())
        if named or (level == "middle" and branch.lobe == "left upper lobe"):
            chosen.append(branch)
    return chosen


def _drawn_bronchi(
    scene: Scene, plan: FindingPlan, widen: float, wall_mm: float, share_of_all: float
) -> Bool:
    """Draw a share of the bronchi with lumens ``widen`` times as wide and walls this thick."""
    rng = np.random.default_rng(plan.seed)
    kind = plan.attributes.get("type", "")
    region = scene.lung(plan)
    box = scene.box_of(region, 2)
    if box is None:
        return scene.empty()
    drawn = max(wall_mm, 0.6 * box.voxel_mm)
    reach = drawn + box.voxel_mm
    lumen = np.full(box.shape, reach, np.float32)
    sides = ("left", "right") if plan.side == "both" else (plan.side,)
    for side in sides:
        branches = _bronchi(scene, plan, side)
        order = rng.permutation(len(branches))
        for number in order[: max(3, round(share_of_all * len(branches)))]:
            branch = branches[number]
            start = float(branch.radius_N[0])
            if widen > 1:
                # Dilated bronchi do not taper.
                length = float(np.linalg.norm(branch.points_N3[-1] - branch.points_N3[0]))
                points = smooth_line(branch.points_N3, 3.0 if kind == "varicose" else 5.0)
                radii = np.full(len(points), np.clip(widen * start, 1.9, 2.2 * widen))
                if kind == "varicose":
                    radii *= 1 + 0.3 * np.sin(np.arange(len(points)) * 1.6)
                if kind == "cystic" and length > 6:
                    radii[-1] *= 2.0
            else:
                points, radii = branch.points_N3, np.maximum(branch.radius_N, 0.8)
            tube_distance(box, points, radii, reach, out=lumen)
    free = region[box.slices] & ~scene.solid[box.slices]
    hu = scene.hu[box.slices]
    outer = share(lumen - drawn, box.voxel_mm) * (0.5 + 0.5 * wall_mm / drawn) * free
    mix(hu, outer * (hu < 20), np.float32(15))
    inner = share(lumen, box.voxel_mm) * free
    mix(hu, inner, np.float32(-940))
    mask = (lumen <= drawn) & free
    scene.solid[box.slices] |= mask
    return scene.seen_in(box, mask)


def draw_bronchiectasis(scene: Scene, plan: FindingPlan) -> Bool:
    """Bronchi wider than their arteries: even, beaded, or ending in cysts."""
    widen = {"mild": 1.6, "moderate": 2.1, "severe": 2.7}[plan.severity]
    share_of_all = {"mild": 0.35, "moderate": 0.6, "severe": 0.9}[plan.severity]
    return _drawn_bronchi(scene, plan, widen, 1.0, share_of_all)


def draw_peribronchial_thickening(scene: Scene, plan: FindingPlan) -> Bool:
    """Walls thicker than normal round lumens of normal width: rings and tram tracks."""
    wall = {"mild": 1.5, "moderate": 2.1, "severe": 2.9}[plan.severity]
    share_of_all = {"mild": 0.4, "moderate": 0.65, "severe": 0.95}[plan.severity]
    return _drawn_bronchi(scene, plan, 1.0, wall, share_of_all)
