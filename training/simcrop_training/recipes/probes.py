"""Linear probes: what the features of a frozen encoder tell, on the public tasks of the method."""

from __future__ import annotations

from typing import Literal

from simcrop_core.finetune.config import ProbeConfig
from simcrop_core.train.finetuning_classification import ClassificationDataConfig

TaskName = Literal["ct-rate", "radchestct", "cc-ccii", "luna16"]


def ct_rate() -> ProbeConfig:
    """Linear probe on CT-RATE's 18 findings: area under the curve."""
    return _probe("ct-rate")


def radchestct() -> ProbeConfig:
    """Linear probe on RadChestCT's 16 labels: area under the curve."""
    return _probe("radchestct")


def cc_ccii() -> ProbeConfig:
    """Linear probe on CC-CCII's three classes: accuracy."""
    return _probe("cc-ccii")


def luna16() -> ProbeConfig:
    """Linear probe on LUNA16, nodule or none: area under the curve."""
    return _probe("luna16")


def _probe(task: TaskName) -> ProbeConfig:
    return ProbeConfig(name=f"probe-{task}", data=ClassificationDataConfig(task=task))
