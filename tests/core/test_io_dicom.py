"""Values: transfer syntaxes, rescale, bits, padding, damaged files."""

from __future__ import annotations

import subprocess
import sys
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_builder import GDCM_SYNTAXES, phantom, save, write_enhanced, write_series
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from simcrop_core.errors import SimCroPError
from simcrop_core.io.dicom import list_series, read_dicom
from simcrop_core.io.guard import Limits

SYNTAXES = ["implicit", "explicit", "big-endian", "deflated", "rle", *GDCM_SYNTAXES]


def codes(volume) -> list[str]:
    return [note.code for note in volume.notes]


def refusal(path: Path, **options) -> SimCroPError:
    with pytest.raises(SimCroPError) as caught:
        read_dicom(path, **options)
    assert caught.value.problem
    assert caught.value.remedy
    return caught.value


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize(("dtype", "intercept"), [(np.uint16, -1024), (np.int16, 0)])
def test_every_transfer_syntax_gives_the_written_values(tmp_path, syntax, dtype, intercept):
    hu = phantom()
    write_series(tmp_path, hu, transfer_syntax=syntax, dtype=dtype, intercept=intercept)
    volume = read_dicom(tmp_path)
    assert volume.hu_XYZ.dtype == np.int16
    np.testing.assert_array_equal(volume.hu_XYZ, hu.transpose(2, 1, 0))
    assert volume.format == "DICOM"
    assert codes(volume) == ["partial-chest"]
    np.testing.assert_allclose(volume.spacing_mm, (0.8, 0.7, 2.5))


