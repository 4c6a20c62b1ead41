"""Grounding on scans with masks: where things lie, the two layouts, and what is refused."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from made_ct import chest, save_nifti
from made_studies import tiny

from simcrop_core.cli import main
from simcrop_core.datasets.grounded_csv import read_grounded_csv
from simcrop_core.datasets.rexgrounding import read_rexgrounding, side_in_words
from simcrop_core.errors import SimCroPError
from simcrop_core.evaluate.cases import case_of, seen_midline_mm
from simcrop_core.evaluate.grounding import GroundingResult, evaluate_grounding
from simcrop_core.geometry import axis_aligned_affine
from simcrop_core.input_spec import InputSpec
from simcrop_core.io import read_labels, read_volume
from simcrop_core.model import SimCroP, VisionConfig, create_model, save_model

SPEC = InputSpec(shape=(32, 32, 16), spacing_mm=(8, 8, 16), patch_shape=(4, 4, 2))
PATCH_MM = 32.0
SHAPE = (60, 44, 70)
REPORT = "FINDINGS: Heart size is normal. A nodule lies in the left lung.\n\nIMPRESSION: Nodule."


def odd_affine(axes: str = "PIR") -> np.ndarray:
    return axis_aligned_affine(axes, (3.3, 5.9, 4.1), (37.0, -81.0, 420.0), SHAPE)


def ball(affine: np.ndarray, center_mm: Any, radius_mm: float = 20.0) -> np.ndarray:
    """A ball in the patient, uint8 on the grid of SHAPE, by nibabel's arithmetic."""
    world = nib.affines.apply_affine(affine, np.moveaxis(np.indices(SHAPE), 0, -1))
    return (np.linalg.norm(world - center_mm, axis=-1) <= radius_mm).astype(np.uint8)


def patch_by_hand(center_mm: Any, scan_center_mm: Any) -> int:
    """The patch that holds a point: patches of 32 mm, 8 an axis, to the left, back and up."""
    toward = np.array([-1, -1, 1]) * (np.asarray(center_mm) - np.asarray(scan_center_mm))
    i, j, k = np.floor(toward / PATCH_MM + 4).astype(int)
    return int((i * 8 + j) * 8 + k)


class OnePatch(SimCroP):
    """A model for which each sentence looks like one patch alone."""

    def __init__(self, patches: dict[str, int]) -> None:
        super().__init__(tiny(input_spec=SPEC).config)
        self.patches = patches

    def encode_text(self, sentences: Any) -> Any:
        class Encoded:
            sentences_SD = torch.tensor([[float(self.patches[s])] for s in sentences])

        return Encoded()

    def similarity(self, evidence: torch.Tensor, sentences: torch.Tensor) -> torch.Tensor:
        places = torch.arange(len(evidence))[None].float()
        return (places == sentences).float()


def measured(sources: Any, patches: dict[str, int]) -> GroundingResult:
    cases = (case_of(source.load(), SPEC) for source in sources)
    return evaluate_grounding(OnePatch(patches), cases, device="cpu")


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def made(folder: Path, **changes: object) -> Path:
    """A csv of one sentence: a scan of odd axes, its report, and a ball on the left."""
    (folder / "scan").mkdir(parents=True)
    affine = odd_affine()
    save_nifti(folder / "scan" / "ct.nii.gz", chest(SHAPE), affine)
    save_nifti(folder / "mask.nii.gz", ball(affine, LEFT_MM), affine)
    (folder / "report.txt").write_text(REPORT)
    row: dict[str, object] = {
        "study": "a", "ct": "scan/ct.nii.gz", "report": "report.txt", "sentence": "1",
        "mask": "mask.nii.gz", "finding": "Lung nodule", "side": "left", "kind": "finding",
    }  # fmt: skip
    return write(folder / "cases.csv", [row | changes])


CENTER_MM = np.array([37.0, -81.0, 420.0])
LEFT_MM = CENTER_MM + np.array([-70.0, 25.0, 40.0])
NODULE = "A nodule lies in the left lung."


# -- where things lie ---------------------------------------------------------------------------


