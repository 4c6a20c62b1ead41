"""What a store's folder says of itself: its settings, its list of studies, where files lie."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import ValidationError

from simcrop_core.errors import SimCroPError
from simcrop_core.store.codec import checksum
from simcrop_core.store.record import Record, Stored
from simcrop_core.store.settings import StoreSettings

SCHEMA = 1
Part = Literal["records", "volumes", "structures"]
_SUFFIX: dict[Part, str] = {
    "records": ".safetensors",
    "volumes": ".blosc2",
    "structures": ".blosc2",
}
_TRIES = 3


@dataclass(frozen=True, slots=True)
class IndexRow:
    """Where a study's files are and what they must be."""

    id: str
    record: Stored
    volume: Stored
    structures: Stored | None
    sentences: int
    alternates: int

    @classmethod
    def of(cls, record: Record, stored: Stored) -> IndexRow:
        return cls(
            record.id,
            stored,
            record.volume,
            record.structures,
            len(record.sentences),
            len(record.alternates),
        )

    @classmethod
    def from_list(cls, row: list[Any]) -> IndexRow:
        name, record, volume, structures, sentences, alternates = row
        return cls(
            str(name),
            Stored(*record),
            Stored(*volume),
            Stored.read(structures),
            int(sentences),
            int(alternates),
        )

    def to_list(self) -> list[Any]:
        structures = None if self.structures is None else self.structures.to_list()
        stored = self.record.to_list(), self.volume.to_list(), structures
        return [self.id, *stored, self.sentences, self.alternates]


class Index(NamedTuple):
    """What ``index.json`` lists.

    Attributes
    ----------
    rows
        The studies, in order.
    skipped
        ``{"id", "code", "problem"}`` of studies that were left out.
    patients
        For each study the number of the first study of its patient; None where it does not say.
    """

    rows: tuple[IndexRow, ...]
    skipped: tuple[dict[str, str], ...]
    patients: tuple[int, ...] | None


def read_index(folder: Path) -> Index:
    """The list of studies in a store.

    Raises
    ------
    SimCroPError
        ``damaged-store``.
    """
    path = folder / "index.json"
    index = read_json(path)
    try:
        rows = tuple(IndexRow.from_list(row) for row in index["studies"])
        skipped = tuple(dict(row) for row in index["skipped"])
        patients = None
        if "patients" in index:
            patients = tuple(map(int, index["patients"]))
            if len(patients) != len(rows):
                raise ValueError("patients")
    except (KeyError, TypeError, ValueError) as e:
        raise damaged_index(path) from e
    if index.get("crc32") != index_checksum(index):
        raise damaged_index(path)
    if index.get("store") != checksum(read_bytes(folder / "store.json")):
        raise damaged_index(folder / "store.json")
    return Index(rows, skipped, patients)


def read_settings(folder: Path) -> tuple[StoreSettings, str]:
    """A store's settings and the name of its data set.

    Raises
    ------
    SimCroPError
        ``not-a-store`` or ``damaged-store``.
    """
    path = folder / "store.json"
    if not path.is_file():
        raise SimCroPError(
            "This is not a store of prepared studies",
            path=folder,
            code="not-a-store",
            remedy="Make one with simcrop-train prepare, or name another folder.",
        )
    data = read_json(path)
    if data.get("schema") != SCHEMA:
        raise SimCroPError(
            "The store was made by another version of SimCroP",
            path=folder,
            code="other-version",
            remedy="Use that version, or prepare the store again in another folder.",
        )
    try:
        return StoreSettings.model_validate(data["settings"]), str(data["name"])
    except (KeyError, ValidationError) as e:
        raise damaged_index(path) from e


def study_path(folder: Path, part: Part, name: str) -> Path:
    """Where a study's file lies in a store."""
    spread = hashlib.sha256(name.encode()).hexdigest()[:2]
    return folder / part / spread / f"{name}{_SUFFIX[part]}"


def index_checksum(index: dict[str, Any]) -> int:
    """Checksum of all else that an index says."""
    rest = {name: value for name, value in index.items() if name != "crc32"}
    return checksum(json.dumps(rest, sort_keys=True).encode())


def read_bytes(path: Path) -> bytes:
    """A whole file; a network file system that stumbles is asked again."""
    for attempt in range(_TRIES):
        try:
            return path.read_bytes()
        except FileNotFoundError as e:
            raise SimCroPError(
                "A file of the store is missing",
                path=path,
                code="missing-record",
                remedy="Run simcrop-train prepare again; it makes what is missing.",
            ) from e
        except OSError as e:
            if attempt == _TRIES - 1:
                raise SimCroPError(
                    f"A file of the store cannot be read ({e.strerror})",
                    path=path,
                    code="missing-record",
                    remedy="Check the disk, then run simcrop-train prepare again.",
                ) from e
            time.sleep(0.2 * (attempt + 1))
    raise AssertionError("unreachable")


def read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise damaged_index(path) from e
    if not isinstance(data, dict):
        raise damaged_index(path)
    return data


def damaged(path: Path) -> SimCroPError:
    return SimCroPError(
        "A file of the store is damaged: its checksum is not the one it was written with",
        path=path,
        code="damaged-record",
        remedy="Delete it and run simcrop-train prepare again; it makes what is missing.",
    )


def damaged_index(path: Path) -> SimCroPError:
    return SimCroPError(
        "The store's list of studies or settings is absent or damaged",
        path=path,
        code="damaged-store",
        remedy="Run the same simcrop-train prepare again; it writes them anew.",
    )
