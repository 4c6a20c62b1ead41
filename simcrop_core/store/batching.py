"""Stored studies -> model input, on the device: crop, intensity, coverage of patches.

Shapes in names: B studies; S sentences; N patches; C model cells of a patch; R regions; X, Y, Z
stored voxels or cells; H, W, D voxels of the model's input; I, J, K its patches.

All random numbers of a study come from its own seed by :mod:`simcrop_core.counter_random`: they
are the same in any batch and on any device. Left and right are never exchanged, for reports name
sides.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from simcrop_core.counter_random import normal, uniform
from simcrop_core.input_spec import InputSpec
from simcrop_core.store.collate import RawBatch
from simcrop_core.store.settings import AugmentationConfig, Shape, StoreSettings
from simcrop_core.study_batch import StudyBatch

#: How far a Gaussian blur reaches, in standard deviations.
_REACH = 3.0


def to_batch(
    raw: RawBatch,
    device: torch.device | str,
    spec: InputSpec | None = None,
    augmentation: AugmentationConfig | None = None,
    cells: tuple[int, int, int] | None = None,
) -> StudyBatch:
    """Make a training or evaluation batch on a device.

    Parameters
    ----------
    raw
        From the loader.
    device
        Where the batch is wanted; copies from pinned memory run in the background.
    spec
        The model's input; None is the one the store was prepared for.
    augmentation
        What is done to the scans; None, for evaluation: nothing, and the crop is the middle.
    cells
        Cells of a patch along each axis, for a model with the finer level (``vision.cells``).

    Raises
    ------
    SimCroPError
        ``other-spec``: the store was prepared for another kind of input, or its cells are
        coarser than the model's.
    """
    settings = raw.settings
    spec = settings.spec if spec is None else spec
    settings.check_model(spec, cells)
    starts = crop_cells(raw.seeds_B, settings, spec, augmentation)
    moved = {n: t.to(device, non_blocking=True) for n, t in raw.tensors().items()}
    cell = settings.cell_shape
    voxels = [tuple(n * c for n, c in zip(start, cell, strict=True)) for start in starts]
    hu_BHWD = _cut(moved["volume_BXYZ"], voxels, spec.shape).float()
    if augmentation is not None:
        hu_BHWD = augment_intensity(hu_BHWD, moved["seeds_B"], spec, augmentation)
    low, high = spec.hu_window
    hu_BHWD = (hu_BHWD.clamp(low, high) - (low + high) / 2) * (2 / (high - low))
    maps = moved.get("structures_BXYZ")
    shares_BSNC = _coverage(
        moved["regions_RXYZ"], raw.region_row_BS, starts, cell, spec, cells or (1, 1, 1)
    )
    region_BSN = shares_BSNC.mean(dim=-1)
    return StudyBatch(
        volume_B1HWD=hu_BHWD[:, None],
        seeds_B=moved["seeds_B"],
        index_B=moved["index_B"],
        sentences_BSD=moved["sentences_BSD"],
        sentence_mask_BS=moved["sentence_mask_BS"],
        tokens_BL=moved["tokens_BL"],
        attend_BL=moved["attend_BL"],
        special_BL=moved["special_BL"],
        report_BD=moved["report_BD"],
        meaning_BS4=moved["meaning_BS4"],
        region_BSN=region_BSN,
        region_mask_BS=(region_BSN > 0).any(dim=-1),
        outlined_BS=moved["region_row_BS"] >= 0,
        kind_BS=moved["kind_BS"],
        facts_BFSL=moved["facts_BFSL"],
        counterfactuals_BCD=moved["counterfactuals_BCD"],
        counterfactual_meaning_BC4=moved["counterfactual_meaning_BC4"],
        counterfactual_mask_BC=moved["counterfactual_mask_BC"],
        structures_BHWD=None if maps is None else _cut(maps, voxels, spec.shape),
        region_cells_BSNC=None if cells is None else shares_BSNC,
    )


def crop_cells(
    seeds_B: Tensor,
    settings: StoreSettings,
    spec: InputSpec,
    augmentation: AugmentationConfig | None,
) -> list[tuple[int, int, int]]:
    """First cell of each study's crop along the three axes; on the CPU, so that nobody waits."""
    spare = [
        (n - m) // c
        for n, m, c in zip(settings.shape, spec.shape, settings.cell_shape, strict=True)
    ]
    if augmentation is None or not augmentation.crop:
        x, y, z = (n // 2 for n in spare)
        return [(x, y, z)] * len(seeds_B)
    places_B3 = (uniform(seeds_B.cpu(), 3, "crop") * (torch.tensor(spare) + 1)).long()
    return [(x, y, z) for x, y, z in places_B3.tolist()]


def augment_intensity(
    hu_BHWD: Tensor, seeds_B: Tensor, spec: InputSpec, augmentation: AugmentationConfig
) -> Tensor:
    """Blur, contrast, shift and noise, each drawn by the study's seed; nothing is clipped."""
    used_B4 = uniform(seeds_B, 4, "intensity/used") < augmentation.probability
    size_B4 = uniform(seeds_B, 4, "intensity/size")
    strength_B4 = torch.where(used_B4, size_B4, 0.0)
    signed_B4 = torch.where(used_B4, 2 * size_B4 - 1, 0.0)
    if augmentation.blur_mm > 0:
        sigmas_mm = (strength_B4[:, 0] * augmentation.blur_mm).tolist()
        blurred = [_blurred(x, s, spec) for x, s in zip(hu_BHWD, sigmas_mm, strict=True)]
        hu_BHWD = torch.stack(blurred)
    if augmentation.scale > 0:
        hu_BHWD = hu_BHWD * (1 + signed_B4[:, 1] * augmentation.scale)[:, None, None, None]
    if augmentation.shift_hu > 0:
        hu_BHWD = hu_BHWD + (signed_B4[:, 2] * augmentation.shift_hu)[:, None, None, None]
    if augmentation.noise_hu > 0:
        sigma_B = strength_B4[:, 3] * augmentation.noise_hu
        noisy = [  # one by one: random bits take eight times the room of a volume
            x + s * normal(seed[None], x.numel(), "intensity/noise").view(x.shape)
            for x, s, seed in zip(hu_BHWD, sigma_B, seeds_B, strict=True)
        ]
        hu_BHWD = torch.stack(noisy)
    return hu_BHWD


def _blurred(hu_HWD: Tensor, sigma_mm: float, spec: InputSpec) -> Tensor:
    """A Gaussian of this width in millimetres along each axis; edges are repeated."""
    out = hu_HWD[None, None]
    for axis, spacing_mm in enumerate(spec.spacing_mm):
        sigma = sigma_mm / spacing_mm
        reach = min(int(_REACH * sigma + 0.5), out.shape[2 + axis] - 1)
        if reach < 1:
            continue
        at = torch.arange(-reach, reach + 1, device=out.device, dtype=out.dtype)
        kernel = torch.exp(-0.5 * (at / sigma) ** 2)
        shape = [1, 1, 1, 1, 1]
        shape[2 + axis] = len(at)
        padding = [0] * 6
        padding[4 - 2 * axis] = padding[5 - 2 * axis] = reach  # the last axis comes first
        out = functional.conv3d(
            functional.pad(out, padding, mode="replicate"), (kernel / kernel.sum()).view(shape)
        )
    return out[0, 0]


def _cut(stored_BXYZ: Tensor, starts: list[tuple[int, ...]], shape: tuple[int, int, int]) -> Tensor:
    h, w, d = shape
    return torch.stack(
        [
            row[x : x + h, y : y + w, z : z + d]
            for row, (x, y, z) in zip(stored_BXYZ, starts, strict=True)
        ]
    )


def _coverage(
    regions_RXYZ: Tensor,
    region_row_BS: Tensor,
    starts: list[tuple[int, int, int]],
    cell: Shape,
    spec: InputSpec,
    cells: Shape,
) -> Tensor:
    """Share of each model cell of each patch that each sentence's region covers.

    ``(B, S, N, C)`` float32 with C model cells a patch, in C order; exact.
    """
    batch, sentences = region_row_BS.shape
    device = regions_RXYZ.device
    h, w, d = (n // c for n, c in zip(spec.shape, cell, strict=True))
    # Stored cells of a model cell along each axis.
    p, q, r = (n // c // m for n, c, m in zip(spec.patch_shape, cell, cells, strict=True))
    (i, j, k), (a, b, c) = spec.grid_shape, cells
    voxels = p * q * r * cell[0] * cell[1] * cell[2]
    out_BSNC = torch.zeros(batch, sentences, spec.patches, a * b * c, device=device)
    for row, (x, y, z) in enumerate(starts):
        has_S = region_row_BS[row] >= 0
        if not bool(has_S.any()):
            continue
        # Sentences share regions: each is summed once.
        used, back = region_row_BS[row][has_S].unique(return_inverse=True)
        stored = regions_RXYZ[used.to(device), x : x + h, y : y + w, z : z + d].float()
        counts = stored.reshape(len(used), i, a, p, j, b, q, k, c, r).sum(dim=(3, 6, 9))
        shares_RNC = counts.permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(1, 3) / voxels
        out_BSNC[row, has_S.nonzero()[:, 0].to(device)] = shares_RNC[back.to(device)]
    return out_BSNC
