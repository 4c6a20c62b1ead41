"""``simcrop classify``."""

from __future__ import annotations

import argparse

from simcrop_core.cli.terminal import answer, load, note_lines, progress_bar, read_scan


def run_classify(arguments: argparse.Namespace) -> int:
    from simcrop_core.classify import classification_head, classify

    with progress_bar(arguments) as progress:
        progress("loading the model", 0, 1)
        model = load(arguments)
        head = classification_head(model)
        progress("reading the scan", 0, 1)
        volume = read_scan(arguments)
        progress("encoding", 0, 1)
        result = classify(model, volume, device=arguments.device, precision=arguments.precision)
    lines = [f"{volume!r}", *note_lines(result.notes), ""]
    ordered = sorted(result.probabilities.items(), key=lambda item: -item[1])
    lines += [f"{probability:7.1%}  {name}" for name, probability in ordered]
    lines += ["", f"The head: {head.trained}. The encoder: {model.config.provenance.trained}."]
    lines.append("Probabilities hold for scans such as it was fitted on; not for diagnosis.")
    answer(arguments, result.to_dict(), lines)
    return 0
