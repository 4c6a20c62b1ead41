"""Disks that are full or fail, rotten old checkpoints, and wishes to stop at odd moments."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from boxes import tiny_config

from simcrop_core.errors import SimCroPError
from simcrop_core.model import save_model
from simcrop_core.model.simcrop import SimCroP
from simcrop_core.model.text_folder import locate_text_encoder
from simcrop_core.objectives import MaeConfig
from simcrop_core.objectives.m3ae import M3aeObjective
from simcrop_core.objectives.mae import MaeObjective
from simcrop_core.store import open_store
from simcrop_core.store.place import locked
from simcrop_core.train import checkpoint as checkpoint_module
from simcrop_core.train import loop
from simcrop_core.train.build import build_model, trained_config
from simcrop_core.train.checkpoint import (
    Checkpoint,
    checkpoints,
    prune,
    step_of,
    verify,
    whole_state,
    write_checkpoint,
)
from simcrop_core.train.config import RunConfig
from simcrop_core.train.events import EventLog, disk_is_full, end_event, read_events
from simcrop_core.train.failures import replay_failure
from simcrop_core.train.launch import Outcome, train
from simcrop_core.train.run import Run
from simcrop_core.train.status import run_status
from simcrop_core.train.validation import Validation

Configure = Callable[..., RunConfig]


@pytest.fixture
def configure(store: Path, model_folder: Path) -> Configure:
    """A run of six steps of MAE from the model on the disk, with changes."""

    def make(**changes: Any) -> RunConfig:
        changes["run"] = {"steps": 6, "validate_every": 3, **changes.get("run", {})}
        plain = tiny_config(store, **changes).model_dump(mode="json")
        plain["model"] = {"preset": None, "folder": str(model_folder)}
        return RunConfig.model_validate(plain)

    return make


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [event for event in read_events(folder / "events.jsonl") if event["event"] == kind]


def losses(folder: Path) -> list[tuple[int, float]]:
    return [(event["step"], event["loss"]) for event in events(folder, "step")]


def validations(folder: Path) -> list[tuple[int, float, dict[str, float]]]:
    return [(e["step"], e["loss"], e["metrics"]) for e in events(folder, "validation")]


# -- the disk -----------------------------------------------------------------------------------

_FILLS_THE_DISK = """
import json, os, sys
from pathlib import Path
from simcrop_core.train import loop
from simcrop_core.train.config import RunConfig
from simcrop_core.train.launch import train

loop.PAUSE_S = 0.05
place, config = Path(sys.argv[1]), RunConfig.model_validate_json(sys.argv[2])
filler, said = place / "filler", []

def tell(what, done, total):
    if done == 4 and not filler.exists():
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
    if "is full" in what:
        said.append(what)
        filler.write_bytes(b"")

