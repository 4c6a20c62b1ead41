"""A radiology report: its text, its sections, its sentences and where each of them stands."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

from simcrop_core.errors import SimCroPError
from simcrop_core.report_files import Part, Parts, read_parts
from simcrop_core.report_headings import SECTIONS, Heading, find_headings
from simcrop_core.sentences import list_marker_length, split_sentences
from simcrop_core.volume import Note

__all__ = ["SECTIONS", "Report", "Section", "Sentence", "read_report", "report_from_parts"]

Span = tuple[int, int]

SECTION_TITLES = {
    "findings": "Findings",
    "impression": "Impression",
    "technique": "Technique",
    "clinical": "Clinical information",
    "comparison": "Comparison",
    "other": "Other",
}
_PREFACES = frozenset({"technique", "clinical", "comparison"})


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a report.

    ``name`` is one of ``SECTIONS``; ``span`` covers heading and text, ``heading`` the heading
    alone (None where the text has none); both index ``Report.text``.
    """

    name: str
    span: Span
    heading: Span | None = None


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence as it stands in the report: ``text == report.text[span[0]:span[1]]``."""

    text: str = field(repr=False)
    span: Span
    section: str

    @property
    def statement(self) -> str:
        """The text without its list marker ("1.", "•"), on one line: what an encoder reads."""
        return " ".join(self.text[list_marker_length(self.text) :].split())


@dataclass(frozen=True, slots=True)
class Report:
    """A report's normalised text and what stands where in it.

    Attributes
    ----------
    text
        The text in NFC, with ``\\n`` for every line break; letter case is as written.
    sentences
        In order and disjoint. Together with the headings they cover all of the text that is not
        white space. Empty where the report has headings only.
    sections
        In order and disjoint; a name may occur more than once.
    notes
        What was decided on reading.
    source
        The file it came from, for messages to the person at this machine; never written into
        results.
    """

    text: str = field(repr=False)
    sentences: tuple[Sentence, ...]
    sections: tuple[Section, ...]
    notes: tuple[Note, ...] = ()
    source: Path | None = field(default=None, repr=False)

    @classmethod
    def from_text(cls, text: str) -> Report:
        """Sections and sentences of a report given as text; without headings it is Findings.

        Raises
        ------
        SimCroPError
            The text holds no word.
        """
        return _assemble([Part(None, text)], (), None)

    def in_section(self, name: str) -> tuple[Sentence, ...]:
        """The sentences of a section (``"findings"``), in order; none where it is absent."""
        if name not in SECTIONS:
            raise ValueError(f"A report has no section {name!r}; there are {', '.join(SECTIONS)}.")
        return tuple(s for s in self.sentences if s.section == name)


def read_report(
    path: str | PathLike[str], *, volume_name: str | None = None, encoding: str | None = None
) -> Report:
    """Read a report from a text file, JSON, a row of a CT-RATE csv or a DICOM SR.

    Parameters
    ----------
    volume_name
        Which row of a csv: the name of the scan, with or without extension.
    encoding
        The code page of a text, JSON or csv file that is not UTF-8 (or UTF-16 with its mark).

    Raises
    ------
    SimCroPError
        The file is absent, empty, too large, of another kind or not in the declared code page;
        the row is absent or not unique.
    """
    source = Path(path)
    parts = read_parts(source, volume_name, encoding)
    return _assemble(parts.parts, parts.notes, source)


def report_from_parts(parts: Parts, source: Path | None = None) -> Report:
    """The report whose parts were read before, as from a row of a csv.

    Raises
    ------
    SimCroPError
        ``empty``: there is no word in them.
    """
    return _assemble(parts.parts, parts.notes, source)


def _assemble(parts: Iterable[Part], notes: Iterable[Note], source: Path | None) -> Report:
    """One text out of a source's parts, with sections and sentences found in each."""
    text = ""
    sections: list[Section] = []
    sentences: list[Sentence] = []
    all_notes = list(notes)
    for part in parts:
        body, found = _normalised(part.text)
        all_notes += [note for note in found if note not in all_notes]
        if not any(c.isalnum() for c in body):
            continue
        text += "\n\n" if text else ""
        start = len(text)
        if part.section is None:
            headings = [h.moved(start) for h in find_headings(body)]
            text += body
            if not any(h.name == "findings" for h in headings):
                headings = _end_prefaces(text, headings)
        else:
            text += f"{SECTION_TITLES[part.section]}:\n"
            title = Heading(part.section, start, len(text) - 1)
            within = find_headings(body, ("findings", "impression"))
            headings = [title, *(h.moved(len(text)) for h in within)]
            text += body
        places = _sections(text, start, headings)
        sections += places
        for place in places:
            begin = place.span[0] if place.heading is None else place.heading[1]
            spans = split_sentences(text, begin, place.span[1], items=part.lines != "running")
            if part.lines == "sentences":
                spans = _lines(text, begin, place.span[1])
            sentences += [Sentence(text[a:b], (a, b), place.name) for a, b in spans]
    if not text:
        raise SimCroPError(
            "The report is empty.",
            path=source,
            code="empty",
            remedy="Give a report with text in it.",
        )
    if not any(s.section == "findings" for s in sentences):
        all_notes.append(Note("no-findings", "The report has no text under Findings."))
    return Report(text, tuple(sentences), tuple(sections), tuple(all_notes), source)


