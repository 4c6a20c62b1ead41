"""A box of models to choose from: those that were used, and any other folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QComboBox, QFileDialog

from simcrop_viewer.model.model_title import model_title

_CHOOSE = "choose"


class ModelChoice(QComboBox):
    """Folders of models, by their titles.

    Parameters
    ----------
    none
        What to call no model.
    in_use
        The folder that is shown until another model is loaded.
    """

    wanted = Signal(str)  # a folder, or "" for none

    def __init__(self, none: str, in_use: Callable[[], str]) -> None:
        super().__init__()
        self._in_use = in_use
        self.addItem(none, "")
        self.addItem("Choose a folder ...", _CHOOSE)
        self.activated.connect(self._picked)

    def offer(self, folder: Path) -> None:
        """Put a model's folder among those to choose from."""
        if self.findData(str(folder)) < 0:
            place = self.count() - 1
            self.insertItem(place, model_title(folder), str(folder))
            self.setItemData(place, str(folder), int(Qt.ItemDataRole.ToolTipRole))

    def show_model(self, folder: str) -> None:
        """Show which one is in use."""
        self.setCurrentIndex(max(0, self.findData(folder)))

    def _picked(self) -> None:
        folder = self.currentData()
        if folder == _CHOOSE:
            folder = QFileDialog.getExistingDirectory(self, "Folder of a model")
            self.show_model(self._in_use())  # until the other one is loaded
            if not folder:
                return
        self.wanted.emit(folder)
