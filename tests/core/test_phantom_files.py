"""Phantoms as studies and as files: that masks lie where sentences say, and files say the same."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from simcrop_core.cli import main
from simcrop_core.errors import SimCroPError
from simcrop_core.geometry import Grid, axis_aligned_affine
from simcrop_core.input_spec import InputSpec
from simcrop_core.io import read_labels, read_volume
from simcrop_core.phantoms import files
from simcrop_core.phantoms.anatomy_labels import LABELS
from simcrop_core.phantoms.files import FILES, write_phantom
from simcrop_core.phantoms.plan import plan_phantom
from simcrop_core.phantoms.study import make_phantom, prepared_grid, survey
from simcrop_core.phantoms.truth import mask_file, truth_of
from simcrop_core.prepare import prepare
from simcrop_core.report import read_report
from simcrop_core.statements import FINDINGS, LEVELS, SIDES, Facts, Meaning
from simcrop_core.study import Study
from simcrop_core.volume import CTVolume

# Scans of all kinds, some of which end within the lungs.
SEEDS = (0, 3, 6, 18, 299)
#: The scan with the fewest voxels among the first seeds.
SMALL = 299


def whole_scan(seed: int) -> Grid:
    """All of a scan on coarse voxels."""
    scan = plan_phantom(seed).scanner.grid
    extent = np.array(scan.shape) * scan.spacing_mm
    shape = np.maximum(1, np.round(extent / 5)).astype(int)
    affine = axis_aligned_affine(scan.axcodes, extent / shape, scan.center_mm, shape)
    return Grid((int(shape[0]), int(shape[1]), int(shape[2])), affine)


@cache
def study(seed: int) -> Study:
    return make_phantom(seed, whole_scan(seed))


# -- studies --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_every_sentence_has_its_part_of_the_scan(seed: int) -> None:
    phantom = study(seed)
    assert phantom.report is not None
    texts = [s.text for s in phantom.report.in_section("findings")]
    assert texts == [s.text for s in phantom.sentences]
    for sentence in phantom.sentences:
        assert sentence.region is not None, sentence
        mask = phantom.regions[sentence.region]
        assert mask.shape == phantom.volume.shape
        assert mask.dtype == bool
        assert mask.any()
    for finding, region in zip(
        survey(seed).plan.findings,
        [name for name in phantom.regions if name.startswith("finding ")],
        strict=True,
    ):
        assert region.endswith(finding.name.lower())


@pytest.mark.parametrize("seed", SEEDS)
def test_findings_lie_on_the_side_and_in_the_third_that_is_said(seed: int) -> None:
    phantom = study(seed)
    grid = phantom.volume.grid
    spine = LABELS["vertebrae"]
    assert phantom.structures_XYZ is not None
    middle = grid.to_world(np.argwhere(phantom.structures_XYZ == spine).mean(axis=0))[0]
    for sentence in phantom.sentences:
        side = SIDES[sentence.meaning.side]
        name = FINDINGS[sentence.meaning.finding]
        if sentence.region is None or side == "any" or name in ("Lymphadenopathy",):
            continue
        if name == "Medical material":
            continue  # a lead crosses the midline
        x = grid.to_world(np.argwhere(phantom.regions[sentence.region]))[:, 0] - middle
        if side == "both":
            assert (x > 0).any()
            assert (x < 0).any()
        else:  # +x is the patient's right
            assert np.mean((x > 0) == (side == "right")) > 0.9, sentence


def test_regions_of_what_is_absent_are_where_it_would_be() -> None:
    """Parts of the lungs, by the structures' own labels."""
    checked = set()
    for seed in SEEDS:
        phantom = study(seed)
        assert phantom.structures_XYZ is not None
        z = phantom.volume.grid.to_world(np.argwhere(np.ones(phantom.volume.shape, bool)))[:, 2]
        z = z.reshape(phantom.volume.shape)
        for name in phantom.regions:
            mask = phantom.regions[name]
            labels = np.unique(phantom.structures_XYZ[mask])
            if match := re.fullmatch(r"(left|right) (upper|middle|lower) lobe", name):
                checked.add(match[2])
                assert LABELS[name] in labels
                other = "left" if match[1] == "right" else "right"
                assert not {LABELS[n] for n in LABELS if n.startswith(other)} & set(labels)
            if name in ("liver", "spleen", "aorta", "thyroid", "oesophagus"):
                checked.add(name)
                assert set(labels) == {LABELS[name]}
                assert mask.sum() == (phantom.structures_XYZ == LABELS[name]).sum()
            if name == "lungs":
                checked.add(name)
                lobes = [n for n, label in LABELS.items() if label in labels and "lobe" in n]
                assert len(lobes) == 5
    assert {"lungs", "liver"} <= checked


def test_a_phantom_is_the_same_on_any_grid() -> None:
    spec = InputSpec(shape=(48, 48, 24), spacing_mm=(8, 8, 14), patch_shape=(16, 16, 8))
    other = make_phantom(3, prepared_grid(3, spec))
    assert study(3).report == other.report
    assert [replace(s, region=None) for s in study(3).sentences] == [
        replace(s, region=None) for s in other.sentences
    ]
    assert np.array_equal(study(3).facts.table_FSL, other.facts.table_FSL)
    assert other.id == "phantom-000003"
    assert [note.code for note in other.volume.notes] == ["artificial"]