def _sections(text: str, start: int, headings: list[Heading]) -> list[Section]:
    """Sections of ``text[start:]``: from each heading to the next, and Findings before the first.

    A stretch without letters or digits ("-----") counts to a heading, not as a sentence.
    """
    first = headings[0].start if headings else len(text)
    if headings and not _says_something(text, start, first):
        headings[0] = Heading(headings[0].name, _skip_space(text, start), headings[0].end)
    sections = []
    if _says_something(text, start, first):
        sections.append(Section("findings", (start, _trim_end(text, start, first))))
    ends = [h.start for h in headings[1:]] + [len(text)] * bool(headings)
    for heading, end in zip(headings, ends, strict=True):
        end = _trim_end(text, heading.start, end)
        heading_end = heading.end if _says_something(text, heading.end, end) else end
        place = None if heading_end == heading.start else (heading.start, heading_end)
        sections.append(Section(heading.name, (heading.start, end), place))
    return sections


def _end_prefaces(text: str, headings: list[Heading]) -> list[Heading]:
    """Where no heading says Findings, technique and the like end with their paragraph."""
    ended: list[Heading] = []
    ends = [h.start for h in headings[1:]] + [len(text)] * bool(headings)
    for heading, end in zip(headings, ends, strict=True):
        ended.append(heading)
        if heading.name not in _PREFACES:
            continue
        body = _skip_space(text, heading.end)
        gap = _EMPTY_LINE.search(text, body, end) if body < end else None
        if gap is not None and _says_something(text, gap.end(), end):
            at = _skip_space(text, gap.end())
            ended.append(Heading("findings", at, at))
    return ended


_EMPTY_LINE = re.compile(r"\n[ \t]*\n")
_SPACE = re.compile(r"\s*")
_WORD = re.compile(r"[^\W_]")


def _skip_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return at if match is None else match.end()


def _trim_end(text: str, start: int, end: int) -> int:
    return start + len(text[start:end].rstrip())


def _says_something(text: str, start: int, end: int) -> bool:
    return _WORD.search(text, start, end) is not None


def _lines(text: str, start: int, end: int) -> list[Span]:
    """Each line that says something, as a sentence the person made."""
    spans = []
    for match in re.finditer(r"[^\n]+", text[start:end]):
        line = match[0].strip()
        if line:
            left = start + match.start() + len(match[0]) - len(match[0].lstrip())
            spans.append((left, left + len(line)))
    return spans


_LINE_BREAKS = re.compile(r"\r\n|[\r\v\f\x85\u2028\u2029]")
_DOUBLED_QUOTES = re.compile(r'"{2,}')
_INVISIBLE = re.compile("[\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\u00ad]")
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")


def _normalised(text: str) -> tuple[str, list[Note]]:
    """NFC, one kind of line break, nothing that a terminal or a screen would act upon."""
    notes: list[Note] = []
    text = _LINE_BREAKS.sub("\n", text)
    text, invisible = _INVISIBLE.subn("", text)
    text, control = _CONTROL.subn(" ", text)
    if invisible + control:
        notes.append(
            Note(
                "control-characters",
                f"{invisible + control} characters that cannot be shown were left out.",
            )
        )
    text, doubled = _DOUBLED_QUOTES.subn("\n", text)
    if doubled:
        notes.append(
            Note("quotation-marks", "Doubled quotation marks were read as line breaks, not text.")
        )
    return unicodedata.normalize("NFC", text).strip(), notes
