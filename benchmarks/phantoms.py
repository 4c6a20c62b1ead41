"""How many phantoms a second one core makes, on the model's grid and on a coarse one.

    python benchmarks/phantoms.py [--json PATH] [--seeds N] [--repeats N]

For each grid: studies (scan, findings, report, regions) and the same without findings, a second of
processor time of one core, as the mean over seeds of the best of several runs; and the peak memory
of the process. Each row is measured in a process of its own with one thread. The machine's load is
written down too: processors that share a core or a cache with other work are slower.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
GRIDS = {"model": ((224, 224, 112), (1.5, 1.5, 3.0)), "coarse": ((96, 72, 48), (4.0, 4.0, 6.0))}


def measure(grid: str, findings: bool, seeds: int, repeats: int) -> dict[str, Any]:
    """One row: processor seconds by seed, the best of several runs."""
    from simcrop_core.input_spec import InputSpec
    from simcrop_core.phantoms import study
    from simcrop_core.phantoms.plan import PhantomPlan, plan_phantom

    if not findings:

        def bare(seed: int) -> PhantomPlan:
            return replace(plan_phantom(seed), findings=())

        study.plan_phantom = bare
    shape, spacing_mm = GRIDS[grid]
    spec = InputSpec(shape=shape, spacing_mm=spacing_mm, patch_shape=(8, 8, 8))
    study.make_phantom(10**6, study.prepared_grid(10**6, spec))  # what the first call imports
    best_s = []
    for seed in range(seeds):
        where = study.prepared_grid(seed, spec)
        runs = []
        for _ in range(repeats):
            start = time.process_time()
            study.make_phantom(seed, where)
            runs.append(time.process_time() - start)
        best_s.append(min(runs))
    mean_s = sum(best_s) / len(best_s)
    return {
        "grid": grid,
        "shape": list(shape),
        "spacing_mm": list(spacing_mm),
        "findings": findings,
        "seeds": seeds,
        "repeats": repeats,
        "studies_per_core_second": round(1 / mean_s, 3),
        "mean_s": round(mean_s, 3),
        "fastest_s": round(min(best_s), 3),
        "slowest_s": round(max(best_s), 3),
        "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--json", type=Path, help="write the rows here, too")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--row", nargs=2, metavar=("GRID", "FINDINGS"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.row:
        grid, findings = given.row
        print(json.dumps(measure(grid, findings == "yes", given.seeds, given.repeats)))
        return
    environment = os.environ | dict.fromkeys(ONE_THREAD, "1")
    load_before, rows = os.getloadavg()[0], []
    print(f"{'grid':8}{'findings':>10}{'studies/s':>11}{'mean s':>8}{'range s':>14}{'MiB':>7}")
    for grid in GRIDS:
        for findings in ("yes", "no"):
            command = [sys.executable, __file__, "--row", grid, findings]
            command += ["--seeds", str(given.seeds), "--repeats", str(given.repeats)]
            run = subprocess.run(
                command, env=environment, check=True, stdout=subprocess.PIPE, text=True
            )
            row = json.loads(run.stdout.splitlines()[-1])
            rows.append(row)
            span = f"{row['fastest_s']:.2f} to {row['slowest_s']:.2f}"
            print(
                f"{grid:8}{findings:>10}{row['studies_per_core_second']:11.2f}"
                f"{row['mean_s']:8.2f}{span:>14}{row['peak_memory_mib']:7d}"
            )
    load = [round(load_before, 2), round(os.getloadavg()[0], 2)]
    print(f"load before and after: {load[0]}, {load[1]} on {os.cpu_count()} cores")
    if given.json:
        machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
        table = {"machine": machine, "load_before_and_after": load, "rows": rows}
        given.json.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
