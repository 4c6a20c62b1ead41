"""Where a run computes: Lightning Fabric for devices, precision and strategy."""

from __future__ import annotations

import logging
import os
from datetime import timedelta
from functools import partial
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.fabric.strategies import DDPStrategy, ModelParallelStrategy

from simcrop_core.device import resolve_precision
from simcrop_core.errors import SimCroPError
from simcrop_core.train.config import RunSettings
from simcrop_core.train.module import shard

#: Set for processes that :func:`simcrop_core.train.supervisor.supervise` starts.
SUPERVISED = "SIMCROP_SUPERVISED"
# Rank 0 may prepare data while the others wait.
_TIMEOUT = timedelta(hours=6)


def accelerator_of(run: RunSettings) -> str:
    """``cpu`` or ``cuda``."""
    if run.accelerator == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return run.accelerator


def make_fabric(run: RunSettings, *, large: bool) -> Fabric:
    """Fabric as a run asks for it, not launched yet.

    Parameters
    ----------
    run
        Settings.
    large
        Whether the model is to be shared out where the strategy is ``auto``.

    Raises
    ------
    SimCroPError
        There are fewer devices than asked for, or the processes were not started.
    """
    accelerator = accelerator_of(run)
    if accelerator == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if found < run.devices:
            raise SimCroPError(
                f"{run.devices} GPU(s) were asked for and {found} found",
                code="no-such-device",
                remedy="Lower run.devices, or set run.accelerator to cpu.",
            )
    _refuse_misstart(run)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)  # it tells of every process
    bf16 = resolve_precision(torch.device(accelerator), run.precision) == "bf16"
    sharded = run.strategy == "fsdp" or (run.strategy == "auto" and large)
    strategy: Any = "auto"
    if run.world_size > 1 and sharded:
        strategy = ModelParallelStrategy(
            partial(_shard, bf16=bf16),
            data_parallel_size=run.world_size,
            tensor_parallel_size=1,
            timeout=_TIMEOUT,
        )
    elif run.world_size > 1:
        strategy = DDPStrategy(
            # Some objectives leave parts of the model alone, and some batches others.
            find_unused_parameters=True,
            gradient_as_bucket_view=True,
            timeout=_TIMEOUT,
        )
    # A single process, and those of our own supervisor, are no matter of a cluster's scheduler.
    ours = run.world_size == 1 or SUPERVISED in os.environ
    return Fabric(
        accelerator=accelerator,
        devices=run.devices,
        num_nodes=run.nodes,
        strategy=strategy,
        precision="bf16-mixed" if bf16 else "32-true",
        plugins=[LightningEnvironment()] if ours else None,
    )


def _shard(module: torch.nn.Module, mesh: Any, *, bf16: bool) -> torch.nn.Module:
    return shard(module, mesh["data_parallel"], bf16=bf16)


def started_by_launcher() -> bool:
    """Whether this is one of several processes that torchrun or our supervisor started."""
    return "LOCAL_RANK" in os.environ and "WORLD_SIZE" in os.environ


def _refuse_misstart(run: RunSettings) -> None:
    started = int(os.environ.get("WORLD_SIZE", 1)) if started_by_launcher() else 1
    if started != run.world_size:
        raise SimCroPError(
            f"The run asks for {run.nodes} x {run.devices} processes and {started} were started",
            code="other-world-size",
            remedy="Start it with `simcrop-train run` on one computer, or with the scripts of "
            "training/launch on several, and set run.devices and run.nodes to match.",
        )
