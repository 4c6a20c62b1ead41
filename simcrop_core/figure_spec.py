"""What a figure shows and how: one frozen record, every field visible in the picture."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import Field, ValidationError, field_validator

from simcrop_core.errors import SimCroPError
from simcrop_core.frozen import Frozen

PlaneName = Literal["axial", "coronal", "sagittal"]
WindowName = Literal["auto", "lung", "mediastinum", "soft", "bone"]

PLANES: tuple[PlaneName, ...] = get_args(PlaneName)


class FigureSpec(Frozen):
    """How a figure of sentences and their evidence is drawn.

    Raises
    ------
    SimCroPError
        On construction, if a field is unknown or its value cannot be drawn.
    """

    sentences: tuple[int, ...] | None = Field(
        None,
        description="Sentences to show, one row each, by their number in the alignment (from 0); "
        "None takes the six with the highest score, in the report's order.",
    )
    planes: tuple[PlaneName, ...] = Field(
        PLANES, description="Columns, from left to right; each plane at most once."
    )
    position_mm: tuple[float, float, float] | None = Field(
        None,
        description="Point through which all planes pass, in RAS millimetres; None takes the "
        "centre of each sentence's best patch.",
    )
    top_k: int | None = Field(
        None,
        ge=1,
        description="Patches outlined per sentence; None takes all that the alignment holds.",
    )
    window: WindowName | tuple[float, float] = Field(
        "auto",
        description="Grey scale of the CT: lung, mediastinum, soft, bone, auto (by the words of "
        "the sentence), or (width, level) in Hounsfield units.",
    )
    heat: bool = Field(True, description="Whether similarity is drawn as colour over the CT.")
    outlines: bool = Field(
        True, description="Whether the top patches and the best patch are outlined."
    )
    opacity: float = Field(
        0.55, gt=0, le=1, description="Opacity of the colour at the highest similarity."
    )
    colormap: str = Field(
        "autumn_r",
        description="Name of a Matplotlib colour map for the similarity (this one goes from "
        "yellow to red and reads well on lung and on bone).",
    )
    normalisation: Literal["sentence", "shared"] = Field(
        "sentence",
        description="Whether each sentence has a colour scale of its own or all share one.",
    )
    interpolation: Literal["blocky", "smooth"] = Field(
        "blocky",
        description="blocky shows each patch as it is; smooth interpolates between patch centres "
        "and says so in the figure.",
    )
    crop: Literal["input", "scan"] = Field(
        "input",
        description="Part of each plane that is shown: the model's input region within the scan, "
        "or the whole scan.",
    )
    width_mm: float = Field(
        122.0,
        ge=40,
        le=1000,
        description="Width of the figure on paper in millimetres (122 is the text width of LNCS).",
    )
    dpi: int = Field(300, ge=50, le=1200, description="Dots per inch of a PNG.")
    font_size_pt: float = Field(
        7.0, ge=4, le=20, description="Size of the captions in points; other text follows it."
    )
    color_bar: bool = Field(True, description="Whether a colour bar is drawn beside the panels.")
    scale_bar: bool = Field(True, description="Whether each row has a scale bar.")
    letters: bool = Field(
        True, description="Whether the letters R L A P S I stand at the panels' edges."
    )
    captions: bool = Field(True, description="Whether each row has its sentence as a caption.")

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as e:
            faults = "; ".join(
                f"{fault['loc'][0]}: {fault['msg'].removeprefix('Value error, ')}"
                for fault in e.errors(include_url=False)
            )
            raise SimCroPError(
                f"The figure cannot be drawn as asked ({faults})",
                code="figure-spec",
                remedy="Correct these settings of the figure",
            ) from e

    @field_validator("planes", "sentences")
    @classmethod
    def _some_each_once(cls, named: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        if named is not None and not named:
            raise ValueError("name at least one")
        if named is not None and len(set(named)) != len(named):
            raise ValueError("each may be named only once")
        return named

    @field_validator("position_mm", "window")
    @classmethod
    def _finite(cls, value: Any) -> Any:
        if isinstance(value, tuple) and not all(abs(v) < 1e6 for v in value):
            raise ValueError("the numbers must be finite")
        return value

    @field_validator("window")
    @classmethod
    def _has_width(cls, window: WindowName | tuple[float, float]) -> Any:
        if isinstance(window, tuple) and not window[0] >= 1:
            raise ValueError("the window is (width, level) and its width at least 1 HU")
        return window
