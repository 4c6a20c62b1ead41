"""Tables of results in the paper's form: what stands where, what is refused, what is written."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from simcrop_training.cli import main

from simcrop_core.errors import SimCroPError
from simcrop_core.finetune.paper_figures import METHODS, PAPER_TABLES
from simcrop_core.finetune.table_figure import labels_figure
from simcrop_core.finetune.tables import MARK, make_table, read_run
from simcrop_core.train.classification_tasks import TASKS
from simcrop_core.train.finetuning import SEGMENTATION_TASKS


def estimate(value: float, count: int = 9) -> dict[str, float]:
    return {"value": value, "low": value - 0.02, "high": value + 0.01, "count": count}


def result(folder: Path, **changes: Any) -> Path:
    """The result of a probe as it is written."""
    data = {
        "schema": 1,
        "task": "CT-RATE",
        "protocol": "clean",
        "fraction": 0.01,
        "config": {"model": "/models/ours"},
        "test": {
            "metric": "auc",
            "overall": estimate(0.8123),
            "by_label": {"Emphysema": estimate(0.7), "Hiatal hernia": estimate(0.9)},
            "undefined": ["Medical material"],
        },
    } | changes
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(data))
    return folder


def segmented(folder: Path, **changes: Any) -> Path:
    data: dict[str, Any] = {
        "kind": "segmentation",
        "task": "LUNA16",
        "fraction": 0.1,
        "config": {"model": "/models/ours", "head": {"kind": "unet"}, "encoder": "frozen"},
        "test": {
            "mean_over_cases": {"dice": estimate(0.914), "hausdorff95_mm": None},
            "structures": {
                "left lung": {"dice": estimate(0.95)},
                "trachea": {"dice": None},
            },
        },
    }
    return result(folder, **(data | changes))


def cells(markdown: str) -> dict[str, list[str]]:
    rows = [line.strip("| ").split(" | ") for line in markdown.splitlines() if "|" in line]
    return {row[0]: row[1:] for row in rows[2:]}


# -- the paper's figures ------------------------------------------------------------------------


def test_the_paper_s_own_method_is_as_the_tasks_say() -> None:
    for kind, metric in (("classification", None), ("segmentation", "Dice")):
        table = PAPER_TABLES[kind]  # type: ignore[index]
        assert tuple(table.rows) == METHODS
        tasks = TASKS if kind == "classification" else SEGMENTATION_TASKS
        known = {}
        for task in tasks.values():
            shares = task.shares if metric is None else task.paper  # type: ignore[union-attr]
            for share, figure in shares.items():
                known[task.name, share] = figure if metric else figure.paper  # type: ignore[union-attr]
        own = dict(zip(table.columns, table.rows["SimCroP"], strict=True))
        assert {column[:2]: figure for column, figure in own.items()} == known
    for table in PAPER_TABLES.values():
        assert all(len(row) == len(table.columns) for row in table.rows.values())


# -- what stands where --------------------------------------------------------------------------


def test_ours_stand_below_the_paper_s_which_are_marked(tmp_path: Path) -> None:
    runs = [
        read_run(result(tmp_path / "a")),
        read_run(result(tmp_path / "b", task="CC-CCII", fraction=1.0, test={
            "metric": "accuracy", "overall": estimate(0.9), "by_label": {}, "undefined": []})),
        read_run(result(tmp_path / "c", kind="classification")),
    ]  # fmt: skip
    table = make_table("classification", runs)
    rows = cells(table.markdown())
    assert list(rows)[: len(METHODS)] == [f"{name} {MARK}" for name in METHODS]
    assert rows[f"SimCroP {MARK}"] == [
        "81.0", "82.4", "82.9", "73.1", "83.2", "91.3", "73.4", "75.8", "67.0", "73.3"
    ]  # fmt: skip
    ours = rows["**ours: linear probe, clean**"]
    assert ours[0] == "81.2 (79.2 to 82.2)"
    assert ours[5] == "90.0 (88.0 to 91.0)"
    assert set(ours[1:5] + ours[6:]) == {"-"}
    assert rows["**ours: whole encoder, clean**"][0].startswith("81.2")
    assert f"{MARK} as the paper gives it" in table.markdown()


def test_runs_of_one_row_and_column_are_averaged(tmp_path: Path) -> None:
    runs = []
    for number, value in enumerate((0.80, 0.84, 0.82)):
        test = {"metric": "auc", "overall": estimate(value), "by_label": {}, "undefined": []}
        runs.append(read_run(result(tmp_path / str(number), test=test)))
    rows = cells(make_table("classification", runs).markdown())
    assert rows["**ours: linear probe, clean**"][0] == "82.0 (mean of 3)"


def test_models_of_one_name_are_told_apart(tmp_path: Path) -> None:
    runs = [
        read_run(result(tmp_path / str(n), config={"model": model}))
        for n, model in enumerate(["a/run/model", "b/run/model", "other", "a/run/model"])
    ]
    rows = cells(make_table("classification", runs).markdown())
    assert rows["**a/run/model: linear probe, clean**"][0] == "81.2 (mean of 2)"
    assert rows["**b/run/model: linear probe, clean**"][0] == "81.2 (79.2 to 82.2)"
    assert "**other: linear probe, clean**" in rows


def test_shares_that_the_paper_lacks_get_a_column(tmp_path: Path) -> None:
    table = make_table("segmentation", [read_run(segmented(tmp_path / "a", fraction=0.01))])
    assert [column[1] for column in table.columns] == [0.01, 0.1, 1.0, 1.0]
    rows = cells(table.markdown())
    assert rows[f"SimCroP {MARK}"] == ["-", "93.5", "93.7", "80.7"]
    assert rows["**ours: unet, frozen encoder, clean**"][0] == "91.4 (89.4 to 92.4)"


def test_the_ablation_takes_both_kinds(tmp_path: Path) -> None:
    rad = read_run(result(tmp_path / "a", task="RadChestCT", fraction=0.1))
    lungs = read_run(segmented(tmp_path / "b"))
    rows = cells(make_table("ablation", [rad, lungs]).markdown())
    assert rows[f"SA + IL + WL {MARK}"] == ["73.4", "93.5"]
    assert rows["**ours: linear probe, clean**"] == ["81.2 (79.2 to 82.2)", "-"]


def test_csv_and_latex_say_the_same(tmp_path: Path) -> None:
    odd = result(tmp_path / "a", config={"model": "a_b & 50%"})
    table = make_table("classification", [read_run(odd)])
    rows = list(csv.DictReader(io.StringIO(table.csv())))
    assert len(rows) == 80 + 1
    assert rows[-1] == {
        "row": "a_b & 50%: linear probe, clean", "source": "measured", "task": "CT-RATE",
        "share": "0.01", "metric": "AUC", "percent": "81.23", "low": "79.23", "high": "82.23",
        "runs": "1",
    }  # fmt: skip
    assert {row["source"] for row in rows[:-1]} == {"paper"}
    text = table.latex()
    assert "a\\_b \\& 50\\%: linear probe, clean & 81.2 (79.2 to 82.2) & - &" in text
    assert "SimCroP$^\\dagger$ & 81.0 & 82.4" in text
    counts = {line.count(" & ") for line in text.splitlines() if " & " in line}
    assert counts == {10}
    assert not re.search(r"(?<!\\)%", text)  # nothing becomes a comment


# -- refusals -----------------------------------------------------------------------------------


def test_what_has_no_place_or_no_figures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SimCroPError, match="There is no result in this folder"):
        read_run(tmp_path)
    lungs = read_run(segmented(tmp_path / "lungs"))
    with pytest.raises(SimCroPError, match="has no place for Dice on LUNA16"):
        make_table("classification", [lungs])
    for number, text in enumerate(["{", "[]", "{}", '{"config": 1, "test": 2}', "null"]):
        folder = tmp_path / f"bad-{number}"
        folder.mkdir()
        (folder / "result.json").write_text(text)
        with pytest.raises(SimCroPError, match="not the result of a probe or a fine-tuning"):
            read_run(folder)
    none = {"metric": "auc", "overall": None, "by_label": {}, "undefined": ["a"]}
    with pytest.raises(SimCroPError, match="no figure over all"):
        read_run(result(tmp_path / "none", test=none))


# -- the command and the bars -------------------------------------------------------------------


def test_the_command_writes_three_forms_and_bars(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [str(result(tmp_path / "a")), str(result(tmp_path / "b", protocol="released"))]
    runs.append(str(result(tmp_path / "c", fraction=1.0)))
    out = tmp_path / "out"
    words = ["table", "classification", *runs, "--out", str(out)]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert told.startswith("Classification, as Table 1 of the paper. In percent.")
    assert sorted(path.name for path in out.iterdir()) == [
        "labels-ct-rate-auc-1.png", "labels-ct-rate-auc-100.png", "table.csv", "table.md",
        "table.tex",
    ]  # fmt: skip
    assert (out / "table.md").read_text() in told
    with Image.open(out / "labels-ct-rate-auc-1.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 5
    assert main(words) == 2
    assert "There is a file here already" in capsys.readouterr().err
    assert main([*words, "--overwrite", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert sum(row["source"] == "measured" for row in rows) == 3
    assert main(["table", "segmentation", runs[0]]) == 2
    assert "has no place for AUC on CT-RATE" in capsys.readouterr().err


def test_bars_are_as_high_as_the_figures(tmp_path: Path) -> None:
    one = read_run(result(tmp_path / "a"))
    other = read_run(result(tmp_path / "b", protocol="released", test={
        "metric": "auc", "overall": estimate(0.6), "undefined": ["Hiatal hernia"],
        "by_label": {"Emphysema": estimate(0.65)}}))  # fmt: skip
    figure = labels_figure([one, other])
    axes = figure.axes[0]
    heights = [[round(bar.get_height(), 3) for bar in bars] for bars in axes.containers[::2]]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["Emphysema", "Hiatal hernia"]
    assert heights == [[70.0, 90.0], [65.0]]
    first, second = (bars[0] for bars in axes.containers[::2])
    assert first.get_x() + first.get_width() == pytest.approx(second.get_x())
    assert [t.get_text() for t in figure.legends[0].get_texts()] == [
        "ours: linear probe, clean (81.2)", "ours: linear probe, released (60.0)",
    ]  # fmt: skip
