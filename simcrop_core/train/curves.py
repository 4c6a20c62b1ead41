"""The run's figures for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcrop_core.train.run import TENSORBOARD_NAME


class Curves:
    """Writes what ``events.jsonl`` has, and the pictures; never a reason for a run to end."""

    def __init__(self, folder: Path, start: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # Figures after the step from which a run goes on are replaced.
        self._writer: Any = SummaryWriter(
            str(folder / TENSORBOARD_NAME), purge_step=start + 1, flush_secs=20
        )

    def step(
        self,
        step: int,
        loss: float,
        terms: Mapping[str, float],
        lr: float,
        samples_per_s: float,
        grad_norm: float,
    ) -> None:
        """A step; beside its event's figures the length of the gradient."""
        figures = {
            "train/loss": loss,
            **{f"train/{name}": value for name, value in terms.items()},
            "optim/lr": lr,
            "optim/grad_norm": grad_norm,
            "samples_per_s": samples_per_s,
        }
        self._write(step, figures)

    def validation(self, step: int, figures: Mapping[str, float]) -> None:
        """The held-out studies after a step."""
        self._write(step, {f"validation/{name}": value for name, value in figures.items()})

    def picture(self, step: int, name: str, rgb_YXC: NDArray[np.uint8]) -> None:
        """A preview."""
        try:
            self._writer.add_image(name, rgb_YXC, step, dataformats="HWC")
        except OSError:
            return

    def _write(self, step: int, figures: Mapping[str, float]) -> None:
        try:
            for name, value in figures.items():
                self._writer.add_scalar(name, value, step)
        except OSError:  # a full disk is told of when a checkpoint is due
            return

    def close(self) -> None:
        try:
            self._writer.close()
        except OSError:
            return