outcome = train(place / "run", config, tell=tell)
left = [p.name for p in (place / "run" / "checkpoints").iterdir()]
events = (place / "run" / "events.jsonl").read_text()
print(json.dumps({"step": outcome.step, "said": said, "left": sorted(left), "events": events}))
"""


def test_a_run_waits_on_a_disk_that_is_really_full(tmp_path: Path, configure: Configure) -> None:
    """On a small file system of its own; the checkpoints' writer then tells by a text only."""
    config = configure()
    place = tmp_path / "small"
    place.mkdir()
    mount = f"mount -t tmpfs -o size=24m none {place} && "
    if (
        shutil.which("unshare") is None
        or subprocess.run(
            ["unshare", "-rm", "sh", "-c", f"{mount} true"], capture_output=True
        ).returncode
    ):
        pytest.skip("a small file system cannot be mounted here (no user namespaces)")
    done = subprocess.run(
        [
            *("unshare", "-rm", "sh", "-c", f'{mount} exec "$@"', "sh"),
            *(sys.executable, "-c", _FILLS_THE_DISK, str(place), config.model_dump_json()),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert told["step"] == 6
    assert len(told["said"]) == 1
    assert told["left"] == ["step-00000003", "step-00000006"]
    found = [json.loads(line) for line in told["events"].splitlines()]
    assert [e["code"] for e in found if e["event"] == "error"] == ["disk-full"]
    train(tmp_path / "whole", config)
    steps = [(e["step"], e["loss"]) for e in found if e["event"] == "step"]
    assert steps == losses(tmp_path / "whole")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_refuses_to_sync_the_events_pauses_or_ends_the_run(
    tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    run, calls = tmp_path / "run", []
    monkeypatch.setattr(loop, "PAUSE_S", 0.01)

    def sync(self: EventLog) -> None:
        calls.append(self.path)
        if len(calls) in (3, 4):  # twice at the second checkpoint
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(EventLog, "sync", sync)
    if number == errno.ENOSPC:
        assert train(run, configure()) == Outcome(6, "finished")
        (error,) = events(run, "error")
        assert error["code"] == "disk-full"
        return
    with pytest.raises(SimCroPError) as refused:
        train(run, configure())
    assert refused.value.code == "disk-failed"
    assert os.strerror(errno.EIO) in str(refused.value)
    assert [e["code"] for e in events(run, "error")] == ["disk-failed"]
    monkeypatch.undo()
    assert train(run, configure(), resume=True) == Outcome(6, "finished")
    train(tmp_path / "whole", configure())
    assert losses(run) == losses(tmp_path / "whole")


def test_events_that_found_no_room_are_written_before_a_sync_and_at_the_end(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "e")
    real = log._file

    class Full:
        def write(self, data: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        def fileno(self) -> int:
            return real.fileno()

        def close(self) -> None:
            real.close()

    log._file = Full()  # type: ignore[assignment]
    log.write(end_event(1, "a"))
    with pytest.raises(OSError, match="No space"):
        log.sync()  # nothing is acknowledged that the events do not know
    log._file = real
    log.sync()
    assert [event["step"] for event in read_events(tmp_path / "e")] == [1]
    log._file = Full()  # type: ignore[assignment]
    log.write(end_event(2, "b"))
    log.close()


def test_a_folder_that_fails_when_a_run_goes_on_is_one_sentence(
    tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path / "run", configure())

    def latest(self: Run) -> None:
        raise OSError(errno.EIO, "Input/output error", str(self.folder / "checkpoints"))

    monkeypatch.setattr(Run, "latest", latest)
    with pytest.raises(SimCroPError, match="checkpoints: The system refused") as refused:
        train(tmp_path / "run", configure(), resume=True)
    assert refused.value.code == "disk-failed"


def test_a_failed_step_that_cannot_be_kept_is_still_told_of(
    tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, save = MaeObjective.forward, checkpoint_module.save_file

    def forward(self: Any, *given: Any) -> Any:
        found = whole(self, *given)
        return replace(found, total=found.total * float("nan"))

    def full(tensors: Any, path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(MaeObjective, "forward", forward)
    monkeypatch.setattr("simcrop_core.train.failures.save_file", full)
    with pytest.raises(SimCroPError) as refused:
        train(tmp_path / "run", configure())
    assert refused.value.code == "loss-not-finite"
    assert "could not be kept" in str(refused.value)
    assert "No space left" in str(refused.value)
    assert "replay" not in str(refused.value)
    assert checkpoint_module.save_file is save
    kept = tmp_path / "run" / "failures" / "after-00000000"
    assert not kept.exists() or not list(kept.iterdir())


def test_what_safetensors_says_of_a_full_disk_is_understood() -> None:
    from safetensors import SafetensorError

    text = "Error while serializing: I/O error: No space left on device (os error 28)"
    refusal = SimCroPError("It failed", code="save-failed", remedy="Wait")
    refusal.__cause__ = SafetensorError(text)
    assert disk_is_full(refusal)
    refusal.__cause__ = SafetensorError("Error while serializing: (os error 5)")
    assert not disk_is_full(refusal)


# -- old checkpoints ----------------------------------------------------------------------------


@pytest.fixture
def made(tiny_model: SimCroP) -> Checkpoint:
    return Checkpoint(
        step=1,
        config={"name": "tiny"},
        model_config=trained_config(tiny_model.config, "tiny", MaeConfig(), 1),
        model=whole_state(tiny_model),
        objective={},
        optimiser={},
        loader=[{"epoch": 0, "step": 1}],
    )


@pytest.mark.parametrize("rot", ["{", '{"format": "other"}', None, "[]", "loss"])
def test_an_old_checkpoint_that_cannot_be_read_is_left_and_told_of_once(
    tmp_path: Path,
    made: Checkpoint,
    store: Path,
    capsys: pytest.CaptureFixture[str],
    rot: str | None,
) -> None:
    run = Run.create(tmp_path / "run", tiny_config(store))  # keeps two
    place = run.folder / "checkpoints"
    old = run.save(made)
    manifest = old / "manifest.json"
    if rot is None:
        manifest.unlink()
    elif rot == "loss":
        data = json.loads(manifest.read_text())
        manifest.write_text(json.dumps(data | {"validation_loss": "low"}))
    else:
        manifest.write_text(rot)
    for step in (2, 3, 4, 5):
        run.save(replace(made, step=step, validation_loss=float(step)))
    assert [step_of(path) for path in checkpoints(place)] == [1, 2, 4, 5]  # 2 is the best
    assert (old / "model.safetensors").exists()
    assert capsys.readouterr().err.count(f"{old} is left as it is.") == 1
    assert [e["step"] for e in events(run.folder, "checkpoint")] == [1, 2, 3, 4, 5]
    run.close()


def test_a_checkpoint_that_cannot_be_removed_ends_nothing(
    tmp_path: Path, made: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2, 3):
        write_checkpoint(replace(made, step=step), tmp_path)

    def stuck(path: Path) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(checkpoint_module, "_remove", stuck)
    (left,) = prune(tmp_path, keep=2)
    assert left[0].name == "step-00000001"
    assert "busy" in left[1]
    verify(left[0])


# -- wishes to stop -----------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["first batch", "pointing", "the end"])
def test_a_validation_is_broken_off_and_made_up_for(
    tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    objective = {"kind": "simcrop", "top_k": 4}
    config = configure(objective=objective)
    train(tmp_path / "whole", config)
    asked = False

    def ask(name: str, at_step: int) -> None:
        from simcrop_core.train import validation

        inner = getattr(validation, name)

        def asking(*given: Any) -> Any:
            nonlocal asked
            training = next(iter(seen))
            asked = asked or training.step == at_step
            return inner(*given)

        monkeypatch.setattr(validation, name, asking)

    seen: list[Any] = []
    call = Validation.__call__

    def calls(self: Validation, training: Any) -> Any:
        seen[:] = [training]
        return call(self, training)

    monkeypatch.setattr(Validation, "__call__", calls)
    step = 6 if moment == "the end" else 3
    ask("_similarity" if moment == "pointing" else "fields_of_batch", step)
    run = tmp_path / "run"
    assert train(run, config, stop=lambda: asked) == Outcome(step, "stopped")
    assert run_status(run).state == "stopped"
    assert [at for at, *_ in validations(run)] == ([3] if step == 6 else [])
    assert (run / "checkpoints" / f"step-{step:08d}").is_dir()
    monkeypatch.undo()
    assert train(run, config, resume=True) == Outcome(6, "finished")
    assert losses(run) == losses(tmp_path / "whole")
    assert validations(run) == validations(tmp_path / "whole")
    for name in ("model", "optimiser"):
        first, second = (
            (tmp_path / one / "checkpoints/step-00000006" / f"{name}.safetensors").read_bytes()
            for one in ("whole", "run")
        )
        assert first == second, name
    manifest = verify(run / "checkpoints" / f"step-{step:08d}")
    assert manifest["validation_loss"] == {a: b for a, b, _ in validations(run)}[step]


@pytest.mark.parametrize("how", ["signal", "folder"])
def test_phantoms_are_made_until_somebody_asks_to_stop(
    tmp_path: Path, store: Path, how: str
) -> None:
    run, told = tmp_path / "run", []
    plain = tiny_config(store).model_dump(mode="json")
    plain["data"] = {"phantoms": 5, "held_out": 2, "workers": 2}
    plain["optim"]["warmup"] = 1
    plain["run"] |= {"steps": 2, "batch_size": 1, "validate_every": 9, "previews": 0}
    config = RunConfig.model_validate(plain)

    def tell(what: str, done: int, total: int) -> None:
        told.append((what, done))
        if how == "folder" and done == 2:
            (run / "stop").touch()

    stop = lambda: how == "signal" and ("preparing studies", 2) in told  # noqa: E731
    assert train(run, config, stop=stop, tell=tell) == Outcome(0, "stopped")
    assert told[-1] == ("preparing studies", 2)
    assert len(list((run / "phantoms").glob("records/*/*.safetensors"))) == 2
    assert (run_status(run).state, run_status(run).step) == ("stopped", 0)
    told.clear()
    assert train(run, config, resume=True) == Outcome(2, "finished")
    assert len(open_store(run / "phantoms")) == 5
    assert [step for step, _ in losses(run)] == [1, 2]


def test_runs_that_share_phantoms_wait_for_each_other(tmp_path: Path, store: Path) -> None:
    plain = tiny_config(store).model_dump(mode="json")
    plain["data"] = {"phantoms": 3, "held_out": 1, "phantom_folder": str(tmp_path / "shared")}
    plain["optim"]["warmup"] = 1
    plain["run"] |= {"steps": 2, "batch_size": 1, "validate_every": 9, "previews": 0}
    config = RunConfig.model_validate(plain)
    other, told = ExitStack(), []

    def tell(what: str, done: int, total: int) -> None:
        told.append(what)
        if "waiting" in what:
            other.close()

    other.enter_context(locked(tmp_path / "shared"))
    assert train(tmp_path / "run", config, tell=tell) == Outcome(2, "finished")
    assert told[0] == "waiting for another run's phantoms"
    assert len(open_store(tmp_path / "shared")) == 3


def test_sentences_are_read_until_somebody_asks_to_stop(tmp_path: Path, store: Path) -> None:
    told = []
    config = tiny_config(store, model={"text_centred": True})
    stop = lambda: "reading sentences" in told  # noqa: E731
    tell = lambda what, done, total: told.append(what)  # noqa: E731
    assert train(tmp_path / "run", config, stop=stop, tell=tell) == Outcome(0, "stopped")
    assert train(tmp_path / "run", config, resume=True).reason == "finished"


# -- replaying ----------------------------------------------------------------------------------


def test_a_failed_step_is_replayed_with_the_text_encoder_of_the_run(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, here = tmp_path / "gone", tmp_path / "here"
    gone.symlink_to(locate_text_encoder("minilm"))
    own = {"text_encoder": str(gone), "text": {"sentence_vector": "mean"}}
    model = build_model(tiny_config(store, model=own).model, 0)
    save_model(model, tmp_path / "model")
    gone.rename(here)  # as when a model is taken to another computer
    plain = tiny_config(
        store, objective={"kind": "m3ae", "depth": 1, "image_layer": 1}, run={"steps": 4}
    ).model_dump(mode="json")
    plain["model"] = {
        "preset": None,
        "folder": str(tmp_path / "model"),
        "text_encoder": str(here),
    }
    whole = M3aeObjective.forward

    def forward(self: Any, *given: Any) -> Any:
        found = whole(self, *given)
        return replace(found, total=found.total * float("nan"))

    with monkeypatch.context() as patch, pytest.raises(SimCroPError) as refused:
        patch.setattr(M3aeObjective, "forward", forward)
        train(tmp_path / "run", RunConfig.model_validate(plain))
    assert refused.value.code == "loss-not-finite"
    (folder,) = (tmp_path / "run" / "failures").iterdir()
    (replayed,) = replay_failure(folder)
    assert torch.tensor(replayed["loss"]).isfinite()
    here.rename(tmp_path / "elsewhere")
    (again,) = replay_failure(folder, text_encoder=str(tmp_path / "elsewhere"))
    assert again == replayed
    with pytest.raises(SimCroPError):
        list(replay_failure(folder))
