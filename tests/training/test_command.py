"""The command ``simcrop-train``, from its words to its exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from boxes import command_settings
from simcrop_training.cli import main

from simcrop_core.model import load_model
from simcrop_core.train.events import read_events
from simcrop_core.train.status import run_status

LAUNCH = Path(__file__).parents[2] / "training" / "launch"


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def steps(run: Path) -> list[int]:
    return [
        event["step"] for event in read_events(run / "events.jsonl") if event["event"] == "step"
    ]


def once(condition: Callable[[], bool], act: Callable[[], Any]) -> threading.Thread:
    """Do something from another thread as soon as something holds."""

    def wait() -> None:
        for _ in range(6000):
            if condition():
                act()
                return
            time.sleep(0.01)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_the_smoke_recipe_trains_on_phantoms_from_one_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    few = ["--set", "data.phantoms=4", "--set", "data.held_out=2", "--set", "run.batch_size=2"]
    words = ["run", "smoke", "--out", str(run), *few, "--set", "run.steps=6"]
    assert main([*words, "--set", "run.validate_every=6", "--set", "run.keep=9"]) == 0
    assert f"Finished after step 6; the run is in {run}." in capsys.readouterr().out
    assert steps(run) == [1, 2, 3, 4, 5, 6]
    assert [p.name for p in sorted((run / "checkpoints").iterdir())] == [
        "step-00000005",
        "step-00000006",
    ]
    model = load_model(run / "checkpoints" / "step-00000006")
    assert model.config.provenance.trained == "simcrop pre-training, run smoke, step 6"
    validation = list(read_events(run / "events.jsonl"))[-3]
    assert validation["event"] == "validation"
    assert 0 <= validation["metrics"]["chance_organs"] < 1
    assert len(list((run / "previews" / "step-00000006").glob("phantom-*.png"))) == 2


def test_smoke_is_what_was_promised() -> None:
    from simcrop_training.recipes import recipe

    smoke = recipe("smoke")
    assert (smoke.run.steps, smoke.run.checkpoint_every, smoke.data.store) == (40, 5, None)


def test_a_run_is_told_of_asked_to_stop_and_gone_on_with(
    tmp_path: Path, store: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    settings = command_settings(store, model_folder, run={"steps": 400, "validate_every": 400})
    told: list[dict[str, Any]] = []

    def ask() -> None:
        told.append({"state": run_status(run).state, "process": run_status(run).process})
        told.append({"code": main(["stop", str(run)])})

    thread = once(lambda: len(steps(run)) >= 3, ask)
    assert main(["run", "smoke", "--out", str(run), *settings]) == 0
    thread.join()
    assert told == [{"state": "running", "process": os.getpid()}, {"code": 0}]
    out = capsys.readouterr().out
    last = steps(run)[-1]
    assert last < 400
    assert f"Stopped after step {last}" in out
    assert f"Go on with: simcrop-train run smoke --out {run} --set" in out
    assert out.rstrip().endswith("--resume")

    assert main(["status", str(run), "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["state"], status["step"]) == ("stopped", last)
    assert status["checkpoint"] == f"checkpoints/step-{last:08d}"
    assert main(["stop", str(run)]) == 0
    assert "No run is going on" in capsys.readouterr().out

    assert main(["run", "smoke", "--out", str(run), *settings]) == 2
    assert "a run here already" in capsys.readouterr().err
    other = command_settings(
        store, model_folder, run={"steps": 400, "validate_every": 400, "seed": 1}
    )
    assert main(["run", "smoke", "--out", str(run), *other, "--resume"]) == 2
    assert "other settings (run.seed)" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_finish_the_step_save_and_say_how_to_go_on(
    tmp_path: Path,
    store: Path,
    model_folder: Path,
    number: signal.Signals,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    settings = command_settings(store, model_folder, run={"steps": 400, "validate_every": 400})
    thread = once(lambda: len(steps(run)) >= 2, lambda: os.kill(os.getpid(), number))
    assert main(["run", "smoke", "--out", str(run), *settings, "--json"]) == 130
    thread.join()
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {
        "out": str(run),
        "step": steps(run)[-1],
        "reason": "stopped",
    }
    assert "Stopping after this step" in captured.err
    newest = run / "checkpoints" / f"step-{steps(run)[-1]:08d}"
    assert newest.is_dir()


def test_runs_are_compared_in_a_table(
    tmp_path: Path, store: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, lr in (("a", 1e-3), ("b", 1e-4)):
        settings = command_settings(
            store, model_folder, optim={"lr": lr, "warmup": 1}, run={"steps": 3}
        )
        assert main(["run", "smoke", "--out", str(tmp_path / name), *settings, "--json"]) == 0
    capsys.readouterr()
    folders = [str(tmp_path / name) for name in ("a", "b")]
    assert main(["compare", *folders]) == 0
    head, first, second, *rest = capsys.readouterr().out.splitlines()
    assert head.split()[:6] == ["run", "recipe", "state", "step", "loss", "validation"]
    assert first.split()[0:4] == [folders[0], "tiny", "finished", "3"]
    assert second.split()[0] == folders[1]
    assert rest == ["", "settings that differ:", "  optim.lr: 0.001, 0.0001"]
    assert main(["compare", *folders, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["differences"] == {"optim.lr": [0.001, 0.0001]}
    assert len(facts["runs"]) == 2
    twice = f"{folders[0]}/../a"
    assert main(["compare", folders[0], twice, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["runs"]) == 1


def test_refusals_are_one_line_and_exit_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "run")]
    for words, said in (
        (["run", "nonsense", *out], "no recipe 'nonsense'"),
        (["run", "smoke", *out, "--set", "run.stepz=3"], "did you mean run.steps?"),
        (["run", "smoke", *out, "--set", "model.vision.heads=7"], "not a multiple of its 7 heads"),
        (
            ["run", "simcrop-paper", *out, "--set", "run.batch_size=7", "--set", "run.devices=2"],
            "7",
        ),
        (["status", str(tmp_path)], "no run in this folder"),
        (["stop", str(tmp_path / "x")], "no run in this folder"),
        (["compare", str(tmp_path)], "no run in this folder"),
    ):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.startswith("simcrop-train: ")
        assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_recipes_are_listed_with_their_fields(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "--json"]) == 0
    recipes = {one["name"]: one for one in json.loads(capsys.readouterr().out)["recipes"]}
    assert set(recipes) >= {
        *("smoke", "phantom-tiny", "phantom-small", "simcrop-paper", "simcrop-released"),
        *("mae", "mrm", "m3ae", "ct-clip", "m3d-clip", "grounded"),
    }
    for one in recipes.values():
        assert one["text"]
        for field in one["fields"]:
            assert set(field) >= {"path", "type", "text", "default", "nullable"}
    assert main(["recipes", "smoke"]) == 0
    assert "run.steps = 40" in capsys.readouterr().out


def test_settings_are_tried_without_starting_anything(capsys: pytest.CaptureFixture[str]) -> None:
    several = ["--set", "run.batch_size=3", "--set", "run.accumulation=2"]
    assert main(["recipes", "smoke", "--json", *several]) == 2
    (fault,) = json.loads(capsys.readouterr().out)["faults"]
    assert fault["path"] == "run"
    assert fault["text"].startswith("A batch of 3 cannot be dealt out evenly")
    assert main(["recipes", "smoke", "--json", "--set", "objective.kind=mae"]) == 0
    told = json.loads(capsys.readouterr().out)
    fields = {field["path"]: field for field in told["recipes"][0]["fields"]}
    assert fields["objective.kind"]["default"] == "mae"
    assert "objective.top_k" not in fields
    assert told["faults"] == []
    assert main(["recipes", "smoke", "--set", "optim.lr=-1"]) == 2
    assert "Found 1 error in the config: optim.lr" in capsys.readouterr().err
    assert main(["recipes", "--set", "optim.lr=1"]) == 2
    assert "Name the recipe" in capsys.readouterr().err


@pytest.mark.slow
def test_torchrun_starts_two_processes_by_the_script(
    tmp_path: Path, store: Path, model_folder: Path
) -> None:
    run = tmp_path / "run"
    settings = command_settings(store, model_folder, run={"steps": 4, "validate_every": 4})
    environment = os.environ | {"GPUS": "2", "PYTHON": sys.executable}
    environment["PORT"] = str(29000 + os.getpid() % 900)
    done = subprocess.run(
        ["sh", str(LAUNCH / "torchrun.sh"), "smoke", str(run), *settings, "--set", "run.devices=2"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("Finished after step 4") == 1
    assert steps(run) == [1, 2, 3, 4]


def test_launch_scripts_are_shell_and_say_how_they_are_used() -> None:
    for name, shell in (("torchrun.sh", "sh"), ("slurm.sh", "bash")):
        subprocess.run([shell, "-n", str(LAUNCH / name)], check=True)
        bare = subprocess.run([shell, str(LAUNCH / name)], capture_output=True, text=True)
        assert bare.returncode == 2
        assert "RECIPE OUT" in bare.stderr
