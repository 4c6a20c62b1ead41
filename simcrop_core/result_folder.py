"""The folder of one study's result: alignment, heat maps and figure, all of it or nothing."""

from __future__ import annotations

import json
from pathlib import Path

from simcrop_core.alignment_result import AlignmentResult
from simcrop_core.figure import draw_figure, save_figure
from simcrop_core.outputs import whole_folder
from simcrop_core.volume import CTVolume

FIGURE_NAME = "figure.png"
REQUEST_NAME = "request.json"
_OWNED = ("alignment.json", "alignment.npz", "heatmaps", FIGURE_NAME, REQUEST_NAME)


def write_result(
    folder: Path,
    volume: CTVolume,
    result: AlignmentResult,
    *,
    figure: bool = True,
    key: str | None = None,
) -> None:
    """Write a result in place of an earlier one; other files in the folder stay.

    Parameters
    ----------
    folder
        The folder; made if it is not there.
    volume
        The scan that was aligned.
    result
        Goes into ``alignment.json``, ``alignment.npz`` and ``heatmaps/``.
    figure
        Whether to draw ``figure.png``.
    key
        What the result depends on, for resuming a batch: goes into ``request.json``.

    Raises
    ------
    SimCroPError
        The folder cannot be written; an earlier result is as it was.
    """
    with whole_folder(folder, owned=_OWNED) as hidden:
        result.write(hidden)
        if figure:
            save_figure(draw_figure(volume, result), hidden / FIGURE_NAME)
        if key is not None:
            text = json.dumps({"schema": 1, "key": key}) + "\n"
            (hidden / REQUEST_NAME).write_text(text, encoding="utf-8")
