"""Alignment with a model whose answers are known in closed form."""

from __future__ import annotations

from pathlib import PurePosixPath
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from simcrop_core.align import against_null, align, encode, null_sentences
from simcrop_core.alignment_result import AlignmentResult
from simcrop_core.encoded import Encoded
from simcrop_core.errors import SimCroPError
from simcrop_core.geometry import Grid, axis_aligned_affine
from simcrop_core.input_spec import InputSpec
from simcrop_core.prepare import prepare
from simcrop_core.report import Report
from simcrop_core.volume import CTVolume, Note

SPEC = InputSpec(shape=(32, 32, 16), patch_shape=(8, 8, 4), spacing_mm=(3.0, 3.0, 6.0))


class MeanModel(torch.nn.Module):
    """Features of a patch: its mean brightness, its negative, and 1. "bright" looks for the
    first, "dark" for the second, every other sentence for none: a flat map."""

    def __init__(self, name: str = "mean") -> None:
        super().__init__()
        self.model_id = f"{name}-id"
        self.input_spec = SPEC
        self.config = SimpleNamespace(name=name)
        self.text = torch.nn.Identity()
        self.text.notes = ()
        self.calls = 0

    @property
    def vision(self):
        return self.see

    def see(self, x_B1HWD: torch.Tensor) -> SimpleNamespace:
        self.calls += 1
        b = x_B1HWD.shape[0]
        mean = x_B1HWD.reshape(b, 4, 8, 4, 8, 4, 4).mean(dim=(2, 4, 6)).reshape(b, -1)
        return SimpleNamespace(
            evidence_BNE=torch.stack([mean, -mean, torch.ones_like(mean)], dim=-1)
        )

    def encode_text(self, sentences):
        words = {"bright": [1.0, 0, 0], "dark": [0, 1.0, 0]}
        return SimpleNamespace(
            sentences_SD=torch.tensor(
                [words.get(s.split()[0], [(len(s) % 7 - 3) / 100, 0, 0.5]) for s in sentences]
            ).float(),
            notes=lambda: tuple(Note("sentence-truncated", s) for s in sentences if len(s) > 200),
        )

    def similarity(self, patches_ND, sentences_SD):
        return sentences_SD @ patches_ND.T

    def card(self):
        return {"id": self.model_id, "name": self.config.name, "trained": "untrained"}


def ball_volume(at_mm, shape=(64, 64, 40), center=(10.0, -20.0, 300.0)) -> CTVolume:
    grid = Grid(shape, axis_aligned_affine("RAS", (1.5, 1.5, 2.4), center, shape))
    world = grid.to_world(np.moveaxis(np.indices(shape), 0, -1))
    hu = np.where(np.linalg.norm(world - at_mm, axis=-1) < 9, 900, -700).astype(np.int16)
    return CTVolume(hu, grid)


def test_the_bright_ball_is_found_at_its_millimetre() -> None:
    at = np.array([33.0, -50.0, 322.0])
    volume = ball_volume(at)
    report = Report.from_text("bright spot. dark air. nothing said.")
    result = align(MeanModel(), volume, report, top_k=5)
    assert [s.text for s in result.sentences] == ["bright spot.", "dark air.", "nothing said."]
    assert result.top(0, 1)[0] == result.patches.patch_at(at)
    best = result.to_dict()["sentences"][0]["top_k"][0]
    assert np.abs(np.array(best["center_mm"]) - at).max() <= 12
    assert best["size_mm"] == [24, 24, 24]
    i, j, k = best["patch"]
    assert (i * 4 + j) * 4 + k == result.top(0, 1)[0]
    assert result.overlay(0)[i, j, k] == pytest.approx(best["similarity"])


def test_similarities_are_the_models_and_the_order_falls() -> None:
    volume = ball_volume([0, 0, 300])
    model = MeanModel()
    result = align(model, volume, queries=["bright", "dark", "other"], top_k=7)
    expected = model.see(prepare(volume, SPEC).input_1HWD[None]).evidence_BNE[0, :, 0].numpy()
    assert np.allclose(result.similarity_SN[0], expected, atol=1e-6)
    assert np.allclose(result.similarity_SN[1], -expected, atol=1e-6)
    assert result.similarity_SN.dtype == np.float32
    for row, top in zip(result.similarity_SN, result.top_SK, strict=True):
        assert (np.diff(row[top]) <= 0).all()
        inside = row[result.inside_N]
        assert np.allclose(np.sort(row[top])[::-1], np.sort(inside)[::-1][:7])


