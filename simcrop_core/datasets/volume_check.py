"""Whether a volume's file is likely whole, told from its two ends."""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np

from simcrop_core.errors import SimCroPError
from simcrop_core.io import read_volume
from simcrop_core.io.guard import reading
from simcrop_core.io.nifti_header import DTYPES, layout_of
from simcrop_core.io.payload import Payload
from simcrop_core.io.sniff import sniff

_TRAILER = 4


def check_volume(path: Path) -> SimCroPError | None:
    """What is wrong with a scan, without unpacking it.

    A gzip file ends with the number of bytes that it unpacks to; one that was cut short, or whose
    copy failed, does not end with the number that its header calls for. Only such a file is read
    whole, to be certain. A folder is searched for a volume, no more. Flipped bits in between, and
    damage to other packed formats, are found when the study is prepared.

    Returns
    -------
    SimCroPError or None
        The refusal that reading it would give; None where nothing is wrong that shows.
    """
    try:
        with reading(path):
            if path.is_dir():
                return None if _holds_files(path) else _empty(path)
        found = sniff(path)
        if found.format == "NIfTI" and not _ends_as_it_begins(path, found.compression == "gzip"):
            read_volume(path, allow_missing_geometry=True, allow_any_modality=True)
    except SimCroPError as e:
        return e
    return None


def _ends_as_it_begins(path: Path, packed: bool) -> bool:
    """Whether a NIfTI file's length is the one that its header calls for."""
    with Payload(path, "gzip" if packed else "raw") as payload:
        start = payload.read(4)
        layout = layout_of(start)
        if layout is None:
            return False
        header = np.frombuffer(start + payload.read(layout.itemsize - 4), layout)[0]
    rank, code = int(header["dim"][0]), int(header["datatype"])
    if not 3 <= rank <= 7 or code not in DTYPES:
        return False
    voxels = prod(max(0, int(n)) for n in header["dim"][1 : 1 + rank])
    beginning = max(float(header["vox_offset"]), layout.itemsize + 4)
    wanted = int(beginning) + voxels * np.dtype(DTYPES[code]).itemsize
    with reading(path), path.open("rb") as file:
        file.seek(0, 2)
        size = file.tell()
        if not packed:
            return size == wanted
        file.seek(max(0, size - _TRAILER))
        return int.from_bytes(file.read(), "little") == wanted % 2**32


def _holds_files(folder: Path) -> bool:
    return any(entry.is_file() for entry in folder.rglob("*"))


def _empty(folder: Path) -> SimCroPError:
    return SimCroPError(
        "The folder holds no file", path=folder, code="empty", remedy="Fetch the scan again."
    )
