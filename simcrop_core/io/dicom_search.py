"""Finding the DICOM files of a study in a folder, and what else lies there."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from simcrop_core.errors import SimCroPError
from simcrop_core.io.dicom_header import Frame, OtherObject, damaged, read_header
from simcrop_core.io.guard import Limits, reading
from simcrop_core.volume import Note

#: A folder is searched this deep and for this many files.
MOST_DEPTH, MOST_FILES = 8, 50_000


@dataclass
class Study:
    """What a search for DICOM files found."""

    frames: list[Frame] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    ignored: list[Path] = field(default_factory=list)

    def notes(self) -> list[Note]:
        notes = []
        if self.ignored:
            n = len(self.ignored)
            files = "1 file in the folder is" if n == 1 else f"{n} files in the folder are"
            was = "was" if n == 1 else "were"
            notes.append(Note("ignored-files", f"{files} not DICOM and {was} ignored"))
        kinds = {kind: n for kind, n in sorted(self.others.items()) if kind}
        if kinds:
            named = ", ".join(
                kind if n == 1 else f"{kind} ({n} files)" for kind, n in kinds.items()
            )
            notes.append(Note("other-objects", f"The folder also holds {named}, not read here"))
        return notes


def search(path: Path, limits: Limits) -> Study:
    """All slices below a folder, or beside a file.

    Raises
    ------
    SimCroPError
        ``empty``, ``not-dicom``, ``too-many-files``, or a fault of a file that is part of a
        series by its name or content and cannot be read.
    """
    study = Study()
    files = _files_below(path, MOST_DEPTH) if path.is_dir() else _files_below(path.parent, 0)
    kinds: set[tuple[Path, str]] = set()
    for file in files:
        content = read_header(file, limits)
        if content is None:
            study.ignored.append(file)
        elif isinstance(content, OtherObject):
            study.others[content.kind] += 1
        else:
            study.frames += content
            kinds.add((file.parent, _kind_of_name(file)))
    for file in study.ignored:
        kind = _kind_of_name(file)
        if kind and (file.parent, kind) in kinds:
            empty = file.stat().st_size == 0
            raise damaged(
                file,
                "This file is named like the slices of the series and is "
                + ("empty" if empty else "not DICOM"),
                "empty" if empty else "not-dicom",
            )
    return study


def _files_below(folder: Path, depth: int) -> list[Path]:
    """Regular files, sorted, without hidden ones."""
    found: list[Path] = []
    with reading(folder):
        for root, folders, names in os.walk(folder, onerror=_raise):
            at = Path(root)
            deep = len(at.relative_to(folder).parts) >= depth
            folders[:] = [] if deep else sorted(f for f in folders if not f.startswith("."))
            found += [at / name for name in sorted(names) if not name.startswith(".")]
            if len(found) > MOST_FILES:
                raise SimCroPError(
                    f"The folder holds more than {MOST_FILES} files",
                    code="too-many-files",
                    remedy="Choose the folder of one examination",
                    path=folder,
                )
    return [file for file in found if file.is_file()]


def _raise(error: OSError) -> None:
    raise error


def _kind_of_name(file: Path) -> str:
    """What slices of a series have in common in their names: a suffix, or a final number."""
    suffix = file.suffix.lower()
    if re.search(r"\d$", file.name):
        return "#"
    return suffix
