"""Sessions: what is saved, what comes back, and what is refused without a trace."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from made_ct import AFFINE, chest, save_nifti
from made_view import Desk

from simcrop_viewer.controller.sessions import SessionsController
from simcrop_viewer.model.figure import FigureSettings
from simcrop_viewer.model.recent import RecentStudies
from simcrop_viewer.model.session import Session
from simcrop_viewer.model.session_file import SavedSession
from simcrop_viewer.model.windows import PRESETS, Window


class Office:
    """A desk with sessions."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.figure = FigureSettings()
        self.sessions = SessionsController(
            desk.session, desk.jobs, desk.studies, desk.evidence, self.figure
        )
        self.sessions.refused.connect(desk.refused.append)

    @property
    def session(self) -> Session:
        return self.desk.session

    def open(self, path: Path) -> None:
        self.sessions.open(path)
        self.desk.wait()

    def looked_at(self) -> dict[str, object]:
        """All that a session brings back."""
        session, said = self.session, self.session.statements
        return {
            "scan": session.study and session.study.volume.sha256,
            "statements": [(s.text, s.section, s.score and round(s.score, 4)) for s in said],
            "selection": session.selection,
            "position": np.round(session.position_mm, 6).tolist(),
            "window": session.window,
            "overlay": session.overlay.model_dump(),
            "figure": self.figure.model_dump(),
            "model": self.desk.evidence.model and self.desk.evidence.model.model_id,
            "folder": self.desk.evidence.model_folder,
            "placed": self.desk.evidence.placed,
        }


@pytest.fixture
def office(ready: Desk) -> Office:
    """A study that is encoded, asked, and looked at in a way of its own."""
    made = Office(ready)
    ready.evidence.placement = "lungs"
    ready.evidence.encode()
    ready.wait()
    for question in ("mass in the left lung", "pleural effusion"):
        ready.evidence.ask(question)
        ready.wait()
    session = ready.session
    session.overlay.top_k, session.overlay.colormap = 17, "viridis"
    session.overlay.draw, session.overlay.threshold = "outlines", 0.25
    made.figure.planes, made.figure.dpi = ("coronal",), 150
    session.set_window(Window(900, -321))
    session.select(1, 3)
    session.move_to(session.position_mm + np.array([7, -11, 13.5]))
    return made


def another(desk: Desk) -> Office:
    """A desk that has just been started: nothing is open."""
    return Office(Desk(desk.jobs, desk.mailbox))


def test_saving_before_the_evidence_has_come_loses_nothing(office: Office, tmp_path: Path) -> None:
    path = tmp_path / "mine.simcrop"
    office.sessions.save(path)
    before = json.loads(path.read_text())
    fresh = another(office.desk)
    fresh.sessions.open(path)
    while fresh.session.study is None:  # the scan has come, the evidence has not
        fresh.desk.mailbox.read()
    assert fresh.session.statements[0].result is None
    assert fresh.sessions.save(path)
    now = json.loads(path.read_text())
    assert (now["questions"], now["selection"]) == (before["questions"], before["selection"])
    fresh.desk.wait()
    assert fresh.sessions.save(path)
    assert json.loads(path.read_text())["questions"] == before["questions"]


# -- there and back -------------------------------------------------------------------------------


def test_a_session_comes_back_as_it_was(office: Office, tmp_path: Path) -> None:
    before = office.looked_at()
    assert office.sessions.save(tmp_path / "mine")
    fresh = another(office.desk)
    fresh.open(tmp_path / "mine.simcrop")
    assert fresh.desk.refused == []
    assert fresh.looked_at() == before
    assert [s.text for s in fresh.session.selected][1] == "pleural effusion"


def test_the_model_in_use_is_not_read_again(office: Office, tmp_path: Path) -> None:
    office.sessions.save(tmp_path / "mine.simcrop")
    before, model = office.looked_at(), office.desk.evidence.model
    office.desk.studies.close()
    office.session.set_window(PRESETS["bone"])
    office.open(tmp_path / "mine.simcrop")
    assert office.desk.evidence.model is model
    assert office.looked_at() == before


def test_a_study_without_report_and_model(
    desk: Desk, files: tuple[Path, Path], tmp_path: Path
) -> None:
    office = Office(desk)
    desk.studies.open(files[0])
    desk.wait()
    office.session.move_to([3, 4, -650])
    office.sessions.save(tmp_path / "bare.simcrop")
    fresh = another(desk)
    fresh.open(tmp_path / "bare.simcrop")
    assert fresh.looked_at() == office.looked_at()
    assert fresh.session.study.report is None  # type: ignore[union-attr]


