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
from simcrop_core.phantoms.anatomy_canvas import Box, Canvas
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
    muscle = smooth_intersection(smooth_union(muscle, arm, 12), -lattice(cage.armpit), 8)
    fields = {
        "skin": lattice.rows(skin),
        "muscle": lattice.rows(muscle),
        "inside": lattice.rows(inside),
        "diaphragm": lattice.rows(diaphragm),
    }
    chest = _Lungs(canvas, cage, heart, lung_hu)
    ribs = RibTable(canvas, cage)
    count = max(1, _SLAB_VOXELS // (canvas.shape[1] * canvas.shape[2]))
    for start in range(0, canvas.shape[0], count):
        part = slice(start, min(start + count, canvas.shape[0]))
        now = {name: rows(part) for name, rows in fields.items()}
        _paint_wall(canvas, part, now)
        ribs.paint(part, now["inside"])
        chest.paint(part, now["inside"], now["diaphragm"])
    return chest.lobes, fields["diaphragm"]


def _paint_wall(canvas: Canvas, part: slice, now: dict[str, Volume]) -> None:
    box = (part, slice(None), slice(None))
    skin, muscle, inside, width = now["skin"], now["muscle"], now["inside"], canvas.width
    hu, labels = canvas.hu[box], canvas.labels[box]
    share = coverage(skin, width)
    hu += share * np.float32(1025)
    np.copyto(labels, np.uint8(LABELS["skin"]), where=share >= 0.5)
    for surface, value, name in (
        (skin + np.float32(1.7), -104.0, "subcutaneous fat"),
        (np.maximum(muscle, skin + np.float32(2.0)), 52.0, "muscle"),
    ):
        share = coverage(surface, width)
        hu += share * (np.float32(value) - hu)
        np.copyto(labels, np.uint8(LABELS[name]), where=share >= 0.5)
    # Fat between the layers of muscle: over the ribs and halfway out.
    planes = sheet_coverage(inside - np.float32(11.5), 1.3, width)
    planes += sheet_coverage(inside - np.float32(25), 1.6, width)
    planes *= np.float32(0.55) * coverage(muscle + np.float32(3), width)
    planes += 0.35 * sheet_coverage(muscle + np.float32(11), 1.2, width) * (inside > 13)
    hu += np.clip(planes, 0, 0.85) * (np.float32(-95) - hu)
    share = coverage(inside, width)
    share *= skin < -3
    hu += share * (np.float32(-102) - hu)
    above = now["diaphragm"] >= 0
    kind = np.where(above, LABELS["mediastinal fat"], LABELS["abdominal fat"]).astype(np.uint8)
    np.copyto(labels, kind, where=share >= 0.5)


class _Lungs:
    """Paints lungs and diaphragm within the cage."""

    def __init__(self, canvas: Canvas, cage: Cage, heart: HeartShape, lung_hu: float) -> None:
        self.canvas, self.cage, self.lung_hu = canvas, cage, np.float32(lung_hu)
        self.lobes = np.zeros(canvas.shape, np.uint8)
        self.box = canvas.box((-166, -130, -340), (166, 114, 108))
        if self.box is None:
            return
        lattice = Lattice(canvas, self.box, _LATTICE_MM)
        sac = lattice(lambda *p: heart.chambers(*p)["pericardium"])
        self.between = lattice.rows(lattice(cage.mediastinum, sac))
        self.oblique = lattice.rows(lattice(cage.oblique_fissure))
        self.horizontal = lattice.rows(lattice(cage.horizontal_fissure))
        self.mottle = _mottle(canvas, cage, self.box)

    def paint(self, part: slice, inside: Volume, diaphragm: Volume) -> None:
        """Paint some slices, given the distances to cage and diaphragm there."""
        if self.box is None:
            return
        zs, ys, xs = self.box
        low, high = max(part.start, zs.start), min(part.stop, zs.stop)
        if low >= high:
            return
        canvas, width = self.canvas, self.canvas.width
        box, rows = (slice(low, high), ys, xs), slice(low - zs.start, high - zs.start)
        local = slice(low - part.start, high - part.start), ys, xs
        inside, diaphragm = inside[local], diaphragm[local]
        hu, labels = canvas.hu[box], canvas.labels[box]
        cup = coverage(np.maximum(np.abs(diaphragm + 1.2) - np.float32(1.6), inside), width)
        hu += cup * (np.float32(48) - hu)
        np.copyto(labels, np.uint8(LABELS["diaphragm"]), where=cup >= 0.5)
        share = coverage(self.cage.lungs(inside, self.between(rows), diaphragm), width)
        if not share.any():
            return
        x, y, _ = canvas.at(box)
        air = y * np.float32(-0.34) + self.mottle(rows)
        air += self.lung_hu
        oblique, horizontal = self.oblique(rows), self.horizontal(rows)
        right, upper, top = x > 0, oblique > 0, horizontal > 0
        line = sheet_coverage(horizontal, 0.55, width) * (right & upper)
        np.maximum(line, sheet_coverage(oblique, 0.55, width), out=line)
        air += line * np.float32(520)
        hu += share * (air - hu)
        inner = share >= 0.5
        up = upper.view(np.uint8)
        number = np.where(right, 3 - up * (1 + top.view(np.uint8)), 5 - up).astype(np.uint8)
        np.copyto(self.lobes[box], number, where=inner)
        np.copyto(labels, number + np.uint8(LABELS[LOBES[0]] - 1), where=inner)


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


def _mottle(canvas: Canvas, cage: Cage, box: Box) -> Rows:
    """Slow changes of density (HU) within the lungs."""
    tile = np.random.default_rng([cage.patient.seed, 6]).normal(0, 11, (32, 32, 32))
    step = 11.0
    lattice = Lattice(canvas, box, step)
    numbers = [
        np.round((line - offset) / step).astype(int) % 32
        for line, offset in zip(lattice.lines, canvas.frame.offset_mm, strict=True)
    ]
    x, y, z = numbers
    values = tile[z[:, None, None], y[None, :, None], x[None, None, :]].astype(np.float32)
    return lattice.rows(values)
