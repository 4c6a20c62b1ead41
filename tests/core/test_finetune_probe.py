"""Linear probes end to end: lists and scans in, figures and a model folder out."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from made_probe import (
    SPEC,
    cc_ccii_task,
    ct_rate_task,
    luna16_task,
    probe,
    radchestct_task,
    tiny_model,
)
from made_public import ct_rate_list, labels_of, phantom, radchestct_list
from simcrop_training.cli import main

from simcrop_core import cli
from simcrop_core.classify import classify
from simcrop_core.datasets import open_dataset
from simcrop_core.datasets.ct_rate import volume_paths
from simcrop_core.errors import SimCroPError
from simcrop_core.finetune import kept
from simcrop_core.finetune.config import ProbeConfig
from simcrop_core.finetune.features import FeatureMaker
from simcrop_core.finetune.probe import ProbeResult, run_probe
from simcrop_core.geometry import Grid
from simcrop_core.model import ClassificationConfig, load_model, save_model, with_classification
from simcrop_core.statements import FINDINGS
from simcrop_core.train.build import build_model
from simcrop_core.train.config import ModelSource
from simcrop_core.train.lock import RunLock
from simcrop_core.volume import CTVolume

TRAIN, TEST = range(8), range(8, 14)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tiny_model(), tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def ct_rate(data: Path) -> dict[str, str]:
    return ct_rate_task(data, TRAIN, TEST)


@pytest.fixture(scope="module")
def radchestct(data: Path) -> dict[str, str]:
    return radchestct_task(data, TRAIN, range(14, 18), TEST)


def codes(result: ProbeResult) -> set[str]:
    return {note.code for note in result.notes}


# -- each task ----------------------------------------------------------------------------------


def test_ct_rate_and_its_head_on_radchestct(
    tmp_path: Path, model: Path, ct_rate: dict[str, str], radchestct: dict[str, str]
) -> None:
    config = probe("ct-rate", {**ct_rate, "external": radchestct["root"]}, model)
    result = run_probe(tmp_path / "out", config)
    assert result.scans == {"training": 8, "validation": 0, "testing": 6, "external": 6}
    known = {f for f in FINDINGS if len({labels_of(n)[f] for n in TEST}) == 2}
    assert set(result.test.by_label) == known
    assert set(result.test.undefined) == set(FINDINGS) - known
    areas = [e.value for e in result.test.by_label.values()]
    assert result.test.overall is not None
    assert result.test.overall.value == pytest.approx(np.mean(areas))
    assert result.external is not None
    assert len(result.external.by_label) + len(result.external.undefined) == 16
    assert len(result.fitted.losses) == 12
    assert result.fitted.losses[-1] < result.fitted.losses[0]
    # The validation list is the test list: nothing may be chosen by it.
    assert result.fitted.validations == ()
    assert codes(result) == {"untrained"}
    written = json.loads((tmp_path / "out" / "result.json").read_text())
    assert written == json.loads(json.dumps(result.to_dict()))
    assert ProbeConfig.model_validate_json((tmp_path / "out" / "config.json").read_text()) == config
    text = "\n".join(result.lines())
    assert "CT-RATE, 100% of its training scans (8), protocol clean; tested on 6" in text
    assert "82.9 %" in text


def test_radchestct_has_a_validation_list_of_its_own(
    tmp_path: Path, model: Path, radchestct: dict[str, str]
) -> None:
    result = run_probe(tmp_path / "out", probe("radchestct", radchestct, model))
    assert result.scans["validation"] == 4
    assert [done for done, _ in result.fitted.validations] == [1, 2, 3, 4, 5, 6]
    best = max(figure for _, figure in result.fitted.validations)
    kept = max(done for done, figure in result.fitted.validations if figure == best)
    assert result.fitted.steps == 2 * kept
    assert "chosen-on-test" not in codes(result)


def test_cc_ccii_is_measured_by_accuracy(tmp_path: Path, model: Path, data: Path) -> None:
    config = probe("cc-ccii", cc_ccii_task(data, TRAIN, TEST), model)
    result = run_probe(tmp_path / "out", config)
    assert result.test.metric == "accuracy"
    assert result.test.overall is not None
    shares = [(e.value, e.count) for e in result.test.by_label.values()]
    assert result.test.overall.value == pytest.approx(sum(v * n for v, n in shares) / 6)
    own = load_model(tmp_path / "out" / "model")
    found = classify(own, open_dataset(f"cc-ccii:{config.data.root}").study(9).volume)
    assert sum(found.probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert found.exclusive


def test_luna16_has_one_label(tmp_path: Path, model: Path, data: Path) -> None:
    result = run_probe(tmp_path / "out", probe("luna16", luna16_task(data, TRAIN, TEST), model))
    both = len({labels_of(n)["Lung nodule"] for n in TEST}) == 2
    assert list(result.test.by_label) == ["Lung nodule"] * both


def test_a_probe_learns_what_can_be_seen(tmp_path: Path, model: Path) -> None:
    """Labels that say whether the scan is dark: found on scans it was not fitted on."""
    training, testing = range(10), range(10, 18)
    folders = ct_rate_task(tmp_path, training, testing)
    names = {f"train_{n}_a_1": n for n in training} | {f"valid_{n}_a_1": n for n in testing}
    dark = {name: (phantom(n).volume.hu_XYZ < -600).mean() for name, n in names.items()}
    middle = np.median(list(dark.values()))
    for file in ("train_list.csv", "test_list.csv"):
        path = Path(folders["lists"]) / "CT-Rate" / file
        header, *rows = path.read_text().splitlines()
        named = [row.split(",")[0] for row in rows]
        labels = [int(dark[name.removesuffix(".nii.gz")] > middle) for name in named]
        rows = [",".join([n, *[str(x)] * 18]) for n, x in zip(named, labels, strict=True)]
        path.write_text("\n".join([header, *rows]) + "\n")
    head = {"steps": 300, "warmup": 10, "batch_size": 16, "lr": 0.05}
    result = run_probe(tmp_path / "out", probe("ct-rate", folders, model, head=head))
    assert result.test.overall is not None
    assert result.test.overall.value > 0.85


# -- the two ways, and the two protocols --------------------------------------------------------


def test_the_fast_way_is_the_authors_way_while_views_last(
    tmp_path: Path, model: Path, ct_rate: dict[str, str]
) -> None:
    """Six passes over the data: with six views kept, every step sees what a fresh one gives."""
    fresh = run_probe(tmp_path / "fresh", probe("ct-rate", ct_rate, model, views=None))
    kept = run_probe(tmp_path / "kept", probe("ct-rate", ct_rate, model, views=6))
    few = run_probe(tmp_path / "few", probe("ct-rate", ct_rate, model, views=1))
    np.testing.assert_allclose(kept.fitted.losses, fresh.fitted.losses, atol=1e-5)
    assert not np.allclose(few.fitted.losses, fresh.fitted.losses, atol=1e-5)
    assert few.fitted.losses[0] == pytest.approx(fresh.fitted.losses[0], abs=1e-6)


def test_released_chooses_on_the_test_scans_and_says_so(
    tmp_path: Path, model: Path, ct_rate: dict[str, str]
) -> None:
    config = probe("ct-rate", ct_rate, model, protocol="released")
    result = run_probe(tmp_path / "out", config)
    assert "chosen-on-test" in codes(result)
    best = max(figure for _, figure in result.fitted.validations)
    assert result.test.overall is not None
    assert result.test.overall.value == pytest.approx(best, abs=1e-6)
    clean = run_probe(tmp_path / "clean", probe("ct-rate", ct_rate, model))
    # Its encoder is not still while the head is fitted.
    assert not np.allclose(result.fitted.losses, clean.fitted.losses, atol=1e-6)
    late = run_probe(
        tmp_path / "late",
        probe("ct-rate", ct_rate, model, protocol="released", start_validation=50),
    )
    assert late.fitted.validations == ()
    assert "not-validated" in codes(late)


def test_the_same_seed_gives_the_same_probe(
    tmp_path: Path, model: Path, ct_rate: dict[str, str]
) -> None:
    one, two = (
        run_probe(tmp_path / name, probe("ct-rate", ct_rate, model)).to_dict()
        for name in ("a", "b")
    )
    assert one == two
    other = run_probe(tmp_path / "c", probe("ct-rate", ct_rate, model, seed=1))
    assert other.to_dict()["last_loss"] != one["last_loss"]


def test_both_layouts_of_ct_rate_give_the_same(
    tmp_path: Path, model: Path, ct_rate: dict[str, str]
) -> None:
    from made_public import make_ct_rate

    seeds = {f"train_{n}_a_1": n for n in TRAIN} | {f"valid_{n}_a_1": n for n in TEST}
    make_ct_rate(tmp_path / "other", seeds, "preprocessed")
    there = run_probe(tmp_path / "a", probe("ct-rate", ct_rate, model)).to_dict()
    moved = {**ct_rate, "root": str(tmp_path / "other")}
    assert (
        run_probe(tmp_path / "b", probe("ct-rate", moved, model)).to_dict()["test"] == there["test"]
    )


# -- the model folder ---------------------------------------------------------------------------


def test_the_model_of_a_probe_classifies_scans(
    tmp_path: Path, model: Path, ct_rate: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    result = run_probe(tmp_path / "out", probe("ct-rate", ct_rate, model))
    folder = tmp_path / "out" / "model"
    loaded = load_model(folder)
    assert loaded.config.classification is not None
    assert loaded.config.classification.labels == FINDINGS
    assert "linear probe on CT-RATE, 100% of its training scans, clean" in json.dumps(loaded.card())
    study = open_dataset(f"ct-rate:{ct_rate['root']}").study(0)
    found = classify(loaded, study.volume)
    features = np.stack(list(FeatureMaker(loaded).testing([open_source(ct_rate)])))[0]
    logits = features @ result.fitted.head.weight.numpy().T + result.fitted.head.bias.numpy()
    expected = 1 / (1 + np.exp(-logits[0]))
    np.testing.assert_allclose(list(found.probabilities.values()), expected, atol=1e-5)
    # On the command line, of a file that says what the metadata say.
    from made_public import save

    ct = save(tmp_path / "ct.nii.gz", study.volume.hu_XYZ, study.volume.grid.affine)
    assert cli.main(["classify", str(ct), "--model", str(folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    np.testing.assert_allclose(list(told["probabilities"].values()), expected, atol=1e-5)
    assert told["model"]["classification_trained"].startswith("linear probe on CT-RATE")
    assert cli.main(["classify", str(ct), "--model", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "%  Lung nodule" in out
    assert "The encoder: untrained." in out


def open_source(folders: dict[str, str]):
    return open_dataset(f"ct-rate:{folders['root']}").sources[0]


def test_a_model_without_a_head_is_refused(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from made_public import save

    volume = phantom(0).volume
    ct = save(tmp_path / "ct.nii.gz", volume.hu_XYZ, volume.grid.affine)
    assert cli.main(["classify", str(ct), "--model", str(model)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "has no classification head" in said


def test_the_encoder_is_not_changed_and_the_head_is_part_of_the_identity(
    tmp_path: Path, model: Path, ct_rate: dict[str, str]
) -> None:
    run_probe(tmp_path / "out", probe("ct-rate", ct_rate, model))
    before, after = load_model(model), load_model(tmp_path / "out" / "model")
    state = after.state_dict()
    for name, tensor in before.state_dict().items():
        assert (state.pop(name) == tensor).all(), name
    assert set(state) == {"classification.weight", "classification.bias"}
    assert before.model_id != after.model_id
    assert with_classification(after, None, None).model_id == before.model_id
    # Pre-training that goes on from it leaves the head behind.
    again = build_model(ModelSource(preset=None, folder=str(tmp_path / "out" / "model")), 0)
    assert again.config.classification is None


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"labels": ("a", "a")}, "same name"),
        ({"labels": (" ",)}, "no printable name"),
        ({"labels": ("a",), "exclusive": True}, "two or more"),
    ],
)
def test_heads_that_make_no_sense_are_refused(change: dict[str, object], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        ClassificationConfig.model_validate(change)


# -- going on, and what is refused --------------------------------------------------------------


def test_features_are_kept_for_the_next_head(
    tmp_path: Path, model: Path, ct_rate: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = probe("ct-rate", ct_rate, model)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "log.txt").touch()  # kept by whoever started it
    first = run_probe(tmp_path / "out", config)
    counted = []
    encode = FeatureMaker.encode
    monkeypatch.setattr(
        FeatureMaker, "encode", lambda self, *a: counted.append(1) or encode(self, *a)
    )
    with pytest.raises(SimCroPError, match="something here already"):
        run_probe(tmp_path / "out", config)
    second = run_probe(tmp_path / "out", config, resume=True)
    assert not counted
    assert second.to_dict() == first.to_dict()
    other = probe("ct-rate", ct_rate, model, head={"lr": 0.5})
    assert run_probe(tmp_path / "out", other, resume=True).fitted.losses != first.fitted.losses
    assert not counted
    # So are they for the same views of another version of this code.
    monkeypatch.setattr(kept, "FEATURES_VERSION", kept.FEATURES_VERSION + 1)
    run_probe(tmp_path / "out", config, resume=True)
    assert counted


def cut_short(data: bytes) -> bytes:
    return data[:100]


def one_byte_flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 64]) + data[middle + 1 :]


def another_packed_file(data: bytes) -> bytes:
    return b"PK\x03\x04" + data[4:100]


@pytest.mark.parametrize("spoil", [cut_short, one_byte_flipped, another_packed_file])
def test_damaged_features_are_computed_anew_with_a_note(
    tmp_path: Path, model: Path, ct_rate: dict[str, str], spoil: Callable[[bytes], bytes]
) -> None:
    config = probe("ct-rate", ct_rate, model)
    first = run_probe(tmp_path / "out", config)
    pieces = sorted((tmp_path / "out" / "features").iterdir())
    before = [path.read_bytes() for path in pieces]
    assert len(pieces) == 2
    for path in pieces:
        path.write_bytes(spoil(path.read_bytes()))
    mended = run_probe(tmp_path / "out", config, resume=True)
    assert codes(mended) - codes(first) == {"damaged-features"}
    assert mended.test.to_dict() == first.test.to_dict()
    for path, data in zip(pieces, before, strict=True):
        with np.load(path) as new, np.load(io.BytesIO(data)) as old:
            np.testing.assert_array_equal(new["features"], old["features"])
    assert codes(run_probe(tmp_path / "out", config, resume=True)) == codes(first)


def test_another_probe_is_not_written_over(
    tmp_path: Path, model: Path, ct_rate: dict[str, str]
) -> None:
    out = tmp_path / "out"
    run_probe(out, probe("ct-rate", ct_rate, model))
    before = (out / "result.json").read_bytes()
    for change, words in (
        ({"protocol": "released"}, "protocol was clean, not released"),
        ({"seed": 4}, "seed was 0, not 4"),
        ({"views": None}, "views was 3, not None"),
    ):
        with pytest.raises(SimCroPError, match=f"another probe here: {words}") as refused:
            run_probe(out, probe("ct-rate", ct_rate, model, **change), resume=True)
        assert "Choose another folder" in refused.value.remedy
    with pytest.raises(SimCroPError, match=r"data\.fraction was 1\.0, not 0\.1"):
        part = {**ct_rate, "fraction": "0.1"}
        run_probe(out, probe("ct-rate", part, model, head={"lr": 1}), resume=True)
    assert (out / "result.json").read_bytes() == before
    # How it is computed may change.
    run_probe(out, probe("ct-rate", {**ct_rate, "workers": "1"}, model), resume=True)
    (out / "config.json").write_text("{")
    with pytest.raises(SimCroPError, match="its configuration is damaged"):
        run_probe(out, probe("ct-rate", ct_rate, model), resume=True)


def test_what_a_killed_probe_left_half_written_does_not_stop_it(
    tmp_path: Path, model: Path, ct_rate: dict[str, str]
) -> None:
    out = tmp_path / "out"
    (out / "features").mkdir(parents=True)
    (out / "features" / ".0123456789ab-00.npz").write_bytes(b"half")
    (out / ".0123456789ab-config.json").write_bytes(b"half")
    (out / ".0123456789ab-model").mkdir()
    (out / ".0123456789ab-model" / "config.json").write_bytes(b"half")
    run_probe(out, probe("ct-rate", ct_rate, model), resume=True)
    assert not [path for path in out.rglob("*") if path.name.startswith(".")]
    (out / ".0123456789ab-mine").write_bytes(b"something else")
    with pytest.raises(SimCroPError, match="something here already"):
        run_probe(out, probe("ct-rate", ct_rate, model), resume=True)
    assert (out / ".0123456789ab-mine").exists()


def test_folders_may_start_at_home(
    tmp_path: Path, model: Path, ct_rate: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Path(ct_rate["lists"]).parent
    monkeypatch.setenv("HOME", str(home))
    at_home = {name: f"~/{Path(folder).name}" for name, folder in ct_rate.items()}
    result = run_probe(tmp_path / "out", probe("ct-rate", at_home, model))
    assert result.scans["training"] == 8


def scan_of(shape: tuple[int, int, int]) -> CTVolume:
    return CTVolume(np.zeros(shape, np.int16), Grid(shape, np.diag([10.0, 10.0, 9.0, 1.0])))


def test_what_classify_leaves_out_and_mirrors_is_noted(model: Path) -> None:
    config = ClassificationConfig(labels=("a", "b"))
    volume = scan_of((51, 21, 40))
    own = with_classification(load_model(model), config, torch.nn.Linear(24, 2))
    notes = {note.code: note.text for note in classify(own, volume, device="cpu").notes}
    # 51 x 21 x 40 voxels of the model's own spacing, of which it takes 32 x 24 x 40.
    assert notes["scan-larger-than-input"].endswith(
        "left out: 90 mm on the patient's right, 100 mm on the patient's left."
    )
    assert notes["scan-smaller-than-input"].endswith("image: 10 mm in front, 20 mm behind.")
    fits = scan_of((32, 24, 40))
    assert not classify(own, fits, device="cpu").notes


def test_what_was_encoded_before_a_scan_that_cannot_be_read_is_kept(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "_PIECE", 2)
    folders = ct_rate_task(tmp_path, range(6), range(6, 8))
    path = volume_paths(Path(folders["root"]), "train_5_a_1")[0]
    whole = path.read_bytes()
    path.write_bytes(whole[:-900])
    config = probe("ct-rate", folders, model, encode_batch=1)
    with pytest.raises(SimCroPError, match="Scan train_5_a_1"):
        run_probe(tmp_path / "out", config)
    assert len(list((tmp_path / "out" / "features").glob("*.npz"))) == 2
    path.write_bytes(whole)
    read = []
    scan = FeatureMaker._scan
    monkeypatch.setattr(
        FeatureMaker, "_scan", lambda self, source: read.append(source.id) or scan(self, source)
    )
    mended = run_probe(tmp_path / "out", config, resume=True)
    assert read == ["train_4_a_1", "train_5_a_1", "valid_6_a_1", "valid_7_a_1"]
    monkeypatch.undo()
    fresh = run_probe(tmp_path / "fresh", config)
    np.testing.assert_allclose(mended.fitted.losses, fresh.fitted.losses, atol=1e-6)


def test_two_probes_do_not_share_a_folder(
    tmp_path: Path, model: Path, ct_rate: dict[str, str]
) -> None:
    (tmp_path / "out").mkdir()
    lock = RunLock(tmp_path / "out" / "run.lock").take()
    try:
        with pytest.raises(SimCroPError, match="Another run trains in this folder"):
            run_probe(tmp_path / "out", probe("ct-rate", ct_rate, model), resume=True)
    finally:
        lock.release()
    run_probe(tmp_path / "out", probe("ct-rate", ct_rate, model), resume=True)


def test_bad_input_is_one_sentence_each(
    tmp_path: Path,
    model: Path,
    ct_rate: dict[str, str],
    data: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lists = tmp_path / "lists"

    def refused(word: str, *settings: str) -> None:
        words = {
            "model": str(model),
            "data.root": ct_rate["root"],
            "data.lists": ct_rate["lists"],
            "data.fraction": "0.01",
            **dict(s.split("=", 1) for s in settings),
        }
        given = [f"--set={name}={value}" for name, value in words.items() if value]
        assert main(["run", "probe-ct-rate", "--out", str(tmp_path / "out"), *given]) == 2
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert word in said, said
        assert said.startswith("simcrop-train: ")
        assert not (tmp_path / "out" / "model").exists()

    def listed(row: str) -> str:
        path = ct_rate_list(lists / "CT-Rate" / "train_list_1.csv", {"train_1_a_1": 1})
        path.write_text(path.read_text() + row + "\n")
        return f"data.lists={lists}"

    for name in ("val_list.csv", "test_list.csv"):
        ct_rate_list(lists / "CT-Rate" / name, {"valid_8_a_1": 8})
    zeros = ",".join("0" * 18)
    refused("1 are not there: train_99_a_1", listed(f"train_99_a_1.nii.gz,{zeros}"))
    refused("'nobody' is not the name of a volume of CT-RATE", listed(f"nobody.nii.gz,{zeros}"))
    refused("is 7, not 0 or 1", listed(f"train_2_a_1.nii.gz,{zeros[:-1]}7"))
    refused("names a case twice", listed(f"train_1_a_1.nii.gz,{zeros}"))
    refused("no such file", f"data.lists={tmp_path / 'nowhere'}")
    refused("It is not said where the probe finds its data.root", "data.root=")
    refused("It is not said where the probe finds its model", "model=")
    refused("no model folder of this name", f"model={tmp_path / 'none'}")
    refused("There is no such folder", f"data.root={tmp_path / 'none'}")
    radchestct_list(lists / "CT-Rate" / "train_list_1.csv", {"trn00001": 1})
    refused("This is no list of CT-RATE: it lacks 'Arterial wall calcification'",
            f"data.lists={lists}")  # fmt: skip


def test_a_checkpoint_of_another_architecture_is_refused(
    tmp_path: Path, model: Path, ct_rate: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    other = save_model(
        tiny_model(spec=SPEC.model_copy(update={"patch_shape": (8, 8, 4)})), tmp_path / "other"
    )
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    (mixed / "config.json").write_bytes((model / "config.json").read_bytes())
    (mixed / "model.safetensors").write_bytes((other / "model.safetensors").read_bytes())
    given = [f"--set={n}={v}" for n, v in (("model", mixed), *(
        (f"data.{n}", v) for n, v in ct_rate.items()
    ))]  # fmt: skip
    assert main(["run", "probe-ct-rate", "--out", str(tmp_path / "out"), *given]) == 2
    said = capsys.readouterr().err
    assert "patch_embed.proj.weight" in said
    assert said.strip().count("\n") == 0


def test_a_damaged_scan_is_named(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = ct_rate_task(tmp_path, range(2), range(2, 4))
    path = volume_paths(Path(folders["root"]), "train_1_a_1")[0]
    path.write_bytes(path.read_bytes()[:-900])
    with pytest.raises(SimCroPError, match="Scan train_1_a_1: ") as refused:
        run_probe(tmp_path / "out", probe("ct-rate", folders, model))
    assert refused.value.path == str(path)
    assert not (tmp_path / "out" / "result.json").exists()


def test_scans_in_both_lists_are_named(
    tmp_path: Path, model: Path, ct_rate: dict[str, str]
) -> None:
    lists = tmp_path / "lists" / "CT-Rate"
    ct_rate_list(lists / "train_list.csv", {f"train_{n}_a_1": n for n in TRAIN})
    ct_rate_list(lists / "val_list.csv", {"valid_8_a_1": 8})
    ct_rate_list(lists / "test_list.csv", {"train_2_a_1": 2, "valid_8_a_1": 8, "valid_9_a_1": 9})
    folders = {**ct_rate, "lists": str(tmp_path / "lists")}
    result = run_probe(tmp_path / "out", probe("ct-rate", folders, model))
    assert "1 scans are in the training list" in " ".join(n.text for n in result.notes)


def test_a_probe_from_the_command_line(
    tmp_path: Path, model: Path, ct_rate: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [
        f"model={model}", f"data.root={ct_rate['root']}", f"data.lists={ct_rate['lists']}",
        "data.fraction=0.01", "head.steps=5", "head.warmup=1", "views=2", "draws=20",
    ]  # fmt: skip
    words = ["run", "probe-ct-rate", "--out", str(tmp_path / "out")]
    words += [f"--set={setting}" for setting in settings]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["task"], told["fraction"], told["steps"]) == ("CT-RATE", 0.01, 5)
    assert main([*words, "--resume"]) == 0
    assert "The paper's SimCroP: 81.0 %" in capsys.readouterr().out
