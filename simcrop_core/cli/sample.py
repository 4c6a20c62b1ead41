"""``simcrop sample``."""

from __future__ import annotations

import argparse
from pathlib import Path

from simcrop_core.cli.terminal import answer


def run_sample(arguments: argparse.Namespace) -> int:
    from simcrop_core.io import write_volume
    from simcrop_core.outputs import refuse_existing, whole_folder
    from simcrop_core.sample import sample_study

    out = Path(arguments.out)
    refuse_existing((out / "ct.nii.gz", out / "report.txt"), overwrite=arguments.overwrite)
    study = sample_study()
    assert study.report is not None
    with whole_folder(out) as hidden:
        write_volume(hidden / "ct.nii.gz", study.volume)
        (hidden / "report.txt").write_text(f"{study.report.text}\n", encoding="utf-8")
    facts = {"ct": str(out / "ct.nii.gz"), "report": str(out / "report.txt")}
    answer(arguments, facts, [f"Written: {facts['ct']} and {facts['report']} (artificial)"])
    return 0
