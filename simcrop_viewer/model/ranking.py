"""From a place in the scan to the sentences that look most like it."""

from __future__ import annotations

from collections.abc import Sequence

from numpy.typing import ArrayLike

from simcrop_viewer.model.session import Statement


def ranked_at(statements: Sequence[Statement], world_mm: ArrayLike) -> list[tuple[int, float]]:
    """Which statements look most like the patch at a RAS point, best first.

    Returns
    -------
    list of (int, float)
        The statement, and how many of its own standard deviations this patch's similarity lies
        above its mean over the scan. Empty beyond the model's input.
    """
    ranked = []
    for index, statement in enumerate(statements):
        result = statement.result
        if result is None:
            continue
        patch = result.patches.patch_at(world_mm)
        if patch is None or not result.inside_N[patch]:
            continue
        values_N = result.similarity_SN[statement.row][result.inside_N]
        spread = float(values_N.std()) or 1.0
        here = float(result.similarity_SN[statement.row, patch])
        ranked.append((index, (here - float(values_N.mean())) / spread))
    return sorted(ranked, key=lambda entry: -entry[1])
