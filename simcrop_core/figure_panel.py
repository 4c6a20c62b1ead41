"""One panel of a figure: a windowed plane of the scan with its evidence and its marks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from simcrop_core.errors import SimCroPError
from simcrop_core.figure_planes import Plane, Raster, cut_heat, cut_scan, outline
from simcrop_core.figure_spec import FigureSpec
from simcrop_core.figure_text import FONT, number
from simcrop_core.geometry import FloatArray
from simcrop_core.patches import Box
from simcrop_core.volume import CTVolume

if TYPE_CHECKING:
    from simcrop_core.alignment_result import AlignmentResult

# (colour, points), the dark casing first: visible on air, on bone and on any heat.
TOP_LINES = [("black", 1.2), ("white", 0.6)]
BEST_LINES = [("black", 1.6), ("#00e5ff", 0.9)]
_FULL_LINES_FROM = 30.0  # paper millimetres of a panel's width

_LETTER_PLACES = {
    "left": (0.015, 0.5, "left", "center"),
    "right": (0.985, 0.5, "right", "center"),
    "bottom": (0.5, 0.015, "center", "bottom"),
    "top": (0.5, 0.985, "center", "top"),
}


@dataclass(frozen=True)
class ColorScale:
    """Similarity -> colour: clear at ``low``, strongest at ``high``."""

    low: float
    high: float
    colormap: str
    opacity: float

    @classmethod
    def over(cls, result: AlignmentResult, sentences: list[int], spec: FigureSpec) -> ColorScale:
        """From the median to the maximum of these sentences' patches in the scan."""
        if spec.colormap not in colormaps:
            raise SimCroPError(
                f"There is no colour map {spec.colormap!r}.",
                code="no-such-colormap",
                remedy="Name one of Matplotlib's, such as autumn_r, plasma, viridis or turbo.",
            )
        values = result.similarity_SN[sentences][:, result.inside_N]
        return cls(float(np.median(values)), float(values.max()), spec.colormap, spec.opacity)

    def rgba(self, similarity: NDArray[np.float32]) -> NDArray[np.float64]:
        """Colours with their opacity, ``(..., 4)`` in 0..1; NaN is clear."""
        span = self.high - self.low
        share = (similarity - self.low) / span if span > 0 else np.zeros_like(similarity)
        share = np.clip(np.nan_to_num(share, nan=0.0), 0, 1)
        rgba = np.array(colormaps[self.colormap](share), dtype=np.float64)
        rgba[..., 3] = self.opacity * share
        return rgba


