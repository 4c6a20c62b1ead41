"""``simcrop-train run probe-...``: a linear head on a frozen encoder."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from simcrop_core.cli.terminal import answer
from simcrop_core.finetune.config import ProbeConfig


def run_probe_recipe(
    arguments: argparse.Namespace, config: ProbeConfig, tell: Callable[[str, int, int], None]
) -> int:
    """Fit and test a head; prints its figures.

    Raises
    ------
    SimCroPError
        See :func:`simcrop_core.finetune.probe.run_probe`.
    """
    from simcrop_core.finetune.probe import run_probe

    out = Path(arguments.out)
    result = run_probe(out, config, resume=arguments.resume, progress=tell)
    lines = [*result.lines(), f"Written to {out}: result.json, config.json, features, model"]
    answer(arguments, result.to_dict(), lines)
    return 0
