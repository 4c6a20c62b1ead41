"""The voxels of a file as a stream of bytes: unpacked, counted, and checked to the last one.

A checksum stands at the end of a compressed stream, so damage is known only to who reads that
far. `Payload.finish` does, for every reader here.
"""

from __future__ import annotations

import io
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from simcrop_core.geometry import Grid
from simcrop_core.io.guard import Limits, check_held, reading, regular_size
from simcrop_core.io.hounsfield import BLOCK, HounsfieldBuffer
from simcrop_core.io.refusals import damaged, damaged_header, truncated
from simcrop_core.volume import Note

Compression = Literal["raw", "gzip", "zlib", "bzip2", "deflate"]

#: Bytes unpacked at a time.
_STEP = 1 << 20
#: Voxels of int16 unpacked while another thread sees to those before and behind.
_STRETCH = 1 << 21
#: Stretches whose memory is provided ahead of the unpacker.
_AHEAD = 3
#: More than this between header and voxels, or behind the voxels, is not read through.
_MOST_BESIDE = 1 << 26


#: Told of a volume while it is read: called with its grid and the (X, Y, Z) array that its voxels
#: go to, answers with what is called each time more of them are there, with how many they are, in
#: order of memory. Both calls come from another thread than the reader's, one at a time, and have
#: ended when the reader returns or raises; what they raise, the reader raises. A reader calls
#: neither where voxels do not go straight to their place, and need not tell of the last ones.
Observer = Callable[[Grid, NDArray[Any]], Callable[[int], None]]
_Begin = Callable[[NDArray[Any]], Callable[[int], None]]


class Payload:
    """Unpacked bytes of one stretch of a file.

    Parameters
    ----------
    path
        The file.
    compression
        How the stretch is packed; ``"deflate"`` is a bare stream whose ``crc32`` is known.
    offset, length
        Where the stretch lies in the file; to its end by default.
    crc32
        Checksum of the unpacked bytes, for ``"deflate"`` and ``"raw"`` from an archive.

    Raises
    ------
    SimCroPError
        On reading: ``truncated``, ``damaged``, or what `guard.reading` says.
    """

    def __init__(
        self,
        path: Path,
        compression: Compression,
        offset: int = 0,
        length: int | None = None,
        crc32: int | None = None,
    ) -> None:
        self.path = path
        self.compression = compression
        self.held = max(0, regular_size(path) - offset)
        if length is not None:
            if length > self.held:
                raise truncated(path)
            self.held = length
        self._crc32 = crc32
        self._crc = 0
        self._owner: Any = None
        with self._sound():
            self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed by __exit__
            self._file.seek(offset)
            self._stream = self._opened(self._file)

    def _opened(self, file: io.FileIO) -> Any:
        packed: Any = file if self.compression == "gzip" else _Stretch(file, self.held)
        if self.compression == "raw":
            return packed
        if self.compression == "gzip":
            from isal import igzip

            # Its own readinto makes a copy of every block; the buffer below it unpacks in place,
            # for as long as its owner lives.
            self._owner = igzip.IGzipFile(fileobj=file, mode="rb")
            return getattr(self._owner, "_buffer", self._owner)
        return _Unpacker(packed, self.compression)

    def __enter__(self) -> Payload:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    @contextmanager
    def _sound(self) -> Iterator[None]:
        """Turn what the unpackers say into a refusal."""
        import gzip

        from isal import igzip_lib

        try:
            with reading(self.path):
                try:
                    yield
                except (gzip.BadGzipFile, _DamagedError) as e:  # an OSError that is not the disk's
                    raise damaged(self.path) from e
                except OSError as e:
                    if e.errno is None:  # bzip2's "Invalid data stream"
                        raise damaged(self.path) from e
                    raise
        except EOFError as e:
            raise truncated(self.path) from e
        except (zlib.error, igzip_lib.IsalError) as e:  # type: ignore[misc]
            raise damaged(self.path) from e

    def readinto(self, target: memoryview) -> None:
        """Fill ``target`` (bytes) to the end."""
        done = 0
        with self._sound():
            while done < len(target):
                count = self._stream.readinto(target[done : done + _STEP])
                if not count:
                    raise truncated(self.path)
                if self._crc32 is not None:
                    self._crc = _crc32(target[done : done + count], self._crc)
                done += count

    def read(self, count: int) -> bytes:
        """Exactly ``count`` bytes (a header's worth)."""
        data = bytearray(count)
        self.readinto(memoryview(data))
        return bytes(data)

    def skip(self, count: int) -> None:
        """Pass over ``count`` bytes."""
        if count > _MOST_BESIDE:
            raise damaged_header(f"its voxels begin {count} bytes behind it", self.path)
        scratch = memoryview(bytearray(min(count, _STEP)))
        while count > 0:
            part = scratch[:count]
            self.readinto(part)
            count -= len(part)

    def finish(self) -> int:
        """Read on to the end, where the checksum stands; the bytes that were left over."""
        scratch = memoryview(bytearray(_STEP))
        left = 0
        with self._sound():
            while count := self._stream.readinto(scratch):
                if self._crc32 is not None:
                    self._crc = _crc32(scratch[:count], self._crc)
                left += count
                if left > _MOST_BESIDE:
                    raise damaged_header("far more data follows than it declares", self.path)
        if self._crc32 is not None and self._crc != self._crc32:
            raise damaged(self.path)
        return left


