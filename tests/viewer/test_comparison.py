"""What two models' maps have in common, against what can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from made_comparison import aligned, grid_of
from made_ct import oblique_affine

from simcrop_core.geometry import Grid
from simcrop_core.volume import CTVolume
from simcrop_viewer.model.body import body_of
from simcrop_viewer.model.comparison import (
    FULL_COLOUR_SD,
    agreement,
    common_grid,
    difference,
    difference_heat,
    overlap,
    standardised,
)
from simcrop_viewer.model.display import display_of

RNG = np.random.default_rng(5)


# -- standard deviations --------------------------------------------------------------------------


def test_similarity_is_told_in_deviations_from_its_mean_in_the_body(volume: CTVolume) -> None:
    patches = grid_of((4, 4, 4), 10)
    values = RNG.normal(3, 2, (1, 64))
    inside = np.arange(64) >= 4
    body = np.arange(64) < 40
    values[0, :4] = 1e6  # padding
    values[0, 40:] = -1e3  # air around the patient
    z = standardised(aligned(volume, patches, values, inside), 0, body)
    counted = values[0, 4:40].astype(np.float32)
    wanted = (values[0, 4:] - counted.mean()) / counted.std()
    np.testing.assert_allclose(z[4:], wanted, rtol=1e-4, atol=1e-5)
    assert np.isnan(z[:4]).all()


def test_another_scale_of_the_same_similarities_is_no_difference(volume: CTVolume) -> None:
    patches = grid_of((4, 4, 4), 10)
    values, body = RNG.normal(size=(1, 64)), np.ones(64, bool)
    first = standardised(aligned(volume, patches, values), 0, body)
    second = standardised(aligned(volume, patches, 0.01 * values + 7), 0, body)
    apart = difference(first, second, common_grid(patches, grid_of((4, 4, 4), 10)))
    assert np.abs(apart).max() < 1e-3
    assert np.abs(first).max() > 1


def test_a_similarity_that_is_the_same_everywhere_stands_out_nowhere(volume: CTVolume) -> None:
    patches = grid_of((4, 4, 4), 10)
    z = standardised(aligned(volume, patches, np.full((1, 64), 0.3)), 0, np.ones(64, bool))
    assert not z.any()


def test_where_no_body_is_found_the_scan_counts(volume: CTVolume) -> None:
    patches = grid_of((4, 4, 4), 10)
    values = RNG.normal(size=(1, 64))
    z = standardised(aligned(volume, patches, values), 0, np.zeros(64, bool))
    assert z.mean() == pytest.approx(0, abs=1e-6)
    assert z.std() == pytest.approx(1, abs=1e-6)


# -- grids ----------------------------------------------------------------------------------------


def test_nested_grids_meet_on_the_finer_one() -> None:
    coarse, fine = grid_of((2, 3, 4), 20), grid_of((4, 6, 8), 10)
    for first, second, of_second in ((coarse, fine, True), (fine, coarse, False)):
        common = common_grid(first, second)
        assert common.patches is fine
        assert common.is_of_second is of_second
        parents = common.first_N if of_second else common.second_N
        wanted = np.arange(24).reshape(2, 3, 4).repeat(2, 0).repeat(2, 1).repeat(2, 2)
        np.testing.assert_array_equal(parents.reshape(4, 6, 8), wanted)
        own = common.second_N if of_second else common.first_N
        np.testing.assert_array_equal(own, np.arange(len(fine)))


def test_grids_that_lie_askew_meet_by_millimetres_and_not_beyond() -> None:
    fine = grid_of((6, 6, 6), 10)
    other = grid_of((3, 3, 3), 16, (11, -4, 3))
    common = common_grid(fine, other)
    for index in range(len(fine)):
        found = other.patch_at(fine.center(index))
        assert common.second_N[index] == (-1 if found is None else found)
    assert (common.second_N < 0).any()
    apart = difference(np.zeros(216), np.arange(27.0), common)
    np.testing.assert_array_equal(np.isnan(apart), common.second_N < 0)
    there = common.second_N >= 0
    np.testing.assert_array_equal(apart[there], -common.second_N[there])


def test_first_less_second_by_hand() -> None:
    coarse, fine = grid_of((1, 1, 1), 20), grid_of((2, 2, 2), 10)
    apart = difference(np.array([3.0]), np.arange(8.0), common_grid(coarse, fine))
    np.testing.assert_array_equal(apart, 3.0 - np.arange(8.0))
    unknown = np.array([np.nan])
    assert np.isnan(difference(unknown, np.arange(8.0), common_grid(coarse, fine))).all()


def test_colours_are_even_around_no_difference() -> None:
    full = FULL_COLOUR_SD
    heat = difference_heat(np.array([np.nan, -9 * full, -full, 0, full, 9 * full, full / 2]))
    np.testing.assert_allclose(heat, [0, 0.02, 0.02, 0.51, 1, 1, 0.755], atol=1e-6)


# -- overlap --------------------------------------------------------------------------------------


def test_overlap_on_one_grid_is_that_of_the_sets() -> None:
    patches = grid_of((4, 4, 4), 10)
    again = grid_of((4, 4, 4), 10)
    first, second = np.array([0, 5, 9, 60]), np.array([5, 60, 61])
    assert overlap(patches, first, again, second) == pytest.approx(2 / 5)
    assert overlap(patches, first, again, first) == 1
    assert overlap(patches, first, again, np.array([], int)) == 0


def test_overlap_of_different_grids_is_that_of_the_volumes_they_cover() -> None:
    coarse, fine = grid_of((2, 2, 2), 20), grid_of((4, 4, 4), 10)
    corner = fine.index((0, 0, 0))
    assert overlap(coarse, np.array([0]), fine, np.array([corner])) == pytest.approx(1 / 8)
    block = np.array([fine.index((i, j, k)) for i in (0, 1) for j in (0, 1) for k in (0, 1)])
    assert overlap(coarse, np.array([0]), fine, block) == pytest.approx(1)
    assert overlap(coarse, np.array([7]), fine, block) == 0
    # Cubes of 10 and of 8 mm, of which 6 x 8 x 8 mm are shared.
    shifted = grid_of((1, 1, 1), 8, (3, 0, 0))
    both = 6 * 8 * 8
    assert overlap(grid_of((1, 1, 1), 10), np.array([0]), shifted, np.array([0])) == pytest.approx(
        both / (1000 + 512 - both)
    )


def test_overlap_of_many_patches_is_that_of_their_voxels() -> None:
    """Against counting millimetre cubes."""
    first, second = grid_of((3, 3, 3), 4), grid_of((4, 4, 4), 3)
    chosen = [RNG.choice(len(g), 9, replace=False) for g in (first, second)]
    cubes = np.indices((12, 12, 12)).reshape(3, -1).T - 5.5
    covered = [
        np.array([grid.patch_at(cube) in set(top.tolist()) for cube in cubes])
        for grid, top in zip((first, second), chosen, strict=True)
    ]
    wanted = (covered[0] & covered[1]).sum() / (covered[0] | covered[1]).sum()
    assert overlap(first, chosen[0], second, chosen[1]) == pytest.approx(wanted)


def test_best_patches_lie_as_far_apart_as_their_middles(volume: CTVolume) -> None:
    first, second = grid_of((2, 2, 2), 20), grid_of((4, 4, 4), 10)
    one, other = np.zeros((1, 8)), np.zeros((1, 64))
    one[0, 0], other[0, 63] = 1, 1
    found = agreement(
        aligned(volume, first, one), 0, aligned(volume, second, other), 0,
        (np.array([0]), np.array([63])),
    )  # fmt: skip
    assert found.best_apart_mm == pytest.approx(np.sqrt(3) * 25)
    assert found.overlap == 0


# -- the body -------------------------------------------------------------------------------------


@pytest.mark.parametrize("oblique", [False, True])
def test_the_body_holds_its_lungs_and_not_the_air_around(volume: CTVolume, oblique: bool) -> None:
    if oblique:
        volume = CTVolume(volume.hu_XYZ, Grid(volume.shape, oblique_affine(10)))
    body = body_of(display_of(volume))

    def at(x: float, y: float, z: float = 0) -> bool:
        """Whether a place from -1 to 1 along the scan's axes is in the body."""
        voxel = (np.array([x, y, z]) + 1) / 2 * (np.array(volume.shape) - 1)
        return bool(body.holds(volume.grid.to_world(voxel)[None])[0])

    assert at(0, 0)
    assert at(0.4, 0)  # lungs
    assert at(-0.4, 0)
    assert not at(0.95, 0.9)
    assert not at(-0.95, -0.9)
    far = volume.grid.center_mm + np.array([0, 0, 9999])
    assert not body.holds(far[None])[0]


def test_no_body_goes_beyond_the_scan() -> None:
    grid = Grid((8, 8, 8), np.diag([5.0, 5, 5, 1]))
    body = body_of(display_of(CTVolume(np.zeros((8, 8, 8), np.int16), grid)))
    inside = [(36, 15, 15), (-2, 15, 15), (15, 15, 37)]
    outside = [(39, 15, 15), (-4, 15, 15), (15, 15, 38)]  # half a voxel and more beyond the last
    assert body.holds(np.array(inside)).tolist() == [True] * 3
    assert body.holds(np.array(outside)).tolist() == [False] * 3


def test_a_scan_of_air_alone_has_no_body() -> None:
    grid = Grid((8, 8, 8), np.diag([5.0, 5, 5, 1]))
    body = body_of(display_of(CTVolume(np.full((8, 8, 8), -1000, np.int16), grid)))
    assert not body.mask_XYZ.any()
