"""Figures: what lies where on the picture, what the words say, and the same bytes each time."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
import zlib
from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot  # only to see that it stays untouched
from matplotlib.figure import Figure
from scipy.ndimage import map_coordinates

from simcrop_core.alignment_result import AlignedSentence, AlignmentResult
from simcrop_core.encoded import VolumeCard
from simcrop_core.errors import SimCroPError
from simcrop_core.figure import FigureSpec, draw_figure, save_figure
from simcrop_core.figure_canvas import own_settings
from simcrop_core.figure_panel import round_length
from simcrop_core.figure_planes import (
    PLANE_BY_NAME,
    best_position,
    crop_box,
    cut_heat,
    cut_scan,
    outline,
    window_for,
)
from simcrop_core.figure_text import clean, wrapped
from simcrop_core.geometry import Grid, axis_aligned_affine
from simcrop_core.patches import Box, PatchGrid
from simcrop_core.resample import resample_linear
from simcrop_core.volume import CTVolume

CENTER = np.array([12.0, -30.0, 140.0])
SENTENCES = (
    "A nodule of 5 mm is seen in the right upper lobe.",
    "Cost $5_x$ of a^2 and 100 % \\alpha: küçük plevral effusion, ĞİŞ ığüşöç.",
    "No lytic lesion is detected in the vertebrae.",
)


def beside(x: float, y: float, z: float) -> np.ndarray:
    """A point so many millimetres from CENTER."""
    return CENTER + np.array([x, y, z])


def rotation(degrees: tuple[float, float, float]) -> np.ndarray:
    matrix = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        a, b = [other for other in range(3) if other != axis]
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix


def grid_of(storage: str, spacing: tuple[float, float, float] = (4.0, 4.0, 5.0)) -> Grid:
    """About 200 x 200 x 200 mm around CENTER, stored in a given way."""
    shape = tuple(round(200 / s) for s in spacing)
    codes = storage if len(storage) == 3 else "LPS"
    affine = axis_aligned_affine(codes, spacing, CENTER, shape)
    linear = affine[:3, :3]
    if storage == "oblique":
        linear = rotation((9.0, -14.0, 21.0)) @ linear
    if storage == "sheared":
        linear = linear + np.outer([0, 1.5, 0], [0, 0, 1])  # slices shift as under gantry tilt
    affine = np.array(affine)
    affine[:3, :3] = linear
    affine[:3, 3] = CENTER - linear @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)  # type: ignore[arg-type]


STORAGES = ("LPS", "RAS", "LAS", "SPL", "AIR", "oblique", "sheared")


def phantom(storage: str = "LPS", marker_mm: np.ndarray | None = None) -> CTVolume:
    """Air with a bright ball."""
    grid = grid_of(storage)
    world = grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1))
    hu = np.full(grid.shape, -1000, dtype=np.int16)
    hu[np.linalg.norm(world - CENTER, axis=-1) < 80] = -300
    if marker_mm is not None:
        hu[np.linalg.norm(world - marker_mm, axis=-1) < 14] = 1000
    return CTVolume(hu, grid)


def patches_of(orientation: str = "LPS", shape: tuple[int, int, int] = (6, 6, 6)) -> PatchGrid:
    """Patches of 24 x 24 x 24 mm around CENTER."""
    size = (24.0, 24.0, 24.0)
    affine = axis_aligned_affine(orientation, size, CENTER, shape)
    return PatchGrid(Grid(shape, affine), (16, 16, 8))


def aligned(
    volume: CTVolume,
    similarity_SN: np.ndarray | None = None,
    *,
    patches: PatchGrid | None = None,
    texts: tuple[str, ...] = SENTENCES,
    inside_N: np.ndarray | None = None,
    k: int = 12,
    trained: str | None = "untrained",
) -> AlignmentResult:
    patches = patches or patches_of()
    if similarity_SN is None:
        spots = CENTER + np.random.default_rng(3).uniform(-50, 50, (len(texts), 3))
        apart = np.linalg.norm(patches.centers()[None] - spots[:, None], axis=-1)
        similarity_SN = np.exp(-((apart / 50) ** 2)) * np.linspace(0.3, 0.4, len(texts))[:, None]
    similarity_SN = similarity_SN.astype(np.float32)
    inside_N = np.ones(len(patches), dtype=bool) if inside_N is None else inside_N
    order = np.argsort(np.where(inside_N, -similarity_SN, np.inf), axis=1, kind="stable")
    model: dict[str, Any] = {"id": "0123456789abcdef0123", "name": "paper"}
    if trained is not None:
        model["trained"] = trained
    return AlignmentResult(
        sentences=tuple(
            AlignedSentence(text, "findings", None, score, percentile)
            for text, score, percentile in zip(
                texts, np.linspace(3, 0, len(texts)), np.linspace(100, 60, len(texts)), strict=True
            )
        ),
        similarity_SN=similarity_SN,
        top_SK=order[:, :k].astype(np.int64),
        inside_N=inside_N,
        patches=patches,
        model=model,
        volume=VolumeCard.of(volume),
    )


@pytest.fixture(scope="module")
def scan() -> CTVolume:
    return phantom("RAS", beside(30, 10, -20))


@pytest.fixture(scope="module")
def result(scan: CTVolume) -> AlignmentResult:
    return aligned(scan)


def panel(figure: Figure, label: str) -> Any:
    return next(axes for axes in figure.axes if axes.get_label() == label)


def pixels(figure: Figure, label: str) -> tuple[np.ndarray, Any]:
    """A panel as it is drawn, ``(rows, columns, 3)``, and pixel -> picture millimetres."""
    if figure.stale:
        figure.canvas.draw()
    picture = np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)
    axes = panel(figure, label)
    left, bottom, right, top = np.rint(axes.get_window_extent().extents).astype(int)
    height = picture.shape[0]

    def to_mm(row: np.ndarray, column: np.ndarray) -> np.ndarray:
        at = np.stack([left + column + 0.5, height - (height - top + row + 0.5)], axis=-1)
        return axes.transData.inverted().transform(at)

    return picture[height - top : height - bottom, left:right], to_mm


def words_of(figure: Figure) -> list[Any]:
    return [*figure.texts, *(text for axes in figure.axes for text in axes.texts)]


# -- where things lie ---------------------------------------------------------------------------

BARE = FigureSpec(
    sentences=(0,), heat=False, outlines=False, scale_bar=False, letters=False, dpi=150
)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("toward", [(1, 1, 1), (-1, 1, -1), (1, -1, -1)])
def test_a_marker_appears_on_the_side_on_which_it_lies(
    storage: str, toward: tuple[int, int, int]
) -> None:
    marker = CENTER + np.array(toward) * [38.0, 31.0, 26.0]
    volume = phantom(storage, marker)
    figure = draw_figure(volume, aligned(volume), replaced(BARE, position_mm=tuple(marker)))
    right, anterior, superior = toward
    # Fractions of the panel from its left and from its bottom, as a radiologist looks at it.
    expected = {
        "axial": (right < 0, anterior > 0),
        "coronal": (right < 0, superior > 0),
        "sagittal": (anterior < 0, superior > 0),
    }
    for name, (on_right_half, in_upper_half) in expected.items():
        picture, to_mm = pixels(figure, f"0 {name}")
        rows, columns = np.nonzero(picture.min(axis=-1) > 240)
        row, column = np.median(rows), np.median(columns)
        assert (column > picture.shape[1] / 2) == on_right_half, name
        assert (row < picture.shape[0] / 2) == in_upper_half, name
        found = to_mm(row, column)
        assert np.linalg.norm(found - PLANE_BY_NAME[name].uv(marker)) < 3, name


def replaced(spec: FigureSpec, **fields: Any) -> FigureSpec:
    return FigureSpec(**{**spec.model_dump(), **fields})


def test_letters_stand_where_radiologists_expect_them(
    scan: CTVolume, result: AlignmentResult
) -> None:
    figure = draw_figure(scan, result, FigureSpec(sentences=(0,), scale_bar=False))
    expected = {
        "axial": {"R": "left", "L": "right", "A": "top", "P": "bottom"},
        "coronal": {"R": "left", "L": "right", "S": "top", "I": "bottom"},
        "sagittal": {"A": "left", "P": "right", "S": "top", "I": "bottom"},
    }
    for name, edges in expected.items():
        axes = panel(figure, f"0 {name}")
        found = {}
        for text in axes.texts:
            x, y = text.get_position()
            edge = {True: "left" if x < 0.1 else "right", False: "top" if y > 0.9 else "bottom"}
            if text.get_text().isupper():
                found[text.get_text()] = edge[abs(x - 0.5) > 0.4]
        assert found == edges


def test_an_axial_plane_through_voxel_centres_shows_the_stored_values() -> None:
    values = np.random.default_rng(0).integers(-1000, 1000, (20, 24, 9)).astype(np.int16)
    for codes in ("RAS", "LPS"):
        affine = axis_aligned_affine(codes, (1.5, 1.5, 5.0), CENTER, values.shape)
        volume = CTVolume(values, Grid(values.shape, affine))
        where = volume.grid.to_world((0, 0, 4))
        crop = Box(*volume.grid.bounds_mm())
        raster = cut_scan(volume, PLANE_BY_NAME["axial"], where, crop, outside_hu=-2000)
        stored = values[:, :, 4].T
        # The picture grows to the patient's left and to anterior.
        stored = stored[:, ::-1] if codes == "RAS" else stored[::-1]
        shown = raster.values_VU[raster.values_VU.min(axis=1) > -2000]
        shown = shown[:, shown.min(axis=0) > -2000]
        np.testing.assert_allclose(shown, stored, atol=1e-3)


@pytest.mark.parametrize("storage", ["LPS", "SPL", "oblique", "sheared"])
@pytest.mark.parametrize("name", ["axial", "coronal", "sagittal"])
def test_planes_agree_with_interpolation_by_scipy(storage: str, name: str) -> None:
    grid = grid_of(storage, (7.0, 9.0, 11.0))
    hu = np.random.default_rng(1).normal(0, 300, grid.shape).astype(np.float32)
    volume = CTVolume(hu, grid)
    plane, where = PLANE_BY_NAME[name], beside(3.3, -4.4, 5.5)
    crop = Box(CENTER - 60, CENTER + 60)
    raster = cut_scan(volume, plane, where, crop, outside_hu=-1000)
    rows, columns = raster.values_VU.shape
    left, right, bottom, top = raster.extent
    u = left + (np.arange(columns) + 0.5) * (right - left) / columns
    v = bottom + (np.arange(rows) + 0.5) * (top - bottom) / rows
    axes = {"axial": (0, 1, 2), "coronal": (0, 2, 1), "sagittal": (1, 2, 0)}[name]
    world = np.empty((rows, columns, 3))
    world[..., axes[0]] = -u[None, :]
    world[..., axes[1]] = v[:, None]
    world[..., axes[2]] = where[axes[2]]
    expected = map_coordinates(hu, np.moveaxis(grid.to_voxel(world), -1, 0), order=1)
    np.testing.assert_allclose(raster.values_VU, expected, atol=0.5)
    # The crop is covered, by less than a pixel more on each side.
    pixel = min(grid.spacing_mm)
    wanted = plane.extent(crop)
    over = np.array([wanted[0] - left, right - wanted[1], wanted[2] - bottom, top - wanted[3]])
    assert (over >= -1e-6).all()
    assert (over <= pixel + 1e-6).all()


@pytest.mark.parametrize("orientation", ["LPS", "RAS", "SAL"])
@pytest.mark.parametrize("name", ["axial", "coronal", "sagittal"])
def test_a_patch_is_coloured_and_outlined_on_its_own_millimetres(
    orientation: str, name: str
) -> None:
    volume = CTVolume(np.full((50, 50, 40), -1000, dtype=np.int16), grid_of("RAS"))
    patches = patches_of(orientation)
    chosen = patches.index((1, 4, 2))
    similarity = np.zeros((1, len(patches)))
    similarity[0, chosen] = 1
    result = aligned(volume, similarity, patches=patches, texts=("lung",), k=1)
    plane = PLANE_BY_NAME[name]
    left, right, bottom, top = plane.extent(patches.box(chosen))

    spec = FigureSpec(
        planes=(name,), outlines=False, letters=False, scale_bar=False, opacity=1.0, dpi=300
    )
    figure = draw_figure(volume, result, spec)
    picture, to_mm = pixels(figure, f"0 {name}")
    rows, columns = np.nonzero((picture[..., 0] > 200) & (picture[..., 1] < 60))
    corners = to_mm(
        np.array([rows.max() + 0.5, rows.min() - 0.5]),
        np.array([columns.min() - 0.5, columns.max() + 0.5]),
    )
    dot_mm = 144 / picture.shape[1]
    np.testing.assert_allclose(corners, [(left, bottom), (right, top)], atol=1.01 * dot_mm)
    assert len(rows) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)  # one whole rectangle

    segments = outline(result.patches, np.array([chosen]), plane, patches.center(chosen))
    np.testing.assert_allclose(segments.reshape(-1, 2).min(axis=0), (left, bottom), atol=1e-9)
    np.testing.assert_allclose(segments.reshape(-1, 2).max(axis=0), (right, top), atol=1e-9)
    assert np.linalg.norm(segments[:, 0] - segments[:, 1], axis=-1).sum() == pytest.approx(4 * 24)
    # A plane that misses the patch shows none of it.
    shifted = patches.center(chosen).copy()
    shifted[plane.normal] += 12.5
    assert len(outline(result.patches, np.array([chosen]), plane, shifted)) == 0
    shifted[plane.normal] -= 1.0
    assert len(outline(result.patches, np.array([chosen]), plane, shifted)) == 4


def test_patches_side_by_side_have_one_outline(scan: CTVolume) -> None:
    patches = patches_of()
    pair = np.array([patches.index((2, 2, 3)), patches.index((3, 2, 3))])
    segments = outline(
        aligned(scan).patches, pair, PLANE_BY_NAME["axial"], patches.center(int(pair[0]))
    )
    lengths = np.linalg.norm(segments[:, 0] - segments[:, 1], axis=-1)
    assert lengths.sum() == pytest.approx(6 * 24)


def test_heat_shows_each_patch_as_it_is_and_padding_not_at_all(scan: CTVolume) -> None:
    patches = patches_of("RAS")
    values = np.random.default_rng(0).normal(0, 1, (1, len(patches)))
    inside = np.random.default_rng(1).random(len(patches)) > 0.3
    result = aligned(scan, values, patches=patches, inside_N=inside, texts=("lung",))
    for name in ("axial", "coronal", "sagittal"):
        plane = PLANE_BY_NAME[name]
        heat = cut_heat(result, 0, plane, CENTER + 1.0, "blocky")
        assert heat is not None
        rows, columns = heat.values_VU.shape
        left, right, bottom, top = heat.extent
        for row, column in np.random.default_rng(2).integers(0, rows, (60, 2)):
            u = left + (column + 0.5) * (right - left) / columns
            v = bottom + (row + 0.5) * (top - bottom) / rows
            point = CENTER + 1.0
            point[plane.u_axis], point[plane.v_axis] = plane.u_sign * u, plane.v_sign * v
            patch = patches.patch_at(point)
            assert patch is not None
            expected = values[0, patch] if inside[patch] else np.nan
            assert heat.values_VU[row, column] == pytest.approx(expected, rel=1e-6, nan_ok=True)


def test_smooth_heat_meets_patch_centres_and_ignores_padding(scan: CTVolume) -> None:
    patches = patches_of("RAS")
    inside = patches.centers()[:, 0] < CENTER[0] + 30
    result = aligned(
        scan,
        np.where(inside, 0.25, 99.0)[None],
        patches=patches,
        inside_N=inside,
        texts=("lung",),
    )
    heat = cut_heat(result, 0, PLANE_BY_NAME["axial"], CENTER, "smooth")
    assert heat is not None
    shown = np.isfinite(heat.values_VU)
    np.testing.assert_allclose(heat.values_VU[shown], 0.25, rtol=1e-5)
    assert shown.mean() == pytest.approx(inside.mean(), abs=0.01)

    ramp = patches.centers()[:, 1]
    result = aligned(scan, ramp[None], patches=patches, texts=("lung",))
    heat = cut_heat(result, 0, PLANE_BY_NAME["axial"], CENTER, "smooth")
    assert heat is not None
    rows = heat.values_VU.shape[0]
    v = heat.extent[2] + (np.arange(rows) + 0.5) * (heat.extent[3] - heat.extent[2]) / rows
    between = (v > ramp.min()) & (v < ramp.max())
    np.testing.assert_allclose(heat.values_VU[between, 70], v[between], atol=1e-3)


def drawn_extent(figure: Figure, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest picture millimetres of what is not black in a panel."""
    picture, to_mm = pixels(figure, f"0 {name}")
    shown = picture.max(axis=-1) > 128
    # By the share of a line, since the row's letter is bright as well.
    rows, columns = (np.flatnonzero(shown.mean(axis=axis) > 0.25) for axis in (1, 0))
    low = to_mm(rows.max() + 0.5, columns.min() - 0.5)
    return low, to_mm(rows.min() - 0.5, columns.max() + 0.5)


