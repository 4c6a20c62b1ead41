"""``simcrop-train run seg-...``: a decoder on a pre-trained encoder, trained and tested."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from simcrop_core.cli import INTERRUPTED
from simcrop_core.cli.terminal import answer
from simcrop_core.train.finetuning import SegmentationRunConfig


def run_segmentation_recipe(
    arguments: argparse.Namespace,
    config: SegmentationRunConfig,
    stop: Any,
    tell: Callable[[str, int, int], None],
    say_stopped: Callable[[argparse.Namespace, int, str], None],
) -> int:
    """Fine-tune and test; prints the figures.

    Raises
    ------
    SimCroPError
        See :func:`simcrop_core.finetune.segmentation.run_segmentation`.
    """
    from simcrop_core.finetune.segmentation import FineTuned, run_segmentation

    out = Path(arguments.out)
    found = run_segmentation(out, config, resume=arguments.resume, stop=stop, tell=tell)
    if not isinstance(found, FineTuned):
        say_stopped(arguments, found.step, found.reason)
        return INTERRUPTED if stop.asked else 0
    lines = [*found.lines(), f"Written to {out}: result.json, model"]
    answer(arguments, found.to_dict(), lines)
    return 0