@pytest.mark.parametrize("axes", ["PIR", "LPS", "RAS", "SLA"])
def test_the_patch_at_the_masks_centre_hits_and_its_mirror_image_does_not(
    tmp_path: Path, axes: str
) -> None:
    made(tmp_path)
    affine = odd_affine(axes)
    save_nifti(tmp_path / "scan" / "ct.nii.gz", chest(SHAPE), affine)
    save_nifti(tmp_path / "mask.nii.gz", ball(affine, LEFT_MM), affine)
    sources = read_grounded_csv(tmp_path / "cases.csv")
    right = measured(sources, {NODULE: patch_by_hand(LEFT_MM, CENTER_MM)})
    (pointed,) = right.pointed
    assert pointed.by["model"].hit == 1.0
    assert pointed.side["model"] == 1.0
    assert pointed.away_mm == 0
    assert pointed.said.text == NODULE
    mirrored_mm = LEFT_MM * (-1, 1, 1) + (2 * CENTER_MM[0], 0, 0)
    wrong = measured(sources, {NODULE: patch_by_hand(mirrored_mm, CENTER_MM)})
    assert wrong.pointed[0].by["model"].hit == 0.0
    assert wrong.pointed[0].side["model"] == 0.0
    assert wrong.pointed[0].by["model"].dice == 0.0
    # Chance: the patches that the ball touches among those in the scan, counted by hand.
    world = nib.affines.apply_affine(affine, np.argwhere(ball(affine, LEFT_MM)))
    touched = {patch_by_hand(w, CENTER_MM) for w in world}
    inside = case_of(sources[0].load(), SPEC).inside_N
    assert pointed.by["chance"].hit == pytest.approx(len(touched) / inside.sum())


