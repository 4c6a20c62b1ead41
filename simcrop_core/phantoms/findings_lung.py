"""Findings that fill or tint a part of the lung: nodules, consolidation, ground glass, scars.

Terms and looks: Hansell et al., "Fleischner Society: Glossary of Terms for Thoracic Imaging",
Radiology 246 (2008) 697. A nodule is up to 30 mm, a mass is larger; ground glass leaves vessels and
bronchial margins visible, consolidation hides them.
"""

from __future__ import annotations

import numpy as np

from simcrop_core.phantoms.findings_scene import Scene
from simcrop_core.phantoms.findings_shapes import (
    Bool,
    Box,
    Float,
    directions,
    make_lump,
    mix,
    share,
    smooth_line,
    texture,
    thin_share,
    tube_distance,
)
from simcrop_core.phantoms.plan import FindingPlan


def tint(scene: Scene, box: Box, weight: Float, rise_hu: float) -> None:
    """Raise aerated lung by up to ``rise_hu``; what is denser (vessels) rises less."""
    hu = scene.hu[box.slices]
    room = np.clip((-100.0 - hu) * np.float32(1 / 700), 0.0, 1.0)
    hu += weight * room * np.float32(rise_hu)


def draw_nodule(scene: Scene, plan: FindingPlan) -> Bool:
    """One nodule, or ``count`` of them from ``least_mm`` up to the plan's size."""
    rng = np.random.default_rng(plan.seed)
    size = float(plan.size_mm or 6.0)
    whole = scene.empty()
    sizes = [size]
    if plan.count > 1:
        least = float(plan.attributes["least_mm"])
        sizes += list(rng.uniform(least, size, plan.count - 1))
    for number, diameter in enumerate(sizes):
        own = np.random.default_rng([plan.seed, number])
        side = ("left", "right")[number % 2] if plan.side == "both" else plan.side
        region = scene.part_of_lungs(side, plan.level, plan.lobe)
        whole |= _one_nodule(scene, plan, own, region, diameter)
    return whole


def _one_nodule(
    scene: Scene, plan: FindingPlan, rng: np.random.Generator, region: Bool, size: float
) -> Bool:
    radius = size / 2
    texture_name, margin = plan.attributes["texture"], plan.attributes["margin"]
    depth = {
        "subpleural": (0.9 * radius, radius + 2.5),
        "perifissural": (radius + 3, 300.0),
    }.get(plan.attributes.get("location", ""), (radius + 2.5, 300.0))
    center = scene.place(rng, region, radius + 1, depth)
    if center is None:
        return scene.empty()
    if plan.attributes.get("location") == "perifissural":
        center = _towards_fissure(scene, center, radius)
    lobulation = {"smooth": 0.0, "lobulated": 0.35, "spiculated": 0.25}[margin]
    lump = make_lump(rng, center, size, lobulation=lobulation)
    box = scene.box(center, radius + 18)
    if box is None:
        return scene.empty()
    distance = lump.distance(box)
    blur = box.voxel_mm
    part = share(distance, blur)
    # A nodule between the centres of voxels must still have one.
    nearest = np.unravel_index(np.argmin(distance), distance.shape)
    part[nearest] = max(part[nearest], 0.5)
    if texture_name == "ground glass" or texture_name == "part-solid":
        glass = float(rng.uniform(-620, -450))
        free = scene.aerated(box) | (scene.lobes[box.slices] > 0) & ~scene.solid[box.slices]
        mask = (part >= 0.5) & free
        hu = scene.hu[box.slices]
        speckle = glass + 35 * texture(box, 2.5, rng)
        mix(hu, part * free * (hu < glass), speckle)
        if texture_name == "part-solid":
            core = make_lump(rng, center + rng.normal(0, 0.1 * radius, 3), 0.5 * size)
            mix(hu, share(core.distance(box), blur) * free, float(rng.uniform(10, 45)))
        scene.solid[box.slices] |= mask
        return scene.seen_in(box, mask)
    if margin == "spiculated":
        _spicules(scene, box, rng, center, radius)
    if texture_name == "calcified":
        value: Float | float = float(rng.uniform(250, 750))
    else:
        value = rng.uniform(18, 50) + 6 * texture(box, 4.0, rng)
        if scene.enhanced:
            value = value + 25
        if size > 35 and rng.random() < 0.6:  # a large mass dies inside
            value = value - 22 * share(distance + 0.45 * radius, 6.0)
    return scene.fill_lung(box, part, value)


