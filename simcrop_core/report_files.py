"""Report files: text, JSON, csv rows and what decides between them; DICOM SR is next door.

Every reader gives parts: stretches of text, each with its section where the file names one.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from simcrop_core.errors import SimCroPError
from simcrop_core.report_headings import section_named
from simcrop_core.volume import Note

LARGEST_TEXT_BYTES = 5_000_000
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NOT_TEXT = (
    (b"%PDF", "a PDF"),
    (b"{\\rtf", "an RTF document"),
    (b"PK\x03\x04", "a Word document or an archive"),
    (b"\xd0\xcf\x11\xe0", "an old Word document"),
    (b"\x1f\x8b", "a compressed file"),
    (b"<?xml", "XML"),
    (b"<!doctype", "HTML"),
    (b"<html", "HTML"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
)


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a report as its file gives it.

    ``section`` is None where the text itself has to say. ``lines``: ``"running"`` lines may run
    on into the next, ``"items"`` end with the line, ``"sentences"`` are one sentence each.
    """

    section: str | None
    text: str
    lines: Literal["running", "items", "sentences"] = "running"


@dataclass(frozen=True, slots=True)
class Parts:
    """A report's parts in order, and what was decided on reading."""

    parts: list[Part]
    notes: list[Note] = field(default_factory=list)


def read_parts(path: Path, volume_name: str | None, encoding: str | None) -> Parts:
    """The parts of the report in a file of any known kind.

    Raises
    ------
    SimCroPError
        The file cannot be read as a report; the codes are those of the readers.
    """
    encoding = None if encoding is None else known_encoding(encoding)
    head = _head(path)
    suffix = path.suffix.casefold()
    if suffix == ".csv":
        from simcrop_core.report_csv import read_csv_row

        return read_csv_row(path, text_encoding(path, head, encoding), volume_name)
    if head[128:132] == b"DICM" or suffix == ".dcm":
        from simcrop_core.report_sr import read_structured_report

        found = read_structured_report(path)
    else:
        _refuse_other_kinds(path, head)
        text = _read_text(path, text_encoding(path, head, encoding))
        found = _from_json(path, text) if suffix == ".json" else Parts([Part(None, text)])
    if volume_name is not None:
        found.notes.append(
            Note("volume-name-unused", "The file holds one report: the volume's name was not used.")
        )
    return found


def text_encoding(path: Path, head: bytes, declared: str | None) -> str:
    """The declared code page, else UTF-16 or -32 by its mark, else UTF-8."""
    if declared is not None:
        return declared
    return next((name for bom, name in _BOMS if head.startswith(bom)), "utf-8")


def known_encoding(name: str) -> str:
    """A code page that this machine knows and that turns bytes into text."""
    try:
        info = codecs.lookup(name)
        if not info._is_text_encoding:
            raise LookupError(name)
    except (LookupError, ValueError) as e:
        raise SimCroPError(
            "The declared code page is not known.",
            code="encoding",
            remedy="Use a name such as utf-8, windows-1254 or iso-8859-9.",
        ) from e
    return info.name


def refuse_encoding(path: Path, encoding: str) -> SimCroPError:
    """The refusal for bytes that are not text in this code page."""
    return SimCroPError(
        f"The file is not text in {encoding.upper().replace('-SIG', '')}.",
        path=path,
        code="encoding",
        remedy="Save it as UTF-8, or declare its code page (for example windows-1254).",
    )


def refuse_binary(path: Path) -> SimCroPError:
    """The refusal for text with characters that only binary files hold."""
    return SimCroPError(
        "The file is not a text file.",
        path=path,
        code="not-a-report",
        remedy="Give the report as text, JSON, csv or DICOM SR.",
    )


