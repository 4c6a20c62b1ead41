"""The scans of a published list with their labels, checked before anything is computed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simcrop_core.datasets import open_dataset, read_case_list
from simcrop_core.datasets.dataset import ScanFile
from simcrop_core.errors import SimCroPError
from simcrop_core.train.classification_tasks import TASKS, Task
from simcrop_core.volume import Note


@dataclass(frozen=True, slots=True, eq=False)
class Scans:
    """Scans of a list.

    Attributes
    ----------
    sources
        In the list's order.
    columns
        Names of the labels, as the task has them.
    labels_NK
        int16; of a task of classes one column.
    notes
        What a person should know of the labels.
    """

    sources: tuple[ScanFile, ...]
    columns: tuple[str, ...]
    labels_NK: NDArray[np.int16]
    notes: tuple[Note, ...]

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(source.id for source in self.sources)


def open_scans(task: Task, root: Path, lists: Path, name: str) -> Scans:
    """The scans of a task's list.

    Parameters
    ----------
    root
        Folder of the data set.
    lists
        Folder of the published lists, or of the task's own among them.
    name
        File of the list.

    Raises
    ------
    SimCroPError
        The list is missing or is not this task's, names a scan that the data set cannot have, or
        a scan is not there.
    """
    path = lists / task.folder / name
    if not path.is_file() and (lists / name).is_file():
        path = lists / name
    cases = read_case_list(path, classes=task.classes or 2)
    if len(task.labels) > 1 and not task.classes and cases.columns != task.labels:
        absent = [label for label in task.labels if label not in cases.columns]
        what = f"it lacks {absent[0]!r}" if absent else "its labels are others, or in other order"
        raise _other_list(task, what, path)
    if len(cases.columns) != (1 if task.classes else len(task.labels)):
        raise _other_list(task, f"it has {len(cases.columns)} labels", path)
    dataset = open_dataset(f"{task.dataset}:{root}", cases=path)
    sources: tuple[ScanFile, ...] = dataset.sources  # type: ignore[assignment]
    if len(sources) != len(cases):
        raise _other_list(task, "it names a scan twice", path)
    _check_there(sources, path)
    return Scans(sources, task.labels, cases.labels_NK, cases.notes)


def radchestct_scans(root: Path, lists: Path) -> Scans:
    """RadChestCT's test list, whose folder lies beside that of the other lists."""
    task = TASKS["radchestct"]
    folder = lists if (lists / task.folder).is_dir() else lists.parent
    return open_scans(task, root, folder, task.testing)


def held_out_of(scans: Scans, count: int | None) -> tuple[Scans, Scans | None]:
    """Scans to train on, and scans held out of them by their names; None: a tenth, 2 to 500, where
    there are 10.

    Raises
    ------
    SimCroPError
        ``too-few-studies``: none would be left to train on.
    """
    if count is None:
        count = min(500, max(2, round(len(scans) / 10))) if len(scans) >= 10 else 0
    if count >= len(scans):
        raise SimCroPError(
            f"Of {len(scans)} training scans {count} are to be held out: none is left to train on",
            code="too-few-studies",
            remedy="Lower data.held_out.",
        )
    order = sorted(
        range(len(scans)), key=lambda row: hashlib.sha256(scans.ids[row].encode()).hexdigest()
    )
    chosen = set(order[len(scans) - count :])
    return (
        _rows(scans, [row for row in range(len(scans)) if row not in chosen]),
        _rows(scans, sorted(chosen)) if chosen else None,
    )


def _rows(scans: Scans, rows: Sequence[int]) -> Scans:
    sources = tuple(scans.sources[row] for row in rows)
    return Scans(sources, scans.columns, scans.labels_NK[list(rows)], scans.notes)


def _check_there(sources: Sequence[ScanFile], path: Path) -> None:
    absent = [source for source in sources if not source.path.exists()]
    if absent:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise SimCroPError(
            f"Of the {len(sources)} scans of {path.name}, {len(absent)} are not there: "
            f"{absent[0].id}{more}",
            path=absent[0].path,
            code="missing",
            remedy="Fetch them; simcrop-train prepare --preflight lists all that is missing.",
        )


def _other_list(task: Task, what: str, path: Path) -> SimCroPError:
    return SimCroPError(
        f"This is no list of {task.name}: {what}",
        path=path,
        code="bad-list",
        remedy="Use the lists as they were published.",
    )
