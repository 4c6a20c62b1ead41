"""``simcrop-train status``, ``stop`` and ``compare``: runs seen from outside."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from simcrop_core.cli.terminal import answer
from simcrop_core.errors import SimCroPError
from simcrop_core.train.events import EVENTS_NAME, read_events
from simcrop_core.train.run import read_run_config
from simcrop_core.train.settings import fields_of
from simcrop_core.train.status import RunStatus, request_stop, run_status

_POLL_S = 0.2


def run_status_of(arguments: argparse.Namespace) -> int:
    """Say how a run stands."""
    status = run_status(arguments.dir)
    lines = [f"{status.name}: {status.state} at step {status.step}"]
    if status.host:
        lines.append(f"  by process {status.process} on {status.host}")
    if status.loss is not None:
        rate = f", {status.samples_per_s:.1f} samples/s" if status.samples_per_s else ""
        lines.append(f"  loss {status.loss:.4f}{rate}")
    if status.validation_loss is not None:
        lines.append(f"  validation loss {status.validation_loss:.4f}")
    lines.append(f"  newest checkpoint: {status.checkpoint or 'none yet'}")
    if status.error:
        lines.append(f"  {status.error}")
    answer(arguments, asdict(status), lines)
    return 0


def run_stop(arguments: argparse.Namespace) -> int:
    """Ask a run to stop, and wait for it if told."""
    running = request_stop(arguments.dir)
    if not running:
        answer(arguments, {"running": False}, ["No run is going on in this folder."])
        return 0
    end = time.monotonic() + arguments.wait
    while arguments.wait and time.monotonic() < end:
        if run_status(arguments.dir).state != "running":
            break
        time.sleep(_POLL_S)
    else:
        if arguments.wait:
            raise SimCroPError(
                f"The run did not end within {arguments.wait:g} seconds; it is still asked to",
                code="still-running",
                remedy="See simcrop-train status.",
                path=arguments.dir,
            )
    status = run_status(arguments.dir)
    text = (
        "The run finishes its step, saves and ends."
        if status.state == "running"
        else f"The run {status.state} after step {status.step}."
    )
    answer(arguments, {"running": status.state == "running", "step": status.step}, [text])
    return 0


def run_compare(arguments: argparse.Namespace) -> int:
    """Print a table of runs."""
    folders = list({Path(folder).resolve(): Path(folder) for folder in arguments.dirs}.values())
    rows = [_row(folder) for folder in folders]
    metrics = sorted({name for row in rows for name in row["metrics"]})
    head = ["run", "recipe", "state", "step", "loss", "validation", *metrics, "samples/s"]
    table = [head]
    for row in rows:
        cells = [row["folder"], row["name"], row["state"], str(row["step"])]
        cells += [_number(row["loss"]), _number(row["validation_loss"])]
        cells += [_number(row["metrics"].get(name)) for name in metrics]
        table.append([*cells, _number(row["samples_per_s"])])
    widths = [max(len(line[column]) for line in table) for column in range(len(head))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in table
    ]
    differences = _differences(folders)
    if differences:
        lines += ["", "settings that differ:"]
        lines += [
            f"  {path}: {', '.join(map(str, values))}" for path, values in differences.items()
        ]
    answer(arguments, {"runs": rows, "differences": differences}, lines)
    return 0


def _row(folder: Path) -> dict[str, Any]:
    status: RunStatus = run_status(folder)
    metrics: dict[str, float] = {}
    for event in read_events(folder / EVENTS_NAME):
        if event["event"] == "validation":
            metrics = event.get("metrics", {})
    return {"folder": str(folder), **asdict(status), "metrics": metrics}


def _differences(folders: list[Path]) -> dict[str, list[Any]]:
    """Fields that are not the same in all runs, with the value in each."""
    values = [{f["path"]: f["default"] for f in fields_of(read_run_config(p))} for p in folders]
    paths = [path for path in dict.fromkeys(p for one in values for p in one) if path != "name"]
    found = {path: [one.get(path) for one in values] for path in paths}
    return {path: row for path, row in found.items() if any(v != row[0] for v in row)}


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
