"""What a DICOM file says of its images: intensities, geometry, and where the pixels lie.

Patient positions and directions are DICOM's own here: LPS+ millimetres.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from simcrop_core.errors import SimCroPError
from simcrop_core.io.dicom_elements import MARKS, TAGS, Elements, MalformedError
from simcrop_core.io.guard import Limits, reading

_PIXELS = {0x7FE00008, 0x7FE00009, 0x7FE00010}
_DIRECTORY = "1.2.840.10008.1.3.10"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_CT_IMAGES = {f"1.2.840.10008.5.1.4.1.1.2{end}" for end in ("", ".1", ".2")}
_DEFLATED = "1.2.840.10008.1.2.1.99"
#: A deflated file is unpacked to at most this in memory: 2,000 slices of 512 x 512.
_MOST_INFLATED = 2**30
_IMPLICIT, _BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
UNCOMPRESSED = {_IMPLICIT, "1.2.840.10008.1.2.1", _BIG_ENDIAN, _DEFLATED}
#: DICOM objects that have a place in a CT study and are no CT image, in plain words.
_OTHER_OBJECTS = {
    "SEG": "a segmentation (DICOM SEG)",
    "RTSTRUCT": "contours for radiotherapy (RTSTRUCT)",
    "RTDOSE": "a radiotherapy dose (RTDOSE)",
    "RTPLAN": "a radiotherapy plan (RTPLAN)",
    "SR": "a structured report (SR)",
    "PR": "a presentation state (PR)",
    "KO": "a key object selection (KO)",
    "REG": "a registration (REG)",
    "DOC": "an encapsulated document",
    "FID": "spatial fiducials (FID)",
    "RWV": "a real world value map (RWV)",
}
_MODALITIES = {"CT", "MR", "PT", "NM", "US", "CR", "DX", "XA", "RF", "MG", "SC", "OT", "ECG"}


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """How one file stores its frames; the words are DICOM's (PS3.3 C.7.6.3)."""

    rows: int
    columns: int
    samples: int
    photometric: str
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    keyword: int
    transfer_syntax: str
    big_endian: bool
    frames: int
    #: Where the value of the pixel element starts in the file (inflated, if it is deflated).
    offset: int
    #: Its length; None where it is wrapped in items, as compressed pixels are.
    length: int | None
    #: Stored values that mean "no image here", both ends included.
    padding: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Frame:
    """One slice: where its pixels are and where it lies in the patient (LPS millimetres)."""

    path: Path
    index: int
    sop_instance: str
    series_uid: str
    series_number: int | None
    frame_of_reference: str
    modality: str
    sop_class: str
    localizer: bool
    kernel: str
    marks: tuple[bytes, ...]
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    pixel_spacing: tuple[float, ...]
    thickness_mm: float | None
    spacing_tag_mm: float | None
    tilt_tag_deg: float
    slope: float
    intercept: float
    has_rescale: bool
    rescale_type: str
    lossy: bool
    pixels: PixelFormat | None
    #: (code, problem) of what keeps this slice from being used.
    fault: tuple[str, str] | None = None

    def refuse(self) -> SimCroPError:
        """The refusal for this slice's fault."""
        code, problem = self.fault or ("damaged", "This file cannot be used")
        return damaged(self.path, problem, code)


@dataclass(frozen=True, slots=True)
class OtherObject:
    """A DICOM file without a CT image, named in plain words; "" for a directory file."""

    path: Path
    kind: str


def damaged(path: Path, problem: str, code: str = "damaged") -> SimCroPError:
    """A refusal that names one file of a series."""
    return SimCroPError(problem, code=code, remedy="Copy or export the series again", path=path)


def looks_like_dicom(head: bytes) -> bool:
    """Whether the first bytes (256 will do) are those of a DICOM file, with or without preamble."""
    if head[128:132] == b"DICM":
        return True
    if len(head) < 16 or head[:2] not in (b"\x08\x00", b"\x02\x00"):
        return False
    element, vr = int.from_bytes(head[2:4], "little"), head[4:6]
    if element > 0x70:
        return False
    if vr in (b"UL", b"CS", b"UI", b"DA", b"TM", b"SH", b"LO", b"OB"):
        return True
    length = int.from_bytes(head[4:8], "little")
    following = head[8 + length : 10 + length]
    return length < 256 and length % 2 == 0 and following in (b"\x08\x00", b"\x02\x00", b"")


