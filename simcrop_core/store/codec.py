"""Arrays as Blosc2 chunks, and checksums.

A file of the store is one Blosc2 chunk: any Blosc2 reads it. LZ4HC behind a byte shuffle was
chosen by measurement (``docs/data.md``): about half of a CT's size, and unpacked faster than a
disk delivers it. Chunks, unlike Blosc2's arrays, are unpacked without Python's lock.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from isal.isal_zlib import crc32
from numpy.typing import NDArray

_LEVEL = 5


def pack(array: NDArray[Any]) -> bytes:
    """The array's values in C order, compressed without loss."""
    import blosc2

    return bytes(
        blosc2.compress2(
            np.ascontiguousarray(array),
            codec=blosc2.Codec.LZ4HC,
            clevel=_LEVEL,
            filters=[blosc2.Filter.SHUFFLE],
            filters_meta=[0],
            typesize=array.dtype.itemsize,
            nthreads=1,
        )
    )


def unpack(chunk: bytes, out: NDArray[Any]) -> None:
    """Unpack into ``out`` (C order); the checksum of ``chunk`` has been compared before.

    Raises
    ------
    ValueError
        The chunk holds another number of bytes than ``out``.
    """
    import blosc2

    held = int(blosc2.get_cbuffer_sizes(chunk)[0])
    if held != out.nbytes:
        raise ValueError(f"The chunk holds {held} bytes, not {out.nbytes}.")
    if held:
        blosc2.set_releasegil(True)  # so that threads unpack side by side
        blosc2.decompress2(chunk, dst=out, nthreads=1)


def checksum(data: bytes) -> int:
    """CRC-32: finds every flipped bit, and any damage but for one in four thousand million."""
    return int(crc32(data))
