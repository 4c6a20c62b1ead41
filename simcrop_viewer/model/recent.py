"""What was open lately, to be opened again; a list of places on this machine, no more."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from psygnal import Signal
from pydantic import BaseModel, ConfigDict, ValidationError

from simcrop_core.errors import SimCroPError
from simcrop_core.frozen import Frozen
from simcrop_core.outputs import whole_file
from simcrop_viewer.model.session_file import is_text

_MOST = 8
_MOST_BYTES = 1 << 18


class RecentStudy(Frozen):
    """A scan with its report if it had one, or a session."""

    path: str
    report: str | None = None
    series: str | None = None
    volume_name: str | None = None

    @property
    def title(self) -> str:
        """Name and folder, short enough for a menu."""
        place = Path(self.path)
        return f"{place.name} ({place.parent.name})" if place.parent.name else place.name


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: int = 1
    studies: tuple[RecentStudy, ...] = ()


class RecentStudies:
    """The last few, newest first.

    Parameters
    ----------
    path
        Where the list is kept between starts; None keeps it nowhere. A list that cannot be read
        or written is a list that is empty, since nobody's work depends on it.
    """

    changed = Signal()

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self.studies = self._read()

    def add(
        self,
        path: str | Path,
        report: str | Path | None = None,
        series: str | None = None,
        volume_name: str | None = None,
    ) -> None:
        """Put something first, whether or not it was in the list."""
        full = str(Path(path).absolute())
        said = None if report is None else str(Path(report).absolute())
        if not is_text("".join((full, said or "", series or "", volume_name or ""))):
            return  # it could not be written down
        others = [study for study in self.studies if study.path != full]
        newest = RecentStudy(path=full, report=said, series=series, volume_name=volume_name)
        self.studies = (newest, *others[: _MOST - 1])
        self._write()

    def clear(self) -> None:
        """Forget all."""
        self.studies = ()
        self._write()

    def _read(self) -> tuple[RecentStudy, ...]:
        if self._path is None:
            return ()
        with suppress(OSError, ValidationError, ValueError):
            if self._path.stat().st_size <= _MOST_BYTES:
                return _File.model_validate_json(self._path.read_bytes()).studies[:_MOST]
        return ()

    def _write(self) -> None:
        if self._path is not None:
            text = _File(studies=self.studies).model_dump_json(indent=1)
            with suppress(SimCroPError), whole_file(self._path) as hidden:
                hidden.touch(mode=0o600)  # names of files are nobody else's business
                hidden.write_text(text + "\n", encoding="utf-8")
        self.changed.emit()


def usual_place() -> Path:
    """The application's own folder, beside the models: ``~/.simcrop``."""
    return Path.home() / ".simcrop"
