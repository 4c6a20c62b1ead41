"""Lists of studies: what is found in a folder, which report belongs to it, and what is shown."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from dicom_builder import phantom, write_series
from made_ct import save_nifti

from simcrop_core.datasets.folder import folder_dataset
from simcrop_core.datasets.neutral_name import neutral_name
from simcrop_core.datasets.worklist import ReadableSource, is_list, open_worklist, scan_stamp
from simcrop_core.errors import SimCroPError

TEXT = "Findings: Heart size is normal."


def listed(root: Path) -> list[tuple[str, str, str]]:
    """Id, scan and report of each study, as paths below the folder."""

    def below(path: str) -> str:
        return Path(path).relative_to(root).as_posix() if path else ""

    return [(s.id, below(s.volume), below(s.report)) for s in folder_dataset(root).sources]


def write(path: Path, text: str = TEXT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def scan(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return save_nifti(path)


@pytest.mark.parametrize(
    "name", ["case_017", "train_1_a_1", "valid_20", "phantom-900012", "12", "LUNG1-001", "trn00001"]
)
def test_a_number_after_a_known_word_can_be_shown(name: str) -> None:
    assert neutral_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["JOHN_DOE_1950", "patient_8812345", "1950-03-02", "case_3_2_1950", "doe", "scan", "", "j_1",
     "patient 12 Doe"],
)  # fmt: skip
def test_what_may_name_a_person_is_not_shown(name: str) -> None:
    assert neutral_name(name) == ""


def test_scans_and_their_reports_are_found_in_any_layout(tmp_path: Path) -> None:
    scan(tmp_path / "case_2.nii.gz")
    scan(tmp_path / "case_10.nii.gz")
    scan(tmp_path / "case_10_mask.nii.gz")
    scan(tmp_path / "masks" / "case_2.nii.gz")
    scan(tmp_path / ".trash" / "case_3.nii.gz")
    write(tmp_path / "case_2.txt")
    write(tmp_path / "case_10_report.json", '{"findings": "Heart size is normal."}')
    write(tmp_path / "LICENSE.txt")
    scan(tmp_path / "phantom-000001" / "ct.nii.gz")
    scan(tmp_path / "phantom-000001" / "structures.nii.gz")
    write(tmp_path / "phantom-000001" / "report.txt")
    write(tmp_path / "phantom-000001" / "truth.json")
    write(tmp_path / "result" / "alignment.json")
    scan(tmp_path / "result" / "ct.nii.gz")
    assert listed(tmp_path) == [
        ("case_2", "case_2.nii.gz", "case_2.txt"),
        ("case_10", "case_10.nii.gz", "case_10_report.json"),
        ("phantom-000001", "phantom-000001/ct.nii.gz", "phantom-000001/report.txt"),
    ]


def test_a_folder_of_slices_is_one_study_with_the_report_inside_or_beside(tmp_path: Path) -> None:
    for name in ("DOE_JOHN/image", "DOE_JANE", "p3"):
        (tmp_path / name).mkdir(parents=True)
        write_series(tmp_path / name, phantom((4, 8, 8)))
    write(tmp_path / "DOE_JOHN" / "report.txt")
    write(tmp_path / "DOE_JANE" / "findings.txt")
    write(tmp_path / "p3.txt")
    assert listed(tmp_path) == [
        ("study-00001", "DOE_JANE", "DOE_JANE/findings.txt"),
        ("study-00002", "DOE_JOHN/image", "DOE_JOHN/report.txt"),
        ("study-00003", "p3", "p3.txt"),
    ]


def test_what_lies_beside_the_ct_is_of_it(tmp_path: Path) -> None:
    for name in (
        "one/ct_cropped",
        "one/aorta",
        "one/vertebrae",
        "two/ct_1",
        "two/ct_2",
        "two/ct_3",
    ):
        scan(tmp_path / f"{name}.nii.gz")
    scan(tmp_path / "my-ct-seg" / "x.nii.gz")
    assert [Path(path).name for _, path, _ in listed(tmp_path)] == [
        "x.nii.gz", "ct_cropped.nii.gz", "ct_1.nii.gz", "ct_2.nii.gz", "ct_3.nii.gz",
    ]  # fmt: skip


def test_a_report_never_goes_to_two_scans(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_series(tmp_path / name, phantom((4, 8, 8)))
        scan(tmp_path / "both" / f"{name}.nii.gz")
    write(tmp_path / "report.txt")
    write(tmp_path / "both" / "report.txt")
    assert [report for _, _, report in listed(tmp_path)] == ["", "", "", ""]


def test_rows_of_a_csv_go_to_the_scans_they_name(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        scan(tmp_path / "scans" / f"case_{number}.nii.gz")
    write(tmp_path / "scans" / "case_1.txt", "Findings: Of its own.")
    write(
        tmp_path / "reports.csv",
        "VolumeName,Findings_EN\ncase_1.nii.gz,One.\ncase_2.nii.gz,Two.\n",
    )
    said = [source.read_report() for source in folder_dataset(tmp_path).sources]
    assert [r and r.sentences[0].text for r in said] == ["Of its own.", "Two.", None]


def slices(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_series(folder, phantom((4, 8, 8)))
    return folder


def test_a_row_whose_name_several_scans_have_goes_to_none(tmp_path: Path) -> None:
    for name in ("a/1", "b/1", "b/2"):
        scan(tmp_path / f"{name}.nii.gz")
    slices(tmp_path / "c" / "3")
    scan(tmp_path / "d" / "3.nii.gz")
    rows = "".join(f"{n}.nii.gz,One.\n" for n in (1, 2, 3))
    write(tmp_path / "reports.csv", f"VolumeName,Findings_EN\n{rows}")
    assert [said for _, _, said in listed(tmp_path)] == ["", "", "reports.csv", "", ""]


def test_a_report_above_is_not_taken_from_outside_the_folder(tmp_path: Path) -> None:
    for name in ("report.txt", "DICOM.txt"):
        write(tmp_path / name)
        assert [s.report for s in folder_dataset(slices(tmp_path / "DICOM")).sources] == [""]
        (tmp_path / name).unlink()


def test_a_report_above_is_not_taken_where_other_scans_lie_below_it(tmp_path: Path) -> None:
    slices(tmp_path / "p1")
    write(tmp_path / "report.txt")
    assert [said for _, _, said in listed(tmp_path)] == ["report.txt"]
    scan(tmp_path / "p2" / "ct" / "ct.nii.gz")
    assert [said for _, _, said in listed(tmp_path)] == ["", ""]


def test_a_json_that_tells_how_a_scan_was_made_is_no_report(tmp_path: Path) -> None:
    sidecar = '{"Modality": "CT", "SliceThickness": 1.5, "SeriesDescription": "Thorax"}'
    for number in (1, 2, 3):
        scan(tmp_path / f"sub-0{number}_ct.nii.gz")
        write(tmp_path / f"sub-0{number}_ct.json", sidecar)
    write(tmp_path / "sub-02_ct.txt")
    write(tmp_path / "sub-03_ct_report.json", '{"sentences": ["Heart size is normal."]}')
    assert [said for _, _, said in listed(tmp_path)] == [
        "", "sub-02_ct.txt", "sub-03_ct_report.json",
    ]  # fmt: skip


def test_only_what_is_named_like_a_mask_is_left_out_beside_a_ct(tmp_path: Path) -> None:
    for name in ("p1", "p2", "LUNG1-001", "scan-3", "lung_left", "heart"):
        scan(tmp_path / f"{name}.nii.gz")
    assert [path for _, path, _ in listed(tmp_path)] == [
        "LUNG1-001.nii.gz", "p1.nii.gz", "p2.nii.gz", "scan-3.nii.gz",
    ]  # fmt: skip


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "studies", tmp_path / "elsewhere"
    scan(elsewhere / "far" / "case_1.nii.gz")
    scan(root / "own" / "case_2.nii.gz")
    try:
        for name, to in (("a", root / "own"), ("b", elsewhere / "far"), ("c", elsewhere / "far"),
                         ("own/up", root), ("own/over", tmp_path)):  # fmt: skip
            (root / name).symlink_to(to, target_is_directory=True)
    except OSError:
        pytest.skip("no links can be made here")
    assert [(path, name) for name, path, _ in listed(root)] == [
        ("b/case_1.nii.gz", "case_1"), ("own/case_2.nii.gz", "case_2"),
    ]  # fmt: skip


def test_what_could_not_be_searched_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan(tmp_path / "case_1.nii.gz")
    assert folder_dataset(tmp_path).faults == ()
    scan(tmp_path.joinpath(*"abcdefghij") / "case_2.nii.gz")
    (tmp_path / "locked").mkdir()
    plain = os.scandir

    def scandir(path):
        if Path(path).name == "locked":
            raise PermissionError(13, "denied", str(path))
        return plain(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = folder_dataset(tmp_path)
    assert found.ids == ("case_1",)
    assert [(f.code, f.problem) for f in found.faults] == [
        ("unreadable", "A folder in it could not be read; studies may be missing."),
        ("too-deep", "Folders more than 8 deep were not searched."),
    ]
    with pytest.raises(SimCroPError, match="could not be read"):
        folder_dataset(tmp_path / "locked")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
def test_a_pipe_is_never_opened(tmp_path: Path) -> None:
    root = tmp_path / "studies"
    scan(root / "case_1.nii.gz")
    (root / "slices").mkdir()
    for name in ("a.nii.gz", "case_1.txt", "case_1.json", "r.csv", "slices/001", "slices/r.txt"):
        os.mkfifo(root / name)
    (root / "train").mkdir()  # looked over for CT-RATE's tables
    found: list[object] = []
    work = threading.Thread(target=lambda: found.append(open_worklist(root).ids), daemon=True)
    work.start()
    work.join(20)
    assert found == [("case_1",)]


def test_an_unknown_person_s_folder_is_refused_in_a_sentence() -> None:
    for place in ("~nobody-of-this-name/x", "ct-rate:~nobody-of-this-name/x"):
        with pytest.raises(SimCroPError) as caught:
            open_worklist(place)
        assert caught.value.code == "missing"


def test_numbers_made_for_the_list_are_told_from_names(tmp_path: Path) -> None:
    for name in ("DOE_JOHN", "study-00001", "study-9"):
        scan(tmp_path / f"{name}.nii.gz")
    sources = folder_dataset(tmp_path).sources
    assert [(s.id, s.is_named) for s in sources] == [
        ("study-00001-unnamed", False), ("study-00001", True), ("study-9", True),
    ]  # fmt: skip


def test_studies_of_the_same_name_are_numbered(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        scan(tmp_path / folder / "case_1.nii.gz")
    assert [name for name, _, _ in listed(tmp_path)] == ["study-00001", "study-00002"]


def test_a_folder_without_scans_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "notes.txt")
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(SimCroPError) as caught:
            folder_dataset(folder)
        assert caught.value.code in ("no-studies", "missing")


@pytest.mark.parametrize("header", ["study,volume,report", "study,ct,report"])
def test_a_csv_of_either_command_is_a_list(tmp_path: Path, header: str) -> None:
    scan(tmp_path / "s.nii.gz")
    write(tmp_path / "r.txt")
    path = write(tmp_path / "list.csv", f"{header}\na,s.nii.gz,r.txt\n")
    assert is_list(path)
    (source,) = open_worklist(path).sources
    assert isinstance(source, ReadableSource)
    assert source.read().source == tmp_path / "s.nii.gz"
    assert source.read_report().text == TEXT
    assert not is_list(write(tmp_path / "reports.csv", "VolumeName,Findings_EN\na,b\n"))


def test_ct_rate_lists_what_is_there_with_the_geometry_of_its_metadata(tmp_path: Path) -> None:
    scan(tmp_path / "train" / "train_1" / "train_1_a" / "train_1_a_1.nii.gz")
    write(
        tmp_path / "reports.csv",
        "VolumeName,Findings_EN\ntrain_1_a_1.nii.gz,One.\ntrain_2_a_1.nii.gz,Two.\n",
    )
    write(
        tmp_path / "metadata.csv",
        "VolumeName,XYSpacing,ZSpacing,RescaleSlope,RescaleIntercept\n"
        'train_1_a_1.nii.gz,"[0.5, 0.5]",2,1,-1024\n',
    )
    for place in (tmp_path, f"ct-rate:{tmp_path}"):
        (source,) = open_worklist(place).sources
        assert source.id == "train_1_a_1"
        assert source.read().spacing_mm == (0.5, 0.5, 2.0)
        assert source.read_report().sentences[0].text == "One."


def test_a_phantom_tells_its_report_without_a_scan() -> None:
    (source,) = open_worklist("phantoms:3-4").sources
    assert source.read_report().text == source.load().report.text


def test_the_stamp_of_a_scan_is_that_of_its_file_alone(tmp_path: Path) -> None:
    path, said = scan(tmp_path / "case_1.nii.gz"), write(tmp_path / "case_1.txt")
    (before,) = folder_dataset(tmp_path).sources
    said.write_text("Findings: Another.")
    scan(tmp_path / "case_0.nii.gz")
    after = folder_dataset(tmp_path).sources[1]
    stamp = scan_stamp(before)
    assert scan_stamp(after) == stamp
    path.write_bytes(path.read_bytes() + b"\0")
    assert scan_stamp(after) != stamp
