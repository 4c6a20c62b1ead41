"""Paints the trunk: skin, fat, muscle, ribs, the cavity's fat, and the lungs with their lobes.

The voxels are painted a few slices at a time, so that all values of a slab stay in the processor's
cache.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from simcrop_core.phantoms.anatomy_cage import Cage
from simcrop_core.phantoms.anatomy_canvas import Box, Canvas, mix, overlap, within
from simcrop_core.phantoms.anatomy_heart import HeartShape
from simcrop_core.phantoms.anatomy_labels import LABELS, LOBES
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
_LATTICE_MM = 8.0
_SLAB_VOXELS = 200_000


def paint_trunk(
    canvas: Canvas, cage: Cage, heart: HeartShape, lung_hu: float
) -> tuple[NDArray[np.uint8], Rows]:
    """Paint all of the trunk; returns the lobes and the distance to the diaphragm by slices."""
    whole = slice(0, canvas.shape[0]), slice(0, canvas.shape[1]), slice(0, canvas.shape[2])
    lattice = Lattice(canvas, whole, _LATTICE_MM)
    inside = lattice(cage.inside)
    muscle = lattice(cage.muscle, inside)
    arm = lattice(cage.arm)
    skin = lattice(cage.skin, muscle, arm)
    muscle = smooth_intersection(smooth_union(muscle, arm, 12), -lattice(cage.armpit), 8)
    ys = lattice.reached(skin < canvas.width)
    fields = [lattice.rows(values, ys) for values in (skin, muscle, inside)]
    diaphragm = lattice.rows(lattice(cage.diaphragm_mapped))
    lobes = np.zeros(canvas.shape, np.uint8)
    chest = _Lungs(canvas, cage, heart, lung_hu)
    ribs = RibTable(canvas, cage)
    count = max(1, _SLAB_VOXELS // (canvas.shape[1] * canvas.shape[2]))
    for start in range(0, canvas.shape[0], count):
        part = slice(start, min(start + count, canvas.shape[0]))
        box = part, ys, slice(0, canvas.shape[2])
        skin, muscle, inside = (rows(part) for rows in fields)
        above = diaphragm(part)[:, ys]
        # Painted apart, so that a voxel's number is the same in all arrays of the slab.
        hu, labels = _paint_wall(canvas, box, ribs, skin, muscle, inside, above)
        chest.paint(box, hu, labels, lobes, inside, above)
        canvas.hu[box], canvas.labels[box] = hu, labels
    return lobes, diaphragm


def _paint_wall(
    canvas: Canvas,
    box: Box,
    ribs: RibTable,
    skin: Volume,
    muscle: Volume,
    inside: Volume,
    diaphragm: Volume,
) -> tuple[Volume, NDArray[np.uint8]]:
    """All but the lungs: the cavity is filled with fat, its wall needs more thought."""
    width = canvas.width
    deep = inside <= np.float32(-0.5 * width)
    deep &= skin < -3
    hu = np.multiply(deep, np.float32(898))
    hu -= np.float32(1000)
    fat = np.multiply(diaphragm < 0, np.uint8(LABELS["abdominal fat"] - LABELS["mediastinal fat"]))
    fat += np.uint8(LABELS["mediastinal fat"])
    labels = fat * deep
    where = np.flatnonzero((skin < np.float32(0.5 * width)) > deep)
    if not where.size:
        return hu, labels
    skin, muscle, inside = (a.reshape(-1).take(where) for a in (skin, muscle, inside))
    share = coverage(skin, width)
    # Each lies in the one before, and their labels are 1, 2, 3.
    label = (share >= 0.5).view(np.uint8)
    share *= np.float32(1025)
    value = share - np.float32(1000)
    skin += np.float32(1.7)
    for surface, number in ((skin, -104.0), (np.maximum(muscle, skin + np.float32(0.3)), 52.0)):
        share = coverage(surface, width)
        mix(value, share, number)
        label += share >= 0.5
    _paint_planes(muscle, inside, width, value)
    share = coverage(inside, width)
    share *= skin < np.float32(-1.3)
    inner = np.flatnonzero(share > 0)
    some, share = value.take(inner), share.take(inner)
    mix(some, share, -102)
    value[inner] = some
    inner = inner[share >= 0.5]
    label[inner] = fat.reshape(-1).take(where[inner])
    ribs.paint(box, where, inside, value, label)
    hu.reshape(-1)[where] = value
    labels.reshape(-1)[where] = label
    return hu, labels


def _paint_planes(muscle: Volume, inside: Volume, width: float, value: Volume) -> None:
    """Fat between the layers of muscle: over the ribs, halfway out, and under the surface."""
    reach = np.float32(width / 2)
    near = np.abs(inside - np.float32(11.5)) < reach + np.float32(0.65)
    near |= np.abs(inside - np.float32(25)) < reach + np.float32(0.8)
    near |= np.abs(muscle + np.float32(11)) < reach + np.float32(0.6)
    near &= muscle < reach - np.float32(3)
    where = np.flatnonzero(near)
    muscle, inside = muscle.take(where), inside.take(where)
    planes = sheet_coverage(inside - np.float32(11.5), 1.3, width)
    planes += sheet_coverage(inside - np.float32(25), 1.6, width)
    planes *= np.float32(0.55) * coverage(muscle + np.float32(3), width)
    layer = sheet_coverage(muscle + np.float32(11), 1.2, width)
    layer *= np.float32(0.35)
    layer *= inside > 13
    planes += layer
    some = value.take(where)
    mix(some, clip(planes, 0, 0.85), -95)
    value[where] = some


class _Lungs:
    """Paints lungs and diaphragm within the cage."""

    def __init__(self, canvas: Canvas, cage: Cage, heart: HeartShape, lung_hu: float) -> None:
        self.canvas, self.cage = canvas, cage
        self.box = canvas.box((-166, -130, -340), (166, 114, 108))
        if self.box is None:
            return
        lattice = Lattice(canvas, self.box, _LATTICE_MM)
        low, high = heart.bounds(24)
        sac = lattice.part(lambda *p: heart.chambers(*p)["pericardium"], low, high, 60)
        self.between = lattice.rows(lattice(cage.mediastinum, sac))
        self.oblique = lattice.rows(lattice(cage.oblique_fissure))
        self.horizontal = lattice.rows(lattice(cage.horizontal_fissure))
        self.air = _air(canvas, cage, self.box, lung_hu)

    def paint(
        self,
        box: Box,
        hu: Volume,
        labels: NDArray[np.uint8],
        lobes: NDArray[np.uint8],
        inside: Volume,
        diaphragm: Volume,
    ) -> None:
        """Paint in a box, given the distances to cage and diaphragm there.

        ``hu`` and ``labels`` are those of the box, ``lobes`` those of the whole canvas.
        """
        here = overlap(box, self.box) if self.box else None
        if self.box is None or here is None:
            return
        canvas, width = self.canvas, self.canvas.width
        local, (zs, ys, xs) = within(here, box), within(here, self.box)
        inside, diaphragm = inside[local], diaphragm[local]
        hu_box, labels_box = hu[local], labels[local]
        edge = np.float32(0.5 * width)
        if diaphragm.min() < width + 1:
            _paint_diaphragm(diaphragm, inside, width, hu_box, labels_box)
        # Where there can be lung, whatever lies between the lungs: often nowhere.
        cavity = self.cage.cavity(inside, diaphragm)
        where = np.flatnonzero(cavity < edge)
        if not where.size:
            return
        between = self.between(zs)[:, ys, xs].reshape(-1).take(where)
        surface = self.cage.lungs(cavity.reshape(-1).take(where), between)
        held = np.flatnonzero(surface < edge)
        where, surface = where.take(held), surface.take(held)
        values = hu_box.ravel()
        px, move_x, *_ = canvas.parts(here)
        right = np.greater(px, -move_x).reshape(-1).take(where)
        air, oblique, horizontal = (
            rows(zs)[:, ys, xs].ravel().take(where)
            for rows in (self.air, self.oblique, self.horizontal)
        )
        share = coverage(surface, width)
        upper, top = oblique > 0, horizontal > 0
        _paint_fissures(oblique, horizontal, right & upper, width, air)
        value = values.take(where)
        mix(value, share, air)
        values[where] = value
        hu[local] = values.reshape(inside.shape)
        inner = np.flatnonzero(share >= 0.5)
        up = upper.view(np.uint8)
        # 5 or 4 on the left, 3, 2 or 1 on the right.
        number = np.uint8(5) - up - right * (np.uint8(2) + (top & upper))
        where, number = where[inner], number[inner]
        part = np.zeros(inside.shape, np.uint8)
        part.reshape(-1)[where] = number
        lobes[here] = part
        part += np.uint8(LABELS[LOBES[0]] - 1)
        np.copyto(labels_box, part, where=part >= LABELS[LOBES[0]])


def _paint_diaphragm(
    diaphragm: Volume, inside: Volume, width: float, hu: Volume, labels: NDArray[np.uint8]
) -> None:
    """Paint the diaphragm's muscle, given the distances to it and to the cage."""
    cup = np.abs(diaphragm + np.float32(1.2))
    cup -= np.float32(1.6)
    np.maximum(cup, inside, out=cup)
    near = cup < np.float32(0.5 * width)
    share, value = coverage(cup[near], width), hu[near]
    mix(value, share, 48)
    hu[near] = value
    near[near] = share >= 0.5
    labels[near] = LABELS["diaphragm"]


