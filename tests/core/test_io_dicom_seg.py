"""DICOM SEG, read back by pydicom and highdicom alone."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from dicom_builder import phantom, slice_positions, write_enhanced, write_series

from simcrop_core.cli import main
from simcrop_core.errors import SimCroPError
from simcrop_core.io import read_volume, write_labels
from simcrop_core.io.dicom_seg import write_seg

SHAPE_ZYX = (6, 20, 24)
#: Axial, coronal, and axial with rows and columns that run the other way.
ORIENTATIONS = {
    "axial": (1, 0, 0, 0, 1, 0),
    "coronal": (1, 0, 0, 0, 0, -1),
    "turned": (-1, 0, 0, 0, -1, 0),
    "oblique": (0.936, 0.352, 0, -0.352, 0.936, 0),
}


def blocks(shape_XYZ: tuple[int, ...]) -> np.ndarray:
    """Labels 1, 4 and 9 in places that no flip or exchange of axes leaves alone."""
    labels = np.zeros(shape_XYZ, np.int32)
    labels[2:5, 3:9, 1:3] = 1
    labels[15:22, 12:14, 2:5] = 4
    labels[9, 17, 0] = 9
    return labels


def places_LPS(path: Path) -> dict[str, np.ndarray]:
    """Millimetres (LPS) of every voxel of every segment, from the file's own elements."""
    seg = pydicom.dcmread(path)
    shared = seg.SharedFunctionalGroupsSequence[0]
    direction = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    rows, columns = shared.PixelMeasuresSequence[0].PixelSpacing
    titles = {s.SegmentNumber: s.SegmentLabel for s in seg.SegmentSequence}
    found = defaultdict(list)
    frames = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    for frame, group in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        position = group.PlanePositionSequence[0].ImagePositionPatient
        title = titles[group.SegmentIdentificationSequence[0].ReferencedSegmentNumber]
        row, column = np.nonzero(frame)
        along = np.outer(column * columns, direction[:3]) + np.outer(row * rows, direction[3:])
        found[title].append(np.array(position, float) + along)
    return {title: np.concatenate(points) for title, points in found.items()}


def rounded(points: np.ndarray) -> set[tuple[float, ...]]:
    return set(map(tuple, np.round(points, 2) + 0.0))


def refusal(*words, **options) -> SimCroPError:
    with pytest.raises(SimCroPError) as caught:
        write_seg(*words, **options)
    return caught.value


@pytest.mark.parametrize("kind", ORIENTATIONS)
def test_each_voxel_is_on_the_right_side_at_the_right_millimetre(tmp_path: Path, kind: str) -> None:
    source = tmp_path / "ct"
    direction = ORIENTATIONS[kind]
    write_series(source, phantom(SHAPE_ZYX), orientation=direction)
    volume = read_volume(source)
    labels = blocks(volume.shape)
    out = tmp_path / "labels.dcm"
    write_seg(out, labels, volume.grid, {1: "lung", 4: "Rippe", 9: "nodule"}, source)

    found = places_LPS(out)
    assert set(found) == {"lung", "Rippe", "nodule"}
    # The truth by the series' own numbers: spacing and origin are what `write_series` writes.
    starts = slice_positions(
        SHAPE_ZYX[0],
        spacing=(0.8, 0.7, 2.5),
        orientation=direction,
        origin=(-9.0, 5.0, -120.0),
    )
    for label, title in ((1, "lung"), (4, "Rippe"), (9, "nodule")):
        x, y, z = np.nonzero(labels == label)
        along = np.outer(x * 0.8, direction[:3]) + np.outer(y * 0.7, direction[3:])
        assert rounded(found[title]) == rounded(starts[z] + along), (kind, title)


def test_labels_with_other_axes_land_on_the_same_voxels(tmp_path: Path) -> None:
    source = tmp_path / "ct"
    write_series(source, phantom(SHAPE_ZYX))
    volume = read_volume(source)
    labels = blocks(volume.shape)
    write_seg(tmp_path / "a.dcm", labels, volume.grid, {}, source)
    affine = volume.grid.affine @ np.diag([-1.0, 1, 1, 1])
    affine[:3, 3] = volume.grid.to_world((volume.shape[0] - 1, 0, 0))
    flipped = type(volume.grid)(volume.shape, affine)
    write_seg(tmp_path / "b.dcm", labels[::-1], flipped, {}, source)
    a, b = places_LPS(tmp_path / "a.dcm"), places_LPS(tmp_path / "b.dcm")
    assert set(a) == set(b) == {"label 1", "label 4", "label 9"}
    assert all(rounded(a[title]) == rounded(b[title]) for title in a)