def test_files_that_moved_with_the_session_are_found(office: Office, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    for file in ("JOHN_DOE_1950.nii.gz", "JOHN_DOE.txt"):
        shutil.copy(tmp_path / file, old / file)
    office.desk.studies.open(old / "JOHN_DOE_1950.nii.gz", old / "JOHN_DOE.txt")
    office.desk.wait()
    office.sessions.save(old / "mine.simcrop")
    old.rename(tmp_path / "new")
    fresh = another(office.desk)
    fresh.open(tmp_path / "new" / "mine.simcrop")
    assert fresh.desk.refused == []
    assert fresh.session.study.volume.source.parent.name == "new"  # type: ignore[union-attr]


def test_what_a_person_chooses_meanwhile_stays_chosen(office: Office, tmp_path: Path) -> None:
    office.sessions.save(tmp_path / "mine.simcrop")
    fresh = another(office.desk)
    fresh.session.study_changed.connect(
        lambda: office.desk.mailbox.append(lambda: fresh.session.select(0))
    )
    fresh.open(tmp_path / "mine.simcrop")
    assert fresh.session.selection == (0,)
    assert len(fresh.session.statements) == 4


def test_what_is_opened_later_is_what_is_shown(
    office: Office, tmp_path: Path, files: tuple[Path, Path]
) -> None:
    office.sessions.save(tmp_path / "mine.simcrop")
    other = save_nifti(tmp_path / "other.nii.gz", np.roll(chest(), 3, axis=0), AFFINE)
    fresh = another(office.desk)
    fresh.sessions.open(tmp_path / "mine.simcrop")
    fresh.desk.studies.open(other)
    fresh.desk.wait()
    assert fresh.session.study.volume.source == other  # type: ignore[union-attr]
    fresh.desk.studies.open(other)
    fresh.open(tmp_path / "mine.simcrop")
    assert fresh.session.study.volume.source == files[0]  # type: ignore[union-attr]
    assert len(fresh.session.statements) == 4


def test_there_is_no_patient_in_it_beyond_paths_and_own_words(
    office: Office, tmp_path: Path
) -> None:
    office.sessions.save(tmp_path / "mine.simcrop")
    said = json.loads((tmp_path / "mine.simcrop").read_text(encoding="utf-8"))
    assert said["version"] == 1
    assert said["questions"] == ["mass in the left lung", "pleural effusion"]
    paths = [said[part].pop(place) for part in ("scan", "report") for place in ("path", "beside")]
    assert all("JOHN_DOE" in path for path in paths)
    rest = json.dumps(said)
    assert "JOHN" not in rest
    assert "Heart size" not in rest
    assert len(rest) < 4000


# -- refusals -------------------------------------------------------------------------------------


def damage(path: Path, how: str, tmp_path: Path, model_folder: Path) -> str:
    """Harm a session or a file that it names; the code of the refusal."""
    said = json.loads(path.read_text(encoding="utf-8"))
    scan, report = tmp_path / "JOHN_DOE_1950.nii.gz", tmp_path / "JOHN_DOE.txt"
    if how == "no scan":
        scan.unlink()
        return "session-file-missing"
    if how == "no report":
        report.unlink()
        return "session-file-missing"
    if how == "another scan":
        save_nifti(scan, np.roll(chest(), 3, axis=0), AFFINE)
        return "session-file-changed"
    if how == "flipped scan":
        save_nifti(scan, chest(), np.diag([-1, 1, 1, 1]) @ AFFINE)
        return "session-file-changed"
    if how == "broken scan":
        scan.write_bytes(scan.read_bytes()[:-400])
        return "truncated"
    if how == "another report":
        report.write_text("Findings: Heart size is normal. There is no nodule on the right.")
        return "session-file-changed"
    changes = {
        "no model": {"model": {**said["model"], "path": "/no/such", "beside": None}},
        "another model": {"model": {**said["model"], "digest": "0123456789"}},
        "unknown key": {"patient": "JOHN DOE"},
        "unknown setting": {"overlay": {**said["overlay"], "shape": 1}},
        "a colour that is none": {"overlay": {**said["overlay"], "colormap": "JOHN"}},
        "newer": {"version": 2},
        "another format": {"format": "something"},
        "no such sentence": {"selection": [0, 9]},
        "negative sentence": {"selection": [-1]},
        "no number": {"position_mm": [0, 0, float("nan")]},
        "no place": {"scan": {**said["scan"], "path": ""}},
    }
    if how == "endless path":
        changes[how] = {"scan": {**said["scan"], "path": "/" + "x" * 9000, "beside": "\0"}}
    if how in changes:
        path.write_text(json.dumps(said | changes[how]), encoding="utf-8")
    elif how == "nested":
        path.write_text("[" * 100_000)
    elif how == "bytes":
        path.write_bytes(b"\xff\xfe\x00" * 100)
    elif how == "cut":
        path.write_text(path.read_text(encoding="utf-8")[:-50], encoding="utf-8")
    elif how == "large":
        path.write_bytes(b" " * (2 << 20))
    elif how == "gone":
        path.unlink()
    return {
        "no model": "session-file-missing", "endless path": "session-file-missing",
        "another model": "session-file-changed",
        "newer": "newer-session", "gone": "unreadable",
    }.get(how, "not-a-session")  # fmt: skip


HARM = (
    "no scan", "no report", "another scan", "flipped scan", "broken scan", "another report",
    "no model", "another model", "unknown key", "unknown setting", "a colour that is none", "newer",
    "another format", "no such sentence", "negative sentence", "no number", "no place", "nested",
    "bytes", "cut", "large", "gone", "endless path",
)  # fmt: skip


def test_what_is_missing_changed_or_damaged_is_told_and_nothing_changes(
    office: Office, tmp_path: Path, model_folder: Path
) -> None:
    session = tmp_path / "mine.simcrop"
    office.sessions.save(session)
    kept = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    fresh = another(office.desk)
    other = save_nifti(tmp_path / "other.nii.gz", np.roll(chest(), 5, axis=1), AFFINE)
    fresh.desk.studies.open(other)
    fresh.desk.wait()
    before = fresh.looked_at()
    for how in HARM:
        code = damage(session, how, tmp_path, model_folder)
        fresh.open(session)
        [error] = fresh.desk.refused
        assert error.code == code, how
        assert "JOHN" not in error.problem + error.remedy, how
        assert error.problem.endswith("."), how
        assert fresh.looked_at() == before, how
        fresh.desk.refused.clear()
        for path, content in kept.items():
            path.write_bytes(content)
    fresh.open(session)
    assert fresh.desk.refused == []
    assert fresh.looked_at()["selection"] == (1, 3)


def test_what_has_no_place_cannot_be_saved(office: Office, tmp_path: Path, desk: Desk) -> None:
    (tmp_path / "file").write_text("")
    assert not office.sessions.save(tmp_path / "file" / "mine.simcrop")
    office.desk.studies.paste_report("Findings: Emphysema.")
    office.desk.wait()
    assert not office.sessions.save(tmp_path / "mine.simcrop")
    office.desk.studies.close()
    assert not office.sessions.save(tmp_path / "mine.simcrop")
    assert [e.code for e in office.desk.refused] == ["cannot-write", "no-file", "no-scan"]
    assert not (tmp_path / "mine.simcrop").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="names are text there")
