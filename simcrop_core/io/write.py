"""NIfTI files that say nothing but voxels and geometry, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from simcrop_core.errors import SimCroPError
from simcrop_core.geometry import Grid
from simcrop_core.io.nifti_header import DTYPES, NIFTI1, qform_affine, quaternion
from simcrop_core.outputs import whole_file
from simcrop_core.volume import CTVolume

_CODES = {np.dtype(name): code for code, name in DTYPES.items()}
_SCANNER = 1  # NIFTI_XFORM_SCANNER_ANAT
_MILLIMETRES = 2
_STEP = 1 << 20


def write_volume(path: str | PathLike[str], volume: CTVolume) -> None:
    """Write a CT as NIfTI-1 (``.nii`` or ``.nii.gz``): int16 or float32 Hounsfield units.

    Nothing of the patient, the source or the Notes is written. The affine goes into the sform
    and, unless the axes are sheared (which a quaternion cannot say), into the qform as well.
    Same volume, same bytes. An existing file is replaced once the new one is whole.

    Raises
    ------
    SimCroPError
        ``cannot-write``, ``suffix`` or ``too-large``.
    """
    _write(Path(path), volume.hu_XYZ, volume.grid)


def write_labels(
    path: str | PathLike[str],
    labels_XYZ: NDArray[Any],
    grid: Grid,
    names: Mapping[int, str] | None = None,
) -> None:
    """Write a mask as NIfTI-1, in the smallest of uint8, uint16 and int32 that holds it.

    Parameters
    ----------
    path
        ``.nii`` or ``.nii.gz``.
    labels_XYZ
        Whole numbers from 0, or booleans; 0 is background.
    grid
        Their geometry.
    names
        What the numbers mean. NIfTI has no place for it: it goes into a JSON file beside, whose
        name ends in ``.json`` instead.

    Raises
    ------
    SimCroPError
        As `write_volume`.
    """
    labels = np.asarray(labels_XYZ)
    if labels.dtype.kind not in "iub":
        raise TypeError(f"Labels are whole numbers, not {labels.dtype}.")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= 2**31:
        raise ValueError(f"Labels lie between 0 and 2147483647, not {low} and {high}.")
    dtype = np.uint8 if high < 2**8 else np.uint16 if high < 2**16 else np.int32
    file = Path(path)
    _write(file, labels, grid, np.dtype(dtype))
    if names is not None:
        text = json.dumps({str(k): names[k] for k in sorted(names)}, ensure_ascii=False, indent=1)
        side = file.with_name(file.name[: -len(_suffix(file))] + ".json")
        with whole_file(side) as hidden:
            hidden.write_text(f"{text}\n", encoding="utf-8")


def write_map(path: str | PathLike[str], values_XYZ: NDArray[Any], grid: Grid) -> None:
    """Write a map of real numbers (similarity, probability) as NIfTI-1, float32.

    Raises
    ------
    SimCroPError
        As `write_volume`.
    """
    _write(Path(path), np.asarray(values_XYZ), grid, np.dtype(np.float32))


def _write(path: Path, array: NDArray[Any], grid: Grid, dtype: np.dtype[Any] | None = None) -> None:
    if array.shape != grid.shape:
        raise ValueError(f"Array {array.shape} does not fit grid {grid.shape}.")
    if max(grid.shape) >= 2**15:
        raise SimCroPError(
            f"The array has {max(grid.shape)} voxels along an axis, and NIfTI-1 holds 32767",
            code="too-large",
            remedy="Crop the volume",
            path=path,
        )
    stored = dtype or array.dtype
    packed = _suffix(path).endswith(".gz")
    with whole_file(path) as hidden, hidden.open("xb") as out, _packing(out, packed) as stream:
        stream(_header(grid, stored))
        # A plane at a time, in the file's order: no copy of the whole is made.
        for z in range(grid.shape[2]):
            plane = np.asfortranarray(array[:, :, z]).astype(stored.newbyteorder("<"), copy=False)
            stream(plane.T.tobytes())


def _header(grid: Grid, dtype: np.dtype[Any]) -> bytes:
    header = np.zeros((), NIFTI1)
    header["sizeof_hdr"] = NIFTI1.itemsize
    header["magic"] = b"n+1"
    header["dim"] = (3, *grid.shape, 1, 1, 1, 1)
    header["datatype"] = _CODES[dtype]
    header["bitpix"] = 8 * dtype.itemsize
    header["vox_offset"] = NIFTI1.itemsize + 4
    header["scl_slope"] = 1
    header["xyzt_units"] = _MILLIMETRES
    header["pixdim"] = (1, *grid.spacing_mm, 0, 0, 0, 0)
    header["sform_code"] = _SCANNER
    header["srow"] = grid.affine[:3]
    rotation = grid.affine[:3, :3] / np.array(grid.spacing_mm)
    if np.linalg.det(rotation) < 0:
        header["pixdim"][0] = -1
        rotation = rotation * (1.0, 1.0, -1.0)
    header["quatern"] = quaternion(rotation)
    header["qoffset"] = grid.affine[:3, 3]
    try:
        same = grid.matches(Grid(grid.shape, qform_affine(header)), 0.05 * min(grid.spacing_mm))
    except ValueError:
        same = False
    if same:
        header["qform_code"] = _SCANNER
    else:
        header["quatern"] = header["qoffset"] = 0
    return header.tobytes() + b"\0\0\0\0"  # no extensions


@contextmanager
def _packing(out: IO[bytes], packed: bool) -> Iterator[Callable[[bytes], object]]:
    """Where to put bytes; packed ones carry neither name nor time."""
    if not packed:
        yield out.write
        return
    from isal import igzip, isal_zlib

    with igzip.IGzipFile(
        filename="",
        mode="wb",
        compresslevel=isal_zlib.ISAL_BEST_COMPRESSION,
        fileobj=out,
        mtime=0,
    ) as file:
        yield file.write


def _suffix(path: Path) -> str:
    for suffix in (".nii.gz", ".nii"):
        if path.name.lower().endswith(suffix) and len(path.name) > len(suffix):
            return suffix
    raise SimCroPError(
        "The name must end in .nii or .nii.gz",
        code="suffix",
        remedy="Choose such a name",
        path=path,
    )