def test_padding_is_never_evidence() -> None:
    small = ball_volume([10, -20, 300], shape=(20, 20, 14))
    model = MeanModel()
    result = align(model, small, queries=["dark"], top_k=64)  # padding is darkest of all
    assert 0 < result.inside_N.sum() < 64
    assert result.top_SK.shape == (1, result.inside_N.sum())
    assert result.inside_N[result.top_SK].all()
    assert "fewer-patches" in {n.code for n in result.volume.notes}


def test_a_flat_map_is_recognised_by_its_score() -> None:
    volume = ball_volume([10, -20, 300])
    result = align(MeanModel(), volume, queries=["bright", "flat"], top_k=4)
    bright, flat = result.sentences
    assert bright.null_percentile == 100
    assert bright.score > 10
    assert abs(flat.score) < 4
    # Scores again, from the definition.
    nulls = MeanModel().encode_text(["bright", "flat", *null_sentences()]).sentences_SD.numpy()
    features = MeanModel().see(prepare(volume, SPEC).input_1HWD[None]).evidence_BNE[0].numpy()
    similarity = (nulls @ features.T)[:, result.inside_N].astype(np.float64)
    contrast = np.sort(similarity, axis=1)[:, -4:].mean(axis=1) - similarity.mean(axis=1)
    null = contrast[2:]
    assert bright.score == pytest.approx((contrast[0] - null.mean()) / null.std(), rel=1e-3)
    ties = np.isclose(null, contrast[1])
    below = ((null < contrast[1]) & ~ties).mean() + ties.mean() / 2
    assert flat.null_percentile == pytest.approx(100 * below, abs=100 * ties.mean() / 2 + 1e-6)
    assert 0 < flat.null_percentile < 100


def test_the_null_is_encoded_once_for_a_text_encoder() -> None:
    model, asked = MeanModel(), []
    model.encode_text = lambda texts: (
        asked.append(len(texts)),
        MeanModel.encode_text(model, texts),
    )[1]
    encoded = encode(model, ball_volume([0, 0, 300]))
    for _ in range(3):
        align(model, encoded, queries=["bright"])
    assert sorted(asked) == [1, 1, 1, 100]


def test_scores_against_an_even_null() -> None:
    score, percentile = against_null(np.array([3.0, 0.0, 1.0]), np.array([1.0, 1.0, 1.0, 1.0]))
    assert score.tolist() == [0, 0, 0]
    assert percentile.tolist() == [100, 0, 50]
    null = np.arange(100.0)
    score, percentile = against_null(np.array([49.5, -1.0, 200.0]), null)
    assert percentile.tolist() == [50, 0, 100]
    assert score[0] == pytest.approx(0)
    assert score[2] == pytest.approx((200 - 49.5) / null.std())


def test_the_null_is_fixed_and_of_other_things() -> None:
    nulls = null_sentences()
    assert len(nulls) == len(set(nulls)) == 100
    chest = ("lungs", "pleura", "heart", "aort", "pulmon", "bronch", "trache", "mediast", "nodule",
             "liver ", "thorac", "chest ", " rib", "hilar", "atelect", "emphys")  # fmt: skip
    assert not [n for n in nulls if any(word in n.lower() for word in chest)]