def test_nothing_is_shown_outside_the_models_input() -> None:
    # The scan's voxels do not end where the patches do.
    grid = grid_of("RAS", (7.0, 7.0, 9.0))
    volume = CTVolume(np.full(grid.shape, 1000, dtype=np.int16), grid)
    patches = patches_of(shape=(6, 3, 5))  # 144 mm right-left, 72 front-back, 120 high
    result = aligned(volume, patches=patches, texts=("lung",))
    figure = draw_figure(volume, result, replaced(BARE, dpi=300))
    for name, size in {"axial": (144, 72), "coronal": (144, 120), "sagittal": (72, 120)}.items():
        low, high = drawn_extent(figure, name)
        np.testing.assert_allclose(high - low, size, atol=1)
        np.testing.assert_allclose((high + low) / 2, PLANE_BY_NAME[name].uv(CENTER), atol=1)


def test_colour_ends_where_the_scan_ends() -> None:
    shape = (50, 13, 40)  # 65 mm front to back, in patches of 72 mm
    grid = Grid(shape, axis_aligned_affine("RAS", (4, 5, 5), CENTER, shape))
    volume = CTVolume(np.full(shape, -1000, dtype=np.int16), grid)
    patches = patches_of(shape=(6, 3, 5))
    similarity = np.zeros((1, len(patches)))
    similarity[:, : len(patches) // 2] = 1  # one half of the input, right to left
    result = aligned(volume, similarity, patches=patches, texts=("lung",))
    spec = replaced(BARE, heat=True, opacity=1.0, dpi=300, planes=("axial", "coronal"))
    low, high = drawn_extent(draw_figure(volume, result, spec), "axial")
    np.testing.assert_allclose(high - low, (72, 65), atol=1)


def test_the_whole_scan_is_shown_if_asked(scan: CTVolume, result: AlignmentResult) -> None:
    for crop, width in (("input", 144), ("scan", 200)):
        figure = draw_figure(scan, result, FigureSpec(crop=crop, planes=("axial",)))
        assert np.ptp(panel(figure, "0 axial").get_xlim()) == pytest.approx(width)


def test_panels_have_square_millimetres_and_one_scale() -> None:
    grid = Grid((60, 30, 50), axis_aligned_affine("LPS", (3, 5, 4), CENTER, (60, 30, 50)))
    volume = CTVolume(np.zeros(grid.shape, dtype=np.int16), grid)
    figure = draw_figure(volume, aligned(volume), FigureSpec(crop="scan", sentences=(0, 2)))
    scales = []
    for label in ("0 axial", "2 coronal", "0 sagittal"):
        axes = panel(figure, label)
        box = axes.get_window_extent()
        scales += [box.width / np.ptp(axes.get_xlim()), box.height / np.ptp(axes.get_ylim())]
    np.testing.assert_allclose(scales, scales[0], rtol=1e-9)


def test_planes_pass_through_the_best_patch(scan: CTVolume, result: AlignmentResult) -> None:
    for sentence in range(3):
        best = result.patches.center(int(result.top(sentence)[0]))
        np.testing.assert_allclose(best_position(scan, result, sentence), best)


def test_a_best_patch_centred_in_padding_is_cut_where_the_scan_is() -> None:
    volume = phantom("oblique")
    patches = patches_of(shape=(12, 12, 12))
    _, inside = resample_linear(
        volume.hu_XYZ,
        volume.grid,
        Grid((96, 96, 96), axis_aligned_affine("LPS", (3, 3, 3), CENTER, (96, 96, 96))),
        fill=0,
    )
    touched = inside.reshape(12, 8, 12, 8, 12, 8).any(axis=(1, 3, 5)).reshape(-1)
    partly = np.flatnonzero(touched & ~volume.grid.contains(patches.centers()))
    assert len(partly) > 20
    for patch in partly[::7]:
        similarity = np.zeros((1, len(patches)))
        similarity[0, patch] = 1
        result = aligned(
            volume, similarity, patches=patches, inside_N=touched, texts=("lung",), k=1
        )
        position = best_position(volume, result, 0)
        assert volume.grid.contains(position)
        assert patches.box(int(patch)).covers(position)
    draw_figure(volume, result)


def test_the_scale_bar_is_as_long_as_it_says(scan: CTVolume, result: AlignmentResult) -> None:
    with_bar = FigureSpec(sentences=(0,), letters=False)
    bars = {
        spec.scale_bar: panel(draw_figure(scan, result, spec), "0 axial")
        for spec in (with_bar, replaced(with_bar, scale_bar=False))
    }
    said = [text.get_text() for text in bars[True].texts if "mm" in text.get_text()]
    assert said == ["20 mm"]
    assert len(bars[True].patches) == len(bars[False].patches) + 1
    drawn = bars[True].patches[-1]
    assert drawn.get_width() == 20  # in data coordinates, which are millimetres
    for most, length in ((1, 1), (1.9, 1), (84, 50), (49.99, 20), (100, 100), (0.6, 0.5)):
        assert round_length(most) == pytest.approx(length)


# -- windows and words --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Millimetric nonspecific nodules in both lungs.", "lung"),
        ("Emphysematous changes; ground-glass opacities in the lower lobes.", "lung"),
        ("Linear atelectasis in the middle lobe.", "lung"),
        ("A hypodense nodule is seen in the thyroid gland.", "mediastinum"),
        ("There is a small pleural effusion on the left.", "mediastinum"),
        ("Heart contour and size are normal.", "mediastinum"),
        ("Atherosclerotic changes of the aorta.", "mediastinum"),
        ("No lytic or destructive lesion in the vertebrae.", "bone"),
        ("Fracture of the seventh rib.", "bone"),
        ("Thoracic vertebral corpus heights are preserved.", "bone"),
        ("Nothing to report.", "mediastinum"),
    ],
)
def test_the_window_follows_the_words(text: str, name: str) -> None:
    widths = {"lung": (1500, -600), "mediastinum": (350, 50), "bone": (2500, 480)}
    assert window_for(FigureSpec(), text) == (name, widths[name])


