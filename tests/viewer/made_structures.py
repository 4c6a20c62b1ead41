"""A scan of two balls, and a model that finds them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from made_ct import oblique_affine

from simcrop_core.geometry import Grid, axis_aligned_affine
from simcrop_core.input_spec import InputSpec
from simcrop_core.volume import CTVolume
from simcrop_viewer.model.display import display_of
from simcrop_viewer.model.session import OpenStudy

SPEC = InputSpec(
    shape=(64, 64, 32), patch_shape=(8, 8, 4), spacing_mm=(3.0, 3.0, 6.0), padding="edge"
)
RADIUS = 27.0


class Threshold(torch.nn.Module):
    """Ball 1 where the scan is above 0 HU, ball 2 where it is below -750; ball 3 nowhere."""

    labels, roi = ("ball on the right", "ball on the left", "no ball"), (64, 64, 32)

    def forward(self, x_B1HWD: torch.Tensor) -> torch.Tensor:
        first, second = x_B1HWD > 0, x_B1HWD < -0.75
        none = torch.zeros_like(first)
        return 20.0 * torch.cat([~first & ~second, first, second, none], dim=1).float()


class Model(torch.nn.Module):
    """A model whose answer is known."""

    def __init__(self, head: Threshold | None) -> None:
        super().__init__()
        self.input_spec, self.segmentation = SPEC, head
        self.config = SimpleNamespace(name="threshold", segmentation=None)

    def card(self) -> dict[str, str]:
        return {"id": "t", "name": "threshold", "segmentation_trained": "by hand"}


def two_balls(kind: str) -> tuple[OpenStudy, np.ndarray]:
    """A bright ball on the patient's right, in front and above, and a dark one opposite."""
    shape = (52, 48, 44)
    affine = (
        oblique_affine()
        if kind == "oblique"
        else axis_aligned_affine(kind, (4.0, 4.5, 4.2), (12, -30, 700), shape)
    )
    grid = Grid(shape, affine)
    world = grid.to_world(np.moveaxis(np.indices(shape), 0, -1))
    centers = grid.center_mm + np.array([[45, 35, 30], [-45, -35, -30]])
    hu = np.full(shape, -500, np.int16)
    for value, center in zip((500, -1000), centers, strict=True):
        hu[np.linalg.norm(world - center, axis=-1) < RADIUS] = value
    volume = CTVolume(hu, grid)
    return OpenStudy(volume, display_of(volume)), centers
