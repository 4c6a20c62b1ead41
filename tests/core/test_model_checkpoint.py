"""Model folders: whole or not at all, exactly what was saved, or refused."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from simcrop_core.errors import SimCroPError
from simcrop_core.input_spec import InputSpec
from simcrop_core.model import (
    ImageDecoderConfig,
    ModelConfig,
    SegmentationConfig,
    SimCroP,
    TextConfig,
    VisionConfig,
    checkpoint,
    create_model,
    load_model,
    model_info,
    new_model,
    save_model,
)


def small(seed: int = 0, **changes: Any) -> SimCroP:
    settings: dict[str, Any] = {
        "name": "small",
        "input_spec": InputSpec(shape=(16, 16, 8), patch_shape=(8, 8, 4)),
        "vision": VisionConfig(depth=4, width=24, heads=4),
        "text": TextConfig(source="minilm", width=384),
    }
    return new_model(ModelConfig(**(settings | changes)), seed)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_model(small(), tmp_path / "model")


def entries(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


# -- there and back -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"projection_width": 16, "similarity": "raw"},
        {"image_decoder": ImageDecoderConfig(depth=1, width=12, heads=2)},
        {"segmentation": SegmentationConfig(labels=("a", "b"), feature_width=2)},
    ],
)
def test_what_is_loaded_is_bit_for_bit_what_was_saved(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    model = small(3, **changes)
    save_model(model, tmp_path / "deep" / "model")
    loaded = load_model(tmp_path / "deep" / "model")
    assert entries(tmp_path / "deep" / "model") == ["config.json", "model.safetensors"]
    assert entries(tmp_path / "deep") == ["model"]
    assert loaded.config == model.config
    assert loaded.model_id == model.model_id
    assert not loaded.training
    ours, theirs = model.state_dict(), loaded.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    x = torch.rand(1, 1, 16, 16, 8)
    with torch.no_grad():
        assert torch.equal(loaded.vision(x).patches_BND, model.vision(x).patches_BND)
    requires = [p.requires_grad for p in loaded.parameters()]
    assert all(requires)


def test_a_loaded_model_can_be_trained_and_the_file_stays(folder: Path) -> None:
    before = (folder / "model.safetensors").read_bytes()
    model = load_model(folder)
    (model.vision(torch.rand(1, 1, 16, 16, 8)).pooled_BD ** 2).sum().backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    assert (folder / "model.safetensors").read_bytes() == before
    assert load_model(folder).model_id != model.model_id


def test_the_vision_encoder_works_without_the_text_encoder(tmp_path: Path) -> None:
    text = TextConfig(source=str(tmp_path / "gone"), width=384)
    save_model(small(text=text), tmp_path / "model")
    model = load_model(tmp_path / "model")
    assert model.vision(torch.rand(1, 1, 16, 16, 8)).pooled_BD.shape == (1, 24)
    with pytest.raises(SimCroPError) as refusal:
        model.encode_text(["Normal."])
    assert refusal.value.code == "text-encoder-missing"
    assert "--text-encoder" in refusal.value.remedy
    elsewhere = load_model(tmp_path / "model", text_encoder="minilm")
    assert elsewhere.encode_text(["Normal."]).sentences_SD.shape == (1, 384)
    assert elsewhere.model_id == model.model_id


def test_text_encoder_weights_are_not_in_the_folder(tmp_path: Path) -> None:
    model = create_model("starter", vision=VisionConfig(depth=1, width=384, heads=6))
    model.encode_text(["Normal."])
    save_model(model, tmp_path / "model")
    assert {name.split(".")[0] for name in load_file(tmp_path / "model" / "model.safetensors")} == {
        "vision"
    }
    assert len(model_info(tmp_path / "model")["text"]["fingerprint"]) == 64


def test_a_model_is_found_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setenv("SIMCROP_MODELS", str(folder.parent))
    monkeypatch.chdir(folder)
    assert load_model("model").config.name == "small"
    with pytest.raises(SimCroPError, match="simcrop models create starter") as refusal:
        load_model("starter")
    assert refusal.value.code == "no-such-model"


# -- damage -------------------------------------------------------------------------------------


def edit_config(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "config.json"
        data = json.loads(path.read_text())
        change(data)
        path.write_text(json.dumps(data))

    return edit


def edit_weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "model.safetensors"
        tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
        change(tensors)
        save_file(tensors, path)

    return edit


def weights(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "model.safetensors"
        path.write_bytes(change(path.read_bytes()))

    return edit


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def huge_header(data: bytes) -> bytes:
    header = json.dumps(
        {"x": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}
    ).encode()
    return struct.pack("<Q", len(header)) + header


def unreadable(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()


DAMAGE: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "cut": (weights(lambda d: d[: len(d) * 2 // 3]), "damaged-weights", ""),
    "cut in the header": (weights(lambda d: d[:50]), "damaged-weights", ""),
    "empty": (weights(lambda d: b""), "damaged-weights", ""),
    "longer": (weights(lambda d: d + b"\0" * 8), "damaged-weights", ""),
    "not safetensors": (weights(lambda d: b"PK\3\4" + d), "damaged-weights", ""),
    "one bit of a weight": (weights(lambda d: flipped(d, len(d) - 5)), "damaged-weights", ""),
    "a bit of the header": (weights(lambda d: flipped(d, 40)), "", ""),
    "header longer than the file": (
        weights(lambda d: struct.pack("<Q", 1 << 62) + d[8:]), "damaged-weights", "",
    ),
    "header declares terabytes": (weights(huge_header), "damaged-weights", ""),
    "header nested too deep": (
        weights(lambda d: struct.pack("<Q", 200_000) + b"[" * 200_000), "damaged-weights", "",
    ),
    "missing name": (
        edit_weights(lambda t: t.pop("vision.fc_norm.bias")),
        "weights-mismatch", r"1 missing: vision\.fc_norm\.bias",
    ),
    "unexpected name": (
        edit_weights(lambda t: t.update({"vision.extra": torch.zeros(1)})),
        "weights-mismatch", r"1 unexpected: vision\.extra",
    ),
    "wrong shape": (
        edit_weights(lambda t: t.update({"vision.fc_norm.bias": torch.zeros(23)})),
        "weights-mismatch", r"vision\.fc_norm\.bias \(23,\) instead of \(24,\)",
    ),
    "many missing": (
        edit_weights(lambda t: [t.pop(n) for n in list(t) if ".blocks.1." in n]),
        "weights-mismatch", r"12 missing: .* and 7 more",
    ),
    "another type": (
        edit_weights(lambda t: t.update({n: v.half() for n, v in list(t.items())})),
        "damaged-weights", "",
    ),
    "other weights": (
        edit_weights(lambda t: t["vision.fc_norm.bias"].add_(1)), "damaged-weights", "",
    ),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "unreadable", ""),
    "no configuration": (lambda f: (f / "config.json").unlink(), "not-a-model", ""),
    "configuration is a folder": (unreadable, "unreadable", ""),
    "configuration is no JSON": (lambda f: (f / "config.json").write_text("{"), "not-a-model", ""),
    "configuration is a list": (lambda f: (f / "config.json").write_text("[]"), "not-a-model", ""),
    "configuration nested too deep": (
        lambda f: (f / "config.json").write_text("[" * 100_000), "not-a-model", "",
    ),
    "configuration is binary": (
        lambda f: (f / "config.json").write_bytes(b"\xff\xfe\0"), "not-a-model", "",
    ),
    "of another program": (edit_config(lambda c: c.update(format="bert")), "not-a-model", ""),
    "unknown key": (edit_config(lambda c: c.update(colour=1)), "bad-config", "colour"),
    "unknown key inside": (
        edit_config(lambda c: c["config"]["vision"].update(colour=1)), "bad-config",
        r"Found 1 error .*vision\.colour",
    ),
    "value out of range": (
        edit_config(lambda c: c["config"]["vision"].update(depth=10**9)), "bad-config",
        r"vision\.depth",
    ),
    "declared far larger": (
        edit_config(lambda c: c["config"]["vision"].update(width=4032, heads=64, depth=64)),
        "weights-mismatch", "of another shape",
    ),
    "huge input": (
        edit_config(lambda c: c["config"]["input_spec"].update(shape=[4096, 4096, 4096])),
        "bad-config", "patches",
    ),
    "a setting changed": (
        edit_config(lambda c: c["config"].update(similarity="raw")), "altered-config", "",
    ),
    "newer": (edit_config(lambda c: c["config"].update(schema_version=2)), "newer-model", "newer"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_model_is_refused_in_one_sentence(folder: Path, damage: str) -> None:
    break_it, code, says = DAMAGE[damage]
    break_it(folder)
    with pytest.raises(SimCroPError, match=says or None) as refusal:
        load_model(folder)
    assert not code or refusal.value.code == code
    assert "\n" not in str(refusal.value)
    assert refusal.value.path is not None
    assert Path(refusal.value.path).is_relative_to(folder)


def test_every_flipped_bit_of_a_sample_is_caught(folder: Path) -> None:
    path = folder / "model.safetensors"
    data = path.read_bytes()
    loaded_exactly = 0
    for at in range(8, len(data), len(data) // 60):
        path.write_bytes(flipped(data, at))
        try:
            load_model(folder)
        except SimCroPError:
            continue
        loaded_exactly += 1
    # Only what safetensors itself ignores (the padding and notes of its header) may pass.
    assert loaded_exactly <= 1


def test_no_folder_at_all(tmp_path: Path) -> None:
    with pytest.raises(SimCroPError) as refusal:
        load_model(tmp_path / "nowhere")
    assert refusal.value.code == "no-such-model"


def test_a_device_that_is_not_there(folder: Path) -> None:
    with pytest.raises(SimCroPError) as refusal:
        load_model(folder, device="cuda:99")
    assert refusal.value.code == "no-device"


# -- saving -------------------------------------------------------------------------------------


def test_nothing_is_overwritten_unasked(folder: Path) -> None:
    before = load_model(folder).model_id
    with pytest.raises(SimCroPError) as refusal:
        save_model(small(1), folder)
    assert refusal.value.code == "exists"
    assert load_model(folder).model_id == before
    save_model(small(1), folder, overwrite=True)
    assert load_model(folder).model_id == small(1).model_id
    assert entries(folder.parent) == ["model"]


def test_an_empty_folder_is_filled_and_another_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    save_model(small(), tmp_path / "empty")
    assert load_model(tmp_path / "empty")
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "chapter1.txt").write_text("years of work")
    for target in (thesis, thesis / "chapter1.txt"):
        with pytest.raises(SimCroPError):
            save_model(small(), target, overwrite=True)
    assert (thesis / "chapter1.txt").read_text() == "years of work"
    with pytest.raises(SimCroPError) as refusal:
        save_model(small(), thesis / "chapter1.txt" / "model")
    assert refusal.value.code == "save-failed"


@pytest.mark.parametrize("step", ["save_file", "_flush", "os.rename", "shutil.rmtree"])
@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_save_that_fails_anywhere_leaves_the_old_model_or_the_new(
    folder: Path, monkeypatch: pytest.MonkeyPatch, step: str, exchange: bool, nth: int
) -> None:
    old, new = load_model(folder).model_id, small(1)
    if not exchange:
        monkeypatch.setattr(checkpoint, "exchange", lambda *_: False)
    calls = 0
    owner: Any = checkpoint
    *path, name = step.split(".")
    for part in path:
        owner = getattr(owner, part)
    real = getattr(owner, name)

    def failing(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == nth:
            raise OSError(28, "No space left on device")
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, failing)
    failure = None
    try:
        save_model(new, folder, overwrite=True)
    except SimCroPError as e:
        failure = e
    if failure is not None:
        assert "No space left" in str(failure)
    elif step != "shutil.rmtree":  # a failure is never passed over, but one swap needs no rename
        assert calls < nth
    monkeypatch.undo()
    assert load_model(folder).model_id in (old, new.model_id)
    save_model(new, folder, overwrite=True)
    assert load_model(folder).model_id == new.model_id
    assert not [name for name in entries(folder.parent) if "previous" in name]


# Saves in a forked copy of itself, up to the flush of a given number, and kills it there.
_KILLED_AT_EACH_FLUSH = """
import os, signal, sys
from simcrop_core.model import checkpoint, load_model
if sys.argv[2] == "in two steps":
    checkpoint.exchange = lambda *_: False
