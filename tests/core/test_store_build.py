"""Making a store: idempotent, resumable, never a mixture, faults recorded."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from made_ct import chest, save_nifti
from made_store import MINILM, SETTINGS, MadeSource
from simcrop_training.prepare import add_prepare_arguments, run_prepare

from simcrop_core.errors import SimCroPError
from simcrop_core.store import BuildTally, Loader, build_store, open_store, to_batch
from simcrop_core.store.build import _patients
from simcrop_core.store.encode import TextSettings


def build(folder: Path, *sources: MadeSource, **options: object) -> BuildTally:
    return build_store("made", sources, folder, SETTINGS, MINILM, **options)  # type: ignore[arg-type]


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file with its identity and time: the same again means that nothing was written."""
    return {
        str(p.relative_to(folder)): (p.stat().st_ino, p.stat().st_mtime_ns)
        for p in folder.rglob("*")
        if p.is_file() and p.name != ".lock"
    }


def test_a_second_run_does_nothing(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    tally = build(tmp_path, MadeSource(0), MadeSource(1), progress=lambda *a: told.append(a))
    assert (tally.prepared, tally.done_before, tally.skipped, tally.encoded) == (2, 0, 0, 8)
    assert told[:3] == [("preparing studies", n, 2) for n in (0, 1, 2)]
    assert told[-1] == ("encoding texts", 8, 8)
    before = files(tmp_path)
    assert not [
        name for name in before if "/." in name or name.startswith(".")
    ]  # nothing left over
    tally = build(tmp_path, MadeSource(0), MadeSource(1))
    assert (tally.prepared, tally.done_before, tally.encoded) == (0, 2, 0)
    assert files(tmp_path) == before


def test_added_and_changed_studies_are_made_and_no_others(tmp_path: Path) -> None:
    build(tmp_path, MadeSource(0), MadeSource(1))
    before = files(tmp_path)
    tally = build(tmp_path, MadeSource(2), MadeSource(0), MadeSource(1, version="2"))
    # Of the added study's texts one nodule sentence and the report are new.
    assert (tally.prepared, tally.done_before, tally.encoded) == (2, 1, 2)
    after = files(tmp_path)
    kept = {name for name in before if before[name] == after.get(name)}
    assert {Path(name).stem for name in kept} == {"made-000", "store"}
    assert open_store(tmp_path).ids == ("made-002", "made-000", "made-001")
    tally = build(tmp_path, MadeSource(0))  # a study that is taken out is no longer listed
    assert open_store(tmp_path).ids == ("made-000",)
    assert tally.dropped == 2


def test_a_store_is_not_made_among_other_things(tmp_path: Path) -> None:
    (tmp_path / "truth.json").write_text("{}")
    with pytest.raises(SimCroPError, match="holds other things"):
        build(tmp_path, MadeSource(0))
    assert not (tmp_path / "store.json").exists()


def test_a_store_killed_while_its_settings_were_written_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / ".0123456789ab-store.json").write_text('{"sch')
    assert build(tmp_path, MadeSource(0)).prepared == 1
    assert not list(tmp_path.glob(".*-store.json"))


def test_patients_are_the_same_in_any_case() -> None:
    @dataclass
    class Of:
        patient: str

    assert _patients([Of("P1"), Of(""), Of("p1 "), Of("P2"), Of(" ")]) == [0, 1, 0, 3, 4]


def test_studies_that_cannot_be_read_are_recorded(tmp_path: Path) -> None:
    bad = MadeSource(1, fault="It is broken")
    tally = build(tmp_path, MadeSource(0), bad, MadeSource(2))
    assert (tally.prepared, tally.skipped) == (2, 1)
    assert tally.problems == [("made-001", "It is broken. Nothing.")]
    store = open_store(tmp_path)
    assert store.ids == ("made-000", "made-002")
    (skipped,) = store.skipped
    assert (skipped["id"], skipped["code"]) == ("made-001", "made-up")
    before = files(tmp_path)
    assert build(tmp_path, MadeSource(0), bad, MadeSource(2)).skipped == 1  # not tried again
    assert files(tmp_path) == before
    tally = build(tmp_path, MadeSource(0), MadeSource(1), MadeSource(2))  # its file was mended
    assert (tally.prepared, tally.skipped) == (1, 0)
    assert len(open_store(tmp_path)) == 3
    with pytest.raises(SimCroPError, match="None of the 1 studies"):
        build(tmp_path / "none", bad)
    assert not (tmp_path / "none").exists()


def test_a_defect_ends_one_study_only_and_is_retried_when_asked(tmp_path: Path) -> None:
    class Defective(MadeSource):
        tries = 0

        def load(self, spec: object = None, margin_voxels: object = None) -> object:
            Defective.tries += 1
            raise ZeroDivisionError("nobody thought of it")

    sources = (MadeSource(0), Defective(1))
    assert build(tmp_path, *sources).skipped == 1
    build(tmp_path, *sources)
    assert Defective.tries == 1
    build(tmp_path, *sources, retry=True)
    assert Defective.tries == 2
    assert "ZeroDivisionError" in open_store(tmp_path).skipped[0]["problem"]


