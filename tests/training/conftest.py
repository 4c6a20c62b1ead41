"""What tests of runs share: one small store, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
from boxes import make_box_store


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 22 made studies."""
    return make_box_store(tmp_path_factory.mktemp("boxes") / "store")
