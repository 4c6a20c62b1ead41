"""``simcrop phantom``."""

from __future__ import annotations

import argparse
from pathlib import Path

from simcrop_core.cli.terminal import answer


def run_phantom(arguments: argparse.Namespace) -> int:
    from simcrop_core.phantoms.files import refuse, write_phantom

    out = Path(arguments.out)
    seeds = range(arguments.seed, arguments.seed + (arguments.count or 1))
    # One phantom lies in the folder itself; several, each in a folder of its own.
    folders = [out if arguments.count is None else out / f"phantom-{seed:06d}" for seed in seeds]
    for folder in folders:
        refuse(folder, overwrite=arguments.overwrite)
    facts, lines = [], []
    for seed, folder in zip(seeds, folders, strict=True):
        study = write_phantom(folder, seed, overwrite=arguments.overwrite)
        there = [name for name, label in study.facts.labels().items() if label == 1]
        facts.append({"seed": seed, "folder": str(folder), "findings": there})
        lines.append(f"Written: {folder} (artificial; {', '.join(there) or 'no finding'})")
    answer(arguments, {"phantoms": facts}, lines)
    return 0
