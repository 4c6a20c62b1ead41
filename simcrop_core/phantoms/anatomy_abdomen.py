"""Paints what of the upper belly a chest scan shows.

Sizes: liver 1.0 to 2.0 l, spleen 0.1 to 0.3 l, kidneys 10 to 12 cm long (Kratzer et al., J
Ultrasound Med 2003; Prassopoulos et al., Eur Radiol 1997; Emamian et al., AJR 1993).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simcrop_core.phantoms.anatomy_cage import Cage
from simcrop_core.phantoms.anatomy_canvas import Box, Canvas
from simcrop_core.phantoms.anatomy_labels import LABELS
from simcrop_core.phantoms.anatomy_lattice import Lattice
from simcrop_core.phantoms.shapes import (
    capsule,
    coverage,
    ellipsoid,
    grain,
    smooth_intersection,
    smooth_union,
    spline,
)

Volume = NDArray[np.float32]


def paint_abdomen(canvas: Canvas, cage: Cage, hu: dict[str, float]) -> None:
    """Paint the organs under the diaphragm."""
    rng = np.random.default_rng([cage.patient.seed, 12])
    rise = sum(cage.dome) / 2 + 108  # the organs move with the diaphragm
    _bowel(canvas, rng, rise)
    _kidneys(canvas, rng, hu, rise)
    _pancreas(canvas, hu, rise)
    _organs(canvas, cage, hu, rise, rng)


def _kidneys(canvas: Canvas, rng: np.random.Generator, hu: dict[str, float], rise: float) -> None:
    for side, z in ((1, -234), (-1, -222)):
        center = np.array((side * 56.0, -50, z + 0.6 * rise + rng.normal(0, 6)))
        axes = np.array([(0.97, 0, side * 0.24), (0, 1, 0), (-side * 0.24, 0, 0.97)])
        half = np.array((27.0, 24, 54)) * rng.uniform(0.92, 1.08)
        inner = center - (side * 11, -3, 0), np.array((13.0, 9, 28))
        for (middle, size), value in (((center, half), hu["kidneys"]), (inner, -70.0)):
            reach = size @ np.abs(axes)
            box = canvas.box(middle - reach, middle + reach, 2.0)
            if box is not None:
                kidney = ellipsoid(*canvas.at(box), middle, size, axes)
                canvas.paint(box, kidney, value, LABELS["kidneys"])
        top = center + np.array((-side * 22, 8, 46))
        for arm in ((-side * 5, -16, -12), (side * 6, -14, -14)):
            legs = [top + np.array((0, 4, 4)), top, top + np.array(arm)]
            canvas.tube(legs, (1.6, 2.6, 1.8), hu["adrenal glands"], LABELS["adrenal glands"])


def _pancreas(canvas: Canvas, hu: dict[str, float], rise: float) -> None:
    course = np.array(
        [(-82, -22, -182), (-46, -2, -190), (-8, 12, -202), (24, 12, -214), (30, 6, -234)]
    )
    points, radius = spline(course + np.array((0, 0, 0.8 * rise)), 9.0, (9, 10, 8.5, 12, 11))
    canvas.tube(points, radius, hu["pancreas"], LABELS["pancreas"])


def _bowel(canvas: Canvas, rng: np.random.Generator, rise: float) -> None:
    """The colon under the front wall and the spleen, with gas and stool, and loops below."""
    course = np.array(
        [(100, 20, -262), (60, 58, -250), (8, 68, -240), (-46, 62, -224), (-88, 34, -196),
         (-106, 4, -186), (-112, -20, -220), (-110, -22, -280)], float
    )  # fmt: skip
    course[:, 2] += 0.7 * rise + rng.normal(0, 5)
    points, _ = spline(course, 11.0)
    radius = 15 + 4 * np.sin(np.arange(len(points)) * 1.9 + rng.uniform(0, 6)) + rng.normal(0, 1)
    pieces = []
    for k, box in enumerate(
        canvas.boxes(points[:-1], points[1:], np.maximum(radius[:-1], radius[1:]))
    ):
        if box is not None:
            wall = capsule(*canvas.at(box), points[k], points[k + 1], radius[k], radius[k + 1])
            canvas.paint(box, wall, 42, LABELS["bowel"])
            pieces.append((k, box, wall + np.float32(2.6)))
    level = rng.uniform(0, 12)
    number = int(rng.integers(2**31))
    for k, box, distance in pieces:
        _, y, _ = canvas.at(box)
        stool = grain(canvas.parts(box), np.random.default_rng(number), 11)
        stool *= np.float32(32)
        stool -= np.float32(5)
        surface = np.float32(points[k : k + 2, 1].mean() + level)
        stool[np.broadcast_to(y > surface, stool.shape)] = -940
        canvas.blend(box, coverage(distance, canvas.width), stool, LABELS["bowel"])
    loops = []
    for _ in range(28):
        x0, y0, z0 = rng.uniform((-90, -12, -330), (40, 68, -222))
        center, half = np.array((x0, y0, z0 + rise)), rng.uniform(9, 15, 3)
        inner = float(rng.choice([18.0, 25.0, 32.0]))
        loops.append((center, half, inner))
    centers = np.stack([center for center, _, _ in loops])
    halves = np.stack([half for _, half, _ in loops])
    boxes = canvas.boxes(centers - halves, centers + halves, np.ones(len(loops)))
    for near, (center, half, inner) in zip(boxes, loops, strict=True):
        if near is not None:
            loop = ellipsoid(*canvas.at(near), center, half)
            canvas.paint(near, loop, 45, LABELS["bowel"])
            canvas.paint(near, loop + np.float32(2.5), inner, LABELS["bowel"])


def _organs(
    canvas: Canvas, cage: Cage, hu: dict[str, float], rise: float, rng: np.random.Generator
) -> None:
    box = canvas.box((-140, -110, -285), (140, 95, max(cage.dome) + 14))
    if box is None:
        return
    lattice = Lattice(canvas, box, 6.5)
    p = lattice.points
    under = np.maximum(cage.diaphragm_mapped(*p) + 3.4, cage.inside(*p) + 2.5)
    stomach = np.maximum(_stomach(cage, p, rise), under + 1)
    liver = np.maximum(_liver(p, under, rise, rng), 2.5 - stomach)
    spleen = ellipsoid(
        *p, (-100, -38, -160 + 0.8 * rise), np.array((33, 54, 60)) * rng.uniform(0.84, 1.12),
        np.array([(0.86, -0.42, 0.28), (0.45, 0.89, 0), (-0.25, 0.13, 0.96)]),
    )  # fmt: skip
    spleen = smooth_intersection(np.maximum(spleen, 2 - stomach), under, 8)
    gall = ellipsoid(*p, (50, 40, -212 + rise), np.array((13, 15, 27)) * rng.uniform(0.7, 1.15))
    liver = np.maximum(liver, 0.5 - gall)
    for name, values in (("spleen", spleen), ("liver", liver)):
        near = lattice.near(values, 6.5)
        if near is not None:
            canvas.paint(near, lattice.voxels(values, near), hu[name], LABELS[name])
    _liver_vessels(canvas, hu, rise)
    near = lattice.near(gall, 6.5)
    if near is not None:
        bag = lattice.voxels(gall, near)
        canvas.paint(near, bag, 28, LABELS["gallbladder"])
        canvas.paint(near, bag + np.float32(1.6), 7, LABELS["gallbladder"])
    near = lattice.near(stomach, 6.5)
    if near is not None:
        distance = lattice.voxels(stomach, near)
        canvas.paint(near, distance, hu["stomach wall"], LABELS["stomach"])
        _fill_stomach(canvas, cage, near, distance)


def _liver(
    p: tuple[Volume, Volume, Volume], under: Volume, rise: float, rng: np.random.Generator
) -> Volume:
    x, y, z = p
    low = np.interp(x, (-95, -60, -30, 0, 40, 85, 130), (-112, -128, -146, -168, -202, -240, -246))
    low = low + rng.normal(0, 6) + 0.9 * rise - 0.14 * (y - 20)
    back = np.interp(x, (-90, -45, -10, 14, 30, 44, 62, 130), (34, 16, 0, -12, -26, -52, -92, -120))
    ripple = rng.uniform(0, 6, 3)
    low = low + 7 * np.sin(y / 23 + ripple[0]) + 5 * np.sin(x / 19 + ripple[1])
    back = back + 5 * np.sin(z / 17 + ripple[2]) + 4 * np.sin(x / 15 + ripple[0])
    down = ((low - z) * 0.8).astype(np.float32)
    behind = ((back - y) * 0.8).astype(np.float32)
    out = smooth_intersection(under, down, 16)
    return smooth_intersection(out, behind, 14)


def _liver_vessels(canvas: Canvas, hu: dict[str, float], rise: float) -> None:
    blood = hu["inferior vena cava"] + (0.75 * (hu["liver"] - 59) if hu["liver"] > 90 else 0)
    courses = (
        ([(25, -8, -114), (48, 0, -122), (82, 2, -140), (100, 5, -160)], (5, 4, 3, 1.5)),
        ([(25, -6, -116), (34, 22, -128), (46, 48, -150)], (4.5, 3.5, 1.5)),
        ([(23, -6, -116), (4, 20, -124), (-22, 40, -132)], (4, 3, 1.3)),
        ([(14, 8, -192), (32, 2, -176), (52, -4, -168), (86, -22, -178)], (6.5, 6, 5, 2)),
        ([(52, -4, -168), (74, 24, -170), (92, 40, -182)], (4.5, 3, 1.5)),
        ([(32, 2, -176), (16, 34, -160), (-12, 44, -148)], (5, 3.5, 1.5)),
    )
    for points, radius in courses:
        line, width = spline(np.array(points, float) + np.array((0, 0, 0.9 * rise)), 11.0, radius)
        for box, distance in canvas.capsules(line, width):
            share = coverage(distance, canvas.width) * (canvas.labels[box] == LABELS["liver"])
            canvas.blend(box, share, blood, None)


def _stomach(cage: Cage, p: tuple[Volume, Volume, Volume], rise: float) -> Volume:
    k = 0.8 + 0.38 * cage.patient.stomach_fill
    x, y, z = p[0], p[1], p[2] - np.float32(0.9 * rise)
    fundus = ellipsoid(x, y, z, (-62, -14, -140), np.array((34, 33, 30)) * k)
    body = capsule(x, y, z, (-64, 0, -152), (-52, 40, -204), 29 * k, 24 * k)
    antrum = capsule(x, y, z, (-52, 40, -204), (6, 38, -220), 21 * k, 13 * k)
    cardia = capsule(x, y, z, (-30, -10, -132), (-46, -8, -140), 9, 11)
    out = smooth_union(smooth_union(fundus, body, 14), antrum, 12)
    return smooth_union(out, cardia, 8)


def _fill_stomach(canvas: Canvas, cage: Cage, box: Box, stomach: Volume) -> None:
    """Food and gas, the gas in front."""
    _, y, _ = canvas.at(box)
    parts = canvas.parts(box)
    rng = np.random.default_rng([cage.patient.seed, 14])
    folds = grain(parts, rng, 16, 3)
    level = 58 - 92 * cage.patient.stomach_gas
    food = rng.uniform(8, 30) + float(rng.choice([3.0, 5.0, 12.0])) * grain(parts, rng, 16, 7)
    air = coverage(np.float32(level) - y, canvas.width)
    content = food + air * (-965 - food)
    canvas.blend(box, coverage(stomach + 4 + folds, canvas.width), content, None)
