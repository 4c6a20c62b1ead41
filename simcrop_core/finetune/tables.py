"""Tables of probes and fine-tunings in the form of the paper's, its figures beside ours."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simcrop_core.errors import SimCroPError
from simcrop_core.evaluate.intervals import Estimate
from simcrop_core.finetune.paper_figures import PAPER_TABLES, Column, TableName

_METRICS = {"auc": "AUC", "accuracy": "ACC"}
MARK = "†"
FOOTNOTE = "as the paper gives it (arXiv 2509.08311), not measured here"
_LATEX = str.maketrans({c: f"\\{c}" for c in "&%$#_{}"} | {"\\": "\\textbackslash{}"})


@dataclass(frozen=True, slots=True)
class Measured:
    """What one run found.

    Attributes
    ----------
    model, how
        The pre-trained model by folder or name; what was trained on it, and the protocol.
    column
        Task, share, metric.
    overall, by_label
        In shares, not percent.
    folder
        Of the run.
    """

    model: str
    how: str
    column: Column
    overall: Estimate
    by_label: dict[str, Estimate]
    folder: Path


def row_names(runs: Sequence[Measured]) -> list[str]:
    """Of each run: the last part of its model's folder, or as many as tell the models apart, and
    how it was trained."""
    folders = {run.model: Path(run.model).expanduser().parts for run in runs}
    names = {}
    for model, parts in folders.items():
        others = [other for name, other in folders.items() if name != model]
        count = 1
        while count < len(parts) and any(o[-count:] == parts[-count:] for o in others):
            count += 1
        names[model] = "/".join(parts[-count:])
    return [f"{names[run.model]}: {run.how}" for run in runs]


@dataclass(frozen=True, slots=True)
class Cell:
    """Figures of a row in a column, in percent; the interval is of a single run."""

    value: float
    low: float | None = None
    high: float | None = None
    runs: int = 1

    def __str__(self) -> str:
        if self.runs > 1:
            return f"{self.value:.1f} (mean of {self.runs})"
        if self.low is None or self.high is None:
            return f"{self.value:.1f}"
        return f"{self.value:.1f} ({self.low:.1f} to {self.high:.1f})"


@dataclass(frozen=True, slots=True, eq=False)
class ResultTable:
    """A table of the paper's methods and our runs.

    Attributes
    ----------
    title
        What it shows.
    columns
        Of figures.
    paper, ours
        Name of a row -> its cells by column; absent where there is no figure.
    """

    title: str
    columns: tuple[Column, ...]
    paper: dict[str, dict[Column, Cell]]
    ours: dict[str, dict[Column, Cell]]

    def markdown(self) -> str:
        """For a README."""
        head = ["", *(_heading(column) for column in self.columns)]
        rows = [[f"{name} {MARK}", *self._cells(cells)] for name, cells in self.paper.items()]
        rows += [[f"**{_plain(name)}**", *self._cells(cells)] for name, cells in self.ours.items()]
        lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
        return "\n".join([f"{self.title}. In percent.", "", *lines, "", f"{MARK} {FOOTNOTE}", ""])

    def csv(self) -> str:
        """A row for each figure."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(
            ["row", "source", "task", "share", "metric", "percent", "low", "high", "runs"]
        )
        for source, rows in (("paper", self.paper), ("measured", self.ours)):
            for name, cells in rows.items():
                for column, cell in cells.items():
                    ends = ["" if v is None else f"{v:.2f}" for v in (cell.low, cell.high)]
                    own = [f"{cell.value:.2f}", *ends, cell.runs if source == "measured" else ""]
                    writer.writerow([name, source, *column, *own])
        return text.getvalue()

    def latex(self) -> str:
        """A ``tabular`` for booktabs."""
        lines = [
            f"\\begin{{tabular}}{{l{'c' * len(self.columns)}}}",
            "\\toprule",
            " & ".join(["", *(_tex(_heading(column)) for column in self.columns)]) + " \\\\",
            "\\midrule",
        ]
        for name, cells in self.paper.items():
            lines.append(" & ".join([f"{_tex(name)}$^\\dagger$", *self._cells(cells)]) + " \\\\")
        lines.append("\\midrule")
        for name, cells in self.ours.items():
            lines.append(" & ".join([_tex(name), *self._cells(cells)]) + " \\\\")
        note = f"\\multicolumn{{{len(self.columns) + 1}}}{{l}}{{$^\\dagger$ {_tex(FOOTNOTE)}}} \\\\"
        return "\n".join([*lines, "\\bottomrule", note, "\\end{tabular}", ""])

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "title": self.title,
            "rows": [
                {"row": name, "source": source, "task": column[0], "share": column[1],
                 "metric": column[2], "percent": cell.value, "low": cell.low, "high": cell.high,
                 "runs": cell.runs}
                for source, rows in (("paper", self.paper), ("measured", self.ours))
                for name, cells in rows.items()
                for column, cell in cells.items()
            ],
        }  # fmt: skip

    def _cells(self, cells: Mapping[Column, Cell]) -> list[str]:
        return [str(cells[column]) if column in cells else "-" for column in self.columns]


