"""SimCroP: a chest CT and its report explain each other.

Arrays are (X, Y, Z), world is RAS+ millimetres. Importing this package is cheap: what needs
torch is imported when it is first used.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "SimCroPError": "simcrop_core.errors",
    "Grid": "simcrop_core.geometry",
    "CTVolume": "simcrop_core.volume",
    "Note": "simcrop_core.volume",
    "InputSpec": "simcrop_core.input_spec",
    "read_volume": "simcrop_core.io",
    "write_volume": "simcrop_core.io",
    "write_labels": "simcrop_core.io",
    "Report": "simcrop_core.report",
    "Section": "simcrop_core.report",
    "Sentence": "simcrop_core.report",
    "read_report": "simcrop_core.report",
    "PatchGrid": "simcrop_core.patches",
    "Prepared": "simcrop_core.prepare",
    "prepare": "simcrop_core.prepare",
    "read_and_prepare": "simcrop_core.ingest",
    "SimCroP": "simcrop_core.model",
    "create_model": "simcrop_core.model",
    "import_checkpoint": "simcrop_core.model",
    "load_model": "simcrop_core.model",
    "save_model": "simcrop_core.model",
    "AlignmentResult": "simcrop_core.align",
    "Encoded": "simcrop_core.align",
    "align": "simcrop_core.align",
    "encode": "simcrop_core.align",
    "Classification": "simcrop_core.classify",
    "classify": "simcrop_core.classify",
    "Segmentation": "simcrop_core.segment",
    "segment": "simcrop_core.segment",
    "FigureSpec": "simcrop_core.figure",
    "draw_figure": "simcrop_core.figure",
    "save_figure": "simcrop_core.figure",
}

__all__ = [
    "AlignmentResult",
    "CTVolume",
    "Classification",
    "Encoded",
    "FigureSpec",
    "Grid",
    "InputSpec",
    "Note",
    "PatchGrid",
    "Prepared",
    "Report",
    "Section",
    "Segmentation",
    "Sentence",
    "SimCroP",
    "SimCroPError",
    "__version__",
    "align",
    "classify",
    "create_model",
    "draw_figure",
    "encode",
    "import_checkpoint",
    "load_model",
    "prepare",
    "read_and_prepare",
    "read_report",
    "read_volume",
    "save_figure",
    "save_model",
    "segment",
    "write_labels",
    "write_volume",
]

if TYPE_CHECKING:
    from simcrop_core.align import AlignmentResult, Encoded, align, encode
    from simcrop_core.classify import Classification, classify
    from simcrop_core.errors import SimCroPError
    from simcrop_core.figure import FigureSpec, draw_figure, save_figure
    from simcrop_core.geometry import Grid
    from simcrop_core.ingest import read_and_prepare
    from simcrop_core.input_spec import InputSpec
    from simcrop_core.io import read_volume, write_labels, write_volume
    from simcrop_core.model import (
        SimCroP,
        create_model,
        import_checkpoint,
        load_model,
        save_model,
    )
    from simcrop_core.patches import PatchGrid
    from simcrop_core.prepare import Prepared, prepare
    from simcrop_core.report import Report, Section, Sentence, read_report
    from simcrop_core.segment import Segmentation, segment
    from simcrop_core.volume import CTVolume, Note


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


class _Package(ModuleType):
    """Keeps ``simcrop_core.align`` the function when the module of that name is imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
