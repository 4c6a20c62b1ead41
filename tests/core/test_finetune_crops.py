"""Prepared scans and crops against MONAI's transforms, which the method's authors use."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import torch
from made_segmentation import luna16_task
from monai.transforms import (
    Compose,
    CropForegroundd,
    Flip,
    Orientationd,
    ScaleIntensity,
    ScaleIntensityRanged,
    ShiftIntensity,
)
from monai.transforms.utils import correct_crop_centers, map_binary_to_indices

from simcrop_core.counter_random import seed_of, uniform
from simcrop_core.errors import SimCroPError
from simcrop_core.finetune import segmentation_scans
from simcrop_core.finetune.crops import (
    CropLoader,
    RawCrops,
    _nth,
    draw_corner,
    value_changes,
    varied,
)
from simcrop_core.finetune.segmentation_scans import (
    QUANTA,
    PreparedScan,
    ScanFolder,
    open_split,
    parted,
    prepared,
    share_of,
)
from simcrop_core.geometry import Grid, axis_aligned_affine
from simcrop_core.input_spec import InputSpec
from simcrop_core.train.finetuning import SEGMENTATION_TASKS, SegmentationAugmentation
from simcrop_core.volume import CTVolume

STILL = SegmentationAugmentation(flip=0, scale_chance=0, shift_chance=0)
SIZE = (6, 4, 5)


def made_scan(name: str = "a", shape: tuple[int, int, int] = (14, 11, 9)) -> PreparedScan:
    rng = np.random.default_rng(sum(map(ord, name)))
    image = rng.integers(-QUANTA, QUANTA, shape).astype(np.int16)
    labels = (rng.random(shape) < 0.1).astype(np.uint8) * rng.integers(1, 4, shape, np.uint8)
    return PreparedScan(
        name,
        image,
        labels,
        (labels > 0).sum(axis=(1, 2)),
        ((labels == 0) & (image > 0)).sum(axis=(1, 2)),
    )


def loader(scans: list[PreparedScan], **changes: object) -> CropLoader:
    settings = {"crops": 4, "batch_size": 4, "size": SIZE, "seed": 3} | changes
    return CropLoader(scans, **settings)  # type: ignore[arg-type]


# -- preparing ----------------------------------------------------------------------------------


def test_a_prepared_scan_is_what_the_authors_transforms_make() -> None:
    rng = np.random.default_rng(1)
    hu = np.full((12, 10, 9), -1000, np.int16)
    hu[2:9, 3:8, 1:7] = rng.integers(-1500, 1500, (7, 5, 6))
    labels = rng.integers(0, 3, hu.shape).astype(np.uint8)
    spacing = (1.5, 1.5, 3.0)
    grid = Grid(hu.shape, axis_aligned_affine("LPS", spacing, (0, 0, 0), hu.shape))
    spec = InputSpec(spacing_mm=spacing, orientation="RAS")
    values, found = prepared(CTVolume(hu, grid), labels, spec, (1, 1, 1))
    keys = ["image", "label"]
    transforms = Compose(
        [
            Orientationd(keys, axcodes="RAS", labels=(("L", "R"), ("P", "A"), ("I", "S"))),
            ScaleIntensityRanged(["image"], -1000, 1000, -1.0, 1.0, clip=True),
            CropForegroundd(keys, source_key="image", allow_smaller=True),
        ]
    )
    from monai.data import MetaTensor

    affine = torch.tensor(grid.affine)
    theirs = transforms(
        {
            "image": MetaTensor(torch.from_numpy(hu[None].astype(np.float32)), affine),
            "label": MetaTensor(torch.from_numpy(labels[None]), affine),
        }
    )
    np.testing.assert_allclose(values, theirs["image"][0].numpy(), atol=1e-5)
    np.testing.assert_array_equal(found, theirs["label"][0].numpy())


def test_a_small_scan_is_continued_with_air() -> None:
    hu = np.full((4, 5, 6), 100, np.int16)
    grid = Grid(hu.shape, axis_aligned_affine("LPS", (1, 1, 1), (0, 0, 0), hu.shape))
    labels = np.ones(hu.shape, np.uint8)
    spec = InputSpec(spacing_mm=(1, 1, 1))
    values, found = prepared(CTVolume(hu, grid), labels, spec, (7, 5, 8))
    assert values.shape == found.shape == (7, 5, 8)
    assert (values[1:5, :, 1:7] == np.float32(0.1)).all()
    assert found.sum() == hu.size
    assert (values[found == 0] == -1).all()


def test_prepared_scans_are_found_again_and_damaged_ones_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = luna16_task(tmp_path, range(2), range(2, 3))
    task = SEGMENTATION_TASKS["luna16"]
    path = Path(folders["lists"]) / "LUNA16" / "dataset_100.json"
    sources = open_split(task, Path(folders["root"]), path, "train")
    spec = InputSpec(spacing_mm=(12, 12, 12))
    kept = ScanFolder(tmp_path / "scans", spec, (8, 8, 8))
    told: list[str] = []
    first = kept.scans(sources, lambda what, done, total: told.append(what))
    assert told == [f"preparing {source.id}" for source in sources]
    images = [np.array(scan.image_HWD) for scan in first]  # what is on the disk will change
    inside = [int((scan.labels_HWD > 0).sum()) for scan in first]
    assert [int(scan.inside_H.sum()) for scan in first] == inside

    calls = []
    write = segmentation_scans._write
    monkeypatch.setattr(
        segmentation_scans, "_write", lambda *a: (calls.append(a[0].name), write(*a))
    )
    kept.scans(sources, lambda *_: None)
    assert calls == []
    place = next((tmp_path / "scans").iterdir())
    image = (place / "image.npy").read_bytes()
    (place / "image.npy").write_bytes(image[:-20])
    again = kept.scans(sources, lambda *_: None)
    assert calls == [place.name]
    for image_HWD, other in zip(images, again, strict=True):
        np.testing.assert_array_equal(image_HWD, other.image_HWD)
    # Another run that shares the folder may be faster, and then its scan is taken.

    def slower(*given: object) -> None:
        write(*given)  # type: ignore[arg-type]
        raise SimCroPError("It cannot be written", code="cannot-write", remedy="Wait.")

    (place / "card.json").unlink()
    monkeypatch.setattr(segmentation_scans, "_write", slower)
    kept.scans(sources, lambda *_: None)
    (place / "card.json").unlink()

    def fails(*_: object) -> None:
        raise SimCroPError("It cannot be written", code="cannot-write", remedy="Make room.")

    monkeypatch.setattr(segmentation_scans, "_write", fails)
    with pytest.raises(SimCroPError, match="It cannot be written"):
        kept.scans(sources, lambda *_: None)
    monkeypatch.setattr(
        segmentation_scans, "_write", lambda *a: (calls.append(a[0].name), write(*a))
    )
    kept.scans(sources, lambda *_: None)
    calls.pop()
    # Other spacings are other scans.
    ScanFolder(tmp_path / "scans", InputSpec(spacing_mm=(20, 20, 20)), (8, 8, 8)).scan(sources[0])
    assert len(calls) == 2


# -- where crops lie ----------------------------------------------------------------------------


def test_middles_are_numbered_as_monai_finds_them() -> None:
    scan = made_scan()
    inside, beside = map_binary_to_indices(
        scan.labels_HWD[None], scan.image_HWD[None], image_threshold=0
    )
    for positive, theirs in ((True, inside), (False, beside)):
        ours = [_nth(scan, positive, n) for n in range(len(theirs))]
        expected = np.stack(np.unravel_index(theirs, scan.labels_HWD.shape), axis=1)
        np.testing.assert_array_equal(ours, expected)


def test_corners_are_those_of_monai_s_corrected_middles(monkeypatch: pytest.MonkeyPatch) -> None:
    scan, size = made_scan(), (6, 4, 5)
    shape = scan.image_HWD.shape
    for middle in np.ndindex(shape):
        monkeypatch.setattr("simcrop_core.finetune.crops._nth", lambda *_, at=middle: at)
        theirs = correct_crop_centers([int(c) for c in middle], size, shape)
        corner = tuple(int(c) - n // 2 for c, n in zip(theirs, size, strict=True))
        assert draw_corner(scan, size, 0) == corner


def test_half_of_the_crops_are_drawn_on_structures() -> None:
    shape = (30, 30, 30)
    labels = np.zeros(shape, np.uint8)
    labels[10:12, 10:12, 10:12] = 1
    image = np.full(shape, 5, np.int16)
    image[:, :, :15] = -5  # air
    image[labels > 0] = -5
    counts = (labels > 0).sum(axis=(1, 2)), ((labels == 0) & (image > 0)).sum(axis=(1, 2))
    scan = PreparedScan("a", image, labels, *counts)
    middles = np.array([draw_corner(scan, (1, 1, 1), seed) for seed in range(2000)])
    on = labels[tuple(middles.T)] > 0
    assert on.mean() == pytest.approx(0.5, abs=0.04)
    assert (image[tuple(middles[~on].T)] > 0).all()
    # Even where one of the two is nowhere.
    empty = PreparedScan("b", image, labels * 0, counts[0] * 0, counts[1])
    corner = draw_corner(empty, (1, 1, 1), 1)
    assert image[corner] > 0
    nothing = PreparedScan("c", -abs(image), labels * 0, counts[0] * 0, counts[1] * 0)
    assert all(0 <= at < 30 for at in draw_corner(nothing, (1, 1, 1), 1))


# -- which crops --------------------------------------------------------------------------------


def test_a_sample_follows_from_seed_epoch_and_index_alone() -> None:
    scans = [made_scan(name) for name in "abc"]

    def samples(batches: CropLoader, passes: int) -> list[tuple[int, bytes]]:
        raws = [batches.batch(n) for n in range(passes * len(batches))]
        return [
            (int(seed), image.tobytes() + labels.tobytes())
            for raw in raws
            for image, labels, seed in zip(*raw, strict=True)
        ]

    small, large = loader(scans), loader(scans, batch_size=6)
    one = samples(small, 2)
    assert one == samples(large, 2)
    assert dict(one) == dict(samples(loader(scans, scan_by_scan=True), 2))
    expected = {seed_of(3, epoch, index) for epoch in range(2) for index in range(12)}
    assert {seed for seed, _ in one} == expected
    assert dict(one).keys().isdisjoint(dict(samples(loader(scans, seed=4), 2)))


def test_threads_change_nothing_and_the_place_is_kept() -> None:
    scans = [made_scan(name) for name in "abc"]
    plain = iter(loader(scans, batch_size=5))
    first = [next(plain) for _ in range(7)]
    threaded = loader(scans, batch_size=5, workers=3)
    batches = iter(threaded)
    for number in range(4):
        assert next(batches).image_BHWD.tobytes() == first[number].image_BHWD.tobytes()
    state = threaded.state_dict()
    batches.close()  # type: ignore[attr-defined]
    again = loader(scans, batch_size=5)
    again.load_state_dict(state)
    rest = iter(again)
    for number in range(4, 7):
        assert next(rest).seeds_B.tolist() == first[number].seeds_B.tolist()


def test_the_authors_order_is_scan_by_scan() -> None:
    scans = [made_scan(name) for name in "abc"]
    by_scan = loader(scans, scan_by_scan=True)
    owners = []
    for number in range(3):
        seeds = by_scan.batch(number).seeds_B.tolist()
        index = {seed_of(3, 0, i): i for i in range(12)}
        owners.append({index[seed] // 4 for seed in seeds})
    assert sorted(map(sorted, owners)) == [[0], [1], [2]]
    mixed = loader(scans)
    assert any(len({i // 4 for i in mixed._order(0)[n : n + 4]}) > 1 for n in (0, 4, 8))


def test_held_out_scans_and_shares_follow_from_names(tmp_path: Path) -> None:
    folders = luna16_task(tmp_path, range(5), range(5, 6))
    task = SEGMENTATION_TASKS["luna16"]
    path = Path(folders["lists"]) / "LUNA16" / "dataset_100.json"
    sources = open_split(task, Path(folders["root"]), path, "train")
    small, large = share_of(sources, 0.4), share_of(sources, 0.8)
    assert (len(small), len(large)) == (2, 4)
    assert {s.id for s in small} < {s.id for s in large}
    assert len(share_of(sources, 0.01)) == 1
    trained, held = parted(sources, 2)
    assert (len(trained), len(held)) == (3, 2)
    assert {s.id for s in trained} | {s.id for s in held} == {s.id for s in sources}
    assert parted(sources[::-1], 2)[1] == held[::-1]
    assert parted(sources, None)[1] == []  # fewer than ten


# -- how they are varied ------------------------------------------------------------------------


def raw_crops(count: int) -> RawCrops:
    scan = made_scan(shape=(20, 20, 20))
    whole = loader([scan], crops=count, batch_size=count)
    return whole.batch(0)


def test_released_transforms_are_monai_s_with_the_drawn_numbers() -> None:
    raw, config = raw_crops(400), SegmentationAugmentation(scale_chance=0.5, shift_chance=0.5)
    batch = varied(raw, torch.device("cpu"), config)
    seeds = torch.from_numpy(raw.seeds_B)
    flips = uniform(seeds, 3, "crops/flip") < config.flip
    factors, shifts = value_changes(seeds, config)
    for row in range(40):
        image = raw.image_BHWD[row][None].astype(np.float32) / QUANTA
        labels = raw.labels_BHWD[row][None]
        for axis in range(3):
            if flips[row, axis]:
                image, labels = Flip(spatial_axis=axis)(image), Flip(spatial_axis=axis)(labels)
        image = ScaleIntensity(minv=None, maxv=None, factor=float(factors[row]) - 1)(image)
        image = ShiftIntensity(offset=float(shifts[row]))(image)
        np.testing.assert_allclose(batch.volume_B1HWD[row], np.asarray(image), atol=1e-6)
        np.testing.assert_array_equal(batch.labels_BHWD[row], np.asarray(labels)[0])


def test_chances_and_sizes_are_the_authors() -> None:
    seeds = torch.arange(20_000) * 7 + 1
    config = SegmentationAugmentation()
    factors, shifts = value_changes(seeds, config)
    for drawn in (factors - 1, shifts):
        changed = drawn[drawn != 0]
        assert len(changed) / len(drawn) == pytest.approx(0.1, abs=0.01)
        assert changed.abs().max() <= 0.1 + 1e-6
        assert changed.mean() == pytest.approx(0, abs=0.005)
        assert changed.std() == pytest.approx(0.2 / math.sqrt(12), rel=0.05)
    flips = uniform(seeds, 3, "crops/flip") < config.flip
    np.testing.assert_allclose(flips.float().mean(dim=0), [0.2] * 3, atol=0.01)
    assert np.corrcoef(flips.T.numpy())[0, 1] == pytest.approx(0, abs=0.03)


def test_an_axis_that_is_not_mirrored_stays() -> None:
    raw = raw_crops(60)
    config = SegmentationAugmentation(flip=1, scale_chance=0, shift_chance=0)
    batch = varied(raw, torch.device("cpu"), config, flipped_axes=(1, 2))
    np.testing.assert_array_equal(batch.labels_BHWD, raw.labels_BHWD[:, :, ::-1, ::-1])


def test_a_sample_is_varied_alike_in_any_batch() -> None:
    raw = raw_crops(8)
    config = SegmentationAugmentation(
        rotation_degrees=20, zoom=0.2, spatial_chance=0.7, noise=0.2, noise_chance=0.7
    )
    whole = varied(raw, torch.device("cpu"), config)
    for row in range(8):
        alone = varied(
            RawCrops(*(part[row : row + 1] for part in raw)), torch.device("cpu"), config
        )
        torch.testing.assert_close(alone.volume_B1HWD[0], whole.volume_B1HWD[row])
        assert torch.equal(alone.labels_BHWD[0], whole.labels_BHWD[row])


@pytest.mark.parametrize("axial", [(0, 1), (1, 2)])
def test_a_turn_with_zoom_is_that_of_scipy(axial: tuple[int, int]) -> None:
    size = (16, 20, 12)
    smooth = scipy.ndimage.gaussian_filter(np.random.default_rng(2).normal(size=size), 2)
    image = np.rint(smooth / np.abs(smooth).max() * QUANTA).astype(np.int16)
    labels = (smooth > 0).astype(np.uint8)
    raw = RawCrops(image[None], labels[None], np.array([77]))
    config = STILL.model_copy(update={"rotation_degrees": 30.0, "zoom": 0.2, "spatial_chance": 1.0})
    batch = varied(raw, torch.device("cpu"), config, axial=axial)
    u = uniform(torch.tensor([77]), 3, "crops/turn")[0]
    angle = math.radians(30) * (2 * float(u[1]) - 1)
    zoom = 1 + 0.2 * (2 * float(u[2]) - 1)
    matrix = np.eye(3)
    p, q = axial
    matrix[p, p] = matrix[q, q] = math.cos(angle)
    matrix[p, q], matrix[q, p] = -math.sin(angle), math.sin(angle)
    matrix /= zoom
    middle = (np.array(size) - 1) / 2
    expected = scipy.ndimage.affine_transform(
        image / QUANTA, matrix, middle - matrix @ middle, order=1, mode="nearest"
    )
    np.testing.assert_allclose(batch.volume_B1HWD[0, 0], expected, atol=1e-4)
    nearest = scipy.ndimage.affine_transform(
        labels, matrix, middle - matrix @ middle, order=0, mode="nearest"
    )
    assert (batch.labels_BHWD[0].numpy() == nearest).mean() > 0.999