def test_dice_is_that_of_the_patches_painted_on_the_scan(tmp_path: Path) -> None:
    made(tmp_path)
    affine = odd_affine()
    truth = ball(affine, LEFT_MM, 45.0).astype(bool)
    save_nifti(tmp_path / "mask.nii.gz", truth.astype(np.uint8), affine)
    case = case_of(read_grounded_csv(tmp_path / "cases.csv")[0].load(), SPEC)
    volume = float(case.said[0].coverage_N.sum())  # type: ignore[union-attr]
    expected_volume = truth.sum() * abs(np.linalg.det(affine[:3, :3])) / PATCH_MM**3
    assert volume == pytest.approx(expected_volume, rel=0.03)  # patches end between voxels
    best = patch_by_hand(LEFT_MM, CENTER_MM)
    voxels = nib.affines.apply_affine(affine, np.moveaxis(np.indices(SHAPE), 0, -1))
    steps = np.floor((voxels - CENTER_MM) * (-1, -1, 1) / PATCH_MM + 4).astype(int)
    m = max(1, round(volume))
    around = [(k, i, j) for k in (0, 1) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    chosen = [best + 64 * i + 8 * j + k for k, i, j in around][:m]  # all of them in the scan
    flat = (steps[..., 0] * 8 + steps[..., 1]) * 8 + steps[..., 2]
    painted = np.isin(flat, chosen)
    dice = 2 * (painted & truth).sum() / (painted.sum() + truth.sum())
    scores = np.zeros(512)
    scores[chosen] = 1
    from simcrop_core.evaluate.pointing import point

    got = point(scores, case.said[0].coverage_N, case.inside_N)  # type: ignore[arg-type]
    assert got.dice == pytest.approx(dice, rel=0.03)
    assert got.dice > 0.2


def test_what_lies_beyond_the_input_counts_for_dice_and_is_told(tmp_path: Path) -> None:
    """A scan taller than the model's input, with a mask at its upper end."""
    shape = (40, 40, 100)
    affine = axis_aligned_affine("LPS", (6, 6, 5), CENTER_MM, shape)
    save_nifti(tmp_path / "ct.nii.gz", chest(shape), affine)
    for name, slices in (("half", slice(70, 90)), ("out", slice(95, 100))):
        mask = np.zeros(shape, np.uint8)
        mask[5:15, 5:15, slices] = 1
        save_nifti(tmp_path / f"{name}.nii.gz", mask, affine)
    rows = [
        {"study": "a", "ct": "ct.nii.gz", "sentence": name, "mask": f"{name}.nii.gz"}
        for name in ("half", "out")
    ]
    result = measured(
        read_grounded_csv(write(tmp_path / "c.csv", rows)), {"half": 0, "out": 0}
    )  # the input ends 128 mm above the middle, at slice 75
    assert [p.said.text for p in result.pointed] == ["half"]
    assert result.beyond == 1
    said = result.pointed[0].said
    whole = 10 * 10 * 20 * 6 * 6 * 5 / PATCH_MM**3
    assert said.beyond + said.coverage_N.sum() == pytest.approx(whole, rel=1e-5)  # type: ignore[union-attr]
    assert said.beyond > whole / 2
    assert any("1 more have one" in line for line in result.lines())


def test_masks_of_other_voxels_are_placed_by_the_patient(tmp_path: Path) -> None:
    """Turned axes fit exactly; a finer grid is resampled, with a note."""
    made(tmp_path)
    expected = read_grounded_csv(tmp_path / "cases.csv")[0].load()
    (name,) = expected.regions
    turned = nib.as_closest_canonical(nib.load(tmp_path / "mask.nii.gz"))
    nib.save(turned, tmp_path / "mask.nii.gz")
    again = read_grounded_csv(tmp_path / "cases.csv")[0].load()
    np.testing.assert_array_equal(again.regions[name], expected.regions[name])
    assert "mask-resampled" not in {n.code for n in again.volume.notes}
    fine = axis_aligned_affine("LPS", (2, 2, 2), LEFT_MM, (40, 40, 40))
    world = nib.affines.apply_affine(fine, np.moveaxis(np.indices((40, 40, 40)), 0, -1))
    inside = (np.linalg.norm(world - LEFT_MM, axis=-1) <= 20).astype(np.uint8)
    save_nifti(tmp_path / "mask.nii.gz", inside, fine)
    resampled = read_grounded_csv(tmp_path / "cases.csv")[0].load()
    (note,) = [n for n in resampled.volume.notes if n.code == "mask-resampled"]
    assert note.text.startswith("Row 2:")
    apart = resampled.regions[name] ^ expected.regions[name]
    assert apart.sum() < 0.25 * expected.regions[name].sum()
    found = measured(
        read_grounded_csv(tmp_path / "cases.csv"), {NODULE: patch_by_hand(LEFT_MM, CENTER_MM)}
    )
    assert found.pointed[0].by["model"].hit == 1.0


def test_the_midline_is_where_the_scan_shows_it(tmp_path: Path) -> None:
    affine = axis_aligned_affine("LPS", (5, 5, 5), (30, 0, 0), SHAPE)
    save_nifti(tmp_path / "ct.nii.gz", chest(SHAPE), affine)
    assert seen_midline_mm(read_volume(tmp_path / "ct.nii.gz")) == pytest.approx(30, abs=5)
    one = chest(SHAPE)
    one[30:][one[30:] < -700] = 40  # fluid in place of the left lung
    one[58:] = -1000
    save_nifti(tmp_path / "one.nii.gz", one, affine)
    assert seen_midline_mm(read_volume(tmp_path / "one.nii.gz")) == pytest.approx(30, abs=25)


def test_on_a_real_scan_the_lungs_lie_where_they_lie(tmp_path: Path, real_data: Path) -> None:
    labels, grid = read_labels(real_data / "ct/cip-chest64/lm-64.nrrd")
    region = labels & 255  # 9 to 11 the left lung's thirds, 12 to 14 the right's
    save_nifti(tmp_path / "lungs.nii.gz", region.astype(np.uint8), grid.affine)
    ct = str(real_data / "ct/cip-chest64/ct-64.nrrd")
    thirds = {11: "left", 14: "right"}
    rows = [
        {"study": "cip", "ct": ct, "sentence": f"The {side} base.", "mask": "lungs.nii.gz",
         "label": label, "side": side, "kind": "organ"}
        for label, side in thirds.items()
    ]  # fmt: skip
    sources = read_grounded_csv(write(tmp_path / "c.csv", rows))
    place, mirror = {}, {}
    for label, side in thirds.items():
        voxels = np.argwhere(region == label)
        world = grid.to_world(voxels)
        middle = world[np.linalg.norm(world - world.mean(axis=0), axis=1).argmin()]
        place[f"The {side} base."] = patch_by_hand(middle, grid.center_mm)
        other = middle * (-1, 1, 1) + (2 * grid.center_mm[0], 0, 0)
        mirror[f"The {side} base."] = patch_by_hand(other, grid.center_mm)
    for patches, expected in ((place, 1.0), (mirror, 0.0)):
        pointed = measured(sources, patches).pointed
        assert [p.by["model"].hit for p in pointed] == [expected] * 2
        assert [p.side["model"] for p in pointed] == [expected] * 2


# -- the csv ------------------------------------------------------------------------------------


def test_a_sentence_is_named_by_number_text_or_alone(tmp_path: Path) -> None:
    for number, (cells, expected) in enumerate(
        (
            ({"sentence": "0"}, "Heart size is normal."),
            ({"sentence": "a  nodule lies in the left lung"}, NODULE),
            ({"report": "A nodule. And another.", "sentence": "1"}, "And another."),
            ({"report": "A nodule lies here.", "sentence": ""}, "A nodule lies here."),
            ({"report": "", "sentence": "Free  words"}, "Free words"),
        )
    ):
        path = made(tmp_path / str(number), **cells)
        (source,) = read_grounded_csv(path)
        assert [row.sentence.text for row in source.rows] == [expected]


def far(folder: Path) -> None:
    save_nifti(folder / "mask.nii.gz", np.ones((4, 4, 4), np.uint8), np.eye(4))


def beside(folder: Path) -> None:
    """Its array overlaps the scan, what it marks does not."""
    affine = odd_affine()
    affine[:3, 3] += affine[:3, 0] * -30
    mask = np.zeros(SHAPE, np.uint8)
    mask[:5] = 1
    save_nifti(folder / "mask.nii.gz", mask, affine)


def empty(folder: Path) -> None:
    save_nifti(folder / "mask.nii.gz", np.zeros(SHAPE, np.uint8), odd_affine())


def shades(folder: Path) -> None:
    save_nifti(folder / "mask.nii.gz", np.full(SHAPE, 0.5, np.float32), odd_affine())


def nothing(folder: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("cells", "spoil", "says"),
    [
        ({"colour": "red"}, nothing, "a column 'colour' that means nothing"),
        ({"mask": "none.nii.gz"}, nothing, "Row 2: The file of the column mask is not there"),
        ({"ct": "none"}, nothing, "Row 2: The file of the column ct is not there"),
        ({"ct": ""}, nothing, "Row 2: The column ct is blank"),
        ({"report": "none.txt"}, nothing, "Row 2: The file of the column report"),
        ({"sentence": "Not in it."}, nothing, "Row 2: 'Not in it.' is not among the 3 sentences"),
        ({"sentence": "9"}, nothing, "Row 2: '9' is not among the 3 sentences"),
        ({"report": "", "sentence": "1"}, nothing, "Row 2: The column sentence holds no words"),
        ({"finding": "Nodules"}, nothing, "Row 2: 'Nodules' is no finding"),
        ({"side": "west"}, nothing, "Row 2: 'west' is no side"),
        ({"kind": "thing"}, nothing, "Row 2: 'thing' is no kind"),
        ({"label": "x"}, nothing, "Row 2: The label 'x' is not a whole number"),
        ({"label": "7"}, nothing, "Row 2: The mask has no voxel of the label 7"),
        ({}, empty, "Row 2: The mask is empty"),
        ({}, far, "Row 2: The mask and the scan have no place in common"),
        ({}, beside, "Row 2: What the mask marks lies outside of the scan"),
        ({}, shades, "Row 2: The values are not whole numbers"),
        ({"mask": "report.txt"}, nothing, "Row 2:"),
        ({"ct": "report.txt"}, nothing, "Row 2:"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    model: Path,
    cells: dict[str, object],
    spoil: Callable[[Path], None],
    says: str,
) -> None:
    path = made(tmp_path / "study", **cells)
    spoil(tmp_path / "study")
    out = tmp_path / "out.json"
    asked = ["evaluate", "grounding", "--model", str(model), "--cases", str(path)]
    assert main([*asked, "--device", "cpu", "--json", str(out)]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert says in told.err
    assert told.err.count("\n") == 1
    assert not out.exists()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "m"
    vision = VisionConfig(depth=1, width=24, heads=2)
    save_model(
        create_model("grounded", input_spec=SPEC, vision=vision, projection_width=16), folder
    )
    return folder


def test_the_command_measures_scans(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], model: Path
) -> None:
    path = made(tmp_path / "study")
    common = ["evaluate", "grounding", "--model", str(model), "--device", "cpu"]
    asked = [*common, "--cases", str(path)]
    out, picture = tmp_path / "out.json", tmp_path / "p.png"
    more = ["--prior-phantoms", "1", "--placement", "lungs", "--picture", str(picture)]
    assert main([*asked, *more, "--json", str(out)]) == 0
    assert "1 studies, 1 sentences" in capsys.readouterr().out
    found = json.loads(out.read_text())
    (sentence,) = found["sentences"]
    assert (sentence["study"], sentence["sentence"], sentence["side"]) == ("a", NODULE, "left")
    assert set(found["pointing"]["Lung nodule"]["dice"]) >= {"model", "chance"}
    assert found["placement"] == "lungs"
    assert str(tmp_path) not in out.read_text()
    assert picture.stat().st_size > 5_000
    for wrong in (["--seed", "3"], ["--scans", str(tmp_path)], ["--split", "val"]):
        assert main([*asked, *wrong]) == 2
        assert "goes with" in capsys.readouterr().err
    assert main([*common, "--phantoms", "1", "--placement", "lungs"]) == 2
    assert "--placement goes with --cases" in capsys.readouterr().err


# -- ReXGroundingCT -----------------------------------------------------------------------------

NAME = "train_7_a_1"
FINDINGS = {"0": "Nodule in the left lung.", "1": "Bilateral effusion.", "2": "Nothing marked."}


def rex(folder: Path, stack: np.ndarray | None = None, **entry: object) -> Path:
    """The published layout: masks finding by finding, with a header that says nothing."""
    affine = odd_affine("LPS")
    (folder / "segmentations").mkdir(parents=True)
    place = folder / "scans" / "train_fixed" / "train_7" / "train_7_a"
    place.mkdir(parents=True)
    save_nifti(place / f"{NAME}.nii.gz", chest(SHAPE), affine)
    if stack is None:
        stack = np.zeros((3, *SHAPE), np.uint8)
        stack[0] = 3 * ball(affine, LEFT_MM)
        stack[1] = ball(affine, CENTER_MM + np.array([60, 0, 0]))
    save_nifti(folder / "segmentations" / f"{NAME}.nii.gz", stack, np.eye(4))
    one = {"name": f"{NAME}.nii.gz", "findings": FINDINGS, "categories": {"0": "2d", "1": "2e"}}
    path = folder / "dataset.json"
    path.write_text(json.dumps({"train": [], "val": [one | entry]}))
    return path


def test_the_published_layout_lies_on_the_scans_voxels(tmp_path: Path) -> None:
    sources = read_rexgrounding(rex(tmp_path), tmp_path / "scans")
    study = sources[0].load()
    assert study.id == NAME
    affine = odd_affine("LPS")
    np.testing.assert_array_equal(study.regions["0"], ball(affine, LEFT_MM) > 0)
    assert [s.category for s in study.sentences] == [
        "2d nodules, masses", "2e pleural effusion, thickening",
    ]  # fmt: skip
    (note,) = [n for n in study.volume.notes if n.code == "empty-mask"]
    assert "findings 2" in note.text
    left, both = FINDINGS["0"], FINDINGS["1"]
    found = measured(sources, {left: patch_by_hand(LEFT_MM, CENTER_MM), both: 0})
    assert found.pointed[0].by["model"].hit == 1.0
    assert found.pointed[0].side["model"] == 1.0
    assert found.pointed[1].side == {}
    assert set(found.rows()) >= {"2d nodules, masses", "2e pleural effusion, thickening"}
    assert "Lung nodule" not in found.rows()  # the same sentences as 2d


def test_spacing_of_ct_rate_comes_from_its_metadata(tmp_path: Path) -> None:
    path = rex(tmp_path)
    row = {"VolumeName": f"{NAME}.nii.gz", "XYSpacing": "[2.5, 2.5]", "ZSpacing": 7.0,
           "RescaleSlope": 1, "RescaleIntercept": 0}  # fmt: skip
    write(tmp_path / "scans" / "metadata.csv", [row])
    volume = read_rexgrounding(path, tmp_path / "scans")[0].load().volume
    assert volume.spacing_mm == pytest.approx((2.5, 2.5, 7.0))


@pytest.mark.parametrize(
    ("text", "side"),
    [
        ("Nodule in the left lung.", "left"),
        ("Right-sided effusion", "right"),
        ("Left and right atelectasis", "any"),
        ("Bilateral effusion, more on the left", "both"),
        ("Leftover", "any"),
    ],
)
def test_sides_in_words(text: str, side: str) -> None:
    assert side_in_words(text) == side


def test_what_is_wrong_with_the_layout_is_said(tmp_path: Path) -> None:
    def refused(path: Path, says: str, split: str = "val", scans: str = "scans") -> None:
        with pytest.raises(SimCroPError, match=says):
            for source in read_rexgrounding(path, path.parent / scans, split):
                source.load()

    good = rex(tmp_path / "good")
    refused(good, "no split 'test'", "test")
    refused(good, "no list of scans", "train")
    refused(good, "no such folder", scans="none")
    refused(rex(tmp_path / "a", name="train_8_a_1.nii.gz"), "the scan train_8_a_1 and 1 more")
    refused(rex(tmp_path / "b", findings={"x": "y"}), "Entry 0 has not")
    refused(rex(tmp_path / "c", np.ones((1, 9, 9, 9), np.uint8)), "does not fit 3 findings")
    refused(rex(tmp_path / "d", np.ones((2, *SHAPE), np.uint8)), "does not fit 3 findings")
    refused(tmp_path / "none.json", "no such file")
    broken = tmp_path / "e.json"
    broken.write_text("{")
    refused(broken, "cannot be read as JSON")
