"""Patient coordinates: where a point of the body lies in the world, and back.

Patient coordinates are those of the standard adult chest in millimetres: origin at the carina,
+x to the patient's right, +y to the front, +z to the head. A person differs from it by size,
posture, and a gentle warp, all in one map. Height never mixes with the other two axes, so that
one slice of an upright grid is one slice of the body.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simcrop_core.phantoms.plan import PatientPlan

FloatArray = NDArray[np.float64]
Volume = NDArray[np.float32]


@dataclass(frozen=True)
class Frame:
    """The map between world and patient coordinates.

    Attributes
    ----------
    offset_mm
        World position of the carina.
    scale
        World millimetres to one of the standard chest.
    roll_rad
        Turn about the long axis.
    slope
        Shift along x and y for each millimetre of height.
    waves_K6
        The warp, K waves: amplitude (mm), moved axis (0 or 1), wave numbers (rad/mm) along the
        other in-plane axis and along z, and the two phases.
    """

    offset_mm: tuple[float, float, float]
    scale: tuple[float, float, float]
    roll_rad: float
    slope: tuple[float, float]
    waves_K6: FloatArray

    @classmethod
    def of(cls, patient: PatientPlan) -> Frame:
        rng = np.random.default_rng([patient.seed, 1])
        count = 6
        waves = np.stack(
            [
                rng.normal(0, 1.5, count),
                np.arange(count) % 2,
                2 * np.pi / rng.uniform(180, 420, count),
                2 * np.pi / rng.uniform(160, 420, count),
                rng.uniform(0, 2 * np.pi, count),
                rng.uniform(0, 2 * np.pi, count),
            ],
            axis=1,
        )
        lean, pitch = np.tan(np.radians((patient.lean_deg, patient.pitch_deg)))
        return cls(
            offset_mm=patient.offset_mm,
            scale=patient.scale,
            roll_rad=float(np.radians(patient.roll_deg)),
            slope=(float(lean), float(pitch)),
            waves_K6=waves,
        )

    @property
    def mean_scale(self) -> float:
        return float(np.cbrt(np.prod(self.scale)))

    def patient(self, x: ArrayLike, y: ArrayLike, z: ArrayLike) -> tuple[Volume, Volume, Volume]:
        """Patient coordinates of world millimetres; arrays that broadcast give arrays that do.

        The third depends on ``z`` alone and keeps its shape.
        """
        px, move_x, py, move_y, pz = self.parts(x, y, z)
        return px + move_x, py + move_y, pz

    def parts(
        self, x: ArrayLike, y: ArrayLike, z: ArrayLike
    ) -> tuple[Volume, Volume, Volume, Volume, Volume]:
        """The terms of :meth:`patient`: x of x, x of (y, z), y of y, y of (x, z), and z of z."""
        xw, yw, zw = (np.asarray(a, np.float32) for a in (x, y, z))
        u, v, w = (a - np.float32(o) for a, o in zip((xw, yw, zw), self.offset_mm, strict=True))
        c, s = np.float32(np.cos(self.roll_rad)), np.float32(np.sin(self.roll_rad))
        kx, ky = (np.float32(k) for k in self.slope)
        # What depends on y and z, and on x and z, is summed apart: full arrays are costly.
        kx, ky, sx, sy, sz = (np.float32(k) for k in (*self.slope, *self.scale))
        move_x = s * v - (c * kx + s * ky) * w
        move_y = -s * u - (c * ky - s * kx) * w
        for amplitude, axis, across, along, p1, p2 in self.waves_K6.astype(np.float32):
            lift = amplitude * np.sin(along * w + p2)
            if axis == 0:
                move_x = move_x + lift * np.sin(across * v + p1)
            else:
                move_y = move_y + lift * np.sin(across * u + p1)
        terms = ((c / sx) * u, move_x / sx, (c / sy) * v, move_y / sy, w / sz)
        a, b, d, e, f = (np.asarray(term, np.float32) for term in terms)
        return a, b, d, e, f

    @cached_property
    def _waves_5K21(self) -> FloatArray:
        """The waves without their axis, those that move x beside those that move y."""
        rows, axis = np.delete(self.waves_K6, 1, axis=1).T, self.waves_K6[:, 1]
        return np.stack([rows[:, axis == k] for k in (0, 1)], axis=2)[..., None]

    def push(self, center_N3: FloatArray, half_N3: FloatArray) -> tuple[FloatArray, FloatArray]:
        """How far the warp pushes boxes along world x and y (mm), and points in them beyond that.

        Boxes are given by centre and half size in world millimetres from the carina, unwarped;
        both answers are ``(2, N)``.
        """
        size, across, along, phase, rise = self._waves_5K21
        c, s = np.cos(self.roll_rad), np.sin(self.roll_rad)
        turn = np.array([[-s], [s]])
        center_3N, half_3N = center_N3.T, half_N3.T
        lift = size * np.sin(center_3N[2] * along + rise)
        at = center_3N[:2]
        for _ in range(2):  # a second round, where the first has pushed them
            move = -(lift * np.sin(across * at[::-1] + phase)).sum(axis=0)
            push = c * move + turn * move[::-1]
            at = center_3N[:2] + push
        # Within a box the warp changes by its slope at most, and never by more than its size.
        reach = across * half_3N[1::-1] + along * half_3N[2]
        far = (np.abs(size) * np.minimum(reach, 2)).sum(axis=0)
        return push, abs(c) * far + abs(s) * far[::-1] + 0.5

    def world(self, patient_N3: ArrayLike) -> FloatArray:
        """World millimetres of patient coordinates; the last axis holds x, y, z."""
        p = np.asarray(patient_N3, np.float64) * self.scale
        w = p[..., 2]
        c, s = np.cos(self.roll_rad), np.sin(self.roll_rad)
        kx, ky = self.slope
        u, v = p[..., 0], p[..., 1]
        lifts = [
            amplitude * np.sin(along * w + phase)
            for amplitude, _, _, along, _, phase in self.waves_K6
        ]
        angle = np.empty_like(w)
        for _ in range(6):  # the warp is gentle: fixed point, a tenth per round
            dx, dy = np.zeros_like(w), np.zeros_like(w)
            wx, wy = c * u - s * v + kx * w, s * u + c * v + ky * w
            for lift, (_, axis, across, _, phase, _) in zip(lifts, self.waves_K6, strict=True):
                np.multiply(across, wy if axis == 0 else wx, out=angle)
                angle += phase
                # Single precision is enough for millimetres of warp, and several times as fast.
                sine = angle.astype(np.float32)
                np.multiply(lift, np.sin(sine, out=sine), out=angle)
                push = dx if axis == 0 else dy
                push += angle
            last, u, v = (u, v), p[..., 0] - dx, p[..., 1] - dy
            if max(np.abs(u - last[0]).max(initial=0), np.abs(v - last[1]).max(initial=0)) < 1e-3:
                break
        world = np.stack([c * u - s * v + kx * w, s * u + c * v + ky * w, w], axis=-1)
        return world + np.asarray(self.offset_mm)
