"""Foreign checkpoints: the authors' features come out, and nothing that is inside is run."""

from __future__ import annotations

import argparse
import builtins
import io
import os
import pathlib
import pickle
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import authors_encoder as authors
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from simcrop_core.errors import SimCroPError
from simcrop_core.input_spec import InputSpec
from simcrop_core.model import (
    ImportReport,
    SimCroP,
    import_checkpoint,
    import_child,
    load_model,
    save_model,
)
from simcrop_core.model.foreign import read_foreign_weights

PATCH = (4, 4, 2)
SPEC = InputSpec(shape=(12, 12, 6), patch_shape=PATCH)
ROWS = 27 + 1


def small_state(**changes: Any) -> authors.State:
    return authors.random_state(2, 64, PATCH, ROWS, **changes)


def imported(
    folder: Path, content: authors.State, **arguments: Any
) -> tuple[SimCroP, ImportReport]:
    """Import by way of safetensors: the same path but for the child process."""
    path = folder / "checkpoint.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in content.items()}, path)
    return import_checkpoint(path, text_encoder="minilm", **arguments)


def opened_here(path: Path, content: Any, folder: Path, *, zipped: bool = True) -> dict[str, Any]:
    """What the child process does with a checkpoint, without the process and its limits."""
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    folder.mkdir(exist_ok=True)
    return import_child.convert(path, folder)


def assert_features_are_the_authors(
    model: SimCroP,
    state: authors.State,
    x: torch.Tensor,
    heads: int,
    keep: list[int] | None = None,
) -> None:
    patch = model.input_spec.patch_shape
    with torch.no_grad():
        patches, pooled, _ = authors.encode(state, x, patch, heads, keep)
        features = model.vision(x, None if keep is None else torch.tensor([keep]))
    torch.testing.assert_close(features.patches_BND, patches, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(features.pooled_BD, pooled, atol=1e-5, rtol=1e-5)


# -- the authors' features ----------------------------------------------------------------------


@pytest.mark.slow
def test_the_released_layout_at_full_size(tmp_path: Path) -> None:
    """12 blocks of 768, 2745 rows, beside the head and what MAE's training leaves in the file."""
    state = authors.random_state(12, 768, (16, 16, 8), 2745, seed=2, spread_of=0.02)
    state["pos_embed"] = torch.cat(
        [torch.zeros(1, 768), torch.from_numpy(authors.two_axis_positions((14,) * 3, 768)).float()]
    )[None]
    content = {
        "model": state | {"head.weight": torch.zeros(18, 768), "head.bias": torch.zeros(18)},
        "optimizer": {"state": {0: {"step": torch.tensor(5.0)}}, "param_groups": [{"lr": 1e-4}]},
        "epoch": 139,
        "scaler": {"scale": 65536.0},
        "args": argparse.Namespace(
            lr=1.5e-4, out=pathlib.PurePosixPath("/x"), best=np.float64(0.81), steps=np.int64(7)
        ),
    }
    torch.save(content, tmp_path / "checkpoint.pth")
    model, report = import_checkpoint(tmp_path / "checkpoint.pth", text_encoder="minilm")
    (tmp_path / "checkpoint.pth").unlink()
    vision = model.config.vision
    assert (vision.depth, vision.width, vision.heads) == (12, 768, 12)
    assert model.input_spec == InputSpec()
    assert report.position == "official2axis"
    assert report.unused == ("head.bias", "head.weight")
    assert set(report.used) == set(state)
    save_model(model, tmp_path / "model")
    x = torch.rand(1, 1, 224, 224, 112, generator=torch.Generator().manual_seed(0)) * 2 - 1
    loaded = load_model(tmp_path / "model")
    # Every fifth patch: all 2744 at once are the same sums, but take a minute.
    assert_features_are_the_authors(loaded, state, x, heads=12, keep=list(range(0, 2744, 5)))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: OrderedDict(s),
        lambda s: {"model": s, "args": argparse.Namespace(a=1)},
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": {f"module.{name}": value for name, value in s.items()}},
        lambda s: {name: value.double() for name, value in s.items()},
        lambda s: {name: torch.nn.Parameter(value) for name, value in s.items()},
    ],
)
def test_all_common_wrappings(tmp_path: Path, wrap: Any, zipped: bool) -> None:
    state = small_state()
    opened_here(tmp_path / "x.pth", wrap(state), tmp_path / "out", zipped=zipped)
    found = load_file(tmp_path / "out" / "weights.safetensors")
    assert list(found) == sorted(state)
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("cls_token", [True, False])
@pytest.mark.parametrize("heads", [2, 4])
def test_features_are_the_authors(tmp_path: Path, cls_token: bool, heads: int) -> None:
    state = authors.random_state(2, 64, PATCH, 27 + cls_token, cls_token=cls_token)
    model, report = imported(tmp_path, state, heads=heads)
    assert model.config.vision.cls_token is cls_token
    assert report.unused == ()
    assert_features_are_the_authors(model, state, torch.rand(2, 1, *SPEC.shape), heads)


