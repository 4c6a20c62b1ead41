"""Forms made from pydantic fields: their titles, texts, limits and choices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

from psygnal import EventedModel
from pydantic.fields import FieldInfo
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QCheckBox, QComboBox, QFormLayout, QLineEdit, QWidget
from superqt import QLabeledDoubleSlider, QLabeledSlider


class Field:
    """One row: a widget, and how its value is got and set."""

    def __init__(
        self, widget: QWidget, get: Callable[[], Any], put: Callable[[Any], None], changed: Any
    ) -> None:
        self.widget, self.get, self.put, self.changed = widget, get, put, changed


def field_for(info: FieldInfo, choices: Sequence[str] = ()) -> Field:
    """A widget for a field: a box to tick, a slider, a list, or a line."""
    kind = info.annotation
    low, high = _limits(info)
    field: Field
    if kind is bool:
        box = QCheckBox()
        field = Field(box, box.isChecked, box.setChecked, box.toggled)
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
        combo = QComboBox()
        for choice in choices or get_args(kind):
            combo.addItem(str(choice).capitalize(), choice)
        field = Field(
            combo,
            combo.currentData,
            lambda value: combo.setCurrentIndex(combo.findData(value)),
            combo.currentIndexChanged,
        )
    else:
        line = QLineEdit()
        field = Field(line, line.text, line.setText, line.editingFinished)
    field.widget.setToolTip(info.description or "")
    return field


class ModelForm(QWidget):
    """The fields of an evented model; each is where the model is, and the model where it is.

    Parameters
    ----------
    model
        What is edited.
    choices
        For fields of text: what there is to choose from.
    """

    def __init__(
        self, model: EventedModel, choices: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        super().__init__()
        self._model = model
        self.fields: dict[str, Field] = {}
        rows = QFormLayout(self)
        rows.setContentsMargins(6, 6, 6, 6)
        for name, info in type(model).model_fields.items():
            field = field_for(info, (choices or {}).get(name, ()))
            field.put(getattr(model, name))
            field.widget.setObjectName(name)
            field.changed.connect(lambda *_, name=name: self._edited(name))
            self.fields[name] = field
            rows.addRow(info.title or name, field.widget)
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
    high = next((m.le for m in info.metadata if hasattr(m, "le")), None)
    return low, high
