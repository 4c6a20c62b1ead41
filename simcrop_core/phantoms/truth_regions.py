"""The parts of a phantom that its report speaks of, as masks.

A region is asked for by name: a structure or a group of them, a lung or a lobe, the pleural spaces,
the place of a finding, or the place where it would be. All of it lies in the scan: the grid may be
larger.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from simcrop_core.phantoms.anatomy import GROUPS, LABELS
from simcrop_core.phantoms.findings_scene import scene_of
from simcrop_core.phantoms.render import Rendered

Bool = NDArray[np.bool_]
Slices = tuple[slice, slice, slice]

#: Groups of structures that reports speak of and the anatomy does not name, or names more widely.
_GROUPS: dict[str, tuple[str, ...]] = {
    "pericardium": ("pericardium", "pericardial fluid"),
    "upper abdomen": (
        "liver",
        "spleen",
        "stomach",
        "kidneys",
        "adrenal glands",
        "gallbladder",
        "pancreas",
        "bowel",
    ),
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


class Regions(Mapping[str, Bool]):
    """Masks ``(X, Y, Z)`` by name, kept as the boxes that hold them; none is empty."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self._shape = shape
        self._boxes: dict[str, tuple[Slices, Bool]] = {}

    def add(self, name: str, mask_XYZ: Bool) -> None:
        """Keep a mask, unless it is empty."""
        cut = bounding_box(mask_XYZ)
        if cut is not None:
            self._boxes[name] = cut, mask_XYZ[cut].copy()

    def box(self, name: str) -> tuple[Slices, Bool]:
        """The box that holds a mask, and the mask in it."""
        return self._boxes[name]

    def __getitem__(self, name: str) -> Bool:
        cut, part = self._boxes[name]
        # In the order of memory that scans have, so that both are walked alike.
        mask = np.zeros(self._shape, bool, order="F")
        mask[cut] = part
        return mask

    def __iter__(self) -> Iterator[str]:
        return iter(self._boxes)

    def __len__(self) -> int:
        return len(self._boxes)


def bounding_box(mask_XYZ: Bool) -> Slices | None:
    """The smallest box that holds a mask; None where it is empty."""
    slices = []
    for axis in range(3):
        hits = np.flatnonzero(mask_XYZ.any(axis=tuple(a for a in range(3) if a != axis)))
        if not hits.size:
            return None
        slices.append(slice(int(hits[0]), int(hits[-1]) + 1))
    return slices[0], slices[1], slices[2]


def regions_of(rendered: Rendered, names: Iterable[str], findings: Mapping[str, Bool]) -> Regions:
    """The regions of these names that a rendered phantom shows.

    Parameters
    ----------
    findings
        Masks of the findings, by the names of their regions.
    """
    regions = Regions(rendered.volume.shape)
    cut = scan_box(rendered)
    for name in dict.fromkeys(names):
        mask = findings[name] if name in findings else _mask(rendered, name)
        inside = np.zeros(mask.shape, bool, order="F")
        inside[cut] = mask[cut]
        regions.add(name, inside)
    return regions


def scan_box(rendered: Rendered) -> Slices:
    """The voxels of the grid whose centres lie in the scan."""
    anatomy = rendered.anatomy
    low, high = anatomy.plan.scanner.grid.bounds_mm()
    slices: list[slice] = [slice(0)] * 3
    for world, line in enumerate((anatomy.x, anatomy.y, anatomy.z)):
        axis = int(np.argmax(line.shape)) if line.size > 1 else world
        inside = np.flatnonzero((line.ravel() >= low[world]) & (line.ravel() <= high[world]))
        slices[axis] = slice(int(inside[0]), int(inside[-1]) + 1) if inside.size else slice(0)
    return slices[0], slices[1], slices[2]


def _mask(rendered: Rendered, name: str) -> Bool:
    anatomy = rendered.anatomy
    side, _, rest = name.partition(" ")
    one_side = side in ("left", "right")
    if name in ("lungs", "left lung", "right lung"):
        return scene_of(anatomy).to_grid(
            scene_of(anatomy).part_of_lungs(side if one_side else "both")
        )
    if rest in ("lobe", "lobes") or rest.endswith(" lobe"):
        level = rest.split()[0] if one_side else side
        scene = scene_of(anatomy)
        return scene.to_grid(scene.part_of_lungs(side if one_side else "both", level))
    if name.endswith(("pleural space", "pleural spaces")):
        depth = anatomy.pleural_depth_XYZ
        fluid = rendered.structures_XYZ == LABELS["pleural fluid"]
        mask = ((depth > 0) & (depth < _PLEURA_MM)) | fluid
        if one_side:
            mask &= anatomy.right_of_midline_XYZ == (side == "right")
        return mask
    if name == "hiatus":
        x, y, z = anatomy.landmarks["hiatus"]
        square = (anatomy.x - x) ** 2 + (anatomy.y - y) ** 2 + (anatomy.z - z) ** 2
        return np.asarray(square <= _HIATUS_MM**2)
    if name == "body":
        return anatomy.structure("body")
    lookup = np.zeros(256, bool)
    lookup[[LABELS[part] for part in _GROUPS.get(name) or GROUPS.get(name, (name,))]] = True
    mask = lookup[rendered.structures_XYZ]
    if name in _OUTSIDE_LUNGS:
        mask &= anatomy.lobes_XYZ == 0
    if name == "coronary arteries" and not mask.any():  # too thin for a coarse grid
        return _mask(rendered, "heart")
    return mask