def _paint_fissures(
    oblique: Volume, horizontal: Volume, middle: NDArray[np.bool_], width: float, air: Volume
) -> None:
    """Raise the lung's values along its fissures; ``middle``: where the horizontal one may be."""
    reach = np.float32((width + 0.55) / 2)
    near = np.abs(horizontal) < reach
    near &= middle
    near |= np.abs(oblique) < reach
    where = np.flatnonzero(near)
    line = sheet_coverage(horizontal.take(where), 0.55, width)
    line *= middle.take(where)
    np.maximum(line, sheet_coverage(oblique.take(where), 0.55, width), out=line)
    line *= np.float32(520)
    air[where] += line


def paint_breasts(canvas: Canvas, cage: Cage) -> None:
    """Glandular tissue, less of it with age, in the fat of the breasts."""
    rise = cage.patient.breast_mm
    box = canvas.box((-165, 20, -135), (165, 190, 25)) if rise > 0 else None
    if box is None:
        return
    lattice = Lattice(canvas, box, _LATTICE_MM)
    breast = lattice(cage.breasts)
    box = lattice.near(breast, _LATTICE_MM)
    if box is None:
        return
    breast = lattice.voxels(breast, box)
    labels = canvas.labels[box]
    free = (labels == LABELS["subcutaneous fat"]) & (breast < 0)
    labels[free] = LABELS["breasts"]
    rng = np.random.default_rng([cage.patient.seed, 15])
    parts = canvas.parts(box)
    strands = grain(parts, rng, 17, 5) + np.float32(0.8) * grain(parts, rng, 7, 4)
    dense = np.clip(1.3 - (cage.patient.age_years - 25) / 45 + rng.normal(0, 0.35), -0.4, 1.4)
    share = np.clip(strands + np.float32(dense - 1.1), 0, 1) * coverage(breast + 9, canvas.width)
    canvas.blend(box, np.asarray(share * free, np.float32), 28, None)


def _air(canvas: Canvas, cage: Cage, box: Box, lung_hu: float) -> Rows:
    """Hounsfield units of the air in the lungs: denser behind, with slow changes."""
    tile = np.random.default_rng([cage.patient.seed, 6]).normal(0, 11, (32, 32, 32))
    step = 11.0
    lattice = Lattice(canvas, box, step)
    numbers = [
        np.round((line - offset) / step).astype(int) % 32
        for line, offset in zip(lattice.lines, canvas.frame.offset_mm, strict=True)
    ]
    x, y, z = numbers
    mottle = tile[z[:, None, None], y[None, :, None], x[None, None, :]].astype(np.float32)
    behind = lattice(lambda _x, y, _z: np.float32(lung_hu) - np.float32(0.34) * y)
    return lattice.rows(mottle + behind)
