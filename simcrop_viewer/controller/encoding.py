"""Scans through the model, and through the folder where that was kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from simcrop_core.encoded import Encoded
from simcrop_core.encoded_cache import EncodedCache
from simcrop_core.errors import SimCroPError
from simcrop_core.volume import CTVolume

if TYPE_CHECKING:
    from simcrop_core.model import SimCroP
    from simcrop_core.prepare import Placement

Tell = Callable[[str, int, int], None]
#: Patches by which a sentence's score is told, as everywhere (the paper's K).
TOP_K = 64


@dataclass(frozen=True, eq=False)
class Encoder:
    """How scans are encoded: by which model, where its input lies, on what.

    Attributes
    ----------
    device
        ``"auto"``, ``"cpu"``, ``"cuda:0"`` and so on.
    cache
        Where encoded scans are kept; None keeps none.
    since
        How often that had been cleared when the work began; cleared again, it keeps nothing of it.
    """

    model: SimCroP
    placement: Placement
    device: str
    cache: EncodedCache | None
    since: int | None = None

    def find(self, volume: CTVolume) -> Encoded | None:
        """What an earlier encoding left on the disk, by this model at this precision."""
        if self.cache is None:
            return None
        return self.cache.find(volume, *self.made_of())

    def encode(self, volume: CTVolume, tell: Tell) -> Encoded:
        """Send the scan through the model.

        Raises
        ------
        SimCroPError
            As :func:`simcrop_core.align.encode`.
        """
        from simcrop_core.align import encode

        return encode(
            self.model, volume, placement=self.placement, device=self.device, progress=tell
        )

    def made_of(self) -> tuple[str, str, str]:
        """Model, placement and precision: what an encoded scan is found by, beside the scan."""
        from simcrop_core.device import resolve_precision, select_device

        precision = resolve_precision(select_device(self.device), "auto")
        return self.model.model_id, self.placement, precision

    def known(self, stamp: str) -> str | None:
        """The pseudonym of the scan in these files, if what was made of it is kept."""
        return None if self.cache is None else self.cache.known(stamp, *self.made_of())

    def keep(self, volume: CTVolume, encoded: Encoded) -> None:
        """Keep what was made of the scan on the disk.

        Raises
        ------
        SimCroPError
            ``cannot-write``.
        """
        if self.cache is not None:
            self.cache.keep(volume, encoded, self.since)

    def remember(self, stamp: str, volume: CTVolume) -> bool:
        """Note of which files the scan was read; False where what was made of it is not kept.

        Raises
        ------
        SimCroPError
            ``cannot-write``.
        """
        if self.cache is None:
            return False
        return self.cache.remember(stamp, volume, *self.made_of(), self.since)


def read_model(folder: str | Path, tell: Tell) -> SimCroP:
    """A model with its text encoder, whole, or a refusal before anybody waits for an encoding."""
    tell("importing torch", 0, 2)
    from simcrop_core.model import load_model

    tell("reading the weights", 1, 2)
    model = load_model(folder)
    _ = model.text
    tell("reading", 2, 2)
    return model


def usual_k(encoded: Encoded) -> int:
    """Patches by which scores are told: no more than a tenth of a coarse grid, or nothing would
    stand out."""
    return max(1, min(TOP_K, int(np.count_nonzero(encoded.inside_N)) // 10))


def kept_or_why(encoder: Encoder, volume: CTVolume, encoded: Encoded) -> SimCroPError | None:
    """Keep it on the disk; where that cannot be done, why: evidence is there all the same."""
    try:
        encoder.keep(volume, encoded)
    except SimCroPError as e:
        return SimCroPError(
            "The encoded scan is shown, but could not be kept for the next time",
            code=e.code,
            path=e.path,
            remedy="Make room on the disk, or start with --no-cache.",
        )
    return None
