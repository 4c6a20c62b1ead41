"""MetaImage: .mha, and .mhd with its voxels beside it (itk.org/Wiki/ITK/MetaIO/Documentation).

The world of a MetaImage is LPS. ``TransformMatrix`` lists the direction of each array axis in
turn. Packed voxels end in an Adler-32 sum, which is weaker than the CRC-32 of the other formats:
about one flipped bit in ten thousand leaves it as it was.
"""

from __future__ import annotations

import re
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from simcrop_core.geometry import LPS_TO_RAS, Grid
from simcrop_core.io.guard import beside, reading, regular_size
from simcrop_core.io.hounsfield import Stored
from simcrop_core.io.payload import Compression, Observer, Payload, read_to_end
from simcrop_core.io.refusals import damaged_header, several_volumes
from simcrop_core.io.stated import Stated, affine_grid
from simcrop_core.volume import Note

_MOST_HEADER = 1 << 16

_DTYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_OPPOSITE = {"L": "R", "R": "L", "A": "P", "P": "A", "S": "I", "I": "S"}

Fields = dict[str, str]


def read_metaimage(path: Path, stated: Stated, observer: Observer | None = None) -> Stored:
    """Read a MetaImage; the array keeps the file's axes.

    Raises
    ------
    SimCroPError
        For every fault of the file.
    """
    fields, end = _read_fields(path)
    shape = _shape(fields, path)
    dtype = _dtype(fields, path)
    stated.limits.check(shape, dtype.itemsize, path)
    grid, notes = _grid(fields, shape, path, stated)
    slope, intercept = _rescale(fields, path, stated)
    with _payload(fields, end, prod(shape) * dtype.itemsize, path) as payload:
        buffer, more = read_to_end(payload, grid, dtype, stated.limits, slope, intercept, observer)
    return Stored(buffer, grid, (*notes, *more))


def metaimage_payload(path: Path) -> tuple[Payload, int]:
    """Where a file's voxels are, still packed, and how many bytes its header calls for.

    Raises
    ------
    SimCroPError
        For every fault of the header.
    """
    fields, end = _read_fields(path)
    needed = prod(_shape(fields, path)) * _dtype(fields, path).itemsize
    return _payload(fields, end, needed, path), needed


def _read_fields(path: Path) -> tuple[Fields, int]:
    """The header, and where it ends: ``ElementDataFile`` is its last line."""
    with reading(path), open(path, "rb") as file:
        start = file.read(_MOST_HEADER)
    last = re.search(rb"(?m)^[ \t]*ElementDataFile[ \t]*=[^\r\n]*(\r?\n|\Z)", start)
    if last is None:
        raise damaged_header("it has no line ElementDataFile, so it may be cut short", path)
    fields: Fields = {}
    for line in start[: last.end()].decode("utf-8", "surrogateescape").splitlines():
        name, equals, value = line.partition("=")
        if not equals:
            continue
        if name.strip() in fields and name.strip() != "Comment":
            raise damaged_header("it has a field twice", path)
        fields[name.strip()] = value.strip()
    return fields, last.end()


def _shape(fields: Fields, path: Path) -> tuple[int, int, int]:
    sizes = [int(n) for n in _numbers(fields, "DimSize", path) or []]
    rank = [int(n) for n in _numbers(fields, "NDims", path) or []]
    if not sizes or rank != [len(sizes)] or min(sizes) < 1:
        raise damaged_header("its sizes are impossible", path)
    channels = _numbers(fields, "ElementNumberOfChannels", path) or [1]
    if channels != [1] or len(sizes) < 3 or any(n != 1 for n in sizes[3:]):
        raise several_volumes((*sizes, *(int(c) for c in channels if c != 1)), path)
    return sizes[0], sizes[1], sizes[2]


def _dtype(fields: Fields, path: Path) -> np.dtype[Any]:
    name = fields.get("ElementType", "")
    if name not in _DTYPES:
        raise damaged_header(f"voxels of type {name!r} are not read", path)
    dtype = np.dtype(_DTYPES[name])
    if not _flag(fields, "BinaryData", True):
        raise damaged_header("voxels written as text are not read", path)
    big = _flag(fields, "ElementByteOrderMSB", _flag(fields, "BinaryDataByteOrderMSB", False))
    return dtype.newbyteorder(">" if big else "<") if dtype.itemsize > 1 else dtype


