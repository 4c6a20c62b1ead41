"""A study made ready for evaluation: the model's input, and what each sentence covers of it.

Shapes in names: N patches; H, W, D voxels of the model's input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray

from simcrop_core.evaluate.pointing import size_mm
from simcrop_core.geometry import Grid
from simcrop_core.input_spec import InputSpec
from simcrop_core.patches import PatchGrid
from simcrop_core.prepare import Placement, lung_center, prepare
from simcrop_core.statements import Facts, Meaning
from simcrop_core.study import Kind, Study
from simcrop_core.volume import CTVolume

_COARSE_MM = 4.0
_TISSUE_HU = -200
#: The middle of one lung lies further than this from the body's, that of both does not.
_LONE_LUNG_MM = 35.0


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """One sentence of a case.

    Attributes
    ----------
    text, kind, meaning, region, category
        As in :class:`~simcrop_core.study.SentenceFacts`.
    unseen
        Whether its wording is held out from training; None where nobody knows.
    coverage_N
        How much of each patch its region covers, float32; None where it has no region in the scan.
    size_mm
        Size of the region's largest part, for findings.
    beyond
        How much of the region lies outside of the model's input, in volumes of a patch.
    """

    text: str
    kind: Kind
    meaning: Meaning
    region: str | None
    unseen: bool | None
    coverage_N: NDArray[np.float32] | None
    size_mm: float | None
    category: str = ""
    beyond: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A study as the model sees it.

    Attributes
    ----------
    id
        Of the study.
    input_1HWD
        float16: the model's input.
    inside_N
        Which patches touch the scan.
    patches
        Where they lie.
    said
        The sentences of the Findings.
    facts
        What is true of it.
    midline_mm
        x of the body's midline, RAS: greater is right.
    structures_HWD, structure_names
        uint8 label map of the input and names of its labels; None and empty where not asked for.
    """

    id: str
    input_1HWD: NDArray[np.float16]
    inside_N: NDArray[np.bool_]
    patches: PatchGrid
    said: tuple[Said, ...]
    facts: Facts
    midline_mm: float
    structures_HWD: NDArray[np.uint8] | None = None
    structure_names: tuple[str, ...] = ()


def case_of(
    study: Study,
    spec: InputSpec,
    *,
    placement: Placement = "center",
    scan: Grid | None = None,
    structures: bool = False,
) -> Case:
    """Prepare a study for evaluation.

    Parameters
    ----------
    study
        Its regions lie on its volume's own grid.
    spec
        Of the model.
    placement
        Where the input lies in the scan, see :func:`simcrop_core.prepare.prepare`.
    scan
        The grid that was really scanned, where the volume is larger, such as a phantom that was
        rendered on the model's input: patches beyond it are never evidence.
    structures
        Whether the label map is wanted; the volume must then lie on the model's input.
    """
    prepared = prepare(study.volume, spec, placement=placement)
    inside = prepared.inside_N
    if scan is not None:
        inside = inside & _touches(prepared.patches, scan)
    grid, patches = study.volume.grid, prepared.patches
    known: dict[str, tuple[NDArray[np.float32], float]] = {}
    said = []
    for sentence in study.sentences:
        region, size, beyond = None, None, 0.0
        if sentence.region is not None and sentence.region in study.regions:
            if sentence.region not in known:
                known[sentence.region] = _covered(study.regions[sentence.region], grid, patches)
            region, beyond = known[sentence.region]
            if not (region[inside] > 0).any():
                region = None
            elif sentence.kind == "finding":
                size = size_mm(study.regions[sentence.region], grid.voxel_volume_mm3)
        unseen = "/unseen/" in sentence.wording if sentence.wording else None
        said.append(
            Said(
                sentence.text,
                sentence.kind,
                sentence.meaning,
                sentence.region,
                unseen,
                region,
                size,
                sentence.category,
                beyond,
            )
        )
    labels = None
    if structures:
        if study.structures_XYZ is None or not grid.matches(prepared.grid):
            raise ValueError("The label map is wanted and does not lie on the model's input.")
        labels = np.ascontiguousarray(study.structures_XYZ)
    return Case(
        id=study.id,
        input_1HWD=prepared.input_1HWD.numpy().astype(np.float16),
        inside_N=inside,
        patches=patches,
        said=tuple(said),
        facts=study.facts,
        midline_mm=_midline_mm(study),
        structures_HWD=labels,
        structure_names=study.structure_names if structures else (),
    )


