"""The page of a figure: panels, captions, bars and small print, placed in millimetres.

Everything is measured before anything is drawn, so that nothing overlaps whatever the sentences'
length. Matplotlib is used without pyplot, under settings of its own.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from simcrop_core.errors import SimCroPError
from simcrop_core.figure_planes import (
    PLANE_BY_NAME,
    Plane,
    cut_heat,
    cut_scan,
    outline,
    window_for,
)
from simcrop_core.figure_spec import FigureSpec
from simcrop_core.figure_text import (
    FONT,
    MM_PER_POINT,
    UNSUPPORTED,
    caption_details,
    clean,
    footer_details,
    is_untrained,
    number,
    row_letter,
    stands_out,
    width_mm,
    wrapped,
)
from simcrop_core.geometry import FloatArray
from simcrop_core.patches import Box
from simcrop_core.volume import CTVolume

if TYPE_CHECKING:
    from simcrop_core.alignment_result import AlignmentResult
