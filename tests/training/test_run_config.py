"""The configuration of a run: what it refuses, how it is set, what recipes give."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from functools import lru_cache

import pytest
from pydantic import ValidationError
from simcrop_training.recipes import (
    PROBES,
    RECIPES,
    SEGMENTATIONS,
    TUNINGS,
    any_recipe,
    describe,
    recipe,
)

from simcrop_core.errors import SimCroPError
from simcrop_core.finetune.config import ProbeConfig
from simcrop_core.model import PRESETS
from simcrop_core.model.config import ModelConfig
from simcrop_core.objectives import make_objective
from simcrop_core.train import build
from simcrop_core.train.config import ModelSource, RunConfig
from simcrop_core.train.data import store_settings
from simcrop_core.train.finetuning import SegmentationRunConfig
from simcrop_core.train.schedule import Schedule
from simcrop_core.train.settings import (
    CONFIGS,
    checked,
    faults_of,
    fields_of,
    run_config_from,
    with_settings,
)


def config(**changes: object) -> RunConfig:
    parts: dict[str, object] = {
        "name": "x",
        "objective": {"kind": "simcrop"},
        "optim": {"warmup": 10},
        "run": {"steps": 100, "batch_size": 8},
    }
    return RunConfig.model_validate(parts | changes)


# -- settings -----------------------------------------------------------------------------------


def test_settings_change_fields_of_every_kind() -> None:
    changed = with_settings(
        config(),
        [
            "optim.lr=1e-3",
            "optim.clip_norm=1",
            "data.store=123",
            "model.vision.depth=4",
            "model.input_spec.shape=[96,96,48]",
            "model.text.sentence_vector=cls",
            'model.without=["presence"]',
            "objective.top_k=8",
            "run.compile=true",
            "optim.horizon=null",
        ],
    )
    assert changed.optim.lr == 1e-3
    assert changed.optim.clip_norm == 1.0
    assert changed.data.store == "123"
    assert changed.model.changes() == {
        "input_spec": {"shape": (96, 96, 48)},
        "vision": {"depth": 4},
        "text": {"sentence_vector": "cls"},
    }
    assert changed.objective.kind == "simcrop"
    assert changed.objective.top_k == 8
    assert changed.run.compile is True


def test_a_new_kind_of_objective_starts_from_its_defaults() -> None:
    changed = with_settings(config(), ["objective.mask_ratio=0.6", "objective.kind=mae"])
    assert changed.objective.kind == "mae"
    assert changed.objective.mask_ratio == 0.6


def test_all_faults_of_settings_are_told_at_once() -> None:
    with pytest.raises(SimCroPError) as refused:
        with_settings(
            config(), ["optim.lr=-1", "run.stepz=3", "model.vision.depth=x", "objective.topk=3"]
        )
    text = str(refused.value)
    assert refused.value.code == "bad-config"
    assert "Found 4 errors in the config" in text
    assert "run.stepz: there is no such field (did you mean run.steps?)" in text
    assert "objective.topk: there is no such field (did you mean objective.top_k?)" in text
    assert "model.vision.depth" in text
    assert "optim.lr: Input should be greater than 0" in text


@pytest.mark.parametrize("setting", ["nonsense", "=3", "optim..lr=1", "optim.lr.x=1"])
def test_settings_that_are_none_are_refused(setting: str) -> None:
    with pytest.raises(SimCroPError, match="Found 1 error in the config"):
        with_settings(config(), [setting])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"run": {"batch_size": 8}}, "epochs or in steps"),
        ({"run": {"steps": 10, "epochs": 1, "batch_size": 8}}, "epochs or in steps"),
        ({"run": {"steps": 100, "batch_size": 9, "devices": 2}}, "multiple of 2"),
        ({"run": {"steps": 100, "batch_size": 8, "strategy": "fsdp"}}, "two devices or more"),
        ({"optim": {"warmup": 100}}, "does not end within a run of 100"),
        ({"optim": {"warmup": 20, "horizon": 20}}, "does not end before the horizon"),
        ({"optim": {"warmup": 1, "lr": 1e-4, "min_lr": 1e-3}}, "above lr"),
        ({"data": {"phantoms": 8, "held_out": 8}}, "none is left to train on"),
        ({"data": {"store": "a", "phantom_folder": "b"}}, "not made where a store is given"),
        ({"model": {"preset": None}}, "one of the two"),
        ({"model": {"preset": None, "folder": "m", "vision": {"depth": 3}}}, "trained as it is"),
        ({"model": {"without": ["fusion"]}}, "both or neither"),
        ({"model": {"without": ["presence"], "presence": {"sharpness": 3}}}, "changed and left"),
        ({"optim": {"warmup": 1, "lr": float("nan")}}, "finite"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        config(**changes)


def test_a_configuration_survives_json_and_imports_no_torch() -> None:
    for name in RECIPES:
        one = recipe(name)
        assert run_config_from(json.loads(one.model_dump_json())) == one
    code = "import sys, simcrop_training.listing; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_fine_tunings_are_recipes_that_a_run_s_folder_knows() -> None:
    for name in (*SEGMENTATIONS, *TUNINGS):
        one = any_recipe(name)
        assert checked(CONFIGS[one.format], json.loads(one.model_dump_json())) == one  # type: ignore[union-attr]
        assert (one.name, bool(describe(name))) == (name, True)
        assert all(field["text"] for field in fields_of(one))
    unet = with_settings(any_recipe("seg-btcv"), ["head.kind=unet", "data.fraction=0.1"])
    assert isinstance(unet, SegmentationRunConfig)
    assert (unet.head.kind, unet.optim.weight_decay, unet.run.epochs) == ("unet", 1e-5, 2000)


def test_probes_are_recipes_that_settings_change() -> None:
    for name in PROBES:
        one = any_recipe(name)
        assert isinstance(one, ProbeConfig)
        assert ProbeConfig.model_validate_json(one.model_dump_json()) == one
        assert one.name == name
        assert describe(name)
        assert all(field["text"] for field in fields_of(one))
    changed = with_settings(
        any_recipe("probe-ct-rate"), ["data.fraction=0.01", "views=null", "head.lr=1e-2"]
    )
    assert isinstance(changed, ProbeConfig)
    assert (changed.share.training, changed.share.lr) == ("train_list_1.csv", 1e-2)
    assert changed.views is None
    with pytest.raises(SimCroPError, match=r"did you mean data.fraction\?"):
        with_settings(any_recipe("probe-ct-rate"), ["data.fractoin=0.1"])
    with pytest.raises(SimCroPError, match=r"CT-RATE has no list of 0\.5 of its training scans"):
        with_settings(any_recipe("probe-ct-rate"), ["data.fraction=0.5"])
    with pytest.raises(SimCroPError, match="no recipe 'probe-btcv'"):
        any_recipe("probe-btcv")


@pytest.mark.parametrize("name", ["probe-luna16", "smoke"])
@pytest.mark.parametrize(
    "setting", ["objective=5", "objective=null", "objective=[1]", "objective.kind=[1]"]
)
def test_an_objective_that_is_none_is_refused_in_words(name: str, setting: str) -> None:
    with pytest.raises(SimCroPError, match="in the config: objective") as refused:
        with_settings(any_recipe(name), [setting])
    assert refused.value.code == "bad-config"


def test_a_probe_has_no_objective() -> None:
    with pytest.raises(SimCroPError, match=r"objective: there is no such field\. Correct"):
        with_settings(any_recipe("probe-luna16"), ["objective.kind=mae"])


# -- forms --------------------------------------------------------------------------------------


def test_every_field_is_described_for_forms() -> None:
    fields = {field["path"]: field for field in fields_of(recipe("smoke"))}
    assert all(field["text"] for field in fields.values())
    assert fields["run.steps"] == {
        "path": "run.steps",
        "type": "integer",
        "text": "Length in optimiser steps; or give epochs.",
        "default": 40,
        "nullable": True,
        "minimum": 1,
    }
    assert fields["optim.lr"]["type"] == "number"
    assert fields["optim.lr"]["above"] == 0
    assert fields["run.strategy"]["choices"] == ["auto", "ddp", "fsdp"]
    assert fields["run.compile"]["type"] == "boolean"
    assert fields["model.input_spec.shape"]["default"] == [48, 40, 32]
    assert "mae" in fields["objective.kind"]["choices"]
    # Every one of them can be set to what it is.
    for path, field in fields.items():
        if field["default"] is not None:
            with_settings(recipe("smoke"), [f"{path}={_text(field)}"])


def _text(field: dict[str, object]) -> str:
    return json.dumps(field["default"]).strip('"')


def test_every_part_and_preset_of_a_model_can_be_set() -> None:
    made = {"preset", "folder", "text_encoder", "without", "segmentation_labels"}
    own = set(ModelSource.model_fields) - made
    fixed = {"schema_version", "name", "segmentation", "classification", "provenance"}
    assert own == set(ModelConfig.model_fields) - fixed
    choices = next(f for f in fields_of(RunConfig) if f["path"] == "model.preset")["choices"]
    assert set(choices) == set(PRESETS)


# -- models and recipes -------------------------------------------------------------------------


@pytest.fixture
def one_text_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load each text encoder once: what is tested is what is built around it."""
    monkeypatch.setattr(build, "text_config_for", lru_cache(build.text_config_for))


