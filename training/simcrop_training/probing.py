"""``simcrop-train run probe-...``: a linear head on a frozen encoder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from simcrop_core.cli.terminal import answer, progress_bar
from simcrop_core.finetune.config import ProbeConfig


def run_probe_recipe(arguments: argparse.Namespace, config: ProbeConfig) -> int:
    """Fit and test a head; prints its figures.

    Raises
    ------
    SimCroPError
        See :func:`simcrop_core.finetune.probe.run_probe`.
    """
    from simcrop_core.finetune.probe import run_probe
    from simcrop_training.running import progress_told

    out = Path(arguments.out)
    # A file or a scheduler's log gets a line now and then, as of other runs.
    shown = progress_bar(arguments) if sys.stderr.isatty() else progress_told(quiet=arguments.json)
    with shown as progress:
        result = run_probe(out, config, resume=arguments.resume, progress=progress)
    lines = [*result.lines(), f"Written to {out}: result.json, config.json, features, model"]
    answer(arguments, result.to_dict(), lines)
    return 0
