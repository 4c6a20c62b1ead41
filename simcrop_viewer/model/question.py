"""A question that has to be answered before a study can be opened: which of several is meant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from simcrop_core.datasets.neutral_name import neutral_name
from simcrop_core.io.dicom_series import SeriesInfo
from simcrop_core.report_files import Parts

_BEGINNING = 160


@dataclass(frozen=True, slots=True)
class Question:
    """A table of which one row is chosen.

    Attributes
    ----------
    text
        What is asked, as a sentence.
    columns, rows
        The table.
    usual
        The row that is offered first.
    keys
        What each row stands for.
    """

    text: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    keys: tuple[str, ...] = field(repr=False)
    usual: int = 0


def which_series(found: Sequence[SeriesInfo]) -> Question:
    """Which series of a DICOM folder; the key of the usual one is ``""``, so that it is read as if
    nobody had been asked."""
    usual = next((i for i, series in enumerate(found) if series.is_chosen), 0)
    return Question(
        f"The folder holds {len(found)} CT series. Which one shall be opened?",
        ("Series", "Plane", "Slices", "Apart", "Thickness", "Kernel"),
        tuple(_series_row(series) for series in found),
        tuple("" if series.is_chosen else series.id for series in found),
        usual,
    )


def which_row(rows: Sequence[tuple[str, Parts]]) -> Question:
    """Which row of a csv of reports; a name is shown where it can name no person."""
    return Question(
        f"The csv holds {len(rows)} reports. Which one belongs to the scan?",
        ("Row", "Name", "Begins with"),
        tuple(
            (str(number), neutral_name(name), _beginning(parts))
            for number, (name, parts) in enumerate(rows, 1)
        ),
        tuple(name for name, _ in rows),
    )


def _series_row(series: SeriesInfo) -> tuple[str, ...]:
    return (
        series.id,
        series.plane,
        str(series.n_slices),
        f"{series.spacing_mm[2]:.3g} mm" if series.spacing_mm[2] else "",
        f"{series.slice_thickness_mm:.3g} mm" if series.slice_thickness_mm else "",
        series.kernel,
    )


def _beginning(parts: Parts) -> str:
    text = " ".join(" ".join(part.text.split()) for part in parts.parts)
    return text if len(text) <= _BEGINNING else f"{text[:_BEGINNING].rsplit(' ', 1)[0]} ..."
