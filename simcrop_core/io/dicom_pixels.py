"""The stored values of one DICOM slice, and their Hounsfield units."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcrop_core.errors import SimCroPError
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
    """Decodes the frames of a series, one after the other.

    Holds the compressed bytes of at most one file, so that a file with many frames is unpacked
    and checked once.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._held: tuple[Path, bytes] = (Path(), b"")

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
                _, stream = open_dataset(frame.path, file, self._limits)
                stream.seek(pixels.offset)
                payload = stream.read()
            if pixels.length is None:
                payload = payload[: _end_of_items(frame.path, payload)]
                _check_declared_size(frame, payload)
            self._held = (frame.path, payload)
        return self._held[1]

    def _decompressed(self, frame: Frame, pixels: PixelFormat) -> NDArray[Any]:
        import warnings

        decoder = _decoder(frame)
        payload = self._payload(frame, pixels)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                values, _ = decoder.as_array(
                    payload,
                    raw=True,
                    index=frame.index,
                    rows=pixels.rows,
                    columns=pixels.columns,
                    number_of_frames=pixels.frames,
                    samples_per_pixel=1,
                    bits_allocated=pixels.bits_allocated,
                    bits_stored=pixels.bits_stored,
                    pixel_representation=int(pixels.signed),
                    photometric_interpretation=pixels.photometric,
                    pixel_keyword="PixelData",
                )
        except Exception as e:  # whatever a codec says of damaged bytes
            raise damaged(
                frame.path,
                f"The pixels of this slice ({_CODECS[pixels.transfer_syntax][0]}) cannot be "
                "decompressed: they are damaged or of a rare kind",
            ) from e
        if values.shape != (pixels.rows, pixels.columns):
            raise damaged(frame.path, "The pixels of this slice do not fit its header")
        return np.asarray(values)


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
        _decoder(frame)


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


def _decoder(frame: Frame) -> Any:
    """pydicom's decoder for this frame, or a refusal that names the package to install."""
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
    decoder = _pydicom_decoder(syntax)
    name, package = _CODECS[syntax]
    if decoder is None:
        raise SimCroPError(
            f"The images are compressed ({name}) and the package that reads this is not installed",
            code="codec-missing",
            remedy=f"Install {package} (pip install {package}), or export the series uncompressed",
            path=frame.path,
        )
    return decoder


def _pydicom_decoder(syntax: str) -> Any | None:
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    try:
        decoder = get_decoder(UID(syntax))
    except NotImplementedError:
        return None
    return decoder if decoder.is_available else None


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
            if size not in (None, (pixels.rows, pixels.columns)):
                raise damaged(frame.path, "The pixels of this slice do not fit its header")
        at, first = at + 8 + length, False


def _codestream_size(start: bytes) -> tuple[int, int] | None:
    """(rows, columns) from the first bytes of a JPEG, JPEG-LS or JPEG 2000 image, if found."""
    if start[:4] == b"\xff\x4f\xff\x51" and len(start) >= 24:  # SOC, SIZ: ISO 15444-1 A.5.1
        x1, y1, x0, y0 = (int.from_bytes(start[i : i + 4], "big") for i in (8, 12, 16, 20))
        return y1 - y0, x1 - x0
    if start[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 9 <= len(start) and start[at] == 0xFF:  # ISO 10918-1 B.2.2, ISO 14495-1 C.2.2
        marker = start[at + 1]
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            rows, columns = (int.from_bytes(start[at + i : at + i + 2], "big") for i in (5, 7))
            return (rows, columns) if rows else None
        at += 2 + int.from_bytes(start[at + 2 : at + 4], "big")
    return None
