"""Reports of phantoms: that they read as planned, that they are true, and how they are worded."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from simcrop_core.phantoms import VALIDATION_SEED
from simcrop_core.phantoms.language import Shown, WrittenReport, write_report
from simcrop_core.phantoms.language_grammar import finished, is_unseen, templates
from simcrop_core.phantoms.language_sentences import PRESENT
from simcrop_core.phantoms.language_words import (
    LUNG_FINDINGS,
    absent_slots,
    finding_slots,
    size_text,
    topic,
)
from simcrop_core.phantoms.phrases_absent import FRAMES, OWN
from simcrop_core.phantoms.phrases_impression import CONCLUSIONS
from simcrop_core.phantoms.phrases_organs import INTRODUCTIONS, ORGANS
from simcrop_core.phantoms.plan import FindingPlan, PhantomPlan, plan_phantom
from simcrop_core.phantoms.study import survey
from simcrop_core.report import Report
from simcrop_core.statements import FINDINGS, LEVELS, NO_FINDING, SIDES, UNKNOWN, Facts, Meaning
from simcrop_core.study import SentenceFacts

SEEDS = range(250)
UNSEEN = range(VALIDATION_SEED, VALIDATION_SEED + 60)
WHOLE = (-400.0, 200.0)  # a scan from the neck to the kidneys


def shown_of(plan: PhantomPlan) -> Shown:
    return Shown(plan, WHOLE, axillae=True)


@cache
def planned(seed: int) -> PhantomPlan:
    return plan_phantom(seed)


@cache
def written(seed: int) -> WrittenReport:
    return write_report(shown_of(planned(seed)))


def all_written() -> Iterator[tuple[Shown, WrittenReport]]:
    for seed in (*SEEDS, *UNSEEN):
        yield shown_of(planned(seed)), written(seed)


def every_text(report: WrittenReport) -> Iterator[str]:
    for sentence in report.sentences:
        yield sentence.text
        yield from (other.text for other in sentence.alternates)
    yield from (s.statement for s in Report.from_text(report.text).in_section("impression"))


# -- what is said ---------------------------------------------------------------------------------


def test_a_report_is_read_back_sentence_by_sentence() -> None:
    for shown, report in all_written():
        read = Report.from_text(report.text)
        texts = [s.text for s in read.in_section("findings")]
        assert texts == [s.text for s in report.sentences], shown.plan.seed
        assert len(texts) == len(set(texts)) >= 2, shown.plan.seed
        assert read.in_section("impression"), shown.plan.seed
        assert {s.name for s in read.sections} == {"findings", "impression"}
        assert not read.notes


def test_all_that_is_there_is_said_and_nothing_false() -> None:
    for shown, report in all_written():
        told = set()
        for sentence in report.sentences:
            stated = sentence.meaning
            if stated.finding == NO_FINDING:
                assert sentence.kind == "organ"
                continue
            assert shown.facts.truth(stated) == 1, (shown.plan.seed, sentence)
            assert stated.present == (sentence.kind == "finding"), sentence
            if sentence.kind == "finding":
                told.add(FINDINGS[stated.finding])
        assert told == {f.name for f in shown.plan.findings}
        assert {n for n, label in shown.facts.labels().items() if label == 1} == told


def test_every_side_and_lobe_of_a_finding_is_said() -> None:
    for shown, report in all_written():
        said = Facts.from_occurrences(
            (FINDINGS[s.meaning.finding], SIDES[s.meaning.side], LEVELS[s.meaning.level])
            for s in report.sentences
            if s.kind == "finding"
        )
        # What is open may be so for a reason that is not said as a finding of its own.
        known = shown.facts.table_FSL != UNKNOWN
        assert np.array_equal(said.table_FSL[known], shown.facts.table_FSL[known]), shown.plan.seed
        other = np.flatnonzero((said.table_FSL != shown.facts.table_FSL).any(axis=(1, 2)))
        assert {FINDINGS[row] for row in other} <= {"Lung opacity"}, shown.plan.seed


def test_ground_glass_about_other_findings_is_never_denied() -> None:
    hazy = 0
    for shown, report in all_written():
        for finding in shown.plan.findings:
            texture = finding.attributes.get("texture")
            if finding.name == "Consolidation" or texture in ("ground glass", "part-solid"):
                hazy += 1
                denial = Meaning.of("Lung opacity", finding.side, finding.level, present=False)
                assert shown.facts.truth(denial) != 1
                assert denial not in [s.meaning for s in report.sentences], shown.plan.seed
    assert hazy > 20


def named_places(text: str) -> tuple[set[str], set[str]]:
    """Sides and levels that a text names, by its words alone."""
    words = text.lower()
    sides = set(re.findall(r"\b(left|right)\b", words))
    if re.search(r"\b(both|bilateral|bilaterally|either)\b", words):
        sides |= {"left", "right"}
    if "middle lobe and the lingula" in words:
        sides |= {"left", "right"}
    if "lingula" in words:
        words = words.replace("left upper lobe", "")
        sides |= set() if "middle lobe" in words else {"left"}
    levels = set(re.findall(r"\b(upper|middle|lower) (?:lobes?|zones?)\b", words))
    levels |= {"middle"} if "lingula" in words else set()
    levels |= {"upper"} if re.search(r"\bap(?:ex|ices)\b", words) else set()
    return sides, levels


def test_the_words_name_the_place_that_is_stated() -> None:
    """An independent reading of the texts, counterfactuals among them."""
    named = 0
    for _, report in all_written():
        for sentence in report.sentences:
            for text, stated in [
                (sentence.text, sentence.meaning),
                *((o.text, o.meaning) for o in sentence.alternates),
            ]:
                name = FINDINGS[stated.finding]
                if stated.finding == NO_FINDING or name not in {*LUNG_FINDINGS, "Pleural effusion"}:
                    continue
                sides, levels = named_places(text)
                side, level = SIDES[stated.side], LEVELS[stated.level]
                if side in ("left", "right"):
                    assert sides == {side}, (text, stated)
                elif side == "both":
                    assert sides == {"left", "right"}, (text, stated)
                else:  # "both lungs" after a negation, or no side at all
                    assert sides in (set(), {"left", "right"}), (text, stated)
                assert levels == (set() if level == "any" else {level}), (text, stated)
                named += side in ("left", "right")
    assert named > 1000


def test_counterfactuals_change_one_thing_and_are_false() -> None:
    flips: dict[str, int] = defaultdict(int)
    with_one, findings = 0, 0
    for shown, report in all_written():
        for sentence in report.sentences:
            stated = sentence.meaning
            findings += sentence.kind == "finding"
            with_one += sentence.kind == "finding" and bool(sentence.alternates)
            for other in sentence.alternates:
                assert other.text != sentence.text
                assert shown.facts.truth(other.meaning) == 0, (sentence, other)
                assert other.meaning.finding == stated.finding
                pairs = zip(stated[1:], other.meaning[1:], strict=True)
                changed = [
                    field
                    for field, (a, b) in zip(("side", "level", "present"), pairs, strict=True)
                    if a != b
                ]
                if "present" in changed:  # the denial of "both" is "neither", that of "any", too
                    changed = ["present"]
                assert len(changed) == 1, (sentence, other)
                flips[changed[0]] += 1
    assert with_one == findings
    assert min(flips["side"], flips["level"], flips["present"]) > 250, flips


def test_a_flipped_side_or_lobe_changes_nothing_else() -> None:
    def without_places(text: str) -> list[str]:
        plain = re.sub(
            r"\b(left|right|both|bilateral\w*|upper|middle|lower|lobes?|lungs?|lingular?|segment|of|and|or|either"
            r"|the|apex|apices|sides?|in|zones)\b",
            "",
            text.lower(),
        )
        return re.findall(r"[\w.]+", plain)

    compared = 0
    for _, report in all_written():
        for sentence in report.sentences:
            if FINDINGS[sentence.meaning.finding] == "Lymphadenopathy":
                continue
            for other in sentence.alternates:
                if other.meaning.present == sentence.meaning.present:
                    assert without_places(other.text) == without_places(sentence.text)
                    compared += 1
    assert compared > 500


def test_the_lingula_is_a_part_of_the_left_upper_lobe() -> None:
    """What is in the lingula is not denied to the left upper lobe, though that is another level."""
    lingula = FindingPlan("Consolidation", "left", "middle", "lingula", 30, attributes={})
    for seed in range(60):
        plan = replace(planned(seed), findings=(lingula,))
        for sentence in write_report(shown_of(plan)).sentences:
            texts = [(sentence.meaning, sentence.kind != "finding")]
            texts += [(o.meaning, bool(o.meaning.present)) for o in sentence.alternates]
            for stated, denies in texts:
                if stated.finding == FINDINGS.index("Consolidation") and denies:
                    upper = LEVELS[stated.level] == "upper" and SIDES[stated.side] != "right"
                    assert not upper, sentence


def test_all_labels_occur_and_all_are_denied() -> None:
    told: dict[str, set[str]] = defaultdict(set)
    for _, report in all_written():
        for sentence in report.sentences:
            if sentence.meaning.finding != NO_FINDING:
                told[sentence.kind].add(FINDINGS[sentence.meaning.finding])
    assert told["finding"] == told["negative"] == set(FINDINGS)


def test_of_what_the_scan_does_not_show_nothing_is_said() -> None:
    abdomen = ("liver", "spleen", "splenic", "the gastric", "kidney", "renal", "adrenal", "abdom")
    heart = ("heart", "cardi", "coronar", "esophag", "sternum")
    for seed in range(60):
        plan = replace(planned(seed), findings=())
        assert write_report(Shown(plan, (150, 160), axillae=False)).sentences == ()
        chest = write_report(Shown(plan, (-150, 200), axillae=False)).text.lower()
        assert not [word for word in abdomen if word in chest]
        top = write_report(Shown(plan, (-80, 200), axillae=False)).text.lower()
        assert not [word for word in (*abdomen, *heart) if word in top]
        below = write_report(Shown(plan, (-400, 60), axillae=False)).text.lower()
        assert not [word for word in ("thyroid", "axill") if word in below]


def test_a_report_without_findings_concludes_that_all_is_normal() -> None:
    healthy = replace(planned(0), findings=())
    report = Report.from_text(write_report(shown_of(healthy)).text)
    (conclusion,) = report.in_section("impression")
    assert re.search("normal|without pathological", conclusion.text.lower())
    assert not [s for s in write_report(shown_of(healthy)).sentences if s.kind == "finding"]


def test_reports_are_as_long_as_real_ones_and_differ() -> None:
    lengths = [len(report.sentences) for _, report in all_written()]
    # CT-RATE: 12 to 36 from the first to the last tenth, median 20.
    assert 15 <= np.median(lengths) <= 24
    assert np.percentile(lengths, 5) >= 5
    texts = [s.text for _, report in all_written() for s in report.sentences]
    assert len(set(texts)) > 0.5 * len(texts)
    starts = {report.sentences[0].wording for _, report in all_written()}
    assert len(starts) > 20


def test_a_seed_gives_one_report_and_findings_do_not_come_from_chance() -> None:
    plan = plan_phantom(7)
    assert write_report(shown_of(plan)) == write_report(shown_of(plan))
    assert write_report(shown_of(plan)).text != written(8).text


# -- how it is worded -----------------------------------------------------------------------------


def complaints(text: str) -> list[str]:
    """What is wrong with a sentence's form."""
    found = []
    if not text[0].isupper() and not text[0].isdigit():
        found.append("begins small")
    if not re.search(r"[^.,;][.;]$", text):
        found.append("no end")
    if re.search(r"  | [,.;)]|\(\s|[\[\]{}|]|\ba\(n\)|\.\.|,,", text):
        found.append("marks")
    if text.count("(") != text.count(")"):
        found.append("brackets")
    for article, word in re.findall(r"\b(an?) (\w[\w-]*)", text, re.IGNORECASE):
        number = re.match(r"\d+", word)
        vowel = word[0].lower() in "aeiou" and not word.lower().startswith(("uni", "use"))
        if number:
            vowel = number[0].startswith("8") or number[0] in ("11", "18")
        if word.isupper() and not number:
            vowel = word[0] in "AEFHILMNORSX"
        if (article.lower() == "an") != vowel:
            found.append(f"{article} {word}")
    found += re.findall(r"\b(\w+) \1\b", text.lower())
    return found


