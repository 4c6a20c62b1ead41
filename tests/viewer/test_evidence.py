"""From a scan on disk to evidence: reading, encoding, asking, and what comes too late."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from made_ct import AFFINE, chest, save_nifti
from made_view import Desk, Mailbox

from simcrop_core import align, load_model, read_volume
from simcrop_core.encoded_cache import EncodedCache
from simcrop_core.errors import SimCroPError
from simcrop_core.report import Report
from simcrop_viewer.model.jobs import Jobs
from simcrop_viewer.model.session import OpenStudy


def queries(desk: Desk) -> tuple[str, ...]:
    return tuple(s.text for s in desk.session.statements if s.is_query)


# -- opening --------------------------------------------------------------------------------------


def test_a_study_is_read_whole(desk: Desk, files: tuple[Path, Path]) -> None:
    desk.studies.open(*files)
    assert desk.session.study is None  # nothing half-added
    desk.wait()
    assert desk.session.study is not None
    np.testing.assert_array_equal(desk.session.study.volume.hu_XYZ, chest())
    assert [s.text for s in desk.session.statements][1] == "There is a nodule on the right."
    assert "JOHN" not in desk.session.study.name


@pytest.mark.parametrize("bad", ["missing.nii.gz", "cut.nii.gz", "report"])
def test_a_study_that_cannot_be_read_leaves_what_is_open(
    desk: Desk, files: tuple[Path, Path], tmp_path: Path, bad: str
) -> None:
    desk.studies.open(*files)
    desk.wait()
    before = desk.session.study
    cut = tmp_path / "cut.nii.gz"
    cut.write_bytes(files[0].read_bytes()[:-500])
    scan = files[0] if bad == "report" else tmp_path / bad
    report = tmp_path / "none.txt" if bad == "report" else files[1]
    desk.studies.open(scan, report)
    desk.wait()
    assert desk.session.study is before
    [error] = desk.refused
    assert error.remedy


def test_the_study_that_was_asked_for_last_is_shown(
    desk: Desk, files: tuple[Path, Path], tmp_path: Path
) -> None:
    other = save_nifti(tmp_path / "b.nii.gz", np.roll(chest(), 3, axis=0), AFFINE)
    first = desk.studies.open(*files)
    desk.studies.open(other)
    desk.wait()
    assert first.state == "cancelled"
    assert desk.session.study is not None
    np.testing.assert_array_equal(desk.session.study.volume.hu_XYZ, nib.load(other).get_fdata())


def test_a_report_is_pasted_or_refused(desk: Desk, files: tuple[Path, Path]) -> None:
    desk.studies.open(files[0])
    desk.wait()
    assert desk.session.statements == ()
    desk.studies.paste_report("Impression: Emphysema. No nodule.")
    assert [s.text for s in desk.session.statements] == ["Emphysema.", "No nodule."]
    desk.studies.paste_report("  ...  ")
    assert [e.code for e in desk.refused] == ["empty"]
    assert len(desk.session.statements) == 2


def test_a_report_never_goes_to_another_scan(
    desk: Desk, files: tuple[Path, Path], tmp_path: Path
) -> None:
    desk.studies.paste_report("Impression: Emphysema.")
    assert desk.studies.open_report(files[1]) is None
    assert [e.problem for e in desk.refused] == ["No scan is open."] * 2
    desk.studies.open(files[0])
    desk.wait()
    before = desk.session.study
    desk.studies.open(tmp_path / "another.nii.gz")  # which is not there
    assert desk.studies.open_report(files[1]) is None
    assert desk.refused[-1].problem == "A scan is still being read."
    desk.wait()
    assert desk.session.study is before
    desk.studies.open_report(files[1])
    desk.studies.open(files[0])
    desk.wait()
    assert desk.session.statements == ()  # the report was for the scan that was open before


# -- evidence -------------------------------------------------------------------------------------


def test_evidence_is_what_the_library_says(
    ready: Desk, files: tuple[Path, Path], model_folder: Path
) -> None:
    study = ready.session.study
    assert study is not None
    evidence = ready.session.statements[0].result
    assert evidence is not None
    k = evidence.top_SK.shape[1]
    assert 10 * k <= evidence.inside_N.sum() < 10 * (k + 1) or k == 64
    alone = align(load_model(model_folder), read_volume(files[0]), study.report, top_k=k)
    for row, statement in enumerate(ready.session.statements):
        assert statement.result is not None
        assert statement.score == pytest.approx(alone.sentences[row].score, abs=1e-4)
        np.testing.assert_array_equal(statement.result.top(statement.row, k), alone.top_SK[row])
        np.testing.assert_allclose(
            statement.result.similarity_SN[statement.row], alone.similarity_SN[row], atol=1e-6
        )


def test_ones_own_words_are_compared_and_selected(ready: Desk) -> None:
    ready.evidence.ask("  a mass in the\nleft lung ")
    ready.wait()
    assert ready.session.selection == (2,)
    asked = ready.session.statements[2]
    assert (asked.text, asked.is_query) == ("a mass in the left lung", True)
    assert asked.score is not None
    ready.evidence.ask("another one")
    ready.evidence.ask("a mass in the left lung")
    ready.wait()
    assert queries(ready) == ("a mass in the left lung", "another one")
    assert ready.session.selection == (2,)
    ready.evidence.ask("   ")
    ready.wait()
    assert [e.code for e in ready.refused] == ["empty-query"]


def test_nothing_is_asked_before_the_scan_is_encoded(desk: Desk, files: tuple[Path, Path]) -> None:
    assert desk.evidence.encode() is None
    desk.evidence.ask("a mass")
    assert [e.code for e in desk.refused] == ["not-encoded"]


def test_a_place_ranks_the_sentences(ready: Desk) -> None:
    result = ready.session.statements[0].result
    assert result is not None
    for row in (0, 1):
        best = int(result.top(row)[0])
        ranked = ready.evidence.statements_at(result.patches.center(best))
        assert {index for index, _ in ranked} == {0, 1}
        assert [v for _, v in ranked] == sorted((v for _, v in ranked), reverse=True)
        values = result.similarity_SN[row][result.inside_N]
        own = dict(ranked)[row]
        assert own == pytest.approx((values.max() - values.mean()) / values.std(), rel=1e-4)
    assert ready.evidence.statements_at([1e5, 0, 0]) == []


def test_as_many_patches_are_shown_as_scores_are_told_by_unless_a_person_says(
    ready: Desk,
) -> None:
    result = ready.session.statements[0].result
    assert result is not None
    assert ready.session.overlay.top_k == result.top_SK.shape[1] < 64
    ready.session.overlay.top_k = 99
    ready.evidence.encode()
    ready.wait()
    assert ready.session.overlay.top_k == 99


def test_a_question_is_answered_though_the_report_changes(ready: Desk) -> None:
    ready.studies.paste_report("Findings: Emphysema in both lungs.")
    ready.evidence.ask("pleural effusion")
    ready.wait()
    assert queries(ready) == ("pleural effusion",)
    assert ready.session.selection == (1,)


def test_no_model_is_no_model_though_one_was_being_loaded(ready: Desk, model_folder: Path) -> None:
    ready.evidence.load(model_folder)
    ready.evidence.set_model(None)
    ready.wait()
    assert ready.evidence.model is None
    assert ready.evidence.model_folder == ""


def test_another_report_is_compared_without_encoding_again(ready: Desk) -> None:
    encodings: list[str] = []
    ready.jobs.added.connect(lambda job: encodings.append(job.title))
    ready.studies.paste_report("Findings: Emphysema in both lungs.")
    assert ready.session.statements[0].score is None
    ready.wait()
    assert ready.session.statements[0].score is not None
    assert "Encode the scan" not in encodings


def test_another_model_takes_its_predecessors_evidence_away(ready: Desk) -> None:
    ready.evidence.set_model(None)
    assert not ready.evidence.is_encoded
    assert all(s.score is None for s in ready.session.statements)


# -- what comes too late, and what is broken off --------------------------------------------------


def test_evidence_for_a_study_that_was_closed_is_dropped(
    desk: Desk, files: tuple[Path, Path], model_folder: Path, study: OpenStudy
) -> None:
    desk.studies.open(*files)
    desk.evidence.load(model_folder)
    desk.wait()
    job = desk.evidence.encode()
    assert job is not None
    desk.session.show(study)
    desk.wait()
    assert job.state == "cancelled"
    assert not desk.evidence.is_encoded
    assert all(s.score is None for s in desk.session.statements)


def test_a_report_that_changes_while_the_scan_is_encoded_gets_its_own_evidence(
    desk: Desk, files: tuple[Path, Path], model_folder: Path, report: Report
) -> None:
    desk.studies.open(*files)
    desk.evidence.load(model_folder)
    desk.wait()
    desk.evidence.encode()
    desk.session.set_report(report)
    desk.wait()
    assert [s.text for s in desk.session.statements] == [s.statement for s in report.sentences]
    for row, statement in enumerate(desk.session.statements):
        assert statement.result is not None
        assert statement.result.sentences[row].text == report.sentences[row].text


def test_cancelling_keeps_the_evidence_that_is_there(ready: Desk) -> None:
    before = ready.session.statements
    job = ready.evidence.encode()
    assert job is not None
    job.cancel()
    ready.wait()
    assert job.state == "cancelled"
    assert ready.session.statements is before
    assert ready.evidence.is_encoded


def test_a_model_that_cannot_be_loaded_leaves_the_one_in_use(ready: Desk, tmp_path: Path) -> None:
    before = ready.evidence.model
    ready.evidence.load(tmp_path / "no-model")
    ready.wait()
    assert ready.evidence.model is before
    assert ready.evidence.is_encoded
    assert len(ready.refused) == 1


def test_an_encoding_that_fails_leaves_the_evidence(
    ready: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    from simcrop_core import align as package_function  # noqa: F401

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("something broke")

    monkeypatch.setattr(sys.modules["simcrop_core.align"], "encode", broken)
    before = ready.session.statements
    ready.evidence.encode()
    ready.wait()
    assert ready.session.statements is before
    assert [e.code for e in ready.refused] == ["defect"]


# -- what was encoded before ----------------------------------------------------------------------


def test_a_study_that_is_opened_again_is_not_encoded_again(
    jobs: Jobs, mailbox: Mailbox, files: tuple[Path, Path], model_folder: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    cache = EncodedCache(tmp_path / "cache")
    desk = Desk(jobs, mailbox, cache)
    desk.evidence.load(model_folder)
    desk.studies.open(*files)
    desk.wait()
    desk.evidence.encode()
    desk.wait()
    assert not desk.evidence.was_kept
    before = desk.session.statements[0].result
    assert before is not None
    desk.studies.close()
    desk.wait()
    desk.studies.open(*files)
    desk.wait()
    with monkeypatch.context() as patch:
        patch.setattr(import_module("simcrop_core.align"), "encode", refuse_to_encode)
        desk.evidence.encode()
        desk.wait()
        assert desk.evidence.was_kept
        after = desk.session.statements[0].result
        assert after is not None
        np.testing.assert_array_equal(after.similarity_SN, before.similarity_SN)
        assert after.volume == before.volume
        assert desk.evidence.notes == after.volume.notes
        desk.evidence.encode(anew=True)  # as a person asks for: from the scan, not from the disk
        desk.wait()
    assert [e.code for e in desk.refused] == ["not-now"]
    assert "JOHN" not in "".join(str(p) for p in (tmp_path / "cache").rglob("*"))


def refuse_to_encode(*_: object, **__: object) -> None:
    raise SimCroPError("It was encoded again", code="not-now", remedy="Look at the cache.")


def test_a_cache_that_cannot_be_written_costs_no_evidence(
    jobs: Jobs, mailbox: Mailbox, files: tuple[Path, Path], model_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    desk = Desk(jobs, mailbox, EncodedCache(tmp_path / "file" / "cache"))
    desk.evidence.load(model_folder)
    desk.studies.open(*files)
    desk.wait()
    desk.evidence.encode()
    desk.wait()
    assert desk.evidence.is_encoded
    [told] = desk.refused
    assert told.problem == "The encoded scan is shown, but could not be kept for the next time."


def test_questions_stay_when_the_scan_is_encoded_again_or_the_report_changes(ready: Desk) -> None:
    ready.evidence.ask("a mass in the left lung")
    ready.wait()
    ready.evidence.encode()
    ready.wait()
    assert queries(ready) == ("a mass in the left lung",)
    assert all(s.result is not None for s in ready.session.statements)
    ready.studies.paste_report("Findings: Emphysema in both lungs.")
    ready.wait()
    assert [s.text for s in ready.session.statements] == [
        "Emphysema in both lungs.",
        "a mass in the left lung",
    ]


def test_where_the_input_lies_is_chosen_and_told(ready: Desk, files: tuple[Path, Path]) -> None:
    assert ready.evidence.placed == "center"
    ready.evidence.placement = "tiled"
    assert ready.evidence.placed == "center"  # what is shown was made so
    ready.evidence.encode()
    ready.wait()
    assert ready.evidence.placed == "tiled"
    result = ready.session.statements[0].result
    model = ready.evidence.model
    assert result is not None
    assert model is not None
    expected = align(model, read_volume(files[0]), Report.from_text(files[1].read_text()),
                     placement="tiled", top_k=result.top_SK.shape[1])  # fmt: skip
    np.testing.assert_array_equal(result.similarity_SN, expected.similarity_SN)
    assert result.patches.shape == expected.patches.shape


def test_a_question_asked_while_the_scan_is_encoded_again_is_answered(ready: Desk) -> None:
    ready.evidence.encode()
    ready.evidence.ask("a mass in the left lung")
    ready.wait()
    assert queries(ready) == ("a mass in the left lung",)
    assert ready.refused == []
