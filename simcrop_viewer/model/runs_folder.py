"""Where runs are kept: a folder of folders, remembered from start to start."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from psygnal import Signal
from pydantic import BaseModel, ConfigDict, ValidationError

from simcrop_core.errors import SimCroPError
from simcrop_core.outputs import whole_file
from simcrop_viewer.model.recent import usual_place

_MOST_BYTES = 1 << 16


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: int = 1
    runs: str


class RunsFolder:
    """The folder in which new runs are made and past ones are looked for.

    Parameters
    ----------
    path
        Where the choice is kept; None keeps it nowhere. A file that cannot be read or written
        leaves the usual folder, since nobody's work depends on it.
    """

    changed = Signal()

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self.folder = self._read() or (path.parent if path else usual_place()) / "runs"

    def move_to(self, folder: str | os.PathLike[str]) -> None:
        """Look into another folder from now on.

        Raises
        ------
        SimCroPError
            ``folder-name``: its name is no text.
        """
        there = Path(folder).expanduser().absolute()
        refuse_no_text(there)
        self.folder = there
        if self._path is not None:
            text = _File(runs=str(self.folder)).model_dump_json(indent=1)
            with suppress(SimCroPError), whole_file(self._path) as hidden:
                hidden.touch(mode=0o600)
                hidden.write_text(text + "\n", encoding="utf-8")
        self.changed.emit()

    def _read(self) -> Path | None:
        if self._path is None:
            return None
        with suppress(OSError, ValidationError, ValueError):
            if self._path.stat().st_size <= _MOST_BYTES:
                return Path(_File.model_validate_json(self._path.read_bytes()).runs)
        return None


def refuse_no_text(folder: Path, words: Sequence[str] = ()) -> None:
    """Refuse a folder, or words of a command, that cannot be written down as UTF-8.

    Raises
    ------
    SimCroPError
        ``folder-name``.
    """
    for text in (str(folder), *words):
        try:
            text.encode()
        except UnicodeEncodeError as e:
            raise SimCroPError(
                "The name of this folder cannot be read as text (UTF-8)",
                code="folder-name",
                remedy="Rename it, or choose another one.",
                path=text,
            ) from e