def test_every_sentence_is_well_formed() -> None:
    for _, report in all_written():
        for text in every_text(report):
            assert not complaints(text), (text, complaints(text))


def test_the_check_of_form_can_fail() -> None:
    for bad in (
        "a nodule is seen.",
        "A nodule  is seen.",
        "A 8 mm nodule is seen.",
        "An nodule is seen.",
        "A enlarged node is seen.",
        "A LAP is seen.",
        "A nodule is seen",
        "A nodule {in_place}.",
        "A nodule is is seen.",
        "A nodule (5 mm is seen.",
    ):
        assert complaints(bad), bad


def banks() -> Iterator[tuple[str, tuple]]:
    for kind in (PRESENT, OWN, ORGANS, INTRODUCTIONS, CONCLUSIONS):
        yield from kind.items()
    yield "absent", FRAMES


def test_each_finding_has_many_wordings_and_each_topic_some_that_are_held_out() -> None:
    ids: set[str] = set()
    for name, options in banks():
        assert len({t.pattern for t in options}) == len(options), name
        assert len(ids | {t.id for t in options}) == len(ids) + len(options), name
        ids |= {t.id for t in options}
        if options[0].id.startswith("conclusion/"):
            continue
        held_out = [t for t in options if t.unseen]
        assert 1 <= len(held_out) <= len(options) // 3, name
    for name in FINDINGS:
        if name == "Medical material":
            continue
        assert len(PRESENT[name]) >= 12, name
        assert len(OWN[name]) + len(FRAMES) >= 12, name
    for device in ("pacemaker", "port catheter", "coronary stent", "sternal wires"):
        assert len(PRESENT[device]) >= 8