def test_a_window_is_applied_as_width_and_level(scan: CTVolume, result: AlignmentResult) -> None:
    for window, limits in (("soft", (-160, 240)), ((200, 1000), (900, 1100))):
        figure = draw_figure(scan, result, FigureSpec(window=window, sentences=(1,)))
        assert panel(figure, "1 axial").images[0].get_clim() == limits


def test_text_is_cleaned_and_broken_without_losing_a_letter() -> None:
    assert clean("a\n b\x00c\x0b\ud800d\u200be  f\u00a0g") == "a b c de f g"
    text = clean("one two " + "x" * 400 + " three " * 30)
    lines = wrapped(text, 40, 7)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert len(lines) > 10
    assert wrapped("", 40, 7) == []
    assert wrapped("word", 0.1, 7) == list("word")


def test_figures_say_what_they_are(scan: CTVolume, result: AlignmentResult) -> None:
    figure = draw_figure(scan, result)
    said = " ".join(text.get_text() for text in figure.texts).replace("\u00a0", " ")
    assert "The model is untrained: its similarities carry no meaning." in said
    assert "Research use only, not for diagnosis." in said
    assert f"Scan {scan.pseudonym}; model paper (0123456789abcdef), untrained" in said
    assert "K = 12 of 216 patches" in said
    assert "Each block is one patch of 24 × 24 × 24 mm" in said
    assert "interpolated" not in said
    assert "lung window 1500/−600 HU" in said
    assert "bone window 2500/480 HU" in said
    assert "above all unrelated sentences" in said
    assert said.count("No support above unrelated sentences") == 2  # of 100, 80 and 60 %


