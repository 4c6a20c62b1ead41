"""A chest CT in Hounsfield units, with its place in the patient and what was done on reading."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcrop_core.errors import sentence
from simcrop_core.geometry import Grid


@dataclass(frozen=True, slots=True)
class Note:
    """Something a person should know about how an input was read.

    ``code`` is short and stable (``"gantry-tilt"``); ``text`` is one plain sentence (control
    characters are taken out and the full stop is put if it is missing).
    """

    code: str
    text: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", sentence(self.text))

    def to_dict(self) -> dict[str, str]:
        return {"code": self.code, "text": self.text}


@dataclass(frozen=True, eq=False)
class CTVolume:
    """A CT volume; immutable.

    Attributes
    ----------
    hu_XYZ
        Hounsfield units, int16 where the file's values allow it, else float32; read-only.
        Any memory order.
    grid
        Voxel <-> RAS millimetres.
    source
        The file or folder it came from, for messages to the person at this machine; never
        written into results.
    format
        ``"NIfTI"``, ``"DICOM"``, ``"NRRD"``, ``"MetaImage"``, ``"NPZ"`` or ``"array"``.
    notes
        What was done or found on reading.
    """

    hu_XYZ: NDArray[np.int16] | NDArray[np.float32]
    grid: Grid
    source: Path | None = None
    format: str = "array"
    notes: tuple[Note, ...] = field(default=())

    def __post_init__(self) -> None:
        if self.hu_XYZ.dtype not in (np.dtype(np.int16), np.dtype(np.float32)):
            raise TypeError(f"Hounsfield units are int16 or float32, not {self.hu_XYZ.dtype}.")
        if self.hu_XYZ.shape != self.grid.shape:
            raise ValueError(f"Array {self.hu_XYZ.shape} does not fit grid {self.grid.shape}.")
        view = self.hu_XYZ.view()
        view.setflags(write=False)
        object.__setattr__(self, "hu_XYZ", view)
        object.__setattr__(self, "notes", tuple(self.notes))

    def __setstate__(self, state: dict[str, Any]) -> None:
        # NumPy pickles values, not the flag: a copy in another process is as immutable.
        self.__dict__.update(state)
        self.hu_XYZ.setflags(write=False)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.grid.shape

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        return self.grid.spacing_mm

    @cached_property
    def sha256(self) -> str:
        """Digest of the values and their geometry: the same scan gives the same digest."""
        digest = hashlib.sha256()
        digest.update(repr((self.shape, self.hu_XYZ.dtype.str)).encode())
        digest.update(np.round(self.grid.affine, 6).tobytes())
        # Memory order must not matter, and no copy of the whole may be made.
        for z in range(0, self.shape[2], 16):
            digest.update(np.ascontiguousarray(self.hu_XYZ[:, :, z : z + 16].T).data)
        return digest.hexdigest()

    @property
    def pseudonym(self) -> str:
        """A name for the scan that tells nothing of the patient or the file."""
        return f"ct-{self.sha256[:10]}"

    def with_notes(self, notes: Iterable[Note]) -> CTVolume:
        """The same volume with further notes."""
        return replace(self, notes=(*self.notes, *notes))

    def __repr__(self) -> str:
        size = " x ".join(str(n) for n in self.shape)
        spacing = " x ".join(f"{s:.4g}" for s in self.spacing_mm)
        extent = " x ".join(
            f"{n * s:.0f}" for n, s in zip(self.shape, self.spacing_mm, strict=True)
        )
        notes = f", {len(self.notes)} note{'s' * (len(self.notes) != 1)}" if self.notes else ""
        return (
            f"CTVolume({self.format}: {size} voxels of {spacing} mm = {extent} mm, "
            f"axes to {self.grid.axcodes}, {self.hu_XYZ.dtype}{notes})"
        )
