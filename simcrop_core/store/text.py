"""Vectors and tokens of all texts of a store, by one frozen text encoder.

Every different sentence is encoded once. A folder ``text/<name>/`` holds, per encoder,

- ``texts.npy``, ``vectors.npy``: numbers of the sentences in ascending order, and a row each;
- ``reports.npy``, ``report_vectors.npy``: the same for whole reports;
- ``starts.npy``, ``tokens.npy``, ``special.npy``: the reports' tokens one after the other, where
  each report's begin, and which of them are no text;
- ``text.json``: the encoder, and the checksums of the others; written last.

Shapes in names: U different texts; D width of a vector; L tokens of a report.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from simcrop_core.errors import SimCroPError
from simcrop_core.outputs import whole_folder
from simcrop_core.store.codec import checksum

SCHEMA = 1
_ARRAYS = ("texts", "vectors", "reports", "report_vectors", "starts", "tokens", "special")


@dataclass(frozen=True, slots=True)
class EncoderFacts:
    """The text encoder that made the vectors.

    Attributes
    ----------
    fingerprint
        Digest of its weights and vocabulary.
    source
        What it was called by.
    sentence_vector
        How a text became one vector.
    width, window, vocabulary_size, mask_id, pad_id
        Numbers of a vector; tokens read of a text; tokens there are; two of them.
    """

    fingerprint: str
    source: str
    sentence_vector: Literal["cls", "mean"]
    width: int
    window: int
    vocabulary_size: int
    mask_id: int
    pad_id: int

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.fingerprint[:16]}-{self.sentence_vector}"


class TextTable:
    """Vectors and tokens by the number of a text; see :func:`open_text`."""

    def __init__(self, encoder: EncoderFacts, digest: str, arrays: dict[str, NDArray[Any]]) -> None:
        self.encoder, self.digest = encoder, digest
        self._texts, self._vectors = arrays["texts"], arrays["vectors"]
        self._reports, self._report_vectors = arrays["reports"], arrays["report_vectors"]
        self._starts = arrays["starts"]
        self._tokens, self._special = arrays["tokens"], arrays["special"]
        self.longest = int(np.diff(self._starts).max(initial=0))

    def __len__(self) -> int:
        return len(self._texts)

    def __repr__(self) -> str:
        return f"{len(self)} texts by {self.encoder.source}"

    @property
    def dtype(self) -> str:
        """``"float32"`` or ``"float16"``."""
        return str(self._vectors.dtype.name)

    def vectors(self, numbers: Sequence[int]) -> NDArray[np.float32]:
        """``(len(numbers), D)``; an unknown number is a ``KeyError``."""
        rows = _rows(self._texts, numbers)
        return np.array(self._vectors[rows], np.float32).reshape(len(rows), self.encoder.width)

    def vectors_of(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """``(len(texts), D)``, by the sentences themselves."""
        return self.vectors([text_number(text) for text in texts])

    def report(
        self, number: int
    ) -> tuple[NDArray[np.int32], NDArray[np.bool_], NDArray[np.float32]]:
        """Tokens, which of them are no text, and the vector of a report; 0 is no report."""
        if number == 0:
            return np.zeros(0, np.int32), np.zeros(0, bool), np.zeros(self.encoder.width, "f4")
        (row,) = _rows(self._reports, [number])
        part = slice(int(self._starts[row]), int(self._starts[row + 1]))
        vector = np.array(self._report_vectors[row], np.float32)
        return np.array(self._tokens[part]), np.array(self._special[part]), vector

    def known(self) -> dict[int, NDArray[Any]]:
        """Every sentence's number and vector, to be used again."""
        return dict(zip(self._texts.tolist(), self._vectors, strict=True))

    def known_reports(self) -> dict[int, tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]:
        """Every report's number, tokens, special tokens and vector, to be used again."""
        return {
            number: (
                self._tokens[start:stop],
                self._special[start:stop],
                self._report_vectors[row],
            )
            for row, (number, start, stop) in enumerate(
                zip(self._reports.tolist(), self._starts[:-1], self._starts[1:], strict=True)
            )
        }


