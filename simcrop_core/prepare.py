"""CT volume -> model input, with the exact way back to the scan.

The scan is resampled trilinearly to the model's spacing and orientation on a grid whose centre is
the scan's centre, then a window of the model's input size is cut from that grid (paper, section 3).
One implementation serves viewer, batch and training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from simcrop_core.errors import SimCroPError
from simcrop_core.geometry import FloatArray, Grid, axis_aligned_affine
from simcrop_core.input_spec import InputSpec
from simcrop_core.patches import PatchGrid
from simcrop_core.resample import Array, begin_resampling
from simcrop_core.volume import CTVolume, Note

if TYPE_CHECKING:
    import torch

Placement = Literal["center", "lungs", "tiled"]
PLACEMENTS: tuple[Placement, ...] = ("center", "lungs", "tiled")

_TILE_OVERLAP_PATCHES = 2
_TILED_LIMIT_MM = 2000.0


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A scan as the model sees it.

    Attributes
    ----------
    input_1HWD
        float32 tensor in [-1, 1]. With ``placement="tiled"`` it covers the whole scan and may be
        larger than ``spec.shape``.
    grid
        Input voxel <-> RAS millimetres.
    patches
        The patches of ``input_1HWD``.
    inside_N
        Which patches touch the scan; the rest is padding and is never evidence.
    window_starts
        First voxel of each window of ``spec.shape`` to be encoded; one window unless tiled.
    notes
        What was left out or could not be done as asked.
    """

    input_1HWD: torch.Tensor
    grid: Grid
    patches: PatchGrid
    inside_N: NDArray[np.bool_]
    window_starts: tuple[tuple[int, int, int], ...]
    spec: InputSpec
    placement: Placement
    notes: tuple[Note, ...] = ()

    def window(self, number: int) -> torch.Tensor:
        """The input of one window, ``(1, H, W, D)`` of ``spec.shape``."""
        (x, y, z), (h, w, d) = self.window_starts[number], self.spec.shape
        return self.input_1HWD[:, x : x + h, y : y + w, z : z + d]

    def __repr__(self) -> str:
        size = " x ".join(str(n) for n in self.input_1HWD.shape[1:])
        windows = len(self.window_starts)
        return (
            f"Prepared({size} input placed by {self.placement!r}, {self.patches!r}, "
            f"{windows} window{'s' * (windows != 1)})"
        )


def prepare(
    volume: CTVolume, spec: InputSpec | None = None, *, placement: Placement = "center"
) -> Prepared:
    """Make the model's input from a scan.

    Parameters
    ----------
    volume
        The scan.
    spec
        What the model expects (``model.input_spec``); None is the presets' common one, the
        paper's.
    placement
        Where the input lies in a scan larger than it: ``"center"`` of the scan, centred on the
        ``"lungs"`` (falls back to the centre with a note), or ``"tiled"``: windows that
        together cover all of it.

    Raises
    ------
    SimCroPError
        ``placement`` is unknown, or a tiled input would be larger than two metres.
    """
    check_placement(placement)
    spec = InputSpec() if spec is None else spec
    center, notes = None, []
    if placement == "lungs":
        center = lung_center(volume)
        notes.append(_lungs_note(center))
    return Preparation(volume.hu_XYZ, volume.grid, spec, placement, center).finish(notes)


def check_placement(placement: Placement) -> None:
    """Refuse what is no placement.

    Raises
    ------
    SimCroPError
        ``unknown-placement``.
    """
    if placement not in PLACEMENTS:
        raise SimCroPError(
            f"There is no placement {placement!r}.",
            code="unknown-placement",
            remedy=f"Choose one of {', '.join(PLACEMENTS)}.",
        )


class Preparation:
    """The work of `prepare`, which may begin while the scan is still being read.

    Parameters
    ----------
    hu_XYZ
        The scan's voxels; they may still be on their way.
    scan
        Where they lie.
    spec, placement
        As in `prepare`.
    center_mm
        RAS millimetres of the place for the input, unless that is the scan's centre.

    Raises
    ------
    SimCroPError
        A tiled input would be larger than two metres.
    """

    def __init__(
        self,
        hu_XYZ: Array,
        scan: Grid,
        spec: InputSpec,
        placement: Placement,
        center_mm: FloatArray | None = None,
    ) -> None:
        whole = resampled_grid(scan, spec)
        self._notes: list[Note] = []
        if placement == "tiled":
            start, shape = _tiled_extent(whole, spec)
        else:
            start, shape = _window_start(whole, spec, center_mm), spec.shape
            self._notes = _left_out(whole, start, shape)
        self._scan, self._hu_XYZ = scan, hu_XYZ
        self._spec, self._placement, self._shape = spec, placement, shape
        self._grid = whole.window(start, shape)
        fill = spec.hu_window[0] if spec.padding == "air" else None
        self._resampling = begin_resampling(
            hu_XYZ, scan, self._grid, fill=fill, window=spec.hu_window
        )

    def advance(self, filled: int) -> None:
        """Do what the first ``filled`` voxels, in order of memory, allow; from one thread."""
        self._resampling.advance(filled)

    def is_of(self, volume: CTVolume) -> bool:
        """Whether these very voxels became the volume, on this very grid."""
        mine, its = self._hu_XYZ, volume.hu_XYZ
        return (
            mine.dtype == its.dtype
            and mine.__array_interface__["data"][0] == its.__array_interface__["data"][0]
            and mine.strides == its.strides
            and self._scan.shape == volume.shape
            and np.array_equal(self._scan.affine, volume.grid.affine)
        )

    def finish(self, notes: Sequence[Note] = ()) -> Prepared:
        """Do the rest, once all voxels are there; ``notes`` come before its own."""
        import torch

        values, inside = self._resampling.finish()
        patches = PatchGrid.over(self._grid, self._spec.patch_shape)
        return Prepared(
            input_1HWD=torch.from_numpy(values)[None],
            grid=self._grid,
            patches=patches,
            inside_N=_touched(inside, patches),
            window_starts=_window_starts(self._shape, self._spec),
            spec=self._spec,
            placement=self._placement,
            notes=(*notes, *self._notes),
        )


