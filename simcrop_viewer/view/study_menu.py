"""The menu of studies: opening, saving, what was open lately."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QAction, QFileDialog, QInputDialog, QMenu

from simcrop_viewer.model.recent import RecentStudy
from simcrop_viewer.model.session_file import SUFFIX

if TYPE_CHECKING:
    from simcrop_viewer.view.window import MainWindow

_SCANS = "Scans (*.nii *.nii.gz *.nrrd *.nhdr *.mha *.mhd *.npz *.dcm);;All files (*)"
_REPORTS = "Reports (*.txt *.json *.csv *.dcm);;All files (*)"
_LISTS = "Lists of studies (*.csv);;All files (*)"
_SESSIONS = f"Sessions (*{SUFFIX})"


class StudyMenu(QMenu):
    """The window's first menu; its keys work wherever the focus is."""

    def __init__(self, window: MainWindow) -> None:
        super().__init__("&Study", window.qt)
        self._window = window
        self._entry("Open scan (file) ...", "Ctrl+O", self._choose_file)
        self._entry("Open scan (DICOM folder) ...", "Ctrl+Shift+O", self._choose_folder)
        self._entry("Open report ...", "Ctrl+R", self._choose_report)
        self._entry("Paste report ...", "Ctrl+Shift+V", self._paste_report)
        self.recent = QMenu("Recent", self)
        self.recent.setToolTipsVisible(True)
        self.recent.aboutToShow.connect(self.fill_recent)
        self.addMenu(self.recent)
        self.addSeparator()
        self._entry("Open studies (folder) ...", "Ctrl+L", self.choose_studies_folder)
        self._entry("Open studies (list) ...", "Ctrl+Shift+L", self.choose_studies_list)
        self._entry("Next study", "", partial(window.studies_panel.step, forward=True))
        self._entry("Previous study", "", partial(window.studies_panel.step, forward=False))
        self._entry("Encode all studies", "", window.studies_panel.press)
        self.addSeparator()
        self._entry("Open session ...", "", self._choose_session)
        self._entry("Save session ...", "Ctrl+S", self._save_session)
        self.addSeparator()
        self._entry("Encode", "Ctrl+E", window.encode.press)
        if window.evidence.cache is not None:
            self._entry("Forget encoded scans", "", window.studies_encoding.forget)
        self._entry("Close study", "Ctrl+W", window.studies.close)
        window.studies_panel.folder_wanted.connect(self.choose_studies_folder)
        window.studies_panel.list_wanted.connect(self.choose_studies_list)
        bar = window.qt.menuBar()
        bar.insertMenu(bar.actions()[0], self)

    def _entry(self, title: str, keys: str, do: Callable[[], Any]) -> None:
        action = QAction(title, self)
        action.triggered.connect(lambda *_: do())
        if keys:
            self._window.shortcut(keys, do)
            action.setText(f"{title}\t{keys}")
        self.addAction(action)

    # -- what was open lately -------------------------------------------------------------------

    def fill_recent(self) -> None:
        """An entry for each study, and one to forget them all."""
        self.recent.clear()
        studies = self._window.recent.studies
        for study in studies:
            action = self.recent.addAction(study.title.replace("&", "&&"))
            action.setToolTip(study.path)
            action.triggered.connect(partial(self._open_again, study))
        if studies:
            self.recent.addSeparator()
            self.recent.addAction("Forget these").triggered.connect(
                lambda *_: self._window.recent.clear()
            )
        else:
            self.recent.addAction("Nothing yet").setEnabled(False)

    def _open_again(self, study: RecentStudy, *_: object) -> None:
        if study.path.lower().endswith(SUFFIX):
            self._window.open_session(study.path)
        else:
            self._window.open(study.path, study.report, study.series, study.volume_name)

    # -- dialogs --------------------------------------------------------------------------------

    def _choose_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self._window.qt, "Open a scan", "", _SCANS)
        if path:
            self._window.open(path)

    def _choose_folder(self) -> None:
        path = QFileDialog.getExistingDirectory(self._window.qt, "Folder of a DICOM series")
        if path:
            self._window.open(path)

    def choose_studies_folder(self) -> None:
        path = QFileDialog.getExistingDirectory(self._window.qt, "Folder with several studies")
        if path:
            self._window.open_list(path)

    def choose_studies_list(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self._window.qt, "List of studies", "", _LISTS)
        if path:
            self._window.open_list(path)

    def _choose_report(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self._window.qt, "Open a report", "", _REPORTS)
        if path:
            self._window.studies.open_report(path)

    def _paste_report(self) -> None:
        text, agreed = QInputDialog.getMultiLineText(self._window.qt, "Paste a report", "Text:")
        if agreed and text.strip():
            self._window.studies.paste_report(text)

    def _choose_session(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self._window.qt, "Open a session", "", _SESSIONS)
        if path:
            self._window.open_session(path)

    def _save_session(self) -> None:
        study = self._window.session.study
        name = f"{study.name if study is not None else 'session'}{SUFFIX}"
        path, _ = QFileDialog.getSaveFileName(
            self._window.qt, "Save the session", str(Path(name)), _SESSIONS
        )
        if path:
            self._window.messages.hide()
            self._window.sessions.save(path)
