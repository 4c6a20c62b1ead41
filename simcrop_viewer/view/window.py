"""The window: napari's, with four views in the middle and our panels around them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import napari
from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import (
    QAction,
    QDockWidget,
    QShortcut,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

from simcrop_core.datasets.worklist import is_list
from simcrop_core.encoded_cache import EncodedCache
from simcrop_core.errors import SimCroPError
from simcrop_viewer.controller.compare import CompareController
from simcrop_viewer.controller.evidence import EvidenceController
from simcrop_viewer.controller.figures import FigureController
from simcrop_viewer.controller.scenes import SceneController
from simcrop_viewer.controller.sessions import SessionsController
from simcrop_viewer.controller.structures import StructuresController
from simcrop_viewer.controller.studies import StudiesController
from simcrop_viewer.controller.study import StudyController
from simcrop_viewer.controller.study_encoding import StudyEncodingController
from simcrop_viewer.model.jobs import Jobs
from simcrop_viewer.model.recent import RecentStudies
from simcrop_viewer.model.session import Session
from simcrop_viewer.model.session_file import SUFFIX
from simcrop_viewer.model.windows import PRESETS
from simcrop_viewer.scene import SCENES, Scene
from simcrop_viewer.view.centre import Centre, FourViews
from simcrop_viewer.view.choice_bar import ChoiceBar
from simcrop_viewer.view.compare_panel import ComparePanel
from simcrop_viewer.view.encode_panel import EncodePanel
from simcrop_viewer.view.figure_panel import FigurePanel
from simcrop_viewer.view.jobs_panel import JobsPanel
from simcrop_viewer.view.message_bar import MessageBar
from simcrop_viewer.view.overlay_panel import OverlayPanel
from simcrop_viewer.view.pane import Pane
from simcrop_viewer.view.posting import Poster
from simcrop_viewer.view.report_panel import ReportPanel
from simcrop_viewer.view.structures_panel import StructuresPanel
from simcrop_viewer.view.studies_panel import StudiesPanel
from simcrop_viewer.view.study_menu import StudyMenu
from simcrop_viewer.view.training_panel import TrainingPanel
from simcrop_viewer.view.window_filter import WindowFilter

if TYPE_CHECKING:
    from simcrop_viewer.controller.training import TrainingController
    from simcrop_viewer.model.runs_folder import RunsFolder

TITLE = "SimCroP Viewer"
REPORT_SUFFIXES = (".txt", ".json", ".csv")
#: How long the best patch of a sentence that was chosen is framed.
_FLASH_MS = 900
#: Height of the list of studies, at first.
_STUDIES_PX = 230
RESEARCH_ONLY = "Research use only, not for diagnosis"


class MainWindow:
    """The application's window and everything that it holds.

    Attributes
    ----------
    session, jobs, studies, evidence, scenes
        What is open and what is going on.
    panes
        The views, by name.

    Parameters
    ----------
    recent
        What was open lately; a list that nobody keeps by default.
    cache
        Where encoded scans are kept for the next time; nowhere by default.
    runs
        Where training runs are kept.
    """

    def __init__(
        self,
        recent: RecentStudies | None = None,
        cache: EncodedCache | None = None,
        runs: RunsFolder | None = None,
    ) -> None:
        self.viewer = napari.Viewer(title=TITLE, show=False)
        self.qt = self.viewer.window._qt_window
        self._post = Poster(self.qt)
        self.messages = MessageBar()
        self.session = Session()
        self.jobs = Jobs(self._post)
        self.studies = StudyController(self.session, self.jobs)
        self.evidence = EvidenceController(self.session, self.jobs, cache)
        scenes = [Scene("axial", self.viewer), *(Scene(name) for name in SCENES[1:])]
        self.scenes = SceneController(self.session, scenes)
        self._flash = QTimer(self.qt)
        self._flash.setSingleShot(True)
        self._flash.setInterval(_FLASH_MS)
        self._flash.timeout.connect(self.scenes.end_flash)
        self.scenes.flashed.connect(lambda: self._flash.start())
        four = FourViews(self.scenes, self.session, self.viewer.window._qt_viewer)
        self.panes = four.panes
        self.compare = CompareController(self.session, self.jobs, self.evidence)
        self.centre = Centre(four, self.scenes, self.compare, self._post)
        self.compare_panel = ComparePanel(self.compare)
        self.report = ReportPanel(self.session, self.evidence)
        self.overlay = OverlayPanel(self.session)
        self.encode = EncodePanel(self.session, self.evidence)
        self.figures = FigureController(self.session, self.jobs, self.evidence)
        self.figure = FigurePanel(self.session, self.figures, self.evidence)
        self.recent = recent or RecentStudies()
        self.sessions = SessionsController(
            self.session, self.jobs, self.studies, self.evidence, self.figures.settings
        )
        self.studies.opened.connect(self.recent.add)
        self.session.report_changed.connect(self._remember_report)
        for opened in (self.sessions.opened, self.sessions.saved):
            opened.connect(self.recent.add)
        self.studies_list = StudiesController(self.session, self.jobs, self.studies)
        self.studies_encoding = StudyEncodingController(
            self.session, self.jobs, self.studies_list.list, self.evidence
        )
        self.studies_list.looked_over.connect(self.studies_encoding.find_states)
        self.studies_list.opening.connect(lambda: self.messages.hide())
        self.studies_list.opened.connect(self._encode_if_ready)
        self.studies_panel = StudiesPanel(self.studies_list, self.studies_encoding, self.evidence)
        self.choice = ChoiceBar(self.studies)
        self.structures = StructuresController(self.session, self.jobs, self.evidence, scenes)
        self.structures_panel = StructuresPanel(self.session, self.structures, self.evidence)
        #: The tabs, each with its title.
        self.panels: dict[str, Any] = {
            "Report": self.report,
            "Overlay": self.overlay,
            "Encode": self.encode,
            "Compare": self.compare_panel,
            "Structures": self.structures_panel,
            "Figure": self.figure,
        }
        self._runs = runs
        self.training_panel = TrainingPanel(lambda: self.training)
        self.jobs_panel = JobsPanel(self.jobs)
        self._closed = False
        self._lay_out()
        self.menu = StudyMenu(self)
        self._keys()
        for evidence in (self.evidence, self.compare.second_evidence):
            evidence.model_changed.connect(self._show_model)
        for controller in (
            self.studies,
            self.evidence,
            self.figures,
            self.structures,
            self.sessions,
            self.studies_list,
            self.studies_encoding,
            self.compare,
        ):
            controller.refused.connect(self.tell)
        self.evidence.encoded_changed.connect(self._show_report)
        self.encode.model_wanted.connect(self.use_model)
        self.training_panel.checkpoint_wanted.connect(self._use_checkpoint)
        self.compare_panel.plane_wanted.connect(self.centre.show_plane)
        self.session.study_changed.connect(self._title)
        self._filter = WindowFilter(self)
        for pane in self.panes.values():
            self._take_in(pane)
        self.centre.pane_made.connect(self._take_in)

    @cached_property
    def training(self) -> TrainingController:
        """Runs, made when somebody first wants to know of them."""
        from simcrop_viewer.controller.training import TrainingController

        return TrainingController(self.jobs, self._runs)

    # -- what can be done -----------------------------------------------------------------------

    def open(
        self,
        scan: str | Path,
        report: str | Path | None = None,
        series: str | None = None,
        volume_name: str | None = None,
    ) -> None:
        """Read a scan, and its report; it is encoded at once where a model is there.

        A folder of several scans is listed. ``series`` and ``volume_name`` as in
        :meth:`~simcrop_viewer.controller.study.StudyController.open`.
        """
        self.messages.hide()
        self.studies.open(
            scan,
            report,
            series=series,
            volume_name=volume_name,
            then=self._encode_if_ready,
            failed=lambda error: self._list_instead(error, scan, report),
        )

    def open_list(self, place: str | Path) -> None:
        """List the studies that a folder, a csv or a data set's word names."""
        self.messages.hide()
        dock = self.docks["studies"]
        if not dock.isVisible():
            dock.setVisible(True)
            self.qt.resizeDocks([dock], [_STUDIES_PX], Qt.Orientation.Vertical)
        self.studies_list.open_list(place)

    def _list_instead(
        self, error: SimCroPError, scan: str | Path, report: str | Path | None
    ) -> None:
        if error.code == "several-volumes" and report is None:
            self.open_list(scan)

    def open_session(self, path: str | Path) -> None:
        """Open what a session names, as it was looked at."""
        self.messages.hide()
        self.sessions.open(path)

    def open_dropped(self, paths: Sequence[str]) -> None:
        """Open what was dropped: a scan, a report for the scan that is open, both at once, a
        session, or a list of studies."""
        if len(paths) == 1 and Path(paths[0]).suffix.lower() == SUFFIX:
            self.open_session(paths[0])
            return
        if len(paths) == 1 and paths[0].lower().endswith(".csv") and is_list(Path(paths[0])):
            self.open_list(paths[0])
            return
        reports = [p for p in paths if Path(p).suffix.lower() in REPORT_SUFFIXES]
        scans = [p for p in paths if p not in reports]
        if len(scans) > 1 or len(reports) > 1:
            self.tell(
                SimCroPError(
                    f"{len(paths)} files were dropped, and one study is shown at a time",
                    code="several",
                    remedy="Drop one scan (or its folder), one report, or one of each.",
                )
            )
        elif scans:
            self.open(scans[0], *reports)
        else:
            self.messages.hide()
            self.studies.open_report(reports[0])

    def use_model(self, folder: str | Path) -> None:
        """Load a model from its folder; ``""`` for none."""
        if not folder:
            self.evidence.set_model(None)
            return
        self.messages.hide()
        self.evidence.load(folder, then=self._encode_if_ready)

    def _use_checkpoint(self, folder: str) -> None:
        """Look through what a run has learnt."""
        self.docks["side"].raise_()
        self.tabs.setCurrentWidget(self.encode)
        self.use_model(folder)

    def tell(self, error: SimCroPError) -> None:
        """Say what went wrong."""
        self.messages.tell(error)
        self.encode.models.show_model(self.evidence.model_folder)

    def _show_model(self) -> None:
        for evidence in (self.evidence, self.compare.second_evidence):
            for choice in (self.encode.models, self.compare_panel.models):
                if evidence.model_folder:
                    choice.offer(Path(evidence.model_folder))
        self.encode.models.show_model(self.evidence.model_folder)
        self.compare_panel.models.show_model(self.compare.second_evidence.model_folder)

    def show(self) -> None:
        self.viewer.window.show()
        room = self.qt.screen().availableGeometry()
        self.qt.resize(min(1600, room.width()), min(1000, room.height()))
        left = self.viewer.window._qt_viewer.dockLayerControls
        horizontal = Qt.Orientation.Horizontal
        self.qt.resizeDocks([left, self.docks["side"]], [220, 420], horizontal)

    def close(self) -> None:
        """Stop all work and let go of everything; the window closes."""
        self.let_go()
        self.viewer.close()

    def _encode_if_ready(self) -> None:
        if self.evidence.model is not None and self.session.study is not None:
            self.evidence.encode()

    # -- how it is put together -----------------------------------------------------------------

    def _take_in(self, pane: Pane) -> None:
        """Join a pane with the window around it."""
        pane.scene.removed = self._removed
        pane.scene.later = self._post
        pane.clicked.connect(self.report.show_here)
        pane.canvas.installEventFilter(self._filter)

    def _lay_out(self) -> None:
        self.qt.centralWidget().layout().addWidget(self.centre)
        self.tabs = QTabWidget()
        for title, panel in self.panels.items():
            self.tabs.addTab(panel, title)
        side = QWidget()
        body = QVBoxLayout(side)
        body.setContentsMargins(0, 8, 0, 0)
        body.addWidget(self.messages)
        body.addWidget(self.choice)
        body.addWidget(self.tabs)
        bottom = Qt.DockWidgetArea.BottomDockWidgetArea
        self.docks = {
            "side": self._dock("Study", side, Qt.DockWidgetArea.RightDockWidgetArea),
            "training": self._dock(
                "Training", self.training_panel, Qt.DockWidgetArea.RightDockWidgetArea
            ),
            "studies": self._dock("Studies", self.studies_panel, bottom),
            "jobs": self._dock("Jobs", self.jobs_panel, bottom),
        }
        right = Qt.DockWidgetArea.RightDockWidgetArea
        self.qt.setTabPosition(right, QTabWidget.TabPosition.North)
        self.qt.tabifyDockWidget(self.docks["side"], self.docks["training"])
        self.docks["side"].raise_()
        self.docks["training"].visibilityChanged.connect(self.training_panel.follow)
        self.docks["studies"].setVisible(False)
        self.studies_panel.closed.connect(lambda: self.docks["studies"].setVisible(False))
        # Its buttons turn planes into other planes; ours are the menu's, the keys' and the mouse's.
        own = self.viewer.window._qt_viewer
        own.viewerButtons.setVisible(False)
        own.show_welcome_screen = False
        self.docks["jobs"].setVisible(False)
        self.jobs.added.connect(self._show_jobs)
        self.jobs.over.connect(lambda *_: self.docks["jobs"].setVisible(self.jobs.any_told))
        self._title()

    def _show_jobs(self) -> None:
        """Beside the list of studies, where that is shown, with the smaller part of the width."""
        studies, jobs = self.docks["studies"], self.docks["jobs"]
        if jobs.isHidden():
            jobs.setVisible(True)
            if not studies.isHidden():
                width = self.qt.width()
                parts = [round(0.68 * width), round(0.32 * width)]
                self.qt.resizeDocks([studies, jobs], parts, Qt.Orientation.Horizontal)

    def _dock(self, title: str, widget: QWidget, area: Qt.DockWidgetArea) -> QDockWidget:
        """A panel that can be moved about, and not be closed for good."""
        dock = QDockWidget(title, self.qt)
        dock.setObjectName(f"simcrop-{title.lower()}")
        dock.setFeatures(
            QDockWidget.DockWidgetFeature.DockWidgetMovable
            | QDockWidget.DockWidgetFeature.DockWidgetFloatable
        )
        dock.setWidget(widget)
        self.qt.addDockWidget(area, dock)
        return dock

    def _keys(self) -> None:
        session = self.session
        self.shortcut("J", lambda: self.report.step(forward=True))
        self.shortcut("K", lambda: self.report.step(forward=False))
        self.shortcut("H", self._toggle_overlay)
        self.shortcut("U", self.report.select_unsupported)
        self.shortcut("PgDown", lambda: self.studies_panel.step(forward=True))
        self.shortcut("PgUp", lambda: self.studies_panel.step(forward=False))
        for number, window in enumerate(PRESETS.values(), 1):
            self.shortcut(f"F{number}", partial(session.set_window, window))

    def shortcut(self, keys: str, do: Callable[[], Any]) -> None:
        """A key for the whole window, whatever napari meant by it."""
        for action in self.qt.findChildren(QAction):
            if QKeySequence(keys) in action.shortcuts():  # napari's: two would cancel each other
                action.setShortcuts([])
        shortcut = QShortcut(QKeySequence(keys), self.qt)
        shortcut.setContext(Qt.ShortcutContext.WindowShortcut)
        shortcut.activated.connect(lambda: do())

    # -- answers to people ----------------------------------------------------------------------

    def _toggle_overlay(self) -> None:
        self.session.overlay.visible = not self.session.overlay.visible

    def _remember_report(self) -> None:
        study = self.session.study
        if study is not None and study.volume.source is not None:
            report = None if study.report is None else study.report.source
            self.recent.add(study.volume.source, report, study.series, study.volume_name)

    def _removed(self, why: str) -> None:
        self.tell(SimCroPError(why, code="layer", remedy="Open it in a napari window of its own."))

    def _show_report(self) -> None:
        if self.evidence.is_encoded:
            self.tabs.setCurrentWidget(self.report)

    def _title(self) -> None:
        study = self.session.study
        name = "" if study is None else f"{study.name} · "
        self.qt.setWindowTitle(f"{name}{TITLE} · {RESEARCH_ONLY}")

    def let_go(self) -> None:
        """Stop all work and let go of everything that others hold; once is enough."""
        if self._closed:
            return
        self._closed = True
        self._flash.stop()
        self.jobs.close()
        own = (self.training_panel, self.jobs_panel, self.studies_panel, self.choice)
        for panel in (*self.panels.values(), *own):
            panel.disconnect_all()
        self.sessions.close()
        self.studies_encoding.close()
        self.studies_list.close()
        self.structures.close()
        self.scenes.close()
        self.centre.let_go()
        self.compare.close()
