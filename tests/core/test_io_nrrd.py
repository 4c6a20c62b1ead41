"""NRRD against SimpleITK, and the faults of its headers."""

from __future__ import annotations

import bz2
import gzip
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from made_ct import AFFINE, SHAPE, chest, note_codes, oblique_affine

from simcrop_core import SimCroPError, read_volume
from simcrop_core.geometry import LPS_TO_RAS

FIELDS = {
    "type": "short",
    "dimension": "3",
    "space": "left-posterior-superior",
    "sizes": "48 44 50",
    "space directions": "(4.4,0,0) (0,4.8,0) (0,0,4.1)",
    "kinds": "domain domain domain",
    "endian": "little",
    "encoding": "gzip",
    "space origin": "(-117.5,-130.25,-700.125)",
}
PACK = {"raw": bytes, "gzip": gzip.compress, "gz": gzip.compress, "bzip2": bz2.compress}


def save(path: Path, data: bytes | None = None, **changes: str | None) -> Path:
    """FIELDS as a file, with ``changes`` (None takes a field out; _ stands for a space)."""
    fields = FIELDS | {k.replace("_", " "): v for k, v in changes.items()}
    lines = [f"{k}: {v}" for k, v in fields.items() if v is not None]
    if data is None:
        order = ">i2" if fields["endian"] == "big" else "<i2"
        raw = chest().astype(order).tobytes(order="F")
        data = PACK.get(str(fields["encoding"]), bytes)(raw)
    path.write_bytes(
        "\n".join(["NRRD0005", "# made", "site:=x: y", *lines, "", ""]).encode() + data
    )
    return path


def refused(path: Path, code: str, **options: object) -> SimCroPError:
    with pytest.raises(SimCroPError) as caught:
        read_volume(path, **options)  # type: ignore[arg-type]
    assert caught.value.code == code
    return caught.value


@pytest.mark.parametrize("encoding", ["raw", "gzip", "gz", "bzip2"])
@pytest.mark.parametrize("endian", ["little", "big"])
def test_encodings_and_byte_orders(tmp_path: Path, encoding: str, endian: str) -> None:
    volume = read_volume(save(tmp_path / "ct.nrrd", encoding=encoding, endian=endian))
    np.testing.assert_array_equal(volume.hu_XYZ, chest())
    np.testing.assert_allclose(volume.grid.affine, AFFINE)
    assert volume.format == "NRRD"
    assert volume.notes == ()


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32])
def test_as_simpleitk_writes_and_places_it(tmp_path: Path, packed: bool, dtype: type) -> None:
    affine = LPS_TO_RAS @ oblique_affine(30)
    image = sitk.GetImageFromArray(chest().T.astype(dtype))
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    sitk.WriteImage(image, str(tmp_path / "ct.nrrd"), packed)
    volume = read_volume(tmp_path / "ct.nrrd")
    np.testing.assert_array_equal(volume.hu_XYZ, chest())
    for voxel in np.random.default_rng(0).integers(0, SHAPE, (50, 3)).tolist():
        expected = np.array(image.TransformIndexToPhysicalPoint(voxel)) * (-1, -1, 1)
        np.testing.assert_allclose(volume.grid.to_world(voxel), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("space", "signs"),
    [
        ("left-posterior-superior", (-1, -1, 1)),
        ("LPS", (-1, -1, 1)),
        ("right-anterior-superior", (1, 1, 1)),
        ("RAS", (1, 1, 1)),
        ("left-anterior-superior", (-1, 1, 1)),
        ("las", (-1, 1, 1)),
    ],
)
def test_spaces_of_the_patient(tmp_path: Path, space: str, signs: tuple[int, ...]) -> None:
    grid = read_volume(save(tmp_path / "ct.nrrd", space=space)).grid
    np.testing.assert_allclose(
        grid.to_world((0, 0, 0)), np.multiply(signs, (-117.5, -130.25, -700.125))
    )
    np.testing.assert_allclose(
        grid.to_world((1, 2, 3)) - grid.to_world((0, 0, 0)), np.multiply(signs, (4.4, 9.6, 12.3))
    )