@pytest.mark.usefixtures("one_text_encoder")
def test_recipes_give_models_that_their_objectives_take() -> None:
    small = [name for name in RECIPES if "simcrop" not in name and "paper" not in name]
    assert len(small) > 15
    for name in small:
        one = recipe(name)
        model = build.build_model(one.model, one.run.seed)
        objective = make_objective(one.objective, model)
        assert any(objective.trains(parameter) for parameter, _ in model.named_parameters()), name
        assert model.training
        assert describe(name)
        # Phantoms that the run makes are stored so that they fit.
        spec = model.input_spec
        store_settings(spec).check_model(spec, model.config.vision.cells)


def test_changes_reach_the_model_and_parts_can_be_left_out() -> None:
    source = ModelSource.model_validate(
        {
            "vision": {"depth": 2, "width": 48, "heads": 4},
            "text": {"max_tokens": 32},
            "similarity": "raw",
            "without": ["fusion", "text_decoder"],
        }
    )
    built = build.build_model(source, 3)
    assert built.config.vision.depth == 2
    assert built.config.vision.mlp_ratio == 4.0
    assert built.config.similarity == "raw"
    assert built.text_decoder is None
    assert built.image_decoder is not None
    assert built.text.window == 32


def test_the_paper_recipe_is_the_paper() -> None:
    one = recipe("simcrop-paper")
    assert (one.run.epochs, one.run.batch_size) == (140, 48)
    assert (one.optim.lr, one.optim.weight_decay) == (1.5e-4, 0.05)
    assert (one.optim.beta1, one.optim.beta2, one.optim.warmup) == (0.9, 0.95, 40)
    assert one.objective.kind == "simcrop"
    assert (one.objective.top_k, one.objective.temperature) == (64, 0.07)
    assert (one.objective.mask_ratio, one.objective.report_mask_ratio) == (0.75, 0.75)