def test_segments_say_what_they_are_and_refer_to_their_slices(tmp_path: Path) -> None:
    source = tmp_path / "ct"
    tags = {"SpecificCharacterSet": "ISO_IR 100", "PatientName": "Müller^Jörg"}
    files = write_series(source, phantom(SHAPE_ZYX), tags=tags)
    volume = read_volume(source)
    names = {1: "Left lung", 4: "肝臓\\" + "x" * 80, 7: "spleen"}
    out = tmp_path / "labels.dcm"
    write_seg(out, blocks(volume.shape), volume.grid, names, source, model="starter")
    seg = highdicom.seg.segread(out)
    first = pydicom.dcmread(files[0])
    assert seg.StudyInstanceUID == first.StudyInstanceUID
    assert seg.SeriesInstanceUID != first.SeriesInstanceUID
    assert seg.FrameOfReferenceUID == first.FrameOfReferenceUID
    assert (str(seg.PatientName), seg.PatientID) == ("Müller^Jörg", "0")
    rows = [
        (
            s.SegmentNumber,
            s.SegmentLabel,
            s.SegmentedPropertyTypeCodeSequence[0].CodeMeaning,
            s.SegmentAlgorithmType,
        )
        for s in seg.SegmentSequence
    ]
    assert rows == [
        (1, "Left lung", "Lung", "AUTOMATIC"),
        (2, "肝臓 " + "x" * 61, "Tissue", "AUTOMATIC"),
        (3, "spleen", "Spleen", "AUTOMATIC"),
        (4, "label 9", "Tissue", "AUTOMATIC"),
    ]
    assert {s.SegmentAlgorithmName for s in seg.SegmentSequence} == {"starter"}
    # Each frame names the image it lies on, at that image's own place.
    places = {d.SOPInstanceUID: d.ImagePositionPatient for d in map(pydicom.dcmread, files)}
    for group in seg.PerFrameFunctionalGroupsSequence:
        source_image = group.DerivationImageSequence[0].SourceImageSequence[0]
        position = group.PlanePositionSequence[0].ImagePositionPatient
        assert position == places[source_image.ReferencedSOPInstanceUID]


def test_what_cannot_be_a_seg_is_refused_in_a_sentence(tmp_path: Path) -> None:
    source = tmp_path / "ct"
    files = write_series(source, phantom(SHAPE_ZYX))
    volume = read_volume(source)
    labels, out = blocks(volume.shape), tmp_path / "labels.dcm"
    nifti = tmp_path / "scan.nii.gz"
    write_labels(nifti, labels, volume.grid)
    many = tmp_path / "many.dcm"
    write_enhanced(many, phantom(SHAPE_ZYX))
    moved = volume.grid.window((1, 0, 0), volume.shape)
    cases = {
        "suffix": (tmp_path / "labels.seg", labels, volume.grid, {}, source),
        "no-labels": (out, labels * 0, volume.grid, {1: "lung"}, source),
        "mask-mismatch": (out, labels, moved, {}, source),
        "same-file": (files[0], labels, volume.grid, {}, source),
        "missing": (out, labels, volume.grid, {}, tmp_path / "nothing"),
    }
    for code, words in cases.items():
        assert refusal(*words).code == code
    for other in (nifti, many):
        assert refusal(out, labels, volume.grid, {}, other).code == "no-slices"
    with pytest.raises(TypeError, match="whole numbers"):
        write_seg(out, labels / 2, volume.grid, {}, source)
    assert not out.exists()


def test_a_failed_write_leaves_the_earlier_file(tmp_path: Path, monkeypatch) -> None:
    source, out = tmp_path / "ct", tmp_path / "labels.dcm"
    write_series(source, phantom(SHAPE_ZYX))
    volume = read_volume(source)
    out.write_bytes(b"earlier")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(highdicom.seg.Segmentation, "save_as", full)
    error = refusal(out, blocks(volume.shape), volume.grid, {}, source)
    assert error.code == "cannot-write"
    assert out.read_bytes() == b"earlier"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ct", "labels.dcm"]


def test_a_real_series_carries_its_labels_on_its_slices(tmp_path: Path, real_data: Path) -> None:
    source, out = real_data / "ct" / "nsclc-lung1-001" / "image", tmp_path / "labels.dcm"
    volume = read_volume(source)
    hu = np.asarray(volume.hu_XYZ)
    labels = ((hu > -950) & (hu < -700)).astype(np.uint8)
    write_seg(out, labels, volume.grid, {1: "lungs"}, source)
    images = {}
    for file in source.glob("*.dcm"):
        image = pydicom.dcmread(file)
        images[image.SOPInstanceUID] = image
    seg = pydicom.dcmread(out)
    frames = seg.pixel_array
    assert len(frames) > 100
    total = 0
    for frame, group in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        uid = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        image = images[uid]
        values = image.pixel_array * float(image.RescaleSlope) + float(image.RescaleIntercept)
        assert np.array_equal(frame, (values > -950) & (values < -700))
        position = group.PlanePositionSequence[0].ImagePositionPatient
        assert np.allclose(position, image.ImagePositionPatient)
        total += int(frame.sum())
    assert total == int(labels.sum())


def test_the_command_writes_a_seg_and_refuses_a_scan_without_slices(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from simcrop_core.input_spec import InputSpec
    from simcrop_core.model import VisionConfig, create_model, save_model

    spec = InputSpec(shape=(32, 32, 16), spacing_mm=(7, 7, 14), patch_shape=(4, 4, 2))
    model = create_model(
        "starter",
        input_spec=spec,
        vision=VisionConfig(depth=4, width=48, heads=4),
        segmentation_labels=["lung", "heart"],
    )
    save_model(model, tmp_path / "model")
    source, out = tmp_path / "ct", tmp_path / "labels.dcm"
    write_series(source, phantom((12, 40, 40)), spacing=(8, 8, 20))
    words = ["segment", str(source), "--model", str(tmp_path / "model"), "--out", str(out)]
    assert main(words) == 0
    seg = highdicom.seg.segread(out)
    assert [s.SegmentLabel for s in seg.SegmentSequence] == ["lung", "heart"]
    assert (tmp_path / "labels.json").exists()
    nifti = tmp_path / "scan.nii.gz"
    write_labels(
        nifti, blocks((24, 20, 6)), read_volume(source).grid.window((0, 0, 0), (24, 20, 6))
    )
    words = ["segment", str(nifti), "--model", "nowhere", "--out", str(tmp_path / "other.dcm")]
    assert main(words) == 2
    assert "needs a file for each slice" in capsys.readouterr().err
