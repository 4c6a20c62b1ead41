"""Courses of tubes in the standard adult chest: vessels, airways, oesophagus.

Patient coordinates (millimetres from the carina, +x right, +y front, +z head). Levels follow the
usual surface anatomy: carina and sternal angle at T4/T5, pulmonary trunk at T5, left atrium T6 to
T8, oesophageal hiatus at T10, aortic hiatus at T12 (Gray's Anatomy, 41st edition, chapters 53 to
57); calibres are those of the Fleischner and AHA tables (ascending aorta about 33 mm, pulmonary
trunk 26 mm, trachea 18 mm across).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from simcrop_core.phantoms.plan import PatientPlan
from simcrop_core.phantoms.shapes import spline

Volume = NDArray[np.float32]
Course = tuple[NDArray[np.float64], NDArray[np.float64]]

#: name -> rows of x, y, z, radius.
_COURSES: dict[str, list[tuple[float, float, float, float]]] = {
    "trachea": [(0, 10, 128, 8.5), (1, 4, 80, 8.8), (1, -4, 40, 9), (0, -11, 2, 9.5)],
    "aorta": [
        (-3, 13, -52, 15.5),
        (6, 20, -38, 17),
        (15, 25, -12, 16.5),
        (13, 20, 10, 16),
        (3, 6, 24, 15),
        (-10, -12, 27, 14),
        (-20, -29, 18, 13.5),
        (-23, -39, 0, 13),
        (-22, -46, -40, 12.5),
        (-19, -48, -80, 12.2),
        (-13, -43, -120, 12),
        (-7, -34, -160, 11.5),
        (-4, -24, -200, 10.5),
        (-4, -16, -250, 9.5),
    ],
    "oesophagus": [
        (-2, -5, 125, 7),
        (-4, -14, 80, 7),
        (-5, -22, 40, 7),
        (-5, -28, 0, 7.5),
        (-3, -32, -40, 7.5),
        (-7, -30, -80, 8),
        (-13, -22, -108, 8.5),
        (-22, -14, -122, 9),
        (-32, -10, -134, 10),
    ],
    "superior vena cava": [
        (25, 17, 40, 8),
        (25, 14, 15, 9),
        (25, 10, -15, 9.5),
        (28, 9, -38, 10.5),
    ],
    "inferior vena cava": [
        (26, 2, -92, 12),
        (25, -4, -110, 12),
        (23, -14, -150, 12),
        (18, -18, -200, 11.5),
        (15, -12, -255, 11),
    ],
    "right brachiocephalic vein": [(45, 22, 76, 7), (36, 20, 62, 7.5), (25, 17, 40, 8)],
    "left brachiocephalic vein": [
        (-42, 22, 72, 7),
        (-18, 27, 56, 7.5),
        (6, 25, 46, 8),
        (25, 17, 38, 8),
    ],
    "right subclavian vein": [
        (45, 22, 76, 6.5),
        (75, 28, 84, 6),
        (115, 8, 86, 5.5),
        (150, -8, 78, 5),
    ],
    "left subclavian vein": [
        (-42, 22, 72, 6.5),
        (-75, 28, 82, 6),
        (-115, 8, 86, 5.5),
        (-150, -8, 78, 5),
    ],
    "right jugular vein": [(45, 22, 76, 6.5), (36, 16, 100, 6), (34, 14, 140, 6)],
    "left jugular vein": [(-42, 22, 72, 6), (-36, 16, 100, 5.5), (-34, 14, 140, 5.5)],
    "brachiocephalic artery": [(6, 10, 30, 6.5), (12, 8, 46, 6.5), (20, 6, 66, 6), (26, 2, 76, 5)],
    "right carotid": [(22, 4, 70, 3.8), (20, 6, 95, 3.5), (24, 6, 140, 3.5)],
    "right subclavian": [(24, 3, 74, 4.5), (45, -4, 86, 4.5), (85, 4, 84, 4), (140, -14, 80, 3.5)],
    "left carotid": [(-4, -1, 34, 4), (-12, 0, 60, 3.8), (-20, 4, 95, 3.5), (-24, 6, 140, 3.5)],
    "left subclavian": [
        (-15, -18, 36, 5),
        (-24, -18, 62, 4.8),
        (-45, -8, 84, 4.5),
        (-85, 4, 84, 4),
        (-140, -14, 80, 3.5),
    ],
    "azygos vein": [
        (6, -30, -160, 3),
        (7, -36, -80, 3.5),
        (8, -34, -20, 4),
        (14, -26, 4, 4.5),
        (20, -10, 10, 5),
        (25, 6, 6, 5),
    ],
    "pulmonary trunk": [
        (-14, 40, -52, 13.5),
        (-17, 36, -36, 13.5),
        (-18, 24, -20, 13.5),
        (-17, 8, -12, 13),
    ],
    "right pulmonary artery": [
        (-12, 8, -16, 11),
        (4, 1, -19, 10.5),
        (22, -2, -20, 10),
        (38, -8, -22, 9),
    ],
    "left pulmonary artery": [
        (-16, 6, -11, 11),
        (-28, -8, -6, 10.5),
        (-40, -20, -8, 9.5),
        (-46, -28, -18, 9),
    ],
    "right interlobar artery": [(36, -8, -22, 8.5), (42, -16, -34, 8), (44, -22, -50, 7.5)],
    "left interlobar artery": [(-45, -27, -16, 8.5), (-49, -31, -30, 8), (-50, -33, -46, 7.5)],
    "right main bronchus": [(0, -11, 2, 8), (10, -13, -8, 7.5), (23, -17, -17, 7)],
    "left main bronchus": [(0, -11, 2, 7.5), (-14, -15, -9, 6.3), (-38, -24, -25, 6)],
    "bronchus intermedius": [(23, -17, -17, 6), (28, -21, -32, 5.5), (31, -23, -42, 5.2)],
    "left lower trunk": [(-38, -24, -25, 5.2), (-42, -29, -34, 5), (-44, -33, -43, 4.8)],
    "right upper pulmonary vein": [(14, -8, -42, 6.5), (30, -3, -36, 6), (44, 2, -30, 5)],
    "right lower pulmonary vein": [(14, -18, -56, 7), (28, -27, -58, 6.5), (42, -36, -64, 5)],
    "left upper pulmonary vein": [(-28, -12, -38, 6.5), (-40, -10, -30, 6), (-50, -7, -24, 5)],
    "left lower pulmonary vein": [(-26, -22, -54, 7), (-38, -31, -58, 6.5), (-50, -40, -64, 5)],
    "spine": [
        (0, 8, 140, 11),
        (0, -6, 110, 12),
        (0, -28, 75, 13),
        (0, -44, 40, 14),
        (0, -53, 0, 15),
        (0, -57, -50, 16),
        (0, -54, -100, 17),
        (0, -46, -150, 18.5),
        (0, -34, -200, 20),
        (0, -20, -260, 21.5),
    ],
}
_ARTERIAL = ("aorta", "brachiocephalic artery", "right carotid", "left carotid")
_TRUNK = ("pulmonary trunk",)


def spine_bow(
    patient: PatientPlan, z: NDArray[np.floating]
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """How far the spine lies beside (x) and behind (y) its standard course at a height."""
    phase = _bow_phase(patient.seed)
    side = patient.scoliosis_mm * np.sin((z + 60) / 62 + phase) * np.exp(-(((z + 70) / 150) ** 2))
    back = -patient.kyphosis_mm * (np.exp(-(((z + 25) / 85) ** 2)) - 0.35)
    return side, back


@lru_cache(maxsize=16)
def _bow_phase(seed: int) -> float:
    return np.random.default_rng([seed, 2]).uniform(-0.6, 0.6)


def courses(patient: PatientPlan) -> dict[str, Course]:
    """All courses of a person: points (N, 3) and radii (N,), millimetres."""
    rng = np.random.default_rng([patient.seed, 3])
    age = (patient.age_years - 20) / 70
    found = {}
    for name, rows in _COURSES.items():
        table = np.array(rows, float)
        points, radius = table[:, :3], table[:, 3].copy()
        if name == "spine":
            side, back = spine_bow(patient, points[:, 2])
            points[:, 0] += side
            points[:, 1] += back
        elif name == "aorta":
            radius *= patient.aorta_scale
            # With age the aorta unfolds: the arch rises, the descending part bows to the left.
            bend = np.exp(-(((points[:, 2] + 50) / 60) ** 2)) * (points[:, 1] < -20)
            points[:, 0] -= bend * (age * rng.uniform(2, 10) + rng.normal(0, 1.5))
            points[4:7, 2] += age * 7 + rng.normal(0, 2)
        elif name in _ARTERIAL:
            radius *= 0.6 + 0.4 * patient.aorta_scale
        found[name] = spline(points, 6.0, radius)
    return found


def column(x: Volume, y: Volume, z: Volume, course: Course) -> Volume:
    """Distance to a tube that runs up and down, whose ends are open."""
    return column_distance(x, y, *column_lines(z, course))


def column_lines(z: Volume, course: Course) -> tuple[Volume, Volume, Volume, Volume, Volume]:
    """At heights: place of such a tube (x, y), its radius, and its slope along x and y."""
    points, radius = course
    order = np.argsort(points[:, 2])
    p, r = points[order], radius[order]
    slope = np.gradient(p[:, :2], p[:, 2], axis=0)
    lines = (p[:, 0], p[:, 1], r, slope[:, 0], slope[:, 1])
    xc, yc, rc, tx, ty = (np.interp(z, p[:, 2], v).astype(np.float32) for v in lines)
    return xc, yc, rc, tx, ty


def column_distance(
    x: Volume, y: Volume, xc: Volume, yc: Volume, rc: Volume, tx: Volume, ty: Volume
) -> Volume:
    """Distance to a tube from its :func:`column_lines`."""
    n = 1 / np.sqrt(1 + tx * tx + ty * ty)
    u, v = x - xc, y - yc
    along = u * (tx * n) + v * (ty * n)
    u *= u
    v *= v
    along *= along
    gap = u + v
    gap -= along
    np.maximum(gap, 0, out=gap)
    np.sqrt(gap, out=gap)
    gap -= rc
    return gap
