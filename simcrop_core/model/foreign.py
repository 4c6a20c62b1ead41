"""Weights from files of others: safetensors directly, pickled ones through a child process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from simcrop_core.errors import SimCroPError
from simcrop_core.model.import_child import without_prefixes
from simcrop_core.model.weights_file import read_header

_RESAVE = (
    "Save only its weights anew, with torch.save of a dictionary of tensors, and import that file."
)
_REMEDIES = {
    "unsafe-pickle": "Do not open it elsewhere unless you trust its origin. " + _RESAVE,
    "legacy-tar": _RESAVE,
    "torchscript": _RESAVE,
    "no-weights": "Choose the checkpoint that the training wrote.",
    "disk-full": "Free some space and import it again.",
}


@dataclass(frozen=True, slots=True)
class ForeignWeights:
    """What a foreign file held.

    Attributes
    ----------
    tensors
        Weights by name, float32.
    other
        Names of entries that are no weights.
    wrapper
        The entry of the checkpoint in which the weights lay; empty where they lay bare.
    """

    tensors: Mapping[str, Tensor]
    other: tuple[str, ...] = ()
    wrapper: str = ""


def read_foreign_weights(path: Path) -> ForeignWeights:
    """Read the weights in a safetensors file or a torch checkpoint; nothing in it is ever run.

    Raises
    ------
    SimCroPError
        The file is missing, damaged, holds more than weights, or needs more memory or time than
        a file of its size should.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would never answer
            raise OSError
        with path.open("rb") as file:
            start = file.read(16)
            size = os.fstat(file.fileno()).st_size
    except OSError as e:
        raise SimCroPError(
            "The checkpoint cannot be read",
            code="unreadable",
            remedy="Check that the path names a file that you may read.",
            path=path,
        ) from e
    if size == 0:
        raise SimCroPError(
            "The checkpoint is empty",
            code="not-a-checkpoint",
            remedy="Get the file again from its source.",
            path=path,
        )
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < size:
        return _read_safetensors(path)
    return _read_in_child(path, size)


def _read_safetensors(path: Path) -> ForeignWeights:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    read_header(path)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError, RuntimeError) as e:
        raise SimCroPError(
            "The weights are damaged or cut off",
            code="damaged-weights",
            remedy="Get the file again from its source.",
            path=path,
        ) from e
    tensors = without_prefixes(tensors)
    return ForeignWeights(
        {name: t.float() for name, t in tensors.items() if t.is_floating_point()},
        tuple(name for name, t in tensors.items() if not t.is_floating_point()),
    )


def _read_in_child(path: Path, size: int) -> ForeignWeights:
    from safetensors.torch import load_file

    # The child must find this package where the parent did, and nothing in the current folder.
    root = str(Path(__file__).resolve().parents[2])
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [root, environment.get("PYTHONPATH", "")])
    )
    environment.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory(prefix="simcrop-import-", ignore_cleanup_errors=True) as temp:
        command = [sys.executable, "-P", "-m", "simcrop_core.model.import_child"]
        try:
            child = subprocess.run(
                [*command, str(path.resolve()), temp],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=environment,
                timeout=180 + size / (10 << 20),
                check=False,
            )
        except subprocess.TimeoutExpired as e:
            raise _beyond_limits(path) from e
        try:
            report = json.loads((Path(temp) / "report.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as e:
            if child.returncode > 0:  # it failed by itself: an installation that cannot start it
                last = child.stderr.decode(errors="replace").strip().splitlines()[-1:]
                raise SimCroPError(
                    f"The process that opens checkpoints failed: {' '.join(last)}",
                    code="import-failed",
                    remedy="Check the installation and import the checkpoint again.",
                    path=path,
                ) from e
            raise _beyond_limits(path) from e
        if "code" in report:
            raise SimCroPError(
                report["problem"],
                code=report["code"],
                remedy=_REMEDIES.get(report["code"], "Get the file again from its source."),
                path=path,
            )
        tensors = load_file(Path(temp) / "weights.safetensors")
        if os.name == "nt":  # a mapped file cannot be deleted there
            tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    return ForeignWeights(tensors, tuple(report["other"]), report["wrapper"])


def _beyond_limits(path: Path) -> SimCroPError:
    return SimCroPError(
        "Reading it needed more memory or time than a file of its size should",
        code="import-limits",
        remedy="Get the file again from its source, and do not open it elsewhere unless you "
        "trust it.",
        path=path,
    )
