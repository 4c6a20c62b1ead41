"""A head fitted on CT-RATE, tried on RadChestCT: its 18 labels as the 16 of the other.

The map is :data:`~simcrop_core.datasets.radchestct.FINDINGS_OF`: fifteen labels are one finding of
CT-RATE each, ``Calcification`` is either of two, and CT-RATE's mosaic attenuation pattern has no
counterpart.

Shapes in names: N scans; F findings of CT-RATE; K labels of RadChestCT.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simcrop_core.datasets.radchestct import FINDINGS_OF
from simcrop_core.evaluate.presence import auc
from simcrop_core.statements import FINDINGS

LABELS = tuple(FINDINGS_OF)


def as_radchestct(
    scores_NF: NDArray[np.floating], truth_NK: NDArray[np.integer] | None = None
) -> NDArray[np.float32]:
    """Scores ``(N, K)`` of RadChestCT's labels from those of CT-RATE's findings.

    Parameters
    ----------
    scores_NF
        In the order of ``FINDINGS``; on one scale, so that those of two findings compare.
    truth_NK
        None: where a label is either of two findings its score is the higher of theirs, as a scan
        has the label if it has either. The true labels, as the method's authors use them: the
        scores of that finding of the two which ranks the very scans it is tested on better.
    """
    columns = []
    for number, findings in enumerate(FINDINGS_OF.values()):
        own = [scores_NF[:, FINDINGS.index(finding)] for finding in findings]
        if truth_NK is None or len(own) == 1:
            columns.append(np.max(own, axis=0))
            continue
        areas = [auc(scores, truth_NK[:, number]) or 0.0 for scores in own]
        columns.append(own[int(np.argmax(areas))])
    return np.stack(columns, axis=1).astype(np.float32)
