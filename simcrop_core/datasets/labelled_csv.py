"""Scans with label maps, listed in a csv: anyone's own, to evaluate segmentation on.

Columns: ``study``, ``ct``, ``labels`` (a label map) and, if wanted, ``names``: what each of its
numbers is, as JSON (``{"1": "left lung"}``) or a file of it, such as the one that ``simcrop
segment`` writes beside its labels. Several numbers may be of one structure. Without ``names`` the
numbers are the model's own, from 1 in the order of its structures. Paths start at the csv's folder.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simcrop_core.datasets.table import TableForm, of_row, there
from simcrop_core.errors import SimCroPError
from simcrop_core.evaluate.segmentation import LabelledCase
from simcrop_core.io import labels_on, read_labels, read_volume
from simcrop_core.volume import Note

_FORM = TableForm(
    required=("study", "ct", "labels"),
    optional=("names",),
    code="bad-cases",
    remedy="Write a csv with the columns study, ct, labels and, if wanted, names.",
)


@dataclass(frozen=True, slots=True)
class LabelledSource:
    """A row of such a csv; paths are absolute, names by label."""

    id: str
    row: int
    ct: str
    labels: str
    names: tuple[tuple[int, str], ...]

    def load(self) -> LabelledCase:
        """The scan and its label map, on the scan's voxels where it fits them.

        Raises
        ------
        SimCroPError
            One of them cannot be read, the map marks nothing, holds negative values, or lies
            elsewhere; the sentence names the row.
        """
        with of_row(self.row):
            volume = read_volume(self.ct)
            labels_XYZ, grid = read_labels(self.labels)
            named = dict(self.names)
            held = {int(n) for n in np.unique(labels_XYZ)} - {0}
            if held and min(held) < 0:
                raise SimCroPError(
                    f"This is no label map: it holds negative values, such as {min(held)}",
                    path=self.labels,
                    code="negative-labels",
                    remedy="Name the file of the labels, whose numbers are 0 and above.",
                )
            if not held & set(named):
                raise SimCroPError(
                    "The label map marks none of its structures",
                    path=self.labels,
                    code="empty-mask",
                    remedy="Name another file, or give the names of its labels.",
                )
            notes = []
            if left := sorted(held - set(named)):
                shown = ", ".join(map(str, left[:5])) + ", ..." * (len(left) > 5)
                text = f"Row {self.row}: labels without a name count as background: {shown}"
                notes.append(Note("unnamed-labels", text))
            try:
                labels_XYZ = labels_on(volume.grid, labels_XYZ, grid, path=self.labels)
                grid = volume.grid
            except SimCroPError as e:
                if e.code != "mask-mismatch":
                    raise
                labels_on(volume.grid, labels_XYZ, grid, resample=True, path=self.labels)
                text = (
                    f"Row {self.row}: the label map has other voxels than the scan; the model's "
                    "labels are looked up at its voxels"
                )
                notes.append(Note("truth-on-other-voxels", text))
            if grid.is_sheared:
                text = f"Row {self.row}: the voxels are sheared; distances take them for upright"
                notes.append(Note("sheared-distances", text))
        return LabelledCase(self.id, volume.with_notes(notes), labels_XYZ, grid, named)


def read_labelled_csv(path: Path, structures: Sequence[str]) -> tuple[LabelledSource, ...]:
    """The rows of a csv for a model that knows these structures.

    Raises
    ------
    SimCroPError
        The csv or a cell is wrong, or names a structure that the model does not know; the sentence
        names the row.
    """
    sources: list[LabelledSource] = []
    seen: set[str] = set()
    for number, row in _FORM.read(path)[1]:
        with of_row(number):
            if row["study"] in seen:
                raise _FORM.refusal(path, f"The study {row['study']!r} is there twice")
            seen.add(row["study"])
            ct, labels = (there(path.parent / row[name], name) for name in ("ct", "labels"))
            names = _names(row.get("names", ""), path) or dict(enumerate(structures, start=1))
            for structure in names.values():
                if structure not in structures:
                    raise SimCroPError(
                        f"The model does not know the structure {structure[:60]!r}",
                        path=path,
                        code="unknown-structure",
                        remedy=f"It knows {', '.join(structures)}.",
                    )
            sources.append(LabelledSource(row["study"], number, ct, labels, tuple(names.items())))
    return tuple(sources)


def _names(cell: str, path: Path) -> dict[int, str]:
    """Label -> structure of a cell; nothing of a blank one."""
    if not cell:
        return {}
    source = path
    try:
        if not cell.startswith("{"):
            source = Path(there(path.parent / cell, "names"))
            cell = source.read_text(encoding="utf-8")
        data: Any = json.loads(cell)
    except (OSError, UnicodeDecodeError, ValueError) as e:
        if isinstance(e, SimCroPError):
            raise
        raise _FORM.refusal(source, "The names cannot be read as JSON") from e
    if isinstance(data, dict) and isinstance(data.get("labels"), dict):
        data = data["labels"]
    if (
        not isinstance(data, dict)
        or not data
        or not all(isinstance(n, str) and n.isdigit() for n in data)
        or not all(isinstance(name, str) and name.strip() for name in data.values())
    ):
        raise _FORM.refusal(source, 'The names are not of the form {"1": "left lung"}')
    named = {int(n): name.strip() for n, name in data.items() if int(n) != 0}
    if not named:
        raise _FORM.refusal(source, "The names name nothing but the background")
    return named
