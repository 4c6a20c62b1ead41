"""What is open and what is looked at: the state that all views share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np
from numpy.typing import ArrayLike, NDArray
from psygnal import Signal

from simcrop_core.alignment_result import QUERY, AlignmentResult
from simcrop_core.report import Report
from simcrop_core.volume import CTVolume, Note
from simcrop_viewer.model.display import Display
from simcrop_viewer.model.overlay import OverlaySettings
from simcrop_viewer.model.windows import PRESETS, Window

#: A sentence that stands out less than this share of unrelated ones, in per cent, has no support.
SUPPORTED_FROM = 95.0
#: Statements whose evidence is shown at once.
MOST_SELECTED = 6
_numbers = count(1)


@dataclass(frozen=True, slots=True, eq=False)
class OpenStudy:
    """A scan that is open, with its report if there is one.

    ``number`` tells one opening from the next, so that what arrives late for another is dropped.
    ``series`` (of a DICOM folder; ``""`` where the usual one was chosen) and ``volume_name`` (the
    row of a csv of reports) say which was read where there are several. ``stamp`` is that of the
    files of a list's study, as they were before they were read.
    """

    volume: CTVolume
    display: Display
    report: Report | None = None
    number: int = field(default_factory=lambda: next(_numbers))
    series: str | None = None
    volume_name: str | None = None
    stamp: str = ""

    @property
    def name(self) -> str:
        """A name that tells nothing of the patient or the file."""
        return self.volume.pseudonym

    @property
    def notes(self) -> tuple[Note, ...]:
        """What was done to scan and report."""
        report = () if self.report is None else self.report.notes
        return (*self.volume.notes, *report)


@dataclass(frozen=True, slots=True, eq=False)
class Statement:
    """A sentence of the report or a person's own words, with its evidence once there is some.

    Attributes
    ----------
    text, section
        As in the report; a person's own words have the section ``"query"``.
    result, row
        Where its similarities are; None before the scan is encoded.
    """

    text: str
    section: str
    result: AlignmentResult | None = None
    row: int = 0

    @property
    def is_query(self) -> bool:
        return self.section == QUERY

    @property
    def score(self) -> float | None:
        """Standard deviations above unrelated sentences."""
        return None if self.result is None else self.result.sentences[self.row].score

    @property
    def is_supported(self) -> bool | None:
        """Whether the scan supports it more than 95 % of unrelated sentences."""
        if self.result is None:
            return None
        return self.result.sentences[self.row].null_percentile >= SUPPORTED_FROM


class Session:
    """The state of the application; every change is told once, after it is made.

    Attributes
    ----------
    overlay
        How evidence is drawn.
    """

    study_changed = Signal()
    report_changed = Signal()
    statements_changed = Signal()
    selection_changed = Signal()
    chosen = Signal()  # a person selected something, as against evidence having come
    hint_changed = Signal()
    position_changed = Signal()
    window_changed = Signal()

    def __init__(self) -> None:
        self.overlay = OverlaySettings()
        self._study: OpenStudy | None = None
        self._statements: tuple[Statement, ...] = ()
        self._selection: tuple[int, ...] = ()
        self._hint: int | None = None
        self._position = np.zeros(3)
        self._window = PRESETS["lung"]

    # -- the study ------------------------------------------------------------------------------

    @property
    def study(self) -> OpenStudy | None:
        return self._study

    def show(self, study: OpenStudy | None) -> None:
        """Replace what is open; evidence and selection of the earlier study go with it."""
        self.hint(None)
        self._study = study
        self._selection = ()
        report = None if study is None else study.report
        self._statements = statements_of(report, None)
        if study is not None:
            self._position = study.display.grid.center_mm
        self.study_changed.emit()
        self.statements_changed.emit()
        self.selection_changed.emit()
        self.position_changed.emit()

    def set_report(self, report: Report, volume_name: str | None = None) -> None:
        """Give the open scan another report; the scan, and where it is looked at, stay."""
        if self._study is None:
            return
        self.hint(None)
        self._study = replace(self._study, report=report, volume_name=volume_name)
        self._selection = ()
        self._statements = statements_of(report, None)
        self.report_changed.emit()
        self.statements_changed.emit()
        self.selection_changed.emit()

    # -- statements -----------------------------------------------------------------------------

    @property
    def statements(self) -> tuple[Statement, ...]:
        """The report's sentences in order, then a person's own words, newest last."""
        return self._statements

    def set_statements(self, statements: tuple[Statement, ...]) -> None:
        """Replace the statements; what was selected stays so, as far as it is still there."""
        self.hint(None)
        self._statements = statements
        self._selection = tuple(i for i in self._selection if i < len(statements))
        self.statements_changed.emit()
        self.selection_changed.emit()

    @property
    def selection(self) -> tuple[int, ...]:
        """Indices of the statements whose evidence is shown; the last one was chosen last."""
        return self._selection

    def select(self, *indices: int) -> None:
        """Show the evidence of these statements, each once, in this order; of more than
        ``MOST_SELECTED`` the last ones."""
        wanted = tuple(dict.fromkeys(i for i in indices if 0 <= i < len(self._statements)))
        wanted = wanted[-MOST_SELECTED:]
        hinted, self._hint = self._hint, None
        if wanted != self._selection:
            self._selection = wanted
            self.selection_changed.emit()
            self.chosen.emit()
        elif hinted is not None:
            self.hint_changed.emit()

    def step(self, forward: bool, among: Sequence[int]) -> None:
        """Select the next statement of some (in order), or the one before; none beyond the last."""
        before = -1 if forward else len(self._statements)
        now = self._selection[-1] if self._selection else before
        ahead = [i for i in among if (i > now if forward else i < now)]
        if ahead:
            self.select(ahead[0] if forward else ahead[-1])
        elif now in among:
            self.select(now)

    @property
    def hinted(self) -> Statement | None:
        """A statement that is only pointed at: its evidence is shown until the pointer leaves."""
        return None if self._hint is None else self._statements[self._hint]

    def hint(self, index: int | None) -> None:
        """Point at a statement, or at none; at one that is selected is at none."""
        if index is not None and (index in self._selection or index >= len(self._statements)):
            index = None
        if index != self._hint:
            self._hint = index
            self.hint_changed.emit()

    @property
    def selected(self) -> tuple[Statement, ...]:
        return tuple(self._statements[i] for i in self._selection)

    # -- where and how it is looked at ----------------------------------------------------------

    @property
    def position_mm(self) -> NDArray[np.float64]:
        """The crosshair, RAS millimetres."""
        return self._position

    def move_to(self, world_mm: ArrayLike) -> None:
        """Put the crosshair somewhere within the scan."""
        if self._study is None:
            return
        low, high = self._study.display.grid.bounds_mm()
        inside = 1e-3  # the outermost border belongs to no voxel
        point = np.clip(np.asarray(world_mm, np.float64), low + inside, high - inside)
        if not np.array_equal(point, self._position):
            self._position = point
            self.position_changed.emit()

    @property
    def window(self) -> Window:
        return self._window

    def set_window(self, window: Window) -> None:
        """Width within 1 and 8000 HU, level within 4000 HU of 0."""
        width, level = float(window.width), float(window.level)
        wanted = Window(min(max(1.0, width), 8000.0), min(max(-4000.0, level), 4000.0))
        if wanted != self._window:
            self._window = wanted
            self.window_changed.emit()


def statements_of(report: Report | None, result: AlignmentResult | None) -> tuple[Statement, ...]:
    """A report's sentences as statements, with their evidence in ``result`` if there is one."""
    sentences = () if report is None else report.sentences
    return tuple(
        Statement(sentence.statement, sentence.section, result, row)
        for row, sentence in enumerate(sentences)
    )