def read_voxels(
    payload: Payload,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    limits: Limits,
    slope: float = 1.0,
    intercept: float = 0.0,
    begin: _Begin | None = None,
) -> HounsfieldBuffer:
    """Read ``shape`` voxels of ``dtype`` from where the payload stands.

    int16 that needs no scaling goes from the unpacker straight to its place; all else passes
    through one block. The size is held against the limits, and against what the file's bytes
    can unpack to, before anything is allocated. ``begin`` is an `Observer` of the flat voxels.
    """
    needed = limits.check(shape, dtype.itemsize, payload.path)
    check_held(needed, payload.held, payload.compression, payload.path)
    voxels = prod(shape)
    buffer = HounsfieldBuffer(voxels)
    if dtype.kind == "i" and dtype.itemsize == 2 and slope == 1 and intercept == 0:
        _read_in_place(payload, buffer, begin, swap=not dtype.isnative)
        return buffer
    scratch = np.empty(min(voxels, BLOCK), dtype)
    raw = scratch.view(np.uint8).data
    for start in range(0, voxels, BLOCK):
        count = min(BLOCK, voxels - start)
        payload.readinto(raw[: count * dtype.itemsize])
        buffer.put(scratch[:count].astype(dtype.newbyteorder("="), copy=False), slope, intercept)
    return buffer


def read_to_end(
    payload: Payload,
    grid: Grid,
    dtype: np.dtype[Any],
    limits: Limits,
    slope: float = 1.0,
    intercept: float = 0.0,
    observer: Observer | None = None,
) -> tuple[HounsfieldBuffer, list[Note]]:
    """`read_voxels`, the first axis fastest, then what follows them to the checksum, with a Note
    if it is data."""
    begin = None if observer is None else partial(_begin, observer, grid)
    buffer = read_voxels(payload, grid.shape, dtype, limits, slope, intercept, begin)
    extra = payload.finish()
    if not extra:
        return buffer, []
    return buffer, [Note("extra-data", f"{extra} bytes behind the last voxel were not used")]


def _begin(observer: Observer, grid: Grid, flat: NDArray[Any]) -> Callable[[int], None]:
    return observer(grid, flat.reshape(grid.shape, order="F"))


def _read_in_place(
    payload: Payload, buffer: HounsfieldBuffer, begin: _Begin | None, *, swap: bool
) -> None:
    """int16 straight to its place, on two threads.

    Unpacking is one thread's work and takes nearly all of the time. So that nothing else adds
    to it, a second thread has the memory of the next stretches provided, and looks at the values
    of the last one.
    """
    ends = [*range(_STRETCH, buffer.flat.size, _STRETCH), buffer.flat.size]
    stretches = list(zip([0, *ends[:-1]], ends, strict=True))
    unpacking = True

    def placed(start: int, end: int) -> None:
        buffer.placed(start, end)
        if begun is not None and unpacking:  # afterwards nobody would wait for it in parallel
            begun.result()(end)

    with ThreadPoolExecutor(1) as beside:
        claimed = deque(beside.submit(buffer.claim, *s) for s in stretches[:_AHEAD])
        begun = None if begin is None else beside.submit(begin, buffer.flat)
        done = []
        try:
            for number, (start, end) in enumerate(stretches, _AHEAD):
                claim = claimed.popleft()
                if not claim.cancel():  # once begun, it would write over what is unpacked
                    claim.result()
                if number < len(stretches):
                    claimed.append(beside.submit(buffer.claim, *stretches[number]))
                part = buffer.flat[start:end]
                payload.readinto(memoryview(part.data).cast("B"))
                if swap:
                    part.byteswap(inplace=True)
                done.append(beside.submit(placed, start, end))
        finally:
            unpacking = False
        for each in done:
            each.result()
        if begun is not None:
            begun.result()


class _DamagedError(OSError):
    """A packed stream is followed by what is none."""


class _Stretch(io.RawIOBase):
    """The next ``length`` bytes of a file."""

    def __init__(self, file: io.FileIO, length: int) -> None:
        self._file = file
        self._left = length

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        count = self._file.readinto(memoryview(target)[: self._left]) if self._left else 0
        self._left -= count or 0
        return count or 0


class _Unpacker(io.RawIOBase):
    """zlib, bare deflate and bzip2 as a stream that never holds more than a step."""

    def __init__(self, packed: io.RawIOBase, compression: Compression) -> None:
        self._packed = packed
        self._one_of_many = compression == "bzip2"
        self._fresh = _decompressor(compression)
        self._state = self._fresh()

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        view = memoryview(target)
        while True:
            if self._state.eof and not self._next_stream():
                return 0
            data = b""
            if self._state.needs_input and not (data := self._packed.read(1 << 18) or b""):
                raise EOFError
            unpacked = self._state.decompress(data, len(view))
            if unpacked:
                view[: len(unpacked)] = unpacked
                return len(unpacked)

    def _next_stream(self) -> bool:
        rest = self._state.unused_data or self._packed.read(1 << 18) or b""
        if not rest:
            return False
        if not self._one_of_many:
            raise _DamagedError("bytes behind the end of the stream")
        self._state = self._fresh()
        self._packed = _Chained(rest, self._packed)
        return True


class _Chained(io.RawIOBase):
    """Bytes that were read ahead, then the rest of the stretch."""

    def __init__(self, ahead: bytes, rest: io.RawIOBase) -> None:
        self._ahead = io.BytesIO(ahead)
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        return self._ahead.readinto(target) or self._rest.readinto(target)


def _decompressor(compression: Compression) -> Any:
    if compression == "bzip2":
        from bz2 import BZ2Decompressor

        return BZ2Decompressor
    from isal import igzip_lib

    flag = igzip_lib.DECOMP_ZLIB if compression == "zlib" else igzip_lib.DECOMP_DEFLATE
    return lambda: igzip_lib.IgzipDecompressor(flag=flag)


def _crc32(data: memoryview, value: int) -> int:
    from isal import isal_zlib

    return int(isal_zlib.crc32(data, value))
