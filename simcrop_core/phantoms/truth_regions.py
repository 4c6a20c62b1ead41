"""The parts of a phantom that its report speaks of, as masks.

A region is asked for by name: a structure or a group of them, a lung or a lobe, the pleural spaces,
the place of a finding, or the place where it would be. All of it lies in the scan: the grid may be
larger.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from simcrop_core.phantoms.anatomy import Anatomy
from simcrop_core.phantoms.anatomy_labels import GROUPS, LABELS, LOBES, STRUCTURES
from simcrop_core.phantoms.findings_scene import LINGULA_TOP_MM, one_of, scene_of
from simcrop_core.phantoms.render import Rendered, Slices

Bool = NDArray[np.bool_]

#: Groups of structures that reports speak of and the anatomy does not name, or names more widely.
_GROUPS: dict[str, tuple[str, ...]] = {
    "pericardium": ("pericardium", "pericardial fluid"),
    "upper abdomen": tuple(n for n in GROUPS["upper abdomen"] if n != "abdominal fat"),
    "lymph node stations": (
        "trachea",
        "airway walls",
        "aorta",
        "aortic branches",
        "pulmonary artery",
        "superior vena cava",
        "brachiocephalic veins",
        "azygos vein",
        "oesophagus",
        "mediastinal fat",
    ),
}
#: Of these the part outside the lungs is meant.
_OUTSIDE_LUNGS = frozenset({"airways", "lymph node stations"})
#: A pleural space reaches so deep into the lung's rim: about as far as a small effusion would.
_PLEURA_MM = 8.0
_HIATUS_MM = 25.0
#: So many planes of labels at once stay in the processor's cache.
_PLANES = 8


class Regions(Mapping[str, Bool]):
    """Masks ``(X, Y, Z)`` by name, kept as the boxes that hold them; none is empty."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self._shape = shape
        self._boxes: dict[str, tuple[Slices, Bool]] = {}

    def add(self, name: str, box: Slices, mask: Bool) -> None:
        """Keep a mask that lies in a box; an empty one is left out."""
        tight = bounding_box(mask)
        if tight is not None:
            self._boxes[name] = _within(box, tight), mask[tight].copy(order="K")

    def box(self, name: str) -> tuple[Slices, Bool]:
        """The box that holds a mask, and the mask in it."""
        return self._boxes[name]

    def __getitem__(self, name: str) -> Bool:
        cut, part = self._boxes[name]
        # In the order of memory that scans have, so that both are walked alike.
        mask = np.zeros(self._shape, bool, order="F")
        mask[cut] = part
        return mask

    def __contains__(self, name: object) -> bool:
        return name in self._boxes  # a Mapping would make the mask to know

    def __iter__(self) -> Iterator[str]:
        return iter(self._boxes)

    def __len__(self) -> int:
        return len(self._boxes)


def bounding_box(mask: Bool) -> Slices | None:
    """The smallest box that holds a mask; None where it is empty."""
    slices = [slice(0, n) for n in mask.shape]
    # The axis of the longest stride first: what it leaves out need not be looked at again.
    for axis in np.argsort([-abs(s) for s in mask.strides]):
        others = tuple(a for a in range(3) if a != axis)
        hits = np.flatnonzero(mask[tuple(slices)].any(axis=others))
        if not hits.size:
            return None
        slices[axis] = slice(int(hits[0]), int(hits[-1]) + 1)
    return slices[0], slices[1], slices[2]


def regions_of(rendered: Rendered, names: Iterable[str], findings: Mapping[str, Bool]) -> Regions:
    """The regions of these names that a rendered phantom shows.

    Parameters
    ----------
    findings
        Masks of the findings, by the names of their regions.
    """
    regions = Regions(rendered.volume.shape)
    atlas = _Atlas(rendered)
    scan = _within(rendered.drawn, atlas.scan)
    for name in dict.fromkeys(names):
        if name in findings:
            regions.add(name, scan, findings[name][scan])
        else:
            box, mask = atlas.region(name)
            regions.add(name, _within(rendered.drawn, box), mask)
    return regions