def test_a_trained_model_is_not_called_untrained(scan: CTVolume) -> None:
    for trained, words in (("trained on phantoms", "trained on phantoms"), (None, "not stated")):
        said = " ".join(
            t.get_text() for t in draw_figure(scan, aligned(scan, trained=trained)).texts
        )
        assert words in said.replace("\u00a0", " ")
        assert "untrained" not in said


def test_a_smooth_map_says_that_it_is_interpolated(scan: CTVolume, result: AlignmentResult) -> None:
    figure = draw_figure(scan, result, FigureSpec(interpolation="smooth"))
    said = [text.get_text() for text in figure.texts]
    assert "similarity, interpolated" in said
    assert "interpolated between patch centres" in " ".join(said)


def test_unsupported_rows_are_named_even_without_captions(
    scan: CTVolume, result: AlignmentResult
) -> None:
    figure = draw_figure(scan, result, FigureSpec(captions=False))
    said = [text.get_text() for text in figure.texts]
    assert "No support above unrelated sentences: b, c." in said
    assert not any("nodule" in words for words in said)


def test_the_best_supported_sentences_are_taken_in_the_reports_order(scan: CTVolume) -> None:
    texts = tuple(f"Sentence {n}." for n in range(9))
    result = aligned(scan, texts=texts)
    scores = (1, 5, 0, 7, 3, 3, 9, 2, 3)
    result = replace(
        result,
        sentences=tuple(
            replace(s, score=float(v)) for s, v in zip(result.sentences, scores, strict=True)
        ),
    )
    figure = draw_figure(scan, result, FigureSpec(planes=("axial",), dpi=60))
    labels = [axes.get_label() for axes in figure.axes if "axial" in axes.get_label()]
    assert labels == [f"{n} axial" for n in (1, 3, 4, 5, 6, 8)]
    figure = draw_figure(scan, result, FigureSpec(planes=("axial",), sentences=(7, 0), dpi=60))
    labels = [axes.get_label() for axes in figure.axes if "axial" in axes.get_label()]
    assert labels == ["7 axial", "0 axial"]


