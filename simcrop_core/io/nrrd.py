"""NRRD, attached and detached (teem.sourceforge.net/nrrd/format.html)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcrop_core.geometry import LPS_TO_RAS, Grid
from simcrop_core.io.guard import beside, reading, regular_size
from simcrop_core.io.hounsfield import Stored
from simcrop_core.io.payload import Compression, Observer, Payload, read_to_end
from simcrop_core.io.refusals import (
    damaged_header,
    not_a_volume,
    several_volumes,
    truncated,
)
from simcrop_core.io.stated import Stated, affine_grid
from simcrop_core.volume import Note

_MOST_HEADER = 1 << 20

_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": (
        *("longlong", "long long", "long long int", "signed long long", "signed long long int"),
        *("int64", "int64_t"),
    ),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
_DTYPES = {name: dtype for dtype, names in _TYPES.items() for name in names}

_ENCODINGS: dict[str, Compression] = {
    "raw": "raw",
    "gzip": "gzip",
    "gz": "gzip",
    "bzip2": "bzip2",
    "bz2": "bzip2",
}

#: World of the file -> RAS. Spaces bound to the scanner, not to the patient, are not here.
_SPACES = {
    "right-anterior-superior": np.eye(4),
    "ras": np.eye(4),
    "left-anterior-superior": np.diag([-1.0, 1.0, 1.0, 1.0]),
    "las": np.diag([-1.0, 1.0, 1.0, 1.0]),
    "left-posterior-superior": LPS_TO_RAS,
    "lps": LPS_TO_RAS,
}

_UNITS = {"mm": 1.0, "millimeter": 1.0, "millimeters": 1.0, "cm": 10.0, "m": 1000.0, "um": 0.001}


@dataclass(frozen=True, slots=True)
class _Header:
    """Fields by their names in lower case, without spaces; where the data begins."""

    fields: dict[str, str]
    end: int
    path: Path

    def get(self, *names: str) -> str | None:
        return next((self.fields[n] for n in names if n in self.fields), None)

    def need(self, *names: str) -> str:
        value = self.get(*names)
        if value is None:
            raise damaged_header(f"it has no field {names[0]!r}", self.path)
        return value


def read_nrrd(path: Path, stated: Stated, observer: Observer | None = None) -> Stored:
    """Read a NRRD file; the array keeps the file's axes.

    Raises
    ------
    SimCroPError
        For every fault of the file.
    """
    header = _read_header(path)
    shape, axes, dtype = _voxels(header)
    stated.limits.check(shape, dtype.itemsize, path)
    grid, notes = _grid(header, shape, axes, stated)
    slope, intercept = stated.rescale or (1.0, 0.0)
    packed, skip = _payload(header, prod(shape) * dtype.itemsize)
    with packed as payload:
        payload.skip(skip)
        buffer, more = read_to_end(payload, grid, dtype, stated.limits, slope, intercept, observer)
    return Stored(buffer, grid, (*notes, *more))


def nrrd_payload(path: Path) -> tuple[Payload, int]:
    """Where a file's voxels are, still packed, and how many bytes its header calls for.

    Raises
    ------
    SimCroPError
        For every fault of the header.
    """
    header = _read_header(path)
    shape, _, dtype = _voxels(header)
    needed = prod(shape) * dtype.itemsize
    payload, skip = _payload(header, needed)
    return payload, skip + needed


def _voxels(header: _Header) -> tuple[tuple[int, int, int], list[int], np.dtype[Any]]:
    """Shape, which of the file's axes it is of, and type."""
    sizes = _integers(header.need("sizes"), header)
    if len(sizes) != int(_integers(header.need("dimension"), header)[0]):
        raise damaged_header("dimension and sizes disagree", header.path)
    axes = _space_axes(header, sizes)
    return (sizes[axes[0]], sizes[axes[1]], sizes[axes[2]]), axes, _dtype(header)


def _payload(header: _Header, needed: int) -> tuple[Payload, int]:
    """The voxels' bytes, and how many before them are to be skipped."""
    encoding = header.need("encoding").lower()
    if encoding not in _ENCODINGS:
        raise damaged_header(f"the encoding {encoding!r} is not read", header.path)
    if header.get("lineskip") not in (None, "0"):
        raise damaged_header("a line skip is not read", header.path)
    name = header.get("datafile")
    file, start = (header.path, header.end) if name is None else (_data_file(header.path, name), 0)
    skip = _integers(header.get("byteskip") or "0", header)[0]
    compression = _ENCODINGS[encoding]
    if skip < 0:
        if skip != -1 or compression != "raw":
            raise damaged_header("its byte skip is impossible", header.path)
        start, skip = max(start, regular_size(file) - needed), 0
    return Payload(file, compression, start), skip


def _read_header(path: Path) -> _Header:
    with reading(path), open(path, "rb") as file:
        start = file.read(_MOST_HEADER)
    end = re.search(rb"\r?\n\r?\n", start)
    detached = end is None and len(start) < _MOST_HEADER  # all of the file is header
    if end is None and not detached:
        raise damaged_header("it does not end", path)
    text = start if end is None else start[: end.start()]
    fields: dict[str, str] = {}
    for line in text.decode("utf-8", "surrogateescape").splitlines()[1:]:
        name, colon, value = line.partition(":")
        if line.startswith("#") or not colon or value.startswith("="):
            continue
        key = name.strip().lower().replace(" ", "")
        if key in fields:
            raise damaged_header(f"it has two fields {name.strip()!r}", path)
        fields[key] = value.strip()
    header = _Header(fields, len(start) if end is None else end.end(), path)
    if detached and header.get("datafile") is None:
        raise truncated(path)
    return header


