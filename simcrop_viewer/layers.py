"""napari's layers and its axis order: nothing else in the application knows either.

napari's arrays are (Z, Y, X), and so is its world here: millimetres towards Superior, Posterior
and Left. With napari's own camera an axial plane then has the patient's right on the left of the
screen and anterior at the top, in this application and in any napari window.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
from napari.layers import Image, Labels, Layer, Vectors
from napari.layers._scalar_field import ScalarFieldBase
from napari.utils.colormaps import Colormap, DirectLabelColormap, ensure_colormap
from numpy.typing import ArrayLike, NDArray

from simcrop_core.geometry import FloatArray, Grid
from simcrop_viewer.model.windows import Window

PlaneName = Literal["axial", "coronal", "sagittal"]

#: Where napari's three axes run, by the plane that is looked at: the first is the one stepped
#: through.
ORDER: dict[str, tuple[int, int, int]] = {
    "axial": (0, 1, 2),
    "coronal": (1, 0, 2),
    "sagittal": (2, 0, 1),
}
#: Up and right on the screen, as napari's camera names the directions of growing coordinates.
ORIENTATION_2D: dict[str, tuple[str, str]] = {
    "axial": ("down", "right"),
    "coronal": ("up", "right"),
    "sagittal": ("up", "right"),
}
#: A patient in 3D is not mirrored: seen from the front, upright.
ORIENTATION_3D = ("away", "down", "right")
#: View direction and up, in napari's world: towards posterior, a little down and to the right.
VIEW_3D = ((-0.35, 1.0, -0.45), (1.0, 0.0, 0.0))
LETTERS: dict[str, dict[str, str]] = {
    "axial": {"middle_left": "R", "middle_right": "L", "top_center": "A", "bottom_center": "P"},
    "coronal": {"middle_left": "R", "middle_right": "L", "top_center": "S", "bottom_center": "I"},
    "sagittal": {"middle_left": "A", "middle_right": "P", "top_center": "S", "bottom_center": "I"},
}
UNITS = ("mm", "mm", "mm")


class Placed(NamedTuple):
    """An array in napari's axis order and where it lies."""

    data_ZYX: NDArray[Any]
    scale: tuple[float, float, float]
    translate: tuple[float, float, float]

    @property
    def place(self) -> dict[str, Any]:
        """Keyword arguments of any layer."""
        return {"scale": self.scale, "translate": self.translate, "units": UNITS}


def to_napari(world_mm: ArrayLike) -> FloatArray:
    """RAS millimetres -> napari's world; the last axis holds the coordinates."""
    world = np.asarray(world_mm, dtype=np.float64)
    return np.stack([world[..., 2], -world[..., 1], -world[..., 0]], axis=-1)


def to_world(point_zyx: ArrayLike) -> FloatArray:
    """napari's world -> RAS millimetres."""
    point = np.asarray(point_zyx, dtype=np.float64)
    return np.stack([-point[..., 2], -point[..., 1], point[..., 0]], axis=-1)


def placed(values_XYZ: NDArray[Any], grid: Grid) -> Placed:
    """An array on an axis-aligned grid as napari takes it; a view, nothing is copied.

    Raises
    ------
    ValueError
        The grid is oblique: napari does not slice rotated arrays.
    """
    if not grid.is_axis_aligned:
        raise ValueError("Only axis-aligned arrays can be shown.")
    world, signs = grid.nearest_axes()
    array_of_world = [world.index(axis) for axis in range(3)]
    # Superior, Posterior, Left grow with napari's coordinates.
    wanted = {2: 1, 1: -1, 0: -1}
    view = values_XYZ.transpose([array_of_world[axis] for axis in (2, 1, 0)])
    spacing = grid.spacing_mm
    scale, flips = [], []
    for axis in (2, 1, 0):
        array_axis = array_of_world[axis]
        scale.append(spacing[array_axis])
        flips.append(slice(None, None, 1 if signs[array_axis] == wanted[axis] else -1))
    corners = to_napari(grid.to_world(np.array([[0, 0, 0], np.array(grid.shape) - 1])))
    least = corners.min(axis=0)
    z, y, x = (float(s) for s in scale)
    return Placed(
        view[tuple(flips)], (z, y, x), (float(least[0]), float(least[1]), float(least[2]))
    )


def unplaced(layer: ScalarFieldBase) -> tuple[NDArray[Any], Grid]:
    """A layer's array in this library's axis order, and where it lies; the way back of `placed`.

    A layer in pixels instead of a length is taken to be in millimetres.

    Raises
    ------
    ValueError
        The layer is not one of three dimensions, or they are no lengths.
    """
    if layer.ndim != 3 or layer.data.ndim != 3:
        raise ValueError(f"The layer has {layer.ndim} dimensions, not three.")
    mm = [_millimetres(unit) for unit in layer.units]
    # The first voxel's centre, then a step along each of the array's axes X, Y and Z.
    points = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)]
    world = to_world([np.array(layer.data_to_world(point)) * mm for point in points])
    affine = np.eye(4)
    affine[:3, :3] = (world[1:] - world[0]).T
    affine[:3, 3] = world[0]
    values = np.asarray(layer.data)
    z, y, x = values.shape
    return values.transpose(2, 1, 0), Grid((x, y, z), affine)


def _millimetres(unit: Any) -> float:
    """Of a layer's unit (pint's)."""
    if str(unit) in ("pixel", "dimensionless", ""):
        return 1.0
    try:
        return float((1 * unit).to("mm").magnitude)
    except Exception as e:  # pint's error is of a class of its own
        raise ValueError(f"The layer is measured in {unit}, which is no length.") from e