def test_every_wording_can_be_used() -> None:
    choices = np.random.default_rng(0)
    used: set[str] = set()
    for seed in range(500):
        for finding in planned(seed).findings:
            slots = finding_slots(finding, list(choices.random(40)))
            used |= {t.id for t in PRESENT[topic(finding)] if t.fits(slots)}
            options = CONCLUSIONS.get(topic(finding)) or CONCLUSIONS[finding.name]
            used |= {t.id for t in options if t.fits(slots)}
    for name in FINDINGS:
        for side in ("any", "left") if name in {*LUNG_FINDINGS, "Pleural effusion"} else ("any",):
            slots = absent_slots(name, side, "any", list(choices.random(40)))
            used |= {t.id for t in (*FRAMES, *OWN[name]) if t.fits(slots)}
    known = {t.id for name, options in banks() for t in options if name not in ORGANS}
    known -= {t.id for options in INTRODUCTIONS.values() for t in options}
    known -= {t.id for t in (*PRESENT["device"], *PRESENT["Pleural effusions"])}
    assert not known - used


@pytest.mark.parametrize("wording", ["seen", "unseen"])
def test_wordings_held_out_are_read_only_where_asked_for(wording: str) -> None:
    spoken: list[SentenceFacts] = []
    for seed in range(50):
        spoken += write_report(shown_of(planned(seed)), wording).sentences  # type: ignore[arg-type]
    assert len(spoken) > 600
    assert {is_unseen(s.wording) for s in spoken} == {wording == "unseen"}


