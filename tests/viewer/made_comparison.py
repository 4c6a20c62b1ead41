"""Alignments by hand on grids of one's choosing, for the tests that compare two."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from simcrop_core.alignment_result import AlignedSentence, AlignmentResult
from simcrop_core.encoded import VolumeCard
from simcrop_core.geometry import Grid, axis_aligned_affine
from simcrop_core.patches import PatchGrid
from simcrop_core.volume import CTVolume
from simcrop_viewer.controller.compare import CompareController
from simcrop_viewer.model.body import body_of
from simcrop_viewer.model.session import OpenStudy, statements_of


def grid_of(
    shape: tuple[int, int, int], size_mm: float, center_mm: ArrayLike = (0, 0, 0)
) -> PatchGrid:
    """Cubes of patches, axes to LPS."""
    affine = axis_aligned_affine("LPS", (size_mm,) * 3, center_mm, shape)
    return PatchGrid(Grid(shape, affine), (4, 4, 4))


def aligned(
    volume: CTVolume,
    patches: PatchGrid,
    similarity_SN: ArrayLike,
    inside_N: ArrayLike | None = None,
) -> AlignmentResult:
    """Sentences with these similarities; 4 top patches each."""
    values = np.asarray(similarity_SN, np.float32)
    inside = np.ones(len(patches), bool) if inside_N is None else np.asarray(inside_N)
    order = np.argsort(-np.where(inside, values, -np.inf), axis=1, kind="stable")
    return AlignmentResult(
        sentences=tuple(
            AlignedSentence(f"Sentence {row}.", "findings", None, 1.0 + row, 99.0)
            for row in range(len(values))
        ),
        similarity_SN=values,
        top_SK=order[:, :4].astype(np.int64),
        inside_N=inside,
        patches=patches,
        model={"id": "made", "name": "made"},
        volume=VolumeCard.of(volume),
    )


def marked(study: OpenStudy, patches: PatchGrid, place_mm: ArrayLike) -> AlignmentResult:
    """Every sentence of the report looks like one place alone, but for some noise."""
    report = study.report
    assert report is not None
    best = patches.patch_at(place_mm)
    assert best is not None
    rng = np.random.default_rng(len(patches))
    values = rng.uniform(0, 0.005, (len(report.sentences), len(patches)))
    values[:, best] = 1
    return aligned(study.volume, patches, values)


def compare_by_hand(
    compare: CompareController, study: OpenStudy, first: AlignmentResult, second: AlignmentResult
) -> None:
    """As if two models had seen the study and found this."""
    compare.state = "on"
    for session in (compare.session, compare.first, compare.second):
        if session.study is not study:
            session.show(study)
    compare.comparison.body = body_of(study.display)
    compare.session.set_statements(statements_of(study.report, first))
    compare.second.set_statements(statements_of(study.report, second))
    compare.changed.emit()
