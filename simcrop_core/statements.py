"""What sentences state and what is true of a study, in a form that can be compared.

Whether two sentences state the same is decided by meaning, never by how near their vectors are:
"left effusion" and "right effusion" have almost the same vector.

Axes of the table of facts: F findings, S sides, L levels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

#: The 18 findings of CT-RATE, spelled and ordered as in the header of its lists.
FINDINGS: tuple[str, ...] = (
    "Medical material",
    "Arterial wall calcification",
    "Cardiomegaly",
    "Pericardial effusion",
    "Coronary artery wall calcification",
    "Hiatal hernia",
    "Lymphadenopathy",
    "Emphysema",
    "Atelectasis",
    "Lung nodule",
    "Lung opacity",
    "Pulmonary fibrotic sequela",
    "Pleural effusion",
    "Mosaic attenuation pattern",
    "Peribronchial thickening",
    "Consolidation",
    "Bronchiectasis",
    "Interlobular septal thickening",
)

Side = Literal["any", "left", "right", "both"]
#: Thirds of a lung by lobe: upper, middle (with the lingula), lower.
Level = Literal["any", "upper", "middle", "lower"]
SIDES: tuple[Side, ...] = ("any", "left", "right", "both")
LEVELS: tuple[Level, ...] = ("any", "upper", "middle", "lower")

#: The finding of a sentence that speaks of none, or of one that is not known.
NO_FINDING = -1
UNKNOWN = -1


class Meaning(NamedTuple):
    """What a sentence states: a finding is (or is not) on a side, at a level.

    ``finding`` is an index into :data:`FINDINGS` or ``NO_FINDING``; ``side`` and ``level`` are
    indices into :data:`SIDES` and :data:`LEVELS`; ``present`` is 1 or 0.
    """

    finding: int = NO_FINDING
    side: int = 0
    level: int = 0
    present: int = 1

    @classmethod
    def of(
        cls, finding: str | None, side: Side = "any", level: Level = "any", present: bool = True
    ) -> Meaning:
        """The meaning in words; an unknown word is a ``ValueError``."""
        number = NO_FINDING if finding is None else FINDINGS.index(finding)
        return cls(number, SIDES.index(side), LEVELS.index(level), int(present))


@dataclass(frozen=True, eq=False)
class Facts:
    """What is true of a study.

    Attributes
    ----------
    table_FSL
        int8 ``(18, 4, 4)``: 1 the finding is there, 0 it is not, ``UNKNOWN`` nobody said. Side
        "any" is true where either side is, "both" where left and right are; level "any" is true
        where any level is. Read-only.
    """

    table_FSL: NDArray[np.int8]

    def __post_init__(self) -> None:
        shape = len(FINDINGS), len(SIDES), len(LEVELS)
        if self.table_FSL.shape != shape or self.table_FSL.dtype != np.int8:
            raise ValueError(f"A table of facts is int8 of shape {shape}.")
        view = self.table_FSL.view()
        view.setflags(write=False)
        object.__setattr__(self, "table_FSL", view)

    @classmethod
    def unknown(cls) -> Facts:
        """Nothing is known."""
        return cls(np.full((len(FINDINGS), len(SIDES), len(LEVELS)), UNKNOWN, np.int8))

    @classmethod
    def from_labels(cls, labels: dict[str, int]) -> Facts:
        """From labels a study (finding -> 0 or 1): absence holds everywhere, presence somewhere."""
        table = np.full((len(FINDINGS), len(SIDES), len(LEVELS)), UNKNOWN, np.int8)
        for name, label in labels.items():
            row = FINDINGS.index(name)
            if label == 0:
                table[row] = 0
            else:
                table[row, 0, 0] = 1
        return cls(table)

    @classmethod
    def from_occurrences(
        cls,
        occurrences: Iterable[tuple[str, Side, Level]],
        doubtful: Iterable[tuple[str, Side, Level]] = (),
    ) -> Facts:
        """From all that is there (finding, side, level); everything else is not there.

        An occurrence of side "both" is on the left and on the right; one of level "any" has no
        lobe of its own, so of its levels only "any" is known. One of side "any" lies in the
        midline or has no side: of its sides only "any" is known. The lingula is the middle of
        the left lung and by name a part of its upper lobe: what is in the middle there leaves
        open whether the upper level has it. ``doubtful`` are places where it is open whether the
        finding is there.
        """
        certain = np.zeros((len(FINDINGS), len(SIDES), len(LEVELS)), bool)
        possible = np.zeros_like(certain)
        any_, left, right, both = range(4)
        for name, side, level in occurrences:
            row, height = FINDINGS.index(name), LEVELS.index(level)
            heights = slice(None) if height == 0 else [0, height]
            sides = {"any": [], "left": [left], "right": [right], "both": [left, right]}[side]
            for place in (any_, *sides):
                certain[row, place, [0, height]] = True
            for place in (any_, *(sides or [left, right])):
                possible[row, place, heights] = True
            if level == "middle" and side != "right":
                possible[row, [any_, left], LEVELS.index("upper")] = True
        for name, side, level in doubtful:
            row, height = FINDINGS.index(name), LEVELS.index(level)
            sides = {"left": [left], "right": [right]}.get(side, [left, right])
            for place in (any_, *sides):
                possible[row, place, slice(None) if height == 0 else [0, height]] = True
        table = np.where(certain, 1, np.where(possible, UNKNOWN, 0)).astype(np.int8)
        # One side where it is not settles that it is not on both.
        pair = table[:, left], table[:, right]
        table[:, both] = np.where((pair[0] == 0) | (pair[1] == 0), 0, np.minimum(*pair))
        return cls(table)

    def truth(self, meaning: Meaning) -> int:
        """1 where the statement is true of the study, 0 where it is false, ``UNKNOWN`` else."""
        if meaning.finding == NO_FINDING:
            return UNKNOWN
        fact = int(self.table_FSL[meaning.finding, meaning.side, meaning.level])
        return fact if fact == UNKNOWN else int(fact == meaning.present)

    def labels(self) -> dict[str, int]:
        """Finding -> 0, 1 or ``UNKNOWN``."""
        return {name: int(self.table_FSL[i, 0, 0]) for i, name in enumerate(FINDINGS)}
