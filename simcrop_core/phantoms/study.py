"""A phantom as a study: the scan, its report, and the truth of both."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Literal

import numpy as np

from simcrop_core.geometry import Grid
from simcrop_core.input_spec import InputSpec
from simcrop_core.phantoms.anatomy import STRUCTURES
from simcrop_core.phantoms.anatomy_build import build_anatomy
from simcrop_core.phantoms.anatomy_frame import Frame
from simcrop_core.phantoms.findings import draw_finding
from simcrop_core.phantoms.language import Shown, finding_region, narrowed, write_report
from simcrop_core.phantoms.language_sentences import Wording
from simcrop_core.phantoms.plan import FindingPlan, PhantomPlan, plan_phantom
from simcrop_core.phantoms.render import render
from simcrop_core.phantoms.truth_regions import regions_of
from simcrop_core.prepare import lung_center, placed_grid
from simcrop_core.report import Report
from simcrop_core.study import SentenceFacts, Study

# A scan that reaches so far (patient's heights) shows all of the chest: nothing is cut off.
_WHOLE_CHEST_MM = (-165.0, 96.0)
# The axillae lie within so much of the midline.
_AXILLA_MM = 150.0
# Else a coarse look at the chest says which findings lie in the scan.
_SURVEY_MM = 6.0
_SURVEY_LOW, _SURVEY_HIGH = np.array([-190.0, -150.0, -230.0]), np.array([190.0, 140.0, 130.0])
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
        structures_XYZ=rendered.structures_XYZ,
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
    """What the scan of a phantom shows: how far it reaches, and the findings that lie in it."""
    plan = plan_phantom(seed)
    frame = Frame.of(plan.patient)
    low, high = plan.scanner.grid.bounds_mm()
    ends = frame.patient(np.zeros(2), np.zeros(2), np.array([low[2], high[2]]))[2]
    heights_mm = float(ends[0]), float(ends[1])
    sides = frame.world(np.array([[_AXILLA_MM, 0, 50.0], [-_AXILLA_MM, 0, 50.0]]))[:, 0]
    wide = low[0] <= sides.min() and high[0] >= sides.max()
    shown = Shown(plan, heights_mm, bool(wide and heights_mm[0] < 0 and heights_mm[1] > 95))
    if plan.findings and not shown.holds(_WHOLE_CHEST_MM):
        plan = replace(plan, findings=tuple(_findings_in_scan(plan)))
    return replace(shown, plan=plan)


def _findings_in_scan(plan: PhantomPlan) -> Iterator[FindingPlan]:
    """The findings of which the scan shows more than a sliver, seen at a coarse look."""
    anatomy = build_anatomy(plan, _coarse_grid(plan))
    voxel_ml = anatomy.grid.voxel_volume_mm3 / 1000
    for finding in plan.findings:
        mask = np.asarray(draw_finding(anatomy, finding))
        if not mask.any() or mask.sum() * voxel_ml < _SLIVER_ML.get(finding.name, 0.0):
            continue
        if finding.side == "both":
            right = float((mask & anatomy.right_of_midline_XYZ).sum() / mask.sum())
            if not _SIDED_SLIVER <= right <= 1 - _SIDED_SLIVER:
                finding = narrowed(finding, "right" if right > 0.5 else "left")
        yield finding


def _coarse_grid(plan: PhantomPlan) -> Grid:
    scale = np.asarray(plan.patient.scale)
    low = np.asarray(plan.patient.offset_mm) + _SURVEY_LOW * scale
    high = np.asarray(plan.patient.offset_mm) + _SURVEY_HIGH * scale
    shape = np.ceil((high - low) / _SURVEY_MM).astype(int)
    affine = np.diag([_SURVEY_MM, _SURVEY_MM, _SURVEY_MM, 1.0])
    affine[:3, 3] = low
    return Grid((int(shape[0]), int(shape[1]), int(shape[2])), affine)


def _placed(sentence: SentenceFacts, regions: Collection[str]) -> SentenceFacts:
    """The sentence, without its region where the grid does not hold it."""
    return sentence if sentence.region in regions else replace(sentence, region=None)
