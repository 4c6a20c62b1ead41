"""What a file is, by its first bytes; its name is only compared with that."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from simcrop_core.io.dicom_header import looks_like_dicom
from simcrop_core.io.guard import reading, regular_size
from simcrop_core.io.nifti_header import layout_of
from simcrop_core.io.payload import Compression, Payload
from simcrop_core.io.refusals import not_a_volume

Format = Literal["NIfTI", "NRRD", "MetaImage", "NPZ", "DICOM"]

_SUFFIXES: tuple[tuple[str, Format, bool], ...] = (
    (".nii.gz", "NIfTI", True),
    (".nii", "NIfTI", False),
    (".nrrd", "NRRD", False),
    (".nhdr", "NRRD", False),
    (".mha", "MetaImage", False),
    (".mhd", "MetaImage", False),
    (".npz", "NPZ", False),
    (".dcm", "DICOM", False),
)

#: What people choose by mistake, with a word that helps.
_OTHERS = (
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"%PDF", "a PDF document"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "a bare NumPy array (.npy); save it as .npz"),
    (b"BZh", "a bzip2-packed file; unpack it"),
    (b"\xfd7zXZ", "an xz-packed file; unpack it"),
    (b"7z\xbc\xaf", "a 7-Zip archive; unpack it"),
    (b"Rar!", "a RAR archive; unpack it"),
    (b"version https://git-lfs", "a placeholder for a file that was not downloaded"),
    (b"<", "a web page or XML text"),
)


@dataclass(frozen=True, slots=True)
class Sniffed:
    """What a file is; ``name_says`` is what its name says where that is something else."""

    format: Format
    compression: Compression = "raw"
    name_says: str = ""


def sniff(path: Path) -> Sniffed:
    """Find a file's format.

    Raises
    ------
    SimCroPError
        What `guard.regular_size` says of a path; ``not-a-volume``; for a packed file that breaks
        within its first bytes also ``damaged`` and ``truncated``.
    """
    regular_size(path)
    with reading(path), open(path, "rb") as file:
        start = file.read(4096)
    packed = start[:2] == b"\x1f\x8b"
    format: Format | None = _format_of(start)
    if packed and _is_packed_nifti(path):
        format = "NIfTI"
    if format is None:
        what = next((w for magic, w in _OTHERS if start.lstrip().startswith(magic)), None)
        raise not_a_volume(
            f"This is not a scan but {what}"
            if what
            else "This is a gzip-packed file, but not a packed NIfTI file"
            if packed
            else "This is not a scan in a format that is read, or the file is damaged",
            path,
        )
    named = next(((f, p) for s, f, p in _SUFFIXES if path.name.lower().endswith(s)), None)
    name_says = ""
    if named is not None and named != (format, packed):
        name_says = f"a {'packed ' if named[1] else 'plain ' if packed else ''}{named[0]} file"
    return Sniffed(format, "gzip" if packed else "raw", name_says)


def _is_packed_nifti(path: Path) -> bool:
    with Payload(path, "gzip") as payload:
        return layout_of(payload.read(4)) is not None


def _format_of(start: bytes) -> Format | None:
    if start[:7] == b"NRRD000":
        return "NRRD"
    if start[:4] == b"PK\x03\x04":
        return "NPZ"
    if looks_like_dicom(start):
        return "DICOM"
    if layout_of(start) is not None:
        return "NIfTI"
    if re.search(rb"(?m)^[ \t]*(ObjectType|NDims)[ \t]*=", start):
        return "MetaImage"
    return None
