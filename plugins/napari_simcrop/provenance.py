"""What a layer of this plugin knows of itself, kept in its metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simcrop_core.volume import CTVolume

#: Its place in a layer's metadata.
KEY = "simcrop"


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a scan came from.

    Attributes
    ----------
    source
        The file or folder.
    series
        Of a DICOM folder; None where the usual one was read.
    format
        As of `simcrop_core.volume.CTVolume`.
    """

    source: str
    series: str | None
    format: str

    @property
    def is_dicom(self) -> bool:
        return self.format == "DICOM"


def metadata_of(volume: CTVolume, series: str | None = None) -> dict[str, Any]:
    """Metadata for a scan's layer."""
    known: dict[str, Any] = {"format": volume.format, "notes": [n.text for n in volume.notes]}
    if volume.source is not None:
        known |= {"source": str(Path(volume.source).absolute()), "series": series}
    return {KEY: known}


def provenance_of(metadata: Mapping[str, Any]) -> Provenance | None:
    """Where the layer of this metadata came from; None if it does not say."""
    known = metadata.get(KEY)
    if not isinstance(known, Mapping) or not isinstance(known.get("source"), str):
        return None
    series = known.get("series")
    return Provenance(
        known["source"], series if isinstance(series, str) else None, str(known.get("format", ""))
    )
