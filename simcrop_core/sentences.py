"""Where a radiology report's sentences begin and end.

Rules, not a trained model: the same text always gives the same spans, and every rule can be read
here. They were written against real translated chest CT reports (CT-RATE), whose habits differ
from plain English: a semicolon or colon after an introduction ("When examined in the lung
parenchyma window; ..."), a missing space after a full stop ("normal.No"), items one a line, and
abbreviations such as "ca" that both end sentences and stand in their middle.

All work is linear in the length of the text: candidates are found by one regular expression, and
each is judged by what stands within a fixed distance of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from simcrop_core.sentence_words import (
    ABBREVIATIONS,
    AFTER_LAB,
    BEFORE_NUMBER,
    BEGINS,
    CARRIES_ON,
    CUT_SHORT,
    INTRODUCTIONS,
    LABELLED,
    NAMES_FOLLOW,
    NEVER_FIRST,
    UNFINISHED,
)

Span = tuple[int, int]

# Places at which a sentence may end. A newline takes all white space after it along, so that a
# long empty stretch is one candidate.
_CANDIDATE = re.compile(r"[.!?…]+|[;；:：]|[•▪●◦‣∙·]|\n\s*|\)")
_SPACE = re.compile(r"\s*")
_WORD = re.compile(r"\w+(?:-\w+)*")
# What may stand between a stop and the next sentence's first letter.
_OPENING = re.compile(r"[-–—(\[\"“‘'«*]{0,3}[ \t]?")
# What belongs to the sentence that a stop has ended: closing marks, and stray stops ("done. .").
_CLOSING = re.compile(r"[)\]”’\"'»]*(?:[ \t]+[.!?…]+(?=\s|$)){0,3}")
_LIST_MARKER = re.compile(r"(?:[-–—*•▪●◦‣∙·►>]+|\(?(?:\d{1,2}|[A-Za-z])[.)])(?=\s)\s+|[•▪●◦‣∙►]+")
_BULLET = re.compile(r"[-–—*•▪●◦‣∙·►>]")
_NUMBER_MARKER = re.compile(r"\s*\(?(\d{1,2})[.)]\s")
_BARE_MARKER = re.compile(r"\W*(?:\d{1,2}|[A-Za-z]|[ivx]{1,4})", re.ASCII)

_LONGEST_BRACKET = 600
_LONGEST_INTRODUCTION = 250
_LOOKBACK = 60


def split_sentences(
    text: str, start: int = 0, end: int | None = None, *, items: bool = False
) -> list[Span]:
    """Spans of the sentences in ``text[start:end]``: in order, disjoint, trimmed.

    Every character that is not white space lies in a span. A span without any letter or digit
    occurs only where the whole stretch holds none. List markers belong to their sentence.

    Parameters
    ----------
    items
        Every line is an item of its own; else a line may run on into the next.
    """
    end = len(text) if end is None else end
    return _Splitter(text, start, end, items).spans()


def list_marker_length(sentence: str) -> int:
    """How many leading characters of a sentence are its list marker ("1. ", "• ")."""
    match = _LIST_MARKER.match(sentence)
    if match is None or match.end() == len(sentence):
        return 0
    return _SPACE.match(sentence, match.end()).end()  # type: ignore[union-attr]


@dataclass(slots=True)
class _Splitter:
    text: str
    start: int
    end: int
    items: bool

    def spans(self) -> list[Span]:
        text, begin = self.text, self.start
        brackets = _brackets(text, self.start, self.end)
        width = None if self.items else _wrap_width(text, self.start, self.end)
        cuts: list[int] = []
        next_bracket = 0
        for match in _CANDIDATE.finditer(text, self.start, self.end):
            at = match.start()
            while next_bracket < len(brackets) and brackets[next_bracket][1] < at:
                next_bracket += 1
            bracket = brackets[next_bracket] if next_bracket < len(brackets) else None
            if at < begin or (bracket is not None and bracket[0] < at < bracket[1]):
                continue
            mark = match[0][0]
            if mark == "\n":
                cut = self._after_line(begin, match, width)
            elif mark == ")":
                cut = self._after_bracket(begin, bracket, match)
            elif mark in ";；:：":
                cut = self._after_clause(begin, match)
            elif mark in ".!?…":
                cut = self._after_stop(begin, match)
            else:
                cut = at if mark != "·" or self._is_bullet(at) else None
            if cut is not None and cut > begin:
                cuts.append(cut)
                begin = cut
        return _trimmed(text, [self.start, *cuts, self.end])

    # Each of the following answers where the next sentence begins, or None.

    def _after_stop(self, begin: int, match: re.Match[str]) -> int | None:
        text = self.text
        closed = _CLOSING.match(text, match.end(), self.end)
        after = match.end() if closed is None else closed.end()
        follows = self._skip_space(after)
        if follows >= self.end or "\n" in text[after:follows]:
            return None  # The end, or a matter for the newline.
        numbered = self._list_number(begin, match, follows)
        if numbered is not None:
            return numbered
        ends = self._ends_glued if follows == after else self._ends
        return follows if ends(begin, match.start(), match.end(), follows) else None

    def _after_line(self, begin: int, match: re.Match[str], width: int | None) -> int | None:
        text, at, follows = self.text, match.start(), match.end()
        if follows >= self.end:
            return None
        if self.items or match[0].count("\n") > 1:
            return follows
        before = text[max(begin, at - _LOOKBACK) : at].rstrip()
        last = before[-1:]
        word = _last_word(before)
        bullet = _LIST_MARKER.match(text, follows, self.end)
        if bullet is not None and (last not in "," and word not in UNFINISHED):
            return follows
        if bullet is not None and _BULLET.match(text, follows):
            return follows
        if last in (":", "：", ","):
            return None
        if last and last in ".!?…":
            stop = at - (len(text[max(begin, at - _LOOKBACK) : at]) - len(before))
            return follows if self._ends(begin, stop - 1, stop, follows) else None
        if last in (";", "；"):
            return None if _first_word(text, follows) in CARRIES_ON else follows
        first = text[self._skip_opening(follows) : follows + 5][:1]
        if first.islower() or word in UNFINISHED or text[follows] == "(":
            return None
        if width is not None:
            line = at - (text.rfind("\n", max(self.start, at - width - 1), at) + 1)
            room = _SPACE_FREE.match(text, follows, min(self.end, follows + width))
            if line <= width < line + 1 + (room.end() - follows if room else 0):
                return None  # The next word had no room: the line was broken, not ended.
        return follows

    def _after_bracket(self, begin: int, bracket: Span | None, match: re.Match[str]) -> int | None:
        """``... corrugated. (cirrhosis?) Bone structures ...``: a new sentence."""
        text, at = self.text, match.start()
        follows = self._skip_space(at + 1)
        if follows == at + 1 or follows >= self.end or "\n" in text[at + 1 : follows]:
            return None
        if not _capital_word(text, follows):
            return None
        if bracket is None or bracket[1] != at:
            numbered = self._list_number(begin, match, follows)
            return follows if numbered is None and text[at - 1] in ".?" else numbered
        inside = text[bracket[0] + 1 : at]
        return follows if any(c in " .?" or c.isdigit() for c in inside) else None

    def _after_clause(self, begin: int, match: re.Match[str]) -> int | None:
        text, at = self.text, match.start()
        follows = self._skip_space(match.end())
        if follows >= self.end or "\n" in text[match.end() : follows]:
            return None
        introduction = self._is_introduction(begin, at)
        first = text[self._skip_opening(follows) : follows + 5][:1]
        if match[0] in ":：":
            if not introduction or follows == match.end():
                return None
            return follows if first.isalpha() and self._may_begin(follows) else None
        if first.isupper():
            return follows if text[follows] != "(" else None
        if follows == match.end():
            return None
        if first.isdigit():
            return follows if introduction else None
        if not first.isalpha() or text[follows] in "([":
            return None
        word = _first_word(text, follows)
        if word in CARRIES_ON:
            return None
        return follows if introduction or not word.endswith("ed") else None

    # What the answers rest on.

    def _ends(self, begin: int, at: int, after: int, follows: int) -> bool:
        """Whether the stop ``text[at:after]``, with white space after it, ends a sentence."""
        text = self.text
        if text[follows] == "(" and not _capital_inside(text, follows):
            return False  # "... seen. (cyst?)": the bracket belongs to what it explains.
        first = text[self._skip_opening(follows) : follows + 5][:1]
        if not first.isalnum():
            return False
        word = _first_word(text, follows)
        if text[at] in "!?":
            return not first.islower() or word in BEGINS
        if text[after - 1] == "…" or after - at > 1:
            return not first.islower()
        token = _token(text, begin, at)
        if _BARE_MARKER.fullmatch(text[max(begin, at - 8) : at].strip()) and at - begin <= 8:
            return False  # "1. Nodule": the marker belongs to its sentence.
        if ".," in token or _TORN_DATE.fullmatch(token):
            return False  # "right 2.,3.,4. ribs"; "examination of 27.04. compared"
        last = token.casefold().rsplit(".", 1)[-1]
        if token.casefold() in ABBREVIATIONS or last in ABBREVIATIONS:
            return False
        if first.isdigit():
            return last not in BEFORE_NUMBER and not (len(token) == 1 and token.isupper())
        if last == "lab" and word.startswith(AFTER_LAB):
            return False
        if first.islower():
            label = token[-1:].isdigit() and not _YEAR.search(token)
            return not (label or last in CUT_SHORT or word in NEVER_FIRST)
        return not self._is_initial(begin, at, token, follows)

    def _ends_glued(self, begin: int, at: int, after: int, follows: int) -> bool:
        """Whether a stop ends a sentence with no space after it ("normal.No")."""
        text = self.text
        closed = follows > after
        if after - at > 1 and not closed:
            return False
        token = _token(text, begin, at)
        last = token.casefold().rsplit(".", 1)[-1]
        if token.casefold() in ABBREVIATIONS or last in ABBREVIATIONS or ".," in token:
            return False
        if text[follows].isdigit() and text[at] == ".":
            return len(last) > 2 and last.isalpha() and last not in BEFORE_NUMBER
        if not _capital_word(text, follows):
            return False
        if last == "" or text[at - 1] in ")?":
            return True
        return len(last) > 1 and (last.isalpha() or token[-1].isdigit() or not token[-1].isalnum())

    def _may_begin(self, follows: int) -> bool:
        return _first_word(self.text, follows) not in NEVER_FIRST

    def _is_introduction(self, begin: int, at: int) -> bool:
        """Three words or more that begin as introductions do ("As far as can be seen")."""
        if at - begin > _LONGEST_INTRODUCTION:
            return False
        clause = self.text[begin:at].lstrip(" \t\n-–—*•·\"“'")
        if "," not in clause:
            words = clause.split()
        else:  # "The examination is suboptimal, as far as can be observed; ..."
            words = clause.rsplit(",", 1)[1].split()
            if not words or words[0].casefold() != "as":
                words = clause.split()
        return len(words) > 2 and words[0].casefold() in INTRODUCTIONS

    def _is_initial(self, begin: int, at: int, token: str, follows: int) -> bool:
        """Whether a stop follows the initial of a name ("J. Smith"), not a label ("type B.")."""
        letter = token.rsplit(".", 1)[-1]
        if len(letter) != 1 or not letter.isupper():
            return False
        if "." in token or (
            self.text[follows].isupper() and self.text[follows + 1 : follows + 2] == "."
        ):
            return True
        before = self.text[max(begin, at - 1 - _LOOKBACK) : at - 1].rstrip()
        if not before:
            return True
        word = _last_word(before)
        if word in LABELLED or word in ("hepatitis", "vitamin"):
            return False
        name = before.split()[-1].strip(".,(")
        return word in NAMES_FOLLOW or name[:1].isupper()

    def _list_number(self, begin: int, match: re.Match[str], follows: int) -> int | None:
        """``1. Nodule 2. Effusion``: where the number of the next item stands."""
        text, at = self.text, match.start()
        number = text[max(begin, at - 2) : at].lstrip()
        place = at - len(number)
        if not number.isdecimal() or place <= begin or not text[place - 1].isspace():
            return None
        current = _NUMBER_MARKER.match(text, begin, min(self.end, begin + 12))
        if current is None or int(number) != int(current[1]) + 1:
            return None
        if not text[follows].isupper():
            return None
        before = _last_word(text[max(begin, place - _LOOKBACK) : place].rstrip())
        return None if before in LABELLED else place

    def _is_bullet(self, at: int) -> bool:
        """Whether a middle dot is a bullet: a product ("g·cm") has no space before it."""
        return at == self.start or self.text[at - 1].isspace() or self.text[at - 1] in ".!?;"

    def _skip_space(self, at: int) -> int:
        match = _SPACE.match(self.text, at, self.end)
        return at if match is None else match.end()

    def _skip_opening(self, at: int) -> int:
        match = _OPENING.match(self.text, at, self.end)
        return at if match is None else match.end()


_SPACE_FREE = re.compile(r"\S+")
_TORN_DATE = re.compile(r"[0-3]\d\.(?:0[1-9]|1[0-2])")
_YEAR = re.compile(r"(?:19|20)\d\d$")


def _brackets(text: str, start: int, end: int) -> list[Span]:
    """Outermost pairs of round brackets, of moderate length, within one paragraph."""
    pairs: list[Span] = []
    opened: list[int] = []
    for match in _BRACKET.finditer(text, start, end):
        if match[0] == "(":
            opened.append(match.start())
        elif match[0] != ")":
            opened.clear()
        elif opened:
            pair = (opened.pop(), match.start())
            if pair[1] - pair[0] > _LONGEST_BRACKET:
                continue
            while pairs and pairs[-1][0] > pair[0]:
                pairs.pop()
            pairs.append(pair)
    return pairs


_BRACKET = re.compile(r"[()]|\n[ \t]*\n")


def _wrap_width(text: str, start: int, end: int) -> int | None:
    """The line width of a text whose lines were broken by a program, else None."""
    broken = 0
    for match in _BROKEN_LINE.finditer(text, start, end):
        broken += match[0][-1].islower()
        if broken > 1:
            widest = max(len(line) for line in text[start:end].split("\n"))
            return widest if 40 <= widest <= 200 else None
    return None


_BROKEN_LINE = re.compile(r"[\w,]\n\w")


def _trimmed(text: str, cuts: list[int]) -> list[Span]:
    """Spans between cuts without their white space; a span that says nothing joins another."""
    spans: list[Span] = []
    waiting: int | None = None
    for a, b in pairwise(cuts):
        piece = text[a:b]
        body = piece.strip()
        if not body:
            continue
        left = a + len(piece) - len(piece.lstrip())
        right = left + len(body)
        if any(c.isalnum() for c in body):
            spans.append((left if waiting is None else waiting, right))
            waiting = None
        elif spans and waiting is None:
            spans[-1] = (spans[-1][0], right)
        else:
            waiting = left if waiting is None else waiting
    if waiting is not None:
        right = len(text[: cuts[-1]].rstrip())
        spans.append((waiting, right))
    return spans


def _token(text: str, begin: int, at: int) -> str:
    """What stands before a stop, back to white space, without opening brackets and quotes."""
    parts = text[max(begin, at - _LOOKBACK) : at].rsplit(maxsplit=1)
    return parts[-1].lstrip("([\"“‘'«•·-–—/") if parts and not text[at - 1].isspace() else ""


def _first_word(text: str, at: int) -> str:
    match = _WORD.search(text, at, at + 40)
    return "" if match is None else match[0].casefold()


def _last_word(before: str) -> str:
    words = before.split()
    return words[-1].casefold().strip('.([,"“') if words else ""


def _capital_word(text: str, at: int) -> bool:
    """A capital that begins a word in small letters or stands alone ("No", "A "), at ``at``."""
    opening = _OPENING.match(text, at)
    first = at if opening is None else opening.end()
    letter, second = text[first : first + 1], text[first + 1 : first + 2]
    return letter.isupper() and (second.islower() or second.isspace())


def _capital_inside(text: str, bracket: int) -> bool:
    return text[bracket + 1 : bracket + 2].isupper()
