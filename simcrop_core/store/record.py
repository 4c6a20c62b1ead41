"""What a store keeps of one study beside its voxels.

Shapes in names: S sentences of the Findings; C counterfactuals; R regions; X, Y, Z cells;
F findings, S sides, L levels in the table of facts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from simcrop_core.store.codec import pack, unpack
from simcrop_core.study import KINDS as KINDS  # the stored numbers' meaning

_ARRAYS = ("kinds_S", "meanings_S4", "region_S", "alternate_of_C", "alternate_meanings_C4")


@dataclass(frozen=True, slots=True)
class Stored:
    """Size and checksum of a file."""

    bytes: int
    crc32: int

    @classmethod
    def read(cls, data: Any) -> Stored | None:
        return None if data is None else cls(int(data[0]), int(data[1]))

    def to_list(self) -> list[int]:
        return [self.bytes, self.crc32]


@dataclass(frozen=True, eq=False)
class Record:
    """The small part of a stored study.

    Attributes
    ----------
    id
        Of the study.
    key
        Digest of the settings and of the study's source: what the record was made from.
    sentences
        Statements of the Findings, in order: what the text encoder reads.
    wordings
        Which wording each sentence is, where its maker says so; else empty.
    kinds_S, meanings_S4, region_S
        int8 index into :data:`~simcrop_core.study.KINDS`; int16
        :class:`~simcrop_core.statements.Meaning`; int32 index into the regions, -1 where a
        sentence has none.
    alternates, alternate_of_C, alternate_meanings_C4
        Counterfactual sentences, which sentence each belongs to, and what each states.
    report
        Statements of Findings and Impression: what the report's tokens are made of.
    regions, regions_RXYZ
        Names; voxels of each cell that the region covers.
    facts_FSL
        int8 table of :class:`~simcrop_core.statements.Facts`.
    affine
        4 x 4: voxel of the stored volume -> RAS millimetres.
    notes
        ``(code, text)`` of what was decided on the way.
    structure_names
        Names of labels 1, 2, ... of the structures.
    volume, structures
        Their files.
    """

    id: str
    key: str
    sentences: tuple[str, ...]
    wordings: tuple[str, ...]
    kinds_S: NDArray[np.int8]
    meanings_S4: NDArray[np.int16]
    region_S: NDArray[np.int32]
    alternates: tuple[str, ...]
    alternate_of_C: NDArray[np.int32]
    alternate_meanings_C4: NDArray[np.int16]
    report: tuple[str, ...]
    regions: tuple[str, ...]
    regions_RXYZ: NDArray[Any]
    facts_FSL: NDArray[np.int8]
    affine: NDArray[np.float64]
    notes: tuple[tuple[str, str], ...]
    structure_names: tuple[str, ...]
    volume: Stored
    structures: Stored | None

    @property
    def report_text(self) -> str:
        """Findings and Impression on one line."""
        return " ".join(self.report)

    @property
    def texts(self) -> tuple[str, ...]:
        """All sentences that need a vector."""
        return (*self.sentences, *self.alternates)

    def to_bytes(self) -> bytes:
        """A safetensors file; the texts are JSON in its metadata."""
        study = {
            "id": self.id,
            "key": self.key,
            "sentences": self.sentences,
            "wordings": self.wordings,
            "alternates": self.alternates,
            "report": self.report,
            "regions": self.regions,
            "region_shape": list(self.regions_RXYZ.shape),
            "region_type": self.regions_RXYZ.dtype.name,
            "notes": self.notes,
            "structure_names": self.structure_names,
            "volume": self.volume.to_list(),
            "structures": None if self.structures is None else self.structures.to_list(),
        }
        arrays = {name: np.ascontiguousarray(getattr(self, name)) for name in _ARRAYS}
        arrays["facts_FSL"] = np.ascontiguousarray(self.facts_FSL)
        arrays["affine"] = np.ascontiguousarray(self.affine)
        arrays["regions"] = np.frombuffer(pack(self.regions_RXYZ), np.uint8)
        return bytes(save(arrays, {"study": json.dumps(study, ensure_ascii=False)}))

    @classmethod
    def from_bytes(cls, data: bytes) -> Record:
        """The record in a file whose checksum was compared, or whose maker is trusted.

        Raises
        ------
        ValueError, KeyError, TypeError
            The bytes are no record.
        """
        header_end = 8 + int.from_bytes(data[:8], "little")
        study = json.loads(json.loads(data[8:header_end])["__metadata__"]["study"])
        arrays = _arrays(data, header_end)
        regions = np.empty(study["region_shape"], study["region_type"])
        unpack(arrays.pop("regions").tobytes(), regions)
        volume = Stored.read(study["volume"])
        if volume is None:
            raise ValueError("The record has no volume.")
        return cls(
            id=study["id"],
            key=study["key"],
            sentences=tuple(study["sentences"]),
            wordings=tuple(study["wordings"]),
            alternates=tuple(study["alternates"]),
            report=tuple(study["report"]),
            regions=tuple(study["regions"]),
            regions_RXYZ=regions,
            notes=tuple((code, text) for code, text in study["notes"]),
            structure_names=tuple(study["structure_names"]),
            volume=volume,
            structures=Stored.read(study["structures"]),
            **arrays,
        )


def _arrays(data: bytes, header_end: int) -> dict[str, NDArray[Any]]:
    """The tensors of a safetensors file, as views of its bytes."""
    kinds = {"I8": np.int8, "U8": np.uint8, "I16": np.int16, "I32": np.int32, "F64": np.float64}
    found = {}
    for name, entry in json.loads(data[8:header_end]).items():
        if name != "__metadata__":
            start, stop = (header_end + at for at in entry["data_offsets"])
            values = np.frombuffer(data[start:stop], kinds[entry["dtype"]])
            found[name] = values.reshape(entry["shape"])
    return found
