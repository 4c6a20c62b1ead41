"""Public data sets without reports, each in its layouts, from file to store."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from made_public import (
    LUNA_UID,
    SPACING,
    cc_ccii_list,
    luna16_list,
    lungs_of,
    make_btcv,
    make_cc_ccii,
    make_ct_rate,
    make_luna16,
    make_radchestct,
    mask_list,
    organs_of,
    phantom,
    radchestct_list,
    radchestct_row,
    save,
    write_list,
)
from made_store import MINILM, SPEC
from simcrop_training.cli import main

from simcrop_core.datasets import open_dataset, preflight, read_case_list
from simcrop_core.datasets.btcv import ORGANS
from simcrop_core.datasets.luna16 import STRUCTURES, Nodule, ball
from simcrop_core.datasets.radchestct import FINDINGS_OF
from simcrop_core.errors import SimCroPError
from simcrop_core.geometry import Grid
from simcrop_core.statements import FINDINGS
from simcrop_core.store import StoreSettings, build_store, open_store
from simcrop_core.study import Study

A, B = f"{LUNA_UID}111", f"{LUNA_UID}222"


def same_body(study: Study, seed: int, clipped: bool = False) -> None:
    """The scan shows the phantom the right way round, voxel by voxel."""
    own = phantom(seed).volume
    hu = own.hu_XYZ.clip(-1000, 1000) if clipped else own.hu_XYZ
    axes, signs = study.volume.grid.nearest_axes()
    turned = study.volume.hu_XYZ.transpose([axes.index(a) for a in range(3)])
    flips = tuple(slice(None, None, signs[axes.index(a)]) for a in range(3))
    target = np.flip(hu, axis=(0, 1))  # the phantom's axes run to L, P, S; the world's to R, A, S
    np.testing.assert_array_equal(turned[flips], target)


# -- RadChestCT ---------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["published", "authors"])
def test_radchestct(tmp_path: Path, layout: str) -> None:
    seeds = {"trn00001": 0, "trn00002": 2, "tst00003": 1}
    make_radchestct(tmp_path, seeds, layout)
    listed = radchestct_list(tmp_path / "lists" / "l.csv", {"tst00003": 1, "trn00001": 0})
    dataset = open_dataset(f"radchestct:{tmp_path}", cases=listed)
    assert dataset.ids == ("tst00003", "trn00001")
    assert {f.code for f in preflight(dataset).faults} == {"identical-labels"}
    study = pickle.loads(pickle.dumps(dataset.sources[1])).load()
    same_body(study, 0, clipped=layout == "published")
    expected = (0.8, 0.8, 0.8) if layout == "published" else SPACING
    assert study.volume.spacing_mm == pytest.approx(expected)
    assert study.report is None
    assert open_dataset(f"radchestct:{tmp_path}").ids == tuple(sorted(seeds))
    assert open_dataset(f"radchestct:{tmp_path}", split="test").ids == ("tst00003",)
    with pytest.raises(SimCroPError, match="There is no split 'dev' of RadChestCT"):
        open_dataset(f"radchestct:{tmp_path}", split="dev")


def test_a_merged_label_that_is_1_leaves_open_which_finding_is_there(tmp_path: Path) -> None:
    rows = [
        {"NoteAcc_DEID": f"trn0000{n}", **radchestct_row(1), "Calcification": n, "Emphysema": n}
        for n in (0, 1)
    ]
    cases = write_list(tmp_path / "l.csv", rows)
    make_radchestct(tmp_path, {"trn00000": 1, "trn00001": 1})
    dataset = open_dataset(f"radchestct:{tmp_path}", cases=cases)
    without, with_one = (source.load().facts.labels() for source in dataset.sources)
    both = ("Arterial wall calcification", "Coronary artery wall calcification")
    assert [without[n] for n in both] == [0, 0]
    assert [with_one[n] for n in both] == [-1, -1]
    assert (without["Emphysema"], with_one["Emphysema"]) == (0, 1)
    assert without["Mosaic attenuation pattern"] == -1
    assert with_one["Hiatal hernia"] == 0  # spelled otherwise in the lists


def test_every_label_of_radchestct_has_its_findings(real_data: Path) -> None:
    cases = read_case_list(real_data / "lists" / "RadChestCT" / "test_list.csv", classes=2)
    assert cases.columns == tuple(FINDINGS_OF)
    assert {f for found in FINDINGS_OF.values() for f in found} == set(FINDINGS) - {
        "Mosaic attenuation pattern"
    }


def test_labels_that_are_the_same_in_every_row_are_named_and_not_believed(
    real_data: Path, tmp_path: Path
) -> None:
    cases = real_data / "lists" / "RadChestCT" / "test_list.csv"
    dataset = open_dataset(f"radchestct:{tmp_path}", cases=cases)
    warned = [f for f in preflight(dataset).faults if f.code == "identical-labels"]
    assert len(warned) == 1
    assert not warned[0].blocks
    assert "Pericardial effusion and Pleural effusion are the same in all 360" in warned[0].problem
    labels = {name for source in dataset.sources for name, _ in source.labels}  # type: ignore[attr-defined]
    assert "Pleural effusion" not in labels
    assert "Pericardial effusion" not in labels
    assert "Emphysema" in labels


def test_the_labels_that_no_published_list_tells_apart_are_doubted_in_a_short_list_too(
    tmp_path: Path,
) -> None:
    def dataset(pericardial: int) -> tuple[list[str], set[str]]:
        rows = [
            {"id": "trn00001", **radchestct_row(0)}
            | {"Pericardial effusion": pericardial, "Pleural effusion": 0}
        ]
        found = open_dataset(f"radchestct:{tmp_path}", cases=write_list(tmp_path / "l.csv", rows))
        (source,) = found.sources
        return [f.code for f in found.faults], {name for name, _ in source.labels}  # type: ignore[attr-defined]

    codes, labels = dataset(0)
    assert codes == ["identical-labels"]
    assert not {"Pericardial effusion", "Pleural effusion"} & labels
    codes, labels = dataset(1)
    assert codes == []
    assert {"Pericardial effusion", "Pleural effusion"} <= labels


# -- CC-CCII ------------------------------------------------------------------------------------


def test_cc_ccii(tmp_path: Path) -> None:
    make_cc_ccii(tmp_path, {"90": 0, "3699": 2})
    cases = cc_ccii_list(tmp_path / "l.csv", {"3699": 2, "90": 0})
    dataset = open_dataset(f"cc-ccii:{tmp_path}", cases=cases)
    assert dataset.ids == ("3699", "90")
    assert not preflight(dataset).faults
    study = dataset.study(0)
    same_body(study, 2)
    assert study.volume.spacing_mm == (3.0, 1.5, 1.5)
    assert {"header-not-trusted", "assumed-geometry"} <= {n.code for n in study.volume.notes}
    assert open_dataset(f"cc-ccii:{tmp_path}").ids == ("90", "3699")


def test_pictures_of_cc_ccii_are_read_as_they_are_with_a_note(tmp_path: Path) -> None:
    grey = (phantom(0).volume.hu_XYZ.clip(-1000, 1000) * 0.1 + 120).clip(0, 255).astype(np.uint8)
    save(tmp_path / "images_resized" / "7.nii.gz", grey, np.eye(4))
    volume = open_dataset(f"cc-ccii:{tmp_path}").study(0).volume
    np.testing.assert_array_equal(volume.hu_XYZ, grey)
    assert "not-a-ct" in {n.code for n in volume.notes}


# -- LUNA16 -------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["published", "authors"])
def test_luna16(tmp_path: Path, layout: str) -> None:
    lungs = np.argwhere(lungs_of(0) == 2)
    grid = phantom(0).volume.grid
    center = grid.to_world(lungs[len(lungs) // 2])
    nodules = {A: [(*center, 30.0), (*center, 1.0), (900.0, 0.0, 0.0, 5.0)]}
    make_luna16(tmp_path, {A: 0, B: 1}, layout, nodules)
    cases = luna16_list(tmp_path / "lists" / "train_list.csv", {B: 0, A: 1})
    dataset = open_dataset(f"luna16:{tmp_path}", cases=cases)
    assert dataset.ids == (B, A)
    assert not preflight(dataset).faults
    without, study = dataset.study(0), dataset.study(1)
    same_body(study, 0)
    assert study.volume.spacing_mm == pytest.approx(SPACING)
    assert study.structure_names == STRUCTURES
    np.testing.assert_array_equal(study.structures_XYZ, lungs_of(0))
    assert list(study.regions) == ["nodule 1", "nodule 2"]
    ras = study.volume.grid.to_world(np.argwhere(study.regions["nodule 1"]))
    assert np.linalg.norm(ras - center, axis=1).max() <= 15
    assert len(ras) > 10
    # 1 mm between voxels of 8 mm: the voxel that holds it.
    assert study.regions["nodule 2"].sum() == 1
    assert [n.text for n in study.volume.notes if n.code == "nodule-elsewhere"] == [
        "1 of 3 annotated nodules lie outside of the scan."
    ]
    assert study.facts.labels()["Lung nodule"] == 1
    assert without.facts.labels()["Lung nodule"] == -1  # smaller ones are not listed
    assert not without.regions
    assert "sides-disagree" not in {n.code for n in study.volume.notes}


@pytest.mark.parametrize("called", ["d.json", "d.txt"])
def test_luna16_by_a_json_list(called: str, tmp_path: Path) -> None:
    make_luna16(tmp_path, {A: 0, B: 1}, "authors")
    pairs = [
        {"image": f"images/{n}.nii.gz", "label": f"masks_processed/{n}.nii.gz"} for n in (A, B)
    ]
    cases = mask_list(tmp_path / called, STRUCTURES, {"training": pairs[:1], "testing": pairs[1:]})
    assert open_dataset(f"luna16:{tmp_path}", cases=cases, split="train").ids == (A,)
    assert open_dataset(f"luna16:{tmp_path}", cases=cases, split="test").ids == (B,)
    assert open_dataset(f"luna16:{tmp_path}", cases=cases).ids == (A, B)
    with pytest.raises(SimCroPError, match="no split 'train' of LUNA16"):
        open_dataset(f"luna16:{tmp_path}", split="train")


def test_lungs_whose_sides_are_exchanged_are_noted(tmp_path: Path) -> None:
    make_luna16(tmp_path, {A: 0}, "authors")
    exchanged = np.array([0, 2, 1, 3], np.uint8)[lungs_of(0)]
    affine = phantom(0).volume.grid.affine
    save(tmp_path / "masks_processed" / f"{A}.nii.gz", exchanged, affine)
    notes = open_dataset(f"luna16:{tmp_path}").study(0).volume.notes
    assert "sides-disagree" in {n.code for n in notes}


def test_a_ball_is_all_voxels_within_its_radius() -> None:
    affine = np.array([[0, -2.0, 0.3, 5], [1.5, 0, 0, -9], [0, 0, 4.0, 2], [0, 0, 0, 1]])
    grid = Grid((20, 16, 12), affine)
    center = grid.to_world([9.3, 8.8, 6.1])
    for diameter in (0.5, 6.0, 17.0, 60.0):
        mask = ball(grid, Nodule(*center, diameter))
        every = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), -1)
        near = np.linalg.norm(grid.to_world(every) - center, axis=-1) <= diameter / 2
        near[9, 9, 6] = True
        np.testing.assert_array_equal(mask, near)
    assert ball(grid, Nodule(500, 0, 0, 6)) is None


def test_a_list_and_annotations_that_disagree_are_named(tmp_path: Path) -> None:
    make_luna16(tmp_path, {A: 0, B: 1}, "authors", {A: [(0.0, 0.0, 0.0, 9.0)]})
    cases = luna16_list(tmp_path / "lists" / "l.csv", {A: 0, B: 1})
    found = preflight(open_dataset(f"luna16:{tmp_path}", cases=cases))
    assert [(f.study, f.code) for f in found.faults] == [
        (A, "labels-disagree"),
        (B, "labels-disagree"),
    ]
    assert found.usable == 2


# -- BTCV ---------------------------------------------------------------------------------------


def test_btcv(tmp_path: Path) -> None:
    splits = {"training": {"btcv_001": 0}, "validation": {"btcv_035": 1}, "test": {"img0061": 2}}
    make_btcv(tmp_path, splits)
    dataset = open_dataset(f"btcv:{tmp_path}")
    assert dataset.ids == ("btcv_001", "btcv_035", "img0061")
    assert not preflight(dataset).faults
    study = dataset.study(0)
    same_body(study, 0)
    assert study.structure_names == ORGANS
    np.testing.assert_array_equal(study.structures_XYZ, organs_of(0))
    assert dataset.study(2).structures_XYZ is None
    assert open_dataset(f"btcv:{tmp_path}", split="valid").ids == ("btcv_035",)


# -- all of them --------------------------------------------------------------------------------


def made(kind: str, root: Path) -> list[str]:
    """A data set of the scans of two phantoms; what chooses them on the command line."""
    cases = root / "lists" / "l.csv"
    if kind == "ct-rate":
        make_ct_rate(root, {"train_1_a_1": 0, "train_2_a_1": 1})
        return ["--split", "train"]
    if kind == "radchestct":
        make_radchestct(root, {"trn00001": 0, "trn00002": 1})
        return ["--split", "train"]
    if kind == "cc-ccii":
        make_cc_ccii(root, {"90": 0, "91": 1})
        return ["--list", str(cc_ccii_list(cases, {"90": 0, "91": 1}))]
    if kind == "luna16":
        make_luna16(root, {A: 0, B: 1}, "published", {A: [(40.0, 0.0, 0.0, 20.0)]})
        return ["--list", str(luna16_list(cases, {A: 1, B: 0}))]
    make_btcv(root, {"training": {"btcv_001": 0, "btcv_002": 1}})
    return ["--split", "train"]


KINDS = ("ct-rate", "radchestct", "cc-ccii", "luna16", "btcv")
SIZES = ("--shape", "32,24,16", "--spacing", "6,6,12", "--patch", "8,8,4", "--margin", "0,0,0")


def test_a_list_of_both_splits_is_refused_whatever_it_is_called(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, store = tmp_path / "data", tmp_path / "store"
    make_btcv(root, {"training": {"btcv_001": 0}, "validation": {"btcv_035": 1}})
    both = (root / "dataset.json").read_text()
    path = tmp_path / "list.txt"
    command = ["prepare", f"btcv:{root}", "--store", str(store), "--workers", "1", *SIZES]
    for text in (both, f"\n  {both}"):
        path.write_text(text)
        assert main([*command, "--list", str(path)]) == 2
        assert "would be put into one store" in capsys.readouterr().err
    assert not store.exists()
    path.write_text(json.dumps({**json.loads(both), "validation": []}))
    assert main([*command, "--list", str(path)]) == 0
    assert len(open_store(store)) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_prepare_takes_them_all(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, store = tmp_path / "data", tmp_path / "store"
    chosen = made(kind, root)
    source = f"{kind}:{root}"
    command = ["prepare", source, "--store", str(store), "--workers", "1", *SIZES]
    assert main([*command]) == 2
    assert "would be put into one store" in capsys.readouterr().err
    assert main(["prepare", source, *chosen, "--preflight"]) == 0
    assert "2 studies; nothing" in capsys.readouterr().out.replace(", 2 can be prepared", "")
    assert main([*command, *chosen]) == 0
    opened = open_store(store)
    assert len(opened) == 2
    assert opened.volume(0).std() > 50
    if kind in ("luna16", "btcv"):
        assert opened.structures(0) is not None
    if kind == "luna16":
        assert opened.record(0).regions == ("nodule 1",)
    before = {p: p.stat().st_mtime_ns for p in store.rglob("*.blosc2")}
    assert main([*command, *chosen]) == 0  # nothing is made twice
    assert {p: p.stat().st_mtime_ns for p in store.rglob("*.blosc2")} == before


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_missing_scan_is_named_and_the_others_are_prepared(kind: str, tmp_path: Path) -> None:
    root = tmp_path / "data"
    chosen = made(kind, root)
    options = dict(zip(("cases", "split"), (None, None), strict=True))
    options["cases" if chosen[0] == "--list" else "split"] = (  # type: ignore[assignment]
        Path(chosen[1]) if chosen[0] == "--list" else chosen[1]
    )
    dataset = open_dataset(f"{kind}:{root}", **options)  # type: ignore[arg-type]
    gone = Path(dataset.sources[1].volume)  # type: ignore[attr-defined]
    gone.unlink()
    found = preflight(dataset)
    assert [(f.study, f.part, f.code, f.blocks) for f in found.faults] == [
        (dataset.ids[1], "volume", "missing", True)
    ]
    settings = StoreSettings(spec=SPEC, margin_voxels=(0, 0, 0))
    tally = build_store(dataset.name, dataset.sources, tmp_path / "store", settings, MINILM)
    assert (tally.prepared, tally.skipped) == (1, 1)
    assert "no such file" in tally.problems[0][1].lower()


def test_a_study_is_stale_when_its_scan_mask_or_label_changes(tmp_path: Path) -> None:
    make_luna16(tmp_path, {A: 0}, "authors")
    cases = tmp_path / "lists" / "l.csv"

    def stamp(label: int) -> str:
        return (
            open_dataset(f"luna16:{tmp_path}", cases=luna16_list(cases, {A: label}))
            .sources[0]
            .stamp()
        )

    stamps = {stamp(0), stamp(1)}
    for folder in ("images", "masks_processed"):
        (tmp_path / folder / f"{A}.nii.gz").write_bytes(b"other")
        stamps.add(stamp(1))
    assert len(stamps) == 4


@pytest.mark.parametrize(
    ("kind", "rows", "word"),
    [
        ("radchestct", [{"id": "trn1", "Emphysema": 0}], "'trn1' is not the name of a scan of Rad"),
        ("radchestct", [{"id": "trn00001", "Emphysema": 2}], "Row 2: The label 'Emphysema' is 2"),
        ("radchestct", [{"id": "trn00001", "Emphysema": -1}], "is -1, not 0 or 1"),
        ("cc-ccii", [{"id": "../1.nii.gz", "label": 0}], "not the name of a scan of CC-CCII"),
        ("cc-ccii", [{"id": "1.nii.gz", "label": 3}], "'label' is 3, not 0 to 2"),
        ("luna16", [{"id": "7.nii.gz", "label": 0}], "'7' is not the name of a scan of LUNA16"),
        ("luna16", [{"id": f"{A}.nii.gz", "label": 2}], "'label' is 2, not 0 or 1"),
        ("luna16", [{"id": f"{A}.nii.gz"}], "no labels"),
        (
            "luna16",
            [{"id": A, "label": 0}, {"id": f"{A}.nii.gz", "label": 1}],
            "111' 2 times",
        ),
        (
            "cc-ccii",
            [{"id": "1", "label": 0}, {"id": "1.nii.gz", "label": 1}],
            "names '1' 2 times",
        ),
    ],
)  # fmt: skip
def test_bad_lists_are_refused_in_a_sentence(
    kind: str, rows: list[dict[str, object]], word: str, tmp_path: Path
) -> None:
    cases = write_list(tmp_path / "l.csv", rows)
    with pytest.raises(SimCroPError, match=word):
        open_dataset(f"{kind}:{tmp_path}", cases=cases)


@pytest.mark.parametrize("kind", KINDS)
def test_folders_that_hold_nothing_are_refused(kind: str, tmp_path: Path) -> None:
    with pytest.raises(SimCroPError, match="There is no such folder"):
        open_dataset(f"{kind}:{tmp_path / 'none'}")
    with pytest.raises(SimCroPError, match=r"No study is left|no csv of reports|not there"):
        open_dataset(f"{kind}:{tmp_path}")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"labels": {"0": "background", "1": "liver"}}, "2 labels with the background, not 14"),
        (
            {"training": [{"image": "../a.nii.gz", "label": "b"}]},
            "outside of the data set",
        ),
        ({"training": [{"image": "/a.nii.gz", "label": "b"}]}, "outside of the data set"),
        ({"training": [{"image": "a.nii.gz"}]}, "not a list of images and masks"),
        ({"testing": ["\udc80.nii.gz"]}, "not a list of images and masks"),
        ({"testing": ["a\0.nii.gz"]}, "not a list of images and masks"),
    ],
)
def test_bad_json_lists_are_refused(change: dict[str, object], word: str, tmp_path: Path) -> None:
    make_btcv(tmp_path, {"training": {"btcv_001": 0}})
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(SimCroPError, match=word):
        open_dataset(f"btcv:{tmp_path}")


@pytest.mark.parametrize(("kind", "value"), [("btcv", 14), ("luna16", 4)])
def test_a_mask_with_a_number_that_means_nothing_is_refused(
    kind: str, value: int, tmp_path: Path
) -> None:
    made(kind, tmp_path)
    dataset = open_dataset(f"{kind}:{tmp_path}")
    mask = tmp_path / "masks_processed" / f"{A}.nii.gz"
    mask = Path(dataset.sources[0].mask) if kind == "btcv" else mask  # type: ignore[attr-defined]
    wrong = np.where(organs_of(0) == 6, value, 0).astype(np.uint8)
    save(mask, wrong, phantom(0).volume.grid.affine)
    with pytest.raises(SimCroPError, match=f"holds the value {value}, and only 0 to {value - 1}"):
        open_dataset(f"{kind}:{tmp_path}").study(0)


def test_native_masks_of_luna16_hold_0_and_3_to_5(tmp_path: Path) -> None:
    make_luna16(tmp_path, {A: 0})
    from made_public import save_itk

    save_itk(tmp_path / "seg-lungs-LUNA16" / f"{A}.mhd", lungs_of(0), phantom(0).volume.grid)
    with pytest.raises(SimCroPError, match=r"holds the value [12], and only 0 and 3 to 5"):
        open_dataset(f"luna16:{tmp_path}").study(0)


@pytest.mark.parametrize("diameter", [-3.0, 1999.0])
def test_annotations_that_are_not_possible_are_refused(tmp_path: Path, diameter: float) -> None:
    make_luna16(tmp_path, {A: 0}, "authors", {A: [(0.0, 0.0, 0.0, diameter)]})
    with pytest.raises(SimCroPError, match="Row 2: The nodule's place or diameter"):
        open_dataset(f"luna16:{tmp_path}")


# -- the published lists ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "cases", "split", "rows"),
    [
        ("radchestct", "RadChestCT/train_list_10.csv", None, 229),
        ("radchestct", "RadChestCT/train_list.csv", None, 2286),
        ("radchestct", "RadChestCT/val_list.csv", "valid", 984),
        ("radchestct", "RadChestCT/test_list.csv", "test", 360),
        ("cc-ccii", "CC-CCII/train_list_1.csv", None, 29),
        ("cc-ccii", "CC-CCII/train_list.csv", None, 2899),
        ("cc-ccii", "CC-CCII/test_list.csv", None, 1243),
        ("luna16", "LUNA16/train_list_10.csv", None, 62),
        ("luna16", "LUNA16/test_list.csv", None, 267),
        ("luna16", "LUNA16/dataset_10.json", "train", 62),
        ("luna16", "LUNA16/dataset_100.json", "train", 620),
        ("luna16", "LUNA16/dataset_100.json", "test", 267),
        ("btcv", "BTCV/dataset.json", "train", 24),
        ("btcv", "BTCV/dataset.json", "valid", 6),
        ("btcv", "BTCV/dataset.json", "test", 20),
    ],
)
def test_published_lists_choose_their_scans(
    real_data: Path, tmp_path: Path, kind: str, cases: str, split: str | None, rows: int
) -> None:
    dataset = open_dataset(f"{kind}:{tmp_path}", cases=real_data / "lists" / cases, split=split)
    assert len(dataset) == rows
    assert len(set(dataset.ids)) == rows