def _towards_fissure(scene: Scene, center: np.ndarray, radius: float) -> np.ndarray:
    """The point moved to where a ball of this radius just touches another lobe of the lung."""
    lobe = scene.lookup(scene.lobes, center)
    rays = directions(60)
    for reach in np.arange(radius, radius + 70, 2.0):
        found = scene.lookup(scene.lobes, center + rays * reach)
        other = (found > 0) & (found != lobe) & ((found <= 3) == (lobe <= 3))
        if other.any():
            return np.asarray(center + rays[np.argmax(other)] * (reach - radius))
    return center


def _spicules(
    scene: Scene, box: Box, rng: np.random.Generator, center: np.ndarray, radius: float
) -> None:
    """Fine strands from the margin into the lung around; not part of the nodule's size."""
    distance = np.full(box.shape, 4.0, np.float32)
    for ray in directions(int(rng.integers(16, 30))):
        ray = ray + rng.normal(0, 0.25, 3)
        ray /= np.linalg.norm(ray)
        length = rng.uniform(5, 8 + 0.35 * radius)
        line = center + ray * np.array([[0.7 * radius], [radius + min(length, 14)]])
        tube_distance(box, line, [2.0, 0.4], 4.0, out=distance)
    part, _ = thin_share(distance, 1.2, box)
    mix(scene.hu[box.slices], part * scene.aerated(box), 10.0)


def draw_consolidation(scene: Scene, plan: FindingPlan) -> Bool:
    """Lung filled with fluid or cells: soft tissue density, with or without air in the bronchi."""
    rng = np.random.default_rng(plan.seed)
    region = scene.lung(plan)
    if plan.attributes["extent"] == "lobar":
        region = scene.territory(plan)
        box = scene.box_of(region, 3)
        if box is None:
            return scene.empty()
        part = (region[box.slices] & (texture(box, 9.0, rng) < 2.0)).astype(np.float32)
    else:
        radius = float(plan.size_mm or 30.0) / 2
        center = scene.place(rng, region, 0.8 * radius, (0.25 * radius, 0.75 * radius))
        box = None if center is None else scene.box(center, 1.1 * radius + 10)
        if center is None or box is None:
            return scene.empty()
        inside = scene.territory(plan)[box.slices]
        lump = make_lump(rng, center, 2 * radius, lobulation=0.35, flattening=0.35)
        distance = lump.distance(box)
        ragged = 1 + texture(box, 5.0, rng) + 0.6 * texture(box, 2.5, rng)
        distance += (0.1 * radius + 0.8) * ragged
        part = share(distance, 1.5 * box.voxel_mm) * inside
        # Round it the air spaces are only partly filled.
        halo = np.clip((8.0 - distance) * np.float32(1 / 9), 0, 1) * scene.aerated(box) * inside
        tint(scene, box, halo, 260.0)
    value = rng.uniform(22, 48) + 7 * texture(box, 5.0, rng) + (30 if scene.enhanced else 0)
    air = np.zeros(box.shape, np.float32)
    if plan.attributes.get("air bronchogram") == "yes":
        air = _bronchogram(scene, box, plan)
    # Vessels full of contrast stay visible in the airless lung.
    value = np.where(scene.enhanced & (scene.hu[box.slices] > 90), scene.hu[box.slices], value)
    value = value + air * (np.float32(-880) - value)
    return scene.fill_lung(box, part, value)


