"""The command as a person uses it: real processes, real files, one line when it refuses."""

from __future__ import annotations

import contextlib
import csv
import importlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from processes import start

from simcrop_core.cli import main
from simcrop_core.input_spec import InputSpec
from simcrop_core.model import VisionConfig, create_model, save_model
from simcrop_core.phantoms.plan import plan_phantom
from simcrop_core.report import read_report
from simcrop_core.sample import SAMPLE_SEED, sample_study

SIMCROP = Path(sys.executable).with_name("simcrop")


Done = subprocess.CompletedProcess


def run_process(*arguments: object) -> Done[str]:
    """One command in a process of its own."""
    return subprocess.run(
        [SIMCROP, *map(str, arguments)], capture_output=True, text=True, timeout=300
    )


def begin(said: Path, *arguments: object, change: Callable[[], None] = lambda: None) -> BaseProcess:
    """One command in a process that has loaded everything; what it prints is in two files."""
    said.mkdir()
    words = [str(a) for a in arguments]

    def do() -> None:
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(said / name, os.O_WRONLY | os.O_CREAT), number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        change()
        code = main(words)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    return start(do)


def run(*arguments: object) -> Done[str]:
    """One command in this process, which spares importing torch each time."""
    out, err = io.StringIO(), io.StringIO()
    words = [str(a) for a in arguments]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(words)
        except SystemExit as e:  # argparse ends so
            code = int(e.code or 0)
    return Done(words, code, out.getvalue(), err.getvalue())


