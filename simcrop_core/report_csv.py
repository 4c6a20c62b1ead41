"""One row of a csv of reports, as CT-RATE publishes them.

Two layouts are known: the data set's own (``VolumeName``, ``ClinicalInformation_EN``,
``Technique_EN``, ``Findings_EN``, ``Impressions_EN``; "Not given." means empty) and the one with
``AccessionNo`` and ``report_text``, in which the Impression follows the Findings after a mark.
The file is streamed: a csv of 100 MB costs no more memory than its longest row.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from simcrop_core.errors import SimCroPError
from simcrop_core.report_files import Part, Parts, refuse_binary, refuse_encoding
from simcrop_core.report_headings import find_headings, section_named
from simcrop_core.volume import Note

_VOLUME_COLUMNS = ("volumename", "volume", "filename", "file", "name", "id")
_STUDY_COLUMNS = ("accessionno", "accession", "accessionnumber", "study", "studyid")
_TEXT_COLUMNS = ("reporttext", "text", "report")
_EMPTY = frozenset({"", "not given", "none", "n/a", "nan", "null"})
_LONGEST_LINE = 1_000_000

# What stands between the items of an Impression, its line breaks having been lost: quotation
# marks, bullets, and bullets that became question marks or a dash after a full stop.
_MARK = re.compile(r"[\"•·“”]|(?<=\.)[ \t]{1,3}\?+\.?(?=\s)|(?<=\.[ ])-(?=[A-Z])")
_AROUND = re.compile(r"\n[\s?]*")


@dataclass(frozen=True, slots=True)
class _Columns:
    """Where things stand in a row: the key, the named sections, the whole text."""

    key: int | None
    whole_study: bool
    sections: tuple[tuple[int, str], ...]
    text: int | None


def read_csv_row(path: Path, encoding: str, volume_name: str | None) -> Parts:
    """The report of one row.

    Raises
    ------
    SimCroPError
        No such row, several that differ, no name where there are many rows, columns of another
        kind, a broken file.
    """
    try:
        with path.open(encoding=_with_bom(encoding), errors="strict", newline="") as file:
            rows = _rows(file, path)
            columns, width = _columns(path, next(rows, []))
            row = _the_row(path, rows, columns, volume_name)
    except UnicodeError as e:
        raise refuse_encoding(path, encoding) from e
    except csv.Error as e:
        raise _broken(path) from e
    if len(row) != width:
        raise _uneven(path, len(row), width)
    return _parts(row, columns)


def read_csv_rows(path: Path, encoding: str) -> Iterator[tuple[str, Parts]]:
    """Every row's name (without extension) and its report, in one pass.

    A row without any text gives no parts.

    Raises
    ------
    SimCroPError
        Columns of another kind, no column of names, a broken file.
    """
    try:
        with path.open(encoding=_with_bom(encoding), errors="strict", newline="") as file:
            rows = _rows(file, path)
            columns, width = _columns(path, next(rows, []))
            if columns.key is None:
                raise _no_key(path)
            for row in rows:
                if len(row) != width:
                    raise _uneven(path, len(row), width)
                yield _stem(row[columns.key]), _parts(row, columns)
    except UnicodeError as e:
        raise refuse_encoding(path, encoding) from e
    except csv.Error as e:
        raise _broken(path) from e


def _broken(path: Path) -> SimCroPError:
    return SimCroPError(
        "The csv is broken: a row cannot be read.",
        path=path,
        code="csv",
        remedy="Check its quotation marks, or fetch the file again.",
    )


def _uneven(path: Path, found: int, width: int) -> SimCroPError:
    return SimCroPError(
        f"The row has {found} columns where the csv has {width}.",
        path=path,
        code="csv",
        remedy="Check the quotation marks of that row.",
    )


def _no_key(path: Path) -> SimCroPError:
    return SimCroPError(
        "The csv has no column of volume names.",
        path=path,
        code="csv",
        remedy="Name that column VolumeName, or give a csv of one row without --volume-name.",
    )


def _with_bom(encoding: str) -> str:
    return "utf-8-sig" if encoding in ("utf-8", "utf8") else encoding


def _rows(file: TextIO, path: Path) -> Iterator[list[str]]:
    first = _line(file, path)
    delimiter = max(",;\t", key=first.count)

    def lines() -> Iterator[str]:
        yield first
        while line := _line(file, path):
            yield line

    # strict: a quotation mark that is never closed is an error, not the rest of the file.
    return (row for row in csv.reader(lines(), delimiter=delimiter, strict=True) if row)


def _line(file: TextIO, path: Path) -> str:
    line = file.readline(_LONGEST_LINE)
    if len(line) >= _LONGEST_LINE:
        raise SimCroPError(
            "A line of the csv is too long to be a report.",
            path=path,
            code="too-large",
            remedy="Give the reports' csv as it was published.",
        )
    if "\0" in line:
        raise refuse_binary(path)
    return line


def _columns(path: Path, header: list[str]) -> tuple[_Columns, int]:
    plain = ["".join(c for c in name.casefold() if c.isalpha()) for name in header]
    volume = next((plain.index(n) for n in _VOLUME_COLUMNS if n in plain), None)
    study = next((plain.index(n) for n in _STUDY_COLUMNS if n in plain), None)
    text = next((plain.index(n) for n in _TEXT_COLUMNS if n in plain), None)
    key = volume if volume is not None else study
    sections = []
    for column, name in enumerate(header):
        section = section_named(name)
        if section is not None and column not in (text, key, study):
            sections.append((column, section))
    named = {section for _, section in sections}
    if text is None and not named & {"findings", "impression"}:
        raise SimCroPError(
            "The csv has no column of reports.",
            path=path,
            code="csv",
            remedy="Name its columns as CT-RATE does: VolumeName, Findings_EN, Impressions_EN.",
        )
    if named & {"findings", "impression"}:
        text = None
    return _Columns(key, volume is None, tuple(sections), text), len(header)


def _the_row(
    path: Path, rows: Iterator[list[str]], columns: _Columns, volume_name: str | None
) -> list[str]:
    if volume_name is None:
        row = next(rows, None)
        if row is None:
            raise SimCroPError(
                "The csv has no rows.",
                path=path,
                code="empty",
                remedy="Give a csv with a report in it.",
            )
        if next(rows, None) is not None:
            raise SimCroPError(
                "The csv holds more than one report.",
                path=path,
                code="volume-name",
                remedy="Say which one with --volume-name, for example train_1_a_1.",
            )
        return row
    if columns.key is None:
        raise _no_key(path)
    wanted = _stem(volume_name)
    found: list[str] | None = None
    for row in rows:
        if len(row) <= columns.key or not _same(row[columns.key], wanted, columns.whole_study):
            continue
        if found is not None and found != row:
            raise SimCroPError(
                "The csv has several different rows of that name.",
                path=path,
                code="volume-name",
                remedy="Give the full name of one volume with --volume-name.",
            )
        found = row
    if found is None:
        raise SimCroPError(
            "The csv has no row of that name.",
            path=path,
            code="volume-name",
            remedy="Give a name from its first column with --volume-name, such as train_1_a_1.",
        )
    return found


def _stem(name: str) -> str:
    base = re.split(r"[\\/]", name.strip())[-1]
    return re.sub(r"\.(?:nii(?:\.gz)?|mha|mhd|nrrd|npz|dcm|gz)$", "", base, flags=re.IGNORECASE)


def _same(cell: str, wanted: str, whole_study: bool) -> bool:
    """``train_1_a_1.nii.gz`` is ``train_1_a_1``; study ``train_1`` holds ``train_1_a_1`` too."""
    name = _stem(cell)
    return bool(name) and (name == wanted or (whole_study and wanted.startswith(f"{name}_")))


def _parts(row: list[str], columns: _Columns) -> Parts:
    notes: list[Note] = []
    parts: list[Part] = []
    marked = False
    for column, section in columns.sections if columns.text is None else ():
        cell = row[column].strip()
        if cell.rstrip(".").casefold() in _EMPTY:
            continue
        items = _items(cell)
        marked = marked or items != cell
        parts.append(Part(section, items, "items" if items != cell else "running"))
    if columns.text is not None:
        text = row[columns.text].strip()
        mark = _MARK.search(text)
        if mark is None or mark.start() == 0:
            parts.append(_unmarked(text))
            if parts[-1].section is not None:
                notes.append(
                    Note(
                        "impression-not-marked",
                        "Nothing in the row marks where the Impression begins: "
                        "all of its text is taken as Findings.",
                    )
                )
        else:
            marked = True
            notes.append(
                Note(
                    "impression-by-mark",
                    "The Impression was taken to begin at the row's first quotation mark or "
                    "bullet.",
                )
            )
            parts.append(Part("findings", text[: mark.start()]))
            parts.append(Part("impression", _items("\n" + text[mark.end() :]), "items"))
    if marked:
        notes.append(
            Note("quotation-marks", "Quotation marks and bullets were read as line breaks.")
        )
    return Parts(parts, notes)


def _unmarked(text: str) -> Part:
    headings = find_headings(text, ("findings", "impression"))
    return Part(None if headings else "findings", text)


def _items(text: str) -> str:
    """Items one a line; a line of stops and commas only is what was left of a mark."""
    lines = _AROUND.sub("\n", _MARK.sub("\n", text)).split("\n")
    return "\n".join(line.strip() for line in lines if any(c.isalnum() for c in line))
