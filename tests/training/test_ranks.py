"""Several processes: two give what one with the doubled batch gives; one that dies ends all.

They speak by gloo.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from boxes import tiny_config
from lightning.fabric.strategies import DDPStrategy, ModelParallelStrategy
from processes import start
from safetensors.torch import load_file, save_file
from simcrop_training.recipes import recipe

from simcrop_core.errors import SimCroPError
from simcrop_core.input_spec import InputSpec
from simcrop_core.model import ModelConfig, VisionConfig, load_model, new_model
from simcrop_core.model.simcrop import SimCroP
from simcrop_core.objectives import make_objective
from simcrop_core.objectives.base import Ranks
from simcrop_core.train.build import build_model, is_large
from simcrop_core.train.checkpoint import whole
from simcrop_core.train.config import RunConfig
from simcrop_core.train.data import open_data
from simcrop_core.train.devices import SUPERVISED, make_fabric
from simcrop_core.train.events import read_events
from simcrop_core.train.launch import tell_lost_process, train
from simcrop_core.train.loop import gradient_norm
from simcrop_core.train.module import (
    TrainingModule,
    average_scalars,
    compile_blocks,
    fields_of_batch,
    is_sharded,
)
from simcrop_core.train.run import Run
from simcrop_core.train.supervisor import supervise

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
KINDS = ("mae", "mrm", "m3ae", "simcrop", "ct_clip", "m3d_clip", "grounded", "grounded_cells")
#: Of the model, where it is not that of the other objectives.
MODELS: dict[str, dict[str, Any]] = {
    "grounded": {"projection_width": 16, "presence": {"of": "statement"}},
    "grounded_cells": {
        "projection_width": 16,
        "presence": {"of": "statement"},
        "text_centred": True,
        "vision": {"stem": "conv", "stem_width": 8, "cells": (2, 2, 2), "cell_width": 16},
    },
}


def in_ranks(count: int, do: Callable[[int], None]) -> list[int | None]:
    """Run something in several processes; their exit codes, negative for signals."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = []
    for rank in range(count):
        environ = {
            SUPERVISED: "1",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "WORLD_SIZE": str(count),
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "NODE_RANK": "0",
        }
        children.append(start(partial(do, rank), environ))
    deadline = time.monotonic() + 180
    for child in children:
        child.join(max(0.0, deadline - time.monotonic()))
        if child.is_alive():  # its code is then that of the signal, and the test fails
            child.kill()
            child.join()
    return [child.exitcode for child in children]


def settings(store: Path, kind: str, **run: Any) -> RunConfig:
    objective: dict[str, Any] = {"kind": kind.removesuffix("_cells")}
    if kind == "m3ae":
        objective |= {"depth": 1, "image_layer": 1}
    return tiny_config(store, objective=objective, model=MODELS.get(kind, {}), run=run)


# -- gradients ----------------------------------------------------------------------------------


def write_gradients(
    store: Path,
    folder: Path,
    built: dict[str, SimCroP],
    world_size: int,
    strategy: str,
    kinds: tuple[str, ...] = KINDS,
    compiled: bool = False,
) -> None:
    """Loss, gradients and their length of the first batch by every objective, from rank 0."""
    run = {"devices": world_size, "strategy": strategy}
    fabric = make_fabric(settings(store, "mae", **run).run, large=False)
    fabric.launch()
    ranks = Ranks(fabric.global_rank, fabric.world_size)
    for kind in kinds:
        config = settings(store, kind, **run)
        model = new_model(built[kind].config, 0)
        model.use_text_encoder(built["mae"].text)
        data = open_data(config, model.config, store, folder, ranks)
        if model.config.text_centred:
            model.set_text_mean(data.sentence_mean())
        objective = make_objective(config.objective, model)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(objective.trains(name))
        module = TrainingModule(model, objective, ranks).train()
        if compiled:
            compile_blocks(module)
        wrapped = fabric.setup_module(module)
        assert is_sharded(module) == (strategy == "fsdp")
        batch = data.batch(next(iter(data.loader)), fabric.device)
        total, _ = wrapped(fields_of_batch(batch))
        fabric.backward(total)
        average_scalars(module)
        found = whole((n, p.grad) for n, p in module.named_parameters() if p.grad is not None)
        norm = gradient_norm(module)
        mean = total.detach().clone()
        if world_size > 1:
            torch.distributed.all_reduce(mean)
        found |= {"loss": mean / world_size, "length": norm}
        if ranks.rank == 0:
            name = f"{strategy}-compiled" if compiled else strategy
            save_file(found, folder / f"{name}-{world_size}-{kind}.safetensors")


