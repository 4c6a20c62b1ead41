"""Planes through a scan and its patches, in millimetres, as a radiologist looks at them.

A picture has two axes, u to the right and v upwards, both in millimetres of the patient; the
patient's right is on the picture's left, and in sagittal planes so is anterior.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simcrop_core.figure_spec import FigureSpec, PlaneName
from simcrop_core.geometry import FloatArray, Grid
from simcrop_core.patches import Box, PatchGrid
from simcrop_core.resample import resample_linear
from simcrop_core.volume import CTVolume

if TYPE_CHECKING:
    from simcrop_core.alignment_result import AlignmentResult

# Samples across one patch: 24 mm patches are drawn at 1 mm, and borders stay exact.
_SAMPLES_PER_PATCH = 24
_MOST_PIXELS = 2048

WINDOWS: dict[str, tuple[float, float]] = {
    "lung": (1500.0, -600.0),
    "mediastinum": (350.0, 50.0),
    "soft": (400.0, 40.0),
    "bone": (2500.0, 480.0),
}


# -- the planes ---------------------------------------------------------------------------------


class Plane(NamedTuple):
    """Which world axes a picture's axes run along, and in which direction."""

    name: PlaneName
    u_axis: int
    u_sign: int
    v_axis: int
    v_sign: int
    normal: int

    def uv(self, world_mm: FloatArray) -> FloatArray:
        """Picture coordinates of RAS points, ``(..., 2)``."""
        return np.stack(
            [self.u_sign * world_mm[..., self.u_axis], self.v_sign * world_mm[..., self.v_axis]],
            axis=-1,
        )

    def extent(self, box: Box) -> tuple[float, float, float, float]:
        """``(left, right, bottom, top)`` of a box seen in this plane."""
        u = sorted(self.u_sign * c[self.u_axis] for c in box)
        v = sorted(self.v_sign * c[self.v_axis] for c in box)
        return float(u[0]), float(u[1]), float(v[0]), float(v[1])

    def letters(self) -> dict[Literal["left", "right", "bottom", "top"], str]:
        """The body direction at each edge of the picture."""
        towards = ("RL", "AP", "SI")  # (towards +, towards -) of the world's axes
        u, v = towards[self.u_axis], towards[self.v_axis]
        right, top = u[self.u_sign < 0], v[self.v_sign < 0]
        left, bottom = u[self.u_sign > 0], v[self.v_sign > 0]
        return {"left": left, "right": right, "bottom": bottom, "top": top}


PLANE_BY_NAME: dict[PlaneName, Plane] = {
    "axial": Plane("axial", u_axis=0, u_sign=-1, v_axis=1, v_sign=1, normal=2),
    "coronal": Plane("coronal", u_axis=0, u_sign=-1, v_axis=2, v_sign=1, normal=1),
    "sagittal": Plane("sagittal", u_axis=1, u_sign=-1, v_axis=2, v_sign=1, normal=0),
}


# -- what lies in a plane -----------------------------------------------------------------------


class Raster(NamedTuple):
    """An image of a plane: ``values_VU[v, u]`` from the bottom left, over ``extent`` mm."""

    values_VU: NDArray[np.float32]
    extent: tuple[float, float, float, float]


def cut_scan(
    volume: CTVolume, plane: Plane, position_mm: FloatArray, crop: Box, outside_hu: float
) -> Raster:
    """The scan in a plane, in Hounsfield units, with square pixels of the scan's finest spacing.

    Pixels lie on the lattice of the scan's voxels where that is axis-aligned, so that an
    axial plane through voxel centres shows the stored values themselves. The raster covers
    ``crop`` and up to one pixel more.
    """
    left, right, bottom, top = plane.extent(crop)
    pixel = max(min(volume.spacing_mm), max(right - left, top - bottom) / _MOST_PIXELS)
    anchor_u, anchor_v = plane.uv(volume.grid.to_world((0, 0, 0)))
    # First pixel centre on the lattice whose pixel reaches the crop's lower edge.
    first_u = anchor_u + np.floor((left - anchor_u) / pixel + 0.5) * pixel
    first_v = anchor_v + np.floor((bottom - anchor_v) / pixel + 0.5) * pixel
    count_u = max(1, int(np.ceil((right - first_u) / pixel + 0.5 - 1e-9)))
    count_v = max(1, int(np.ceil((top - first_v) / pixel + 0.5 - 1e-9)))
    target = _plane_grid(plane, position_mm, (first_u, first_v), (pixel, pixel), (count_u, count_v))
    values, _ = resample_linear(volume.hu_XYZ, volume.grid, target, fill=outside_hu)
    low_u, low_v = float(first_u - pixel / 2), float(first_v - pixel / 2)
    extent = (low_u, low_u + count_u * pixel, low_v, low_v + count_v * pixel)
    return Raster(np.ascontiguousarray(values[:, :, 0].T), extent)