def test_a_region_outside_the_grid_is_left_out() -> None:
    low, high = plan_phantom(3).scanner.grid.bounds_mm()
    top = (low + high) / 2
    top[2] = high[2] - 12  # the upper end of the scan alone
    grid = Grid((40, 40, 4), axis_aligned_affine("LPS", (8, 8, 5), top, (40, 40, 4)))
    phantom = make_phantom(3, grid)
    texts = [(s.text, s.kind, s.meaning) for s in phantom.sentences]
    assert texts == [(s.text, s.kind, s.meaning) for s in study(3).sentences]
    assert [s for s in phantom.sentences if s.region is None]
    assert {s.region for s in phantom.sentences if s.region} <= set(phantom.regions)


def test_what_lies_beyond_the_scan_is_no_region() -> None:
    """A model's input may reach further than the scan; there is air, and nothing to point at."""
    scan = plan_phantom(SMALL).scanner.grid
    low, high = scan.bounds_mm()
    shape = (60, 60, 60)
    phantom = make_phantom(
        SMALL, Grid(shape, axis_aligned_affine("LPS", (8, 8, 8), scan.center_mm, shape))
    )
    anywhere = np.zeros(shape, bool)
    for region in phantom.regions.values():
        anywhere |= region
    world = phantom.volume.grid.to_world(np.argwhere(anywhere))
    assert ((world >= low) & (world <= high)).all()


# -- where the model's input lies -----------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 3, 44, SMALL])
def test_the_prepared_grid_is_where_prepare_puts_the_input(seed: int) -> None:
    spec = InputSpec(shape=(48, 64, 16), spacing_mm=(4, 4, 6), patch_shape=(16, 16, 8))
    scan = plan_phantom(seed).scanner.grid
    nothing = CTVolume(np.broadcast_to(np.int16(-1000), scan.shape), scan)
    assert prepared_grid(seed, spec).matches(prepare(nothing, spec).grid)
    inner = prepared_grid(seed, spec, margin_voxels=(4, 4, 2)).window((4, 4, 2), spec.shape)
    assert inner.matches(prepared_grid(seed, spec))


def test_the_grid_placed_on_the_lungs_is_where_prepare_puts_the_input() -> None:
    spec = InputSpec(shape=(48, 48, 16), spacing_mm=(4, 4, 6), patch_shape=(16, 16, 8))
    scan = make_phantom(SMALL).volume
    there = prepare(scan, spec, placement="lungs")
    assert "placed-on-lungs" in [note.code for note in there.notes]
    apart = prepared_grid(SMALL, spec, placement="lungs").center_mm - there.grid.center_mm
    # Both look at the scan every 4 mm or so; noise may move the lungs' box by one look.
    assert np.abs(apart).max() <= 6
    assert not prepared_grid(SMALL, spec).matches(there.grid)


# -- files ----------------------------------------------------------------------------------------


def test_files_say_what_the_study_says(tmp_path: Path) -> None:
    seed = 3
    write_phantom(tmp_path / "p", seed, grid=whole_scan(seed))
    phantom, folder = study(seed), tmp_path / "p"
    assert {entry.name for entry in folder.iterdir()} == {*FILES, "masks"}
    truth = json.loads((folder / "truth.json").read_text())
    assert truth["schema"] == 1
    assert truth["seed"] == seed
    assert set(truth["labels"]) == set(FINDINGS)
    assert {n for n, label in truth["labels"].items() if label} == {
        f["name"] for f in truth["findings"]
    }
    ct = read_volume(folder / "ct.nii.gz")
    assert np.array_equal(ct.hu_XYZ, phantom.volume.hu_XYZ)
    assert ct.grid.matches(phantom.volume.grid)

    structures_XYZ, grid = read_labels(folder / "structures.nii.gz")
    assert grid.matches(ct.grid)
    assert np.array_equal(structures_XYZ, phantom.structures_XYZ)
    names = json.loads((folder / "structures.json").read_text())
    assert names == truth["structures"]
    assert {int(n): name for n, name in names.items()} == {v: k for k, v in LABELS.items()}

    report = read_report(folder / "report.txt")
    told = [s["text"] for s in truth["sentences"]]
    assert told == [s.text for s in report.in_section("findings")]
    assert {s["kind"] for s in truth["sentences"]} == {"organ", "finding", "negative"}

    used = {s["mask_file"] for s in truth["sentences"]} | {
        f["mask_file"] for f in truth["findings"]
    }
    there = {f"masks/{file.name}" for file in (folder / "masks").iterdir()}
    assert used == there
    for file in there:
        mask_XYZ, grid = read_labels(folder / file)
        assert grid.matches(ct.grid)
        assert set(np.unique(mask_XYZ)) == {0, 1}
    for sentence, planned in zip(truth["sentences"], phantom.sentences, strict=True):
        assert planned.region is not None
        assert sentence["mask_file"] == mask_file(planned.region)
        mask_XYZ, _ = read_labels(folder / sentence["mask_file"])
        assert np.array_equal(mask_XYZ > 0, phantom.regions[planned.region])


