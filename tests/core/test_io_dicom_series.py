"""Folders: several series, duplicates, other files; and that nothing names the patient."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_builder import (
    CANARY,
    phantom,
    plant,
    save,
    slice_positions,
    write_enhanced,
    write_series,
)
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from simcrop_core.errors import SimCroPError
from simcrop_core.io import dicom_search, series_to_choose
from simcrop_core.io.dicom import list_series, read_dicom

CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)


def codes(volume) -> list[str]:
    return [note.code for note in volume.notes]


def refusal(path: Path, **options) -> SimCroPError:
    with pytest.raises(SimCroPError) as caught:
        read_dicom(path, **options)
    return caught.value


def equal(volume, hu_ZYX) -> bool:
    return np.array_equal(volume.hu_XYZ, hu_ZYX.transpose(2, 1, 0))


# -- choosing -----------------------------------------------------------------------------------


@pytest.fixture
def study(tmp_path):
    """Thin axial, thick axial, a longer coronal, a scout and an MR; mixed in one folder."""
    thin = phantom((9, 16, 16), seed=1)
    thick = phantom((4, 16, 16), seed=2)
    coronal = phantom((14, 16, 16), seed=3)
    write_series(tmp_path, thin, prefix="a", tags={"SeriesNumber": 2, "ConvolutionKernel": "B70f"})
    write_series(tmp_path, thick, prefix="b", spacing=(1, 1, 5), tags={"SeriesNumber": 4})
    write_series(tmp_path, coronal, prefix="c", orientation=CORONAL, tags={"SeriesNumber": 5})
    write_series(
        tmp_path,
        phantom((20, 16, 16)),
        prefix="d",
        tags={"SeriesNumber": 1, "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
    )
    write_series(
        tmp_path, phantom((30, 16, 16)), prefix="e", tags={"SeriesNumber": 6, "Modality": "MR"}
    )
    return tmp_path, {"thin": thin, "thick": thick, "coronal": coronal}


def test_the_largest_axial_ct_is_chosen_with_a_note(study):
    folder, hu = study
    volume = read_dicom(folder)
    assert equal(volume, hu["thin"])
    (note,) = [n for n in volume.notes if n.code == "series-chosen"]
    assert "5 series" in note.text
    assert "9 slices" in note.text


def test_series_are_listed_and_each_can_be_chosen(study):
    folder, hu = study
    listed = {info.id.split("-")[0]: info for info in list_series(folder)}
    assert set(listed) == {"1", "2", "4", "5", "6"}
    assert [n for n, info in listed.items() if info.is_chosen] == ["2"]
    assert [n for n, info in listed.items() if info.is_localizer] == ["1"]
    assert listed["5"].plane == "coronal"
    assert listed["6"].modality == "MR"
    assert listed["2"].kernel == "B70f"
    assert listed["2"].shape == (16, 16, 9)
    np.testing.assert_allclose(listed["4"].spacing_mm, (1, 1, 5))
    assert listed["4"].slice_thickness_mm == 5
    assert "axial CT, 9 slices, 2.5 mm apart" in str(listed["2"])
    for number, name in (("4", "thick"), ("5", "coronal"), ("2", "thin")):
        assert equal(read_dicom(folder, series=listed[number].id), hu[name])
    assert refusal(folder, series=listed["6"].id).code == "not-ct"
    uid = pydicom.dcmread(folder / "b0000.dcm").SeriesInstanceUID
    assert equal(read_dicom(folder, series=uid), hu["thick"])
    assert refusal(folder, series="").code == "unknown-series"


def test_a_person_may_choose_among_the_ct_series_that_are_volumes(study, tmp_path_factory):
    folder, _ = study
    offered = [info.id.split("-")[0] for info in series_to_choose(folder)]
    assert offered == ["5", "2", "4"]  # no scout, no MR; the largest first
    assert [info.is_chosen for info in series_to_choose(folder)] == [False, True, False]
    assert series_to_choose(folder / "b0001.dcm") == ()
    alone = tmp_path_factory.mktemp("alone")
    write_series(alone, phantom((4, 16, 16)))
    write_series(alone, phantom((1, 16, 16)), prefix="z", tags={"SeriesNumber": 9})
    assert series_to_choose(alone) == ()


def test_ids_stay_the_same_wherever_the_files_lie(study, tmp_path_factory):
    folder, _ = study
    other = tmp_path_factory.mktemp("copy") / "deep"
    shutil.copytree(folder, other / "er")
    assert [i.id for i in list_series(folder)] == [i.id for i in list_series(other)]


def test_an_unknown_series_is_refused_with_the_list(study):
    folder, _ = study
    error = refusal(folder, series="17")
    assert error.code == "unknown-series"
    for info in list_series(folder):
        assert info.id in error.remedy


def test_a_file_stands_for_its_series(study):
    folder, hu = study
    assert equal(read_dicom(folder / "b0002.dcm"), hu["thick"])
    assert equal(read_dicom(folder / "c0000.dcm"), hu["coronal"])
    assert refusal(folder / "e0000.dcm").code == "not-ct"
    chosen = [info for info in list_series(folder / "b0001.dcm") if info.is_chosen]
    assert [info.n_slices for info in chosen] == [4]


def test_only_scouts_and_only_others(tmp_path):
    scout = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
    write_series(tmp_path / "scout", phantom(), tags=scout)
    assert refusal(tmp_path / "scout").code == "no-series"
    write_series(tmp_path / "mr", phantom(), tags={"Modality": "MR"})
    assert refusal(tmp_path / "mr").code == "not-ct"


def test_a_coronal_ct_alone_is_read(tmp_path):
    hu = phantom()
    write_series(tmp_path, hu, orientation=CORONAL)
    assert equal(read_dicom(tmp_path), hu)
    write_series(tmp_path, phantom((3, 20, 24)), orientation=CORONAL, prefix="x")
    (note,) = [n for n in read_dicom(tmp_path).notes if n.code == "series-chosen"]
    assert "no axial CT" in note.text


@pytest.mark.parametrize(
    "change",
    [
        {"FrameOfReferenceUID": "1.2.3"},
        {"ImageOrientationPatient": [1, 0, 0, 0, 0.98480775, 0.17364818]},
        {"PixelSpacing": [0.7, 0.81]},
    ],
)
def test_slices_of_another_geometry_in_one_series_are_split_off(tmp_path, change):
    hu = phantom((10, 16, 16))

    def edit(k: int, ds: Dataset) -> None:
        if k >= 6:
            for name, value in change.items():
                setattr(ds, name, value)

    write_series(tmp_path, hu, edit=edit)
    volume = read_dicom(tmp_path)
    assert equal(volume, hu[:6])
    assert "series-chosen" in codes(volume)
    assert [info.n_slices for info in list_series(tmp_path)] == [6, 4]


def test_a_slice_of_another_size_leaves_a_gap_that_is_refused(tmp_path):
    def edit(k: int, ds: Dataset) -> None:
        if k == 4:
            ds.Rows, ds.Columns = ds.Rows // 2, ds.Columns * 2

    write_series(tmp_path, phantom((10, 16, 16)), edit=edit)
    assert refusal(tmp_path).code == "missing-slice"


# -- the same place twice -----------------------------------------------------------------------


def test_identical_duplicates_are_dropped_with_a_note(tmp_path):
    hu = phantom()
    files = write_series(tmp_path, hu)
    shutil.copy(files[2], tmp_path / "again.dcm")
    (tmp_path / "backup").mkdir()
    shutil.copy(files[4], tmp_path / "backup" / "again.dcm")
    volume = read_dicom(tmp_path)
    assert equal(volume, hu)
    (note,) = [n for n in volume.notes if n.code == "duplicate-slices"]
    assert "2 slices" in note.text
    assert [info.n_slices for info in list_series(tmp_path)] == [6]


def test_padding_of_dropped_duplicates_is_not_counted(tmp_path):
    hu = phantom()
    hu[:, :2] = -3024
    files = write_series(
        tmp_path,
        hu,
        dtype=np.int16,
        edit=lambda k, ds: ds.add_new("PixelPaddingValue", "SS", -2000),
    )
    for k, file in enumerate(files):
        shutil.copy(file, tmp_path / f"again{k}.dcm")
    (note,) = [n for n in read_dicom(tmp_path).notes if n.code == "padding"]
    assert note.text.startswith("10.0%")


def test_duplicates_with_other_names_for_themselves_are_dropped_too(tmp_path):
    hu = phantom()
    files = write_series(tmp_path, hu)
    ds = pydicom.dcmread(files[3])
    ds.SOPInstanceUID = generate_uid()
    save(ds, tmp_path / "again.dcm", "rle")  # the same pixels, stored in another way
    volume = read_dicom(tmp_path)
    assert equal(volume, hu)
    assert "duplicate-slices" in codes(volume)


@pytest.mark.parametrize("same_uid", [False, True])
def test_different_slices_at_one_place_are_refused(tmp_path, same_uid):
    files = write_series(tmp_path, phantom())
    ds = pydicom.dcmread(files[3])
    if not same_uid:
        ds.SOPInstanceUID = generate_uid()
    pixels = bytearray(ds.PixelData)
    pixels[100] ^= 1
    ds.PixelData = bytes(pixels)
    save(ds, tmp_path / "zzz.dcm")
    error = refusal(tmp_path)
    assert (error.code, error.path) == ("duplicate-slices", str(tmp_path / "zzz.dcm"))


@pytest.mark.parametrize(
    "name", ["TemporalPositionIdentifier", "AcquisitionNumber", "NominalPercentageOfCardiacPhase"]
)
def test_phases_at_the_same_places_are_split(tmp_path, name):
    phases = [phantom(seed=s) for s in range(3)]
    positions = np.concatenate([slice_positions(6, spacing=(0.8, 0.7, 2.5))] * 3)

    def edit(k: int, ds: Dataset) -> None:
        setattr(ds, name, k // 6 + 1)

    write_series(tmp_path, np.concatenate(phases), positions=positions, edit=edit)
    listed = list_series(tmp_path)
    assert [info.n_slices for info in listed] == [6, 6, 6]
    assert len({info.id for info in listed}) == 3
    volume = read_dicom(tmp_path)
    assert "series-chosen" in codes(volume)
    read = [read_dicom(tmp_path, series=info.id) for info in listed]
    assert {sum(equal(v, hu) for v in read) for hu in phases} == {1}
    assert equal(
        read_dicom(tmp_path, series=next(i.id for i in listed if i.is_chosen)),
        phases[next(p for p in range(3) if equal(volume, phases[p]))],
    )


def test_phases_that_nothing_tells_apart_are_refused(tmp_path):
    positions = np.concatenate([slice_positions(6, spacing=(0.8, 0.7, 2.5))] * 2)
    hu = np.concatenate([phantom(seed=0), phantom(seed=1)])
    write_series(tmp_path, hu, positions=positions)
    assert refusal(tmp_path).code == "duplicate-slices"


def test_acquisitions_of_single_slices_are_not_taken_for_phases(tmp_path):
    positions = slice_positions(7, spacing=(0.8, 0.7, 2.5))
    positions[6] = positions[2]
    files = write_series(
        tmp_path,
        phantom((7, 20, 24)),
        positions=positions,
        edit=lambda k, ds: setattr(ds, "AcquisitionNumber", k + 1),
    )
    error = refusal(tmp_path)
    assert error.code == "duplicate-slices"
    assert error.path in (str(files[2]), str(files[6]))
    assert [info.n_slices for info in list_series(tmp_path)] == [6]


def test_slices_side_by_side_in_one_plane_are_refused(tmp_path):
    positions = slice_positions(6, spacing=(0.8, 0.7, 2.5))
    positions[3] = positions[2] + [5, 0, 0]
    write_series(tmp_path, phantom(), positions=positions)
    assert refusal(tmp_path).code == "shifted-slices"


def test_phases_in_one_enhanced_file_are_split(tmp_path):
    hu = phantom((12, 10, 10))

    def edit(ds: Dataset) -> None:
        for k, item in enumerate(ds.PerFrameFunctionalGroupsSequence):
            item.FrameContentSequence[0].TemporalPositionIndex = 1 + k // 6
            place = ds.PerFrameFunctionalGroupsSequence[k % 6].PlanePositionSequence[0]
            item.PlanePositionSequence[0].ImagePositionPatient = place.ImagePositionPatient

    write_enhanced(tmp_path / "one.dcm", hu, edit=edit)
    first, second = (read_dicom(tmp_path, series=i.id) for i in list_series(tmp_path))
    assert {equal(first, hu[:6]), equal(second, hu[6:])} in ({True}, {False})
    assert equal(first, hu[:6]) or equal(first, hu[6:])


# -- what else lies in folders ------------------------------------------------------------------


def test_other_files_are_ignored_and_counted(tmp_path):
    hu = phantom()
    write_series(tmp_path / "a" / "b", hu)
    (tmp_path / "LICENSE").write_text("text")
    (tmp_path / "a" / "notes.txt").write_text("x" * 1000)
    (tmp_path / "a" / "b" / "empty").touch()
    (tmp_path / ".DS_Store").write_text("hidden files do not even count")
    volume = read_dicom(tmp_path)
    assert equal(volume, hu)
    (note,) = [n for n in volume.notes if n.code == "ignored-files"]
    assert "3 files" in note.text


def test_a_directory_file_stands_for_its_folder(tmp_path):
    from pydicom.fileset import FileSet

    hu = phantom()
    fileset = FileSet()
    for file in write_series(tmp_path / "source", hu):
        ds = pydicom.dcmread(file)
        ds.StudyID, ds.StudyDate, ds.StudyTime, ds.AccessionNumber = "1", "20200101", "120000", "1"
        fileset.add(ds)
    fileset.write(tmp_path / "media")
    volume = read_dicom(tmp_path / "media")
    assert equal(volume, hu)
    assert "ignored-files" not in codes(volume)
    assert equal(read_dicom(tmp_path / "media" / "DICOMDIR"), hu)
    assert len(list_series(tmp_path / "media" / "DICOMDIR")) == 1


@pytest.mark.parametrize("content", [b"", b"not an image at all" * 20])
def test_a_ruined_slice_is_named_not_dropped(tmp_path, content):
    files = write_series(tmp_path / "suffix", phantom())
    files[-1].write_bytes(content)
    error = refusal(tmp_path / "suffix")
    assert error.path == str(files[-1])
    assert error.code == ("not-dicom" if content else "empty")
    for k, file in enumerate(write_series(tmp_path / "numbers", phantom())):
        file.rename(tmp_path / "numbers" / f"IM.1.2.{k}")
    (tmp_path / "numbers" / "IM.1.2.5").write_bytes(content)
    assert refusal(tmp_path / "numbers").path == str(tmp_path / "numbers" / "IM.1.2.5")


def test_an_unusable_slice_of_the_series_is_named(tmp_path):
    files = write_series(
        tmp_path, phantom(), edit=lambda k, ds: delattr(ds, "PixelSpacing") if k == 5 else None
    )
    for path in (tmp_path, files[0]):
        error = refusal(path)
        assert (error.code, error.path) == ("no-geometry", str(files[5]))


def test_a_page_of_text_in_the_series_does_not_matter(tmp_path):
    def edit(k: int, ds: Dataset) -> None:
        if k == 6:
            ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
            del ds.ImagePositionPatient, ds.ImageOrientationPatient

    write_series(tmp_path, phantom((7, 20, 24)), edit=edit)
    assert equal(read_dicom(tmp_path), phantom((7, 20, 24))[:6])


def test_paths_that_are_no_series(tmp_path):
    assert refusal(tmp_path).code == "not-dicom"
    assert refusal(tmp_path / "absent").code == "missing"
    (tmp_path / "text.txt").write_text("no image")
    assert refusal(tmp_path / "text.txt").code == "not-dicom"
    (tmp_path / "empty.dcm").touch()
    assert refusal(tmp_path / "empty.dcm").code == "empty"
    with pytest.raises(SimCroPError):
        list_series(tmp_path / "absent")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_in_the_folder_does_not_hang(tmp_path):
    hu = phantom()
    write_series(tmp_path, hu)
    os.mkfifo(tmp_path / "pipe.dcm")
    assert equal(read_dicom(tmp_path), hu)


def test_a_link_to_the_folder_itself_does_not_loop(tmp_path):
    hu = phantom()
    write_series(tmp_path, hu)
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert equal(read_dicom(tmp_path), hu)


def test_searching_is_bounded(tmp_path, monkeypatch):
    write_series(tmp_path / "1/2/3/4/5/6/7/8", phantom())
    assert read_dicom(tmp_path).shape == (24, 20, 6)
    write_series(tmp_path / "x/2/3/4/5/6/7/8/9", phantom((9, 8, 8)))
    assert read_dicom(tmp_path).shape == (24, 20, 6)
    monkeypatch.setattr(dicom_search, "MOST_FILES", 5)
    assert refusal(tmp_path).code == "too-many-files"


# -- privacy ------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_no_text_of_the_header_survives(tmp_path, capfd, recwarn):
    write_series(
        tmp_path,
        phantom(),
        transfer_syntax="implicit",
        prefix="s",
        edit=lambda k, ds: (plant(ds), setattr(ds, "StudyInstanceUID", "1.2.3.4567891234")),
    )
    raw = next(tmp_path.iterdir()).read_bytes()
    assert raw.count(CANARY.encode()) > 1000
    uid = pydicom.dcmread(next(tmp_path.iterdir())).SeriesInstanceUID.encode()
    listed = list_series(tmp_path)
    volume = read_dicom(tmp_path)
    outputs = [
        repr(volume).encode(),
        repr(volume.notes).encode(),
        pickle.dumps(volume),
        *[pickle.dumps((i.id, i.modality, i.plane, i.is_chosen)) for i in listed],
    ]
    with pytest.raises(SimCroPError) as caught:
        read_dicom(tmp_path, series="none")
    outputs += [str(caught.value).encode(), pickle.dumps(caught.value)]
    printed = capfd.readouterr()
    outputs += [
        printed.out.encode(),
        printed.err.encode(),
        repr([w.message for w in recwarn]).encode(),
    ]
    for output in outputs:
        assert CANARY.encode() not in output
        assert uid not in output
        assert b"1.2.3.4567891234" not in output


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "keyword",
    [
        "Modality",
        "PhotometricInterpretation",
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "RescaleSlope",
        "RescaleIntercept",
        "RescaleType",
        "SeriesNumber",
        "NumberOfFrames",
        "SliceThickness",
        "SpacingBetweenSlices",
        "GantryDetectorTilt",
        "SpecificCharacterSet",
    ],
)
def test_nothing_quotes_an_element_that_should_hold_something_else(tmp_path, keyword):
    files = write_series(tmp_path, phantom(), transfer_syntax="implicit")
    for file in files[:2]:
        ds = pydicom.dcmread(file)
        tag = pydicom.datadict.tag_for_keyword(keyword)
        element = pydicom.DataElement(tag, "LO", CANARY)
        ds[tag] = element
        ds.save_as(file)
    for read in (read_dicom, list_series):
        try:
            outcome = pickle.dumps(read(tmp_path))
        except SimCroPError as error:
            outcome = str(error).encode()
        assert CANARY.encode() not in outcome
