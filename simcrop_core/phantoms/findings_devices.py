"""Medical material: what surgeons, cardiologists and intensive care leave in a chest.

Places: tips of central lines at the junction of superior vena cava and right atrium, of
endotracheal tubes 3 to 7 cm above the carina, of ventricular leads at the right ventricle's apex
(Godoy, Leitman, de Groot et al., "Chest radiography in the ICU", AJR 198 (2012) 563 and 572).
Metal is denser than a scanner's scale reaches, so it is drawn at more and cut off there; plastic
carries barium.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simcrop_core.phantoms.anatomy_labels import LABELS
from simcrop_core.phantoms.findings_scene import Scene
from simcrop_core.phantoms.findings_shapes import (
    Bool,
    Box,
    Float,
    mix,
    share,
    smooth_line,
    thin_share,
    tube_distance,
)
from simcrop_core.phantoms.plan import FindingPlan

Points = NDArray[np.float64]
METAL_HU = 7000.0
BARIUM_HU = 1400.0
STRIPE_HU = 2600.0


def draw_medical_material(scene: Scene, plan: FindingPlan) -> Bool:
    """Draw the plan's device."""
    rng = np.random.default_rng(plan.seed)
    return scene.seen(_DEVICES[plan.attributes["device"]](scene, plan, rng))


def _wire(scene: Scene, points: ArrayLike, radius: float, hu: float, *, body: bool = True) -> Bool:
    """A solid wire along a line; only inside the body."""
    whole = scene.empty()
    box = scene.box(points, radius + 4)
    if box is None:
        return whole
    part, touched = thin_share(tube_distance(box, points, radius, 4.0), radius, box)
    inside = _in_body(scene, box) if body else np.ones(box.shape, bool)
    _add(scene.hu[box.slices], part * inside, hu)
    whole[box.slices] = touched & inside
    return whole


def _add(hu: Float, part: Float, value: float) -> None:
    """Mix in something dense: never darker than before."""
    before = hu.copy()
    mix(hu, part, np.float32(value))
    np.maximum(hu, before, out=hu)


def _in_body(scene: Scene, box: Box) -> Bool:
    label = scene.labels[box.slices]
    return (label > 0) & (label != LABELS["couch"])


def _hose(scene: Scene, points: Points, radius: float, wall: float, hu: float) -> Bool:
    """A tube with a wall, air in its lumen, and a radiopaque stripe along it."""
    whole = scene.empty()
    box = scene.box(points, radius + 4)
    if box is None:
        return whole
    inside = _in_body(scene, box)
    surface = tube_distance(box, points, radius, 5.0)
    part = share(surface, box.voxel_mm) * inside
    mix(scene.hu[box.slices], part, np.float32(hu))
    lumen = share(surface + wall, box.voxel_mm) * inside
    mix(scene.hu[box.slices], lumen, np.float32(-950))
    along = np.gradient(points, axis=0)
    beside = np.cross(along, (0.3, 1.0, 0.2))
    beside /= np.maximum(np.linalg.norm(beside, axis=1, keepdims=True), 1e-6)
    whole[box.slices] = (surface <= 0.3 * box.voxel_mm) & inside
    return whole | _wire(scene, points + beside * (radius - wall / 2), 1.0, STRIPE_HU)


def _line(scene: Scene, name: str, start: float = 0.0, end: float = 1.0, count: int = 6) -> Points:
    return scene.anatomy.centrelines[name].at(np.linspace(start, end, count))[0]


def _sign(side: str) -> int:
    return 1 if side == "right" else -1


def _front_of_muscle(scene: Scene, x: float, z: float, room_mm: int) -> Points:
    """Under the skin of the front of the chest, on the muscle: a pocket for a device."""
    depths = np.arange(135.0, -30.0, -1.0)
    line = scene.world(np.stack([np.full_like(depths, x), depths, np.full_like(depths, z)], 1))
    label = scene.lookup(scene.labels, line)
    body = np.flatnonzero((label > 0) & (label != LABELS["couch"]))
    if not body.size:
        return scene.world((x, 72.0, z))
    skin = int(body[0])
    muscle = np.flatnonzero(np.isin(label, (LABELS["muscle"], LABELS["ribs"])))
    bed = int(muscle[0]) if muscle.size else skin + 14
    return np.asarray(line[min(max(bed - room_mm, skin + room_mm), len(line) - 1)], np.float64)


