"""CT windows: the usual ones, and the one that a sentence asks for."""

from __future__ import annotations

import re
from typing import NamedTuple

from simcrop_core.figure_planes import WINDOWS


class Window(NamedTuple):
    """Width and level in Hounsfield units."""

    width: float
    level: float

    @property
    def limits(self) -> tuple[float, float]:
        """The values shown black and white."""
        return self.level - self.width / 2, self.level + self.width / 2

    @classmethod
    def from_limits(cls, low: float, high: float) -> Window:
        return cls(high - low, (low + high) / 2)


#: In the order of the keys F1 to F4.
PRESETS: dict[str, Window] = {name: Window(*WINDOWS[name]) for name in WINDOWS}
TITLES = {"lung": "Lung", "mediastinum": "Mediastinum", "soft": "Soft tissue", "bone": "Bone"}

#: Beginnings of words by which a sentence's window is chosen; the first list with one wins.
_WORDS = (
    (
        "bone",
        "bone osse vertebr rib ribs fractur osteo sclerotic lytic spine spinal stern scoliosis "
        "kypho skelet degenerat",
    ),
    (
        "lung",
        "nodul lung pulmonary ground consolid emphysem bronch atelect fissur pneumo infiltrat "
        "parenchym crazy honeycomb reticul interlob septal lobe lobul lingul bull cyst trachea "
        "airway fibro mosaic air",
    ),
    (
        "mediastinum",
        "mediastin lymph hilar heart cardi pericard aort vascul vessel vein artery arter coronar "
        "thyroid esophag oesophag effusion pleura thymus hernia calcif atheroscler pacemaker "
        "cathet",
    ),
    (
        "soft",
        "liver hepat spleen splen gallbladder biliary kidney renal adrenal pancrea stomach gastric "
        "abdom breast axilla soft subcutan muscle",
    ),
)
#: Said of the lungs by name, and yet looked at otherwise.
_NOT_LUNG = re.compile(r"pulmonary\s+(arter|trunk|vein|embol|conus)", re.IGNORECASE)


def window_for(sentence: str) -> str | None:
    """The name of the window in which a sentence's subject is looked at, or None.

    The subject is the first word of the sentence that names one.
    """
    text = _NOT_LUNG.sub(r"\1", sentence)
    for word in re.findall(r"[^\W\d_]+", text):
        for name, beginnings in _WORDS:
            if word.casefold().startswith(tuple(beginnings.split())):
                return name
    return None
