"""Copies of models: half precision, without decoders, by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_model_checkpoint import entries, small

from simcrop_core.cli import main
from simcrop_core.errors import SimCroPError
from simcrop_core.model import ImageDecoderConfig, load_model, model_folder, model_info, save_model
from simcrop_core.model.inference import without_decoders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_model(small(), tmp_path / "model")


def test_half_precision_halves_the_file_and_rounds_each_weight(tmp_path: Path) -> None:
    model = small()
    folder = save_model(model, tmp_path / "half", half=True)
    whole = save_model(model, tmp_path / "whole")
    size = {f: (f / "model.safetensors").stat().st_size for f in (folder, whole)}
    assert size[folder] == pytest.approx(size[whole] / 2, rel=0.1)
    loaded = load_model(folder)
    assert loaded.model_id == model_info(folder)["id"] != model.model_id
    for name, tensor in model.state_dict().items():
        got = loaded.state_dict()[name]
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, tensor, rtol=2**-11, atol=2**-25)
    # What was rounded once is rounded already.
    assert load_model(save_model(loaded, tmp_path / "again", half=True)).model_id == loaded.model_id
    assert load_model(save_model(loaded, tmp_path / "full")).model_id == loaded.model_id


def test_a_weight_beyond_half_precision_is_refused(tmp_path: Path) -> None:
    model = small()
    with torch.no_grad():
        next(iter(model.parameters())).view(-1)[0] = 1e5
    with pytest.raises(SimCroPError, match="beyond the range of half precision"):
        save_model(model, tmp_path / "model", half=True)
    assert not entries(tmp_path)


def test_weights_of_two_precisions_are_refused(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    first = sorted(state)[0]
    save_file(state | {first: state[first].half()}, folder / "model.safetensors")
    with pytest.raises(SimCroPError, match="not those that were saved"):
        load_model(folder)


def test_a_copy_has_no_decoders_and_answers_the_same(tmp_path: Path) -> None:
    model = small(image_decoder=ImageDecoderConfig(depth=1, width=24, heads=4)).eval()
    copy = without_decoders(model, "copied")
    assert copy.image_decoder is None
    assert copy.config.name == "copied"
    assert not any(name.startswith("image_decoder") for name in copy.state_dict())
    x = torch.randn(1, 1, 16, 16, 8)
    torch.testing.assert_close(
        copy.vision(x).patches_BND, model.vision(x).patches_BND, rtol=0, atol=0
    )
    assert model.image_decoder is not None


def test_models_by_name_are_the_persons_own_then_those_that_come_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMCROP_MODELS", str(tmp_path / "own"))
    monkeypatch.setattr(model_folder, "bundled_folder", lambda: tmp_path / "bundled")
    came, own = small(0), small(1)
    save_model(came, tmp_path / "bundled" / "starter")
    assert model_folder.model_names() == ["starter"]
    assert load_model("starter").model_id == came.model_id
    save_model(own, tmp_path / "own" / "starter")
    assert load_model("starter").model_id == own.model_id
    assert model_folder.model_names() == ["starter"]


def test_the_command_copies_a_model_under_a_name_in_half_precision(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    decoder = ImageDecoderConfig(depth=1, width=24, heads=4)
    folder = save_model(small(image_decoder=decoder), tmp_path / "model")
    words = ["models", "copy", str(folder), "--out", str(tmp_path / "copy"), "--half", "--json"]
    assert main([*words, "--name", "carried"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["name"] == "carried"
    assert facts["image_decoder"] is None
    assert facts["weights_bytes"] < (folder / "model.safetensors").stat().st_size / 2
    assert load_model(tmp_path / "copy").model_id == facts["id"]
    assert main(words) == 2
    assert "There is something here already" in capsys.readouterr().err