def _veins_to_heart(scene: Scene, side: str, vein: str) -> Points:
    """From a vein at the shoulder or neck to the lower end of the superior vena cava."""
    # The veins' courses begin at the heart's side or at the periphery: walk them inwards.
    outer = _line(scene, f"{side} {vein}", count=8)
    inner = _line(scene, f"{side} brachiocephalic vein", count=6)
    if np.linalg.norm(outer[0] - inner[0]) < np.linalg.norm(outer[-1] - inner[0]):
        outer = outer[::-1]
    cava = _line(scene, "superior vena cava", 0.1, 0.92, 5)
    return np.concatenate([outer[:-1], inner[1:-1], cava])


def _pacemaker(scene: Scene, plan: FindingPlan, rng: np.random.Generator) -> Bool:
    sign = _sign(plan.side)
    center = _front_of_muscle(
        scene, sign * float(rng.uniform(88, 102)), float(rng.uniform(30, 45)), 5
    )
    mask = _slab(scene, center, (22.0, 5.0, 19.0), METAL_HU)
    course = _veins_to_heart(scene, plan.side, "subclavian vein")
    start = int(np.argmin(np.linalg.norm(course[:7] - center, axis=1)))
    marks = scene.anatomy.landmarks
    atrium = marks["tricuspid valve"] + np.array([14.0, 4.0, 8.0])
    tips = [np.stack([atrium, marks["tricuspid valve"], marks["right ventricle apex"]])]
    if plan.attributes["leads"] == "2":
        tips.append(np.stack([atrium + np.array([4, 4, -4]), atrium + np.array([0, 16, 6])]))
    for tip in tips:
        shift = rng.normal(0, 1.0, 3)
        edge = center + np.array([-sign * 20.0, -2.0, 14.0])
        points = np.concatenate([[edge], course[start:] + shift, tip])
        mask |= _wire(scene, smooth_line(points, 5.0), 1.0, METAL_HU)
        mask |= _wire(scene, smooth_line(points, 5.0)[-3:], 1.5, METAL_HU)
    return mask


def _slab(scene: Scene, center: Points, half: Sequence[float], hu: float) -> Bool:
    """A box with rounded edges, flat against the chest wall."""
    whole = scene.empty()
    box = scene.box(center, max(half) + 5)
    if box is None:
        return whole
    outward = center - scene.world((0, -20, 0))
    outward[2] = 0
    outward /= np.linalg.norm(outward)
    across = np.array([-outward[1], outward[0], 0.0])
    dx, dy, dz = (a - np.float32(c) for a, c in zip((box.x, box.y, box.z), center, strict=True))
    u = np.abs(across[0] * dx + across[1] * dy) - np.float32(half[0] - 4)
    v = np.abs(outward[0] * dx + outward[1] * dy) - np.float32(half[1] - 4)
    w = np.abs(dz) - np.float32(half[2] - 4)
    distance = np.sqrt(sum(np.maximum(a, 0) ** 2 for a in (u, v, w))) - np.float32(4)
    inside = _in_body(scene, box)
    _add(scene.hu[box.slices], share(distance, box.voxel_mm) * inside, hu)
    whole[box.slices] = (distance <= 0) & inside
    return whole


def _port(scene: Scene, plan: FindingPlan, rng: np.random.Generator) -> Bool:
    center = _front_of_muscle(scene, _sign(plan.side) * float(rng.uniform(66, 82)), 40.0, 6)
    mask = _slab(scene, center, (12.0, 6.0, 12.0), 3500.0)
    course = _veins_to_heart(scene, plan.side, "subclavian vein")
    start = int(np.argmin(np.linalg.norm(course[:7] - center, axis=1)))
    points = np.concatenate([[center + np.array([0, 0, 10.0])], course[start:]])
    return mask | _wire(scene, smooth_line(points, 5.0), 1.2, BARIUM_HU)


