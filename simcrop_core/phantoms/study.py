"""A phantom as a study: the scan, its report, and the truth of both."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from simcrop_core.geometry import Grid
from simcrop_core.input_spec import InputSpec
from simcrop_core.phantoms.anatomy import LOBES, STRUCTURES, Anatomy
from simcrop_core.phantoms.anatomy_build import build_anatomy
from simcrop_core.phantoms.findings import draw_finding
from simcrop_core.phantoms.findings_scene import LINGULA_TOP_MM
from simcrop_core.phantoms.language import Shown, finding_region, narrowed, write_report
from simcrop_core.phantoms.language_sentences import Wording
from simcrop_core.phantoms.plan import FindingPlan, PhantomPlan, plan_phantom
from simcrop_core.phantoms.render import Rendered, render
from simcrop_core.phantoms.truth_regions import regions_of
from simcrop_core.prepare import lung_center, placed_grid
from simcrop_core.report import Report
from simcrop_core.study import SentenceFacts, Study

# The survey: a coarse look at the whole chest, to know what of it the scan holds.
_SURVEY_MM = 6.0
_SURVEY_LOW, _SURVEY_HIGH = np.array([-230.0, -170.0, -330.0]), np.array([230.0, 170.0, 190.0])
# Less of a finding than this in the scan (ml) is a sliver that nobody would name.
_SLIVER_ML: dict[str, float] = {
    "Pleural effusion": 4.0,
    "Atelectasis": 1.0,
    "Consolidation": 2.0,
    "Lung opacity": 2.0,
    "Emphysema": 2.0,
    "Mosaic attenuation pattern": 10.0,
    "Pericardial effusion": 2.0,
    "Hiatal hernia": 2.0,
    "Cardiomegaly": 100.0,
}
_SIDED_SLIVER = 0.1  # of both sides, so much of all must lie on each


def make_phantom(seed: int, grid: Grid | None = None, wording: Wording = "auto") -> Study:
    """The phantom of a seed.

    Parameters
    ----------
    seed
        0 or more; from 900,000 on for validation (see ``wording``).
    grid
        Where to render it: the scanner's own grid, or any axis-aligned one. Report and facts are
        those of the whole scan on any grid; a region that lies outside this one is left out, and
        its sentences have none.
    wording
        Of the report: see :func:`~simcrop_core.phantoms.language.write_report`.
    """
    shown = survey(seed)
    rendered = render(shown.plan, grid)
    written = write_report(shown, wording)
    masks = dict(zip(finding_regions(shown.plan), rendered.finding_masks, strict=True))
    names = [*masks, *(s.region for s in written.sentences if s.region)]
    for name in names:
        if name not in masks and name.startswith("findings "):
            numbers = [int(word) for word in name.split() if word.isdigit()]
            masks[name] = np.logical_or.reduce([rendered.finding_masks[n] for n in numbers])
    regions = regions_of(rendered, names, masks)
    return Study(
        id=f"phantom-{seed:06d}",
        volume=rendered.volume,
        report=Report.from_text(written.text),
        sentences=tuple(_placed(sentence, regions.keys()) for sentence in written.sentences),
        regions=regions,
        facts=shown.facts,
        structures_XYZ=_structures(rendered),
        structure_names=STRUCTURES,
    )


def prepared_grid(
    seed: int,
    spec: InputSpec | None = None,
    margin_voxels: tuple[int, int, int] = (0, 0, 0),
    placement: Literal["center", "lungs"] = "center",
) -> Grid:
    """Where ``prepare`` puts a model's input in the scan of a phantom, widened by a margin.

    So that a phantom can be rendered there, without resampling.
    """
    spec = InputSpec() if spec is None else spec
    scan = plan_phantom(seed).scanner.grid
    center = None
    if placement == "lungs":
        # As `lung_center` looks at the scan: every few voxels.
        steps = [max(1, round(4.0 / s)) for s in scan.spacing_mm]
        affine = np.array(scan.affine)
        affine[:3, :3] *= steps
        shape = tuple(-(-n // step) for n, step in zip(scan.shape, steps, strict=True))
        coarse = render(survey(seed).plan, Grid(shape, affine))  # type: ignore[arg-type]
        center = lung_center(coarse.volume)
    return placed_grid(scan, spec, center, margin_voxels)


def finding_regions(plan: PhantomPlan) -> tuple[str, ...]:
    """The names of the findings' regions, in the order of the plan."""
    return tuple(finding_region(f.name, number) for number, f in enumerate(plan.findings))


