"""Starting, following, stopping and going on with runs, without a window."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from made_runs import end_event, made_run, recipes, steps
from made_view import Mailbox, wait

from simcrop_core.errors import SimCroPError
from simcrop_core.train.lock import RunLock, lock_holder
from simcrop_core.train.supervisor import python_command
from simcrop_viewer.controller import run_process
from simcrop_viewer.controller.training import MOST_CHOSEN, TrainingController
from simcrop_viewer.model.jobs import Jobs
from simcrop_viewer.model.run_log import hold
from simcrop_viewer.model.run_summary import summary_of
from simcrop_viewer.model.runs_folder import RunsFolder

STAND_IN = Path(__file__).with_name("stand_in_run.py")


class Bench:
    """A controller with its mailbox, and what it refused."""

    def __init__(self, place: Path) -> None:
        self.mailbox = Mailbox()
        self.jobs = Jobs(self.mailbox.append)
        kept = RunsFolder()
        kept.folder = place
        self.training = TrainingController(self.jobs, kept)
        self.refused: list[SimCroPError] = []
        self.training.refused.connect(self.refused.append)

    def wait(self) -> None:
        wait(self.mailbox, self.jobs)

    def until(self, condition: Callable[[], bool], seconds: float = 40) -> None:
        """Look again and again until something is so."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, ([str(e) for e in self.refused], self.training.seen.rows)
            self.training.look()
            self.mailbox.read()
            time.sleep(0.01)

    def state(self, name: str) -> str:
        rows = {row.name: row for row in self.training.seen.rows}
        return rows[name].state if name in rows else ""

    def close(self) -> None:
        self.jobs.close()
        self.training.close()


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        run_process, "command", lambda words: [sys.executable, str(STAND_IN), *words]
    )


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    made = tmp_path / "runs"
    made.mkdir()
    yield made
    for log in made.glob("*/log.txt"):  # whatever a test left
        holder = lock_holder(log.parent / "run.lock")
        if holder:
            os.kill(holder["process"], signal.SIGKILL)


@pytest.fixture
def bench(place: Path) -> Iterator[Bench]:
    made = Bench(place)
    yield made
    made.close()


@pytest.fixture
def started(bench: Bench, stand_in: None) -> Bench:
    """A run that goes on for long."""
    bench.training.form.offer(recipes())
    form = bench.training.form
    form.type(next(s for s in form.settings if s.path == "run.steps"), "2000")
    assert bench.training.start() is not None
    bench.until(
        lambda: (bench.state("smoke-1"), bool(bench.training.seen.charts)) == ("running", True)
    )
    return bench


def row(bench: Bench):
    return next(row for row in bench.training.seen.rows if row.name == "smoke-1")


def test_a_run_outlives_the_window_that_started_it_and_is_found_again(
    started: Bench, place: Path
) -> None:
    training = started.training
    assert training.chosen == (place / "smoke-1",)
    assert training.form.name == "smoke-2"
    assert (place / "smoke-1" / "kept").read_text() == (
        f"run smoke --out {place}/smoke-1 --set run.steps=2000"
    )
    first = row(started).step
    started.close()

    later = Bench(place)
    later.until(lambda: later.state("smoke-1") == "running" and (row(later).step or 0) > first + 2)
    later.training.choose([place / "smoke-1"])
    later.until(lambda: bool(later.training.seen.charts))
    assert later.training.seen.log[1].startswith("$ simcrop-train run smoke --out")
    later.training.stop(row(later))
    later.until(lambda: later.state("smoke-1") == "stopped")
    assert not later.refused
    assert row(later).checkpoint is not None
    later.close()


