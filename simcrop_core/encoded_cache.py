"""Encoded scans kept on disk, so that what was encoded once is not encoded again."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from simcrop_core.encoded import Encoded, VolumeCard
from simcrop_core.errors import SimCroPError
from simcrop_core.outputs import whole_file
from simcrop_core.volume import CTVolume

_SUFFIX = ".encoded.npz"
#: Of small files that say what was kept of which files.
_LINK = ".kept"
_KEPT = re.compile(rf"[0-9a-f]{{40}}{re.escape(_SUFFIX)}")
_LONG_SINCE_S = 3600.0
#: To be raised with every change of what preparing or encoding makes of the same scan and model.
_VERSION = 1
#: Room for some 400 scans of the paper's model, or 80 of one with a finer level.
LIMIT_BYTES = 4 * 2**30


class EncodedCache:
    """Encoded scans in a folder, found again by what they were made of.

    Names are digests; nothing in the folder names a patient or a file. What was used longest ago
    goes when there is no room. Processes may share a folder.

    Parameters
    ----------
    folder
        Made when something is first kept.
    limit_bytes
        How much is kept at most.

    Attributes
    ----------
    times_cleared
        How often `clear` was called, by which work that began before is told.
    """

    def __init__(self, folder: str | Path, limit_bytes: int = LIMIT_BYTES) -> None:
        self.folder = Path(folder)
        self.limit_bytes = limit_bytes
        self.times_cleared = 0
        self._writing = threading.Lock()

    def find(
        self, volume: CTVolume, model_id: str, placement: str, precision: str
    ) -> Encoded | None:
        """What was kept of a scan and a model, or None; a damaged one is removed.

        Parameters
        ----------
        volume
            The scan. Read from other files with other notes, it is encoded anew.
        model_id, placement, precision
            As in :class:`~simcrop_core.encoded.Encoded`.
        """
        path = self._path(volume, model_id, placement, precision)
        try:
            found = Encoded.load(path)
        except SimCroPError as e:
            if e.code != "not-found":
                _remove(path)
            return None
        asked = (volume.sha256, model_id, placement, precision)
        if asked != (found.volume.sha256, found.model_id, found.placement, found.precision):
            _remove(path)  # somebody gave it another name
            return None
        with suppress(OSError):  # a folder that cannot be written is still good to read from
            os.utime(path)
        return found

    def keep(self, volume: CTVolume, encoded: Encoded, since: int | None = None) -> None:
        """Keep an encoded scan, and let go of what there is no room for.

        Parameters
        ----------
        since
            :attr:`times_cleared` when the work began: if it is another by now, nothing is kept.

        Raises
        ------
        SimCroPError
            ``cannot-write``: the folder cannot be written to, or the disk is full.
        """
        path = self._path(volume, encoded.model_id, encoded.placement, encoded.precision)
        with self._writing:
            if since not in (None, self.times_cleared):
                return
            with _refused_in_a_sentence(self.folder):
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            encoded.save(path)
            with suppress(OSError):
                path.chmod(0o600)
            self._make_room(path)

    def remember(
        self,
        stamp: str,
        volume: CTVolume,
        model_id: str,
        placement: str,
        precision: str,
        since: int | None = None,
    ) -> bool:
        """Note of which files a scan was read, so that `known` can tell unread what is kept.

        Parameters
        ----------
        stamp
            What changes when the files do.
        since
            As in `keep`.

        Returns
        -------
        bool
            False, and nothing is noted, where what was made of the scan is not kept.

        Raises
        ------
        SimCroPError
            ``cannot-write``.
        """
        kept = self._path(volume, model_id, placement, precision)
        with self._writing:
            if since not in (None, self.times_cleared) or not kept.is_file():
                return False
            with whole_file(self._link(stamp, model_id, placement, precision)) as hidden:
                hidden.touch(mode=0o600)
                hidden.write_text(f"{kept.name}\n{volume.pseudonym}\n", encoding="ascii")
        return True

    def known(self, stamp: str, model_id: str, placement: str, precision: str) -> str | None:
        """The pseudonym of a scan that is kept, by its files alone; None where none is."""
        link = self._link(stamp, model_id, placement, precision)
        try:
            kept, pseudonym = link.read_text(encoding="ascii")[:200].splitlines()
        except (OSError, ValueError):
            return None
        if _KEPT.fullmatch(kept) and (self.folder / kept).is_file():
            return pseudonym
        _remove(link)
        return None

    def size_bytes(self) -> int:
        """How much is kept."""
        return sum(size for _, size, _ in self._kept())

    def clear(self) -> None:
        """Remove all that was kept; other files in the folder stay.

        What is being written is waited for.
        """
        with self._writing:
            self.times_cleared += 1
            for path in [*(path for _, _, path in self._kept()), *self._left_over()]:
                _remove(path)
            for path in self.folder.glob(f"*{_LINK}"):
                _remove(path)

    # -- inside ---------------------------------------------------------------------------------

    def _path(self, volume: CTVolume, model_id: str, placement: str, precision: str) -> Path:
        card = VolumeCard.of(volume).to_dict()
        made_of = json.dumps([_VERSION, card, model_id, placement, precision], sort_keys=True)
        return self.folder / f"{hashlib.sha256(made_of.encode()).hexdigest()[:40]}{_SUFFIX}"

    def _link(self, stamp: str, model_id: str, placement: str, precision: str) -> Path:
        made_of = json.dumps([_VERSION, stamp, model_id, placement, precision])
        return self.folder / f"{hashlib.sha256(made_of.encode()).hexdigest()[:40]}{_LINK}"

    def _kept(self) -> list[tuple[float, int, Path]]:
        """When each was last used, its bytes and its path."""
        found = []
        try:
            entries = list(self.folder.glob(f"*{_SUFFIX}"))
        except OSError:
            return []
        for path in entries:
            try:
                facts = path.stat()
            except OSError:
                continue  # another process removed it
            if not path.name.startswith("."):
                found.append((facts.st_mtime, facts.st_size, path))
        return found

    def _left_over(self, older_than_s: float = 0.0) -> list[Path]:
        """What processes that were killed were writing."""
        found = []
        for path in self.folder.glob(f".*{_SUFFIX}"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime >= older_than_s:
                    found.append(path)
        return found

    def _make_room(self, newest: Path) -> None:
        for path in self._left_over(_LONG_SINCE_S):
            _remove(path)
        kept = sorted(self._kept())
        spare = self.limit_bytes - sum(size for _, size, _ in kept)
        for _, size, path in kept:
            if spare >= 0:
                return
            if path != newest:
                _remove(path)
                spare += size


@contextmanager
def _refused_in_a_sentence(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise SimCroPError(
            "The folder of encoded scans cannot be made",
            path=folder,
            code="cannot-write",
            remedy="Choose another folder, or give it the right to be written.",
        ) from e


def _remove(path: Path) -> None:
    with suppress(OSError):  # in use, or not ours to remove: it is tried again another time
        path.unlink(missing_ok=True)
