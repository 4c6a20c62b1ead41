"""The figures of the paper's tables (SimCroP, MICCAI 2025, arXiv 2509.08311), to stand beside ours.

In percent. A column is a task and the share of its training scans.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

TableName = Literal["classification", "segmentation", "ablation"]
#: Task as results name it, share of the training scans, metric.
Column = tuple[str, float, str]

METHODS = ("random init", "MAE", "M3AE", "CT-CLIP", "MRM", "M3D", "fVLM", "SimCroP")


@dataclass(frozen=True, slots=True)
class PaperTable:
    """One table of the paper.

    Attributes
    ----------
    title
        What it shows, and its number in the paper.
    columns
        Of figures.
    rows
        Method -> a figure for each column.
    """

    title: str
    columns: tuple[Column, ...]
    rows: dict[str, tuple[float, ...]]


def _by_method(columns: dict[Column, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
    rows = zip(*columns.values(), strict=True)
    return dict(zip(METHODS, rows, strict=True))


_CLASSIFICATION: dict[Column, tuple[float, ...]] = {
    ("CT-RATE", 0.01, "AUC"): (58.2, 75.6, 77.2, 74.1, 77.7, 74.3, 79.4, 81.0),
    ("CT-RATE", 0.1, "AUC"): (60.9, 78.1, 79.5, 78.6, 81.7, 79.1, 81.8, 82.4),
    ("CT-RATE", 1.0, "AUC"): (63.8, 79.9, 81.0, 80.4, 82.1, 80.7, 82.2, 82.9),
    ("CC-CCII", 0.01, "ACC"): (57.8, 67.4, 69.8, 65.0, 70.2, 65.4, 72.3, 73.1),
    ("CC-CCII", 0.1, "ACC"): (74.7, 81.6, 81.7, 76.7, 81.3, 77.0, 82.9, 83.2),
    ("CC-CCII", 1.0, "ACC"): (77.2, 88.5, 89.9, 83.6, 90.3, 83.8, 90.7, 91.3),
    ("RadChestCT", 0.1, "AUC"): (56.4, 68.6, 69.3, 67.5, 72.1, 68.0, 71.1, 73.4),
    ("RadChestCT", 1.0, "AUC"): (60.0, 71.8, 72.2, 69.1, 72.6, 69.8, 74.2, 75.8),
    ("LUNA16", 0.1, "AUC"): (57.6, 66.3, 67.1, 64.0, 66.6, 65.2, 65.9, 67.0),
    ("LUNA16", 1.0, "AUC"): (60.4, 70.5, 70.8, 65.0, 72.2, 68.4, 71.3, 73.3),
}
_SEGMENTATION: dict[Column, tuple[float, ...]] = {
    ("LUNA16", 0.1, "Dice"): (91.9, 92.7, 93.1, 92.9, 93.2, 92.9, 93.1, 93.5),
    ("LUNA16", 1.0, "Dice"): (92.3, 93.3, 93.7, 93.4, 93.5, 93.2, 93.4, 93.7),
    ("BTCV", 1.0, "Dice"): (78.9, 80.3, 80.5, 79.4, 80.3, 79.6, 80.0, 80.7),
}

PAPER_TABLES: dict[TableName, PaperTable] = {
    "classification": PaperTable(
        "Classification, as Table 1 of the paper",
        tuple(_CLASSIFICATION),
        _by_method(_CLASSIFICATION),
    ),
    "segmentation": PaperTable(
        "Segmentation, as Table 2 of the paper", tuple(_SEGMENTATION), _by_method(_SEGMENTATION)
    ),
    "ablation": PaperTable(
        "Ablation, as Table 3 of the paper",
        (("RadChestCT", 0.1, "AUC"), ("LUNA16", 0.1, "Dice")),
        {
            "IL": (71.6, 92.0),
            "WL": (69.8, 91.7),
            "IL + WL": (72.4, 92.4),
            "SA + IL": (73.3, 92.8),
            "SA + WL": (72.7, 92.6),
            "SA + IL + WL": (73.4, 93.5),
        },
    ),
}
