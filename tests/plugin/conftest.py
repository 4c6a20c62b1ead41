"""The plugin in an otherwise empty napari: none that is installed takes part."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import napari_simcrop
import npe2
import pytest
from napari.components import ViewerModel

MANIFEST = Path(napari_simcrop.__file__).with_name("napari.yaml")


@pytest.fixture
def plugin(npe2pm: object) -> Iterator[npe2.PluginManifest]:
    manifest = npe2.PluginManifest.from_file(MANIFEST)
    manager = npe2.PluginManager.instance()
    manager.register(manifest)
    yield manifest
    manager.unregister(manifest.name)


@pytest.fixture
def viewer(plugin: object) -> ViewerModel:
    """napari's model of a window, without a window."""
    return ViewerModel()
