"""What all tests share: where the real data lies, and small volumes made by hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How fast a busy machine is says nothing about the code.
settings.register_profile(
    "any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any-machine")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real scans and reports, or a skip that says why."""
    folder = os.environ.get("SIMCROP_TEST_DATA")
    if not folder:
        pytest.skip("SIMCROP_TEST_DATA is unset: the tests on real scans and reports are skipped")
    path = Path(folder)
    if not path.is_dir():
        pytest.fail(f"SIMCROP_TEST_DATA is {folder}, which is not a folder")
    return path
