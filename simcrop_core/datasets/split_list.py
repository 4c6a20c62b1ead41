"""The scans of one split of a JSON list of images and masks."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import NamedTuple

from simcrop_core.datasets.lists import read_mask_list
from simcrop_core.datasets.scans import refuse_split, without_suffix
from simcrop_core.errors import SimCroPError


class ListedScan(NamedTuple):
    """Name of a scan, and where it and its mask (or None) lie below the data set's folder."""

    name: str
    image: str
    mask: str | None


def list_in(root: Path, cases: Path | None, of: str) -> Path:
    """The list that was given, else ``dataset.json`` of the folder.

    Raises
    ------
    SimCroPError
        ``missing``: there is neither.
    """
    path = root / "dataset.json" if cases is None else cases
    if not path.is_file():
        raise SimCroPError(
            f"The list of {of} is not there",
            path=path,
            code="missing",
            remedy="Name it with --list, such as dataset.json.",
        )
    return path


def listed_scans(path: Path, split: str | None, structures: int) -> list[ListedScan]:
    """The scans of a split, in the list's order.

    Parameters
    ----------
    path
        The JSON list.
    split
        ``"train"``, ``"valid"`` or ``"test"``; None: all, each once.
    structures
        How many structures its masks must have, the background not counted.

    Raises
    ------
    SimCroPError
        ``bad-list``, ``no-such-split``, or what reading it says.
    """
    listed = read_mask_list(path)
    if len(listed.labels) != structures + 1:
        raise SimCroPError(
            f"The list has {len(listed.labels)} labels with the background, not {structures + 1}",
            path=path,
            code="bad-list",
            remedy="Use the list as it was published with this data set.",
        )
    splits = {"train": listed.training, "valid": listed.validation, "test": listed.testing}
    if split not in (None, *splits):
        refuse_split(split, "the list", f"There are {', '.join(splits)}.")
    every = [pair for pairs in splits.values() for pair in pairs]
    pairs = every if split is None else splits[split]
    scans = [ListedScan(without_suffix(PurePosixPath(i).name), i, m) for i, m in pairs]
    for scan in scans:
        for place in (scan.image, scan.mask or "."):
            inside = PurePosixPath(place)
            if inside.is_absolute() or ".." in inside.parts:
                raise SimCroPError(
                    f"The list names a file outside of the data set's folder, {place[:80]!r}",
                    path=path,
                    code="bad-list",
                    remedy="Use the list as it was published.",
                )
    return list({scan.name: scan for scan in scans}.values())
