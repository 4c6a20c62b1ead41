"""Trees of airways and vessels."""

from __future__ import annotations

import numpy as np

from simcrop_core.phantoms.anatomy import LOBES, Branch
from simcrop_core.phantoms.anatomy_frame import Frame


def crude_tree(frame: Frame, scale: float, kind: str) -> tuple[Branch, ...]:
    wall = 1.0 if kind == "airways" else 0.0
    root = np.array([(0, 10, 128), (0, -11, 0)], float)
    out = [Branch(frame.world(root), np.array([9.0, 9.0]) * scale, "", "", 0, -1, wall)]
    ends = {
        "right upper lobe": (70, -10, 30),
        "right middle lobe": (70, 40, -50),
        "right lower lobe": (70, -40, -90),
        "left upper lobe": (-70, 10, 20),
        "left lower lobe": (-75, -40, -90),
    }
    rng = np.random.default_rng(7)
    for lobe in LOBES:
        sign = 1 if lobe.startswith("right") else -1
        hub = np.array([sign * 40.0, -20, -25])
        side = lobe.split()[0]
        end = np.array(ends[lobe], float)
        out.append(
            Branch(frame.world([root[1], hub]), np.array([6.0, 5]) * scale, "", side, 1, 0, wall)
        )
        out.append(
            Branch(
                frame.world([hub, end]),
                np.array([4.0, 2]) * scale,
                lobe,
                side,
                2,
                len(out) - 1,
                wall,
            )
        )
        mother = len(out) - 1
        for _ in range(6):
            tip = end + rng.normal(0, 18, 3)
            out.append(
                Branch(
                    frame.world([end, tip]), np.array([2.0, 1]) * scale, lobe, side, 3, mother, wall
                )
            )
    return tuple(out)
