"""The header of a safetensors file, read without torch and within limits."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from simcrop_core.errors import SimCroPError

_MAX_HEADER_BYTES = 32 << 20
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1,
          "U8": 1, "BOOL": 1}  # fmt: skip


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Type and shape of a tensor, as the header declares them."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def values(self) -> int:
        return math.prod(self.shape)


def read_header(path: Path) -> dict[str, StoredTensor]:
    """Names, types and shapes of the tensors in a safetensors file.

    Raises
    ------
    SimCroPError
        The file cannot be read, is no safetensors file, or is shorter or longer than its header
        declares.
    """
    try:
        with path.open("rb") as file:
            file_bytes = file.seek(0, 2)
            file.seek(0)
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(file_bytes - 8, _MAX_HEADER_BYTES):
                raise _damaged(path)
            header = json.loads(file.read(length))
    except OSError as e:
        raise SimCroPError(
            "The weights cannot be read",
            code="unreadable",
            remedy="Check that the file exists and that you may read it.",
            path=path,
        ) from e
    except (ValueError, RecursionError) as e:
        if isinstance(e, SimCroPError):
            raise
        raise _damaged(path) from e
    try:
        tensors, end = {}, 0
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            tensor = StoredTensor(entry["dtype"], tuple(int(n) for n in entry["shape"]))
            begin, stop = entry["data_offsets"]
            if min(tensor.shape, default=0) < 0 or begin < 0:
                raise _damaged(path)
            if stop - begin != tensor.values * _BYTES[tensor.dtype]:
                raise _damaged(path)
            tensors[name] = tensor
            end = max(end, stop)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as e:
        if isinstance(e, SimCroPError):
            raise
        raise _damaged(path) from e
    if 8 + length + end != file_bytes:
        raise _damaged(path)
    return tensors


def _damaged(path: Path) -> SimCroPError:
    return SimCroPError(
        "The weights are damaged, cut off, or not a safetensors file",
        code="damaged-weights",
        remedy="Get the file again from its source.",
        path=path,
    )
