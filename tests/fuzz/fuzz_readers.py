"""What is called for each kind of input, and a digest of everything that came of it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from fuzz_process import Read

#: The row of a csv of reports that is asked for.
VOLUME_NAME = "train_1_a_1.nii.gz"


def digest(parts: Iterable[Any]) -> str:
    """SHA-256 over arrays, with type and shape, and the representation of all else."""
    whole = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            whole.update(repr((part.dtype.str, part.shape)).encode())
            whole.update(part.tobytes(order="F"))
        else:
            whole.update(repr(part).encode(errors="surrogatepass"))
        whole.update(b"\0")
    return whole.hexdigest()


def _notes(notes: Iterable[Any]) -> tuple[tuple[str, str], ...]:
    return tuple((note.code, note.text) for note in notes)


def _volume(path: Path, **options: Any) -> Read:
    from simcrop_core.io import read_volume

    volume = read_volume(path, **options)
    repr(volume)
    return Read(digest([volume.hu_XYZ, volume.grid.affine]), _notes(volume.notes))


def volume(path: Path) -> Read:
    return _volume(path)


def volume_permissive(path: Path) -> Read:
    """With everything allowed that a person can allow."""
    return _volume(path, allow_missing_geometry=True, allow_any_modality=True)


def series_permissive(path: Path) -> Read:
    return _volume(path, fill_gaps=True, allow_any_modality=True)


def stated_volume(path: Path) -> Read:
    return _volume(path, spacing_mm=(8.0, 9.0, 9.0), axcodes="SPL")


def labels(path: Path) -> Read:
    from simcrop_core.io import read_labels

    values, grid = read_labels(path)
    return Read(digest([values, grid.affine]))


def report(path: Path) -> Read:
    from simcrop_core.report import read_report

    name = VOLUME_NAME if path.suffix == ".csv" else None
    found = read_report(path, volume_name=name)
    for sentence in found.sentences:
        start, end = sentence.span
        assert found.text[start:end] == sentence.text
    return Read(
        digest([found.text, *found.sections, *found.sentences]),
        _notes(found.notes),
    )


def model_folder(path: Path) -> Read:
    from simcrop_core.model import load_model

    model = load_model(path)
    settings = [model.config.identity(), *_weights(model)]
    return Read(digest([*settings, model.config.model_dump_json()]), (), digest(settings))


def checkpoint(path: Path) -> Read:
    """The child process that opens the file is forked, with its limits: no new interpreter.

    The text encoder is one that is not on this machine, so that none is loaded.
    """
    from simcrop_core.model import foreign, import_checkpoint

    foreign.subprocess = SimpleNamespace(  # type: ignore[assignment]
        run=_import_in_fork,
        DEVNULL=subprocess.DEVNULL,
        PIPE=subprocess.PIPE,
        TimeoutExpired=subprocess.TimeoutExpired,
    )
    model, said = import_checkpoint(path, text_encoder="nobody/no-encoder")
    shown = (said.depth, said.width, said.heads, said.grid_shape, said.unused, said.initialised)
    return Read(digest([*shown, *_weights(model)]), _notes(said.notes))


def _import_in_fork(command: list[str], **_: Any) -> Any:
    from simcrop_core.model import import_child

    source, folder = Path(command[-2]), Path(command[-1])
    child = os.fork()
    if child == 0:
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
            import_child.main(source, folder)
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    return SimpleNamespace(returncode=os.waitstatus_to_exitcode(status), stderr=b"")


def _weights(model: Any) -> list[Any]:
    return [part for name, t in model.state_dict().items() for part in (name, t.numpy())]


def encoded(path: Path) -> Read:
    from simcrop_core.encoded import Encoded

    found = Encoded.load(path)
    assert found.patches_ND.ndim == 2
    assert found.patches_ND.shape[0] == len(found.patches) == len(found.inside_N)
    return Read(
        digest([found.patches_ND, found.inside_N, found.patches.affine, found.patches.patch_shape,
                found.volume, found.volume.grid.shape, found.model_id, found.placement,
                found.precision])
    )  # fmt: skip


def alignment(path: Path) -> Read:
    """Read, and used as a figure or a viewer uses it."""
    from simcrop_core.alignment_result import AlignmentResult

    found = AlignmentResult.read(path)
    for sentence in range(len(found.sentences)):
        found.overlay(sentence)
        found.top(sentence, 3)
    return Read(
        digest([found.similarity_SN, found.top_SK, found.inside_N, found.to_dict(),
                found.volume.grid.shape, found.model_id])
    )  # fmt: skip


def manifest(path: Path) -> Read:
    from simcrop_core.batch import read_manifest

    return Read(digest(read_manifest(path)))


READERS: dict[str, Callable[[Path], Read]] = {
    "volume": volume,
    "volume_permissive": volume_permissive,
    "series_permissive": series_permissive,
    "stated_volume": stated_volume,
    "labels": labels,
    "report": report,
    "model_folder": model_folder,
    "checkpoint": checkpoint,
    "encoded": encoded,
    "alignment": alignment,
    "manifest": manifest,
}


def preload() -> None:
    """Import what the readers import when they are first used, once for all forked processes."""
    import gdcm  # noqa: F401
    import nibabel  # noqa: F401
    import pydicom.pixels  # noqa: F401
    import torch

    import simcrop_core.batch
    import simcrop_core.io.dicom
    import simcrop_core.io.metaimage
    import simcrop_core.io.nifti
    import simcrop_core.io.npz
    import simcrop_core.io.nrrd
    import simcrop_core.model
    import simcrop_core.model.foreign
    import simcrop_core.model.import_child
    import simcrop_core.report
    import simcrop_core.report_csv
    import simcrop_core.report_sr  # noqa: F401

    torch.set_num_threads(1)
    sys.stdout.flush()
