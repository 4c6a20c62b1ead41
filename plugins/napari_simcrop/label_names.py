"""The names of labels: in a layer's features, and in the .json beside a label map."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
_MOST_BYTES = 1 << 20


def card_beside(labels: Path) -> Path | None:
    """Where a label map's names would be; None where its name has no suffix of one."""
    for suffix in _SUFFIXES:
        if labels.name.lower().endswith(suffix) and len(labels.name) > len(suffix):
            return labels.with_name(f"{labels.name[: -len(suffix)]}.json")
    return None


def names_beside(labels: Path) -> dict[int, str] | None:
    """The names in the .json beside a label map: as ``simcrop segment`` writes it
    (``{"labels": {"1": "lung"}}``), or the names alone (``{"1": "lung"}``).

    None where there is none, or it is something else: then the file beside it is no label map.
    """
    card = card_beside(labels)
    try:
        if card is None or not card.is_file() or card.stat().st_size > _MOST_BYTES:
            return None
        data = json.loads(card.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if isinstance(data, dict) and isinstance(data.get("labels"), dict):
        data = data["labels"]
    if not isinstance(data, dict) or not data:
        return None
    if not all(isinstance(v, str) and k.isascii() and k.isdigit() for k, v in data.items()):
        return None
    return {int(key): value for key, value in sorted(data.items(), key=lambda item: int(item[0]))}


def names_in(features: Any) -> dict[int, str]:
    """The names in a layer's features: its columns ``index`` and ``name``, as napari shows them
    for the label under the pointer. Empty without them."""
    if not isinstance(features, Mapping) and not hasattr(features, "columns"):
        return {}
    if "index" not in features or "name" not in features:
        return {}
    pairs = zip(features["index"], features["name"], strict=True)
    return {
        int(label): name for label, name in pairs if isinstance(name, str) and name and label > 0
    }