@pytest.mark.parametrize("space", ["scanner-xyz", "3D-right-handed", None])
def test_space_that_is_not_the_patients_is_refused_unless_told(
    tmp_path: Path, space: str | None
) -> None:
    path = save(tmp_path / "ct.nrrd", space=space)
    refused(path, "missing-geometry")
    told = read_volume(path, allow_missing_geometry=True, axcodes="LPS")
    assert told.grid.axcodes == "LPS"
    assert told.spacing_mm == pytest.approx((4.4, 4.8, 4.1))
    assert note_codes(told) == {"missing-geometry"}


def test_spacings_without_directions(tmp_path: Path) -> None:
    path = save(
        tmp_path / "ct.nrrd",
        space=None,
        space_directions=None,
        space_origin=None,
        spacings="4.4 4.8 4.1",
    )
    refused(path, "missing-geometry")
    told = read_volume(path, allow_missing_geometry=True)
    assert told.spacing_mm == pytest.approx((4.4, 4.8, 4.1))
    bare = save(tmp_path / "bare.nrrd", space=None, space_directions=None, space_origin=None)
    assert "spacing_mm" in refused(bare, "missing-geometry", allow_missing_geometry=True).remedy
    told = read_volume(bare, allow_missing_geometry=True, spacing_mm=(5, 5, 5))
    assert told.spacing_mm == (5, 5, 5)


def test_missing_origin_has_a_note(tmp_path: Path) -> None:
    volume = read_volume(save(tmp_path / "ct.nrrd", space_origin=None))
    np.testing.assert_array_equal(volume.grid.to_world((0, 0, 0)), (0, 0, 0))
    assert note_codes(volume) == {"no-origin"}


def test_units_are_converted_with_a_note(tmp_path: Path) -> None:
    path = save(
        tmp_path / "ct.nrrd",
        space_units='"cm" "cm" "cm"',
        space_directions="(.44,0,0) (0,.48,0) (0,0,.41)",
        space_origin="(-11.75,-13.025,-70.0125)",
    )
    volume = read_volume(path)
    np.testing.assert_allclose(volume.grid.affine, AFFINE)
    assert note_codes(volume) == {"unit"}
    refused(save(tmp_path / "x.nrrd", space_units='"in" "in" "in"'), "damaged-header")


@pytest.mark.parametrize(
    ("sizes", "directions", "kinds"),
    [
        ("1 48 44 50", "none (4.4,0,0) (0,4.8,0) (0,0,4.1)", "vector domain domain domain"),
        ("48 44 50 1", "(4.4,0,0) (0,4.8,0) (0,0,4.1) none", "domain domain domain list"),
        ("48 44 50 1", "(4.4,0,0) (0,4.8,0) (0,0,4.1) (nan,nan,nan)", None),
    ],
)
def test_axis_of_one_value_is_squeezed(
    tmp_path: Path, sizes: str, directions: str, kinds: str | None
) -> None:
    path = save(
        tmp_path / "ct.nrrd", dimension="4", sizes=sizes, space_directions=directions, kinds=kinds
    )
    np.testing.assert_array_equal(read_volume(path).hu_XYZ, chest())


@pytest.mark.parametrize(
    ("dimension", "sizes", "directions", "kinds"),
    [
        ("4", "3 16 44 50", "none (4,0,0) (0,4,0) (0,0,4)", "RGB-color domain domain domain"),
        ("4", "48 44 25 2", "(4,0,0) (0,4,0) (0,0,4) none", "domain domain domain list"),
        ("3", "48 44 50", "(4.4,0,0) (0,4.8,0) (0,0,4.1)", "domain domain vector"),
        ("3", "48 44 50", "(4.4,0,0) (0,4.8,0) none", "domain domain list"),
    ],
)
def test_vectors_and_colour_are_refused(
    tmp_path: Path, dimension: str, sizes: str, directions: str, kinds: str
) -> None:
    path = save(
        tmp_path / "ct.nrrd",
        dimension=dimension,
        sizes=sizes,
        space_directions=directions,
        kinds=kinds,
    )
    refused(path, "several-volumes")


