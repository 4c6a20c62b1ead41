"""Small scans made by hand for the tests of reading and writing."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

SHAPE = (48, 44, 50)
#: 211 x 211 x 205 mm, axes to LPS, off centre: as large as a chest, with unequal steps.
AFFINE = np.array([[-4.4, 0, 0, 117.5], [0, -4.8, 0, 130.25], [0, 0, 4.1, -700.125], [0, 0, 0, 1]])


def chest(shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> np.ndarray:
    """int16 Hounsfield units: a body with two lungs and a spine in air, with noise."""
    return _chest(shape, seed).copy(order="F")


@cache
def _chest(shape: tuple[int, int, int], seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    hu = np.full(shape, -1000.0)
    hu[x**2 / 0.8 + y**2 / 0.6 < 1] = 40
    for side in (-0.4, 0.4):
        hu[((x - side) / 0.3) ** 2 + (y / 0.5) ** 2 + (z / 0.9) ** 2 < 1] = -850
    hu[x**2 + (y - 0.6) ** 2 < 0.02] = 700
    return (hu + rng.normal(0, 15, shape)).round().astype(np.int16)


def oblique_affine(degrees: float = 20.0, shear: float = 0.0) -> np.ndarray:
    """AFFINE turned about two axes, and sheared along the third."""
    a, b = np.radians(degrees), np.radians(degrees / 2)
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = AFFINE.copy()
    affine[:3, :3] = about_x @ about_z @ AFFINE[:3, :3]
    affine[:3, 2] += shear * affine[:3, 1]
    return affine


def save_nifti(
    path: Path,
    array: np.ndarray | None = None,
    affine: np.ndarray | None = AFFINE,
    *,
    version: int = 1,
    endian: str = "<",
    **fields: Any,
) -> Path:
    """A NIfTI by nibabel, with header fields set as given (also to impossible values)."""
    array = chest() if array is None else array
    kind, image = {
        1: (nib.Nifti1Header, nib.Nifti1Image),
        2: (nib.Nifti2Header, nib.Nifti2Image),
    }[version]
    header = kind(endianness=endian)
    header.set_data_dtype(array.dtype)
    made = image(array, affine, header)
    if not fields:
        made.to_filename(path)
        return path
    slope, inter = fields.pop("scl_slope", None), fields.pop("scl_inter", None)
    plain = path.with_name("plain.nii")
    made.to_filename(plain)
    raw = bytearray(plain.read_bytes())
    plain.unlink()
    record = np.frombuffer(raw, header.structarr.dtype.newbyteorder(endian), count=1)
    if slope is not None:
        record["scl_slope"] = slope
    if inter is not None:
        record["scl_inter"] = inter
    for name, value in fields.items():
        record[name] = value
    data = bytes(raw)
    if path.name.endswith(".gz"):
        import gzip

        data = gzip.compress(data, mtime=0)
    path.write_bytes(data)
    return path


def note_codes(volume: Any) -> set[str]:
    return {note.code for note in volume.notes}
