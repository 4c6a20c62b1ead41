"""The page of a figure: rows of panels with captions, colour bars and the small print.

Everything is measured before anything is drawn, so that nothing overlaps however long the
sentences are. Lengths are millimetres on paper unless a name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from simcrop_core.figure_canvas import MARGIN, Page, own_settings, write_page
from simcrop_core.figure_footer import draw_footer, footer_height, footer_lines
from simcrop_core.figure_panel import ColorScale, Panel
from simcrop_core.figure_planes import PLANE_BY_NAME, window_for
from simcrop_core.figure_spec import FigureSpec
from simcrop_core.figure_text import (
    GREY,
    LEADING,
    MM_PER_POINT,
    UNSUPPORTED,
    WARNING,
    Line,
    caption_details,
    clean,
    number,
    row_letter,
    small_print,
    stands_out,
    width_mm,
    wrapped,
)
from simcrop_core.geometry import FloatArray
from simcrop_core.patches import Box
from simcrop_core.volume import CTVolume

if TYPE_CHECKING:
    from simcrop_core.alignment_result import AlignmentResult

__all__ = ["draw_page", "write_page"]

_PANEL_GAP = 1.0
_CAPTION_GAP = 1.0
_ROW_GAP = 2.6
_BAR_GAP, _BAR_WIDTH, _BAR_TEXT_GAP = 1.4, 1.8, 0.7
_SIDE_GAP, _NARROWEST_SIDE_CAPTION = 2.0, 22.0


@dataclass(frozen=True)
class Row:
    """One sentence: where it is cut, how it is windowed and what is written to it."""

    sentence: int
    letter: str
    position_mm: FloatArray
    window: tuple[str, tuple[float, float]]
    caption: tuple[Line, ...]

    @property
    def caption_height(self) -> float:
        return sum(line.height for line in self.caption)


@dataclass(frozen=True)
class Measures:
    """Where panels, bars and captions lie from left to right, and how high panels are."""

    panel_widths: tuple[float, ...]
    panel_height: float
    print_scale: float
    frame_height_mm: float
    bar_x: float
    caption_x: float
    caption_width: float
    caption_beside: bool


def draw_page(
    volume: CTVolume,
    result: AlignmentResult,
    spec: FigureSpec,
    sentences: list[int],
    positions: list[FloatArray],
    crop: Box,
) -> Figure:
    """Lay out and draw; see `simcrop_core.figure.draw_figure`."""
    with own_settings():
        scales = _scales(result, sentences, spec)
        measures = _measure(spec, crop, scales)
        rows = [
            _row(result, spec, order, sentence, position, measures)
            for order, (sentence, position) in enumerate(zip(sentences, positions, strict=True))
        ]
        footer = footer_lines(result, spec, sentences)
        heading = spec.font_size_pt * MM_PER_POINT * LEADING
        tops = _row_tops(rows, measures, MARGIN + heading + 0.4)
        end = tops[-1] + _row_height(rows[-1], measures)
        height = end + 1.6 + footer_height(result, spec, footer) + MARGIN
        page = Page(spec.width_mm, height, spec.dpi)
        _draw_headings(page, spec, measures, MARGIN + heading * 0.8)
        for row, top, scale in zip(rows, tops, scales, strict=True):
            _draw_row(page, volume, result, spec, crop, measures, row, top, scale)
        if spec.heat and spec.color_bar:
            _draw_bars(page, spec, measures, scales, tops)
        draw_footer(page, result, spec, footer, end + 1.6)
    return page.figure


# -- measuring ----------------------------------------------------------------------------------


def _scales(result: AlignmentResult, sentences: list[int], spec: FigureSpec) -> list[ColorScale]:
    if spec.normalisation == "shared":
        return [ColorScale.over(result, sentences, spec)] * len(sentences)
    return [ColorScale.over(result, [sentence], spec) for sentence in sentences]


def _measure(spec: FigureSpec, crop: Box, scales: list[ColorScale]) -> Measures:
    extents = [PLANE_BY_NAME[name].extent(crop) for name in spec.planes]
    widths_mm = [right - left for left, right, _, _ in extents]
    frame_height_mm = max(top - bottom for _, _, bottom, top in extents)
    bar_column = 0.0
    if spec.heat and spec.color_bar:
        ticks = max(
            width_mm(words, small_print(spec)) for scale in scales for words in _tick_words(scale)
        )
        label = small_print(spec) * MM_PER_POINT * 1.2
        bar_column = _BAR_GAP + _BAR_WIDTH + _BAR_TEXT_GAP + max(ticks, label)
    columns = len(widths_mm)
    free = spec.width_mm - 2 * MARGIN - bar_column - _PANEL_GAP * (columns - 1)
    # With fewer than three columns panels stay as large as three would be, and the words take
    # the rest of the width, unless that is too narrow to read.
    beside = spec.captions and free * (1 - columns / 3) - _SIDE_GAP > _NARROWEST_SIDE_CAPTION
    panels = free * columns / 3 if beside else free
    scale = panels / sum(widths_mm)
    bar_x = MARGIN + panels + _PANEL_GAP * (columns - 1) + _BAR_GAP
    caption_x = bar_x - _BAR_GAP + bar_column + _SIDE_GAP if beside else MARGIN
    return Measures(
        panel_widths=tuple(scale * width for width in widths_mm),
        panel_height=scale * frame_height_mm,
        print_scale=scale,
        frame_height_mm=frame_height_mm,
        bar_x=bar_x,
        caption_x=caption_x,
        caption_width=spec.width_mm - MARGIN - caption_x,
        caption_beside=beside,
    )


def _row(
    result: AlignmentResult,
    spec: FigureSpec,
    order: int,
    sentence: int,
    position: FloatArray,
    measures: Measures,
) -> Row:
    text = clean(result.sentences[sentence].text)
    window = window_for(spec, text)
    letter = row_letter(order)
    caption: list[Line] = []
    if spec.captions:
        size, small = spec.font_size_pt, small_print(spec)
        width = measures.caption_width - _indent(spec)
        caption = [Line(words, size) for words in wrapped(text, width, size)]
        if not stands_out(result, sentence):
            caption += [
                Line(words, small, WARNING, bold=True)
                for words in wrapped(f"{UNSUPPORTED}.", width, small, bold=True)
            ]
        details = caption_details(result, sentence, window, position)
        if not measures.caption_beside:
            details = (" · ".join(details),)
        caption += [
            Line(words, small, GREY) for part in details for words in wrapped(part, width, small)
        ]
    return Row(sentence, letter, position, window, tuple(caption))


def _indent(spec: FigureSpec) -> float:
    """Width kept for the row's letter before its caption."""
    return width_mm("m", spec.font_size_pt, bold=True) + 1.2


