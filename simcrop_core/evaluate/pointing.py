"""Whether similarities point at the region spoken of: pure functions of arrays.

Shapes in names: N patches. ``coverage_N`` is the share of each patch that the region covers, in
[0, 1]; ``inside_N`` which patches touch the scan: only these are ever pointed at.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]

#: ReXGroundingCT's global hit rate counts findings with at least this Dice
#: (https://rexrank.ai/rexgroundingct/ReXGroundingCT.html).
HIT_DICE = 0.1
#: Upper ends of the classes of a finding's size, in mm; the last has none.
SIZE_ENDS_MM = (8.0, 15.0, 30.0)
_DRAWS = 300
SIZE_CLASSES = ("below 8 mm", "8 to 15 mm", "15 to 30 mm", "above 30 mm")


@dataclass(frozen=True, slots=True)
class Pointing:
    """How one sentence points.

    Attributes
    ----------
    hit
        1 if the most similar patch overlaps the region, else 0. Equally similar patches share.
    precision
        Share of the n most similar patches that overlap the region, with n the number of patches
        that do: 1 is perfect for every region. Equally similar patches share.
    dice
        Dice of the region with the m most similar patches, in voxels, with m the region's volume
        in patches (at least 1): what a user sees who knows how large the finding is.
    found
        1 if that Dice is at least :data:`HIT_DICE`, else 0.
    """

    hit: float
    precision: float
    dice: float
    found: float


def point(
    similarity_N: Floats, coverage_N: Floats, inside_N: Bools, beyond: float = 0.0
) -> Pointing:
    """How a sentence with these similarities points; the region lies in the scan.

    ``beyond`` is what of the region lies outside of all patches, in volumes of a patch: no patch
    finds it, and Dice counts it.
    """
    similarity = np.asarray(similarity_N, np.float64)[inside_N]
    coverage = np.asarray(coverage_N, np.float64)[inside_N]
    touched = coverage > 0
    if not touched.any():
        raise ValueError("The region does not touch the scan.")
    volume = float(np.asarray(coverage_N, np.float64).sum()) + beyond
    m = min(max(1, round(volume)), len(similarity))
    overlap = 2 * m * _mean_of_top(similarity, coverage, m) / (m + volume)
    return Pointing(
        hit=_mean_of_top(similarity, touched, 1),
        precision=_mean_of_top(similarity, touched, int(touched.sum())),
        dice=overlap,
        found=float(overlap >= HIT_DICE),
    )


def point_at_random(coverage_N: Floats, inside_N: Bools, beyond: float = 0.0) -> Pointing:
    """The exact expectation of :func:`point` where similarities are drawn at random.

    ``found`` alone is estimated, from three hundred draws, the same each time.
    """
    expected = point(np.zeros(len(coverage_N)), coverage_N, inside_N, beyond)
    coverage = np.asarray(coverage_N, np.float64)
    volume = float(coverage.sum()) + beyond
    inside = coverage[inside_N]
    m = min(max(1, round(volume)), len(inside))
    touched = inside[inside > 0]
    needed = HIT_DICE * (m + volume) / 2
    if m == 1:
        return replace(expected, found=float((inside >= needed).mean()))
    rng = np.random.default_rng(0)
    drawn = rng.hypergeometric(len(touched), len(inside) - len(touched), m, size=_DRAWS)
    common = np.array([rng.choice(touched, k, replace=False).sum() for k in drawn])
    return replace(expected, found=float((common >= needed).mean()))


def _mean_of_top(score: Floats, value: NDArray[np.generic], n: int) -> float:
    """Mean value of the n highest scores; of equal scores at the edge each counts in part, which
    is the expectation over the orders in which they may come."""
    n = min(n, len(score))
    least = np.partition(score, len(score) - n)[len(score) - n]
    above, equal = score > least, score == least
    rest = (n - int(above.sum())) * float(value[equal].mean())
    return (float(value[above].sum()) + rest) / n


def dice(predicted: Bools, truth: Bools) -> float:
    """Dice of two masks of one shape; 1 where both are empty."""
    both, total = int((predicted & truth).sum()), int(predicted.sum()) + int(truth.sum())
    return 1.0 if total == 0 else 2 * both / total


def hit_rate(dice_F: Floats) -> float:
    """Share of findings with a Dice of at least 0.1, as ReXGroundingCT counts hits."""
    return float((np.asarray(dice_F) >= HIT_DICE).mean())


def size_class(size_mm: float) -> str:
    """The class of a size, from :data:`SIZE_CLASSES`; lower ends belong to it."""
    return SIZE_CLASSES[int(np.searchsorted(SIZE_ENDS_MM, size_mm, side="right"))]


def size_mm(mask_XYZ: Bools, voxel_volume_mm3: float) -> float:
    """Diameter of the ball that has the volume of the mask's largest connected part."""
    from scipy.ndimage import find_objects, label

    parts, count = label(mask_XYZ, structure=np.ones((3, 3, 3)))
    if count == 0:
        raise ValueError("An empty mask has no size.")
    boxes = find_objects(parts)
    most = max(int((parts[box] == n).sum()) for n, box in enumerate(boxes, start=1))
    return float((6 * most * voxel_volume_mm3 / np.pi) ** (1 / 3))
