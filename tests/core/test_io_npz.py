"""RadChestCT-style archives: no geometry but what is stated, and nothing unpickled."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from made_ct import chest, note_codes

from simcrop_core import SimCroPError, read_volume

STATED = {"spacing_mm": (4.1, 4.8, 4.4), "axcodes": "SPL"}


def refused(path: Path, code: str, **options: object) -> SimCroPError:
    with pytest.raises(SimCroPError) as caught:
        read_volume(path, **options)  # type: ignore[arg-type]
    assert caught.value.code == code
    return caught.value


@pytest.mark.parametrize("saver", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["i2", ">i2", "i4", "f4", "f8"])
def test_slices_first_as_radchestct_has_them(
    tmp_path: Path, saver: object, order: str, dtype: str
) -> None:
    stored = np.asarray(chest().T.astype(dtype), order=order)
    saver(tmp_path / "ct.npz", ct=stored)  # type: ignore[operator]
    volume = read_volume(tmp_path / "ct.npz", **STATED)  # type: ignore[arg-type]
    np.testing.assert_array_equal(volume.hu_XYZ, chest().T)
    assert volume.hu_XYZ.dtype == np.int16
    assert volume.format == "NPZ"
    assert volume.grid.axcodes == "SPL"
    assert volume.spacing_mm == STATED["spacing_mm"]
    np.testing.assert_allclose(volume.grid.center_mm, 0, atol=1e-9)
    assert note_codes(volume) == {"stated-geometry"}


def test_without_geometry_is_refused_naming_the_options(tmp_path: Path) -> None:
    np.savez(tmp_path / "ct.npz", ct=chest())
    error = refused(tmp_path / "ct.npz", "missing-geometry")
    assert "spacing_mm" in error.remedy
    assert "axcodes" in error.remedy
    only = refused(tmp_path / "ct.npz", "missing-geometry", spacing_mm=(1, 1, 1))
    assert "State axcodes along" in only.remedy
    refused(tmp_path / "ct.npz", "option", allow_missing_geometry=True)
    wide = {"spacing_mm": (1e200, 1, 1), "axcodes": "SPL"}
    refused(tmp_path / "ct.npz", "singular-geometry", **wide)


def test_another_key_is_taken_with_a_note_if_it_is_the_only_volume(tmp_path: Path) -> None:
    np.savez(tmp_path / "ct.npz", volume=chest().T, spacing=np.ones(3))
    volume = read_volume(tmp_path / "ct.npz", **STATED)  # type: ignore[arg-type]
    np.testing.assert_array_equal(volume.hu_XYZ, chest().T)
    assert note_codes(volume) == {"npz-key", "stated-geometry"}
    assert "another name" in volume.notes[0].text
    np.savez(tmp_path / "two.npz", a=chest(), b=chest())
    assert "a, b" in refused(tmp_path / "two.npz", "not-a-volume", **STATED).problem
    np.savez(tmp_path / "none.npz", a=np.ones(3))
    refused(tmp_path / "none.npz", "not-a-volume", **STATED)
    np.savez(tmp_path / "both.npz", ct=chest().T, b=chest())
    assert note_codes(read_volume(tmp_path / "both.npz", **STATED)) == {"stated-geometry"}  # type: ignore[arg-type]


def test_axes_of_one_value_are_squeezed_others_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", ct=chest().T[None, ..., None])
    volume = read_volume(tmp_path / "a.npz", **STATED)  # type: ignore[arg-type]
    np.testing.assert_array_equal(volume.hu_XYZ, chest().T)
    np.savez(tmp_path / "b.npz", ct=np.stack([chest()] * 2))
    refused(tmp_path / "b.npz", "several-volumes", **STATED)
    np.savez(tmp_path / "c.npz", ct=chest()[0])
    refused(tmp_path / "c.npz", "not-a-volume", **STATED)


def test_rescale_is_applied(tmp_path: Path) -> None:
    np.savez(tmp_path / "ct.npz", ct=(chest().T + np.int16(2000)).astype(np.uint16))
    volume = read_volume(tmp_path / "ct.npz", rescale=(1, -2000), **STATED)  # type: ignore[arg-type]
    np.testing.assert_array_equal(volume.hu_XYZ, chest().T)


class Trap:
    """Unpickling this would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