def cut_heat(
    result: AlignmentResult,
    sentence: int,
    plane: Plane,
    position_mm: FloatArray,
    interpolation: Literal["blocky", "smooth"],
) -> Raster | None:
    """A sentence's similarity in a plane, NaN in padding; None if no patch is cut.

    ``"blocky"`` gives each point its patch's value; ``"smooth"`` interpolates linearly between
    the centres of patches that touch the scan.
    """
    cells = _cut_cells(result.patches, plane, position_mm)
    if cells is None:
        return None
    inside = cells.take(result.inside_N)
    samples = _SAMPLES_PER_PATCH
    if interpolation == "blocky":
        values = cells.take(result.similarity_SN[sentence])
        values = _repeated(np.where(inside, values, np.nan), samples)
    else:
        step = (cells.size_uv[0] / samples, cells.size_uv[1] / samples)
        first = (cells.extent[0] + step[0] / 2, cells.extent[2] + step[1] / 2)
        count = (inside.shape[1] * samples, inside.shape[0] * samples)
        target = _plane_grid(plane, position_mm, first, step, count)
        weight_IJK = result.patches.as_map(result.inside_N)
        # Padding has no say: its patches carry no weight.
        product_IJK = result.overlay(sentence) * weight_IJK
        weight, product = (
            resample_linear(values_IJK, result.patches.grid, target, fill=None)[0][:, :, 0].T
            for values_IJK in (weight_IJK, product_IJK)
        )
        shown = _repeated(inside, samples) & (weight > 0)
        values = np.where(shown, product / np.where(weight > 0, weight, 1), np.nan)
    return Raster(values.astype(np.float32), cells.extent)


def outline(
    patches: PatchGrid, chosen: NDArray[np.int64], plane: Plane, position_mm: FloatArray
) -> FloatArray:
    """The common outline of the chosen patches that the plane cuts, ``(segments, 2, 2)`` in mm."""
    cells = _cut_cells(patches, plane, position_mm)
    if cells is None:
        return np.zeros((0, 2, 2))
    marked_N = np.zeros(len(patches), dtype=bool)
    marked_N[chosen] = True
    return _borders(cells.take(marked_N), cells.extent, cells.size_uv)


def outline_mask(
    mask_XYZ: NDArray[np.bool_], grid: Grid, plane: Plane, position_mm: FloatArray, crop: Box
) -> FloatArray:
    """The outline of what the plane cuts of a mask, ``(segments, 2, 2)`` in mm.

    Looked up at the nearest voxel, in pixels of the grid's finest spacing.
    """
    left, right, bottom, top = plane.extent(crop)
    pixel = max(min(grid.spacing_mm), max(right - left, top - bottom) / _MOST_PIXELS)
    count_u, count_v = (max(1, int(np.ceil(d / pixel))) for d in (right - left, top - bottom))
    first = left + pixel / 2, bottom + pixel / 2
    target = _plane_grid(plane, position_mm, first, (pixel, pixel), (count_u, count_v))
    points = target.to_world(np.indices(target.shape).reshape(3, -1).T)
    ijk = np.floor(grid.to_voxel(points) + 0.5).astype(np.int64)
    within = ((ijk >= 0) & (ijk < np.array(grid.shape))).all(axis=1)
    marked = np.zeros(len(ijk), dtype=bool)
    marked[within] = mask_XYZ[tuple(ijk[within].T)]
    extent = (left, left + count_u * pixel, bottom, bottom + count_v * pixel)
    return _borders(marked.reshape(count_u, count_v).T, extent, (pixel, pixel))


# -- where to cut, and how to window ------------------------------------------------------------


def crop_box(volume: CTVolume, patches: PatchGrid, crop: Literal["input", "scan"]) -> Box:
    """What is shown: the scan's bounds, or what the model's input covers of them."""
    low, high = volume.grid.bounds_mm()
    if crop == "input":
        input_low, input_high = patches.grid.bounds_mm()
        low, high = np.maximum(low, input_low), np.minimum(high, input_high)
    return Box(low, high)


def best_position(volume: CTVolume, result: AlignmentResult, sentence: int) -> FloatArray:
    """The centre of a sentence's best patch, or the point of that patch in the scan nearest to it.

    A patch at the scan's edge may have its centre in the padding, where there is nothing to see.
    """
    best = int(result.top(sentence)[0])
    center = result.patches.center(best)
    if bool(volume.grid.contains(center)):
        return center
    half = (result.patches.box(best).high_mm - center) * (1 - 1e-6)
    steps = np.linspace(-1, 1, 49)
    offsets = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
    points = center + offsets * half
    points = points[volume.grid.contains(points)]
    if not len(points):
        return center
    return np.asarray(points[np.argmin(((points - center) ** 2).sum(axis=-1))])


