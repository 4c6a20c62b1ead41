"""Does the model point at what a sentence speaks of, and does it know what is true?

Every figure of pointing stands beside chance (a patch at random) and the prior (the mean training
region of the statement's meaning, which never looks at the image). A claim of grounding must beat
the prior on findings, not on organs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from simcrop_core.device import Precision, Progress, autocast, evaluating, select_device, silent
from simcrop_core.evaluate.cases import Case
from simcrop_core.evaluate.grounding_result import GroundingResult, Pointed
from simcrop_core.evaluate.pointing import point, point_at_random
from simcrop_core.evaluate.presence import Statement, chosen, presence_by_finding, truth_table
from simcrop_core.evaluate.prior import Prior
from simcrop_core.model.config import PresenceConfig
from simcrop_core.model.presence import Presence
from simcrop_core.model.simcrop import SimCroP
from simcrop_core.statements import SIDES, UNKNOWN, Facts

__all__ = ["GroundingResult", "Pointed", "evaluate_grounding"]


_LEFT, _RIGHT = SIDES.index("left"), SIDES.index("right")


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
            result.beyond += sum(s.region is not None and s.coverage_N is None for s in case.said)
            facts.append(case.facts)
            said += [Statement(s.text, s.meaning, s.unseen) for s in case.said]
            # Half precision: what is kept of all studies is then a tenth of a gigabyte a
            # hundred, and similarities move in the fourth digit.
            evidence.append(found.half().cpu())
            inside.append(case.inside_N)
        if evidence:
            statements = chosen(said, per_finding)
            of_finding = head.config.of == "finding"
            truth = truth_table(statements, facts, of_finding=of_finding)
            if not (truth != UNKNOWN).any():
                return result
            say("presence", 0, 1)
            scores = _presence_scores(model, head, statements, evidence, inside)
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
    centers_N3 = case.patches.centers()
    right_N = centers_N3[:, 0] > case.midline_mm
    pointed = []
    for s, similarity_N in zip(said, similarity_SN, strict=True):
        assert s.coverage_N is not None
        maps: dict[str, NDArray[np.floating]] = {"model": similarity_N}
        usual = None if prior is None else prior.region(s)
        if usual is not None:
            maps["prior"] = usual
        by = {n: point(m, s.coverage_N, case.inside_N, s.beyond) for n, m in maps.items()}
        by["chance"] = point_at_random(s.coverage_N, case.inside_N, s.beyond)
        side: dict[str, float] = {}
        if s.meaning.side in (_LEFT, _RIGHT):
            named = right_N == (s.meaning.side == _RIGHT)
            maps["chance"] = np.zeros(len(named))
            for name, m in maps.items():
                best = case.inside_N & (m == m[case.inside_N].max())
                side[name] = float(named[best].mean())
        best = int(np.where(case.inside_N, similarity_N, -np.inf).argmax())
        region_R3 = centers_N3[case.inside_N & (s.coverage_N > 0)]
        away_mm = float(np.linalg.norm(region_R3 - centers_N3[best], axis=1).min())
        pointed.append(Pointed(number, s, by, side, best, away_mm))
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
