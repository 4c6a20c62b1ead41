"""Encoded scans that are kept: the same comes back, another never does, room is made."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from simcrop_core.encoded import Encoded, VolumeCard
from simcrop_core.encoded_cache import EncodedCache
from simcrop_core.errors import SimCroPError
from simcrop_core.geometry import Grid
from simcrop_core.patches import PatchGrid
from simcrop_core.volume import CTVolume, Note


def scan(seed: int = 0, spacing_mm: float = 1.5) -> CTVolume:
    rng = np.random.default_rng(seed)
    affine = np.diag([-spacing_mm, -spacing_mm, 3.0, 1])
    return CTVolume(rng.integers(-900, 900, (8, 8, 4)).astype(np.int16), Grid((8, 8, 4), affine))


def encoded(volume: CTVolume, **changes: object) -> Encoded:
    rng = np.random.default_rng(int(volume.hu_XYZ[0, 0, 0]) + 1000)
    grid = PatchGrid(Grid((2, 2, 2), np.diag([-6.0, -6, 6, 1])), (4, 4, 2))
    made = Encoded(
        patches_ND=rng.normal(size=(8, 5)).astype(np.float32),
        patches=grid,
        inside_N=np.arange(8) > 1,
        volume=VolumeCard.of(volume, (Note("cut", "It was cut."),)),
        model_id="0123456789ab",
        placement="center",
        precision="fp32",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def find(cache: EncodedCache, volume: CTVolume, **asked: str) -> Encoded | None:
    made_of = {"model_id": "0123456789ab", "placement": "center", "precision": "fp32"}
    return cache.find(volume, **(made_of | asked))


def keep(cache: EncodedCache, *seeds: int) -> None:
    for seed in seeds:
        cache.keep(scan(seed), encoded(scan(seed)))


def test_what_was_kept_comes_back(tmp_path: Path) -> None:
    cache, one = EncodedCache(tmp_path / "cache"), encoded(scan())
    assert find(cache, scan()) is None
    assert cache.size_bytes() == 0
    keep(cache, 0)
    found = find(EncodedCache(tmp_path / "cache"), scan())
    assert found is not None
    assert np.array_equal(found.patches_ND, one.patches_ND)
    assert found.volume == one.volume
    assert cache.size_bytes() > 8 * 5 * 4


def test_anything_else_does_not(tmp_path: Path) -> None:
    cache = EncodedCache(tmp_path)
    keep(cache, 0)
    assert find(cache, scan(1)) is None
    assert find(cache, scan(spacing_mm=1.6)) is None
    assert find(cache, scan().with_notes([Note("a", "It was read otherwise.")])) is None
    assert find(cache, scan(), model_id="ba9876543210") is None
    assert find(cache, scan(), placement="lungs") is None
    assert find(cache, scan(), precision="bf16") is None
    assert find(cache, scan()) is not None


def test_what_is_damaged_or_renamed_is_removed(tmp_path: Path) -> None:
    cache = EncodedCache(tmp_path)
    keep(cache, 0, 1)
    first, second = sorted(tmp_path.iterdir())
    first.write_bytes(second.read_bytes())  # whole, but not what its name says
    second.write_bytes(second.read_bytes()[:-20])
    assert find(cache, scan(0)) is None
    assert find(cache, scan(1)) is None
    assert list(tmp_path.iterdir()) == []


def test_what_was_used_longest_ago_makes_room(tmp_path: Path) -> None:
    cache = EncodedCache(tmp_path)
    keep(cache, 0)
    size = cache.size_bytes()
    cache = EncodedCache(tmp_path, limit_bytes=3 * size + size // 2)
    keep(cache, 1, 2)
    for age, path in enumerate(sorted(tmp_path.iterdir())):
        os.utime(path, (1000 + age, 1000 + age))
    assert find(cache, scan(0)) is not None  # used just now
    keep(cache, 3)
    assert cache.size_bytes() == 3 * size
    there = {seed for seed in range(4) if find(cache, scan(seed)) is not None}
    assert {0, 3} < there
    small = EncodedCache(tmp_path, limit_bytes=1)
    keep(small, 4)
    assert find(small, scan(4)) is not None  # the newest stays, whatever it takes
    assert len(list(tmp_path.iterdir())) == 1


def test_nobody_elses_files_are_touched(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    cache = EncodedCache(tmp_path, limit_bytes=0)
    keep(cache, 0)
    (tmp_path / ".0123456789ab-left.encoded.npz").write_text("a process was killed here")
    cache.clear()
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = EncodedCache(tmp_path / "file" / "cache")
    with pytest.raises(SimCroPError) as refusal:
        keep(cache, 0)
    assert refusal.value.code in ("cannot-write", "not-a-folder")
    assert find(cache, scan()) is None


def test_what_a_killed_process_left_goes_after_an_hour(tmp_path: Path) -> None:
    old, new = (tmp_path / f".{n}-x.encoded.npz" for n in ("0" * 12, "1" * 12))
    for path in (old, new):
        path.write_text("half")
    os.utime(old, (1000, 1000))
    keep(EncodedCache(tmp_path), 0)
    assert not old.exists()
    assert new.exists()  # somebody may be writing it now


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such rights")
def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    keep(EncodedCache(tmp_path / "cache"), 0)
    [path] = (tmp_path / "cache").iterdir()
    assert [p.stat().st_mode & 0o077 for p in (path, path.parent)] == [0, 0]


def test_what_is_kept_of_which_files_is_known_without_reading_them(tmp_path: Path) -> None:
    cache, made_of = EncodedCache(tmp_path / "cache"), ("0123456789ab", "center", "fp32")
    assert cache.known("files", *made_of) is None
    keep(cache, 0)
    cache.remember("files", scan(), *made_of)
    assert cache.known("files", *made_of) == scan().pseudonym
    assert cache.known("other files", *made_of) is None
    assert cache.known("files", "another model", *made_of[1:]) is None
    assert "files" not in "".join(p.name for p in cache.folder.iterdir())
    for path in cache.folder.glob("*.npz"):
        path.unlink()
    assert cache.known("files", *made_of) is None
    assert list(cache.folder.iterdir()) == []
    assert not cache.remember("files", scan(), *made_of)  # nothing is kept of it any more
    assert list(cache.folder.iterdir()) == []
    keep(cache, 0)
    assert cache.remember("files", scan(), *made_of)
    cache.clear()
    assert list(cache.folder.iterdir()) == []


def test_work_that_began_before_the_cache_was_cleared_leaves_nothing(tmp_path: Path) -> None:
    cache, made_of = EncodedCache(tmp_path / "cache"), ("0123456789ab", "center", "fp32")
    began = cache.times_cleared
    cache.clear()
    cache.keep(scan(0), encoded(scan(0)), began)
    assert not cache.folder.exists()
    cache.keep(scan(0), encoded(scan(0)), cache.times_cleared)
    assert not cache.remember("files", scan(0), *made_of, began)
    assert cache.known("files", *made_of) is None
    assert cache.remember("files", scan(0), *made_of, cache.times_cleared)


def test_a_note_of_files_never_leads_out_of_the_folder(tmp_path: Path) -> None:
    cache, made_of = EncodedCache(tmp_path / "cache"), ("0123456789ab", "center", "fp32")
    (tmp_path / "secret").write_text("x")
    keep(cache, 0)
    assert cache.remember("files", scan(), *made_of)
    (link,) = cache.folder.glob("*.kept")
    link.write_text("../secret\nct-0\n")
    assert cache.known("files", *made_of) is None
    assert (tmp_path / "secret").exists()
