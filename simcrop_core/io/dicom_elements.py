"""The few DICOM elements that are ever decoded, and how their values are read.

Only the elements named in `TAGS` are looked at. None of them names a person, and those that
identify (the UIDs) only serve to tell slices and series apart while reading; they are not kept.
"""

from __future__ import annotations

from math import isfinite
from typing import Any

TAGS = {
    "ImageType": 0x00080008,
    "SOPClassUID": 0x00080016,
    "SOPInstanceUID": 0x00080018,
    "Modality": 0x00080060,
    "SliceThickness": 0x00180050,
    "KVP": 0x00180060,
    "EchoNumbers": 0x00180086,
    "SpacingBetweenSlices": 0x00180088,
    "TriggerTime": 0x00181060,
    "GantryDetectorTilt": 0x00181120,
    "ConvolutionKernel": 0x00181210,
    "SeriesInstanceUID": 0x0020000E,
    "SeriesNumber": 0x00200011,
    "AcquisitionNumber": 0x00200012,
    "ImagePositionPatient": 0x00200032,
    "ImageOrientationPatient": 0x00200037,
    "FrameOfReferenceUID": 0x00200052,
    "TemporalPositionIdentifier": 0x00200100,
    "StackID": 0x00209056,
    "TemporalPositionIndex": 0x00209128,
    "FrameAcquisitionNumber": 0x00209156,
    "NominalPercentageOfCardiacPhase": 0x00209241,
    "SamplesPerPixel": 0x00280002,
    "PhotometricInterpretation": 0x00280004,
    "NumberOfFrames": 0x00280008,
    "Rows": 0x00280010,
    "Columns": 0x00280011,
    "PixelSpacing": 0x00280030,
    "BitsAllocated": 0x00280100,
    "BitsStored": 0x00280101,
    "HighBit": 0x00280102,
    "PixelRepresentation": 0x00280103,
    "PixelPaddingValue": 0x00280120,
    "PixelPaddingRangeLimit": 0x00280121,
    "RescaleIntercept": 0x00281052,
    "RescaleSlope": 0x00281053,
    "RescaleType": 0x00281054,
    "LossyImageCompression": 0x00282110,
    "ModalityLUTSequence": 0x00283000,
    "SharedFunctionalGroupsSequence": 0x52009229,
    "PerFrameFunctionalGroupsSequence": 0x52009230,
}
#: Elements that may tell apart slices at the same place; the first that does is used.
MARKS = (
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "StackID",
    "AcquisitionNumber",
    "FrameAcquisitionNumber",
    "EchoNumbers",
    "NominalPercentageOfCardiacPhase",
    "TriggerTime",
    "ImageType",
    "KVP",
    "ConvolutionKernel",
)
#: The functional groups of a multi-frame object in which the elements above live (PS3.3 C.7.6.16).
GROUPS = {
    "PlanePositionSequence": 0x00209113,
    "PlaneOrientationSequence": 0x00209116,
    "FrameContentSequence": 0x00209111,
    "PixelMeasuresSequence": 0x00289110,
    "PixelValueTransformationSequence": 0x00289145,
    "CTGeometrySequence": 0x00189312,
    "CTReconstructionSequence": 0x00189314,
    "CardiacSynchronizationSequence": 0x00189118,
}


class MalformedError(Exception):
    """An element whose value is not what its type allows; says which, never the value."""


class Elements:
    """Decoded access to the allowed elements of a data set (or of several, laid over another)."""

    def __init__(self, raw: dict[int, Any], dataset: Any = None) -> None:
        self._raw = raw
        self._dataset = dataset

    @classmethod
    def of(cls, dataset: Any) -> Elements:
        return cls({int(tag): dataset.get_item(tag) for tag in dataset.keys()}, dataset)  # noqa: SIM118

    def __contains__(self, name: str) -> bool:
        return TAGS[name] in self._raw

    def over(self, special: Elements) -> Elements:
        """These elements, with those of ``special`` in front."""
        return Elements({**self._raw, **special._raw})

    def text(self, name: str) -> str:
        return self.mark(name).decode("ascii", "replace").strip("\0 ")

    def mark(self, name: str) -> bytes:
        """The value as stored, for telling frames apart."""
        raw = self._raw.get(TAGS[name])
        value = b"" if raw is None else raw.value
        return value.rstrip(b" ") if isinstance(value, bytes) else str(value or "").encode()

    def numbers(self, name: str, count: int) -> tuple[float, ...]:
        """``count`` finite numbers from a decimal string, () where it is absent or empty."""
        text = self.text(name)
        if not text:
            return ()
        try:
            values = tuple(float(part) for part in text.replace("_", "?").split("\\"))
        except ValueError as e:
            raise MalformedError(f"{name} of this slice is not a number") from e
        if len(values) != count or not all(isfinite(v) for v in values):
            raise MalformedError(f"{name} of this slice should be {count} numbers")
        return values

    def number(self, name: str) -> float | None:
        """One finite number, None where it is absent or empty."""
        values = self.numbers(name, 1)
        return values[0] if values else None

    def unsigned(self, name: str) -> int | None:
        """One 16-bit whole number, None where absent or empty (the sign of SS is not undone)."""
        raw = self._raw.get(TAGS[name])
        if raw is None or not isinstance(raw.value, bytes) or len(raw.value) < 2:
            return None
        return int.from_bytes(raw.value[:2], "little" if raw.is_little_endian else "big")

    def written(self, name: str) -> int | None:
        """One whole number from an integer string, None where absent, empty or no number."""
        try:
            return int(self.text(name))
        except ValueError:
            return None

    def needed(self, name: str) -> int:
        value = self.unsigned(name)
        if not value:
            raise MalformedError(f"This slice does not say its {name}")
        return value

    def items(self, name: str) -> list[Elements]:
        if name not in self:
            return []
        return [Elements.of(item) for item in self._dataset[TAGS[name]].value or []]

    def functional_groups(self) -> Elements:
        """The allowed elements inside the functional groups of one item, laid flat."""
        flat: dict[int, Any] = {}
        for tag in GROUPS.values():
            if tag in self._raw:
                for item in self._dataset[tag].value or []:
                    inner = Elements.of(item)._raw
                    flat |= {t: e for t, e in inner.items() if t in _ALLOWED}
        return Elements(flat)


_ALLOWED = set(TAGS.values())
