"""File -> model input in one go: what is unpacked is prepared while the rest is being unpacked."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from typing import Any

from simcrop_core.errors import SimCroPError
from simcrop_core.geometry import Grid
from simcrop_core.input_spec import InputSpec
from simcrop_core.io import read_volume
from simcrop_core.prepare import Placement, Preparation, Prepared, check_placement, prepare
from simcrop_core.resample import Array
from simcrop_core.volume import CTVolume


def read_and_prepare(
    path: str | PathLike[str],
    spec: InputSpec | None = None,
    *,
    placement: Placement = "center",
    **reading: Any,
) -> tuple[CTVolume, Prepared]:
    """A scan and the model's input made of it, bit by bit as `read_volume`, then `prepare` give
    them, in less time where a packed file's voxels are int16.

    Unpacking is one thread's work; a second one resamples the planes that are there, so that next
    to nothing is left to do at the end of the file. All else is prepared once it is read: other
    files and voxels, scans whose axes run across the model's, and the placement ``"lungs"``, for
    which the whole scan is looked at first.

    Parameters
    ----------
    path, reading
        The scan and options of `simcrop_core.io.read_volume`, by name.
    spec, placement
        As in `simcrop_core.prepare.prepare`.

    Raises
    ------
    SimCroPError
        As `read_volume` and `prepare`; an unknown placement before anything is read.
    """
    check_placement(placement)
    wanted = InputSpec() if spec is None else spec
    begun: list[Preparation] = []

    def begin(scan: Grid, hu_XYZ: Array) -> Callable[[int], None]:
        try:
            begun.append(Preparation(hu_XYZ, scan, wanted, placement))
        except SimCroPError:  # told below, unless the reader has something to say first
            return lambda filled: None
        return begun[0].advance

    observer = None if placement == "lungs" else begin
    volume = read_volume(path, **reading, observer=observer)
    if begun and begun[0].is_of(volume):
        return volume, begun[0].finish()
    begun.clear()
    return volume, prepare(volume, wanted, placement=placement)
