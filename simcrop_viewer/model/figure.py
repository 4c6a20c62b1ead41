"""What a person chooses of a figure; the library's own record of it says what may be chosen."""

from __future__ import annotations

from typing import Any, Literal

from psygnal import EventedModel
from pydantic import ConfigDict, Field

from simcrop_core.figure_spec import FigureSpec, PlaneName
from simcrop_viewer.model.session import Session

Positions = Literal["best", "crosshair"]
WindowChoice = Literal["auto", "lung", "mediastinum", "soft", "bone", "shown"]


def _as_in_spec(name: str, title: str, **more: Any) -> Any:
    """A field with the default, the limits and the words that the library's has."""
    info = FigureSpec.model_fields[name]

    def limit(kind: str) -> float | None:
        return next((getattr(m, kind) for m in info.metadata if hasattr(m, kind)), None)

    return Field(
        default=info.default,
        title=title,
        description=info.description,
        ge=limit("ge"),
        le=limit("le"),
        gt=limit("gt"),
        json_schema_extra=more or None,
    )


class FigureSettings(EventedModel):
    """How a figure is drawn; each field's change is told by ``events``.

    All but ``positions`` and ``window`` are fields of `simcrop_core.figure_spec.FigureSpec`; which
    sentences are drawn is the selection's business.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    planes: tuple[PlaneName, ...] = _as_in_spec("planes", "Planes")
    positions: Positions = Field(
        default="best",
        title="Through",
        description="Planes through each sentence's best patch, or all through the crosshair.",
        json_schema_extra={"words": {"best": "Best patch", "crosshair": "Crosshair"}},
    )
    crop: Literal["input", "scan"] = _as_in_spec(
        "crop", "Part", words={"input": "Model's input", "scan": "Whole scan"}
    )
    window: WindowChoice = Field(
        default="auto",
        title="Window",
        description="By the words of each sentence, one of the usual windows, or the one in which "
        "the scan is shown now.",
        json_schema_extra={
            "words": {"auto": "By the sentence", "soft": "Soft tissue", "shown": "As shown now"}
        },
    )
    colormap: str = _as_in_spec(
        "colormap",
        "Colours",
        words={"autumn_r": "Yellow to red", "YlOrRd": "Pale to dark red", "cool": "Cyan to pink"},
    )
    opacity: float = _as_in_spec("opacity", "Opacity")
    normalisation: Literal["sentence", "shared"] = _as_in_spec("normalisation", "Scale")
    interpolation: Literal["blocky", "smooth"] = _as_in_spec("interpolation", "Patches")
    width_mm: float = _as_in_spec("width_mm", "Width", suffix=" mm")
    font_size_pt: float = _as_in_spec("font_size_pt", "Font size", suffix=" pt", step=0.5)
    dpi: int = _as_in_spec("dpi", "Resolution", suffix=" dots per inch", step=50)
    heat: bool = _as_in_spec("heat", "Heat")
    outlines: bool = _as_in_spec("outlines", "Outlines")
    captions: bool = _as_in_spec("captions", "Captions")
    letters: bool = _as_in_spec("letters", "Letters R L A P S I")
    color_bar: bool = _as_in_spec("color_bar", "Colour bar")
    scale_bar: bool = _as_in_spec("scale_bar", "Scale bar")


def spec_of(settings: FigureSettings, session: Session, held: int) -> FigureSpec:
    """What is to be drawn of the open study.

    Rows are the selected statements in the order in which they were chosen, or those that the
    library takes unasked; as many patches are outlined as in the views.

    Parameters
    ----------
    held
        Patches that the alignment holds for each sentence.

    Raises
    ------
    SimCroPError
        The library does not draw this.
    """
    fields = settings.model_dump()
    if fields.pop("positions") == "crosshair":
        x, y, z = (round(float(value), 3) for value in session.position_mm)
        fields["position_mm"] = (x, y, z)
    if fields["window"] == "shown":
        fields["window"] = tuple(session.window)
    if session.selection:
        fields["sentences"] = session.selection
    if session.overlay.top_k < held:
        fields["top_k"] = session.overlay.top_k
    return FigureSpec(**fields)


def spec_words(spec: FigureSpec) -> list[str]:
    """The words of the command ``simcrop figure`` that ask for this."""
    import json

    words = []
    fields = spec.model_dump(mode="json", exclude_defaults=True)
    if "sentences" in fields:
        words += ["--sentences", ",".join(str(index) for index in fields.pop("sentences"))]
    if "planes" in fields:
        words += ["--planes", ",".join(fields.pop("planes"))]
    if "position_mm" in fields:
        # Joined to its option: a word that begins with a minus sign would be read as another.
        words.append("--position=" + ",".join(repr(v) for v in fields.pop("position_mm")))
    for name, value in fields.items():
        said = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
        words += ["--set", f"{name}={said}"]
    return words
