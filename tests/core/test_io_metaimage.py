"""MetaImage against SimpleITK, and the faults of its headers."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from made_ct import AFFINE, SHAPE, chest, note_codes, oblique_affine

from simcrop_core import SimCroPError, read_volume
from simcrop_core.geometry import LPS_TO_RAS

FIELDS = {
    "ObjectType": "Image",
    "NDims": "3",
    "BinaryData": "True",
    "BinaryDataByteOrderMSB": "False",
    "CompressedData": "False",
    "TransformMatrix": "1 0 0 0 1 0 0 0 1",
    "Offset": "-117.5 -130.25 -700.125",
    "AnatomicalOrientation": "RAI",
    "ElementSpacing": "4.4 4.8 4.1",
    "DimSize": "48 44 50",
    "ElementType": "MET_SHORT",
    "ElementDataFile": "LOCAL",
}


def save(path: Path, data: bytes | None = None, **changes: str | None) -> Path:
    """FIELDS as a file; None takes a field out."""
    last = {"ElementDataFile": changes.pop("ElementDataFile", "LOCAL")}
    fields = {k: v for k, v in FIELDS.items() if k not in last} | changes | last
    lines = [f"{k} = {v}" for k, v in fields.items() if v is not None]
    data = chest().tobytes("F") if data is None else data
    path.write_bytes("\n".join([*lines, ""]).encode() + data)
    return path


def refused(path: Path, code: str, **options: object) -> SimCroPError:
    with pytest.raises(SimCroPError) as caught:
        read_volume(path, **options)  # type: ignore[arg-type]
    assert caught.value.code == code
    return caught.value


@pytest.mark.parametrize("name", ["ct.mha", "ct.mhd"])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32, np.float64])
def test_as_simpleitk_writes_and_places_it(
    tmp_path: Path, name: str, packed: bool, dtype: type
) -> None:
    """The .mhd with its .raw or .zraw beside is how LUNA16 comes."""
    affine = LPS_TO_RAS @ oblique_affine(30)
    image = sitk.GetImageFromArray(chest().T.astype(dtype))
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    sitk.WriteImage(image, str(tmp_path / name), packed)
    volume = read_volume(tmp_path / name)
    np.testing.assert_array_equal(volume.hu_XYZ, chest())
    assert volume.hu_XYZ.dtype == np.int16
    assert volume.format == "MetaImage"
    for voxel in np.random.default_rng(0).integers(0, SHAPE, (50, 3)).tolist():
        expected = np.array(image.TransformIndexToPhysicalPoint(voxel)) * (-1, -1, 1)
        np.testing.assert_allclose(volume.grid.to_world(voxel), expected, atol=1e-4)


@pytest.mark.parametrize("key", ["ElementByteOrderMSB", "BinaryDataByteOrderMSB"])
def test_big_endian(tmp_path: Path, key: str) -> None:
    volume = read_volume(
        save(tmp_path / "ct.mha", chest().astype(">i2").tobytes("F"), **{key: "True"})
    )
    np.testing.assert_array_equal(volume.hu_XYZ, chest())
    np.testing.assert_allclose(volume.grid.affine, AFFINE)
    assert volume.notes == ()


@pytest.mark.parametrize("pack", [zlib.compress, gzip.compress])
def test_packed_voxels_with_and_without_their_size(tmp_path: Path, pack: object) -> None:
    data = pack(chest().tobytes("F"))  # type: ignore[operator]
    for size in (None, str(len(data))):
        path = save(tmp_path / "ct.mha", data, CompressedData="True", CompressedDataSize=size)
        np.testing.assert_array_equal(read_volume(path).hu_XYZ, chest())


def test_packed_size_beyond_the_file_is_refused(tmp_path: Path) -> None:
    data = zlib.compress(chest().tobytes("F"))
    path = save(
        tmp_path / "ct.mha", data, CompressedData="True", CompressedDataSize=str(len(data) + 1)
    )
    refused(path, "truncated")


@pytest.mark.parametrize("missing", ["ElementSpacing", "TransformMatrix"])
def test_missing_geometry_is_refused_unless_told(tmp_path: Path, missing: str) -> None:
    path = save(tmp_path / "ct.mha", **{missing: None})
    refused(path, "missing-geometry")
    told = read_volume(path, allow_missing_geometry=True, axcodes="LPS", spacing_mm=(4.4, 4.8, 4.1))
    np.testing.assert_allclose(told.grid.affine[:3, :3], AFFINE[:3, :3])
    assert note_codes(told) == {"missing-geometry"}


def test_missing_offset_has_a_note(tmp_path: Path) -> None:
    volume = read_volume(save(tmp_path / "ct.mha", Offset=None))
    np.testing.assert_array_equal(volume.grid.to_world((0, 0, 0)), (0, 0, 0))
    assert note_codes(volume) == {"no-origin"}


@pytest.mark.parametrize("letters", ["RAI", "???", "", "nonsense"])
def test_anatomical_orientation_that_agrees_or_says_nothing(tmp_path: Path, letters: str) -> None:
    assert read_volume(save(tmp_path / "ct.mha", AnatomicalOrientation=letters)).notes == ()


def test_anatomical_orientation_that_disagrees_has_a_note(tmp_path: Path) -> None:
    volume = read_volume(save(tmp_path / "ct.mha", AnatomicalOrientation="LPS"))
    assert volume.grid.axcodes == "LPS"
    assert note_codes(volume) == {"orientation-disagrees"}
    assert "RAI" in volume.notes[0].text


def test_singular_matrix_is_refused(tmp_path: Path) -> None:
    refused(save(tmp_path / "ct.mha", TransformMatrix="1 0 0 1 0 0 0 0 1"), "singular-geometry")
    refused(save(tmp_path / "ct.mha", ElementSpacing="1 0 1"), "singular-geometry")


def test_4d(tmp_path: Path) -> None:
    one = {
        "NDims": "4",
        "TransformMatrix": "1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1",
        "Offset": "-117.5 -130.25 -700.125 0",
        "ElementSpacing": "4.4 4.8 4.1 1",
    }
    volume = read_volume(save(tmp_path / "ct.mha", DimSize="48 44 50 1", **one))
    np.testing.assert_array_equal(volume.hu_XYZ, chest())
    np.testing.assert_allclose(volume.grid.affine, AFFINE)
    refused(save(tmp_path / "ct.mha", DimSize="48 44 25 2", **one), "several-volumes")
    refused(save(tmp_path / "ct.mha", ElementNumberOfChannels="3"), "several-volumes")


def test_intensity_function_is_applied_unless_told(tmp_path: Path) -> None:
    path = save(
        tmp_path / "ct.mha",
        ((chest() + np.int16(1000)) * np.int16(2)).tobytes("F"),
        ElementToIntensityFunctionSlope="0.5",
        ElementToIntensityFunctionOffset="-1000",
    )
    np.testing.assert_array_equal(read_volume(path).hu_XYZ, chest())
    told = read_volume(path, rescale=(1, -2000))
    np.testing.assert_array_equal(told.hu_XYZ, chest() * 2)


def test_header_size_skips_bytes_of_a_raw_file(tmp_path: Path) -> None:
    (tmp_path / "ct.raw").write_bytes(b"1234567" + chest().tobytes("F"))
    for size in ("7", "-1"):
        path = save(tmp_path / "ct.mhd", b"", HeaderSize=size, ElementDataFile="ct.raw")
        np.testing.assert_array_equal(read_volume(path).hu_XYZ, chest())


@pytest.mark.parametrize(
    "changes",
    [
        {"NDims": "2"},
        {"NDims": "x"},
        {"NDims": None, "ElementType": "MET_SHORT"},
        {"DimSize": None},
        {"DimSize": "48 44"},
        {"DimSize": "48 44 -50"},
        {"DimSize": "48 44 50.5"},
        {"DimSize": "48 44 1e300"},
        {"ElementType": "MET_SHORT_ARRAY"},
        {"ElementType": None},
        {"BinaryData": "False"},
        {"TransformMatrix": "1 0 0 0 1 0 0 0"},
        {"Offset": "1 2"},
        {"Offset": "1 2 nan"},
        {"ElementSpacing": "1 1"},
        {"HeaderSize": "-9"},
        {"DistanceUnits": "in"},
        {"ElementDataFile": "LIST"},
        {"ElementDataFile": "ct%03d.raw 1 50 1"},
    ],
    ids=str,
)
def test_headers_that_cannot_be_are_refused(tmp_path: Path, changes: dict[str, str | None]) -> None:
    refused(save(tmp_path / "ct.mha", **changes), "damaged-header")


def test_header_without_its_end_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "ct.mha")
    path.write_bytes(path.read_bytes()[:120])
    refused(path, "damaged-header")


@pytest.mark.parametrize("name", ["../ct.raw", "/etc/passwd", "sub/ct.raw", ".."])
def test_data_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "study"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "ct.raw").write_bytes(chest().tobytes("F"))
    refused(save(folder / "ct.mhd", b"", ElementDataFile=name), "outside-folder")


def test_data_missing_or_short(tmp_path: Path) -> None:
    path = save(tmp_path / "ct.mhd", b"", ElementDataFile="ct.raw")
    refused(path, "missing")
    (tmp_path / "ct.raw").write_bytes(chest().tobytes("F")[:-1])
    refused(path, "truncated")
    refused(save(tmp_path / "ct.mha", chest().tobytes("F")[:-1]), "truncated")
