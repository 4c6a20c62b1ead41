"""``simcrop inspect``: what a path is, as it would be read. Needs no torch."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from simcrop_core.cli.terminal import answer, note_lines, progress_bar, read_scan
from simcrop_core.errors import SimCroPError

_REPORT_SUFFIXES = (".txt", ".json", ".csv")


def run_inspect(arguments: argparse.Namespace) -> int:
    path = Path(arguments.path)
    if _is_file(path / "config.json"):
        from simcrop_core.cli.models import run_info

        arguments.folder = arguments.path
        return run_info(arguments)
    if _is_file(path / "alignment.json"):
        return _alignment(arguments, path)
    if not arguments.path:
        raise SimCroPError(
            "The path is empty.", code="not-found", remedy="Name a file or a folder."
        )
    if path.suffix.lower() in _REPORT_SUFFIXES or _is_structured_report(path):
        return _report(arguments, path)
    if path.suffix.lower() == ".npz" and _is_encoded(path):
        return _encoded(arguments, path)
    return _volume(arguments, path)


def _volume(arguments: argparse.Namespace, path: Path) -> int:
    from simcrop_core.io.dicom import list_series

    with progress_bar(arguments) as progress:
        progress("reading the scan", 0, 1)
        volume = read_scan(arguments, str(path))
    series = list_series(path) if volume.format == "DICOM" else ()
    hu = volume.hu_XYZ[:: max(1, volume.shape[0] // 64), :: max(1, volume.shape[1] // 64)]
    facts: dict[str, Any] = {
        "kind": "volume",
        "format": volume.format,
        "id": volume.pseudonym,
        "shape": list(volume.shape),
        "spacing_mm": list(volume.spacing_mm),
        "axes": volume.grid.axcodes,
        "affine": volume.grid.affine.tolist(),
        "obliquity_deg": round(volume.grid.obliquity_deg, 3),
        "dtype": str(volume.hu_XYZ.dtype),
        "hu_range": [float(volume.hu_XYZ.min()), float(volume.hu_XYZ.max())],
        "air_share": round(float((hu < -800).mean()), 3),
        "notes": [note.to_dict() for note in volume.notes],
        "series": [asdict(entry) for entry in series],
    }
    low, high = volume.grid.bounds_mm()
    lines = [
        repr(volume),
        f"  id {volume.pseudonym}, {facts['hu_range'][0]:g} to {facts['hu_range'][1]:g} HU, "
        f"{100 * facts['air_share']:.0f} % air",
        "  from {:.1f}, {:.1f}, {:.1f} to {:.1f}, {:.1f}, {:.1f} mm (R, A, S positive)".format(
            *low, *high
        ),
        *note_lines(volume.notes),
    ]
    if len(series) > 1:
        lines.append("  series in the folder:")
        lines += [f"    {entry}" for entry in series]
    answer(arguments, facts, lines)
    return 0


def _report(arguments: argparse.Namespace, path: Path) -> int:
    from simcrop_core.report import read_report

    report = read_report(path, volume_name=arguments.volume_name, encoding=arguments.encoding)
    facts = {
        "kind": "report",
        "sentences": [
            {"index": i, "section": s.section, "text": s.text, "span": list(s.span)}
            for i, s in enumerate(report.sentences)
        ],
        "notes": [note.to_dict() for note in report.notes],
    }
    lines = [f"Report of {len(report.sentences)} sentences", *note_lines(report.notes)]
    section = None
    for index, sentence in enumerate(report.sentences):
        if sentence.section != section:
            section = sentence.section
            lines.append(f"  {section}")
        lines.append(f"  {index:3d}  {' '.join(sentence.text.split())}")
    answer(arguments, facts, lines)
    return 0


def _alignment(arguments: argparse.Namespace, path: Path) -> int:
    from simcrop_core.alignment_result import AlignmentResult

    result = AlignmentResult.read(path)
    card = result.to_dict()
    facts = {
        "kind": "alignment",
        "sentences": [
            {key: s[key] for key in ("index", "section", "text", "score", "null_percentile")}
            for s in card["sentences"]
        ],
        "patch_grid": card["patch_grid"],
        "model": card["model"],
        "volume": card["volume"],
    }
    lines = [
        f"Alignment of {len(result.sentences)} sentences with {result.volume.id}",
        f"  {result.patches!r}",
        f"  model {result.model.get('name')} ({result.model_id})",
        *note_lines(result.volume.notes),
        *(
            f"  {i:3d}  score {s.score:6.2f}  {' '.join(s.text.split())}"
            for i, s in enumerate(result.sentences)
        ),
    ]
    answer(arguments, facts, lines)
    return 0


def _encoded(arguments: argparse.Namespace, path: Path) -> int:
    from simcrop_core.encoded import Encoded

    encoded = Encoded.load(path)
    facts = {
        "kind": "encoded",
        "patches": list(encoded.patches_ND.shape),
        "model_id": encoded.model_id,
        "placement": encoded.placement,
        "volume": encoded.volume.to_dict(),
    }
    lines = [
        f"Encoded scan {encoded.volume.id}: {encoded.patches!r} of {encoded.patches_ND.shape[1]} "
        f"features, by model {encoded.model_id}",
        *note_lines(encoded.volume.notes),
    ]
    answer(arguments, facts, lines)
    return 0


def _is_file(path: Path) -> bool:
    """Whether this is a regular file; what cannot even be asked is left to the reader to say."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _is_encoded(path: Path) -> bool:
    """Whether an npz is one of ours: it holds a card beside its arrays."""
    import zipfile

    try:
        with zipfile.ZipFile(path) as archive:
            return "card.npy" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def _is_structured_report(path: Path) -> bool:
    """Whether a file is a DICOM structured report (its class UID says so)."""
    if not _is_file(path):  # a pipe would never answer
        return False
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError:
        return False
    return head[128:132] == b"DICM" and b"1.2.840.10008.5.1.4.1.1.88." in head