def test_the_old_file_format_and_safetensors(tmp_path: Path) -> None:
    state = small_state()
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file({f"module.{n}": t for n, t in state.items()}, tmp_path / "new.safetensors")
    x = torch.rand(1, 1, *SPEC.shape)
    for name in ("old.pth", "new.safetensors"):
        model, _ = import_checkpoint(tmp_path / name, text_encoder="minilm", heads=2)
        assert_features_are_the_authors(model, state, x, heads=2)


def test_half_precision_becomes_float32(tmp_path: Path) -> None:
    state = {name: tensor.half() for name, tensor in small_state().items()}
    opened_here(tmp_path / "x.pth", {"model": state}, tmp_path / "out")
    found = load_file(tmp_path / "out" / "weights.safetensors")
    model, _ = imported(tmp_path, state)
    assert {t.dtype for t in model.state_dict().values()} == {torch.float32}
    for name, tensor in state.items():
        assert torch.equal(found[name], tensor.float())
        assert torch.equal(model.vision.state_dict()[name], tensor.float())


# -- what is inferred ---------------------------------------------------------------------------


def test_a_loaded_table_wins_and_its_formula_is_recognised(tmp_path: Path) -> None:
    state = small_state()
    model, report = imported(tmp_path, state)
    assert report.position == model.config.vision.position == "loaded"
    assert torch.equal(model.vision.pos_embed, state["pos_embed"])
    formula = torch.from_numpy(authors.two_axis_positions((3, 3, 3), 64)).float()
    state["pos_embed"] = torch.cat([torch.zeros(1, 64), formula])[None]
    assert imported(tmp_path, state)[1].position == "official2axis"


def test_grids_that_are_not_cubic_need_the_input_settings(tmp_path: Path) -> None:
    state = authors.random_state(2, 64, PATCH, 3 * 2 * 4 + 1)
    with pytest.raises(SimCroPError) as refusal:
        imported(tmp_path, state)
    assert refusal.value.code == "ambiguous-grid"
    spec = InputSpec(shape=(12, 8, 8), patch_shape=PATCH)
    model, report = imported(tmp_path, state, input_spec=spec)
    assert report.grid_shape == (3, 2, 4)
    assert_features_are_the_authors(model, state, torch.rand(1, 1, 12, 8, 8), heads=1)
    with pytest.raises(SimCroPError) as refusal:
        imported(tmp_path, state, input_spec=SPEC)
    assert refusal.value.code == "grid-mismatch"


def test_without_fc_norm_a_plain_one_is_put_in_and_said(tmp_path: Path) -> None:
    state = small_state()
    bare = {name: tensor for name, tensor in state.items() if not name.startswith("fc_norm")}
    bare |= {"norm.weight": torch.full((64,), 7.0), "norm.bias": torch.zeros(64)}
    model, report = imported(tmp_path, bare)
    assert report.unused == ("norm.bias", "norm.weight")
    assert "vision.fc_norm.weight" in report.initialised
    assert "fc-norm-initialised" in [note.code for note in report.notes]
    state |= {"fc_norm.weight": torch.ones(64), "fc_norm.bias": torch.zeros(64)}
    assert_features_are_the_authors(model, state, torch.rand(1, 1, *SPEC.shape), heads=1)


