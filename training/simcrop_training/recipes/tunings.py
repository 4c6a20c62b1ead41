"""Fine-tuning of whole encoders for classification, on the public tasks of the method.

``--set data.fraction=0.01`` or ``0.1`` takes the published lists of fewer scans.
"""

from __future__ import annotations

from simcrop_core.train.config import RunSettings
from simcrop_core.train.finetuning_classification import ClassificationRunConfig, TunedDataConfig
from simcrop_training.recipes.probes import TaskName


def ct_rate() -> ClassificationRunConfig:
    """The whole encoder fine-tuned on CT-RATE's 18 findings: area under the curve."""
    return _tuned("ct-rate")


def radchestct() -> ClassificationRunConfig:
    """The whole encoder fine-tuned on RadChestCT's 16 labels: area under the curve."""
    return _tuned("radchestct")


def cc_ccii() -> ClassificationRunConfig:
    """The whole encoder fine-tuned on CC-CCII's three classes: accuracy."""
    return _tuned("cc-ccii")


def luna16() -> ClassificationRunConfig:
    """The whole encoder fine-tuned on LUNA16, nodule or none: area under the curve."""
    return _tuned("luna16")


def _tuned(task: TaskName) -> ClassificationRunConfig:
    return ClassificationRunConfig(
        name=f"tune-{task}",
        data=TunedDataConfig(task=task),
        run=RunSettings(
            epochs=30,
            batch_size=32,
            checkpoint_every=500,
            previews=0,
            keep=1,
        ),
    )
