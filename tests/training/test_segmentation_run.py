"""Runs that train a segmentation head together with grounding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from simcrop_training.cli import main
from simcrop_training.recipes import recipe

from simcrop_core.errors import SimCroPError
from simcrop_core.geometry import Grid, axis_aligned_affine
from simcrop_core.model import load_model
from simcrop_core.objectives.base import Ranks
from simcrop_core.phantoms.plan import plan_phantom
from simcrop_core.phantoms.study import make_phantom
from simcrop_core.phantoms.truth_classes import CLASSES
from simcrop_core.segment import segment
from simcrop_core.store import open_store
from simcrop_core.train.build import build_model, trained_config
from simcrop_core.train.data import open_data
from simcrop_core.train.settings import with_settings

TINY = "--shape 48,40,32 --spacing 8,8,10 --patch 8,8,4 --workers 1".split()


@pytest.fixture(scope="module")
def classed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of three phantoms with label maps of classes, made by the command."""
    folder = tmp_path_factory.mktemp("classes") / "store"
    assert main(["prepare", "phantoms:20-23", "--classes", "--store", str(folder), *TINY]) == 0
    return folder


def test_the_starter_learns_from_one_command(classed: Path, tmp_path: Path) -> None:
    store = open_store(classed)
    assert store.record(0).structure_names == CLASSES
    run = tmp_path / "run"
    settings = [
        f"data.store={classed}", "data.held_out=1", "run.batch_size=2", "run.steps=3",
        "run.validate_every=3", "run.checkpoint_every=3", "run.previews=0", "optim.warmup=1",
    ]  # fmt: skip
    words = [word for setting in settings for word in ("--set", setting)]
    assert main(["run", "starter-tiny", "--out", str(run), *words]) == 0
    model = load_model(run / "checkpoints" / "step-00000003")
    head = model.config.segmentation
    assert head is not None
    assert (head.kind, head.labels) == ("pyramid", CLASSES)
    assert head.trained == "grounded pre-training, run starter-tiny, step 3"
    center = plan_phantom(900_001).scanner.grid.center_mm
    grid = Grid((60, 52, 40), axis_aligned_affine("LPS", (6, 7, 9), center, (60, 52, 40)))
    phantom = make_phantom(900_001, grid).volume
    found = segment(model, phantom)
    assert found.labels_XYZ.shape == phantom.hu_XYZ.shape
    assert set(np.unique(found.labels_XYZ)) <= set(range(len(CLASSES) + 1))


def test_label_maps_of_anything_else_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    assert main(["prepare", "phantoms:20-22", "--store", str(folder), *TINY]) == 0
    config = with_settings(
        recipe("starter-tiny"), [f"data.store={folder}", "data.held_out=1", "run.batch_size=1"]
    )
    model = build_model(config.model, 0)
    with pytest.raises(SimCroPError) as refusal:
        open_data(config, model.config, folder, tmp_path, Ranks())
    assert refusal.value.code == "other-classes"
    assert "of skin, subcutaneous fat, muscle and 50 more" in refusal.value.problem
    assert "left lung, right lung, trachea and bronchi and 11 more" in refusal.value.problem


def test_options_that_contradict_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ["--store", str(tmp_path / "s")]
    assert main(["prepare", "phantoms:0-2", "--classes", "--no-structures", *store]) == 2
    assert "asked for and left out" in capsys.readouterr().err
    assert main(["prepare", "studies.csv", "--classes", *store]) == 2
    assert "Only phantoms have label maps of classes" in capsys.readouterr().err


def test_wrong_labels_are_told_before_phantoms_are_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", "starter-tiny", "--out", str(tmp_path / "run")]
    assert main([*words, "--set", 'model.segmentation_labels=["a", "b"]']) == 2
    said = capsys.readouterr().err
    assert "and the model's segmentation head knows a, b" in said
    assert "Set model.segmentation_labels as the recipe starter does" in said
    assert not (tmp_path / "run" / "phantoms").exists()


def test_a_head_says_that_its_encoder_went_on_without_it() -> None:
    config = build_model(recipe("starter-tiny").model, 0).config
    own = recipe("starter-tiny").objective
    once = trained_config(config, "one", own, 5)
    assert once.segmentation is not None
    later = trained_config(once, "two", recipe("grounded").objective, 9)
    assert later.segmentation is not None
    assert later.segmentation.trained == (
        "grounded pre-training, run one, step 5, before its encoder went on: "
        "grounded pre-training, run two, step 9"
    )
