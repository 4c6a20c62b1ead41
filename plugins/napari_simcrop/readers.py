"""Scans and label maps as layers, in true millimetres and the right way round."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from napari.utils.notifications import show_error, show_info

from napari_simcrop.label_names import names_beside
from napari_simcrop.provenance import metadata_of
from simcrop_core.errors import SimCroPError
from simcrop_core.geometry import Grid
from simcrop_core.io import labels_on, read_labels, read_volume
from simcrop_core.io.dicom_header import looks_like_dicom
from simcrop_core.io.sniff import sniff
from simcrop_core.volume import CTVolume
from simcrop_viewer import layers
from simcrop_viewer.model.display import display_of, upright
from simcrop_viewer.model.session_file import SUFFIX as SESSION
from simcrop_viewer.model.session_file import SavedSession
from simcrop_viewer.model.structures import color_of_label
from simcrop_viewer.model.windows import PRESETS, Window

LayerData = tuple[Any, dict[str, Any], str]
#: Files of a folder that are looked into for the first DICOM one.
_MOST_LOOKED = 200


def get_reader(path: str | Sequence[str]) -> Callable[[Any], list[LayerData]] | None:
    """napari's question: who reads this? None for what is no scan.

    Several files are read where they are slices of one DICOM folder, and then stand for their
    series.
    """
    files = [Path(path)] if isinstance(path, str) else [Path(p) for p in path]
    if not files or not all(_is_ours(file) for file in files):
        return None
    if len(files) > 1 and not (
        len({file.parent for file in files}) == 1 and all(_is_dicom(file) for file in files)
    ):
        return None
    return lambda _: _telling_napari(files[0])


def read_layers(path: Path) -> list[LayerData]:
    """The layer of a scan, a label map or a saved session.

    A label map is known by the .json with its labels' names beside it, as ``simcrop segment``
    writes it. What was decided on reading a scan is shown as napari's notification.

    Raises
    ------
    SimCroPError
        What cannot be read, and what to do.
    """
    if path.name.endswith(SESSION):
        return [_session_layer(path)]
    names = None if path.is_dir() else names_beside(path)
    if names is not None:
        labels, grid = read_labels(path)
        return [labels_data(labels, grid, names, "Structures")]
    return [_announced(read_volume(path))]


def _telling_napari(path: Path) -> list[LayerData]:
    # What napari says of a reader's error leaves out what the error says.
    try:
        return read_layers(path)
    except SimCroPError as e:
        show_error(str(e))
        raise


def ct_data(
    volume: CTVolume, window: Window = PRESETS["lung"], series: str | None = None
) -> LayerData:
    """A scan as napari takes it from a plugin."""
    shown = display_of(volume)
    layer = layers.ct_layer(
        layers.placed(shown.hu_XYZ, shown.grid), window, metadata=metadata_of(volume, series)
    )
    return layer.as_layer_data_tuple()


def labels_data(
    labels_XYZ: Any, grid: Grid, names: dict[int, str], name: str, **more: Any
) -> LayerData:
    """A label map as napari takes it from a plugin; an oblique one upright, as its scan is."""
    if not grid.is_axis_aligned:
        shown = upright(grid)
        labels_XYZ, grid = labels_on(shown, labels_XYZ, grid, resample=True), shown
    colors = {label: color_of_label(number) for number, label in enumerate(names)}
    placed = layers.placed(labels_XYZ, grid)
    return layers.labels_layer(placed, name, colors, names, **more).as_layer_data_tuple()


def _session_layer(path: Path) -> LayerData:
    """The scan of a session in the window it was looked at in; evidence needs the application."""
    saved = SavedSession.read(path)
    series = saved.scan.which or None
    volume = read_volume(saved.scan.find("scan", path), series=series)
    saved.scan.check("scan", volume.sha256)
    return _announced(volume, Window(*saved.window), series)


def _announced(
    volume: CTVolume, window: Window = PRESETS["lung"], series: str | None = None
) -> LayerData:
    if volume.notes:
        show_info("\n".join(note.text for note in volume.notes))
    return ct_data(volume, window, series)


def _is_ours(path: Path) -> bool:
    """Whether the content is that of a scan's format, whole or damaged."""
    if path.name.endswith(SESSION):
        return path.is_file()
    if path.is_dir():
        return _holds_dicom(path)
    try:
        return sniff(path).format != "NPZ"
    except SimCroPError as e:
        return e.code in ("damaged", "truncated", "empty")


def _is_dicom(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return looks_like_dicom(file.read(4096))
    except OSError:
        return False


def _holds_dicom(folder: Path) -> bool:
    looked = 0
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in files if not name.startswith(".")):
            place = Path(root, name)
            if place.is_file() and _is_dicom(place):
                return True
            looked += 1
            if looked == _MOST_LOOKED:
                return False
    return False