def test_singular_directions_are_refused(tmp_path: Path) -> None:
    flat = "(4.4,0,0) (0,4.8,0) (4.4,0,0)"
    refused(save(tmp_path / "ct.nrrd", space_directions=flat), "singular-geometry")


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "block"},
        {"type": None},
        {"sizes": None},
        {"sizes": "48 44 x"},
        {"sizes": "48 -44 50"},
        {"sizes": "48 44"},
        {"sizes": "48 44 9999999999999999999999"},
        {"dimension": "4"},
        {"dimension": ""},
        {"endian": None},
        {"endian": "middle"},
        {"encoding": "ascii"},
        {"encoding": None},
        {"space directions": "(4.4,0,0) (0,4.8,0)"},
        {"space directions": "(4.4,0) (0,4.8) (0,1)"},
        {"space directions": "(a,0,0) (0,4.8,0) (0,0,4.1)"},
        {"space directions": "4.4 4.8 4.1"},
        {"space origin": "(1,2)"},
        {"line skip": "2"},
        {"byte skip": "-7"},
        {"byte skip": "99999999999"},
        {"data file": "LIST"},
        {"data file": "ct%03d.raw 1 50 1"},
    ],
    ids=str,
)
def test_headers_that_cannot_be_are_refused(tmp_path: Path, changes: dict[str, str | None]) -> None:
    refused(
        save(tmp_path / "ct.nrrd", PACK["gzip"](chest().tobytes("F")), **changes), "damaged-header"
    )


def test_field_given_twice_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "ct.nrrd")
    path.write_bytes(path.read_bytes().replace(b"# made", b"space: RAS"))
    refused(path, "damaged-header")


def test_detached_data_beside_the_header(tmp_path: Path) -> None:
    raw = chest().tobytes("F")
    (tmp_path / "ct.raw").write_bytes(b"12345" + raw)
    for i, (skip, name) in enumerate([("5", "ct.raw"), ("-1", "./ct.raw")]):
        path = save(tmp_path / f"{i}.nhdr", b"", encoding="raw", data_file=name, byte_skip=skip)
        np.testing.assert_array_equal(read_volume(path).hu_XYZ, chest())
    (tmp_path / "ct.raw.gz").write_bytes(gzip.compress(raw))
    path = save(tmp_path / "gz.nhdr", b"", data_file="ct.raw.gz")
    path.write_bytes(path.read_bytes().rstrip(b"\n"))  # the blank line may be missing
    np.testing.assert_array_equal(read_volume(path).hu_XYZ, chest())


@pytest.mark.parametrize("how", ["absolute", "above", "below", "link"])
def test_detached_data_elsewhere_is_refused(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "study"
    (folder / "sub").mkdir(parents=True)
    for place in (tmp_path, folder / "sub"):
        (place / "ct.raw").write_bytes(chest().tobytes("F"))
    (folder / "link.raw").symlink_to(tmp_path / "ct.raw")
    name = {
        "absolute": str(tmp_path / "ct.raw"),
        "above": "../ct.raw",
        "below": "sub/ct.raw",
        "link": "link.raw",
    }[how]
    refused(save(folder / "ct.nhdr", b"", encoding="raw", data_file=name), "outside-folder")


def test_detached_data_missing_or_short(tmp_path: Path) -> None:
    path = save(tmp_path / "ct.nhdr", b"", encoding="raw", data_file="none.raw")
    refused(path, "missing")
    (tmp_path / "none.raw").write_bytes(chest().tobytes("F")[:-1])
    refused(path, "truncated")


def test_bytes_behind_the_voxels_have_a_note(tmp_path: Path) -> None:
    path = save(tmp_path / "ct.nrrd", encoding="raw")
    path.write_bytes(path.read_bytes() + b"12")
    assert note_codes(read_volume(path)) == {"extra-data"}


def test_bzip2_in_several_streams(tmp_path: Path) -> None:
    raw = chest().tobytes("F")
    data = bz2.compress(raw[:1001]) + bz2.compress(raw[1001:])
    volume = read_volume(save(tmp_path / "ct.nrrd", data, encoding="bzip2"))
    np.testing.assert_array_equal(volume.hu_XYZ, chest())
    broken = save(tmp_path / "x.nrrd", data + b"rubbish", encoding="bzip2")
    refused(broken, "damaged")
