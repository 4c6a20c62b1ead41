"""The ten best and the ten worst sentences of an evaluation as a picture.

Each panel is two planes through the scan, the sentence below. Lengths are millimetres on paper
unless a name says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from simcrop_core.evaluate.grounding_result import GroundingResult, Pointed
from simcrop_core.figure_canvas import MARGIN, Page, own_settings
from simcrop_core.figure_panel import draw_gray
from simcrop_core.figure_planes import (
    PLANE_BY_NAME,
    Plane,
    crop_box,
    cut_scan,
    outline,
    outline_mask,
    window_for,
)
from simcrop_core.figure_spec import FigureSpec
from simcrop_core.figure_text import FONT, GREY, Line, clean, number, wrapped
from simcrop_core.geometry import FloatArray
from simcrop_core.input_spec import InputSpec
from simcrop_core.patches import PatchGrid
from simcrop_core.prepare import input_grid
from simcrop_core.statements import FINDINGS, NO_FINDING
from simcrop_core.study import Study

InputPlace = Literal["center", "lungs"]

COUNT = 10
REGION = [("black", 1.5), ("#ffb000", 0.8)]
PATCH = [("black", 1.7), ("#00e5ff", 1.0)]
_COLUMNS, _SIDE, _GAP, _PANEL_GAP, _DPI = 5, 46.0, 0.6, 4.0, 160
_INDENT = 4.0  # of the lines at the top, beside which the colours stand
_TITLE_PT, _TEXT_PT, _SMALL_PT, _MARK_PT = 9.0, 7.0, 5.6, 5.6


def ranked(result: GroundingResult, count: int = COUNT) -> tuple[list[Pointed], list[Pointed]]:
    """The best and the worst sentences, at most so many each, none on both sides.

    Sentences on findings, unless those are too few: then all. Best: those that hit, by how far
    their Dice lies above chance. Worst: those that miss, by how far away the most similar patch
    lies. One sentence for each region of a study.
    """
    regions = {(p.study, p.said.region) for p in result.pointed if p.said.kind == "finding"}
    enough = len(regions) >= 2 * count
    some = [p for p in result.pointed if p.said.kind == "finding" or not enough]

    def merit(p: Pointed) -> tuple[float, float, float]:
        model, chance = p.by["model"], p.by["chance"]
        return (float(p.away_mm == 0), -p.away_mm, model.dice - chance.dice)

    order = sorted(some, key=merit, reverse=True)
    order = list({(p.study, p.said.region): p for p in reversed(order)}.values())[::-1]
    half = min(count, (len(order) + 1) // 2)
    return order[:half], order[half:][::-1][:count]


def draw_extremes(
    result: GroundingResult,
    study_of: Callable[[str], Study],
    spec: InputSpec,
    *,
    placement: InputPlace = "center",
) -> Figure:
    """Draw the best and the worst sentences of a result.

    Every picture is an axes labelled ``"<best|worst> <number> <first|second>"`` whose data
    coordinates are the plane's millimetres, see `simcrop_core.figure_planes`. The first is the
    axial plane through the middle of the region; the second the axial plane through the most
    similar patch, or the coronal one through the region where the first cuts that patch too.

    Parameters
    ----------
    result
        With at least one sentence that has a region.
    study_of
        The study of an id, with its regions.
    spec, placement
        As they were evaluated with.

    Returns
    -------
    matplotlib.figure.Figure
        To be saved by `simcrop_core.figure.save_figure`.
    """
    best, worst = ranked(result)
    if not best:
        raise ValueError("There is no sentence with a region to draw.")
    side_mm = float(max(n * s for n, s in zip(spec.shape, spec.spacing_mm, strict=True)))
    with own_settings():
        columns = min(_COLUMNS, len(best))
        width = 2 * MARGIN + columns * _panel_width() + (columns - 1) * _PANEL_GAP
        blocks = [("best", best), ("worst", worst)] if worst else [("best", best)]
        heads, legend = _heads(result, side_mm, width - 2 * MARGIN - _INDENT)
        captions = {id(p): _caption(result, p) for _, ps in blocks for p in ps}
        height = MARGIN + sum(line.height for line in heads) + 2
        places: list[tuple[str, int, Pointed, float, float]] = []
        titles: list[tuple[float, str]] = []
        for name, sentences in blocks:
            for words in wrapped(_TITLES[name], width - 2 * MARGIN, _TITLE_PT, bold=True):
                titles.append((height, words))
                height += Line("", _TITLE_PT).height
            height += 1.5
            for start in range(0, len(sentences), columns):
                row = sentences[start : start + columns]
                for column, p in enumerate(row):
                    x = MARGIN + column * (_panel_width() + _PANEL_GAP)
                    places.append((name, start + column + 1, p, x, height))
                tallest = max(sum(line.height for line in captions[id(p)]) for p in row)
                height += _SIDE + 1.0 + tallest + 3.0
        page = Page(width, height + MARGIN, _DPI)
        page.lines(heads, MARGIN + _INDENT, MARGIN)
        for line, colors in ((legend, REGION), (legend + 1, PATCH)):
            top = MARGIN + sum(head.height for head in heads[:line])
            page.square(MARGIN + 0.5, top + 0.6, 2.0, colors)
        for top, words in titles:
            page.lines([Line(words, _TITLE_PT, bold=True)], MARGIN, top)
        # A study is made once, however many of its sentences are shown.
        for study in dict.fromkeys(p.study for _, _, p, _, _ in places):
            made = study_of(result.studies[study])
            for name, rank, p, x, y in places:
                if p.study == study:
                    _draw(page, made, p, spec, placement, side_mm, f"{name} {rank}", (x, y))
                    page.lines(captions[id(p)], x, y + _SIDE + 1.0)
    return page.figure


_TITLES = {
    "best": "Best: the most similar patch overlaps the region, or comes closest to it",
    "worst": "Worst: the most similar patch lies furthest from the region, or finds least of it",
}


def _panel_width() -> float:
    return 2 * _SIDE + _GAP


def _heads(result: GroundingResult, side_mm: float, room: float) -> tuple[list[Line], int]:
    """The lines at the top of the page, and which of them is the first that a colour belongs to."""
    model = result.model
    name = clean(str(model.get("name") or "without a name"))
    trained = clean(str(model.get("trained") or "training not stated"))
    title = f"{len(result.studies)} studies, model {name}, {trained}: best and worst sentences"
    lines = [
        Line(words, _TITLE_PT, bold=True) for words in wrapped(title, room, _TITLE_PT, bold=True)
    ]
    legend = len(lines)
    lines += [
        Line("the region that the sentence speaks of", _TEXT_PT),
        Line("the most similar patch", _TEXT_PT),
    ]
    explained = (
        "Left: axial plane through the middle of the region. Right: axial plane through the most "
        "similar patch or, where the left one cuts it too, coronal plane through the region. Every "
        f"picture is {number(side_mm, 0)} mm wide; the patient's right is on its left."
    )
    lines += [Line(words, _SMALL_PT, GREY) for words in wrapped(explained, room, _SMALL_PT)]
    return lines, legend


def _caption(result: GroundingResult, p: Pointed) -> list[Line]:
    finding = p.said.meaning.finding
    name = p.said.category or ("" if finding == NO_FINDING else FINDINGS[finding])
    window, (width, level) = window_for(FigureSpec(), p.said.text)
    where = "hit" if p.away_mm == 0 else f"{number(p.away_mm, 0)} mm away"
    parts = [
        where,
        f"Dice {p.by['model'].dice:.2f}, chance {p.by['chance'].dice:.2f}",
        f"{window} window {number(width, 0)}/{number(level, 0)} HU",
        clean(result.studies[p.study]),
    ]
    small = "\N{NO-BREAK SPACE}· ".join([*([name] if name else []), *parts])
    text = [Line(words, _TEXT_PT) for words in wrapped(clean(p.said.text), _room(), _TEXT_PT)]
    return text + [Line(words, _SMALL_PT, GREY) for words in wrapped(small, _room(), _SMALL_PT)]


def _room() -> float:
    return _panel_width() - 0.5


@dataclass(frozen=True)
class _View:
    """A plane and where it lies."""

    plane: Plane
    position_mm: FloatArray


def _views(study: Study, p: Pointed, patches: PatchGrid) -> tuple[_View, _View]:
    """The planes of a panel."""
    assert p.said.region is not None
    world = study.volume.grid.to_world(np.argwhere(study.regions[p.said.region]))
    low, high = patches.grid.bounds_mm()
    seen = world[((world >= low) & (world <= high)).all(axis=1)]
    # The middle voxel along each axis by itself: a plane through it cuts the region, in one part
    # or in several.
    middle = np.sort(seen if len(seen) else world, axis=0)[len(seen if len(seen) else world) // 2]
    first = _View(PLANE_BY_NAME["axial"], middle)
    box = patches.box(p.best)
    if box.low_mm[2] <= middle[2] < box.high_mm[2]:
        return first, _View(PLANE_BY_NAME["coronal"], middle)
    bottom, top = study.volume.grid.bounds_mm()
    at = np.clip(patches.center(p.best), bottom, top - 1e-6)
    return first, _View(PLANE_BY_NAME["axial"], at)


def _draw(
    page: Page,
    study: Study,
    p: Pointed,
    spec: InputSpec,
    placement: InputPlace,
    side_mm: float,
    label: str,
    corner: tuple[float, float],
) -> None:
    grid, _ = input_grid(study.volume, spec, placement)
    patches = PatchGrid.over(grid, spec.patch_shape)
    window = window_for(FigureSpec(), p.said.text)[1]
    for column, view in enumerate(_views(study, p, patches)):
        x = corner[0] + column * (_SIDE + _GAP)
        axes = page.axes(x, corner[1], _SIDE, _SIDE, f"{label} {('first', 'second')[column]}")
        _draw_view(axes, study, p, patches, view, window, side_mm)


def _draw_view(
    axes: Axes,
    study: Study,
    p: Pointed,
    patches: PatchGrid,
    view: _View,
    window: tuple[float, float],
    side_mm: float,
) -> None:
    assert p.said.region is not None
    crop = crop_box(study.volume, patches, "input")
    left, right, bottom, top = view.plane.extent(crop)
    middle_u, middle_v = (left + right) / 2, (bottom + top) / 2
    axes.set_xlim(middle_u - side_mm / 2, middle_u + side_mm / 2)
    axes.set_ylim(middle_v - side_mm / 2, middle_v + side_mm / 2)
    axes.set_autoscale_on(False)
    axes.add_patch(
        Rectangle((0, 0), 1, 1, transform=axes.transAxes, color="black", linewidth=0, zorder=0)
    )
    low, high = window[1] - window[0] / 2, window[1] + window[0] / 2
    scan = cut_scan(study.volume, view.plane, view.position_mm, crop, outside_hu=low)
    draw_gray(axes, scan, low, high)
    mask = study.regions[p.said.region]
    region = outline_mask(mask, study.volume.grid, view.plane, view.position_mm, crop)
    patch = outline(patches, np.array([p.best]), view.plane, view.position_mm)
    for segments, lines, zorder in ((region, REGION, 3), (patch, PATCH, 4)):
        for color, points in lines:
            drawn = LineCollection(
                list(segments), colors=color, linewidths=points, capstyle="projecting"
            )
            drawn.set_zorder(zorder)
            axes.add_collection(drawn, autolim=False)
    letters = view.plane.letters()
    for (x_share, ha), letter in (((0.015, "left"), "left"), ((0.985, "right"), "right")):
        _mark(axes, x_share, 0.5, letters[letter], ha, "center")  # type: ignore[index]
    axis, pair = ("SI", 2) if view.plane.normal == 2 else ("AP", 1)
    at = view.position_mm[pair]
    place = f"{view.plane.name}, {axis[0] if at >= 0 else axis[1]} {abs(at):.0f} mm"
    _mark(axes, 0.015, 0.985, place, "left", "top")


def _mark(axes: Axes, x: float, y: float, words: str, ha: str, va: str) -> None:
    """White words at a place of a picture (0..1), on a dark ground."""
    axes.text(
        x,
        y,
        words,
        transform=axes.transAxes,
        ha=ha,
        va=va,
        color="white",
        fontsize=_MARK_PT,
        fontfamily=FONT,
        parse_math=False,
        zorder=6,
        bbox={"facecolor": "black", "alpha": 0.45, "linewidth": 0, "pad": 0.6},
    )
