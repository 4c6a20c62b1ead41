"""Whole encoders fine-tuned for classification, end to end on small public data sets."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from made_probe import SPEC, cc_ccii_task, ct_rate_task, radchestct_task, tiny_model
from processes import start
from simcrop_training.cli import main
from torch.nn import functional as F

from simcrop_core.classify import classify
from simcrop_core.datasets import open_dataset
from simcrop_core.errors import SimCroPError
from simcrop_core.finetune.classification import TunedClassifier, run_classification
from simcrop_core.finetune.classification_training import (
    ClassificationObjective,
    ViewBatch,
    ViewLoader,
)
from simcrop_core.finetune.lists import held_out_of, open_scans
from simcrop_core.finetune.tuned import best_checkpoint
from simcrop_core.model import load_model, save_model
from simcrop_core.model.config import ClassificationConfig
from simcrop_core.model.finetuned import with_head
from simcrop_core.objectives.base import Ranks
from simcrop_core.train.classification_tasks import TASKS
from simcrop_core.train.events import read_events
from simcrop_core.train.finetuning_classification import ClassificationRunConfig
from simcrop_core.train.launch import Outcome
from simcrop_core.views import draw_view, take_view, whole_scan

TRAIN, TEST = range(10), range(10, 15)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tiny_model(), tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def cc_ccii(data: Path) -> dict[str, str]:
    return cc_ccii_task(data, TRAIN, TEST)


def tuning(
    task: str, folders: dict[str, str], model: object, **changes: object
) -> ClassificationRunConfig:
    parts: dict[str, dict[str, object]] = {
        "data": {"task": task, "workers": 0, **folders},
        "optim": {"lr": 1e-3, "warmup": 1, "beta2": 0.999, "clip_norm": 1.0},
        "run": {
            "steps": 4, "batch_size": 4, "accelerator": "cpu", "validate_every": 2,
            "checkpoint_every": 2, "previews": 0,
        },
    }  # fmt: skip
    for name, part in parts.items():
        part.update(dict(changes.pop(name, {})))  # type: ignore[call-overload]
    more = {"draws": 50, "validate_passes": None} | changes
    config = {"name": f"tune-{task}", "model": str(model), **parts, **more}
    return ClassificationRunConfig.model_validate(json.loads(json.dumps(config)))


def done(found: TunedClassifier | Outcome) -> TunedClassifier:
    assert isinstance(found, TunedClassifier)
    return found


def codes(result: TunedClassifier) -> set[str]:
    return {note.code for note in result.notes}


def test_classes_end_to_end_with_scans_held_out_of_the_training_list(
    tmp_path: Path, model: Path, cc_ccii: dict[str, str]
) -> None:
    config = tuning("cc-ccii", cc_ccii, model)
    result = done(run_classification(tmp_path / "run", config))
    # Its validation list is the test list: two of the ten training scans are held out instead.
    assert result.scans == {"training": 8, "validation": 2, "testing": 5, "external": 0}
    assert codes(result) == {"untrained"}
    assert best_checkpoint(tmp_path / "run").name == f"step-{result.kept_after_step:08d}"
    written = json.loads((tmp_path / "run" / "result.json").read_text())
    assert written == json.loads(json.dumps(result.to_dict()))
    own = load_model(tmp_path / "run" / "model")
    before = load_model(model).state_dict()
    changed = [
        n for n, t in own.state_dict().items() if n in before and not torch.equal(t, before[n])
    ]
    assert {name.split(".")[0] for name in changed} == {"vision"}
    # The model's folder answers as the run did.
    right = []
    dataset = open_dataset(f"cc-ccii:{config.data.root}")
    for number in TEST:
        found = classify(own, dataset.study(dataset.ids.index(str(number))).volume)
        right.append(max(found.probabilities, key=found.probabilities.__getitem__))  # type: ignore[arg-type]
    truth = [f"class {number % 3}" for number in TEST]
    assert result.test.overall is not None
    assert result.test.overall.value == pytest.approx(np.mean(np.equal(right, truth)))
    assert "step" in own.config.classification.trained  # type: ignore[union-attr]


def test_labels_with_a_validation_list_of_their_own_and_another_test(
    tmp_path: Path, model: Path, data: Path
) -> None:
    radchestct = radchestct_task(data, range(4), range(14, 17), range(10, 15))
    result = done(run_classification(tmp_path / "rad", tuning("radchestct", radchestct, model)))
    assert result.scans["validation"] == 3
    ct_rate = ct_rate_task(data, range(4), range(10, 14))
    config = tuning(
        "ct-rate", {**ct_rate, "external": radchestct["root"]}, model,
        data={"fraction": 0.01}, run={"steps": 2},
    )  # fmt: skip
    result = done(run_classification(tmp_path / "ct", config))
    assert codes(result) == {"untrained", "not-validated"}  # fewer than ten scans
    assert result.external is not None
    assert len(result.external.by_label) + len(result.external.undefined) == 16
    assert "1% of its training scans (4); tested on 4" in "\n".join(result.lines())


def test_a_killed_run_goes_on_as_if_it_never_was(
    tmp_path: Path, model: Path, cc_ccii: dict[str, str]
) -> None:
    config = tuning("cc-ccii", cc_ccii, model, run={"steps": 6})
    whole = done(run_classification(tmp_path / "whole", config))

    def dies() -> None:
        def tell(what: str, done: int, total: int) -> None:
            if what.startswith("loss") and done == 3:
                os.kill(os.getpid(), signal.SIGKILL)

        run_classification(tmp_path / "killed", config, tell=tell)

    process = start(dies, {"OMP_NUM_THREADS": "1"})
    process.join(300)
    assert process.exitcode == -signal.SIGKILL
    resumed = done(run_classification(tmp_path / "killed", config, resume=True))
    assert resumed.to_dict() == whole.to_dict()


def test_each_pass_is_validated_and_patience_ends_it(
    tmp_path: Path, model: Path, cc_ccii: dict[str, str]
) -> None:
    # With hardly any learning rate no validation is better than the first.
    config = tuning(
        "cc-ccii", cc_ccii, model, data={"held_out": 3}, validate_passes=1.0, patience=2,
        run={"steps": 20}, optim={"lr": 1e-30, "warmup": 0},
    )  # fmt: skip
    result = done(run_classification(tmp_path / "run", config))
    events = list(read_events(tmp_path / "run" / "events.jsonl"))
    assert [e["step"] for e in events if e["event"] == "validation"] == [2, 4, 6]
    assert (result.steps, result.kept_after_step) == (6, 2)


def test_views_are_those_of_the_scan_and_the_pass(cc_ccii: dict[str, str]) -> None:
    task = TASKS["cc-ccii"]
    scans = open_scans(task, Path(cc_ccii["root"]), Path(cc_ccii["lists"]), "train_list.csv")
    loader = ViewLoader(scans, SPEC, batch_size=4, seed=5, workers=0)
    assert len(loader) == 3
    raws = [loader.batch(n) for n in range(6)]
    assert [len(raw.values_BHWD) for raw in raws] == [4, 4, 2] * 2
    seen: dict[int, list[bytes]] = {}
    for epoch in range(2):
        for raw in raws[3 * epoch : 3 * epoch + 3]:
            for values, label in zip(raw.values_BHWD, raw.labels_BK[:, 0], strict=True):
                seen.setdefault(epoch, []).append(values.tobytes() + bytes([int(label)]))
    for epoch in range(2):
        expected = []
        for row, source in enumerate(scans.sources):
            scan = whole_scan(source.read(), SPEC)
            view = draw_view(5, source.id, epoch, scan.shape, SPEC.shape)  # type: ignore[arg-type]
            label = bytes([int(scans.labels_NK[row, 0])])
            expected.append(take_view(scan, view, SPEC.shape).tobytes() + label)
        assert sorted(seen[epoch]) == sorted(expected)


def test_scans_are_held_out_by_name_and_never_all(cc_ccii: dict[str, str]) -> None:
    task = TASKS["cc-ccii"]
    scans = open_scans(task, Path(cc_ccii["root"]), Path(cc_ccii["lists"]), "train_list.csv")
    trained, held = held_out_of(scans, 3)
    assert held is not None
    assert (len(trained), len(held)) == (7, 3)
    assert set(trained.ids) | set(held.ids) == set(scans.ids)
    label = dict(zip(scans.ids, scans.labels_NK[:, 0], strict=True))
    assert [label[name] for name in held.ids] == held.labels_NK[:, 0].tolist()
    assert held_out_of(scans, 0)[1] is None
    with pytest.raises(SimCroPError, match="none is left to train on"):
        held_out_of(scans, 10)


@pytest.mark.parametrize("classes", [0, 3])
def test_the_loss_is_that_of_the_logits(classes: int) -> None:
    labels = ("a", "b", "c")
    head = ClassificationConfig(labels=labels, exclusive=classes > 0)
    model = with_head(tiny_model(), head, seed=0)
    x = torch.rand(4, 1, *SPEC.shape) * 2 - 1
    truth = torch.tensor([[0], [2], [1], [1]]) if classes else torch.tensor([[0, 1, 1]] * 4)
    batch = ViewBatch(x, truth, torch.arange(4))
    assert model.classification is not None
    with torch.no_grad():
        model.classification.weight.normal_(std=0.5)
        logits = model.classification(model.vision(x).pooled_BD)
        still = ClassificationObjective(classes, 0.0)(model.train(), batch, Ranks()).total
        expected = (
            F.cross_entropy(logits, truth[:, 0]) if classes
            else F.binary_cross_entropy_with_logits(logits, truth.float())
        )  # fmt: skip
        assert float(still) == pytest.approx(float(expected), abs=1e-6)
        objective = ClassificationObjective(classes, 0.9)
        dropped = objective(model, batch, Ranks()).total
        assert float(dropped) != pytest.approx(float(expected), abs=1e-4)
        assert float(objective(model, batch, Ranks()).total) == float(dropped)  # by the seeds
        assert float(objective(model.eval(), batch, Ranks()).total) == pytest.approx(
            float(expected), abs=1e-6
        )


def test_training_learns_what_a_frozen_start_cannot(
    tmp_path: Path, model: Path, data: Path
) -> None:
    """Trained and tested on the same scans: the encoder can learn them by heart."""
    folders = cc_ccii_task(data / "known", range(6), range(6))
    config = tuning(
        "cc-ccii", folders, model, data={"held_out": 0}, drop_path=0.0,
        run={"steps": 80, "batch_size": 6, "validate_every": 80, "checkpoint_every": 80},
        optim={"warmup": 10},
    )  # fmt: skip
    result = done(run_classification(tmp_path / "run", config))
    assert "seen-scans" in codes(result)
    assert result.test.overall is not None
    assert result.test.overall.value >= 4 / 6
    losses = [
        e["loss"] for e in read_events(tmp_path / "run" / "events.jsonl") if e["event"] == "step"
    ]
    assert losses[0] == pytest.approx(np.log(3), abs=0.01)
    assert np.mean(losses[-30:]) < np.log(3) - 0.1


def test_refusals_and_the_command(
    tmp_path: Path, model: Path, cc_ccii: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", "tune-cc-ccii", "--out", str(tmp_path / "run")]

    def told(*settings: str) -> str:
        assert main([*words, *(w for s in settings for w in ("--set", s))]) == 2
        return capsys.readouterr().err

    assert "Add --set data.root=FOLDER" in told()
    assert "has no list of 0.5 of its training scans" in told("data.fraction=0.5")
    assert "on one device" in told("run.devices=2")
    known = [f"data.{name}={folder}" for name, folder in cc_ccii.items()]
    assert "Of 10 training scans 10 are to be held out" in told(*known, "data.held_out=10")
    assert "There is no model folder" in told(*known, f"model={tmp_path / 'none'}")
    settings = [
        *known, f"model={model}", "data.fraction=0.1", "run.epochs=null", "run.steps=2",
        "optim.warmup=0", "run.batch_size=4", "run.accelerator=cpu", "draws=10",
    ]  # fmt: skip
    assert main([*words, "--json", *(w for s in settings for w in ("--set", s))]) == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "classification"
    assert main(["status", str(tmp_path / "run")]) == 0
    assert "tune-cc-ccii: finished at step 2" in capsys.readouterr().out
