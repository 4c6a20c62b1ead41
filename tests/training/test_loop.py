"""The loop: what steps give, that they come back bit for bit, and what ends a run."""

from __future__ import annotations

import errno
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from boxes import tiny_config
from torch import nn

from simcrop_core.errors import SimCroPError
from simcrop_core.input_spec import InputSpec
from simcrop_core.model import load_model
from simcrop_core.objectives import M3aeConfig, make_objective
from simcrop_core.objectives.base import Ranks
from simcrop_core.objectives.mae import MaeObjective
from simcrop_core.train import checkpoint as checkpoint_module
from simcrop_core.train import loop
from simcrop_core.train.build import build_model
from simcrop_core.train.config import OptimConfig, RunConfig
from simcrop_core.train.data import open_data
from simcrop_core.train.events import read_events
from simcrop_core.train.failures import memory_told, replay_failure
from simcrop_core.train.launch import Outcome, train
from simcrop_core.train.loop import gradient_norm, shorten_gradient
from simcrop_core.train.module import compile_blocks, transformer_blocks
from simcrop_core.train.optimiser import make_optimiser
from simcrop_core.train.status import run_status
from simcrop_core.train.validation import Validation

Configure = Callable[..., RunConfig]


@pytest.fixture
def configure(store: Path, model_folder: Path) -> Configure:
    """A run of twelve steps of MAE from the model on the disk, with changes."""

    def make(**changes: Any) -> RunConfig:
        plain = tiny_config(store, **changes).model_dump(mode="json")
        plain["model"] = {"preset": None, "folder": str(model_folder)}
        return RunConfig.model_validate(plain)

    return make


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [event for event in read_events(folder / "events.jsonl") if event["event"] == kind]


def losses(folder: Path) -> list[tuple[int, float]]:
    return [(event["step"], event["loss"]) for event in events(folder, "step")]


def stop_after(steps: int, folder: Path) -> Callable[[], bool]:
    """Ask to stop within the step of this number."""
    return lambda: len(losses(folder)) >= steps - 1


# -- what a run gives ---------------------------------------------------------------------------

# Of MAE on the boxes, seed 0; made on x86-64. Other processors round differently.
GOLDEN = [
    0.865374,
    0.825919,
    0.767973,
    0.718897,
    0.688011,
    0.649308,
    0.624141,
    0.614293,
    0.592357,
    0.58844,
    0.579099,
    0.58153,
]


def test_a_run_learns_as_it_did_when_this_was_written(tmp_path: Path, configure: Configure) -> None:
    outcome = train(tmp_path / "run", configure())
    assert outcome == Outcome(12, "finished")
    told = losses(tmp_path / "run")
    assert [step for step, _ in told] == list(range(1, 13))
    assert [loss for _, loss in told] == pytest.approx(GOLDEN, rel=2e-3)


def test_a_run_folder_holds_what_it_promises(tmp_path: Path, store: Path) -> None:
    run = tmp_path / "run"
    config = tiny_config(store, objective={"kind": "simcrop", "top_k": 4})
    train(run, config)
    assert run_status(run).state == "finished"
    steps = events(run, "step")
    assert set(steps[0]["terms"]) >= {"image", "align", "report"}
    assert [round(event["lr"] / 1e-3, 6) for event in steps[:3]] == [
        round(1 / 3, 6),
        round(2 / 3, 6),
        1.0,
    ]
    assert steps[-1]["lr"] == 0
    assert all(event["samples_per_s"] > 0 for event in steps)
    validations = events(run, "validation")
    assert [event["step"] for event in validations] == [6, 12]
    assert 0 <= validations[0]["metrics"]["pointing_findings"] <= 1
    assert [e["step"] for e in events(run, "checkpoint")] == [3, 6, 9, 12]
    kept = sorted(path.name for path in (run / "checkpoints").iterdir())
    best = min(validations, key=lambda event: event["loss"])["step"]
    assert kept == sorted({"step-00000009", "step-00000012", f"step-{best:08d}"})
    assert load_model(run / "checkpoints" / "step-00000012").config.is_trained
    for step in (6, 12):
        (picture,) = (run / "previews" / f"step-{step:08d}").iterdir()
        assert picture.name == "box-016.png"
        assert picture.read_bytes()[:4] == b"\x89PNG"
    assert list((run / "tensorboard").iterdir())


def test_the_same_seed_gives_the_same_run_and_another_another(
    tmp_path: Path, configure: Configure
) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(tmp_path / name, configure(run={"steps": 4, "seed": seed}))
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    assert losses(tmp_path / "a") != losses(tmp_path / "c")


