"""Builds the chest of a plan on a grid: shapes in order, from the skin inwards."""

from __future__ import annotations

import numpy as np

from simcrop_core.geometry import Grid
from simcrop_core.phantoms.anatomy import Anatomy, Centreline, Heart
from simcrop_core.phantoms.anatomy_abdomen import paint_abdomen
from simcrop_core.phantoms.anatomy_blood import tissue_hu
from simcrop_core.phantoms.anatomy_bones import paint_bones
from simcrop_core.phantoms.anatomy_cage import Cage
from simcrop_core.phantoms.anatomy_canvas import Canvas
from simcrop_core.phantoms.anatomy_courses import courses
from simcrop_core.phantoms.anatomy_frame import Frame
from simcrop_core.phantoms.anatomy_heart import CENTER, LV_AXES, HeartShape, heart_enlargement
from simcrop_core.phantoms.anatomy_mediastinum import paint_mediastinum
from simcrop_core.phantoms.anatomy_ribs import marrow_hu
from simcrop_core.phantoms.anatomy_tree import grow_trees
from simcrop_core.phantoms.anatomy_tree_paint import paint_trees
from simcrop_core.phantoms.anatomy_trunk import paint_breasts, paint_trunk
from simcrop_core.phantoms.plan import PhantomPlan
from simcrop_core.phantoms.scanner import paint_couch


def build_anatomy(plan: PhantomPlan, grid: Grid) -> Anatomy:
    """Draw the healthy chest of a plan.

    Of the findings only cardiomegaly is heeded, for it changes the shape of all around it.
    """
    patient = plan.patient
    frame = Frame.of(patient)
    canvas = Canvas(grid, frame)
    tubes = courses(patient)
    large = [f.severity for f in plan.findings if f.name == "Cardiomegaly"]
    chest_mm = Cage(patient, tubes, 1.0).width_mm
    heart = HeartShape(patient, heart_enlargement(patient, chest_mm, large[0] if large else None))
    cage = Cage(patient, tubes, heart.scale)
    lobes, diaphragm = paint_trunk(canvas, cage, heart, patient.lung_hu)
    paint_breasts(canvas, cage)
    hu = tissue_hu(plan.scanner)
    paint_bones(canvas, cage, marrow_hu(patient), hu["muscle"])
    paint_abdomen(canvas, cage, hu)
    paint_mediastinum(canvas, cage, heart, hu, diaphragm)
    paint_couch(canvas, cage, plan.scanner)
    scale = frame.mean_scale
    for name, points in heart.coronaries().items():
        tubes = tubes | {name: (points, np.full(len(points), 1.7))}
    # All at once: the way back from patient to world takes several rounds.
    ends = np.cumsum([len(points) for points, _ in tubes.values()])[:-1]
    worlds = np.split(frame.world(np.concatenate([points for points, _ in tubes.values()])), ends)
    lines = {
        name: Centreline(world, radius * scale)
        for (name, (_, radius)), world in zip(tubes.items(), worlds, strict=True)
    }
    trees = grow_trees(cage, heart, frame)
    paint_trees(canvas, lobes, trees, hu["pulmonary artery"], hu["pulmonary veins"])
    marks = {
        "carina": (0, -11, 0),
        "right hilum": (40, -15, -28),
        "left hilum": (-45, -25, -22),
        "right dome": (62, 14, cage.dome[0]),
        "left dome": (-62, 14, cage.dome[1]),
        "hiatus": (-22, -14, -122),
    }
    valves = {
        "aortic valve": (-3, 13, -52),
        "mitral valve": (-20, 4, -60),
        "tricuspid valve": (10, 24, -70),
        "right ventricle apex": (-52, 50, -98),
    }
    landmarks = {n: frame.world(p) for n, p in marks.items()}
    landmarks |= {n: frame.world(heart.patient(np.array(p, float))) for n, p in valves.items()}
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
        trees=trees,
        centrelines=lines,
        landmarks=landmarks,
        heart=_whole_heart(frame, heart),
        blood_hu={
            "aorta": hu["aorta"],
            "pulmonary artery": hu["pulmonary artery"],
            "veins": hu["pulmonary veins"],
        },
    )


def _whole_heart(frame: Frame, heart: HeartShape) -> Heart:
    center = frame.world(heart.patient(CENTER))
    rows = []
    for axis in LV_AXES:
        toward = frame.world(heart.patient(CENTER + axis)) - center
        rows.append(toward / np.linalg.norm(toward))
    return Heart(center, np.stack(rows), np.array([68, 46, 46]) * frame.mean_scale * heart.scale)