# -- schedule -----------------------------------------------------------------------------------


def test_the_schedule_is_warm_up_then_half_a_cosine_then_flat() -> None:
    schedule = Schedule(lr=1.0, min_lr=0.1, warmup=10, horizon=110, steps=200)
    for step in range(1, 10):
        assert schedule.at(step) == pytest.approx(step / 10)
    for step in range(10, 110):
        share = (step - 10) / 100
        assert schedule.at(step) == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * share)))
    rates = [schedule.at(step) for step in range(10, 400)]
    assert rates == sorted(rates, reverse=True)  # never rising again past its end
    assert {schedule.at(step) for step in range(110, 400)} == {0.1}


def test_epochs_become_steps() -> None:
    one = config(optim={"warmup": 2, "horizon": 8}, run={"epochs": 10, "batch_size": 8})
    schedule = Schedule.of(one, steps_per_epoch=12.5)
    assert (schedule.warmup, schedule.horizon, schedule.steps) == (25, 100, 125)
    assert Schedule.of(config(), steps_per_epoch=12.5).horizon == 100


def test_faults_are_told_one_by_one_with_their_fields() -> None:
    settings = ["optim.lr=-1", "run.stepz=3"]
    found = {fault.path: fault.text for fault in faults_of(config(), settings)}
    assert set(found) == {"optim.lr", "run.stepz"}
    assert found["optim.lr"].startswith("Input should be greater than 0")
    assert "did you mean run.steps?" in found["run.stepz"]
    assert [f.path for f in faults_of(config(), ["optim.lr", "data.x.y=[1"])] == ["", "data.x.y"]
    assert faults_of(config(), ["optim.lr=0.1"]) == []
    assert faults_of(any_recipe("probe-luna16"), ["data.fraction=0.3"])[0].path == "data"
