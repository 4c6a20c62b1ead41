"""What a linear probe is, as one frozen tree; imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from simcrop_core.frozen import Frozen
from simcrop_core.train.classification_tasks import TASKS, Share, Task
from simcrop_core.train.finetuning_classification import ClassificationDataConfig


class HeadConfig(Frozen):
    """How the linear head is fitted; what is None is as the authors fit this task's share."""

    lr: float | None = Field(default=None, gt=0, le=10, description="Highest learning rate.")
    steps: int | None = Field(default=None, ge=1, description="Optimiser steps.")
    warmup: int | None = Field(default=None, ge=0, description="Steps of linear warm-up.")
    batch_size: int | None = Field(default=None, ge=1, le=100_000, description="Scans of a step.")
    patience: int | None = Field(
        default=None,
        ge=1,
        description="Passes over the data without a better validation after which it ends.",
    )
    weight_decay: float = Field(default=1e-5, ge=0, le=10, description="AdamW's decay.")
    clip_norm: float = Field(default=1.0, gt=0, description="Longest gradient.")


class ProbeConfig(Frozen):
    """A linear probe: a linear head on an encoder that is not changed."""

    schema_version: Literal[1] = Field(default=1, description="Version of this layout.")
    name: str = Field(min_length=1, max_length=200, description="What people call it: its recipe.")
    model: str | None = Field(default=None, description="The pre-trained model, by folder or name.")
    data: ClassificationDataConfig = Field(description="The scans and their lists.")
    protocol: Literal["clean", "released"] = Field(
        default="clean",
        description="clean: nothing is chosen on the scans it is tested on, and the encoder is "
        "still. released: as the authors' code, which chooses the head on the validation list "
        "(for three tasks that is the test list), drops residual branches of the frozen encoder "
        "while the head is fitted, and takes the better of two calcification figures.",
    )
    head: HeadConfig = Field(default=HeadConfig(), description="How the head is fitted.")
    views: int | None = Field(
        default=8,
        ge=1,
        le=10_000,
        description="Random views of each training scan, computed once and then seen in turn. "
        "None: a fresh view in every pass, as the authors do, so that every step encodes.",
    )
    start_validation: int = Field(
        default=10, ge=0, description="Passes before the first validation."
    )
    encode_batch: int = Field(default=8, ge=1, le=1024, description="Views encoded at once.")
    draws: int = Field(
        default=1000, ge=0, le=100_000, description="Of the bootstrap for 95 % intervals."
    )
    accelerator: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="auto: a GPU if there is one."
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="Of the encoder. auto: bf16 on a GPU that has it, else fp32."
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="Of views, order and the head.")

    @property
    def task(self) -> Task:
        return TASKS[self.data.task]

    @property
    def share(self) -> Share:
        """The training list, and how the head is fitted with this configuration."""
        own = self.task.shares[self.data.fraction]
        names = ("lr", "steps", "warmup", "batch_size", "patience")
        changed = {n: getattr(self.head, n) for n in names if getattr(self.head, n) is not None}
        return Share(**{**{n: getattr(own, n) for n in Share.__slots__}, **changed})

    @model_validator(mode="after")
    def _consistent(self) -> ProbeConfig:
        if self.share.warmup >= self.share.steps:
            raise ValueError(
                f"A warm-up of {self.share.warmup} steps does not end within {self.share.steps}."
            )
        return self
