"""Sentences from templates.

A template is a line of text with

- ``{slot}``: a word or phrase given by the caller; in capitals (``{In_place}``) it is the same
  slot, and stands where it need not be known (a sentence always begins with a capital);
- ``[one|another|]``: one of several wordings, chosen at random; an alternative that asks for a
  slot which was not given is not chosen;
- ``a(n)``: the article that fits the next word;
- ``IS``, ``ARE``, ``SEEN``: the verbs of radiologists, in present or past.

Every fourth template of a topic is held out (``unseen``): a model trained on phantoms never read
it, so that what a model learnt of meaning is told from what it learnt by heart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_MACROS = {
    "IS": "[is|was]",
    "ARE": "[are|were]",
    "SEEN": "[observed|seen|noted|detected|identified]",
}
_MACRO = re.compile(r"\b(?:IS|ARE|SEEN)\b")
_PART = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{(\w+)\}")
_ARTICLE = re.compile(r"\b([Aa])\(n\) (?=(\w+))")
_VOWEL_SOUND = re.compile(r"[aeio]|8|1[18]\b|u(?!ni|s)|hour|honest", re.IGNORECASE)
_HELD_OUT_EVERY = 4


@dataclass(frozen=True)
class Template:
    """One wording: its id (``"lung-nodule/seen/03"``) and its pattern, cut into parts.

    ``parts`` holds, in turn, the alternatives of each stretch of the pattern; a stretch outside
    square brackets has one.
    """

    id: str
    pattern: str
    parts: tuple[tuple[str, ...], ...] = field(repr=False)

    @property
    def unseen(self) -> bool:
        return is_unseen(self.id)

    def fits(self, slots: Mapping[str, str]) -> bool:
        """Whether the template can be filled from these slots."""
        return all(any(_filled_by(a, slots) for a in part) for part in self.parts)

    def fill(self, slots: Mapping[str, str], choices: Sequence[float]) -> str:
        """The sentence; ``choices`` in [0, 1) decide between wordings, one for each part.

        The same choices with other slots give the same sentence about something else.
        """
        words = []
        for number, part in enumerate(self.parts):
            usable = [a for a in part if _filled_by(a, slots)]
            words.append(usable[int(choices[number % len(choices)] * len(usable))])
        text = _SLOT.sub(lambda match: slots[match[1].lower()], "".join(words))
        return finished(text)


def is_unseen(wording: str) -> bool:
    """Whether the wording of this id is held out from training."""
    return "/unseen/" in wording


def templates(topic: str, *patterns: str) -> tuple[Template, ...]:
    """The wordings of a topic; the last of every four is held out."""
    made = []
    for number, pattern in enumerate(patterns):
        held_out = number % _HELD_OUT_EVERY == _HELD_OUT_EVERY - 1
        name = f"{topic}/{'unseen' if held_out else 'seen'}/{number:02d}"
        made.append(Template(name, pattern, _parts(pattern)))
    return tuple(made)


def finished(text: str) -> str:
    """A sentence with its articles, one space between words, and a capital at its beginning."""
    text = _ARTICLE.sub(_article, text)
    text = " ".join(text.split()).replace(" ,", ",").replace(" .", ".")
    return text[:1].upper() + text[1:]


def _article(match: re.Match[str]) -> str:
    return f"{match[1]}{'n' if _VOWEL_SOUND.match(match[2]) else ''} "


def _parts(pattern: str) -> tuple[tuple[str, ...], ...]:
    # Macros stand inside alternatives too: "[a nodule IS SEEN|nodules ARE SEEN]" would nest, so
    # within brackets each becomes its alternatives multiplied out.
    parts: list[tuple[str, ...]] = []
    at = 0
    for match in _PART.finditer(pattern):
        parts += _plain(pattern[at : match.start()])
        parts.append(tuple(a for option in match[1].split("|") for a in _multiplied(option)))
        at = match.end()
    parts += _plain(pattern[at:])
    return tuple(parts)


def _plain(text: str) -> list[tuple[str, ...]]:
    parts: list[tuple[str, ...]] = []
    at = 0
    for match in _MACRO.finditer(text):
        parts.append((text[at : match.start()],))
        parts.append(_options(match[0]))
        at = match.end()
    parts.append((text[at:],))
    return [part for part in parts if part != ("",)]


def _multiplied(option: str) -> list[str]:
    match = _MACRO.search(option)
    if match is None:
        return [option]
    rest = _multiplied(option[match.end() :])
    return [option[: match.start()] + word + tail for word in _options(match[0]) for tail in rest]


def _options(macro: str) -> tuple[str, ...]:
    return tuple(_MACROS[macro][1:-1].split("|"))


def _filled_by(text: str, slots: Mapping[str, str]) -> bool:
    return all(name.lower() in slots for name in _SLOT.findall(text))
