"""Grid against closed forms, nibabel and its own inverses."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from simcrop_core.geometry import LPS_TO_RAS, Grid, axis_aligned_affine

CODES = [
    "".join(letters[axis][flips >> k & 1] for k, axis in enumerate(order))
    for letters in [("RL", "AP", "SI")]
    for order in [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    for flips in range(8)
]


@st.composite
def grids(draw: st.DrawFn, sheared: bool = True) -> Grid:
    """Turned, flipped, sheared grids of every orientation."""
    numbers = st.floats(-1, 1, allow_nan=False)
    turn = Rotation.from_euler("xyz", [180 * draw(numbers) for _ in range(3)], degrees=True)
    spacing = [draw(st.floats(0.1, 10)) for _ in range(3)]
    shear = np.eye(3)
    if sheared:
        shear[1, 2], shear[0, 2] = 0.5 * draw(numbers), 0.5 * draw(numbers)
    affine = np.eye(4)
    flip = np.diag([draw(st.sampled_from([-1.0, 1.0])), 1.0, 1.0])
    affine[:3, :3] = turn.as_matrix() @ shear @ flip @ np.diag(spacing)
    affine[:3, 3] = [1000 * draw(numbers) for _ in range(3)]
    shape = tuple(draw(st.integers(1, 60)) for _ in range(3))
    return Grid(shape, affine)  # type: ignore[arg-type]


points = st.lists(st.tuples(*[st.floats(-500, 500)] * 3), min_size=1, max_size=5)


@given(grids(), points)
def test_to_voxel_undoes_to_world(grid: Grid, voxels: list[tuple[float, float, float]]) -> None:
    back = grid.to_voxel(grid.to_world(voxels))
    np.testing.assert_allclose(back, voxels, atol=1e-6)


@given(grids(), points)
def test_to_world_is_the_affine(grid: Grid, voxels: list[tuple[float, float, float]]) -> None:
    expected = nib.affines.apply_affine(grid.affine, voxels)
    np.testing.assert_allclose(grid.to_world(voxels), expected, atol=1e-9)
    np.testing.assert_allclose(grid.spacing_mm, nib.affines.voxel_sizes(grid.affine))
    np.testing.assert_allclose(grid.voxel_volume_mm3, abs(np.linalg.det(grid.affine)), rtol=1e-9)


@pytest.mark.parametrize("code", CODES)
def test_axcodes_of_every_orientation(code: str) -> None:
    affine = axis_aligned_affine(code, (0.7, 1.3, 2.9), (10, -20, 30), (5, 6, 7))
    grid = Grid((5, 6, 7), affine)
    assert grid.axcodes == code == "".join(nib.aff2axcodes(affine))
    assert grid.is_axis_aligned
    assert not grid.is_sheared
    assert grid.obliquity_deg == 0
    np.testing.assert_allclose(grid.center_mm, (10, -20, 30))
    np.testing.assert_allclose(grid.spacing_mm, (0.7, 1.3, 2.9))


@given(grids(sheared=False))
def test_axcodes_agree_with_nibabel(grid: Grid) -> None:
    theirs = nib.io_orientation(grid.affine)[:, 0]
    cosines = abs(grid.affine[:3, :3] / np.linalg.norm(grid.affine[:3, :3], axis=0))
    largest = cosines.argmax(axis=0)
    if sorted(largest) != [0, 1, 2] or cosines.max(axis=0).min() < 0.75:
        return  # near a tie the two may choose differently, and both be right
    np.testing.assert_array_equal(grid.nearest_axes()[0], theirs)
    assert grid.axcodes == "".join(nib.aff2axcodes(grid.affine))


@pytest.mark.parametrize("degrees", [0.5, 10, 30])
def test_obliquity_of_a_known_turn(degrees: float) -> None:
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("z", degrees, degrees=True).as_matrix() * 2
    grid = Grid((100, 100, 100), affine)
    assert grid.obliquity_deg == pytest.approx(degrees)
    assert not grid.is_axis_aligned
    assert not grid.is_sheared


def test_tilt_is_shear() -> None:
    affine = np.diag([1.0, 1, 3, 1])
    affine[1, 2] = 3 * np.tan(np.radians(15))
    grid = Grid((10, 10, 10), affine)
    assert grid.is_sheared
    assert not grid.is_axis_aligned


@given(grids(), st.tuples(*[st.integers(-20, 20)] * 3))
def test_window_keeps_every_voxel_in_place(grid: Grid, start: tuple[int, int, int]) -> None:
    part = grid.window(start, (3, 4, 5))
    inside = np.array([[0, 0, 0], [2, 3, 4], [1.5, 0, 2]])
    np.testing.assert_allclose(
        part.to_world(inside), grid.to_world(inside + np.array(start)), atol=1e-9
    )
    assert part.shape == (3, 4, 5)


@given(grids(), st.tuples(*[st.integers(1, 5)] * 3))
def test_coarsened_voxel_is_the_middle_of_its_block(
    grid: Grid, factor: tuple[int, int, int]
) -> None:
    fine = Grid(tuple(n * f for n, f in zip(grid.shape, factor, strict=True)), grid.affine)
    coarse = fine.coarsened(factor)
    assert coarse.shape == grid.shape
    block = np.stack(np.meshgrid(*[np.arange(f) for f in factor], indexing="ij"), -1)
    last = np.array(coarse.shape) - 1
    mean = fine.to_world((block + last * np.array(factor)).reshape(-1, 3)).mean(axis=0)
    np.testing.assert_allclose(coarse.to_world(last), mean, atol=1e-8)
    for a, b in zip(coarse.bounds_mm(), fine.bounds_mm(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-8)


def test_coarsened_refuses_what_does_not_divide() -> None:
    with pytest.raises(ValueError, match="does not divide"):
        Grid((5, 6, 7), np.eye(4)).coarsened((2, 2, 7))


@given(grids())
def test_matches_itself_and_nothing_moved(grid: Grid) -> None:
    assert grid.matches(Grid(grid.shape, grid.affine))
    moved = np.array(grid.affine)
    moved[0, 3] += 0.02
    assert not grid.matches(Grid(grid.shape, moved))
    assert grid.matches(Grid(grid.shape, moved), tolerance_mm=0.03)
    assert not grid.matches(Grid((grid.shape[0] + 1, *grid.shape[1:]), grid.affine))


def test_matches_sees_a_turn_that_only_the_far_corner_shows() -> None:
    turned = np.eye(4)
    turned[:3, :3] = Rotation.from_euler("z", 0.01, degrees=True).as_matrix()
    assert Grid((10, 10, 10), np.eye(4)).matches(Grid((10, 10, 10), turned))
    assert not Grid((500, 500, 10), np.eye(4)).matches(Grid((500, 500, 10), turned))


@given(grids())
def test_contains_the_boxes_of_its_voxels(grid: Grid) -> None:
    last = np.array(grid.shape) - 1
    inside = [np.zeros(3) - 0.49, last + 0.49, last / 2]
    outside = [np.zeros(3) - 0.51, last + 0.51]
    assert grid.contains(grid.to_world(inside)).all()
    assert not grid.contains(grid.to_world(outside)).any()


@given(grids())
def test_bounds_enclose_every_corner_and_touch(grid: Grid) -> None:
    low, high = grid.bounds_mm()
    rng = np.random.default_rng(0)
    corners = np.array(grid.shape) * rng.integers(0, 2, (64, 3)) - 0.5
    world = grid.to_world(corners)
    assert (world >= low - 1e-9).all()
    assert (world <= high + 1e-9).all()
    middle = (low + high) / 2
    np.testing.assert_allclose(middle, grid.center_mm, atol=1e-8)


def test_grid_cannot_be_changed() -> None:
    affine = np.eye(4)
    grid = Grid((2, 2, 2), affine)
    affine[0, 3] = 5
    assert grid.affine[0, 3] == 0
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 0] = 2


@pytest.mark.parametrize(
    ("shape", "affine"),
    [
        ((2, 2), np.eye(4)),
        ((2, 0, 2), np.eye(4)),
        ((2, 2, 2), np.eye(3)),
        ((2, 2, 2), np.full((4, 4), np.nan)),
        ((2, 2, 2), np.zeros((4, 4))),
        ((2, 2, 2), np.diag([1.0, 1, 1, 2])),
        ((2, 2, 2), np.diag([1.0, 1, 0, 1])),
        ((2, 2, 2), np.diag([1e200, 1e200, 1e200, 1])),
        ((2, 2, 2), np.diag([1e-200, 1e-200, 1e-200, 1])),
        ((2, 2, 2), np.array([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])),
    ],
)
def test_impossible_grids_are_refused(shape: tuple[int, ...], affine: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"[Gg]rid"):
        Grid(shape, affine)  # type: ignore[arg-type]


@pytest.mark.parametrize("code", ["", "LP", "LPSS", "LLS", "LRS", "XYZ", "lps"])
def test_impossible_axcodes_are_refused(code: str) -> None:
    with pytest.raises(ValueError, match="body directions"):
        axis_aligned_affine(code, (1, 1, 1), (0, 0, 0), (2, 2, 2))


def test_lps_and_ras_are_half_a_turn_apart() -> None:
    np.testing.assert_array_equal(LPS_TO_RAS @ LPS_TO_RAS, np.eye(4))
    np.testing.assert_array_equal(LPS_TO_RAS @ [1, 2, 3, 1], [-1, -2, 3, 1])


def test_repr_tells_size_spacing_and_axes() -> None:
    text = repr(Grid((5, 6, 7), axis_aligned_affine("LPS", (0.7, 0.8, 3), (0, 0, 0), (5, 6, 7))))
    assert "5 x 6 x 7" in text
    assert "0.7 x 0.8 x 3 mm" in text
    assert "LPS" in text
    assert "oblique" not in text
    turned = np.eye(4)
    turned[:3, :3] = Rotation.from_euler("x", 12, degrees=True).as_matrix()
    assert "oblique by 12.0 deg" in repr(Grid((50, 50, 50), turned))
