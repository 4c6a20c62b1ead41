"""What tests of runs share: one small store and one small model, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
from boxes import make_box_store, tiny_config

from simcrop_core.model import save_model
from simcrop_core.model.simcrop import SimCroP
from simcrop_core.train.build import build_model


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 22 made studies."""
    return make_box_store(tmp_path_factory.mktemp("boxes") / "store")


@pytest.fixture(scope="session")
def tiny_model(store: Path) -> SimCroP:
    """A model that fits it, with fresh weights; not to be changed."""
    return build_model(tiny_config(store).model, 0)


@pytest.fixture(scope="session")
def model_folder(tiny_model: SimCroP, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same on disk: runs that start from it need not load the text encoder."""
    return save_model(tiny_model, tmp_path_factory.mktemp("model") / "tiny")