def test_tiles_give_each_patch_the_window_in_which_it_lies_deepest() -> None:
    shape = (100, 90, 60)
    empty = prepare(ball_volume([999, 999, 999], shape=shape), SPEC, placement="tiled")
    at = empty.patches.center(empty.patches.index((5, 1, 4)))
    volume = ball_volume(at, shape=shape)
    model = MeanModel()
    tiled = encode(model, volume, placement="tiled")
    prepared = prepare(volume, SPEC, placement="tiled")
    assert model.calls == len(prepared.window_starts) > 1
    # Means do not depend on the window, so the stitched features are those of the whole.
    h, w, d = prepared.input_1HWD.shape[1:]
    whole = prepared.input_1HWD.reshape(h // 8, 8, w // 8, 8, d // 4, 4).mean(dim=(1, 3, 5))
    assert np.allclose(tiled.patches_ND[:, 0], whole.reshape(-1).numpy(), atol=1e-5)
    result = align(model, tiled, queries=["bright"], top_k=1)
    assert result.top(0)[0] == result.patches.index((5, 1, 4))


class WindowModel(MeanModel):
    """Tells in every feature which window it came from."""

    def see(self, x_B1HWD):
        self.calls += 1
        return SimpleNamespace(evidence_BNE=torch.full((1, 64, 3), float(self.calls)))


def test_stitching_takes_the_deeper_window() -> None:
    spec = SPEC
    shape = (48, 32, 16)  # two windows along the first axis, starts 0 and 16 voxels
    grid = Grid(shape, axis_aligned_affine("LPS", spec.spacing_mm, (0, 0, 0), shape))
    hu = np.random.default_rng(0).integers(-900, 200, shape).astype(np.int16)
    model = WindowModel()
    prepared = prepare(CTVolume(hu, grid), spec, placement="tiled")
    assert prepared.window_starts == ((0, 0, 0), (16, 0, 0))
    features = encode(model, CTVolume(hu, grid), placement="tiled").patches_ND
    along = features[:, 0].reshape(6, 4, 4)[:, 1, 1]
    assert along.tolist() == [1, 1, 1, 2, 2, 2]


def test_an_encoded_scan_is_used_again_without_the_encoder(tmp_path) -> None:
    volume = ball_volume([33, -50, 322])
    model = MeanModel()
    encoded = encode(model, volume)
    assert model.calls == 1
    encoded.save(tmp_path / "e.npz")
    again = Encoded.load(tmp_path / "e.npz")
    direct = align(model, volume, queries=["bright", "dark"])
    stored = align(model, again, queries=["bright", "dark"])
    assert model.calls == 2
    assert np.array_equal(direct.similarity_SN, stored.similarity_SN)
    assert direct.to_dict() == stored.to_dict()
    with pytest.raises(SimCroPError, match="another model"):
        align(MeanModel("other"), again, queries=["bright"])


@pytest.mark.parametrize("damage", ["missing", "truncated", "text", "bits", "npz"])
def test_damaged_encoded_scans_are_refused(tmp_path, damage) -> None:
    path = tmp_path / "e.npz"
    encode(MeanModel(), ball_volume([0, 0, 300])).save(path)
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "text":
        path.write_text("not an archive")
    elif damage == "npz":
        np.savez(path, a=np.zeros(3))
    else:
        broken = bytearray(content)
        broken[200] ^= 0x10
        path.write_bytes(bytes(broken))
    with pytest.raises(SimCroPError) as refusal:
        Encoded.load(path)
    assert str(path) in str(refusal.value)


def test_results_come_back_from_disk_as_they_were(tmp_path) -> None:
    report = Report.from_text("FINDINGS: bright spot. IMPRESSION: dark air.")
    volume = ball_volume([33, -50, 322])
    result = align(MeanModel(), volume, report, queries=["bright query"], top_k=3)
    result.write(tmp_path)
    again = AlignmentResult.read(tmp_path)
    assert again.to_dict() == result.to_dict()
    assert np.array_equal(again.similarity_SN, result.similarity_SN)
    assert np.array_equal(again.top_SK, result.top_SK)
    assert [s.section for s in again.sentences] == ["findings", "impression", "query"]
    assert again.sentences[2].span is None
    for name, old, new in [
        ("alignment.json", b'"schema": 1', b'"schema": 9'),
        ("alignment.json", b'"sentences"', b'"sentence"'),
    ]:
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content.replace(old, new))
        with pytest.raises(SimCroPError, match="Align the scan again"):
            AlignmentResult.read(tmp_path)
        (tmp_path / name).write_bytes(content)


