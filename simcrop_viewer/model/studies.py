"""A list of studies to go through: what is known of each, which are shown, which is looked at."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from psygnal import Signal

from simcrop_core.datasets.neutral_name import neutral_name
from simcrop_core.datasets.worklist import ReadableSource

#: Whether there is a report: not looked for yet, there, none, several (a person chooses), broken.
Said = Literal["", "there", "none", "several", "broken"]
State = Literal["", "waiting", "encoding", "encoded", "failed"]
_AROUND = 40


@dataclass(eq=False)
class ListedStudy:
    """A row of the list.

    Attributes
    ----------
    number
        Its place in the list, from 1.
    source
        How it is read.
    said, text
        Whether there is a report, and what it says.
    state
        How it stands with the model in use.
    fault
        Why it cannot be read, or its report, in a sentence.
    stamp
        Of its scan's files, once they were looked at.
    pseudonym
        Of its scan, once that was read.
    """

    number: int
    source: ReadableSource = field(repr=False)
    said: Said = ""
    text: str = field(default="", repr=False)
    state: State = ""
    fault: str = ""
    stamp: str = field(default="", repr=False)
    pseudonym: str = ""

    def __post_init__(self) -> None:
        self._searched = ""
        is_named = getattr(self.source, "is_named", True)
        self._own = neutral_name(self.source.id) if is_named else ""

    @property
    def name(self) -> str:
        """What it is called where anybody may look: never what could name a person."""
        return self._own or self.pseudonym or f"study {self.number}"

    def tell_report(self, said: Said, text: str) -> None:
        """Say what was found of its report."""
        self.said, self.text = said, text
        self._searched = text.casefold()

    def fits(self, words: Sequence[str]) -> bool:
        """Whether every word, in lower case, is in its report or its name."""
        name = self.name.casefold()
        return all(word in self._searched or word in name for word in words)

    def excerpt(self, words: Sequence[str]) -> str:
        """The report around the first of the words that it holds; nothing where it holds none."""
        places = [self._searched.find(word) for word in words]
        places = [place for place in places if place >= 0]
        if not places:
            return ""
        start, end = max(0, places[0] - _AROUND // 2), places[0] + 2 * _AROUND
        before = start > 0 and " " in self.text[start : places[0]]
        start += self.text[start : places[0]].find(" ") + 1 if before else 0
        text, after = self.text[start:end], end < len(self.text)
        text = " ".join((text.rsplit(" ", 1)[0] if after else text).split())
        return f"{'... ' * before}{text}{' ...' * after}"


class StudyList:
    """The list, the words it is filtered by, and where a person is in it.

    Attributes
    ----------
    left_out
        What could not be searched for studies, in sentences that name no folder.
    """

    listed = Signal()  # other rows, or none
    shown_changed = Signal()
    rows_changed = Signal(object)  # indices
    current_changed = Signal()

    def __init__(self) -> None:
        self._rows: tuple[ListedStudy, ...] = ()
        self._shown: tuple[int, ...] = ()
        self._words: tuple[str, ...] = ()
        self._current: int | None = None
        self._open: int | None = None
        self.left_out = ""

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def rows(self) -> tuple[ListedStudy, ...]:
        return self._rows

    def put(self, sources: Iterable[ReadableSource], left_out: str = "") -> None:
        """List other studies."""
        self.left_out = left_out
        self._rows = tuple(ListedStudy(number, s) for number, s in enumerate(sources, 1))
        self._current = self._open = None
        self._words = ()
        self._shown = tuple(range(len(self._rows)))
        self.listed.emit()

    # -- what is shown --------------------------------------------------------------------------

    @property
    def words(self) -> tuple[str, ...]:
        """What the reports are searched for, in lower case."""
        return self._words

    @property
    def shown(self) -> tuple[int, ...]:
        """Indices of the rows that have all the words."""
        return self._shown

    def search(self, text: str) -> None:
        """Show the studies whose report (or name) holds every word."""
        self._words = tuple(text.casefold().split())
        self._fit()

    def _fit(self) -> None:
        shown = tuple(i for i, row in enumerate(self._rows) if row.fits(self._words))
        if shown != self._shown:
            self._shown = shown
            self.shown_changed.emit()
        elif shown:
            self.rows_changed.emit(shown)  # excerpts are others

    # -- what is known --------------------------------------------------------------------------

    def tell(self, indices: Iterable[int]) -> None:
        """Something of these rows has changed."""
        changed = tuple(indices)
        if self._words:
            shown = set(self._shown)
            if any(self._rows[i].fits(self._words) != (i in shown) for i in changed):
                self._fit()
        self.rows_changed.emit(changed)

    def set_state(self, index: int, state: State, fault: str = "") -> None:
        """How one row stands with the model; a fault goes once it could be read."""
        row = self._rows[index]
        row.state = state
        if fault or state == "encoded":
            row.fault = fault
        self.tell((index,))

    def clear_states(self, among: Sequence[State]) -> None:
        """Forget how rows stand that stand like this."""
        changed = [i for i, row in enumerate(self._rows) if row.state in among]
        for index in changed:
            self._rows[index].state = ""
        if changed:
            self.tell(changed)

    # -- where a person is ----------------------------------------------------------------------

    @property
    def current(self) -> int | None:
        """The row that was asked for last."""
        return self._current

    @property
    def open(self) -> int | None:
        """The row whose study is open."""
        return self._open

    def go(self, index: int | None) -> None:
        """Ask for a row."""
        if index != self._current:
            before, self._current = self._current, index
            self.rows_changed.emit(tuple(i for i in (before, index) if i is not None))
            self.current_changed.emit()

    def mark_open(self, index: int | None) -> None:
        """Say which row's study is open."""
        if index != self._open:
            before, self._open = self._open, index
            self.rows_changed.emit(tuple(i for i in (before, index) if i is not None))
            self.current_changed.emit()

    def beside(self, forward: bool) -> int | None:
        """The next of the rows that are shown, or the one before; None beyond the last."""
        at = self._current
        if forward:
            return next((i for i in self._shown if at is None or i > at), None)
        return next((i for i in reversed(self._shown) if at is not None and i < at), None)
