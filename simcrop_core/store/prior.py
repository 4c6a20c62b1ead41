"""Where the sentences of a store usually point."""

from __future__ import annotations

import numpy as np

from simcrop_core.evaluate.prior import Prior
from simcrop_core.statements import Meaning
from simcrop_core.store.record import KINDS
from simcrop_core.store.store import Store


def learn_prior(store: Store) -> Prior:
    """The prior of all studies of a store, on the patches of the input in its middle.

    It then has seen what a model trained on the store has seen: a claim of grounding is held
    against the best that can be done without looking at the image.
    """
    spec, settings, prior = store.settings.spec, store.settings, Prior()
    low = [m // c for m, c in zip(settings.margin_voxels, settings.cell_shape, strict=True)]
    within = [n // c for n, c in zip(spec.shape, settings.cell_shape, strict=True)]
    middle = tuple(slice(a, a + n) for a, n in zip(low, within, strict=True))
    per_patch = [p // c for p, c in zip(spec.patch_shape, settings.cell_shape, strict=True)]
    (i, j, k), (p, q, r) = spec.grid_shape, per_patch
    voxels = float(np.prod(spec.patch_shape))
    for number in range(len(store)):
        record = store.record(number)
        counts_RXYZ = record.regions_RXYZ[(slice(None), *middle)].astype(np.float64)
        shares = counts_RXYZ.reshape(-1, i, p, j, q, k, r).sum(axis=(2, 4, 6)) / voxels
        shares_RN = shares.reshape(len(counts_RXYZ), -1)
        rows = zip(record.kinds_S, record.meanings_S4, record.region_S, strict=True)
        for kind, meaning, region in rows:
            if region >= 0 and shares_RN[region].any():
                what = Meaning(*(int(n) for n in meaning))
                prior.learn(KINDS[kind], what, record.regions[region], shares_RN[region])
    return prior
