"""Runs: from a configuration to a trained model, through kills, full disks and bad data.

Importing this package is cheap: torch is imported when something that needs it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOME = {
    "DataConfig": "config",
    "ModelSource": "config",
    "OptimConfig": "config",
    "RunConfig": "config",
    "RunSettings": "config",
    "Run": "run",
    "RunStatus": "status",
    "read_run_config": "run",
    "request_stop": "status",
    "run_status": "status",
    "read_events": "events",
    "fields_of": "settings",
    "with_settings": "settings",
    "Outcome": "launch",
    "train": "launch",
    "replay_failure": "failures",
}

__all__ = [
    "DataConfig",
    "ModelSource",
    "OptimConfig",
    "Outcome",
    "Run",
    "RunConfig",
    "RunSettings",
    "RunStatus",
    "fields_of",
    "read_events",
    "read_run_config",
    "replay_failure",
    "request_stop",
    "run_status",
    "train",
    "with_settings",
]

if TYPE_CHECKING:
    from simcrop_core.train.config import (
        DataConfig,
        ModelSource,
        OptimConfig,
        RunConfig,
        RunSettings,
    )
    from simcrop_core.train.events import read_events
    from simcrop_core.train.failures import replay_failure
    from simcrop_core.train.launch import Outcome, train
    from simcrop_core.train.run import Run, read_run_config
    from simcrop_core.train.settings import fields_of, with_settings
    from simcrop_core.train.status import RunStatus, request_stop, run_status


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
