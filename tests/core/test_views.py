"""Views of whole scans: the published transforms, held to MONAI's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from made_ct import AFFINE, SHAPE, chest
from monai.transforms import (
    CenterSpatialCrop,
    Compose,
    Flip,
    RandFlip,
    RandGaussianNoise,
    RandScaleCrop,
    RandShiftIntensity,
    RandSpatialCrop,
    SpatialCrop,
    SpatialPad,
)

from simcrop_core.geometry import Grid
from simcrop_core.input_spec import InputSpec
from simcrop_core.prepare import prepare
from simcrop_core.views import View, center_view, draw_view, take_view, whole_scan
from simcrop_core.volume import CTVolume

WANTED = (16, 12, 8)
#: Larger than the input, smaller, and both; odd and even differences.
SHAPES = [(40, 30, 20), (9, 7, 5), (16, 12, 8), (25, 8, 9), (9, 40, 6)]


def scan(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_middle_is_monais(shape: tuple[int, int, int]) -> None:
    values = scan(shape)
    theirs = Compose([CenterSpatialCrop(WANTED), SpatialPad(WANTED, mode="reflect")])
    expected = np.asarray(theirs(torch.from_numpy(values)[None]))[0]
    np.testing.assert_array_equal(center_view(values, WANTED), expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_view_is_what_monais_transforms_make_of_its_numbers(
    shape: tuple[int, int, int],
) -> None:
    values, disturbed = scan(shape), 0
    for number in range(60):
        view = draw_view(3, "scan", number, shape, WANTED)
        end = np.add(view.start, view.size)
        axes = [axis for axis in range(3) if view.flips[axis]]
        theirs = Compose(
            [
                SpatialCrop(roi_start=view.start, roi_end=end),
                SpatialPad(WANTED, mode="reflect"),
                *[Flip(spatial_axis=axis) for axis in axes],
            ]
        )
        expected = np.asarray(theirs(torch.from_numpy(values)[None]))[0] + np.float32(view.shift)
        quiet = replace(view, noise=0.0)
        np.testing.assert_array_equal(take_view(values, quiet, WANTED), expected)
        if view.noise:
            noise = take_view(values, view, WANTED) - expected
            disturbed += 1
            assert noise.std() == pytest.approx(view.noise, rel=0.1)
            assert abs(noise.mean()) < view.noise * 0.15
    assert disturbed > 3


def test_a_scan_much_smaller_than_the_input_is_mirrored_more_than_once() -> None:
    values = np.arange(3, dtype=np.float32)[:, None, None]
    made = center_view(values, (9, 2, 1))
    assert made[:, 0, 0].tolist() == [1, 2, 1, 0, 1, 2, 1, 0, 1]
    assert (made[:, 0] == made[:, 1]).all()


def published() -> Compose:
    """The published chain, as MONAI's own random transforms."""
    return Compose(
        [
            RandScaleCrop(0.8, max_roi_scale=1.0, random_center=True, random_size=True),
            RandSpatialCrop(WANTED, random_size=False, random_center=True),
            SpatialPad(WANTED, mode="reflect"),
            *[RandFlip(prob=0.2, spatial_axis=axis) for axis in range(3)],
            RandShiftIntensity(offsets=0.1, prob=0.1),
            RandGaussianNoise(prob=0.2),
        ]
    )


def test_views_are_as_often_what_monais_are() -> None:
    """The same chances, read off a scan whose values say where they come from."""
    shape, count = (40, 30, 20), 800
    ramp = np.arange(40, dtype=np.float32)[:, None, None] * np.ones(shape, np.float32)
    theirs = published()
    theirs.set_random_state(0)

    def facts(made: np.ndarray) -> tuple[float, float, float, float]:
        steps = np.diff(made[:, 0, 0])
        flipped = steps.mean() < 0
        noise = (made - made[:, :1, :1]).std()
        start = float(np.median(made.min(axis=0)))
        whole = abs(start - round(start)) if noise < 1e-4 else 0.0
        return float(flipped), float(noise > 1e-4), float(whole > 1e-4), start

    ours_, theirs_ = [], []
    for number in range(count):
        ours_.append(facts(take_view(ramp, draw_view(1, "a", number, shape, WANTED), WANTED)))
        theirs_.append(facts(np.asarray(theirs(torch.from_numpy(ramp)[None]))[0]))
    ours, other = np.array(ours_), np.array(theirs_)
    spread = np.sqrt(2 * np.maximum(other.var(axis=0), 1e-3) / count)
    assert (np.abs(ours.mean(axis=0) - other.mean(axis=0)) < 4 * spread).all()
    assert ours[:, 0].mean() == pytest.approx(0.2, abs=0.05)
    assert ours[:, 1].mean() == pytest.approx(0.2, abs=0.05)
    assert np.quantile(ours[:, 3], [0.1, 0.5, 0.9]) == pytest.approx(
        np.quantile(other[:, 3], [0.1, 0.5, 0.9]), abs=1.5
    )


def test_cuts_reach_every_place_and_no_further() -> None:
    shape = (20, 15, 30)
    views = [draw_view(0, "b", n, shape, (10, 15, 12)) for n in range(800)]
    starts = np.array([v.start for v in views])
    sizes = np.array([v.size for v in views])
    assert starts.min(axis=0).tolist() == [0, 0, 0]
    assert (starts + sizes).max(axis=0).tolist() == [20, 15, 30]
    assert sizes.min(axis=0).tolist() == [10, 12, 12]  # 80 % of 15 is 12
    assert sizes.max(axis=0).tolist() == [10, 15, 12]
    assert np.abs([v.shift for v in views]).max() <= 0.1
    assert 0.05 < np.mean([v.shift != 0 for v in views]) < 0.16
    assert max(v.noise for v in views) <= 0.1


def test_a_view_is_the_same_whoever_draws_it() -> None:
    one = draw_view(1, "a", 5, (40, 30, 20), WANTED)
    assert draw_view(1, "a", 5, (40, 30, 20), WANTED) == one
    others = [
        draw_view(s, name, n, (40, 30, 20), WANTED)
        for s, name, n in ((2, "a", 5), (1, "b", 5), (1, "a", 6))
    ]
    assert one not in others
    values = scan((40, 30, 20))
    noisy = replace(one, noise=0.1)
    np.testing.assert_array_equal(
        take_view(values, noisy, WANTED), take_view(values, noisy, WANTED)
    )


def test_the_scan_is_not_changed() -> None:
    values = scan((16, 12, 8))
    before = values.copy()
    view = View((0, 0, 0), (16, 12, 8), (False, False, False), 0.1, 0.1, 1)
    take_view(values, view, WANTED)[:] = 9
    center_view(values, WANTED)
    np.testing.assert_array_equal(values, before)


def test_the_middle_of_a_scan_that_fills_the_input_is_what_prepare_gives() -> None:
    volume = CTVolume(chest(), Grid(SHAPE, AFFINE))
    spec = InputSpec(shape=(32, 32, 32), spacing_mm=(4.0, 5.0, 5.0), patch_shape=(8, 8, 8))
    expected = prepare(volume, spec).input_1HWD[0].numpy()
    np.testing.assert_allclose(
        center_view(whole_scan(volume, spec), spec.shape), expected, atol=1e-6
    )