def input_grid(
    volume: CTVolume,
    spec: InputSpec,
    placement: Literal["center", "lungs"] = "center",
    margin_voxels: tuple[int, int, int] = (0, 0, 0),
) -> tuple[Grid, tuple[Note, ...]]:
    """Where :func:`prepare` puts the input of a scan, widened by a margin on both sides of each
    axis, and the notes of placing it."""
    whole = resampled_grid(volume.grid, spec)
    start, notes = _placed(volume, whole, spec, placement)
    return _widened(whole, start, spec, margin_voxels), tuple(notes)


def placed_grid(
    scan: Grid,
    spec: InputSpec,
    center_mm: FloatArray | None = None,
    margin_voxels: tuple[int, int, int] = (0, 0, 0),
) -> Grid:
    """As :func:`input_grid`, for a scan of which only the grid is there: the input lies on the
    scan's centre, or on ``center_mm`` (RAS millimetres) as far as the scan reaches."""
    whole = resampled_grid(scan, spec)
    return _widened(whole, _window_start(whole, spec, center_mm), spec, margin_voxels)


def _widened(
    whole: Grid, start: tuple[int, ...], spec: InputSpec, margin_voxels: tuple[int, int, int]
) -> Grid:
    wider = tuple(n - m for n, m in zip(start, margin_voxels, strict=True))
    shape = tuple(n + 2 * m for n, m in zip(spec.shape, margin_voxels, strict=True))
    return whole.window(wider, shape)


def _placed(
    volume: CTVolume, whole: Grid, spec: InputSpec, placement: Placement
) -> tuple[tuple[int, ...], list[Note]]:
    """First voxel of the one window (in ``whole``), and what is left out or could not be done."""
    notes: list[Note] = []
    center = None
    if placement == "lungs":
        center = lung_center(volume)
        notes.append(_lungs_note(center))
    start = _window_start(whole, spec, center)
    return start, notes + _left_out(whole, start, spec.shape)


def resampled_grid(scan: Grid, spec: InputSpec) -> Grid:
    """The whole scan at the model's spacing and orientation, before cropping or padding.

    Both grids share their centre; a scan that already has the model's spacing and orientation
    keeps its voxels exactly.
    """
    low, high = scan.bounds_mm()
    extent_mm = high - low
    # Array axis -> world axis of the model's orientation.
    unit = axis_aligned_affine(spec.orientation, (1, 1, 1), (0, 0, 0), (1, 1, 1))
    world = np.argmax(np.abs(unit[:3, :3]), axis=0)
    shape = [
        max(1, round(float(extent_mm[w]) / s)) for w, s in zip(world, spec.spacing_mm, strict=True)
    ]
    affine = axis_aligned_affine(spec.orientation, spec.spacing_mm, scan.center_mm, shape)
    return Grid((shape[0], shape[1], shape[2]), affine)


def lung_center(volume: CTVolume) -> FloatArray | None:
    """RAS millimetres of the middle of the lungs' bounding box, or None if none are found.

    Lungs are taken to be the largest air spaces (below -500 HU at about 4 mm) that do not reach
    the scan's sides; openings at the top and bottom of a partial scan do not matter.
    """
    from scipy.ndimage import binary_erosion, find_objects, label

    steps = [max(1, round(4.0 / s)) for s in volume.spacing_mm]
    coarse = volume.hu_XYZ[:: steps[0], :: steps[1], :: steps[2]]
    air = (coarse < -500) & (coarse > -1100)
    # Parts lungs from bowel or outside air that a voxel joins; what lies at the scan's border
    # stays, so that outside air is known by it.
    opened = binary_erosion(air, border_value=1)
    parts, _ = label(opened)
    world_axes, _ = volume.grid.nearest_axes()
    sides = [axis for axis in range(3) if world_axes[axis] != 2]
    outer = np.unique(
        np.concatenate([np.take(parts, [0, -1], axis=axis).ravel() for axis in sides])
    )
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    sizes[outer] = 0
    coarse_voxel_ml = volume.grid.voxel_volume_mm3 * float(np.prod(steps)) / 1000
    largest = np.sort(sizes)[::-1]
    if largest.size == 0 or largest[0] * coarse_voxel_ml < 150:
        return None
    # Both lungs, joined by the airways or apart; a lone lung stands for itself.
    chosen = np.flatnonzero(sizes >= max(largest[0] * 0.25, 1))
    boxes = find_objects(parts)
    bounds = np.array([[(s.start, s.stop - 1) for s in boxes[c - 1]] for c in chosen])
    middle = (bounds[:, :, 0].min(axis=0) + bounds[:, :, 1].max(axis=0)) / 2
    return volume.grid.to_world(middle * np.array(steps))