def _bronchogram(scene: Scene, box: Box, plan: FindingPlan) -> Float:
    """How much of each voxel is the air of a bronchus."""
    lobe = "left upper lobe" if plan.lobe == "lingula" else plan.lobe
    distance = np.full(box.shape, 4.0, np.float32)
    for branch in scene.anatomy.branches("airways", lobe=lobe):
        if branch.radius_N[0] > 0.8:  # finer ones are not seen
            radii = np.maximum(branch.radius_N, 0.8)
            tube_distance(box, branch.points_N3, radii, 4.0, out=distance)
    part, _ = thin_share(distance, 1.1, box)
    return part


def draw_opacity(scene: Scene, plan: FindingPlan) -> Bool:
    """Ground glass: focal, in patches mostly under the pleura, or spread through both lungs."""
    rng = np.random.default_rng(plan.seed)
    region = scene.lung(plan)
    pattern = plan.attributes["distribution"]
    rise = float(rng.uniform(220, 380))
    whole = scene.empty()
    if pattern == "diffuse":
        box = scene.box_of(region)
        if box is None:
            return whole
        spread = {"mild": 0.6, "moderate": 0.25, "severe": -0.25}[plan.severity]
        weight = share(spread - texture(box, 16.0, rng) - 0.45 * texture(box, 5.0, rng), 1.1)
        return _glass(scene, box, weight * region[box.slices], rise)
    count = plan.count if pattern == "patchy" else 1
    sides = ("left", "right") if plan.side == "both" else (plan.side,)
    regions = [region & scene.part_of_lungs(side) for side in sides]
    ground = scene.territory(plan)
    for number in range(count):
        own = np.random.default_rng([plan.seed, number])
        here = regions[number % len(regions)]
        radius = float(plan.size_mm or own.uniform(24, 60)) / 2
        near_pleura = (0.3 * radius, 0.9 * radius)
        depth = near_pleura if pattern == "patchy" else (0.3 * radius, 300.0)
        center = scene.place(own, here, radius, depth)
        box = None if center is None else scene.box(center, radius * 1.05 + 2)
        if center is None or box is None:
            continue
        lump = make_lump(own, center, 2 * radius, lobulation=0.3, flattening=0.35)
        distance = lump.distance(box) + 0.08 * radius * (1 + texture(box, 4.0, own))
        whole |= _glass(scene, box, share(distance, 4.0) * ground[box.slices], rise)
    return whole


def _glass(scene: Scene, box: Box, weight: Float, rise_hu: float) -> Bool:
    weight = weight * ((scene.lobes[box.slices] > 0) & ~scene.solid[box.slices])
    tint(scene, box, weight, rise_hu)
    return scene.seen_in(box, weight >= 0.5)


def draw_fibrotic_sequela(scene: Scene, plan: FindingPlan) -> Bool:
    """Scars: caps and strands at the apex, bands that reach the pleura, or a fine basal net."""
    rng = np.random.default_rng(plan.seed)
    kind = plan.attributes["type"]
    sides = ("left", "right") if plan.side == "both" else (plan.side,)
    whole = scene.empty()
    for number, side in enumerate(sides):
        own = np.random.default_rng([plan.seed, number])
        if kind == "apical":
            whole |= _apical_scar(scene, plan, own, side)
        elif kind == "reticulation":
            whole |= _reticulation(scene, plan, own, side)
        else:
            whole |= _band(scene, plan, rng)
    return whole


