"""The headings of a radiology report: which words they are, and where they stand in a text."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

SECTIONS = ("findings", "impression", "technique", "clinical", "comparison", "other")

_WORDINGS: dict[str, tuple[str, ...]] = {
    "findings": (
        "findings", "finding", "report", "description", "observations", "ct findings",
        "chest ct findings", "thorax ct findings", "imaging findings", "radiological findings",
        "radiologic findings", "findings and impression", "findings/impression",
        "report text", "report body", "body",
    ),
    "impression": (
        "impression", "impressions", "conclusion", "conclusions", "opinion", "summary", "result",
        "results", "diagnosis", "assessment", "interpretation", "comment", "comments",
        "final impression", "ct impression", "radiological impression", "radiological diagnosis",
        "impression and recommendation", "impression and recommendations",
        "impression/recommendation", "impression/recommendations",
        "conclusion and recommendations",
    ),
    "technique": (
        "technique", "techniques", "technic", "protocol", "scan protocol", "method", "methods",
        "imaging technique", "examination technique", "ct technique", "scan technique",
        "technical information", "technical details", "procedure", "procedure description",
        "procedure descriptions",
    ),
    "clinical": (
        "clinical information", "clinical info", "clinical history", "clinical indication",
        "clinical indications", "clinical data", "clinical details", "clinical question",
        "clinical background", "clinical statement", "clinical", "history", "patient history",
        "anamnesis", "indication", "indications", "indication for study",
        "indication for examination", "reason for exam", "reason for examination",
        "reason for study", "reason for scan", "reason for request", "request",
        "history and indication", "history/indication",
    ),
    "comparison": (
        "comparison", "comparisons", "comparison study", "comparison studies", "prior study",
        "prior studies", "previous study", "previous studies", "prior examinations",
        "prior procedure descriptions",
    ),
    "other": (
        "recommendation", "recommendations", "addendum", "addenda", "examination", "exam",
        "study", "signature", "signed by", "electronically signed by", "dictated by",
        "reported by", "radiologist",
    ),
}  # fmt: skip

_SECTION_OF = {wording: name for name, wordings in _WORDINGS.items() for wording in wordings}
_SQUASHED = {re.sub(r"[^a-z]", "", wording): name for wording, name in _SECTION_OF.items()}

# In the middle of a line a heading in title case counts only if it is not an everyday word.
_PLAIN_INLINE = (
    "findings", "impression", "impressions", "conclusion", "conclusions", "technique",
    "clinical information", "clinical history", "clinical indication", "indication",
    "radiological findings", "ct findings",
)  # fmt: skip


def _either(wordings: Collection[str]) -> str:
    longest_first = sorted(wordings, key=len, reverse=True)
    return "|".join(re.escape(w).replace(r"\ ", "[ \t]{1,3}") for w in longest_first)


_DECORATION = r"[#*_=>~\[ \t]{0,12}"
_ON_ITS_LINE = re.compile(
    rf"^{_DECORATION}(?:\d{{1,2}}[.)][ \t]{{1,3}})?(?P<label>{_either(_SECTION_OF)})"
    rf"[ \t]{{0,3}}[*_=~\]]{{0,6}}[ \t]{{0,3}}"
    rf"(?:[:：][*_]{{0,3}}|[ \t][-–—](?=\s|\Z)|(?=\n|\Z))",
    re.MULTILINE | re.IGNORECASE | re.ASCII,
)
_CAPITALS = "|".join(_either([w.upper()]) for w in sorted(_SECTION_OF, key=len, reverse=True))
_TITLES = "|".join(_either([w.capitalize(), w.title()]) for w in _PLAIN_INLINE)
_IN_A_LINE = re.compile(
    rf"(?<![\w/-])(?:(?P<capitals>{_CAPITALS})[ \t]{{0,3}}[:：]"
    rf"|(?P<title>{_TITLES})(?:[ \t]{{0,3}}[:：]|\.(?=[ \t][A-Z])))"
)


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading's section and its place, colon and decoration included."""

    name: str
    start: int
    end: int

    def moved(self, by: int) -> Heading:
        return Heading(self.name, self.start + by, self.end + by)


def section_named(label: str) -> str | None:
    """The section that a heading, column or field of this name holds (``"Findings_EN"``)."""
    squashed = re.sub(r"[^a-z]", "", re.sub(r"_en$", "", label.strip().casefold()))
    return _SQUASHED.get(squashed)


def find_headings(text: str, names: Collection[str] = SECTIONS) -> list[Heading]:
    """The headings in a text, in order and disjoint.

    A heading begins a line and is followed by a colon, a dash or the line's end; or it stands in
    the line after white space, in capitals with a colon (``IMPRESSION:``), or after a sentence's
    end in title case with a colon or a full stop.
    """
    found = [Heading(_name(m["label"]), m.start(), m.end()) for m in _ON_ITS_LINE.finditer(text)]
    for match in _IN_A_LINE.finditer(text):
        before = text[max(0, match.start() - 12) : match.start()]
        last = before.rstrip()[-1:]
        if match["title"] and before.strip() and last not in ".!?;:":
            continue
        found.append(Heading(_name(match["capitals"] or match["title"]), *match.span()))
    headings: list[Heading] = []
    for heading in sorted(found, key=lambda h: (h.start, -h.end)):
        if heading.name in names and (not headings or heading.start >= headings[-1].end):
            headings.append(heading)
    return headings


def _name(label: str) -> str:
    return _SECTION_OF[" ".join(label.casefold().split())]