# -- going on -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mae", "simcrop"])
def test_a_resumed_run_is_bit_for_bit_the_run_that_was_never_stopped(
    tmp_path: Path, configure: Configure, kind: str
) -> None:
    # Four steps an epoch: stopped after five, which is within the second.
    config = configure(objective={"kind": kind}, run={"steps": 8, "accumulation": 2, "keep": 9})
    train(tmp_path / "whole", config)
    assert train(tmp_path / "parts", config, stop=stop_after(5, tmp_path / "parts")) == Outcome(
        5, "stopped"
    )
    assert run_status(tmp_path / "parts").state == "stopped"
    assert train(tmp_path / "parts", config, resume=True) == Outcome(8, "finished")
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    a, b = (
        [(e["loss"], e["metrics"]) for e in events(tmp_path / name, "validation")]
        for name in ("whole", "parts")
    )
    assert a == b
    for name in ("model", "optimiser", "objective"):
        first, second = (
            (tmp_path / run / "checkpoints/step-00000008" / f"{name}.safetensors").read_bytes()
            for run in ("whole", "parts")
        )
        assert first == second, name


def test_resuming_where_nothing_is_begins_and_a_finished_run_stays_as_it_is(
    tmp_path: Path, configure: Configure
) -> None:
    config = configure(run={"steps": 4})
    assert train(tmp_path / "run", config, resume=True) == Outcome(4, "finished")
    before = losses(tmp_path / "run")
    assert train(tmp_path / "run", config, resume=True) == Outcome(4, "finished")
    assert losses(tmp_path / "run") == before
    with pytest.raises(SimCroPError, match="a run here already"):
        train(tmp_path / "run", config)


def test_a_run_stops_when_its_folder_is_asked_to(tmp_path: Path, configure: Configure) -> None:
    def tell(what: str, done: int, total: int) -> None:
        if done == 4:
            (tmp_path / "run" / "stop").touch()

    assert train(tmp_path / "run", configure(), tell=tell) == Outcome(5, "stopped")
    assert not (tmp_path / "run" / "stop").exists()
    assert (tmp_path / "run" / "checkpoints" / "step-00000005").is_dir()


# -- steps --------------------------------------------------------------------------------------


def test_accumulation_gives_the_loss_of_the_whole_batch(
    tmp_path: Path, configure: Configure
) -> None:
    for parts in (1, 2, 4):
        train(tmp_path / str(parts), configure(run={"steps": 5, "accumulation": parts}))
    whole = [loss for _, loss in losses(tmp_path / "1")]
    for parts in (2, 4):
        assert [x for _, x in losses(tmp_path / str(parts))] == pytest.approx(whole, rel=1e-5)


def test_weights_decay_and_vectors_do_not(tiny_model: nn.Module) -> None:
    optimiser = make_optimiser(tiny_model, OptimConfig(weight_decay=0.3))
    names = {id(parameter): name for name, parameter in tiny_model.named_parameters()}
    decay = {
        names[id(p)]: group["weight_decay"]
        for group in optimiser.param_groups
        for p in group["params"]
    }
    assert set(decay) == set(names.values())
    assert decay["vision.blocks.0.attn.qkv.weight"] == 0.3
    assert decay["vision.blocks.0.attn.qkv.bias"] == 0
    assert decay["vision.blocks.0.norm1.weight"] == 0
    shapes = {name: p.ndim for name, p in tiny_model.named_parameters()}
    assert all((decay[name] == 0.3) == (ndim > 1) for name, ndim in shapes.items())


def test_adamw_has_the_settings_of_the_run() -> None:
    weight = nn.Parameter(torch.tensor([[2.0]]))
    module = nn.Module()
    module.weight = weight
    optimiser = make_optimiser(module, OptimConfig(lr=0.1, beta1=0.5, beta2=0.75, weight_decay=0.2))
    moment = square = 0.0
    value = 2.0
    for step, gradient in enumerate((1.0, -3.0, 0.5), 1):
        weight.grad = torch.tensor([[gradient]])
        optimiser.step()
        moment = 0.5 * moment + 0.5 * gradient
        square = 0.75 * square + 0.25 * gradient**2
        hat, hat2 = moment / (1 - 0.5**step), square / (1 - 0.75**step)
        value = value * (1 - 0.1 * 0.2) - 0.1 * hat / (math.sqrt(hat2) + 1e-8)
        assert weight.item() == pytest.approx(value, rel=1e-5)


def test_a_long_gradient_is_shortened_and_a_short_one_left() -> None:
    module = nn.Linear(3, 2)
    for parameter in module.parameters():
        parameter.grad = torch.full_like(parameter, 2.0)
    norm = gradient_norm(module)
    assert float(norm) == pytest.approx(2 * math.sqrt(8))
    shorten_gradient(module, norm, 100.0)
    assert float(gradient_norm(module)) == pytest.approx(2 * math.sqrt(8))
    shorten_gradient(module, norm, 1.0)
    assert float(gradient_norm(module)) == pytest.approx(1, rel=1e-5)


