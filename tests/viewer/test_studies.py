"""Lists of studies: searched, gone through, encoded beforehand; questions before opening."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from dicom_builder import phantom, write_series
from made_ct import AFFINE, chest, save_nifti
from made_view import Desk

from simcrop_core.encoded_cache import EncodedCache
from simcrop_viewer.controller.encoding import Encoder
from simcrop_viewer.controller.figures import FigureController
from simcrop_viewer.controller.sessions import SessionsController
from simcrop_viewer.controller.studies import StudiesController
from simcrop_viewer.controller.study_encoding import StudyEncodingController
from simcrop_viewer.model.figure import FigureSettings
from simcrop_viewer.model.recent import RecentStudies
from simcrop_viewer.model.studies import ListedStudy, StudyList

REPORTS = {
    "DOE_JOHN_1950": "Findings: A nodule in the left lung.",
    "case_2": "Findings: Pleural effusion on the left.",
    "case_10": "Findings: No pleural effusion. A NODULE.",
}


class Source:
    """A study that is never read."""

    def __init__(self, name: str, is_named: bool = True) -> None:
        self.id = name
        self.is_named = is_named


def made_list(*names: str) -> StudyList:
    made = StudyList()
    made.put(Source(name) for name in names)
    return made


class Office(Desk):
    """A desk with a list of studies."""

    def __init__(self, jobs, mailbox, folder: Path) -> None:
        super().__init__(jobs, mailbox, EncodedCache(folder / "cache"))
        self.listed = StudiesController(self.session, jobs, self.studies)
        self.encoding = StudyEncodingController(self.session, jobs, self.listed.list, self.evidence)
        self.listed.looked_over.connect(self.encoding.find_states)
        for controller in (self.listed, self.encoding):
            controller.refused.connect(self.refused.append)

    @property
    def rows(self) -> tuple[ListedStudy, ...]:
        return self.listed.list.rows

    @property
    def states(self) -> list[str]:
        return [row.state for row in self.rows]

    def open_list(self, place: Path) -> None:
        self.listed.open_list(place)
        self.wait()

    def encode_all(self) -> None:
        self.encoding.encode_all()
        self.wait()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three studies with reports, and one whose scan is cut."""
    made = tmp_path / "studies"
    made.mkdir()
    for number, (name, text) in enumerate(REPORTS.items()):
        save_nifti(made / f"{name}.nii.gz", np.roll(chest(), number, axis=0), AFFINE)
        (made / f"{name}.txt").write_text(text)
    whole = (made / "case_2.nii.gz").read_bytes()
    (made / "case_5.nii.gz").write_bytes(whole[: len(whole) // 2])
    return made


@pytest.fixture
def office(jobs, mailbox, tmp_path: Path) -> Office:
    return Office(jobs, mailbox, tmp_path)


@pytest.fixture
def with_model(office: Office, folder: Path, model_folder: Path) -> Office:
    office.evidence.load(model_folder)
    office.open_list(folder)
    return office


# -- the list -------------------------------------------------------------------------------------


def test_names_that_may_name_a_person_are_not_shown() -> None:
    rows = made_list("DOE_JOHN", "case_7", "study-00007").rows
    assert [row.name for row in rows] == ["study 1", "case_7", "study-00007"]
    rows[0].pseudonym = rows[1].pseudonym = "ct-0123456789"
    assert [row.name for row in rows[:2]] == ["ct-0123456789", "case_7"]
    assert "DOE" not in repr(rows)
    assert ListedStudy(3, Source("study-00001", is_named=False)).name == "study 3"


def test_a_search_shows_the_studies_that_have_every_word() -> None:
    studies = made_list("case_1", "case_2", "case_3")
    for row, text in zip(studies.rows, REPORTS.values(), strict=True):
        row.tell_report("there", text)
    studies.search("  nodule ")
    assert studies.shown == (0, 2)
    studies.search("nodule EFFUSION")
    assert studies.shown == (2,)
    assert "NODULE" in studies.rows[2].excerpt(studies.words)
    studies.search("case_2")
    assert studies.shown == (1,)
    studies.search("")
    assert studies.shown == (0, 1, 2)


def test_a_report_that_is_read_later_comes_into_the_search() -> None:
    studies = made_list("case_1", "case_2")
    studies.search("nodule")
    assert studies.shown == ()
    studies.rows[1].tell_report("there", "A nodule.")
    studies.tell((1,))
    assert studies.shown == (1,)


def test_next_and_previous_go_through_what_is_shown_and_stop_at_its_ends() -> None:
    studies = made_list(*(f"case_{n}" for n in range(5)))
    for index in (1, 3):
        studies.rows[index].tell_report("there", "nodule")
    assert (studies.beside(True), studies.beside(False)) == (0, None)
    studies.go(2)
    studies.search("nodule")
    assert (studies.beside(True), studies.beside(False)) == (3, 1)
    studies.go(3)
    assert (studies.beside(True), studies.beside(False)) == (None, 1)


def test_ten_thousand_studies_are_searched_in_a_moment() -> None:
    studies = made_list(*(f"case_{n}" for n in range(10_000)))
    for row in studies.rows:
        row.tell_report("there", "Both main bronchi and the trachea are open. " * 40)
    studies.rows[777].tell_report("there", "A nodule.")
    start = time.process_time()
    studies.search("nodule")
    assert time.process_time() - start < 1.0
    assert studies.shown == (777,)


# -- listing and going through --------------------------------------------------------------------


def test_a_folder_is_listed_with_reports_and_faults(office: Office, folder: Path) -> None:
    office.open_list(folder)
    assert [(r.name, r.said) for r in office.rows] == [
        ("case_2", "there"), ("case_5", "none"), ("case_10", "there"), ("study 4", "there"),
    ]  # fmt: skip
    assert [bool(row.fault) for row in office.rows] == [False, True, False, False]
    assert not any("DOE" in row.fault for row in office.rows)
    assert office.states == [""] * 4
    office.listed.list.search("nodule")
    assert [office.rows[i].name for i in office.listed.list.shown] == ["case_10", "study 4"]
    assert office.refused == []


def test_what_could_not_be_searched_is_said_until_another_list_is_open(
    office: Office, folder: Path
) -> None:
    deep = folder.joinpath(*"abcdefghij")
    deep.mkdir(parents=True)
    office.open_list(folder)
    assert office.listed.list.left_out == "Folders more than 8 deep were not searched."
    shutil.rmtree(folder / "a")
    office.open_list(folder)
    assert office.listed.list.left_out == ""


def test_a_list_that_cannot_be_read_leaves_the_one_that_is_there(
    office: Office, folder: Path
) -> None:
    office.open_list(folder)
    rows = office.rows
    office.open_list(folder / "none")
    assert [e.code for e in office.refused] == ["missing"]
    assert office.rows is rows


def test_studies_are_opened_one_after_the_other(office: Office, folder: Path) -> None:
    office.open_list(folder)
    office.listed.step(forward=True)
    office.wait()
    assert office.session.statements[0].text == "Pleural effusion on the left."
    assert office.listed.list.open == 0
    before = office.session.study
    office.listed.step(forward=True)  # the one that is cut
    office.wait()
    assert office.session.study is before
    assert (office.listed.list.open, office.listed.list.current) == (0, 1)
    assert [e.code for e in office.refused] == ["truncated"]
    assert office.rows[1].fault.startswith(office.refused[0].problem)
    office.listed.step(forward=True)
    office.listed.step(forward=True)  # before the other one is read
    office.wait()
    assert office.listed.list.open == 3
    assert office.rows[3].name == office.session.study.name
    office.listed.step(forward=True)
    office.wait()
    assert office.listed.list.open == 3
    office.studies.open(folder / "case_2.nii.gz")
    office.wait()
    assert office.listed.list.open is None


def test_a_fault_goes_once_the_file_is_mended(office: Office, folder: Path) -> None:
    office.open_list(folder)
    (folder / "case_5.nii.gz").write_bytes((folder / "case_2.nii.gz").read_bytes())
    office.listed.open_row(1)
    office.wait()
    assert office.listed.list.open == 1
    assert office.rows[1].fault == ""


def test_a_study_of_a_data_set_is_read_as_the_data_set_says(office: Office, tmp_path: Path) -> None:
    place = tmp_path / "train" / "train_1" / "train_1_a"
    place.mkdir(parents=True)
    save_nifti(place / "train_1_a_1.nii.gz")
    (tmp_path / "reports.csv").write_text("VolumeName,Findings_EN\ntrain_1_a_1.nii.gz,One.\n")
    (tmp_path / "metadata.csv").write_text(
        "VolumeName,XYSpacing,ZSpacing,RescaleSlope,RescaleIntercept\n"
        'train_1_a_1.nii.gz,"[2.5, 2.5]",5,1,-1024\n'
    )
    office.open_list(tmp_path)
    opened: list[object] = []
    office.studies.opened.connect(lambda *place: opened.append(place))
    office.listed.step(forward=True)
    office.wait()
    study = office.session.study
    assert study.volume.spacing_mm == (2.5, 2.5, 5.0)
    # Its file alone would be read otherwise: neither the recent studies nor a session name it.
    assert (study.volume.source, opened) == (None, [])


# -- encoding beforehand --------------------------------------------------------------------------


def test_all_are_encoded_but_the_one_that_cannot_be(with_model: Office) -> None:
    office = with_model
    office.encode_all()
    assert office.states == ["encoded", "failed", "encoded", "encoded"]
    assert "cut short" in office.rows[1].fault
    assert office.encoding.told == (
        "Encoding is done: 3 new; 1 could not be, for the reason beside it."
    )
    assert office.refused == []
    office.listed.open_row(2)
    office.wait()
    office.evidence.encode()
    office.wait()
    assert office.evidence.was_kept
    assert office.session.statements[0].score is not None


def test_what_was_encoded_is_known_when_the_list_is_opened_again(
    with_model: Office, folder: Path
) -> None:
    office = with_model
    office.encode_all()
    office.listed.close_list()
    (folder / "case_0.nii.gz").write_bytes((folder / "case_2.nii.gz").read_bytes())
    save_nifti(folder / "case_2.nii.gz", np.roll(chest(), 9, axis=1), AFFINE)  # another scan
    office.open_list(folder)
    assert office.states == ["", "", "", "encoded", "encoded"]
    assert office.rows[4].name.startswith("ct-")
    assert office.encoding.to_encode == (0, 1, 2)


def test_only_what_the_search_shows_is_encoded(with_model: Office) -> None:
    office = with_model
    office.listed.list.search("effusion")
    office.encode_all()
    assert office.states == ["encoded", "", "encoded", ""]


def test_a_cancelled_encoding_keeps_what_it_made(with_model: Office, monkeypatch) -> None:
    import simcrop_viewer.controller.study_encoding as module

    office, plain, seen = with_model, module._encode, []

    def encode(row, encoder, say):
        seen.append(row.number)
        if len(seen) == 3:
            office.encoding.job.wanted.set()
            say()
        return plain(row, encoder, say)

    monkeypatch.setattr(module, "_encode", encode)
    office.encode_all()
    assert office.encoding.told == "Cancelled; what was encoded is kept."
    assert office.states == ["encoded", "failed", "", ""]
    assert office.refused == []


def test_it_gives_way_to_what_a_person_asks_for(with_model: Office, folder: Path) -> None:
    office, held = with_model, threading.Event()
    office.jobs.start("Held", lambda tell: held.wait(30), lambda _: None, lane="read")
    office.encoding.encode_all()
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        office.mailbox.read()
        time.sleep(0.01)
    assert office.states == ["waiting"] * 4
    held.set()
    office.wait()
    assert office.states.count("encoded") == 3


def test_another_model_or_placement_ends_it_and_forgets_the_states(with_model: Office) -> None:
    office = with_model
    office.encode_all()
    office.evidence.placement = "lungs"
    assert office.states == [""] * 4
    office.wait()
    assert office.states == [""] * 4
    office.encoding.encode_all()
    office.evidence.set_model(None)
    assert office.states == [""] * 4
    office.wait()
    assert office.states == [""] * 4
    assert office.encoding.encode_all() is None
    assert office.refused[-1].code == "no-model"


def test_it_stops_when_there_is_no_more_room(with_model: Office) -> None:
    office = with_model
    office.evidence.cache.limit_bytes = 60_000
    office.encode_all()
    assert [e.code for e in office.refused] == ["no-room"]
    assert 0 < office.states.count("encoded") < 3
    assert not {"waiting", "encoding"} & set(office.states)


def test_encoded_scans_that_are_forgotten_are_to_be_encoded_again(with_model: Office) -> None:
    office = with_model
    office.encode_all()
    office.encoding.forget()
    assert office.states == ["", "failed", "", ""]
    assert list(office.evidence.cache.folder.iterdir()) == []
    office.encoding.find_states()
    office.wait()
    assert office.encoding.to_encode == (0, 1, 2, 3)


@pytest.mark.parametrize("of_the_list", [True, False])
def test_what_is_being_encoded_is_forgotten_too(
    with_model: Office, monkeypatch: pytest.MonkeyPatch, of_the_list: bool
) -> None:
    office, plain = with_model, Encoder.encode
    made, held = threading.Event(), threading.Event()

    def encode(encoder, volume, tell):
        encoded = plain(encoder, volume, lambda *how_far: None)
        made.set()
        held.wait(30)
        return encoded

    monkeypatch.setattr(Encoder, "encode", encode)
    if of_the_list:
        office.encoding.encode_all()
    else:
        office.listed.open_row(0)
        office.wait()
        office.evidence.encode()
    assert made.wait(30)
    office.mailbox.read()
    office.encoding.forget()
    held.set()
    office.wait()
    folder = office.evidence.cache.folder
    assert not folder.exists() or list(folder.iterdir()) == []
    assert office.states == [""] * 4


def test_a_file_that_is_replaced_after_it_was_read_is_not_known_to_be_encoded(
    with_model: Office, folder: Path
) -> None:
    office = with_model
    office.listed.open_row(0)
    office.wait()
    save_nifti(folder / "case_2.nii.gz", np.roll(chest(), 9, axis=1), AFFINE)  # another scan
    office.evidence.encode()
    office.wait()
    office.open_list(folder)
    assert office.states == [""] * 4


def test_a_study_that_was_opened_is_known_to_be_encoded(with_model: Office) -> None:
    office = with_model
    office.listed.open_row(0)
    office.wait()
    office.evidence.encode()
    office.wait()
    assert office.states == ["encoded", "", "", ""]
    assert len(list(office.evidence.cache.folder.glob("*.kept"))) == 1


def test_closing_ends_it(with_model: Office) -> None:
    office = with_model
    office.encoding.encode_all()
    office.jobs.close()
    end = time.monotonic() + 60
    while any(t.name.startswith("simcrop-studies") for t in threading.enumerate()):
        assert time.monotonic() < end
        time.sleep(0.02)


# -- questions ------------------------------------------------------------------------------------


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """A DICOM folder with two CT series and a scout."""
    made = tmp_path / "DICOM"
    made.mkdir()
    write_series(made, phantom((9, 16, 16), seed=1), prefix="a", tags={"SeriesNumber": 2})
    write_series(made, phantom((5, 16, 16), seed=2), prefix="b", tags={"SeriesNumber": 4})
    scout = {"SeriesNumber": 1, "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
    write_series(made, phantom((3, 16, 16)), prefix="c", tags=scout)
    return made


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "reports.csv"
    path.write_text(
        "VolumeName,Findings_EN\nDOE_JOHN.nii.gz,A nodule.\nJOHN_DOE_1950.nii.gz,Emphysema.\n"
        "case_3.nii.gz,No nodule.\n"
    )
    return path


def test_a_person_chooses_among_series(office: Office, series: Path) -> None:
    office.studies.open(series)
    office.wait()
    question = office.studies.question
    assert office.session.study is None
    assert [row[0].split("-")[0] for row in question.rows] == ["2", "4"]
    assert [row[2] for row in question.rows] == ["9", "5"]
    office.studies.answer(1)
    office.wait()
    assert office.session.study.volume.shape[2] == 5
    assert office.session.study.series == question.keys[1]
    assert office.studies.question is None
    assert office.refused == []


def test_the_usual_series_is_read_as_if_nobody_had_been_asked(office: Office, series: Path) -> None:
    office.studies.open(series)
    office.wait()
    assert office.studies.question.usual == 0
    office.studies.answer(0)
    office.wait()
    assert "series-chosen" in [n.code for n in office.session.study.volume.notes]


def test_a_question_that_is_left_changes_nothing(office: Office, series: Path, files) -> None:
    office.studies.open(*files)
    office.wait()
    before = office.session.study
    office.studies.open(series)
    office.wait()
    office.studies.dismiss()
    assert office.studies.question is None
    office.studies.answer(1)
    office.wait()
    assert office.session.study is before
    office.studies.open(series)
    office.wait()
    office.studies.open(*files)  # something else
    assert office.studies.question is None
    office.wait()
    assert office.session.study.volume.source == files[0]


def test_the_row_named_like_the_scan_is_taken(office: Office, files, rows: Path) -> None:
    office.studies.open(files[0], rows)
    office.wait()
    assert [s.text for s in office.session.statements] == ["Emphysema."]
    assert office.session.study.volume_name == "JOHN_DOE_1950.nii.gz"


def test_a_person_chooses_a_row_and_then_a_series(office: Office, series: Path, rows: Path) -> None:
    office.studies.open(series, rows)
    office.wait()
    assert [row[1:] for row in office.studies.question.rows] == [
        ("", "A nodule."), ("", "Emphysema."), ("case_3", "No nodule."),
    ]  # fmt: skip
    office.studies.answer(2)
    office.wait()
    assert office.studies.question.columns[0] == "Series"
    office.studies.answer(1)
    office.wait()
    assert office.session.study.volume.shape[2] == 5
    assert [s.text for s in office.session.statements] == ["No nodule."]
    office.studies.open_report(rows)
    office.wait()
    office.studies.answer(0)
    office.wait()
    assert [s.text for s in office.session.statements] == ["A nodule."]
    assert office.session.study.volume.shape[2] == 5
    assert office.refused == []


def test_sessions_recent_studies_and_commands_say_which_was_chosen(
    office: Office, series: Path, rows: Path, model_folder: Path, tmp_path: Path
) -> None:
    recent = RecentStudies()
    office.studies.opened.connect(recent.add)
    sessions = SessionsController(
        office.session, office.jobs, office.studies, office.evidence, FigureSettings()
    )
    sessions.refused.connect(office.refused.append)
    office.studies.open(series, rows, volume_name="case_3")
    office.wait()
    office.studies.answer(1)
    office.wait()
    study = office.session.study
    (entry,) = recent.studies
    assert (entry.series, entry.volume_name) == (study.series, "case_3")
    office.evidence.load(model_folder)
    office.wait()
    office.evidence.encode()
    office.wait()
    office.session.select(0)
    words = FigureController(office.session, office.jobs, office.evidence).command()
    assert words.count(f"--series {study.series}") == 2
    assert words.count("--volume-name case_3") == 1
    assert sessions.save(tmp_path / "mine.simcrop")
    office.studies.close()
    sessions.open(tmp_path / "mine.simcrop")
    office.wait()
    assert office.refused == []
    assert office.studies.question is None
    assert office.session.study.volume.sha256 == study.volume.sha256
    assert [s.text for s in office.session.statements] == ["No nodule."]