@pytest.mark.parametrize(
    ("change", "word"),
    [({"margin_voxels": (2, 2, 1)}, "margin_voxels"), ({"placement": "lungs"}, "placement")],
)
def test_settings_are_never_mixed(tmp_path: Path, change: dict[str, object], word: str) -> None:
    build(tmp_path, MadeSource(0))
    before = files(tmp_path)
    other = SETTINGS.model_copy(update=change)
    with pytest.raises(SimCroPError, match=word) as refused:
        build_store("made", [MadeSource(0)], tmp_path, other, MINILM)
    assert refused.value.code == "other-settings"
    with pytest.raises(SimCroPError, match="data set 'made'"):
        build_store("other", [MadeSource(0)], tmp_path, SETTINGS, MINILM)
    assert files(tmp_path) == before


def test_missing_and_damaged_files_are_made_again(tmp_path: Path) -> None:
    build(tmp_path, MadeSource(0), MadeSource(1), MadeSource(2))
    store = open_store(tmp_path)
    fingerprint = store.fingerprint
    store.path("volumes", "made-000").unlink()
    assert build(tmp_path, *map(MadeSource, range(3))).prepared == 1
    for part in ("volumes", "records", "structures"):
        path = store.path(part, "made-001")  # type: ignore[arg-type]
        data = bytearray(path.read_bytes())
        data[-3] ^= 1
        path.write_bytes(data)
        tally = build(tmp_path, *map(MadeSource, range(3)), verify=True)
        assert (tally.prepared, tally.done_before) == (1, 2)
    (tmp_path / "index.json").unlink()  # all of it can be told from the records
    tally = build(tmp_path, *map(MadeSource, range(3)))
    assert (tally.prepared, tally.done_before) == (0, 3)
    assert open_store(tmp_path).fingerprint == fingerprint


def test_another_encoder_leaves_the_volumes_alone(tmp_path: Path) -> None:
    build(tmp_path, MadeSource(0))
    volume = files(tmp_path / "volumes")
    first = open_store(tmp_path).text
    cls = TextSettings(source="minilm", sentence_vector="cls", dtype="float16")
    tally = build_store("made", [MadeSource(0)], tmp_path, SETTINGS, cls)
    assert (tally.prepared, tally.encoded) == (0, 6)
    assert files(tmp_path / "volumes") == volume
    with pytest.raises(SimCroPError, match="2 text encoders"):
        open_store(tmp_path)
    assert first is not None
    second = open_store(tmp_path, first.encoder.fingerprint, "cls").text
    assert second is not None
    assert (second.dtype, first.dtype) == ("float16", "float32")
    texts = open_store(tmp_path, first.encoder.fingerprint, "mean").record(0).sentences
    assert np.abs(first.vectors_of(texts) - second.vectors_of(texts)).max() > 0.01
    with pytest.raises(SimCroPError, match="no vectors of the model"):
        open_store(tmp_path, "0" * 64)


@pytest.mark.parametrize("name", ["../escape", ".hidden", "a/b", "", "a\n", "x" * 200])
def test_names_that_are_no_files_are_refused(tmp_path: Path, name: str) -> None:
    class Named(MadeSource):
        id = name  # type: ignore[assignment]

    with pytest.raises(SimCroPError, match="cannot name a file"):
        build(tmp_path, Named(0))
    with pytest.raises(SimCroPError, match="given twice"):
        build(tmp_path, MadeSource(0), MadeSource(0))
    assert not list(tmp_path.iterdir())


def test_two_preparations_of_one_store_are_kept_apart(tmp_path: Path) -> None:
    refused: list[str] = []

    class Meanwhile(MadeSource):
        def load(self, *arguments: object, **options: object) -> object:
            try:
                build(tmp_path, MadeSource(3))
            except SimCroPError as e:
                refused.append(e.code)
            return super().load()

    build(tmp_path, Meanwhile(0))
    assert refused == ["locked"]


_UNGUARDED = """
import sys
from pathlib import Path
from made_store import MINILM, SETTINGS, MadeSource
from simcrop_core.store import build_store
print("imported", flush=True)
made = [MadeSource(0), MadeSource(1)]
tally = build_store("made", made, Path(sys.argv[1]), SETTINGS, MINILM, workers=int(sys.argv[2]))
print("prepared", tally.prepared)
"""


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_script_without_a_guard_is_told_so_in_one_sentence(tmp_path: Path, workers: int) -> None:
    script = tmp_path / "mine.py"
    script.write_text(_UNGUARDED)
    paths = os.pathsep.join(path for path in (str(Path(__file__).parent), *sys.path) if path)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "store"), str(workers)],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=300,
    )
    if workers == 1:
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == ["imported", "prepared 2"]
        return
    assert done.returncode == 1  # the script does not catch the refusal
    assert done.stderr.count("SimCroPError") == 1
    assert 'under `if __name__ == "__main__":`' in done.stderr.splitlines()[-1]
    assert "Another process" not in done.stderr


