"""Prepare and resample against independent references: SciPy, torch's grid_sample, closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from simcrop_core.errors import SimCroPError
from simcrop_core.geometry import Grid, axis_aligned_affine
from simcrop_core.input_spec import InputSpec
from simcrop_core.prepare import lung_center, prepare, resampled_grid
from simcrop_core.resample import resample_linear
from simcrop_core.volume import CTVolume

SMALL = InputSpec(shape=(32, 32, 16), patch_shape=(8, 8, 4), spacing_mm=(3.0, 3.0, 6.0))


def reference(volume: CTVolume, grid: Grid, spec: InputSpec) -> np.ndarray:
    """Trilinear by SciPy, voxel by voxel in world coordinates, written on its own."""
    index = np.indices(grid.shape).reshape(3, -1)
    world = grid.affine @ np.vstack([index, np.ones(index.shape[1])])
    at = (np.linalg.inv(volume.grid.affine) @ world)[:3]
    size = np.array(volume.shape)[:, None]
    hu = map_coordinates(volume.hu_XYZ.astype(np.float64), at, order=1, mode="nearest")
    inside = ((at >= -0.5) & (at < size - 0.5)).all(axis=0)
    low, high = spec.hu_window
    hu = np.clip(np.where(inside, hu, low), low, high)
    return ((hu - low) / (high - low) * 2 - 1).reshape(grid.shape)


def random_volume(seed: int, affine: np.ndarray, shape=(40, 36, 30), dtype=np.int16) -> CTVolume:
    rng = np.random.default_rng(seed)
    hu = rng.integers(-1200, 1300, shape).astype(dtype)
    return CTVolume(hu, Grid(shape, affine))


def oblique(angle_deg: float, spacing=(2.1, 2.9, 4.3)) -> np.ndarray:
    affine = np.eye(4)
    rotation = Rotation.from_euler("xyz", [angle_deg, angle_deg / 2, -angle_deg], degrees=True)
    affine[:3, :3] = rotation.as_matrix() * spacing
    affine[:3, 3] = (-100, 30, 900)
    return affine


def sheared() -> np.ndarray:
    affine = np.diag([-2.0, -2.0, 5.0, 1.0])
    affine[1, 2] = 1.7
    return affine


@pytest.mark.parametrize("axcodes", ["LPS", "RAS", "PIR", "SRA", "ALI", "IPL"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_prepare_equals_an_independent_trilinear_reference(axcodes: str, order: str) -> None:
    volume = random_volume(
        0, axis_aligned_affine(axcodes, (2.3, 3.1, 2.7), (5, -7, 40), (40, 36, 30))
    )
    volume = CTVolume(np.array(volume.hu_XYZ, order=order), volume.grid)
    prepared = prepare(volume, SMALL)
    expected = reference(volume, prepared.grid, SMALL)
    assert prepared.input_1HWD.dtype == torch.float32
    assert prepared.input_1HWD.shape == (1, 32, 32, 16)
    assert np.abs(prepared.input_1HWD[0].numpy() - expected).max() < 1e-4


@pytest.mark.parametrize("affine", [oblique(3), oblique(20), oblique(44), sheared()])
def test_oblique_and_sheared_scans_equal_the_reference(affine: np.ndarray) -> None:
    volume = random_volume(1, affine)
    prepared = prepare(volume, SMALL)
    difference = np.abs(prepared.input_1HWD[0].numpy() - reference(volume, prepared.grid, SMALL))
    # Points exactly on the scan's surface may fall on either side of it by rounding.
    at = volume.grid.to_voxel(prepared.grid.to_world(np.indices(SMALL.shape).reshape(3, -1).T))
    surface = np.minimum(np.abs(at + 0.5), np.abs(at - np.array(volume.shape) + 0.5)).min(axis=1)
    assert difference.reshape(-1)[surface > 1e-5].max() < 1e-3
    assert (surface > 1e-5).mean() > 0.9
    assert prepared.grid.axcodes == "LPS"
    assert prepared.grid.is_axis_aligned


def test_agrees_with_grid_sample_of_torch() -> None:
    volume = random_volume(2, axis_aligned_affine("LPS", (2.0, 2.0, 3.0), (0, 0, 0), (40, 36, 30)))
    prepared = prepare(volume, SMALL)
    index = np.indices(prepared.grid.shape).reshape(3, -1).T
    at = volume.grid.to_voxel(prepared.grid.to_world(index))
    size = np.array(volume.shape)
    normal = torch.from_numpy((at + 0.5) / size * 2 - 1).float()
    sampled = torch.nn.functional.grid_sample(
        torch.from_numpy(volume.hu_XYZ.astype(np.float32))[None, None],
        normal[:, [2, 1, 0]].reshape(1, *prepared.grid.shape, 3),
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )[0, 0]
    inside = torch.from_numpy(((at >= -0.5) & (at < size - 0.5)).all(axis=1)).reshape(sampled.shape)
    expected = (sampled.clamp(-1000, 1000) / 1000)[inside]
    assert (prepared.input_1HWD[0][inside] - expected).abs().max() < 1e-3


def test_a_scan_on_the_models_grid_keeps_its_voxels_exactly() -> None:
    shape = (35, 30, 17)  # odd against the input's even sizes: no half-voxel blur allowed
    volume = random_volume(
        3, axis_aligned_affine("LPS", (3.0, 3.0, 6.0), (11, 3, -8), shape), shape
    )
    prepared = prepare(volume, SMALL)
    start = np.rint(volume.grid.to_voxel(prepared.grid.to_world([0, 0, 0]))).astype(int)
    assert np.allclose(volume.grid.to_voxel(prepared.grid.to_world([0, 0, 0])), start, atol=1e-9)
    values = prepared.input_1HWD[0].numpy()
    for _ in range(200):
        voxel = np.random.default_rng(_).integers(0, SMALL.shape)
        source = start + voxel
        if ((source >= 0) & (source < shape)).all():
            wanted = np.clip(volume.hu_XYZ[tuple(source)], -1000, 1000) / 1000
            assert values[tuple(voxel)] == pytest.approx(wanted, abs=1e-6)
        else:
            assert values[tuple(voxel)] == -1


@settings(max_examples=40, deadline=None)
@given(
    a=st.floats(-3, 3),
    b=st.floats(-3, 3),
    c=st.floats(-2, 2),
    d=st.floats(-100, 100),
    angle=st.floats(-40, 40),
)
def test_a_linear_field_is_resampled_without_error(a, b, c, d, angle) -> None:
    source = Grid((24, 22, 20), oblique(angle))
    world = source.to_world(np.indices(source.shape).reshape(3, -1).T)
    field = (world @ [a, b, c] + d).reshape(source.shape).astype(np.float32)
    target = Grid(
        (10, 10, 10), axis_aligned_affine("LPS", (1.3, 1.7, 2), source.center_mm, (10,) * 3)
    )
    values, inside = resample_linear(field, source, target, fill=None)
    wanted = target.to_world(np.indices(target.shape).reshape(3, -1).T) @ [a, b, c] + d
    at = source.to_voxel(target.to_world(np.indices(target.shape).reshape(3, -1).T))
    interior = ((at >= 0) & (at <= np.array(source.shape) - 1)).all(axis=1).reshape(target.shape)
    assert inside[interior].all()
    scale = 1e-5 * (1 + np.abs(field).max())
    assert np.abs(values - wanted.reshape(target.shape))[interior].max(initial=0) < scale


def test_padding_edge_repeats_the_outermost_voxels_and_air_does_not() -> None:
    volume = CTVolume(
        np.full((10, 10, 10), 500, np.int16) + np.arange(10, dtype=np.int16),
        Grid((10, 10, 10), np.diag([3.0, 3.0, 6.0, 1.0])),
    )
    air = prepare(volume, SMALL).input_1HWD
    edge = prepare(volume, SMALL.model_copy(update={"padding": "edge"})).input_1HWD
    assert air[0, 0, 0, 0] == -1
    assert edge[0, 0, 0, 0] == pytest.approx(0.5, abs=0.01)


# -- placement ----------------------------------------------------------------------------------


def chest() -> CTVolume:
    """A body with two lungs, whose box is centred at (0, -5, 30) mm; noise of a CT."""
    shape = (192, 152, 96)
    grid = Grid(shape, axis_aligned_affine("LPS", (2.0, 2.0, 3.5), (0, 0, 0), shape))
    x, y, z = np.moveaxis(grid.to_world(np.indices(shape).reshape(3, -1).T), -1, 0).reshape(
        3, *shape
    )
    hu = np.full(shape, -1000.0)
    hu[(x / 165) ** 2 + (y / 115) ** 2 < 1] = 40
    for side in (1, -1):
        inside = ((x - side * 72) / 55) ** 2 + ((y + 5) / 78) ** 2 + ((z - 30) / 105) ** 2 < 1
        hu[inside] = -850
    hu += np.random.default_rng(0).normal(0, 18, shape)
    return CTVolume(np.clip(np.rint(hu), -1024, 3071).astype(np.int16), grid)


def test_the_default_is_the_papers_input() -> None:
    prepared = prepare(chest())
    assert prepared.input_1HWD.shape == (1, 224, 224, 112)
    assert prepared.patches.shape == (14, 14, 14)
    assert prepared.patches.size_mm == pytest.approx((24, 24, 24))
    assert len(prepared.patches) == 2744
    assert prepared.input_1HWD.min() >= -1
    assert prepared.input_1HWD.max() <= 1


def test_a_larger_scan_is_cut_around_its_centre_with_a_note_that_adds_up() -> None:
    shape = (60, 32, 20)
    volume = random_volume(7, axis_aligned_affine("LPS", (3, 3, 6), (0, 0, 0), shape), shape)
    prepared = prepare(volume, SMALL)
    (note,) = prepared.notes
    assert note.code == "scan-larger-than-input"
    # 28 voxels of 3 mm and 4 of 6 mm are left out, half on each side.
    assert "42 mm on the patient's right" in note.text
    assert "42 mm on the patient's left" in note.text
    assert "12 mm at the top" in note.text
    assert "in front" not in note.text
    assert np.allclose(prepared.grid.center_mm, volume.grid.center_mm)


def test_lungs_are_found_where_they_are_not_where_the_scan_is() -> None:
    drawn = chest()
    middle = np.array([0.0, -5.0, 30.0])  # of the lungs as they are drawn
    wide = np.full((272, 200, 96), -1000, np.int16)
    for x, y in ((80, 0), (0, 48), (40, 20)):  # much air on one side, as of a badly placed patient
        hu = wide.copy()
        hu[x : x + 192, y : y + 152] = drawn.hu_XYZ
        volume = CTVolume(hu, drawn.grid.window((-x, -y, 0), hu.shape))
        center = lung_center(volume)
        assert center is not None
        assert (np.abs(center - middle) <= [4, 4, 7]).all(), center
        apart = np.abs(volume.grid.center_mm - middle)
        assert apart.max() > 25  # else the middle of the scan would do
        small = InputSpec(shape=(96, 96, 48), spacing_mm=(2, 2, 3.5))
        by_lungs = prepare(volume, small, placement="lungs")
        assert (np.abs(by_lungs.grid.center_mm - center) <= [1, 1, 1.75]).all()
        assert {"placed-on-lungs", "scan-larger-than-input"} == {n.code for n in by_lungs.notes}


def test_lungs_of_a_real_scan_are_found(real_data) -> None:
    from simcrop_core.io import labels_on, read_labels, read_volume

    volume = read_volume(real_data / "ct/cip-chest64/ct-64.nrrd")
    labels, grid = read_labels(real_data / "ct/cip-chest64/lm-64.nrrd")
    mask = labels_on(volume.grid, labels, grid)
    lungs = volume.grid.to_world(np.argwhere(np.isin(mask & 0xFF, range(9, 15))))
    middle = (lungs.min(axis=0) + lungs.max(axis=0)) / 2
    center = lung_center(volume)
    assert center is not None
    assert np.abs(center - middle).max() < 15


def test_without_lungs_the_centre_is_taken_and_said() -> None:
    volume = random_volume(8, np.diag([4.0, 4.0, 8.0, 1.0]))
    prepared = prepare(volume, SMALL, placement="lungs")
    assert "lungs-not-found" in {n.code for n in prepared.notes}
    assert np.array_equal(prepared.grid.affine, prepare(volume, SMALL).grid.affine)


@pytest.mark.parametrize("shape", [(60, 50, 40), (33, 32, 16), (20, 70, 10), (120, 33, 17)])
def test_tiles_cover_every_voxel_of_the_scan(shape: tuple[int, int, int]) -> None:
    volume = random_volume(9, axis_aligned_affine("LPS", (3, 3, 6), (1, 2, 3), shape), shape)
    prepared = prepare(volume, SMALL, placement="tiled")
    covered = np.zeros(prepared.input_1HWD.shape[1:], dtype=bool)
    for number, start in enumerate(prepared.window_starts):
        assert prepared.window(number).shape == (1, *SMALL.shape)
        assert all(s % p == 0 for s, p in zip(start, SMALL.patch_shape, strict=True))
        covered[tuple(slice(s, s + n) for s, n in zip(start, SMALL.shape, strict=True))] = True
    assert covered.all()
    low, high = prepared.grid.bounds_mm()
    scan_low, scan_high = volume.grid.bounds_mm()
    assert (low <= scan_low + 1e-6).all()
    assert (high >= scan_high - 1e-6).all()
    assert not prepared.notes


def test_tiled_is_the_plain_input_where_the_scan_fits() -> None:
    volume = random_volume(10, np.diag([-2.0, -2.0, 3.0, 1.0]))
    plain, tiled = prepare(volume, SMALL), prepare(volume, SMALL, placement="tiled")
    assert torch.equal(plain.input_1HWD, tiled.input_1HWD)
    assert tiled.window_starts == ((0, 0, 0),)


def test_unknown_placement_and_endless_scans_are_refused() -> None:
    volume = random_volume(11, np.diag([2.0, 2.0, 3.0, 1.0]))
    with pytest.raises(SimCroPError, match="placement"):
        prepare(volume, SMALL, placement="middle")  # type: ignore[arg-type]
    long = random_volume(12, np.diag([2.0, 2.0, 19.0, 1.0]), (4, 4, 120))
    with pytest.raises(SimCroPError, match="too long"):
        prepare(long, SMALL, placement="tiled")


def test_patches_that_touch_the_scan_are_those_with_a_voxel_in_it() -> None:
    shape = (17, 9, 11)
    volume = random_volume(13, axis_aligned_affine("LPS", (3, 3, 6), (0, 0, 0), shape), shape)
    prepared = prepare(volume, SMALL)
    for index in range(len(prepared.patches)):
        voxels = np.stack(
            np.meshgrid(*[np.arange(s.start, s.stop) for s in prepared.patches.voxels(index)]), -1
        ).reshape(-1, 3)
        inside = volume.grid.contains(prepared.grid.to_world(voxels)).any()
        assert prepared.inside_N[index] == inside


def test_the_resampled_grid_shares_the_scans_centre_and_extent() -> None:
    volume = random_volume(14, oblique(30))
    grid = resampled_grid(volume.grid, SMALL)
    assert np.allclose(grid.center_mm, volume.grid.center_mm)
    low, high = grid.bounds_mm()
    scan_low, scan_high = volume.grid.bounds_mm()
    assert (np.abs((high - low) - (scan_high - scan_low)) <= np.array([3, 3, 6]) / 2 + 1e-9).all()


def test_real_scans_equal_the_reference(real_data) -> None:
    from simcrop_core.io import read_volume

    for path in ("ct/cip-chest64/ct-64.nrrd", "ct/totalseg-aorta-crop/ct_cropped.nii.gz"):
        volume = read_volume(real_data / path)
        prepared = prepare(volume)
        expected = reference(volume, prepared.grid, prepared.spec)
        difference = np.abs(prepared.input_1HWD[0].numpy() - expected)
        assert (difference > 1e-3).mean() < 1e-4, path
