"""Labels of a napari window as NIfTI, and as DICOM SEG on the slices of their scan."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import napari
import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray

from napari_simcrop.label_names import card_beside, names_beside, names_in
from napari_simcrop.provenance import Provenance, provenance_of
from simcrop_core.errors import SimCroPError
from simcrop_core.geometry import Grid
from simcrop_core.io import write_labels
from simcrop_core.io.dicom_seg import seg_slices, write_seg
from simcrop_viewer.layers import unplaced


class NotSavedError(RuntimeError):
    """A refusal's sentence on the way to napari, which takes any ValueError (as `SimCroPError`
    is) for "this plugin does not write such files" and shows nothing of it."""


def _telling_napari(
    write: Callable[[str, Any, dict[str, Any]], list[str]],
) -> Callable[[str, Any, dict[str, Any]], list[str]]:
    @wraps(write)
    def told(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
        try:
            return write(path, data, attributes)
        except SimCroPError as e:
            raise NotSavedError(str(e)) from e

    return told


@_telling_napari
def write_nifti(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """A Labels layer as NIfTI where it lies in the window, with a .json of names beside it if it
    has names.

    Returns
    -------
    list of str
        What was written.

    Raises
    ------
    NotSavedError
        The layer is no label map in three dimensions, the name is a scan's or another file's, or
        nothing can be written there.
    """
    file = Path(path)
    labels_XYZ, grid = _placed(data, attributes, file)
    names = names_in(attributes.get("features"))
    _refuse_source(file, attributes)
    card = card_beside(file)
    if names and card is not None and card.exists() and names_beside(file) is None:
        raise SimCroPError(
            "The names of the labels would take the place of another file",
            path=card,
            code="exists",
            remedy="Choose another name, or move that file away.",
        )
    write_labels(file, labels_XYZ, grid, names or None)
    return [path, str(card)] if names else [path]


@_telling_napari
def write_dicom_seg(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """A Labels layer as DICOM SEG on the series it was drawn on.

    Which series that is the layer's metadata says, or else the window, where this plugin has read
    one DICOM series into it.

    Raises
    ------
    NotSavedError
        No series is known, the labels lie elsewhere than it, or nothing can be written there.
    """
    file = Path(path)
    labels_XYZ, grid = _placed(data, attributes, file)
    source = provenance_of(attributes.get("metadata") or {}) or _series_in_window(file)
    plan, _ = seg_slices(source.source, series=source.series)
    write_seg(
        file,
        labels_XYZ,
        grid,
        names_in(attributes.get("features")),
        source.source,
        series=source.series,
        # An oblique scan is shown upright, and labels were drawn on what is shown.
        resample=not plan.grid.is_axis_aligned,
    )
    return [path]


def _placed(data: Any, attributes: dict[str, Any], path: Path) -> tuple[NDArray[Any], Grid]:
    try:
        values, grid = unplaced(Labels(data, **attributes))
        if int(np.min(values)) < 0:
            raise ValueError("It has negative labels.")
    except ValueError as e:
        raise SimCroPError(
            f"This layer cannot be saved as a label map: {e}",
            code="not-labels",
            remedy="Choose a layer of labels on a scan",
            path=path,
        ) from e
    return values, grid


def _refuse_source(path: Path, attributes: dict[str, Any]) -> None:
    """Labels never take the place of a scan that is open."""
    known = [provenance_of(attributes.get("metadata") or {}), *_in_window()]
    for source in known:
        if source is not None and path.exists() and Path(source.source).exists():
            if not path.samefile(source.source):
                continue
            raise SimCroPError(
                "The labels would take the place of the scan",
                path=path,
                code="same-file",
                remedy="Choose another name.",
            )


def _in_window() -> list[Provenance]:
    """The scans that the window shows, each once."""
    viewer = napari.current_viewer()
    found = [] if viewer is None else [provenance_of(layer.metadata) for layer in viewer.layers]
    return list(dict.fromkeys(source for source in found if source is not None))


def _series_in_window(path: Path) -> Provenance:
    series = [source for source in _in_window() if source.is_dicom]
    if len(series) == 1:
        return series[0]
    raise SimCroPError(
        "It is not known which DICOM series these labels belong to"
        if not series
        else f"The window shows {len(series)} DICOM series, and these labels may belong to any",
        code="no-series",
        remedy="Open the DICOM folder of the scan with SimCroP first, or save as NIfTI (.nii.gz)"
        if not series
        else "Close the others",
        path=path,
    )