def test_truth_says_what_each_sentence_states() -> None:
    for seed in SEEDS:
        phantom = study(seed)
        truth = truth_of(phantom, survey(seed).plan)
        assert json.loads(json.dumps(truth)) == truth
        facts = Facts.from_occurrences(
            (f["name"], f["side"], f["level"]) for f in truth["findings"]
        )
        assert facts.labels() == truth["labels"]
        for sentence in truth["sentences"]:
            stated = sentence["meaning"]
            assert (sentence["finding"] is None) == (sentence["kind"] == "organ")
            if sentence["kind"] == "organ":
                continue
            assert sentence["finding"] == stated["finding"]
            assert sentence["side"] == stated["side"] in SIDES
            assert stated["level"] in LEVELS
            meaning = Meaning.of(stated["finding"], stated["side"], stated["level"])
            assert facts.truth(meaning._replace(present=int(stated["present"]))) == 1
            assert stated["present"] == (sentence["kind"] == "finding")
        for finding in truth["findings"]:
            name = finding["mask_file"].removeprefix("masks/").removesuffix(".nii.gz")
            (region,) = [r for r in phantom.regions if mask_file(r) == finding["mask_file"]]
            assert name.startswith("finding-")
            inside = np.argwhere(phantom.regions[region])
            low, high = inside.min(axis=0), inside.max(axis=0)
            center = phantom.volume.grid.to_voxel(finding["center_mm"])
            assert ((center >= low - 0.01) & (center <= high + 0.01)).all()


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_phantom(tmp_path / name, 18, grid=whole_scan(18))
    written = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.*"))
    assert len(written) > 8
    for file in written:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


@pytest.fixture
def coarse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Phantoms are written on coarse voxels: native ones take long, and it makes no difference."""
    monkeypatch.setattr(files, "make_phantom", lambda seed, grid, wording: study(seed))


@pytest.mark.usefixtures("coarse")
def test_an_earlier_phantom_is_kept_unless_told(tmp_path: Path) -> None:
    write_phantom(tmp_path, 0)
    (tmp_path / "mine.txt").write_text("mine")
    before = (tmp_path / "truth.json").read_bytes()
    with pytest.raises(SimCroPError) as caught:
        write_phantom(tmp_path, 18)
    assert caught.value.code == "exists"
    assert (tmp_path / "truth.json").read_bytes() == before
    write_phantom(tmp_path, 18, overwrite=True)
    assert json.loads((tmp_path / "truth.json").read_text())["seed"] == 18
    assert (tmp_path / "mine.txt").read_text() == "mine"
    masks = {entry.name for entry in (tmp_path / "masks").iterdir()}
    assert masks == {mask_file(name).removeprefix("masks/") for name in study(18).regions}


# -- the command ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("coarse")
def test_the_command_writes_phantoms(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = tmp_path / "one"
    assert main(["phantom", "--seed", "18", "--out", str(one)]) == 0
    said = capsys.readouterr().out
    assert str(one) in said
    assert "artificial" in said
    assert json.loads((one / "truth.json").read_text())["seed"] == 18

    many = tmp_path / "many"
    command = ["phantom", "--seed", "17", "--count", "2", "--out", str(many), "--json"]
    assert main(command) == 0
    told = json.loads(capsys.readouterr().out)["phantoms"]
    assert [entry["seed"] for entry in told] == [17, 18]
    for entry in told:
        folder = many / f"phantom-{entry['seed']:06d}"
        assert entry["folder"] == str(folder)
        truth = json.loads((folder / "truth.json").read_text())
        assert entry["findings"] == [n for n, label in truth["labels"].items() if label]

    assert main(command) == 2  # refused before anything is made
    refused = capsys.readouterr().err
    assert refused.count("\n") == 1
    assert "--overwrite" in refused
    assert main(["phantom", "--seed", "20", "--out", str(one / "ct.nii.gz")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    # Below a file, and found out before anything is made.
    monkeypatch.setattr(files, "make_phantom", lambda *_: pytest.fail("it was made"))
    assert main(["phantom", "--seed", "20", "--out", str(one / "ct.nii.gz" / "below")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    for wrong in (["--seed", "-1"], ["--seed", "x"], ["--seed", "1", "--count", "0"]):
        with pytest.raises(SystemExit) as caught:
            main(["phantom", *wrong, "--out", str(tmp_path / "no")])
        assert caught.value.code == 2
    assert not (tmp_path / "no").exists()


def test_a_phantom_of_native_size_is_the_scan_that_was_planned() -> None:
    phantom = make_phantom(SMALL)
    assert phantom.volume.grid.matches(plan_phantom(SMALL).scanner.grid)
    assert phantom.volume.hu_XYZ.dtype == np.int16
    assert phantom.volume.hu_XYZ.min() < -900
    assert phantom.report == study(SMALL).report
