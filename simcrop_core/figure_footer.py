"""The small print at a figure's foot: what its lines and colours mean, and what it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simcrop_core.figure_canvas import MARGIN, Page
from simcrop_core.figure_panel import BEST_LINES, TOP_LINES
from simcrop_core.figure_spec import FigureSpec
from simcrop_core.figure_text import (
    GREY,
    MM_PER_POINT,
    UNSUPPORTED,
    WARNING,
    Line,
    footer_details,
    is_untrained,
    row_letter,
    small_print,
    stands_out,
    width_mm,
    wrapped,
)

if TYPE_CHECKING:
    from simcrop_core.alignment_result import AlignmentResult

_FOOTER_GAP = 1.2


def footer_lines(
    result: AlignmentResult, spec: FigureSpec, sentences: list[int]
) -> tuple[Line, ...]:
    """The words, already broken into lines: warnings first, "research use only" last."""
    small, width = small_print(spec), spec.width_mm - 2 * MARGIN
    warnings = []
    if is_untrained(result.model):
        warnings.append("The model is untrained: its similarities carry no meaning.")
    unsupported = [
        row_letter(row) for row, index in enumerate(sentences) if not stands_out(result, index)
    ]
    if unsupported and not spec.captions:
        warnings.append(f"{UNSUPPORTED}: {', '.join(unsupported)}.")
    lines = [
        Line(words, small, WARNING, bold=True)
        for warning in warnings
        for words in wrapped(warning, width, small, bold=True)
    ]
    lines += [
        Line(words, small, GREY) for words in wrapped(footer_details(result, spec), width, small)
    ]
    lines += [
        Line(words, small, bold=True)
        for words in wrapped("Research use only, not for diagnosis.", width, small, bold=True)
    ]
    return tuple(lines)


def _legend(result: AlignmentResult, spec: FigureSpec) -> list[tuple[str, list[tuple[str, float]]]]:
    if not spec.outlines:
        return []
    shown = spec.top_k or result.top_SK.shape[1]
    best = ("best patch", BEST_LINES)
    return [best] if shown == 1 else [(f"outline of the {shown} best patches", TOP_LINES), best]


def _legend_places(
    result: AlignmentResult, spec: FigureSpec
) -> list[tuple[float, int, str, list[tuple[str, float]]]]:
    """``(x, line, words, lines)`` of each entry, on as many lines as the width needs."""
    places = []
    size = small_print(spec)
    x, line = MARGIN, 0
    for words, strokes in _legend(result, spec):
        needed = size * MM_PER_POINT + 1.2 + width_mm(words, size)
        if x > MARGIN and x + needed > spec.width_mm - MARGIN:
            x, line = MARGIN, line + 1
        places.append((x, line, words, strokes))
        x += needed + 4
    return places


def _legend_line(spec: FigureSpec) -> float:
    return small_print(spec) * MM_PER_POINT * 1.5


def footer_height(result: AlignmentResult, spec: FigureSpec, footer: tuple[Line, ...]) -> float:
    """Height of legend and words, in millimetres."""
    legend = _legend_places(result, spec)
    lines = 1 + legend[-1][1] if legend else 0
    return lines * _legend_line(spec) + sum(line.height for line in footer) + _FOOTER_GAP


def draw_footer(
    page: Page, result: AlignmentResult, spec: FigureSpec, footer: tuple[Line, ...], top: float
) -> None:
    """Draw a rule, the legend of the outlines, and the words."""
    page.rule(MARGIN, top, page.width_mm - 2 * MARGIN)
    top += _FOOTER_GAP
    side = small_print(spec) * MM_PER_POINT
    legend = _legend_places(result, spec)
    for x, line, words, strokes in legend:
        y = top + line * _legend_line(spec)
        page.square(x, y, side, strokes)
        page.text(x + side + 1.2, y + side * 0.9, words, small_print(spec), color=GREY)
    if legend:
        top += (1 + legend[-1][1]) * _legend_line(spec)
    page.lines(footer, MARGIN, top)