def test_heatmaps_lie_over_the_scan(tmp_path) -> None:
    import nibabel as nib

    at = np.array([33.0, -50.0, 322.0])
    result = align(MeanModel(), ball_volume(at), queries=["bright"], top_k=3)
    result.write(tmp_path)
    image = nib.load(tmp_path / "heatmaps" / "000.nii.gz")
    heat = image.get_fdata()
    assert np.allclose(heat.reshape(-1), result.similarity_SN[0])
    peak = np.unravel_index(heat.argmax(), heat.shape)
    center = (image.affine @ [*peak, 1])[:3]
    assert np.abs(center - at).max() <= 12


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"queries": []}, "no sentence"),
        ({"queries": ["  "]}, "empty"),
        ({"queries": ["a" * 5000]}, "characters"),
        ({"queries": ["bright"], "top_k": 0}, "at least 1"),
        ({"queries": ["bright"], "device": "tpu"}, "no device"),
        ({"queries": ["bright"], "device": "cuda:99"}, "cuda:99"),
        ({"queries": ["bright"], "precision": "fp8"}, "precision"),
    ],
)
def test_bad_requests_are_refused(arguments, word) -> None:
    with pytest.raises(SimCroPError, match=word):
        align(MeanModel(), ball_volume([0, 0, 300]), **arguments)


def test_one_string_is_not_taken_apart_into_letters() -> None:
    with pytest.raises(TypeError, match="sequence"):
        align(MeanModel(), ball_volume([0, 0, 300]), queries="bright")
    result = align(MeanModel(), ball_volume([0, 0, 300]), queries=["bright\x1b[31m  spot\n"])
    assert result.sentences[0].text == "bright [31m  spot"


def test_a_path_is_told_from_a_scan() -> None:
    volume = ball_volume([0, 0, 300])
    with pytest.raises(TypeError, match=r"CTVolume \(see read_volume\) or Encoded, not str"):
        align(MeanModel(), "ct.nii.gz", queries=["bright"])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"CTVolume .* not PurePosixPath"):
        encode(MeanModel(), PurePosixPath("ct.nii.gz"))  # type: ignore[arg-type, call-overload]
    with pytest.raises(TypeError, match=r"Report \(see read_report\), not str"):
        align(MeanModel(), volume, "No effusion.")  # type: ignore[arg-type]


def test_scores_that_say_nothing_are_said_to() -> None:
    result = align(MeanModel(), ball_volume([0, 0, 300]), queries=["bright"], top_k=64)
    assert result.top_SK.shape[1] == result.inside_N.sum()
    assert "all-patches-at-the-top" in {n.code for n in result.volume.notes}


def test_a_sentence_that_is_cut_gets_a_note() -> None:
    result = align(MeanModel(), ball_volume([0, 0, 300]), queries=["bright", "dark " * 60])
    assert [n.code for n in result.volume.notes].count("sentence-truncated") == 1


def test_progress_is_told_and_ends_complete() -> None:
    told: list[tuple[str, int, int]] = []
    align(
        MeanModel(),
        ball_volume([0, 0, 300], shape=(100, 90, 60)),
        queries=["bright"],
        placement="tiled",
        progress=lambda *step: told.append(step),
    )
    encoding = [(done, total) for what, done, total in told if what == "encoding"]
    assert encoding == sorted(encoding)
    assert encoding[0][0] == 0
    assert encoding[-1][0] == encoding[-1][1] > 1


def test_the_blocks_of_a_real_encoder_are_told_and_its_mode_is_kept() -> None:
    from simcrop_core.model import VisionConfig, create_model

    model = create_model(
        "starter", input_spec=SPEC, vision=VisionConfig(depth=3, width=48, heads=4)
    )
    volume = ball_volume([0, 0, 300])
    model.train()
    told: list[tuple[int, int]] = []
    encode(model, volume, progress=lambda what, d, t: told.append((d, t)) if d else None)
    assert told == [(33, 100), (67, 100), (100, 100), (100, 100)]
    assert model.training
    assert not model.vision.blocks[0]._forward_hooks
    with torch.no_grad():
        model.vision.blocks[1].norm1.weight[0] = float("nan")
    with pytest.raises(SimCroPError, match="not numbers"):
        encode(model, volume)
