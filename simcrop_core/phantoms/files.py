"""A phantom as a folder of files."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path

import numpy as np

from simcrop_core.geometry import Grid
from simcrop_core.io.write import write_labels, write_volume
from simcrop_core.outputs import refuse_existing, refuse_file, refuse_unwritable, whole_folder
from simcrop_core.phantoms.language_sentences import Wording
from simcrop_core.phantoms.study import make_phantom, survey
from simcrop_core.phantoms.truth import mask_file, truth_of
from simcrop_core.study import Study

#: What a phantom's folder holds, beside ``masks``.
FILES = ("ct.nii.gz", "report.txt", "structures.nii.gz", "structures.json", "truth.json")


def write_phantom(
    folder: str | PathLike[str],
    seed: int,
    *,
    grid: Grid | None = None,
    wording: Wording = "auto",
    overwrite: bool = False,
) -> Study:
    """Make a phantom and write it: scan, report, structures, masks and ``truth.json``.

    The folder appears whole or not at all. Same seed, same bytes.

    Parameters
    ----------
    grid, wording
        As :func:`~simcrop_core.phantoms.study.make_phantom`.
    overwrite
        Replace an earlier phantom.

    Raises
    ------
    SimCroPError
        ``exists``, ``not-a-folder``, ``not-a-file`` or ``cannot-write``.
    """
    out = Path(folder)
    refuse(out, overwrite=overwrite)
    study = make_phantom(seed, grid, wording)
    assert study.report is not None
    assert study.structures_XYZ is not None
    scan = study.volume.grid
    with whole_folder(out, (*FILES, "masks")) as hidden:
        write_volume(hidden / "ct.nii.gz", study.volume)
        names = dict(enumerate(study.structure_names, 1))
        write_labels(hidden / "structures.nii.gz", study.structures_XYZ, scan, names)
        for region in study.regions:
            mask = study.regions[region].view(np.uint8)
            write_labels(hidden / mask_file(region), mask, scan)
        (hidden / "report.txt").write_text(f"{study.report.text}\n", encoding="utf-8")
        truth = json.dumps(truth_of(study, survey(seed).plan), ensure_ascii=False, indent=1)
        (hidden / "truth.json").write_text(f"{truth}\n", encoding="utf-8")
    return study


def refuse(folder: Path, *, overwrite: bool) -> None:
    """Refuse to write a phantom where a file or an earlier phantom is."""
    refuse_unwritable(folder)
    refuse_existing([folder / name for name in FILES], overwrite=overwrite)
    refuse_file(folder / "masks")
