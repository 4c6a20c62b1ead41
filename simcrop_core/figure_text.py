"""The words of a figure: cleaned, measured and broken into lines, and what captions say."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from simcrop_core.figure_spec import FigureSpec
from simcrop_core.geometry import FloatArray

if TYPE_CHECKING:
    from simcrop_core.alignment_result import AlignmentResult

FONT = "DejaVu Sans"  # comes with Matplotlib, so the same everywhere
MM_PER_POINT = 25.4 / 72
NULL_PERCENTILE = 95.0
_NBSP = "\N{NO-BREAK SPACE}"

LEADING = 1.28  # line to line, in font sizes
GREY, WARNING = "0.35", "#b02a00"

UNSUPPORTED = "No support above unrelated sentences"


class Line(NamedTuple):
    """One line of text and its look."""

    words: str
    size_pt: float
    color: str = "black"
    bold: bool = False

    @property
    def height(self) -> float:
        return self.size_pt * MM_PER_POINT * LEADING


def small_print(spec: FigureSpec) -> float:
    """Size of all words but the sentences, in points."""
    return spec.font_size_pt * 0.8


def clean(text: str) -> str:
    """One line without the characters that no font shows and no SVG may hold."""
    shown = (c if c.isprintable() else "" if unicodedata.category(c) == "Cf" else " " for c in text)
    return " ".join("".join(shown).split())


def width_mm(text: str, size_pt: float, *, bold: bool = False) -> float:
    """Width of a line of text."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family=FONT, size=size_pt, weight="bold" if bold else "normal")
    width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return float(width) * MM_PER_POINT


def wrapped(text: str, limit_mm: float, size_pt: float, *, bold: bool = False) -> list[str]:
    """The text in lines no wider than the limit.

    It breaks at plain spaces, not at no-break ones; only a word wider than a line is broken.
    """
    lines: list[str] = []
    line = ""
    for word in text.split(" "):
        longer = f"{line} {word}" if line else word
        if width_mm(longer, size_pt, bold=bold) <= limit_mm:
            line = longer
            continue
        if line:
            lines.append(line)
        line = word
        while len(line) > 1 and width_mm(line, size_pt, bold=bold) > limit_mm:
            fits = _fitting(line, limit_mm, size_pt, bold)
            lines.append(line[:fits])
            line = line[fits:]
    return [*lines, line] if line else lines


def _fitting(word: str, limit_mm: float, size_pt: float, bold: bool) -> int:
    """How many of a word's characters fit, at least one."""
    low, high = 1, len(word)
    while low < high:
        middle = (low + high + 1) // 2
        if width_mm(word[:middle], size_pt, bold=bold) <= limit_mm:
            low = middle
        else:
            high = middle - 1
    return low


def row_letter(row: int) -> str:
    """a, b, ... z, aa, ab, ..."""
    letters = ""
    row += 1
    while row:
        row, rest = divmod(row - 1, 26)
        letters = chr(ord("a") + rest) + letters
    return letters


def number(value: float, decimals: int) -> str:
    """A number with a true minus sign, and no negative zero."""
    return f"{round(value, decimals) + 0.0:.{decimals}f}".replace("-", "\N{MINUS SIGN}")


def place(position_mm: FloatArray) -> str:
    """A RAS point in words of the body: ``"R 12, A 30, I 450 mm"``."""
    letters = ("RL", "AP", "SI")
    parts = [
        f"{pair[0] if value >= 0 else pair[1]}{_NBSP}{abs(value):.0f}"
        for pair, value in zip(letters, position_mm, strict=True)
    ]
    return f"{', '.join(parts)}{_NBSP}mm"


def stands_out(result: AlignmentResult, sentence: int) -> bool:
    """Whether a sentence's evidence exceeds that of unrelated sentences."""
    return result.sentences[sentence].null_percentile >= NULL_PERCENTILE


def caption_details(
    result: AlignmentResult,
    sentence: int,
    window: tuple[str, tuple[float, float]],
    position_mm: FloatArray,
) -> tuple[str, ...]:
    """What the small print under a sentence says, in parts."""
    aligned = result.sentences[sentence]
    name, (width, level) = window
    share = aligned.null_percentile
    # Rounded down: 99.8 % is not all of them.
    above = "all" if share >= 100 else f"{int(share)}{_NBSP}% of"
    return (
        f"score {number(aligned.score, 1)}, above {above} unrelated sentences",
        f"{name} window {number(width, 0)}/{number(level, 0)}{_NBSP}HU",
        f"planes at {place(position_mm)}",
    )


def footer_details(result: AlignmentResult, spec: FigureSpec) -> str:
    """What the figure's last lines say of the picture, the scan and the model."""
    size = f"{_NBSP}×{_NBSP}".join(f"{s:.3g}" for s in result.patches.size_mm)
    parts = []
    if spec.heat:
        whose = "each sentence" if spec.normalisation == "sentence" else "all sentences shown"
        parts.append(
            f"Colour: similarity of patch and sentence, clear at the median and strongest at the "
            f"maximum of {whose}."
        )
        if spec.interpolation == "smooth":
            parts.append(
                f"Colour is interpolated between patch centres; what was computed is one value "
                f"per patch of {size}{_NBSP}mm."
            )
        else:
            parts.append(f"Each block is one patch of {size}{_NBSP}mm.")
    parts.append("The patient's right is on the left of axial and coronal planes.")
    model = result.model
    name = clean(str(model.get("name") or model.get("preset") or "without a name"))
    identity = f" ({clean(str(model['id']))[:16]})" if model.get("id") else ""
    top = result.top_SK.shape[1]
    parts.append(
        f"Scan {result.volume.id}; model {name}{identity}, {_training(model)}; K = {top} of "
        f"{int(np.count_nonzero(result.inside_N))} patches in the scan."
    )
    return " ".join(parts)


def is_untrained(model: dict[str, Any]) -> bool:
    return str(model.get("trained", "")).strip().casefold() == "untrained"


def _training(model: dict[str, Any]) -> str:
    said = clean(str(model.get("trained") or ""))
    return said if said else "training not stated"
