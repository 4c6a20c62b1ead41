"""Structures in a pane's picture: one layer of labels between the scan and the evidence."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import NDArray

from simcrop_viewer import layers
from simcrop_viewer.layers import Placed
from simcrop_viewer.model.structures import Structures, StructureSettings
from simcrop_viewer.scene import Scene, show_layer

#: In 3D, labels have at most this many voxels along an axis; more only takes time and memory.
_MOST_3D = 200
_OUTLINE_PX = 2


def show_structures(
    scene: Scene, structures: Structures | None, settings: StructureSettings
) -> None:
    """Draw the structures that are shown, in place of what is drawn of others."""
    layer = scene.structures
    if layer is not None and layer not in scene.viewer.layers:
        layer = scene.structures = None  # somebody deleted it
    if structures is None or not scene.scan or not settings.visible:
        if layer is not None:
            show_layer(layer, False)
        return
    place = layers.placed(structures.labels_XYZ, structures.grid)
    colors = {row.label: row.color for row in structures.rows if row.is_shown}
    if scene.is_3d:
        place = _only(_thinned(place), colors)
    if layer is None or not _same_place(layer, place):
        if layer is not None:
            with scene.quiet():
                scene.viewer.layers.remove(layer)
        layer = scene.structures = _added(scene, place, _colormap(colors))
    else:
        layer.colormap = _colormap(colors)
        if not np.may_share_memory(layer.data, place.data_ZYX):
            layer.data = place.data_ZYX
    layer.opacity = settings.opacity
    layer.contour = _OUTLINE_PX if settings.draw == "outlines" and not scene.is_3d else 0
    show_layer(layer, bool(colors))


def _added(scene: Scene, place: Placed, colormap: DirectLabelColormap) -> Labels:
    """A layer of labels right above the scan."""
    layer = Labels(
        place.data_ZYX,
        name="Structures",
        colormap=colormap,
        blending="translucent",
        rendering="iso_categorical",
        multiscale=False,
        **place.place,
    )
    layer.editable = False
    with scene.quiet():
        scene.viewer.add_layer(layer)
        order = scene.viewer.layers
        above = max(order.index(scan) for scan in scene.scan if scan in order) + 1
        order.move(order.index(layer), above)
        scene.choose_scan()
    return layer


def _same_place(layer: Labels, place: Placed) -> bool:
    return (
        layer.data.shape == place.data_ZYX.shape
        and np.allclose(layer.scale, place.scale)
        and np.allclose(layer.translate, place.translate)
    )


def _colormap(colors: dict[int, str]) -> DirectLabelColormap:
    clear = np.zeros(4)
    table: dict[int | None, Any] = {None: clear, 0: clear}
    return DirectLabelColormap(color_dict=table | colors)


def _thinned(place: Placed) -> Placed:
    """Every n-th voxel where there are many; each stays where it is."""
    steps = [-(-n // _MOST_3D) for n in place.data_ZYX.shape]
    z, y, x = (scale * step for scale, step in zip(place.scale, steps, strict=True))
    thin = place.data_ZYX[tuple(slice(None, None, step) for step in steps)]
    return Placed(thin, (z, y, x), place.translate)


def _only(place: Placed, colors: dict[int, str]) -> Placed:
    """Labels that are shown; in 3D a hidden one would hide what lies behind it."""
    kept = np.zeros(256, np.uint8)
    kept[list(colors)] = list(colors)
    shown: NDArray[np.uint8] = kept[place.data_ZYX]
    return place._replace(data_ZYX=shown)
