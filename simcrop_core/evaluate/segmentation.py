"""How well a model labels structures: Dice and surface distance, at the resolution of the truth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from simcrop_core.device import Precision, Progress, silent
from simcrop_core.evaluate.intervals import Estimate, mean_over_studies
from simcrop_core.evaluate.pointing import dice
from simcrop_core.evaluate.surface import surface_distance
from simcrop_core.geometry import Grid
from simcrop_core.io import labels_on
from simcrop_core.model.simcrop import SimCroP
from simcrop_core.segment import segment
from simcrop_core.volume import CTVolume

Held = Literal["both", "neither", "truth only", "model only"]


@dataclass(frozen=True, slots=True, eq=False)
class LabelledCase:
    """A scan with its true labels.

    Attributes
    ----------
    id
        Of the study.
    volume
        The scan.
    labels_XYZ, grid
        The true label map, on a grid of its own or on the scan's.
    names
        Label -> structure; several labels may be of one. What is not named is background.
    """

    id: str
    volume: CTVolume
    labels_XYZ: NDArray[Any]
    grid: Grid
    names: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class Score:
    """One structure of one case.

    Attributes
    ----------
    held
        Who holds the structure.
    dice
        0 where only one of the two holds it; None where neither does.
    average_mm, hausdorff95_mm
        Surface distances; None unless both hold it, since there is no second surface.
    """

    held: Held
    dice: float | None = None
    average_mm: float | None = None
    hausdorff95_mm: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "held_by": self.held,
            "dice": self.dice,
            "average_surface_distance_mm": self.average_mm,
            "hausdorff95_mm": self.hausdorff95_mm,
        }


_FIGURES = ("dice", "average_mm", "hausdorff95_mm")
_JSON_NAMES = dict(
    zip(_FIGURES, ("dice", "average_surface_distance_mm", "hausdorff95_mm"), strict=True)
)


@dataclass(eq=False)
class SegmentationResult:
    """All that was measured.

    Attributes
    ----------
    model
        The model's card.
    scores
        Study -> structure -> score.
    background
        Study -> Dice of what is none of the structures.
    """

    model: dict[str, Any]
    scores: dict[str, dict[str, Score]] = field(default_factory=dict)
    background: dict[str, float] = field(default_factory=dict)

    @property
    def structures(self) -> list[str]:
        """The structures of all cases, in the order in which they come."""
        return list(dict.fromkeys(name for by in self.scores.values() for name in by))

    def of_structure(self, name: str) -> dict[str, Estimate | None]:
        """Figure -> mean over the cases in which it is defined, with its interval."""
        scores = [by[name] for by in self.scores.values() if name in by]
        return {figure: _mean([getattr(s, figure) for s in scores]) for figure in _FIGURES}

    def of_case(self, study: str) -> dict[str, float | None]:
        """Figure -> mean over the structures of a case in which it is defined."""
        found: dict[str, float | None] = {}
        for figure in _FIGURES:
            values = [getattr(s, figure) for s in self.scores[study].values()]
            known = [v for v in values if v is not None]
            found[figure] = float(np.mean(known)) if known else None
        return found

    def over_cases(self) -> dict[str, Estimate | None]:
        """Figure -> mean over the cases' means, with its interval."""
        cases = [self.of_case(study) for study in self.scores]
        return {figure: _mean([case[figure] for case in cases]) for figure in _FIGURES}

    def with_background(self) -> Estimate | None:
        """Mean Dice over the cases' means, the background counted as one more structure: as some
        papers count, and higher, since the background is large and easy."""
        means = []
        for study, by in self.scores.items():
            known = [s.dice for s in by.values() if s.dice is not None]
            known += [self.background[study]] if study in self.background else []
            means.append(float(np.mean(known)) if known else None)
        return _mean(means)

    def counts(self, name: str) -> dict[Held, int]:
        """How often who holds a structure."""
        held = [by[name].held for by in self.scores.values() if name in by]
        kinds: tuple[Held, ...] = ("both", "neither", "truth only", "model only")
        return {kind: held.count(kind) for kind in kinds}

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "schema": 1,
            "model": self.model,
            "mean_over_cases": _estimates(self.over_cases()),
            "mean_over_cases_with_background": _estimates({"dice": self.with_background()}),
            "structures": {
                name: _estimates(self.of_structure(name))
                | {"held_by": {kind: n for kind, n in self.counts(name).items() if n}}
                for name in self.structures
            },
            "cases": {
                study: {
                    "mean": {_JSON_NAMES[f]: v for f, v in self.of_case(study).items()},
                    "background": {"dice": self.background.get(study)},
                    "structures": {name: score.to_dict() for name, score in by.items()},
                }
                for study, by in self.scores.items()
            },
        }

    def lines(self) -> list[str]:
        """For people."""
        head = f"{'Dice (95 % interval)':26}{'surface distance, mm':30}{'95 % Hausdorff, mm':30}"
        lines = [
            f"{len(self.scores)} cases, {len(self.structures)} structures",
            "",
            f"{'':26}{'n':>5}  {head}held by neither, one",
        ]
        for name in self.structures:
            counts = self.counts(name)
            one = counts["truth only"] + counts["model only"]
            lines.append(
                f"{_row(name, self.of_structure(name))}{counts['neither']:>8d}, {one}"
                f"{' (no distance there)' if one else ''}"
            )
        lines.append(_row("mean over cases", self.over_cases()).rstrip())
        with_background = self.with_background()
        if with_background is not None and self.background:
            lines.append(f"{'  with the background':33}{with_background!s:26}".rstrip())
        lines += ["", f"{'case, mean of its structures':33}{'Dice':>8}{'distance':>11}{'95 %':>9}"]
        for study in self.scores:
            own = self.of_case(study)
            lines.append(
                f"{study[:32]:33}{_plain(own['dice'], 3):>8}{_plain(own['average_mm'], 2):>11}"
                f"{_plain(own['hausdorff95_mm'], 2):>9}"
            )
        return lines


