"""From a napari window into the application."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import napari_simcrop.commands as commands
import pytest
from napari.components import ViewerModel

sys.path.insert(0, str(Path(__file__).parents[1] / "core"))

from made_ct import chest, save_nifti

from simcrop_core.errors import SimCroPError
from simcrop_core.io import read_volume


def test_a_window_without_a_scan_from_a_file_is_refused(viewer: ViewerModel) -> None:
    viewer.open_sample("simcrop-viewer", "sample")
    with pytest.raises(SimCroPError, match="no scan from a file"):
        commands.open_study(viewer)


def test_the_chosen_scan_opens_in_the_application(
    tmp_path: Path, viewer: ViewerModel, monkeypatch: pytest.MonkeyPatch, request
) -> None:
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        pytest.skip("there is no display: run under xvfb-run, as `make test` does")
    qtbot = request.getfixturevalue("qtbot")
    from simcrop_viewer.model import recent

    monkeypatch.setattr(recent, "usual_place", lambda: tmp_path / "home")
    first = save_nifti(tmp_path / "first.nii.gz")
    second = tmp_path / "second"
    second.mkdir()
    other = save_nifti(second / "second.nii.gz", chest(seed=5))
    (chosen,) = viewer.open(first, plugin="simcrop-viewer")
    viewer.open(other, plugin="simcrop-viewer")
    viewer.layers.selection = {chosen}
    commands.open_study(viewer)
    (window,) = commands._WINDOWS
    try:
        qtbot.waitUntil(lambda: window.session.study is not None, timeout=30_000)
        assert window.session.study.volume.source == first
        assert window.session.study.volume.sha256 == read_volume(first).sha256
    finally:
        window.close()
        commands._WINDOWS.clear()