def _head(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise IsADirectoryError(path)
        if not path.exists():
            raise FileNotFoundError(path)
        if not path.is_file():  # A pipe or a device would block.
            raise OSError(path)
        with path.open("rb") as file:
            head = file.read(4096)
    except FileNotFoundError as e:
        raise SimCroPError(
            "There is no such report file.",
            path=path,
            code="missing",
            remedy="Check the name and the folder.",
        ) from e
    except IsADirectoryError as e:
        raise SimCroPError(
            "This is a folder, not a report.",
            path=path,
            code="not-a-report",
            remedy="Choose one file.",
        ) from e
    except (OSError, ValueError) as e:
        raise SimCroPError(
            "The report file cannot be read.",
            path=path,
            code="unreadable",
            remedy="Check that it is a file and that you may read it.",
        ) from e
    if not head.strip():
        raise SimCroPError(
            "The report file is empty.", path=path, code="empty", remedy="Give a report with text."
        )
    return head


def _refuse_other_kinds(path: Path, head: bytes) -> None:
    start = head.lstrip().lower()
    for magic, kind in _NOT_TEXT:
        if head.startswith(magic) or start.startswith(magic.lower()):
            raise SimCroPError(
                f"The file is {kind}, not a report that can be read here.",
                path=path,
                code="not-a-report",
                remedy="Save its text as a .txt file.",
            )


def _read_text(path: Path, encoding: str) -> str:
    with path.open("rb") as file:
        data = file.read(LARGEST_TEXT_BYTES + 1)
    if len(data) > LARGEST_TEXT_BYTES:
        raise SimCroPError(
            f"The report file is larger than {LARGEST_TEXT_BYTES // 1_000_000} MB.",
            path=path,
            code="too-large",
            remedy="Give the report of one examination.",
        )
    try:
        text = data.decode(encoding)
    except (UnicodeError, ValueError) as e:
        raise refuse_encoding(path, encoding) from e
    if "\0" in text:
        raise refuse_binary(path)
    return text


_TEXT_KEYS = ("text", "report", "reporttext")


def _from_json(path: Path, text: str) -> Parts:
    try:
        data = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as e:
        raise SimCroPError(
            "The file is not valid JSON.",
            path=path,
            code="json",
            remedy="Correct it, or give the report as a .txt file.",
        ) from e
    found = _json_parts(data)
    if found is None:
        raise SimCroPError(
            "The JSON holds no report.",
            path=path,
            code="json",
            remedy='Give "findings" and "impression", or "text", or a list of "sentences".',
        )
    return found


def _json_parts(data: Any) -> Parts | None:
    """Sections by name, else a whole text, else sentences; None where there is nothing of it."""
    if isinstance(data, str):
        return Parts([Part(None, data)])
    if isinstance(data, list):
        return _json_parts({"sentences": data})
    if not isinstance(data, dict):
        return None
    named: list[Part] = []
    whole: list[Part] = []
    sentences: list[Part] = []
    unread = 0
    for key, value in data.items():
        plain = "".join(c for c in key.casefold() if c.isalpha())
        section = section_named(key)
        if value is None:
            continue
        if plain in _TEXT_KEYS and isinstance(value, str):
            whole.append(Part(None, value))
        elif plain in (*_TEXT_KEYS, "sections") and isinstance(value, dict):
            inner = _json_parts(value)
            whole += [] if inner is None else inner.parts
        elif plain == "sentences" and _is_strings(value):
            lines = [" ".join(line.split()) for line in value]
            sentences.append(Part("findings", "\n".join(lines), "sentences"))
        elif section is not None and isinstance(value, str):
            named.append(Part(section, value))
        elif section is not None and _is_strings(value):
            named.append(Part(section, "\n".join(value), "items"))
        else:
            unread += 1
    chosen = named or whole or sentences
    if not chosen:
        return None
    unread += len(named) + len(whole) + len(sentences) - len(chosen)
    notes = [Note("ignored-fields", f"Fields of the file that were not read: {unread}.")]
    return Parts(chosen, notes if unread else [])


def _is_strings(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, str) for v in value)


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError("a key occurs twice")
        found[key] = value
    return found
