"""What two models say of the same statements: pairs, scores, overlaps, differences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simcrop_viewer.model.body import Body
from simcrop_viewer.model.comparison import (
    Agreement,
    CommonGrid,
    agreement,
    common_grid,
    difference,
    standardised,
)
from simcrop_viewer.model.overlay import chosen_mask
from simcrop_viewer.model.session import Session, Statement


@dataclass(frozen=True, slots=True)
class ComparedStatement:
    """A statement under both models; None is what is not known yet."""

    text: str
    first_score: float | None
    second_score: float | None
    agreement: Agreement | None


@dataclass(frozen=True, slots=True, eq=False)
class Difference:
    """First less second in standard deviations, ``(N,)`` on the common grid; NaN where not both
    models have a patch, and beyond the body."""

    common: CommonGrid
    values_N: NDArray[np.float64]


def off_borders(world_mm: ArrayLike) -> NDArray[np.float64]:
    """A RAS point a micrometre aside.

    Where one grid's patches are twice the other's, the middle of the larger lies on the border of
    the smaller ones; aside of it, what is drawn and what is said are of the same patch.
    """
    return np.asarray(world_mm, np.float64) + 1e-3


class Comparison:
    """Statements of one session under two models.

    Parameters
    ----------
    session
        Its statements are told of, by their places in it; their evidence is the first model's.
    first, second
        How many top patches are drawn of each; the second has the second model's evidence.

    Attributes
    ----------
    body
        Where the patient is in the scan; nothing is subtracted before that is known.
    """

    def __init__(self, session: Session, first: Session, second: Session) -> None:
        self.session, self.first, self.second = session, first, second
        self.body: Body | None = None
        self._common: CommonGrid | None = None

    def place(self, index: int) -> int | None:
        """Where the second model has a statement of the window's: sentences of the report in
        their order, questions by their words."""
        statement, others = self.session.statements[index], self.second.statements
        if not statement.is_query:
            fits = index < len(others) and others[index].text == statement.text
            return index if fits and not others[index].is_query else None
        return next(
            (i for i, s in enumerate(others) if s.is_query and s.text == statement.text), None
        )

    def pair(self, index: int) -> tuple[Statement, Statement] | None:
        """A statement with the evidence of both models, where both are there."""
        if not 0 <= index < len(self.session.statements):
            return None
        place = self.place(index)
        if place is None:
            return None
        first, second = self.session.statements[index], self.second.statements[place]
        return None if first.result is None or second.result is None else (first, second)

    def rows(self) -> list[ComparedStatement]:
        """All statements under both models, in the window's order."""
        found = []
        for index, statement in enumerate(self.session.statements):
            place, pair = self.place(index), self.pair(index)
            found.append(
                ComparedStatement(
                    statement.text,
                    statement.score,
                    None if place is None else self.second.statements[place].score,
                    None if pair is None else self._agreement(*pair),
                )
            )
        return found

    def _agreement(self, first: Statement, second: Statement) -> Agreement:
        assert first.result is not None
        assert second.result is not None
        top = (
            np.flatnonzero(chosen_mask(first.result, first.row, self.first.overlay.top_k)),
            np.flatnonzero(chosen_mask(second.result, second.row, self.second.overlay.top_k)),
        )
        return agreement(first.result, first.row, second.result, second.row, top)

    def common(self) -> CommonGrid | None:
        """Where both models' patches lie in each other, once both have seen the study."""
        pairs = (self.pair(index) for index in range(len(self.session.statements)))
        pair = next((pair for pair in pairs if pair is not None), None)
        return None if pair is None else self._common_of(*pair)

    def _common_of(self, first: Statement, second: Statement) -> CommonGrid:
        assert first.result is not None
        assert second.result is not None
        if self._common is None or not self._common.is_of(
            first.result.patches, second.result.patches
        ):
            self._common = common_grid(first.result.patches, second.result.patches)
        return self._common

    def difference(self, index: int) -> Difference | None:
        """A statement's map under the first model less that under the second."""
        pair = self.pair(index)
        if pair is None or self.body is None:
            return None
        common = self._common_of(*pair)
        first_z, second_z = (self._standardised(statement) for statement in pair)
        values_N = difference(first_z, second_z, common)
        in_body_N = self.body.holds(common.patches.centers())
        return Difference(common, np.where(in_body_N, values_N, np.nan))

    def _standardised(self, statement: Statement) -> NDArray[np.float64]:
        result = statement.result
        assert result is not None
        assert self.body is not None
        return standardised(result, statement.row, self.body.holds(result.patches.centers()))

    def at(self, index: int, world_mm: ArrayLike) -> tuple[float | None, float | None] | None:
        """Both models' standardised similarity to a statement at a RAS point, of the patches whose
        difference is drawn there; None beyond a model's input. None instead of both: not known
        yet."""
        pair = self.pair(index)
        if pair is None or self.body is None:
            return None
        point, common = off_borders(world_mm), self._common_of(*pair)
        cell = common.patches.patch_at(point)
        if cell is not None:
            drawn = int(common.first_N[cell]), int(common.second_N[cell])
            if min(drawn) >= 0:
                values = [
                    self._standardised(s)[patch] for s, patch in zip(pair, drawn, strict=True)
                ]
                first, second = (float(v) if np.isfinite(v) else None for v in values)
                return first, second
        first, second = (self._at(statement, point) for statement in pair)
        return first, second

    def _at(self, statement: Statement, world_mm: ArrayLike) -> float | None:
        assert statement.result is not None
        patch = statement.result.patches.patch_at(world_mm)
        if patch is None or not statement.result.inside_N[patch]:
            return None
        return float(self._standardised(statement)[patch])