@dataclass(frozen=True)
class Panel:
    """What one panel shows.

    ``frame_mm`` is the panel's ``(width, height)`` in the patient; the crop lies in its middle.
    ``print_scale`` is paper millimetres per patient millimetre.
    """

    volume: CTVolume
    result: AlignmentResult
    spec: FigureSpec
    sentence: int
    plane: Plane
    position_mm: FloatArray
    window: tuple[float, float]
    crop: Box
    frame_mm: tuple[float, float]
    print_scale: float

    def draw(self, axes: Axes, scale: ColorScale) -> None:
        """Draw the scan, the heat, the outlines and the letters."""
        left, right, bottom, top = self.plane.extent(self.crop)
        middle_u, middle_v = (left + right) / 2, (bottom + top) / 2
        half_u, half_v = self.frame_mm[0] / 2, self.frame_mm[1] / 2
        axes.set_xlim(middle_u - half_u, middle_u + half_u)
        axes.set_ylim(middle_v - half_v, middle_v + half_v)
        axes.set_autoscale_on(False)
        axes.add_patch(
            Rectangle((0, 0), 1, 1, transform=axes.transAxes, color="black", linewidth=0, zorder=0)
        )
        # Nothing is shown outside the crop, neither the last half pixel nor a patch's rest.
        clip = Rectangle((left, bottom), right - left, top - bottom, transform=axes.transData)
        self._draw_scan(axes, clip)
        if self.spec.heat:
            self._draw_heat(axes, clip, scale)
        if self.spec.outlines:
            self._draw_outlines(axes, clip)
        if self.spec.letters:
            for edge, letter in self.plane.letters().items():
                x, y, ha, va = _LETTER_PLACES[edge]
                self.mark(axes, x, y, letter, ha=ha, va=va)

    @property
    def mark_size_pt(self) -> float:
        """Size of what is written on the panel: never out of proportion to a small panel."""
        return min(self.spec.font_size_pt - 1, 0.17 * self.frame_mm[0] * self.print_scale)

    def mark(self, axes: Axes, x: float, y: float, words: str, *, ha: str, va: str) -> None:
        """White words at a place of the panel (0..1), on a dark ground."""
        axes.text(
            x,
            y,
            words,
            transform=axes.transAxes,
            ha=ha,
            va=va,
            color="white",
            fontsize=self.mark_size_pt,
            fontfamily=FONT,
            parse_math=False,
            zorder=6,
            bbox={"facecolor": "black", "alpha": 0.45, "linewidth": 0, "pad": 0.6},
        )

    def draw_scale_bar(self, axes: Axes) -> None:
        """A bar of a round length at the lower left."""
        length = round_length(0.25 * self.frame_mm[0])
        low_u, low_v = axes.get_xlim()[0], axes.get_ylim()[0]
        paper = 1 / self.print_scale  # patient millimetres of one on paper
        thickness, inset = 0.5 * paper, 1.2 * paper
        axes.add_patch(
            Rectangle(
                (low_u + inset, low_v + inset),
                length,
                thickness,
                facecolor="white",
                edgecolor="black",
                linewidth=0.3,
                zorder=6,
            )
        )
        x = inset / self.frame_mm[0]
        y = (inset + thickness + 0.5 * paper) / self.frame_mm[1]
        self.mark(
            axes, x, y, f"{number(length, 0 if length >= 1 else 1)} mm", ha="left", va="bottom"
        )

    def _draw_scan(self, axes: Axes, clip: Rectangle) -> None:
        width, level = self.window
        low, high = level - width / 2, level + width / 2
        scan = cut_scan(self.volume, self.plane, self.position_mm, self.crop, outside_hu=low)
        draw_gray(axes, scan, low, high).set_clip_path(clip)

    def _draw_heat(self, axes: Axes, clip: Rectangle, scale: ColorScale) -> None:
        heat = cut_heat(
            self.result, self.sentence, self.plane, self.position_mm, self.spec.interpolation
        )
        if heat is None:
            return
        image = axes.imshow(
            scale.rgba(heat.values_VU),
            extent=heat.extent,
            origin="lower",
            aspect="auto",
            interpolation="nearest",
            zorder=2,
        )
        image.set_clip_path(clip)

    def _draw_outlines(self, axes: Axes, clip: Rectangle) -> None:
        top = self.result.top(self.sentence, self.spec.top_k)
        thin = min(1.0, self.frame_mm[0] * self.print_scale / _FULL_LINES_FROM)
        for patches, lines, zorder in ((top, TOP_LINES, 3), (top[:1], BEST_LINES, 4)):
            segments = outline(self.result.patches, patches, self.plane, self.position_mm)
            for color, points in lines:
                drawn = LineCollection(
                    list(segments),
                    colors=color,
                    linewidths=points * thin,
                    capstyle="projecting",
                    zorder=zorder,
                )
                axes.add_collection(drawn, autolim=False)
                drawn.set_clip_path(clip)


def draw_gray(axes: Axes, scan: Raster, low: float, high: float) -> AxesImage:
    """A plane of a scan, from black at ``low`` to white at ``high`` Hounsfield units."""
    return axes.imshow(
        scan.values_VU,
        cmap="gray",
        vmin=low,
        vmax=high,
        extent=scan.extent,
        origin="lower",
        aspect="auto",
        interpolation="hanning",
        zorder=1,
    )


def round_length(most_mm: float) -> float:
    """The greatest of 1, 2, 5, 10, 20, 50 ... millimetres that is no longer than this."""
    power = 10.0 ** np.floor(np.log10(most_mm))
    return float(max(step * power for step in (1, 2, 5) if step * power <= most_mm * (1 + 1e-9)))
