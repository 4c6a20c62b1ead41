"""The learning rate of every step, in closed form: warm-up, half a cosine, then flat."""

from __future__ import annotations

import math
from dataclasses import dataclass

from simcrop_core.train.config import LoopConfig


@dataclass(frozen=True, slots=True)
class Schedule:
    """A learning rate for each step, counted from 1.

    Attributes
    ----------
    lr, min_lr
        Highest rate, and the rate at and after the horizon.
    warmup
        Steps of the linear warm-up; the last of them has the highest rate.
    horizon
        Step at which the cosine reaches ``min_lr``. Past it the rate never rises again.
    steps
        Length of the run.
    """

    lr: float
    min_lr: float
    warmup: int
    horizon: int
    steps: int

    @classmethod
    def of(cls, config: LoopConfig, steps_per_epoch: float) -> Schedule:
        """That of a run; ``steps_per_epoch`` turns epochs into steps."""
        unit = steps_per_epoch if config.unit == "epochs" else 1.0
        length = config.run.steps or config.run.epochs or 0
        steps = max(1, round(length * unit))
        horizon = config.optim.horizon
        return cls(
            config.optim.lr,
            config.optim.min_lr,
            round(config.optim.warmup * unit),
            steps if horizon is None else max(1, round(horizon * unit)),
            steps,
        )

    def at(self, step: int) -> float:
        """The rate with which step ``step`` is taken."""
        if step < self.warmup:
            return self.lr * step / self.warmup
        if step >= self.horizon:
            return self.lr if self.horizon <= self.warmup else self.min_lr
        share = (step - self.warmup) / (self.horizon - self.warmup)
        return self.min_lr + (self.lr - self.min_lr) * (1 + math.cos(math.pi * share)) / 2
