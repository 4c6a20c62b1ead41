"""Fine-tuning for segmentation end to end: lists, scans and a model in, figures and a model out."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_public import LUNA_UID, lungs_of, phantom, save, write_list
from made_segmentation import ROI, btcv_task, luna16_task, segmentation, tiny_encoder
from processes import start
from simcrop_training.cli import main

from simcrop_core import cli
from simcrop_core.errors import SimCroPError
from simcrop_core.finetune.segmentation import (
    FineTuned,
    run_segmentation,
    starting_model,
)
from simcrop_core.finetune.tuned import best_checkpoint
from simcrop_core.io import read_labels
from simcrop_core.model import load_model, save_model
from simcrop_core.train.events import read_events
from simcrop_core.train.launch import Outcome
from simcrop_core.train.status import run_status

TRAIN, TEST = range(5), range(5, 7)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tiny_encoder(), tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def luna16(data: Path) -> dict[str, str]:
    return luna16_task(data, TRAIN, TEST)


def done(found: FineTuned | Outcome) -> FineTuned:
    assert isinstance(found, FineTuned)
    return found


def codes(result: FineTuned) -> set[str]:
    return {note.code for note in result.notes}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_model(folder).state_dict()


def validations(run: Path) -> list[tuple[int, float]]:
    events = read_events(run / "events.jsonl")
    return [(e["step"], e["loss"]) for e in events if e["event"] == "validation"]


# -- whole runs ---------------------------------------------------------------------------------


def test_luna16_clean_gives_a_model_that_the_commands_take(
    tmp_path: Path, model: Path, luna16: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    config = segmentation("luna16", luna16, model, data={"held_out": 2})
    out = tmp_path / "run"
    result = done(run_segmentation(out, config))
    assert result.scans == {"training": 3, "validation": 2, "testing": 2}
    assert (result.steps, codes(result)) == (4, {"untrained"})
    written = json.loads((out / "result.json").read_text())
    assert written == json.loads(json.dumps(result.to_dict()))
    assert (written["kind"], written["paper_percent"]) == ("segmentation", 93.7)
    least = min(validations(out), key=lambda pair: pair[1])
    assert result.kept_after_step == least[0]
    assert best_checkpoint(out).name == f"step-{least[0]:08d}"
    text = "\n".join(result.lines())
    assert "LUNA16, 100% of its training scans (3), protocol clean; tested on 2" in text
    assert "with the background" in text

    own = load_model(out / "model")
    head = own.config.segmentation
    assert head is not None
    assert head.labels == ("left lung", "right lung", "trachea")
    assert own.input_spec.orientation == "LPS"
    assert (head.position, head.cls_token) == ("encoder", True)
    trained = "segmentation of LUNA16, 100% of its training scans, clean, run seg-luna16, step"
    assert head.trained.startswith(trained)
    assert own.config.provenance.trained.startswith(f"untrained; then {trained}")

    # The same figures from the commands, which know nothing of the run.
    root = Path(luna16["root"])
    uids = [f"{LUNA_UID}{number + 1}" for number in TEST]
    rows: list[dict[str, object]] = [
        {
            "study": uid,
            "ct": root / "images" / f"{uid}.nii.gz",
            "labels": root / "masks_processed" / f"{uid}.nii.gz",
        }
        for uid in uids
    ]
    cases = write_list(tmp_path / "cases.csv", rows)
    words = ["--model", str(out / "model"), "--device", "cpu"]
    assert (
        cli.main(
            ["evaluate", "segmentation", "--cases", str(cases), "--json", "--overlap", "0", *words]
        )
        == 0
    )
    measured = json.loads(capsys.readouterr().out)
    assert measured["cases"] == written["test"]["cases"]
    labels = tmp_path / "labels.nii.gz"
    assert cli.main(["segment", str(rows[0]["ct"]), "--out", str(labels), *words]) == 0
    assert read_labels(labels)[0].shape == phantom(TEST[0]).volume.hu_XYZ.shape


def test_btcv_released_is_the_authors_procedure(tmp_path: Path, model: Path, data: Path) -> None:
    config = segmentation("btcv", btcv_task(data, range(3), range(3, 5)), model,
                          protocol="released", head={"kind": "unet"})  # fmt: skip
    result = done(run_segmentation(tmp_path / "run", config))
    assert result.scans == {"training": 3, "validation": 2, "testing": 2}
    assert codes(result) == {"chosen-on-test", "untrained"}
    own = load_model(tmp_path / "run" / "model")
    head = own.config.segmentation
    assert head is not None
    assert (head.kind, head.position, head.cls_token) == ("unet", "official2axis", False)
    assert own.input_spec.orientation == "RAS"
    assert len(head.labels) == 13
    for event in read_events(tmp_path / "run" / "events.jsonl"):
        if event["event"] == "validation":
            figures = event["metrics"]
            assert event["loss"] == pytest.approx(1 - figures["dice_with_background"])
            assert figures["dice_with_background"] != figures["dice"]


def test_training_beats_an_untrained_start(
    tmp_path: Path, model: Path, luna16: dict[str, str]
) -> None:
    def dice(steps: int) -> float:
        config = segmentation(
            "luna16", luna16, model, data={"held_out": 0},
            run={"steps": steps, "batch_size": 8, "validate_every": steps},
            optim={"lr": 1e-6 if steps == 1 else 1e-2, "warmup": 0},
        )  # fmt: skip
        result = done(run_segmentation(tmp_path / f"run-{steps}", config))
        assert "not-validated" in codes(result)
        found = result.test.over_cases()["dice"]
        assert found is not None
        return found.value

    before, after = dice(1), dice(60)
    assert after > before + 0.12


def test_the_published_layout_trains_too(tmp_path: Path, model: Path) -> None:
    folders = luna16_task(tmp_path, range(2), range(2, 3), "published")
    config = segmentation("luna16", folders, model, data={"fraction": 0.1}, run={"steps": 2})
    result = done(run_segmentation(tmp_path / "run", config))
    assert result.scans["training"] == 2
    assert result.paper_percent == 93.5


def test_a_frozen_encoder_stays_and_a_tuned_one_does_not(
    tmp_path: Path, model: Path, luna16: dict[str, str]
) -> None:
    before = weights(model)
    for encoder in ("frozen", "tuned"):
        config = segmentation("luna16", luna16, model, encoder=encoder, run={"steps": 2})
        run_segmentation(tmp_path / encoder, config)
        after = weights(tmp_path / encoder / "model")
        same = [
            torch.equal(tensor, after[name])
            for name, tensor in before.items()
            if name.startswith("vision.blocks")
        ]
        assert all(same) if encoder == "frozen" else not any(same)
        head = load_model(tmp_path / encoder / "model").config
        assert head.is_trained == (encoder == "tuned")


# -- ends and goes on ---------------------------------------------------------------------------


def test_a_killed_run_goes_on_as_if_it_never_was(
    tmp_path: Path, model: Path, luna16: dict[str, str]
) -> None:
    config = segmentation("luna16", luna16, model, data={"held_out": 1}, run={"steps": 6})
    whole = done(run_segmentation(tmp_path / "whole", config))

    def dies() -> None:
        def tell(what: str, done: int, total: int) -> None:
            if what.startswith("loss") and done == 5:
                os.kill(os.getpid(), signal.SIGKILL)

        run_segmentation(tmp_path / "killed", config, tell=tell)

    process = start(dies, {"OMP_NUM_THREADS": "1"})
    process.join(300)
    assert process.exitcode == -signal.SIGKILL
    assert run_status(tmp_path / "killed").state == "killed"
    with pytest.raises(SimCroPError, match="There is a run here already"):
        run_segmentation(tmp_path / "killed", config)
    resumed = done(run_segmentation(tmp_path / "killed", config, resume=True))
    assert resumed.to_dict() == whole.to_dict()
    expected = weights(tmp_path / "whole" / "model")
    for name, tensor in weights(tmp_path / "killed" / "model").items():
        assert torch.equal(tensor, expected[name]), name
    assert validations(tmp_path / "killed") == validations(tmp_path / "whole")
    # A run that is whole is only tested again.
    again = done(run_segmentation(tmp_path / "killed", config, resume=True))
    assert again.to_dict() == whole.to_dict()


class _Wish:
    """To stop, once a stage is reached."""

    def __init__(self, stage: str) -> None:
        self.stage, self.reached = stage, False

    def tell(self, what: str, done: int, total: int) -> None:
        self.reached |= what.startswith(self.stage)

    def asked(self) -> bool:
        return self.reached


def test_a_wish_to_stop_is_heeded_at_every_stage(
    tmp_path: Path, model: Path, luna16: dict[str, str]
) -> None:
    config = segmentation("luna16", luna16, model, data={"held_out": 1})
    for number, stage in enumerate(["checking", "preparing", "loss", "validating", "segmenting"]):
        wish = _Wish(stage)
        found = run_segmentation(
            tmp_path / "run", config, resume=number > 0, stop=wish.asked, tell=wish.tell
        )
        assert isinstance(found, Outcome), stage
        assert found.reason == "stopped"
    result = done(run_segmentation(tmp_path / "run", config, resume=True))
    other = done(run_segmentation(tmp_path / "other", config))
    assert result.to_dict() == other.to_dict()


def test_patience_ends_a_run_early_and_for_good(
    tmp_path: Path, model: Path, luna16: dict[str, str]
) -> None:
    # With hardly any learning rate no validation is better than the first.
    config = segmentation(
        "luna16", luna16, model, data={"held_out": 1}, patience=2, optim={"lr": 1e-30, "warmup": 0},
        run={"steps": 20, "validate_every": 1, "checkpoint_every": 1},
    )  # fmt: skip
    result = done(run_segmentation(tmp_path / "run", config))
    assert (result.steps, result.kept_after_step) == (3, 1)
    assert run_status(tmp_path / "run").state == "finished"
    again = done(run_segmentation(tmp_path / "run", config, resume=True))
    assert (again.steps, len(validations(tmp_path / "run"))) == (3, 3)


# -- refusals -----------------------------------------------------------------------------------


def refused(tmp_path: Path, config: Any) -> SimCroPError:
    with pytest.raises(SimCroPError) as refusal:
        run_segmentation(tmp_path / "refused", config)
    return refusal.value


def test_what_is_missing_is_named_in_a_sentence(
    tmp_path: Path, model: Path, luna16: dict[str, str]
) -> None:
    gone = segmentation("luna16", {"root": str(tmp_path / "none")}, model)
    assert refused(tmp_path, gone).code == "missing"
    nowhere = segmentation("luna16", {}, model)
    assert "It is not said where the fine-tuning finds its data.root" in str(
        refused(tmp_path, nowhere)
    )
    no_model = segmentation("luna16", luna16, tmp_path / "nothing")
    assert refused(tmp_path, no_model).code == "no-such-model"

    folders = luna16_task(tmp_path, range(2), range(2, 3))
    root = Path(folders["root"])
    (root / "images" / f"{LUNA_UID}2.nii.gz").unlink()
    error = refused(tmp_path, segmentation("luna16", folders, model))
    assert f"Of the 2 scans of dataset_100.json for train, 1 are not there: {LUNA_UID}2" in str(
        error
    )
    (root / "masks_processed" / f"{LUNA_UID}3.nii.gz").unlink()
    (root / "images" / f"{LUNA_UID}2.nii.gz").write_bytes(b"")
    error = refused(tmp_path, segmentation("luna16", folders, model))
    assert "1 masks of dataset_100.json for test, 1 are not there" in str(error)
    assert not (tmp_path / "refused").exists()


def test_a_label_beyond_the_labels_is_named_before_anything_is_trained(
    tmp_path: Path, model: Path
) -> None:
    folders = luna16_task(tmp_path, range(2), range(2, 3))
    masks = Path(folders["root"]) / "masks_processed"
    wrong = lungs_of(2).copy()
    wrong[0, 0, 0] = 9
    save(masks / f"{LUNA_UID}3.nii.gz", wrong, phantom(2).volume.grid.affine)
    error = refused(tmp_path, segmentation("luna16", folders, model))
    assert "The mask holds the value 9, and only 0 to 3 mean something" in str(error)
    assert not (tmp_path / "refused").exists()
    save(masks / f"{LUNA_UID}3.nii.gz", lungs_of(2), phantom(2).volume.grid.affine)
    save(masks / f"{LUNA_UID}1.nii.gz", wrong, phantom(2).volume.grid.affine)
    error = refused(tmp_path, segmentation("luna16", folders, model))
    assert error.code in ("bad-label", "mask-mismatch")
    assert f"Scan {LUNA_UID}1" in str(error)


def test_a_checkpoint_of_another_architecture_is_refused(
    tmp_path: Path, model: Path, luna16: dict[str, str]
) -> None:
    shallow = save_model(tiny_encoder(depth=2), tmp_path / "shallow")
    error = refused(tmp_path, segmentation("luna16", luna16, shallow))
    assert "A segmentation head needs an encoder of at least 3 blocks, not 2" in str(error)
    error = refused(tmp_path, segmentation("luna16", luna16, model, head={"roi": [16, 16, 12]}))
    assert "is not made of patches of (8, 8, 8)" in str(error)
    error = refused(tmp_path, segmentation("luna16", luna16, model, head={"kind": "pyramid"}))
    assert "needs an encoder with the stem pyramid" in str(error)
    one = segmentation("luna16", luna16, model, head={"kind": "unet", "roi": [8, 8, 8]})
    assert "needs a region of two patches or more" in str(refused(tmp_path, one))
    # Weights that are not those of the configuration.
    deep = save_model(tiny_encoder(depth=5), tmp_path / "deep")
    (deep / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes())
    error = refused(tmp_path, segmentation("luna16", luna16, deep))
    assert error.code in ("weights-mismatch", "bad-weights", "damaged-model", "other-weights")


def test_settings_that_make_no_sense_are_refused(
    tmp_path: Path, model: Path, luna16: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    too_many = segmentation("luna16", luna16, model, data={"held_out": 5})
    assert "Of 5 training scans 5 are to be held out" in str(refused(tmp_path, too_many))
    words = ["run", "seg-btcv", "--out", str(tmp_path / "o")]
    assert main([*words, "--set", "run.devices=2", "--set", "run.batch_size=16"]) == 2
    assert "on one device" in capsys.readouterr().err
    assert main([*words, "--set", "optim.warmup=5000"]) == 2
    assert "A warm-up of 5000 epochs does not end" in capsys.readouterr().err
    assert main([*words, "--set", "data.task=kits"]) == 2
    assert "data.task" in capsys.readouterr().err
    assert main(words) == 2
    assert "Add --set data.root=FOLDER" in capsys.readouterr().err


# -- the command --------------------------------------------------------------------------------


def test_the_command_trains_tests_and_tells(
    tmp_path: Path, model: Path, luna16: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [
        f"model={model}", f"data.root={luna16['root']}", f"data.lists={luna16['lists']}",
        "data.spacing_mm=[12,12,12]", f"head.roi={json.dumps(ROI)}", "head.feature_width=4",
        "data.crops=2", "run.epochs=null", "run.steps=2", "optim.warmup=0", "run.batch_size=2",
        "run.accelerator=cpu",
    ]  # fmt: skip
    words = ["run", "seg-luna16-10", "--out", str(tmp_path / "run")]
    words += [word for setting in settings for word in ("--set", setting)]
    assert main(words) == 0
    assert "LUNA16, 10% of its training scans (2), protocol clean" in capsys.readouterr().out
    assert main([*words, "--resume", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 2
    assert main([*words, "--resume", "--set", "head.feature_width=5"]) == 2
    assert "The run was started with other settings (head.feature_width)" in capsys.readouterr().err
    assert main(["status", str(tmp_path / "run")]) == 0
    assert "seg-luna16-10: finished at step 2" in capsys.readouterr().out
    assert main(["compare", str(tmp_path / "run"), str(tmp_path / "run")]) == 0


def test_the_spacing_is_the_authors_unless_it_is_given(model: Path, luna16: dict[str, str]) -> None:
    config = segmentation("luna16", luna16, model, data={"spacing_mm": None})
    made = starting_model(config)
    assert made.input_spec.spacing_mm == (1.0, 1.0, 1.0)
    before = weights(model)
    for name, tensor in made.state_dict().items():
        assert name.startswith("segmentation.") or torch.equal(tensor, before[name])
    again = starting_model(config)
    np.testing.assert_equal(made.weights_sha256(), again.weights_sha256())