def test_importing_the_reader_imports_no_library_of_formats():
    code = (
        "import sys, simcrop_core.io.dicom\n"
        "print(sorted({'pydicom', 'gdcm', 'SimpleITK', 'nibabel', 'torch', 'scipy'} & "
        "set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert printed.stdout.strip() == "[]", printed.stderr


def test_the_array_is_laid_out_slice_by_slice_without_a_copy(tmp_path):
    write_series(tmp_path, phantom())
    hu_XYZ = read_dicom(tmp_path).hu_XYZ
    assert hu_XYZ.T.flags.c_contiguous
    assert not hu_XYZ.flags.writeable


@pytest.mark.parametrize("syntax", ["explicit", "deflated", "rle", "jpeg-lossless", "jpeg-2000"])
def test_enhanced_multiframe_uses_the_place_and_rescale_of_each_frame(tmp_path, syntax):
    hu = phantom()
    intercepts = [-1024, -1100, -1200, -1024, -1500, -1024]
    write_enhanced(
        tmp_path / "one.dcm",
        hu,
        order=[3, 1, 0, 2, 5, 4],
        intercepts=intercepts,
        transfer_syntax=syntax,
    )
    for path in (tmp_path, tmp_path / "one.dcm"):
        volume = read_dicom(path)
        np.testing.assert_array_equal(volume.hu_XYZ, hu.transpose(2, 1, 0))
        np.testing.assert_allclose(volume.grid.to_world([0, 0, 0]), (9, -5, -120))
        np.testing.assert_allclose(volume.spacing_mm, (0.8, 0.7, 2.5))
    (listed,) = list_series(tmp_path)
    assert (listed.n_slices, listed.plane, listed.is_chosen) == (6, "axial", True)


def test_multiframe_without_a_place_for_each_frame_is_refused(tmp_path):
    def drop(ds: Dataset) -> None:
        ds.PerFrameFunctionalGroupsSequence = ds.PerFrameFunctionalGroupsSequence[:-1]

    write_enhanced(tmp_path / "one.dcm", phantom(), edit=drop)
    error = refusal(tmp_path / "one.dcm")
    assert "6 images in one and says for 5" in str(error)


def test_rescale_is_taken_from_each_slice(tmp_path):
    hu = phantom()

    def edit(k: int, ds: Dataset) -> None:
        # Even slices store half the values: slope 2, another intercept, another sign.
        if k % 2:
            return
        stored = (hu[k].astype(np.int32) // 2 * 2 + 1000) // 2
        ds.PixelData = stored.astype("<i2").tobytes()
        ds.PixelRepresentation, ds.RescaleSlope, ds.RescaleIntercept = 1, 2, -1000

    write_series(tmp_path, hu, edit=edit)
    expected = hu.copy()
    expected[::2] = expected[::2] // 2 * 2
    volume = read_dicom(tmp_path)
    assert volume.hu_XYZ.dtype == np.int16
    np.testing.assert_array_equal(volume.hu_XYZ, expected.transpose(2, 1, 0))


def test_a_fractional_slope_gives_float32(tmp_path):
    stored = phantom().astype(np.int32) + 1024

    def edit(k: int, ds: Dataset) -> None:
        ds.RescaleSlope, ds.RescaleIntercept = "0.75", "-768.5"

    write_series(tmp_path, stored, intercept=0, edit=edit)
    volume = read_dicom(tmp_path)
    assert volume.hu_XYZ.dtype == np.float32
    np.testing.assert_array_equal(
        volume.hu_XYZ, (stored * 0.75 - 768.5).astype(np.float32).transpose(2, 1, 0)
    )


def test_values_beyond_int16_become_float32_and_stay_exact(tmp_path):
    hu = phantom().astype(np.int32)
    hu[3, 4, 5] = 60_000
    write_series(tmp_path, hu)
    volume = read_dicom(tmp_path)
    assert volume.hu_XYZ.dtype == np.float32
    np.testing.assert_array_equal(volume.hu_XYZ, hu.transpose(2, 1, 0))


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("high_bit", [11, 15])
def test_bits_outside_of_the_stored_ones_do_not_reach_the_values(tmp_path, signed, high_bit):
    hu = phantom().clip(-1024, 1000)
    shift = high_bit - 11

    def edit(k: int, ds: Dataset) -> None:
        stored = (hu[k].astype(np.int32) + (0 if signed else 1024)) & 0xFFF
        overlay = np.indices(stored.shape).sum(axis=0) % 2
        junk = overlay << 14 if shift == 0 else overlay << 1
        ds.PixelData = ((stored << shift) | junk).astype("<u2").tobytes()
        ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 12, high_bit, int(signed)
        ds.RescaleIntercept = 0 if signed else -1024

    write_series(tmp_path, hu, edit=edit)
    volume = read_dicom(tmp_path)
    np.testing.assert_array_equal(volume.hu_XYZ, hu.transpose(2, 1, 0))
    assert "unused-bits" in codes(volume)


@pytest.mark.parametrize("syntax", ["explicit", "rle", "jpeg-lossless-sv1", "jpeg-ls", "jpeg-2000"])
@pytest.mark.parametrize("signed", [False, True])
def test_twelve_bits_in_sixteen(tmp_path, syntax, signed):
    hu = phantom().clip(-1024, 1000)
    write_series(
        tmp_path,
        hu,
        dtype=np.int16 if signed else np.uint16,
        intercept=0 if signed else -1024,
        tags={"BitsStored": 12, "HighBit": 11},
        transfer_syntax=syntax,
    )
    np.testing.assert_array_equal(read_dicom(tmp_path).hu_XYZ, hu.transpose(2, 1, 0))


@pytest.mark.parametrize("signed", [False, True])
def test_eight_and_thirty_two_bits(tmp_path, signed):
    coarse = phantom().astype(np.int32) // 16 * 16
    write_series(tmp_path / "8", coarse.clip(-1024, 1000), slope=16, dtype=np.uint8)
    np.testing.assert_array_equal(
        read_dicom(tmp_path / "8").hu_XYZ, coarse.clip(-1024, 1000).transpose(2, 1, 0)
    )
    dtype = np.int32 if signed else np.uint32
    write_series(tmp_path / "32", coarse, dtype=dtype)
    np.testing.assert_array_equal(read_dicom(tmp_path / "32").hu_XYZ, coarse.transpose(2, 1, 0))


@pytest.mark.parametrize("syntax", ["explicit", "jpeg-lossless-sv1"])
def test_declared_padding_becomes_air_with_a_note(tmp_path, syntax):
    hu = phantom()
    padded = hu.copy()
    padded[:, :3, :] = -3024
    write_series(
        tmp_path,
        padded,
        dtype=np.int16,
        transfer_syntax=syntax,
        edit=lambda k, ds: ds.add_new("PixelPaddingValue", "SS", -2000),
    )
    volume = read_dicom(tmp_path)
    expected = hu.copy()
    expected[:, :3, :] = -1024
    np.testing.assert_array_equal(volume.hu_XYZ, expected.transpose(2, 1, 0))
    (note,) = [n for n in volume.notes if n.code == "padding"]
    assert "15.0%" in note.text


def test_padding_given_unsigned_for_signed_pixels_and_as_a_range(tmp_path):
    hu = phantom()
    padded = hu.copy()
    padded[:, :2, :] = -3024
    padded[:, 2, :] = -3000

    def edit(k: int, ds: Dataset) -> None:
        ds.add_new("PixelPaddingValue", "US", 65536 - 2000)
        ds.add_new("PixelPaddingRangeLimit", "US", 65536 - 1976)

    write_series(tmp_path, padded, dtype=np.int16, edit=edit)
    expected = hu.copy()
    expected[:, :3, :] = -1024
    np.testing.assert_array_equal(read_dicom(tmp_path).hu_XYZ, expected.transpose(2, 1, 0))


def test_padding_may_need_bits_that_the_values_do_not(tmp_path):
    hu = phantom().clip(-1024, 1000)
    padded = hu.copy()
    padded[:, :3, :] = -3024

    def edit(k: int, ds: Dataset) -> None:
        ds.BitsStored, ds.HighBit = 12, 11
        ds.add_new("PixelPaddingValue", "SS", -3024)

    write_series(tmp_path, padded, dtype=np.int16, intercept=0, edit=edit)
    expected = hu.copy()
    expected[:, :3, :] = -1024
    np.testing.assert_array_equal(read_dicom(tmp_path).hu_XYZ, expected.transpose(2, 1, 0))


def test_padding_of_thirty_two_bit_pixels(tmp_path):
    hu = phantom().astype(np.int32)
    padded = hu.copy()
    padded[:, :3, :] = -3024
    write_series(
        tmp_path,
        padded,
        dtype=np.int32,
        edit=lambda k, ds: ds.add_new("PixelPaddingValue", "SS", -2000),
    )
    hu[:, :3, :] = -1024
    np.testing.assert_array_equal(read_dicom(tmp_path).hu_XYZ, hu.transpose(2, 1, 0))


def test_the_high_bit_does_not_shift_what_a_codec_gives(tmp_path):
    hu = phantom().clip(-1024, 1000)
    twelve = {"BitsStored": 12, "HighBit": 11}
    for file in write_series(tmp_path, hu, tags=twelve, transfer_syntax="jpeg-lossless"):
        ds = pydicom.dcmread(file)
        ds.HighBit = 15
        ds.save_as(file)
    np.testing.assert_array_equal(read_dicom(tmp_path).hu_XYZ, hu.transpose(2, 1, 0))


def test_padding_that_is_air_anyway_is_left_alone(tmp_path):
    hu = phantom()
    hu[:, :3, :] = -1024
    write_series(tmp_path, hu, edit=lambda k, ds: ds.add_new("PixelPaddingValue", "US", 0))
    volume = read_dicom(tmp_path)
    np.testing.assert_array_equal(volume.hu_XYZ, hu.transpose(2, 1, 0))
    assert "padding" not in codes(volume)


def test_padding_above_every_tissue_becomes_air_and_leaves_int16(tmp_path):
    hu = phantom().astype(np.int32)
    padded = hu.copy()
    padded[:, :3, :] = 65535 - 1024
    write_series(tmp_path, padded, edit=lambda k, ds: ds.add_new("PixelPaddingValue", "US", 65535))
    volume = read_dicom(tmp_path)
    assert volume.hu_XYZ.dtype == np.int16
    assert (volume.hu_XYZ[:, :3] == -1024).all()
    np.testing.assert_array_equal(volume.hu_XYZ[:, 3:], hu[:, 3:].transpose(2, 1, 0))


@pytest.mark.parametrize(
    ("tags", "code"),
    [
        ({"PhotometricInterpretation": "MONOCHROME1"}, "inverted"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "not-grey"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "not-grey"),
        ({"BitsStored": 17}, "damaged"),
        ({"BitsAllocated": 12, "BitsStored": 12, "HighBit": 11}, "pixel-format"),
        ({"RescaleSlope": 0}, "damaged"),
        ({"Modality": "MR"}, "not-ct"),
        ({"ImagePositionPatient": None}, "no-geometry"),
        ({"ImageOrientationPatient": None}, "no-geometry"),
        ({"PixelSpacing": None}, "no-geometry"),
        ({"PixelSpacing": [0, 1]}, "no-geometry"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "bad-orientation"),
        ({"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]}, "bad-orientation"),
        ({"Rows": None}, "damaged"),
    ],
)
def test_slices_that_cannot_make_a_ct_are_refused(tmp_path, tags, code):
    write_series(tmp_path, phantom(), tags=tags)
    assert refusal(tmp_path).code == code


def test_a_table_instead_of_a_rescale_is_refused(tmp_path):
    def edit(k: int, ds: Dataset) -> None:
        lut = Dataset()
        lut.LUTDescriptor, lut.LUTData = [2, 0, 16], [0, 1]
        ds.add_new("ModalityLUTSequence", "SQ", [lut])
        ds.ModalityLUTSequence[0]["LUTDescriptor"].VR = "US"
        ds.ModalityLUTSequence[0]["LUTData"].VR = "US"

    write_series(tmp_path, phantom(), edit=edit)
    assert "table" in str(refusal(tmp_path))


def test_other_modalities_are_read_when_asked(tmp_path):
    write_series(tmp_path, phantom(), tags={"Modality": "MR"})
    assert "allow_any_modality" in refusal(tmp_path).remedy
    assert read_dicom(tmp_path, allow_any_modality=True).shape == (24, 20, 6)


def test_notes_on_values(tmp_path):
    write_series(tmp_path / "a", phantom(), tags={"RescaleType": "US"})
    assert codes(read_dicom(tmp_path / "a")) == ["partial-chest"]
    write_series(tmp_path / "b", phantom(), tags={"RescaleType": "Z_EFF"})
    assert "rescale-type" in codes(read_dicom(tmp_path / "b"))
    missing = {"RescaleSlope": None, "RescaleIntercept": None}
    write_series(tmp_path / "c", phantom(), dtype=np.int16, intercept=0, tags=missing)
    volume = read_dicom(tmp_path / "c")
    assert "no-rescale" in codes(volume)
    np.testing.assert_array_equal(volume.hu_XYZ, phantom().transpose(2, 1, 0))
    write_series(tmp_path / "d", phantom(), tags={"LossyImageCompression": "01"})
    assert "lossy" in codes(read_dicom(tmp_path / "d"))


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_truncated_slice_is_refused_by_name(tmp_path, syntax):
    files = write_series(tmp_path, phantom((6, 64, 64)), transfer_syntax=syntax)
    whole = files[2].read_bytes()
    for keep in (len(whole) - 60, len(whole) * 2 // 3, 1000, 200):
        files[2].write_bytes(whole[:keep])
        error = refusal(tmp_path)
        assert error.path == str(files[2]), keep
        assert error.code in ("truncated", "damaged", "no-pixels", "no-geometry"), keep
        assert error.code == "truncated" or syntax != "deflated"
        assert refusal(files[0]).path == str(files[2]), keep


def test_too_few_pixels_in_a_whole_file(tmp_path):
    def edit(k: int, ds: Dataset) -> None:
        if k == 2:
            ds.PixelData = ds.PixelData[:-100]

    files = write_series(tmp_path, phantom(), edit=edit)
    error = refusal(tmp_path)
    assert (error.code, error.path) == ("truncated", str(files[2]))


def test_a_slice_without_pixels_is_refused_by_name(tmp_path):
    def edit(k: int, ds: Dataset) -> None:
        if k == 2:
            del ds.PixelData

    files = write_series(tmp_path, phantom(), edit=edit)
    error = refusal(tmp_path)
    assert (error.code, error.path) == ("no-pixels", str(files[2]))


@pytest.mark.parametrize("syntax", ["jpeg-lossless", "jpeg-lossless-sv1", "jpeg-ls", "jpeg-2000"])
def test_a_missing_codec_names_the_package_to_install(tmp_path, syntax, monkeypatch):
    import pydicom.pixels.decoders as decoders

    write_series(tmp_path, phantom(), transfer_syntax=syntax)
    for decoder in vars(decoders).values():
        if isinstance(decoder, decoders.base.Decoder):
            monkeypatch.setattr(decoder, "_available", {})
    error = refusal(tmp_path)
    assert error.code == "codec-missing"
    assert "pip install python-gdcm" in error.remedy
    assert "JPEG" in error.problem


def test_compression_that_is_not_known(tmp_path):
    write_series(tmp_path / "a", phantom(), transfer_syntax="rle")
    for file in (tmp_path / "a").iterdir():
        ds = pydicom.dcmread(file)
        ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.100"  # MPEG-2
        ds.save_as(file)
    assert refusal(tmp_path / "a").code == "compression"


def test_a_size_inside_the_compressed_image_that_differs_is_refused(tmp_path):
    def edit(file: Path) -> None:
        ds = pydicom.dcmread(file)
        ds.Rows, ds.Columns = 400, 480
        ds.save_as(file)

    for syntax in GDCM_SYNTAXES:
        for file in write_series(tmp_path / syntax, phantom(), transfer_syntax=syntax):
            edit(file)
        assert "do not fit its header" in refusal(tmp_path / syntax).problem


def test_limits_hold_before_anything_is_allocated(tmp_path):
    write_series(tmp_path / "a", phantom())
    error = refusal(tmp_path / "a", limits=Limits(max_voxels=2000))
    assert error.code == "too-large"

    def edit(k: int, ds: Dataset) -> None:
        ds.Rows = ds.Columns = 65535

    write_series(tmp_path / "b", phantom(), edit=edit)
    assert refusal(tmp_path / "b").code == "too-large"


def test_a_deflated_bomb_is_stopped(tmp_path):
    (file, *_) = write_series(tmp_path, phantom((2, 8, 8)), transfer_syntax="deflated")
    raw = file.read_bytes()
    start = 132 + 12 + int.from_bytes(raw[140:144], "little")
    inflated = zlib.decompress(raw[start:].rstrip(b"\0") + b"\0", -15)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = packer.compress(inflated) + packer.compress(bytes(50_000_000)) + packer.flush()
    file.write_bytes(raw[:start] + bomb)
    assert file.stat().st_size < 100_000
    assert refusal(tmp_path, limits=Limits(max_bytes=1_000_000)).code == "too-large"


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    syntax=st.sampled_from(["explicit", "implicit", "deflated", "rle", "enhanced"]),
    changes=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6
    ),
)
def test_damaged_bytes_end_in_a_volume_or_a_refusal(damage_folder, syntax, changes):
    folder, pristine = damage_folder[syntax]
    for file, raw in pristine.items():
        file.write_bytes(raw)
    victim = sorted(pristine)[0]
    raw = bytearray(pristine[victim])
    for where, value in changes:
        raw[128 + int(where * (len(raw) - 128))] = value
    victim.write_bytes(raw)
    for read in (read_dicom, list_series):
        with suppress(SimCroPError):
            read(folder, limits=Limits(max_voxels=10**6, max_bytes=10**7))


@pytest.fixture(scope="module")
def damage_folder(tmp_path_factory):
    made = {}
    for syntax in ("explicit", "implicit", "deflated", "rle", "enhanced"):
        folder = tmp_path_factory.mktemp(syntax)
        hu = phantom((3, 8, 8))
        if syntax == "enhanced":
            write_enhanced(folder / "one.dcm", hu)
        else:
            write_series(folder, hu, transfer_syntax=syntax)
        made[syntax] = (folder, {f: f.read_bytes() for f in folder.iterdir()})
    return made


def test_without_preamble_and_meta_information(tmp_path):
    hu = phantom()
    for file in write_series(tmp_path / "a", hu, transfer_syntax="implicit"):
        raw = file.read_bytes()
        start = 132 + 12 + int.from_bytes(raw[140:144], "little")
        file.write_bytes(raw[start:])
    np.testing.assert_array_equal(read_dicom(tmp_path / "a").hu_XYZ, hu.transpose(2, 1, 0))
    for file in write_series(tmp_path / "b", hu):
        file.write_bytes(file.read_bytes()[132:])
    np.testing.assert_array_equal(read_dicom(tmp_path / "b").hu_XYZ, hu.transpose(2, 1, 0))


def test_explicit_bytes_that_call_themselves_implicit(tmp_path):
    hu = phantom()
    for file in write_series(tmp_path, hu):
        raw = file.read_bytes()
        assert raw.count(b"1.2.840.10008.1.2.1\0") == 1
        file.write_bytes(raw.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2\0\0\0"))
    np.testing.assert_array_equal(read_dicom(tmp_path).hu_XYZ, hu.transpose(2, 1, 0))


def test_segmentations_and_the_like_are_named(tmp_path):
    for modality, word in (("SEG", "segmentation"), ("RTSTRUCT", "contours"), ("SR", "report")):
        folder = tmp_path / modality
        folder.mkdir()
        ds = Dataset()
        ds.file_meta = pydicom.dataset.FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.66.4"
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        ds.Modality = modality
        save(ds, folder / "object.dcm")
        for path in (folder, folder / "object.dcm"):
            error = refusal(path)
            assert error.code == "not-ct"
            assert word in error.problem
