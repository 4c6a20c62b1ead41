"""Paints the trunk: skin, fat, muscle, ribs, the cavity's fat, and the lungs with their lobes.

The voxels are painted a few slices at a time, so that all values of a slab stay in the processor's
cache.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from simcrop_core.phantoms.anatomy import LABELS, LOBES
from simcrop_core.phantoms.anatomy_cage import Cage
from simcrop_core.phantoms.anatomy_canvas import Canvas
from simcrop_core.phantoms.anatomy_heart import HeartShape
from simcrop_core.phantoms.anatomy_lattice import Lattice
from simcrop_core.phantoms.anatomy_ribs import RibTable
from simcrop_core.phantoms.shapes import (
    coverage,
    grain,
    sheet_coverage,
    smooth_intersection,
    smooth_union,
)

Volume = NDArray[np.float32]
Rows = Callable[[slice], Volume]
_WHOLE = (slice(None),) * 3
_LATTICE_MM = 6.5
_SLAB_VOXELS = 120_000


def paint_trunk(
    canvas: Canvas, cage: Cage, heart: HeartShape, lung_hu: float
) -> tuple[NDArray[np.uint8], Rows]:
    """Paint all of the trunk; returns the lobes and the distance to the diaphragm by slices."""
    lattice = Lattice(canvas, _WHOLE, _LATTICE_MM)
    inside = lattice(cage.inside)
    muscle = lattice(cage.muscle)
    arm = lattice(cage.arm)
    skin = lattice(cage.skin, muscle, arm)
    diaphragm = lattice(cage.diaphragm)
    sac = lattice(lambda *p: heart.chambers(*p)["pericardium"])
    between = lattice(cage.mediastinum, sac)
    muscle = smooth_intersection(smooth_union(muscle, arm, 12), -lattice(cage.armpit), 8)
    mottle = _mottle(canvas, cage)
    fields = {
        "skin": lattice.rows(skin),
        "muscle": lattice.rows(muscle),
        "inside": lattice.rows(inside),
        "between": lattice.rows(between),
        "diaphragm": lattice.rows(diaphragm),
        "oblique": lattice.rows(lattice(cage.oblique_fissure)),
        "horizontal": lattice.rows(lattice(cage.horizontal_fissure)),
    }
    ribs = RibTable(canvas, cage)
    lobes = np.zeros(canvas.shape, np.uint8)
    count = max(1, _SLAB_VOXELS // (canvas.shape[1] * canvas.shape[2]))
    for start in range(0, canvas.shape[0], count):
        part = slice(start, min(start + count, canvas.shape[0]))
        now = {name: rows(part) for name, rows in fields.items()}
        now["lungs"] = cage.lungs(now["inside"], now["between"], now["diaphragm"])
        _paint_wall(canvas, part, now)
        ribs.paint(part, now["inside"])
        _paint_lungs(canvas, part, now, lobes[part], lung_hu, mottle(part))
    return lobes, fields["diaphragm"]


def _paint_wall(canvas: Canvas, part: slice, now: dict[str, Volume]) -> None:
    box = (part, slice(None), slice(None))
    skin, muscle, inside, width = now["skin"], now["muscle"], now["inside"], canvas.width
    hu, labels = canvas.hu[box], canvas.labels[box]
    share = coverage(skin, width)
    hu += share * np.float32(1025)
    labels[share >= 0.5] = LABELS["skin"]
    for surface, value, name in (
        (skin + np.float32(1.7), -104.0, "subcutaneous fat"),
        (np.maximum(muscle, skin + np.float32(2.0)), 52.0, "muscle"),
    ):
        share = coverage(surface, width)
        hu += share * (np.float32(value) - hu)
        labels[share >= 0.5] = LABELS[name]
    # Fat between the layers of muscle: over the ribs and halfway out.
    planes = sheet_coverage(inside - np.float32(11.5), 1.3, width)
    planes += sheet_coverage(inside - np.float32(25), 1.6, width)
    planes *= np.float32(0.55) * coverage(muscle + np.float32(3), width)
    planes += 0.35 * sheet_coverage(muscle + np.float32(11), 1.2, width) * (inside > 13)
    hu += np.clip(planes, 0, 0.85) * (np.float32(-95) - hu)
    share = coverage(inside, width)
    share *= skin < -3
    hu += share * (np.float32(-102) - hu)
    fat = share >= 0.5
    labels[fat & (now["diaphragm"] >= 0)] = LABELS["mediastinal fat"]
    labels[fat & (now["diaphragm"] < 0)] = LABELS["abdominal fat"]


def _paint_lungs(
    canvas: Canvas,
    part: slice,
    now: dict[str, Volume],
    lobes: NDArray[np.uint8],
    lung_hu: float,
    mottle: Volume,
) -> None:
    box = (part, slice(None), slice(None))
    width, lungs = canvas.width, now["lungs"]
    near = np.abs(now["diaphragm"] + 1.2)
    cup = coverage(np.maximum(near - np.float32(1.6), now["inside"]), width)
    hu, labels = canvas.hu[box], canvas.labels[box]
    hu += cup * (np.float32(48) - hu)
    labels[cup >= 0.5] = LABELS["diaphragm"]
    share = coverage(lungs, width)
    if not share.any():
        return
    x, y, _ = canvas.at(box)
    air = np.float32(lung_hu) - np.float32(0.34) * y + mottle
    oblique, horizontal = now["oblique"], now["horizontal"]
    right = x > 0
    line = sheet_coverage(oblique, 0.55, width)
    line = np.maximum(line, sheet_coverage(horizontal, 0.55, width) * (right & (oblique > 0)))
    air += line * np.float32(520)
    # Next to a fissure the vessels are too small to be seen.
    hu += share * (air - hu)
    inner = share >= 0.5
    upper = oblique > 0
    number = np.where(
        right, np.where(upper, np.where(horizontal > 0, 1, 2), 3), np.where(upper, 4, 5)
    )
    lobes[inner] = number[inner]
    labels[inner] = (number[inner] + (LABELS[LOBES[0]] - 1)).astype(np.uint8)


def paint_breasts(canvas: Canvas, cage: Cage) -> None:
    """Glandular tissue, less of it with age, in the fat of the breasts."""
    rise = cage.patient.breast_mm
    box = canvas.box((-165, 20, -135), (165, 190, 25)) if rise > 0 else None
    if box is None:
        return
    lattice = Lattice(canvas, box, _LATTICE_MM)
    breast = lattice.voxels(lattice(cage.breasts))
    labels = canvas.labels[box]
    free = (labels == LABELS["subcutaneous fat"]) & (breast < 0)
    labels[free] = LABELS["breasts"]
    rng = np.random.default_rng([cage.patient.seed, 15])
    x, y, z = canvas.at(box)
    strands = grain(x, y, z, rng, 17, 5) + 0.8 * grain(x, y, z, rng, 7, 4)
    dense = np.clip(1.3 - (cage.patient.age_years - 25) / 45 + rng.normal(0, 0.35), -0.4, 1.4)
    share = np.clip(strands + np.float32(dense - 1.1), 0, 1) * coverage(breast + 9, canvas.width)
    canvas.blend(box, np.asarray(share * free, np.float32), 28, None)


def _mottle(canvas: Canvas, cage: Cage) -> Rows:
    """Slow changes of density (HU) within the lungs."""
    tile = np.random.default_rng([cage.patient.seed, 6]).normal(0, 11, (32, 32, 32))
    step = 11.0
    lattice = Lattice(canvas, _WHOLE, step)
    numbers = [
        np.round((line - offset) / step).astype(int) % 32
        for line, offset in zip(lattice.lines, canvas.frame.offset_mm, strict=True)
    ]
    x, y, z = numbers
    values = tile[z[:, None, None], y[None, :, None], x[None, None, :]].astype(np.float32)
    return lattice.rows(values)