# An organ decides before a finding does: a thyroid nodule is no lung nodule.
_WINDOW_WORDS: tuple[tuple[str, str], ...] = (
    (
        "bone",
        r"vertebra|ribs?\b|bon(e|es|y)\b|osse|skelet|stern(um|al)\b|scapul|clavic|spin(e|al)\b"
        r"|lytic|scleroti|fractur|osteo|kypho|scolio|disc\b",
    ),
    (
        "mediastinum",
        r"mediastin|hil(um|a|ar|us)\b|heart|cardi|coronar|aort|thyroid|oesoph|esoph|liver|hepat"
        r"|splen|adren|kidney|renal|pancrea|gallbl|breast|axill|lymph|pulmonary (arter|trunk|vein)"
        r"|pleural (effus|fluid|thick|plaque)|pericard",
    ),
    (
        "lung",
        r"nodul|lungs?\b|lob(e|es|ar)\b|lingul|parenchym|opaci|ground[- ]?glass|consolid"
        r"|emphysem|atelect|bronch|trachea|airway|fibro|interstit|septal|honeycomb|cavit|pneumo"
        r"|infiltr|aerat|mosaic|crazy|bulla|apical|subpleural|fissur|bleb|cyst",
    ),
)


def window_for(spec: FigureSpec, text: str) -> tuple[str, tuple[float, float]]:
    """The window's name and its ``(width, level)``; ``"auto"`` goes by the sentence's words."""
    if not isinstance(spec.window, str):
        return "chosen", spec.window
    name: str = spec.window
    if name == "auto":
        words = text.casefold()
        name = next(
            (w for w, pattern in _WINDOW_WORDS if re.search(rf"\b(?:{pattern})", words)),
            "mediastinum",
        )
    return name, WINDOWS[name]


# -- cells of the patch grid --------------------------------------------------------------------


@dataclass(frozen=True)
class _Cells:
    """One slab of the patch grid, as a picture's rows (v) and columns (u)."""

    flat_VU: NDArray[np.intp]
    extent: tuple[float, float, float, float]
    size_uv: tuple[float, float]

    def take(self, values_N: NDArray[Any]) -> NDArray[Any]:
        return values_N[self.flat_VU]


def _cut_cells(patches: PatchGrid, plane: Plane, position_mm: FloatArray) -> _Cells | None:
    if not patches.grid.is_axis_aligned:
        raise ValueError("Patches are expected to lie along the body's axes.")
    world, signs = patches.grid.nearest_axes()
    axis_of = {w: axis for axis, w in enumerate(world)}
    across, along_u, along_v = axis_of[plane.normal], axis_of[plane.u_axis], axis_of[plane.v_axis]
    at = float(np.floor(patches.grid.to_voxel(position_mm)[across] + 0.5))
    if not 0 <= at < patches.shape[across]:
        return None
    flat = np.arange(len(patches)).reshape(patches.shape)
    slab = np.take(flat, int(at), axis=across)
    if along_u < along_v:
        slab = slab.T  # rows are v
    if signs[along_u] * plane.u_sign < 0:
        slab = slab[:, ::-1]
    if signs[along_v] * plane.v_sign < 0:
        slab = slab[::-1]
    extent = plane.extent(Box(*patches.grid.bounds_mm()))
    return _Cells(slab, extent, (patches.size_mm[along_u], patches.size_mm[along_v]))


def _borders(
    marked_VU: NDArray[np.bool_],
    extent: tuple[float, float, float, float],
    size_uv: tuple[float, float],
) -> FloatArray:
    """The edges between what is marked and what is not, ``(segments, 2, 2)`` in mm."""
    marked = np.pad(marked_VU, 1)
    left, _, bottom, _ = extent
    du, dv = size_uv
    segments = []
    for v, u in np.argwhere(marked[1:-1, 1:] != marked[1:-1, :-1]):
        at = left + u * du
        segments.append([(at, bottom + v * dv), (at, bottom + (v + 1) * dv)])
    for v, u in np.argwhere(marked[1:, 1:-1] != marked[:-1, 1:-1]):
        at = bottom + v * dv
        segments.append([(left + u * du, at), (left + (u + 1) * du, at)])
    return np.array(segments, dtype=np.float64).reshape(-1, 2, 2)


def _repeated(cells_VU: NDArray[Any], times: int) -> NDArray[Any]:
    return cells_VU.repeat(times, axis=0).repeat(times, axis=1)


def _plane_grid(
    plane: Plane,
    position_mm: FloatArray,
    first_uv: tuple[float, float],
    step_uv: tuple[float, float],
    count_uv: tuple[int, int],
) -> Grid:
    """The grid ``(u, v, 1)`` of a plane's pixels, in the patient."""
    affine = np.zeros((4, 4))
    affine[plane.u_axis, 0] = plane.u_sign * step_uv[0]
    affine[plane.v_axis, 1] = plane.v_sign * step_uv[1]
    affine[plane.normal, 2] = min(step_uv)
    affine[plane.u_axis, 3] = plane.u_sign * first_uv[0]
    affine[plane.v_axis, 3] = plane.v_sign * first_uv[1]
    affine[plane.normal, 3] = position_mm[plane.normal]
    affine[3, 3] = 1
    return Grid((count_uv[0], count_uv[1], 1), affine)