def _data_file(path: Path, name: str) -> Path:
    if name.upper().startswith("LIST") or "%" in name:
        raise damaged_header("voxels spread over several files are not read", path)
    return beside(path, name.removeprefix("./"))


def _dtype(header: _Header) -> np.dtype[Any]:
    name = " ".join(header.need("type").lower().split())
    if name not in _DTYPES:
        raise damaged_header(f"voxels of type {name!r} are not read", header.path)
    dtype = np.dtype(_DTYPES[name])
    if dtype.itemsize == 1:
        return dtype
    endian = header.need("endian").lower()
    if endian not in ("little", "big"):
        raise damaged_header("its byte order is unknown", header.path)
    return dtype.newbyteorder("<" if endian == "little" else ">")


def _space_axes(header: _Header, sizes: list[int]) -> list[int]:
    """The three axes that lie in space; any other must have one value."""
    if not sizes or min(sizes) < 1:
        raise damaged_header("its sizes are impossible", header.path)
    directions = header.get("spacedirections")
    if directions is not None:
        vectors = _vectors(directions, header)
        if len(vectors) != len(sizes):
            raise damaged_header("sizes and space directions disagree", header.path)
        axes = [i for i, v in enumerate(vectors) if v is not None]
    elif len(sizes) > 3:
        axes = [i for i, n in enumerate(sizes) if n != 1]
    else:
        axes = list(range(len(sizes)))
    if any(n != 1 for i, n in enumerate(sizes) if i not in axes) or len(axes) > 3:
        raise several_volumes(tuple(sizes), header.path)
    if len(axes) < 3:
        raise not_a_volume(f"The file holds {len(axes)} axes in space, not three", header.path)
    kinds = (header.get("kinds") or "").lower().split()
    if kinds and len(kinds) == len(sizes):
        odd = [kinds[i] for i in axes if kinds[i] not in ("domain", "space", "???", "none")]
        if odd:
            raise several_volumes(tuple(sizes), header.path)
    return axes


def _grid(
    header: _Header, shape: tuple[int, int, int], axes: list[int], stated: Stated
) -> tuple[Grid, list[Note]]:
    space = (header.get("space") or "").lower()
    directions = header.get("spacedirections")
    if space not in _SPACES or directions is None:
        return _grid_without_space(header, shape, axes, stated)
    stated.refuse_geometry(header.path)
    scale, notes = _millimetres(header)
    vectors = _vectors(directions, header)
    affine = np.eye(4)
    affine[:3, :3] = np.array([vectors[i] for i in axes], dtype=np.float64).T
    origin = _vectors(header.get("spaceorigin") or "none", header)[0]
    if origin is None:
        notes.append(
            Note("no-origin", "The file does not say where the scan lies; 0, 0, 0 is used")
        )
    else:
        affine[:3, 3] = origin
    affine[:3] *= scale
    return affine_grid(shape, _SPACES[space] @ affine, header.path), notes


def _grid_without_space(
    header: _Header, shape: tuple[int, int, int], axes: list[int], stated: Stated
) -> tuple[Grid, list[Note]]:
    """A file whose axes nobody bound to the patient; its spacing may still be known."""
    spacing = None
    if (directions := header.get("spacedirections")) is not None:
        vectors = _vectors(directions, header)
        spacing = [float(np.linalg.norm(np.array(vectors[i], dtype=np.float64))) for i in axes]
    elif (spacings := header.get("spacings")) is not None:
        try:
            every = [float(s) for s in spacings.split()]
            spacing = [every[i] for i in axes]
        except (ValueError, IndexError) as e:
            raise damaged_header("its spacings are not numbers", header.path) from e
    grid, note = stated.grid_without_geometry(shape, spacing, header.path)
    return grid, [note]


def _millimetres(header: _Header) -> tuple[NDArray[np.float64], list[Note]]:
    units = re.findall(r'"([^"]*)"', header.get("spaceunits") or "")
    if not units:
        return np.ones((3, 1)), []
    if len(units) != 3 or any(u.strip().lower() not in (*_UNITS, "") for u in units):
        raise damaged_header("its units of length are unknown", header.path)
    scale = np.array([[_UNITS[u.strip().lower()] if u.strip() else 1.0] for u in units])
    if (scale == 1).all():
        return scale, []
    return scale, [Note("unit", f"The file's geometry is in {units[0]}, converted to millimetres")]


def _vectors(text: str, header: _Header) -> list[list[float] | None]:
    """Vectors such as ``(1,0,0) (0,1,0) none``; one that is not a number stands for none."""
    vectors: list[list[float] | None] = []
    for match in re.finditer(r"\(([^()]*)\)|(\S+)", text):
        inside, word = match.groups()
        if word is not None:
            if word.lower() != "none":
                raise damaged_header("its vectors cannot be read", header.path)
            vectors.append(None)
            continue
        try:
            vector = [float(part) for part in inside.split(",")]
        except ValueError as e:
            raise damaged_header("its vectors cannot be read", header.path) from e
        if len(vector) != 3:
            raise damaged_header("its vectors do not have three numbers", header.path)
        vectors.append(None if np.isnan(vector).all() else vector)
    return vectors or [None]


def _integers(text: str, header: _Header) -> list[int]:
    try:
        numbers = [int(part) for part in text.split()]
    except ValueError as e:
        raise damaged_header("its sizes cannot be read", header.path) from e
    if not numbers or max(map(abs, numbers)) >= 2**48:
        raise damaged_header("its sizes are impossible", header.path)
    return numbers
