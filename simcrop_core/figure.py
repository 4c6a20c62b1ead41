"""Sentences and their evidence as a figure for print: the paper's Fig. 4, for any scan.

Rows are sentences, columns are planes through each sentence's best patch. The same scan, alignment
and settings give the same bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from simcrop_core.errors import SimCroPError
from simcrop_core.figure_planes import best_position, crop_box
from simcrop_core.figure_spec import FigureSpec
from simcrop_core.geometry import FloatArray
from simcrop_core.outputs import whole_file
from simcrop_core.patches import Box
from simcrop_core.volume import CTVolume

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from simcrop_core.alignment_result import AlignmentResult

__all__ = ["FigureSpec", "draw_figure", "save_figure"]

SUFFIXES = (".png", ".pdf", ".svg")
_MOST_ROWS_SHOWN_UNASKED = 6


def draw_figure(
    volume: CTVolume, result: AlignmentResult, spec: FigureSpec | None = None
) -> Figure:
    """Draw sentences against planes of the scan.

    Every panel is an axes labelled ``"<sentence> <plane>"`` (``"3 axial"``) whose data
    coordinates are the plane's millimetres, see `simcrop_core.figure_planes`.

    Parameters
    ----------
    volume
        The scan that was aligned.
    result
        The alignment.
    spec
        What to show and how; None takes the defaults.

    Returns
    -------
    matplotlib.figure.Figure
        To be saved by `save_figure`; no window is opened and no global setting is changed.

    Raises
    ------
    SimCroPError
        The alignment is of another scan; a sentence, number of patches or colour map does not
        exist; the position lies outside; or the figure would be too large.
    """
    from simcrop_core.figure_page import draw_page

    spec = FigureSpec() if spec is None else spec
    if volume.sha256 != result.volume.sha256:
        raise SimCroPError(
            f"The alignment is of another scan ({result.volume.id}), not of this one "
            f"({volume.pseudonym}).",
            code="another-scan",
            remedy="Draw it over the scan that was aligned, or align this one.",
        )
    rows = _rows(result, spec)
    _check_top_k(result, spec)
    crop = crop_box(volume, result.patches, spec.crop)
    if spec.position_mm is not None:
        _check_position(volume, crop, spec)
        position = np.array(spec.position_mm, dtype=np.float64)
        positions = [position] * len(rows)
    else:
        positions = [best_position(volume, result, row) for row in rows]
    return draw_page(volume, result, spec, rows, positions, crop)


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG, PDF or SVG by the name's ending, whole or not at all.

    In PDF and SVG text stays text, the CT is embedded at its own resolution, and all else is
    vectors. No date, file name or machine is written.

    Raises
    ------
    SimCroPError
        The ending is none of ``.png``, ``.pdf`` and ``.svg``, or the place cannot be written.
    """
    from simcrop_core.figure_page import write_page

    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise SimCroPError(
            f"A figure cannot be written as {suffix or 'a file without an ending'}.",
            path=path,
            code="figure-suffix",
            remedy="End its name in .png, .pdf or .svg.",
        )
    with whole_file(path) as hidden:
        write_page(figure, hidden, suffix[1:])


# -- choices and refusals -----------------------------------------------------------------------


def _rows(result: AlignmentResult, spec: FigureSpec) -> list[int]:
    count = len(result.sentences)
    if spec.sentences is None:
        scores = [sentence.score for sentence in result.sentences]
        best = sorted(range(count), key=lambda index: (-scores[index], index))
        return sorted(best[:_MOST_ROWS_SHOWN_UNASKED])
    unknown = [index for index in spec.sentences if not 0 <= index < count]
    if unknown:
        raise SimCroPError(
            f"There is no sentence {unknown[0]}: the alignment has {count}, numbered from 0.",
            code="no-such-sentence",
            remedy=f"Choose from 0 to {count - 1}.",
        )
    return list(spec.sentences)


def _check_top_k(result: AlignmentResult, spec: FigureSpec) -> None:
    held = result.top_SK.shape[1]
    if spec.top_k is not None and spec.top_k > held:
        raise SimCroPError(
            f"{spec.top_k} patches per sentence were asked for, and the alignment holds {held}.",
            code="too-many-patches",
            remedy=f"Show at most {held}, or align again with more.",
        )


def _check_position(volume: CTVolume, crop: Box, spec: FigureSpec) -> None:
    assert spec.position_mm is not None
    position: FloatArray = np.array(spec.position_mm, dtype=np.float64)
    said = ", ".join(f"{v:g}" for v in spec.position_mm)
    low, high = volume.grid.bounds_mm()
    if not bool(volume.grid.contains(position)):
        reach = ", ".join(
            f"{axis} {a:.0f} to {b:.0f}" for axis, a, b in zip("xyz", low, high, strict=True)
        )
        raise SimCroPError(
            f"The position {said} mm lies outside the scan ({reach}, in RAS millimetres).",
            code="position-outside",
            remedy="Choose a position within the scan.",
        )
    if not crop.covers(position):
        raise SimCroPError(
            f"The position {said} mm lies outside the model's input region.",
            code="position-outside",
            remedy="Choose a position within it, or show the whole scan.",
        )
