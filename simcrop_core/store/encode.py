"""The texts of a store -> vectors and tokens: each different text once, in resumable pieces.

Shapes in names: T texts of a piece; D width of a vector.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from simcrop_core.errors import SimCroPError
from simcrop_core.frozen import Frozen
from simcrop_core.outputs import whole_file
from simcrop_core.store.cluster import Submit
from simcrop_core.store.record import Record
from simcrop_core.store.text import (
    EncoderFacts,
    TextTable,
    open_text,
    text_names,
    text_number,
    write_text,
)

if TYPE_CHECKING:
    from simcrop_core.device import Progress
    from simcrop_core.model.text import TextEncoder

_PIECE = 1024
_REPORT_PIECE = 128
_AT_ONCE = 32
_Report = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]


class TextSettings(Frozen):
    """Which frozen encoder reads the texts, and how its vectors are kept."""

    source: str = Field(
        default="minilm",
        min_length=1,
        description="minilm (the installed package), a folder, or a hub id already in the "
        "person's cache.",
    )
    sentence_vector: Literal["cls", "mean"] | None = Field(
        default=None,
        description="A text's vector: its first token's or the tokens' mean. None: the mean for "
        "minilm, else the first token.",
    )
    dtype: Literal["float32", "float16"] = Field(
        default="float32", description="Of the stored vectors."
    )
    device: str = Field(
        default="cpu", description="Where the encoder runs: cpu, cuda, cuda:1, mps."
    )


def encode_texts(
    folder: Path,
    records: Iterable[Record],
    settings: TextSettings,
    submit: Submit,
    progress: Progress | None = None,
) -> int:
    """Encode what has no vector yet; how many texts that were.

    Raises
    ------
    SimCroPError
        The encoder is not on this machine, or is no encoder; an earlier table is damaged.
    """
    encoder = _encoder(settings)
    facts = _facts(encoder, settings)
    sentences: dict[int, str] = {}
    reports: dict[int, tuple[str, ...]] = {}
    for record in records:
        sentences.update((text_number(text), text) for text in record.texts)
        if record.report:
            reports[text_number(record.report_text)] = record.report
    old = _old_table(folder, facts, settings.dtype)
    vectors = {} if old is None else _kept(old.known(), sentences)
    read = {} if old is None else _kept(old.known_reports(), reports)
    if old is not None and (len(vectors), len(read)) == (len(sentences), len(reports)):
        return 0
    new = {n: t for n, t in sentences.items() if n not in vectors}
    new_reports = {n: t for n, t in reports.items() if n not in read}
    total, done = len(new) + len(new_reports), 0
    pieces = folder / "text" / f".{facts.name}-pieces"
    jobs = [
        *_jobs(encode_sentences, sorted(new.items(), key=lambda x: len(x[1])), _PIECE),
        *_jobs(encode_reports, sorted(new_reports.items()), _REPORT_PIECE),
    ]
    if progress is not None and total:
        progress("encoding texts", 0, total)
    for function in (encode_sentences, encode_reports):
        mine = [items for f, items in jobs if f is function]
        for found in _encoded(function, mine, settings, pieces, submit):
            (vectors if function is encode_sentences else read).update(found)
            done += len(found)
            if progress is not None:
                progress("encoding texts", done, total)
    write_text(folder, facts, vectors, read, settings.dtype)
    rmtree(pieces, ignore_errors=True)
    return total


def encode_sentences(
    settings: TextSettings, items: Sequence[tuple[int, str]]
) -> dict[int, NDArray[Any]]:
    """Number and text of sentences -> number and vector; in a worker."""
    encoded = _encoder(settings).encode_sentences([text for _, text in items])
    vectors_TD = encoded.sentences_SD.float().cpu().numpy()
    return {number: vector for (number, _), vector in zip(items, vectors_TD, strict=True)}


def encode_reports(
    settings: TextSettings, items: Sequence[tuple[int, tuple[str, ...]]]
) -> dict[int, _Report]:
    """Number and statements of reports -> number, tokens, special tokens, vector; in a worker.

    A report that is longer than the encoder's window loses whole sentences, last ones first.
    """
    import torch

    encoder = _encoder(settings)
    rows = [encoder.tokenize_report(statements)[0] for _, statements in items]
    found: dict[int, _Report] = {}
    order = sorted(range(len(rows)), key=lambda i: rows[i].ids_BT.shape[1])
    for start in range(0, len(order), _AT_ONCE):
        some = order[start : start + _AT_ONCE]
        longest = rows[some[-1]].ids_BT.shape[1]
        ids = torch.full((len(some), longest), encoder.pad_id, device=rows[0].ids_BT.device)
        attend = torch.zeros(ids.shape, dtype=torch.bool, device=ids.device)
        for row, i in enumerate(some):
            length = rows[i].ids_BT.shape[1]
            ids[row, :length], attend[row, :length] = rows[i].ids_BT[0], True
        hidden = encoder(ids, attend).float()
        pooled = encoder.pool(hidden, attend)
        for row, i in enumerate(some):
            tokens = rows[i].ids_BT[0].cpu().numpy().astype(np.int32)
            special = rows[i].special_BT[0].cpu().numpy()
            found[items[i][0]] = tokens, special, pooled[row].cpu().numpy()
    return found


@lru_cache(maxsize=1)
def _encoder(settings: TextSettings) -> TextEncoder:
    """The encoder, loaded once in each process."""
    from simcrop_core.model.text import text_config_for

    _, encoder = text_config_for(settings.source, settings.sentence_vector)
    if encoder is None:
        raise SimCroPError(
            f"The text encoder {settings.source} is not on this machine",
            code="text-encoder-missing",
            remedy="Pass --text-encoder with a folder that holds the encoder, or with minilm.",
        )
    try:
        return encoder.to(settings.device)
    except (RuntimeError, AssertionError) as e:
        raise SimCroPError(
            f"There is no device {settings.device} for the text encoder",
            code="device",
            remedy="Pass --device cpu.",
        ) from e


def _facts(encoder: TextEncoder, settings: TextSettings) -> EncoderFacts:
    return EncoderFacts(
        fingerprint=encoder.fingerprint,
        source=settings.source,
        sentence_vector=encoder.config.sentence_vector,
        width=encoder.width,
        window=encoder.window,
        vocabulary_size=encoder.vocabulary_size,
        mask_id=encoder.mask_id,
        pad_id=encoder.pad_id,
    )


def _old_table(folder: Path, facts: EncoderFacts, dtype: str) -> TextTable | None:
    if facts.name not in text_names(folder):
        return None
    table = open_text(folder, facts.fingerprint, facts.sentence_vector)
    return table if table.dtype == dtype else None


def _kept(known: dict[int, Any], wanted: dict[int, Any]) -> dict[int, Any]:
    return {number: value for number, value in known.items() if number in wanted}


def _jobs(function: Any, items: list[Any], size: int) -> Iterator[tuple[Any, list[Any]]]:
    for start in range(0, len(items), size):
        yield function, items[start : start + size]


def _encoded(
    function: Any, pieces: list[list[Any]], settings: TextSettings, place: Path, submit: Submit
) -> Iterator[dict[int, Any]]:
    """Each piece's results; those on disk from a preparation that was stopped are used."""
    missing = []
    for items in pieces:
        path = place / f"{_piece_name(function, items)}.npz"
        found = _read_piece(path)
        if found is not None:
            yield found
        else:
            missing.append((path, (settings, items)))
    for path, found in submit(function, missing):
        if isinstance(found, str):
            raise SimCroPError(
                f"Texts could not be encoded. {found}",
                code="worker-died",
                remedy="Run it again with fewer workers; it goes on where it was.",
            )
        _write_piece(path, found)
        yield found


def _piece_name(function: Any, items: Sequence[tuple[int, Any]]) -> str:
    numbers = np.array([number for number, _ in items], np.int64)
    return f"{function.__name__}-{hashlib.sha256(numbers.tobytes()).hexdigest()[:16]}"


def _write_piece(path: Path, found: dict[int, Any]) -> None:
    arrays: dict[str, Any] = {}
    for number, value in found.items():
        for part, array in enumerate(value if isinstance(value, tuple) else (value,)):
            arrays[f"{number}.{part}"] = array
    with whole_file(path) as hidden, hidden.open("wb") as file:
        np.savez(file, **arrays)


def _read_piece(path: Path) -> dict[int, Any] | None:
    try:
        with np.load(path) as arrays:
            parts: dict[int, list[Any]] = {}
            for name in arrays.files:
                number, part = map(int, name.split("."))
                parts.setdefault(number, []).insert(part, arrays[name])
    except (OSError, ValueError, KeyError):
        return None
    return {n: values[0] if len(values) == 1 else tuple(values) for n, values in parts.items()}
