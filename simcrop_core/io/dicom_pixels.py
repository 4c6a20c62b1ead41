"""The stored values of one DICOM slice, and their Hounsfield units."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcrop_core.errors import SimCroPError
from simcrop_core.io.dicom_codec import CodecError, shared_pool
from simcrop_core.io.dicom_header import UNCOMPRESSED, Frame, PixelFormat, damaged, open_dataset
from simcrop_core.io.guard import Limits, reading

#: What padding becomes, and the Hounsfield units beyond which declared padding is replaced.
AIR_HU, DENSEST_HU = -1024, 3071
_DEFLATED = "1.2.840.10008.1.2.1.99"
_RLE = "1.2.840.10008.1.2.5"
_PIXEL_DATA = 0x7FE00010
_ITEM, _END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
#: Compressed syntaxes by the package that reads them (PS3.6 annex A).
_GDCM = "python-gdcm"
_CODECS = {
    "1.2.840.10008.1.2.4.50": ("JPEG", _GDCM),
    "1.2.840.10008.1.2.4.51": ("JPEG extended", _GDCM),
    "1.2.840.10008.1.2.4.57": ("JPEG lossless", _GDCM),
    "1.2.840.10008.1.2.4.70": ("JPEG lossless", _GDCM),
    "1.2.840.10008.1.2.4.80": ("JPEG-LS", _GDCM),
    "1.2.840.10008.1.2.4.81": ("JPEG-LS", _GDCM),
    "1.2.840.10008.1.2.4.90": ("JPEG 2000", _GDCM),
    "1.2.840.10008.1.2.4.91": ("JPEG 2000", _GDCM),
    "1.2.840.10008.1.2.4.201": ("high-throughput JPEG 2000", "pylibjpeg-openjpeg"),
    "1.2.840.10008.1.2.4.202": ("high-throughput JPEG 2000", "pylibjpeg-openjpeg"),
    "1.2.840.10008.1.2.4.203": ("high-throughput JPEG 2000", "pylibjpeg-openjpeg"),
    "1.2.840.10008.1.2.5": ("RLE", "pydicom"),
}
#: Those of them that change values by design.
LOSSY = {f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 81)}


class FrameReader:
    """Reads the pixels of a series; closed as a context manager.

    Compressed frames are decompressed by a few child processes that work ahead in the order in
    which the frames will be asked for. Of a file with many frames the bytes are read once.

    Parameters
    ----------
    limits
        What a deflated file may unpack to.
    order
        The frames in the order in which they will be asked for; others may be asked for too.
    """

    def __init__(self, limits: Limits, order: Sequence[Frame]) -> None:
        self._limits = limits
        self._held: tuple[Path, bytes] = (Path(), b"")
        self._ahead = deque(f for f in order if f.pixels and f.pixels.length is None)
        self._pending: dict[tuple[Path, int], Future[NDArray[Any]]] = {}
        # A child takes as long to start as some twenty slices do: few slices are left to one.
        self._most_pending = 1 + len(self._ahead) // 8

    def __enter__(self) -> FrameReader:
        return self

    def __exit__(self, *_: object) -> None:
        for future in self._pending.values():
            future.cancel()

    def stored(self, frame: Frame) -> NDArray[Any]:
        """The values of one frame as the file stores them, (rows, columns), native byte order.

        All allocated bits are there; see `trimmed`.

        Raises
        ------
        SimCroPError
            ``truncated``, ``damaged``, ``codec-missing`` or an error of reading, naming the file.
        """
        pixels = frame.pixels
        assert pixels is not None
        if pixels.length is None:
            return self._decompressed(frame, pixels)
        if pixels.transfer_syntax in _CODECS:
            raise damaged(frame.path, "The compressed pixels of this slice are not wrapped as such")
        size = pixels.rows * pixels.columns * pixels.bits_allocated // 8
        start = frame.index * size
        if pixels.length < start + size:
            raise damaged(
                frame.path, "This slice has fewer pixels than its header declares", "truncated"
            )
        if pixels.transfer_syntax == _DEFLATED:
            raw = self._payload(frame, pixels)[start : start + size]
        else:
            with reading(frame.path), open(frame.path, "rb", buffering=0) as file:
                file.seek(pixels.offset + start)
                raw = file.read(size)
        if len(raw) < size:
            raise damaged(frame.path, "The file is cut short within its pixels", "truncated")
        order = ">" if pixels.big_endian else "<"
        kind = "i" if pixels.signed else "u"
        values = np.frombuffer(raw, f"{order}{kind}{pixels.bits_allocated // 8}")
        native = values.astype(values.dtype.newbyteorder("="), copy=False)
        return native.reshape(pixels.rows, pixels.columns)

    def _payload(self, frame: Frame, pixels: PixelFormat) -> bytes:
        """The bytes of a pixel element that has to be unpacked, kept until another file's turn."""
        if self._held[0] != frame.path:
            with reading(frame.path), open(frame.path, "rb") as file:
                _, _, stream = open_dataset(frame.path, file, self._limits)
                stream.seek(pixels.offset)
                payload = stream.read()
            if pixels.length is None:
                payload = payload[: _end_of_items(frame.path, payload)]
                _check_declared_size(frame, payload)
            self._held = (frame.path, payload)
        return self._held[1]

    def _decompressed(self, frame: Frame, pixels: PixelFormat) -> NDArray[Any]:
        most = min(self._most_pending, 2 * shared_pool().children)
        while self._ahead and len(self._pending) < most:
            coming = self._ahead.popleft()
            if coming.pixels is not None:
                self._pending[coming.path, coming.index] = self._submit(coming, coming.pixels)
        future = self._pending.pop((frame.path, frame.index), None) or self._submit(frame, pixels)
        try:
            return future.result()
        except CodecError as e:
            raise damaged(
                frame.path,
                f"The pixels of this slice ({_CODECS[pixels.transfer_syntax][0]}) cannot be "
                "decompressed: they are damaged or of a rare kind",
            ) from e

    def _submit(self, frame: Frame, pixels: PixelFormat) -> Future[NDArray[Any]]:
        from pydicom.encaps import get_frame

        payload = self._payload(frame, pixels)
        try:
            encoded = get_frame(payload, frame.index, number_of_frames=pixels.frames)
        except Exception as e:  # whatever a parser meets in damaged bytes
            raise damaged(
                frame.path, "The compressed images in this file cannot be told apart"
            ) from e
        described = {
            "transfer_syntax": pixels.transfer_syntax,
            "rows": pixels.rows,
            "columns": pixels.columns,
            "bits_allocated": pixels.bits_allocated,
            "bits_stored": pixels.bits_stored,
            "pixel_representation": int(pixels.signed),
            "photometric_interpretation": pixels.photometric,
        }
        return shared_pool().submit(encoded, described)


