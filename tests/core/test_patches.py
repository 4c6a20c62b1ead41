"""Patch <-> voxel <-> world."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simcrop_core.geometry import Grid, axis_aligned_affine
from simcrop_core.patches import PatchGrid

AXES = ["LPS", "RAS", "PIR", "SRA", "ALI"]


def patch_grid(axcodes: str = "LPS") -> PatchGrid:
    shape = (32, 48, 16)
    affine = axis_aligned_affine(axcodes, (1.5, 1.0, 3.0), (12.5, -80.0, 301.0), shape)
    return PatchGrid.over(Grid(shape, affine), (8, 16, 4))


@pytest.mark.parametrize("axcodes", AXES)
@given(st.data())
def test_the_patch_at_a_point_is_the_one_whose_box_covers_it(axcodes, data) -> None:
    patches = patch_grid(axcodes)
    low, high = patches.grid.bounds_mm()
    point = np.array([data.draw(st.floats(a - 9, b + 9)) for a, b in zip(low, high, strict=True)])
    index = patches.patch_at(point)
    covering = [n for n in range(len(patches)) if patches.box(n).covers(point)]
    if index is None:
        # Only the outer face itself belongs to no patch on its far side.
        assert all(
            (
                np.isclose(point, patches.box(n).low_mm) | np.isclose(point, patches.box(n).high_mm)
            ).any()
            for n in covering
        )
    else:
        box = patches.box(index)
        assert ((point >= box.low_mm - 1e-9) & (point <= box.high_mm + 1e-9)).all()


@pytest.mark.parametrize("axcodes", AXES)
def test_centres_boxes_voxels_and_flat_order_agree(axcodes: str) -> None:
    patches = patch_grid(axcodes)
    shape = (32, 48, 16)
    voxel_grid = Grid(
        shape, axis_aligned_affine(axcodes, (1.5, 1.0, 3.0), (12.5, -80.0, 301.0), shape)
    )
    flat = 0
    for i in range(4):
        for j in range(3):
            for k in range(4):  # depth fastest
                assert patches.ijk(flat) == (i, j, k)
                assert patches.index((i, j, k)) == flat
                voxels = np.stack(
                    np.meshgrid(*[np.arange(s.start, s.stop) for s in patches.voxels(flat)]), -1
                ).reshape(-1, 3)
                world = voxel_grid.to_world(voxels)
                assert np.allclose(patches.center(flat), world.mean(axis=0))
                assert np.allclose(patches.center(flat), patches.centers()[flat])
                assert np.allclose(patches.affine @ [i, j, k, 1], [*patches.center(flat), 1])
                half = np.abs(voxel_grid.affine[:3, :3]).sum(axis=1) / 2
                box = patches.box(flat)
                assert np.allclose(box.low_mm, world.min(axis=0) - half)
                assert np.allclose(box.high_mm, world.max(axis=0) + half)
                assert patches.patch_at(patches.center(flat)) == flat
                flat += 1
    assert flat == len(patches)


def test_points_that_are_nowhere_have_no_patch() -> None:
    patches = patch_grid()
    assert patches.patch_at([1e6, 0, 0]) is None
    assert patches.patch_at([np.nan, 0, 0]) is None
    with pytest.raises(ValueError, match="one point"):
        patches.patch_at([[0, 0, 0]])
    for index in (-1, len(patches)):
        with pytest.raises(IndexError):
            patches.box(index)


def test_a_map_puts_each_value_at_its_patch() -> None:
    patches = patch_grid()
    values = np.arange(len(patches), dtype=np.float32)
    for index in (0, 1, 7, 47):
        assert patches.as_map(values)[patches.ijk(index)] == index
