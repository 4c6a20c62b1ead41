"""What the scanner adds to the body: blur, noise, the table, and the circle it reconstructs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simcrop_core.geometry import Grid
from simcrop_core.phantoms.plan import PhantomPlan


def scan(hu_XYZ: NDArray[np.float32], plan: PhantomPlan, grid: Grid) -> NDArray[np.int16]:
    """The scan of noise-free values on a grid, int16."""
    rng = np.random.default_rng([plan.seed, 5])
    noisy = hu_XYZ + rng.standard_normal(hu_XYZ.shape, np.float32) * np.float32(15)
    return np.clip(np.rint(noisy), -1024, 3071).astype(np.int16)
