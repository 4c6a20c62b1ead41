"""The chest as findings see it: which lung is free, how deep a point lies, where to put things.

One scene accompanies an anatomy through all its findings, so that a later one keeps clear of what
an earlier one has filled, and each mask stays true.

Axes: Z, Y, X voxels in memory order (views of the anatomy's own arrays); N points.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property, reduce
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from simcrop_core.phantoms.anatomy import Anatomy
from simcrop_core.phantoms.anatomy_labels import LABELS, LOBES, STRUCTURES
from simcrop_core.phantoms.findings_shapes import Bool, Box, Float, depth_of, directions, finer, mix
from simcrop_core.phantoms.plan import FindingPlan

#: Below this height (patient coordinates, mm above the carina) the left upper lobe is the lingula.
LINGULA_TOP_MM = -30.0
#: Grey values above this are no aerated lung.
AERATED_HU = -500.0
# Patient coordinates between which any point of a lung lies.
_LUNG_LOW, _LUNG_HIGH = np.array([-150.0, -125.0, -235.0]), np.array([150.0, 115.0, 110.0])
_GAS = tuple(
    LABELS[name] for name in ("trachea", "bronchi", "airway walls", "stomach", "bowel", "couch")
)


def one_of(labels: NDArray[np.uint8], wanted: Iterable[int]) -> Bool:
    """Where a label is one of some, compared run by run of neighbouring numbers."""
    numbers = sorted(wanted)
    firsts = [n for n in numbers if n - 1 not in numbers]
    lasts = [n for n in numbers if n + 1 not in numbers]
    # What lies below wraps round to the top.
    runs = [
        labels == first if first == last else labels - np.uint8(first) <= np.uint8(last - first)
        for first, last in zip(firsts, lasts, strict=True)
    ]
    return reduce(np.logical_or, runs) if runs else np.zeros_like(labels, bool)


def scene_of(anatomy: Anatomy) -> Scene:
    """The scene that accompanies an anatomy; made when first asked for."""
    found = anatomy.__dict__.get("_scene")
    if not isinstance(found, Scene):
        # Kept on the anatomy, so that both live equally long.
        found = anatomy.__dict__["_scene"] = Scene(anatomy)
    return found


class Scene:
    """An anatomy's arrays in memory order, and what the findings so far have done to it.

    Attributes
    ----------
    hu, labels, lobes
        Writable views ``(Z, Y, X)`` of the anatomy's arrays.
    solid
        Where an earlier finding has taken the air out of the lung, or changed its shape for good.
    fluid
        Side -> level of the pleural fluid there, in the units of its own field.
    """

    def __init__(self, anatomy: Anatomy) -> None:
        self.anatomy = anatomy
        worlds, _ = anatomy.grid.nearest_axes()
        self._order = tuple(worlds.index(world) for world in (2, 1, 0))
        self.hu = anatomy.hu_XYZ.transpose(self._order)
        self.labels = anatomy.labels_XYZ.transpose(self._order)
        self.lobes = anatomy.lobes_XYZ.transpose(self._order)
        self.x, self.y, self.z = (
            np.asarray(axis, np.float32).ravel() for axis in (anatomy.x, anatomy.y, anatomy.z)
        )
        self.shape = self.hu.shape
        self.solid = np.zeros(self.shape, bool)
        self._healthy = self.lobes.copy()
        self.fluid: dict[str, float] = {}
        low, high = anatomy.plan.scanner.grid.bounds_mm()
        self._seen_low, self._seen_high = np.minimum(low, high), np.maximum(low, high)
        self.spacing_mm = tuple(
            abs(float(line[1] - line[0])) if line.size > 1 else 1.0
            for line in (self.x, self.y, self.z)
        )
        self.enhanced = anatomy.blood_hu.get("aorta", 40.0) > 90

    # Boxes

    def box(self, points_mm: ArrayLike, margin_mm: float) -> Box | None:
        """The voxels within a margin of the points' bounding box; None where there are none."""
        points_N3 = np.atleast_2d(np.asarray(points_mm, float))
        low, high = points_N3.min(0) - margin_mm, points_N3.max(0) + margin_mm
        slices = []
        for line, first, last in zip((self.x, self.y, self.z), low, high, strict=True):
            inside = np.flatnonzero((line >= first) & (line <= last))
            if not inside.size:
                return None
            slices.append(slice(int(inside[0]), int(inside[-1]) + 1))
        return self._cut(slices[0], slices[1], slices[2])

    def box_of(self, mask: Bool, margin_mm: float = 0.0) -> Box | None:
        """The voxels within a margin of a mask's bounding box."""
        flat = np.asarray(mask.any(axis=0))
        slices = []
        for hits, step in zip(
            (flat.any(axis=0), flat.any(axis=1), mask.any(axis=(1, 2))),
            self.spacing_mm,
            strict=True,
        ):
            where = np.flatnonzero(hits)
            if not where.size:
                return None
            wider = int(np.ceil(margin_mm / step))
            slices.append(slice(max(0, int(where[0]) - wider), int(where[-1]) + 1 + wider))
        return self._cut(slices[0], slices[1], slices[2])

    def _cut(self, i: slice, j: slice, k: slice) -> Box:
        return Box(
            (k, j, i),
            self.x[i][None, None, :],
            self.y[j][None, :, None],
            self.z[k][:, None, None],
            self.spacing_mm,  # type: ignore[arg-type]
        )

    # Points

    def lookup(self, array: NDArray[Any], points_N3: NDArray[np.floating]) -> NDArray[Any]:
        """The array's value at the voxel nearest to each point; 0 off the grid."""
        inside = np.ones(points_N3.shape[:-1], bool)
        index = []
        for axis, line in ((2, self.z), (1, self.y), (0, self.x)):
            step = float(line[1] - line[0]) if line.size > 1 else 1.0
            place = np.rint((points_N3[..., axis] - line[0]) / step).astype(int)
            inside &= (place >= 0) & (place < line.size)
            index.append(np.clip(place, 0, line.size - 1))
        return np.where(inside, array[tuple(index)], array.dtype.type(0))

    def visible(self, points_N3: NDArray[np.floating]) -> Bool:
        """Whether points lie in the scanner's field."""
        return np.asarray(
            ((points_N3 >= self._seen_low) & (points_N3 <= self._seen_high)).all(axis=-1)
        )

    def world(self, patient_mm: ArrayLike) -> NDArray[np.float64]:
        """RAS millimetres of patient coordinates."""
        return self.anatomy.frame.world(np.asarray(patient_mm, float))

    # Lungs

    @cached_property
    def depth(self) -> tuple[Float, tuple[int, int, int]]:
        """Depth under the surface of the healthy lungs (mm) on coarse voxels, and their stride."""
        stride = tuple(max(1, round(4.5 / step)) for step in self.spacing_mm[::-1])
        coarse = self._healthy[:: stride[0], :: stride[1], :: stride[2]] > 0
        spacing = [k * step for k, step in zip(stride, self.spacing_mm[::-1], strict=True)]
        depth = np.zeros(coarse.shape, np.float32)
        where = ndimage.find_objects(coarse.astype(np.uint8))
        if where:
            part = tuple(slice(max(0, s.start - 1), s.stop + 1) for s in where[0])
            # Where the scan ends within the lung there is no surface.
            padded = np.pad(coarse[part], 1, mode="edge")
            inner = depth_of(padded, spacing)[1:-1, 1:-1, 1:-1]
            depth[part] = np.maximum(inner - 0.5 * float(np.mean(spacing)), 0)
        return depth, stride  # type: ignore[return-value]

    @cached_property
    def _lung_box(self) -> tuple[slice, slice, slice]:
        box = self.box_of(self._healthy > 0)
        return (slice(0, 0),) * 3 if box is None else box.slices

    def healthy_side(self, box: Box, side: str) -> Bool:
        """The left or right lung in a box as it was before any finding."""
        lobes = self._healthy[box.slices]
        right = [number for number, name in enumerate(LOBES, 1) if name.startswith("right")]
        inside = (lobes > 0) & (lobes <= right[-1])
        return np.asarray(inside if side == "right" else (lobes > right[-1]))

    def depth_in(self, box: Box) -> Float:
        """Depth under the lungs' surface (mm) in a box, linear between coarse voxels; 0 outside."""
        out = np.zeros(box.shape, np.float32)
        inner, target = [], []
        for cut, lung, count in zip(box.slices, self._lung_box, self.shape, strict=True):
            first, last = max(cut.start, lung.start), min(cut.stop, lung.stop, count)
            if first >= last:
                return out
            inner.append(slice(first - lung.start, last - lung.start))
            target.append(slice(first - cut.start, last - cut.start))
        out[tuple(target)] = self._fine_depth[tuple(inner)]
        return out

    @cached_property
    def _fine_depth(self) -> Float:
        coarse, stride = self.depth
        return finer(coarse, stride, self._lung_box)

    def depth_at(self, points_N3: NDArray[np.floating]) -> Float:
        """Depth (mm) at points, to the nearest coarse voxel."""
        depth, stride = self.depth
        index = []
        for axis, (line, step, count) in enumerate(
            zip((self.z, self.y, self.x), stride, depth.shape, strict=True)
        ):
            fine = float(line[1] - line[0]) if line.size > 1 else 1.0
            place = np.rint((points_N3[..., 2 - axis] - line[0]) / (fine * step)).astype(int)
            index.append(np.clip(place, 0, count - 1))
        return depth[tuple(index)]

    @cached_property
    def _is_lingula_Z(self) -> Bool:
        height = self.anatomy.frame.patient(self.x[:1], self.y[:1], self.z)[2]
        return np.asarray(height < LINGULA_TOP_MM)

    def lung(self, plan: FindingPlan) -> Bool:
        """The part of the lungs that a plan's side, level and lobe name, as far as it is seen."""
        return self.part_of_lungs(plan.side, plan.level, plan.lobe)

    def territory(self, plan: FindingPlan) -> Bool:
        """What a finding that begins in a plan's lobe may spread to: no fissure bounds the lingula,
        so from there to the whole left upper lobe."""
        if plan.lobe in ("lingula", "left upper lobe"):
            return self.seen(self.lobes == LOBES.index("left upper lobe") + 1)
        return self.lung(plan)

    def part_of_lungs(self, side: str = "both", level: str = "any", lobe: str = "") -> Bool:
        """Mask of a side, a level (upper, middle with the lingula, lower) or a lobe."""
        left_upper = LOBES.index("left upper lobe") + 1
        numbers = []
        for number, name in enumerate(LOBES, 1):
            if lobe:
                if name == ("left upper lobe" if lobe == "lingula" else lobe):
                    numbers.append(number)
            elif side not in ("left", "right") or name.startswith(side):
                middle = level == "middle" and number == left_upper
                if level == "any" or level in name or middle:
                    numbers.append(number)
        mask = np.zeros(self.shape, bool)
        part, lobes = mask[self._lung_box], self.lobes[self._lung_box]
        part[...] = one_of(lobes, numbers)
        if left_upper in numbers and (lobe or level != "any"):
            # One slice of an upright grid is one slice of the body: see Frame.
            lingula = lobe == "lingula" or (not lobe and level == "middle")
            cut = self._is_lingula_Z[self._lung_box[0]] != lingula
            part[cut] &= lobes[cut] != left_upper
        return self.seen(mask)

    def seen(self, mask: Bool) -> Bool:
        """A mask without what lies outside the scanner's field; changed in place."""
        for axis, (line, world) in enumerate(((self.z, 2), (self.y, 1), (self.x, 0))):
            out = (line < self._seen_low[world]) | (line > self._seen_high[world])
            if out.any():
                mask[(slice(None),) * axis + (out,)] = False
        return mask

    def aerated(self, box: Box) -> Bool:
        """Lung in a box that holds air and that no finding has made solid."""
        cut = box.slices
        return (self.lobes[cut] > 0) & (self.hu[cut] < AERATED_HU) & ~self.solid[cut]

    @cached_property
    def _scattered_N3(self) -> NDArray[np.float64]:
        rng = np.random.default_rng([self.anatomy.plan.patient.seed, 11])
        return self.world(rng.uniform(_LUNG_LOW, _LUNG_HIGH, (9000, 3)))

    @cached_property
    def _scattered_in_lung_N(self) -> Bool:
        return np.asarray(self.lookup(self._healthy, self._scattered_N3) > 0)

    def pleura(self, side: str) -> NDArray[np.float64]:
        """Points ``(N, 3)`` of a healthy lung within 5 mm of its surface."""
        points = self._scattered_N3[self._scattered_in_lung_N]
        lobe = self.lookup(self._healthy, points)
        right = np.array([name.startswith("right") for name in LOBES])[lobe - 1]
        return np.asarray(points[(right == (side == "right")) & (self.depth_at(points) < 5)])

    def place(
        self,
        rng: np.random.Generator,
        region: Bool,
        radius_mm: float,
        depth_mm: tuple[float, float],
    ) -> NDArray[np.float64] | None:
        """A point of a region round which a ball is best free, at a depth under the pleura.

        The points tried do not depend on the grid, so that the same finding lies in the same place
        on any. None where the region holds no point.
        """
        order = rng.permutation(len(self._scattered_N3))
        tried = self._scattered_N3[order[self._scattered_in_lung_N[order]]]
        free = self.lookup(region, tried).astype(bool) & ~self.lookup(self.solid, tried)
        points = tried[free]
        if not len(points):
            return None
        depth = self.depth_at(points)
        fits = (depth >= depth_mm[0]) & (depth <= depth_mm[1])
        if fits.any():
            points = points[fits]
        else:
            points = points[np.argsort(np.abs(depth - np.mean(depth_mm)), kind="stable")[:40]]
        points = points[:80]
        ball = np.concatenate([directions(26) * radius_mm, directions(8) * radius_mm / 2])
        around = points[:, None] + ball
        good = (self.lookup(region, around) & ~self.lookup(self.solid, around)).mean(axis=1)
        return np.asarray(points[np.argmax(good)], float)

    # Filling

    def fill_lung(self, box: Box, part: Float, value: Float | float) -> Bool:
        """Take the air out of lung: fill a part of each voxel; returns the voxels mostly filled.

        Voxels of the chest wall that hold a little lung are filled too, or a dark line would
        stay between the wall and what lies against it.
        """
        cut = box.slices
        free = (self.lobes[cut] > 0) & ~self.solid[cut]
        part = part * free
        mask = part >= 0.5
        hu = self.hu[cut]
        edge = grown(mask) & (self.lobes[cut] == 0) & (hu < -150) & (self.labels[cut] > 0)
        for label in _GAS:
            edge &= self.labels[cut] != label
        mix(hu, np.maximum(part, edge), value)
        self.solid[cut] |= mask
        return self.seen_in(box, mask)

    def seen_in(self, box: Box, mask: Bool) -> Bool:
        """A box's mask as one of the whole grid, without what the scanner does not see."""
        whole = np.zeros(self.shape, bool)
        whole[box.slices] = mask
        return self.seen(whole)

    def empty(self) -> Bool:
        return np.zeros(self.shape, bool)

    def to_grid(self, mask: Bool) -> Bool:
        """A mask ``(Z, Y, X)`` in the grid's own order of axes."""
        return mask.transpose(np.argsort(self._order))

    def structure(self, *names: str) -> Bool:
        """Mask ``(Z, Y, X)`` of structures by name."""
        return one_of(self.labels, [LABELS[name] for name in names])

    def relabel(self, box: Box, mask: Bool, name: str) -> None:
        """What was there is now this structure, and no lung."""
        self.labels[box.slices][mask] = LABELS[name] if name in STRUCTURES else 0
        self.lobes[box.slices][mask] = 0


def grown(mask: Bool, axes: Sequence[int] = (0, 1, 2)) -> Bool:
    """A mask and its neighbours along the axes."""
    out = mask.copy()
    for axis in axes:
        before = (slice(None),) * axis + (slice(None, -1),)
        after = (slice(None),) * axis + (slice(1, None),)
        out[before] |= mask[after]
        out[after] |= mask[before]
    return out
