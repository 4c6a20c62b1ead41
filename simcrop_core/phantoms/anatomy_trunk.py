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
from simcrop_core.phantoms.anatomy_canvas import Box, Canvas, Slab, mix
from simcrop_core.phantoms.anatomy_heart import HeartShape
from simcrop_core.phantoms.anatomy_lattice import Lattice
from simcrop_core.phantoms.anatomy_ribs import RibTable
from simcrop_core.phantoms.shapes import (
    clip,
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
    muscle = lattice(cage.muscle, inside)
    arm = lattice(cage.arm)
    skin = lattice(cage.skin, muscle, arm)
    muscle = smooth_intersection(smooth_union(muscle, arm, 12), -lattice(cage.armpit), 8)
    ys = lattice.reached(skin < canvas.width)
    fields = [lattice.rows(values, ys) for values in (skin, muscle, inside)]
    diaphragm = lattice.rows(lattice(cage.diaphragm))
    lobes = np.zeros(canvas.shape, np.uint8)
    chest = _Lungs(canvas, cage, heart, lung_hu)
    ribs = RibTable(canvas, cage)
    count = max(1, _SLAB_VOXELS // (canvas.shape[1] * canvas.shape[2]))
    for start in range(0, canvas.shape[0], count):
        part = slice(start, min(start + count, canvas.shape[0]))
        slab = Slab(canvas, part, ys)
        now = [rows(part) for rows in fields]
        above = diaphragm(part)[:, ys]
        _paint_wall(slab, ribs, *now, above)
        chest.paint(slab, lobes, now[2], above)
    return lobes, diaphragm


def _paint_wall(
    slab: Slab, ribs: RibTable, skin: Volume, muscle: Volume, inside: Volume, diaphragm: Volume
) -> None:
    """Paint all but the lungs. The cavity is filled with fat; its wall needs more thought."""
    canvas, width = slab.canvas, slab.canvas.width
    hu, labels = canvas.hu[slab.box], canvas.labels[slab.box]
    deep = inside <= np.float32(-0.5 * width)
    deep &= skin < -3
    np.copyto(hu, np.float32(-102), where=deep)
    fat = np.full(deep.shape, LABELS["abdominal fat"], np.uint8)
    fat[diaphragm >= 0] = LABELS["mediastinal fat"]
    np.copyto(labels, fat, where=deep)
    where = np.flatnonzero((skin < np.float32(0.5 * width)) > deep)
    if not where.size:
        return
    skin, muscle, inside, kind = (a.ravel().take(where) for a in (skin, muscle, inside, fat))
    share = coverage(skin, width)
    label = (share >= 0.5) * np.uint8(LABELS["skin"])
    share *= np.float32(1025)
    value = share - np.float32(1000)
    for surface, number, name in (
        (skin + np.float32(1.7), -104.0, "subcutaneous fat"),
        (np.maximum(muscle, skin + np.float32(2.0)), 52.0, "muscle"),
    ):
        share = coverage(surface, width)
        mix(value, share, number)
        label[share >= 0.5] = LABELS[name]
    # Fat between the layers of muscle: over the ribs and halfway out.
    planes = sheet_coverage(inside - np.float32(11.5), 1.3, width)
    planes += sheet_coverage(inside - np.float32(25), 1.6, width)
    planes *= np.float32(0.55) * coverage(muscle + np.float32(3), width)
    layer = sheet_coverage(muscle + np.float32(11), 1.2, width)
    layer *= np.float32(0.35)
    layer *= inside > 13
    planes += layer
    mix(value, clip(planes, 0, 0.85), -95)
    share = coverage(inside, width)
    share *= skin < -3
    mix(value, share, -102)
    np.copyto(label, kind, where=share >= 0.5)
    ribs.paint(slab, where, inside, value, label)
    slab.put(where, value, label)


class _Lungs:
    """Paints lungs and diaphragm within the cage."""

    def __init__(self, canvas: Canvas, cage: Cage, heart: HeartShape, lung_hu: float) -> None:
        self.canvas, self.cage, self.lung_hu = canvas, cage, np.float32(lung_hu)
        self.box = canvas.box((-166, -130, -340), (166, 114, 108))
        if self.box is None:
            return
        lattice = Lattice(canvas, self.box, _LATTICE_MM)
        sac = lattice(lambda *p: heart.chambers(*p)["pericardium"])
        self.fields = [
            lattice.rows(lattice(cage.mediastinum, sac)),
            lattice.rows(lattice(cage.oblique_fissure)),
            lattice.rows(lattice(cage.horizontal_fissure)),
            _mottle(canvas, cage, self.box),
        ]

    def paint(
        self, slab: Slab, lobes: NDArray[np.uint8], inside: Volume, diaphragm: Volume
    ) -> None:
        """Paint some slices, given the distances to cage and diaphragm there."""
        if self.box is None:
            return
        box = tuple(
            slice(max(a.start, b.start), min(a.stop, b.stop))
            for a, b in zip(slab.box, self.box, strict=True)
        )
        here, width = Slab(self.canvas, *box), self.canvas.width
        if min(here.shape) <= 0:
            return
        inside = inside[here.within(slab.box)]
        where = np.flatnonzero(inside < np.float32(0.5 * width))
        if not where.size:
            return
        zs, ys, xs = here.within(self.box)
        between, oblique, horizontal, air = (
            rows(zs)[:, ys, xs].ravel().take(where) for rows in self.fields
        )
        inside = inside.ravel().take(where)
        diaphragm = diaphragm[here.within(slab.box)].ravel().take(where)
        hu, labels = here.get(where)
        cup = np.abs(diaphragm + np.float32(1.2))
        cup -= np.float32(1.6)
        share = coverage(np.maximum(cup, inside, out=cup), width)
        mix(hu, share, 48)
        labels[share >= 0.5] = LABELS["diaphragm"]
        share = coverage(self.cage.lungs(inside, between, diaphragm), width)
        x, y, _ = here.at(where)
        air -= np.float32(0.34) * y
        air += self.lung_hu
        right, upper, top = x > 0, oblique > 0, horizontal > 0
        line = sheet_coverage(horizontal, 0.55, width)
        line *= right & upper
        np.maximum(line, sheet_coverage(oblique, 0.55, width), out=line)
        line *= np.float32(520)
        air += line
        mix(hu, share, air)
        inner = share >= 0.5
        up = upper.view(np.uint8)
        number = np.where(right, 3 - up * (1 + top.view(np.uint8)), 5 - up).astype(np.uint8)
        np.copyto(labels, number + np.uint8(LABELS[LOBES[0]] - 1), where=inner)
        number *= inner
        here.put(where, hu, labels)
        lobes.reshape(-1)[here.flat(where)] = number


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