def _payload(fields: Fields, end: int, needed: int, path: Path) -> Payload:
    name = fields["ElementDataFile"]
    local = name.upper() == "LOCAL"
    if not local and (name.upper().startswith("LIST") or "%" in name):
        raise damaged_header("voxels spread over several files are not read", path)
    file, start = (path, end) if local else (beside(path, name.removeprefix("./")), 0)
    compressed = _flag(fields, "CompressedData", False)
    skip = int((_numbers(fields, "HeaderSize", path) or [0])[0])
    if skip == -1 and not compressed:
        start = max(start, regular_size(file) - needed)
    elif skip < 0:
        raise damaged_header("its HeaderSize is impossible", path)
    else:
        start += skip
    if not compressed:
        return Payload(file, "raw", start)
    size = _numbers(fields, "CompressedDataSize", path)
    length = int(size[0]) if size and size[0] > 0 else None
    regular_size(file)
    with reading(file), open(file, "rb") as data:
        data.seek(start)
        packed_as: Compression = "gzip" if data.read(2) == b"\x1f\x8b" else "zlib"
    return Payload(file, packed_as, start, length)


def _rescale(fields: Fields, path: Path, stated: Stated) -> tuple[float, float]:
    if stated.rescale is not None:
        return stated.rescale
    slope = _numbers(fields, "ElementToIntensityFunctionSlope", path) or [1.0]
    intercept = _numbers(fields, "ElementToIntensityFunctionOffset", path) or [0.0]
    return slope[0] or 1.0, intercept[0]


def _grid(
    fields: Fields, shape: tuple[int, int, int], path: Path, stated: Stated
) -> tuple[Grid, list[Note]]:
    rank = int(fields["NDims"])
    spacing = _numbers(fields, "ElementSpacing", path) or _numbers(fields, "ElementSize", path)
    matrix = next(
        (
            found
            for name in ("TransformMatrix", "Rotation", "Orientation")
            if (found := _numbers(fields, name, path))
        ),
        None,
    )
    if spacing is not None and len(spacing) != rank:
        raise damaged_header("its spacing does not fit its number of axes", path)
    if spacing is None or matrix is None:
        grid, note = stated.grid_without_geometry(shape, spacing and spacing[:3], path)
        return grid, [note]
    stated.refuse_geometry(path)
    if fields.get("DistanceUnits", "mm").lower() not in ("mm", "?", ""):
        raise damaged_header("its lengths are not in millimetres", path)
    origin = next(
        (
            found
            for name in ("Offset", "Position", "Origin")
            if (found := _numbers(fields, name, path))
        ),
        None,
    )
    notes = []
    if origin is None:
        notes.append(
            Note("no-origin", "The file does not say where the scan lies; 0, 0, 0 is used")
        )
        origin = [0.0] * rank
    if len(matrix) != rank * rank or len(origin) != rank:
        raise damaged_header("its directions do not fit its number of axes", path)
    directions = np.array(matrix).reshape(rank, rank)[:3, :3].T
    affine = np.eye(4)
    affine[:3, :3] = directions * np.array(spacing[:3])
    affine[:3, 3] = origin[:3]
    grid = affine_grid(shape, LPS_TO_RAS @ affine, path)
    # The letters name where each axis comes from; programs go by the matrix.
    letters = fields.get("AnatomicalOrientation", "").upper()
    if set(letters) <= set(_OPPOSITE) and len(letters) == 3:
        towards = "".join(_OPPOSITE[letter] for letter in letters)
        if towards != grid.axcodes:
            notes.append(
                Note(
                    "orientation-disagrees",
                    f"AnatomicalOrientation says that the axes grow to {towards}, the matrix says "
                    f"{grid.axcodes}; the matrix is used",
                )
            )
    return grid, notes


def _numbers(fields: Fields, name: str, path: Path) -> list[float] | None:
    text = fields.get(name)
    if text is None:
        return None
    try:
        numbers = [float(part) for part in text.split()]
    except ValueError as e:
        raise damaged_header(f"{name} is not a number", path) from e
    whole = name in ("DimSize", "NDims", "HeaderSize", "CompressedDataSize")
    if not np.isfinite(numbers).all() or (whole and any(n % 1 or abs(n) > 2**48 for n in numbers)):
        raise damaged_header(f"{name} is not possible", path)
    return numbers


def _flag(fields: Fields, name: str, default: bool) -> bool:
    value = fields.get(name)
    return default if value is None else value[:1].upper() in ("T", "Y", "1")
