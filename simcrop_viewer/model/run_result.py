"""What runs say beside their curves: figures of ``result.json``, and settings that differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from simcrop_viewer.model.recipes import leaves
from simcrop_viewer.model.run_summary import config_of

_MOST_BYTES = 1 << 22
_MOST_LINES = 60
#: What comes of nonsense: no text or number, nested without end, numbers of hundreds of digits.
_DAMAGED = (ValueError, RecursionError, OverflowError)
#: Beside the figures, only what says what they are of.
_SAID = ("task", "protocol", "fraction", "steps", "paper_percent")


def result_lines(path: Path) -> tuple[str, ...]:
    """Figures with their intervals, and notes; nothing of a file that is not there or not whole."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            return ()
        data = json.loads(path.read_text(encoding="utf-8"))
        return _lines(data) if isinstance(data, Mapping) else ()
    except (OSError, *_DAMAGED):
        return ()


def _lines(data: Mapping[str, Any]) -> tuple[str, ...]:
    lines = [f"{name.replace('_', ' ')}: {data[name]}" for name in _SAID if name in data]
    for part in ("test", "external"):
        lines += _figures(part, data.get(part))
    notes = data.get("notes")
    for note in notes if isinstance(notes, list) else ():
        if isinstance(note, Mapping) and note.get("text"):
            lines.append(f"Note: {note['text']}")
    return tuple(lines[:_MOST_LINES])


def _figures(part: str, found: Any) -> list[str]:
    if not isinstance(found, Mapping):
        return []
    metric = found.get("metric")
    name = {"auc": "AUC"}.get(str(metric), metric if isinstance(metric, str) else "")
    lines = [f"{part} {name}".strip()]
    if "overall" in found or "by_label" in found:
        labels = found.get("by_label")
        rows = {"over all": found.get("overall")}
        rows |= labels if isinstance(labels, Mapping) else {}
        return lines + [f"    {name}: {_figure(value)}" for name, value in rows.items()]
    return lines + [f"    {name}: {_figure(value)}" for name, value in _numbers(found)]


def _numbers(found: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """All figures of a kind of result that is not known here, with their names."""
    for name, value in found.items():
        words = f"{above} {name}".strip().replace("_", " ")
        if isinstance(value, Mapping) and "value" not in value:
            yield from _numbers(value, words)
        elif isinstance(value, Mapping | int | float) and not isinstance(value, bool):
            yield words, value


def _figure(value: Any) -> str:
    if not isinstance(value, Mapping):
        return f"{value:.4g}" if isinstance(value, int | float) else "-"
    told = value.get("value")
    low, high = value.get("low"), value.get("high")
    if not isinstance(told, int | float):
        return "-"
    if isinstance(low, int | float) and isinstance(high, int | float):
        return f"{told:.3f} ({low:.3f} to {high:.3f})"
    return f"{told:.3f}"


def differences(folders: Sequence[Path]) -> tuple[str, ...]:
    """The settings in which runs differ, with the value of each run in their order."""
    trees = [_settings_of(folder) for folder in folders]
    lines = []
    for path in dict.fromkeys(path for tree in trees for path in tree):
        values = [tree.get(path) for tree in trees]
        if any(value != values[0] for value in values):
            lines.append(f"{path}: {' | '.join(_shown(value) for value in values)}")
    if len(folders) < 2:
        return ()
    names = " | ".join(folder.name for folder in folders)
    return (names, "", *(lines or ["Their settings are the same."]))


def _settings_of(folder: Path) -> Mapping[str, Any]:
    try:
        return leaves(config_of(folder)[0])
    except RecursionError:
        return {}


def _shown(value: Any) -> str:
    return "-" if value is None else json.dumps(value) if isinstance(value, list) else f"{value}"
