"""The report: sections and sentences to read and to choose from, and a line for own words."""

from __future__ import annotations

from html import escape

from numpy.typing import ArrayLike
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import (
    QComboBox,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QListWidgetItem,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from simcrop_core.report import SECTION_TITLES
from simcrop_viewer.controller.evidence import EvidenceController
from simcrop_viewer.controller.scenes import ONE_COLOR, color_of
from simcrop_viewer.model.session import Session, Statement
from simcrop_viewer.view.sentence_list import (
    COLOR,
    HEADING,
    INDEX,
    SCORE,
    HistoryLine,
    SentenceList,
)

_TITLES = {**SECTION_TITLES, "query": "Your own words"}
#: How long the pointer rests on a sentence before its evidence is shown.
_HOVER_MS = 150
#: Sentences that are named for a place.
_MOST_HERE = 4


class ReportPanel(QWidget):
    """Sentences; the chosen ones' evidence is what the views show."""

    def __init__(self, session: Session, evidence: EvidenceController) -> None:
        super().__init__()
        self._session = session
        self._evidence = evidence
        self._telling = False
        self.list = SentenceList()
        self.list.setObjectName("sentences")
        self.find = QLineEdit()
        self.find.setPlaceholderText("Find in the report")
        self.find.setClearButtonEnabled(True)
        self.section = QComboBox()
        self.section.setToolTip("Show one section only")
        self.ask = HistoryLine()
        self.ask.setObjectName("ask")
        self.ask.setPlaceholderText("Ask in your own words, such as: nodule in the left upper lobe")
        self.ask_button = QPushButton("Ask")
        self.state = QLabel()
        self.state.setWordWrap(True)
        self.here = QLabel()
        self.here.setObjectName("here")
        self.here.setWordWrap(True)
        self.here.setTextFormat(Qt.TextFormat.RichText)
        self.here.linkActivated.connect(lambda index: self._session.select(int(index)))
        self.here.hide()
        self.previous = QPushButton("Previous (K)")
        self.next = QPushButton("Next sentence (J)")
        self._lay_out()
        self.previous.clicked.connect(lambda: self.step(forward=False))
        self.next.clicked.connect(lambda: self.step(forward=True))
        self.list.itemSelectionChanged.connect(self._chosen)
        # A pointer that only passes by changes nothing.
        self._hovering = QTimer(self)
        self._hovering.setSingleShot(True)
        self._hovering.setInterval(_HOVER_MS)
        self._hovering.timeout.connect(self._hint)
        self._hovered: int | None = None
        self.list.hovered.connect(self._hover)
        self.find.textChanged.connect(self._filter)
        self.section.currentIndexChanged.connect(self._filter)
        self.ask.returnPressed.connect(self._ask)
        self.ask_button.clicked.connect(self._ask)
        session.statements_changed.connect(self._fill)
        session.selection_changed.connect(self._select)
        evidence.encoded_changed.connect(self._tell_state)
        evidence.model_changed.connect(self._tell_state)
        session.study_changed.connect(self._tell_state)
        session.study_changed.connect(self._clear_find)
        self._fill()
        self._tell_state()

    def disconnect_all(self) -> None:
        """Let go of session and controller."""
        self._hovering.stop()
        self._session.statements_changed.disconnect(self._fill)
        self._session.selection_changed.disconnect(self._select)
        self._session.study_changed.disconnect(self._tell_state)
        self._session.study_changed.disconnect(self._clear_find)
        self._evidence.encoded_changed.disconnect(self._tell_state)
        self._evidence.model_changed.disconnect(self._tell_state)

    def _lay_out(self) -> None:
        top = QHBoxLayout()
        top.addWidget(self.find, 1)
        top.addWidget(self.section)
        steps = QHBoxLayout()
        steps.addWidget(self.previous)
        steps.addWidget(self.next)
        own = QHBoxLayout()
        own.addWidget(self.ask, 1)
        own.addWidget(self.ask_button)
        body = QVBoxLayout(self)
        body.setContentsMargins(6, 6, 6, 6)
        body.addLayout(top)
        body.addWidget(self.list, 1)
        body.addWidget(self.here)
        body.addWidget(self.state)
        body.addLayout(steps)
        body.addLayout(own)

    # -- the list -------------------------------------------------------------------------------

    def _fill(self) -> None:
        self.here.hide()
        self._telling = True
        self.list.clear()
        section = None
        for index, statement in enumerate(self._session.statements):
            if statement.section != section:
                section = statement.section
                self._add_heading(section)
            self._add_sentence(index, statement)
        self._telling = False
        self._fill_sections()
        self._select()

    def _add_heading(self, section: str) -> None:
        item = QListWidgetItem(_TITLES.get(section, section.capitalize()))
        item.setData(HEADING, section)
        item.setFlags(Qt.ItemFlag.NoItemFlags)
        self.list.addItem(item)

    def _add_sentence(self, index: int, statement: Statement) -> None:
        item = QListWidgetItem(statement.text)
        item.setData(INDEX, index)
        score = statement.score
        if score is not None:
            item.setData(SCORE, (score, bool(statement.is_supported)))
            item.setToolTip(_in_words(statement))
        self.list.addItem(item)

    def _fill_sections(self) -> None:
        there = list(dict.fromkeys(s.section for s in self._session.statements))
        wanted = [("All sections", ""), *((_TITLES.get(s, s), s) for s in there)]
        now = self.section.currentData()
        self.section.blockSignals(True)
        self.section.clear()
        for title, data in wanted:
            self.section.addItem(title, data)
        self.section.setCurrentIndex(max(0, self.section.findData(now)))
        self.section.blockSignals(False)
        self._filter()

    def _filter(self) -> None:
        words, wanted = self.find.text().casefold().split(), self.section.currentData()
        heading, shown = None, False
        statements = self._session.statements
        for row in range(self.list.count()):
            item = self.list.item(row)
            if item.data(HEADING) is not None:
                if heading is not None:
                    heading.setHidden(not shown)
                heading, shown = item, False
                continue
            statement = statements[item.data(INDEX)]
            fits = all(word in statement.text.casefold() for word in words)
            fits = fits and (not wanted or statement.section == wanted)
            item.setHidden(not fits)
            shown = shown or fits
        if heading is not None:
            heading.setHidden(not shown)

    # -- choosing -------------------------------------------------------------------------------

    def _clear_find(self) -> None:
        self.find.clear()

    def _hover(self, index: int | None) -> None:
        """The pointer is on a sentence, or on none."""
        self._hovered = index
        if index is None:
            self._hovering.stop()
            self._session.hint(None)
        else:
            self._hovering.start()

    def _hint(self) -> None:
        self._session.hint(self._hovered)

    def _chosen(self) -> None:
        if self._telling:
            return
        self._hovering.stop()
        rows = [item.data(INDEX) for item in self.list.selectedItems()]
        before = [i for i in self._session.selection if i in rows]
        self._session.select(*before, *(i for i in sorted(rows) if i not in before))

    def _select(self) -> None:
        selection = self._session.selection
        self._telling = True
        for row in range(self.list.count()):
            item = self.list.item(row)
            index = item.data(INDEX)
            if index is None:
                continue
            chosen = index in selection
            item.setSelected(chosen)
            color = None
            if chosen:
                color = color_of(selection.index(index), len(selection) > 1)
            item.setData(COLOR, color)
            if chosen and index == selection[-1]:
                self.list.setCurrentItem(item, self.list.selectionModel().SelectionFlag.NoUpdate)
                self.list.scrollToItem(item)
        self._telling = False

    def step(self, *, forward: bool) -> None:
        """Choose the next sentence, or the one before, among those that the filters show."""
        rows = (self.list.item(row) for row in range(self.list.count()))
        shown = [row.data(INDEX) for row in rows if not row.isHidden()]
        self._session.step(forward, [i for i in shown if i is not None])

    def show_here(self, world_mm: ArrayLike) -> None:
        """Which sentences look most like the patch at a place that was clicked."""
        ranked = self._evidence.statements_at(world_mm)[:_MOST_HERE]
        statements = self._session.statements
        lines = [
            f'{value:+.1f} &nbsp;<a href="{index}" style="color: {ONE_COLOR}">'
            f"{escape(statements[index].text)}</a>"
            for index, value in ranked
        ]
        self.here.setText("<b>Most like this place</b><br>" + "<br>".join(lines))
        self.here.setToolTip(
            "Standard deviations of this place's similarity above a sentence's mean in the scan"
        )
        self.here.setVisible(bool(ranked))

    def select_unsupported(self) -> None:
        """Choose the first sentence without support, or the next one."""
        wanted = [i for i, s in enumerate(self._session.statements) if s.is_supported is False]
        if wanted:
            now = self._session.selection[-1] if self._session.selection else -1
            self._session.select(next((i for i in wanted if i > now), wanted[0]))

    def _ask(self) -> None:
        text = self.ask.text().strip()
        if text:
            self.ask.remember(text)
            self._evidence.ask(text)

    def _tell_state(self) -> None:
        study = self._session.study
        ready = self._evidence.is_encoded
        self.ask.setEnabled(ready)
        self.ask_button.setEnabled(ready)
        if study is None:
            text = "Open a scan to begin: drop a folder or a file here, or press Ctrl+O."
        elif study.report is None:
            text = "This scan has no report. Open one, or paste it (Ctrl+Shift+V)."
            text += " You can ask in your own words." if ready else ""
        elif self._evidence.model is None:
            text = "Choose a model in the Encode tab to see where each sentence points."
        elif not ready:
            text = "Press Encode (Ctrl+E) to see where each sentence points."
        else:
            text = ""
        self.state.setText(text)
        self.state.setVisible(bool(text))


def _in_words(statement: Statement) -> str:
    assert statement.result is not None
    found = statement.result.sentences[statement.row]
    support = "" if statement.is_supported else "No support. "
    return (
        f"{support}Its best patches stand out further than those of {found.null_percentile:.0f} % "
        f"of unrelated sentences ({found.score:+.1f} standard deviations from their mean)."
    )