def test_settings_of_optimiser_and_precision_change_the_run(
    tmp_path: Path, configure: Configure
) -> None:
    changes: dict[str, dict[str, Any]] = {
        "plain": {},
        "clip": {"optim": {"clip_norm": 0.01}},
        "decay": {"optim": {"weight_decay": 5.0}},
        "beta1": {"optim": {"beta1": 0.1}},
        "beta2": {"optim": {"beta2": 0.5}},
        "horizon": {"optim": {"horizon": 4.0}},
        "min_lr": {"optim": {"min_lr": 9e-4}},
        "bf16": {"run": {"precision": "bf16"}},
        "crop": {"data": {"augmentation": {"crop": False}}},
        "held": {"data": {"held_out": 2}},
    }
    seen = []
    for name, change in changes.items():
        change.setdefault("run", {})
        change["run"] |= {"steps": 5, "checkpoint_every": 99, "validate_every": 99}
        train(tmp_path / name, configure(**change))
        seen.append(tuple(loss for _, loss in losses(tmp_path / name)))
    assert len(set(seen)) == len(changes)


def test_each_transformer_block_is_compiled_by_itself(
    tiny_model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled.append(self))
    compile_blocks(tiny_model)
    assert compiled == list(transformer_blocks(tiny_model))
    assert len(compiled) == 2 + 1 + 1  # encoder, image decoder, text decoder
    co_attention = make_objective(M3aeConfig(depth=3, image_layer=1), tiny_model)
    assert len(list(transformer_blocks(co_attention))) == 2 * 3


def test_validation_is_due_every_so_often_and_at_the_end() -> None:
    validation = Validation(every=4, previews=0)
    assert [s for s in range(1, 11) if validation.due(s, last=s == 10)] == [4, 8, 10]


# -- what ends a run ----------------------------------------------------------------------------


def break_at(monkeypatch: pytest.MonkeyPatch, call: int, make: Callable[[Any], Any]) -> None:
    """Change what the objective gives the ``call``-th time."""
    whole = MaeObjective.forward
    calls = 0

    def forward(self: Any, *given: Any) -> Any:
        nonlocal calls
        calls += 1
        losses = whole(self, *given)
        return make(losses) if calls == call else losses

    monkeypatch.setattr(MaeObjective, "forward", forward)


def spoil(losses: Any) -> Any:
    return replace(
        losses, total=losses.total * float("nan"), terms={"image": losses.total * float("inf")}
    )