def coverage(mask_XYZ: NDArray[np.bool_], grid: Grid, patches: PatchGrid) -> NDArray[np.float32]:
    """How much of each patch a mask covers, ``(N,)`` float32 in [0, 1].

    Every voxel of the mask counts with its volume in the patch that holds its centre, so that a
    region smaller than a voxel of the model's input is not lost.
    """
    return _covered(mask_XYZ, grid, patches)[0]


def _covered(
    mask_XYZ: NDArray[np.bool_], grid: Grid, patches: PatchGrid
) -> tuple[NDArray[np.float32], float]:
    """The coverage, and how much of the mask no patch holds, in volumes of a patch."""
    voxels = np.argwhere(mask_XYZ)
    ijk = np.floor(patches.grid.to_voxel(grid.to_world(voxels)) + 0.5).astype(np.int64)
    shape = np.array(patches.shape)
    ijk = ijk[((ijk >= 0) & (ijk < shape)).all(axis=1)]
    counts = np.bincount(np.ravel_multi_index(tuple(ijk.T), patches.shape), minlength=len(patches))
    a_voxel = grid.voxel_volume_mm3 / patches.grid.voxel_volume_mm3
    share = np.minimum(counts * a_voxel, 1).astype(np.float32)
    return share, (len(voxels) - len(ijk)) * a_voxel


def _touches(patches: PatchGrid, scan: Grid) -> NDArray[np.bool_]:
    """Which patches hold a point of the scan, looked up at 27 points of each."""
    steps = np.array(np.meshgrid(*[(-0.499, 0.0, 0.499)] * 3)).reshape(3, -1).T
    ijk = np.indices(patches.shape).reshape(3, -1).T
    found = np.zeros(len(ijk), bool)
    for step in steps:
        found |= scan.contains(patches.grid.to_world(ijk + step))
    return found


def _midline_mm(study: Study) -> float:
    """Half-way between both lungs where they are labelled, else as the scan shows it."""
    if study.structures_XYZ is not None:
        centers = []
        for side in ("left ", "right "):
            labels = [
                number
                for number, name in enumerate(study.structure_names, start=1)
                if name.startswith(side) and ("lobe" in name or "lung" in name)
            ]
            voxels = np.argwhere(np.isin(study.structures_XYZ, labels))
            if len(voxels):
                centers.append(float(study.volume.grid.to_world(voxels.mean(axis=0))[0]))
        if len(centers) == 2:
            return sum(centers) / 2
    return seen_midline_mm(study.volume)


def seen_midline_mm(volume: CTVolume) -> float:
    """x of the body's midline by the scan alone: the middle of the air of both lungs.

    Where that lies far from the middle of the body, as where one lung has no air, the body's
    middle stands; where there is no tissue, the scan's.
    """
    steps = [max(1, round(_COARSE_MM / s)) for s in volume.spacing_mm]
    tissue = volume.hu_XYZ[:: steps[0], :: steps[1], :: steps[2]] > _TISSUE_HU
    if not tissue.any():
        return float(volume.grid.center_mm[0])
    # All between front and back counts, whatever it is filled with.
    depth = volume.grid.nearest_axes()[0].index(1)
    behind = np.flip(np.logical_or.accumulate(np.flip(tissue, depth), axis=depth), depth)
    filled = np.logical_or.accumulate(tissue, axis=depth) & behind
    middle = np.argwhere(filled).mean(axis=0)
    body = float(volume.grid.to_world(middle * steps)[0])
    lungs = lung_center(volume)
    return body if lungs is None or abs(lungs[0] - body) > _LONE_LUNG_MM else float(lungs[0])


# -- phantoms -----------------------------------------------------------------------------------


def phantom_case(seed: int, spec: InputSpec, structures: bool = False) -> Case:
    """The phantom of a seed, rendered where its scan would be prepared."""
    from simcrop_core.phantoms.plan import plan_phantom
    from simcrop_core.phantoms.study import make_phantom, prepared_grid

    study = make_phantom(seed, prepared_grid(seed, spec))
    return case_of(study, spec, scan=plan_phantom(seed).scanner.grid, structures=structures)


def phantom_cases(
    seeds: Sequence[int], spec: InputSpec, *, workers: int = 1, structures: bool = False
) -> Iterator[Case]:
    """The phantoms of these seeds, in order; rendered in so many processes."""
    make = partial(phantom_case, spec=spec, structures=structures)
    if workers <= 1:
        yield from map(make, seeds)
        return
    # Never more at once than there are workers to render them: a case is tens of megabytes.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for start in range(0, len(seeds), 2 * workers):
            yield from pool.map(make, seeds[start : start + 2 * workers])