LONG = " ".join(["A spiculated mass_of $12 mm$ is seen in the right upper lobe"] * 5) + "x" * 90


@pytest.mark.parametrize("columns", [1, 2, 3])
@pytest.mark.parametrize(
    ("rows", "width", "size"), [(1, 122, 7), (3, 122, 7), (8, 122, 7), (4, 84, 9), (2, 40, 6)]
)
def test_no_words_overlap_or_leave_the_page(
    scan: CTVolume, rows: int, columns: int, width: int, size: int
) -> None:
    texts = tuple(LONG if n % 3 == 1 else SENTENCES[n % 3] for n in range(rows))
    spec = FigureSpec(
        sentences=tuple(range(rows)),
        planes=("axial", "coronal", "sagittal")[:columns],
        width_mm=width,
        font_size_pt=size,
        dpi=100,
    )
    figure = draw_figure(scan, aligned(scan, texts=texts), spec)
    with own_settings():
        boxes = [(t.get_text(), t.get_window_extent()) for t in words_of(figure)]
    page = figure.bbox.padded(0.5)
    for words, box in boxes:
        assert page.contains(box.x0, box.y0), words
        assert page.contains(box.x1, box.y1), words
    boxes += [
        (axes.get_label(), axes.get_window_extent())
        for axes in figure.axes
        if axes.get_label() == "colour bar"
    ]
    panels = [axes.get_window_extent() for axes in figure.axes]
    # Lines of one paragraph stand close: ascent of one and descent of the other may touch.
    slack = 0.12 * size * 100 / 72
    for (a, box_a), (b, box_b) in combinations(boxes, 2):
        across = min(box_a.x1, box_b.x1) - max(box_a.x0, box_b.x0)
        along = min(box_a.y1, box_b.y1) - max(box_a.y0, box_b.y0)
        assert min(across, along) <= slack, (a, b)
    for words, box in boxes[: len(figure.texts)]:  # these do not reach into panels
        for frame in panels:
            across = min(box.x1, frame.x1) - max(box.x0, frame.x0)
            along = min(box.y1, frame.y1) - max(box.y0, frame.y0)
            assert min(across, along) <= slack, words


