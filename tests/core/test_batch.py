"""Many studies: manifests, what makes a result out of date, and workers that die."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from distributed.scheduler import KilledWorker

from simcrop_core import batch
from simcrop_core.batch import BatchRequest, Study, read_manifest
from simcrop_core.cluster import dask_client
from simcrop_core.errors import SimCroPError
from simcrop_core.input_spec import InputSpec


def manifest(folder: Path, text: str | bytes) -> Path:
    path = folder / "m.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_manifest_is_read_from_its_own_folder(tmp_path: Path) -> None:
    path = manifest(
        tmp_path,
        "\ufeffstudy,ct,report,volume_name,series\n"
        'a, scans/a.nii.gz ,"/abs/r, of all.csv",train_1,\n'
        "b 2,b,r.txt,,s1\n",
    )
    first, second = read_manifest(path)
    ct = str(tmp_path / "scans" / "a.nii.gz")
    assert first == Study("a", ct, "/abs/r, of all.csv", "train_1", None)
    assert second == Study("b 2", str(tmp_path / "b"), str(tmp_path / "r.txt"), None, "s1")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "no rows"),
        ("ct,report\na,b\n", "lacks the column study"),
        ("study,ct\na,b\n", "lacks the column report"),
        ("study,ct,report\n", "no rows"),
        ("study,ct,report,age\na,b,c,4\n", "'age'"),
        ("study,ct,report,report\na,b,c,d\n", "twice"),
        ("study,ct,report\na,b,c,d\n", "Row 2"),
        ("study,ct,report\na,b\n", "Row 2"),
        ("study,ct,report\na,b,c\n\nA,b,c\n", "given twice"),
        ("study,ct,report\n../a,b,c\n", "cannot name"),
        ("study,ct,report\n.,b,c\n", "cannot name"),
        ("study,ct,report\nstatus.csv,b,c\n", "cannot name"),
        ("study,ct,report\n,b,c\n", "Row 2: The column study is blank"),
        ("study,ct,report\na,,c\n", "Row 2: The column ct is blank"),
        (b"study,ct,report\n\xff,b,c\n", "UTF-8"),
    ],
)
def test_bad_manifests_are_refused(tmp_path: Path, text: str | bytes, word: str) -> None:
    with pytest.raises(SimCroPError, match=word) as refusal:
        read_manifest(manifest(tmp_path, text))
    assert refusal.value.path == str(tmp_path / "m.csv")
    with pytest.raises(SimCroPError, match="no such"):
        read_manifest(tmp_path / "absent.csv")


def key(ct: Path, **request: object) -> str:
    study = Study("a", str(ct), str(ct.parent / "r.txt"))
    return batch._key(study, BatchRequest(model="m", **request), "id")  # type: ignore[arg-type]


def test_a_result_is_out_of_date_when_anything_it_depends_on_changes(tmp_path: Path) -> None:
    ct = tmp_path / "ct" / "a.mhd"
    ct.parent.mkdir()
    (ct.parent / "r.txt").write_text("report")
    ct.write_text("ElementDataFile = a.raw")
    (ct.parent / "a.raw").write_bytes(b"voxels")
    keys = [key(ct)]
    assert key(ct) == keys[0]
    (ct.parent / "a.raw").write_bytes(b"other voxels")  # the header is as it was
    keys.append(key(ct))
    (ct.parent / "r.txt").write_text("another report")
    keys.append(key(ct))
    keys.append(key(ct, top_k=3))
    keys.append(key(ct, placement="lungs"))
    keys.append(key(ct, precision="bf16"))
    keys.append(key(ct, figures=False))
    keys.append(key(ct, reading=(("fill_gaps", True),)))
    keys.append(key(ct, encoding="cp1254"))
    keys.append(batch._key(Study("a", str(ct), "r", "n"), BatchRequest(model="m"), "id"))
    keys.append(batch._key(Study("a", str(ct), "r", None), BatchRequest(model="m"), "other"))
    assert len(set(keys)) == len(keys)
    # A GPU computes in bf16 unless told otherwise, so the device is part of what was asked.
    assert key(ct, device="cpu") != key(ct, device="auto")


def test_a_slice_stands_for_its_series(tmp_path: Path) -> None:
    for name in ("1.dcm", "2.dcm"):
        (tmp_path / name).write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 200)
    (tmp_path / "r.txt").write_text("report")
    before = key(tmp_path / "1.dcm")
    (tmp_path / "2.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\1" * 300)
    assert key(tmp_path / "1.dcm") != before


def test_done_means_this_very_request(tmp_path: Path) -> None:
    assert not batch._done(tmp_path / "absent", "k")
    (tmp_path / "request.json").write_text(json.dumps({"schema": 1, "key": "k"}))
    assert not batch._done(tmp_path, "k")
    (tmp_path / "alignment.json").write_text("{}")
    assert batch._done(tmp_path, "k")
    assert not batch._done(tmp_path, "other")
    (tmp_path / "request.json").write_text("[]")
    assert not batch._done(tmp_path, "k")


def test_a_scan_that_does_not_say_its_geometry_is_told_it(tmp_path: Path, monkeypatch) -> None:
    """What `align` can be told, a batch can be told too."""
    monkeypatch.setattr(batch, "_model", lambda *_: SimpleNamespace(input_spec=InputSpec()))
    np.savez(tmp_path / "a.npz", ct=np.zeros((8, 8, 8), np.int16))
    (tmp_path / "r.txt").write_text("Normal.")
    study = Study("a", str(tmp_path / "a.npz"), str(tmp_path / "r.txt"))
    plain = batch.align_study(study, str(tmp_path), BatchRequest(model="absent"), "k")
    assert (plain["status"], plain["code"]) == ("refused", "missing-geometry")
    told = BatchRequest(model="absent", reading=(("axcodes", "LPS"), ("spacing_mm", (1, 1, 1))))
    outcome = batch.align_study(study, str(tmp_path), told, "k")
    assert outcome["status"] == "refused"
    assert outcome["code"] == "constant"  # it was read, and judged
    assert str(tmp_path) not in outcome["message"]


def test_a_worker_that_dies_is_told_and_all_end_with_the_batch(monkeypatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with dask_client(1, None) as client:
        worker = client.run(os.getpid)
        future = client.submit(os._exit, 1, pure=False)
        with pytest.raises(KilledWorker):
            future.result(timeout=60)
        threads = client.submit(os.getenv, "OMP_NUM_THREADS").result(timeout=60)
        assert threads == str(os.cpu_count())
    for pid in worker.values():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense"])
def test_a_scheduler_that_does_not_answer_is_refused(monkeypatch, address: str) -> None:
    import distributed

    client = distributed.Client
    monkeypatch.setattr(distributed, "Client", lambda a, timeout: client(a, timeout=2))
    with pytest.raises(SimCroPError, match="No Dask scheduler"), dask_client(1, address):
        pass
