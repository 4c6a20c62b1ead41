"""The objective grounded: its losses in double precision, its switches, ranks, and a toy run."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from made_studies import SPEC, batch_of, made, tiny
from pydantic import TypeAdapter, ValidationError
from scipy.special import logsumexp

from simcrop_core.errors import SimCroPError
from simcrop_core.model import PresenceConfig, SimCroP, VisionConfig
from simcrop_core.objectives import (
    GroundedConfig,
    LossTerms,
    ObjectiveConfig,
    Ranks,
    make_objective,
)
from simcrop_core.objectives.grounded_losses import (
    facts_of,
    presence_sums,
    region_sums,
    region_targets,
    sentence_contrast_sums,
    truth_of,
    volume_contrast_sums,
)
from simcrop_core.objectives.grounded_statements import (
    hidden_sentences,
    score_statements,
    turns_on_hidden,
)
from simcrop_core.objectives.masking import mask_patches
from simcrop_core.statements import FINDINGS, LEVELS, SIDES, UNKNOWN, Facts, Meaning
from simcrop_core.study_batch import StudyBatch

ALONE = Ranks()
STUDIES = [made(seed, spare=seed % 3) for seed in range(4)]


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def losses(batch: StudyBatch, model: SimCroP | None = None, **settings: Any) -> LossTerms:
    model = tiny() if model is None else model
    return make_objective(GroundedConfig(**settings), model)(model, batch, ALONE)


@pytest.fixture
def batch() -> StudyBatch:
    return batch_of(STUDIES)


# -- truth --------------------------------------------------------------------------------------


@hypothesis_settings(deadline=None)
@given(
    labels=st.dictionaries(st.sampled_from(FINDINGS), st.integers(0, 1)),
    there=st.lists(
        st.tuples(st.sampled_from(FINDINGS), st.sampled_from(SIDES), st.sampled_from(LEVELS)),
        max_size=6,
    ),
    meanings=st.lists(
        st.builds(
            Meaning, st.integers(-1, 17), st.integers(0, 3), st.integers(0, 3), st.integers(0, 1)
        ),
        min_size=1,
        max_size=8,
    ),
)
def test_truth_is_that_of_facts(labels: Any, there: Any, meanings: list[Meaning]) -> None:
    studies = [Facts.from_labels(labels), Facts.from_occurrences(there), Facts.unknown()]
    facts = torch.from_numpy(np.stack([study.table_FSL for study in studies]))
    truth = truth_of(torch.tensor(meanings), facts)
    named = facts_of(torch.tensor(meanings), facts)
    for (b, study), (t, meaning) in itertools.product(enumerate(studies), enumerate(meanings)):
        assert truth[b, t] == study.truth(meaning)
        assert named[b, t] == study.truth(meaning._replace(present=1))


# -- the losses in double precision -------------------------------------------------------------


def test_region_supervision_is_the_divergence_from_coverage() -> None:
    similarity, region = numbers(4, 10) / 3, torch.rand(4, 10, generator=torch.manual_seed(1))
    region[0, 3:] = 0
    region[2] = 0  # no region in sight
    wanted = torch.tensor([True, True, True, False])
    total, count = region_sums(similarity, region, wanted, torch.tensor(0.2), 0.25)
    expected = 0.0
    for s in (0, 1):
        cover = region[s].double().numpy()
        q = np.where(cover >= 0.25 * cover.max(), cover, 0)
        q /= q.sum()
        logits = similarity[s].double().numpy() / 0.2
        log_p = logits - logsumexp(logits)
        expected += sum(a * (np.log(a) - b) for a, b in zip(q, log_p, strict=True) if a > 0)
    assert int(count) == 2
    assert float(total) == pytest.approx(expected, rel=1e-5)


def test_region_supervision_is_nothing_where_the_model_says_just_that() -> None:
    region = torch.tensor([[0.0, 0.5, 1.0, 0.2]])
    target, there = region_targets(region, 0.25)
    assert bool(there)
    np.testing.assert_allclose(target.numpy(), [[0, 1 / 3, 2 / 3, 0]], rtol=1e-6)
    similarity = target.clamp(min=1e-30).log() * 0.07
    total, _ = region_sums(similarity, region, torch.tensor([True]), torch.tensor(0.07), 0.25)
    assert float(total) == pytest.approx(0, abs=1e-5)


def test_contrast_in_both_directions_in_double_precision() -> None:
    G, T = 5, 8
    logits, truth = numbers(G, T) * 3, torch.randint(-1, 2, (G, T), generator=torch.manual_seed(2))
    truth[:, 0] = 1  # true everywhere: nothing to tell apart
    own = torch.tensor([0, 1, 2, 3, 4, 0, 1, 2])
    truth[own, torch.arange(T)] = 1
    anchor = torch.tensor([True, True, True, True, False, True, True, True])
    total, count = sentence_contrast_sums(logits, own, truth, anchor)
    x, counted, expected = logits.double().numpy(), 0, 0.0
    for t in range(T):
        false = [g for g in range(G) if truth[g, t] == 0]
        if anchor[t] and false:
            counted += 1
            mine = x[int(own[t]), t]
            expected += logsumexp([mine, *x[false, t]]) - mine
    assert (float(total), int(count)) == (pytest.approx(expected, rel=1e-5), counted)
    assert 0 < counted < T

    own_BS = torch.stack([torch.arange(T)[:2]] * G)
    anchor_BS = truth.gather(1, own_BS) == 1
    truth[3] = 1  # nothing is false of this volume
    total, count = volume_contrast_sums(logits, truth == 0, own_BS, anchor_BS)
    counted, expected = 0, 0.0
    for g in range(G):
        false = [t for t in range(T) if truth[g, t] == 0]
        for s in range(2):
            if anchor_BS[g, s] and false:
                counted += 1
                mine = x[g, int(own_BS[g, s])]
                expected += logsumexp([mine, *x[g, false]]) - mine
    assert (float(total), int(count)) == (pytest.approx(expected, rel=1e-5), counted)


def test_presence_is_cross_entropy_over_known_pairs() -> None:
    logits, truth = numbers(3, 4) * 2, torch.tensor([[1, 0, -1, 1], [0, 0, 1, 1], [-1, 1, 0, 0]])
    wanted = torch.ones(3, 4, dtype=torch.bool)
    wanted[0, 0] = False
    total, count = presence_sums(logits, truth, wanted)
    p = 1 / (1 + np.exp(-logits.double().numpy()))
    pairs = [(b, t) for b in range(3) for t in range(4) if truth[b, t] >= 0 and wanted[b, t]]
    expected = -sum(np.log(p[i] if truth[i] == 1 else 1 - p[i]) for i in pairs)
    assert (float(total), int(count)) == (pytest.approx(expected, rel=1e-5), len(pairs))


def test_where_nothing_can_be_told_apart_losses_and_gradients_are_zero() -> None:
    logits = numbers(2, 3).requires_grad_()
    truth = torch.full((2, 3), UNKNOWN)
    nobody, own = torch.zeros(3, dtype=torch.bool), torch.zeros(3, dtype=torch.long)
    total = sum(
        (
            sentence_contrast_sums(logits, own, truth, nobody)[0],
            volume_contrast_sums(logits, truth == 0, own.expand(2, 3), nobody.expand(2, 3))[0],
            presence_sums(logits, truth, truth == 0)[0],
            region_sums(logits, torch.zeros(2, 3), nobody[:2], torch.tensor(1.0), 0.25)[0],
        ),
        start=torch.zeros(()),
    )
    total.backward()
    assert float(total.detach()) == 0
    assert logits.grad is not None
    assert not logits.grad.any()


# -- the whole objective ------------------------------------------------------------------------


def test_the_total_is_the_weighted_sum_and_every_term_is_finite(batch: StudyBatch) -> None:
    weights = {
        "image": 2.0,
        "region": 0.5,
        "cell": 3.0,
        "contrast": 4.0,
        "presence": 5.0,
        "align": 6.0,
    }
    got = losses(batch, top_k=5, **{f"{name}_weight": w for name, w in weights.items()})
    expected = sum(w * float(got.terms[name].detach()) for name, w in weights.items())
    assert float(got.total.detach()) == pytest.approx(expected, rel=1e-5)
    assert all(bool(term.isfinite()) for term in got.terms.values())


def test_the_whole_objective_in_double_precision(batch: StudyBatch) -> None:
    """Contrast and presence of a batch, statement by statement and study by study."""
    model = tiny()
    got = losses(batch, model, mask_ratio=0, image_weight=0).terms
    with torch.no_grad():
        evidence = model.vision(batch.volume_B1HWD).evidence_BNE
    statements = [
        (b, kind, meaning, torch.from_numpy(words).float())
        for b, study in enumerate(STUDIES)
        for kind, meaning, words in [
            *(("sentence", m, w) for m, w, _, _ in study.sentences),
            *(("flip", m, w) for m, w in study.counterfactuals),
        ]
    ]
    truth = np.array([[study.facts.truth(m) for _, _, m, _ in statements] for study in STUDIES])
    score = np.empty(truth.shape)
    for b in range(len(STUDIES)):
        with torch.no_grad():
            sim = model.similarity(evidence[b], torch.stack([w for *_, w in statements]))
        score[b] = (logsumexp(20 * sim.double().numpy(), axis=1) - np.log(SPEC.patches)) / 20
    logits = score / 0.07
    known = truth >= 0
    p = 1 / (1 + np.exp(-logits[known]))
    presence = -np.where(truth[known] == 1, np.log(p), np.log(1 - p)).mean()
    assert float(got["presence"].detach()) == pytest.approx(presence, rel=1e-4)
    by_sentence, by_volume = [], []
    for t, (b, kind, _, _) in enumerate(statements):
        if kind == "flip" or truth[b, t] != 1:
            continue
        volumes, others = truth[:, t] == 0, truth[b] == 0
        if volumes.any():
            by_sentence.append(logsumexp([logits[b, t], *logits[volumes, t]]) - logits[b, t])
        if others.any():
            by_volume.append(logsumexp([logits[b, t], *logits[b, others]]) - logits[b, t])
    contrast = (np.mean(by_sentence) + np.mean(by_volume)) / 2
    assert float(got["contrast"].detach()) == pytest.approx(contrast, rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "terms"),
    [
        ({"counterfactuals": False}, {"contrast", "presence"}),
        ({"regions_of": ("finding",)}, {"region", "cell"}),
        ({"regions_of": ("organ", "negative", "unknown")}, {"region", "cell"}),
        ({"region_floor": 0.9}, {"region", "cell"}),
        ({"temperature": 0.3}, {"region", "cell", "contrast", "align"}),
        ({"top_k": 2}, {"align"}),
        ({"mask_ratio": 0.25}, {"image", "region", "cell", "contrast", "presence", "align"}),
        ({"masked_only": False}, {"image"}),
        ({"normalize_patches": True}, {"image"}),
    ],
)
def test_every_switch_changes_its_losses_and_no_other(
    batch: StudyBatch, settings: dict[str, Any], terms: set[str]
) -> None:
    every: dict[str, Any] = {"cell_weight": 1.0, "align_weight": 1.0, "top_k": 8}
    model = tiny().eval()
    base = losses(batch, model, **every).terms
    other = losses(batch, model, **(every | settings)).terms
    names = {"image", "region", "cell", "contrast", "presence", "align"}
    changed = {n for n in names if abs(float((base[n] - other[n]).detach())) > 1e-5}
    assert changed == terms


@pytest.mark.parametrize("part", ["image", "region", "cell", "contrast", "presence", "align"])
def test_a_weight_of_zero_leaves_its_part_out_and_what_is_trained_says_so(
    batch: StudyBatch, part: str
) -> None:
    weights = {
        f"{n}_weight": 0.5 for n in ("image", "region", "cell", "contrast", "presence", "align")
    }
    for chosen in (
        weights | {f"{part}_weight": 0.0},
        {**dict.fromkeys(weights, 0.0), f"{part}_weight": 1.0},
    ):
        if not any(v for k, v in chosen.items() if k != "image_weight"):
            continue
        model = tiny().train()
        objective = make_objective(GroundedConfig(**chosen), model)
        got = objective(model, batch, ALONE)
        assert (part in got.terms) == (chosen[f"{part}_weight"] > 0)
        got.total.backward()
        trained = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
        assert trained == {n for n, _ in model.named_parameters() if objective.trains(n)}
        assert all(p.grad is not None and p.grad.any() for p in objective.parameters())


def test_of_the_finding_negative_statements_are_true_where_the_score_is_low(
    batch: StudyBatch,
) -> None:
    statement = tiny().eval()
    finding = tiny(presence=PresenceConfig(of="finding")).eval()
    finding.load_state_dict(statement.state_dict())
    settings: dict[str, Any] = {"mask_ratio": 0, "image_weight": 0}
    one, two = (losses(batch, m, **settings).terms for m in (statement, finding))
    assert torch.equal(one["region"], two["region"])
    assert float(one["contrast"].detach()) != pytest.approx(float(two["contrast"].detach()))
    # Positive statements alone mean the same either way.
    positive = replace(
        batch,
        sentence_mask_BS=batch.sentence_mask_BS & (batch.meaning_BS4[..., 3] == 1),
        counterfactual_mask_BC=batch.counterfactual_mask_BC
        & (batch.counterfactual_meaning_BC4[..., 3] == 1),
    )
    one, two = (losses(positive, m, **settings).terms for m in (statement, finding))
    for name in ("contrast", "presence"):
        torch.testing.assert_close(one[name], two[name])


def test_randomness_is_the_studies_own(batch: StudyBatch) -> None:
    model = tiny().eval()
    one, again = losses(batch, model).terms, losses(batch, model).terms
    other = losses(replace(batch, seeds_B=batch.seeds_B + 1), model).terms
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert float(one["image"].detach()) != float(other["image"].detach())


def test_a_hidden_finding_says_nothing_of_its_own_volume() -> None:
    """One sentence of one study, whose finding lies in a single patch, masked or not."""
    batch = batch_of([made(1), made(2)])
    mask = mask_patches(batch.seeds_B, SPEC.patches, 0.5)
    b, s = (int(n) for n in (batch.kind_BS == 1).nonzero()[0])
    alone = torch.zeros_like(batch.sentence_mask_BS)
    alone[b, s] = True
    model = tiny(text_centred=False).eval()
    with torch.no_grad():
        evidence = model.vision(batch.volume_B1HWD, mask.keep_BK).evidence_BNE
        scores = score_statements(model, evidence, batch.sentences_BSD[b, s][None])[:, 0] / 0.07
    assert STUDIES[1].facts.truth(made(1).sentences[s][0]) == 1
    assert made(2).facts.truth(made(1).sentences[s][0]) == 0
    own, other = np.log1p(np.exp(-float(scores[0]))), np.log1p(np.exp(float(scores[1])))
    for patch, expected in (
        (mask.mask_BN[b].nonzero()[0], other),
        (mask.keep_BK[b, :1], (own + other) / 2),
    ):
        region = torch.zeros_like(batch.region_BSN)
        region[b, s, patch] = 1
        one = replace(
            batch,
            region_BSN=region,
            sentence_mask_BS=alone,
            counterfactual_mask_BC=torch.zeros_like(batch.counterfactual_mask_BC),
        )
        got = losses(one, model, contrast_weight=0.0, region_weight=0.0).terms["presence"]
        assert float(got.detach()) == pytest.approx(expected, rel=1e-4)


def test_a_finding_outside_the_crop_is_hidden_too() -> None:
    """Of two sentences on one finding, one lies outside the input; then both do."""
    meaning = torch.tensor(Meaning.of("Lung nodule", "left"))
    elsewhere, absent = meaning.clone(), meaning.clone()
    elsewhere[1], absent[1:] = 1, torch.tensor([0, 0, 0])
    batch = batch_of([made(1), made(2)])
    S = batch.sentence_mask_BS.shape[1]
    there = torch.zeros(2, S, dtype=torch.bool)
    there[0, :2] = True
    region = torch.zeros_like(batch.region_BSN)
    region[0, 0, 3] = 1
    facts = Facts.from_occurrences([("Lung nodule", "left", "any")]).table_FSL
    one = replace(
        batch,
        sentence_mask_BS=there,
        outlined_BS=there,
        kind_BS=torch.ones_like(batch.kind_BS),
        meaning_BS4=meaning.expand(2, S, 4),
        region_BSN=region,
        facts_BFSL=torch.tensor(facts).expand(2, -1, -1, -1),
    )
    statements = torch.stack([meaning, absent, elsewhere, torch.tensor(Meaning())])
    truth = torch.tensor([1, 0, 0, 1]).expand(2, 4)
    hidden = hidden_sentences(one, one.region_BSN)
    assert hidden.nonzero().tolist() == [[0, 1]]
    assert not turns_on_hidden(one, hidden, statements, truth).any()  # the other one is seen
    out = replace(one, region_BSN=torch.zeros_like(region))
    hidden = hidden_sentences(out, out.region_BSN)
    assert hidden.nonzero().tolist() == [[0, 0], [0, 1]]
    # That it is on the other side is false all the same, and nothing is said of volume 1.
    turns = turns_on_hidden(out, hidden, statements, truth)
    assert turns.tolist() == [[True, True, False, False], [False] * 4]
    unoutlined = replace(out, outlined_BS=torch.zeros_like(there))
    assert not hidden_sentences(unoutlined, out.region_BSN).any()


def test_losses_are_float32_under_autocast(batch: StudyBatch) -> None:
    model = tiny().eval()
    plain = losses(batch, model, cell_weight=1.0, align_weight=1.0, top_k=8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = losses(batch, model, cell_weight=1.0, align_weight=1.0, top_k=8)
    for name, term in cast.terms.items():
        assert term.dtype == torch.float32
        assert float(term.detach()) == pytest.approx(float(plain.terms[name].detach()), abs=0.1), (
            name
        )


# -- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"mask_ratio": 0}, "nothing to reconstruct"),
        (
            {f"{n}_weight": 0 for n in ("region", "contrast", "presence")},
            "no sentence is ever read",
        ),
        ({"regions_of": ()}, "at least one kind"),
        ({"colour": 1}, "Extra inputs"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        GroundedConfig(**settings)


@pytest.mark.parametrize(
    ("changes", "settings"),
    [
        ({"presence": None}, {}),
        ({"image_decoder": None}, {}),
        ({"vision": VisionConfig(depth=1, width=24, heads=2)}, {"cell_weight": 1.0}),
    ],
)
def test_a_model_that_lacks_a_part_is_refused(changes: Any, settings: Any) -> None:
    with pytest.raises(SimCroPError) as refusal:
        make_objective(GroundedConfig(**settings), tiny(**changes))
    assert refusal.value.code == "model-lacks-part"


def test_regions_on_cells_that_were_not_loaded_are_asked_for(batch: StudyBatch) -> None:
    with pytest.raises(SimCroPError) as refusal:
        losses(replace(batch, region_cells_BSNC=None), cell_weight=1.0)
    assert refusal.value.code == "no-region-cells"


def test_the_objective_is_chosen_by_its_kind() -> None:
    config = TypeAdapter(ObjectiveConfig).validate_python({"kind": "grounded", "mask_ratio": 0.25})
    assert config == GroundedConfig(mask_ratio=0.25)
    assert all(field.description for field in GroundedConfig.model_fields.values())


# -- several processes --------------------------------------------------------------------------


def _gradients(model: SimCroP, batch: StudyBatch, ranks: Ranks) -> dict[str, torch.Tensor]:
    settings = GroundedConfig(cell_weight=1.0, align_weight=1.0, top_k=8)
    objective = make_objective(settings, model)
    losses = objective(model.train(), batch, ranks)
    losses.total.backward()
    named = [*model.named_parameters(), *objective.named_parameters()]
    found = {n: p.grad for n, p in named if p.grad is not None}
    return found | {"total": losses.total.detach(), "mean": model.text_mean.clone()}


def _process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    # The second process has fewer sentences and is padded differently.
    own = STUDIES[2 * rank : 2 * rank + 2]
    found = _gradients(tiny(), batch_of(own, [2 * rank, 2 * rank + 1]), Ranks.current())
    for tensor in found.values():
        torch.distributed.all_reduce(tensor)
        tensor /= 2
    if rank == 0:
        torch.save(found, f"{folder}/gradients.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_are_one_with_the_doubled_batch(tmp_path: Path) -> None:
    lengths = [batch_of(STUDIES[i : i + 2]).sentence_mask_BS.shape[1] for i in (0, 2)]
    assert lengths[0] != lengths[1]
    torch.multiprocessing.spawn(_process, (str(tmp_path),), nprocs=2)
    found = torch.load(tmp_path / "gradients.pt")
    expected = _gradients(tiny(), batch_of(STUDIES), ALONE)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=2e-5, rtol=1e-3, msg=name)


# -- it learns to point -------------------------------------------------------------------------


def test_blobs_are_found_better_than_by_a_prior_that_never_looks() -> None:
    train = [made(seed) for seed in range(100, 220)]
    test = batch_of([made(seed) for seed in range(1000, 1032)])
    model = tiny().train()
    objective = make_objective(
        GroundedConfig(mask_ratio=0, image_weight=0, presence_weight=1.0), model
    )
    parameters = [*model.parameters(), *objective.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=3e-3, weight_decay=0.01)
    for step in range(45):
        chosen = [train[(8 * step + n) % len(train)] for n in range(8)]
        optimiser.zero_grad()
        objective(model, batch_of(chosen, step=step), ALONE).total.backward()
        optimiser.step()
    model.eval()
    with torch.no_grad():
        similarity = model.similarity(
            model.vision(test.volume_B1HWD).evidence_BNE, test.sentences_BSD
        )
    findings = test.kind_BS == 1
    seen = batch_of(train)
    prior = torch.zeros_like(similarity)
    for b, s in findings.nonzero():
        alike = (seen.meaning_BS4 == test.meaning_BS4[b, s]).all(-1) & seen.region_mask_BS
        prior[b, s] = seen.region_BSN[alike].mean(0)
    hits = [
        float(
            (test.region_BSN.gather(-1, x.argmax(-1, keepdim=True))[..., 0] > 0)[findings]
            .float()
            .mean()
        )
        for x in (similarity, prior)
    ]
    assert hits[0] > 0.8
    assert hits[0] > hits[1] + 0.2