def read_header(path: Path, limits: Limits) -> tuple[Frame, ...] | OtherObject | None:
    """The slices in one file, what else it is if it is no image, None if it is not DICOM.

    Raises
    ------
    SimCroPError
        ``unreadable``, ``no-permission``, ``truncated`` or ``damaged``, naming the file.
    """
    import warnings

    with reading(path), open(path, "rb") as file:
        if not looks_like_dicom(file.read(256)):
            return None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return _parse(path, file, limits)
        except (SimCroPError, OSError):
            raise
        except Exception as e:  # whatever a parser meets in damaged bytes
            raise damaged(path, "The header of this DICOM file is damaged") from e


def open_dataset(path: Path, file: BinaryIO, limits: Limits) -> tuple[str, str, BinaryIO]:
    """Transfer syntax and storage class ("" if not told), and a stream at the first element.

    For a deflated file the stream is an inflated copy in memory, bounded by the limits.
    """
    from pydicom.filereader import read_dataset

    file.seek(128)
    file.seek(132 if file.read(4) == b"DICM" else 0)
    meta = read_dataset(
        file,
        is_implicit_VR=False,
        is_little_endian=True,
        stop_when=lambda tag, vr, length: tag >> 16 != 2,
    )
    told = {tag: meta.get_item(tag) for tag in (0x00020002, 0x00020010)}
    storage, syntax = (
        "" if raw is None else (raw.value or b"").decode("ascii", "replace").strip("\0 ")
        for raw in told.values()
    )
    if syntax != _DEFLATED:
        return syntax, storage, file
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = inflater.decompress(file.read(), min(limits.max_bytes, _MOST_INFLATED))
    except zlib.error as e:
        raise damaged(path, "The file is compressed as a whole and its stream is damaged") from e
    if inflater.unconsumed_tail:
        raise SimCroPError(
            "The file unpacks to more than the limit allows",
            code="too-large",
            remedy="Split or export the file again; from Python, larger limits can be given",
            path=path,
        )
    if not inflater.eof:
        raise damaged(path, "The file is cut short", "truncated")
    return syntax, storage, BytesIO(inflated)


def _parse(path: Path, file: BinaryIO, limits: Limits) -> tuple[Frame, ...] | OtherObject:
    from pydicom.filereader import read_dataset

    syntax, storage, stream = open_dataset(path, file, limits)
    if storage == _DIRECTORY:
        return OtherObject(path, "")
    start = stream.tell()
    probe = stream.read(8)
    stream.seek(start)
    if len(probe) < 8:
        raise damaged(path, "The file is cut short", "truncated")
    big_endian = syntax == _BIG_ENDIAN
    # What the bytes are goes before what the file says they are: explicit VR is two capitals.
    implicit = not (probe[4:6].isalpha() and probe[4:6].isupper())
    found: list[tuple[int, int, int]] = []

    def at_pixels(tag: int, vr: str | None, length: int) -> bool:
        if tag in _PIXELS:
            found.append((int(tag), length, stream.tell()))
            return True
        return False

    elements = read_dataset(
        stream,
        is_implicit_VR=implicit,
        is_little_endian=not big_endian,
        stop_when=at_pixels,
        specific_tags=list(TAGS.values()),
    )
    header = Elements.of(elements)
    sop_class, modality = header.text("SOPClassUID") or storage, header.text("Modality")
    if sop_class in _CT_IMAGES and not modality:
        modality = "CT"
    if modality in _OTHER_OBJECTS or (not found and "Rows" not in header):
        return OtherObject(path, _OTHER_OBJECTS.get(modality, "a DICOM object without an image"))
    template = Frame(
        path=path,
        index=0,
        sop_instance=header.text("SOPInstanceUID"),
        series_uid=header.text("SeriesInstanceUID"),
        series_number=header.written("SeriesNumber"),
        frame_of_reference=header.text("FrameOfReferenceUID"),
        modality=modality if modality in _MODALITIES else "",
        sop_class=sop_class,
        localizer="LOCALIZER" in header.text("ImageType").upper(),
        kernel=header.text("ConvolutionKernel"),
        marks=tuple(header.mark(name) for name in MARKS),
        position=(),
        orientation=(),
        pixel_spacing=(),
        thickness_mm=None,
        spacing_tag_mm=None,
        tilt_tag_deg=0.0,
        slope=1.0,
        intercept=0.0,
        has_rescale=False,
        rescale_type=header.text("RescaleType").upper(),
        lossy=header.text("LossyImageCompression") == "01",
        pixels=None,
    )
    if not found:
        return (replace(template, fault=("no-pixels", "This slice holds no pixels")),)
    try:
        pixels = _pixel_format(header, found[0], syntax, big_endian)
        template = replace(template, pixels=pixels)
        if "ModalityLUTSequence" in header:
            raise MalformedError(
                "This slice maps its values to Hounsfield units by a table, which is not supported"
            )
        return tuple(_frames(template, header, pixels))
    except MalformedError as e:
        return (replace(template, fault=("damaged", str(e))),)


