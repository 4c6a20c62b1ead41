"""What is held out: whole patients, and phantoms that are for evaluation only."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from boxes import SPEC, BoxSource, tiny_config
from simcrop_training.cli import main

from simcrop_core.datasets import open_dataset, phantom_dataset, phantom_sources
from simcrop_core.errors import SimCroPError
from simcrop_core.model.simcrop import SimCroP
from simcrop_core.objectives.base import Ranks
from simcrop_core.store import Store, StoreSettings, build_store, open_store
from simcrop_core.store.encode import TextSettings
from simcrop_core.store.index import index_checksum
from simcrop_core.train.data import TrainingData, open_data

SETTINGS = StoreSettings(spec=SPEC, margin_voxels=SPEC.patch_shape)
TEXT = TextSettings(source="minilm")


def store_of(folder: Path, patients: Sequence[str]) -> Store:
    """A store of a made study for each entry, which is its patient."""
    sources = [BoxSource(number, of) for number, of in enumerate(patients)]
    build_store("boxes", sources, folder, SETTINGS, TEXT)
    return open_store(folder)


def opened(store: Store, model: SimCroP, held_out: int, folder: Path) -> TrainingData:
    config = tiny_config(store.folder, data={"held_out": held_out}, run={"batch_size": 1})
    return open_data(config, model.config, store.folder, folder, Ranks())


# -- patients -----------------------------------------------------------------------------------


def test_no_patient_is_both_trained_on_and_held_out(
    tmp_path: Path, tiny_model: SimCroP, capsys: pytest.CaptureFixture[str]
) -> None:
    patients = ["x", "anna", "", "boris", "", "anna", "clara", "boris", "clara", "clara"]
    store = store_of(tmp_path / "store", patients)
    assert store.patients == (0, 1, 2, 3, 4, 1, 6, 3, 6, 6)
    data = opened(store, tiny_model, 3, tmp_path)
    assert data.held_out is not None
    assert data.held_out.indices == (7, 8, 9)
    # Boris (3) and Clara (6) are held out; studies of unknown patients are each their own.
    assert data.loader.indices == (0, 1, 2, 4, 5)
    assert "2 studies are neither trained on nor validated on" in capsys.readouterr().err
    seen = {index for epoch in range(3) for index in data.loader.order(epoch)}
    assert not {patients[i] for i in seen} & {"boris", "clara"}
    assert opened(store, tiny_model, 0, tmp_path).loader.indices == tuple(range(10))


def test_who_a_patient_is_is_nowhere_in_the_store(tmp_path: Path) -> None:
    store_of(tmp_path / "store", ["CANARY-4711", "CANARY-4711", "CANARY-0815"])
    for path in (tmp_path / "store").rglob("*"):
        assert "CANARY" not in path.name
        if path.is_file():
            assert b"CANARY" not in path.read_bytes(), path


def test_patients_that_become_known_change_the_split_and_prepare_nothing(tmp_path: Path) -> None:
    before = store_of(tmp_path / "store", ["", "", ""]).fingerprint
    sources = [BoxSource(number, of) for number, of in enumerate(["a", "b", "a"])]
    tally = build_store("boxes", sources, tmp_path / "store", SETTINGS, TEXT)
    assert (tally.prepared, tally.done_before) == (0, 3)
    after = open_store(tmp_path / "store")
    assert after.split(1) == ((1,), (2,), 1)
    assert after.fingerprint != before  # a run that began with the other split cannot go on


def test_one_patient_alone_cannot_be_split(tmp_path: Path, tiny_model: SimCroP) -> None:
    store = store_of(tmp_path / "store", ["a", "a", "a"])
    with pytest.raises(SimCroPError, match="All studies are of the patients of the last 1"):
        opened(store, tiny_model, 1, tmp_path)


def test_an_index_without_patients_is_refused(tmp_path: Path, tiny_model: SimCroP) -> None:
    store_of(tmp_path / "store", ["a", "b", "b"])
    path = tmp_path / "store" / "index.json"
    index = json.loads(path.read_bytes())
    del index["patients"]
    index["crc32"] = index_checksum(index)
    path.write_text(json.dumps(index))
    store = open_store(tmp_path / "store")
    assert opened(store, tiny_model, 0, tmp_path).loader.indices == (0, 1, 2)
    with pytest.raises(SimCroPError, match="which studies are of one patient") as refused:
        opened(store, tiny_model, 1, tmp_path)
    assert refused.value.code == "no-patients"
    store_of(tmp_path / "store", ["a", "b", "b"])  # as the remedy says
    with pytest.raises(SimCroPError, match="damaged"):
        index["patients"] = [0]
        index["crc32"] = index_checksum(index)
        path.write_text(json.dumps(index))
        open_store(tmp_path / "store")


def test_data_sets_say_whose_their_studies_are(tmp_path: Path) -> None:
    names = ["train_7_a_1", "train_7_a_2", "train_7_b_1", "train_8_a_1", "valid_7_a_1"]
    with (tmp_path / "reports.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["VolumeName", "Findings_EN", "Impressions_EN"])
        writer.writerows([f"{name}.nii.gz", "Normal.", "Normal."] for name in names)
    found = [source.patient for source in open_dataset(f"ct-rate:{tmp_path}").sources]
    assert found == ["train_7", "train_7", "train_7", "train_8", "valid_7"]
    path = tmp_path / "mine.csv"
    path.write_text("study,volume,patient\na,a.nii.gz,p1\nb,b.nii.gz,\nc,c.nii.gz,p1\n")
    sources = open_dataset(str(path)).sources
    assert [source.patient for source in sources] == ["p1", "", "p1"]
    path.write_text("study,volume\na,a.nii.gz\nb,b.nii.gz\nc,c.nii.gz\n")
    plain = open_dataset(str(path)).sources
    assert [source.patient for source in plain] == ["", "", ""]
    # A column of patients is no reason to prepare volumes again.
    assert [s.stamp() for s in plain] == [s.stamp() for s in sources]
    assert [source.patient for source in phantom_dataset(0, 2).sources] == ["", ""]


# -- phantoms for evaluation --------------------------------------------------------------------


def test_phantoms_for_training_and_for_evaluation_are_never_one_data_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SimCroPError, match="lie on both sides") as refused:
        open_dataset("phantoms:899990-900500")
    assert refused.value.code == "evaluation-phantoms"
    assert len(open_dataset("phantoms:899990-900000")) == 10
    assert len(open_dataset("phantoms:900000-900002")) == 2
    words = ["prepare", "phantoms:899999-900001", "--store", str(tmp_path / "s")]
    assert main(words) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "s").exists()


def test_a_store_of_phantoms_for_evaluation_is_not_trained_on(
    tmp_path: Path, tiny_model: SimCroP
) -> None:
    build_store("phantoms", phantom_sources([899_999, 900_000]), tmp_path / "s", SETTINGS, TEXT)
    with pytest.raises(SimCroPError, match="for evaluation and never trained on"):
        opened(open_store(tmp_path / "s"), tiny_model, 0, tmp_path)


def test_a_placement_that_changes_nothing_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["prepare", "phantoms:0-2", "--placement", "lungs", "--store", str(tmp_path / "s")]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "--placement lungs would change nothing" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "s").exists()
