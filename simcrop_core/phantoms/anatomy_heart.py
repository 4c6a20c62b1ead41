"""The heart in patient coordinates: chambers, walls, and the sac around them.

Sizes follow adult CT: left ventricle 9 cm long with a wall of 8 to 11 mm, left atrium 4 cm deep,
right ventricle with a wall of 3 to 4 mm (Lang et al., J Am Soc Echocardiogr 2015).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simcrop_core.phantoms.plan import PatientPlan
from simcrop_core.phantoms.shapes import capsule, ellipsoid, smooth_union

Volume = NDArray[np.float32]
PIVOT = np.array([-6.0, 10.0, -48.0])
CENTER = np.array([-19.0, 18.0, -66.0])


def _axes(toward: tuple[float, float, float]) -> NDArray[np.float64]:
    """Unit axes as rows: the given one, one across, and the third."""
    first = np.array(toward) / np.linalg.norm(toward)
    second = np.cross(first, (0.3, 0.2, 0.93))
    second /= np.linalg.norm(second)
    return np.stack([first, second, np.cross(first, second)])


LV_AXES = _axes((-0.70, 0.50, -0.51))
RV_AXES = _axes((-0.66, 0.36, -0.66))


# Width of the heart against the inside of the chest: over a half it is enlarged (Danzer, Am J Med
# Sci 1919). Those drawn keep clear of that by more than the drawing varies, about 0.015.
_NORMAL_RATIO = 0.475
_ENLARGED_RATIO = {"mild": 0.54, "moderate": 0.585, "severe": 0.635}


def heart_enlargement(patient: PatientPlan, chest_mm: float, severity: str | None) -> float:
    """How much larger than planned the heart is drawn.

    Parameters
    ----------
    chest_mm
        Greatest width of the inside of the chest, standard millimetres.
    severity
        Of its cardiomegaly, or None for a normal heart: one that is too wide for a narrow chest is
        drawn smaller.
    """
    # The standard heart's width, which grows as it lies across; found by measuring.
    per_scale = (134.5 + 0.4 * patient.heart_turn_deg) / chest_mm
    if severity is None:
        return min(1.0, _NORMAL_RATIO / (per_scale * patient.heart_scale))
    ratio = _ENLARGED_RATIO[severity] + 0.15 * (patient.heart_scale - 1)
    return ratio / (per_scale * patient.heart_scale)


class HeartShape:
    """The heart of one person; distances in standard millimetres."""

    def __init__(self, patient: PatientPlan, enlargement: float) -> None:
        self.scale = patient.heart_scale * enlargement
        turn = np.radians(patient.heart_turn_deg)
        c, s = np.cos(turn), np.sin(turn)
        # Turns in the frontal plane about the base: an upright heart hangs in the midline.
        self.turn = np.array([(c, 0, -s), (0, 1, 0), (s, 0, c)])
        self.wall = (
            float(np.random.default_rng([patient.seed, 5]).normal(8.6, 0.9)) * enlargement**0.5
        )
        self.fat = patient.visceral_fat

    def local(self, x: Volume, y: Volume, z: Volume) -> tuple[Volume, Volume, Volume]:
        """Coordinates of the standard heart."""
        r = (self.turn / self.scale).astype(np.float32)
        u, v, w = (a - np.float32(p) for a, p in zip((x, y, z), PIVOT, strict=True))
        return tuple(
            r[k, 0] * u + r[k, 1] * v + r[k, 2] * w + np.float32(PIVOT[k]) for k in range(3)
        )

    def patient(self, points_N3: NDArray[np.float64]) -> NDArray[np.float64]:
        """Patient coordinates of points of the standard heart."""
        return (np.asarray(points_N3, float) - PIVOT) @ self.turn * self.scale + PIVOT

    def bounds(self, margin_mm: float = 0.0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Corners in patient coordinates of a box that holds the heart, and a margin."""
        low, high = np.array((-112.0, -48, -132)), np.array((66.0, 84, -14))
        middle, half = (low + high) / 2, (high - low) / 2 * max(self.scale, 1.0)
        return middle - half - margin_mm, middle + half + margin_mm

    def chambers(self, x: Volume, y: Volume, z: Volume) -> dict[str, Volume]:
        """Distances to the blood of the chambers, to the muscle, and to the sac's inside."""
        k = np.float32(self.scale)
        p = self.local(x, y, z)
        lv = ellipsoid(*p, (-44, 20, -73), (40, 22, 21), LV_AXES)
        base = (p[0] + 16) * -0.62 + (p[1] - 2) * 0.5 + (p[2] + 56) * -0.6
        lv_wall = lv - np.float32(self.wall)
        lv_wall = np.maximum(lv_wall, -base - 6)
        lv = np.maximum(lv, -base)
        rv = ellipsoid(*p, (-14, 39, -74), (47, 27, 30), RV_AXES)
        rv = smooth_union(rv, capsule(*p, (-22, 45, -66), (-15, 40, -50), 14, 13), 10)
        rv = np.maximum(rv, -(lv_wall - 1))
        rv = np.maximum(rv, (p[0] - 18) * 0.86 + (p[1] - 26) * -0.5)
        ra = ellipsoid(*p, (17, 15, -66), (24, 27, 33))
        ra = smooth_union(ra, capsule(*p, (22, 28, -50), (6, 38, -44), 9, 6), 5)
        ra = np.maximum(ra, -(rv - 3))
        la = ellipsoid(*p, (-7, -12, -51), (34, 20, 24))
        la = smooth_union(la, capsule(*p, (-30, 0, -42), (-40, 20, -44), 9, 6), 6)
        la = np.maximum(la, -(lv_wall - 1))
        la = np.maximum(la, -(ra - 3))
        out = {"left ventricle": lv, "right ventricle": rv, "left atrium": la, "right atrium": ra}
        walls = [lv_wall, rv - 3.2, la - 2.2, ra - 2.2]
        muscle = walls[0]
        for wall in walls[1:]:
            muscle = np.minimum(muscle, wall)
        sac = walls[0]
        for wall in walls[1:]:
            sac = smooth_union(sac, wall, 26)
        root = capsule(*p, (-3, 13, -52), (8, 21, -30), 18, 18)
        trunk = capsule(*p, (-14, 40, -52), (-17, 35, -34), 15, 15)
        sac = smooth_union(smooth_union(sac, root, 14), trunk, 14)
        out["myocardium"] = muscle
        out["pericardium"] = sac - np.float32(1.0 + 1.6 * self.fat)
        return {name: np.asarray(d * k, np.float32) for name, d in out.items()}

    def coronaries(self) -> dict[str, NDArray[np.float64]]:
        """Courses in patient coordinates, in the fat of the grooves."""
        rows = {
            "left main coronary": [(-14, 16, -45), (-22, 20, -45), (-28, 23, -47)],
            "left anterior descending": [
                (-28, 23, -47), (-35, 38, -54), (-48, 50, -66), (-63, 55, -82), (-74, 52, -95),
            ],
            "circumflex": [
                (-28, 23, -47), (-40, 14, -48), (-50, 2, -55), (-48, -8, -66), (-36, -9, -80),
            ],
            "right coronary": [
                (7, 24, -46), (20, 36, -50), (30, 40, -60),
                (34, 36, -76), (27, 24, -92), (4, 8, -98),
            ],
        }  # fmt: skip
        return {name: self.patient(np.array(points)) for name, points in rows.items()}
