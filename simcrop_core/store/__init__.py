"""Prepared studies on disk, and the loader that feeds training from them.

Importing this package is cheap: torch is imported with the loader.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOME = {
    "AugmentationConfig": "settings",
    "StoreSettings": "settings",
    "Store": "store",
    "RawSample": "store",
    "open_store": "store",
    "Record": "record",
    "build_store": "build",
    "BuildTally": "build",
    "Loader": "loader",
    "RawBatch": "collate",
    "to_batch": "batching",
}

__all__ = [
    "AugmentationConfig",
    "BuildTally",
    "Loader",
    "RawBatch",
    "RawSample",
    "Record",
    "Store",
    "StoreSettings",
    "build_store",
    "open_store",
    "to_batch",
]

if TYPE_CHECKING:
    from simcrop_core.store.batching import to_batch
    from simcrop_core.store.build import BuildTally, build_store
    from simcrop_core.store.collate import RawBatch
    from simcrop_core.store.loader import Loader
    from simcrop_core.store.record import Record
    from simcrop_core.store.settings import AugmentationConfig, StoreSettings
    from simcrop_core.store.store import RawSample, Store, open_store


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
