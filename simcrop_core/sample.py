"""The built-in sample study: a small artificial chest, drawn from ellipsoids and tubes.

It is there to try the software on, not to train on or to judge by. Everything is placed in RAS
millimetres about the middle of the chest; the arrays run Left, Posterior, Superior.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simcrop_core.geometry import Grid, axis_aligned_affine
from simcrop_core.volume import CTVolume, Note

_SHAPE = (192, 152, 96)
_SPACING_MM = (2.0, 2.0, 3.5)

_REPORT = """FINDINGS: The trachea and both main bronchi are open. There is a round nodule in the \
right upper lobe, measuring 20 mm. There is a pleural effusion on the left. No pleural effusion \
was detected on the right. Heart contour and size are normal. The thoracic aorta is of normal \
calibre. The liver included in the sections is homogeneous. Vertebral body heights are preserved.

IMPRESSION: Nodule in the right upper lobe. Left pleural effusion.
"""


def sample_report() -> str:
    """The report of the sample study."""
    return _REPORT


def sample_volume() -> CTVolume:
    """The scan of the sample study; the same values each time."""
    grid = Grid(_SHAPE, axis_aligned_affine("LPS", _SPACING_MM, (0, 0, 0), _SHAPE))
    x, y, z = _coordinates(grid)
    hu = np.full(_SHAPE, -1000.0, dtype=np.float32)

    def paint(where: NDArray[np.bool_], value: float) -> None:
        hu[np.broadcast_to(where, _SHAPE)] = value

    body = _ellipse(x, y, 165, 115)
    paint(body, -95.0)  # fat
    paint(_ellipse(x, y, 150, 100), 45.0)  # muscle
    paint(_ellipse(x, y, 138, 90), -80.0)
    right = _ellipsoid(x, y, z, (72, -5, 15), (56, 78, 125)) & (z > -75)
    left = _ellipsoid(x, y, z, (-72, -5, 15), (54, 78, 125)) & (z > -80)
    lungs = right | left
    paint(lungs, -850.0)
    vessels = np.zeros(_SHAPE, dtype=bool)
    for side in (1, -1):
        for angle in np.linspace(-1.2, 1.3, 7):
            end = (
                side * (68 + 38 * np.cos(angle)),
                -8 + 10 * np.cos(3 * angle),
                95 * np.sin(angle),
            )
            vessels |= _tube(x, y, z, (side * 22.0, -10.0, 12.0), end, 4.5, 1.5)
    paint(vessels & lungs, 30.0)
    paint(_ellipsoid(x, y, z, (-18, 22, -25), (58, 45, 55)), 40.0)  # heart
    paint(_ellipsoid(x, y, z, (75, 5, -140), (85, 80, 62)) & (z < -74), 60.0)  # liver
    paint(_ellipsoid(x, y, z, (-85, -30, -140), (45, 45, 50)) & (z < -80), 50.0)  # spleen
    paint(_tube(x, y, z, (0, 5, 160), (0, -12, 35), 9, 9), -1000.0)  # trachea
    paint(_tube(x, y, z, (0, -12, 38), (38, -18, 8), 7, 6), -1000.0)
    paint(_tube(x, y, z, (0, -12, 38), (-40, -18, 5), 6, 5), -1000.0)
    paint(_tube(x, y, z, (-22, -48, -170), (-18, -42, 40), 12, 12), 45.0)  # descending aorta
    paint(_tube(x, y, z, (-18, -42, 42), (8, 8, 52), 13, 14), 45.0)  # arch
    paint(_tube(x, y, z, (8, 8, 52), (4, 18, 5), 15, 16), 45.0)
    paint(_ellipse(x, y + 72, 19, 15), 180.0)  # vertebral bodies, discs between
    paint(_ellipse(x, y + 72, 19, 15) & (np.mod(z, 28) < 5), 70.0)
    paint(_ellipse(x, y + 92, 11, 8), 250.0)
    paint(_ellipse(x, y + 91, 5, 4), 20.0)  # spinal canal
    paint(_ellipse(x, y - 92, 22, 6) & (z > -40), 180.0)  # sternum
    ring = _ellipse(x, y, 146, 97) & ~_ellipse(x, y, 137, 89)
    paint(ring & (np.mod(z + 0.35 * y, 30) < 9) & (np.abs(x) > 18), 300.0)  # ribs
    paint(_ellipsoid(x, y, z, (80, 20, 75), (10, 10, 10)), 40.0)  # nodule, right upper lobe
    paint(left & (y < -38 - 0.25 * (z + 80)), 8.0)  # effusion, lies at the back of the left chest
    paint((np.abs(y + 140) < 5) & (np.abs(x) < 190), -150.0)  # table
    noise = np.random.default_rng(20250923).normal(0, 18, _SHAPE)
    values = np.clip(np.rint(hu + noise), -1024, 3071).astype(np.int16)
    note = Note("artificial", "This is an artificial chest, made to try the software on.")
    return CTVolume(np.asfortranarray(values), grid, format="array", notes=(note,))


def _coordinates(grid: Grid) -> list[NDArray[np.float32]]:
    """RAS millimetres of the voxels, broadcastable, one array an axis."""
    linear, origin = grid.affine[:3, :3], grid.affine[:3, 3]
    return [
        (linear[axis, axis] * np.arange(grid.shape[axis]) + origin[axis])
        .astype(np.float32)
        .reshape([-1 if other == axis else 1 for other in range(3)])
        for axis in range(3)
    ]


def _ellipse(
    x: NDArray[np.float32], y: NDArray[np.float32], a: float, b: float
) -> NDArray[np.bool_]:
    """A column along the body, over all slices."""
    flat = (x / a) ** 2 + (y / b) ** 2 < 1
    return np.asarray(flat)


def _ellipsoid(
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    z: NDArray[np.float32],
    center: tuple[float, float, float],
    half: tuple[float, float, float],
) -> NDArray[np.bool_]:
    (u, v, w), (a, b, c) = center, half
    return np.asarray(((x - u) / a) ** 2 + ((y - v) / b) ** 2 + ((z - w) / c) ** 2 < 1)


def _tube(
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    z: NDArray[np.float32],
    start: tuple[float, float, float],
    end: tuple[float, float, float],
    start_radius: float,
    end_radius: float,
) -> NDArray[np.bool_]:
    """A straight tube with round ends."""
    d = np.subtract(end, start)
    t = ((x - start[0]) * d[0] + (y - start[1]) * d[1] + (z - start[2]) * d[2]) / (d @ d)
    t = np.clip(t, 0, 1)
    gap2 = (
        (x - start[0] - t * d[0]) ** 2
        + (y - start[1] - t * d[1]) ** 2
        + (z - start[2] - t * d[2]) ** 2
    )
    return np.asarray(gap2 < (start_radius + t * (end_radius - start_radius)) ** 2)
