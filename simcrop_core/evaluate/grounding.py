"""Does the model point at what a sentence speaks of, and does it know what is true?

Every figure of pointing stands beside chance (a patch at random) and the prior (the mean training
region of the statement's meaning, which never looks at the image). A claim of grounding must beat
the prior on findings, not on organs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from simcrop_core.device import Precision, Progress, autocast, evaluating, select_device, silent
from simcrop_core.evaluate.cases import Case, Said
from simcrop_core.evaluate.intervals import Estimate, mean_over_studies
from simcrop_core.evaluate.pointing import (
    HIT_DICE,
    SIZE_CLASSES,
    Pointing,
    point,
    point_at_random,
    size_class,
)
from simcrop_core.evaluate.presence import Statement, chosen, presence_by_finding, truth_table
from simcrop_core.evaluate.prior import Prior
from simcrop_core.model.config import PresenceConfig
from simcrop_core.model.presence import Presence
from simcrop_core.model.simcrop import SimCroP
from simcrop_core.statements import FINDINGS, NO_FINDING, SIDES, Facts
from simcrop_core.study import KINDS

SOURCES = ("model", "prior", "chance")
_LEFT, _RIGHT = SIDES.index("left"), SIDES.index("right")


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
    """

    study: int
    said: Said
    by: Mapping[str, Pointing]
    side: Mapping[str, float]


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
    """

    model: dict[str, Any]
    studies: list[str] = field(default_factory=list)
    pointed: list[Pointed] = field(default_factory=list)
    presence: dict[str, dict[str, Estimate]] = field(default_factory=dict)

    def rows(self) -> dict[str, list[Pointed]]:
        """The groups of sentences that are reported, by name; empty ones are left out."""
        groups: dict[str, list[Pointed]] = {}
        for p in self.pointed:
            groups.setdefault(p.said.kind, []).append(p)
            if p.said.unseen is not None:
                words = "unseen" if p.said.unseen else "seen"
                groups.setdefault(f"{p.said.kind}, {words} wording", []).append(p)
            if p.said.kind == "finding":
                if p.said.meaning.finding != NO_FINDING:
                    groups.setdefault(FINDINGS[p.said.meaning.finding], []).append(p)
                if p.said.size_mm is not None:
                    size = size_class(p.said.size_mm)
                    groups.setdefault(f"finding {size}", []).append(p)
                    if p.said.meaning.finding == FINDINGS.index("Lung nodule"):
                        groups.setdefault(f"Lung nodule {size}", []).append(p)
        order = {name: number for number, name in enumerate(_ROW_ORDER)}
        return {name: groups[name] for name in sorted(groups, key=lambda n: order.get(n, 0))}

    def figures(self, rows: Sequence[Pointed]) -> dict[str, dict[str, Estimate | None]]:
        """Figure -> source -> estimate over these sentences."""
        figures: dict[str, Callable[[Pointing], float]] = {
            "pointing": lambda p: p.hit,
            "precision": lambda p: p.precision,
            "dice": lambda p: p.dice,
            "hit_rate": lambda p: float(p.dice >= HIT_DICE),
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

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "schema": 1,
            "model": self.model,
            "studies": self.studies,
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

    def lines(self) -> list[str]:
        """For people."""
        lines = [
            f"{len(self.studies)} studies, {len(self.pointed)} sentences with a region",
            "",
            "top-1 patch overlaps the region (95 % interval)",
            f"{'':34}{'n':>6}  {'model':24}{'prior':>7}{'chance':>8}   "
            f"{'precision':>9}{'prior':>7}   {'side':>5}",
        ]
        for name, rows in self.rows().items():
            found = self.figures(rows)

            def short(figure: str, source: str, found: Any = found) -> str:
                estimate = found[figure][source]
                return "-" if estimate is None else f"{estimate.value:.3f}"

            hit = found["pointing"]["model"]
            lines.append(
                f"{name:34}{len(rows):6d}  {hit!s:24}{short('pointing', 'prior'):>7}"
                f"{short('pointing', 'chance'):>8}   {short('precision', 'model'):>9}"
                f"{short('precision', 'prior'):>7}   {short('side', 'model'):>5}"
            )
        for words, by in self.presence.items():
            lines += ["", f"presence, area under the curve, {words} wordings"]
            lines += [f"{name:34}{e.count:6d}  {e!s}" for name, e in by.items()]
        return lines


_ROW_ORDER = (
    *(f"{kind}{words}" for kind in KINDS for words in ("", ", seen wording", ", unseen wording")),
    *(f"finding {size}" for size in SIZE_CLASSES),
    *FINDINGS,
    *(f"Lung nodule {size}" for size in SIZE_CLASSES),
)


def evaluate_grounding(
    model: SimCroP,
    cases: Iterable[Case],
    prior: Prior | None = None,
    *,
    total: int = 0,
    per_finding: int = 6,
    device: str = "auto",
    precision: Precision = "auto",
    progress: Progress | None = None,
) -> GroundingResult:
    """Measure pointing and presence over cases.

    Parameters
    ----------
    model
        Moved to the device and left in the mode that it was in.
    cases
        Studies made ready for this model's input.
    prior
        Of training cases; None leaves its column out.
    total
        How many cases there will be, for the progress alone.
    per_finding
        Statements of each finding, seen and unseen, that are asked of every study for presence.
    device, precision, progress
        As in :func:`simcrop_core.align.encode`.
    """
    say = progress or silent
    where = select_device(device)
    head = _presence_of(model).to(where)
    result = GroundingResult(model.card())
    facts: list[Facts] = []
    said: list[Statement] = []
    evidence: list[torch.Tensor] = []
    inside: list[NDArray[np.bool_]] = []
    with evaluating(model.to(where)), torch.inference_mode():
        for number, case in enumerate(cases):
            say("pointing", number, total)
            x = torch.from_numpy(case.input_1HWD)[None].float().to(where)
            with autocast(where, precision):
                found = model.vision(x).evidence_BNE[0].float()
            result.studies.append(case.id)
            result.pointed += _pointed(model, case, number, found, prior)
            facts.append(case.facts)
            said += [Statement(s.text, s.meaning, s.unseen) for s in case.said]
            # Half precision: what is kept of all studies is then a tenth of a gigabyte a
            # hundred, and similarities move in the fourth digit.
            evidence.append(found.half().cpu())
            inside.append(case.inside_N)
        if evidence:
            statements = chosen(said, per_finding)
            say("presence", 0, 1)
            scores = _presence_scores(model, head, statements, evidence, inside)
            of_finding = head.config.of == "finding"
            truth = truth_table(statements, facts, of_finding=of_finding)
            words = {"all": None, "seen": False, "unseen": True}
            if all(s.unseen is None for s in statements):
                del words["seen"], words["unseen"]
            result.presence = {
                name: by
                for name, unseen in words.items()
                if (by := presence_by_finding(statements, scores, truth, unseen=unseen))
            }
    return result


def _pointed(
    model: SimCroP, case: Case, number: int, evidence_NE: torch.Tensor, prior: Prior | None
) -> list[Pointed]:
    said = [s for s in case.said if s.coverage_N is not None]
    if not said:
        return []
    sentences = model.encode_text([s.text for s in said]).sentences_SD
    similarity_SN = model.similarity(evidence_NE, sentences).float().cpu().numpy()
    right_N = case.patches.centers()[:, 0] > case.midline_mm
    pointed = []
    for s, similarity_N in zip(said, similarity_SN, strict=True):
        assert s.coverage_N is not None
        maps: dict[str, NDArray[np.floating]] = {"model": similarity_N}
        usual = None if prior is None else prior.region(s)
        if usual is not None:
            maps["prior"] = usual
        by = {name: point(m, s.coverage_N, case.inside_N) for name, m in maps.items()}
        by["chance"] = point_at_random(s.coverage_N, case.inside_N)
        side: dict[str, float] = {}
        if s.meaning.side in (_LEFT, _RIGHT):
            named = right_N == (s.meaning.side == _RIGHT)
            maps["chance"] = np.zeros(len(named))
            for name, m in maps.items():
                best = case.inside_N & (m == m[case.inside_N].max())
                side[name] = float(named[best].mean())
        pointed.append(Pointed(number, s, by, side))
    return pointed


def _presence_of(model: SimCroP) -> Presence:
    """The model's own, or a fresh one."""
    if model.presence_head is not None:
        return model.presence_head
    fresh = Presence(PresenceConfig())
    fresh.initialise()
    return fresh


def _presence_scores(
    model: SimCroP,
    head: Presence,
    statements: Sequence[Statement],
    evidence: Sequence[torch.Tensor],
    inside: Sequence[NDArray[np.bool_]],
) -> NDArray[np.float64]:
    """Log odds of presence, ``(S, V)``."""
    sentences = model.encode_text([s.text for s in statements]).sentences_SD
    columns = []
    for evidence_NE, inside_N in zip(evidence, inside, strict=True):
        similarity = model.similarity(evidence_NE.to(sentences.device).float(), sentences)
        mask = torch.from_numpy(inside_N).to(sentences.device)
        columns.append(head.logits(head.pool(similarity, mask)).double().cpu().numpy())
    return np.stack(columns, axis=1)
