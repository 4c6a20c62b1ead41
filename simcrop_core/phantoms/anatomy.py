"""The drawn chest: what findings are drawn into, and where its parts lie.

Arrays are ``(X, Y, Z)`` on the grid's own axes; coordinates are RAS millimetres, so +x is the
patient's right. The Hounsfield units here have neither noise nor blur; the scanner adds those.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from simcrop_core.geometry import Grid
from simcrop_core.phantoms.anatomy_frame import Frame
from simcrop_core.phantoms.anatomy_labels import GROUPS, LABELS, LOBES
from simcrop_core.phantoms.plan import PhantomPlan

FloatArray = NDArray[np.float64]

_LUNGS = {"right lung": (1, 2, 3), "left lung": (4, 5), "lungs": (1, 2, 3, 4, 5)}


@dataclass(frozen=True, slots=True, eq=False)
class Branch:
    """One unbranched piece of a tree.

    Attributes
    ----------
    points_N3, radius_N
        Centreline in RAS millimetres from the root's side outwards (N at least 2), and the
        radius there in millimetres; of airways the radius of the air.
    lobe
        One of :data:`LOBES`, or empty in the mediastinum.
    side
        ``"left"``, ``"right"`` or empty in the midline.
    generation
        0 at the root (trachea, pulmonary trunk, left atrium).
    parent
        Number of the branch it springs from, or -1.
    wall_mm
        Thickness of the wall of an airway; 0 of vessels.
    """

    points_N3: FloatArray
    radius_N: FloatArray
    lobe: str
    side: str
    generation: int
    parent: int
    wall_mm: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Tree:
    """A tree as arrays: P points, B branches.

    Branch b has the points from ``first_B[b]`` to ``first_B[b + 1]`` (B + 1 entries); ``lobe_B``
    is a number in :data:`LOBES` or -1; ``side_B`` 1 right, -1 left, 0 in the midline.
    """

    points_P3: FloatArray
    radius_P: FloatArray
    first_B: NDArray[np.int64]
    lobe_B: NDArray[np.int64]
    side_B: NDArray[np.int64]
    generation_B: NDArray[np.int64]
    parent_B: NDArray[np.int64]
    wall_B: FloatArray

    def branches(self) -> tuple[Branch, ...]:
        """The branches one by one."""
        names = ("left", "", "right")
        first = self.first_B.tolist()
        return tuple(
            Branch(
                self.points_P3[first[b] : first[b + 1]],
                self.radius_P[first[b] : first[b + 1]],
                LOBES[lobe] if lobe >= 0 else "",
                names[side + 1],
                generation,
                parent,
                wall,
            )
            for b, (lobe, side, generation, parent, wall) in enumerate(
                zip(
                    self.lobe_B.tolist(),
                    self.side_B.tolist(),
                    self.generation_B.tolist(),
                    self.parent_B.tolist(),
                    self.wall_B.tolist(),
                    strict=True,
                )
            )
        )


@dataclass(frozen=True, slots=True, eq=False)
class Centreline:
    """A tube's course in RAS millimetres, its radius (mm), and its length parameter."""

    points_N3: FloatArray
    radius_N: FloatArray

    def at(self, fraction: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Points and radii at shares of the length from 0 to 1."""
        steps = np.linalg.norm(np.diff(self.points_N3, axis=0), axis=1)
        s = np.concatenate([[0.0], np.cumsum(steps)])
        t = np.clip(np.asarray(fraction, float), 0, 1) * s[-1]
        points = np.stack([np.interp(t, s, self.points_N3[:, k]) for k in range(3)], axis=-1)
        return points, np.interp(t, s, self.radius_N)

    @property
    def length_mm(self) -> float:
        return float(np.linalg.norm(np.diff(self.points_N3, axis=0), axis=1).sum())


@dataclass(frozen=True, slots=True, eq=False)
class Heart:
    """The heart as a whole, an ellipsoid: RAS millimetres.

    ``axes_33`` has the unit axes as rows: base to apex, then across, then front; ``half_mm`` are
    the half lengths along them.
    """

    center_mm: FloatArray
    axes_33: FloatArray
    half_mm: FloatArray

    @property
    def apex_mm(self) -> FloatArray:
        return self.center_mm + self.axes_33[0] * self.half_mm[0]

    @property
    def base_mm(self) -> FloatArray:
        return self.center_mm - self.axes_33[0] * self.half_mm[0]


@dataclass(eq=False)
class Anatomy:
    """A chest on a grid.

    Attributes
    ----------
    plan, grid, frame
        What was planned; where the voxels are; patient coordinates.
    hu_XYZ
        float32, writable: no noise, no blur.
    labels_XYZ
        uint8, writable: :data:`LABELS`; 0 is air around the body.
    lobes_XYZ
        uint8: 1 to 5 as in :data:`LOBES`, with the vessels and airways in them; 0 elsewhere.
    x, y, z
        RAS millimetres of the voxels, each of shape ``(n, 1, 1)``, ``(1, n, 1)``, ``(1, 1, n)``
        in some order of axes: they broadcast to the grid.
    trees
        ``airways``, ``arteries`` and ``veins`` as arrays; the properties of the same names hold
        their branches, of which the first is the root.
    centrelines
        By name: ``trachea``, ``aorta`` (root to abdomen), ``oesophagus`` (neck to stomach),
        ``superior vena cava``, ``inferior vena cava``, ``pulmonary trunk``, ``spine``,
        ``left main coronary``, ``left anterior descending``, ``circumflex``,
        ``right coronary``, ``left subclavian vein``, ``right subclavian vein``,
        ``brachiocephalic artery``, ``left carotid``, ``left subclavian``, ``azygos vein``.
    landmarks
        Named points, RAS millimetres: ``carina``, ``right hilum``, ``left hilum``,
        ``right dome``, ``left dome``, ``hiatus`` (oesophageal), ``aortic valve``,
        ``mitral valve``, ``tricuspid valve``, ``right ventricle apex``.
    heart
        See :class:`Heart`.
    blood_hu
        Hounsfield units of ``aorta``, ``pulmonary artery``, ``veins``.
    """

    plan: PhantomPlan
    grid: Grid
    frame: Frame
    hu_XYZ: NDArray[np.float32]
    labels_XYZ: NDArray[np.uint8]
    lobes_XYZ: NDArray[np.uint8]
    x: NDArray[np.float32]
    y: NDArray[np.float32]
    z: NDArray[np.float32]
    trees: dict[str, Tree]
    centrelines: dict[str, Centreline]
    landmarks: dict[str, FloatArray]
    heart: Heart
    blood_hu: dict[str, float] = field(default_factory=dict)

    def structure(self, name: str, side: str = "") -> NDArray[np.bool_]:
        """Mask of a structure or group (``"body"`` and the lungs too), or of one side of it."""
        if name in _LUNGS:
            mask = np.isin(self.lobes_XYZ, _LUNGS[name])
        elif name in LOBES:
            mask = self.lobe(name)
        elif name == "body":
            mask = (self.labels_XYZ != 0) & (self.labels_XYZ != LABELS["couch"])
        else:
            lookup = np.zeros(256, bool)
            lookup[[LABELS[part] for part in GROUPS.get(name, (name,))]] = True
            mask = lookup[self.labels_XYZ]
        if side in ("left", "right"):
            mask = mask & (self.right_of_midline_XYZ == (side == "right"))
        return np.asarray(mask)

    def lobe(self, name: str) -> NDArray[np.bool_]:
        """Mask of a lobe with all that is in it."""
        return np.asarray(self.lobes_XYZ == LOBES.index(name) + 1)

    def lung(self, side: str) -> NDArray[np.bool_]:
        """Mask of the ``"left"`` or ``"right"`` lung with all that is in it."""
        return self.structure(f"{side} lung")

    @cached_property
    def airways(self) -> tuple[Branch, ...]:
        return self.trees["airways"].branches()

    @cached_property
    def arteries(self) -> tuple[Branch, ...]:
        return self.trees["arteries"].branches()

    @cached_property
    def veins(self) -> tuple[Branch, ...]:
        return self.trees["veins"].branches()

    @cached_property
    def right_of_midline_XYZ(self) -> NDArray[np.bool_]:
        """Whether a voxel lies to the right of the patient's own midline."""
        px = self.frame.patient(self.x, self.y, self.z)[0]
        return np.broadcast_to(px > 0, self.grid.shape)

    @cached_property
    def pleural_depth_XYZ(self) -> NDArray[np.float32]:
        """Depth in the lung under its surface (fissures not counted), mm; 0 outside.

        A distance map on voxels of about 3 mm, so good to about 2 mm. Where the scan ends within
        the lung there is no surface.
        """
        lungs = self.structure("lungs")
        step = [max(1, round(2.9 / s)) for s in self.grid.spacing_mm]
        coarse = lungs[:: step[0], :: step[1], :: step[2]]
        spacing = [k * s for k, s in zip(step, self.grid.spacing_mm, strict=True)]
        padded = np.pad(coarse, 1, mode="edge")
        depth = ndimage.distance_transform_edt(padded, sampling=spacing)[1:-1, 1:-1, 1:-1]
        depth = (depth - 0.5 * min(spacing)).clip(0).astype(np.float32)
        for axis, (n, k) in enumerate(zip(self.grid.shape, step, strict=True)):
            if k > 1:
                where = np.arange(n) / k
                low = np.minimum(where.astype(int), depth.shape[axis] - 1)
                high = np.minimum(low + 1, depth.shape[axis] - 1)
                share = (where - low).clip(0, 1).astype(np.float32)
                share = share.reshape([-1 if a == axis else 1 for a in range(3)])
                depth = depth.take(low, axis) * (1 - share) + depth.take(high, axis) * share
        return np.asarray(np.where(lungs, np.maximum(depth, 0.3), 0), np.float32)

    def to_world(self, patient_N3: ArrayLike) -> FloatArray:
        """RAS millimetres of patient coordinates; see :class:`Frame`."""
        return self.frame.world(patient_N3)

    def patient_coordinates(
        self,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Patient coordinates of the voxels (standard adult chest, mm), that broadcast."""
        return self.frame.patient(self.x, self.y, self.z)

    def branches(self, tree: str, *, lobe: str = "", side: str = "") -> tuple[Branch, ...]:
        """Branches of ``"airways"``, ``"arteries"`` or ``"veins"`` in a lobe or on a side."""
        chosen: Iterable[Branch] = getattr(self, tree)
        return tuple(
            b for b in chosen if (not lobe or b.lobe == lobe) and (not side or b.side == side)
        )

    def box(
        self, low_mm: ArrayLike, high_mm: ArrayLike, margin_mm: float = 0.0
    ) -> tuple[slice, slice, slice]:
        """Slices of the arrays that hold the box between two RAS corners, cut at the grid."""
        low, high = np.minimum(low_mm, high_mm), np.maximum(low_mm, high_mm)
        corners = np.stack([low - margin_mm, high + margin_mm])
        everywhere = np.stack(np.meshgrid(*corners.T, indexing="ij"), axis=-1).reshape(-1, 3)
        voxel = self.grid.to_voxel(everywhere)
        first = np.floor(voxel.min(axis=0)).astype(int)
        last = np.ceil(voxel.max(axis=0)).astype(int) + 1
        return tuple(  # type: ignore[return-value]
            slice(min(max(a, 0), n), min(max(b, 0), n))
            for a, b, n in zip(first, last, self.grid.shape, strict=True)
        )
