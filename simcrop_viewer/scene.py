"""One pane's picture: a napari viewer model and the layers in it, made once and kept.

Choosing another sentence writes into the layers' arrays; layers are added when a study is opened
and taken away when it is closed, never in between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
from napari.components import ViewerModel
from napari.components.overlays import TextOverlay
from napari.layers import Image, Labels, Layer, Vectors
from napari.utils.colormaps import Colormap
from numpy.typing import ArrayLike, NDArray

from simcrop_core.patches import Box, PatchGrid
from simcrop_viewer import layers
from simcrop_viewer.layers import Placed, PlaneName
from simcrop_viewer.model.display import Display
from simcrop_viewer.model.outlines import plane_outlines, solid_outlines
from simcrop_viewer.model.windows import Window
from simcrop_viewer.scene_cross import cross_layer, draw_cross, place_cross

SceneName = Literal["axial", "coronal", "sagittal", "3d"]
SCENES: tuple[SceneName, ...] = ("axial", "coronal", "sagittal", "3d")
PLANES: tuple[PlaneName, ...] = ("axial", "coronal", "sagittal")


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """A statement's evidence as it is drawn: heat and chosen patches on the patch grid."""

    heat_IJK: NDArray[np.float32]
    chosen_IJK: NDArray[np.bool_]
    colormap: Colormap
    color: str