def _central_line(scene: Scene, plan: FindingPlan, rng: np.random.Generator) -> Bool:
    vein = "jugular vein" if rng.random() < 0.7 else "subclavian vein"
    points = _veins_to_heart(scene, plan.side, vein)
    return _wire(scene, smooth_line(points, 5.0), 1.2, BARIUM_HU)


def _nasogastric(scene: Scene, plan: FindingPlan, rng: np.random.Generator) -> Bool:
    points = _line(scene, "oesophagus", count=10)
    stomach = scene.world([(-48.0, 6.0, -146.0), (-62.0, 22.0, -160.0)])
    line = smooth_line(np.concatenate([points, stomach]), 5.0)
    return _wire(scene, line, 2.0, float(rng.uniform(500, 900)))


def _endotracheal(scene: Scene, plan: FindingPlan, rng: np.random.Generator) -> Bool:
    trachea = scene.anatomy.centrelines["trachea"]
    end = 1 - float(rng.uniform(30, 55)) / trachea.length_mm
    points = trachea.at(np.linspace(0.0, end, 12))[0] + [0, float(rng.uniform(-1.5, 1.5)), 0]
    return _hose(scene, points, 5.3, 1.4, 160.0)


def _tracheostomy(scene: Scene, plan: FindingPlan, rng: np.random.Generator) -> Bool:
    trachea = scene.anatomy.centrelines["trachea"]
    stoma = float(rng.uniform(0.12, 0.25))
    inner = trachea.at(np.linspace(stoma + 0.12, stoma + 0.5, 5))[0]
    outer = trachea.at(stoma)[0] + np.array([(0, 42.0, 6.0), (0, 16.0, 4.0)])
    line = smooth_line(np.concatenate([outer, inner]), 4.0).astype(float)
    return _hose(scene, line, 5.0, 1.5, 250.0)


def _sternal_wires(scene: Scene, plan: FindingPlan, rng: np.random.Generator) -> Bool:
    mask = scene.empty()
    sternum = scene.structure("sternum")
    heights = np.flatnonzero(sternum.any(axis=(1, 2)))
    if not heights.size:
        return mask
    low, high = sorted((scene.z[heights[0]], scene.z[heights[-1]]))
    turn = np.linspace(0, 2 * np.pi, 25)
    for level in np.linspace(low + 12, high - 8, int(rng.integers(5, 8))):
        plane = sternum[int(np.argmin(np.abs(scene.z - level)))]
        if not plane.any():
            continue
        j, i = np.nonzero(plane)
        x, y = scene.x[i], scene.y[j]
        left, right = np.quantile(x, (0.05, 0.95))
        ring = np.stack(
            [
                (left + right) / 2 + np.cos(turn) * ((right - left) / 2 * rng.uniform(0.7, 1.0)),
                (y.min() + y.max()) / 2 + np.sin(turn) * ((y.max() - y.min()) / 2 + 1.5),
                level + np.cos(turn) * rng.normal(0, 2.5),
            ],
            axis=1,
        )
        mask |= _wire(scene, ring, 0.6, METAL_HU)
        knot = ring[6] + np.array([(0, 0, 0), (rng.normal(0, 2), 2.5, rng.normal(0, 2))])
        mask |= _wire(scene, knot, 0.9, METAL_HU)
    return mask


def _coronary_stent(scene: Scene, plan: FindingPlan, rng: np.random.Generator) -> Bool:
    names = {"LAD": "left anterior descending", "RCA": "right coronary", "LCx": "circumflex"}
    line = scene.anatomy.centrelines[names[plan.attributes["vessel"]]]
    start, length = float(rng.uniform(0.03, 0.4)), float(rng.uniform(14, 30))
    points = line.at(np.linspace(start, start + length / line.length_mm, 8))[0]
    return _wire(scene, points, 1.7, 2200.0)


