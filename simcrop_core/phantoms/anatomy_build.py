"""Builds the chest of a plan on a grid: shapes in order, from the skin inwards."""

from __future__ import annotations

import numpy as np

from simcrop_core.geometry import Grid
from simcrop_core.phantoms.anatomy import LABELS, LOBES, Anatomy, Branch, Centreline, Heart
from simcrop_core.phantoms.anatomy_canvas import Canvas
from simcrop_core.phantoms.anatomy_courses import courses
from simcrop_core.phantoms.anatomy_frame import Frame
from simcrop_core.phantoms.plan import PhantomPlan
from simcrop_core.phantoms.shapes import capsule, ellipsoid


def build_anatomy(plan: PhantomPlan, grid: Grid) -> Anatomy:
    """Draw the healthy chest of a plan."""
    frame = Frame.of(plan.patient)
    canvas = Canvas(grid, frame)
    tubes = courses(plan.patient)
    whole = (slice(None),) * 3
    x, y, z = canvas.at(whole)
    body = np.maximum(ellipsoid(x, y, z * 0, (0, -8, 0), (165, 112, 1e6)), z - 130)
    canvas.paint(whole, body, -100, LABELS["subcutaneous fat"])
    canvas.paint(whole, body + 15, 50, LABELS["muscle"])
    lobes = np.zeros(canvas.shape, np.uint8)
    for side, sign in (("right", 1), ("left", -1)):
        lung = ellipsoid(x, y, z, (sign * 70, -8, -50), (62, 82, 148))
        lung = np.maximum(lung, -110 - z - 0.3 * y)
        canvas.paint(whole, lung, plan.patient.lung_hu, LABELS[f"{side} upper lobe"])
        inside = lung < 0
        lower = z < -20 + 0.9 * -y - 20
        lobes[inside] = 1 if side == "right" else 4
        lobes[inside & lower] = 3 if side == "right" else 5
        if side == "right":
            lobes[inside & ~lower & np.broadcast_to(z < -35, canvas.shape)] = 2
    for number, name in enumerate(LOBES, 1):
        canvas.labels[lobes == number] = LABELS[name]
    heart = ellipsoid(x, y, z, (-20, 18, -65), (62, 42, 50))
    canvas.paint(whole, heart, 45, LABELS["myocardium"])
    canvas.paint(whole, heart + 10, plan.scanner.blood_hu, LABELS["left ventricle"])
    lobes[heart < 0] = 0
    liver = np.maximum(ellipsoid(x, y, z, (70, 0, -175), (95, 90, 80)), z + 100)
    canvas.paint(whole, liver, 58, LABELS["liver"])
    canvas.paint(whole, ellipsoid(x, y, z, (-90, -40, -165), (40, 50, 50)), 48, LABELS["spleen"])
    canvas.paint(whole, ellipsoid(x, y, z, (-60, 10, -170), (45, 45, 45)), 20, LABELS["stomach"])
    for name, label, hu in (
        ("spine", "vertebrae", 200),
        ("aorta", "aorta", 41),
        ("pulmonary trunk", "pulmonary artery", 41),
        ("superior vena cava", "superior vena cava", 41),
        ("inferior vena cava", "inferior vena cava", 41),
        ("oesophagus", "oesophagus", 35),
        ("trachea", "trachea", -990),
    ):
        points, radius = tubes[name]
        for p, q, a, b in zip(points[:-1], points[1:], radius[:-1], radius[1:], strict=True):
            box = canvas.box(np.minimum(p, q) - 25, np.maximum(p, q) + 25)
            if box:
                canvas.paint(box, capsule(*canvas.at(box), p, q, a, b), hu, LABELS[label])
    scale = frame.mean_scale
    lines = {n: Centreline(frame.world(p), r * scale) for n, (p, r) in tubes.items()}
    lines |= _coronaries(frame, scale)
    trees = [_tree(frame, scale, kind) for kind in ("airways", "arteries", "veins")]
    marks = {
        "carina": (0, -11, 0),
        "right hilum": (40, -15, -28),
        "left hilum": (-45, -25, -22),
        "right dome": (65, 10, -98),
        "left dome": (-70, 8, -110),
        "hiatus": (-22, -14, -122),
        "aortic valve": (-3, 13, -52),
        "mitral valve": (-28, 2, -65),
        "tricuspid valve": (10, 25, -72),
        "right ventricle apex": (-60, 45, -100),
    }
    axis = np.array([-0.72, 0.42, -0.55])
    axis /= np.linalg.norm(axis)
    across = np.cross(axis, [0, 0, 1.0])
    across /= np.linalg.norm(across)
    x_grid, y_grid, z_grid = (canvas.to_grid(a) for a in (canvas.xw, canvas.yw, canvas.zw))
    return Anatomy(
        plan=plan,
        grid=grid,
        frame=frame,
        hu_XYZ=canvas.to_grid(canvas.hu),
        labels_XYZ=canvas.to_grid(canvas.labels),
        lobes_XYZ=canvas.to_grid(lobes),
        x=x_grid,
        y=y_grid,
        z=z_grid,
        airways=trees[0],
        arteries=trees[1],
        veins=trees[2],
        centrelines=lines,
        landmarks={n: frame.world(p) for n, p in marks.items()},
        heart=Heart(
            frame.world((-20, 18, -65)),
            np.stack([axis, across, np.cross(axis, across)]),
            np.array([68, 48, 44]) * scale,
        ),
        blood_hu={"aorta": 41.0, "pulmonary artery": 41.0, "veins": 41.0},
    )


def _coronaries(frame: Frame, scale: float) -> dict[str, Centreline]:
    rows = {
        "left main coronary": [(-12, 16, -40), (-22, 20, -42)],
        "left anterior descending": [
            (-22, 20, -42),
            (-40, 45, -60),
            (-62, 52, -85),
            (-75, 45, -100),
        ],
        "circumflex": [(-22, 20, -42), (-45, 8, -50), (-52, -5, -70), (-40, -10, -88)],
        "right coronary": [(8, 28, -45), (28, 42, -55), (34, 35, -80), (10, 10, -100)],
    }
    return {
        name: Centreline(frame.world(points), np.full(len(points), 1.6) * scale)
        for name, points in rows.items()
    }


def _tree(frame: Frame, scale: float, kind: str) -> tuple[Branch, ...]:
    from simcrop_core.phantoms.anatomy_tree import crude_tree

    return crude_tree(frame, scale, kind)
