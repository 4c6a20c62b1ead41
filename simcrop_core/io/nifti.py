"""NIfTI-1 and NIfTI-2, packed or not (nifti.nimh.nih.gov)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simcrop_core.errors import SimCroPError
from simcrop_core.geometry import Grid
from simcrop_core.io.hounsfield import Stored
from simcrop_core.io.nifti_header import DTYPES, layout_of, qform_affine, sform_affine
from simcrop_core.io.payload import Compression, Observer, Payload, read_to_end
from simcrop_core.io.refusals import damaged_header, not_a_volume, several_volumes
from simcrop_core.io.stated import Stated, affine_grid
from simcrop_core.volume import Note

#: Millimetres in the spatial unit of ``xyzt_units``; 0 is unknown and in practice millimetres.
_UNITS = {0: (1.0, ""), 1: (1000.0, "metres"), 2: (1.0, ""), 3: (0.001, "micrometres")}


@dataclass(frozen=True, slots=True)
class _Described:
    """What a header says, once checked."""

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    offset: int
    slope: float
    intercept: float
    grid: Grid
    notes: tuple[Note, ...]


def read_nifti(
    path: Path, compression: Compression, stated: Stated, observer: Observer | None = None
) -> Stored:
    """Read a NIfTI file; the array keeps the file's axes.

    Raises
    ------
    SimCroPError
        For every fault of the file.
    """
    with Payload(path, compression) as payload:
        start = payload.read(4)
        layout = layout_of(start)
        if layout is None:
            raise _not_nifti(path)
        header = np.frombuffer(start + payload.read(layout.itemsize - 4), layout)[0]
        described = _describe(header, path, stated)
        payload.skip(described.offset - layout.itemsize)
        buffer, more = read_to_end(
            payload,
            described.grid,
            described.dtype,
            stated.limits,
            described.slope,
            described.intercept,
            observer,
        )
    return Stored(buffer, described.grid, (*described.notes, *more))


def _describe(header: Any, path: Path, stated: Stated) -> _Described:
    _check_magic(header, path)
    shape = _shape(header, path)
    code = int(header["datatype"])
    if code not in DTYPES:
        raise SimCroPError(
            f"The voxels are colours, complex numbers or of an unknown kind (datatype {code})",
            code="not-grey",
            remedy="Export the CT itself with one number a voxel",
            path=path,
        )
    order = header.dtype["datatype"].byteorder
    dtype = np.dtype(DTYPES[code]).newbyteorder(order)
    slope, intercept = _rescale(header, path, stated)
    grid, notes = _grid(header, shape, path, stated)
    return _Described(shape, dtype, _offset(header, path), slope, intercept, grid, tuple(notes))


def _check_magic(header: Any, path: Path) -> None:
    magic = bytes(header["magic"])[:3]
    if magic in (b"ni1", b"ni2"):
        raise SimCroPError(
            "This is the header of a NIfTI pair (.hdr and .img), which is not read",
            code="nifti-pair",
            remedy="Convert the pair to a single .nii or .nii.gz file",
            path=path,
        )
    if magic not in (b"n+1", b"n+2"):
        raise _not_nifti(path)


def _shape(header: Any, path: Path) -> tuple[int, int, int]:
    rank = int(header["dim"][0])
    sizes = tuple(int(n) for n in header["dim"][1 : 1 + max(0, rank)])
    if not 1 <= rank <= 7 or min(sizes) < 1:
        raise damaged_header("its sizes are impossible", path)
    if rank < 3:
        raise not_a_volume(f"The file holds an array of {rank} axes, not of three", path)
    if any(n != 1 for n in sizes[3:]):
        raise several_volumes(sizes, path)
    return sizes[0], sizes[1], sizes[2]


def _offset(header: Any, path: Path) -> int:
    """Where the voxels begin in a single file; behind header and extension flag at the least."""
    least = header.dtype.itemsize + 4
    offset = float(header["vox_offset"])
    if offset == 0:
        return least
    if not (offset.is_integer() and least <= offset < 2**53):
        raise damaged_header(f"the voxels are said to begin at byte {offset:g}", path)
    return int(offset)


def _rescale(header: Any, path: Path, stated: Stated) -> tuple[float, float]:
    if stated.rescale is not None:
        return stated.rescale
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or np.isnan(slope):  # the standard's way to say that there is no scaling
        return 1.0, 0.0
    if not np.isfinite([slope, intercept]).all():
        raise SimCroPError(
            f"The rescale slope {slope:g} and intercept {intercept:g} are not numbers to use",
            code="rescale",
            remedy="State them (rescale), such as (1, 0) if the values are Hounsfield units",
            path=path,
        )
    return slope, intercept


def _grid(
    header: Any, shape: tuple[int, int, int], path: Path, stated: Stated
) -> tuple[Grid, list[Note]]:
    notes = []
    millimetres, unit = _UNITS.get(int(header["xyzt_units"]) & 7, (0.0, ""))
    if not millimetres:
        raise damaged_header("its unit of length is unknown", path)
    if unit:
        notes.append(Note("unit", f"The file's geometry is in {unit}, converted to millimetres"))
    pixdim = np.array(header["pixdim"][1:4], dtype=np.float64) * millimetres
    by_sform, by_qform = int(header["sform_code"]) > 0, int(header["qform_code"]) > 0
    if not by_sform and not by_qform:
        grid, note = stated.grid_without_geometry(shape, tuple(pixdim), path)
        return grid, [*notes, note]
    stated.refuse_geometry(path)
    affine = sform_affine(header) if by_sform else qform_affine(header)
    affine[:3] *= millimetres
    grid = affine_grid(shape, affine, path)
    if by_sform and by_qform and not _agrees(header, grid, millimetres):
        notes.append(
            Note(
                "forms-disagree",
                "The file states its geometry twice and the two disagree; the sform is used, not "
                "the qform",
            )
        )
    elif not np.allclose(pixdim, grid.spacing_mm, rtol=0.01):
        notes.append(
            Note(
                "spacing-disagrees",
                f"The header's voxel size {' x '.join(f'{p:.4g}' for p in pixdim)} mm disagrees "
                "with its geometry; the geometry is used",
            )
        )
    return grid, notes


def _agrees(header: Any, grid: Grid, millimetres: float) -> bool:
    """Whether the qform puts every corner within a tenth of a voxel of where the sform does."""
    affine = qform_affine(header)
    affine[:3] *= millimetres
    try:
        other = Grid(grid.shape, affine)
    except ValueError:
        return False
    return grid.matches(other, tolerance_mm=0.1 * min(grid.spacing_mm))


def _not_nifti(path: Path) -> SimCroPError:
    return not_a_volume(
        "This is not a NIfTI file, or its header is damaged (Analyze files, which do not say "
        "where left is, are not read)",
        path,
    )
