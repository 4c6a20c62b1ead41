"""What the scanner adds to the body: the table, blur, noise, and the field it reconstructs.

Noise follows the spectrum of filtered back-projection: a ramp, cut by the kernel (Riederer, Pelc
and Chesler, Phys Med Biol 1978; Kijewski and Judy, Phys Med Biol 1987), stronger where the rays
are long: in the middle of the body and through the shoulders, where it also runs in streaks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from simcrop_core.geometry import Grid
from simcrop_core.phantoms.anatomy_cage import Cage
from simcrop_core.phantoms.anatomy_canvas import Canvas
from simcrop_core.phantoms.anatomy_labels import LABELS
from simcrop_core.phantoms.plan import STREAM_NOISE, PhantomPlan, ScannerPlan
from simcrop_core.phantoms.shapes import coverage, sheet_coverage

Volume = NDArray[np.float32]

#: Kernel -> frequency (1/mm) at which it has fallen to 1/e, how steeply, blur (mm, standard
#: deviation).
_KERNELS = {"soft": (0.34, 2.0, 0.75), "standard": (0.5, 2.5, 0.55), "sharp": (0.85, 4.0, 0.36)}
_TILE, _TILES = 256, 5
AIR_HU = -1000.0


def paint_couch(canvas: Canvas, cage: Cage, scanner: ScannerPlan) -> None:
    """Paint the table under the back, where there is nothing else."""
    if scanner.couch_kind == "none":
        return
    rng = np.random.default_rng([scanner.seed, 1])
    top = _back_mm(canvas, cage) - scanner.couch_gap_mm
    middle = float(canvas.frame.offset_mm[0] + rng.normal(0, 14))
    half, deep = rng.uniform(195, 265), rng.uniform(18, 46)
    curve = rng.uniform(350, 700) if scanner.couch_kind == "curved" else 1e6
    x, y = canvas.xw[0] - np.float32(middle), canvas.yw[0]
    width = float(canvas.spacing[:2].mean())
    upper = y - (top + x * x / np.float32(2 * curve))
    # The under side is curved even under a flat top.
    lower = y - (top - deep + x * x / np.float32(2 * min(curve, 900) * rng.uniform(0.8, 1.3)))
    ends = np.abs(x) - np.float32(half)
    solid = np.maximum(np.maximum(upper, -lower), ends)
    shell = sheet_coverage(solid + np.float32(1.2), rng.uniform(1.2, 3.0), width)
    core = coverage(solid, width)
    foam, skin_hu = rng.uniform(-975, -880), rng.uniform(-350, 250)
    value = AIR_HU + core * (foam - AIR_HU)
    value = value + np.clip(shell, 0, 1) * (skin_hu - value)
    if scanner.couch_gap_mm > 4:  # a mattress fills the gap
        pad = np.maximum(-upper, np.maximum(y - top - scanner.couch_gap_mm + 1, ends + 40))
        value = value + coverage(pad.astype(np.float32), width) * (rng.uniform(-990, -930) - value)
    rows = np.flatnonzero((value > AIR_HU + 0.5).any(axis=1))
    if not rows.size:
        return
    part = slice(rows[0], rows[-1] + 1)
    extra = (value[part] - np.float32(AIR_HU)).astype(np.float32)
    free = canvas.labels[:, part] == 0
    canvas.hu[:, part] += extra * free
    np.copyto(canvas.labels[:, part], np.uint8(LABELS["couch"]), where=free & (extra > 40)[None])


def _back_mm(canvas: Canvas, cage: Cage) -> float:
    """World height of the lowest point of the back."""
    axes = np.linspace(-95, 95, 13), np.linspace(-220, -80, 57), np.linspace(-170, 60, 9)
    x, y, z = (a.ravel().astype(np.float32) for a in np.meshgrid(*axes, indexing="ij"))
    muscle = cage.muscle(x, y, z)
    body = cage.skin(x, y, z, muscle, np.full_like(x, 1e3)) < 0
    return float(canvas.frame.world(np.stack([x[body], y[body], z[body]], 1))[:, 1].min())


@dataclass(frozen=True, eq=False)
class Field:
    """The voxels of a grid that a scan covers.

    Attributes
    ----------
    box
        Slices of the grid's axes: the scan's box.
    circle
        Which columns of voxels lie in the scanner's circle, broadcastable to the grid; None where
        all do.
    """

    box: tuple[slice, slice, slice]
    circle: NDArray[np.bool_] | None

    def clear(self, array_XYZ: NDArray[Any]) -> None:
        """Set to 0 what lies outside, in place."""
        for axis, part in enumerate(self.box):
            ahead = (slice(None),) * axis
            array_XYZ[(*ahead, slice(None, part.start))] = 0
            array_XYZ[(*ahead, slice(part.stop, None))] = 0
        if self.circle is not None:
            # Walked in the array's order of memory: the other is several times as slow.
            order = np.argsort([-abs(step) for step in array_XYZ.strides])
            walked, circle = array_XYZ.transpose(order), self.circle.transpose(order)
            walked *= np.ascontiguousarray(circle)


def field(plan: PhantomPlan, grid: Grid) -> Field:
    """The part of a grid that the scan covers: its box, and its circle where it has one."""
    worlds, _ = grid.nearest_axes()
    low, high = plan.scanner.grid.bounds_mm()
    box = [slice(0, 0)] * 3
    around = np.zeros((1, 1, 1))
    for axis, world in enumerate(worlds):
        line = grid.affine[world, 3] + grid.affine[world, axis] * np.arange(grid.shape[axis])
        inside = np.flatnonzero((line >= low[world]) & (line <= high[world]))
        if inside.size:
            box[axis] = slice(int(inside[0]), int(inside[-1]) + 1)
        if world < 2:
            shape = [-1 if a == axis else 1 for a in range(3)]
            around = around + (line.reshape(shape) - (low[world] + high[world]) / 2) ** 2
    circle = around <= (high[0] - low[0]) ** 2 / 4
    whole = plan.scanner.padding_hu is None or bool(circle.all())
    return Field((box[0], box[1], box[2]), None if whole else circle)


def field_of_view(plan: PhantomPlan, grid: Grid) -> NDArray[np.bool_]:
    """Mask of the voxels of a grid that the scan covers; see :class:`Field`."""
    seen = field(plan, grid)
    covered = np.zeros(grid.shape, bool)
    covered[seen.box] = True
    if seen.circle is not None:
        covered &= seen.circle
    return covered


def scan(hu_XYZ: Volume, plan: PhantomPlan, grid: Grid) -> NDArray[np.int16]:
    """The scan of noise-free values on a grid, int16, of the same layout in memory.

    Outside the field of view the scan's own grid holds the scanner's padding, others air.
    """
    scanner = plan.scanner
    worlds, _ = grid.nearest_axes()
    order = [worlds.index(w) for w in (2, 1, 0)]
    values = hu_XYZ.transpose(order)
    spacing = [grid.spacing_mm[axis] for axis in order]
    native = grid.matches(scanner.grid)
    rng = np.random.default_rng([plan.seed, STREAM_NOISE])
    noise = _Noise(scanner, spacing, values.shape, rng)
    seen = field(plan, grid)
    slices, *plane = (seen.box[axis] for axis in order)
    covered = np.zeros(values.shape[1:], bool)
    covered[plane[0], plane[1]] = True
    if seen.circle is not None:
        covered &= seen.circle.transpose(order)[0]
    missed = None if covered.all() else ~covered
    fill = scanner.padding_hu if native and scanner.padding_hu is not None else AIR_HU
    weights = _slice_weights(scanner.thickness_mm / spacing[0])
    blur = [_blur_weights(_KERNELS[scanner.kernel][2] / s) for s in spacing[1:]]
    gain = np.float32(1 + scanner.hu_shift / 1000)
    out = np.full(values.shape, fill, np.int16)
    last = len(values) - 1
    image, spare, third = np.empty((3, *values.shape[1:]), np.float32)
    for k in range(slices.start, slices.stop):
        np.multiply(values[k], np.float32(weights[0]), out=image)
        for step, weight in enumerate(weights[1:], 1):
            np.add(values[max(k - step, 0)], values[min(k + step, last)], out=spare)
            spare *= np.float32(weight)
            image += spare
        for axis, pair in enumerate(blur):
            image, spare = _blurred(image, pair, axis, spare, third)
        if scanner.hu_shift:
            image *= gain
            image += np.float32(scanner.hu_shift)
        noise.add(image, spare, third)
        np.rint(image, out=image)
        np.maximum(image, np.float32(-1024), out=image)
        np.minimum(image, np.float32(3071), out=image)
        out[k] = image
        if missed is not None:
            out[k][missed] = fill
    return out.transpose(np.argsort(order))


def _slice_weights(slices: float) -> list[float]:
    """Weights of a slice and its neighbours for a slice that is so many slices thick."""
    if slices < 1.15:
        return [1.0]
    edges = np.arange(0, int(np.ceil(slices / 2 + 0.5)) + 1)
    shares = [min(1.0, max(0.0, slices / 2 - (k - 0.5))) for k in edges]
    total = shares[0] + 2 * sum(shares[1:])
    return [s / total for s in shares if s > 0]


def _blur_weights(sigma_voxels: float) -> tuple[float, float]:
    """Weights of a pixel and of either neighbour at one and two pixels with that deviation."""
    if sigma_voxels < 0.2:
        return 0.0, 0.0
    near, far = np.exp(-0.5 / sigma_voxels**2), np.exp(-2.0 / sigma_voxels**2)
    far = far if far > 0.004 else 0.0
    total = 1 + 2 * near + 2 * far
    return float(near / total), float(far / total)


def _blurred(
    image: Volume, weights: tuple[float, float], axis: int, spare: Volume, part: Volume
) -> tuple[Volume, Volume]:
    """The blurred image, and an array of its size that is free now; ``part`` is overwritten."""
    near, far = (np.float32(w) for w in weights)
    if near < 0.01:
        return image, spare
    out = np.multiply(image, 1 - 2 * near - 2 * far, out=spare)
    for step, weight in ((1, near), (2, far)):
        if weight == 0:
            continue
        np.multiply(image, weight, out=part)
        ahead = (slice(None),) * axis
        head, tail = (*ahead, slice(step, None)), (*ahead, slice(None, -step))
        out[head] += part[tail]
        out[tail] += part[head]
        for end in (slice(None, step), slice(-step, None)):
            out[(*ahead, end)] += part[(*ahead, end)]
    return out, image


class _Noise:
    """Noise of a scan, slice by slice, from a few tiles that are shifted at random."""

    def __init__(
        self,
        scanner: ScannerPlan,
        spacing: list[float],
        shape: tuple[int, ...],
        rng: np.random.Generator,
    ) -> None:
        self.rng = rng
        cut, power, _ = _KERNELS[scanner.kernel]
        fy = fft.fftfreq(_TILE, spacing[1])[:, None]
        fx = fft.rfftfreq(_TILE, spacing[2])[None, :]
        f = np.sqrt(fx * fx + fy * fy)
        spectrum = np.sqrt(f + 0.012) * np.exp(-((f / cut) ** power))
        # Streaks run from shoulder to shoulder.
        along = (
            np.exp(-((fx / 0.018) ** 2)) * np.exp(-((fy / (0.7 * cut)) ** 2)) * (np.abs(fy) > 0.02)
        )
        self.tiles = [self._tile(spectrum, shape, rng) for _ in range(_TILES)]
        self.along, self.own = along, rng.spawn(1)[0]
        # Linear resampling to coarser voxels keeps much, not all, of the finer noise.
        fine = np.linspace(0, 3 * cut, 400)
        energy = (fine + 0.012) * np.exp(-2 * (fine / cut) ** power) * fine
        held = energy[fine < 0.5 / max(spacing[1:])].sum() / energy.sum()
        self.level = np.float32(scanner.noise_hu * np.sqrt(max(held, 0.4)))
        self.area = spacing[1] * spacing[2]
        y = (np.arange(shape[1]) - shape[1] / 2) * spacing[1]
        x = (np.arange(shape[2]) - shape[2] / 2) * spacing[2]
        around = (y[:, None] ** 2 + x[None, :] ** 2) / 130.0**2
        self.middle = (0.72 + 0.4 * np.exp(-around)).astype(np.float32)
        self.shape = shape

    @cached_property
    def streaks(self) -> Volume:
        """The tile of the streaks; few scans have any."""
        return self._tile(self.along, self.shape, self.own)

    def _tile(
        self, spectrum: NDArray[np.float64], shape: tuple[int, ...], rng: np.random.Generator
    ) -> Volume:
        white = rng.standard_normal((_TILE, _TILE), np.float32)
        tile = fft.irfft2(fft.rfft2(white) * spectrum.astype(np.float32), s=white.shape)
        tile = (tile / tile.std()).astype(np.float32)
        repeats = [-(-(n + _TILE) // _TILE) for n in shape[1:]]
        return np.tile(tile, repeats)

    def _shifted(self, tile: Volume) -> Volume:
        i, j = self.rng.integers(0, _TILE, 2)
        return tile[i : i + self.shape[1], j : j + self.shape[2]]

    def add(self, image: Volume, spare: Volume, part: Volume) -> None:
        """Add noise to the noise-free values of a slice; ``spare`` and ``part`` are overwritten."""
        coarse = image[::4, ::4]
        dense = np.maximum(coarse + np.float32(1000), 0) * np.float32(0.001)
        dense = np.minimum(dense, np.float32(1.6))
        water_mm2 = float(dense.sum()) * self.area * 16
        diameter = math.sqrt(4 / math.pi * water_mm2)
        rise = min(max(math.exp(0.0055 * (diameter - 265)), 0.6), 2.6)
        # Wide and shallow: the rays from side to side are starved.
        across = float(dense.sum(axis=1).max()) * self.area**0.5 * 4
        down = float(dense.sum(axis=0).max()) * self.area**0.5 * 4
        starved = min(max((across / max(down, 1) - 1.6) * 0.6, 0.0), 0.8)
        a, b = self.rng.integers(0, _TILES, 2)
        mix = self.rng.uniform(0.3, 0.95)
        level = self.level * np.float32(rise)
        rest = np.float32(math.sqrt(1 - mix * mix))
        np.multiply(self._shifted(self.tiles[a]), level * np.float32(mix), out=spare)
        np.multiply(self._shifted(self.tiles[b]), level * rest, out=part)
        spare += part
        if starved > 0.02:
            streaks = self._shifted(self.streaks)
            spare += np.multiply(streaks, level * np.float32(starved), out=part)
        spare *= self.middle
        image += spare
