"""A phantom as a study: the scan, its report, and the truth of both."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import reduce
from typing import Literal

import numpy as np

from simcrop_core.geometry import Grid
from simcrop_core.input_spec import InputSpec
from simcrop_core.phantoms.anatomy_frame import Frame
from simcrop_core.phantoms.anatomy_labels import STRUCTURES
from simcrop_core.phantoms.language import Shown, finding_region, write_report
from simcrop_core.phantoms.language_heights import present_heights
from simcrop_core.phantoms.language_sentences import Wording
from simcrop_core.phantoms.plan import FindingPlan, PhantomPlan, plan_phantom
from simcrop_core.phantoms.render import render
from simcrop_core.phantoms.truth_classes import CLASSES, classes_of
from simcrop_core.phantoms.truth_regions import regions_of
from simcrop_core.prepare import lung_center, placed_grid
from simcrop_core.report import Report
from simcrop_core.study import SentenceFacts, Study

Labels = Literal["structures", "classes"]

# The axillae lie within so much of the midline (mm).
_AXILLA_MM = 150.0


def make_phantom(
    seed: int,
    grid: Grid | None = None,
    wording: Wording = "auto",
    labels: Labels = "structures",
) -> Study:
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
    labels
        What the label map is of: all ``structures``, or the ``classes`` of a segmentation head,
        :data:`~simcrop_core.phantoms.truth_classes.CLASSES`.
    """
    shown = survey(seed)
    rendered = render(shown.plan, grid)
    written = write_report(shown, wording)
    masks = dict(zip(finding_regions(shown.plan), rendered.finding_masks, strict=True))
    names = [*masks, *(s.region for s in written.sentences if s.region)]
    for name in names:
        if name not in masks and name.startswith("findings "):
            numbers = [int(word) for word in name.split() if word.isdigit()]
            masks[name] = reduce(np.logical_or, [rendered.finding_masks[n] for n in numbers])
    regions = regions_of(rendered, names, masks)
    return Study(
        id=f"phantom-{seed:06d}",
        volume=rendered.volume,
        report=Report.from_text(written.text),
        sentences=tuple(_placed(sentence, regions.keys()) for sentence in written.sentences),
        regions=regions,
        facts=shown.facts,
        structures_XYZ=classes_of(rendered, shown.plan.findings)
        if labels == "classes"
        else rendered.structures_XYZ,
        structure_names=CLASSES if labels == "classes" else STRUCTURES,
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


def survey(seed: int) -> Shown:
    """What the scan of a phantom shows: how far it reaches, and the findings that lie in it."""
    plan = plan_phantom(seed)
    frame = Frame.of(plan.patient)
    low, high = plan.scanner.grid.bounds_mm()
    ends = frame.patient(np.zeros(2), np.zeros(2), np.array([low[2], high[2]]))[2]
    sides = frame.world(np.array([[_AXILLA_MM, 0, 50.0], [-_AXILLA_MM, 0, 50.0]]))[:, 0]
    wide = bool(low[0] <= sides.min() and high[0] >= sides.max())
    heights_mm = float(ends[0]), float(ends[1])
    shown = Shown(plan, heights_mm, wide and heights_mm[0] < 0 and heights_mm[1] > 95)
    return replace(shown, plan=replace(plan, findings=_findings_shown(shown)))


def _findings_shown(shown: Shown) -> tuple[FindingPlan, ...]:
    """The findings of the plan that lie in the scan.

    Lung that is airless beside an effusion is shown only where the effusion is.
    """
    held = tuple(f for f in shown.plan.findings if shown.holds(present_heights(f)))
    wet = {
        f.side for f in held if f.name == "Pleural effusion" and f.attributes.get("type") == "free"
    }
    return tuple(f for f in held if f.attributes.get("type") != "passive" or f.side in wet)


def _placed(sentence: SentenceFacts, regions: Collection[str]) -> SentenceFacts:
    """The sentence, without its region where the grid does not hold it."""
    return sentence if sentence.region in regions else replace(sentence, region=None)
