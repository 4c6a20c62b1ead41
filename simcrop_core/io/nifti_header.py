"""The NIfTI-1 and NIfTI-2 headers as records (nifti.nimh.nih.gov, nifti1.h and nifti2.h)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

NIFTI1 = np.dtype(
    [
        ("sizeof_hdr", "<i4"),
        ("unused_analyze", "V35"),
        ("dim_info", "u1"),
        ("dim", "<i2", 8),
        ("intent_p", "<f4", 3),
        ("intent_code", "<i2"),
        ("datatype", "<i2"),
        ("bitpix", "<i2"),
        ("slice_start", "<i2"),
        ("pixdim", "<f4", 8),
        ("vox_offset", "<f4"),
        ("scl_slope", "<f4"),
        ("scl_inter", "<f4"),
        ("slice_end", "<i2"),
        ("slice_code", "u1"),
        ("xyzt_units", "u1"),
        ("cal_max", "<f4"),
        ("cal_min", "<f4"),
        ("slice_duration", "<f4"),
        ("toffset", "<f4"),
        ("glmax", "<i4"),
        ("glmin", "<i4"),
        ("descrip", "S80"),
        ("aux_file", "S24"),
        ("qform_code", "<i2"),
        ("sform_code", "<i2"),
        ("quatern", "<f4", 3),
        ("qoffset", "<f4", 3),
        ("srow", "<f4", (3, 4)),
        ("intent_name", "S16"),
        ("magic", "S4"),
    ]
)

NIFTI2 = np.dtype(
    [
        ("sizeof_hdr", "<i4"),
        ("magic", "V8"),
        ("datatype", "<i2"),
        ("bitpix", "<i2"),
        ("dim", "<i8", 8),
        ("intent_p", "<f8", 3),
        ("pixdim", "<f8", 8),
        ("vox_offset", "<i8"),
        ("scl_slope", "<f8"),
        ("scl_inter", "<f8"),
        ("cal_max", "<f8"),
        ("cal_min", "<f8"),
        ("slice_duration", "<f8"),
        ("toffset", "<f8"),
        ("slice_start", "<i8"),
        ("slice_end", "<i8"),
        ("descrip", "S80"),
        ("aux_file", "S24"),
        ("qform_code", "<i4"),
        ("sform_code", "<i4"),
        ("quatern", "<f8", 3),
        ("qoffset", "<f8", 3),
        ("srow", "<f8", (3, 4)),
        ("slice_code", "<i4"),
        ("xyzt_units", "<i4"),
        ("intent_code", "<i4"),
        ("intent_name", "S16"),
        ("dim_info", "u1"),
        ("unused", "V15"),
    ]
)

#: datatype codes of single real numbers.
DTYPES = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    64: "f8",
    256: "i1",
    512: "u2",
    768: "u4",
    1024: "i8",
    1280: "u8",
}


def layout_of(start: bytes) -> np.dtype[Any] | None:
    """Version and byte order by the size that the first four bytes state, or None."""
    for order in ("<", ">"):
        size = int.from_bytes(start[:4], "little" if order == "<" else "big")
        for layout in (NIFTI1, NIFTI2):
            if size == layout.itemsize and len(start) >= 4:
                return layout.newbyteorder(order)
    return None


def qform_affine(header: Any) -> NDArray[np.float64]:
    """Affine of the quaternion form (nifti1.h, method 2); not finite where that is impossible."""
    b, c, d = (float(v) for v in header["quatern"])
    rest = 1.0 - (b * b + c * c + d * d)
    if not rest >= -1e-5 or min(header["pixdim"][1:4]) < 0:
        return np.full((4, 4), np.nan)
    if rest < 1e-7:  # a half turn: the three carry rounding, and a is zero
        length = (b * b + c * c + d * d) ** 0.5
        a, b, c, d = 0.0, b / length, c / length, d / length
    else:
        a = rest**0.5
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    scale = np.array(header["pixdim"][1:4], dtype=np.float64)
    if float(header["pixdim"][0]) < 0:
        scale[2] = -scale[2]
    affine = np.eye(4)
    affine[:3, :3] = rotation * scale
    affine[:3, 3] = header["qoffset"]
    return affine


def sform_affine(header: Any) -> NDArray[np.float64]:
    """Affine of the three rows (nifti1.h, method 3)."""
    return np.vstack([np.array(header["srow"], dtype=np.float64), [0.0, 0.0, 0.0, 1.0]])


def quaternion(rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """b, c, d of the unit quaternion of a proper rotation, with a >= 0."""
    # Bar-Itzhack's method: the eigenvector of the largest eigenvalue, stable at half turns.
    m = rotation
    k = np.array(
        [
            [m[0, 0] - m[1, 1] - m[2, 2], m[0, 1] + m[1, 0], m[0, 2] + m[2, 0], m[2, 1] - m[1, 2]],
            [m[0, 1] + m[1, 0], m[1, 1] - m[0, 0] - m[2, 2], m[1, 2] + m[2, 1], m[0, 2] - m[2, 0]],
            [m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], m[2, 2] - m[0, 0] - m[1, 1], m[1, 0] - m[0, 1]],
            [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], m[0, 0] + m[1, 1] + m[2, 2]],
        ]
    )
    _, vectors = np.linalg.eigh(k / 3)
    b, c, d, a = vectors[:, -1]
    return np.array([b, c, d]) * (1.0 if a >= 0 else -1.0)
