"""A pane: napari's canvas of one plane (or of 3D) under a strip that says what it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from napari.qt import QtViewer
from numpy.typing import NDArray
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QSizePolicy, QToolButton, QVBoxLayout, QWidget

from simcrop_viewer import layers
from simcrop_viewer.model.display import hu_at, place_in_words
from simcrop_viewer.model.session import Session
from simcrop_viewer.model.windows import Window
from simcrop_viewer.scene import Scene

_TITLES = {"axial": "Axial", "coronal": "Coronal", "sagittal": "Sagittal", "3d": "3D"}
#: Hounsfield units for each pixel that the mouse is dragged.
_HU_A_PIXEL = 4.0
_ZOOM_A_NOTCH = 1.15
#: A press that moved no further than this many pixels is a click.
_CLICK_PX = 4.0


class Pane(QWidget):
    """One of the views.

    Parameters
    ----------
    scene
        What is shown.
    session
        What the mouse changes: crosshair, window.
    canvas
        napari's view of the scene; made here by default.
    title
        What is shown, as rich text; the plane's name by default.
    """

    maximised = Signal(object)
    clicked = Signal(object)  # RAS millimetres

    def __init__(
        self, scene: Scene, session: Session, canvas: QtViewer | None = None, title: str = ""
    ) -> None:
        super().__init__()
        self.scene = scene
        self.canvas = QtViewer(scene.viewer) if canvas is None else canvas
        self._session = session
        self._hovered = QLabel()
        self._hovered.setObjectName(f"hovered-{scene.name}")
        self._where = QLabel()
        for label in (self._hovered, self._where):  # words must not push the panes about
            label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self._where.setMinimumWidth(90)
        self._hovered.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self._grow = QToolButton()
        self._grow.setText("⤢")
        self._grow.setToolTip("Show this view alone, or all again (double-click)")
        self._grow.setAutoRaise(True)
        self._grow.clicked.connect(lambda: self.maximised.emit(self))
        self.title = QLabel(title or f"<b>{_TITLES[scene.name]}</b>")
        strip = QHBoxLayout()
        strip.setContentsMargins(6, 0, 2, 0)
        strip.addWidget(self.title)
        strip.addWidget(self._where)
        strip.addWidget(self._hovered, 1)
        strip.addWidget(self._grow)
        self._take_slider_off()
        body = QVBoxLayout(self)
        body.setContentsMargins(0, 0, 0, 0)
        body.setSpacing(0)
        body.addLayout(strip)
        body.addWidget(self.canvas, 1)
        self._bind_mouse()
        session.position_changed.connect(self.tell_where)
        session.study_changed.connect(self.tell_where)

    def _take_slider_off(self) -> None:
        """Without napari's slider: it is not shown, and would move each plane to whole steps of
        its own, up to half a voxel from the crosshair."""
        slider, events = self.canvas.dims, self.scene.viewer.dims.events
        slider.setVisible(False)
        for event, answer in (
            (events.current_step, slider._update_slider),
            (events.range, slider._update_range),
        ):
            event.disconnect(answer)

    def let_go(self, *, canvas: bool) -> None:
        """Let go of the session, and of the canvas where it is ours."""
        self._session.position_changed.disconnect(self.tell_where)
        self._session.study_changed.disconnect(self.tell_where)
        if canvas:
            self.canvas.close()

    # -- the mouse ------------------------------------------------------------------------------

    def _bind_mouse(self) -> None:
        viewer = self.scene.viewer
        viewer.mouse_move_callbacks.append(self._hover)
        viewer.mouse_double_click_callbacks.clear()
        viewer.mouse_double_click_callbacks.append(lambda *_: self.maximised.emit(self))
        viewer.mouse_drag_callbacks.append(self._drag)
        if self.scene.is_3d:
            return
        viewer.mouse_wheel_callbacks.clear()
        viewer.mouse_wheel_callbacks.append(self._wheel)
        camera = viewer.scene.camera
        camera.events.mouse_zoom.connect(self._keep_zoom_ours)
        camera.mouse_zoom = False

    def _keep_zoom_ours(self) -> None:
        camera = self.scene.viewer.scene.camera
        if camera.mouse_zoom:
            camera.mouse_zoom = False

    def _wheel(self, viewer: Any, event: Any) -> None:
        notches = float(np.clip(event.delta[1], -3, 3))
        if "Control" in event.modifiers:
            viewer.scene.camera.zoom *= _ZOOM_A_NOTCH**notches
        else:
            self.step(-1 if notches > 0 else 1)

    def step(self, planes: int) -> None:
        """Go through the planes of this view: down, back or to the left of the patient."""
        if not self.scene.scan or self.scene.is_3d:
            return
        axis = layers.ORDER[self.scene.name][0]
        point = layers.to_napari(self._session.position_mm)
        # Downwards through the patient as the wheel turns towards oneself.
        sign = -1 if self.scene.name == "axial" else 1
        point[axis] += sign * planes * float(self.scene.scan[0].scale[axis])
        self._session.move_to(layers.to_world(point))

    def _drag(self, viewer: Any, event: Any) -> Iterator[None]:
        start = np.array(event.pos, dtype=float)
        if event.button == 2:
            yield from self._drag_window(viewer, event, start)
            return
        if event.button != 1:
            return
        yield
        while event.type == "mouse_move":
            yield
        moved = float(np.abs(np.array(event.pos, dtype=float) - start).max())
        if moved <= _CLICK_PX and not self.scene.is_3d and self.scene.scan:
            world = layers.to_world(np.array(event.position)[-3:])
            self._session.move_to(world)
            self.clicked.emit(world)

    def _drag_window(self, viewer: Any, event: Any, start: NDArray[Any]) -> Iterator[None]:
        camera, before = viewer.scene.camera, self._session.window
        pans = camera.mouse_pan
        camera.mouse_pan = False
        try:
            yield
            while event.type == "mouse_move":
                right, down = _HU_A_PIXEL * (np.array(event.pos, dtype=float) - start)
                self._session.set_window(Window(before.width + right, before.level - down))
                yield
        finally:
            camera.mouse_pan = pans

    def _hover(self, viewer: Any, event: Any) -> None:
        study = self._session.study
        if study is None or self.scene.is_3d:
            return
        world = layers.to_world(np.array(event.position)[-3:])
        hu = hu_at(study.volume, world)
        text = "" if hu is None else f"{hu:.0f} HU"
        self._hovered.setText(f"{text}   {place_in_words(world)}" if text else "")

    # -- words ----------------------------------------------------------------------------------

    def tell_where(self) -> None:
        """Say which plane of the patient is shown."""
        study = self._session.study
        if study is None:
            self._where.clear()
            self._hovered.clear()
            return
        axis = {"axial": 2, "coronal": 1, "sagittal": 0}.get(self.scene.name)
        if axis is not None:
            words = place_in_words(self._session.position_mm).removesuffix(" mm").split("  ")
            self._where.setText(f"{words[axis]} mm")