def _valve(scene: Scene, plan: FindingPlan, rng: np.random.Generator) -> Bool:
    mitral = plan.attributes["valve"] == "mitral"
    marks = scene.anatomy.landmarks
    center = marks["mitral valve" if mitral else "aortic valve"]
    if mitral:
        normal = scene.anatomy.heart.axes_33[0]
    else:
        outflow = _line(scene, "aorta", 0.0, 0.08, 2)
        normal = outflow[1] - outflow[0]
    normal = normal / np.linalg.norm(normal)
    first = np.cross(normal, (0.2, 0.9, 0.4))
    first /= np.linalg.norm(first)
    second = np.cross(normal, first)
    radius = float(rng.uniform(13, 15) if mitral else rng.uniform(10.5, 12.5))
    turn = np.linspace(0, 2 * np.pi, 29)[:, None]
    ring = center + radius * (np.cos(turn) * first + np.sin(turn) * second)
    mask = _wire(scene, ring, 1.4, METAL_HU)
    for offset in (-2.5, 2.5):  # two leaflets, half open, seen on edge
        leaf = center + offset * second + np.linspace(-0.7, 0.7, 5)[:, None] * radius * first
        mask |= _wire(scene, leaf + normal * 3.0, 1.0, METAL_HU)
    return mask


def _bypass_clips(scene: Scene, plan: FindingPlan, rng: np.random.Generator) -> Bool:
    mask = scene.empty()
    target = _line(scene, "left anterior descending", 0.35, 0.35, 1)[0]
    mammary = scene.world([(-22.0, 62.0, 25.0), (-24.0, 64.0, -10.0)])
    graft = smooth_line(np.stack([*mammary, target + np.array([0, 8, 2])]), 4.0)
    root = _line(scene, "aorta", 0.2, 0.2, 1)[0] + np.array([0, 14.0, 0])
    vein = smooth_line(
        np.stack([root, (root + target) / 2 + np.array([0, 10, 4]), target + np.array([3, 6, 0])]),
        4.0,
    )
    for line in (graft, vein):
        for number in rng.integers(len(line), size=int(rng.integers(4, 8))):
            at = line[number] + rng.normal(0, 2.5, 3)
            clip = at + rng.normal(0, 1, 3) * np.array([[-1.5], [1.5]])
            mask |= _wire(scene, clip, 0.9, METAL_HU)
    return mask


def _pleural_drain(scene: Scene, plan: FindingPlan, rng: np.random.Generator) -> Bool:
    sign = _sign(plan.side)
    targets = [
        (118.0, -25.0, -80.0),
        (80.0, -72.0, -70.0),
        (60.0, -72.0, -25.0),
        (50.0, -60.0, 20.0),
    ]
    wall = scene.pleura(plan.side)
    if not len(wall):
        return scene.empty()
    end = 3 if rng.random() < 0.5 else 4
    course = np.array(targets[:end]) * (sign, 1, 1)
    stops: list[Points] = []
    for aim in scene.world(smooth_line(course, 22.0)):
        nearest = wall[int(np.argmin(np.linalg.norm(wall - aim, axis=1)))]
        if not stops or np.linalg.norm(nearest - stops[-1]) > 8:
            stops.append(nearest)
    skin = stops[0] + np.array([sign * 45.0, 8.0, -6.0])
    line = smooth_line(np.stack([skin, *stops]), 5.0).astype(float)
    return _hose(scene, line, 2.6, 0.9, 350.0)


_DEVICES: dict[str, Callable[[Scene, FindingPlan, np.random.Generator], Bool]] = {
    "pacemaker": _pacemaker,
    "port catheter": _port,
    "central venous catheter": _central_line,
    "nasogastric tube": _nasogastric,
    "endotracheal tube": _endotracheal,
    "tracheostomy tube": _tracheostomy,
    "sternal wires": _sternal_wires,
    "coronary stent": _coronary_stent,
    "valve prosthesis": _valve,
    "bypass clips": _bypass_clips,
    "pleural drain": _pleural_drain,
}
