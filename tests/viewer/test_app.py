"""The command that opens the window."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from npe2 import PluginManager, PluginManifest

from simcrop_viewer.app import leave_out_plugins


@pytest.fixture
def other() -> Iterator[str]:
    """Another napari plugin, for the time of a test."""
    plugins = PluginManager.instance()
    plugins.register(PluginManifest(name="somebody-elses", display_name="Somebody else's"))
    yield "somebody-elses"
    plugins.unregister("somebody-elses")


def test_a_safe_start_leaves_out_the_plugins_of_others(other: str) -> None:
    plugins = PluginManager.instance()
    leave_out_plugins()
    leave_out_plugins()  # and may be asked for twice
    try:
        disabled = {m.name for m in plugins.iter_manifests() if plugins.is_disabled(m.name)}
        assert other in disabled
        assert not disabled & {"napari", "simcrop-viewer"}
        assert "napari" in {m.name for m in plugins.iter_manifests(disabled=False)}
    finally:
        for name in disabled:
            plugins.enable(name)
