"""Paints heart, great vessels, trachea, main bronchi, oesophagus, thyroid, small nodes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from simcrop_core.phantoms.anatomy_cage import Cage
from simcrop_core.phantoms.anatomy_canvas import Canvas, overlap, within
from simcrop_core.phantoms.anatomy_courses import Course, column_distance, column_lines
from simcrop_core.phantoms.anatomy_heart import HeartShape
from simcrop_core.phantoms.anatomy_labels import LABELS
from simcrop_core.phantoms.anatomy_lattice import Lattice
from simcrop_core.phantoms.shapes import coverage, ellipsoid, sheet_coverage, spline

Volume = NDArray[np.float32]
Rows = Callable[[slice], Volume]

#: course -> (structure, key of its Hounsfield units); painted in this order.
_VESSELS: dict[str, tuple[str, str]] = {
    "right jugular vein": ("brachiocephalic veins", "inferior vena cava"),
    "left jugular vein": ("brachiocephalic veins", "superior vena cava"),
    "right subclavian vein": ("brachiocephalic veins", "inferior vena cava"),
    "left subclavian vein": ("brachiocephalic veins", "superior vena cava"),
    "right brachiocephalic vein": ("brachiocephalic veins", "inferior vena cava"),
    "left brachiocephalic vein": ("brachiocephalic veins", "superior vena cava"),
    "azygos vein": ("azygos vein", "inferior vena cava"),
    "superior vena cava": ("superior vena cava", "superior vena cava"),
    "inferior vena cava": ("inferior vena cava", "inferior vena cava"),
    "right upper pulmonary vein": ("pulmonary veins", "pulmonary veins"),
    "right lower pulmonary vein": ("pulmonary veins", "pulmonary veins"),
    "left upper pulmonary vein": ("pulmonary veins", "pulmonary veins"),
    "left lower pulmonary vein": ("pulmonary veins", "pulmonary veins"),
    "right interlobar artery": ("pulmonary artery", "pulmonary artery"),
    "left interlobar artery": ("pulmonary artery", "pulmonary artery"),
    "right pulmonary artery": ("pulmonary artery", "pulmonary artery"),
    "left pulmonary artery": ("pulmonary artery", "pulmonary artery"),
    "pulmonary trunk": ("pulmonary artery", "pulmonary artery"),
    "right carotid": ("aortic branches", "aorta"),
    "right subclavian": ("aortic branches", "aorta"),
    "brachiocephalic artery": ("aortic branches", "aorta"),
    "left carotid": ("aortic branches", "aorta"),
    "left subclavian": ("aortic branches", "aorta"),
    "aorta": ("aorta", "aorta"),
}
#: An upright tube is painted in pieces about so high.
_COLUMN_MM = 24.0
_AIRWAYS = (
    "right main bronchus",
    "left main bronchus",
    "bronchus intermedius",
    "left lower trunk",
)


def paint_mediastinum(
    canvas: Canvas, cage: Cage, heart: HeartShape, hu: dict[str, float], diaphragm: Rows
) -> None:
    """Paint all between the lungs."""
    tubes = cage.tubes
    _nodes(canvas, cage)
    _heart(canvas, cage, heart, hu, diaphragm)
    gullet = tubes["oesophagus"]
    _column(canvas, gullet, 38, "oesophagus")
    _gas(canvas, cage, gullet)
    for name, (structure, key) in _VESSELS.items():
        _vessel(canvas, tubes[name], hu[key], structure)
    for points in heart.coronaries().values():
        line, _ = spline(points, 7.0)
        canvas.tube(
            line, np.linspace(2.0, 1.2, len(line)), hu["aorta"], LABELS["coronary arteries"]
        )
    _thyroid(canvas, cage, hu["thyroid"])
    wall, air = 34.0, -985.0
    airways = [("trachea", "trachea", 1.6)] + [(n, "bronchi", 1.3) for n in _AIRWAYS]
    for name, _, thick in airways:
        points, radius = tubes[name]
        _vessel(canvas, (points, radius + thick), wall, "airway walls")
    for name, structure, _ in airways:
        _vessel(canvas, tubes[name], air, structure)


def _vessel(canvas: Canvas, course: Course, hu: float, name: str) -> None:
    """A tube of any course: its upright stretches in one piece each, the rest bit by bit."""
    points, radius = course
    steps = np.diff(points, axis=0)
    upright = np.abs(steps[:, 2]) > 1.4 * np.hypot(steps[:, 0], steps[:, 1])
    start = 0
    while start < len(steps):
        stop = start
        while stop < len(steps) and upright[stop] == upright[start]:
            stop += 1
        piece = points[start : stop + 1], radius[start : stop + 1]
        if upright[start] and stop - start > 1:
            _column(canvas, piece, hu, name)
            ends = [k for k in (start, stop) if 0 < k < len(points) - 1]
            for k in ends:  # round joints to the next stretch
                box = canvas.box(points[k], points[k], radius[k])
                if box is not None:
                    ball = ellipsoid(*canvas.at(box), points[k], (radius[k],) * 3)
                    canvas.paint(box, ball, hu, LABELS[name])
        else:
            canvas.tube(*piece, hu, LABELS[name])
        start = stop


def _column(canvas: Canvas, course: Course, hu: float, name: str) -> None:
    points, _ = course
    low, high = points[:, 2].min(), points[:, 2].max()
    heights = canvas.z[:, 0, 0]
    held = np.flatnonzero((heights > low - canvas.width) & (heights < high + canvas.width))
    if not held.size:
        return
    lines = column_lines(canvas.z, course)
    xc, yc, rc, tx, ty = (line[:, 0, 0] for line in lines)
    wide = rc * np.sqrt(1 + tx * tx + ty * ty)
    # A few slices at a time: a leaning tube's own box is mostly empty.
    count = max(1, round(_COLUMN_MM / float(canvas.spacing[2])))
    parts = [held[start : start + count] for start in range(0, held.size, count)]
    centers = np.stack([xc, yc, heights], axis=1)
    boxes = canvas.boxes(
        np.array([centers[part].min(axis=0) for part in parts], np.float64),
        np.array([centers[part].max(axis=0) for part in parts], np.float64),
        np.array([wide[part].max() for part in parts], np.float64),
    )
    for part, box in zip(parts, boxes, strict=True):
        if box is None:
            continue
        zs = slice(int(part[0]), int(part[-1]) + 1)
        x, y, z = canvas.at((zs, box[1], box[2]))
        distance = column_distance(x, y, *(line[zs] for line in lines))
        np.maximum(distance, np.maximum(low - z, z - high), out=distance)
        canvas.paint((zs, box[1], box[2]), distance, hu, LABELS[name])


def _gas(canvas: Canvas, cage: Cage, gullet: Course) -> None:
    """Swallowed air here and there in the oesophagus."""
    rng = np.random.default_rng([cage.patient.seed, 9])
    points, _ = gullet
    for _ in range(int(rng.integers(0, 4))):
        start = int(rng.integers(2, len(points) - 14))
        piece = points[start : start + int(rng.integers(3, 12))]
        piece = piece + np.array((rng.normal(0, 1), 1.5, 0))
        canvas.tube(piece, np.full(len(piece), rng.uniform(1.2, 3.2)), -900, LABELS["oesophagus"])


def _nodes(canvas: Canvas, cage: Cage) -> None:
    """Small normal lymph nodes and strands in the fat."""
    rng = np.random.default_rng([cage.patient.seed, 10])
    places = (
        (12, -2, 12), (14, 4, 30), (-22, 2, 2), (6, -22, -14), (-12, 22, 6), (18, 2, 45),
        (96, 10, 40), (-98, 12, 38), (102, 2, 30), (-100, 4, 26), (0, 45, 12), (-5, 48, 28),
    )  # fmt: skip
    for place in places:
        center = np.array(place) + rng.normal(0, 3, 3)
        half = rng.uniform(1.5, 3.6) * np.array([1.0, rng.uniform(1, 1.8), 1.2])
        box = canvas.box(center - half, center + half)
        if box is not None:
            share = coverage(ellipsoid(*canvas.at(box), center, half), canvas.width)
            canvas.blend(box, share * (canvas.hu[box] < -30) * (canvas.hu[box] > -250), 35, None)


def _heart(
    canvas: Canvas, cage: Cage, heart: HeartShape, hu: dict[str, float], diaphragm: Rows
) -> None:
    box = canvas.box(*heart.bounds())
    if box is None:
        return
    lattice = Lattice(canvas, box, 4.5)
    parts = heart.chambers(*lattice.points)
    outer = lattice.near(parts["pericardium"], 5)
    if outer is None:
        return
    below = np.float32(1.5) - diaphragm(outer[0])[:, outer[1], outer[2]]
    sac = np.maximum(lattice.voxels(parts["pericardium"], outer), below)
    inside = lattice.voxels(cage.inside(*lattice.points), outer)
    inside += 1
    np.maximum(inside, sac, out=inside)
    canvas.paint(outer, inside, -92, LABELS["pericardium"])
    line = sheet_coverage(sac + np.float32(0.6), 1.3, canvas.width)
    line *= inside < 1.5
    canvas.blend(outer, line, 18, None)
    below += 2
    order = (
        ("myocardium", "myocardium"),
        ("right atrium", "right heart"),
        ("right ventricle", "right heart"),
        ("left atrium", "left heart"),
        ("left ventricle", "left heart"),
    )
    for name, key in order:
        near = lattice.near(parts[name], 4.5)
        near = None if near is None else overlap(near, outer)
        if near is not None:
            distance = lattice.voxels(parts[name], near)
            np.maximum(distance, below[within(near, outer)], out=distance)
            canvas.paint(near, distance, hu[key], LABELS[name])


def _thyroid(canvas: Canvas, cage: Cage, hu: float) -> None:
    rng = np.random.default_rng([cage.patient.seed, 11])
    grow = rng.uniform(0.85, 1.2)
    for side in (1, -1):
        center = np.array((side * 17.0, 10, 92 + rng.normal(0, 3)))
        half = np.array((8.0, 9.5, 23.0)) * grow * rng.uniform(0.9, 1.1)
        box = canvas.box(center - half, center + half)
        if box is not None:
            canvas.paint(box, ellipsoid(*canvas.at(box), center, half), hu, LABELS["thyroid"])
    canvas.tube([(-14, 17, 88), (0, 20, 87), (14, 17, 88)], (4.0, 3.5, 4.0), hu, LABELS["thyroid"])