def check_format(frame: Frame) -> None:
    """Refuse pixels that cannot be Hounsfield units, before any are read.

    Raises
    ------
    SimCroPError
        ``not-grey``, ``inverted``, ``damaged``, ``codec-missing`` or ``no-pixels``.
    """
    pixels = frame.pixels
    if pixels is None:
        raise damaged(frame.path, "This slice holds no pixels", "no-pixels")
    if pixels.samples != 1 or pixels.photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise _export(
            frame, "The images are in colour, so they hold no Hounsfield units", "not-grey"
        )
    if pixels.photometric == "MONOCHROME1":
        raise _export(
            frame, "The images are stored inverted (MONOCHROME1), as no CT is", "inverted"
        )
    if pixels.keyword != _PIXEL_DATA or pixels.bits_allocated not in (8, 16, 32):
        raise _export(
            frame,
            f"The pixels are stored in a way that is not supported ({pixels.bits_allocated} bits)",
            "pixel-format",
        )
    if not 1 <= pixels.bits_stored <= pixels.high_bit + 1 <= pixels.bits_allocated:
        raise damaged(
            frame.path,
            f"The header says that {pixels.bits_stored} of {pixels.bits_allocated} bits are used, "
            f"the highest being bit {pixels.high_bit}, which contradicts itself",
        )
    if pixels.length is None:
        _check_codec(frame)


def trimmed(frame: Frame, stored: NDArray[Any]) -> tuple[NDArray[Any], bool]:
    """The values without the bits that do not belong to them, and whether there were any.

    Unused high bits may hold overlays or an unextended sign (PS3.5 section 8.1.1).
    """
    pixels = frame.pixels
    assert pixels is not None
    # A codec puts the lowest used bit at 0, wherever it was before.
    aligned = pixels.length is None and pixels.transfer_syntax != _RLE
    high_bit = pixels.bits_stored - 1 if aligned else pixels.high_bit
    below = high_bit + 1 - pixels.bits_stored
    above = max(8 * stored.dtype.itemsize - 1 - high_bit, 0)
    if below == 0 and above == 0:
        return stored, False
    # Shifting up drops what lies above; shifting down drops what lies below and, on a signed
    # type, carries the sign along.
    clean = (stored << above) >> (above + below)
    return clean, not np.array_equal(clean, stored)