def _apical_scar(scene: Scene, plan: FindingPlan, rng: np.random.Generator, side: str) -> Bool:
    """Irregular thickening under the apical pleura, with strands towards the hilum."""
    region = scene.part_of_lungs(side, "upper")
    heights = np.flatnonzero(region.any(axis=(1, 2)))
    if not heights.size:
        return scene.empty()
    top = max(scene.z[heights[0]], scene.z[heights[-1]])
    reach = {"mild": 22.0, "moderate": 30.0, "severe": 40.0}[plan.severity]
    box = scene.box_of(region & (scene.z > top - reach)[:, None, None], 3)
    if box is None:
        return scene.empty()
    thick = {"mild": 3.0, "moderate": 5.0, "severe": 8.0}[plan.severity]
    depth = scene.depth_in(box)
    below = (top - box.z) / reach
    lumpy = depth - thick * (0.75 + 0.6 * texture(box, 6.0, rng)) * (1 - below)
    part = share(lumpy, 1.5 * box.voxel_mm)
    # Strands from the cap towards the hilum.
    strands = np.full(box.shape, 4.0, np.float32)
    hilum = scene.anatomy.landmarks[f"{side} hilum"]
    cap = box.points(region[box.slices] & (depth < 4) & (depth > 0))
    for start in cap[rng.integers(len(cap), size=int(rng.integers(4, 9)))] if len(cap) else ():
        end = start + (hilum - start) * rng.uniform(0.2, 0.42) + rng.normal(0, 4, 3)
        bend = (start + end) / 2 + rng.normal(0, 2.5, 3)
        tube_distance(box, smooth_line([start, bend, end], 4.0), 0.9, 4.0, out=strands)
    lines, _ = thin_share(strands, 1.0, box)
    part = np.maximum(part, lines) * region[box.slices]
    value = rng.uniform(0, 45) + 40 * texture(box, 3.0, rng)
    return _scar(scene, box, part, value)


def _scar(scene: Scene, box: Box, part: Float, value: Float) -> Bool:
    """Fill scars and call theirs every voxel that is a quarter scar: they are thinner than one."""
    free = (scene.lobes[box.slices] > 0) & ~scene.solid[box.slices]
    part = part * free
    mix(scene.hu[box.slices], part, value)
    mask = part >= 0.25
    scene.solid[box.slices] |= mask
    return scene.seen_in(box, mask)


def _band(scene: Scene, plan: FindingPlan, rng: np.random.Generator) -> Bool:
    """A pleuroparenchymal band: a strand from the pleura inwards, a small tent at the pleura."""
    length = float(plan.size_mm or 40.0)
    region = scene.lung(plan)
    start = scene.place(rng, region, 4.0, (0.5, 5.0))
    if start is None:
        return scene.empty()
    hilum = scene.anatomy.landmarks[f"{plan.side} hilum"]
    inward = hilum - start
    inward /= np.linalg.norm(inward)
    whole = scene.empty()
    box = scene.box([start, start + inward * length], 14)
    if box is None:
        return whole
    distance = np.full(box.shape, 6.0, np.float32)
    side_step = np.cross(inward, rng.normal(size=3))
    side_step /= np.linalg.norm(side_step)
    strands = {"mild": 1, "moderate": 2, "severe": 4}[plan.severity]
    for strand in range(strands):
        end = start + inward * length + (0 if strand == 0 else rng.normal(0, 8, 3))
        bend = (start + end) / 2 + side_step * rng.uniform(-4, 4)
        line = smooth_line([start - inward * 2, bend, end], 4.0)
        tube_distance(box, line, np.linspace(2.4, 0.8, len(line)), 6.0, out=distance)
    part, _ = thin_share(distance, 1.4, box)
    inside = scene.territory(plan)[box.slices]
    return _scar(scene, box, part * inside, 15 + 25 * texture(box, 3.0, rng))


def _reticulation(scene: Scene, plan: FindingPlan, rng: np.random.Generator, side: str) -> Bool:
    """A net of fine lines under the pleura of the lower lobe."""
    region = scene.part_of_lungs(side, plan.level)
    box = scene.box_of(region)
    if box is None:
        return scene.empty()
    reach = {"mild": 9.0, "moderate": 14.0, "severe": 20.0}[plan.severity]
    depth = scene.depth_in(box)
    zone = (1 - depth / reach) + 0.35 * texture(box, 10.0, rng)
    zone = np.clip(zone * 2, 0, 1) * region[box.slices] * (box.y < np.median(box.y) + 10)
    net = np.abs(texture(box, 2.6, rng))
    lines = np.clip(1 - net / 0.45, 0, 1)
    part = lines * zone * np.float32(0.75)
    free = (scene.lobes[box.slices] > 0) & ~scene.solid[box.slices]
    mix(scene.hu[box.slices], part * free, np.float32(-50))
    return scene.seen_in(box, (zone > 0.4) & free)