def test_phantoms_for_validation_mix_wordings_and_others_do_not() -> None:
    for seed in SEEDS:
        assert not any(is_unseen(s.wording) for s in written(seed).sentences)
    unseen = [is_unseen(s.wording) for seed in UNSEEN for s in written(seed).sentences]
    assert 0.4 < np.mean(unseen) < 0.6


def test_no_sentence_is_one_of_ct_rate(real_data: Path) -> None:
    def plain(text: str) -> str:
        return " ".join(re.findall(r"[\w.-]+", text.lower())).strip(".")

    with (real_data / "reports" / "ct-rate-800.csv").open(encoding="utf-8", newline="") as file:
        rows = [row["report_text"] for row in csv.DictReader(file)]
    known = {plain(s.statement) for row in rows for s in Report.from_text(row).sentences}
    known = {text for text in known if len(text.split()) > 6}
    assert len(known) > 5000
    for _, report in all_written():
        for text in every_text(report):
            assert plain(text) not in known, text


# -- templates ------------------------------------------------------------------------------------


def test_a_template_takes_only_what_its_slots_can_say() -> None:
    first, second, third, fourth = templates(
        "t",
        "a(n) [{kind} |]nodule IS SEEN[ ({size})|].",
        "[{size}|large] {thing}s ARE SEEN.",
        "Plain.",
        "Held out.",
    )
    assert [t.id for t in (first, fourth)] == ["t/seen/00", "t/unseen/03"]
    assert [t.unseen for t in (third, fourth)] == [False, True]
    assert [first.fits({}), second.fits({}), second.fits({"thing": "cyst"})] == [True, False, True]
    assert first.fill({}, [0.0] * 9) == "A nodule is observed."
    assert first.fill({"kind": "8 mm", "size": "x"}, [0.0] * 9) == "An 8 mm nodule is observed (x)."
    assert first.fill({"kind": "solid"}, [0.99] * 9) == "A nodule was identified."
    assert second.fill({"thing": "cyst"}, [0.0] * 9) == "Large cysts are observed."


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("a(n) 11 mm node , here .", "An 11 mm node, here."),
        ("a(n) 18 mm node.", "An 18 mm node."),
        ("a(n) 80 mm node.", "An 80 mm node."),
        ("a(n) 12 mm node.", "A 12 mm node."),
        ("there is a(n) effusion.", "There is an effusion."),
        ("a(n) uniform area.", "A uniform area."),
        ("a(n) 110 mm mass.", "A 110 mm mass."),
    ],
)
def test_articles_and_spaces(text: str, right: str) -> None:
    assert finished(text) == right