def _row_height(row: Row, measures: Measures) -> float:
    if measures.caption_beside:
        return max(measures.panel_height, row.caption_height)
    below = _CAPTION_GAP + row.caption_height if row.caption else 0.0
    return measures.panel_height + below


def _row_tops(rows: list[Row], measures: Measures, first: float) -> list[float]:
    gap = _ROW_GAP if rows[0].caption and not measures.caption_beside else _PANEL_GAP
    tops = [first]
    for row in rows[:-1]:
        tops.append(tops[-1] + _row_height(row, measures) + gap)
    return tops


# -- drawing ------------------------------------------------------------------------------------


def _draw_headings(page: Page, spec: FigureSpec, measures: Measures, baseline: float) -> None:
    size = min(spec.font_size_pt, 0.3 * min(measures.panel_widths))
    x = MARGIN
    for name, width in zip(spec.planes, measures.panel_widths, strict=True):
        page.text(x + width / 2, baseline, name.capitalize(), size, ha="center")
        x += width + _PANEL_GAP


def _draw_row(
    page: Page,
    volume: CTVolume,
    result: AlignmentResult,
    spec: FigureSpec,
    crop: Box,
    measures: Measures,
    row: Row,
    top: float,
    scale: ColorScale,
) -> None:
    x = MARGIN
    for column, (name, width) in enumerate(zip(spec.planes, measures.panel_widths, strict=True)):
        panel = Panel(
            volume=volume,
            result=result,
            spec=spec,
            sentence=row.sentence,
            plane=PLANE_BY_NAME[name],
            position_mm=row.position_mm,
            window=row.window[1],
            crop=crop,
            frame_mm=(width / measures.print_scale, measures.frame_height_mm),
            print_scale=measures.print_scale,
        )
        axes = page.axes(x, top, width, measures.panel_height, f"{row.sentence} {name}")
        panel.draw(axes, scale)
        if column == 0:
            panel.mark(axes, 0.015, 0.985, row.letter, ha="left", va="top")
            if spec.scale_bar:
                panel.draw_scale_bar(axes)
        x += width + _PANEL_GAP
    y = top if measures.caption_beside else top + measures.panel_height + _CAPTION_GAP
    if row.caption:
        first = row.caption[0]
        page.text(
            measures.caption_x, y + 0.78 * first.height, row.letter, first.size_pt, weight="bold"
        )
    page.lines(row.caption, measures.caption_x + _indent(spec), y)


def _tick_words(scale: ColorScale) -> tuple[str, str]:
    span = scale.high - scale.low
    decimals = 2 if span <= 0 else int(np.clip(np.ceil(-np.log10(span)) + 1, 1, 6))
    return number(scale.low, decimals), number(scale.high, decimals)


def _draw_bars(
    page: Page,
    spec: FigureSpec,
    measures: Measures,
    scales: list[ColorScale],
    tops: list[float],
) -> None:
    """A bar for each row, or one along all rows if they share a scale."""
    if spec.normalisation == "shared":
        _draw_bar(page, spec, measures, scales[0], tops[0], tops[-1] + measures.panel_height)
        return
    for scale, top in zip(scales, tops, strict=True):
        _draw_bar(page, spec, measures, scale, top, top + measures.panel_height)


def _draw_bar(
    page: Page,
    spec: FigureSpec,
    measures: Measures,
    scale: ColorScale,
    top: float,
    bottom: float,
) -> None:
    axes = page.axes(measures.bar_x, top, _BAR_WIDTH, bottom - top, "colour bar")
    rgba = scale.rgba(np.linspace(scale.low, scale.high, 256, dtype=np.float32))
    # As it looks over the lungs' air, on the left, and over bone.
    ground = np.array([0.0, 1.0])[None, :, None]
    rgb = rgba[:, None, :3] * rgba[:, None, 3:] + ground * (1 - rgba[:, None, 3:])
    axes.imshow(rgb, origin="lower", aspect="auto", interpolation="nearest", extent=(0, 1, 0, 1))
    frame = Rectangle((0, 0), 1, 1, transform=axes.transAxes, fill=False, clip_on=False)
    frame.set(edgecolor="0.4", linewidth=0.4)
    axes.add_patch(frame)
    x = measures.bar_x + _BAR_WIDTH + _BAR_TEXT_GAP
    low, high = _tick_words(scale)
    size = small_print(spec)
    page.text(x, top, high, size, va="top")
    page.text(x, bottom, low, size, va="bottom")
    label = "similarity" if spec.interpolation == "blocky" else "similarity, interpolated"
    room = bottom - top - 2 * size * MM_PER_POINT * LEADING
    fitting = min(size, size * room / width_mm(label, size))
    page.text(
        x, (top + bottom) / 2, label, fitting, va="center", ha="left", rotation=90, color=GREY
    )
