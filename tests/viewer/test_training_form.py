"""The form of a run: what is typed, what is wrong with it, and the command that comes of it."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from made_runs import recipes
from simcrop_training.cli import make_parser
from simcrop_training.recipes import PROBES, RECIPES, any_recipe

from simcrop_core.train.settings import faults_of, fields_of, with_settings
from simcrop_viewer.model.recipes import (
    Recipe,
    Setting,
    recipes_from,
    setting_words,
    settings_of_run,
)
from simcrop_viewer.model.training_form import FIRST, TrainingForm


@pytest.fixture
def form(tmp_path: Path) -> TrainingForm:
    made = TrainingForm()
    made.put_in(tmp_path)
    made.offer(recipes())
    return made


def setting(form: TrainingForm, path: str) -> Setting:
    return next(one for one in form.settings if one.path == path)


def judge(form: TrainingForm) -> None:
    """As the command does, in this process."""
    asked = form.asks
    assert asked is not None
    config = any_recipe(asked[0])
    faults = faults_of(config, asked[1])
    now = config if faults else with_settings(config, asked[1])
    told = {"recipes": [{"name": asked[0], "text": "", "fields": fields_of(now)}]}
    form.judged(asked, {"faults": [f._asdict() for f in faults]}, recipes_from(told)[0])


# -- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "typed", "value"),
    [
        ("integer", " 12 ", 12),
        ("integer", "1e3", 1000),
        ("number", "1e-4", 1e-4),
        ("boolean", "false", False),
        ("string", "null", "null"),
        ("list", "[48, 40]", [48, 40]),
        ("list", "48, 40", [48, 40]),
        ("object", '{"a": 1}', {"a": 1}),
        ("number", "", None),
    ],
)
def test_what_is_typed_becomes_a_value(kind: str, typed: str, value: Any) -> None:
    assert Setting("a.b", kind, nullable=True).value(typed) == value


@pytest.mark.parametrize(
    ("made", "typed", "fault"),
    [
        (Setting("a", "integer"), "", "A value is needed."),
        (Setting("a", "integer"), "three", "A number is needed."),
        (Setting("a", "number"), "nan", "A number is needed."),
        (Setting("a", "integer"), "1.5", "A whole number is needed."),
        (Setting("a", "integer", minimum=1, maximum=64), "65", "From 1 to 64."),
        (Setting("a", "number", above=0, maximum=10), "0", "Above 0 and 10 or less."),
        (Setting("a", "number", above=0, below=1), "1", "Above 0 and below 1."),
        (Setting("a", "list"), "[1, 2", "Written like [48, 40, 32]."),
        (Setting("a", "choice", choices=("x", "y")), "z", "One of x, y."),
    ],
)
def test_what_is_no_value_is_told_in_a_sentence(made: Setting, typed: str, fault: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(fault)}$"):
        made.value(typed)


@pytest.mark.parametrize("value", [None, True, 3, 1e-5, "plain", "[x]", "null", "", " a ", [1, 2]])
def test_words_for_a_setting_are_read_back_as_the_same_value(value: Any) -> None:
    from simcrop_core.train.settings import _value

    words = setting_words("a.b", value)
    read = _value(words.partition("=")[2].strip())
    wanted = value if isinstance(value, str | list) or value is None else json.dumps(value)
    assert read == wanted


def test_every_recipe_of_the_command_has_a_form(form: TrainingForm) -> None:
    assert {recipe.name for recipe in form.recipes} >= {*RECIPES, *PROBES}
    for recipe in form.recipes:
        form.choose(recipe.name)
        assert form.is_ready, recipe.name
        assert form.changes == []
        assert 4 <= len(form.first) <= 12
        listed = [s.path for s in form.first] + [
            s.path for some in form.more.values() for s in some
        ]
        assert sorted([*listed, "name"]) == sorted(recipe.paths)
        for one in form.settings:
            assert one.text.split(" None:")[0] in one.about
            if one.default is not None:  # what is shown is what is meant
                assert one.value(form.typed(one)) == one.default, one.path
    used = {path for recipe in form.recipes for path in recipe.paths}
    assert set(FIRST) <= used


def test_folders_can_be_chosen_where_folders_are_meant(form: TrainingForm) -> None:
    folders = {one.path for recipe in form.recipes for one in recipe.settings if one.is_folder}
    assert folders >= {
        "data.store",
        "data.phantom_folder",
        "model.folder",
        "model.text_encoder",
        "model",
        "data.root",
        "data.lists",
        "data.external",
    }
    form.choose("smoke")
    assert setting(form, "data.store").when_none.startswith("phantoms are made")


# -- the form -------------------------------------------------------------------------------------


def test_only_what_is_changed_is_in_the_command(form: TrainingForm, tmp_path: Path) -> None:
    form.choose("smoke")
    told: list[str] = []
    form.changed.connect(lambda: told.append(form.command))
    form.type(setting(form, "optim.lr"), "0.0005")
    form.type(setting(form, "model.without"), '["presence"]')
    form.type(setting(form, "data.store"), "/my data/store")
    assert form.command == (
        f"simcrop-train run smoke --out {tmp_path}/smoke-1 --set optim.lr=0.0005 --set "
        "'model.without=[\"presence\"]' --set 'data.store=/my data/store'"
    )
    assert told[-1] == form.command
    parsed = make_parser().parse_args(form.words)
    config = with_settings(any_recipe(parsed.recipe), parsed.set)
    assert (config.optim.lr, config.data.store) == (0.0005, "/my data/store")
    form.type(setting(form, "optim.lr"), "1e-3")  # as in the recipe, in other digits
    assert not form.is_changed(setting(form, "optim.lr"))
    form.choose("phantom-tiny")
    assert form.changes == []


def test_folders_that_are_typed_mean_the_same_from_everywhere(
    form: TrainingForm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("mine", "minilm", "bert"):
        (tmp_path / name).mkdir()

    def said(path: str, text: str) -> str:
        form.type(setting(form, path), text)
        (found,) = [c for c in form.changes if c.startswith(f"{path}=")]
        return found.removeprefix(f"{path}=")

    assert said("data.store", "store/a") == f"{tmp_path}/store/a"
    assert said("data.store", "~/store") == f"{tmp_path}/home/store"
    assert said("data.store", "/a/b") == "/a/b"
    assert said("model.folder", "mine") == f"{tmp_path}/mine"
    assert said("model.folder", "./later") == f"{tmp_path}/later"
    assert said("model.folder", "starter") == "starter"  # a name
    assert said("model.text_encoder", "minilm") == "minilm"
    assert said("model.text_encoder", "org/encoder") == "org/encoder"
    assert said("model.text_encoder", "bert") == f"{tmp_path}/bert"
    form.choose("probe-luna16")
    assert said("data.root", "luna") == f"{tmp_path}/luna"
    assert said("protocol", "released") == "released"


def test_a_field_alone_is_judged_at_once_and_fields_together_by_the_command(
    form: TrainingForm,
) -> None:
    batch = setting(form, "run.batch_size")
    form.type(batch, "0")
    assert form.fault(batch) == "From 1 to 1,000,000."
    assert not form.is_ready
    form.type(batch, "3")
    assert form.is_ready
    form.type(setting(form, "run.accumulation"), "2")
    judge(form)
    assert form.other_faults[0].startswith("A batch of 3 cannot be dealt out evenly")
    assert not form.is_ready
    form.type(batch, "4")
    judge(form)
    assert form.other_faults == ()
    assert form.is_ready
    assert form.asks is None


def test_a_fault_that_the_command_finds_in_a_field_stands_beside_it(form: TrainingForm) -> None:
    form.choose("probe-luna16")
    share = setting(form, "data.fraction")
    form.type(share, "0.3")
    judge(form)
    assert form.other_faults[0].startswith("LUNA16 has no list of 0.3")
    form.choose("smoke")
    without = setting(form, "model.without")
    form.type(without, '["fusion", "x"]')
    judge(form)
    assert "not 'x'" in form.fault(without)
    assert form.other_faults == ()
    form.type(without, "[]")
    assert form.fault(without) == ""


def test_an_answer_that_comes_late_is_passed_over(form: TrainingForm) -> None:
    form.type(setting(form, "optim.lr"), "0.5")
    asked = form.asks
    assert asked is not None
    form.type(setting(form, "optim.lr"), "0.25")
    fault = {"path": "optim.lr", "text": "too much"}
    form.judged(asked, {"faults": [fault]}, form.recipe)
    assert form.fault(setting(form, "optim.lr")) == ""
    assert form.asks == ("smoke", ("optim.lr=0.25",))


def test_another_objective_has_fields_of_its_own(form: TrainingForm) -> None:
    made = []
    form.fields_changed.connect(lambda: made.append(len(form.settings)))
    form.type(setting(form, "objective.top_k"), "5")
    form.type(setting(form, "optim.lr"), "0.25")
    form.type(setting(form, "objective.kind"), "mae")
    assert form.changes == ["objective.kind=mae", "optim.lr=0.25"]
    judge(form)
    paths = {one.path for one in form.settings}
    assert len(made) == 1
    assert "objective.top_k" not in paths
    assert "objective.mask_ratio" in paths
    assert form.typed(setting(form, "optim.lr")) == "0.25"
    form.type(setting(form, "objective.mask_ratio"), "0.5")
    judge(form)
    assert with_settings(any_recipe("smoke"), form.changes).objective.mask_ratio == 0.5
    form.type(setting(form, "objective.kind"), "simcrop")
    form.type(setting(form, "optim.lr"), "0.001")
    assert {one.path for one in form.settings} == set(form.recipe.paths)
    assert form.is_ready


def test_a_run_is_named_by_the_first_free_number(form: TrainingForm, tmp_path: Path) -> None:
    (tmp_path / "smoke-1").mkdir()
    (tmp_path / "smoke-1" / "config.json").touch()
    (tmp_path / "smoke-2").mkdir()
    (tmp_path / "smoke-2" / "log.txt").touch()  # refused before anything was made
    form.choose("smoke")
    assert form.name == "smoke-2"
    form.name_it("smoke-1")
    assert form.name_fault == "There is a folder of this name already."
    form.name_it("a/b")
    assert "slashes" in form.name_fault
    form.name_it("..")
    assert "slashes" in form.name_fault
    form.name_it("mine")
    assert (form.name_fault, form.folder) == ("", tmp_path / "mine")
    (tmp_path / "smoke-2" / "config.json").touch()
    form.started()
    assert form.name == "smoke-3"


def test_a_folder_of_runs_that_cannot_be_read_is_told_and_numbering_ends(
    form: TrainingForm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true, looked = os.listdir, []

    def few(place: object) -> list[str]:
        looked.append(place)
        assert len(looked) < 100, "numbering does not end"
        return true(place)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(os, "listdir", few)
    (tmp_path / "file").touch()
    form.put_in(tmp_path / "file")
    assert (form.name, form.name_fault) == ("smoke-1", "This folder cannot be read.")
    assert not form.is_ready

    def stale(place: object) -> list[str]:
        looked.append(place)
        assert len(looked) < 100, "numbering does not end"
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(os, "listdir", stale)
    form.put_in(tmp_path / "mount")
    assert (form.name, form.name_fault) == ("smoke-1", "This folder cannot be read.")
    monkeypatch.setattr(os, "listdir", true)
    form.looked()
    assert form.name_fault == ""
    form.put_in(tmp_path)
    form.name_it("x" * 300)
    assert form.name_fault == "A shorter name is needed."


# -- runs that go on ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*RECIPES, *PROBES])
def test_a_configuration_is_got_back_from_its_recipe(name: str) -> None:
    recipe = next(one for one in recipes() if one.name == name)
    config = any_recipe(name)
    assert settings_of_run(recipe, config.model_dump(mode="json")) == []


@pytest.mark.parametrize(
    "settings",
    [
        ["optim.lr=0.5", "run.epochs=2.5", "run.steps=null", "data.store=/a b", "optim.warmup=0"],
        ["objective.kind=mae", "objective.mask_ratio=0.6", "model.vision.depth=4"],
        ["objective.kind=grounded"],
        ['model.without=["presence"]', "model.input_spec.shape=[96,80,32]", "data.workers=0"],
        ["model.fusion.heads=null", "run.compile=true", "optim.clip_norm=null"],
    ],
)
def test_a_changed_configuration_is_got_back_too(settings: list[str]) -> None:
    recipe: Recipe = next(one for one in recipes() if one.name == "smoke")
    config = with_settings(any_recipe("smoke"), settings)
    again = settings_of_run(recipe, json.loads(json.dumps(config.model_dump(mode="json"))))
    assert with_settings(any_recipe("smoke"), again) == config
