"""A scan after the encoder: what every sentence, and every later question, is compared with."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcrop_core.errors import SimCroPError
from simcrop_core.geometry import Grid
from simcrop_core.outputs import whole_file
from simcrop_core.patches import PatchGrid
from simcrop_core.volume import CTVolume, Note

_SCHEMA = 1
#: What taking apart a card that is not as it was written can raise.
_NOT_AS_WRITTEN = (
    OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError,
    RecursionError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class VolumeCard:
    """What a result says of its scan: geometry and notes, nothing that names the patient."""

    id: str
    sha256: str
    format: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    axes: str
    affine: tuple[tuple[float, ...], ...]
    notes: tuple[Note, ...]

    @classmethod
    def of(cls, volume: CTVolume, notes: tuple[Note, ...] = ()) -> VolumeCard:
        """The card of a scan; ``notes`` are added to its own."""
        return cls(
            id=volume.pseudonym,
            sha256=volume.sha256,
            format=volume.format,
            shape=volume.shape,
            spacing_mm=volume.spacing_mm,
            axes=volume.grid.axcodes,
            affine=tuple(tuple(float(v) for v in row) for row in volume.grid.affine),
            notes=(*volume.notes, *notes),
        )

    @property
    def grid(self) -> Grid:
        return Grid(self.shape, np.array(self.affine))

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "sha256": self.sha256,
            "format": self.format,
            "shape": list(self.shape),
            "spacing_mm": list(self.spacing_mm),
            "axes": self.axes,
            "affine": [list(row) for row in self.affine],
            "notes": [note.to_dict() for note in self.notes],
        }

    @classmethod
    def from_dict(cls, card: dict[str, Any]) -> VolumeCard:
        x, y, z = (int(n) for n in card["shape"])
        a, b, c = (float(s) for s in card["spacing_mm"])
        Grid((x, y, z), card["affine"])  # refuses what is none
        return cls(
            id=str(card["id"]),
            sha256=str(card["sha256"]),
            format=str(card["format"]),
            shape=(x, y, z),
            spacing_mm=(a, b, c),
            axes=str(card["axes"]),
            affine=tuple(tuple(float(v) for v in row) for row in card["affine"]),
            notes=tuple(Note(str(n["code"]), str(n["text"])) for n in card["notes"]),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """A scan's patch features from one model.

    Attributes
    ----------
    patches_ND
        float32, one row per patch in flat order: the encoder's tokens after the last block, each
        followed by the vectors of its cells where the model has that finer level.
    patches
        Where the patches lie.
    inside_N
        Which patches touch the scan; the rest is padding.
    volume
        The scan's card.
    model_id
        The model's id; features are compared only with sentences of the same model.
    placement
        Where the input was placed in the scan, see `prepare`.
    precision
        ``"fp32"`` or ``"bf16"``: in what the encoder computed.
    """

    patches_ND: NDArray[np.float32]
    patches: PatchGrid
    inside_N: NDArray[np.bool_]
    volume: VolumeCard
    model_id: str
    placement: str
    precision: str

    def save(self, path: str | Path) -> None:
        """Write to one ``.npz`` file, whole or not at all."""
        card = {
            "schema": _SCHEMA,
            "volume": self.volume.to_dict(),
            "model_id": self.model_id,
            "placement": self.placement,
            "precision": self.precision,
            "patch_shape": list(self.patches.patch_shape),
            "grid_shape": list(self.patches.shape),
        }
        with whole_file(Path(path)) as hidden, hidden.open("wb") as file:
            np.savez(
                file,
                patches=self.patches_ND,
                inside=self.inside_N,
                affine=self.patches.affine,
                card=np.frombuffer(json.dumps(card).encode(), dtype=np.uint8),
            )

    @classmethod
    def load(cls, path: str | Path) -> Encoded:
        """Read what `save` wrote.

        Raises
        ------
        SimCroPError
            The file is missing, damaged, or not an encoded scan.
        """
        with as_written(path, "encoded", "encoded scan", "Encode the scan again."):
            names = ("patches", "inside", "affine", "card")
            features, inside, affine, words = stored_arrays(Path(path), names)
            card = json.loads(words.tobytes())
            check_schema(card, _SCHEMA)
            i, j, k = card["grid_shape"]
            p, q, r = card["patch_shape"]
            patches = PatchGrid(Grid((i, j, k), affine), (p, q, r))
            if features.ndim != 2 or not len(features) == len(inside) == len(patches):
                raise ValueError("features and patches differ in number")
            return cls(
                patches_ND=np.asarray(features, dtype=np.float32),
                patches=patches,
                inside_N=np.asarray(inside, dtype=bool).reshape(len(patches)),
                volume=VolumeCard.from_dict(card["volume"]),
                model_id=str(card["model_id"]),
                placement=str(card["placement"]),
                precision=str(card["precision"]),
            )


class _OtherVersionError(Exception):
    """What was stored has a schema that this version does not know."""


def check_schema(card: dict[str, Any], schema: int) -> None:
    """Within `as_written`: whether a card is of the version that is read."""
    if card["schema"] != schema:
        raise _OtherVersionError(str(card["schema"]))


@contextmanager
def as_written(path: str | Path, code: str, what: str, remedy: str) -> Iterator[None]:
    """Refuse a stored result that is absent, of another version, or not as it was written.

    Parameters
    ----------
    path
        Its file or folder.
    code
        What the codes of the refusals begin with.
    what, remedy
        What it is called, and what the person can do.

    Raises
    ------
    SimCroPError
        ``not-found``, ``<code>-version`` or ``<code>-damaged``.
    """
    try:
        yield
    except FileNotFoundError as e:
        raise SimCroPError(
            f"There is no {what} here.", path=path, code="not-found", remedy=remedy
        ) from e
    except _OtherVersionError as e:
        problem = f"This {what} is of version {str(e)[:40]}, which is not read here."
        raise SimCroPError(problem, path=path, code=f"{code}-version", remedy=remedy) from e
    except _NOT_AS_WRITTEN as e:
        raise SimCroPError(
            f"This is not a whole {what}: it is damaged.",
            path=path,
            code=f"{code}-damaged",
            remedy=remedy,
        ) from e


def stored_arrays(path: Path, names: Sequence[str]) -> list[NDArray[Any]]:
    """Arrays of an ``.npz`` file, whole.

    Raises
    ------
    ValueError
        The file is damaged. Its checksums are compared first, since reading an array ends where
        its own header says.
    """
    try:
        with zipfile.ZipFile(path) as packed:
            if packed.testzip() is not None:
                raise ValueError("an array is not as its checksum says")
        with np.load(path, allow_pickle=False) as stored:
            return [stored[name] for name in names]
    except FileNotFoundError:
        raise
    except Exception as e:  # zipfile, zlib and numpy raise many kinds for broken files
        raise ValueError("the arrays are damaged") from e
