"""What is true of a phantom, as it is written beside its scan (``truth.json``)."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcrop_core.geometry import Grid
from simcrop_core.phantoms.language_grammar import is_unseen
from simcrop_core.phantoms.plan import PhantomPlan
from simcrop_core.phantoms.study import finding_regions
from simcrop_core.statements import FINDINGS, LEVELS, NO_FINDING, SIDES, Meaning
from simcrop_core.study import SentenceFacts, Study

#: Version of the file's layout.
SCHEMA = 1


def truth_of(study: Study, plan: PhantomPlan) -> dict[str, Any]:
    """The content of ``truth.json`` (docs/phantoms.md).

    Parameters
    ----------
    study
        The phantom on the scan's own grid.
    plan
        The plan it was rendered from, with the findings that its scan shows.
    """
    findings = []
    for finding, region in zip(plan.findings, finding_regions(plan), strict=True):
        shown = region in study.regions
        findings.append(
            {
                "name": finding.name,
                "side": finding.side,
                "level": finding.level,
                "lobe": finding.lobe,
                "size_mm": finding.size_mm,
                "count": finding.count,
                "severity": finding.severity,
                "attributes": dict(finding.attributes),
                "center_mm": _center_mm(study.regions[region], study.volume.grid)
                if shown
                else None,
                "mask_file": mask_file(region) if shown else None,
            }
        )
    return {
        "schema": SCHEMA,
        "seed": plan.seed,
        "findings": findings,
        "labels": {name: int(known == 1) for name, known in study.facts.labels().items()},
        "sentences": [_sentence(sentence) for sentence in study.sentences],
        "structures": {str(n): name for n, name in enumerate(study.structure_names, 1)},
    }


def mask_file(region: str) -> str:
    """The path of a region's mask, in the phantom's folder."""
    return f"masks/{re.sub(r'[^a-z0-9]+', '-', region.lower())}.nii.gz"


def _sentence(sentence: SentenceFacts) -> dict[str, Any]:
    stated = sentence.meaning
    # A normal statement may state that a finding is absent; it is still none about a finding.
    named = sentence.kind != "organ" and stated.finding != NO_FINDING
    return {
        "text": sentence.text,
        "kind": sentence.kind,
        "finding": FINDINGS[stated.finding] if named else None,
        "side": SIDES[stated.side],
        "level": LEVELS[stated.level],
        "mask_file": None if sentence.region is None else mask_file(sentence.region),
        "meaning": meaning_in_words(stated),
        "wording": sentence.wording,
        "unseen_wording": is_unseen(sentence.wording),
        "alternates": [
            {"text": other.text, "meaning": meaning_in_words(other.meaning)}
            for other in sentence.alternates
        ],
    }


def meaning_in_words(stated: Meaning) -> dict[str, Any] | None:
    """A meaning with names for its numbers; None where it states nothing about a finding."""
    if stated.finding == NO_FINDING:
        return None
    return {
        "finding": FINDINGS[stated.finding],
        "side": SIDES[stated.side],
        "level": LEVELS[stated.level],
        "present": bool(stated.present),
    }


def _center_mm(mask_XYZ: NDArray[np.bool_], grid: Grid) -> list[float]:
    """RAS millimetres of a mask's centre of mass."""
    # Along one axis at a time: a list of the voxels of a whole lung would be large.
    lines = [mask_XYZ.sum(axis=tuple(a for a in range(3) if a != axis)) for axis in range(3)]
    voxel = [np.average(np.arange(line.size), weights=line) for line in lines]
    return [round(float(mm), 2) for mm in grid.to_world(voxel)]
