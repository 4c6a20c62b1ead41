"""Case lists as they are published with the method: names and labels, or images and masks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simcrop_core.datasets.table import read_table
from simcrop_core.errors import SimCroPError
from simcrop_core.volume import Note

#: In fewer rows two labels may well agree.
_MANY = 100


@dataclass(frozen=True, eq=False)
class CaseList:
    """The cases of one split with their labels.

    Attributes
    ----------
    names
        As in the list's first column.
    columns
        The labels' names, spelled as in the list.
    labels_NK
        int16, a row a case.
    """

    names: tuple[str, ...]
    columns: tuple[str, ...]
    labels_NK: NDArray[np.int16]

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"CaseList({len(self)} cases, {len(self.columns)} labels)"

    @property
    def twins(self) -> tuple[tuple[str, str], ...]:
        """Pairs of labels that are the same in every one of many rows, as two of RadChestCT's
        are: one of them cannot be what it says."""
        labels_NK, columns = self.labels_NK, self.columns
        if len(labels_NK) < _MANY:
            return ()
        return tuple(
            (a, b)
            for i, a in enumerate(columns)
            for j, b in enumerate(columns[i + 1 :], i + 1)
            if labels_NK[:, i].any() and bool((labels_NK[:, i] == labels_NK[:, j]).all())
        )

    def agree(self, a: str, b: str) -> bool:
        """Whether there are two labels of these names, and they are the same in every row."""
        if a not in self.columns or b not in self.columns:
            return False
        first, second = (self.labels_NK[:, self.columns.index(name)] for name in (a, b))
        return bool((first == second).all())

    @property
    def notes(self) -> tuple[Note, ...]:
        """What a person should know of the labels."""
        return self.notes_on(self.twins)

    def notes_on(self, twins: Iterable[tuple[str, str]]) -> tuple[Note, ...]:
        """Of each pair, that its labels are the same."""
        return tuple(
            Note(
                "identical-labels",
                f"The labels {a} and {b} are the same in all {len(self)} rows",
            )
            for a, b in twins
        )


def read_case_list(path: Path, classes: int | None = None) -> CaseList:
    """A csv whose first column names cases and whose others are labels in whole numbers.

    Parameters
    ----------
    path
        The list.
    classes
        Labels are below this: 2 for labels that are 0 or 1. None: any whole number.

    Raises
    ------
    SimCroPError
        ``missing``, ``csv``, ``empty``, ``bad-label``, or ``twice`` for a case given twice.
    """
    header, rows = read_table(path)
    names = tuple(row[header[0]] for row in rows)
    if len(set(names)) < len(names) or "" in names:
        raise SimCroPError(
            "The list names a case twice or not at all",
            path=path,
            code="twice",
            remedy="Use the list as it was published.",
        )
    if len(header) < 2:
        raise SimCroPError(
            "The list has no labels", path=path, code="csv", remedy="Use a list with labels."
        )
    try:
        labels = np.array([[int(row[c]) for c in header[1:]] for row in rows], np.int16)
    except (ValueError, OverflowError) as e:
        raise SimCroPError(
            "A label is not a whole number",
            path=path,
            code="bad-label",
            remedy="Use the list as it was published.",
        ) from e
    if classes is not None:
        _check_range(labels, header[1:], classes, path)
    return CaseList(names, header[1:], labels)


def _check_range(
    labels_NK: NDArray[np.int16], columns: tuple[str, ...], classes: int, path: Path
) -> None:
    wrong = np.argwhere((labels_NK < 0) | (labels_NK >= classes))
    if len(wrong):
        row, column = wrong[0]
        meant = "0 or 1" if classes == 2 else f"0 to {classes - 1}"
        label = labels_NK[row, column]
        raise SimCroPError(
            f"Row {row + 2}: The label {columns[column]!r} is {label}, not {meant}",
            path=path,
            code="bad-label",
            remedy="Correct the list, or use it as it was published.",
        )


@dataclass(frozen=True, slots=True)
class MaskList:
    """Images and masks of a segmentation task by split, and the names of the labels.

    Attributes
    ----------
    labels
        Names of labels 0, 1, ...
    training, validation, testing
        ``(image, mask)``; the mask is None where the list gives none.
    """

    labels: tuple[str, ...]
    training: tuple[tuple[str, str | None], ...]
    validation: tuple[tuple[str, str | None], ...]
    testing: tuple[tuple[str, str | None], ...]


def is_json(path: Path) -> bool:
    """Whether a list is JSON by what it begins with, whatever it is called."""
    try:
        with path.open("rb") as file:
            return file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[")
    except OSError:
        return False  # reading it says what is wrong


def check_once(names: Sequence[str], path: Path) -> None:
    """Refuse a list that names a scan twice, as under its name and under its file's.

    Raises
    ------
    SimCroPError
        ``twice``.
    """
    for name, rows in Counter(names).items():
        if rows > 1:
            raise SimCroPError(
                f"The list names {name[:80]!r} {rows} times",
                path=path,
                code="twice",
                remedy="Use the list as it was published.",
            )


def read_mask_list(path: Path) -> MaskList:
    """A JSON list in the form of the Medical Segmentation Decathlon.

    Raises
    ------
    SimCroPError
        ``bad-list``.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        labels = tuple(_name(data["labels"][str(n)]) for n in range(len(data["labels"])))
        splits = [
            tuple(_pair(entry) for name in names for entry in _entries(data.get(name, [])))
            for names in (("training",), ("validation",), ("testing", "test"))
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise SimCroPError(
            "This is not a list of images and masks",
            path=path,
            code="bad-list",
            remedy="Use the JSON list as it was published.",
        ) from e
    return MaskList(labels, *splits)


def _pair(entry: object) -> tuple[str, str | None]:
    if isinstance(entry, str):
        return _name(entry), None
    if isinstance(entry, dict):
        return _name(entry["image"]), _name(entry["label"])
    raise TypeError("An entry is a name, or an image with its mask.")


def _entries(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError("A split is a list.")
    return value


def _name(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise TypeError("A name is a text.")
    value.encode()  # half a character, as JSON can hold, names no file
    return value