model, flush = load_model(sys.argv[1]), checkpoint._flush

def killed_at(number):
    seen = 0
    def counted(path):
        nonlocal seen
        seen += 1
        if seen == number:
            os.kill(os.getpid(), signal.SIGKILL)
        flush(path)
    checkpoint._flush = counted
    checkpoint.save_model(model, sys.argv[1], overwrite=True)

number = 1
while True:
    child = os.fork()
    if child == 0:
        killed_at(number)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status == 0:
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
    print(number, load_model(sys.argv[1]).model_id, flush=True)
    number += 1
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and kill -9")
@pytest.mark.parametrize(("exchanged", "flushes"), [("in one step", 4), ("in two steps", 5)])
def test_kill_9_while_saving_leaves_the_old_model_or_a_new_one(
    folder: Path, exchanged: str, flushes: int
) -> None:
    """A process that replaces the model is killed before each of its writes becomes certain."""
    expected = load_model(folder).model_id
    done = subprocess.run(
        [sys.executable, "-c", _KILLED_AT_EACH_FLUSH, str(folder), exchanged],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines == [[str(number), expected] for number in range(1, flushes + 1)]
    assert load_model(folder).model_id == expected


def test_a_stopped_replacement_is_found_and_finished(folder: Path) -> None:
    hidden = folder.with_name(".model.previous")
    folder.rename(hidden)
    expected = load_model(folder).model_id
    assert model_info(folder)["id"] == expected
    save_model(small(1), folder, overwrite=True)
    assert entries(folder.parent) == ["model"]


def test_leftovers_of_killed_saves_are_removed_after_a_day(folder: Path) -> None:
    old, recent = (folder.with_name(f".model.{n}.partial") for n in ("0a0a0a0a", "0b0b0b0b"))
    for left in (old, recent):
        shutil.copytree(folder, left)
    os.utime(old, (time.time() - 90_000,) * 2)
    save_model(small(), folder, overwrite=True)
    assert entries(folder.parent) == [recent.name, "model"]


# -- facts --------------------------------------------------------------------------------------


def test_info_needs_no_torch_and_counts_what_is_there(folder: Path) -> None:
    model = load_model(folder)
    facts = model_info(folder)
    assert facts["id"] == model.model_id
    assert facts["trained"] == "untrained"
    assert facts["parameters"]["total"] == sum(t.numel() for t in model.state_dict().values())
    assert facts["parameters"]["text_projection"] == 384 * 24 + 24
    assert facts["input_spec"]["shape"] == [16, 16, 8]
    assert json.loads(json.dumps(facts)) == facts
    code = (
        "import sys; from simcrop_core.model import model_info; model_info(sys.argv[1]); "
        "print(sorted({'torch', 'transformers', 'monai'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_info_refuses_what_loading_refuses_by_its_headers(folder: Path) -> None:
    DAMAGE["cut"][0](folder)
    with pytest.raises(SimCroPError):
        model_info(folder)


def test_others_may_read_a_model_as_the_umask_says(tmp_path: Path) -> None:
    (tmp_path / "usual").write_text("usual")
    save_model(
        create_model("starter", vision=VisionConfig(depth=1, width=48, heads=4)), tmp_path / "m"
    )
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "m" / name).stat().st_mode == (tmp_path / "usual").stat().st_mode