def test_a_name_that_is_no_text_is_refused_and_not_remembered(desk: Desk, tmp_path: Path) -> None:
    scan = save_nifti(tmp_path / "scan.nii.gz").rename(tmp_path / os.fsdecode(b"\xffscan.nii.gz"))
    office, recent = Office(desk), RecentStudies(tmp_path / "recent.json")
    desk.studies.opened.connect(recent.add)
    desk.studies.open(scan)
    desk.wait()
    assert not office.sessions.save(tmp_path / "mine.simcrop")
    assert [e.code for e in desk.refused] == ["bad-path"]
    assert recent.studies == ()
    assert office.session.study is not None


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pipes in folders")
def test_a_pipe_is_not_waited_for(desk: Desk, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "mine.simcrop")
    Office(desk).open(tmp_path / "mine.simcrop")
    assert [e.code for e in desk.refused] == ["unreadable"]


def test_a_session_is_written_whole_and_read_as_written(office: Office, tmp_path: Path) -> None:
    path = tmp_path / "mine.simcrop"
    office.sessions.save(path)
    saved = SavedSession.read(path)
    saved.write(tmp_path / "again.simcrop")
    assert (tmp_path / "again.simcrop").read_bytes() == path.read_bytes()
    assert nib.load(saved.scan.path).shape == chest().shape


# -- what was open lately -------------------------------------------------------------------------


def test_the_last_few_are_kept_newest_first(tmp_path: Path) -> None:
    place = tmp_path / "kept" / "recent.json"
    recent = RecentStudies(place)
    for number in range(12):
        recent.add(tmp_path / f"{number}.nii", tmp_path / "r.txt" if number % 2 else None)
    recent.add(tmp_path / "9.nii")
    names = [Path(study.path).name for study in RecentStudies(place).studies]
    assert names == ["9.nii", "11.nii", "10.nii", "8.nii", "7.nii", "6.nii", "5.nii", "4.nii"]
    assert RecentStudies(place).studies[0].report is None
    assert RecentStudies(place).studies[1].report == str(tmp_path / "r.txt")
    assert recent.studies[0].title == f"9.nii ({tmp_path.name})"
    recent.clear()
    assert RecentStudies(place).studies == ()


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe", b'{"studies": 3}', b'{"x": 1}'])
def test_a_list_that_is_damaged_is_an_empty_one(tmp_path: Path, content: bytes) -> None:
    place = tmp_path / "recent.json"
    place.write_bytes(content)
    recent = RecentStudies(place)
    assert recent.studies == ()
    recent.add("a.nii")
    assert len(RecentStudies(place).studies) == 1


def test_a_list_that_cannot_be_kept_is_kept_for_now(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    recent = RecentStudies(tmp_path / "file" / "recent.json")
    recent.add("a.nii")
    assert len(recent.studies) == 1


# -- the command ----------------------------------------------------------------------------------


def test_a_session_is_given_alone(capsys: pytest.CaptureFixture[str]) -> None:
    from simcrop_viewer.app import main

    with pytest.raises(SystemExit) as end:
        main(["scan.nii.gz", "--session", "mine.simcrop"])
    assert end.value.code == 2
    assert "give it alone" in capsys.readouterr().err
