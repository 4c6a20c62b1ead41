"""``simcrop evaluate segmentation``."""

from __future__ import annotations

import argparse
from pathlib import Path

from simcrop_core.cli.evaluate import give, grouped, refuse_outputs
from simcrop_core.cli.terminal import load, progress_bar


def run_segmentation(arguments: argparse.Namespace) -> int:
    from simcrop_core.datasets.labelled_csv import read_labelled_csv
    from simcrop_core.evaluate.segmentation import evaluate_segmentation
    from simcrop_core.segment import segmentation_head

    refuse_outputs(arguments)
    with progress_bar(arguments) as progress:
        model = load(arguments)
        structures = segmentation_head(model, arguments.overlap).labels
        sources = read_labelled_csv(Path(arguments.cases), structures)
        notes = []
        # Everything is read once before anything is measured: what is wrong is said at once.
        for number, source in enumerate(sources):
            progress("checking scans and labels", number, len(sources))
            notes += [(source.id, note) for note in source.load().volume.notes]
        result = evaluate_segmentation(
            model,
            (source.load() for source in sources),
            total=len(sources),
            overlap=arguments.overlap,
            device=arguments.device,
            precision=arguments.precision,
            progress=progress,
        )
    lines = result.lines()
    if result.model.get("segmentation_trained") == "untrained":
        lines.append("The segmentation head is untrained: its labels mean nothing yet.")
    give(arguments, result.to_dict(), lines, grouped(notes))
    return 0