def _lungs_note(center: FloatArray | None) -> Note:
    if center is None:
        return Note(
            "lungs-not-found",
            "No lungs were found, so the input was placed on the centre of the scan.",
        )
    x, y, z = center
    return Note(
        "placed-on-lungs", f"The input was placed on the lungs, at {x:.0f}, {y:.0f}, {z:.0f} mm."
    )


def _window_start(whole: Grid, spec: InputSpec, center_mm: FloatArray | None) -> tuple[int, ...]:
    """First voxel (in ``whole``) of one window of the input's size."""
    spare = np.array(whole.shape) - np.array(spec.shape)
    if center_mm is None:
        return tuple(int(n) for n in spare // 2)
    wanted = np.rint(whole.to_voxel(center_mm) - (np.array(spec.shape) - 1) / 2).astype(int)
    # Never past the scan's edge where the scan fills the window; never cut what would fit.
    return tuple(
        int(np.clip(n, min(0, free), max(0, free))) for n, free in zip(wanted, spare, strict=True)
    )


def _tiled_extent(whole: Grid, spec: InputSpec) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Start and size of the smallest multiple of patches, at least the input, over the scan."""
    extent_mm = np.array(whole.shape) * np.array(whole.spacing_mm)
    if extent_mm.max() > _TILED_LIMIT_MM:
        raise SimCroPError(
            f"The scan is {extent_mm.max() / 1000:.1f} m long, too long to be tiled.",
            code="scan-too-long",
            remedy="Use the placement center or lungs, or cut the scan.",
        )
    shape = tuple(
        max(n, -(-m // p) * p)
        for m, n, p in zip(whole.shape, spec.shape, spec.patch_shape, strict=True)
    )
    return tuple((m - n) // 2 for m, n in zip(whole.shape, shape, strict=True)), shape


def _window_starts(shape: tuple[int, ...], spec: InputSpec) -> tuple[tuple[int, int, int], ...]:
    """Windows of the input's size, on patch borders, evenly spread so that all is covered."""
    per_axis: list[list[int]] = []
    for extent, size, patch in zip(shape, spec.shape, spec.patch_shape, strict=True):
        spare, width = (extent - size) // patch, size // patch
        step = max(1, width - min(_TILE_OVERLAP_PATCHES, width // 2))
        count = 1 + -(-spare // step)
        per_axis.append(
            [round(spare * n / (count - 1)) * patch if count > 1 else 0 for n in range(count)]
        )
    return tuple((x, y, z) for x, y, z in product(*per_axis))


def _left_out(whole: Grid, start: tuple[int, ...], shape: tuple[int, ...]) -> list[Note]:
    after = [n - s - m for n, s, m in zip(whole.shape, start, shape, strict=True)]
    cut = in_mm_per_side(whole, start, after)
    if not cut:
        return []
    return [
        Note(
            "scan-larger-than-input",
            f"The scan is larger than the model's input; left out: {', '.join(cut)}. "
            "The placement tiled leaves nothing out.",
        )
    ]


def in_mm_per_side(grid: Grid, before: Sequence[int], after: Sequence[int]) -> list[str]:
    """Voxels at both ends of each axis in words, ``"30 mm at the top"``; none for less than one."""
    opposite = dict(zip("RLAPSI", "LRPAIS", strict=True))
    words: list[str] = []
    for axis, letter in enumerate(grid.axcodes):
        for voxels, side in ((before[axis], opposite[letter]), (after[axis], letter)):
            if voxels >= 1:
                words.append(f"{voxels * grid.spacing_mm[axis]:.0f} mm {_SIDES[side]}")
    return words


_SIDES = {
    "R": "on the patient's right",
    "L": "on the patient's left",
    "A": "in front",
    "P": "behind",
    "S": "at the top",
    "I": "at the bottom",
}


def _touched(inside_HWD: NDArray[np.bool_], patches: PatchGrid) -> NDArray[np.bool_]:
    (i, j, k), (p, q, r) = patches.shape, patches.patch_shape
    # The first axis first: whole planes are joined at a time.
    columns = np.logical_or.reduce(inside_HWD.reshape(i, p, -1), axis=1)
    return columns.reshape(i, j, q, k, r).any(axis=(2, 4)).reshape(-1)
