"""Artificial chest CTs with their reports and all truth about them (docs/phantoms.md)."""

#: Phantoms from this seed on are for validation and are never trained on.
VALIDATION_SEED = 900_000
