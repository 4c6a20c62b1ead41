"""A page measured in millimetres from its upper left corner, and how it becomes a file.

Matplotlib is used without pyplot and under settings of its own, so that neither a person's
configuration nor another figure changes a byte.
"""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from simcrop_core.errors import SimCroPError
from simcrop_core.figure_text import FONT, Line

MM_PER_INCH = 25.4
MARGIN = 0.8  # millimetres of white around all
_LONGEST_MM = 3000.0
_MOST_DOTS = 300e6
_MOST_DOTS_A_SIDE = 60_000

# Matplotlib's settings are global to the process; one figure at a time changes and restores them.
_SVG_FONT = re.compile(rf"(style=\"font[^\"<>]*'{FONT}')")
_IMAGE_NAME = re.compile(r' id="image[0-9a-f]+"')

_LOCK = threading.RLock()


@contextmanager
def own_settings() -> Iterator[None]:
    """Matplotlib's defaults with ours on top, whatever a person's configuration says."""
    machine = ("backend", "interactive", "toolbar", "timezone", "webagg", "savefig.directory")
    settings: dict[str, Any] = {
        key: value
        for key, value in matplotlib.rcParamsDefault.items()
        if not key.startswith(machine)
    }
    settings |= {
        "font.family": FONT,
        "svg.fonttype": "none",  # text stays text
        "svg.hashsalt": "simcrop",  # else names within the file are random
        "pdf.fonttype": 42,
        "text.usetex": False,
        "text.hinting": "none",  # else letters are wider than measured at few dots per inch
    }
    with _LOCK, matplotlib.rc_context(settings), warnings.catch_warnings():
        # A character that the font lacks is drawn as a box, which says it better.
        warnings.filterwarnings("ignore", message=".*[Gg]lyph.*")
        yield


class Page:
    """A white page to draw on, in millimetres from its upper left corner."""

    def __init__(self, page_width_mm: float, page_height_mm: float, dpi: int) -> None:
        dots = page_width_mm * page_height_mm * (dpi / MM_PER_INCH) ** 2
        tallest = page_height_mm * dpi / MM_PER_INCH
        if page_height_mm > _LONGEST_MM or dots > _MOST_DOTS or tallest > _MOST_DOTS_A_SIDE:
            raise SimCroPError(
                f"The figure would be {page_width_mm:.0f} x {page_height_mm:.0f} mm and "
                f"{dots / 1e6:.0f} million dots.",
                code="figure-too-large",
                remedy="Show fewer sentences, a narrower figure, or fewer dots per inch.",
            )
        self.width_mm = page_width_mm
        self.height_mm = page_height_mm
        self.figure = Figure(
            figsize=(page_width_mm / MM_PER_INCH, page_height_mm / MM_PER_INCH),
            dpi=dpi,
            facecolor="white",
        )
        FigureCanvasAgg(self.figure)

    def axes(self, x: float, y: float, width: float, height: float, label: str) -> Axes:
        """An empty axes whose upper left corner is ``(x, y)``."""
        axes = self.figure.add_axes(
            (
                x / self.width_mm,
                1 - (y + height) / self.height_mm,
                width / self.width_mm,
                height / self.height_mm,
            ),
            label=label,
        )
        axes.set_axis_off()
        return axes

    def text(self, x: float, y: float, words: str, size_pt: float, **style: Any) -> Text:
        """Words at a point; never read as mathematics."""
        style = {"va": "baseline", "color": "black", **style}
        return self.figure.text(
            x / self.width_mm,
            1 - y / self.height_mm,
            words,
            fontsize=size_pt,
            fontfamily=FONT,
            parse_math=False,
            **style,
        )

    def lines(self, lines: Iterable[Line], x: float, top: float) -> None:
        """Lines of text one below the other."""
        for line in lines:
            self.text(
                x,
                top + 0.78 * line.height,
                line.words,
                line.size_pt,
                color=line.color,
                weight="bold" if line.bold else "normal",
            )
            top += line.height

    def square(self, x: float, y: float, side: float, lines: list[tuple[str, float]]) -> None:
        """An empty square, its outline drawn in each ``(colour, points)`` in turn."""
        for color, points in lines:
            self.figure.add_artist(
                Rectangle(
                    (x / self.width_mm, 1 - (y + side) / self.height_mm),
                    side / self.width_mm,
                    side / self.height_mm,
                    fill=False,
                    edgecolor=color,
                    linewidth=points,
                    transform=self.figure.transFigure,
                )
            )

    def rule(self, x: float, y: float, length: float) -> None:
        """A thin grey line across."""
        self.figure.add_artist(
            Line2D(
                [x / self.width_mm, (x + length) / self.width_mm],
                [1 - y / self.height_mm] * 2,
                color="0.75",
                linewidth=0.4,
            )
        )


def write_page(figure: Figure, path: Path, kind: str) -> None:
    """Write a figure as ``"png"``, ``"pdf"`` or ``"svg"``, the same bytes each time."""
    images = [image for axes in figure.axes for image in axes.images]
    drawn = [image.get_interpolation() for image in images]
    metadata: dict[str, None] = {
        "png": {"Software": None},
        "pdf": {"CreationDate": None},
        "svg": {"Date": None},
    }[kind]
    with own_settings():
        try:
            if kind != "png":
                for image in images:  # "none" embeds an image as it is instead of resampling it
                    image.set_interpolation("none")
            figure.savefig(path, format=kind, metadata=metadata, dpi="figure", facecolor="white")
            if kind == "svg":
                # Nothing refers to images' names, and equal images have equal ones, which XML
                # forbids. A machine without the font takes another without serifs.
                svg = _IMAGE_NAME.sub("", path.read_text(encoding="utf-8"))
                svg = _SVG_FONT.sub(r"\1, sans-serif", svg)
                path.write_text(svg, encoding="utf-8", newline="\n")
        finally:
            for image, interpolation in zip(images, drawn, strict=True):
                image.set_interpolation(interpolation)
