"""The built-in sample study: a phantom with several findings, to try the software on.

A woman with a mass in the right upper lobe, septal lines around it, an enlarged node and an
effusion on the left. It is drawn when it is asked for; the same voxels and words each time.
"""

from __future__ import annotations

from simcrop_core.phantoms import VALIDATION_SEED
from simcrop_core.phantoms.study import make_phantom
from simcrop_core.study import Study

#: Kept from training, as all phantoms from ``VALIDATION_SEED`` on are.
SAMPLE_SEED = 971_679
assert SAMPLE_SEED >= VALIDATION_SEED


def sample_study() -> Study:
    """Scan, report, and what is true of them; takes a second or two."""
    return make_phantom(SAMPLE_SEED)
