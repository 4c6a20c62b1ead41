"""What a fine-tuning for classification is, as one frozen tree; imports no torch."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from simcrop_core.frozen import Frozen
from simcrop_core.train.classification_tasks import TASKS, Task
from simcrop_core.train.config import LoopSettings, OptimConfig, RunSettings


class ClassificationDataConfig(Frozen):
    """The scans and their lists."""

    task: Literal["ct-rate", "radchestct", "cc-ccii", "luna16"] = Field(
        description="Which task: it decides labels, lists and how the head is fitted."
    )
    root: str | None = Field(default=None, description="Folder of the data set.")
    lists: str | None = Field(
        default=None,
        description="Folder of the published lists, or of the task's own among them.",
    )
    fraction: float = Field(
        default=1.0, description="Share of the training scans: 0.01, 0.1 or 1, as lists exist."
    )
    external: str | None = Field(
        default=None,
        description="Folder of RadChestCT, on whose test list a head of CT-RATE is also tried.",
    )
    workers: int = Field(
        default=2, ge=0, le=256, description="Threads that read scans ahead; 0: none."
    )

    @model_validator(mode="after")
    def _consistent(self) -> ClassificationDataConfig:
        shares = TASKS[self.task].shares
        if self.fraction not in shares:
            there = ", ".join(f"{share:g}" for share in shares)
            raise ValueError(
                f"{TASKS[self.task].name} has no list of {self.fraction:g} of its training scans; "
                f"there are {there}."
            )
        if self.external is not None and self.task != "ct-rate":
            raise ValueError("Only a head of CT-RATE is also tried on RadChestCT.")
        return self


class TunedDataConfig(ClassificationDataConfig):
    """The scans and their lists, and how many are held out."""

    held_out: int | None = Field(
        default=None,
        ge=0,
        le=10_000,
        description="Scans of the training list that are not trained on but validated on; 0: none, "
        "the weights are those of the last step. None: the task's own validation list where it "
        "shares no scan with the test list, else a tenth, 2 to 500, where there are 10.",
    )


class ClassificationRunConfig(LoopSettings):
    """Fine-tuning of a whole pre-trained encoder with a linear head, for classification."""

    format: ClassVar[str] = "simcrop-classification"

    schema_version: Literal[1] = Field(default=1, description="Version of this layout.")
    name: str = Field(min_length=1, max_length=200, description="What people call it: its recipe.")
    model: str | None = Field(default=None, description="The pre-trained model, by folder or name.")
    data: TunedDataConfig = Field(description="The scans and their lists.")
    drop_path: float = Field(
        default=0.1, ge=0, lt=1, description="Chance that a branch of the last block is dropped."
    )
    optim: OptimConfig = Field(
        default=OptimConfig(lr=1e-4, weight_decay=0.05, beta2=0.999, warmup=5, clip_norm=1.0),
        description="How it learns.",
    )
    run: RunSettings = Field(description="How long, how many scans at once, and on what.")
    validate_passes: float | None = Field(
        default=1.0,
        gt=0,
        le=1000,
        description="Passes over the data from validation to validation; also at the end. None: "
        "run.validate_every steps.",
    )
    patience: int | None = Field(
        default=10,
        ge=1,
        description="Validations without a better one after which it ends. None: all steps.",
    )
    draws: int = Field(
        default=1000, ge=0, le=100_000, description="Of the bootstrap for 95 % intervals."
    )

    @property
    def task(self) -> Task:
        return TASKS[self.data.task]

    @model_validator(mode="after")
    def _consistent(self) -> ClassificationRunConfig:
        if self.run.world_size > 1:
            raise ValueError("An encoder is fine-tuned on one device: set run.devices to 1.")
        return self
