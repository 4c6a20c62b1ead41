"""From a napari window into the whole application."""

from __future__ import annotations

from typing import TYPE_CHECKING

import napari

from napari_simcrop.provenance import provenance_of
from simcrop_core.errors import SimCroPError

if TYPE_CHECKING:
    from simcrop_viewer.view.window import MainWindow

#: The application's window that this napari has opened, kept from being collected.
_WINDOWS: list[MainWindow] = []


def open_study(viewer: napari.Viewer) -> None:
    """Open the chosen scan of this window in SimCroP Viewer, beside it.

    Raises
    ------
    SimCroPError
        ``no-scan``: no layer of this window is a scan from a file.
    """
    chosen = [*viewer.layers.selection, *reversed(viewer.layers)]
    known = (provenance_of(layer.metadata) for layer in chosen)
    source = next((found for found in known if found is not None), None)
    if source is None:
        raise SimCroPError(
            "There is no scan from a file in this window",
            code="no-scan",
            remedy="Open one with SimCroP first",
        )
    from simcrop_core.encoded_cache import EncodedCache
    from simcrop_viewer.model.recent import RecentStudies, usual_place
    from simcrop_viewer.view.window import MainWindow

    home = usual_place()
    window = MainWindow(RecentStudies(home / "recent.json"), EncodedCache(home / "encoded"))
    _WINDOWS[:] = [other for other in _WINDOWS if other.qt.isVisible()] + [window]
    window.show()
    # "": the usual series, which is the one this window shows.
    window.open(source.source, series=source.series or "")