def evaluate_segmentation(
    model: SimCroP,
    cases: Iterable[LabelledCase],
    *,
    total: int = 0,
    overlap: float = 0.5,
    device: str = "auto",
    precision: Precision = "auto",
    progress: Progress | None = None,
) -> SegmentationResult:
    """Label every case as :func:`simcrop_core.segment.segment` does, and compare.

    Where the truth lies on other voxels than the scan, the model's labels are looked up at the
    truth's voxels.

    Parameters
    ----------
    model
        With a segmentation head that knows the names of the cases.
    cases
        Scans with their true labels.
    total
        How many there will be, for the progress alone.
    overlap, device, precision, progress
        As in :func:`simcrop_core.segment.segment`.

    Raises
    ------
    SimCroPError
        The model has no head; a truth has no place in common with its scan.
    """
    say = progress or silent
    result = SegmentationResult(model.card())
    for number, case in enumerate(cases):
        say("segmenting scans", number, total)
        found = segment(model, case.volume, overlap=overlap, device=device, precision=precision)
        labels_XYZ = labels_on(case.grid, found.labels_XYZ, found.grid, resample=True)
        label_of = {name: label for label, name in found.names.items()}
        by_structure: dict[str, list[int]] = {}
        for label, name in case.names.items():
            by_structure.setdefault(name, []).append(label)
        result.scores[case.id] = {
            name: compare(
                labels_XYZ == label_of[name],
                np.isin(case.labels_XYZ, labels),
                case.grid.spacing_mm,
            )
            for name, labels in by_structure.items()
        }
        result.background[case.id] = dice(
            ~np.isin(labels_XYZ, [label_of[name] for name in by_structure]),
            ~np.isin(case.labels_XYZ, list(case.names)),
        )
    return result


def compare(
    predicted_XYZ: NDArray[np.bool_],
    truth_XYZ: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
) -> Score:
    """The score of one structure."""
    own, true = bool(predicted_XYZ.any()), bool(truth_XYZ.any())
    if not own or not true:
        if own == true:
            return Score("neither")
        return Score("model only" if own else "truth only", dice=0.0)
    apart = surface_distance(predicted_XYZ, truth_XYZ, spacing_mm)
    assert apart is not None
    return Score("both", dice(predicted_XYZ, truth_XYZ), apart.average_mm, apart.hausdorff95_mm)


def _mean(values: list[float | None]) -> Estimate | None:
    known = [v for v in values if v is not None]
    return mean_over_studies(known, list(range(len(known))))


def _estimates(by_figure: Mapping[str, Estimate | None]) -> dict[str, Any]:
    return {_JSON_NAMES[f]: None if e is None else e.to_dict() for f, e in by_figure.items()}


def _row(name: str, by_figure: Mapping[str, Estimate | None]) -> str:
    dice_, average, hausdorff = (by_figure[figure] for figure in _FIGURES)
    count = 0 if dice_ is None else dice_.count
    cells = [f"{'-' if dice_ is None else str(dice_):26}"]
    cells += [f"{'-' if e is None else _distance(e):30}" for e in (average, hausdorff)]
    return f"{name[:25]:26}{count:5d}  {''.join(cells)}"


def _distance(e: Estimate) -> str:
    return f"{e.value:.2f} ({e.low:.2f} to {e.high:.2f})"


def _plain(value: float | None, decimals: int) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"
