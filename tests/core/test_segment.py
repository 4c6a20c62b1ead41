"""Segmentation with a head whose answer is known: labels on the scan's own voxels."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from simcrop_core.errors import SimCroPError
from simcrop_core.geometry import Grid, axis_aligned_affine
from simcrop_core.input_spec import InputSpec
from simcrop_core.segment import segment
from simcrop_core.volume import CTVolume

SPEC = InputSpec(shape=(64, 64, 32), patch_shape=(8, 8, 4), spacing_mm=(3.0, 3.0, 6.0))


class Threshold(torch.nn.Module):
    """1 where the input is above 0 HU, 2 where it is between -500 and 0; counts its windows."""

    labels = ("bright", "middle")

    def __init__(self, roi=(64, 64, 32)) -> None:
        super().__init__()
        self.roi = roi
        self.windows = 0

    def forward(self, x_B1HWD: torch.Tensor) -> torch.Tensor:
        assert not self.training
        assert x_B1HWD.shape[2:] == self.roi
        self.windows += len(x_B1HWD)
        bright, middle = x_B1HWD > 0, (x_B1HWD <= 0) & (x_B1HWD > -0.5)
        dark = ~bright & ~middle
        return 20.0 * torch.cat([dark, bright, middle], dim=1).float()


class Model(torch.nn.Module):
    def __init__(self, head) -> None:
        super().__init__()
        self.input_spec, self.segmentation = SPEC, head
        self.config = SimpleNamespace(name="threshold", segmentation=None)

    def card(self):
        return {"id": "t", "name": "threshold", "trained": "by hand"}


def affine(kind: str) -> np.ndarray:
    if kind in {"LPS", "RAS", "SAR", "IPR"}:
        return axis_aligned_affine(kind, (2.0, 2.5, 3.0), (30, -10, 400), (50, 44, 40))
    out = np.diag([-2.0, -2.5, 3.0, 1.0])
    if kind == "oblique":
        out[:3, :3] = (
            Rotation.from_euler("xyz", [20, 10, -15], degrees=True).as_matrix() @ out[:3, :3]
        )
    else:
        out[1, 2] = 1.0  # sheared as by gantry tilt
    out[:3, 3] = (30, -10, 400)
    return out


def two_balls(kind: str) -> tuple[CTVolume, np.ndarray]:
    """A scan with a bright and a middling ball off centre, and its true labels."""
    grid = Grid((50, 44, 40), affine(kind))
    world = grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1))
    truth = np.zeros(grid.shape, np.uint8)
    for label, voxel, radius in ((1, (14, 12, 10), 18.0), (2, (36, 30, 28), 21.0)):
        truth[np.linalg.norm(world - grid.to_world(voxel), axis=-1) < radius] = label
    hu = np.array([-1000, 500, -250], np.int16)[truth]
    return CTVolume(hu, grid), truth


@pytest.mark.parametrize("kind", ["LPS", "RAS", "SAR", "IPR", "oblique", "sheared"])
def test_labels_lie_where_the_structures_are(kind: str) -> None:
    volume, truth = two_balls(kind)
    result = segment(Model(Threshold()), volume)
    assert result.names == {1: "bright", 2: "middle"}
    assert result.grid.matches(volume.grid)
    for label in (1, 2):
        found, true = result.labels_XYZ == label, truth == label
        # The bright ball's blurred rim passes through the middle values: one voxel of it.
        dice = 2 * (found & true).sum() / (found.sum() + true.sum())
        assert dice > 0.8, (kind, label, dice)
        apart = np.argwhere(found & ~(truth > 0)).size
        center = np.argwhere(found).mean(axis=0) - np.argwhere(true).mean(axis=0)
        assert np.abs(center).max() < 3, (kind, label, center, apart)
    counts = np.bincount(result.labels_XYZ.ravel())
    voxel_ml = 2.0 * 2.5 * 3.0 / 1000
    assert result.volume_ml["bright"] == pytest.approx(counts[1] * voxel_ml, rel=1e-6)
    assert result.to_dict()["labels"] == {"1": "bright", "2": "middle"}


def test_a_scan_on_the_models_grid_is_labelled_exactly() -> None:
    shape = (70, 66, 40)
    grid = Grid(shape, axis_aligned_affine("LPS", SPEC.spacing_mm, (0, 0, 0), shape))
    hu = np.random.default_rng(0).choice(np.array([-900, -250, 400], np.int16), shape)
    labels = segment(Model(Threshold()), CTVolume(hu, grid)).labels_XYZ
    assert np.array_equal(labels, np.select([hu > 0, hu > -500], [1, 2], 0))


def test_overlap_sets_how_many_windows_are_seen() -> None:
    volume, _ = two_balls("LPS")
    seen = {}
    for overlap in (0.0, 0.5, 0.75):
        head = Threshold(roi=(16, 16, 8))
        told: list[tuple[str, int, int]] = []
        segment(
            Model(head),
            volume,
            overlap=overlap,
            progress=lambda *step, told=told: told.append(step),
        )
        seen[overlap] = head.windows
        windows = {total for what, _, total in told if what == "segmenting"}
        assert windows == {head.windows}  # the announced number is the true one
        assert told[-1][1] == told[-1][2]
    assert seen[0.0] < seen[0.5] < seen[0.75]


def test_the_models_mode_is_left_as_it_was() -> None:
    model = Model(Threshold())
    for training in (True, False):
        model.train(training)
        segment(model, two_balls("LPS")[0])
        assert model.training is training


@pytest.mark.parametrize("overlap", [-0.1, 1.0, float("nan")])
def test_bad_overlaps_and_models_without_a_head_are_refused(overlap: float) -> None:
    volume, _ = two_balls("LPS")
    with pytest.raises(SimCroPError, match="overlap"):
        segment(Model(Threshold()), volume, overlap=overlap)
    with pytest.raises(SimCroPError, match="no segmentation head"):
        segment(Model(None), volume)