# -- the command --------------------------------------------------------------------------------

_COMMAND = """
import argparse, sys
from simcrop_training.prepare import add_prepare_arguments, run_prepare
parser = argparse.ArgumentParser()
add_prepare_arguments(parser)
parser.add_argument("--json", action="store_true")
sys.exit(run_prepare(parser.parse_args()))
"""
_SIZES = ("--shape", "32,24,16", "--spacing", "6,6,12", "--patch", "8,8,4")


def run(*arguments: object) -> int:
    """The command in this process."""
    parser = argparse.ArgumentParser()
    add_prepare_arguments(parser)
    parser.add_argument("--json", action="store_true")
    return run_prepare(parser.parse_args([*_SIZES, *map(str, arguments)]))


def manifest(folder: Path, count: int) -> Path:
    """A manifest of so many scans with reports."""
    lines = ["study,volume,report,Lung nodule"]
    for n in range(count):
        save_nifti(folder / f"{n}.nii.gz", chest(seed=n))
        (folder / f"{n}.txt").write_text(f"Findings: There is a nodule of {n + 3} mm.")
        lines.append(f"s{n:02d},{n}.nii.gz,{n}.txt,{n % 2}")
    path = folder / "mine.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_killed_preparation_goes_on_where_it_was(tmp_path: Path, capsys) -> None:
    """Processes of this machine, killed with all they were at, then run to the end."""
    path, store = manifest(tmp_path, 10), tmp_path / "store"
    command = [sys.executable, "-c", _COMMAND, *_SIZES, path, "--store", store, "--workers", "2"]
    process = subprocess.Popen(command, start_new_session=True)
    deadline = time.monotonic() + 120
    while len(list(store.glob("records/*/s*"))) < 3 and time.monotonic() < deadline:
        assert process.poll() is None or list(store.glob("records/*/s*"))
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    survivors = files(store / "records")
    done = [name for name in survivors if not Path(name).name.startswith(".")]
    assert len(done) >= 3
    assert run(path, "--store", store, "--workers", 1, "--json") == 0
    tally = json.loads(capsys.readouterr().out)
    assert tally["prepared"] == 10 - len(done)
    assert tally["done_before"] == len(done)
    after = files(store / "records")
    assert all(after[name] == survivors[name] for name in done)
    assert not [name for name in files(store) if Path(name).name.startswith(".")]
    opened = open_store(store)
    assert opened.ids == tuple(f"s{n:02d}" for n in range(10))
    raw = next(iter(Loader(opened, batch_size=10, seed=0, shuffle=False)))
    assert raw.facts_BFSL[:, 9, 0, 0].tolist() == [n % 2 for n in range(10)]
    assert to_batch(raw, "cpu").volume_B1HWD.shape == (10, 1, 32, 24, 16)


def test_the_command_says_what_it_did_and_what_is_wrong(tmp_path: Path, capsys) -> None:
    path, store = manifest(tmp_path, 3), tmp_path / "store"
    row = path.read_text().splitlines()[1].split(",")
    header = path.read_text().splitlines()[0].split(",")
    lost = tmp_path / "lost.csv"
    row[header.index("report")] = "absent.txt"
    lost.write_text(",".join(header) + "\n" + ",".join(row) + "\n")
    assert run(lost, "--preflight") == 1
    assert "1 studies, 0 can be prepared" in capsys.readouterr().out
    (tmp_path / "1.nii.gz").write_bytes(b"")
    assert run(path, "--preflight") == 1
    table = capsys.readouterr().out
    assert "3 studies, 2 can be prepared" in table
    assert "s01" in table
    assert run(path, "--preflight", "--json") == 1
    faults = json.loads(capsys.readouterr().out)["faults"]
    assert [(f["study"], f["part"], f["code"]) for f in faults] == [("s01", "volume", "empty")]
    assert run(path, "--store", store, "--workers", 1) == 0
    said = capsys.readouterr().out
    assert "2 prepared, 0 done before, 1 left out" in said
    assert "left out s01: The file is empty." in said
    assert run(path, "--store", store, "--workers", 1, "--json") == 0
    assert json.loads(capsys.readouterr().out)["done_before"] == 2
    for wrong, word in (
        ((path,), "--store"),
        ((path, "--store", store, "--margin", "1,0,0"), "cells"),
        ((tmp_path / "absent.csv", "--store", store), "no such file"),
        (("phantoms:7", "--store", store), "phantoms:0-2400"),
        ((path, "--split", "train", "--store", store), "Only public data sets"),
    ):
        with pytest.raises(SimCroPError, match=word):
            run(*wrong)
    for wrong in (("--shape", "1,2"), ("--workers", "0")):
        with pytest.raises(SystemExit):
            run(path, *wrong)
