"""The process in which foreign checkpoints are opened: ``python -m ... import_child FILE FOLDER``.

Writes ``weights.safetensors`` and ``report.json`` into FOLDER. Only torch's restricted unpickler is
used, with a short list of harmless further classes; this process holds itself to limits of memory,
time and written bytes before it opens the file, so that a hostile one can do no more than fail.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import re
import sys
import types
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

MIB = 1 << 20
WRAPPERS = ("model", "state_dict", "model_state_dict")
PREFIXES = ("module.", "_orig_mod.")


class RefusedError(Exception):
    """What is wrong with the checkpoint, for the parent process to say."""

    def __init__(self, code: str, problem: str) -> None:
        super().__init__(problem)
        self.code, self.problem = code, problem


def main(source: Path, folder: Path) -> None:
    """Read ``source`` and leave the outcome in ``folder``."""
    try:
        import torch

        torch.set_num_threads(1)
        _limit_resources(source.stat().st_size)
        report = convert(source, folder)
    except RefusedError as e:
        report = {"code": e.code, "problem": e.problem}
    except MemoryError:
        report = {
            "code": "import-limits",
            "problem": "Reading it needed more memory than a file of its size should",
        }
    (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")


def _limit_resources(file_bytes: int) -> None:
    """Cap memory, processor time and written bytes in proportion to the file's size."""
    try:
        import resource
    except ImportError:  # not a POSIX system: the parent's time limit remains
        return
    seconds = 60 + file_bytes // (20 * MIB)
    limits = {
        "RLIMIT_CPU": seconds,
        "RLIMIT_FSIZE": 4 * file_bytes + 64 * MIB,
        "RLIMIT_CORE": 0,
    }
    with contextlib.suppress(OSError, ValueError):  # only Linux tells what is mapped already
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limits["RLIMIT_AS"] = pages * resource.getpagesize() + 6 * file_bytes + 512 * MIB
    for name, limit in limits.items():
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        allowed = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(kind, (allowed, allowed))


def _harmless_classes() -> list[Any]:
    """What MAE-style checkpoints hold beside tensors: options, paths, numpy numbers."""
    import numpy as np

    scalar = np.float64(0).__reduce__()[0]
    return [
        argparse.Namespace,
        types.SimpleNamespace,
        # Paths are rebuilt as pure ones, which also exist on the other operating system.
        (PurePosixPath, "pathlib.PosixPath"),
        (PurePosixPath, "pathlib._local.PosixPath"),
        (PurePosixPath, "pathlib.PurePosixPath"),
        (PurePosixPath, "pathlib._local.PurePosixPath"),
        (PureWindowsPath, "pathlib.WindowsPath"),
        (PureWindowsPath, "pathlib._local.WindowsPath"),
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
        np.dtype,
        *[
            getattr(np.dtypes, name)
            for name in ("BoolDType", "Int32DType", "Int64DType", "Float32DType", "Float64DType")
        ],
    ]


def _load(source: Path) -> Any:
    import pickle
    import zipfile

    import torch

    with source.open("rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"
    try:
        if is_zip:  # torch compares no checksum in a file that it maps
            with zipfile.ZipFile(source) as packed:
                if packed.testzip() is not None:
                    raise zipfile.BadZipFile("a checksum does not match")
        with torch.serialization.safe_globals(_harmless_classes()):
            return torch.load(source, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as e:
        text = str(e)
        if "tar" in text and "legacy" in text:
            raise RefusedError(
                "legacy-tar", "It is in the tar format of very old torch versions"
            ) from e
        named = re.search(r"GLOBAL ([\w.]{1,100})", text)
        what = f", which asks for {named.group(1)}," if named else ""
        raise RefusedError(
            "unsafe-pickle",
            f"It holds more than weights{what} and opening it could run foreign code",
        ) from e
    except MemoryError:
        raise
    except Exception as e:  # whatever a broken or hostile file provokes, inside this process
        text = str(e)
        if "TorchScript" in text:
            raise RefusedError(
                "torchscript", "It is a TorchScript program, not a checkpoint"
            ) from e
        if "memory" in text.casefold() or "mmap" in text.casefold():
            raise RefusedError(
                "import-limits", "Reading it needed more memory than a file of its size should"
            ) from e
        raise RefusedError("not-a-checkpoint", "It is damaged or not a torch checkpoint") from e


def _state_dict(loaded: Any) -> tuple[dict[str, Any], str]:
    """The weights within a checkpoint, names without wrapping prefixes, and where they were."""
    wrapper = ""
    if isinstance(loaded, dict):
        for name in WRAPPERS:
            if isinstance(loaded.get(name), dict):
                loaded, wrapper = loaded[name], name
                break
    if not isinstance(loaded, dict):
        raise RefusedError("no-weights", "It holds no dictionary of weights")
    return without_prefixes({str(name): value for name, value in loaded.items()}), wrapper


def without_prefixes(state: dict[str, Any]) -> dict[str, Any]:
    """Names without what DDP and torch.compile put before all of them, in any nesting."""
    while state:
        common = [p for p in PREFIXES if all(name.startswith(p) for name in state)]
        if not common:
            break
        state = {name[len(common[0]) :]: value for name, value in state.items()}
    return state


def convert(source: Path, folder: Path) -> dict[str, Any]:
    """Write the weights in ``source`` as safetensors; where they lay and what else there was."""
    import torch
    from safetensors.torch import save_file

    state, wrapper = _state_dict(_load(source))
    weights, other = {}, []
    for name, value in state.items():
        if (
            isinstance(value, torch.Tensor)
            and value.layout == torch.strided
            and value.device.type == "cpu"
            and value.is_floating_point()
        ):
            weights[name] = value
        else:
            other.append(name)
    if not weights:
        raise RefusedError("no-weights", "It holds no weights")
    # A few stored bytes can be declared as a huge tensor: refuse before anything is copied.
    declared = sum(4 * math.prod(value.shape) for value in weights.values())
    if declared > 4 * source.stat().st_size + 16 * MIB:
        raise RefusedError("declares-too-much", "It declares far more weights than it holds")
    copies = {
        name: torch.empty(value.shape, dtype=torch.float32).copy_(value.detach())
        for name, value in weights.items()
    }
    try:
        save_file(copies, folder / "weights.safetensors")
    except OSError as e:
        raise RefusedError(
            "disk-full", "Its weights could not be written to the temporary disk"
        ) from e
    return {"wrapper": wrapper, "other": other}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