def test_without_positions_they_are_computed_only_for_a_given_grid(tmp_path: Path) -> None:
    state = small_state()
    bare = {name: tensor for name, tensor in state.items() if name != "pos_embed"}
    with pytest.raises(SimCroPError) as refusal:
        imported(tmp_path, bare)
    assert refusal.value.code == "ambiguous-grid"
    model, report = imported(tmp_path, bare, input_spec=SPEC)
    assert "vision.pos_embed" in report.initialised
    expected = authors.two_axis_positions((3, 3, 3), 64)
    np.testing.assert_allclose(model.vision.pos_embed[0, 1:].numpy(), expected, atol=1e-6)


def mae_decoder(depth: int = 2, width: int = 128) -> authors.State:
    blocks = authors.random_state(depth, width, PATCH, ROWS, seed=9)
    return {
        "mask_token": torch.randn(1, 1, width),
        "decoder_embed.weight": torch.randn(width, 64),
        "decoder_embed.bias": torch.randn(width),
        "decoder_pos_embed": torch.randn(1, ROWS, width),
        "decoder_norm.weight": torch.randn(width),
        "decoder_norm.bias": torch.randn(width),
        "decoder_pred.weight": torch.randn(32, width),
        "decoder_pred.bias": torch.randn(32),
        **{f"decoder_{n}": t for n, t in blocks.items() if n.startswith("blocks.")},
    }


def test_a_whole_image_decoder_is_taken_over(tmp_path: Path) -> None:
    decoder = mae_decoder()
    model, report = imported(tmp_path, small_state() | decoder | {"bert_encoder.x": torch.zeros(3)})
    assert model.image_decoder is not None
    assert report.unused == ("bert_encoder.x",)
    assert torch.equal(model.image_decoder.mask_token, decoder["mask_token"])
    assert torch.equal(
        model.image_decoder.blocks[1].mlp.fc2.weight, decoder["decoder_blocks.1.mlp.fc2.weight"]
    )
    keep = torch.tensor([[0, 5, 7]])
    x = torch.rand(1, 1, *SPEC.shape)
    assert model.image_decoder(model.vision(x, keep), keep).shape == (1, 27, 32)


@pytest.mark.parametrize("missing", ["decoder_norm.bias", "decoder_blocks.0.attn.qkv.bias"])
def test_an_incomplete_image_decoder_is_left_out_and_named(tmp_path: Path, missing: str) -> None:
    decoder = mae_decoder()
    del decoder[missing]
    model, report = imported(tmp_path, small_state() | decoder)
    assert model.image_decoder is None
    assert set(report.unused) == set(decoder)
    assert "decoder-unused" in [note.code for note in report.notes]
    assert any("decoder_pred.bias" in line for line in report.lines())


def test_provenance_names_the_file_but_not_its_folder(tmp_path: Path) -> None:
    model, report = imported(tmp_path, small_state())
    assert "checkpoint.safetensors" in model.config.provenance.source
    assert str(tmp_path) not in model.config.model_dump_json()
    assert str(tmp_path) not in str(report.to_dict())
    assert model.config.is_trained


# -- what does not fit --------------------------------------------------------------------------


def without(*names: str) -> authors.State:
    return {name: tensor for name, tensor in small_state().items() if name not in names}


def reshaped(name: str, *shape: int) -> authors.State:
    return small_state() | {name: torch.zeros(shape)}


def as_integers(name: str) -> authors.State:
    state = small_state()
    return state | {name: (100 * state[name]).to(torch.int8)}


def with_nan() -> authors.State:
    state = small_state()
    state["blocks.1.mlp.fc1.bias"][3] = float("nan")
    return state