# -- files --------------------------------------------------------------------------------------

SCRIPT = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_figure import aligned, beside, phantom
from simcrop_core.figure import FigureSpec, draw_figure, save_figure
volume = phantom("RAS", beside(30, 10, -20))
figure = draw_figure(volume, aligned(volume), FigureSpec(normalisation="shared"))
for kind in ("png", "pdf", "svg"):
    save_figure(figure, Path(sys.argv[2]) / f"figure.{kind}")
"""


@pytest.fixture(scope="module")
def written(
    scan: CTVolume, result: AlignmentResult, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("figures")
    # A person's own settings must not matter, nor be changed.
    with matplotlib.rc_context(
        {
            "font.size": 23,
            "font.family": "monospace",
            "svg.fonttype": "path",
            "pdf.fonttype": 3,
            "image.origin": "lower",
            "image.cmap": "jet",
            "axes.facecolor": "red",
            "savefig.bbox": "tight",
            "savefig.dpi": 33,
        }
    ):
        before = dict(matplotlib.rcParams)
        figure = draw_figure(scan, result, FigureSpec(normalisation="shared"))
        for kind in ("png", "pdf", "svg"):
            save_figure(figure, folder / f"figure.{kind}")
        assert dict(matplotlib.rcParams) == before
    assert pyplot.get_fignums() == []
    return folder


def test_other_processes_write_the_same_bytes(written: Path, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(tmp_path)],
        env={**os.environ, "PYTHONHASHSEED": "4711", "SOURCE_DATE_EPOCH": "4711"},
        check=True,
    )
    for kind in ("png", "pdf", "svg"):
        name = f"figure.{kind}"
        assert (tmp_path / name).read_bytes() == (written / name).read_bytes(), kind


def test_figures_name_no_date_path_or_program_of_the_day(written: Path) -> None:
    for kind in ("png", "pdf", "svg"):
        data = (written / f"figure.{kind}").read_bytes()
        for secret in (b"CreationDate", b"dc:date", b"Software", str(written).encode()):
            assert secret not in data


def spaced(text: str) -> str:
    return re.sub(r"\s+", "", text)


def test_svg_keeps_text_as_text(written: Path) -> None:
    root = ElementTree.parse(written / "figure.svg").getroot()
    said = spaced("".join("".join(e.itertext()) for e in root.iter() if e.tag.endswith("}text")))
    for sentence in SENTENCES:
        assert spaced(sentence) in said
    assert float(root.get("width", "").removesuffix("pt")) == pytest.approx(122 / 25.4 * 72)
    ids = Counter(e.get("id") for e in root.iter() if e.get("id"))
    assert [name for name, count in ids.items() if count > 1] == []
    images = [e for e in root.iter() if e.tag.endswith("}image")]
    # Scan and heat of nine panels and one bar, all within the file.
    assert len(images) == 19
    links = [value for e in images for key, value in e.items() if key.endswith("href")]
    assert all(link.startswith("data:image/png;base64,") for link in links)


def pdf_objects(data: bytes) -> dict[int, bytes]:
    objects = {}
    for number, body in re.findall(rb"(\d+) 0 obj\n(.*?)\nendobj", data, re.DOTALL):
        head, _, stream = body.partition(b"stream\n")
        if b"FlateDecode" in head and b"/Image" not in head:
            body = head + zlib.decompress(stream)
        objects[int(number)] = body
    return objects


def pdf_words(data: bytes) -> str:
    """The text of a page whose fonts are Type 0, by their own tables to Unicode."""
    objects = pdf_objects(data)
    tables: dict[bytes, dict[int, str]] = {}
    fonts = next(body for body in objects.values() if re.search(rb"/F1 \d+ 0 R", body))
    for name, number in re.findall(rb"/(F\d+) (\d+) 0 R", fonts):
        font = objects[int(number)]
        link = re.search(rb"/ToUnicode (\d+) 0 R", font)
        assert link, font
        tables[name] = {}
        table = objects[int(link[1])]
        for low, high, texts in re.findall(rb"<(\w+)> <(\w+)>\s*\[(.*?)\]", table, re.DOTALL):
            codes = range(int(low, 16), int(high, 16) + 1)
            for code, text in zip(codes, re.findall(rb"<(\w+)>", texts), strict=True):
                tables[name][code] = bytes.fromhex(text.decode()).decode("utf-16-be")
    words = ""
    page = max((b for b in objects.values() if b"BT\n" in b), key=len)
    for block in re.findall(rb"BT\n(.*?)\nET", page, re.DOTALL):
        for font_name, piece in re.findall(
            rb"/(F\d+) [\d.]+ Tf|\(((?:\\.|[^\\)])*)\)", block, re.DOTALL
        ):
            if font_name:
                font_now = font_name
                continue
            raw = re.sub(
                rb"\\([nrtbf()\\]|[0-7]{1,3})",
                lambda m: {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"f": b"\f"}.get(
                    m[1], bytes([int(m[1], 8)]) if m[1].isdigit() else m[1]
                ),
                piece,
            )
            for code in raw.decode("utf-16-be"):
                words += tables[font_now].get(ord(code), "?")
    return words


def test_pdf_has_the_asked_width_and_its_text_in_embedded_fonts(written: Path) -> None:
    data = (written / "figure.pdf").read_bytes()
    box = re.search(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", data)
    assert box
    assert float(box[1]) == pytest.approx(122 / 25.4 * 72, abs=0.01)
    said = spaced(pdf_words(data))
    for sentence in SENTENCES:
        assert spaced(sentence) in said
    assert "Researchuseonly,notfordiagnosis." in said
    fonts = re.findall(rb"/FontDescriptor\b.*?>>", data, re.DOTALL)
    assert b"/CIDFontType2" in data  # Type 42 in matplotlib's words: TrueType outlines
    assert b"/Type3" not in data
    assert all(b"/FontFile2" in font for font in fonts if b"/FontName" in font)


def test_vector_figures_hold_the_scan_at_its_own_resolution(scan: CTVolume, written: Path) -> None:
    data = (written / "figure.pdf").read_bytes()
    sizes = Counter(
        (int(width), int(height))
        for width, height in re.findall(rb"/Subtype /Image /Width (\d+) /Height (\d+)", data)
    )
    # 144 mm at 4 mm a pixel: 36, and one more as the crop is off the scan's lattice. Heat has 24
    # samples a patch, and its opacity is an image of its own in PDF.
    assert sizes.pop((144, 144)) == 18
    assert sizes.pop((2, 256)) == 1
    assert sum(sizes.values()) == 9
    assert {side for size in sizes for side in size} <= {36, 37}


def test_png_has_the_asked_resolution(scan: CTVolume, result: AlignmentResult, tmp_path) -> None:
    from PIL import Image

    spec = FigureSpec(dpi=200, width_mm=100, planes=("axial",))
    save_figure(draw_figure(scan, result, spec), tmp_path / "f.PNG")
    with Image.open(tmp_path / "f.PNG") as image:
        assert image.format == "PNG"
        assert image.size[0] == pytest.approx(100 / 25.4 * 200, abs=1)
        assert image.info["dpi"][0] == pytest.approx(200, abs=0.1)
        assert set(image.info) == {"dpi"}


def test_any_unicode_draws(scan: CTVolume, tmp_path: Path, recwarn: Any) -> None:
    text = "肺 🫁 العربية नमस्ते \u202e\u0301 \ud800 $\\frac{1}{0}$ \x07 <&>\"' ]]>"
    figure = draw_figure(scan, aligned(scan, texts=(text,)), FigureSpec(dpi=60))
    for kind in ("png", "pdf", "svg"):
        save_figure(figure, tmp_path / f"f.{kind}")
    root = ElementTree.parse(tmp_path / "f.svg").getroot()
    said = spaced("".join(root.itertext()))
    assert "肺🫁" in said
    assert "$\\frac{1}{0}$" in said
    assert [str(w.message) for w in recwarn if "lyph" in str(w.message)] == []


# -- every setting shows ------------------------------------------------------------------------

CHANGES: dict[str, Any] = {
    "sentences": (1, 0),
    "planes": ("coronal", "axial"),
    "position_mm": tuple(CENTER + 5.0),
    "top_k": 3,
    "window": (900.0, -300.0),
    "heat": False,
    "outlines": False,
    "opacity": 0.9,
    "colormap": "viridis",
    "normalisation": "shared",
    "interpolation": "smooth",
    "crop": "scan",
    "width_mm": 110.0,
    "dpi": 70,
    "font_size_pt": 8.0,
    "color_bar": False,
    "scale_bar": False,
    "letters": False,
    "captions": False,
}


def test_every_setting_is_described_and_tried() -> None:
    assert set(CHANGES) == set(FigureSpec.model_fields)
    assert all(field.description for field in FigureSpec.model_fields.values())


@pytest.fixture(scope="module")
def plain(scan: CTVolume, result: AlignmentResult) -> np.ndarray:
    return drawn(draw_figure(scan, result, FigureSpec(sentences=(0, 1), dpi=60)))


def drawn(figure: Figure) -> np.ndarray:
    figure.canvas.draw()
    return np.array(figure.canvas.buffer_rgba())


@pytest.mark.parametrize("name", CHANGES)
def test_every_setting_changes_the_picture(
    scan: CTVolume, result: AlignmentResult, plain: np.ndarray, name: str
) -> None:
    spec = FigureSpec(**{"sentences": (0, 1), "dpi": 60, name: CHANGES[name]})
    changed = drawn(draw_figure(scan, result, spec))
    assert changed.shape != plain.shape or (changed != plain).any()


@pytest.mark.parametrize("window", ["lung", "mediastinum", "soft", "bone"])
def test_every_window_changes_the_picture(
    scan: CTVolume, result: AlignmentResult, window: str
) -> None:
    wide = (4000.0, 0.0)
    pictures = [
        drawn(draw_figure(scan, result, FigureSpec(sentences=(0,), window=w, dpi=60)))
        for w in (window, wide)
    ]
    assert pictures[0].shape != pictures[1].shape or (pictures[0] != pictures[1]).any()


def test_a_flat_map_is_clear(scan: CTVolume) -> None:
    result = aligned(scan, np.full((1, 216), 0.5), texts=("lung",))
    figure = draw_figure(scan, result, FigureSpec(planes=("axial",)))
    assert panel(figure, "0 axial").images[1].get_array()[..., 3].max() == 0
    drawn(figure)


# -- refusals -----------------------------------------------------------------------------------


def refusal(code: str) -> Any:
    return pytest.raises(SimCroPError, check=lambda e: e.code == code and len(str(e)) < 400)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"sentences": (3,)}, "no-such-sentence"),
        ({"sentences": (0, -1)}, "no-such-sentence"),
        ({"top_k": 13}, "too-many-patches"),
        ({"colormap": "no such map"}, "no-such-colormap"),
        ({"position_mm": (5000.0, 0.0, 0.0)}, "position-outside"),
        ({"position_mm": tuple(beside(90.0, 0, 0))}, "position-outside"),
        ({"width_mm": 1000.0, "dpi": 1200}, "figure-too-large"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    scan: CTVolume, result: AlignmentResult, fields: dict[str, Any], code: str
) -> None:
    with refusal(code):
        draw_figure(scan, result, FigureSpec(**fields))


def test_a_position_outside_the_input_is_drawn_over_the_whole_scan(
    scan: CTVolume, result: AlignmentResult
) -> None:
    spec = FigureSpec(position_mm=tuple(beside(90.0, 0, 0)), crop="scan", sentences=(0,))
    figure = draw_figure(scan, result, spec)
    assert len(panel(figure, "0 sagittal").images) == 1  # no patch is cut there
    assert len(panel(figure, "0 axial").images) == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"planes": ()},
        {"planes": ("axial", "axial")},
        {"planes": ("oblique",)},
        {"sentences": ()},
        {"sentences": (1, 1)},
        {"window": (0.0, 40.0)},
        {"window": "brain"},
        {"window": (float("nan"), 0.0)},
        {"position_mm": (float("inf"), 0.0, 0.0)},
        {"opacity": 0.0},
        {"dpi": 5},
        {"width_mm": 5.0},
        {"font_size_pt": 100.0},
        {"colour": "red"},
    ],
)
def test_settings_that_make_no_sense_are_refused(fields: dict[str, Any]) -> None:
    with refusal("figure-spec") as refused:
        FigureSpec(**fields)
    assert next(iter(fields)) in str(refused.value)


def test_settings_survive_json() -> None:
    spec = FigureSpec(window=(900, 40), sentences=(3, 1), position_mm=(1, 2, 3))
    assert FigureSpec(**json.loads(spec.model_dump_json())) == spec


def test_another_scan_is_refused(result: AlignmentResult) -> None:
    with refusal("another-scan"):
        draw_figure(phantom("LPS"), result)


@pytest.mark.parametrize("name", ["figure.jpg", "figure", "figure.svg.gz"])
def test_other_endings_are_refused(
    scan: CTVolume, result: AlignmentResult, tmp_path: Path, name: str
) -> None:
    figure = draw_figure(scan, result, FigureSpec(sentences=(0,), dpi=60))
    with refusal("figure-suffix") as refused:
        save_figure(figure, tmp_path / name)
    assert all(suffix in str(refused.value) for suffix in (".png", ".pdf", ".svg"))
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_refused_and_left_clean(
    scan: CTVolume, result: AlignmentResult, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x")
    figure = draw_figure(scan, result, FigureSpec(sentences=(0,), dpi=60))
    with refusal("cannot-write"):
        save_figure(figure, tmp_path / "file" / "figure.png")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_crops_lie_within_the_scan(scan: CTVolume) -> None:
    large = patches_of(shape=(30, 30, 2))
    box = crop_box(scan, large, "input")
    low, high = scan.grid.bounds_mm()
    np.testing.assert_allclose(box.low_mm, [low[0], low[1], CENTER[2] - 24])
    np.testing.assert_allclose(box.high_mm, [high[0], high[1], CENTER[2] + 24])


# -- real scans ---------------------------------------------------------------------------------


def test_a_real_scan_is_drawn_at_the_right_side(real_data: Path) -> None:
    from simcrop_core.input_spec import InputSpec
    from simcrop_core.io import read_volume
    from simcrop_core.prepare import resampled_grid

    volume = read_volume(real_data / "ct" / "nsclc-lung1-001" / "image")
    spec = InputSpec()
    whole = resampled_grid(volume.grid, spec)
    start = [int(n) for n in (np.array(whole.shape) - np.array(spec.shape)) // 2]
    patches = PatchGrid.over(whole.window(start, spec.shape), spec.patch_shape)
    # The centre of the tumour's outline, drawn by the data set's authors: left lung.
    tumour = np.array([-81.0, 200.9, -456.5])
    similarity = -np.linalg.norm(patches.centers() - tumour, axis=-1)[None]
    result = aligned(volume, similarity, patches=patches, texts=("A mass in the left lung.",))
    figure = draw_figure(volume, result, FigureSpec(heat=False, outlines=False, window="lung"))
    axes = panel(figure, "0 axial")
    u, v = PLANE_BY_NAME["axial"].uv(tumour)
    fraction = axes.transAxes.inverted().transform(axes.transData.transform((u, v)))
    assert 0.6 < fraction[0] < 0.9  # the patient's left is on the right
    hu = axes.images[0].get_array()
    left, right, bottom, top = axes.images[0].get_extent()
    row = int((v - bottom) / (top - bottom) * hu.shape[0])
    column = int((u - left) / (right - left) * hu.shape[1])
    mirrored = int((-u - left) / (right - left) * hu.shape[1])  # about the spine, at u = 0
    assert hu[row - 5 : row + 5, column - 5 : column + 5].mean() > -100
    assert hu[row - 5 : row + 5, mirrored - 5 : mirrored + 5].mean() < -400
