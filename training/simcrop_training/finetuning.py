"""``simcrop-train run seg-...`` and ``tune-...``: a pre-trained model trained on, and tested."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from simcrop_core.cli import INTERRUPTED
from simcrop_core.cli.terminal import answer
from simcrop_core.train.finetuning import SegmentationRunConfig
from simcrop_core.train.finetuning_classification import ClassificationRunConfig


def run_finetuning(
    arguments: argparse.Namespace,
    config: SegmentationRunConfig | ClassificationRunConfig,
    stop: Any,
    tell: Callable[[str, int, int], None],
    say_stopped: Callable[[argparse.Namespace, int, str], None],
) -> int:
    """Fine-tune and test; prints the figures.

    Raises
    ------
    SimCroPError
        See :func:`simcrop_core.finetune.segmentation.run_segmentation` and
        :func:`simcrop_core.finetune.classification.run_classification`.
    """
    from simcrop_core.train.launch import Outcome

    out = Path(arguments.out)
    run: Callable[..., Any]
    if isinstance(config, SegmentationRunConfig):
        from simcrop_core.finetune.segmentation import run_segmentation as run
    else:
        from simcrop_core.finetune.classification import run_classification as run
    found = run(out, config, resume=arguments.resume, stop=stop, tell=tell)
    if isinstance(found, Outcome):
        say_stopped(arguments, found.step, found.reason)
        return INTERRUPTED if stop.asked else 0
    lines = [*found.lines(), f"Written to {out}: result.json, model"]
    answer(arguments, found.to_dict(), lines)
    return 0