def test_a_stopped_run_goes_on_by_the_command_in_its_log(started: Bench, place: Path) -> None:
    started.training.stop(row(started))
    started.until(lambda: started.state("smoke-1") == "stopped")
    before = row(started).step
    started.training.resume(place / "smoke-1")  # at once: its process may not be gone yet
    started.until(lambda: started.state("smoke-1") == "running" and row(started).step > before)
    assert started.refused == []
    heads = [line for line in started.training.seen.log if line.startswith("$")]
    assert heads[-1] == f"{heads[0]} --resume"
    started.training.stop(row(started))
    started.until(lambda: started.state("smoke-1") == "stopped")


def test_a_run_that_is_killed_is_seen_and_goes_on(started: Bench, place: Path) -> None:
    process = row(started).process
    os.kill(process, signal.SIGKILL)
    started.until(lambda: started.state("smoke-1") == "killed")
    assert row(started).can_resume
    started.training.resume(place / "smoke-1")
    started.until(lambda: started.state("smoke-1") == "running")
    assert row(started).process != process
    started.training.stop(row(started))
    started.until(lambda: started.state("smoke-1") == "stopped")


def test_a_run_of_the_terminal_goes_on_by_its_configuration(bench: Bench, place: Path) -> None:
    from simcrop_training.recipes import any_recipe

    from simcrop_core.train.settings import with_settings

    folder = made_run(place / "theirs", *steps(1, 3), end_event(3, "stopped"))
    config = with_settings(any_recipe("smoke"), ["run.seed=7", "optim.lr=0.5"])
    told = {"format": "simcrop-run", "config": config.model_dump(mode="json")}
    (folder / "config.json").write_text(json.dumps(told))
    words = bench.training._words_again(folder, lambda *_: None)
    assert words[:4] == ["run", "smoke", "--out", str(folder)]
    assert set(words[5:-1:2]) == {"run.seed=7", "optim.lr=0.5"}
    assert words[-1] == "--resume"
    (folder / "config.json").write_text(json.dumps({"config": {"name": "nobody's"}}))
    bench.training.resume(folder)
    bench.wait()
    assert bench.refused[0].problem == "It cannot be told how this run was started."


def test_a_refused_run_shows_its_sentence_and_leaves_its_name_free(
    bench: Bench, place: Path, stand_in: None
) -> None:
    form = bench.training.form
    form.offer(recipes())
    form.type(next(s for s in form.settings if s.path == "data.store"), "refuse")
    form.settings  # noqa: B018
    bench.training._starting(
        "x",
        place / "smoke-1",
        lambda tell: run_process.start(place / "smoke-1", [*form.words, "--set", "refuse=1"], tell),
    )
    bench.until(lambda: bench.state("smoke-1") == "failed")
    assert row(bench).error == "This is refused. Do something else."
    assert form.name == "smoke-1"
    assert form.name_fault == ""


def test_a_probe_is_stopped_by_a_signal(bench: Bench, place: Path, stand_in: None) -> None:
    bench.training.form.offer(recipes())
    bench.training.form.choose("probe-luna16")
    bench.training.start()
    bench.until(lambda: bench.state("probe-luna16-1") == "running")
    (probe,) = bench.training.seen.rows
    assert (probe.trains, probe.recipe) == (False, "probe-luna16")
    bench.until(lambda: bench.training.seen.rows[0].stage == "encoding scans: 3 of 900")
    bench.training.stop(bench.training.seen.rows[0])
    bench.until(lambda: bench.state("probe-luna16-1") == "stopped")
    assert not bench.training.seen.charts
    assert bench.refused == []