def test_sizes_are_written_as_in_reports() -> None:
    assert size_text(4.3, 0) == "4.5 mm"
    assert size_text(8.1, 0) == "8 mm"
    assert size_text(12.4, 0.9) == "12 mm"
    assert size_text(42.0, 0.9) == "4.2 cm"
    assert size_text(30.04, 0.9) == "3 cm"


def test_meanings_of_kinds() -> None:
    """A normal heart is a heart that is not enlarged."""
    hearts = [s for _, report in all_written() for s in report.sentences if s.region == "heart"]
    organs = [s for s in hearts if s.kind == "organ"]
    assert organs
    assert {s.meaning for s in organs} == {Meaning.of("Cardiomegaly", present=False)}


def test_airless_lung_beside_an_effusion_goes_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from simcrop_core.phantoms import study
    from simcrop_core.phantoms.anatomy_frame import Frame

    def effusion(side: str) -> FindingPlan:
        return FindingPlan(
            "Pleural effusion", side=side, severity="moderate", size_mm=25.0,  # type: ignore[arg-type]
            attributes={"type": "free"},
        )  # fmt: skip

    passive = FindingPlan(
        "Atelectasis", side="left", level="lower", lobe="left lower lobe",
        attributes={"type": "passive"},
    )  # fmt: skip
    plan = plan_phantom(3)

    def names(*findings: FindingPlan, top_mm: float) -> list[tuple[str, str]]:
        """What a scan shows whose upper end lies so high above the carina."""
        end = float(Frame.of(plan.patient).world([0.0, 0.0, top_mm])[2])
        x, y, z = plan.scanner.center_mm
        _, high = plan.scanner.grid.bounds_mm()
        scanner = replace(plan.scanner, center_mm=(x, y, z + end - float(high[2])))
        cut = replace(plan, findings=findings, scanner=scanner)
        monkeypatch.setattr(study, "plan_phantom", lambda seed: cut)
        return [(f.name, f.side) for f in survey(3).plan.findings]

    both = [("Pleural effusion", "left"), ("Atelectasis", "left")]
    assert names(effusion("left"), passive, top_mm=40) == both
    assert names(effusion("left"), passive, top_mm=-95) == []
    assert names(effusion("right"), passive, top_mm=40) == [("Pleural effusion", "right")]
