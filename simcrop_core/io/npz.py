"""RadChestCT-style .npz: one array, no geometry. Nothing in it is ever unpickled."""

from __future__ import annotations

import re
import zipfile
from ast import literal_eval
from pathlib import Path
from typing import Any

import numpy as np

from simcrop_core.errors import SimCroPError
from simcrop_core.geometry import axis_aligned_affine
from simcrop_core.io.guard import reading
from simcrop_core.io.hounsfield import Stored
from simcrop_core.io.payload import Compression, Payload, read_voxels
from simcrop_core.io.refusals import damaged, not_a_volume, several_volumes
from simcrop_core.io.stated import Stated, affine_grid, option_refused
from simcrop_core.volume import Note

KEY = "ct"
_METHODS: dict[int, Compression] = {zipfile.ZIP_STORED: "raw", zipfile.ZIP_DEFLATED: "deflate"}
_MOST_HEADER = 10_000
#: What evaluating a header's literal can raise, and what a strange dtype can.
_UNREADABLE = (ValueError, TypeError, KeyError, SyntaxError, RecursionError, MemoryError)


def read_npz(path: Path, stated: Stated) -> Stored:
    """Read the array ``ct``, or the only three-dimensional one.

    The array keeps its axes: ``spacing_mm`` and ``axcodes`` name them in the order stored. The
    array's middle becomes the world's origin.

    Raises
    ------
    SimCroPError
        ``missing-geometry`` unless both were stated; else for every fault of the file.
    """
    if stated.allow_missing_geometry:
        raise option_refused(
            "allow_missing_geometry", "an .npz file needs spacing_mm and axcodes stated", path
        )
    lacking = [n for n in ("spacing_mm", "axcodes") if getattr(stated, n) is None]
    if lacking:
        raise SimCroPError(
            "An .npz file holds no geometry",
            code="missing-geometry",
            remedy=f"State {' and '.join(lacking)} along the axes as stored, such as "
            'spacing_mm=(0.8, 0.8, 0.8) and axcodes="SPL"',
            path=path,
        )
    assert stated.spacing_mm is not None
    assert stated.axcodes is not None
    member, notes = _member(path)
    slope, intercept = stated.rescale or (1.0, 0.0)
    with _payload(path, member) as payload:
        stored, fortran, dtype = _array_header(payload)
        shape = _three(stored, path)
        buffer = read_voxels(payload, shape, dtype, stated.limits, slope, intercept)
        if payload.finish():
            raise damaged(path)
    affine = axis_aligned_affine(stated.axcodes, stated.spacing_mm, (0.0, 0.0, 0.0), shape)
    notes.append(
        Note(
            "stated-geometry",
            f"Spacing and directions ({stated.axcodes}) are as stated, not from the file",
        )
    )
    grid = affine_grid(shape, affine, path)
    return Stored(buffer, grid, tuple(notes), order="F" if fortran else "C")


def _member(path: Path) -> tuple[zipfile.ZipInfo, list[Note]]:
    try:
        with reading(path), zipfile.ZipFile(path) as archive:
            arrays = [i for i in archive.infolist() if i.filename.endswith(".npy")]
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as e:
        raise damaged(path) from e
    named = [i for i in arrays if i.filename == f"{KEY}.npy"]
    if len(named) == 1:
        return named[0], []
    if named:
        raise damaged(path)
    volumes = [i for i in arrays if len(_peek(path, i)) >= 3]
    if len(volumes) != 1:
        names = ", ".join(i.filename.removesuffix(".npy") for i in volumes[:5])
        raise SimCroPError(
            f"The file has no array {KEY!r}, and "
            + (f"several that could be a volume: {names}" if names else "none that is a volume"),
            code="not-a-volume",
            remedy=f"Save the scan under the name {KEY!r}",
            path=path,
        )
    # The array's own name is not quoted: notes go into results, and it may be anybody's.
    return volumes[0], [
        Note("npz-key", f"The file has no array {KEY!r}; its only volume of another name was read")
    ]


def _peek(path: Path, member: zipfile.ZipInfo) -> tuple[int, ...]:
    with _payload(path, member) as payload:
        return _array_header(payload, refuse_objects=False)[0]


def _payload(path: Path, member: zipfile.ZipInfo) -> Payload:
    """The member's bytes. The archive's directory gives sizes and checksum; the local header
    only says where the bytes begin."""
    if member.compress_type not in _METHODS or member.flag_bits & 1:
        raise SimCroPError(
            "The archive is encrypted or packed in an unusual way",
            code="not-a-volume",
            remedy="Save the array with numpy.savez_compressed",
            path=path,
        )
    with reading(path), open(path, "rb") as file:
        file.seek(member.header_offset)
        local = file.read(30)
    if len(local) < 30 or local[:4] != b"PK\x03\x04":
        raise damaged(path)
    start = member.header_offset + 30
    start += int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")
    return Payload(path, _METHODS[member.compress_type], start, member.compress_size, member.CRC)


def _array_header(
    payload: Payload, refuse_objects: bool = True
) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran order, and type (numpy.lib.format, versions 1 to 3)."""
    magic = payload.read(8)
    length = int.from_bytes(payload.read(2 if magic[6] == 1 else 4), "little")
    if magic[:6] != b"\x93NUMPY" or magic[6] not in (1, 2, 3) or length > _MOST_HEADER:
        raise damaged(payload.path)
    try:
        fields = literal_eval(payload.read(length).decode("utf-8").strip())
        shape, fortran = fields["shape"], fields["fortran_order"]
        descr = fields["descr"]
        possible = type(shape) is tuple and all(type(n) is int for n in shape)
        if not possible or type(fortran) is not bool:
            raise ValueError("impossible shape or order")
        simple = isinstance(descr, str) and re.fullmatch(r"[<>|=]?[iufb][1248]", descr)
        dtype = np.dtype(descr) if simple else np.dtype(object)
    except _UNREADABLE as e:
        raise damaged(payload.path) from e
    if refuse_objects and not simple:
        raise SimCroPError(
            "The array does not hold one real number a voxel",
            code="not-grey",
            remedy="Save the scan as an array of 16-bit integers",
            path=payload.path,
        )
    return shape, fortran, dtype


def _three(stored: tuple[int, ...], path: Path) -> tuple[int, int, int]:
    """Three sizes; further axes at either end must have one value."""
    shape = list(stored)
    while len(shape) > 3 and 1 in (shape[0], shape[-1]):
        shape.pop(0 if shape[0] == 1 else -1)
    if len(shape) > 3:
        raise several_volumes(stored, path)
    if len(shape) < 3 or min(shape) < 1:
        raise not_a_volume(f"The array has the shape {stored}, which is not a volume", path)
    return shape[0], shape[1], shape[2]