def test_a_number_of_a_process_counts_only_where_and_while_it_holds_the_run(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(run_process.os, "kill", lambda number, _: ended.append(number))
    folder = place / "probe-1"
    folder.mkdir()
    lock = folder / "run.lock"
    lock.write_text(json.dumps({"host": "elsewhere", "process": 4242, "since": 1.0}))
    with (folder / "log.txt").open("w") as log:  # as a network's folder shows it everywhere
        assert hold(log.fileno())
        there = summary_of(folder)
        assert (there.state, there.is_here) == ("running", False)
        with pytest.raises(SimCroPError, match="on the computer where it runs"):
            run_process.ask_to_stop(there, None)
    ours = RunLock(lock)
    lock.unlink()
    ours.take()
    mine = summary_of(folder)
    assert (mine.process, mine.is_here) == (os.getpid(), True)
    with pytest.raises(SimCroPError, match="Another process"):
        run_process.ask_to_stop(replace(mine, process=4242), None)
    # Seen here, and gone on with elsewhere since.
    with monkeypatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: "third")
        with pytest.raises(SimCroPError, match="from here"):
            run_process.ask_to_stop(mine, None)
    assert ended == []
    run_process.ask_to_stop(mine, None)
    assert ended == [os.getpid()]
    ours.release()
    run_process.ask_to_stop(mine, None)  # it has ended meanwhile
    assert ended == [os.getpid()]
    with pytest.raises(SimCroPError, match="not begun yet"):
        run_process.ask_to_stop(replace(mine, process=None), None)


