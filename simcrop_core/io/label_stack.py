"""Masks stacked in one NIfTI file of four axes, which many programs write without geometry."""

from __future__ import annotations

from math import prod
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simcrop_core.errors import SimCroPError
from simcrop_core.io.guard import Limits, check_held
from simcrop_core.io.labels import not_labels
from simcrop_core.io.nifti_header import DTYPES, layout_of
from simcrop_core.io.payload import Payload
from simcrop_core.io.refusals import damaged_header
from simcrop_core.io.sniff import sniff


def read_label_stack(
    path: str | PathLike[str], *, limits: Limits | None = None
) -> NDArray[np.bool_]:
    """Where the values of a NIfTI file of three or four axes are not 0.

    The header's geometry is left aside: that of a stack whose first axis counts the masks cannot
    be right, because NIfTI knows space only in the first three.

    Returns
    -------
    masks
        The file's axes, the first fastest in memory.

    Raises
    ------
    SimCroPError
        ``not-labels`` where values are not whole numbers, or the file is no NIfTI; else for every
        fault of the file.
    """
    file = Path(path)
    bounds = limits or Limits()
    found = sniff(file)
    if found.format != "NIfTI":
        raise SimCroPError(
            f"Stacked masks are read from NIfTI, and this is {found.format}",
            path=file,
            code="not-labels",
            remedy="Convert the masks to NIfTI.",
        )
    with Payload(file, found.compression) as payload:
        start = payload.read(4)
        layout = layout_of(start)
        if layout is None:
            raise damaged_header("it has no size that NIfTI knows", file)
        header = np.frombuffer(start + payload.read(layout.itemsize - 4), layout)[0]
        rank, code = int(header["dim"][0]), int(header["datatype"])
        sizes = [int(n) for n in header["dim"][1 : 1 + max(0, min(rank, 7))]]
        if not 3 <= rank <= 7 or min(sizes) < 1 or any(n != 1 for n in sizes[4:]):
            raise damaged_header("it does not declare three or four axes", file)
        if code not in DTYPES:
            raise not_labels(file)
        shape, dtype = tuple(sizes[:4]), np.dtype(DTYPES[code])
        spatial = sorted(shape)[-3:]
        # A voxel of the scan has a value in each mask.
        bounds.check(spatial, prod(shape) * dtype.itemsize / prod(spatial), file)
        check_held(prod(shape) * dtype.itemsize, payload.held, payload.compression, file)
        offset = float(header["vox_offset"]) or float(layout.itemsize + 4)
        if not (offset.is_integer() and layout.itemsize <= offset < 2**53):
            raise damaged_header(f"the voxels are said to begin at byte {offset:g}", file)
        payload.skip(int(offset) - layout.itemsize)
        slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
        scaled = slope not in (0.0, 1.0) and np.isfinite(slope)
        masks = np.zeros(shape, bool, order="F")
        part = np.empty(prod(shape[:-1]), dtype.newbyteorder(header.dtype["datatype"].byteorder))
        for last in range(shape[-1]):
            payload.readinto(memoryview(part.view(np.uint8).data))
            values = part * slope + intercept if scaled or (slope and intercept) else part
            if values.dtype.kind == "f" and not _whole(values):
                raise not_labels(file)
            masks[..., last] = (values != 0).reshape(shape[:-1], order="F")
        payload.finish()
    masks.setflags(write=False)
    return masks


def _whole(values: NDArray[np.floating]) -> bool:
    return bool(np.isfinite(values).all() and (values == np.rint(values)).all())
