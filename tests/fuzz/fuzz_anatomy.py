"""Where in a format's bytes the numbers, words and checksums lie."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

from fuzz_mutations import Anatomy


def nifti(version: int, gzipped: bool) -> Callable[[bytes], Anatomy]:
    """Every number of the header, bare or within gzip."""
    import nibabel

    header = {1: nibabel.Nifti1Header, 2: nibabel.Nifti2Header}[version]
    fields: list[tuple[int, str | int]] = []
    for dtype, offset in header().structarr.dtype.fields.values():
        base = dtype.base
        if base.kind in "iuf":
            step = base.itemsize
            fields += [(offset + k, f"<{base.char}") for k in range(0, dtype.itemsize, step)]
    if gzipped:
        return lambda data: Anatomy(
            sealed_from=0, container="gzip", inner_fields=tuple(fields), fields=gzip_fields(data)
        )
    return lambda data: Anatomy(fields=tuple(fields))


def gzip_fields(data: bytes) -> tuple[tuple[int, str | int], ...]:
    """Flags and time of the header; checksum and size at the end."""
    return ((3, "<B"), (4, "<I"), (len(data) - 8, "<I"), (len(data) - 4, "<I"))


def gzipped(data: bytes) -> Anatomy:
    """Gzip, of whose content nothing is known."""
    return Anatomy(gzip_fields(data), sealed_from=0)


def text_then(mark: bytes, sealed: bool) -> Callable[[bytes], Anatomy]:
    """A header of text up to ``mark``, then voxels, with a checksum of their own if ``sealed``."""

    def anatomy(data: bytes) -> Anatomy:
        end = data.index(mark) + len(mark)
        return Anatomy(text_to=end, sealed_from=end if sealed else None)

    return anatomy


def text(data: bytes) -> Anatomy:
    """Text without a checksum."""
    return Anatomy(text_to=len(data))


def zipped(sealed: bool) -> Callable[[bytes], Anatomy]:
    """The numbers of a zip archive's directory and local headers (PKWARE APPNOTE 4.3)."""

    def anatomy(data: bytes) -> Anatomy:
        fields: list[tuple[int, str | int]] = []
        at = data.rfind(b"PK\x05\x06")
        fields += [(at + k, "<H") for k in (8, 10, 20)] + [(at + k, "<I") for k in (12, 16)]
        at = data.find(b"PK\x01\x02")
        while at >= 0:
            fields += [(at + k, "<H") for k in (6, 8, 10, 28, 30, 32, 34)]
            fields += [(at + k, "<I") for k in (16, 20, 24, 38, 42)]
            (local,) = struct.unpack_from("<I", data, at + 42)
            fields += [(local + k, "<H") for k in (4, 6, 8, 26, 28)]
            fields += [(local + k, "<I") for k in (14, 18, 22)]
            at = data.find(b"PK\x01\x02", at + 4)
        return Anatomy(tuple(fields), sealed_from=0 if sealed else None, container="zip")

    return anatomy


def dicom(data: bytes) -> Anatomy:
    """Lengths and values of the elements, in the order in which they lie in the file."""
    import pydicom
    from pydicom.dataelem import RawDataElement

    dataset = pydicom.dcmread(io.BytesIO(data))
    fields: list[tuple[int, str | int]] = [(140, "<I")]
    for tag in dataset.keys():  # noqa: SIM118 - a Dataset iterates over its elements
        raw = dataset.get_item(tag)
        if not isinstance(raw, RawDataElement) or raw.is_implicit_VR is None:
            continue
        short = not raw.is_implicit_VR and raw.VR not in (
            "OB", "OW", "OF", "SQ", "UT", "UN", "UC", "UR",
        )  # fmt: skip
        fields.append((raw.value_tell - 2, "<H") if short else (raw.value_tell - 4, "<I"))
        if raw.VR in ("US", "SS") or (raw.tag.group == 0x0028 and raw.length == 2):
            fields += [(raw.value_tell, "<H")] * 2
        elif raw.VR in ("DS", "IS") or raw.tag in (0x00200032, 0x00200037, 0x00280030, 0x00281052):
            fields += [(raw.value_tell, raw.length)] * 2
    if "PixelData" in dataset and dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        start = dataset.get_item("PixelData").value_tell
        fields += [(start + k, "<I") for k in (4, 8, 12, 16, 20)]
        fields += [(start + k, "<H") for k in range(16, 90, 2)]  # the codec's own header
    return Anatomy(tuple(f for f in fields if f[0] + 8 < len(data)))


def safetensors(data: bytes) -> Anatomy:
    """The header's length and its JSON; a digest elsewhere covers the whole."""
    (length,) = struct.unpack_from("<Q", data)
    return Anatomy(((0, "<Q"),), text_to=8 + length, sealed_from=0)


def sealed_text(data: bytes) -> Anatomy:
    """Text that a digest covers."""
    return Anatomy(text_to=len(data), sealed_from=0)


def unknown(data: bytes) -> Anatomy:
    """Bytes of which nothing is known."""
    return Anatomy()