def test_one_run_is_started_at_a_time_and_stopping_waits_for_none(
    bench: Bench, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from simcrop_viewer.controller import training as module

    begun: list[Path] = []
    stopped: list[str] = []
    go = threading.Event()

    def start(folder: Path, words: object, tell: object) -> subprocess.Popen[bytes]:
        begun.append(folder)
        assert go.wait(30)
        if len(begun) == 1:
            raise SimCroPError("No", code="x", remedy="Try again")
        return subprocess.Popen([sys.executable, "-c", ""])

    monkeypatch.setattr(module, "start", start)
    monkeypatch.setattr(module, "ask_to_stop", lambda run, _: stopped.append(run.name))
    past = made_run(place / "past", *steps(1, 3), end_event(3, "stopped"))
    monkeypatch.setattr(bench.training, "_words_again", lambda *_: [])
    bench.training.form.offer(recipes())
    bench.training.choose([past])
    bench.until(lambda: bench.state("past") == "stopped")
    (past_row,) = bench.training.seen.rows
    told: list[bool] = []
    bench.training.starting_changed.connect(lambda: told.append(bench.training.is_starting))

    assert bench.training.start() is not None
    assert bench.training.start() is None
    assert bench.training.resume(past) is None
    bench.training.stop(past_row)
    bench.until(lambda: stopped == ["past"], 20)  # though the start is not decided
    assert told == [True]
    go.set()
    bench.wait()
    assert told == [True, False]  # a refusal lets the next one
    assert bench.training.resume(past) is not None
    assert bench.training.start() is None
    monkeypatch.setattr(bench.training, "look", lambda: None)  # before anybody looks again:
    bench.wait()
    assert begun == [place / "smoke-1", past]
    assert not bench.training.row(past).can_resume
    assert told == [True, False, True, False]


def test_two_runs_in_one_folder_are_refused(
    started: Bench, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_process, "_PATIENCE_S", 0.2)
    started.training.resume(place / "smoke-1")
    started.until(lambda: bool(started.refused))
    assert started.refused[0].code == "run-locked"
    started.training.stop(row(started))
    started.until(lambda: started.state("smoke-1") == "stopped")


def test_a_folder_that_cannot_be_written_is_told(bench: Bench, place: Path) -> None:
    (place / "file").touch()
    with pytest.raises(SimCroPError, match="cannot be started in this folder"):
        run_process.start(place / "file" / "run", ["run"], lambda *_: None)


def test_a_folder_whose_name_is_no_text_is_refused_before_anything_is_made(
    bench: Bench, place: Path, tmp_path: Path
) -> None:
    odd = tmp_path / os.fsdecode(b"caf\xe9")
    odd.mkdir()
    kept = tmp_path / "training.json"
    bench.training.place._path = kept
    bench.training.move_to(str(odd))
    assert [e.code for e in bench.refused] == ["folder-name"]
    assert bench.refused[0].problem == "The name of this folder cannot be read as text (UTF-8)."
    assert bench.training.place.folder == place
    assert not kept.exists()
    for folder, words in ((odd / "run", ["run"]), (place / "run", ["--set", f"data.store={odd}"])):
        with pytest.raises(SimCroPError, match="cannot be read as text"):
            run_process.start(folder, words, lambda *_: None)
        assert not folder.exists()


def test_the_command_is_asked_for_recipes_and_for_what_is_wrong(bench: Bench) -> None:
    training = bench.training
    training.ask_for_recipes()
    training.ask_for_recipes()
    assert len(bench.jobs.running) == 1
    bench.wait()
    form = training.form
    assert [r.name for r in form.recipes] == [r.name for r in recipes()]
    training.judge()
    assert not bench.jobs.running
    form.type(next(s for s in form.settings if s.path == "run.accumulation"), "3")
    training.judge()
    form.type(next(s for s in form.settings if s.path == "run.batch_size"), "7")
    training.judge()
    bench.wait()
    assert form.other_faults[0].startswith("A batch of 7 cannot be dealt out evenly")
    assert not form.is_ready
    assert training.start() is None
    assert bench.refused == []


def test_a_file_in_the_present_folder_is_not_run_for_a_module(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("csv", "torch", "simcrop_training"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('somebody else is run')")
    monkeypatch.chdir(tmp_path)
    bench.training.ask_for_recipes()
    bench.wait()
    assert bench.refused == []
    assert bench.training.form.recipes
    ranks = python_command("simcrop_training", ["recipes"])
    assert subprocess.run(ranks, capture_output=True, check=False).returncode == 0


def test_a_command_without_an_answer_is_told_in_a_sentence(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = [sys.executable, "-c", "import sys; sys.exit('No module named simcrop_training')"]
    monkeypatch.setattr(run_process, "command", lambda words: broken)
    bench.training.ask_for_recipes()
    bench.wait()
    assert bench.refused[0].problem == "No module named simcrop_training."
    bench.training.ask_for_recipes()  # it may be asked again
    assert bench.jobs.running
    bench.wait()


def test_closing_ends_what_is_asked_and_leaves_no_thread(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[subprocess.Popen[bytes]] = []
    before = set(threading.enumerate())
    true = subprocess.Popen

    class Kept(true):  # type: ignore[valid-type, misc]
        def __init__(self, *words: object, **more: object) -> None:
            super().__init__(*words, **more)
            asked.append(self)

    monkeypatch.setattr(run_process.subprocess, "Popen", Kept)
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
    monkeypatch.setattr(run_process, "command", lambda words: sleeper)
    bench.training.ask_for_recipes()
    end = time.monotonic() + 30
    while not asked and time.monotonic() < end:
        time.sleep(0.01)
    bench.close()
    ours = {t for t in threading.enumerate() if t.name.startswith("simcrop-training")} - before
    assert ours
    for thread in ours:
        thread.join(10)
    assert asked[0].poll() is not None
    assert not [t for t in ours if t.is_alive()]


def test_what_cannot_be_looked_at_is_told_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("the disk is away")

    monkeypatch.setattr(type(bench.training._watch), "look", fail)
    for _ in range(3):
        bench.training.look()
        bench.wait()
    assert len(bench.refused) == 1


def test_runs_are_chosen_and_another_folder_chooses_none(bench: Bench, tmp_path: Path) -> None:
    many = [tmp_path / f"{n}" for n in range(9)]
    bench.training.choose(many)
    assert bench.training.chosen == tuple(many[:MOST_CHOSEN])
    bench.training.form.offer(recipes())
    made_run(tmp_path / "other" / "smoke-1", *steps(1, 2))
    bench.training.place.move_to(tmp_path / "other")
    assert bench.training.chosen == ()
    bench.until(lambda: bench.state("smoke-1") == "killed")
    assert bench.training.form.name == "smoke-2"