class Scene:
    """What one pane shows.

    Parameters
    ----------
    name
        Which plane, or ``"3d"``.
    viewer
        napari's model of it; a new one by default.

    Attributes
    ----------
    scan
        The scan's layers: one, or a plane in each direction in 3D.
    structures
        The layer of what is segmented, if it was ever shown (`simcrop_viewer.scene_structures`).
    frame_mm
        A box that is drawn with the crosshair from its next move on, or None.
    moved
        Called with RAS millimetres when a person steps through this pane's planes.
    removed
        Called with a sentence when a layer of somebody else's had to be taken out.
    later
        Calls a function once napari is done with what it is doing.
    """

    def __init__(self, name: SceneName, viewer: ViewerModel | None = None) -> None:
        self.name = name
        self.viewer = ViewerModel() if viewer is None else viewer
        self.scan: tuple[Image, ...] = ()
        self.structures: Labels | None = None
        self.frame_mm: Box | None = None
        self.moved: Callable[[NDArray[np.float64]], None] = lambda world_mm: None
        self.removed: Callable[[str], None] = lambda why: None
        self.later: Callable[[Callable[[], None]], None] = lambda do: None
        self._heat: list[Image] = []
        self._boxes: list[Vectors] = []
        self._cross: Vectors | None = None
        self._settings: WeakKeyDictionary[Layer, str] = WeakKeyDictionary()  # as they were made
        self._patches: PatchGrid | None = None
        self._position = np.zeros(3)
        self._bounds = np.zeros((2, 3))
        self._following = False
        dims = self.viewer.dims.events
        self._watched = (
            (dims.current_step, self._stepped),
            (dims.order, self._keep),
            (dims.ndisplay, self._keep),
            (self.viewer.scene.camera.events.orientation, self._keep),
            (self.viewer.canvas.grid.events.enabled, self._keep),
            (self.viewer.layers.events.inserted, self._inserted),
        )
        for event, answer in self._watched:
            event.connect(answer)

    @property
    def is_3d(self) -> bool:
        return self.name == "3d"

    # -- the study ------------------------------------------------------------------------------

    def show_study(self, display: Display, window: Window) -> None:
        """Show a scan in place of what is there.

        The layers of an earlier scan become those of this one: napari takes ten times as long to
        take layers away and to set others up.
        """
        ct = layers.placed(display.hu_XYZ, display.grid)
        size = np.array(ct.data_ZYX.shape) * ct.scale
        least = np.array(ct.translate) - np.array(ct.scale) / 2
        self._bounds = np.stack([least, least + size])
        with self.quiet():
            if self.is_set_up:
                self._take_over(ct, window)
            else:
                self._set_up(ct, window)
            self._place_cross()
            self.choose_scan()
            self._orient()
        self._letters()
        self.reset_view()
        self.move_to(layers.to_world(self._bounds.mean(axis=0)))

    @property
    def is_set_up(self) -> bool:
        """Whether all layers of a scan are here, and none was deleted or changed by somebody."""
        own = (*self.scan, self._cross, *self._heat, *self._boxes)
        there = bool(self.scan) and all(layer in self.viewer.layers for layer in own)
        return there and all(
            layers.settings_of(layer, of_scan=layer in self.scan) == self._settings.get(layer)
            for layer in own
            if layer is not None
        )

    def _set_up(self, ct: Placed, window: Window) -> None:
        self.clear()
        if self.is_3d:
            self.scan = tuple(self._plane_layer(ct, window, axis) for axis in range(3))
        else:
            self.scan = (layers.ct_layer(ct, window),)
        self._cross = cross_layer()
        for layer in (*self.scan, self._cross):
            self.viewer.add_layer(layer)
        for layer in (*self.scan, self._cross):
            self._settings[layer] = layers.settings_of(layer, of_scan=layer in self.scan)

    def _take_over(self, ct: Placed, window: Window) -> None:
        if self.structures is not None and self.structures in self.viewer.layers:
            self.viewer.layers.remove(self.structures)
        self.structures = None
        for evidence in (*self._heat, *self._boxes):
            show_layer(evidence, False)
        for layer in self.scan:
            layer.data, layer.scale, layer.translate = ct.data_ZYX, ct.scale, ct.translate
            layer.contrast_limits = window.limits
            show_layer(layer, True)

    def clear(self) -> None:
        """Take everything away."""
        with self.quiet():
            for layer in self.own_layers():
                self.viewer.layers.remove(layer)
        self.scan, self._heat, self._boxes = (), [], []
        self.structures = self._cross = self._patches = None

    def _plane_layer(self, ct: Placed, window: Window, axis: int) -> Image:
        normal = tuple(1.0 if a == axis else 0.0 for a in range(3))
        layer = layers.ct_layer(ct, window, depiction="plane", rendering="mip")
        layer.blending = "translucent" if axis else "opaque"
        layer.name = f"CT, {PLANES[axis]}"
        layer.plane.normal = normal
        layer.plane.thickness = 1
        return layer

    def _place_cross(self) -> None:
        assert self._cross is not None
        place_cross(self._cross, self._bounds, None if self.is_3d else layers.ORDER[self.name])
        show_layer(self._cross, True)

    def _orient(self) -> None:
        if self.is_3d:
            self.viewer.dims.ndisplay = 3
            self.viewer.scene.camera.orientation = layers.ORIENTATION_3D
            return
        self.viewer.dims.ndisplay = 2
        self.viewer.dims.order = layers.ORDER[self.name]
        self.viewer.scene.camera.orientation2d = layers.ORIENTATION_2D[self.name]

    def reset_view(self) -> None:
        """The whole scan; in 3D from the front, a little from above and from the patient's left."""
        self.viewer.reset_view()
        if self.is_3d:
            self.viewer.scene.camera.set_view_direction(*layers.VIEW_3D)
            self.viewer.scene.camera.zoom *= 0.8  # room for the corners that now stand out

    def _keep(self) -> None:
        """A pane stays what its title and its letters say, whatever napari's buttons do."""
        if self._following or not self.scan:
            return
        with self.quiet():
            self.viewer.canvas.grid.enabled = False
            self._orient()

    def _inserted(self, event: Any) -> None:
        """Layers of others may lie over the scan, but not add a dimension to it."""
        layer = event.value
        if not self._following and layer.ndim > 3:
            self.later(lambda: self._take_out(layer))

    def _take_out(self, layer: Layer) -> None:
        if layer not in self.viewer.layers:
            return
        with self.quiet():
            self.viewer.layers.remove(layer)
            self._orient()
        self.move_to(layers.to_world(self._position))
        self.removed(f"A layer of {layer.ndim} dimensions cannot lie over a scan of three")

    def _letters(self) -> None:
        """Names of the body's directions; in 3D they would have to turn with the patient."""
        for position, letter in layers.LETTERS.get(self.name, {}).items():
            name = f"orient_{position}"
            if name in self.viewer.canvas.overlays:
                self.viewer.canvas.overlays[name].text = letter
            else:
                self.viewer.canvas.overlays[name] = TextOverlay(
                    text=letter,
                    position=position,
                    font_size=12,
                    color="#f5f5f5",
                    box=True,
                    box_color="#000000b0",
                    visible=True,
                )

    # -- how it is looked at --------------------------------------------------------------------

    def set_window(self, window: Window) -> None:
        for layer in self.scan:
            layer.contrast_limits = window.limits

    def move_to(self, world_mm: ArrayLike) -> None:
        """Show the plane through a RAS point and put the crosshair there."""
        if not self.scan:
            return
        self._position = layers.to_napari(world_mm)
        with self.quiet():
            if self.is_3d:
                self._place_planes()
            else:
                axis = layers.ORDER[self.name][0]
                if self.viewer.dims.point[axis] != self._position[axis]:
                    self.viewer.dims.set_point(axis, self._position[axis])
                self._draw_cross()

    def _place_planes(self) -> None:
        """The three planes of the 3D view through the position."""
        for axis, layer in enumerate(self.scan):
            if layer in self.viewer.layers:
                place = (np.array(layer.data.shape) - 1) / 2
                place[axis] = layer.world_to_data(self._position)[axis]
                layer.plane.position = tuple(place)

    def _stepped(self) -> None:
        if self._following or self.is_3d or not self.scan:
            return
        axis = layers.ORDER[self.name][0]
        point = self._position.copy()
        point[axis] = self.viewer.dims.point[axis]
        if point[axis] != self._position[axis]:
            self.moved(layers.to_world(point))

    def _draw_cross(self) -> None:
        if self._cross is not None and self._cross in self.viewer.layers:
            across = layers.ORDER[self.name][1:]
            draw_cross(self._cross, self._bounds, self._position, across, self.frame_mm)

    # -- evidence -------------------------------------------------------------------------------

    def show_evidence(
        self,
        patches: PatchGrid | None,
        shown: Sequence[Shown],
        *,
        heat: bool,
        outlines: bool,
        opacity: float,
        smooth: bool,
    ) -> None:
        """Draw the evidence of some statements, or of none."""
        before = self._patches
        self._patches = patches or before
        if patches and before and patches is not before and not patches.grid.matches(before.grid):
            self._move_evidence(before)
        for number, one in enumerate(shown):
            self._ensure(number, one)
            self._draw_heat(self._heat[number], one, heat, opacity, smooth)
            self._draw_boxes(self._boxes[number], one, outlines)
        for layer in (*self._heat[len(shown) :], *self._boxes[len(shown) :]):
            show_layer(layer, False)

    def _ensure(self, number: int, one: Shown) -> None:
        assert self._patches is not None
        own = (*self._heat[number : number + 1], *self._boxes[number : number + 1])
        if len(own) == 2 and all(layer in self.viewer.layers for layer in own):
            return
        with self.quiet():  # somebody deleted one of them: both are made anew
            for layer in own:
                if layer in self.viewer.layers:
                    self.viewer.layers.remove(layer)
        label = "" if number == 0 else f" {number + 1}"
        place = layers.placed(np.zeros(self._patches.shape, np.float32), self._patches.grid)
        place = place._replace(data_ZYX=np.ascontiguousarray(place.data_ZYX))
        heat = layers.heat_layer(place, one.colormap, f"Evidence{label}", flat=not self.is_3d)
        boxes = layers.lines_layer(f"Top patches{label}", one.color, 0.07, opacity=1.0)
        boxes.scale, boxes.translate = place.scale, place.translate
        with self.quiet():
            for layer in (heat, boxes):
                self.viewer.add_layer(layer)
                self._settings[layer] = layers.settings_of(layer, of_scan=False)
            self._raise_cross()
            self.choose_scan()
        self._heat[number : number + 1] = [heat]
        self._boxes[number : number + 1] = [boxes]

    def own_layers(self) -> list[Layer]:
        """Layers of ours that are in the viewer."""
        own = (*self.scan, self.structures, *self._heat, *self._boxes, self._cross)
        return [layer for layer in own if layer is not None and layer in self.viewer.layers]

    def choose_scan(self) -> None:
        """napari's own controls are those of the scan, not of the layer that came last."""
        if self.scan and self.scan[0] in self.viewer.layers:
            self.viewer.layers.selection.active = self.scan[0]

    def _raise_cross(self) -> None:
        order = self.viewer.layers
        if self._cross is not None and self._cross in order:
            order.move(order.index(self._cross), len(order))

    def _draw_heat(
        self, layer: Image, one: Shown, wanted: bool, opacity: float, smooth: bool
    ) -> None:
        if not wanted or layer not in self.viewer.layers:
            show_layer(layer, False)
            return
        assert self._patches is not None
        # In 3D the chosen patches alone: heat in front would hide all that is behind.
        heat = np.where(one.chosen_IJK, one.heat_IJK, 0) if self.is_3d else one.heat_IJK
        layer.data[...] = layers.placed(heat, self._patches.grid).data_ZYX
        if layer.colormap.name != one.colormap.name:
            layer.colormap = one.colormap
        if layer.opacity != opacity:
            layer.opacity = opacity
        interpolation = "linear" if smooth else "nearest"
        if layer.interpolation2d != interpolation:
            layer.interpolation2d = layer.interpolation3d = interpolation
        if layer.visible:
            layer.refresh(thumbnail=False, extent=False, highlight=False)
        else:
            layer.visible = True  # draws it too

    def _draw_boxes(self, layer: Vectors, one: Shown, wanted: bool) -> None:
        if not wanted or layer not in self.viewer.layers:
            show_layer(layer, False)
            return
        assert self._patches is not None
        mask = layers.placed(one.chosen_IJK, self._patches.grid).data_ZYX
        lines = (
            solid_outlines(mask) if self.is_3d else plane_outlines(mask, layers.ORDER[self.name][0])
        )
        layers.set_lines(layer, lines, one.color)
        show_layer(layer, True)

    def _move_evidence(self, before: PatchGrid) -> None:
        """Layers of patches that lay elsewhere are put where they lie now, or taken away."""
        assert self._patches is not None
        zeros = np.zeros(self._patches.shape, np.float32)
        place = layers.placed(zeros, self._patches.grid)
        there = layers.placed(np.zeros(before.shape, np.float32), before.grid)
        with self.quiet():
            if place.data_ZYX.shape == there.data_ZYX.shape:
                for layer in (*self._heat, *self._boxes):
                    layer.scale, layer.translate = place.scale, place.translate
                return
            for layer in (*self._heat, *self._boxes):
                if layer in self.viewer.layers:
                    self.viewer.layers.remove(layer)
        self._heat, self._boxes = [], []

    # -- the rest -------------------------------------------------------------------------------

    def quiet(self) -> _Following:
        """While this lasts, steps are ours and not a person's."""
        return _Following(self)

    def close(self) -> None:
        for event, answer in self._watched:
            event.disconnect(answer)
        self.clear()


def show_layer(layer: Layer, visible: bool) -> None:
    """Show a layer or hide it, only where that changes anything."""
    if layer.visible != visible:  # napari sets the scene up anew even where nothing changes
        layer.visible = visible


class _Following:
    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    def __enter__(self) -> None:
        self._before = self._scene._following
        self._scene._following = True

    def __exit__(self, *error: object) -> None:
        self._scene._following = self._before
