"""``simcrop doctor``: what this machine offers, and what is missing."""

from __future__ import annotations

import argparse
import ctypes.util
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from simcrop_core import __version__
from simcrop_core.cli.terminal import answer

_PACKAGES = (
    "torch", "monai", "transformers", "numpy", "scipy", "nibabel", "pydicom", "python-gdcm",
    "SimpleITK", "isal", "safetensors", "pydantic", "matplotlib", "dask", "napari", "PyQt5",
)  # fmt: skip


def run_doctor(arguments: argparse.Namespace) -> int:
    facts: dict[str, Any] = {
        "simcrop": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "gpu": _gpu(),
        "gl": _gl(),
        "codecs": _codecs(),
        "text_encoders": _text_encoders(),
        "models": _models(arguments.models),
    }
    lines = [
        f"SimCroP {facts['simcrop']}, Python {facts['python']}, {facts['system']}",
        f"{facts['cores']} cores, {facts['memory_gib']} GiB of memory",
        "packages:",
        *(
            f"  {name:14s} {version or 'not installed'}"
            for name, version in facts["packages"].items()
        ),
        f"GPU: {facts['gpu']['summary']}",
        f"OpenGL: {facts['gl']}",
        "DICOM compression:",
        *(
            f"  {name:20s} {'reads' if ok else 'NO DECODER: pip install python-gdcm'}"
            for name, ok in facts["codecs"].items()
        ),
        "text encoders:",
        *(f"  {name:20s} {state}" for name, state in facts["text_encoders"].items()),
        "models:",
        *(f"  {m['folder']}: {m['summary']}" for m in facts["models"]),
    ]
    if not facts["models"]:
        lines.append("  none found here; make one with simcrop models create starter --out DIR")
    answer(arguments, facts, lines)
    return 0


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None


def _gpu() -> dict[str, Any]:
    import torch

    if not torch.cuda.is_available():
        build = "a build without CUDA" if torch.version.cuda is None else "no GPU that it can use"
        return {"devices": [], "summary": f"none; torch has {build}, computing is on the CPU"}
    devices = [
        {
            "name": torch.cuda.get_device_properties(n).name,
            "memory_gib": round(torch.cuda.get_device_properties(n).total_memory / 2**30, 1),
        }
        for n in range(torch.cuda.device_count())
    ]
    shown = ", ".join(f"cuda:{n} {d['name']} {d['memory_gib']} GiB" for n, d in enumerate(devices))
    return {"devices": devices, "summary": shown}


def _gl() -> str:
    found = ctypes.util.find_library("GL") or ctypes.util.find_library("OpenGL")
    screen = (
        sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
    if found is None:
        return "library not found; figures still work, a window would not (libgl1)"
    return f"library {found}, {'a display is set' if screen else 'no display is set'}"


def _codecs() -> dict[str, bool]:
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    syntaxes = {
        "JPEG lossless": "1.2.840.10008.1.2.4.70",
        "JPEG-LS": "1.2.840.10008.1.2.4.80",
        "JPEG 2000": "1.2.840.10008.1.2.4.90",
        "RLE": "1.2.840.10008.1.2.5",
    }
    return {name: bool(get_decoder(UID(uid)).is_available) for name, uid in syntaxes.items()}


def _text_encoders() -> dict[str, str]:
    from simcrop_core.model import text_encoder_sources

    return text_encoder_sources()


def _models(more: list[str]) -> list[dict[str, str]]:
    """Model folders here, in the folder of installed models, and wherever else was named."""
    from simcrop_core.errors import SimCroPError
    from simcrop_core.model import model_info
    from simcrop_core.model.model_folder import models_folder

    here = Path.cwd()
    more = [str(models_folder()), *more]
    places = [here, *(p for p in sorted(here.iterdir()) if p.is_dir()), *map(Path, more)]
    places += [
        p for folder in more if Path(folder).is_dir() for p in sorted(Path(folder).iterdir())
    ]
    found: list[dict[str, str]] = []
    for place in dict.fromkeys(places):
        if not (place / "config.json").is_file() or not (place / "model.safetensors").is_file():
            continue
        try:
            facts = model_info(place)
            summary = f"{facts['name']} ({facts['trained']})"
        except SimCroPError as e:
            summary = f"cannot be used: {e.problem}"
        found.append({"folder": str(place), "summary": summary})
    return found