# -- layers ---------------------------------------------------------------------------------------


def ct_layer(ct: Placed, window: Window, **more: Any) -> Image:
    """The scan."""
    return Image(
        ct.data_ZYX,
        name="CT",
        colormap="gray",
        contrast_limits=window.limits,
        interpolation2d="linear",
        blending="opaque",
        multiscale=False,
        **ct.place,
        **more,
    )


def labels_layer(
    labels: Placed, name: str, colors: Mapping[int, str], names: Mapping[int, str], **more: Any
) -> Labels:
    """A label map; napari says the name of the label under the pointer. Labels that have no
    colour, such as new ones that are painted, are white."""
    table: dict[int | None, Any] = {None: "#ffffff", 0: np.zeros(4)}
    return Labels(
        labels.data_ZYX,
        name=name,
        colormap=DirectLabelColormap(color_dict=table | dict(colors)),
        features={"index": [0, *names], "name": ["background", *names.values()]},
        opacity=0.45,
        rendering="iso_categorical",
        multiscale=False,
        **labels.place,
        **more,
    )


def heat_layer(heat: Placed, colormap: Colormap, name: str, *, flat: bool) -> Image:
    """Heat on the patch grid, not upsampled; ``flat`` for a plane, else for 3D."""
    return Image(
        heat.data_ZYX,
        name=name,
        colormap=colormap,
        contrast_limits=(0.0, 1.0),
        interpolation2d="nearest",
        interpolation3d="nearest",
        blending="translucent" if flat else "translucent_no_depth",
        rendering="mip",
        multiscale=False,
        **heat.place,
    )


#: What differs from scan to scan, is set anew with each, or follows the crosshair.
_OF_THE_SCAN = {"scale", "translate", "contrast_limits", "plane", "visible", "metadata"}
#: What nobody but a person changes in layers whose look is drawn anew with each sentence.
_OF_A_PERSON = ("name", "affine", "rotate", "shear")


def settings_of(layer: Layer, *, of_scan: bool) -> str:
    """How a layer is named and turned; of a scan's also how it is drawn, apart from what belongs
    to the very scan in it."""
    state = layer.as_layer_data_tuple()[1]
    if not of_scan:
        return repr([*(state[name] for name in _OF_A_PERSON), str(layer.mode)])
    kept = {name: state[name] for name in sorted(state) if name not in _OF_THE_SCAN}
    return repr([kept, str(layer.mode), layer.plane.normal, layer.plane.thickness])


def lines_layer(name: str, color: str, width: float, **more: Any) -> Vectors:
    """Straight lines, none at first; their width is in the layer's own coordinates."""
    return Vectors(
        np.zeros((0, 2, 3)),
        ndim=3,
        name=name,
        edge_color=color,
        edge_width=width,
        vector_style="line",
        length=1,
        units=UNITS,
        **more,
    )


def set_lines(layer: Vectors, lines_M23: FloatArray, color: str | None = None) -> None:
    """Put other lines into a layer, in place of its own.

    The layer's array keeps its length where it can, since a new one sets much of napari going;
    rows that are left over have no length.
    """
    count = len(lines_M23)
    if count > len(layer.data):
        room = np.zeros((max(16, 1 << (count - 1).bit_length()), 2, 3))
        room[:count] = lines_M23
        layer.data = room
    else:
        layer.data[:count] = lines_M23
        layer.data[count:] = 0
    if color is not None and any(to_hex(row) != color for row in layer.edge_color[:1]):
        layer.edge_color = color
    layer.refresh(thumbnail=False, extent=False, highlight=False)


def to_hex(color: Iterable[float]) -> str:
    """``"#rrggbb"`` of red, green and blue in 0 to 1 (and of what follows them, nothing)."""
    red, green, blue, *_ = (round(255 * float(part)) for part in color)
    return f"#{red:02x}{green:02x}{blue:02x}"


@lru_cache
def clear_below(name: str) -> Colormap:
    """One of napari's or matplotlib's colour maps, clear at 0."""
    colors = np.array(ensure_colormap(name).colors)
    if len(colors) < 64:
        colors = np.array(ensure_colormap(name).map(np.linspace(0, 1, 256)))
    colors = np.concatenate([[[0, 0, 0, 0]], colors])
    controls = np.concatenate([[0.0, 0.01], np.linspace(0.01, 1.0, len(colors) - 1)[1:], [1.0]])
    return Colormap(colors, name=f"{name}, clear at 0", controls=controls, interpolation="zero")


#: Where the first of two models, or the second, finds a sentence more like a place.
FIRST_MORE, SECOND_MORE = (1.0, 0.60, 0.10), (0.25, 0.62, 1.0)


@lru_cache
def diverging() -> Colormap:
    """From the second's colour at 0.02, over clear at 0.51, to the first's at 1; clear at 0."""
    first, second = FIRST_MORE, SECOND_MORE
    return Colormap(
        np.array([[*second, 0.0], [*second, 1.0], [*second, 0.0], [*first, 0.0], [*first, 1.0]]),
        name="difference, clear at 0 and in its middle",
        controls=np.array([0.0, 0.02, 0.5099, 0.5101, 1.0]),
    )


@lru_cache
def one_color(color: tuple[float, float, float]) -> Colormap:
    """From clear at 0 over faint to one colour."""
    faint = tuple(0.35 * part for part in color)
    return Colormap(
        np.array([[*color, 0.0], [*faint, 0.85], [*color, 1.0]]),
        name=to_hex(color),
        controls=np.array([0.0, 0.01, 1.0]),
    )
