"""The form of a run that is to be started."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import (
    QApplication,
    QCheckBox,
    QComboBox,
    QFileDialog,
    QFormLayout,
    QFrame,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPlainTextEdit,
    QPushButton,
    QScrollArea,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from simcrop_viewer.controller.training import TrainingController
from simcrop_viewer.model.recipes import Setting
from simcrop_viewer.model.training_form import FIRST

_JUDGE_AFTER_MS = 500
_LABEL_WIDTH = 150
_FAULT = "color: #ff8a80;"
_NONE = "none"


class RunForm(QWidget):
    """Recipe, fields with what is wrong beside them, name, the command, Start."""

    def __init__(self, training: TrainingController) -> None:
        super().__init__()
        self._training = training
        self._form = training.form
        self.rows: dict[str, FieldRow] = {}
        self.recipes = QComboBox()
        self.recipes.setObjectName("recipes")
        self.about = _words()
        self.name = QLineEdit()
        self.name_fault = _words(_FAULT)
        self.place = QPushButton()
        self.place.setToolTip("Choose the folder in which runs are kept")
        self.more = QToolButton()
        self.find = QLineEdit()
        self.command = QPlainTextEdit()
        self.copy = QPushButton("Copy command")
        self.faults = _words(_FAULT)
        self.start = QPushButton("Start")
        self.start.setObjectName("start")
        self._lay_out()
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_JUDGE_AFTER_MS)
        self._timer.timeout.connect(training.judge)
        self.recipes.activated.connect(lambda _: self._form.choose(self.recipes.currentData()))
        self.name.textEdited.connect(self._form.name_it)
        self.place.clicked.connect(self.choose_place)
        self.more.toggled.connect(self._show_more)
        self.find.textChanged.connect(self._filter)
        self.copy.clicked.connect(self._copy)
        self.start.clicked.connect(lambda: training.start())
        self._signals = (
            (training.recipes_changed, self._fill_recipes),
            (self._form.fields_changed, self._build),
            (self._form.changed, self.tell),
            (training.starting_changed, self.tell),
        )
        for signal, answer in self._signals:
            signal.connect(answer)
        self._fill_recipes()

    def disconnect_all(self) -> None:
        """Let go of the controller."""
        self._timer.stop()
        for signal, answer in self._signals:
            signal.disconnect(answer)

    def _lay_out(self) -> None:
        head = QFormLayout()
        head.setContentsMargins(0, 0, 0, 0)
        head.addRow("Recipe", self.recipes)
        head.addRow("", self.about)
        self.more.setText("More settings")
        self.more.setCheckable(True)
        self.more.setArrowType(Qt.ArrowType.RightArrow)
        self.more.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.more.setAutoRaise(True)
        self.find.setPlaceholderText("Find a setting")
        self.find.setClearButtonEnabled(True)
        self.find.setVisible(False)
        self._first, self._others = QWidget(), QWidget()
        QFormLayout(self._first).setContentsMargins(0, 0, 0, 0)
        QVBoxLayout(self._others).setContentsMargins(0, 0, 0, 0)  # hidden rows leave no gaps
        body = QWidget()
        inner = QVBoxLayout(body)
        inner.setContentsMargins(0, 0, 8, 0)
        inner.addWidget(self._first)
        line = QHBoxLayout()
        line.addWidget(self.more)
        line.addWidget(self.find, 1)
        line.addStretch(0)
        inner.addLayout(line)
        inner.addWidget(self._others)
        inner.addStretch(1)
        self._scroll = QScrollArea()
        self._scroll.setWidgetResizable(True)
        self._scroll.setFrameShape(QFrame.Shape.NoFrame)
        self._scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._scroll.setWidget(body)
        where = QFormLayout()
        where.setContentsMargins(0, 0, 0, 0)
        where.addRow("Name", self.name)
        where.addRow("", self.name_fault)
        where.addRow("Kept in", self.place)
        self.command.setReadOnly(True)
        self.command.setMaximumHeight(76)
        self.command.setToolTip("What Start does; the same line works in a terminal")
        buttons = QHBoxLayout()
        buttons.addWidget(self.copy)
        buttons.addWidget(self.start)
        whole = QVBoxLayout(self)
        whole.setContentsMargins(6, 6, 6, 6)
        whole.addLayout(head)
        whole.addWidget(self._scroll, 1)
        whole.addLayout(where)
        whole.addWidget(self.command)
        whole.addWidget(self.faults)
        whole.addLayout(buttons)

    # -- recipes and fields ---------------------------------------------------------------------

    def _fill_recipes(self) -> None:
        self.recipes.clear()
        for recipe in self._form.recipes:
            self.recipes.addItem(recipe.name, recipe.name)
            place = self.recipes.count() - 1
            self.recipes.setItemData(place, recipe.text, int(Qt.ItemDataRole.ToolTipRole))
        if not self._form.recipes:
            self.recipes.addItem("asking simcrop-train ...")
        self.recipes.setEnabled(bool(self._form.recipes))
        self._build()
        self.tell()

    def _build(self) -> None:
        """Make the rows anew: another recipe, or another objective."""
        self.rows = {}
        _empty(self._first)
        _empty(self._others)
        for setting in self._form.first:
            row = self._row(setting, FIRST[setting.path])
            self._first.layout().addRow(row.label, row.body)
        if self.more.isChecked():
            self._build_more()
        self.more.setVisible(bool(self._form.settings))
        self.more.setText(f"More settings ({sum(map(len, self._form.more.values()))})")

    def _build_more(self) -> None:
        """All other fields, which takes a moment: only once somebody wants them."""
        rows = self._others.layout()
        for section, settings in self._form.more.items():
            heading = QLabel(f"<b>{section or 'others'}</b>")
            rows.addWidget(heading)
            for setting in settings:
                title = setting.path.removeprefix(f"{section}.").replace("_", " ")
                row = self._row(setting, title.replace(".", " · "))
                row.heading = heading
                row.label.setFixedWidth(_LABEL_WIDTH)
                row.label.setWordWrap(True)
                rows.addWidget(row.in_a_line())
        self._filter(self.find.text())
        self.tell()

    def _row(self, setting: Setting, title: str) -> FieldRow:
        row = FieldRow(setting, title, self._form.typed(setting), self._typed)
        self.rows[setting.path] = row
        return row

    def _show_more(self, wanted: bool) -> None:
        self.more.setArrowType(Qt.ArrowType.DownArrow if wanted else Qt.ArrowType.RightArrow)
        self.find.setVisible(wanted)
        if wanted and not self._others.layout().count():
            self._build_more()
        self._others.setVisible(wanted)

    def _filter(self, words: str) -> None:
        """Show those whose name or text has all words."""
        wanted = words.lower().split()
        headings: dict[Any, bool] = {}
        for row in self.rows.values():
            if row.heading is None or row.line is None:
                continue
            text = f"{row.setting.path} {row.label.text()} {row.setting.text}".lower()
            fits = all(word in text for word in wanted)
            row.line.setVisible(fits)
            headings[row.heading] = headings.get(row.heading, False) or fits
        for heading, any_fits in headings.items():
            heading.setVisible(any_fits)

    # -- what is typed --------------------------------------------------------------------------

    def _typed(self, setting: Setting, text: str) -> None:
        self._form.type(setting, text)
        self._timer.start()

    def tell(self) -> None:
        """Show what is wrong, and the command."""
        form = self._form
        for row in self.rows.values():
            row.tell(form.fault(row.setting), form.is_changed(row.setting))
        recipe = form.recipe
        self.about.setText("" if recipe is None else recipe.text)
        if recipe is not None:
            self.recipes.setCurrentIndex(self.recipes.findData(recipe.name))
        if self.name.text().strip() != form.name:
            self.name.setText(form.name)
        _say(self.name_fault, form.name_fault if recipe is not None else "")
        self.place.setText(_short(form.runs))
        self.place.setToolTip(f"{form.runs}\nChoose the folder in which runs are kept")
        if self.command.toPlainText() != form.command:
            self.command.setPlainText(form.command)
        _say(self.faults, "\n".join(form.other_faults))
        self.start.setEnabled(form.is_ready and not self._training.is_starting)
        self.copy.setEnabled(recipe is not None)

    def choose_place(self) -> None:
        """Ask for another folder of runs."""
        now = self._training.place.folder
        folder = QFileDialog.getExistingDirectory(self, "Folder of runs", str(now))
        if folder:
            self._training.move_to(folder)

    def _copy(self) -> None:
        clipboard = QApplication.clipboard()
        if clipboard is not None:
            clipboard.setText(self._form.command)


class FieldRow:
    """One field: its label, how its value is typed, and what is wrong with it beneath.

    ``typed`` is called with the setting and the text that a person gave it.
    """

    def __init__(
        self, setting: Setting, title: str, text: str, typed: Callable[[Setting, str], None]
    ) -> None:
        self.setting = setting
        self.label = QLabel(title)
        self.heading: QLabel | None = None
        self.line: QWidget | None = None
        self.fault = _words(_FAULT)
        self.fault.setVisible(False)
        self.body = QWidget()
        about = f"<qt>{setting.about.replace('<', '&lt;')}</qt>".replace("\n", "<br>")
        rows = QVBoxLayout(self.body)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setSpacing(1)
        line = QHBoxLayout()
        self.widget = self._made(text, typed)
        self.widget.setObjectName(setting.path)
        line.addWidget(self.widget, 1)
        if setting.is_folder:
            choose = QToolButton()
            choose.setText("...")
            choose.setToolTip("Choose a folder")
            choose.clicked.connect(self._choose)
            line.addWidget(choose)
        rows.addLayout(line)
        rows.addWidget(self.fault)
        for part in (self.label, self.widget):
            part.setToolTip(about)

    def _made(self, text: str, typed: Callable[[Setting, str], None]) -> QWidget:
        setting = self.setting
        if setting.choices or (setting.kind == "boolean" and setting.nullable):
            return self._list(text, typed)
        if setting.kind == "boolean":
            box = QCheckBox()
            box.setChecked(text == "true")
            box.toggled.connect(lambda on: typed(setting, "true" if on else "false"))
            return box
        edit = QLineEdit(text)
        edit.setPlaceholderText(setting.when_none if setting.nullable else "")
        edit.textChanged.connect(lambda words: typed(setting, words))
        return edit

    def _list(self, text: str, typed: Callable[[Setting, str], None]) -> QWidget:
        setting = self.setting
        combo = _QuietCombo()
        if setting.nullable:
            combo.addItem(setting.when_none if len(setting.when_none) < 30 else _NONE, "")
        for choice in setting.choices or ("true", "false"):
            combo.addItem(str(choice), str(choice))
        combo.setCurrentIndex(max(0, combo.findData(text)))
        combo.currentIndexChanged.connect(lambda _: typed(setting, combo.currentData()))
        return combo

    def in_a_line(self) -> QWidget:
        """Label and field as one widget."""
        self.line = QWidget()
        parts = QHBoxLayout(self.line)
        parts.setContentsMargins(0, 0, 0, 0)
        parts.addWidget(self.label)
        parts.addWidget(self.body, 1)
        return self.line

    def put(self, text: str) -> None:
        """As if it were typed."""
        if isinstance(self.widget, QLineEdit):
            self.widget.setText(text)
        elif isinstance(self.widget, QComboBox):
            self.widget.setCurrentIndex(self.widget.findData(text))
        else:
            self.widget.setChecked(text == "true")

    def tell(self, fault: str, is_changed: bool) -> None:
        """Show what is wrong, and whether it differs from the recipe."""
        _say(self.fault, fault)
        font = self.label.font()
        if font.bold() != is_changed:
            font.setBold(is_changed)
            self.label.setFont(font)

    def _choose(self) -> None:
        folder = QFileDialog.getExistingDirectory(self.body, self.setting.text[:60])
        if folder:
            self.put(str(Path(folder)))


class _QuietCombo(QComboBox):
    """Lets the wheel scroll the form, where another list would change its value unasked."""

    def wheelEvent(self, event: Any) -> None:
        event.ignore()


def _words(style: str = "") -> QLabel:
    label = QLabel()
    label.setWordWrap(True)
    label.setStyleSheet(style)
    return label


def _say(label: QLabel, text: str) -> None:
    if label.text() != text:
        label.setText(text)
    label.setVisible(bool(text))


def _empty(part: QWidget) -> None:
    rows = part.layout()
    while isinstance(rows, QFormLayout) and rows.rowCount():
        rows.removeRow(0)
    while rows.count():
        item = rows.takeAt(0)
        if item.widget() is not None:
            item.widget().hide()
            item.widget().deleteLater()


def _short(path: Path) -> str:
    text = str(path)
    home = str(Path.home())
    text = f"~{text[len(home) :]}" if text.startswith(home + "/") else text
    return text if len(text) <= 48 else f"... {text[-44:]}"
