"""How far apart the surfaces of two masks lie, by the distances of MONAI's metrics."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class SurfaceDistance:
    """Distances between two surfaces.

    Attributes
    ----------
    average_mm
        Average symmetric surface distance: the mean over both surfaces' voxels of the distance to
        the other surface.
    hausdorff95_mm
        95 % Hausdorff distance: the greater of the 95th percentiles of both directions.
    """

    average_mm: float
    hausdorff95_mm: float


def surface_distance(
    predicted_XYZ: NDArray[np.bool_],
    truth_XYZ: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
) -> SurfaceDistance | None:
    """Distances between the surfaces of two masks of one grid; None where either is empty.

    A surface is the mask's voxels that have a face to what is not the mask, or to the edge of the
    array; distances run from centre to centre. Both figures come of one pass over MONAI's
    distances, and are what its ``compute_average_surface_distance`` (symmetric) and
    ``compute_hausdorff_distance`` (95th percentile) give.
    """
    from monai.metrics.utils import get_edge_surface_distance

    box = _box(predicted_XYZ | truth_XYZ)
    if box is None or not predicted_XYZ.any() or not truth_XYZ.any():
        return None
    pair = [torch.from_numpy(np.pad(mask[box], 1)) for mask in (predicted_XYZ, truth_XYZ)]
    with warnings.catch_warnings():
        # MONAI warns of an argument of its own.
        warnings.filterwarnings("ignore", category=FutureWarning, module="monai")
        _, distances, _ = get_edge_surface_distance(
            *pair, distance_metric="euclidean", spacing=list(spacing_mm), symmetric=True
        )
    there, back = (np.asarray(one, np.float64) for one in distances)
    return SurfaceDistance(
        float(np.concatenate([there, back]).mean()),
        float(max(np.percentile(there, 95), np.percentile(back, 95))),
    )


def _box(mask_XYZ: NDArray[np.bool_]) -> tuple[slice, ...] | None:
    """The box that holds a mask."""
    box = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        touched = np.flatnonzero(mask_XYZ.any(axis=others))
        if not len(touched):
            return None
        box.append(slice(int(touched[0]), int(touched[-1]) + 1))
    return tuple(box)
