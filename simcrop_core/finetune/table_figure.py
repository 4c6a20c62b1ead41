"""A bar for each label of a task and each run, as Fig. 2 of the paper shows them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from simcrop_core.finetune.tables import Measured, row_names
from simcrop_core.outputs import whole_file

_INCHES_A_BAR, _INCHES_AROUND, _HEIGHT = 0.22, 2.0, 4.2
_DOTS_PER_INCH = 150


def labels_figure(runs: Sequence[Measured]) -> Figure:
    """Runs of one task and share beside one another: value of each label in percent, with its 95 %
    interval; a label without a figure has no bar."""
    task, share, metric = runs[0].column
    labels = list(dict.fromkeys(label for run in runs for label in run.by_label))
    width = 0.8 / len(runs)
    inches = _INCHES_AROUND + _INCHES_A_BAR * len(labels) * (len(runs) + 1)
    figure = Figure(figsize=(inches, _HEIGHT), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for number, (row, run) in enumerate(zip(row_names(runs), runs, strict=True)):
        known = [label for label in labels if label in run.by_label]
        found = [run.by_label[label] for label in known]
        at = (
            np.array([labels.index(label) for label in known])
            + (number - (len(runs) - 1) / 2) * width
        )
        values = np.array([100 * e.value for e in found])
        ends = np.array([[100 * (e.value - e.low), 100 * (e.high - e.value)] for e in found])
        name = f"{row} ({100 * run.overall.value:.1f})"
        axes.bar(at, values, width, label=name)
        if len(found):
            axes.errorbar(
                at, values, np.maximum(ends.T, 0), fmt="none", ecolor="black", elinewidth=0.7
            )
    axes.set_xticks(range(len(labels)), labels, rotation=40, ha="right", fontsize=8)
    axes.set_ylabel(f"{metric}, %")
    axes.set_ylim(0, 100)
    axes.set_title(f"{task}, {100 * share:g} % of the training scans", fontsize=9, loc="left")
    figure.legend(fontsize=7, loc="outside upper right", ncols=min(3, len(runs)))
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure


def write_figures(folder: Path, runs: Sequence[Measured]) -> list[Path]:
    """A picture for each task and share among the runs; their files.

    Raises
    ------
    SimCroPError
        They cannot be written.
    """
    written = []
    for column in dict.fromkeys(run.column for run in runs):
        task, share, metric = column
        path = folder / f"labels-{task}-{metric}-{100 * share:g}.png".lower()
        figure = labels_figure([run for run in runs if run.column == column])
        with whole_file(path) as hidden:
            figure.savefig(hidden, dpi=_DOTS_PER_INCH, metadata={"Software": None})
        written.append(path)
    return written