@pytest.fixture(scope="module")
def gradients(store: Path, tiny_model: SimCroP, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gradients")
    built = dict.fromkeys(KINDS, tiny_model)
    built |= {kind: build_model(settings(store, kind).model, 0) for kind in MODELS}
    assert in_ranks(1, lambda _: write_gradients(store, folder, built, 1, "auto")) == [0]
    for strategy in ("ddp", "fsdp"):
        codes = in_ranks(2, lambda _, s=strategy: write_gradients(store, folder, built, 2, s))
        assert codes == [0, 0], strategy
    return folder


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_give_the_gradients_of_one_with_the_doubled_batch(
    gradients: Path, kind: str, strategy: str
) -> None:
    compare(gradients, kind, strategy)


def compare(gradients: Path, kind: str, strategy: str) -> None:
    """Loss and gradients of two processes with those of one."""
    one = load_file(gradients / f"auto-1-{kind}.safetensors")
    two = load_file(gradients / f"{strategy}-2-{kind}.safetensors")
    assert one.keys() == two.keys()
    assert len(one) > 20
    longest = float(one["length"])
    assert longest > 0
    for name, gradient in one.items():
        torch.testing.assert_close(
            two[name], gradient, rtol=2e-4, atol=1e-5 * longest, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="compiling needs a C++ compiler"
)
@pytest.mark.slow
def test_blocks_that_are_compiled_and_shared_out_give_the_same_gradients(
    gradients: Path, store: Path, tiny_model: SimCroP, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")

    def work(_: int) -> None:
        built = {"mae": tiny_model}
        write_gradients(store, gradients, built, 2, "fsdp", ("mae",), compiled=True)

    assert in_ranks(2, work) == [0, 0]
    compare(gradients, "mae", "fsdp-compiled")


# -- whole runs ---------------------------------------------------------------------------------


def losses(run: Path) -> list[float]:
    events = read_events(run / "events.jsonl")
    return [event["loss"] for event in events if event["event"] == "step"]


def test_a_run_of_two_shared_out_is_the_run_of_one_and_its_checkpoints_are_whole(
    store: Path, tmp_path: Path
) -> None:
    one = settings(store, "mae", steps=9, accumulation=2, keep=9)
    two = settings(store, "mae", steps=9, accumulation=2, keep=9, devices=2, strategy="fsdp")
    run, alone = tmp_path / "two", tmp_path / "one"
    assert in_ranks(1, lambda _: train(alone, one) and None) == [0]
    stop = lambda: len(losses(run)) >= 5  # noqa: E731
    assert in_ranks(2, lambda _: train(run, two, stop=stop) and None) == [0, 0]
    assert 6 <= len(losses(run)) < 9
    name = "checkpoints/step-00000006"
    a, b = load_model(alone / name), load_model(run / name)
    for (key, left), right in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-4, msg=key)
    # What two shared out, one process goes on with.
    assert in_ranks(1, lambda _: train(run, one, resume=True) and None) == [0]
    assert losses(run) == pytest.approx(losses(alone), rel=1e-5)


def test_a_run_of_two_goes_on_bit_for_bit(store: Path, tmp_path: Path) -> None:
    config = settings(store, "mae", steps=6, devices=2, checkpoint_every=2, keep=9)

    def stopped(rank: int) -> None:
        run = tmp_path / "parts"
        # Only one of them is asked; they agree.
        train(run, config, stop=lambda: rank == 1 and len(losses(run)) >= 2)

    assert in_ranks(2, lambda _: train(tmp_path / "whole", config) and None) == [0, 0]
    assert in_ranks(2, stopped) == [0, 0]
    assert len(losses(tmp_path / "parts")) < 6
    again = lambda _: train(tmp_path / "parts", config, resume=True) and None  # noqa: E731
    assert in_ranks(2, again) == [0, 0]
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")


def test_all_processes_agree_that_a_loss_is_no_number(store: Path, tmp_path: Path) -> None:
    from simcrop_core.objectives.mae import MaeObjective

    config = settings(store, "mae", steps=6, devices=2)

    def spoilt(rank: int) -> None:
        whole_forward = MaeObjective.forward
        calls = 0

        def forward(self: Any, *given: Any) -> Any:
            nonlocal calls
            calls += 1
            found = whole_forward(self, *given)
            if rank == 1 and calls == 3:
                return type(found)(found.total * float("nan"), found.terms)
            return found

        MaeObjective.forward = forward  # type: ignore[method-assign]
        with pytest.raises(SimCroPError, match="Step 3 gave no finite loss"):
            train(tmp_path / "run", config)

    assert in_ranks(2, spoilt) == [0, 0]
    assert len(losses(tmp_path / "run")) == 2
    (failure,) = (tmp_path / "run" / "failures").iterdir()
    assert len(list(failure.glob("batch-rank-*.safetensors"))) == 2


def test_when_one_process_dies_the_other_ends_and_the_run_goes_on_later(
    store: Path, tmp_path: Path
) -> None:
    config = settings(store, "mae", steps=6, devices=2, checkpoint_every=2)
    run = tmp_path / "run"

    def dies(rank: int) -> None:
        def stop() -> bool:
            if rank == 1 and len(losses(run)) >= 3:
                os.kill(os.getpid(), signal.SIGKILL)
            return False

        train(run, config, stop=stop)

    assert in_ranks(2, dies) == [1, -signal.SIGKILL]
    assert in_ranks(2, lambda _: train(run, config, resume=True) and None) == [0, 0]
    assert in_ranks(2, lambda _: train(tmp_path / "whole", config) and None) == [0, 0]
    assert losses(run) == losses(tmp_path / "whole")


@pytest.mark.parametrize("where", ["latest", "keep"])
def test_what_fails_on_the_first_process_alone_leaves_no_other_waiting(
    store: Path, tmp_path: Path, where: str
) -> None:
    """A disk that fails where the first process reads, or where a failed step is to be kept."""
    from simcrop_core.objectives.mae import MaeObjective
    from simcrop_core.train import loop

    config = settings(store, "mae", steps=6, devices=2)
    codes: dict[str, tuple[Any, Any]] = {
        "latest": ("disk-failed", 2),
        "keep": ("loss-not-finite", "loss-not-finite"),
    }

    def work(rank: int) -> None:
        def fail(*given: Any) -> Any:
            raise OSError(errno.EIO, "Input/output error")

        whole_forward = MaeObjective.forward

        def forward(self: Any, *given: Any) -> Any:
            found = whole_forward(self, *given)
            return type(found)(found.total * float("nan"), found.terms)

        if where == "latest":
            Run.latest = fail  # type: ignore[method-assign]
        else:
            MaeObjective.forward = forward  # type: ignore[method-assign]
            if rank == 0:
                loop.write_checkpoint = fail
        with pytest.raises((SimCroPError, SystemExit)) as ended:
            train(tmp_path / "run", config)
        assert ended.value.code == codes[where][rank]
        assert where == "latest" or "could not be kept" in str(ended.value)

    started = time.monotonic()
    assert in_ranks(2, work) == [0, 0]
    assert time.monotonic() - started < 120  # and not until the collective gives up


def test_two_processes_break_off_a_validation_together(store: Path, tmp_path: Path) -> None:
    config = settings(store, "mae", steps=4, validate_every=3, devices=2, keep=9)
    run = tmp_path / "run"

    def work(rank: int) -> None:
        # Only one of them is asked, and only once the step before the validation was taken.
        train(run, config, stop=lambda: rank == 1 and len(losses(run)) >= 3)

    assert in_ranks(2, work) == [0, 0]
    kinds = [event["event"] for event in read_events(run / "events.jsonl")]
    assert "validation" not in kinds
    assert kinds[-1] == "end"
    assert in_ranks(2, lambda _: train(run, config, resume=True) and None) == [0, 0]
    found = [e["step"] for e in read_events(run / "events.jsonl") if e["event"] == "validation"]
    assert found == [3, 4]
    assert in_ranks(2, lambda _: train(tmp_path / "whole", config) and None) == [0, 0]
    assert losses(run) == losses(tmp_path / "whole")


# -- the supervisor -----------------------------------------------------------------------------


def script(body: str) -> list[str]:
    head = "import os, sys, time, signal\nrank = int(os.environ['RANK'])\n"
    return [sys.executable, "-c", head + body]


def test_a_process_that_dies_is_named_and_the_others_are_ended(tmp_path: Path) -> None:
    command = script("if rank == 1: os.kill(os.getpid(), 9)\ntime.sleep(600)")
    started = time.monotonic()
    with pytest.raises(SimCroPError, match=r"Process 1 of the run \(.*\) was killed by SIGKILL"):
        supervise(command, 3, grace_s=0.2)
    assert time.monotonic() - started < 60
    (tmp_path / "events.jsonl").write_text(json.dumps({"event": "step", "step": 4}) + "\n")
    refusal = SimCroPError("Process 1 died", code="rank-died", remedy="Resume")
    tell_lost_process(tmp_path, refusal)
    assert list(read_events(tmp_path / "events.jsonl"))[-1]["code"] == "rank-died"


def test_refusals_and_good_ends_of_processes_are_passed_on() -> None:
    assert supervise(script("assert os.environ['WORLD_SIZE'] == '2'"), 2) == 0
    assert supervise(script("sys.exit(2 if rank == 0 else 3)"), 2, grace_s=0.2) == 2


def test_a_wish_to_stop_reaches_all_processes(tmp_path: Path) -> None:
    body = (
        "signal.signal(signal.SIGTERM, lambda *a: sys.exit(0))\n"
        f"open({str(tmp_path)!r} + f'/{{rank}}', 'w').close()\n"
        "time.sleep(600)"
    )
    assert supervise(script(body), 2, stopping=lambda: len(list(tmp_path.iterdir())) == 2) == 0


def test_large_models_are_shared_out_and_others_held_by_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    large, paper = recipe("simcrop-large"), recipe("simcrop-paper")
    sizes = {"paper": VisionConfig(), "large": VisionConfig(depth=24, width=1024, heads=16)}
    configs = {
        name: ModelConfig(name=name, input_spec=InputSpec(), vision=vision)
        for name, vision in sizes.items()
    }
    assert large.model.changes()["vision"] == {"depth": 24, "width": 1024, "heads": 16}
    assert is_large(configs["large"])
    assert not is_large(configs["paper"])
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv(SUPERVISED, "1")
    run = large.run.model_copy(update={"accelerator": "cpu"})
    assert isinstance(make_fabric(run, large=True).strategy, ModelParallelStrategy)
    assert isinstance(make_fabric(run, large=False).strategy, DDPStrategy)
    ddp = run.model_copy(update={"strategy": "ddp"})
    assert isinstance(make_fabric(ddp, large=True).strategy, DDPStrategy)
    assert paper.run.strategy == "auto"


def test_a_run_for_other_processes_than_there_are_is_refused(store: Path, tmp_path: Path) -> None:
    with pytest.raises(SimCroPError, match="1 x 2 processes and 1 were started"):
        train(tmp_path / "run", settings(store, "mae", devices=2))
    if not torch.cuda.is_available():
        with pytest.raises(SimCroPError, match="1 GPU"):
            train(tmp_path / "run", settings(store, "mae", accelerator="cuda"))
