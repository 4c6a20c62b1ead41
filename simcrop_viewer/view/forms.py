"""Forms made from pydantic fields: their titles, texts, limits and choices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

from psygnal import EventedModel
from pydantic.fields import FieldInfo
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QGridLayout,
    QHBoxLayout,
    QLineEdit,
    QSpinBox,
    QWidget,
)
from superqt import QLabeledDoubleSlider, QLabeledSlider


class Field:
    """One row: a widget, and how its value is got and set."""

    def __init__(
        self, widget: QWidget, get: Callable[[], Any], put: Callable[[Any], None], changed: Any
    ) -> None:
        self.widget, self.get, self.put, self.changed = widget, get, put, changed


def field_for(info: FieldInfo, choices: Sequence[str] = ()) -> Field:
    """A widget for a field: a box to tick, boxes of which some are ticked, a slider, a number
    with its unit, a list, or a line."""
    kind = info.annotation
    low, high = _limits(info)
    more = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    words: Any = more.get("words", {})
    field: Field
    if kind is bool:
        box = QCheckBox()
        field = Field(box, box.isChecked, box.setChecked, box.toggled)
    elif get_origin(kind) is tuple and get_origin(get_args(kind)[0]) is Literal:
        some = _Some(get_args(get_args(kind)[0]))
        field = Field(some, some.get, some.put, some.changed)
    elif kind in (int, float) and low is not None and high is not None and "suffix" in more:
        spin: Any = QSpinBox() if kind is int else QDoubleSpinBox()
        if kind is float:
            spin.setDecimals(1)
        spin.setRange(kind(low), kind(high))
        spin.setSingleStep(more.get("step", 1))
        spin.setSuffix(more["suffix"])
        spin.setKeyboardTracking(False)
        field = Field(spin, spin.value, spin.setValue, spin.valueChanged)
    elif kind is int and low is not None and high is not None:
        slider = QLabeledSlider()
        slider.setOrientation(Qt.Orientation.Horizontal)
        slider.setRange(int(low), int(high))
        field = Field(slider, slider.value, slider.setValue, slider.valueChanged)
    elif kind is float and low is not None and high is not None:
        wide = QLabeledDoubleSlider()
        wide.setOrientation(Qt.Orientation.Horizontal)
        wide.setRange(float(low), float(high))
        wide.setDecimals(2)
        field = Field(wide, wide.value, wide.setValue, wide.valueChanged)
    elif get_origin(kind) is Literal or choices:
        field = _list(choices or get_args(kind), words)
    else:
        line = QLineEdit()
        field = Field(line, line.text, line.setText, line.editingFinished)
    field.widget.setToolTip(info.description or "")
    return field


def _list(choices: Sequence[str], words: Mapping[str, str]) -> Field:
    combo = QComboBox()
    for choice in choices:
        combo.addItem(words.get(choice, str(choice).capitalize()), choice)
    return Field(
        combo,
        combo.currentData,
        lambda value: combo.setCurrentIndex(combo.findData(value)),
        combo.currentIndexChanged,
    )


class _Some(QWidget):
    """Some of a few choices, at least one."""

    changed = Signal()

    def __init__(self, choices: Sequence[str]) -> None:
        super().__init__()
        self.boxes = {choice: QCheckBox(choice.capitalize()) for choice in choices}
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        for box in self.boxes.values():
            row.addWidget(box)
            box.toggled.connect(self._toggled)

    def get(self) -> tuple[str, ...]:
        return tuple(choice for choice, box in self.boxes.items() if box.isChecked())

    def put(self, chosen: Sequence[str]) -> None:
        for choice, box in self.boxes.items():
            box.blockSignals(True)
            box.setChecked(choice in chosen)
            box.setEnabled(list(chosen) != [choice])  # the last one stays
            box.blockSignals(False)

    def _toggled(self) -> None:
        self.put(self.get())
        self.changed.emit()


class ModelForm(QWidget):
    """The fields of an evented model; each is where the model is, and the model where it is.

    Parameters
    ----------
    model
        What is edited.
    choices
        For fields of text: what there is to choose from.
    dense
        Boxes to tick stand two in a row below all else, each with its title beside it.
    """

    def __init__(
        self,
        model: EventedModel,
        choices: Mapping[str, Sequence[str]] | None = None,
        *,
        dense: bool = False,
    ) -> None:
        super().__init__()
        self._model = model
        self.fields: dict[str, Field] = {}
        rows = QFormLayout(self)
        rows.setContentsMargins(6, 6, 6, 6)
        boxes: list[QCheckBox] = []
        for name, info in type(model).model_fields.items():
            field = field_for(info, (choices or {}).get(name, ()))
            field.put(getattr(model, name))
            field.widget.setObjectName(name)
            field.changed.connect(lambda *_, name=name: self._edited(name))
            self.fields[name] = field
            if dense and isinstance(field.widget, QCheckBox):
                field.widget.setText(info.title or name)
                boxes.append(field.widget)
            else:
                rows.addRow(info.title or name, field.widget)
        if boxes:
            grid = QGridLayout()
            for number, box in enumerate(boxes):
                grid.addWidget(box, number // 2, number % 2)
            rows.addRow(grid)
        model.events.connect(self._told)

    def disconnect_all(self) -> None:
        """Let go of the model."""
        self._model.events.disconnect(self._told)

    def _edited(self, name: str) -> None:
        value = self.fields[name].get()
        if value is not None and value != getattr(self._model, name):
            setattr(self._model, name, value)

    def _told(self, *_: object) -> None:
        for name, field in self.fields.items():
            value = getattr(self._model, name)
            if field.get() != value:
                field.put(value)


def _limits(info: FieldInfo) -> tuple[float | None, float | None]:
    low = next((m.ge for m in info.metadata if hasattr(m, "ge")), None)
    if low is None:  # an open end of a slider is its first step
        low = next((m.gt + 0.01 for m in info.metadata if hasattr(m, "gt")), None)
    high = next((m.le for m in info.metadata if hasattr(m, "le")), None)
    return low, high
