"""The text of a DICOM structured report, and nothing else of the file.

Read are the content items TEXT, CODE and NUM under CONTAINERs (Basic Text, Enhanced and
Comprehensive SR; PS3.3 A.35). Names of people (PNAME), identifiers, dates and all header tags stay
behind, and so do the context items (who observed, with what): they say who, not what.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from simcrop_core.errors import SimCroPError
from simcrop_core.report_files import Part, Parts
from simcrop_core.report_headings import section_named
from simcrop_core.volume import Note

LARGEST_SR_BYTES = 20_000_000
_MOST_ITEMS = 20_000
_DEEPEST = 40
_STRUCTURED_REPORT = "1.2.840.10008.5.1.4.1.1.88."
_CONTEXT = frozenset({"HAS OBS CONTEXT", "HAS ACQ CONTEXT", "HAS CONCEPT MOD", "HAS PROPERTIES"})


def read_structured_report(path: Path) -> Parts:
    """The sections of a DICOM SR, by the names of its containers and items.

    Raises
    ------
    SimCroPError
        Broken or too large a file, another kind of DICOM object, no text in it.
    """
    if path.stat().st_size > LARGEST_SR_BYTES:
        raise SimCroPError(
            f"The DICOM file is larger than {LARGEST_SR_BYTES // 1_000_000} MB.",
            path=path,
            code="too-large",
            remedy="Give a structured report, not images.",
        )
    import pydicom

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path, force=path.suffix.casefold() == ".dcm")
            kind = str(dataset.get("SOPClassUID", ""))
            is_report = kind.startswith(_STRUCTURED_REPORT) or dataset.get("Modality") == "SR"
            items = list(_items(dataset, None, 0)) if is_report else []
    except Exception as e:  # pydicom raises many kinds for broken files.
        raise SimCroPError(
            "The DICOM file is broken.",
            path=path,
            code="dicom",
            remedy="Export the report again, or give its text as a .txt file.",
        ) from e
    if not is_report:
        raise SimCroPError(
            "This is a DICOM file, but not a structured report.",
            path=path,
            code="not-a-report",
            remedy="Choose the SR object of the study, or give the report's text as a .txt file.",
        )
    if not items:
        raise SimCroPError(
            "The structured report holds no text.",
            path=path,
            code="empty",
            remedy="Give the report's text as a .txt file.",
        )
    if len(items) > _MOST_ITEMS:
        raise SimCroPError(
            f"The structured report has more than {_MOST_ITEMS} items.",
            path=path,
            code="too-large",
            remedy="Give the report of one examination.",
        )
    return _parts(items)


def _items(dataset: Any, section: str | None, depth: int) -> Iterator[tuple[str | None, str]]:
    """Section and text of every item in the order of the document."""
    if depth > _DEEPEST:
        raise RecursionError("the report's containers are nested too deeply")
    for item in dataset.get("ContentSequence") or ():
        if str(item.get("RelationshipType", "")) in _CONTEXT:
            continue
        name = _meaning(item.get("ConceptNameCodeSequence"))
        own = section if section is not None else section_named(name)
        text = _text(item, name, named=own is not None and section_named(name) is not None)
        if text:
            yield own, text
        yield from _items(item, own, depth + 1)


def _text(item: Any, name: str, *, named: bool) -> str:
    """What an item says; the concept's name goes before a bare value."""
    kind = str(item.get("ValueType", ""))
    if kind == "TEXT":
        return str(item.get("TextValue", "") or "").strip()
    value = ""
    if kind == "CODE":
        value = _meaning(item.get("ConceptCodeSequence"))
    elif kind == "NUM":
        measured = (item.get("MeasuredValueSequence") or [None])[0]
        if measured is not None and measured.get("NumericValue") is not None:
            unit = (measured.get("MeasurementUnitsCodeSequence") or [None])[0]
            symbol = "" if unit is None else str(unit.get("CodeValue", ""))
            value = f"{measured.NumericValue} {'' if symbol == '1' else symbol}".strip()
    if not value:
        return ""
    return value if named or not name else f"{name}: {value}"


def _meaning(sequence: Any) -> str:
    return str(sequence[0].get("CodeMeaning", "") or "").strip() if sequence else ""


def _parts(items: list[tuple[str | None, str]]) -> Parts:
    """Neighbouring items of one section as one part, one item a line."""
    if all(section is None for section, _ in items):
        items = [("findings", text) for _, text in items]
    parts: list[Part] = []
    for section, text in items:
        name = section or "other"
        if parts and parts[-1].section == name:
            parts[-1] = Part(name, f"{parts[-1].text}\n\n{text}")
        else:
            parts.append(Part(name, text))
    notes = []
    if any("\ufffd" in part.text for part in parts):
        notes.append(
            Note("undecodable", "Some characters of the report do not fit its character set.")
        )
    return Parts(parts, notes)
