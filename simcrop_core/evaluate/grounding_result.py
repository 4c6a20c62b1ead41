"""What an evaluation of grounding measured, and the tables made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from simcrop_core.evaluate.cases import Said
from simcrop_core.evaluate.intervals import Estimate, mean_over_studies
from simcrop_core.evaluate.pointing import HIT_DICE, SIZE_CLASSES, Pointing, size_class
from simcrop_core.statements import FINDINGS, NO_FINDING, SIDES
from simcrop_core.study import KINDS

SOURCES = ("model", "prior", "chance")


@dataclass(frozen=True, slots=True)
class Pointed:
    """One sentence with a region, and how model, prior and chance point for it.

    Attributes
    ----------
    study
        Number of its study.
    said
        The sentence.
    by
        Source -> how it points; the prior is missing where it knows nothing.
    side
        Source -> 1 if its best patch lies on the side that the sentence names; empty for
        sentences that name none.
    best
        The model's most similar patch; the first of equals.
    away_mm
        From that patch's centre to the centre of the nearest patch that the region touches.
    """

    study: int
    said: Said
    by: Mapping[str, Pointing]
    side: Mapping[str, float]
    best: int = 0
    away_mm: float = 0.0

    def to_dict(self, study: str) -> dict[str, Any]:
        """For JSON: the sentence and how the model and chance point for it."""
        finding, side = self.said.meaning.finding, self.said.meaning.side
        model, chance = self.by["model"], self.by["chance"]
        return {
            "study": study,
            "sentence": self.said.text,
            "kind": self.said.kind,
            "finding": None if finding == NO_FINDING else FINDINGS[finding],
            "category": self.said.category or None,
            "side": SIDES[side],
            "size_mm": self.said.size_mm,
            "hit": model.hit,
            "precision": model.precision,
            "dice": model.dice,
            "right_side": self.side.get("model"),
            "best_patch": self.best,
            "away_mm": self.away_mm,
            "chance": {"hit": chance.hit, "precision": chance.precision, "dice": chance.dice},
        }


@dataclass(eq=False)
class GroundingResult:
    """All that was measured, and the tables made of it.

    Attributes
    ----------
    model
        The model's card.
    studies
        Ids, in order.
    pointed
        Every sentence with a region in the scan.
    presence
        ``"all"``, ``"seen"``, ``"unseen"`` -> finding -> area under the curve. A model without a
        presence of its own is scored by the same soft maximum of its similarities, at the
        sharpness that learning would start from.
    beyond
        How many sentences have a region that the model's input does not reach; left out.
    """

    model: dict[str, Any]
    studies: list[str] = field(default_factory=list)
    pointed: list[Pointed] = field(default_factory=list)
    presence: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    beyond: int = 0

    def rows(self) -> dict[str, list[Pointed]]:
        """The groups of sentences that are reported, by name; empty ones are left out."""
        groups: dict[str, list[Pointed]] = {}
        for p in self.pointed:
            for name in dict.fromkeys(_names(p.said)):
                groups.setdefault(name, []).append(p)
        order = {name: number for number, name in enumerate(_ROW_ORDER)}
        return {name: groups[name] for name in sorted(groups, key=lambda n: (order.get(n, 999), n))}

    def figures(self, rows: Sequence[Pointed]) -> dict[str, dict[str, Estimate | None]]:
        """Figure -> source -> estimate over these sentences."""
        figures: dict[str, Callable[[Pointing], float]] = {
            "pointing": lambda p: p.hit,
            "precision": lambda p: p.precision,
            "dice": lambda p: p.dice,
            "hit_rate": lambda p: p.found,
        }
        found: dict[str, dict[str, Estimate | None]] = {}
        for name, take in figures.items():
            found[name] = {
                source: mean_over_studies(
                    [take(p.by[source]) for p in rows if source in p.by],
                    [p.study for p in rows if source in p.by],
                )
                for source in SOURCES
            }
        found["side"] = {
            source: mean_over_studies(
                [p.side[source] for p in rows if source in p.side],
                [p.study for p in rows if source in p.side],
            )
            for source in SOURCES
        }
        return found

    def to_dict(self, *, sentences: bool = False) -> dict[str, Any]:
        """For JSON; with ``sentences`` also how each of them points."""
        facts: dict[str, Any] = {
            "schema": 1,
            "model": self.model,
            "studies": self.studies,
            "beyond_input": self.beyond,
            "pointing": {
                name: {
                    figure: {s: e.to_dict() for s, e in by.items() if e is not None}
                    for figure, by in self.figures(rows).items()
                    if any(e is not None for e in by.values())
                }
                for name, rows in self.rows().items()
            },
            "presence_auc": {
                words: {name: e.to_dict() for name, e in by.items()}
                for words, by in self.presence.items()
            },
        }
        if sentences:
            facts["sentences"] = [p.to_dict(self.studies[p.study]) for p in self.pointed]
        return facts

    def lines(self) -> list[str]:
        """For people: each figure of the model with prior and chance beside it."""
        lines = [f"{len(self.studies)} studies, {len(self.pointed)} sentences with a region"]
        if self.beyond:
            lines.append(f"{self.beyond} more have one that the model's input does not reach")
        found = {name: (len(rows), self.figures(rows)) for name, rows in self.rows().items()}
        for title, figures in _TABLES:
            lines += _table(title, figures, found)
        for words, by in self.presence.items():
            lines += ["", f"presence, area under the curve (chance 0.5), {words} wordings"]
            lines += [f"{name:34}{e.count:6d}  {e!s}" for name, e in by.items()]
        return lines


def _names(said: Said) -> list[str]:
    """The rows to which a sentence belongs."""
    names: list[str] = [said.kind]
    if said.unseen is not None:
        names.append(f"{said.kind}, {'unseen' if said.unseen else 'seen'} wording")
    if said.kind == "finding":
        if said.meaning.finding != NO_FINDING and not said.category:
            names.append(FINDINGS[said.meaning.finding])
        if said.size_mm is not None:
            size = size_class(said.size_mm)
            names.append(f"finding {size}")
            if said.meaning.finding == FINDINGS.index("Lung nodule"):
                names.append(f"Lung nodule {size}")
    return [*names, said.category] if said.category else names


_ROW_ORDER = (
    *(f"{kind}{words}" for kind in KINDS for words in ("", ", seen wording", ", unseen wording")),
    *(f"finding {size}" for size in SIZE_CLASSES),
    *FINDINGS,
    *(f"Lung nodule {size}" for size in SIZE_CLASSES),
)

#: Title, and the figures of a table: name and heading; the first has its interval.
_TABLES = (
    (
        "the most similar patch overlaps the region (95 % interval); so do the n most similar, n "
        "being the region's size in patches; it lies on the side named",
        (("pointing", "pointing"), ("precision", "precision"), ("side", "side")),
    ),
    (
        "Dice of the region with as many patches as it has volume (95 % interval); share with at "
        f"least {HIT_DICE:g}",
        (("dice", "dice"), ("hit_rate", "hit rate")),
    ),
)
_Figures = dict[str, dict[str, Estimate | None]]


def _table(
    title: str, figures: Sequence[tuple[str, str]], found: Mapping[str, tuple[int, _Figures]]
) -> list[str]:
    if not found:
        return []
    beside = f"{'prior':>7}{'chance':>8}"
    heads = [f"{figures[0][1]:24}{beside}", *(f"{h:>9}{beside}" for _, h in figures[1:])]
    lines = ["", title, f"{'':34}{'n':>6}  {'  '.join(heads)}"]
    for name, (count, by) in found.items():
        cells = []
        for number, (figure, _) in enumerate(figures):
            model, prior, chance = (by[figure][source] for source in SOURCES)
            own = f"{model!s:24}" if number == 0 else f"{_short(model):>9}"
            cells.append(f"{own}{_short(prior):>7}{_short(chance):>8}")
        lines.append(f"{name:34}{count:6d}  {'  '.join(cells)}")
    return lines


def _short(estimate: Estimate | None) -> str:
    return "-" if estimate is None else f"{estimate.value:.3f}"