@lru_cache(maxsize=8)
def survey(seed: int) -> Shown:
    """What the scan of a phantom shows: organs, and the findings that lie in it."""
    plan = plan_phantom(seed)
    anatomy = build_anatomy(plan, _survey_grid(plan))
    voxel_ml = anatomy.grid.voxel_volume_mm3 / 1000
    shares = _shares(anatomy)
    findings: list[FindingPlan] = []
    for finding in plan.findings:
        mask = np.asarray(draw_finding(anatomy, finding))
        least = _SLIVER_ML.get(finding.name, 0.0)
        if not mask.any() or mask.sum() * voxel_ml < least:
            continue
        if finding.side == "both":
            right = float((mask & anatomy.right_of_midline_XYZ).sum() / mask.sum())
            if not _SIDED_SLIVER <= right <= 1 - _SIDED_SLIVER:
                finding = narrowed(finding, "right" if right > 0.5 else "left")
        findings.append(finding)
    return Shown(replace(plan, findings=tuple(findings)), shares)


def _survey_grid(plan: PhantomPlan) -> Grid:
    scale = np.asarray(plan.patient.scale)
    low = np.asarray(plan.patient.offset_mm) + _SURVEY_LOW * scale
    high = np.asarray(plan.patient.offset_mm) + _SURVEY_HIGH * scale
    shape = np.ceil((high - low) / _SURVEY_MM).astype(int)
    affine = np.diag([_SURVEY_MM, _SURVEY_MM, _SURVEY_MM, 1.0])
    affine[:3, 3] = low
    return Grid((int(shape[0]), int(shape[1]), int(shape[2])), affine)


def _shares(anatomy: Anatomy) -> dict[str, float]:
    """How much of each structure lies in the scan."""
    low, high = anatomy.plan.scanner.grid.bounds_mm()
    inside = np.ones(anatomy.grid.shape, bool)
    for world, line in enumerate((anatomy.x, anatomy.y, anatomy.z)):
        inside &= (line >= low[world]) & (line <= high[world])
    labels = anatomy.labels_XYZ
    total = np.bincount(labels.ravel(), minlength=len(STRUCTURES) + 1)
    within = np.bincount(labels[inside], minlength=len(STRUCTURES) + 1)
    shares = {name: float(within[n] / total[n]) for n, name in enumerate(STRUCTURES, 1) if total[n]}

    def share(mask: NDArray[np.bool_]) -> float:
        return float((mask & inside).sum() / max(1, mask.sum()))

    shares["lungs"] = share(anatomy.lobes_XYZ > 0)
    shares["heart"] = share(anatomy.structure("heart"))
    height = np.broadcast_to(anatomy.patient_coordinates()[2], anatomy.grid.shape)
    left_upper = anatomy.lobe("left upper lobe")
    lingula = left_upper & (height < LINGULA_TOP_MM)
    for level in ("upper", "middle", "lower"):
        mask = np.isin(anatomy.lobes_XYZ, [n for n, lobe in enumerate(LOBES, 1) if level in lobe])
        mask = mask & ~lingula | lingula if level == "middle" else mask & ~lingula
        shares[f"{level} lobes"] = share(mask)
    hiatus = anatomy.landmarks["hiatus"]
    shares["hiatus"] = float(((hiatus - 15 >= low) & (hiatus + 15 <= high)).all())
    # The axillae: beside the chest, from the first ribs down to the carina.
    top = anatomy.to_world(np.array([0.0, 0.0, 95.0]))[2]
    sides = anatomy.to_world(np.array([[150.0, 0.0, 50.0], [-150.0, 0.0, 50.0]]))[:, 0]
    shares["axillae"] = float(
        high[2] >= top and low[2] < top - 100 and low[0] < sides.min() and high[0] > sides.max()
    )
    return shares


def _structures(rendered: Rendered) -> NDArray[np.uint8]:
    structures: NDArray[np.uint8] = rendered.structures_XYZ
    return structures


def _placed(sentence: SentenceFacts, regions: object) -> SentenceFacts:
    """The sentence, without its region where the grid does not hold it."""
    return sentence if sentence.region in regions else replace(sentence, region=None)  # type: ignore[operator]