@pytest.fixture(autouse=True)
def _signals_stay_ours():
    kept = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, kept)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "study"
    assert main(["sample", "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "starter"
    assert main(["models", "create", "starter", "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory) -> Path:
    """A small model with a head; the preset's whole input is slow on one core."""
    folder = tmp_path_factory.mktemp("models") / "segmenter"
    model = create_model(
        "starter",
        segmentation_labels=("left lung", "right lung"),
        input_spec=InputSpec(shape=(64, 64, 32), spacing_mm=(6, 6, 10.5)),
        vision=VisionConfig(depth=4, width=48, heads=4),
    )
    save_model(model, folder)
    return folder


@pytest.fixture(scope="module")
def aligned(study, model, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("aligned") / "out"
    done = run(
        "align", study / "ct.nii.gz", "--report", study / "report.txt", "--model", model,
        "--out", out, "--query", "There is a nodule in the right upper lobe.", "--top-k", 20,
        "--encoded", out.parent / "encoded.npz",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "untrained" in done.stdout
    return out


# -- what it writes -------------------------------------------------------------------------------


def test_the_sample_is_the_built_in_study(study: Path) -> None:
    image = nib.load(study / "ct.nii.gz")
    sample = sample_study()
    assert sample.report is not None
    assert np.array_equal(np.asarray(image.dataobj), sample.volume.hu_XYZ)
    assert np.allclose(image.affine, sample.volume.grid.affine)
    assert (study / "report.txt").read_text() == f"{sample.report.text}\n"
    # A mass on the right, fluid on the left, as its report says.
    found = {(f.name, f.side) for f in plan_phantom(SAMPLE_SEED).findings}
    assert {("Lung nodule", "right"), ("Pleural effusion", "left")} <= found
    kinds = [sentence.kind for sentence in sample.sentences]
    assert kinds.count("finding") >= 4


def test_align_writes_what_is_documented(aligned: Path, study: Path) -> None:
    assert {p.name for p in aligned.iterdir()} == {
        "alignment.json", "alignment.npz", "heatmaps", "figure.png",
    }  # fmt: skip
    card = json.loads((aligned / "alignment.json").read_text())
    arrays = np.load(aligned / "alignment.npz", allow_pickle=False)
    text = read_report(study / "report.txt").text
    sentences = card["sentences"]
    assert card["schema"] == 1
    assert [s["index"] for s in sentences] == list(range(len(sentences)))
    assert sentences[-1]["section"] == "query"
    assert sentences[-1]["span"] is None
    assert {s["section"] for s in sentences} == {"findings", "impression", "query"}
    spans = [s["span"] for s in sentences[:-1]]
    assert spans == sorted(spans)
    for sentence in sentences[:-1]:
        a, b = sentence["span"]
        assert text[a:b] == sentence["text"]
    similarity, top = arrays["similarity"], arrays["top_k"]
    assert similarity.dtype == np.float32
    assert similarity.shape == (len(sentences), 14**3)
    assert top.shape == (len(sentences), 20)
    affine = np.array(card["patch_grid"]["affine"])
    assert card["patch_grid"]["shape"] == [14, 14, 14]
    for sentence, row, best in zip(sentences, similarity, top, strict=True):
        assert (np.diff(row[best]) <= 0).all()
        for entry, flat in zip(sentence["top_k"], best, strict=True):
            i, j, k = entry["patch"]
            assert (i * 14 + j) * 14 + k == flat
            assert entry["similarity"] == pytest.approx(row[flat], abs=1e-6)
            assert np.allclose((affine @ [i, j, k, 1])[:3], entry["center_mm"], atol=1e-4)
            assert np.allclose(entry["size_mm"], [24, 24, 24], atol=1e-4)
    maps = sorted((aligned / "heatmaps").iterdir())
    assert len(maps) == len(sentences)
    for row, path in zip(similarity, maps, strict=True):
        image = nib.load(path)
        assert np.allclose(image.affine, affine, atol=1e-4)
        assert np.allclose(image.get_fdata().reshape(-1), row, atol=1e-6)
    assert (aligned / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_input_gives_the_same_bytes(aligned, study, model, tmp_path) -> None:
    process = begin(
        tmp_path / "said", "align", study / "ct.nii.gz", "--report", study / "report.txt",
        "--model", model, "--out", tmp_path / "again", "--top-k", 20,
        "--query", "There is a nodule in the right upper lobe.",
    )  # fmt: skip
    process.join(300)
    assert process.exitcode == 0, (tmp_path / "said" / "err").read_text()
    for path in sorted(aligned.rglob("*")):
        if path.is_file():
            other = tmp_path / "again" / path.relative_to(aligned)
            assert path.read_bytes() == other.read_bytes(), path.name


def test_an_encoded_scan_is_kept_and_used(aligned, study, model, tmp_path) -> None:
    encoded = aligned.parent / "encoded.npz"
    stamp = encoded.stat().st_mtime_ns
    done = run(
        "align", study / "ct.nii.gz", "--model", model, "--out", tmp_path / "o",
        "--query", "The heart is enlarged.", "--encoded", encoded, "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert encoded.stat().st_mtime_ns == stamp
    fresh = run(
        "align", study / "ct.nii.gz", "--model", model, "--out", tmp_path / "p",
        "--query", "The heart is enlarged.", "--json",
    )  # fmt: skip
    assert json.loads(done.stdout) == json.loads(fresh.stdout)
    moved = run(
        "align", study / "ct.nii.gz", "--model", model, "--out", tmp_path / "q",
        "--query", "The heart is enlarged.", "--encoded", encoded, "--placement", "lungs",
    )  # fmt: skip
    assert moved.returncode == 0, moved.stderr
    assert encoded.stat().st_mtime_ns != stamp  # of another placement: made anew


def test_segment_labels_the_scans_own_voxels(study, segmenter, tmp_path) -> None:
    out = tmp_path / "labels.nii.gz"
    done = run("segment", study / "ct.nii.gz", "--model", segmenter, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    labels, scan = nib.load(out), nib.load(study / "ct.nii.gz")
    assert labels.shape == scan.shape
    assert np.allclose(labels.affine, scan.affine)
    card = json.loads((tmp_path / "labels.json").read_text())
    assert card["labels"] == {"1": "left lung", "2": "right lung"}
    values = np.asarray(labels.dataobj)
    voxel_ml = abs(np.linalg.det(scan.affine[:3, :3])) / 1000
    for label, name in ((1, "left lung"), (2, "right lung")):
        assert card["volume_ml"][name] == pytest.approx(
            (values == label).sum() * voxel_ml, abs=0.01
        )
    assert json.loads(done.stdout) == card


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_figure_draws_from_an_alignment(aligned, study, tmp_path, suffix) -> None:
    out = tmp_path / f"f.{suffix}"
    done = run(
        "figure", study / "ct.nii.gz", "--alignment", aligned, "--out", out,
        "--sentences", "1,4", "--planes", "axial,coronal",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    head = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[suffix]
    assert out.read_bytes().startswith(head)


def test_batch_records_a_bad_study_and_goes_on_and_resumes(study, model, tmp_path) -> None:
    (tmp_path / "bad.nii.gz").write_bytes(b"not a scan")
    manifest = tmp_path / "m.csv"
    manifest.write_text(
        "study,ct,report\n"
        f"one,{study / 'ct.nii.gz'},{study / 'report.txt'}\n"
        f"two,bad.nii.gz,{study / 'report.txt'}\n"
        f"three,{study / 'ct.nii.gz'},{study / 'absent.txt'}\n"
    )
    out = tmp_path / "out"
    command = ("batch", "align", manifest, "--model", model, "--out", out, "--no-figures", "--json")
    first = run(*command)
    assert first.returncode == 0, first.stderr
    tally = json.loads(first.stdout)
    assert (tally["aligned"], tally["skipped"], tally["failed"]) == (1, 0, 2)
    rows = list(csv.DictReader((out / "status.csv").open()))
    assert [r["status"] for r in rows] == ["aligned", "refused", "refused"]
    assert "not a scan" in rows[1]["message"]
    assert str(tmp_path) not in (out / "status.csv").read_text()  # file names may name patients
    assert (out / "one" / "alignment.json").is_file()
    assert not (out / "two").exists()
    again = json.loads(run(*command).stdout)
    assert (again["aligned"], again["skipped"], again["failed"]) == (0, 1, 2)


def test_nobodys_files_are_written_over(study, segmenter, tmp_path) -> None:
    ct = tmp_path / "ct.nii.gz"
    ct.write_bytes((study / "ct.nii.gz").read_bytes())
    (tmp_path / "report.txt").write_text("mine")
    (tmp_path / "mine.json").write_text("mine")
    (tmp_path / "dir.json").mkdir()
    before = {p: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    segment = ("segment", ct, "--model", segmenter, "--out")
    refused(run(*segment, ct, "--overwrite"), "place of the scan")
    refused(run(*segment, tmp_path / "mine.nii.gz"), "mine.json")
    refused(run(*segment, tmp_path / "dir.nii.gz", "--overwrite"), "dir.json")
    refused(run("sample", "--out", tmp_path), "ct.nii.gz")
    assert {p: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()} == before
    done = run(*segment, tmp_path / "labels.nii.gz")
    assert done.returncode == 0, done.stderr
    refused(run(*segment, tmp_path / "labels.nii.gz"), "--overwrite")
    assert run(*segment, tmp_path / "labels.nii.gz", "--overwrite").returncode == 0


def test_negative_millimetres_and_settings_are_taken(aligned, study, tmp_path) -> None:
    base = ("figure", study / "ct.nii.gz", "--alignment", aligned, "--sentences", "1")
    pictures = []
    for number, more in enumerate(
        (
            ["--position", "-35,3,-204"],
            ["--position=35,3,-204"],
            ["--position", "-35,3,-204", "--set", "heat=false"],
        )
    ):
        out = tmp_path / f"{number}.png"
        done = run(*base, *more, "--set", "dpi=60", "--out", out)
        assert done.returncode == 0, done.stderr
        pictures.append(out.read_bytes())
    assert len(set(pictures)) == 3
    refused(run(*base, "--set", "nonsense=1", "--out", tmp_path / "f.png"), "nonsense")
    assert "opacity" in run("figure", "--help").stdout


def test_the_figure_of_align_is_that_of_figure(aligned, study, tmp_path) -> None:
    done = run("figure", study / "ct.nii.gz", "--alignment", aligned, "--out", tmp_path / "f.png")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "f.png").read_bytes() == (aligned / "figure.png").read_bytes()


def test_json_is_json_in_any_terminal(aligned) -> None:
    code = (
        "import sys; from simcrop_core.cli import main\n"
        f"sys.exit(main(['inspect', {str(aligned)!r}, '--json']))"
    )
    for encoding in ("ascii", "latin-1", "utf-8"):
        environment = {**os.environ, "PYTHONIOENCODING": encoding}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
        assert json.loads(done.stdout)["kind"] == "alignment"


def test_pipes_odd_names_and_closed_streams_end_in_a_sentence(tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "model").mkdir()
    os.mkfifo(tmp_path / "model" / "config.json")
    refused(run_process("inspect", tmp_path / "pipe"), "pipe")
    refused(run_process("models", "import", tmp_path / "pipe", "--out", tmp_path / "m"), "pipe")
    refused(run_process("models", "info", tmp_path / "model"), "config.json")
    refused(run_process("inspect", "a" * 300), "aaa")
    refused(run_process("inspect", tmp_path, "b\nc"), "b c")
    refused(run("inspect", ""), "empty")
    for shell in (f"{SIMCROP} inspect absent 2>&-", f"{SIMCROP} doctor --help >/dev/full"):
        assert subprocess.run(["sh", "-c", shell], capture_output=True).returncode in (0, 2)
    closed = subprocess.run(["sh", "-c", f"{SIMCROP} models info absent >&-"], capture_output=True)
    assert closed.returncode == 2
    assert closed.stderr.count(b"\n") == 1


def test_a_query_in_no_encoding_is_refused_and_control_characters_go(
    study, model, tmp_path
) -> None:
    base = ("align", study / "ct.nii.gz", "--model", model, "--out", tmp_path / "out", "--query")
    refused(run(*base, "a \udcff bad"), "no text")
    refused(run(*base, "\u200b"), "empty")


# -- speed of the light commands, and what they import ------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], ["align", "--help"], ["--version"]])
def test_help_answers_without_heavy_imports(arguments) -> None:
    code = (
        "import sys\n"
        "from simcrop_core.cli import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'pydicom', 'nibabel', 'matplotlib', 'transformers', 'monai'}\n"
        "sys.exit(','.join(sorted(heavy & set(sys.modules))) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_inspect_answers_without_torch(study, aligned, model) -> None:
    for path in (study / "ct.nii.gz", study / "report.txt", aligned, model,
                 aligned.parent / "encoded.npz"):  # fmt: skip
        code = (
            "import sys\n"
            "from simcrop_core.cli import main\n"
            f"code = main(['inspect', {str(path)!r}, '--json'])\n"
            "heavy = {'torch', 'matplotlib', 'transformers', 'monai'} & set(sys.modules)\n"
            "sys.exit(','.join(sorted(heavy)) or code)\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, (path, done.stderr)
        assert json.loads(done.stdout)


# -- refusals -----------------------------------------------------------------------------------


def refused(done: Done[str], word: str) -> None:
    assert done.returncode == 2, (done.returncode, done.stderr)
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert word in lines[0]
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "required"),
        (["align"], "required"),
        (["fly"], "invalid choice"),
        (["align", "x.nii", "--model", "m", "--out", "o", "--top-k", "0"], "whole number"),
        (["align", "x.nii", "--model", "m", "--out", "o"], "--report"),
        (["align", "x.nii", "--model", "m", "--out", "o", "--query", "a", "--spacing", "1,2"],
         "millimetres"),
        (["inspect", "absent.nii.gz"], "absent.nii.gz"),
        (["models", "create", "huge", "--out", "m"], "preset"),
        (["models", "info", "absent"], "absent"),
        (["segment", "x.nii", "--model", "m", "--out", "labels.png"], ".nii.gz"),
        (["figure", "x.nii", "--alignment", "absent", "--out", "f.png"], "absent"),
        (["batch", "align", "absent.csv", "--model", "m", "--out", "o"], "absent.csv"),
    ],
)  # fmt: skip
def test_a_refusal_is_one_line_and_exit_code_2(arguments, word, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused(run(*arguments), word)
    assert list(tmp_path.iterdir()) == []


def test_refusals_about_files(study, model, tmp_path) -> None:
    ct, report = study / "ct.nii.gz", study / "report.txt"
    (tmp_path / "cut.nii.gz").write_bytes(ct.read_bytes()[:50_000])
    (tmp_path / "empty.txt").write_text("")
    base = ("--model", model, "--out", tmp_path / "out")
    refused(run("align", tmp_path / "cut.nii.gz", "--report", report, *base), "cut.nii.gz")
    refused(run("align", ct, "--report", tmp_path / "empty.txt", *base), "empty.txt")
    refused(
        run("align", ct, "--report", report, "--model", study, "--out", tmp_path / "o"), "study"
    )
    refused(run("align", ct, "--query", "a", "--device", "cuda:7", *base), "cuda:7")
    refused(run("align", ct, "--query", "a", "--series", "x", *base), "series")
    refused(run("align", ct, "--query", "a", "--volume-name", "x", *base), "--report")
    refused(run("segment", ct, "--model", model, "--out", tmp_path / "l.nii.gz"), "segmentation")
    (tmp_path / "file").write_text("in the way")
    done = run("align", ct, "--query", "a", "--model", model, "--out", tmp_path / "file")
    refused(done, "folder")
    assert {p.name for p in tmp_path.iterdir()} == {"cut.nii.gz", "empty.txt", "file"}


def test_a_refusal_of_a_process_and_its_traceback_on_request(tmp_path) -> None:
    refused(run_process("inspect", tmp_path / "absent"), "absent")
    done = run_process("inspect", tmp_path / "absent", "--debug")
    assert "Traceback" in done.stderr
    assert done.returncode != 0


def test_an_alignment_of_another_scan_is_not_drawn(aligned, study, tmp_path) -> None:
    image = nib.load(study / "ct.nii.gz")
    changed = np.asarray(image.dataobj).copy()
    changed[50, 50, 50] += 1
    nib.save(nib.Nifti1Image(changed, image.affine), tmp_path / "other.nii.gz")
    done = run(
        "figure", tmp_path / "other.nii.gz", "--alignment", aligned, "--out", tmp_path / "f.png"
    )
    refused(done, "scan")
    assert not (tmp_path / "f.png").exists()


@pytest.mark.parametrize(
    ("step", "number"),
    [
        ("io.read_volume", signal.SIGINT),
        ("align.encode", signal.SIGTERM),
        ("result_folder.save_figure", signal.SIGINT),  # the other files of the result are written
        ("result_folder.save_figure", signal.SIGTERM),
    ],
)
def test_stopping_leaves_nothing_half_written(study, segmenter, tmp_path, step, number) -> None:
    module, name = step.split(".")
    here, said, out = tmp_path / "said" / "here", tmp_path / "said", tmp_path / "out"

    def change() -> None:
        def waits(*_: object, **__: object) -> None:
            here.touch()
            time.sleep(600)

        setattr(importlib.import_module(f"simcrop_core.{module}"), name, waits)

    running = begin(
        said, "align", study / "ct.nii.gz", "--query", "A nodule.", "--model", segmenter,
        "--out", out, change=change,
    )  # fmt: skip
    until = time.monotonic() + 200
    while not here.exists() and running.is_alive() and time.monotonic() < until:
        time.sleep(0.02)
    hidden = [p for p in tmp_path.iterdir() if p.name.startswith(".")]
    assert bool(hidden) == (module == "result_folder")
    os.kill(running.pid, number)
    running.join(120)
    assert running.exitcode == 130
    assert (said / "err").read_text() == "simcrop: Stopped. Nothing was left half-written.\n"
    assert list(tmp_path.iterdir()) == [said]


def test_a_second_signal_does_not_break_off_the_word_about_the_first(tmp_path) -> None:
    program = (
        "import argparse, os, signal, sys\n"
        "from simcrop_core import cli\n"
        "say = cli._say\n"
        "def twice(line):\n"
        "    os.kill(os.getpid(), signal.SIGTERM); os.kill(os.getpid(), signal.SIGINT); say(line)\n"
        "cli._say = twice\n"
        "def stopped(arguments):\n"
        "    raise KeyboardInterrupt\n"
        "def parser():\n"
        "    made = argparse.ArgumentParser()\n"
        "    made.set_defaults(run=stopped, debug=False)\n"
        "    return made\n"
        "sys.exit(cli.run_command(parser, [], 'simcrop'))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 130
    assert done.stderr.splitlines() == ["simcrop: Stopped. Nothing was left half-written."]


def test_doctor_tells_of_codecs_encoders_and_models(model, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("doctor", "--json", "--models", model.parent)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["packages"]["torch"]
    assert all(facts["codecs"].values())
    assert {"JPEG lossless", "JPEG 2000", "RLE"} <= set(facts["codecs"])
    assert str(model) in [m["folder"] for m in facts["models"]]
    assert "minilm" in facts["text_encoders"]


def test_the_real_scan_with_its_report(real_data, model, tmp_path) -> None:
    folder = real_data / "ct" / "nsclc-lung1-001"
    done = run(
        "align", folder / "image", "--report", folder / "report.txt", "--model", model,
        "--out", tmp_path / "out", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    card = json.loads(done.stdout)
    assert len(card["sentences"]) == 15
    assert "scan-larger-than-input" in {n["code"] for n in card["volume"]["notes"]}
    assert card == json.loads((tmp_path / "out" / "alignment.json").read_text())
