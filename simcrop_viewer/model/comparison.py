"""Two models' evidence for the same sentence, made comparable: what is the same, what differs.

Cosines of two models have no common scale. A model's similarity to a sentence is therefore told
in standard deviations from its own mean over its own patches in the body; then the second
model's is taken from the first's, patch by patch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simcrop_core.alignment_result import AlignmentResult
from simcrop_core.patches import PatchGrid

#: Differences of this many standard deviations and more have the full colour.
FULL_COLOUR_SD = 3.0
#: Fewer patches in the body than this say nothing of its spread: all in the scan are taken.
_FEW = 8
_MM = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class CommonGrid:
    """The finer one of two patch grids, and where each of its patches lies in both.

    Attributes
    ----------
    patches
        The finer grid, by the volume of a patch; the first where they are equal.
    first_N, second_N
        Flat index of the patch of each model's own grid that covers a patch's centre; -1 where
        there is none.
    is_same
        Whether both grids are one.
    of
        Both grids.
    """

    patches: PatchGrid
    first_N: NDArray[np.intp]
    second_N: NDArray[np.intp]
    is_same: bool
    of: tuple[PatchGrid, PatchGrid]

    def is_of(self, first: PatchGrid, second: PatchGrid) -> bool:
        """Whether it was made for these two grids."""
        return self.of[0] is first and self.of[1] is second

    @property
    def is_of_second(self) -> bool:
        """Whether the finer grid is the second model's."""
        return self.patches is self.of[1] and not self.is_same


def common_grid(first: PatchGrid, second: PatchGrid) -> CommonGrid:
    """Where the patches of two grids lie in each other."""
    finer = first if first.grid.voxel_volume_mm3 <= second.grid.voxel_volume_mm3 else second
    return CommonGrid(
        finer,
        _patch_of(first, finer),
        _patch_of(second, finer),
        first.grid.matches(second.grid),
        (first, second),
    )


def _patch_of(own: PatchGrid, finer: PatchGrid) -> NDArray[np.intp]:
    """The patch of one grid that covers each centre of another's; -1 beyond."""
    if own is finer or own.grid.matches(finer.grid):
        return np.arange(len(finer), dtype=np.intp)
    voxel = own.grid.to_voxel(finer.centers())
    # A centre on the border of two patches belongs to the upper one, whatever its last digit.
    near = np.floor(np.round(voxel, 6) + 0.5).astype(np.intp)
    inside = ((near >= 0) & (near < np.array(own.shape))).all(axis=1)
    index = np.ravel_multi_index(tuple(near.T), own.shape, mode="clip")
    return np.where(inside, index, -1)


def standardised(
    result: AlignmentResult, sentence: int, body_N: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Similarity of each patch in standard deviations from its mean in the body.

    Parameters
    ----------
    body_N
        Which patches count for mean and standard deviation; of those that are padding, none does.

    Returns
    -------
    array
        ``(N,)`` float64; NaN for padding. All 0 where the similarity is the same everywhere.
    """
    values_N = result.similarity_SN[sentence].astype(np.float64)
    counted_N = result.inside_N & body_N
    if np.count_nonzero(counted_N) < _FEW:
        counted_N = result.inside_N
    counted = values_N[counted_N]
    spread = float(counted.std())
    z_N = (values_N - counted.mean()) / spread if spread > 1e-9 else np.zeros_like(values_N)
    return np.where(result.inside_N, z_N, np.nan)


def difference(
    first_z: NDArray[np.float64], second_z: NDArray[np.float64], common: CommonGrid
) -> NDArray[np.float64]:
    """First less second on the common grid, ``(N,)``; NaN where one of them has no patch."""
    return _taken(first_z, common.first_N) - _taken(second_z, common.second_N)


def _taken(values: NDArray[np.float64], index_N: NDArray[np.intp]) -> NDArray[np.float64]:
    return np.where(index_N >= 0, values[index_N], np.nan)


def difference_heat(difference_N: NDArray[np.float64]) -> NDArray[np.float32]:
    """Differences as a colour map that is clear at 0 takes them, ``(N,)`` float32.

    0 where there is no difference to tell; else 0.02 (`FULL_COLOUR_SD` in the second's favour, or
    more) over 0.51 (none) to 1 (in the first's).
    """
    share = np.clip(difference_N / FULL_COLOUR_SD, -1.0, 1.0)
    heat = np.where(np.isfinite(share), 0.02 + 0.98 * (share + 1) / 2, 0.0)
    return heat.astype(np.float32)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two models agree on the place of a sentence.

    Attributes
    ----------
    overlap
        Jaccard index of both models' top patches by the volume they cover: 0 apart, 1 the same.
        Where both have the same grid this is that of the sets of patches.
    best_apart_mm
        From the middle of the first's best patch to that of the second's.
    """

    overlap: float
    best_apart_mm: float


def agreement(
    first: AlignmentResult,
    first_row: int,
    second: AlignmentResult,
    second_row: int,
    top: tuple[NDArray[np.intp], NDArray[np.intp]],
) -> Agreement:
    """How far two models agree on a sentence; ``top`` holds both models' top patches."""
    apart = first.patches.center(int(first.top(first_row)[0])) - second.patches.center(
        int(second.top(second_row)[0])
    )
    return Agreement(
        overlap(first.patches, top[0], second.patches, top[1]), float(np.linalg.norm(apart))
    )


def overlap(
    first: PatchGrid, first_top: NDArray[np.intp], second: PatchGrid, second_top: NDArray[np.intp]
) -> float:
    """Jaccard index of two sets of patches: volume of what both cover by that of what either does.

    Patches of one grid do not overlap, and their sides run along the body's axes.
    """
    if not len(first_top) or not len(second_top):
        return 0.0
    if first.grid.matches(second.grid):
        both = len(np.intersect1d(first_top, second_top))
        return both / (len(np.unique(first_top)) + len(np.unique(second_top)) - both)
    first_low, first_high = _boxes(first, first_top)
    second_low, second_high = _boxes(second, second_top)
    shared = np.minimum(first_high[:, None], second_high) - np.maximum(
        first_low[:, None], second_low
    )
    both_mm3 = float(np.clip(shared, 0, None).prod(axis=-1).sum())
    each_mm3 = [float((high - low).prod(axis=-1).sum()) for low, high in
                ((first_low, first_high), (second_low, second_high))]  # fmt: skip
    return both_mm3 / max(sum(each_mm3) - both_mm3, _MM)


def _boxes(
    patches: PatchGrid, index: NDArray[np.intp]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Least and greatest RAS millimetres of some patches, ``(K, 3)`` each."""
    center = patches.grid.to_world(np.stack(np.unravel_index(index, patches.shape), axis=-1))
    half = np.abs(patches.grid.affine[:3, :3]).sum(axis=1) / 2
    return center - half, center + half
