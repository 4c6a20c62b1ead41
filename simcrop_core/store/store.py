"""A store of prepared studies on disk: opening it and reading from it.

A store is a folder:

- ``store.json``: the settings, and the name of the data set;
- ``index.json``: every study in order, with the size and checksum of each of its files and which
  studies are of one patient, and the studies that were left out, with the reason;
- ``records/<xx>/<id>.safetensors``: sentences, regions, facts (:class:`Record`);
- ``volumes/<xx>/<id>.blosc2``, ``structures/<xx>/<id>.blosc2``: voxels, one Blosc2 chunk each;
- ``text/<name>/``: vectors and tokens of all texts by one frozen text encoder.

``<xx>`` spreads the files over 256 folders. Shapes in names: S sentences; C counterfactuals;
D width of a text vector; L tokens; R regions; X, Y, Z voxels (cells for regions).
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simcrop_core.errors import SimCroPError
from simcrop_core.geometry import Grid
from simcrop_core.store.codec import checksum, unpack
from simcrop_core.store.index import (
    IndexRow,
    Part,
    damaged,
    read_bytes,
    read_index,
    read_settings,
    study_path,
)
from simcrop_core.store.record import Record, Stored
from simcrop_core.store.settings import StoreSettings
from simcrop_core.store.text import TextTable, open_text, text_names, text_number


@dataclass(frozen=True, eq=False)
class RawSample:
    """A study as it lies in the store, with the vectors and tokens of its texts.

    Attributes
    ----------
    index, id
        Which study.
    volume_XYZ
        int16 Hounsfield units, with the margin.
    structures_XYZ
        uint8 labels of the same voxels, or None.
    record
        Sentences, regions, facts.
    sentences_SD, counterfactuals_CD
        float32 vectors.
    tokens_L, special_L
        int32 token numbers of Findings and Impression; True on those that are no text. Empty
        where there is no report.
    report_D
        float32 vector of the report; zeros where there is none.
    """

    index: int
    id: str
    volume_XYZ: NDArray[np.int16]
    structures_XYZ: NDArray[np.uint8] | None
    record: Record
    sentences_SD: NDArray[np.float32]
    counterfactuals_CD: NDArray[np.float32]
    tokens_L: NDArray[np.int32]
    special_L: NDArray[np.bool_]
    report_D: NDArray[np.float32]


class Split(NamedTuple):
    """Which studies of a store are for what, by their rows; no patient is on both sides.

    Attributes
    ----------
    trained, held_out
        What is trained on and what is not.
    left_out
        How many studies are for neither: their patients are among the held-out studies.
    """

    trained: tuple[int, ...]
    held_out: tuple[int, ...]
    left_out: int


class Store:
    """Prepared studies, read-only; make one with :func:`open_store`.

    Attributes
    ----------
    folder, name
        Where it lies; the data set's name.
    settings
        How its volumes were prepared.
    rows
        Its studies, in the order of the data set.
    skipped
        ``{"id", "code", "problem"}`` of studies that were left out.
    text
        Vectors and tokens; None in a store that was not finished.
    patients
        For each study the number of the first study of its patient; None in a store whose index
        does not say (it was written before indices did).
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        settings: StoreSettings,
        rows: tuple[IndexRow, ...],
        skipped: tuple[dict[str, str], ...],
        text: TextTable | None,
        patients: tuple[int, ...] | None = None,
    ) -> None:
        self.folder, self.name, self.settings = folder, name, settings
        self.rows, self.skipped, self.text = rows, skipped, text
        self.patients = patients

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        shape = " x ".join(str(n) for n in self.settings.shape)
        return f"Store({self.name}: {len(self)} studies of {shape} voxels, {self.text!r})"

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(row.id for row in self.rows)

    def split(self, held_out: int) -> Split:
        """The last studies are held out, and with them all others of their patients.

        Raises
        ------
        SimCroPError
            ``no-patients``: the index does not say which studies are of one patient.
        """
        first = len(self) - held_out
        if not held_out:
            return Split(tuple(range(len(self))), (), 0)
        patients = self.patients
        if patients is None:
            raise SimCroPError(
                "The store does not say which studies are of one patient, so none can be held out",
                path=self.folder,
                code="no-patients",
                remedy="Run the same simcrop-train prepare again: it adds this and prepares "
                "nothing that is done.",
            )
        apart = set(patients[first:])
        trained = tuple(row for row in range(first) if patients[row] not in apart)
        return Split(trained, tuple(range(first, len(self))), first - len(trained))

    @cached_property
    def fingerprint(self) -> str:
        """Digest of all that is in it: the same fingerprint gives the same batches."""
        digest = hashlib.sha256(self.settings.model_dump_json().encode())
        for row in self.rows:
            digest.update(json.dumps(row.to_list()).encode())
        digest.update((self.text.digest if self.text is not None else "").encode())
        if self.patients is not None and len(set(self.patients)) < len(self):
            digest.update(json.dumps(self.patients).encode())  # the split follows them
        return digest.hexdigest()

    @property
    def longest(self) -> tuple[int, int, int]:
        """Most sentences, counterfactuals and tokens that a study has."""
        return (
            max((row.sentences for row in self.rows), default=0),
            max((row.alternates for row in self.rows), default=0),
            0 if self.text is None else self.text.longest,
        )

    def grid(self, record: Record) -> Grid:
        """Where the stored voxels of a study lie in the patient."""
        return Grid(self.settings.shape, record.affine)

    # -- reading --------------------------------------------------------------------------------

    def record(self, index: int) -> Record:
        """The small part of a study.

        Raises
        ------
        SimCroPError
            ``missing-record`` or ``damaged-record``.
        """
        row = self.rows[index]
        data = self._read("records", row.id, row.record)
        try:
            return Record.from_bytes(data)
        except (ValueError, KeyError, TypeError) as e:
            raise damaged(self.path("records", row.id)) from e

    def volume(self, index: int, out: NDArray[np.int16] | None = None) -> NDArray[np.int16]:
        """The voxels of a study, into ``out`` (C order) if it is given.

        Raises
        ------
        SimCroPError
            ``missing-record`` or ``damaged-record``.
        """
        row = self.rows[index]
        out = np.empty(self.settings.shape, np.int16) if out is None else out
        self._unpack("volumes", row.id, row.volume, out)
        return out

    def structures(
        self, index: int, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8] | None:
        """The label map of a study, or None where it has none; errors as for the volume."""
        row = self.rows[index]
        if row.structures is None:
            return None
        out = np.empty(self.settings.shape, np.uint8) if out is None else out
        self._unpack("structures", row.id, row.structures, out)
        return out

    def sample(
        self,
        index: int,
        *,
        structures: bool = False,
        volume_out: NDArray[np.int16] | None = None,
        structures_out: NDArray[np.uint8] | None = None,
    ) -> RawSample:
        """Everything that training reads of a study.

        Raises
        ------
        SimCroPError
            ``missing-record`` or ``damaged-record``; ``no-text`` in an unfinished store.
        """
        text = self.text
        if text is None:
            raise SimCroPError(
                "The store has no text vectors: its preparation did not come to its end",
                path=self.folder,
                code="no-text",
                remedy="Run the same simcrop-train prepare again; it goes on where it was.",
            )
        record = self.record(index)
        number = text_number(record.report_text) if record.report else 0
        tokens, special, report = text.report(number)
        return RawSample(
            index,
            record.id,
            self.volume(index, volume_out),
            self.structures(index, structures_out) if structures else None,
            record,
            text.vectors_of(record.sentences),
            text.vectors_of(record.alternates),
            tokens,
            special,
            report,
        )

    def path(self, part: Part, name: str) -> Path:
        """A study's file."""
        return study_path(self.folder, part, name)

    def _read(self, part: Part, name: str, stored: Stored) -> bytes:
        path = self.path(part, name)
        data = read_bytes(path)
        if len(data) != stored.bytes or checksum(data) != stored.crc32:
            raise damaged(path)
        return data

    def _unpack(self, part: Part, name: str, stored: Stored, out: NDArray[Any]) -> None:
        try:
            unpack(self._read(part, name, stored), out)
        except (ValueError, RuntimeError) as e:
            if isinstance(e, SimCroPError):
                raise
            raise damaged(self.path(part, name)) from e


def open_store(
    folder: str | os.PathLike[str],
    text_encoder: str | None = None,
    sentence_vector: str | None = None,
) -> Store:
    """Open a store.

    Parameters
    ----------
    folder
        What ``simcrop-train prepare`` wrote.
    text_encoder
        Fingerprint of the text encoder whose vectors are wanted (``model.text.fingerprint``);
        None where the store has those of one encoder only.
    sentence_vector
        ``"cls"`` or ``"mean"``, where it has both of one encoder.

    Raises
    ------
    SimCroPError
        It is no store, is damaged, or lacks that encoder's vectors.
    """
    folder = Path(folder)
    settings, name = read_settings(folder)
    rows, skipped, patients = read_index(folder)
    found = text_names(folder)
    if text_encoder is None and len(found) > 1:
        raise SimCroPError(
            f"The store has the vectors of {len(found)} text encoders",
            path=folder,
            code="which-text-encoder",
            remedy="Say which by the encoder's fingerprint.",
        )
    text = None
    if text_encoder is not None or found:
        text = open_text(folder, text_encoder, sentence_vector)
    return Store(folder, name, settings, rows, skipped, text, patients)