def text_number(text: str) -> int:
    """The number by which a store knows a text: the same text has the same number everywhere."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def _rows(numbers_U: NDArray[np.int64], wanted: Sequence[int]) -> NDArray[np.intp]:
    rows = np.searchsorted(numbers_U, np.asarray(wanted, np.int64))
    if len(rows) and ((rows >= len(numbers_U)).any() or (numbers_U[rows] != wanted).any()):
        raise KeyError("A text is not in the table.")
    return rows


def text_names(folder: Path) -> list[str]:
    """Names of the text encoders whose vectors a store has."""
    return sorted(p.parent.name for p in (folder / "text").glob("*/text.json"))


def open_text(
    folder: Path, fingerprint: str | None = None, sentence_vector: str | None = None
) -> TextTable:
    """The vectors by the encoder with this fingerprint, or by the only one.

    Large arrays stay on the disk and are shared among processes.

    Raises
    ------
    SimCroPError
        ``other-text-encoder``, or ``damaged-text``.
    """
    names = text_names(folder)
    chosen = [
        name
        for name in names
        if (fingerprint is None or name.startswith(fingerprint[:16]))
        and (sentence_vector is None or name.endswith(f"-{sentence_vector}"))
    ]
    if not chosen:
        raise SimCroPError(
            "The store has no vectors of the model's text encoder",
            path=folder,
            code="other-text-encoder",
            remedy="Run simcrop-train prepare again with --text-encoder; volumes are kept.",
        )
    place = folder / "text" / chosen[0]
    try:
        facts = json.loads((place / "text.json").read_text(encoding="utf-8"))
        encoder = EncoderFacts(**facts["encoder"])
        if facts["schema"] != SCHEMA or facts["crc32"]["encoder"] != _encoder_checksum(encoder):
            raise ValueError("facts")
        arrays: dict[str, NDArray[Any]] = {}
        for name in _ARRAYS:
            path = place / f"{name}.npy"
            if file_checksum(path) != facts["crc32"][name]:
                raise ValueError("checksum")
            arrays[name] = np.load(path, mmap_mode="r")
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise SimCroPError(
            "The text vectors of the store are damaged",
            path=place,
            code="damaged-text",
            remedy="Delete this folder and run simcrop-train prepare again; volumes are kept.",
        ) from e
    if fingerprint is not None and encoder.fingerprint != fingerprint:
        raise AssertionError("Two encoders share the first sixteen digits of their fingerprints.")
    return TextTable(encoder, json.dumps(facts["crc32"], sort_keys=True), arrays)


def write_text(
    folder: Path,
    encoder: EncoderFacts,
    vectors: dict[int, NDArray[Any]],
    reports: dict[int, tuple[NDArray[Any], NDArray[Any], NDArray[Any]]],
    dtype: str,
) -> None:
    """Write the table of an encoder, whole or not at all.

    Parameters
    ----------
    vectors
        Number of a sentence -> its vector.
    reports
        Number of a report -> tokens, special tokens, vector.
    dtype
        Of the vectors: ``"float32"`` or ``"float16"``.
    """
    width = encoder.width
    texts, numbers = sorted(vectors), sorted(reports)
    lengths = [len(reports[n][0]) for n in numbers]
    arrays = {
        "texts": np.array(texts, np.int64),
        "vectors": _stacked([vectors[n] for n in texts], width, dtype),
        "reports": np.array(numbers, np.int64),
        "report_vectors": _stacked([reports[n][2] for n in numbers], width, dtype),
        "starts": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        "tokens": np.concatenate([np.zeros(0, np.int32), *(reports[n][0] for n in numbers)]),
        "special": np.concatenate([np.zeros(0, bool), *(reports[n][1] for n in numbers)]),
    }
    arrays["tokens"] = arrays["tokens"].astype(np.int32)
    arrays["special"] = arrays["special"].astype(bool)
    with whole_folder(folder / "text" / encoder.name, (*(f"{n}.npy" for n in _ARRAYS),)) as hidden:
        crc32 = {}
        for name, array in arrays.items():
            np.save(hidden / f"{name}.npy", array)
            crc32[name] = file_checksum(hidden / f"{name}.npy")
        crc32["encoder"] = _encoder_checksum(encoder)
        facts = {"schema": SCHEMA, "encoder": asdict(encoder), "crc32": crc32}
        (hidden / "text.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")


def _encoder_checksum(encoder: EncoderFacts) -> int:
    return checksum(json.dumps(asdict(encoder), sort_keys=True).encode())


def _stacked(vectors: list[NDArray[Any]], width: int, dtype: str) -> NDArray[Any]:
    if not vectors:
        return np.zeros((0, width), dtype)
    return np.stack(vectors).astype(dtype)


def file_checksum(path: Path) -> int:
    """CRC-32 of a file that may be larger than memory."""
    from isal.isal_zlib import crc32

    value = checksum(b"")
    with path.open("rb") as file:
        while block := file.read(1 << 24):
            value = int(crc32(block, value))
    return value
