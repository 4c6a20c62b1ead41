"""Artificial chest CTs with their reports and all truth about them (docs/phantoms.md)."""

from simcrop_core.errors import SimCroPError

#: Phantoms from this seed on are for validation and are never trained on.
VALIDATION_SEED = 900_000


def refuse_straddling(first: int, stop: int) -> None:
    """Refuse seeds ``first`` to ``stop - 1`` of which some are for training and some are not.

    Raises
    ------
    SimCroPError
        ``evaluation-phantoms``.
    """
    if first < VALIDATION_SEED < stop:
        raise SimCroPError(
            f"Phantoms from seed {VALIDATION_SEED} on are for evaluation, and those from {first} "
            f"to {stop - 1} lie on both sides",
            code="evaluation-phantoms",
            remedy=f"Choose seeds that end before {VALIDATION_SEED}, or begin there.",
        )
