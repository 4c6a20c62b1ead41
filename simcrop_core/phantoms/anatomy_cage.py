"""The big surfaces of the chest: cage, muscles, skin, diaphragm, mediastinum, lungs, fissures.

All are signed distances (negative inside) as functions of patient coordinates, so that they can be
asked at voxels, on a lattice, or at the tips of a growing tree.

Measures: cage and levels after the standard adult (Gray's Anatomy, 41st edition, chapters 53 to
55); ratio of heart to chest 0.42 to 0.50 (Danzer 1919); domes in full inspiration at the tenth rib
behind, the right 1 to 2 cm higher.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcrop_core.phantoms.anatomy_courses import Course, column, spine_bow
from simcrop_core.phantoms.plan import PatientPlan
from simcrop_core.phantoms.shapes import capsule, clip, ellipsoid, smooth_intersection, smooth_union

Volume = NDArray[np.float32]
FloatArray = NDArray[np.float64]

#: Inside of the cage by height: half width; front; back (at the lungs' deepest).
_CAGE = np.array(
    [
        (-300, 128, 88, -66),
        (-260, 130, 88, -72),
        (-220, 132, 87, -82),
        (-180, 134, 86, -91),
        (-140, 136, 84, -98),
        (-100, 136, 81, -102),
        (-60, 133, 77, -103),
        (-30, 128, 72, -102),
        (0, 121, 64, -100),
        (20, 113, 55, -96),
        (40, 102, 43, -90),
        (60, 86, 27, -77),
        (75, 70, 12, -63),
        (88, 50, -6, -51),
        (97, 30, -18, -43),
        (104, 8, -26, -36),
        (150, 4, -26, -34),
    ],
    float,
)
#: The diaphragm's map in patient coordinates.
_MAP_MM = 3.0
_MAP_X, _MAP_Y = np.arange(-240.0, 241.0, _MAP_MM), np.arange(-210.0, 211.0, _MAP_MM)
RIB_MM = 10.5  # from the pleura to the outside of the ribs


def bump(value: Volume, low: float, high: float, soft: float) -> Volume:
    """1 between two values, falling to 0 over ``soft`` beyond them."""
    t = np.clip(np.maximum(low - value, value - high) / np.float32(soft), 0, 1)
    return np.asarray(1 - t * t * (3 - 2 * t), np.float32)


class Cage:
    """The surfaces of one person."""

    def __init__(self, patient: PatientPlan, tubes: dict[str, Course], enlargement: float) -> None:
        rng = np.random.default_rng([patient.seed, 4])
        self.patient, self.tubes = patient, tubes
        self.enlargement = enlargement
        table = _CAGE.copy()
        breath = 1 - patient.inspiration
        self.power = float(rng.uniform(2.25, 2.75))
        self.depth = float(rng.normal(1, 0.05)) * (1 - 0.06 * breath)
        table[:, 1] *= rng.normal(1.035, 0.03) * (1 - 0.02 * breath)
        # A barrel chest is deep in front; flat ones are shallow.
        table[:, 2] = table[:, 2] * np.where(table[:, 2] > 0, self.depth, 1)
        table[:, 2] += np.interp(
            table[:, 0], (-150, -60, 60), (rng.normal(0, 4), rng.normal(0, 4), 0)
        )
        table[:, 3] += spine_bow(patient, table[:, 0])[1] * 0.8
        self.table = table
        rise = 34 * breath
        self.dome = (-102 + rise + patient.dome_mm[0], -115 + rise + patient.dome_mm[1])
        self.waist = float(rng.normal(0, 5) - 4 * (patient.muscle - 1))
        self.fat_mm = patient.fat_mm
        self.phases = rng.uniform(0, 2 * np.pi, 8).astype(np.float32)
        self.fissure = rng.normal(0, 1, 8)
        self.septum = rng.uniform(3.5, 9.0) * min(patient.visceral_fat, 1.6)
        self.breath = breath

    @property
    def width_mm(self) -> float:
        """Greatest width of the inside, standard millimetres."""
        return 2 * float(self.table[:, 1].max())

    # -- the cage and what lies on it ------------------------------------------------------------

    def outline(self, z: Volume | np.float32) -> tuple[Volume, Volume, Volume]:
        """Half width, middle and half depth of the cage at a height."""
        heights = self.table[:, 0]
        a, front, back = (
            np.interp(z, heights, self.table[:, k]).astype(np.float32) for k in (1, 2, 3)
        )
        return a, (front + back) / 2, (front - back) / 2

    def inside(self, x: Volume, y: Volume, z: Volume) -> Volume:
        """Distance to the pleura on the ribs (below the diaphragm: to the peritoneum)."""
        a, yc, b = self.outline(z)
        p = np.float32(self.power)
        v = (y - yc) / b
        # Narrower in front than behind, most so above.
        narrow = np.interp(z, (-120, 0, 50), (0.1, 0.16, 0.26)).astype(np.float32)
        a = a * (1 - narrow * np.clip(v + 0.15, 0, 1))
        u, v = np.abs(x) / a, np.abs(v)
        q = np.maximum(u**p + v**p, np.float32(1e-6)) ** (1 / p)
        steep = q ** (1 - p) * np.sqrt((u ** (p - 1) / a) ** 2 + (v ** (p - 1) / b) ** 2)
        distance = (q - 1) / np.maximum(steep, np.float32(1e-3))
        # Near the apex the surface leans inwards.
        lean = np.interp(z, (20, 50, 80, 100, 104), (0.1, 0.65, 1.2, 2.2, 3.0)).astype(np.float32)
        distance = distance / np.sqrt(1 + lean * lean)
        return np.asarray(np.maximum(distance, z - np.float32(103)), np.float32)

    def azimuth(self, x: Volume, y: Volume, z: Volume) -> Volume:
        """Degrees from the front (0) by the side (90) to the back (180), on either side."""
        _, yc, _ = self.outline(z)
        return np.asarray(np.degrees(np.arctan2(np.abs(x), y - yc)), np.float32)

    def muscle(self, x: Volume, y: Volume, z: Volume, inside: Volume | None = None) -> Volume:
        """Distance to the outside of the muscles, arms left out.

        ``inside`` is the distance to the pleura, where it is known.
        """
        m = self.patient.muscle
        phi = self.azimuth(x, y, z)
        thick: Any = np.float32(2.5 + 1.5 * m)
        thick = thick + 13 * m * bump(phi, 22, 52, 24) * bump(z, -35, 32, 45)  # pectorals
        thick = thick + 9 * m * bump(phi, 98, 128, 26) * bump(z, -110, 10, 55)  # latissimus
        thick = thick + 27 * m * bump(phi, 122, 146, 22) * bump(z, -25, 50, 50)  # on the scapula
        thick = thick + 9 * m * bump(phi, 158, 172, 12) * bump(z, -400, 120, 30)  # beside the spine
        thick = thick + 5 * m * bump(phi, 0, 85, 25) * bump(z, -400, -175, 40)  # of the belly
        inside = self.inside(x, y, z) if inside is None else inside
        wall = inside - RIB_MM - thick
        wall = smooth_intersection(wall, (z - 84) * np.float32(0.8), 24)
        center = np.interp(z, *_column_y(self.tubes["spine"])).astype(np.float32)
        back = np.sqrt((x / 50) ** 2 + ((y - center + 38) / 31) ** 2) * 38 - 38
        neck = np.sqrt((x / 56) ** 2 + ((y - 2 - 0.12 * (z - 110)) / 56) ** 2) * 56 - 56
        neck = np.maximum(neck, 62 - z)
        up = self.patient.arms == "up"
        shoulder_z = 98.0 if up else 76.0
        side = np.abs(x)
        slope = capsule(side, y, z, (22, -16, 128), (112, -20, shoulder_z + 4), 40, 26 + 4 * m)
        deltoid = ellipsoid(side, y, z, (128, -6, shoulder_z - 6), (40 + 8 * m, 36 + 4 * m, 46))
        pec = capsule(side, y, z, (40, 30, 28), (120, 10, shoulder_z - 22), 14, 15 + 6 * m)
        back_block = capsule(side, y, z, (60, -80, 60), (128, -30, shoulder_z - 8), 24, 24)
        out = smooth_union(wall, np.asarray(back, np.float32), 12)
        out = smooth_union(out, np.asarray(neck, np.float32), 26)
        for part in (slope, deltoid, pec, back_block):
            out = smooth_union(out, part, 18)
        return out

    def armpit(self, x: Volume, y: Volume, z: Volume) -> Volume:
        """Distance to the fat of the armpits."""
        return capsule(np.abs(x), y, z, (101, 6, 60), (134, -4, 4), 8, 15)

    def arm(self, x: Volume, y: Volume, z: Volume) -> Volume:
        """Distance to the muscles of the upper arms, beside the head or beside the body."""
        (a, b), r = self.arm_axis, 34 + 8 * self.patient.muscle
        return capsule(np.abs(x), y, z, a, b, r, r * 0.9)

    @property
    def arm_axis(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Head of the humerus and its elbow, for the right side."""
        if self.patient.arms == "up":
            return (136.0, -4.0, 96.0), (190.0, 26.0, 380.0)
        return (150.0, -10.0, 72.0), (206.0, -26.0, -240.0)

    def fat(self, x: Volume, y: Volume, z: Volume) -> Volume:
        """Thickness of the fat under the skin."""
        phi = self.azimuth(x, y, z)
        share = 0.62 + 0.38 * np.sin(np.radians(phi)) ** 2
        share = share + 0.75 * bump(phi, 0, 75, 40) * bump(z, -400, -190, 60)
        share = share * (1 - 0.42 * bump(phi, 0, 8, 22)) * (1 - 0.3 * bump(phi, 168, 180, 20))
        share = share * (0.62 + 0.38 * bump(z, -400, 30, 60))
        ripple = 1 + 0.08 * np.sin(3 * np.radians(phi) + self.phases[0]) * np.sin(
            z / 40 + self.phases[1]
        )
        return np.asarray(1.5 + self.fat_mm * share * ripple, np.float32)

    def breasts(self, x: Volume, y: Volume, z: Volume) -> Volume:
        """Distance to the breasts, which spread to the sides of one who lies on the back."""
        rise = self.patient.breast_mm
        _, yc, b = self.outline(np.float32(-50))
        front = float(yc + b)
        return ellipsoid(
            np.abs(x),
            y,
            z,
            (78, front - 4 + 0.28 * rise, -52),
            (52 + 0.35 * rise, 16 + 0.85 * rise, 50 + 0.25 * rise),
            _tilt(-0.42),
        )

    def skin(self, x: Volume, y: Volume, z: Volume, muscle: Volume, arm: Volume) -> Volume:
        """Distance to the outside of the body."""
        fat = self.fat(x, y, z)
        out = muscle - fat
        # Hollows such as the armpits are filled with fat; so is the belly.
        if self.patient.breast_mm > 0:
            out = smooth_union(out, self.breasts(x, y, z), 22)
        return smooth_union(out, arm - 0.55 * fat, 30)

    # -- diaphragm -------------------------------------------------------------------------------

    def diaphragm_height(self, x: Volume, y: Volume) -> Volume:
        """Height of the diaphragm over a place."""
        heights = []
        for sign, top in ((1, self.dome[0]), (-1, self.dome[1])):
            u = (sign * x - 62) / np.float32(74)
            u = np.where(u < 0, u * np.float32(0.8), u)
            v = y - np.float32(14)
            v = np.where(v < 0, v / np.float32(104), v / np.float32(76))
            rho2 = np.minimum(u * u + v * v, np.float32(1.6))
            flat = 1 - np.sqrt(np.maximum(1 - np.float32(0.62) * rho2, 0))
            # Falls furthest behind, less at the side, least in front and to the midline.
            turn = np.arctan2(v, np.where(u < -0.2, -0.2, u))
            drop = 136 - 44 * np.sin(turn) - 24 * np.sin(turn) ** 2 * (v > 0)
            drop = np.where(u < 0, drop * np.float32(0.85), drop)
            drop = drop * (1 - 0.28 * self.breath)
            heights.append(np.float32(top) - drop * flat)
        right, left = heights
        share = 1 / (1 + np.exp(-x / np.float32(9)))
        wave = 2.2 * np.sin(x / 21 + self.phases[2]) * np.sin(y / 24 + self.phases[3])
        # The heart rests on it: its lowest point lies 62 standard mm under its root.
        central = np.float32(max(min(self.dome) - 9, -48 - 62 * self.enlargement + 5))
        height = right * share + left * (1 - share) + wave
        # The central tendon, on which the heart lies, joins the domes.
        heart = np.minimum(1.35 * np.exp(-(((x + 18) / 46) ** 2) - ((y - 24) / 40) ** 2), 1)
        return np.asarray(height + heart * np.clip(central - height, -12, 34), np.float32)

    def diaphragm(self, x: Volume, y: Volume, z: Volume) -> Volume:
        """Distance to the top of the diaphragm: positive above it."""
        height, level = self._diaphragm_level(x, y)
        return np.asarray((z - height) * level, np.float32)

    def diaphragm_mapped(self, x: Volume, y: Volume, z: Volume) -> Volume:
        """The same from a map of it, good to about 0.1 mm, for many points."""
        u = clip((x - np.float32(_MAP_X[0])) / np.float32(_MAP_MM), 0, len(_MAP_X) - 1.001)
        v = clip((y - np.float32(_MAP_Y[0])) / np.float32(_MAP_MM), 0, len(_MAP_Y) - 1.001)
        i, j = u.astype(np.int32), v.astype(np.int32)
        u -= i
        v -= j
        first = j * len(_MAP_X) + i
        height, level = (
            _bilinear(table.ravel(), first, len(_MAP_X), u, v) for table in self._diaphragm_map
        )
        return np.asarray((z - height) * level, np.float32)

    @cached_property
    def _diaphragm_map(self) -> tuple[Volume, Volume]:
        return self._diaphragm_level(
            _MAP_X.astype(np.float32)[None], _MAP_Y.astype(np.float32)[:, None]
        )

    def _diaphragm_level(self, x: Volume, y: Volume) -> tuple[Volume, Volume]:
        """Height of the diaphragm and the cosine of its slope."""
        height = self.diaphragm_height(x, y)
        step = np.float32(2)
        gx = (self.diaphragm_height(x + step, y) - height) / step
        gy = (self.diaphragm_height(x, y + step) - height) / step
        return height, np.asarray(1 / np.sqrt(1 + gx * gx + gy * gy), np.float32)

    # -- mediastinum and lungs -------------------------------------------------------------------

    def mediastinum(self, x: Volume, y: Volume, z: Volume, heart: Volume) -> Volume:
        """Distance to all that lies between the lungs; ``heart`` is the distance to that."""
        fat = self.patient.visceral_fat
        bow = spine_bow(self.patient, z)[0].astype(np.float32)
        center = np.interp(z, *_column_y(self.tubes["spine"])).astype(np.float32)
        width = np.interp(z, (-200, 0, 90), (25, 21.5, 19)).astype(np.float32)
        u, v = np.abs(x - bow), y - center
        # The spine with its fringe: rounded in front, straight behind.
        spine = np.sqrt(u * u + (np.maximum(v, 0) * np.float32(1.25)) ** 2) - width
        out = spine + np.maximum(-v - 18, 0) * np.float32(-0.32)
        septum_x = -4 + 4 * np.sin(z / 45 + y / 26 + self.phases[4]) - 10 * bump(z, -120, -60, 30)
        thin = np.float32(self.septum) + 6 * bump(z, -140, -62, 30) + 10 * bump(z, 30, 150, 30)
        septum = np.abs(x - septum_x) - thin - np.maximum(y - 62, 0) * np.float32(0.25)
        septum = septum + np.maximum(34 - y, 0) * np.float32(0.4)
        out = smooth_union(out, septum, 7)
        upper = np.interp(z, (-30, -8, 10, 30, 55, 75, 100), (12, 20, 27, 29, 31, 31, 27))
        upper = (upper * (0.92 + 0.08 * fat)).astype(np.float32)
        mid = np.interp(z, (-30, 20, 60, 100), (2, 2, 0, -4)).astype(np.float32)
        deep = np.interp(z, (-30, 20, 60, 100), (26, 38, 32, 28)).astype(np.float32)
        block = np.sqrt((x / upper) ** 2 + ((y - mid) / deep) ** 2)
        block = (block - 1) * np.minimum(upper, deep)
        block = np.maximum(block, (-22 - z) * np.float32(0.7))
        out = smooth_union(out, np.asarray(block, np.float32), 9)
        out = smooth_union(out, heart - np.float32(1.0 + 1.2 * fat), 7)
        tubes = self.tubes
        descending = _part(tubes["aorta"], lambda p: p[:, 2] < 14, lambda p: p[:, 1] < -10)
        aorta = np.maximum(column(x, y, z, descending) - np.float32(1.2 + fat), z - 20)
        out = smooth_union(out, aorta, 6)
        arch = ellipsoid(x, y, z, (-10, -4, 17), (24, 36, 22))
        ascending = capsule(x, y, z, (2, 16, -46), (13, 22, 14), 19, 19)
        svc = np.maximum(
            column(x, y, z, tubes["superior vena cava"]) - 2, np.maximum(z - 60, -44 - z)
        )
        gullet = np.maximum(column(x, y, z, tubes["oesophagus"]) - np.float32(2 + fat), -132 - z)
        ivc = capsule(x, y, z, (26, 2, -88), (24, -6, -125), 13, 13)
        for part, blend in ((arch, 8), (ascending, 8), (svc, 5), (gullet, 6), (ivc, 5)):
            out = smooth_union(out, part, blend)
        hila = (
            ((12, -13, -12), (37, -14, -25), 12, 9),
            ((-18, -12, -12), (-44, -26, -20), 13, 10),
            ((34, -16, -30), (43, -21, -46), 10, 8),
            ((-44, -28, -24), (-49, -32, -44), 10, 8),
        )
        for a, b, ra, rb in hila:
            out = smooth_union(out, capsule(x, y, z, a, b, ra, rb), 6)
        return out

    def cavity(self, inside: Volume, diaphragm: Volume) -> Volume:
        """Distance to the room within the cage and over the diaphragm."""
        out = np.subtract(np.float32(1.0), diaphragm)
        return np.maximum(out, inside, out=out)

    def lungs(self, cavity: Volume, mediastinum: Volume) -> Volume:
        """Distance to the lungs' surface."""
        out = np.subtract(np.float32(1.2), mediastinum)
        return np.maximum(out, cavity, out=out)

    def oblique_fissure(self, x: Volume, y: Volume, z: Volume) -> Volume:
        """Distance to the oblique fissure, positive above and in front of it."""
        f = self.fissure.astype(np.float32)
        right = x > 0
        # From T4 behind to the diaphragm in front; the right one lies a little flatter.
        top = np.where(right, 34 + 5 * f[0], 42 + 5 * f[1]).astype(np.float32)
        fall = np.where(right, 1.06 + 0.06 * f[2], 1.16 + 0.06 * f[3]).astype(np.float32)
        lateral = np.abs(x) - 75
        bend = 0.0016 * lateral * lateral - 0.06 * lateral
        ripple = 3 * np.sin(np.abs(x) / 30 + y / 45 + self.phases[5])
        plane = z - (top - fall * (y + 92) + bend + ripple)
        return np.asarray(plane / np.sqrt(1 + fall * fall), np.float32)

    def horizontal_fissure(self, x: Volume, y: Volume, z: Volume) -> Volume:
        """Distance to the horizontal fissure of the right lung, positive above it."""
        f = self.fissure
        dome = 0.0022 * ((x - 70) ** 2 + (y - 25) ** 2)
        level = np.float32(-30 + 7 * f[4]) + 0.08 * (y - 20) - dome
        return np.asarray(z - level, np.float32)


def _bilinear(table: Volume, first: NDArray[np.int32], row: int, u: Volume, v: Volume) -> Volume:
    """Between four neighbours in a flat table, the first of them given."""
    near, far = table.take(first), table.take(first + row)
    near += u * (table.take(first + 1) - near)
    far += u * (table.take(first + row + 1) - far)
    far -= near
    far *= v
    near += far
    return near


def _column_y(course: Course) -> tuple[FloatArray, FloatArray]:
    points = course[0]
    order = np.argsort(points[:, 2])
    return points[order, 2], points[order, 1]


def _part(course: Course, *keep: Callable[[FloatArray], NDArray[np.bool_]]) -> Course:
    points, radius = course
    mask = np.logical_and.reduce([k(points) for k in keep])
    return points[mask], radius[mask]


def _tilt(angle: float) -> FloatArray:
    """A turn about the long axis: what points to the front turns to the side."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([(c, s, 0), (-s, c, 0), (0, 0, 1)])
