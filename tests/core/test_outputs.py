"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from simcrop_core import outputs
from simcrop_core.errors import SimCroPError
from simcrop_core.outputs import remove_partial, whole_file, whole_folder


def names(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


def test_a_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "a.txt"
    with whole_file(target) as hidden:
        hidden.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert names(target.parent) == {"a.txt"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, MemoryError])
def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path, error) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(error), whole_file(target) as hidden:
        hidden.write_text("half")
        raise error
    assert target.read_text() == "old"
    assert names(tmp_path) == {"a.txt"}


def test_a_folder_replaces_its_entries_and_leaves_others(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "maps").mkdir(parents=True)
    (out / "maps" / "stale").write_text("stale")
    (out / "mine").write_text("mine")
    with whole_folder(out) as hidden:
        (hidden / "maps").mkdir()
        (hidden / "maps" / "fresh").write_text("fresh")
        (hidden / "card").write_text("card")
    assert names(out) == {"maps", "mine", "card"}
    assert names(out / "maps") == {"fresh"}
    assert names(tmp_path) == {"out"}


def old_result(out: Path, foreign: bool) -> dict[str, str]:
    (out / "maps").mkdir(parents=True)
    for name in ("maps/a", "card", "picture"):
        (out / name).write_text("old")
    if foreign:
        (out / "mine").write_text("mine")
    return content(out)


def content(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()
    }


def write_new(out: Path) -> None:
    with whole_folder(out, owned=("card", "maps", "picture")) as hidden:
        (hidden / "maps").mkdir()
        for name in ("maps/b", "card"):
            (hidden / name).write_text("new")


@pytest.mark.parametrize("swaps", [True, False])
@pytest.mark.parametrize("foreign", [True, False])
def test_a_new_result_takes_the_place_of_the_old_one_whole(
    tmp_path, monkeypatch, foreign, swaps
) -> None:
    if not swaps:
        monkeypatch.setattr(outputs, "exchange", lambda *_: False)
    out = tmp_path / "out"
    old_result(out, foreign)
    write_new(out)
    # The old picture belonged to the old result: it must not stand beside the new one.
    assert content(out) == {"maps/b": "new", "card": "new"} | ({"mine": "mine"} if foreign else {})
    assert names(tmp_path) == {"out"}


@pytest.mark.parametrize("error", [OSError(errno.EIO, "bad disk"), KeyboardInterrupt()])
def test_a_failure_at_any_rename_leaves_the_old_result(tmp_path, monkeypatch, error) -> None:
    rename = os.rename
    for failing in range(10):
        out = tmp_path / f"out{failing}"
        before = old_result(out, foreign=True)
        calls = 0

        def counted(source, target):
            nonlocal calls
            calls += 1
            if calls - 1 == failing:  # noqa: B023 - called within this turn only
                raise error
            rename(source, target)

        monkeypatch.setattr(os, "rename", counted)
        try:
            write_new(out)
        except (SimCroPError, KeyboardInterrupt):
            assert content(out) == before
        else:
            assert failing >= calls  # beyond the last rename
            assert failing > 3
            break
        finally:
            monkeypatch.setattr(os, "rename", rename)
        assert {p for p in names(tmp_path) if p.startswith(".")} == set()
    else:
        pytest.fail("no run went through")


def test_an_interrupted_folder_leaves_no_trace(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt), whole_folder(out) as hidden:
        (hidden / "a").write_text("half")
        raise KeyboardInterrupt
    assert names(tmp_path) == set()


def test_a_folder_whose_parent_is_not_ours_is_written_from_inside(tmp_path, monkeypatch) -> None:
    out = tmp_path / "out"
    old_result(out, foreign=False)
    rename = os.rename

    def never_outside(source, target):
        if Path(target).parent == tmp_path:
            raise PermissionError(errno.EXDEV, "Invalid cross-device link")
        rename(source, target)

    monkeypatch.setattr(os, "rename", never_outside)
    write_new(out)
    assert content(out) == {"maps/b": "new", "card": "new"}
    assert names(tmp_path) == {"out"}


def test_a_folder_has_the_usual_permissions_and_may_be_here(tmp_path, monkeypatch) -> None:
    (tmp_path / "usual").mkdir()
    with whole_folder(tmp_path / "out") as hidden:
        (hidden / "a").write_text("a")
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "usual").stat().st_mode
    monkeypatch.chdir(tmp_path / "out")
    for _ in range(2):
        with whole_folder(Path("."), owned=("a",)) as hidden:
            (hidden / "b").write_text("b")
        assert names(Path(".")) == {"b"}


def test_a_full_disk_is_one_sentence_and_the_old_file_stays(tmp_path, monkeypatch) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SimCroPError, match="No space left"), whole_file(target) as hidden:
        hidden.write_text("new")
    assert target.read_text() == "old"
    assert names(tmp_path) == {"a.txt"}


def test_a_file_in_the_way_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with (
        pytest.raises(SimCroPError, match="a folder is to be written"),
        whole_folder(tmp_path / "out"),
    ):
        pass
    with pytest.raises(SimCroPError, match="cannot be"), whole_file(tmp_path / "out" / "x"):
        pass


def test_kill_at_any_moment_leaves_old_or_new(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    script = (
        "import sys; from pathlib import Path; from simcrop_core.outputs import whole_file\n"
        "n = 0\n"
        "while True:\n"
        "    n = (n + 1) % 256\n"
        "    with whole_file(Path(sys.argv[1])) as hidden:\n"
        "        hidden.write_bytes(bytes([n]) * 300_000)\n"
    )
    for pause in (0.0, 0.01, 0.023, 0.05, 0.08):
        writer = subprocess.Popen([sys.executable, "-c", script, str(target)])
        deadline = time.monotonic() + 20
        while not target.exists() and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(pause)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        content = target.read_bytes()
        assert len(content) == 300_000
        assert len(set(content)) == 1
        target.unlink()


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    kept = [tmp_path / n for n in ("a b", ".0123456789ab-a", ".hidden-a b", "x0123456789ab-a b")]
    kept.append(tmp_path / "a b" / "mine")
    gone = [tmp_path / ".0123456789ab-a b", tmp_path / "a b" / ".ba9876543210-a b"]
    for folder in (*kept, *gone):
        folder.mkdir()
        (folder / "file").write_text("x")
    remove_partial(tmp_path, {"a b"})
    assert all((folder / "file").is_file() for folder in kept)
    assert not any(folder.exists() for folder in gone)
    remove_partial(tmp_path / "absent", {"study"})
