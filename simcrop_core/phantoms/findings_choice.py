"""Random choices for the findings of one phantom, and what they have filled so far."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from simcrop_core.phantoms.plan import FindingPlan
from simcrop_core.statements import Level, Side

LUNG_LOBES: tuple[str, ...] = (
    "right upper lobe",
    "right middle lobe",
    "right lower lobe",
    "left upper lobe",
    "lingula",
    "left lower lobe",
)


class Choice:
    """Random choices for the plans of one phantom, and what else it has."""

    def __init__(self, rng: np.random.Generator, causes: set[str], present: set[str]) -> None:
        self.rng = rng
        self.causes = causes
        self.present = present
        self.effusions: list[FindingPlan] = []
        self.taken: set[str] = set()  # lobes that a dense finding fills in part
        self.gone: set[str] = set()  # lobes with no air left for anything else

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def between(self, low: float, high: float) -> float:
        return round(float(self.rng.uniform(low, high)), 1)

    def pick(self, options: Iterable[str], weights: Iterable[float] | None = None) -> str:
        options = list(options)
        share = None if weights is None else np.asarray(list(weights), float)
        return str(self.rng.choice(options, p=None if share is None else share / share.sum()))

    def severity(self, *shares: float) -> str:
        return self.pick(("mild", "moderate", "severe"), shares or (0.45, 0.35, 0.2))

    def side(self, both: float = 0.0, level: str = "any") -> Side:
        """A side, or both, of which this level of the lung still holds air."""
        lobe = {"middle": ("lingula", "right middle lobe")}.get(
            level, (f"left {level} lobe", f"right {level} lobe")
        )
        left, right = (name not in self.gone for name in lobe)
        if left != right:
            return "left" if left else "right"
        return self.pick(("both", "left", "right"), (both, (1 - both) / 2, (1 - both) / 2))  # type: ignore[return-value]

    def lobe(self, weights: tuple[float, ...] = (3, 1, 3, 3, 1, 3), fill: bool = False) -> str:
        """A lobe; with ``fill`` one that no dense finding fills yet, which it then does."""
        free = [
            0.0 if lobe in self.taken | self.gone else weight
            for lobe, weight in zip(LUNG_LOBES, weights, strict=True)
        ]
        if not sum(free):
            free = [1.0 - (lobe in self.gone) for lobe in LUNG_LOBES]
        lobe = self.pick(LUNG_LOBES, free)
        if fill:
            self.taken.add(lobe)
        return lobe

    def fill(self, lobe: str) -> None:
        """No air is left in this lobe; the lingula is part of the left upper lobe."""
        self.gone |= {lobe, "lingula"} if lobe == "left upper lobe" else {lobe}

    def finding(self, name: str, **fields: object) -> FindingPlan:
        seed = int(self.rng.integers(2**31))
        lobe = fields.get("lobe")
        if lobe:
            fields = {"side": lobe_side(str(lobe)), "level": lobe_level(str(lobe))} | fields
        return FindingPlan(name, seed=seed, **fields)  # type: ignore[arg-type]


def lobe_side(lobe: str) -> Side:
    """The patient's side of a lobe."""
    return "right" if lobe.startswith("right") else "left"


def lobe_level(lobe: str) -> Level:
    """The third of the lung that a lobe is: the middle lobe and the lingula are the middle."""
    return "upper" if "upper" in lobe else "lower" if "lower" in lobe else "middle"
