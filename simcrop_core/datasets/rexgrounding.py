"""ReXGroundingCT: findings of CT-RATE's reports with their masks.

As published (https://huggingface.co/datasets/rajpurkarlab/ReXGroundingCT, its card of 2026-06;
arXiv 2507.22030): ``dataset.json`` holds a list of scans for each split; an entry has ``name`` (the
file of the volume in CT-RATE), ``findings`` (number -> sentence), ``categories`` (number -> code).
``segmentations/NAME`` beside it is a NIfTI of four axes (F, X, Y, Z): finding by finding, the
voxels of the volume as CT-RATE stores it, every value but 0 being the finding. The masks' headers
say nothing of the patient, so they take the volume's geometry, voxel by voxel.

Categories as on https://rexrank.ai/ReXGroundingCT/challenge.html.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcrop_core.datasets.ct_rate import (
    Geometry,
    metadata_of,
    read_ct_rate_volume,
    volume_paths,
)
from simcrop_core.datasets.masks import Masks
from simcrop_core.errors import SimCroPError
from simcrop_core.io import read_label_stack, read_volume
from simcrop_core.io.guard import reading
from simcrop_core.statements import Meaning, Side
from simcrop_core.study import SentenceFacts, Study
from simcrop_core.volume import CTVolume, Note

#: Code -> name, and the finding of CT-RATE where there is one that means the same.
CATEGORIES: dict[str, tuple[str, str | None]] = {
    "1a": ("1a bronchial wall thickening", "Peribronchial thickening"),
    "1b": ("1b bronchiectasis", "Bronchiectasis"),
    "1c": ("1c emphysema", "Emphysema"),
    "1d": ("1d septal thickening", "Interlobular septal thickening"),
    "1e": ("1e micronodules", None),
    "1f": ("1f other non-focal", None),
    "2a": ("2a linear opacities", "Pulmonary fibrotic sequela"),
    "2b": ("2b atelectasis, consolidation", None),
    "2c": ("2c ground-glass opacities", "Lung opacity"),
    "2d": ("2d nodules, masses", "Lung nodule"),
    "2e": ("2e pleural effusion, thickening", None),
    "2f": ("2f honeycombing", None),
    "2g": ("2g pneumothorax", None),
    "2h": ("2h other focal", None),
}


@dataclass(frozen=True, slots=True)
class RexSource:
    """A scan with its findings: ``(number, sentence, category's code)``."""

    id: str
    scan: str
    mask: str
    findings: tuple[tuple[int, str, str], ...]
    geometry: Geometry | None = None

    def load(self) -> Study:
        """The study. A finding without a marked voxel is left out, with a note.

        Raises
        ------
        SimCroPError
            Scan or masks cannot be read, or do not belong together.
        """
        volume = self._volume()
        stack = read_label_stack(self.mask)
        masks, sentences, empty = Masks(volume.shape), [], []
        for number, text, code in self.findings:
            mask = _channel(stack, number, len(self.findings), volume, Path(self.mask))
            if not mask.any():
                empty.append(str(number))
                continue
            name, finding = CATEGORIES.get(code, (code, None))
            masks.add(str(number), mask)
            meaning = Meaning.of(finding, side_in_words(text))
            sentences.append(SentenceFacts(text, "finding", meaning, str(number), category=name))
        notes = []
        if empty:
            notes.append(
                Note("empty-mask", f"No voxel is marked for the findings {', '.join(empty)}")
            )
        return Study(self.id, volume.with_notes(notes), None, tuple(sentences), masks)

    def _volume(self) -> CTVolume:
        path = Path(self.scan)
        # Without metadata the header is all there is: that of a corrected volume is right.
        return (
            read_volume(path) if self.geometry is None else read_ct_rate_volume(path, self.geometry)
        )


def read_rexgrounding(
    path: Path, scans: Path | None = None, split: str = "val"
) -> tuple[RexSource, ...]:
    """The scans of a split.

    Parameters
    ----------
    path
        ``dataset.json``, or another of this form, with ``segmentations`` beside it.
    scans
        CT-RATE's folder, or one with the volumes side by side; the json's own by default.
    split
        As the json names it.

    Raises
    ------
    SimCroPError
        The json is damaged or has no such split; a scan or its masks are not there.
    """
    entries = _entries(path, split)
    root = path.parent if scans is None else scans
    if not root.is_dir():
        raise SimCroPError(
            "There is no such folder of scans", path=root, code="missing", remedy="Check --scans."
        )
    metadata = metadata_of(root)
    sources, absent = [], []
    for entry in entries:
        name = str(entry["name"]).removesuffix(".nii.gz")
        findings = entry["findings"]
        codes = entry.get("categories") or {}
        numbered = sorted(
            (int(n), str(text), str(codes.get(n, ""))) for n, text in findings.items()
        )
        mask = path.parent / "segmentations" / f"{name}.nii.gz"
        places = [*volume_paths(root, name), root / f"{name}.nii.gz"]
        scan = next((p for p in places if p.is_file()), None)
        absent += [f"the scan {name}"] * (scan is None)
        absent += [f"the masks {mask.name}"] * (not mask.is_file())
        if scan is not None:
            said = tuple((n, " ".join(text.split()), code) for n, text, code in numbered)
            sources.append(RexSource(name, str(scan), str(mask), said, metadata.get(name)))
    if absent:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise SimCroPError(
            f"Files of the split {split!r} are not there: {absent[0]}{more}",
            path=root,
            code="missing",
            remedy="Fetch them, or name CT-RATE's folder with --scans; masks lie in "
            "segmentations beside the json.",
        )
    return tuple(sources)


def side_in_words(text: str) -> Side:
    """The side that a sentence names; "any" where it names none or speaks of both apart."""
    left, right, both = (
        re.search(rf"\b{word}\b", text, re.IGNORECASE) is not None
        for word in ("left", "right", "(?:both|bilateral|bilaterally)")
    )
    if both or left == right:
        return "both" if both else "any"
    return "left" if left else "right"


def _entries(path: Path, split: str) -> list[dict[str, Any]]:
    try:
        with reading(path):
            data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as e:
        if isinstance(e, SimCroPError):
            raise
        raise _bad(path, "This cannot be read as JSON") from e
    if isinstance(data, dict):
        if split not in data:
            raise SimCroPError(
                f"There is no split {split!r} in it",
                path=path,
                code="no-such-split",
                remedy=f"Choose with --split among {', '.join(map(str, data))}.",
            )
        data = data[split]
    if not isinstance(data, list) or not data:
        raise _bad(path, "It holds no list of scans")
    for number, entry in enumerate(data):
        findings = entry.get("findings") if isinstance(entry, dict) else None
        if (
            not isinstance(findings, dict)
            or not isinstance(entry.get("name"), str)
            or not findings
            or not all(isinstance(n, str) and n.isdigit() for n in findings)
            or not all(isinstance(text, str) and text.strip() for text in findings.values())
            or not isinstance(entry.get("categories") or {}, dict)
        ):
            raise _bad(path, f"Entry {number} has not the name and findings of a scan")
    return data


def _channel(
    stack: NDArray[np.bool_], number: int, count: int, volume: CTVolume, path: Path
) -> NDArray[np.bool_]:
    """The mask of one finding on the scan's voxels."""
    if stack.shape == volume.shape and count == 1:
        return stack
    if stack.shape[1:] == volume.shape and stack.shape[0] > number:
        return np.asarray(stack[number])
    said, own = (" x ".join(map(str, shape)) for shape in (stack.shape, volume.shape))
    raise SimCroPError(
        f"The masks are {said} values, which does not fit {count} findings of a scan of {own} "
        "voxels",
        path=path,
        code="mask-mismatch",
        remedy="Take the volume as CT-RATE published it, not a resampled one.",
    )


def _bad(path: Path, problem: str) -> SimCroPError:
    return SimCroPError(
        problem,
        path=path,
        code="bad-cases",
        remedy="Name dataset.json of ReXGroundingCT, or a csv.",
    )