class _Atlas:
    """A rendered phantom, of which parts can be asked for by name.

    All boxes and masks are on the axes of the anatomy's grid, and lie in the scan.
    """

    def __init__(self, rendered: Rendered) -> None:
        self.anatomy = rendered.anatomy
        self.scan = _scan_box(rendered.anatomy)
        self.labels_XYZ = rendered.anatomy.labels_XYZ[self.scan]
        self.lobes_XYZ = rendered.anatomy.lobes_XYZ[self.scan]
        self._boxes = label_boxes(self.labels_XYZ, len(STRUCTURES))
        self._lobes = label_boxes(self.lobes_XYZ, len(LOBES))

    def region(self, name: str) -> tuple[Slices, Bool]:
        side, _, rest = name.partition(" ")
        if name == "lingula":
            return self._lung("left", "middle")
        if name in ("lungs", "left lung", "right lung"):
            return self._lung(side, "any")
        if rest in ("lobe", "lobes"):
            return self._lung("any", side)
        if rest.endswith(" lobe"):
            return self._lung(side, rest.removesuffix(" lobe"))
        if name.endswith(("pleural space", "pleural spaces")):
            return self._pleura(side)
        if name == "hiatus":
            return self._ball(self.anatomy.landmarks["hiatus"], _HIATUS_MM)
        if name == "body":
            mask = (self.labels_XYZ > 0) & (self.labels_XYZ != LABELS["couch"])
            return self.scan, mask
        return self._structures(name, _GROUPS.get(name) or GROUPS.get(name, (name,)))

    def _structures(self, name: str, parts: tuple[str, ...]) -> tuple[Slices, Bool]:
        labels = [LABELS[part] for part in parts]
        cut = _around([self._boxes[label - 1] for label in labels])
        if cut is None:
            # The coronary arteries are too thin for a coarse grid.
            return self.region("heart") if name == "coronary arteries" else self._nothing()
        mask = one_of(self.labels_XYZ[cut], labels)
        if name in _OUTSIDE_LUNGS:
            mask &= self.lobes_XYZ[cut] == 0
        return _within(self.scan, cut), mask

    def _lung(self, side: str, level: str) -> tuple[Slices, Bool]:
        """A lung or lobe; the lingula is the middle of the left lung."""
        lookup = np.zeros(256, bool)
        for number, lobe in enumerate(LOBES, 1):
            on_side = side not in ("left", "right") or lobe.startswith(side)
            lookup[number] = on_side and (level == "any" or level in lobe)
        split = level in ("upper", "middle") and side != "right"
        left_upper = LOBES.index("left upper lobe") + 1
        numbers = {*np.flatnonzero(lookup).tolist(), *((left_upper,) if split else ())}
        cut = _around([self._lobes[number - 1] for number in numbers])
        if cut is None:
            return self._nothing()
        lobes = self.lobes_XYZ[cut]
        mask = one_of(lobes, np.flatnonzero(lookup).tolist())
        if split:
            lingula = lobes == left_upper
            x, y, z = self.anatomy.x, self.anatomy.y, self.anatomy.z
            height = self.anatomy.frame.patient(x[:1, :1, :1], y[:1, :1, :1], z)[2]
            lingula &= self._line(height, cut) < LINGULA_TOP_MM
            mask = mask | lingula if level == "middle" else mask & ~lingula
        return _within(self.scan, cut), mask

    def _pleura(self, side: str) -> tuple[Slices, Bool]:
        """The rim of the lungs, and the fluid beside it."""
        scene = scene_of(self.anatomy)
        depth, stride = scene.depth
        both = side not in ("left", "right")
        box, mask = self._lung("any" if both else side, "any")
        # Coarse, in the scene's own order of axes; to the nearest voxel of the grid.
        near = scene.to_grid(depth < _PLEURA_MM)
        steps = scene.to_grid(np.empty(stride, bool)).shape  # the strides in that order, too
        for axis, (part, step, count) in enumerate(zip(box, steps, near.shape, strict=True)):
            places = np.minimum(np.arange(part.start, part.stop) // step, count - 1)
            near = near.take(places, axis)
        mask &= near
        fluid = self._boxes[LABELS["pleural fluid"] - 1]
        if both and fluid is not None:
            lungs = _relative(box, self.scan)
            cut = _around([fluid, lungs if mask.size else None])
            if cut is not None:
                wide = self.labels_XYZ[cut] == LABELS["pleural fluid"]
                wide[_relative(lungs, cut)] |= mask
                return _within(self.scan, cut), wide
        return box, mask

    def _ball(self, center_mm: NDArray[np.float64], radius_mm: float) -> tuple[Slices, Bool]:
        lines = (self.anatomy.x, self.anatomy.y, self.anatomy.z)
        cut = [slice(0, n) for n in self.labels_XYZ.shape]
        for values, middle in zip(lines, center_mm, strict=True):
            axis = int(np.argmax(values.shape))
            inside = np.flatnonzero(np.abs(self._line(values).ravel() - middle) <= radius_mm)
            if values.size > 1:
                if not inside.size:
                    return self._nothing()
                cut[axis] = slice(int(inside[0]), int(inside[-1]) + 1)
        box = cut[0], cut[1], cut[2]
        square = sum((self._line(a, box) - c) ** 2 for a, c in zip(lines, center_mm, strict=True))
        return _within(self.scan, box), np.asarray(square <= radius_mm**2)

    def _line(self, values: NDArray[np.float32], box: Slices | None = None) -> NDArray[np.float32]:
        """The part in the scan, or in a box of it, of coordinates that broadcast to the grid."""
        cut = self.scan if box is None else _within(self.scan, box)
        return values[
            tuple(slice(None) if n == 1 else c for n, c in zip(values.shape, cut, strict=True))
        ]

    def _nothing(self) -> tuple[Slices, Bool]:
        return (slice(0, 0),) * 3, np.zeros((0, 0, 0), bool)


def label_boxes(labels: NDArray[np.uint8], count: int) -> list[Slices | None]:
    """The smallest boxes that hold labels 1 to ``count`` (at most 63); None for absent ones.

    Looks at the ends of runs of one label along the rows alone: several times as fast as
    ``scipy.ndimage.find_objects``.
    """
    if not labels.size:
        return [None] * count
    order = [int(axis) for axis in np.argsort([-abs(s) for s in labels.strides])]
    walked = labels.transpose(order)
    bit = np.zeros(256, np.uint64)
    bit[1 : count + 1] = [1 << label for label in range(1, count + 1)]
    depth, height, width = walked.shape
    planes, lines = np.zeros(depth, np.uint64), np.zeros(height, np.uint64)
    left, right = np.full(256, width), np.zeros(256, np.int64)
    for first in range(0, depth, _PLANES):
        rows = walked[first : first + _PLANES].reshape(-1, width)
        change = np.ones(rows.shape, bool)
        np.not_equal(rows[:, 1:], rows[:, :-1], out=change[:, 1:])
        starts = np.flatnonzero(change)
        names = rows.reshape(-1).take(starts)
        starts %= width
        begins = starts == 0
        bits = np.bitwise_or.reduceat(bit.take(names), np.flatnonzero(begins)).reshape(-1, height)
        planes[first : first + _PLANES] = np.bitwise_or.reduce(bits, axis=1)
        lines |= np.bitwise_or.reduce(bits, axis=0)
        np.minimum.at(left, names, starts)
        starts[begins] = width  # where the last run of the row before stops
        np.maximum.at(right, names, np.append(starts[1:], width))
    found: list[Slices | None] = []
    for label in range(1, count + 1):
        box = [slice(0, 0)] * 3
        box[order[2]] = slice(int(left[label]), int(right[label]))
        for axis, hits in zip(order, (planes, lines), strict=False):
            where = np.flatnonzero(hits & bit[label])
            box[axis] = slice(int(where[0]), int(where[-1]) + 1) if where.size else slice(0, 0)
        found.append((box[0], box[1], box[2]) if right[label] > 0 else None)
    return found


def _around(boxes: Iterable[Slices | None]) -> Slices | None:
    """The smallest box that holds some; None where there are none."""
    held = [box for box in boxes if box is not None]
    if not held:
        return None
    i, j, k = (
        slice(min(box[a].start for box in held), max(box[a].stop for box in held)) for a in range(3)
    )
    return i, j, k


def _relative(inner: Slices, outer: Slices) -> Slices:
    """Where a box lies in one that holds it."""
    i, j, k = (
        slice(a.start - b.start, a.stop - b.start) for a, b in zip(inner, outer, strict=True)
    )
    return i, j, k


def _within(box: Slices, inner: Slices) -> Slices:
    """A box given by its place in another, by its place in the grid."""
    moved = [slice(o.start + i.start, o.start + i.stop) for o, i in zip(box, inner, strict=True)]
    return moved[0], moved[1], moved[2]


def _scan_box(anatomy: Anatomy) -> Slices:
    """The voxels of the grid whose centres lie in the scan."""
    low, high = anatomy.plan.scanner.grid.bounds_mm()
    slices = [slice(0, 0)] * 3
    worlds, _ = anatomy.grid.nearest_axes()
    for world, line in enumerate((anatomy.x, anatomy.y, anatomy.z)):
        inside = np.flatnonzero((line.ravel() >= low[world]) & (line.ravel() <= high[world]))
        if inside.size:
            slices[worlds.index(world)] = slice(int(inside[0]), int(inside[-1]) + 1)
    return slices[0], slices[1], slices[2]