def make_table(name: TableName, runs: Sequence[Measured]) -> ResultTable:
    """The table of the paper with our runs below; runs of the same row and column are averaged.

    Shares that the paper has no column for get one.

    Raises
    ------
    SimCroPError
        ``other-table``: a run's figures have no place in it.
    """
    paper = PAPER_TABLES[name]
    kinds = {(column[0], column[2]) for column in paper.columns}
    for run in runs:
        if (run.column[0], run.column[2]) not in kinds:
            raise SimCroPError(
                f"A table of {name} has no place for {run.column[2]} on {run.column[0]}",
                path=run.folder,
                code="other-table",
                remedy=f"Choose another table, of {', '.join(PAPER_TABLES)}, or other runs.",
            )
    more = {run.column for run in runs} - set(paper.columns)
    order = list(dict.fromkeys(column[0] for column in paper.columns))
    columns = sorted({*paper.columns, *more}, key=lambda c: (order.index(c[0]), c[2], c[1]))
    ours: dict[str, dict[Column, list[Measured]]] = {}
    for row, run in zip(row_names(runs), runs, strict=True):
        ours.setdefault(row, {}).setdefault(run.column, []).append(run)
    return ResultTable(
        paper.title,
        tuple(columns),
        {
            row: {c: Cell(v) for c, v in zip(paper.columns, values, strict=True)}
            for row, values in paper.rows.items()
        },
        {row: {c: _cell(found) for c, found in cells.items()} for row, cells in ours.items()},
    )


def _cell(found: Sequence[Measured]) -> Cell:
    values = [100 * run.overall.value for run in found]
    if len(found) > 1:
        return Cell(sum(values) / len(values), runs=len(found))
    return Cell(values[0], 100 * found[0].overall.low, 100 * found[0].overall.high)


def read_run(folder: Path) -> Measured:
    """The figures of a probe or a fine-tuning.

    Raises
    ------
    SimCroPError
        ``no-result`` or ``bad-result``.
    """
    path = folder / "result.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as e:
        raise SimCroPError(
            "There is no result in this folder",
            path=folder,
            code="no-result",
            remedy="Name the folder of a probe or a fine-tuning that has ended.",
        ) from e
    except (OSError, ValueError) as e:
        raise _bad(path) from e
    try:
        return _measured(data, folder)
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        if isinstance(e, SimCroPError):
            raise
        raise _bad(path) from e


def _measured(data: Mapping[str, Any], folder: Path) -> Measured:
    config, test = data["config"], data["test"]
    kind = data.get("kind", "probe")
    how = {"probe": "linear probe", "classification": "whole encoder"}.get(kind, "")
    if kind == "segmentation":
        metric, head = "Dice", config["head"]["kind"]
        how = f"{head}, frozen encoder" if config["encoder"] == "frozen" else head
        overall = test["mean_over_cases"]["dice"]
        by_label = {name: found["dice"] for name, found in test["structures"].items()}
    else:
        metric = _METRICS[test["metric"]]
        overall, by_label = test["overall"], test["by_label"]
    if overall is None:
        raise SimCroPError(
            "The run has no figure over all: its test scans have one class only",
            path=folder,
            code="bad-result",
            remedy="Leave it out.",
        )
    return Measured(
        str(config["model"]),
        f"{how}, {data['protocol']}",
        (str(data["task"]), float(data["fraction"]), metric),
        _estimate(overall),
        {label: _estimate(found) for label, found in by_label.items() if found is not None},
        folder,
    )


def _estimate(data: Mapping[str, Any]) -> Estimate:
    return Estimate(
        float(data["value"]), float(data["low"]), float(data["high"]), int(data["count"])
    )


def _bad(path: Path) -> SimCroPError:
    return SimCroPError(
        "This is not the result of a probe or a fine-tuning",
        path=path,
        code="bad-result",
        remedy="Run it again with --resume, which writes it anew.",
    )


def _heading(column: Column) -> str:
    task, share, metric = column
    return f"{task} {metric}, {100 * share:g} %"


def _plain(text: str) -> str:
    """Without what would break a cell of Markdown."""
    return text.replace("|", "/").replace("*", "")


def _tex(text: str) -> str:
    return text.translate(_LATEX)
