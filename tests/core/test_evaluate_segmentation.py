"""Dice and surface distance against independent computations; who holds what; refusals."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_ct import AFFINE, SHAPE, chest, save_nifti
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance
from scipy.ndimage import binary_erosion, distance_transform_edt

from simcrop_core.cli import main
from simcrop_core.datasets.labelled_csv import read_labelled_csv
from simcrop_core.evaluate.segmentation import (
    LabelledCase,
    SegmentationResult,
    compare,
    evaluate_segmentation,
)
from simcrop_core.evaluate.surface import surface_distance
from simcrop_core.geometry import Grid, axis_aligned_affine
from simcrop_core.input_spec import InputSpec
from simcrop_core.model import VisionConfig, create_model, save_model
from simcrop_core.segment import segment
from simcrop_core.volume import CTVolume

SPEC = InputSpec(shape=(64, 64, 32), patch_shape=(8, 8, 4), spacing_mm=(3.0, 3.0, 6.0))


def by_scipy(a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...]) -> tuple[float, float]:
    """Average symmetric and 95 % Hausdorff distance by distance transforms of the whole array."""
    edges = [mask & ~binary_erosion(mask) for mask in (a, b)]
    to_a, to_b = (distance_transform_edt(~edge, sampling=spacing) for edge in edges)
    both = to_b[edges[0]], to_a[edges[1]]
    return float(np.concatenate(both).mean()), max(float(np.percentile(d, 95)) for d in both)


# -- distances ----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    spacing=st.tuples(*[st.floats(0.4, 7.0)] * 3),
    density=st.floats(0.02, 0.9),
)
def test_distances_are_those_of_distance_transforms(
    seed: int, spacing: tuple[float, float, float], density: float
) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(3, 12, 3))
    a, b = rng.random(shape) < density, rng.random(shape) < density
    if not a.any() or not b.any():
        assert surface_distance(a, b, spacing) is None
        return
    got = surface_distance(a, b, spacing)
    assert got is not None
    average, hausdorff = by_scipy(a, b, spacing)
    assert got.average_mm == pytest.approx(average, rel=1e-4, abs=1e-5)
    assert got.hausdorff95_mm == pytest.approx(hausdorff, rel=1e-4, abs=1e-5)
    pair = [torch.from_numpy(np.pad(mask, 1))[None, None] for mask in (a, b)]
    by_monai = {"include_background": True, "spacing": list(spacing)}
    average = compute_average_surface_distance(*pair, symmetric=True, **by_monai).item()
    hausdorff = compute_hausdorff_distance(*pair, percentile=95, **by_monai).item()
    assert got.average_mm == pytest.approx(average, rel=1e-4, abs=1e-5)
    assert got.hausdorff95_mm == pytest.approx(hausdorff, rel=1e-4, abs=1e-5)


def test_distances_by_hand() -> None:
    a, b = np.zeros((30, 20, 20), bool), np.zeros((30, 20, 20), bool)
    a[4:8, 5, 5], b[14:18, 5, 5] = True, True  # ten voxels of 1.5 mm apart
    got = surface_distance(a, b, (1.5, 3.0, 2.0))
    assert got is not None
    assert got.average_mm == pytest.approx(1.5 * np.mean([7, 8, 9, 10]))
    assert got.hausdorff95_mm == pytest.approx(1.5 * np.percentile([7, 8, 9, 10], 95))
    same = surface_distance(a, a, (1, 1, 1))
    assert same is not None
    assert (same.average_mm, same.hausdorff95_mm) == (0, 0)
    assert surface_distance(a, b & False, (1, 1, 1)) is None


# -- cases --------------------------------------------------------------------------------------


class Threshold(torch.nn.Module):
    """1 where the input is above 0 HU, 2 where it is between -500 and 0."""

    labels = ("bright", "middle", "never")
    roi = (64, 64, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bright, middle = x > 0, (x <= 0) & (x > -0.5)
        never = torch.zeros_like(bright)
        return 20.0 * torch.cat([~bright & ~middle, bright, middle, never], dim=1).float()


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.input_spec, self.segmentation = SPEC, Threshold()
        self.config = SimpleNamespace(name="threshold", segmentation=None)

    def card(self) -> dict[str, Any]:
        return {"id": "t", "name": "threshold", "trained": "by hand"}


NAMES = {1: "bright", 2: "middle", 3: "never"}


def case(name: str, axes: str = "RSA", shift: int = 0, names: Any = NAMES) -> LabelledCase:
    """Two balls, and their true labels, moved by so many voxels."""
    grid = Grid((50, 44, 40), axis_aligned_affine(axes, (2.0, 2.5, 3.0), (9, 8, 7), (50, 44, 40)))
    world = grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1))
    truth = np.zeros(grid.shape, np.uint8)
    for label, voxel, radius in ((1, (14, 12, 10), 18.0), (2, (36, 30, 28), 21.0)):
        truth[np.linalg.norm(world - grid.to_world(voxel), axis=-1) < radius] = label
    volume = CTVolume(np.array([-1000, 500, -250], np.int16)[truth], grid)
    return LabelledCase(name, volume, np.roll(truth, shift, axis=0), grid, names)


def test_scores_are_those_of_what_segment_writes() -> None:
    cases = [case("a"), case("b", "LPS", shift=2)]
    result = evaluate_segmentation(Model(), cases, device="cpu")  # type: ignore[arg-type]
    for one in cases:
        labels = segment(Model(), one.volume, device="cpu").labels_XYZ  # type: ignore[arg-type]
        for label, name in ((1, "bright"), (2, "middle")):
            own, true = labels == label, one.labels_XYZ == label
            score = result.scores[one.id][name]
            assert score.held == "both"
            expected = 2 * (own & true).sum() / (own.sum() + true.sum())
            assert score.dice == pytest.approx(expected)
            average, hausdorff = by_scipy(own, true, (2.0, 2.5, 3.0))
            assert score.average_mm == pytest.approx(average, rel=1e-4)
            assert score.hausdorff95_mm == pytest.approx(hausdorff, rel=1e-4)
        assert result.scores[one.id]["never"].held == "neither"
    assert result.scores["a"]["bright"].dice > result.scores["b"]["bright"].dice  # type: ignore[operator]
    by_case = [result.of_case(name)["dice"] for name in "ab"]
    assert by_case[0] == pytest.approx(
        np.mean([result.scores["a"][name].dice for name in ("bright", "middle")])
    )
    over = result.over_cases()["dice"]
    assert over is not None
    assert over.value == pytest.approx(np.mean(by_case))
    assert over.low <= over.value <= over.high
    facts = result.to_dict()
    assert facts["structures"]["never"]["held_by"] == {"neither": 2}
    assert facts["structures"]["never"]["dice"] is None
    json.dumps(facts, allow_nan=False)


def test_the_truth_decides_the_resolution() -> None:
    """Labels of a finer grid are compared on that grid."""
    one = case("a", "LPS")
    shape = (100, 88, 40)
    fine = Grid(shape, axis_aligned_affine("RAS", (1.0, 1.25, 3.0), one.grid.center_mm, shape))
    from simcrop_core.io import labels_on

    truth = labels_on(fine, one.labels_XYZ, one.grid, resample=True)
    other = LabelledCase("f", one.volume, truth, fine, NAMES)
    result = evaluate_segmentation(Model(), [one, other], device="cpu")  # type: ignore[arg-type]
    coarse, finer = (result.scores[name]["bright"] for name in "af")
    assert finer.dice == pytest.approx(coarse.dice, abs=0.01)
    assert finer.average_mm == pytest.approx(coarse.average_mm, abs=0.6)  # type: ignore[arg-type]


def test_labels_may_share_a_structure_and_need_not_be_all() -> None:
    one = case("a", names={1: "bright", 2: "bright"})
    result = evaluate_segmentation(Model(), [one], device="cpu")  # type: ignore[arg-type]
    assert list(result.scores["a"]) == ["bright"]
    both = one.labels_XYZ > 0
    labels = segment(Model(), one.volume, device="cpu").labels_XYZ  # type: ignore[arg-type]
    own = labels == 1
    expected = 2 * (own & both).sum() / (own.sum() + both.sum())
    assert result.scores["a"]["bright"].dice == pytest.approx(expected)


def test_who_holds_a_structure() -> None:
    empty, full = np.zeros((4, 4, 4), bool), np.ones((4, 4, 4), bool)
    assert compare(empty, empty, (1, 1, 1)).to_dict() == {
        "held_by": "neither", "dice": None, "average_surface_distance_mm": None,
        "hausdorff95_mm": None,
    }  # fmt: skip
    for own, true, held in ((full, empty, "model only"), (empty, full, "truth only")):
        score = compare(own, true, (1, 1, 1))
        assert (score.held, score.dice, score.average_mm) == (held, 0.0, None)
    result = SegmentationResult({}, {
        "a": {"x": compare(full, full, (1, 1, 1)), "y": compare(full, empty, (1, 1, 1))},
        "b": {"x": compare(empty, empty, (1, 1, 1)), "y": compare(empty, empty, (1, 1, 1))},
    })  # fmt: skip
    assert result.of_case("a")["dice"] == 0.5
    assert result.of_case("b")["dice"] is None
    assert result.over_cases()["dice"].count == 1  # type: ignore[union-attr]
    assert result.of_structure("y")["average_mm"] is None
    lines = result.lines()
    (row,) = [line for line in lines if line.startswith("y ")]
    assert row.endswith("1, 1 (no distance there)")


# -- the command --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "m"
    made = create_model(
        "starter",
        input_spec=InputSpec(shape=(64, 64, 32), spacing_mm=(6, 6, 10.5)),
        vision=VisionConfig(depth=4, width=48, heads=4),
        segmentation_labels=("left lung", "right lung"),
    )
    save_model(made, folder)
    return folder


def made(folder: Path, **cells: object) -> Path:
    folder.mkdir(exist_ok=True)
    save_nifti(folder / "ct.nii.gz")
    labels = np.zeros(SHAPE, np.uint8)
    labels[10:20, 10:30, 10:40], labels[28:38, 10:30, 10:40] = 7, 9
    save_nifti(folder / "labels.nii.gz", labels, AFFINE)
    names = json.dumps({"7": "left lung", "9": "right lung"})
    row = {"study": "a", "ct": "ct.nii.gz", "labels": "labels.nii.gz", "names": names} | cells
    path = folder / "cases.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerow(row)
    return path


def test_the_command_measures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], model: Path
) -> None:
    out = tmp_path / "out.json"
    asked = ["evaluate", "segmentation", "--model", str(model), "--device", "cpu", "--cases"]
    assert main([*asked, str(made(tmp_path / "s")), "--overlap", "0", "--json", str(out)]) == 0
    told = capsys.readouterr()
    assert told.err == ""
    assert "1 cases, 2 structures" in told.out
    assert "untrained" in told.out
    found = json.loads(out.read_text())
    assert set(found["structures"]) == {"left lung", "right lung"}
    assert 0 <= found["cases"]["a"]["mean"]["dice"] <= 1
    assert str(tmp_path) not in out.read_text()
    # The names in a file, as `simcrop segment` writes them; a label without one is background.
    card = tmp_path / "s" / "names.json"
    card.write_text(json.dumps({"schema": 1, "labels": {"7": "left lung"}}))
    path = made(tmp_path / "s", names="names.json")
    assert main([*asked, str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["structures"]) == ["left lung"]
    assert [note["code"] for note in found["notes"]] == ["unnamed-labels"]
    (source,) = read_labelled_csv(path, ("left lung", "right lung"))
    np.testing.assert_array_equal(source.load().volume.hu_XYZ, chest())


def broken(folder: Path) -> None:
    (folder / "labels.nii.gz").write_bytes(b"nothing")


def elsewhere(folder: Path) -> None:
    affine = AFFINE.copy()
    affine[0, 3] += 5000
    save_nifti(folder / "labels.nii.gz", np.full(SHAPE, 7, np.uint8), affine)


def unmarked(folder: Path) -> None:
    save_nifti(folder / "labels.nii.gz", np.zeros(SHAPE, np.uint8), AFFINE)


def as_is(folder: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("cells", "spoil", "says"),
    [
        ({"names": '{"7": "spleen"}'}, as_is,
         "Row 2: The model does not know the structure 'spleen'. It knows left lung, right lung."),
        ({"names": '{"x": "left lung"}'}, as_is, "Row 2: The names are not of the form"),
        ({"names": '{"0": "air"}'}, as_is, "name nothing but the background"),
        ({"names": "{"}, as_is, "Row 2: The names cannot be read as JSON"),
        ({"names": "none.json"}, as_is, "Row 2: The file of the column names is not there"),
        ({"names": ""}, as_is, "Row 2: The label map marks none of its structures"),
        ({"ct": "none"}, as_is, "Row 2: The file of the column ct is not there"),
        ({"labels": ""}, as_is, "Row 2: The column labels is blank"),
        ({"mask": "x"}, as_is, "a column 'mask' that means nothing"),
        ({}, broken, "Row 2:"),
        ({}, elsewhere, "Row 2: The mask and the scan have no place in common"),
        ({}, unmarked, "Row 2: The label map marks none"),
        ({"labels": "ct.nii.gz", "names": '{"40": "left lung"}'}, as_is,
         "Row 2: This is no label map: it holds negative values, such as -"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_sentence(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    model: Path,
    cells: dict[str, object],
    spoil: Callable[[Path], None],
    says: str,
) -> None:
    path = made(tmp_path / "s", **cells)
    spoil(tmp_path / "s")
    asked = ["evaluate", "segmentation", "--model", str(model), "--device", "cpu"]
    assert main([*asked, "--cases", str(path)]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert says in told.err
    assert told.err.count("\n") == 1


def test_a_model_without_a_head_is_refused_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], model: Path
) -> None:
    save_model(create_model("starter", vision=VisionConfig(depth=1, width=24, heads=2)),
               tmp_path / "m")  # fmt: skip
    asked = ["evaluate", "segmentation", "--cases", str(tmp_path / "none.csv")]
    assert main([*asked, "--model", str(tmp_path / "m")]) == 2
    assert "no segmentation head" in capsys.readouterr().err
    assert main([*asked, "--model", str(model), "--overlap", "1"]) == 2
    assert "An overlap of 1" in capsys.readouterr().err
    assert main([*asked, "--model", str(model)]) == 2
    assert "no such file" in capsys.readouterr().err
