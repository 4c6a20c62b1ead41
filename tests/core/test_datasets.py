"""Data sets: manifests, CT-RATE in both layouts with lying headers, lists, preflight."""

from __future__ import annotations

import csv
import json
import pickle
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from made_ct import AFFINE, SHAPE, chest, save_nifti
from made_store import MINILM, SPEC

from simcrop_core.datasets import (
    ct_rate_dataset,
    open_dataset,
    preflight,
    read_case_list,
    read_manifest_dataset,
    read_mask_list,
)
from simcrop_core.datasets.ct_rate import volume_paths
from simcrop_core.datasets.masks import Masks
from simcrop_core.datasets.volume_check import check_volume
from simcrop_core.errors import SimCroPError
from simcrop_core.geometry import axis_aligned_affine
from simcrop_core.statements import FINDINGS, Meaning
from simcrop_core.store import Loader, StoreSettings, build_store, open_store, to_batch
from simcrop_core.store.pack import pack_study

FINDINGS_TEXT = "Heart size is normal. There is a nodule in the right lung."


def write_csv(path: Path, rows: list[dict[str, object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


# -- CT-RATE ------------------------------------------------------------------------------------


def report_row(name: str, **changes: str) -> dict[str, object]:
    return {
        "VolumeName": f"{name}.nii.gz",
        "ClinicalInformation_EN": "Cough",
        "Technique_EN": "Not given.",
        "Findings_EN": FINDINGS_TEXT,
        "Impressions_EN": "Nodule.",
        **changes,
    }


def metadata_row(name: str, **changes: object) -> dict[str, object]:
    return {
        "VolumeName": f"{name}.nii.gz",
        "RescaleIntercept": -1024,
        "RescaleSlope": 1,
        "XYSpacing": "[4.4, 4.8]",
        "ZSpacing": 4.1,
        "NumberofSlices": SHAPE[2],
        **changes,
    }


def label_row(name: str, positive: str = "Lung nodule") -> dict[str, object]:
    return {"VolumeName": f"{name}.nii.gz", **{f: int(f == positive) for f in FINDINGS}}


def write_volume(root: Path, name: str, layout: str, array: np.ndarray, **header: object) -> Path:
    patient, scan = name.rsplit("_", 2)[0], name.split("_")[2]
    split = name.split("_")[0]
    folders = {
        "published": Path(split, patient, f"{patient}_{scan}"),
        "preprocessed": Path(f"{split}_preprocessed", patient, f"{patient}{scan}"),
    }
    path = root / folders[layout] / f"{name}.nii.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    return save_nifti(path, array, header.pop("affine", np.eye(4)), **header)


Liar = Callable[[Path, str, str, np.ndarray], Path]


def lies_of_spacing(root: Path, name: str, layout: str, stored: np.ndarray) -> Path:
    return write_volume(root, name, layout, stored)  # an identity: 1 mm, RAS


def lies_of_rescale(root: Path, name: str, layout: str, stored: np.ndarray) -> Path:
    return write_volume(root, name, layout, stored, scl_slope=3.0, scl_inter=77.0)


def says_nothing(root: Path, name: str, layout: str, stored: np.ndarray) -> Path:
    return write_volume(root, name, layout, stored, sform_code=0, qform_code=0)


@pytest.mark.parametrize("layout", ["published", "preprocessed"])
@pytest.mark.parametrize("lie", [lies_of_spacing, lies_of_rescale, says_nothing])
@pytest.mark.parametrize("intercept", [-1024, -8192])
def test_ct_rate_is_read_by_its_metadata(
    tmp_path: Path, layout: str, lie: Liar, intercept: int
) -> None:
    name = "train_12_a_2"
    hu = chest(seed=3)
    lie(tmp_path, name, layout, (hu.astype(np.int32) - intercept).astype(np.int16))
    write_csv(tmp_path / "train_reports.csv", [report_row(name)])
    metadata = metadata_row(name, RescaleIntercept=float(intercept))
    write_csv(tmp_path / "metadata" / "train_metadata.csv", [metadata])
    write_csv(tmp_path / "labels" / "train_labels.csv", [label_row(name)])
    dataset = pickle.loads(pickle.dumps(ct_rate_dataset(tmp_path).sources))
    assert not preflight(ct_rate_dataset(tmp_path)).faults
    study = dataset[0].load()
    np.testing.assert_array_equal(study.volume.hu_XYZ, hu)
    assert study.volume.spacing_mm == pytest.approx((4.4, 4.8, 4.1))
    assert study.volume.grid.axcodes == "LPS"
    if lie is not says_nothing:
        assert "header-not-trusted" in {note.code for note in study.volume.notes}
    assert study.id == name
    assert [s.text for s in study.sentences] == FINDINGS_TEXT.replace(". ", ".\n").split("\n")
    assert study.report is not None
    assert [s.text for s in study.report.in_section("impression")] == ["Nodule."]
    assert not study.report.in_section("technique")  # "Not given."
    assert study.facts.labels() == {f: int(f == "Lung nodule") for f in FINDINGS}


def test_a_resampled_volume_is_read_by_its_header(tmp_path: Path) -> None:
    """Its slices are not those that the metadata count, so they do not describe it."""
    affine = axis_aligned_affine("LPS", (5, 5, 6), (0, 0, 0), SHAPE)
    write_volume(tmp_path, "valid_1_a_1", "preprocessed", chest(), affine=affine)
    write_csv(tmp_path / "r.csv", [report_row("valid_1_a_1")])
    write_csv(tmp_path / "m.csv", [metadata_row("valid_1_a_1", NumberofSlices=300)])
    volume = ct_rate_dataset(tmp_path).study(0).volume
    np.testing.assert_array_equal(volume.hu_XYZ, chest())
    assert volume.spacing_mm == pytest.approx((5, 5, 6))
    assert "preprocessed" in {note.code for note in volume.notes}


def test_ct_rate_from_csv_to_batch(tmp_path: Path) -> None:
    """Both layouts and both splits side by side, through the store."""
    names = {"train_1_a_1": "published", "valid_7_b_2": "preprocessed"}
    for number, (name, layout) in enumerate(names.items()):
        write_volume(tmp_path, name, layout, chest(seed=number) + np.int16(1024))
    write_csv(tmp_path / "reports" / "r.csv", [report_row(name) for name in names])
    write_csv(tmp_path / "metadata" / "m.csv", [metadata_row(name) for name in names])
    write_csv(tmp_path / "labels" / "l.csv", [label_row(name) for name in names])
    dataset = open_dataset(f"ct-rate:{tmp_path}")
    assert dataset.ids == tuple(names)
    settings = StoreSettings(spec=SPEC, margin_voxels=(0, 0, 0))
    build_store(dataset.name, dataset.sources, tmp_path / "store", settings, MINILM)
    loader = Loader(open_store(tmp_path / "store"), batch_size=2, seed=0, shuffle=False)
    batch = to_batch(next(iter(loader)), "cpu")
    assert batch.sentence_mask_BS.sum(dim=1).tolist() == [2, 2]
    assert batch.facts_BFSL[0, FINDINGS.index("Lung nodule"), 0, 0] == 1
    assert batch.facts_BFSL[1, FINDINGS.index("Emphysema"), 0, 0] == 0
    assert not batch.region_mask_BS.any()


def test_lists_and_splits_choose_studies(tmp_path: Path) -> None:
    names = ["train_1_a_1", "train_2_a_1", "valid_1_a_1"]
    write_csv(tmp_path / "r.csv", [report_row(name) for name in names])
    chosen = write_csv(
        tmp_path / "list.csv", [label_row("train_9_c_2"), label_row("train_1_a_1", "Emphysema")]
    )
    assert ct_rate_dataset(tmp_path).ids == tuple(names)
    assert ct_rate_dataset(tmp_path, split="valid").ids == ("valid_1_a_1",)
    dataset = open_dataset(f"ct-rate:{tmp_path}", cases=chosen)
    assert dataset.ids == ("train_9_c_2", "train_1_a_1")
    assert dict(dataset.sources[1].labels or ())["Emphysema"] == 1  # type: ignore[attr-defined]
    with pytest.raises(SimCroPError, match="No study is left"):
        ct_rate_dataset(tmp_path, chosen, "valid")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SimCroPError, match="no csv of reports"):
        ct_rate_dataset(tmp_path / "empty")


def test_preflight_lists_each_fault_and_no_other(tmp_path: Path) -> None:
    good = "train_1_a_1"
    names = [good, *(f"train_{n}_a_1" for n in range(2, 10))]
    stored = chest() + np.int16(1024)
    for name in names:
        if name != "train_2_a_1":
            write_volume(tmp_path, name, "published", stored)
    cut = volume_paths(tmp_path, "train_3_a_1")[0]
    cut.write_bytes(cut.read_bytes()[:-1000])
    volume_paths(tmp_path, "train_4_a_1")[0].write_bytes(b"<html>not found</html>")
    volume_paths(tmp_path, "train_5_a_1")[0].write_bytes(b"")
    rows = [report_row(n) for n in names if n != "train_6_a_1"]
    blank = {"Findings_EN": "Not given.", "Impressions_EN": "", "ClinicalInformation_EN": ""}
    rows[-1] = report_row("train_9_a_1", **blank)
    write_csv(tmp_path / "r.csv", [*rows, report_row("stray"), report_row(good, Findings_EN="X.")])
    metadata = [metadata_row(n) for n in names if n != "train_7_a_1"]
    metadata[6] = metadata_row("train_8_a_1", XYSpacing="0.68")
    write_csv(tmp_path / "m.csv", metadata)
    chosen = write_csv(tmp_path / "l.csv", [label_row(n) for n in names])
    found = preflight(ct_rate_dataset(tmp_path, chosen))
    assert {(f.study, f.part, f.code) for f in found.faults} == {
        ("", "report", "bad-name"),
        (good, "report", "twice"),
        ("train_2_a_1", "volume", "missing"),
        ("train_3_a_1", "volume", "truncated"),
        ("train_4_a_1", "volume", "not-a-volume"),
        ("train_5_a_1", "volume", "empty"),
        ("train_6_a_1", "report", "missing"),
        ("train_7_a_1", "metadata", "missing"),
        ("train_8_a_1", "metadata", "bad-metadata"),
        ("train_9_a_1", "report", "empty"),
    }
    assert found.usable == 3  # 1, and 6 and 9, whose volumes serve without a report
    table = found.table()
    assert table.startswith("ct-rate: 9 studies, 3 can be prepared\n")
    for fault in found.faults:
        assert fault.problem in table
    written = json.loads(json.dumps(found.to_dict()))
    assert len(written["faults"]) == len(found.faults)
    assert sum(count["studies"] for count in written["counts"]) == len(found.faults)
    # What preflight finds, prepare leaves out with the same word.
    sources = ct_rate_dataset(tmp_path, chosen).sources
    settings = StoreSettings(spec=SPEC, margin_voxels=(0, 0, 0))
    tally = build_store("ct-rate", sources, tmp_path / "store", settings, MINILM)
    assert (tally.prepared, tally.skipped) == (3, 6)
    store = open_store(tmp_path / "store")
    assert store.ids == ("train_1_a_1", "train_6_a_1", "train_9_a_1")
    codes = {entry["id"]: entry["code"] for entry in store.skipped}
    assert codes["train_8_a_1"] == "bad-metadata"
    assert codes["train_7_a_1"] == "no-metadata"


def test_many_faults_of_a_kind_are_counted(tmp_path: Path) -> None:
    names = [f"train_{n}_a_1" for n in range(1, 41)]
    write_csv(tmp_path / "r.csv", [report_row(n) for n in names])
    table = preflight(ct_rate_dataset(tmp_path)).table()
    assert "and 20 more" in table
    assert "40 studies, 0 can be prepared" in table


@pytest.mark.parametrize("name", ["train_1", "../train_1_a_1", "test_1_a_1", "train_1_a_1.nii"])
def test_names_that_are_none_of_ct_rates(name: str) -> None:
    with pytest.raises(SimCroPError, match="not the name of a volume"):
        volume_paths(Path(), name)


# -- manifests ----------------------------------------------------------------------------------


def test_a_manifest_with_masks_truth_and_labels(tmp_path: Path) -> None:
    mask = np.zeros(SHAPE, np.uint8)
    mask[10:20, 12:24, 8:30] = 1
    save_nifti(tmp_path / "ct.nii.gz")
    save_nifti(tmp_path / "lung.nii.gz", mask)
    (tmp_path / "masks").mkdir()
    save_nifti(tmp_path / "masks" / "nodule.nii.gz", np.roll(mask, 5, axis=0))
    (tmp_path / "r.txt").write_text(f"Findings: {FINDINGS_TEXT}\nImpression: Nodule.")
    truth = {
        "schema": 1,
        "labels": {f: int(f == "Lung nodule") for f in FINDINGS},
        "sentences": [
            {"text": "a", "kind": "organ", "finding": None, "side": None, "mask_file": None},
            {
                "text": "b",
                "kind": "finding",
                "finding": "Lung nodule",
                "side": "right",
                "mask_file": "masks/nodule.nii.gz",
            },
        ],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    row = {"study": "a", "volume": "ct.nii.gz", "report": "r.txt", "truth": "truth.json"}
    path = write_csv(tmp_path / "mine.csv", [{**row, "mask:lung": "lung.nii.gz"}])
    dataset = read_manifest_dataset(path)
    assert not preflight(dataset).faults
    study = dataset.study(0)
    assert study.volume.grid.affine == pytest.approx(AFFINE)
    assert study.sentences[1].meaning == Meaning.of("Lung nodule", "right")
    assert [s.kind for s in study.sentences] == ["organ", "finding"]
    region = study.sentences[1].region
    assert region is not None
    np.testing.assert_array_equal(study.regions[region], np.roll(mask, 5, axis=0) > 0)
    assert study.structure_names == ("lung",)
    assert study.structures_XYZ is not None
    np.testing.assert_array_equal(study.structures_XYZ, mask)
    assert study.facts.labels()["Lung nodule"] == 1
    truth["sentences"].pop()  # type: ignore[attr-defined]
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    with pytest.raises(SimCroPError, match="1 sentences and the report's Findings have 2"):
        dataset.study(0)


def test_a_csv_of_reports_serves_a_whole_manifest(tmp_path: Path) -> None:
    save_nifti(tmp_path / "ct.nii.gz")
    rows = [report_row(f"train_{n}_a_1", Findings_EN=f"Nodule of {n} mm.") for n in (4, 5)]
    write_csv(tmp_path / "reports.csv", rows)
    path = write_csv(
        tmp_path / "mine.csv",
        [
            {"study": f"s{n}", "volume": "ct.nii.gz", "report": "reports.csv", "volume_name": name}
            for n, name in ((4, "train_4_a_1.nii.gz"), (5, "train_5_a_1"), (6, "train_6_a_1"))
        ],
    )
    dataset = read_manifest_dataset(path)
    assert dataset.study(0).sentences[0].text == "Nodule of 4 mm."
    assert dataset.study(1).sentences[0].text == "Nodule of 5 mm."
    assert [(f.study, f.part) for f in preflight(dataset).faults] == [("s6", "report")]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("suffix", [".nii", ".nrrd", ".mha"])
def test_a_scan_that_was_cut_short_is_seen_without_unpacking_it(
    tmp_path: Path, suffix: str, packed: bool
) -> None:
    image = SimpleITK.GetImageFromArray(chest().T.astype(np.int16))
    image.SetSpacing((1.5, 1.5, 3.0))
    path = tmp_path / f"a{'.nii.gz' if packed and suffix == '.nii' else suffix}"
    SimpleITK.WriteImage(image, path, useCompression=packed)
    assert check_volume(path) is None
    whole = path.read_bytes()
    path.write_bytes(whole[:-700])
    found = check_volume(path)
    assert found is not None
    assert found.code in ("truncated", "damaged")


@pytest.mark.parametrize(
    ("rows", "word"),
    [
        ([{"volume": "a"}], "lacks the column study"),
        ([{"study": "a", "volume": "a", "colour": "b"}], "'colour'"),
        ([{"study": "a", "volume": ""}], "Row 2: The column volume is blank"),
        ([{"study": "a", "volume": "a", "Emphysema": "yes"}], "'yes', not 0 or 1"),
    ],
)
def test_manifests_that_say_nothing_clear_are_refused(
    tmp_path: Path, rows: list[dict[str, object]], word: str
) -> None:
    with pytest.raises(SimCroPError, match=word):
        read_manifest_dataset(write_csv(tmp_path / "m.csv", rows))


def test_a_study_is_stale_when_a_file_of_it_changes(tmp_path: Path) -> None:
    for name in ("a.nii.gz", "r.txt", "m.nii.gz"):
        (tmp_path / name).write_text("one")
    row = {"study": "a", "volume": "a.nii.gz", "report": "r.txt", "mask:x": "m.nii.gz"}
    source = read_manifest_dataset(write_csv(tmp_path / "m.csv", [row])).sources[0]
    stamps = {source.stamp()}
    for name in ("a.nii.gz", "r.txt", "m.nii.gz"):
        (tmp_path / name).write_text("another")
        stamps.add(source.stamp())
    assert len(stamps) == 4


# -- phantoms -----------------------------------------------------------------------------------


def test_phantoms_are_a_data_set_on_the_models_grid(tmp_path: Path) -> None:
    dataset = open_dataset("phantoms:3-5")
    assert dataset.ids == ("phantom-000003", "phantom-000004")
    assert not preflight(dataset).faults
    settings = StoreSettings(spec=SPEC, margin_voxels=(4, 4, 2))
    build_store(dataset.name, dataset.sources, tmp_path, settings, MINILM)
    store = open_store(tmp_path)
    record = store.record(1)
    study = dataset.study(1, SPEC, (4, 4, 2))
    assert study.volume.grid.matches(store.grid(record))  # rendered there, not resampled
    np.testing.assert_array_equal(store.volume(1), study.volume.hu_XYZ.clip(-1000, 1000))
    batch = to_batch(next(iter(Loader(store, batch_size=2, seed=0))), "cpu")
    assert batch.region_mask_BS.any(dim=1).all()
    assert batch.counterfactual_mask_BC.any()
    assert (batch.facts_BFSL[:, :, 0, 0] >= 0).all()
    with pytest.raises(SimCroPError, match="no phantoms from 5 to 5"):
        open_dataset("phantoms:5-5")
    with pytest.raises(SimCroPError, match="Did you mean phantoms:0-2"):
        open_dataset("phantom:0-2")


# -- lists --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("CT-Rate/train_list_1", 464),
        ("CT-Rate/train_list_10", 4636),
        ("CT-Rate/train_list", 46363),
        ("CT-Rate/val_list", 3009),
        ("CT-Rate/test_list", 3009),
        ("RadChestCT/train_list_10", 229),
        ("RadChestCT/train_list", 2286),
        ("RadChestCT/val_list", 984),
        ("RadChestCT/test_list", 360),
        ("CC-CCII/train_list_1", 29),
        ("CC-CCII/train_list_10", 290),
        ("CC-CCII/train_list", 2899),
        ("CC-CCII/val_list", 1243),
        ("LUNA16/train_list_10", 62),
        ("LUNA16/train_list", 621),
        ("LUNA16/val_list", 267),
    ],
)
def test_published_lists_are_read_as_they_are(real_data: Path, name: str, rows: int) -> None:
    cases = read_case_list(real_data / "lists" / f"{name}.csv")
    assert len(cases) == rows == len(cases.labels_NK)
    if name.startswith("CT-Rate"):
        assert cases.columns == FINDINGS
        assert all(volume_paths(Path(), n.removesuffix(".nii.gz")) for n in cases.names[::97])
    twins = [note.text for note in cases.notes if note.code == "identical-labels"]
    assert bool(twins) == name.startswith("RadChestCT")
    if twins:
        assert twins[0].startswith("The labels Pericardial effusion and Pleural effusion are")


def test_published_lists_of_masks(real_data: Path) -> None:
    btcv = read_mask_list(real_data / "lists" / "BTCV" / "dataset.json")
    assert (len(btcv.training), len(btcv.validation)) == (24, 6)
    assert btcv.labels[:3] == ("background", "spleen", "rkid")
    assert len(btcv.labels) == 14
    luna = read_mask_list(real_data / "lists" / "LUNA16" / "dataset_100.json")
    assert (len(luna.training), len(luna.testing)) == (620, 267)
    assert luna.training[0][1] is not None
    assert luna.training[0][1].startswith("masks_processed/")


def test_a_published_list_chooses_ct_rates_studies(real_data: Path, tmp_path: Path) -> None:
    cases = real_data / "lists" / "CT-Rate" / "train_list_1.csv"
    dataset = open_dataset(f"ct-rate:{tmp_path}", cases=cases)
    assert len(dataset) == 464
    assert dataset.ids[0] == "train_12460_c_2"
    assert preflight(dataset).usable == 0


def test_bad_lists_are_refused(tmp_path: Path) -> None:
    twice = write_csv(tmp_path / "a.csv", [{"n": "x", "l": 1}, {"n": "x", "l": 0}])
    with pytest.raises(SimCroPError, match="twice"):
        read_case_list(twice)
    with pytest.raises(SimCroPError, match="whole number"):
        read_case_list(write_csv(tmp_path / "b.csv", [{"n": "x", "l": "high"}]))
    for text in (
        '{"labels": {}, "training": [3]}',
        '{"labels": {"0": null}, "training": []}',
        '{"labels": {"0": " "}, "training": []}',
        '{"labels": {}, "training": "abc"}',
        '{"labels": {}, "training": [{"image": null, "label": "b"}]}',
        "[" * 200_000,
    ):
        (tmp_path / "c.json").write_text(text)
        with pytest.raises(SimCroPError, match="not a list of images"):
            read_mask_list(tmp_path / "c.json")


# -- masks --------------------------------------------------------------------------------------


def test_masks_come_back_as_they_were() -> None:
    rng = np.random.default_rng(0)
    one = np.zeros((5, 3, 9), bool)
    one[4, 0, 7] = True
    for mask in (one, ~one, one & ~one, rng.random((7, 6, 5)) < 0.2, rng.random((1, 1, 1)) < 2):
        for made in (mask, np.asfortranarray(mask)):
            masks = Masks(mask.shape)
            masks.add("a", ~made)
            masks.add("a", made)
            np.testing.assert_array_equal(masks["a"], mask)
            masks["a"][...] = True  # what was given out is nobody else's
            np.testing.assert_array_equal(masks["a"], mask)
            assert list(masks) == ["a"]
    with pytest.raises(ValueError, match="none of a scan"):
        masks.add("b", one)
    with pytest.raises(KeyError):
        masks["c"]


def test_memory_does_not_grow_with_the_number_of_masks(tmp_path: Path) -> None:
    """A study of many masks, read and packed in little more memory than one of a few."""
    voxels = int(np.prod(SHAPE))
    save_nifti(tmp_path / "ct.nii.gz")
    rng = np.random.default_rng(0)
    for number in range(24):
        x, y, z = rng.integers(2, 20, 3)
        mask = np.zeros(SHAPE, np.uint8)
        mask[x : x + 18, y : y + 14, z : z + 16] = 1
        save_nifti(tmp_path / f"m{number}.nii.gz", mask)
    peaks = []
    for count in (2, 24):
        row = {"study": "a", "volume": "ct.nii.gz"}
        row |= {f"mask:part {n}": f"m{n}.nii.gz" for n in range(count)}
        source = read_manifest_dataset(write_csv(tmp_path / "m.csv", [row])).sources[0]
        settings = StoreSettings(spec=SPEC, margin_voxels=(4, 4, 2))
        pack_study(source.load(), settings)  # imports and caches
        tracemalloc.start()
        packed = pack_study(source.load(), settings)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(packed.record.regions) == count
        assert (packed.record.regions_RXYZ.sum(axis=(1, 2, 3)) > 0).all()
    assert peaks[1] - peaks[0] < 4 * voxels
