"""Features of scans on disk, to be found again by a probe that goes on.

Shapes in names: N scans; V views of a scan; D the width of a feature.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simcrop_core.datasets.dataset import ScanFile
from simcrop_core.device import Progress, resolve_precision
from simcrop_core.encoded import stored_arrays
from simcrop_core.finetune.features import FEATURES_VERSION, FeatureMaker
from simcrop_core.finetune.lists import Scans
from simcrop_core.outputs import whole_file
from simcrop_core.volume import Note

#: Scans whose features are kept in one file.
_PIECE = 256

_Make = Callable[[Sequence[ScanFile]], Iterator[NDArray[np.float32]]]


class KeptFeatures:
    """Features on disk, piece by piece, each with its checksum under what it was made of.

    A probe that is stopped, or finds a scan that cannot be read, loses one piece at most.
    """

    def __init__(self, folder: Path, maker: FeatureMaker, say: Progress) -> None:
        self.folder, self.maker, self.say = folder, maker, say
        self._damaged: list[str] = []

    @property
    def notes(self) -> tuple[Note, ...]:
        """What became of pieces that were damaged."""
        if not self._damaged:
            return ()
        more = f" and {len(self._damaged) - 1} more" if len(self._damaged) > 1 else ""
        text = f"Kept features were damaged and computed anew: {self._damaged[0]}{more}"
        return (Note("damaged-features", text),)

    def training(self, scans: Scans, views: int) -> NDArray[np.float32]:
        """``(N, V, D)``: so many views of each scan.

        Raises
        ------
        SimCroPError
            A scan cannot be read, or the folder cannot be written.
        """
        how = f"{views} views, seed {self.maker.seed}, dropped {self.maker.drop_path}"
        numbers = range(views)
        return self._kept(
            scans, how, lambda some: self.maker.training(some, numbers), "encoding training views"
        )

    def testing(self, scans: Scans) -> NDArray[np.float32]:
        """``(N, D)``: the middle of each scan. Errors as :meth:`training`."""
        return self._kept(scans, "middle", self.maker.testing, "encoding scans")[:, 0]

    def _kept(self, scans: Scans, how: str, make: _Make, what: str) -> NDArray[np.float32]:
        pieces = []
        for start in range(0, len(scans), _PIECE):
            some = scans.sources[start : start + _PIECE]
            path = self.folder / f"{self._key(some, how)}.npz"
            piece = self._read(path, len(some))
            if piece is None:
                rows = []
                for row in make(some):
                    rows.append(row)
                    self.say(what, start + len(rows), len(scans))
                piece = np.stack(rows)
                self.folder.mkdir(parents=True, exist_ok=True)
                with whole_file(path) as hidden, hidden.open("wb") as file:
                    np.savez(file, features=piece)
            pieces.append(piece)
        return np.concatenate(pieces)

    def _read(self, path: Path, count: int) -> NDArray[np.float32] | None:
        """A piece as it was kept; None of one that is absent or damaged."""
        try:
            (piece,) = stored_arrays(path, ("features",))
        except FileNotFoundError:
            return None
        except ValueError:
            piece = np.empty(0)
        if piece.ndim == 3 and len(piece) == count and piece.dtype == np.float32:
            return piece
        self._damaged.append(path.name)
        return None

    def _key(self, sources: Sequence[ScanFile], how: str) -> str:
        maker = self.maker
        digest = hashlib.sha256()
        precision = resolve_precision(maker.device, maker.precision)
        words = (str(FEATURES_VERSION), maker.model.model_id, precision, how)
        for word in (*words, *(s.stamp() for s in sources)):
            digest.update(f"{word}\n".encode())
        return digest.hexdigest()[:24]