def padded(frame: Frame, stored: NDArray[Any], clean: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Where a slice holds its declared padding, if that is no plausible Hounsfield value.

    Padding within -1024 to 3071 HU (such as a stored 0 that is -1024 HU) is left as it is.
    ``stored`` and ``clean`` are the values before and after `trimmed`: padding may need bits
    that the other values do not.
    """
    pixels = frame.pixels
    assert pixels is not None
    if pixels.padding is None:
        return None
    ends = [v * frame.slope + frame.intercept for v in pixels.padding]
    if min(ends) >= AIR_HU and max(ends) <= DENSEST_HU:
        return None
    low, high = pixels.padding
    where = (clean >= low) & (clean <= high)
    if stored is not clean:
        where |= (stored >= low) & (stored <= high)
    return where if where.any() else None


def _export(frame: Frame, problem: str, code: str) -> SimCroPError:
    return SimCroPError(
        problem,
        code=code,
        remedy="Export the original CT series from the archive",
        path=frame.path,
    )


def _check_codec(frame: Frame) -> None:
    """Refuse a compression that cannot be read here, naming the package that would."""
    pixels = frame.pixels
    assert pixels is not None
    syntax = pixels.transfer_syntax
    if syntax not in _CODECS:
        raise SimCroPError(
            "The images are compressed in a way that this file does not name"
            if not syntax or syntax in UNCOMPRESSED
            else "The images are compressed in a way that is not supported",
            code="compression",
            remedy="Export the series uncompressed",
            path=frame.path,
        )
    name, package = _CODECS[syntax]
    if not _is_available(syntax):
        raise SimCroPError(
            f"The images are compressed ({name}) and the package that reads this is not installed",
            code="codec-missing",
            remedy=f"Install {package} (pip install {package}), or export the series uncompressed",
            path=frame.path,
        )


def _is_available(syntax: str) -> bool:
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    try:
        decoder = get_decoder(UID(syntax))
    except NotImplementedError:
        return False
    return bool(decoder.is_available)


def _end_of_items(path: Path, wrapped: bytes) -> int:
    """Where the items of compressed pixels end; refuses a file cut short within them."""
    at = 0
    while wrapped[at : at + 4] == _ITEM and at + 8 <= len(wrapped):
        at += 8 + int.from_bytes(wrapped[at + 4 : at + 8], "little")
    if wrapped[at : at + 4] != _END:
        if at >= len(wrapped):
            raise damaged(path, "The file is cut short within its pixels", "truncated")
        raise damaged(path, "The compressed pixels of this slice are damaged")
    return at + 8


def _check_declared_size(frame: Frame, wrapped: bytes) -> None:
    """Compare the size inside each compressed image with the header's, before a codec allocates."""
    pixels = frame.pixels
    assert pixels is not None
    at, first = 0, True
    while wrapped[at : at + 4] == _ITEM:
        length = int.from_bytes(wrapped[at + 4 : at + 8], "little")
        if not first:
            size = _codestream_size(wrapped[at + 8 : at + 8 + min(length, 4096)])
            if size not in (None, (pixels.rows, pixels.columns, 1)):
                raise damaged(frame.path, "The pixels of this slice do not fit its header")
        at, first = at + 8 + length, False


def _codestream_size(start: bytes) -> tuple[int, int, int] | None:
    """(rows, columns, components) that a JPEG, JPEG-LS or JPEG 2000 image declares, if found."""

    def at_byte(at: int, length: int) -> int:
        return int.from_bytes(start[at : at + length], "big")

    if start[:4] == b"\xff\x4f\xff\x51":  # SOC, SIZ: ISO 15444-1 A.5.1
        return at_byte(12, 4) - at_byte(20, 4), at_byte(8, 4) - at_byte(16, 4), at_byte(40, 2)
    if start[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 10 <= len(start) and start[at] == 0xFF:  # ISO 10918-1 B.2.2, ISO 14495-1 C.2.2
        marker = start[at + 1]
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            return at_byte(at + 5, 2), at_byte(at + 7, 2), start[at + 9]
        at += 2 + at_byte(at + 2, 2)
    return None
