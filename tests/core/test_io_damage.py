"""Damage, truncation and bombs: refused, or read bit for bit as if nothing had happened."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import itertools
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from made_ct import chest, save_nifti
from test_io_metaimage import save as save_mha
from test_io_nrrd import save as save_nrrd

from simcrop_core import SimCroPError, read_volume
from simcrop_core.io import read_labels


def outcome(path: Path) -> str:
    """``refused``, ``same`` or ``WRONG``; any other exception fails the test."""
    try:
        volume = read_volume(path)
    except SimCroPError:
        return "refused"
    return "same" if np.array_equal(volume.hu_XYZ, chest()) else "WRONG"


def make(tmp_path: Path, kind: str) -> tuple[Path, int]:
    """A file, and where its packed voxels begin."""
    raw = chest().tobytes("F")
    if kind == "nii.gz":
        return save_nifti(tmp_path / "ct.nii.gz"), 0
    if kind == "nrrd":
        path, packed = tmp_path / "ct.nrrd", gzip.compress(raw, mtime=0)
        save_nrrd(path, packed)
    elif kind == "nrrd-bz2":
        path, packed = tmp_path / "ct.nrrd", bz2.compress(raw)
        save_nrrd(path, packed, encoding="bzip2")
    else:
        path, packed = tmp_path / "ct.mha", zlib.compress(raw)
        save_mha(path, packed, CompressedData="True")
    return path, path.stat().st_size - len(packed)


@pytest.mark.parametrize("kind", ["nii.gz", "nrrd", "nrrd-bz2", "mha"])
def test_every_flipped_bit_is_refused_or_harmless(tmp_path: Path, kind: str) -> None:
    path, start = make(tmp_path, kind)
    good = path.read_bytes()
    assert outcome(path) == "same"
    rng = np.random.default_rng(7)
    flips = 80 if kind == "nrrd-bz2" else 300  # bzip2 unpacks slowly
    bits = rng.integers(8 * start, 8 * len(good), flips).tolist()
    bits += list(range(8 * start, 8 * (start + 20)))  # the packed stream's own header
    bits += list(range(8 * (len(good) - 10), 8 * len(good)))  # and its checksum
    seen = []
    for bit in bits:
        data = bytearray(good)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        seen.append(outcome(path))
    assert "WRONG" not in seen
    assert seen[:flips].count("refused") >= 0.98 * flips


@pytest.mark.parametrize("kind", ["nii.gz", "nrrd", "nrrd-bz2", "mha"])
def test_every_truncation_is_refused(tmp_path: Path, kind: str) -> None:
    path, _ = make(tmp_path, kind)
    good = path.read_bytes()
    ends = np.random.default_rng(1).integers(1, len(good), 60).tolist()
    for end in [*range(1, 20), *ends, *range(len(good) - 12, len(good))]:
        path.write_bytes(good[:end])
        assert outcome(path) == "refused", end


@pytest.mark.parametrize("kind", ["nii", "nrrd", "mha"])
def test_headers_with_flipped_bits_never_break_the_reader(tmp_path: Path, kind: str) -> None:
    """No checksum guards these headers: what is asked is an answer, not that it be noticed."""
    path, start = (save_nifti(tmp_path / "ct.nii"), 352) if kind == "nii" else make(tmp_path, kind)
    good = path.read_bytes()
    rng = np.random.default_rng(5)
    for _ in range(400):
        data = bytearray(good)
        for bit in rng.integers(0, 8 * start, rng.integers(1, 4)):
            data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        for read in (read_volume, read_labels):
            with contextlib.suppress(SimCroPError):
                read(path)


@pytest.mark.parametrize("tail", [b"x", b"rubbish" * 100, bytes(100)])
def test_rubbish_behind_a_packed_file_is_refused_or_padding(tmp_path: Path, tail: bytes) -> None:
    path = save_nifti(tmp_path / "ct.nii.gz")
    path.write_bytes(path.read_bytes() + tail)
    assert outcome(path) == ("refused" if any(tail) else "same")


def test_gzip_of_several_members(tmp_path: Path) -> None:
    data = save_nifti(tmp_path / "x.nii").read_bytes()
    cuts = [0, 3, 200, 352, 5001, len(data)]
    path = tmp_path / "ct.nii.gz"
    members = [gzip.compress(data[a:b]) for a, b in itertools.pairwise(cuts)]
    path.write_bytes(b"".join(members))
    assert outcome(path) == "same"
    path.write_bytes(b"".join(members[:-1]))
    assert outcome(path) == "refused"


# -- bombs --------------------------------------------------------------------------------------


def nifti_bomb(shape: tuple[int, int, int], dtype_code: int = 4) -> bytes:
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *shape, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, dtype_code, 16)
    struct.pack_into("<8f", header, 76, 1, 1, 1, 1, 0, 0, 0, 0)
    struct.pack_into("<f", header, 108, 352)
    struct.pack_into("<2h", header, 252, 0, 1)
    struct.pack_into("<12f", header, 280, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0)
    header[344:348] = b"n+1\0"
    return bytes(header)


def bombs(folder: Path) -> dict[str, str]:
    """Files that ask for far more memory than they hold, and the refusal each one gets."""
    (folder / "small.nii.gz").write_bytes(gzip.compress(nifti_bomb((1000, 1000, 1000))))
    (folder / "huge.nii.gz").write_bytes(gzip.compress(nifti_bomb((32767, 32767, 32767))))
    (folder / "plain.nii").write_bytes(nifti_bomb((1000, 1000, 1000)))
    # 4 MB of zeros behind a header that declares 2 GB in a file big enough to hold it
    more = os.urandom(3_000_000)
    (folder / "half.nii.gz").write_bytes(
        gzip.compress(nifti_bomb((1000, 1000, 1000)) + bytes(4_000_000) + more)
    )
    # far more data than declared
    (folder / "long.nii.gz").write_bytes(
        gzip.compress(nifti_bomb((10, 10, 10)) + bytes(200_000_000), 9)
    )
    sizes = {"sizes": "1000 1000 1000"}
    save_nrrd(folder / "a.nrrd", gzip.compress(bytes(1000)), **sizes)
    save_nrrd(folder / "b.nrrd", bz2.compress(bytes(1000)), encoding="bzip2", **sizes)
    save_nrrd(folder / "c.nrrd", bytes(1000), encoding="raw", **sizes)
    save_nrrd(folder / "d.nrrd", bytes(1000), sizes="99999999 99999999 99999999")
    save_mha(
        folder / "a.mha",
        zlib.compress(bytes(1000)),
        CompressedData="True",
        DimSize="1000 1000 1000",
    )
    save_mha(folder / "b.mha", bytes(1000), DimSize="1000 1000 1000")
    return {
        "small.nii.gz": "truncated",
        "huge.nii.gz": "too-large",
        "plain.nii": "truncated",
        "half.nii.gz": "truncated",
        "long.nii.gz": "damaged-header",
        "a.nrrd": "truncated",
        "b.nrrd": "truncated",
        "c.nrrd": "truncated",
        "d.nrrd": "too-large",
        "a.mha": "truncated",
        "b.mha": "truncated",
    }


CHILD = """
import resource, sys
import simcrop_core.io, simcrop_core.io.nifti, simcrop_core.io.nrrd, simcrop_core.io.metaimage
from isal import igzip
from simcrop_core import SimCroPError
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
for path in sys.argv[1:]:
    try:
        volume = simcrop_core.io.read_volume(path)
        print(path, "loaded", volume.hu_XYZ.nbytes / 2**20)
    except SimCroPError as e:
        print(path, e.code)
