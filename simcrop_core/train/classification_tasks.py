"""The public classification tasks: lists, labels, and how the method's authors fit each.

Settings are those of the authors' published commands, by the share of the training list.
"""

from __future__ import annotations

from dataclasses import dataclass

from simcrop_core.datasets.radchestct import FINDINGS_OF
from simcrop_core.statements import FINDINGS


@dataclass(frozen=True, slots=True)
class Share:
    """One training list of a task.

    Attributes
    ----------
    training
        Its file.
    lr, steps, warmup, batch_size
        How the head is fitted.
    patience
        Passes over the data without a better validation after which fitting ends.
    paper
        What the paper gives for SimCroP, in percent.
    """

    training: str
    lr: float
    steps: int
    warmup: int
    batch_size: int
    patience: int
    paper: float


@dataclass(frozen=True, slots=True)
class Task:
    """A classification task.

    Attributes
    ----------
    name
        For people.
    dataset
        Kind of the data set, as :func:`~simcrop_core.datasets.open_dataset` takes it.
    folder
        Of the published lists.
    labels
        Names of the labels or classes; of labels as the lists spell them.
    classes
        0 where each label is 0 or 1 by itself, else the number of classes of the one label.
    shares
        By the share of the training scans.
    validation, testing
        The other lists.
    """

    name: str
    dataset: str
    folder: str
    labels: tuple[str, ...]
    classes: int
    shares: dict[float, Share]
    validation: str = "val_list.csv"
    testing: str = "test_list.csv"


_1, _10, _100 = "train_list_1.csv", "train_list_10.csv", "train_list.csv"

TASKS: dict[str, Task] = {
    "ct-rate": Task(
        "CT-RATE",
        "ct-rate",
        "CT-Rate",
        FINDINGS,
        0,
        {
            0.01: Share(_1, 1.5e-3, 1_000, 150, 32, 10, 81.0),
            0.1: Share(_10, 3e-3, 10_000, 1_500, 64, 10, 82.4),
            1.0: Share(_100, 3e-3, 10_000, 1_500, 64, 10, 82.9),
        },
    ),
    "radchestct": Task(
        "RadChestCT",
        "radchestct",
        "RadChestCT",
        tuple(FINDINGS_OF),
        0,
        {
            0.1: Share(_10, 1.5e-3, 2_000, 80, 32, 10, 73.4),
            1.0: Share(_100, 3e-3, 2_000, 200, 128, 10, 75.8),
        },
    ),
    "cc-ccii": Task(
        "CC-CCII",
        "cc-ccii",
        "CC-CCII",
        ("class 0", "class 1", "class 2"),
        3,
        {
            0.01: Share(_1, 1.5e-3, 200, 20, 29, 20, 73.1),
            0.1: Share(_10, 1.5e-3, 2_000, 150, 32, 20, 83.2),
            1.0: Share(_100, 1.5e-3, 2_000, 200, 128, 20, 91.3),
        },
    ),
    "luna16": Task(
        "LUNA16",
        "luna16",
        "LUNA16",
        ("Lung nodule",),
        0,
        {
            0.1: Share(_10, 1.5e-3, 200, 20, 31, 200, 67.0),
            1.0: Share(_100, 1.5e-3, 2_000, 200, 32, 20, 73.3),
        },
    ),
}