UNFIT = {
    "missing in a block": (
        without("blocks.1.attn.qkv.bias", "blocks.0.norm1.weight"), "weights-mismatch",
        r"2 missing: vision\.blocks\.0\.norm1\.weight, vision\.blocks\.1\.attn\.qkv\.bias",
    ),
    "a block missing": (
        {n: t for n, t in small_state().items() if not n.startswith("blocks.0.")},
        "weights-mismatch", "it has 1",
    ),
    "no blocks": (
        {n: t for n, t in small_state().items() if not n.startswith("blocks.")},
        "weights-mismatch", "it has none",
    ),
    "wrong shape": (
        reshaped("blocks.1.attn.proj.weight", 64, 63), "weights-mismatch",
        r"\(64, 63\) instead of \(64, 64\)",
    ),
    "unexpected in a block": (
        small_state() | {"blocks.1.ls1.gamma": torch.ones(64)}, "weights-mismatch",
        r"1 unexpected: vision\.blocks\.1\.ls1\.gamma",
    ),
    "half an fc_norm": (without("fc_norm.bias"), "weights-mismatch", "fc_norm.bias"),
    "no patch embedding": (without("patch_embed.proj.weight"), "not-an-encoder", "missing"),
    "an integer patch embedding": (
        as_integers("patch_embed.proj.weight"), "weights-mismatch",
        r"not stored as floating-point numbers: patch_embed\.proj\.weight",
    ),
    "integer positions": (
        as_integers("pos_embed"), "weights-mismatch",
        "not stored as floating-point numbers: pos_embed",
    ),
    "a 2D encoder": (reshaped("patch_embed.proj.weight", 64, 3, 16, 16), "not-an-encoder", "3D"),
    "strange positions": (reshaped("pos_embed", 28, 64), "ambiguous-grid", ""),
    "a width without heads": (
        authors.random_state(1, 24, PATCH, ROWS), "heads-unknown", "width of 24",
    ),
    "not a number": (with_nan(), "weights-not-finite", r"blocks\.1\.mlp\.fc1\.bias"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNFIT)
def test_what_does_not_fit_is_refused_with_names(tmp_path: Path, case: str) -> None:
    content, code, says = UNFIT[case]
    with pytest.raises(SimCroPError, match=says or None) as refusal:
        imported(tmp_path, content)
    assert refusal.value.code == code
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "content", [{"model": {"a": 1}}, 5, torch.zeros(3), {}, {"a": torch.zeros(2, dtype=torch.int)}]
)
def test_a_checkpoint_without_weights(tmp_path: Path, content: Any) -> None:
    with pytest.raises(import_child.RefusedError) as refusal:
        opened_here(tmp_path / "x.pth", content, tmp_path / "out")
    assert refusal.value.code == "no-weights"


@pytest.mark.parametrize("heads", [3, 100])
def test_heads_that_do_not_divide_the_width(tmp_path: Path, heads: int) -> None:
    with pytest.raises(SimCroPError) as refusal:
        imported(tmp_path, small_state(), heads=heads)
    assert refusal.value.code == "bad-config"


# -- hostile and broken files -------------------------------------------------------------------


