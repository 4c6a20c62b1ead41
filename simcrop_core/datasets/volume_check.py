"""Whether a volume's file is likely whole, told from its two ends."""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np

from simcrop_core.errors import SimCroPError
from simcrop_core.io import read_volume
from simcrop_core.io.guard import reading
from simcrop_core.io.metaimage import metaimage_payload
from simcrop_core.io.nifti_header import DTYPES, layout_of
from simcrop_core.io.nrrd import nrrd_payload
from simcrop_core.io.payload import Compression, Payload
from simcrop_core.io.sniff import sniff

_TRAILER = 4


def check_volume(path: Path) -> SimCroPError | None:
    """What is wrong with a scan, without unpacking it.

    A file that is not packed has a length that its header calls for, and a gzip file ends with the
    number of bytes that it unpacks to; one that was cut short, or whose copy failed, has another.
    Only such a file is read whole, to be certain. A folder is searched for a volume, no more.
    Flipped bits in between, and damage to other packed formats, are found when the study is
    prepared.

    Returns
    -------
    SimCroPError or None
        The refusal that reading it would give; None where nothing is wrong that shows.
    """
    try:
        with reading(path):
            if path.is_dir():
                return None if _holds_files(path) else _empty(path)
        if not _ends_as_it_begins(path):
            read_volume(path, allow_missing_geometry=True, allow_any_modality=True)
    except SimCroPError as e:
        return e
    return None


def _ends_as_it_begins(path: Path) -> bool:
    """Whether a file's length, as far as it is known unread, is the one its header calls for."""
    found = sniff(path)
    if found.format == "NIfTI":
        packed: Compression = "gzip" if found.compression == "gzip" else "raw"
        wanted = _nifti_bytes(path, packed)
        payload = Payload(path, packed)
    elif found.format == "NRRD":
        payload, wanted = nrrd_payload(path)
    elif found.format == "MetaImage":
        payload, wanted = metaimage_payload(path)
    else:
        return True
    with payload:
        if payload.compression == "raw":
            return payload.held == wanted
        if payload.compression != "gzip":
            return True
    with reading(payload.path), payload.path.open("rb") as file:
        file.seek(max(0, file.seek(0, 2) - _TRAILER))
        return int.from_bytes(file.read(), "little") == wanted % 2**32


def _nifti_bytes(path: Path, compression: Compression) -> int:
    """How many bytes a NIfTI file calls for, header and all; -1 for one that nobody reads."""
    with Payload(path, compression) as payload:
        start = payload.read(4)
        layout = layout_of(start)
        if layout is None:
            return -1
        header = np.frombuffer(start + payload.read(layout.itemsize - 4), layout)[0]
    rank, code = int(header["dim"][0]), int(header["datatype"])
    if not 3 <= rank <= 7 or code not in DTYPES:
        return -1
    voxels = prod(max(0, int(n)) for n in header["dim"][1 : 1 + rank])
    first = int(max(float(header["vox_offset"]), layout.itemsize + 4))
    return first + voxels * np.dtype(DTYPES[code]).itemsize


def _holds_files(folder: Path) -> bool:
    return any(entry.is_file() for entry in folder.rglob("*"))


def _empty(folder: Path) -> SimCroPError:
    return SimCroPError(
        "The folder holds no file", path=folder, code="empty", remedy="Fetch the scan again."
    )