def test_a_loss_that_is_no_number_is_no_step_and_can_be_replayed(
    tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    train(tmp_path / "whole", configure())
    with monkeypatch.context() as patch:
        break_at(patch, 5, spoil)
        with pytest.raises(SimCroPError) as refused:
            train(run, configure())
    assert refused.value.code == "loss-not-finite"
    assert "Step 5" in str(refused.value)
    assert "image" in str(refused.value)
    assert [step for step, _ in losses(run)] == [1, 2, 3, 4]
    (error,) = events(run, "error")
    assert (error["step"], error["code"]) == (4, "loss-not-finite")
    assert run_status(run).state == "failed"
    # What is kept gives the loss that the step has when nothing is spoilt.
    (folder,) = (run / "failures").iterdir()
    (replayed,) = replay_failure(folder)
    assert replayed["loss"] == pytest.approx(dict(losses(tmp_path / "whole"))[5], rel=1e-6)
    # And the run goes on from its newest checkpoint as if nothing had been.
    train(run, configure(), resume=True)
    assert losses(run) == losses(tmp_path / "whole")
    assert not events(run, "error")


def test_a_gradient_that_is_no_number_is_no_step(
    tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    def steep(losses: Any) -> Any:
        # Finite itself; its derivative is 0 * inf.
        return replace(losses, total=losses.total + ((losses.total * 0).abs().sqrt()))

    break_at(monkeypatch, 2, steep)
    with pytest.raises(SimCroPError, match=r"Step 2 gave no finite loss \(the gradient\)"):
        train(tmp_path / "run", configure())


def test_a_full_disk_pauses_the_run_with_all_checkpoints_intact(
    tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, said, full = tmp_path / "run", [], []
    write = checkpoint_module._fill

    def fill(checkpoint: Any, hidden: Path) -> None:
        write(checkpoint, hidden)
        if checkpoint.step == 6 and len(full) < 3:
            full.append(sorted(p.name for p in (run / "checkpoints").glob("step-*")))
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint_module, "_fill", fill)
    monkeypatch.setattr(loop, "PAUSE_S", 0.01)
    outcome = train(run, configure(), tell=lambda what, done, total: said.append(what))
    assert outcome == Outcome(12, "finished")
    assert full == [["step-00000003"]] * 3
    assert sum("disk" in what and "full" in what for what in said) == 1
    (error,) = events(run, "error")
    assert error["code"] == "disk-full"
    assert "pauses at step 6" in error["message"]
    train(tmp_path / "whole", configure())
    assert losses(run) == losses(tmp_path / "whole")


def test_a_run_that_is_stopped_while_the_disk_is_full_says_what_is_not_saved(
    tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(checkpoint: Any, hidden: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint_module, "_fill", fill)
    monkeypatch.setattr(loop, "PAUSE_S", 0.01)
    with pytest.raises(SimCroPError, match="step 3 is not saved"):
        train(tmp_path / "run", configure(), stop=stop_after(3, tmp_path / "run"))


def test_running_out_of_memory_names_what_was_asked_and_proposes(
    tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    def greedy(losses: Any) -> Any:
        return torch.empty(1 << 60)

    break_at(monkeypatch, 2, greedy)
    with pytest.raises(SimCroPError) as refused:
        train(tmp_path / "run", configure())
    text = str(refused.value)
    assert refused.value.code == "out-of-memory"
    assert "4 studies of 27 patches" in text
    assert f"{4 * 24 * 24 * 12 * 4:,} bytes" in text
    assert "Set run.accumulation to 2" in text
    assert events(tmp_path / "run", "error")[0]["code"] == "out-of-memory"
    assert [step for step, _ in losses(tmp_path / "run")] == [1]  # and nothing is tried again


def test_memory_on_a_gpu_and_in_python_is_told_alike(configure: Configure) -> None:
    run = configure(run={"batch_size": 3, "accumulation": 3}).run
    for error in (torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB."), MemoryError()):
        with (
            pytest.raises(SimCroPError, match=r"1 studies of 2744 patches.*run\.precision"),
            memory_told(run, InputSpec()),
        ):
            raise error
    with pytest.raises(RuntimeError, match="other"), memory_told(run, InputSpec()):
        raise RuntimeError("other")


def test_a_damaged_study_is_replaced_and_listed_and_two_end_the_run(
    tmp_path: Path, configure: Configure, store: Path
) -> None:
    own = tmp_path / "store"
    shutil.copytree(store, own)
    config = configure(data={"store": str(own)})
    train(tmp_path / "whole", config)
    volumes = sorted(own.glob("volumes/*/*.blosc2"))
    trained = [path for path in volumes if int(path.stem[-3:]) < 16]
    trained[0].write_bytes(trained[0].read_bytes()[:-5])
    for name in ("a", "b"):
        assert train(tmp_path / name, config) == Outcome(12, "finished")
    assert losses(tmp_path / "a") == losses(tmp_path / "b") != losses(tmp_path / "whole")
    lines = (tmp_path / "a" / "quarantine.jsonl").read_text().splitlines()
    assert [json.loads(line)["study"] for line in lines] == [trained[0].stem]
    trained[1].unlink()
    with pytest.raises(SimCroPError) as refused:
        train(tmp_path / "c", config)
    assert refused.value.code == "too-many-damaged"
    assert events(tmp_path / "c", "error")[0]["code"] == "too-many-damaged"


def test_shuffled_reports_belong_to_other_scans(store: Path, tmp_path: Path) -> None:
    """The control that shows what is learnt without a scan: whole reports, each once, moved."""
    config = tiny_config(store, data={"shuffle_reports": True})
    model = build_model(config.model, 0)
    data = open_data(config, model.config, store, tmp_path, Ranks())
    raw = next(iter(data.loader))
    shuffled = data.batch(raw, torch.device("cpu"))
    data.shuffle_reports = False
    right = data.batch(raw, torch.device("cpu"))
    other = [1, 2, 3, 0]
    for name in ("volume_B1HWD", "seeds_B", "index_B"):
        assert torch.equal(getattr(shuffled, name), getattr(right, name)), name
    for name in ("sentences_BSD", "tokens_BL", "report_BD", "region_BSN", "facts_BFSL"):
        assert torch.equal(getattr(shuffled, name), getattr(right, name)[other]), name
    assert not torch.equal(shuffled.report_BD, right.report_BD)
    held = data.held_out_batch(raw, torch.device("cpu"))
    assert torch.equal(held.report_BD, right.report_BD)  # validation is never shuffled


def test_data_that_do_not_fit_are_refused(tmp_path: Path, configure: Configure) -> None:
    with pytest.raises(SimCroPError, match="22 studies, and 22 are to be held out"):
        train(tmp_path / "a", configure(data={"held_out": 22}))
    with pytest.raises(SimCroPError):
        train(tmp_path / "b", configure(data={"store": str(tmp_path / "nowhere")}))
    assert events(tmp_path / "b", "error")