class Runs:
    """Unpickled without care, calls ``function(*arguments)``."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


def leave_mark(path: str) -> None:
    Path(path).touch()


def payloads(mark: Path) -> dict[str, Any]:
    return {
        "os.system": Runs(os.system, f"touch {mark}"),
        "eval": Runs(builtins.eval, f"open({str(mark)!r}, 'w')"),
        "exec": Runs(builtins.exec, f"open({str(mark)!r}, 'w')"),
        "open": Runs(builtins.open, str(mark), "w"),
        "touch": Runs(pathlib.Path.touch, pathlib.PurePosixPath(str(mark))),
        "own function": Runs(leave_mark, str(mark)),
        "getattr": Runs(builtins.getattr, "x", "upper"),
        "torch.load": Runs(torch.load, str(mark)),
    }


NAMES = list(payloads(Path("x")))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_object_is_never_called(tmp_path: Path, name: str, zipped: bool) -> None:
    mark = tmp_path / "ran"
    payload = payloads(mark)[name]
    for content in ({"model": small_state(), "args": payload}, {"model": {"cls_token": payload}}):
        with pytest.raises(import_child.RefusedError) as refusal:
            opened_here(tmp_path / "x.pth", content, tmp_path / "out", zipped=zipped)
        assert refusal.value.code == "unsafe-pickle"
        assert not mark.exists()


def test_a_hostile_checkpoint_is_refused_in_one_sentence(tmp_path: Path) -> None:
    mark, path = tmp_path / "ran", tmp_path / "hostile.pth"
    torch.save({"model": small_state(), "args": payloads(mark)["os.system"]}, path)
    with pytest.raises(SimCroPError, match="system") as refusal:
        import_checkpoint(path, text_encoder="minilm")
    assert refusal.value.code == "unsafe-pickle"
    assert "\n" not in str(refusal.value)
    assert not mark.exists()


def test_a_bare_hostile_pickle_runs_nothing(tmp_path: Path) -> None:
    mark, path = tmp_path / "ran", tmp_path / "hostile.pkl"
    path.write_bytes(pickle.dumps(payloads(mark)["os.system"]))
    with pytest.raises(SimCroPError):
        import_checkpoint(path, text_encoder="minilm")
    assert not mark.exists()


def test_a_hostile_pickle_nested_in_a_zip_runs_nothing(tmp_path: Path) -> None:
    mark, path = tmp_path / "ran", tmp_path / "hostile.pth"
    torch.save(small_state(), tmp_path / "good.pth")
    with zipfile.ZipFile(tmp_path / "good.pth") as good, zipfile.ZipFile(path, "w") as bad:
        for entry in good.infolist():
            data = good.read(entry)
            if entry.filename.endswith("data.pkl"):
                data = pickle.dumps(payloads(mark)["os.system"], protocol=2)
            bad.writestr(entry, data)
    with pytest.raises(SimCroPError) as refusal:
        import_checkpoint(path, text_encoder="minilm")
    assert refusal.value.code == "unsafe-pickle"
    assert not mark.exists()


def test_a_hostile_pickle_in_the_old_tar_format_runs_nothing(tmp_path: Path) -> None:
    mark, path = tmp_path / "ran", tmp_path / "hostile.pth"
    data = pickle.dumps(payloads(mark)["os.system"], protocol=2)
    with tarfile.open(path, "w") as tar:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    with pytest.raises(SimCroPError) as refusal:
        import_checkpoint(path, text_encoder="minilm")
    assert "\n" not in str(refusal.value)
    assert not mark.exists()


@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning", "ignore:.*TorchScript")
def test_a_torchscript_program_is_refused(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(tmp_path / "program.pt"))
    with pytest.raises(import_child.RefusedError) as refusal:
        import_child.convert(tmp_path / "program.pt", tmp_path)
    assert refusal.value.code == "torchscript"


def test_a_few_bytes_declared_as_terabytes(tmp_path: Path) -> None:
    state = small_state()
    state["pos_embed"] = torch.zeros(1).expand(1 << 20, 1 << 20)
    with pytest.raises(import_child.RefusedError) as refusal:
        opened_here(tmp_path / "x.pth", state, tmp_path / "out")
    assert refusal.value.code == "declares-too-much"


@pytest.mark.slow
def test_a_decompression_bomb_ends_at_the_limits(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(64 << 20)}, tmp_path / "flat.pth")
    with (
        zipfile.ZipFile(tmp_path / "flat.pth") as flat,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for entry in flat.infolist():
            bomb.writestr(entry.filename, flat.read(entry))
    (tmp_path / "flat.pth").unlink()
    assert (tmp_path / "bomb.pth").stat().st_size < 1 << 20
    with pytest.raises(SimCroPError) as refusal:
        import_checkpoint(tmp_path / "bomb.pth", text_encoder="minilm")
    assert refusal.value.code in ("declares-too-much", "import-limits", "not-a-checkpoint")


@pytest.mark.parametrize("keep", [3, 100, 0.5, 0.99])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_cut_file_is_refused(tmp_path: Path, keep: float, zipped: bool) -> None:
    path = tmp_path / "cut.pth"
    torch.save(small_state(), path, _use_new_zipfile_serialization=zipped)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    with pytest.raises(import_child.RefusedError):
        import_child.convert(path, tmp_path)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.pth").touch()
    with pytest.raises(SimCroPError, match="is empty"):
        import_checkpoint(tmp_path / "empty.pth", text_encoder="minilm")


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n" + bytes(99)])
def test_another_kind_of_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "other.pth").write_bytes(content)
    with pytest.raises(SimCroPError) as refusal:
        import_checkpoint(tmp_path / "other.pth", text_encoder="minilm")
    assert refusal.value.code in ("not-a-checkpoint", "unsafe-pickle")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.pth", tmp_path):
        with pytest.raises(SimCroPError) as refusal:
            import_checkpoint(path, text_encoder="minilm")
        assert refusal.value.code == "unreadable"


def test_nothing_is_left_in_the_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    torch.save(small_state(), tmp_path / "good.pth")
    weights = read_foreign_weights(tmp_path / "good.pth")
    assert list(temporary.iterdir()) == []
    assert all(torch.equal(weights.tensors[n], t) for n, t in small_state().items())
