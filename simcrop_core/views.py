"""Views of a whole scan for classification: cut, mirrored and disturbed at random, or the middle.

The transforms of the method's published classification, in its order: a random cut of 80 to 100 %
along each axis, a random cut of the input's size, reflection where the scan is smaller, flips,
shift, noise. For evaluation the middle, reflected where the scan is smaller. Labels of a whole scan
name no side, so mirroring is no lie here; reports' sentences do, and are never trained so.

Axes in names: H, W, D voxels of the resampled scan, or of the input.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simcrop_core.input_spec import InputSpec
from simcrop_core.prepare import in_mm_per_side, resampled_grid
from simcrop_core.resample import resample_linear
from simcrop_core.volume import CTVolume, Note

Shape = tuple[int, int, int]
Array = NDArray[np.float32]

SMALLEST_CUT = 0.8
FLIP_PROBABILITY = 0.2
SHIFT, SHIFT_PROBABILITY = 0.1, 0.1
NOISE, NOISE_PROBABILITY = 0.1, 0.2


@dataclass(frozen=True, slots=True)
class View:
    """One view of a scan, drawn.

    Attributes
    ----------
    start, size
        First voxel and extent of what is cut from the scan; never larger than the input.
    flips
        Whether each axis is mirrored.
    shift
        Added to all values, which are within [-1, 1].
    noise
        Standard deviation of white noise; 0 for none.
    seed
        Of the noise.
    """

    start: Shape
    size: Shape
    flips: tuple[bool, bool, bool]
    shift: float
    noise: float
    seed: int


def whole_scan(volume: CTVolume, spec: InputSpec) -> Array:
    """All of a scan at the model's spacing, orientation and window, ``(H, W, D)`` in [-1, 1]."""
    grid = resampled_grid(volume.grid, spec)
    fill = spec.hu_window[0] if spec.padding == "air" else None
    values, _ = resample_linear(volume.hu_XYZ, volume.grid, grid, fill=fill, window=spec.hu_window)
    return values


def draw_view(seed: int, scan: str, number: int, shape: Shape, wanted: Shape) -> View:
    """View ``number`` of a scan: the same whoever draws it, and in whatever order.

    Parameters
    ----------
    seed
        Of the run.
    scan
        The scan's id.
    shape, wanted
        Voxels of the whole scan, and of the model's input.
    """
    rng = np.random.default_rng([seed, zlib.crc32(scan.encode()), number])
    start, size = [], []
    for n, most in zip(shape, wanted, strict=True):
        outer = int(rng.integers(math.ceil(SMALLEST_CUT * n), n + 1))
        first = int(rng.integers(0, n - outer + 1))
        inner = min(outer, most)
        start.append(first + int(rng.integers(0, outer - inner + 1)))
        size.append(inner)
    flips = tuple(bool(rng.random() < FLIP_PROBABILITY) for _ in range(3))
    shift = float(rng.uniform(-SHIFT, SHIFT)) if rng.random() < SHIFT_PROBABILITY else 0.0
    noise = float(rng.uniform(0, NOISE)) if rng.random() < NOISE_PROBABILITY else 0.0
    return View(
        start=(start[0], start[1], start[2]),
        size=(size[0], size[1], size[2]),
        flips=(flips[0], flips[1], flips[2]),
        shift=shift,
        noise=noise,
        seed=int(rng.integers(2**32)),
    )


def take_view(scan_HWD: Array, view: View, wanted: Shape) -> Array:
    """The model's input of a view, ``wanted`` voxels; values may leave [-1, 1] a little."""
    box = tuple(slice(a, a + n) for a, n in zip(view.start, view.size, strict=True))
    values = reflected(scan_HWD[box], wanted)
    values = np.flip(values, tuple(axis for axis in range(3) if view.flips[axis]))
    if view.shift:
        values = values + np.float32(view.shift)
    if view.noise:
        noise = np.random.default_rng(view.seed).standard_normal(wanted, np.float32)
        values = values + np.float32(view.noise) * noise
    return np.ascontiguousarray(values)


def center_view(scan_HWD: Array, wanted: Shape) -> Array:
    """The middle of a scan as the model's input, reflected where the scan is smaller."""
    starts = _center_starts(scan_HWD.shape, wanted)
    box = [slice(start, start + most) for start, most in zip(starts, wanted, strict=True)]
    return np.ascontiguousarray(reflected(scan_HWD[tuple(box)], wanted))


def center_notes(volume: CTVolume, spec: InputSpec) -> tuple[Note, ...]:
    """What :func:`center_view` leaves out of a scan and what it mirrors, in mm per side."""
    grid, wanted = resampled_grid(volume.grid, spec), spec.shape
    starts = _center_starts(grid.shape, wanted)
    notes = []
    beyond = [n - s - m for n, s, m in zip(grid.shape, starts, wanted, strict=True)]
    if cut := in_mm_per_side(grid, starts, beyond):
        text = f"Only the middle of the scan was looked at; left out: {', '.join(cut)}"
        notes.append(Note("scan-larger-than-input", text))
    ends = _mirrored(grid.shape, wanted)
    if added := in_mm_per_side(grid, [a for a, _ in ends], [b for _, b in ends]):
        text = (
            "The scan is smaller than the model's input, and was continued by its mirror image: "
            f"{', '.join(added)}"
        )
        notes.append(Note("scan-smaller-than-input", text))
    return tuple(notes)


def _center_starts(shape: Sequence[int], wanted: Shape) -> list[int]:
    return [max(0, n // 2 - most // 2) for n, most in zip(shape, wanted, strict=True)]


def _mirrored(shape: Sequence[int], wanted: Shape) -> list[tuple[int, int]]:
    """Voxels that are missing before and behind, along each axis."""
    missing = [max(0, m - n) for n, m in zip(shape, wanted, strict=True)]
    return [(n // 2, n - n // 2) for n in missing]


def reflected(values_HWD: Array, wanted: Shape) -> Array:
    """Values continued by their mirror image on both sides of each axis, as far as is wanted.

    The outermost voxel is not repeated, except of an axis that has only one.
    """
    missing = _mirrored(values_HWD.shape, wanted)
    if not any(map(any, missing)):
        return values_HWD
    return np.pad(values_HWD, missing, mode="reflect")