print("grew", peak() - before)
"""


def run_child(paths: list[Path]) -> tuple[dict[str, list[str]], float]:
    """What became of each file, and by how many MiB a fresh process grew at its peak."""
    out = subprocess.run(
        [sys.executable, "-c", CHILD, *map(str, paths)],
        capture_output=True, text=True, check=True, timeout=100,
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    lines = [line.split() for line in out.stdout.splitlines()]
    assert lines[-1][0] == "grew"
    return {Path(line[0]).name: line[1:] for line in lines[:-1]}, float(lines[-1][1])


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read as Linux reports it")
def test_bombs_are_refused_in_little_memory(tmp_path: Path) -> None:
    expected = bombs(tmp_path)
    seen, grew = run_child([tmp_path / name for name in expected])
    assert {name: words[0] for name, words in seen.items()} == expected
    assert grew < 60  # MiB; half.nii.gz really holds 7


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read as Linux reports it")
@pytest.mark.parametrize("kind", ["nii.gz", "nii", "nrrd", "mha"])
def test_peak_memory_is_the_volume_once(tmp_path: Path, kind: str) -> None:
    big = np.asfortranarray(np.tile(chest(), (4, 4, 6)))  # 61 MiB
    path = tmp_path / f"ct.{kind}"
    if kind.startswith("nii"):
        save_nifti(tmp_path / "x.nii", big)
        data = (tmp_path / "x.nii").read_bytes()
        path.write_bytes(gzip.compress(data, 1) if kind == "nii.gz" else data)
    elif kind == "nrrd":
        save_nrrd(path, gzip.compress(big.tobytes("F"), 1), sizes="192 176 300")
    else:
        packed = zlib.compress(big.tobytes("F"), 1)
        save_mha(path, packed, CompressedData="True", DimSize="192 176 300")
    seen, grew = run_child([path])
    size = big.nbytes / 2**20
    assert seen[path.name][0] == "loaded"
    assert float(seen[path.name][1]) == pytest.approx(size)
    assert grew < 1.25 * size + 8
