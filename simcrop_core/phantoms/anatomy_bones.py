"""Spine, sternum, shoulder girdle and humeri."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from simcrop_core.phantoms.anatomy_cage import Cage
from simcrop_core.phantoms.anatomy_canvas import Box, Canvas, mix
from simcrop_core.phantoms.anatomy_courses import spine_bow
from simcrop_core.phantoms.anatomy_labels import LABELS
from simcrop_core.phantoms.anatomy_lattice import Lattice
from simcrop_core.phantoms.anatomy_ribs import VERTEBRAE
from simcrop_core.phantoms.shapes import capsule, clip, coverage, ellipsoid, smooth_union, spline

Volume = NDArray[np.float32]
FloatArray = NDArray[np.float64]
_HEIGHTS = np.array(sorted(VERTEBRAE.values()))
#: Half width and half depth of the vertebral bodies by height (T1 31 x 17 mm, T12 43 x 31 mm,
#: Panjabi et al., Spine 1991).
_BODY_Z = (-280, -150, -60, 20, 106, 140)
_BODY_W = (25, 21.5, 16.5, 15, 15.5, 13)
_BODY_D = (18, 16.5, 15.5, 13.5, 9.5, 8.5)


def paint_bones(canvas: Canvas, cage: Cage, marrow_hu: float, muscle_hu: float) -> None:
    """Paint all bones but the ribs, and the muscles on both sides of the spine."""
    _beside_spine(canvas, cage, muscle_hu)
    _spine(canvas, cage, marrow_hu)
    _sternum(canvas, cage, marrow_hu)
    for side in (1, -1):
        _shoulder(canvas, cage, side, marrow_hu)


def _beside_spine(canvas: Canvas, cage: Cage, muscle_hu: float) -> None:
    box = canvas.box((-62, -118, -320), (62, 40, 112))
    if box is None:
        return
    lattice = Lattice(canvas, box, 5.0)
    line = cage.tubes["spine"][0]
    order = np.argsort(line[:, 2])

    def back(x: Volume, y: Volume, z: Volume) -> Volume:
        center = np.interp(z, line[order, 2], line[order, 1]).astype(np.float32)
        u = np.abs(x - spine_bow(cage.patient, z)[0].astype(np.float32))
        v = y - center
        behind = np.sqrt((u / 1.5) ** 2 + (v + 44) ** 2) - 34
        # Psoas, and the crura of the diaphragm in front of the spine.
        wide = np.interp(z, (-260, -200, -180), (17, 9, 1)).astype(np.float32)
        psoas = np.sqrt((u - 29) ** 2 + (v + 4) ** 2) - wide
        thick = np.interp(z, (-235, -190, -130, -116), (1, 4.5, 3.5, -4)).astype(np.float32)
        crus = np.abs(np.sqrt((u / 1.15) ** 2 + (v - 14) ** 2) - 17) - thick
        crus = np.maximum(crus, 6 - u)
        return np.asarray(np.minimum(np.minimum(behind, psoas), crus), np.float32)

    distance = lattice.voxels(lattice(back))
    labels = canvas.labels[box]
    fat = labels == LABELS["mediastinal fat"]
    fat |= labels == LABELS["abdominal fat"]
    fat &= distance < np.float32(0.5 * canvas.width)
    where = np.flatnonzero(fat)
    share = coverage(distance.reshape(-1).take(where), canvas.width)
    canvas.blend_some(box, where, share, muscle_hu, LABELS["muscle"])


def _spine(canvas: Canvas, cage: Cage, marrow_hu: float) -> None:
    line = cage.tubes["spine"][0]
    order = np.argsort(line[:, 2])
    heights, depth = line[order, 2], line[order, 1]
    lows = np.arange(-320.0, 170.0, 12.0)
    ends = np.stack([lows, lows + 12])
    x_ends, y_ends = spine_bow(cage.patient, ends)[0], np.interp(ends, heights, depth)
    boxes = canvas.boxes(
        np.stack([x_ends.min(axis=0) - 27, y_ends.min(axis=0) - 42, lows], axis=1),
        np.stack([x_ends.max(axis=0) + 27, y_ends.max(axis=0) + 22, lows + 12], axis=1),
        np.zeros(len(lows)),
    )
    z = canvas.z[:, 0, 0]
    for low, box in zip(lows, boxes, strict=True):
        held = np.flatnonzero((z >= low) & (z < low + 12))
        if held.size and box is not None:
            part = slice(int(held[0]), int(held[-1]) + 1), box[1], box[2]
            _spine_part(canvas, cage, part, (heights, depth), marrow_hu)
    _processes(canvas, cage, marrow_hu)


def _spine_part(
    canvas: Canvas, cage: Cage, box: Box, course: tuple[FloatArray, FloatArray], marrow_hu: float
) -> None:
    """Paint discs, bodies, arches and canal in a box that is not high; ``course``: z and y."""
    x, y, z = canvas.at(box)
    half_w = np.interp(z, _BODY_Z, _BODY_W).astype(np.float32)
    half_d = np.interp(z, _BODY_Z, _BODY_D).astype(np.float32)
    pitch = np.interp(z, _HEIGHTS[:-1], np.diff(_HEIGHTS)).astype(np.float32)
    slope = np.interp(z, course[0], np.gradient(course[1], course[0])).astype(np.float32)
    u = x - spine_bow(cage.patient, z)[0].astype(np.float32)
    v = y - np.interp(z, *course).astype(np.float32)
    ring = np.sqrt((u / half_w) ** 2 + (v / half_d) ** 2)
    axial = (ring - 1) * half_d
    axial = np.maximum(axial, -v - half_d * np.float32(0.86))
    w = v + half_d + np.float32(9.5)
    canal = np.sqrt((u / 10.5) ** 2 + (w / 8.5) ** 2)
    arch = (canal - 1) * np.float32(9)
    # Half of the box is beside the spine.
    reach = np.float32(0.5 * canvas.width + 0.01)
    where = np.flatnonzero((axial < reach) | (arch < reach + np.float32(6.4)))
    if not where.size:
        return
    row = where // (u.shape[1] * u.shape[2])
    z, pitch, slope, wave = (a.ravel().take(row) for a in (z, pitch, slope, np.sin(z * 1.3)))
    u, v, w, axial, arch = (a.reshape(-1).take(where) for a in (u, v, w, axial, arch))
    at = canvas.numbers(box, where)
    value, label = canvas.hu.reshape(-1).take(at), canvas.labels.reshape(-1).take(at)

    def fill(distance: Volume, hu: float | Volume, name: str) -> None:
        share = coverage(distance, canvas.width)
        mix(value, share, hu)
        label[share >= 0.5] = LABELS[name]

    # Plates of the vertebrae stand square to the spine's own course.
    number = _between(z + slope * v, _HEIGHTS)
    phase = number - np.rint(number)
    off = np.abs(phase * pitch)
    high = pitch * np.float32(0.405)
    waist = np.float32(1.6) * (1 - np.minimum((off / high) ** 2, 1))
    body = np.maximum(axial + waist, off - high)
    fill(axial + np.float32(0.5), 88, "intervertebral discs")
    trabecula = marrow_hu + 26 * np.sin(u * 0.9 + z) * np.sin(v * 1.1) * wave
    core = coverage(body + np.float32(1.1), canvas.width)
    plate = np.where(off > high - np.float32(1.5), np.float32(490), np.float32(360))
    fill(body, plate + core * (trabecula - plate), "vertebrae")
    # The canal, with its ring of pedicles (upper half of a vertebra) and laminae.
    bony = np.where(w > -2, (phase > 0.02) & (phase < 0.42), (phase > -0.42) & (phase < 0.3))
    wall = np.abs(arch - np.float32(3.2)) - np.float32(3.2)
    wall[~bony | (w >= 8) | (np.abs(phase) >= 0.5)] = 9
    core = coverage(wall + np.float32(1.3), canvas.width)
    fill(wall, 620 + core * (marrow_hu * 0.9 - 620), "vertebrae")
    fill(arch, 14, "spinal canal")
    fill((np.sqrt((u / 6.0) ** 2 + (w / 4.2) ** 2) - 1) * np.float32(5), 40, "spinal canal")
    canvas.hu.reshape(-1)[at] = value
    canvas.labels.reshape(-1)[at] = label


def _between(level: Volume, heights: NDArray[np.float64]) -> Volume:
    """Numbers of levels between heights that ascend, for levels that lie close together."""
    first = max(int(np.searchsorted(heights, level.min())) - 1, 0)
    last = min(int(np.searchsorted(heights, level.max())), len(heights) - 1)
    out = np.full(level.shape, first, np.float32)
    for low, high in pairwise(heights[first : last + 1]):
        out += clip((level - np.float32(low)) / np.float32(high - low), 0, 1)
    return out


def _processes(canvas: Canvas, cage: Cage, marrow_hu: float) -> None:
    line = cage.tubes["spine"][0]
    order = np.argsort(line[:, 2])
    bone = LABELS["vertebrae"]
    pieces: list[tuple[FloatArray, FloatArray, float, float, int]] = []
    for name, z in VERTEBRAE.items():
        bow = float(spine_bow(cage.patient, np.array(z))[0])
        y = float(np.interp(z, line[order, 2], line[order, 1]))
        d = float(np.interp(z, _BODY_Z, _BODY_D))
        thoracic, lumbar = name.startswith("T"), name.startswith("L")
        drop = 24 if thoracic and name not in ("T11", "T12") else 9
        parts: list[
            tuple[tuple[float, float, float], tuple[float, float, float], float, float, int]
        ]
        parts = [((0, -d - 17, -3), (0, -d - 40, -3 - drop), 3.2, 3.0, bone)]
        reach = 33 - 1.2 * max(0, int(name[1:]) - 6) if thoracic else 36 if lumbar else 26
        for s in (1, -1):
            back = -d - 27 if thoracic else -d - 10
            parts.append(((s * 11, -d - 8, 5), (s * reach, back, 5), 4.2, 3.6, bone))
            if thoracic:
                number = int(name[1:])
                head = 9 if number < 11 else 4
                low, end = (s * 17, -d + 4, head), (s * (reach + 1), back + 3, head - 4)
                parts.append((low, end, 3.6, 3.6, LABELS["ribs"]))
        middle = np.array((bow, y, z))
        for p, q, a, b, label in parts:
            pieces.append((middle + p, middle + q, a, b, label))
    starts, stops = (np.stack([piece[k] for piece in pieces]) for k in (0, 1))
    wide = np.array([max(a, b) for _, _, a, b, _ in pieces])
    for box, piece in zip(canvas.boxes(starts, stops, wide), pieces, strict=True):
        if box is not None:
            start, stop, a, b, label = piece
            distance = capsule(*canvas.at(box), start, stop, a, b)
            canvas.bone(box, distance, 520, marrow_hu, 1.2, label)


def _sternum(canvas: Canvas, cage: Cage, marrow_hu: float) -> None:
    bands = np.linspace(-132, 52, 7)
    for low, high in pairwise(bands.tolist()):
        ends = np.linspace(low, high, 5).astype(np.float32)
        front = np.add(*cage.outline(ends)[1:])
        box = canvas.box((-36, front.min() - 3, low), (36, front.max() + 18, high))
        inside = np.flatnonzero((canvas.z[:, 0, 0] >= low) & (canvas.z[:, 0, 0] < high))
        if box is not None and inside.size:
            here = slice(int(inside[0]), int(inside[-1]) + 1), box[1], box[2]
            _sternum_part(canvas, cage, here, marrow_hu)


def _sternum_part(canvas: Canvas, cage: Cage, box: Box, marrow_hu: float) -> None:
    x, y, z = canvas.at(box)
    _, middle, half = cage.outline(z)
    lean = np.float32(np.clip(cage.phases[6] - 3, -2, 2))
    half_w = np.interp(
        z, (-132, -122, -104, -98, -70, -20, -9, -5, 0, 22, 44, 50),
        (3, 6, 7, 14, 18, 14, 13.5, 15, 18, 24, 27, 21),
    ).astype(np.float32)  # fmt: skip
    thick = np.interp(z, (-132, -100, -8, -5, 0, 50), (2.5, 5, 5, 6.0, 5.5, 7)).astype(np.float32)
    u = np.abs(x - lean) - (half_w - thick * np.float32(0.8))
    v = np.abs(y - (middle + half + 7.5)) - thick * np.float32(0.2)
    distance = np.sqrt(np.maximum(u, 0) ** 2 + np.maximum(v, 0) ** 2)
    distance += np.minimum(np.maximum(u, v), 0) - thick * np.float32(0.8)
    notch = 12 - np.sqrt(x * x + (z - 54) ** 2)
    joint = 2.2 - np.abs(z + 6.5)
    ends = np.maximum(z - 47, -128 - z)
    distance = np.maximum(np.maximum(distance, notch), np.maximum(ends, joint * 0.8))
    canvas.bone(box, distance.astype(np.float32), 420, marrow_hu * 0.75, 1.2, LABELS["sternum"])


def _shoulder(canvas: Canvas, cage: Cage, side: int, marrow_hu: float) -> None:
    up = cage.patient.arms == "up"
    head, elbow = (np.array(p) for p in cage.arm_axis)
    sz = head[2]
    flip = np.array([side, 1, 1])
    front = float(np.add(*cage.outline(np.float32(40))[1:]))
    lateral = (128, -14, sz + 26)
    course = [(24, front + 8, 50), (58, front + 2, 62), (98, 14, 0.6 * sz + 34), lateral]
    points, radius = spline(np.array(course) * flip, 9.0, (7.5, 5.2, 5.2, 6.5))
    for box, distance in canvas.capsules(points, radius):
        canvas.bone(box, distance, 900, marrow_hu * 1.1, 1.8, LABELS["clavicles"])
    _blade(canvas, cage, side, up, marrow_hu)
    ridge = np.array([(74, -98, 44), (104, -84, 58), (132, -46, sz + 14), (140, -16, sz + 24)])
    ridge_points, ridge_radius = spline(ridge * flip, 10.0, (3.2, 4.0, 4.6, 6.0))
    neck = np.array(
        [(100, -66, 34), (108, -40, 0.5 * sz + 10), (head[0] - 30, head[1] - 8, sz - 8)]
    )
    coracoid = np.array([(head[0] - 28, head[1], sz + 8), (head[0] - 24, head[1] + 22, sz + 6)])
    for pieces, widths in (
        (ridge_points, ridge_radius),
        (neck * flip, (4.5, 6.5, 11.0)),
        (coracoid * flip, (6.0, 4.5)),
    ):
        for box, distance in canvas.capsules(pieces, widths):
            canvas.bone(box, distance, 720, marrow_hu, 1.4, LABELS["scapulae"])
    shaft = [head * flip, (head + (elbow - head) * 0.16) * flip, elbow * flip]
    for box, distance in canvas.capsules(np.array(shaft), (15.0, 11.5, 11.0)):
        canvas.bone(box, distance, 1250, 30, 4.0, LABELS["humeri"])
    near = canvas.box(head * flip, head * flip, 26)
    if near is not None:
        ball = ellipsoid(*canvas.at(near), head * flip, (22.5, 22.5, 22.5))
        canvas.bone(near, ball, 620, marrow_hu * 1.1, 1.4, LABELS["humeri"])


def _blade(canvas: Canvas, cage: Cage, side: int, up: bool, marrow_hu: float) -> None:
    """The blade of the scapula: a plate at an even depth over the ribs."""
    box = canvas.box((side * 40, -140, -95), (side * 140, 0, 100))
    if box is None:
        return
    lattice = Lattice(canvas, box, 5.0)
    depth = lattice.voxels(lattice(cage.inside)) - np.float32(21.5 if up else 22.5)
    # Most of the box is far from the plate.
    where = np.flatnonzero(np.abs(depth) < np.float32(4.1 + 0.5 * canvas.width + 0.05))
    if not where.size:
        return
    depth = depth.ravel().take(where)
    azimuth = lattice.voxels(lattice(cage.azimuth)).ravel().take(where)
    x, _, z = canvas.at_flat(box, where)
    turn = -16.0 if up else 0.0
    s = (azimuth - np.float32(122 + turn)) * np.float32(2)
    w = z - np.float32(14 if up else 0)
    medial = s - 52 - w * np.float32(0.1)
    upper = w - 66 - 0.1 * s
    # From the lower angle to the joint.
    lower = (-(s + 22) * 0.78 - (w - 44) * 0.62 - 8) * np.float32(1.0)
    edge = smooth_union(-upper, -medial, 0.1) * -1
    edge = np.maximum(edge, lower)
    thick = 1.5 + 2.6 * np.clip(1 + lower / 9, 0, 1)
    near = np.maximum(np.abs(depth) - thick, edge)
    some = np.flatnonzero((near < np.float32(0.5 * canvas.width)) & (side * x > 45))
    where, near = where[some], np.asarray(near[some], np.float32)
    core = coverage(near + np.float32(1.3), canvas.width)
    core *= np.float32(marrow_hu - 700)
    core += np.float32(700)
    share = coverage(near, canvas.width)
    canvas.blend_some(box, where, share, core, LABELS["scapulae"])
