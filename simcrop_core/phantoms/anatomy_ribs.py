"""The twelve pairs of ribs with their cartilages, as bands around the cage.

A rib is a curve on the cage: its height as a function of azimuth. For each azimuth and slice a
table holds how far up or down the nearest rib lies, so that all ribs are painted at once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simcrop_core.phantoms.anatomy_cage import RIB_MM, Cage
from simcrop_core.phantoms.anatomy_canvas import Box, Canvas, mix
from simcrop_core.phantoms.anatomy_labels import LABELS
from simcrop_core.phantoms.plan import PatientPlan
from simcrop_core.phantoms.shapes import coverage

Volume = NDArray[np.float32]

#: Height of the middles of T1 to T12 and L1 to L3 and of C6, C7 above (see ``VERTEBRAE``).
VERTEBRAE: dict[str, float] = {
    "C5": 157.0, "C6": 141.0, "C7": 124.0,
    "T1": 106.0, "T2": 86.5, "T3": 66.0, "T4": 44.5, "T5": 22.0, "T6": -1.5, "T7": -25.5,
    "T8": -50.0, "T9": -75.0, "T10": -101.0, "T11": -128.0, "T12": -157.0,
    "L1": -187.0, "L2": -218.0, "L3": -250.0, "L4": -282.0,
}  # fmt: skip

#: Per rib: height at the spine; height where bone ends; azimuth (degrees) there; azimuth and height
#: where the cartilage ends.
_RIBS = np.array(
    [
        (97, 50, 30, 14, 42),
        (88, 14, 27, 12, 6),
        (70, -12, 24, 11, -14),
        (50, -36, 24, 11, -34),
        (28, -62, 26, 11, -52),
        (5, -88, 30, 10, -68),
        (-19, -114, 37, 9, -82),
        (-43, -140, 50, 22, -100),
        (-68, -160, 62, 36, -122),
        (-94, -176, 74, 50, -146),
        (-121, -178, 100, 96, -180),
        (-149, -182, 132, 128, -184),
    ],
    float,
)


def marrow_hu(patient: PatientPlan) -> float:
    """Spongy bone; it thins with age (Pickhardt et al., Ann Intern Med 2013)."""
    chance = np.random.default_rng([patient.seed, 8]).normal(0, 25)
    return float(np.clip(250 - 2.4 * (patient.age_years - 20) + chance, 50, 290))


class RibTable:
    """Where the ribs cross each slice."""

    def __init__(self, canvas: Canvas, cage: Cage) -> None:
        self.canvas, self.cage = canvas, cage
        rng = np.random.default_rng([cage.patient.seed, 7])
        rows = _RIBS.copy()
        rows[:, 1:2] += rng.normal(0, 4)
        rows[:, :2] += rng.normal(0, 1.5, (12, 2))
        age = cage.patient.age_years
        #: Cartilage calcifies with age.
        self.cartilage_hu = float(95 + max(0.0, age - 50) * rng.uniform(0, 6))
        self.marrow_hu = marrow_hu(cage.patient)
        z = canvas.z[:, 0, 0].astype(np.float64)
        phi = np.arange(181.0)
        height = np.full((12, 181), 1e4)
        bone = np.zeros((12, 181), bool)
        for number, (back, front, end, stop, inner) in enumerate(rows):
            t = (180 - phi) / (180 - end)
            curve = back + (front - back) * (0.25 * t + 0.75 * t**1.25)
            curve -= 5 * np.sin(np.pi * np.clip(t, 0, 1))
            gone = np.clip((end - phi) / (end - stop), 0, 1)
            curve = np.where(phi < end, front + (inner - front) * gone**0.9, curve)
            height[number] = np.where(phi >= stop, curve, 1e4)
            bone[number] = phi >= end
        radius = 118.0
        slope = np.gradient(
            np.where(height > 1e3, np.nan, height), np.radians(1.0) * radius, axis=1
        )
        lean = 1 / np.sqrt(1 + np.nan_to_num(slope) ** 2)
        gap = z[:, None, None] - height[None]  # slices, ribs, azimuths
        half = np.where(np.arange(12) == 0, 7.5, 6.0)[:, None] * np.where(bone, 1, 0.85)
        reach = np.abs(gap) * lean[None] / half[None]
        nearest = reach.argmin(axis=1)
        pick = np.arange(181)
        self.up = np.take_along_axis(reach, nearest[:, None], 1)[:, 0].clip(0, 9).astype(np.float32)
        self.bone = bone[nearest, pick[None]]
        self.half = half[nearest, pick[None]].astype(np.float32)

    def paint(
        self,
        box: Box,
        where: NDArray[np.intp],
        inside: Volume,
        value: Volume,
        label: NDArray[np.uint8],
    ) -> None:
        """Paint the ribs into values and labels of some voxels of a box.

        ``where`` are their flat numbers in it, ``inside`` their distances to the pleura.
        """
        middle = np.float32(RIB_MM / 2 + 0.4)
        depth = np.abs(inside - middle)
        width = self.canvas.width
        # Farther from the ribs' middle, or up and down, no voxel holds any of them.
        edge = 0.5 * width + 0.05
        keep = np.flatnonzero(depth < np.float32(3.7 + edge))
        if not keep.size:
            return
        x, y, z = self.canvas.at_flat(box, where[keep])
        ys, xs = box[1], box[2]
        slices = where[keep] // ((ys.stop - ys.start) * (xs.stop - xs.start))
        _, yc, _ = self.cage.outline(self.canvas.z[box[0]][:, 0, 0])
        x = np.abs(x)
        phi = np.degrees(np.arctan2(x, y - yc.take(slices))) + np.float32(0.5)
        rows = (slices + box[0].start) * 181 + phi.astype(np.int32)
        up = self.up.ravel().take(rows)
        some = np.flatnonzero((up < np.float32(1 + edge / 3.7)) & ((x > 24) | (y > 0)) & (z < 103))
        keep, up, rows = keep[some], up[some], rows[some]
        bone, half = self.bone.ravel().take(rows), self.half.ravel().take(rows)
        q = depth[keep] / np.float32(3.7)
        q *= q
        q += up * up
        np.sqrt(q, out=q)
        broad = np.minimum(up, 1) * (half / np.float32(3.7) - 1)
        distance = (q - 1) * np.float32(3.7) * (1 + np.float32(0.6) * broad)
        share = coverage(distance, width)
        core = coverage(distance + np.float32(1.25), width)
        core *= np.float32(self.marrow_hu - 860)
        core += np.float32(860)
        core[~bone] = self.cartilage_hu
        old = value[keep]
        mix(old, share, core)
        value[keep] = old
        full = share >= 0.5
        names = np.where(bone[full], LABELS["ribs"], LABELS["costal cartilage"]).astype(np.uint8)
        label[keep[full]] = names
