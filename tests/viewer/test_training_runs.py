"""Runs as their folders tell of them: what was added, how they stand, their curves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from made_runs import (
    append,
    checkpoint,
    checkpoint_event,
    end_event,
    error_event,
    made_run,
    step,
    steps,
    validation_event,
)

from simcrop_core.train.lock import RunLock
from simcrop_viewer.model.event_tail import EventTail, last_events
from simcrop_viewer.model.model_title import model_title
from simcrop_viewer.model.run_charts import (
    MOST_POINTS,
    RunCurves,
    charts_of,
    number,
    smoothed,
    ticks,
)
from simcrop_viewer.model.run_log import heading, hold, log_is_held, section_of
from simcrop_viewer.model.run_result import differences, result_lines
from simcrop_viewer.model.run_summary import (
    duration,
    in_words,
    runs_in,
    summary_of,
    when,
)
from simcrop_viewer.model.run_watch import RunWatch, previews_of
from simcrop_viewer.model.runs_folder import RunsFolder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "smoke-1"


@pytest.fixture
def going(folder: Path) -> Iterator[Path]:
    """A run whose process is alive: its lock is held, by this process."""
    made_run(folder, *steps(1, 10))
    lock = RunLock(folder / "run.lock").take()
    (folder / "run.lock").touch()
    yield folder
    lock.release()


# -- what was added -------------------------------------------------------------------------------


def test_only_what_was_added_is_read(folder: Path) -> None:
    made_run(folder, *steps(1, 500))
    tail = EventTail(folder / "events.jsonl")
    anew, events = tail.read()
    assert (anew, len(events)) == (False, 500)
    before = tail.bytes_read
    assert tail.read() == (False, [])
    append(folder, step(501))
    assert [event["step"] for event in tail.read()[1]] == [501]
    assert tail.bytes_read - before < 500


def test_half_a_line_waits_for_its_end(folder: Path) -> None:
    made_run(folder, step(1))
    tail = EventTail(folder / "events.jsonl")
    line = json.dumps(step(2)).encode() + b"\n"
    with tail.path.open("ab", buffering=0) as file:
        file.write(line[:30])
        assert len(tail.read()[1]) == 1
        assert tail.read() == (False, [])
        file.write(line[30:])
    assert [event["step"] for event in tail.read()[1]] == [2]


@pytest.mark.parametrize("more", [0, 3, 20])
def test_a_file_that_was_cut_back_is_read_anew(folder: Path, more: int) -> None:
    """A resumed run cuts its events and writes on, perhaps beyond where it was."""
    made_run(folder, *(step(n, 1.0) for n in range(1, 11)))
    tail = EventTail(folder / "events.jsonl")
    tail.read()
    lines = tail.path.read_bytes().splitlines(keepends=True)
    os.truncate(tail.path, sum(map(len, lines[:5])))
    append(folder, *(step(n, 2.5) for n in range(6, 6 + more)))
    anew, events = tail.read()
    assert anew
    assert [event["step"] for event in events] == list(range(1, 6 + more))


def test_a_file_that_is_not_there_or_damaged_is_followed_all_the_same(folder: Path) -> None:
    tail = EventTail(folder / "events.jsonl")
    assert tail.read() == (False, [])
    made_run(folder, step(1))
    with tail.path.open("ab") as file:
        file.write(b'\x00\xff\n[1]\n{"step": 3}\n')
    append(folder, step(2))
    assert [event["step"] for event in tail.read()[1]] == [1, 2]
    tail.path.unlink()
    assert tail.read() == (False, [])
    append(folder, step(7))
    anew, events = tail.read()
    assert anew
    assert [event["step"] for event in events] == [7]


def test_the_end_of_a_long_file_is_enough(folder: Path) -> None:
    made_run(folder, *steps(1, 2000))
    found = last_events(folder / "events.jsonl", 4096)
    assert found[-1]["step"] == 2000
    assert 5 < len(found) < 40


# -- how runs stand -------------------------------------------------------------------------------


def test_a_run_that_is_under_way_tells_pace_and_time_left(going: Path) -> None:
    lock = json.loads((going / "run.lock").read_text())
    append(going, *(step(n, time=lock["since"] + (n - 10) / 2) for n in range(11, 31)))
    run = summary_of(going)
    assert (run.state, run.step, run.steps, run.recipe) == ("running", 30, 40, "smoke")
    assert run.seconds_left == pytest.approx(5.0)  # ten steps at two a second
    assert run.samples_per_s == 8.0
    assert run.process == os.getpid()
    assert in_words(run) == "running · step 30 of 40 · 8 studies/s · 5 s left · loss 0.3333"
    (going / "stop").touch()
    assert summary_of(going).state == "stopping"


@pytest.mark.parametrize(
    ("last", "state", "error"),
    [
        (end_event(10, "finished"), "finished", ""),
        (end_event(10, "stopped"), "stopped", ""),
        (error_event(10, "nan", "The loss is not finite."), "failed", "The loss is not finite."),
        (step(11), "killed", ""),
    ],
)
def test_a_run_that_is_over_tells_how_it_ended(
    folder: Path, last: dict[str, object], state: str, error: str
) -> None:
    made_run(folder, *steps(1, 10), last)
    run = summary_of(folder)
    assert (run.state, run.error) == (state, error)
    assert run.seconds_left is None
    assert run.can_resume == (state != "finished")


def test_a_process_that_is_killed_leaves_a_run_that_was_killed(folder: Path) -> None:
    """A real process with the locks of a real run, ended by the system."""
    made_run(folder, *steps(1, 3))
    words = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from simcrop_core.train.lock import RunLock\n"
        "lock = RunLock(Path(sys.argv[1]) / 'run.lock').take()\n"
        "print('held', flush=True)\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", words, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    run = summary_of(folder)
    assert (run.state, run.process, run.is_here) == ("running", process.pid, True)
    process.kill()
    process.wait()
    process.stdout.close()
    assert summary_of(folder).state == "killed"


def test_from_its_command_to_its_first_word_a_run_is_starting(folder: Path) -> None:
    folder.mkdir(parents=True)
    with (folder / "log.txt").open("w") as log:
        assert hold(log.fileno())
        log.write(heading(["run", "phantom-tiny", "--out", str(folder)]))
        log.flush()
        assert log_is_held(folder / "log.txt")
        run = summary_of(folder)
        assert (run.state, run.recipe) == ("starting", "phantom-tiny")
        log.write("preparing studies: 3 of 12\n")
        log.flush()
        assert summary_of(folder).stage == "preparing studies: 3 of 12"
    assert summary_of(folder).state == "killed"


def test_a_run_that_was_refused_shows_its_one_sentence(folder: Path) -> None:
    folder.mkdir(parents=True)
    text = heading(["run", "probe-luna16", "--out", str(folder)])
    refusal = "It is not said where the probe finds its model. Add --set model=FOLDER."
    (folder / "log.txt").write_text(f"{text}simcrop-train: {refusal}\n")
    run = summary_of(folder)
    assert (run.state, run.error, run.recipe) == ("failed", refusal, "probe-luna16")
    stopped = "simcrop-train: Stopped. Nothing was left half-written.\n"
    (folder / "log.txt").write_text(text + stopped)
    assert summary_of(folder).state == "stopped"
    (folder / "log.txt").write_text(f"{text}simcrop-train: {refusal}\n{text}")
    assert (summary_of(folder).state, summary_of(folder).error) == ("killed", "")


def test_what_an_earlier_start_told_is_not_taken_for_the_present(folder: Path) -> None:
    made_run(folder, *steps(1, 5), end_event(5, "stopped"))
    later = heading(["run", "smoke", "--out", str(folder), "--resume"], time.time() + 5)
    with (folder / "log.txt").open("w") as log:
        hold(log.fileno())
        log.write(later)
        log.flush()
        assert summary_of(folder).state == "starting"
    assert summary_of(folder).state == "killed"
    with (folder / "log.txt").open("a") as log:
        log.write("simcrop-train: The run was started with other settings (run.seed).\n")
    assert summary_of(folder).state == "failed"


def test_a_probe_is_finished_by_its_result(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"name": "probe-luna16", "model": "m"}))
    figure = {"value": 0.75, "low": 0.7, "high": 0.8, "count": 9}
    result = {
        "task": "LUNA16",
        "test": {"metric": "auc", "overall": figure, "by_label": {"nodule": figure}},
        "notes": [{"code": "untrained", "text": "The weights are untrained"}],
    }
    (folder / "run.lock").touch()
    assert summary_of(folder).state == "killed"
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")
    run = summary_of(folder)
    assert (run.state, run.step, run.recipe) == ("finished", None, "probe-luna16")
    assert run.checkpoint == folder / "model"
    assert summary_of(checkpoint(folder, 9).parents[1]).checkpoint == folder / "model"
    assert not run.trains
    lines = result_lines(folder / "result.json")
    assert "    over all: 0.750 (0.700 to 0.800)" in lines
    assert lines[-1] == "Note: The weights are untrained"
    dice = {"held_by": "volume", "mean": 0.9, "dice": {"lung": figure, "trachea": None}}
    (folder / "result.json").write_text(json.dumps({"test": dice}))
    assert result_lines(folder / "result.json") == (
        "test",
        "    mean: 0.9",
        "    dice lung: 0.750 (0.700 to 0.800)",
    )
    (folder / "result.json").write_text('{"test": {"overall": 3, "by_label": [1]}, "notes": 7}')
    assert result_lines(folder / "result.json") == ("test", "    over all: 3")
    (folder / "result.json").write_text("{")
    assert result_lines(folder / "result.json") == ()


def test_the_newest_checkpoint_is_the_one_of_the_highest_step(folder: Path) -> None:
    made_run(folder, *steps(1, 10), checkpoint_event(10, "checkpoints/step-00000010"))
    assert summary_of(folder).checkpoint is None
    for number_of in (5, 10):
        checkpoint(folder, number_of)
    (folder / "checkpoints" / "damaged-step-00000099-1").mkdir()
    (folder / "checkpoints" / ".step-hidden").mkdir()
    found = summary_of(folder).checkpoint
    assert found == folder / "checkpoints" / "step-00000010"
    assert model_title(found) == "smoke-1, step 10"
    assert model_title(Path("/models/starter")) == "starter"
    assert model_title(folder / "model") == "smoke-1"


@pytest.mark.parametrize("damage", ["", "[]", '{"config": 3}', "\x00", '{"config": {"run": 1}}'])
def test_a_damaged_folder_is_a_row_and_no_error(folder: Path, damage: str) -> None:
    made_run(folder, step(1))
    (folder / "config.json").write_text(damage)
    (folder / "run.lock").write_text(damage[:2])
    (folder / "log.txt").write_bytes(b"\xff\xfe=== nonsense process started\n$ simcrop-train 'x\n")
    run = summary_of(folder)
    assert (run.state, run.step, run.steps) == ("killed", 1, None)
    assert not run.can_resume


DEEP, LONG = "[" * 100_000, "1" + "0" * 400


def nonsense_of(folder: Path, kind: str) -> None:
    """Damage one file of a run."""
    if kind in ("config.json", "run.lock", "result.json"):
        (folder / kind).write_text(DEEP)
    elif kind == "deep event":
        with (folder / "events.jsonl").open("a") as file:
            file.write(DEEP + "\n")
    elif kind == "long numbers":
        with (folder / "events.jsonl").open("a") as file:
            file.write(f'{{"event": "step", "step": 3, "loss": {LONG}, "time": {LONG}}}\n')
            file.write(f'{{"event": "step", "step": {LONG}, "loss": 1.0, "time": 1e300}}\n')
        (folder / "config.json").write_text(f'{{"config": {{"run": {{"steps": {LONG}}}}}}}')
        (folder / "run.lock").write_text('{"host": "elsewhere", "process": 3, "since": 1e300}')
        figure = f'{{"value": {LONG}, "low": 0.1, "high": {LONG}}}'
        (folder / "result.json").write_text(f'{{"test": {{"overall": {figure}}}}}')
    elif kind == "long log":
        (folder / "log.txt").write_text(f"loss 3: 1 of {'9' * 5000}\n")
    else:
        (folder / kind).mkdir(parents=True)
        (folder / kind / "a.png").touch()


@pytest.mark.parametrize(
    "kind",
    [
        "config.json",
        "run.lock",
        "result.json",
        "deep event",
        "long numbers",
        "long log",
        "checkpoints/step-²",
        "previews/step-²",
    ],
)
def test_nonsense_in_one_folder_hides_no_other(folder: Path, kind: str) -> None:
    made_run(folder, *steps(1, 2), steps=None)
    made_run(folder.parent / "good", *steps(1, 3))
    nonsense_of(folder, kind)
    seen = RunWatch().look(folder.parent, [folder, folder.parent / "good"])
    rows = {row.name: row for row in seen.rows}
    assert rows["good"].step == 3
    assert rows["smoke-1"].error == ""  # read as far as it can be
    assert rows["smoke-1"].checkpoint is None
    assert [in_words(row) for row in seen.rows]
    assert [when(row.began) for row in seen.rows]
    assert {line.run for line in seen.charts[0].lines} == {folder, folder.parent / "good"}
    assert (seen.result, seen.previews) == ((), ())


def test_a_folder_that_nobody_foresaw_is_a_row_all_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from simcrop_viewer.model import run_summary

    made_run(folder, *steps(1, 2))
    true = run_summary.newest_model

    def fail(place: Path) -> Path | None:
        if place == folder:
            raise TypeError("nobody foresaw this")
        return true(place)

    made_run(folder.parent / "good", *steps(1, 3))
    monkeypatch.setattr(run_summary, "newest_model", fail)
    rows = {row.name: row for row in RunWatch().look(folder.parent, ()).rows}
    assert rows["good"].step == 3
    assert rows["smoke-1"].error == "This folder cannot be read."
    assert not rows["smoke-1"].can_resume


def test_times_are_told_as_people_do() -> None:
    assert [duration(s) for s in (4, 89, 100, 5400, 40_000)] == [
        "4 s",
        "89 s",
        "2 min",
        "1 h 30 min",
        "11 h 7 min",
    ]


# -- logs -----------------------------------------------------------------------------------------


def test_the_last_start_in_a_log_is_what_counts() -> None:
    first = ["run", "smoke", "--out", "/a b/c", "--set", 'model.without=["x"]']
    text = heading(first, 1e9) + "loss 3: 1 of 2\n\n" + heading([*first, "--resume"], 2e9) + "x\n"
    section = section_of(text)
    assert section.words == (*first, "--resume")
    assert (section.began, section.recipe, section.lines) == (2e9, "smoke", ("x",))
    assert section_of("x\ny").lines == ("x", "y")
    assert section_of("").words == ()


# -- curves ---------------------------------------------------------------------------------------


def test_charts_show_the_loss_its_terms_and_what_validation_measures(folder: Path) -> None:
    metrics = {"pointing_findings": 0.5, "chance_findings": 0.1}
    made_run(
        folder,
        *steps(1, 4),
        step(5, float("nan")) | {"loss": None},
        validation_event(4, 3.0, {"image": 1.0}, metrics),
    )
    curves = RunCurves(folder)
    assert curves.look()
    charts = charts_of([curves])
    assert [chart.title for chart in charts] == [
        "loss",
        "image",
        "align",
        "pointing findings",
        "studies/s",
        "learning rate",
    ]
    loss = {line.kind: line for line in charts[0].lines}
    assert loss["training"].steps_P.tolist() == [1, 2, 3, 4]
    assert loss["validation"].values_P.tolist() == [3.0]
    pointing = {line.kind: line.values_P.tolist() for line in charts[3].lines}
    assert pointing == {"validation": [0.5], "reference": [0.1]}
    assert not curves.look()


def test_runs_are_compared_in_the_same_charts(tmp_path: Path) -> None:
    runs = [made_run(tmp_path / name, *steps(1, 3)) for name in ("a", "b")]
    append(runs[1], validation_event(3, 1.0, {}, {"pointing_organs": 0.2}))
    curves = [RunCurves(run) for run in runs]
    for one in curves:
        one.look()
    charts = {chart.title: chart for chart in charts_of(curves)}
    assert [line.run for line in charts["align"].lines] == runs
    assert [line.run for line in charts["pointing organs"].lines] == [runs[1]]


def test_long_curves_are_thinned_and_keep_their_extremes(folder: Path) -> None:
    values = np.ones(5000)
    values[1234], values[4321] = 9.0, -3.0
    made_run(folder, *(step(n + 1, float(v)) for n, v in enumerate(values)))
    curves = RunCurves(folder)
    curves.look()
    line = curves.lines["loss", "training"]
    assert MOST_POINTS / 2 < len(line.steps_P) <= MOST_POINTS
    assert (line.low_P.min(), line.high_P.max()) == (-3.0, 9.0)
    assert line.values_P[0] == 1.0
    assert line.values_P @ np.full(len(line.values_P), 1 / len(line.values_P)) == pytest.approx(
        values.mean(), abs=0.01
    )


def test_a_resumed_run_has_no_step_twice_in_its_curves(folder: Path) -> None:
    made_run(folder, *(step(n, 1.0) for n in range(1, 9)))
    curves = RunCurves(folder)
    curves.look()
    lines = (folder / "events.jsonl").read_bytes().splitlines(keepends=True)
    os.truncate(folder / "events.jsonl", sum(map(len, lines[:4])))
    append(folder, *(step(n, 2.25) for n in range(5, 12)))
    assert curves.look()
    line = curves.lines["loss", "training"]
    assert line.steps_P.tolist() == list(range(1, 12))
    assert line.values_P.tolist() == [1.0] * 4 + [2.25] * 7


def test_smoothing_is_a_mean_of_what_came_before() -> None:
    values = np.array([4.0, 2.0, 6.0, 0.0])
    assert smoothed(values, 0.0) is values
    half = smoothed(values, 0.5)
    assert half[0] == 4.0
    assert half[1] == pytest.approx((2.0 * 0.5 + 4.0 * 0.25) / 0.75)
    assert np.allclose(smoothed(np.full(50, 3.0), 0.95), 3.0)


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), (8.3, 15.5, [10, 12, 14]), (3, 3, [3]), (-1, 1, None)],
)
def test_marks_of_an_axis_are_round(low: float, high: float, found: list[float] | None) -> None:
    made = ticks(low, high)
    assert all(low - 1e-9 <= mark <= high + 1e-9 for mark in made)
    if found is not None:
        assert made == pytest.approx(found)


def test_figures_are_short() -> None:
    assert [number(v) for v in (0, 0.12345, 12000, 3e6, 1e-5)] == [
        "0",
        "0.1235",
        "12k",
        "3M",
        "1e-05",
    ]


# -- looking again and again ----------------------------------------------------------------------


def test_runs_are_listed_newest_first_and_other_folders_are_not(tmp_path: Path) -> None:
    place = tmp_path / "runs"
    old = made_run(place / "old", *steps(1, 2), end_event(2, "finished"))
    os.utime(old / "config.json", (1e9, 1e9))
    made_run(place / "new", *steps(1, 3))
    (place / "data").mkdir()
    (place / ".hidden").mkdir()
    (place / "notes.txt").write_text("x")
    assert {run.name for run in runs_in(place)} == {"old", "new"}
    seen = RunWatch().look(place, ())
    assert [row.name for row in seen.rows] == ["new", "old"]
    assert RunWatch().look(tmp_path / "nowhere", ()).rows == ()


def test_nothing_is_read_again_of_runs_that_are_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from simcrop_viewer.model import run_watch

    place = tmp_path / "runs"
    done = made_run(place / "done", *steps(1, 300), end_event(300, "finished"))
    read: list[str] = []
    true = run_watch.summary_of
    monkeypatch.setattr(run_watch, "summary_of", lambda f: (read.append(f.name), true(f))[1])
    watch = RunWatch()
    first = watch.look(place, [done])
    again = watch.look(place, [done])
    assert read == ["done"]
    assert again.charts is first.charts
    append(done, step(301))
    later = watch.look(place, [done])
    assert read == ["done", "done"]
    assert later.charts is not first.charts
    assert later.rows[0].state == "killed"


def test_a_run_that_dies_without_a_trace_is_noticed(going: Path) -> None:
    watch = RunWatch()
    assert watch.look(going.parent, ()).rows[0].state == "running"
    os.rename(going / "run.lock", going / "gone")  # as when the system lets go of the lock
    assert watch.look(going.parent, ()).rows[0].state == "killed"


def test_pictures_are_found_by_step(folder: Path) -> None:
    made_run(folder, step(1))
    for number_of, name in ((20, "b"), (20, "a"), (100, "a")):
        place = folder / "previews" / f"step-{number_of:08d}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{name}.png").touch()
        (place / f".hidden-{name}.png").touch()
    assert [(at, [p.stem for p in some]) for at, some in previews_of(folder)] == [
        (20, ["a", "b"]),
        (100, ["a"]),
    ]


def test_settings_that_differ_are_named(tmp_path: Path) -> None:
    a = made_run(tmp_path / "a", steps=40)
    b = made_run(tmp_path / "b", steps=80)
    assert differences([a]) == ()
    assert differences([a, b]) == ("a | b", "", "run.steps: 40 | 80")
    assert differences([a, a])[-1] == "Their settings are the same."


# -- where runs are kept --------------------------------------------------------------------------


def test_the_folder_of_runs_is_remembered(tmp_path: Path) -> None:
    kept = tmp_path / "training.json"
    place = RunsFolder(kept)
    assert place.folder == tmp_path / "runs"
    told: list[Path] = []
    place.changed.connect(lambda: told.append(place.folder))
    place.move_to(tmp_path / "elsewhere")
    assert told == [tmp_path / "elsewhere"]
    assert RunsFolder(kept).folder == tmp_path / "elsewhere"
    kept.write_text("{")
    assert RunsFolder(kept).folder == tmp_path / "runs"
