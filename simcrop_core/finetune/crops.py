"""Crops of prepared scans for training: drawn, cut ahead in threads, varied on the device.

Everything random about a sample follows from (seed, epoch, index), whoever makes it and in
whatever order.

Shapes in names: B crops; H, W, D voxels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from simcrop_core.counter_random import normal, seed_of, uniform
from simcrop_core.finetune.features import ahead
from simcrop_core.finetune.segmentation_scans import QUANTA, PreparedScan
from simcrop_core.model.embedding import Shape3
from simcrop_core.train.finetuning import SegmentationAugmentation

#: Chance that a crop's middle is on a structure.
ON_STRUCTURE = 0.5


@dataclass(frozen=True, eq=False)
class CropBatch:
    """Crops side by side, all on one device.

    Attributes
    ----------
    volume_B1HWD
        In [-1, 1], a little beyond where values were varied.
    labels_BHWD
        uint8, 0 is background.
    seeds_B
        int64: each crop's only source of randomness.
    """

    volume_B1HWD: Tensor
    labels_BHWD: Tensor
    seeds_B: Tensor

    def __len__(self) -> int:
        return len(self.volume_B1HWD)


class RawCrops(NamedTuple):
    """Crops as they were cut: int16 values, uint8 labels, seeds."""

    image_BHWD: NDArray[np.int16]
    labels_BHWD: NDArray[np.uint8]
    seeds_B: NDArray[np.int64]


# -- where --------------------------------------------------------------------------------------


def draw_corner(scan: PreparedScan, size: Shape3, seed: int) -> Shape3:
    """First voxel of a crop: half of all have their middle on a voxel of a structure, the others
    on one beside them (MONAI's ``RandCropByPosNegLabel``, which the authors use)."""
    rng = np.random.default_rng(seed)
    positive = bool(rng.random() < ON_STRUCTURE)
    counts_H = scan.inside_H if positive else scan.outside_H
    if not counts_H.any():
        positive = not positive
        counts_H = scan.inside_H if positive else scan.outside_H
    total = int(counts_H.sum())
    share = rng.random()
    if total:
        middle = _nth(scan, positive, min(int(share * total), total - 1))
    else:
        middle = tuple(int(rng.integers(n)) for n in scan.image_HWD.shape)
    corner = [
        min(max(at - n // 2, 0), whole - n)
        for at, n, whole in zip(middle, size, scan.image_HWD.shape, strict=True)
    ]
    return corner[0], corner[1], corner[2]


def _nth(scan: PreparedScan, positive: bool, number: int) -> tuple[int, ...]:
    """The voxel with this number among those of structures, or among those beside them."""
    ends_H = np.cumsum(scan.inside_H if positive else scan.outside_H)
    plane = int(np.searchsorted(ends_H, number, side="right"))
    before = int(ends_H[plane - 1]) if plane else 0
    labels_WD = scan.labels_HWD[plane]
    chosen_WD = labels_WD > 0 if positive else (labels_WD == 0) & (scan.image_HWD[plane] > 0)
    at = int(np.flatnonzero(chosen_WD)[number - before])
    return plane, at // labels_WD.shape[1], at % labels_WD.shape[1]


# -- which --------------------------------------------------------------------------------------


class CropLoader:
    """Batches of crops, endless; its place can be kept and found again.

    Parameters
    ----------
    scans
        Each gives ``crops`` in a pass.
    batch_size
        Crops of a batch; where a pass does not divide evenly the last batch begins it anew.
    size
        Voxels that are cut.
    scan_by_scan
        Whether the crops of a scan follow one another, as in the authors' code; else all are
        mixed.
    workers
        Threads that cut ahead.
    """

    def __init__(
        self,
        scans: Sequence[PreparedScan],
        *,
        crops: int,
        batch_size: int,
        size: Shape3,
        seed: int,
        scan_by_scan: bool = False,
        workers: int = 0,
    ) -> None:
        self.scans, self.crops, self.batch_size = scans, crops, batch_size
        self.size, self.seed, self.scan_by_scan, self.workers = size, seed, scan_by_scan, workers
        self.step = 0

    def __len__(self) -> int:
        """Batches of a pass over the scans."""
        return math.ceil(len(self.scans) * self.crops / self.batch_size)

    def state_dict(self) -> dict[str, int]:
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = int(state["step"])

    def __iter__(self) -> Iterator[RawCrops]:
        for number, raw in ahead(itertools.count(self.step), self.batch, self.workers):
            self.step = number + 1
            yield raw

    def batch(self, number: int) -> RawCrops:
        """The batch with this number."""
        epoch, within = divmod(number, len(self))
        order = self._order(epoch)
        rows = np.arange(within * self.batch_size, (within + 1) * self.batch_size) % len(order)
        return self._cut(epoch, order[rows])

    def _order(self, epoch: int) -> NDArray[np.intp]:
        rng = np.random.default_rng([self.seed, epoch])
        if not self.scan_by_scan:
            return rng.permutation(len(self.scans) * self.crops)
        first = rng.permutation(len(self.scans)) * self.crops
        return (first[:, None] + np.arange(self.crops)).ravel()

    def _cut(self, epoch: int, indices: NDArray[np.intp]) -> RawCrops:
        shape = (len(indices), *self.size)
        image, labels = np.empty(shape, np.int16), np.empty(shape, np.uint8)
        seeds = [seed_of(self.seed, epoch, int(index)) for index in indices]
        for row, (index, seed) in enumerate(zip(indices, seeds, strict=True)):
            scan = self.scans[int(index) // self.crops]
            corner = draw_corner(scan, self.size, seed)
            box = tuple(slice(a, a + n) for a, n in zip(corner, self.size, strict=True))
            image[row], labels[row] = scan.image_HWD[box], scan.labels_HWD[box]
        return RawCrops(image, labels, np.asarray(seeds, np.int64))


# -- how they are varied ------------------------------------------------------------------------


def varied(
    raw: RawCrops,
    device: torch.device,
    config: SegmentationAugmentation,
    flipped_axes: Sequence[int] = (0, 1, 2),
    axial: tuple[int, int] = (0, 1),
) -> CropBatch:
    """Crops on the device, each varied by its own seed.

    In the authors' order: mirrored along each axis, values scaled, values shifted; and where they
    are configured a turn with a zoom before, and noise after these.

    Parameters
    ----------
    flipped_axes
        Axes along which a crop may be mirrored.
    axial
        The two axes of the axial plane, in which crops are turned.
    """
    seeds_B = torch.from_numpy(raw.seeds_B).to(device)
    x_BHWD = torch.from_numpy(raw.image_BHWD).to(device).float() / QUANTA
    y_BHWD = torch.from_numpy(raw.labels_BHWD).to(device)
    if config.rotation_degrees > 0 or config.zoom > 0:
        x_BHWD, y_BHWD = _turned(x_BHWD, y_BHWD, seeds_B, config, axial)
    chance_B3 = uniform(seeds_B, 3, "crops/flip")
    for axis in flipped_axes:
        flip_B = (chance_B3[:, axis] < config.flip)[:, None, None, None]
        x_BHWD = torch.where(flip_B, x_BHWD.flip(axis + 1), x_BHWD)
        y_BHWD = torch.where(flip_B, y_BHWD.flip(axis + 1), y_BHWD)
    factor_B, shift_B = value_changes(seeds_B, config)
    x_BHWD = x_BHWD * factor_B[:, None, None, None] + shift_B[:, None, None, None]
    if config.noise > 0:
        u_B2 = uniform(seeds_B, 2, "crops/noise")
        size_B = config.noise * u_B2[:, 1] * (u_B2[:, 0] < config.noise_chance)
        white = normal(seeds_B, math.prod(x_BHWD.shape[1:]), "crops/white").view_as(x_BHWD)
        x_BHWD = x_BHWD + size_B[:, None, None, None] * white
    return CropBatch(x_BHWD[:, None], y_BHWD, seeds_B)


def value_changes(seeds_B: Tensor, config: SegmentationAugmentation) -> tuple[Tensor, Tensor]:
    """What the values of each crop are multiplied by and what is then added, ``(B,)`` each."""
    u_B4 = uniform(seeds_B, 4, "crops/values")
    scaled = (u_B4[:, 0] < config.scale_chance) * config.scale * (2 * u_B4[:, 1] - 1)
    shifted = (u_B4[:, 2] < config.shift_chance) * config.shift * (2 * u_B4[:, 3] - 1)
    return 1 + scaled, shifted


def _turned(
    x_BHWD: Tensor,
    y_BHWD: Tensor,
    seeds_B: Tensor,
    config: SegmentationAugmentation,
    axial: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """Crops turned about their middle in the axial plane and zoomed along all axes.

    Linear for values, nearest for labels; beyond a crop the outermost voxels are repeated. Voxels
    count as they are, so that with unequal spacings in the plane the turn would shear: they are
    equal in all published settings.
    """
    u_B3 = uniform(seeds_B, 3, "crops/turn")
    turns_B = u_B3[:, 0] < config.spatial_chance
    angle_B = math.radians(config.rotation_degrees) * (2 * u_B3[:, 1] - 1)
    zoom_B = 1 + config.zoom * (2 * u_B3[:, 2] - 1)
    p, q = axial
    matrix = torch.eye(3, device=x_BHWD.device).repeat(len(x_BHWD), 1, 1)
    # affine_grid counts in halves of each axis's extent, which may differ.
    ratio = x_BHWD.shape[q + 1] / x_BHWD.shape[p + 1]
    matrix[:, p, p] = matrix[:, q, q] = torch.cos(angle_B)
    matrix[:, p, q], matrix[:, q, p] = -torch.sin(angle_B) * ratio, torch.sin(angle_B) / ratio
    matrix = matrix / zoom_B[:, None, None]
    # grid_sample names axes from the last to the first.
    theta_B34 = torch.cat([matrix.flip(1, 2), torch.zeros_like(matrix[:, :, :1])], dim=2)
    where = F.affine_grid(theta_B34, [len(x_BHWD), 1, *x_BHWD.shape[1:]], align_corners=False)
    moved_x = F.grid_sample(
        x_BHWD[:, None], where, mode="bilinear", padding_mode="border", align_corners=False
    )[:, 0]
    moved_y = F.grid_sample(
        y_BHWD[:, None].float(), where, mode="nearest", padding_mode="border", align_corners=False
    )[:, 0].to(y_BHWD.dtype)
    turns = turns_B[:, None, None, None]
    return torch.where(turns, moved_x, x_BHWD), torch.where(turns, moved_y, y_BHWD)
