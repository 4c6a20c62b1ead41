"""What a run leaves on disk: events, lock, checkpoints; each under faults."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from boxes import tiny_config

from simcrop_core.errors import SimCroPError
from simcrop_core.model import load_model
from simcrop_core.model.simcrop import SimCroP
from simcrop_core.objectives import MaeConfig
from simcrop_core.train import checkpoint as checkpoints_module
from simcrop_core.train import launch
from simcrop_core.train.build import trained_config
from simcrop_core.train.checkpoint import (
    Checkpoint,
    checkpoints,
    prune,
    read_checkpoint,
    step_of,
    verify,
    whole_state,
    write_checkpoint,
)
from simcrop_core.train.curves import Curves
from simcrop_core.train.events import (
    EventLog,
    checkpoint_event,
    cut_back,
    disk_is_full,
    end_event,
    error_event,
    read_events,
    step_event,
    validation_event,
)
from simcrop_core.train.lock import RunLock, lock_holder
from simcrop_core.train.run import Run, read_run_config
from simcrop_core.train.status import request_stop, run_status

# -- events -------------------------------------------------------------------------------------


def write_steps(path: Path, *steps: int) -> None:
    with EventLog(path) as log:
        for step in steps:
            log.write(step_event(step, 1.0 / step, {"image": 0.5}, 1e-3, 8.0))


def test_events_are_one_json_object_a_line_with_the_fields_that_others_read(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:
        log.write(step_event(1, 2.5, {"image": 2.0, "align": 0.5}, 1e-4, 12.0))
        log.write(validation_event(1, 2.0, {"image": 1.5}, {"pointing_findings": 0.25}))
        log.write(checkpoint_event(1, "checkpoints/step-00000001"))
        log.write(error_event(1, "loss-not-finite", "Line one.\nLine two."))
        log.write(end_event(1, "stopped"))
    lines = path.read_text().splitlines()
    step, validation, checkpoint, error, end = map(json.loads, lines)
    now = time.time()
    assert set(step) == {"event", "step", "loss", "terms", "lr", "samples_per_s", "time"}
    assert (step["event"], step["step"], step["loss"], step["lr"]) == ("step", 1, 2.5, 1e-4)
    assert step["terms"] == {"image": 2.0, "align": 0.5}
    assert abs(step["time"] - now) < 60
    assert validation["metrics"] == {"pointing_findings": 0.25}
    assert checkpoint["path"] == "checkpoints/step-00000001"
    assert (error["code"], end["reason"]) == ("loss-not-finite", "stopped")


def test_numbers_that_are_not_finite_stay_json(tmp_path: Path) -> None:
    path = tmp_path / "e"
    with EventLog(path) as log:
        log.write(step_event(1, float("nan"), {"image": float("inf")}, 1e-3, 8.0))
    event = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert event["loss"] is None
    assert event["terms"] == {"image": None}


def test_a_line_that_a_kill_cut_short_is_passed_over_and_then_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "e"
    write_steps(path, 1, 2, 3)
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    assert [event["step"] for event in read_events(path)] == [1, 2]
    cut_back(path, 5)
    assert path.read_bytes() == b"".join(whole.splitlines(keepends=True)[:2])


def test_cutting_back_leaves_no_step_twice_and_keeps_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "e"
    write_steps(path, 1, 2, 3, 4)
    number = path.stat().st_ino
    cut_back(path, 2)
    write_steps(path, 3, 4)
    assert [event["step"] for event in read_events(path)] == [1, 2, 3, 4]
    assert path.stat().st_ino == number
    cut_back(tmp_path / "absent", 2)


def test_events_wait_in_memory_while_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "e"
    log = EventLog(path)
    real = log._file

    class Full:
        def write(self, data: bytes) -> int:
            real.write(data[:7])  # some of it fits
            log._waiting = log._waiting[7:]
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(log, "_file", Full())
    log.write(end_event(1, "a"))
    monkeypatch.setattr(log, "_file", real)
    log.write(end_event(2, "b"))
    log.close()
    assert [event["step"] for event in read_events(path)] == [1, 2]


# -- lock ---------------------------------------------------------------------------------------


def test_a_second_run_in_a_folder_is_refused_with_host_and_process(
    tmp_path: Path, store: Path
) -> None:
    run = Run.create(tmp_path / "run", tiny_config(store))
    try:
        code = (
            "import sys; from simcrop_core.train.run import Run\n"
            "from simcrop_core.errors import SimCroPError\n"
            "try: Run.resume(sys.argv[1])\n"
            "except SimCroPError as e: print(e.code, e)\n"
        )
        second = subprocess.run(
            [sys.executable, "-c", code, str(run.folder)], capture_output=True, text=True
        )
        assert second.stdout.startswith("run-locked")
        assert f"process {os.getpid()}" in second.stdout
        assert os.uname().nodename in second.stdout
        assert run_status(run.folder).state == "running"
        assert run_status(run.folder).process == os.getpid()
    finally:
        run.close()
    assert lock_holder(run.folder / "run.lock") is None
    Run.resume(run.folder).close()


def test_a_killed_run_leaves_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    code = (
        "import sys, os, signal; from pathlib import Path\n"
        "from simcrop_core.train.lock import RunLock\n"
        "RunLock(Path(sys.argv[1])).take(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(path)])
    assert json.loads(path.read_text())["process"] > 0
    assert lock_holder(path) is None
    RunLock(path).take().release()


def test_a_lock_of_another_host_holds_while_it_is_renewed(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    path.write_text(json.dumps({"host": "elsewhere", "process": 7, "since": 0}))
    with pytest.raises(SimCroPError, match="host elsewhere, process 7"):
        RunLock(path).take()
    an_hour_ago = time.time() - 3600
    os.utime(path, (an_hour_ago, an_hour_ago))
    RunLock(path).take().release()


# -- the folder ---------------------------------------------------------------------------------


def test_a_run_is_made_once_and_never_over_other_things(tmp_path: Path, store: Path) -> None:
    config = tiny_config(store)
    run = Run.create(tmp_path / "run", config)
    assert read_run_config(tmp_path / "run") == config
    run.log.write(error_event(0, "other-spec", "The store does not fit."))
    run.close()
    # Refused before its first step: what was wrong may be put right.
    config = tiny_config(store, run={"seed": 3})
    run = Run.create(tmp_path / "run", config)
    assert read_run_config(tmp_path / "run") == config
    assert list(run.events()) == []
    run.log.write(step_event(1, 0.5, {}, 1e-3, 2.0))
    run.close()
    with pytest.raises(SimCroPError, match="a run here already"):
        Run.create(tmp_path / "run", config)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    with pytest.raises(SimCroPError, match="holds other things"):
        Run.create(tmp_path / "other", config)
    with pytest.raises(SimCroPError, match="no run in this folder"):
        Run.resume(tmp_path / "nowhere")
    (tmp_path / "logged").mkdir()
    (tmp_path / "logged" / "log.txt").write_text("who started it keeps what it prints")
    Run.create(tmp_path / "logged", config).close()
    assert (tmp_path / "logged" / "log.txt").read_text().startswith("who")


def test_a_run_killed_while_its_configuration_was_written_is_begun_anew(
    tmp_path: Path, store: Path
) -> None:
    hidden = tmp_path / "run" / ".0123456789ab-config.json"
    hidden.parent.mkdir()
    hidden.write_text('{"for')
    config = tiny_config(store)
    assert Run.check(tmp_path / "run", config, resume=True) is False
    Run.create(tmp_path / "run", config).close()
    assert read_run_config(tmp_path / "run") == config
    assert not hidden.exists()


def test_a_run_killed_before_its_first_step_is_begun_anew(tmp_path: Path, store: Path) -> None:
    config = tiny_config(store)
    Run.create(tmp_path / "run", config).close()
    curves = Curves(tmp_path / "run", 0)
    curves.close()
    assert (tmp_path / "run" / "tensorboard").is_dir()
    changed = tiny_config(store, run={"seed": 3})
    assert Run.check(tmp_path / "run", changed, resume=True) is False
    Run.create(tmp_path / "run", changed).close()
    assert not (tmp_path / "run" / "tensorboard").exists()


def test_whether_a_folder_can_be_trained_in_is_known_before_a_model_is_built(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "build_model", lambda *_: pytest.fail("a model was built"))
    config = tiny_config(store)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    run = Run.create(tmp_path / "run", config)
    run.log.write(step_event(1, 0.5, {}, 1e-3, 2.0))
    run.close()
    for folder, resume, word in (
        (tmp_path / "other", False, "holds other things"),
        (tmp_path / "other" / "thesis.txt" / "run", False, "Nothing can be written"),
        (tmp_path / "run", False, "a run here already"),
        (tmp_path / "run", True, "other settings"),
    ):
        asked = tiny_config(store, run={"seed": 3}) if resume else config
        with pytest.raises(SimCroPError, match=word):
            launch.train(folder, asked, resume=resume)


def test_a_run_goes_on_only_with_what_keeps_its_losses(tmp_path: Path, store: Path) -> None:
    Run.create(tmp_path / "run", tiny_config(store)).close()
    with pytest.raises(SimCroPError, match=r"other settings \(optim.lr, run.seed\)"):
        Run.resume(tmp_path / "run", tiny_config(store, optim={"lr": 1e-2}, run={"seed": 3}))
    with pytest.raises(SimCroPError, match="objective"):
        Run.resume(tmp_path / "run", tiny_config(store, objective={"kind": "simcrop"}))
    freer = tiny_config(store, data={"workers": 3}, run={"keep": 7, "checkpoint_every": 5})
    Run.resume(tmp_path / "run", freer).close()
    assert read_run_config(tmp_path / "run") == freer


def test_stopping_a_run_that_is_not_there_says_so(tmp_path: Path, store: Path) -> None:
    with pytest.raises(SimCroPError, match="no run"):
        request_stop(tmp_path)
    run = Run.create(tmp_path / "run", tiny_config(store))
    assert request_stop(run.folder)
    assert run.stop_requested()
    run.close()
    assert not request_stop(run.folder)
    assert run_status(run.folder).state == "new"


def test_a_run_whose_events_are_lost_stands_where_its_checkpoints_do(
    tmp_path: Path, store: Path
) -> None:
    run = Run.create(tmp_path / "run", tiny_config(store))
    for step in (5, 40):
        (run.folder / "checkpoints" / f"step-{step:08d}").mkdir(parents=True)
    (run.folder / "checkpoints" / "damaged-step-00000099-1").mkdir()
    run.close()
    status = run_status(run.folder)
    assert (status.state, status.step) == ("killed", 40)
    assert status.checkpoint == "checkpoints/step-00000040"


# -- checkpoints --------------------------------------------------------------------------------


@pytest.fixture
def made(tiny_model: SimCroP) -> Checkpoint:
    state = whole_state(tiny_model)
    return Checkpoint(
        step=3,
        config={"name": "tiny"},
        model_config=trained_config(tiny_model.config, "tiny", MaeConfig(), 3),
        model=state,
        objective={},
        optimiser={"exp_avg.model.vision.cls_token": torch.randn(1, 1, 48)},
        loader=[{"epoch": 0, "step": 3}],
        random={"cpu.0": torch.get_rng_state()},
        validation_loss=0.5,
    )


def test_a_checkpoint_is_a_model_folder_and_comes_back_whole(
    tmp_path: Path, made: Checkpoint
) -> None:
    path = write_checkpoint(made, tmp_path)
    assert step_of(path) == 3
    assert not any(name.name.startswith(".") for name in tmp_path.iterdir())
    model = load_model(path)
    assert model.config.provenance.trained == "mae pre-training, run tiny, step 3"
    state = model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in made.model.items())
    back, _ = read_checkpoint(path)
    assert (back.step, back.config, back.loader) == (3, made.config, made.loader)
    assert back.validation_loss == 0.5
    for name in ("optimiser", "random"):
        before, after = getattr(made, name), getattr(back, name)
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before)
    manifest = verify(path)
    assert set(manifest["files"]) == {p.name for p in path.iterdir()} - {"manifest.json"}
    assert all(b"pickle" not in p.read_bytes()[:100] for p in path.iterdir())


@pytest.mark.parametrize("how", ["flip", "shorten", "remove"])
@pytest.mark.parametrize("name", ["model.safetensors", "optimiser.safetensors", "training.json"])
def test_damage_to_any_file_is_found_and_an_older_checkpoint_taken(
    tmp_path: Path, made: Checkpoint, store: Path, name: str, how: str, capsys: Any
) -> None:
    run = Run.create(tmp_path / "run", tiny_config(store))
    older = run.save(made)
    newer = run.save(replace(made, step=6))
    assert run.latest() == newer
    data = bytearray((newer / name).read_bytes())
    data[len(data) // 2] ^= 1
    if how == "flip":
        (newer / name).write_bytes(data)
    elif how == "shorten":
        (newer / name).write_bytes(data[:-1])
    else:
        (newer / name).unlink()
    with pytest.raises(SimCroPError) as refused:
        verify(newer)
    assert refused.value.code == "damaged-checkpoint"
    assert run.latest() == older
    assert "damaged" in capsys.readouterr().err
    # Days of work are not begun anew without a word.
    (older / name).unlink()
    with pytest.raises(SimCroPError, match="none of them is there and whole"):
        run.latest()
    run.close()


@pytest.mark.parametrize("after", range(12))
def test_whatever_moment_saving_breaks_off_the_old_checkpoint_is_whole(
    tmp_path: Path, made: Checkpoint, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    first = write_checkpoint(made, tmp_path)
    again = replace(made, validation_loss=0.1)
    done = 0

    def flush(path: Path) -> None:
        nonlocal done
        done += 1
        if done > after:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints_module, "_flush", flush)
    refusal: SimCroPError | None = None
    try:
        write_checkpoint(again, tmp_path)
    except SimCroPError as e:
        refusal = e
    assert refusal is None or (refusal.code == "save-failed" and disk_is_full(refusal))
    assert (refusal is None) == (done <= after)
    assert checkpoints(tmp_path) == [first]
    assert verify(first)["validation_loss"] in (0.5, 0.1)
    assert not list(tmp_path.glob(".*"))


def test_the_newest_and_the_best_are_kept(tmp_path: Path, made: Checkpoint) -> None:
    losses = [0.9, 0.2, None, 0.5, 0.6]
    for step, loss in enumerate(losses, 1):
        write_checkpoint(replace(made, step=step, validation_loss=loss), tmp_path)
    prune(tmp_path, keep=2)
    assert [step_of(path) for path in checkpoints(tmp_path)] == [2, 4, 5]


def test_a_checkpoint_is_told_once_though_the_disk_was_full_in_between(
    tmp_path: Path, store: Path, made: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.create(tmp_path / "run", tiny_config(store))
    sync, calls = run.log.sync, []

    def full_at_the_second() -> None:
        calls.append(1)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "no room")
        sync()

    monkeypatch.setattr(run.log, "sync", full_at_the_second)
    with pytest.raises(SimCroPError):
        run.save(made)
    run.save(made)
    assert [e["event"] for e in run.events()] == ["checkpoint"]
    run.close()


def test_half_saves_of_killed_runs_are_cleared_away(
    tmp_path: Path, made: Checkpoint, store: Path
) -> None:
    run = Run.create(tmp_path / "run", tiny_config(store))
    path = run.save(made)
    half = path.with_name(".step-00000006.0123abcd.partial")
    half.mkdir()
    (half / "model.safetensors").touch()
    assert run.latest() == path
    assert not half.exists()
    run.close()