def test_nothing_is_ever_unpickled(tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    objects = np.empty((2, 2, 2), object)
    objects[...] = Trap(trap)
    np.savez(tmp_path / "ct.npz", ct=objects)
    refused(tmp_path / "ct.npz", "not-grey", **STATED)
    np.savez(tmp_path / "other.npz", other=objects)
    refused(tmp_path / "other.npz", "not-grey", **STATED)
    with zipfile.ZipFile(tmp_path / "raw.npz", "w") as archive:
        archive.writestr("ct.npy", pickle.dumps(Trap(trap)))
    refused(tmp_path / "raw.npz", "damaged", **STATED)
    assert not trap.exists()


@pytest.mark.parametrize("values", [chest().astype(complex), chest().astype("S3")], ids=["c", "S"])
def test_other_types_are_refused(tmp_path: Path, values: np.ndarray) -> None:
    np.savez(tmp_path / "ct.npz", ct=values)
    refused(tmp_path / "ct.npz", "not-grey", **STATED)


def shaped(shape: str) -> bytes:
    return header(f"{{'descr': '<i2', 'fortran_order': False, 'shape': {shape}}}")


def header(text: str) -> bytes:
    body = text.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body


@pytest.mark.parametrize(
    ("member", "code"),
    [
        (shaped("(99999, 99999, 99999)"), "too-large"),
        (shaped("(900, 900, 900)"), "truncated"),
        (shaped("(4, -4, 4)"), "not-a-volume"),
        (shaped("(4, 4)"), "not-a-volume"),
        (shaped("(2, 2, 2)") + b"x" * 17, "damaged"),
        (shaped("(2, 2, 2)") + b"x" * 15, "truncated"),
        (header("__import__('os')"), "damaged"),
        (header("(" * 5000), "damaged"),
        (header("{'descr': 7}"), "damaged"),
        (shaped("(2, 2, 2.5)"), "damaged"),
        (shaped("(2, 2, True)"), "damaged"),
        (header("{'descr': '<i16', 'fortran_order': False, 'shape': (2, 2, 2)}"), "not-grey"),
        (b"\x93NUMPY\x09\x00\x00\x00\x00\x00", "damaged"),
        (b"\x93NUM", "truncated"),
        (b"", "truncated"),
        (b"hello, this is no array", "damaged"),
    ],
    ids=range(16),
)
def test_archives_that_cannot_be_are_refused(tmp_path: Path, member: bytes, code: str) -> None:
    with zipfile.ZipFile(tmp_path / "ct.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ct.npy", member)
    refused(tmp_path / "ct.npz", code, **STATED)


def test_other_packing_is_refused(tmp_path: Path) -> None:
    data = io.BytesIO()
    np.save(data, chest())
    with zipfile.ZipFile(tmp_path / "ct.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("ct.npy", data.getvalue())
    refused(tmp_path / "ct.npz", "not-a-volume", **STATED)


def test_checksum_is_checked(tmp_path: Path) -> None:
    for saver in (np.savez, np.savez_compressed):
        saver(tmp_path / "ct.npz", ct=chest().T)
        data = bytearray((tmp_path / "ct.npz").read_bytes())
        rng = np.random.default_rng(3)
        for _ in range(40):
            at, bit = rng.integers(300, chest().nbytes // 3), rng.integers(8)
            data[at] ^= 1 << bit
            (tmp_path / "flip.npz").write_bytes(data)
            with pytest.raises(SimCroPError):
                read_volume(tmp_path / "flip.npz", **STATED)  # type: ignore[arg-type]
            data[at] ^= 1 << bit