def _pixel_format(
    header: Elements, found: tuple[int, int, int], syntax: str, big_endian: bool
) -> PixelFormat:
    keyword, length, offset = found
    allocated = header.needed("BitsAllocated")
    stored = header.unsigned("BitsStored") or allocated
    high = header.unsigned("HighBit")
    signed = header.unsigned("PixelRepresentation") == 1
    frames = header.written("NumberOfFrames")
    return PixelFormat(
        rows=header.needed("Rows"),
        columns=header.needed("Columns"),
        samples=header.unsigned("SamplesPerPixel") or 1,
        photometric=header.text("PhotometricInterpretation"),
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=stored - 1 if high is None else high,
        signed=signed,
        keyword=keyword,
        transfer_syntax=syntax,
        big_endian=big_endian,
        frames=1 if frames is None else frames,
        offset=offset,
        length=None if length == 0xFFFFFFFF else length,
        padding=_padding(header, allocated, signed),
    )


def _padding(header: Elements, allocated: int, signed: bool) -> tuple[int, int] | None:
    value = header.unsigned("PixelPaddingValue")
    if value is None:
        return None
    limit = header.unsigned("PixelPaddingRangeLimit")
    ends = [_as_stored(v, allocated, signed) for v in (value, value if limit is None else limit)]
    return min(ends), max(ends)


def _as_stored(value: int, allocated: int, signed: bool) -> int:
    """A padding value in the pixels' own type: files often give -2000 as 63536."""
    bits = min(allocated, 16)
    value &= (1 << bits) - 1
    return value - (1 << bits) if signed and value >> (bits - 1) else value


def _frames(template: Frame, header: Elements, pixels: PixelFormat) -> list[Frame]:
    if pixels.frames == 1 and "PerFrameFunctionalGroupsSequence" not in header:
        return [_placed(template, header)]
    shared = header.items("SharedFunctionalGroupsSequence")
    each = header.items("PerFrameFunctionalGroupsSequence")
    if len(each) != pixels.frames:
        raise MalformedError(
            f"The file holds {pixels.frames} images in one and says for {len(each)} of them where "
            "they lie in the patient"
        )
    common = shared[0].functional_groups() if shared else Elements({})
    frames = []
    for index, item in enumerate(each):
        merged = header.over(common).over(item.functional_groups())
        frame = replace(
            template,
            index=index,
            sop_instance="",
            marks=tuple(merged.mark(name) for name in MARKS),
            kernel=merged.text("ConvolutionKernel"),
            rescale_type=merged.text("RescaleType").upper(),
        )
        frames.append(_placed(frame, merged))
    return frames


def _placed(frame: Frame, header: Elements) -> Frame:
    """The frame with its place and its rescale, or with what is wrong with them."""
    slope, intercept = header.number("RescaleSlope"), header.number("RescaleIntercept")
    if slope == 0:
        raise MalformedError("The rescale slope of this slice is zero")
    apart = header.number("SpacingBetweenSlices")
    position = header.numbers("ImagePositionPatient", 3)
    orientation = header.numbers("ImageOrientationPatient", 6)
    spacing = header.numbers("PixelSpacing", 2)
    fault = None
    if not position or not orientation:
        what = "ImagePositionPatient" if not position else "ImageOrientationPatient"
        fault = ("no-geometry", f"This slice does not say where it lies in the patient ({what})")
    elif not spacing or min(spacing) <= 0:
        fault = ("no-geometry", "This slice does not say how large its pixels are (PixelSpacing)")
    elif not _are_directions(orientation):
        fault = ("bad-orientation", "The directions of this slice are not at right angles")
    return replace(
        frame,
        position=position,
        orientation=orientation,
        pixel_spacing=spacing,
        thickness_mm=header.number("SliceThickness"),
        spacing_tag_mm=None if apart is None else abs(apart),
        tilt_tag_deg=header.number("GantryDetectorTilt") or 0.0,
        slope=1.0 if slope is None else slope,
        intercept=0.0 if intercept is None else intercept,
        has_rescale=slope is not None and intercept is not None,
        fault=fault,
    )


def _are_directions(orientation: tuple[float, ...]) -> bool:
    row, column = orientation[:3], orientation[3:]
    dot = [
        sum(a * b for a, b in zip(*pair, strict=True))
        for pair in ((row, row), (column, column), (row, column))
    ]
    return abs(dot[0] - 1) < 1e-2 and abs(dot[1] - 1) < 1e-2 and abs(dot[2]) < 1e-3
