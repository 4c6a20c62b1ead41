"""The store holds what prepare() makes, regions survive crops exactly, damage is found."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from made_store import MINILM, SETTINGS, SPEC, MadeSource, made_store, region
from pydantic import ValidationError
from scipy.ndimage import gaussian_filter1d

from simcrop_core.counter_random import uniform
from simcrop_core.errors import SimCroPError
from simcrop_core.evaluate.cases import Said
from simcrop_core.evaluate.prior import MIN_EXAMPLES
from simcrop_core.input_spec import InputSpec
from simcrop_core.io.labels import labels_on
from simcrop_core.model.text import text_config_for
from simcrop_core.prepare import input_grid, prepare
from simcrop_core.statements import Meaning
from simcrop_core.store import (
    AugmentationConfig,
    Loader,
    RawBatch,
    Store,
    StoreSettings,
    build_store,
    open_store,
    to_batch,
)
from simcrop_core.store.batching import augment_intensity, crop_cells
from simcrop_core.store.cells import occupancy
from simcrop_core.store.codec import unpack
from simcrop_core.store.pack import pack_study, prepared_hu
from simcrop_core.store.prior import learn_prior
from simcrop_core.store.record import KINDS, Record
from simcrop_core.store.settings import cell_shape
from simcrop_core.store.text import text_number
from simcrop_core.study import Study
from simcrop_core.volume import CTVolume


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return made_store(tmp_path_factory.mktemp("store") / "s")


def raw_batch(store: Store, count: int = 4, **options: object) -> RawBatch:
    options = {"batch_size": count, "seed": 3, "workers": 0, "shuffle": False, **options}
    return next(iter(Loader(store, **options)))  # type: ignore[arg-type]


# -- volumes ------------------------------------------------------------------------------------


def test_evaluation_input_is_that_of_prepare(store: Store) -> None:
    batch = to_batch(raw_batch(store), "cpu")
    for row in range(4):
        expected = prepare(MadeSource(row).load().volume, SPEC).input_1HWD
        found_hu = batch.volume_B1HWD[row] * 1000
        assert (found_hu - expected * 1000).abs().max() <= 0.501  # the nearest whole number
        assert (found_hu - found_hu.round()).abs().max() < 1e-3


@pytest.mark.parametrize("padding", ["air", "edge"])
@pytest.mark.parametrize("placement", ["center", "lungs"])
def test_the_margin_continues_the_scan(padding: str, placement: str) -> None:
    spec = SPEC.model_copy(update={"padding": padding})
    study = MadeSource(5).load()
    made = StoreSettings(spec=spec, margin_voxels=(4, 4, 2), placement=placement)
    record = pack_study(study, made).record
    input_grid = prepare(study.volume, spec, placement=placement).grid
    # The input's own voxels lie in the middle ...
    stored = np.array(record.affine)
    first = np.linalg.inv(stored) @ np.append(input_grid.to_world((0, 0, 0)), 1)
    np.testing.assert_allclose(first[:3], (4, 4, 2), atol=1e-9)
    # ... and the margin is what a larger input would show there.
    if placement == "center":
        larger = spec.model_copy(update={"shape": made.shape, "patch_shape": made.cell_shape})
        expected = prepare(study.volume, larger)
        assert expected.grid.matches(type(expected.grid)(made.shape, stored))
        hu = prepared_hu(study.volume, expected.grid, made)
        assert np.abs(hu - expected.input_1HWD[0].numpy() * 1000).max() <= 0.501


def test_a_volume_on_the_prepared_grid_is_kept_as_it_is() -> None:
    scan = MadeSource(1).load().volume
    grid, _ = input_grid(scan, SPEC, "center", SETTINGS.margin_voxels)
    hu = np.random.default_rng(0).integers(-1500, 1500, grid.shape, dtype=np.int16)
    mask = hu > 900
    packed = pack_study(Study("a", CTVolume(hu, grid), regions={"x": mask}), SETTINGS)
    out = np.empty(SETTINGS.shape, np.int16)
    unpack(packed.volume, out)
    np.testing.assert_array_equal(out, hu.clip(-1000, 1000))
    np.testing.assert_array_equal(packed.record.regions_RXYZ[0], brute_cells(mask))
    np.testing.assert_allclose(packed.record.affine, grid.affine)


# -- regions ------------------------------------------------------------------------------------


def brute_cells(mask: np.ndarray, cell: tuple[int, int, int] = SETTINGS.cell_shape) -> np.ndarray:
    counts = np.zeros([n // c for n, c in zip(mask.shape, cell, strict=True)], int)
    for at in np.argwhere(mask):
        counts[tuple(at // np.array(cell))] += 1
    return counts


@settings(max_examples=25, deadline=None)
@given(
    arrays(bool, st.tuples(*[st.integers(1, 3)] * 3).map(lambda n: (n[0] * 4, n[1] * 3, n[2] * 2)))
)
def test_occupancy_counts_voxels(mask: np.ndarray) -> None:
    np.testing.assert_array_equal(occupancy(mask, (4, 3, 2)), brute_cells(mask, (4, 3, 2)))


def test_large_cells_do_not_overflow() -> None:
    counts = occupancy(np.ones((16, 16, 8), bool), (8, 8, 8))
    assert counts.dtype == np.uint16
    assert (counts == 512).all()


@pytest.mark.parametrize("cells", [None, (2, 2, 2), (4, 2, 4)])
def test_coverage_after_a_random_crop_counts_voxels(
    store: Store, cells: tuple[int, int, int] | None
) -> None:
    raw = raw_batch(store, 6)
    augmentation = AugmentationConfig()
    batch = to_batch(raw, "cpu", augmentation=augmentation, cells=cells)
    starts = crop_cells(raw.seeds_B, SETTINGS, SPEC, augmentation)
    assert len(set(starts)) > 2
    for row in range(6):
        study, record = MadeSource(row).load(), store.record(row)
        grid = store.grid(record)
        first = np.array(starts[row]) * SETTINGS.cell_shape
        crop = tuple(slice(a, a + n) for a, n in zip(first, SPEC.shape, strict=True))
        for sentence, facts in enumerate(study.sentences):
            expected = np.zeros(SPEC.grid_shape)
            expected_cells = np.zeros((*SPEC.grid_shape, *(cells or ())))
            if facts.region is not None:
                mask = study.regions[facts.region].astype(np.uint8)
                mask = labels_on(grid, mask, study.volume.grid, resample=True)[crop] > 0
                fine = np.array(SPEC.patch_shape) // (cells or (1, 1, 1))
                for at in np.argwhere(mask):
                    patch = tuple(at // np.array(SPEC.patch_shape))
                    expected[patch] += 1 / np.prod(SPEC.patch_shape)
                    if cells:
                        expected_cells[(*patch, *(at % SPEC.patch_shape // fine))] += (
                            1 / fine.prod()
                        )
            np.testing.assert_allclose(
                batch.region_BSN[row, sentence].reshape(SPEC.grid_shape), expected, atol=1e-6
            )
            assert bool(batch.region_mask_BS[row, sentence]) == bool(expected.any())
            assert bool(batch.outlined_BS[row, sentence]) == (facts.region is not None)
            if cells:
                assert batch.region_cells_BSNC is not None
                found = batch.region_cells_BSNC[row, sentence].reshape(expected_cells.shape)
                np.testing.assert_allclose(found, expected_cells, atol=1e-6)
    assert not batch.region_mask_BS[:, 3].any()
    assert batch.region_mask_BS[:, 0].any()


def test_the_prior_of_a_store_is_the_mean_region_in_the_middle(store: Store) -> None:
    prior, sums = learn_prior(store), {}
    batch = to_batch(raw_batch(store, len(store)), "cpu")
    for row in range(len(store)):
        for number, facts in enumerate(MadeSource(row).load().sentences):
            if bool(batch.region_mask_BS[row, number]):
                name = facts.region if facts.meaning == Meaning() else None
                key = (facts.kind, facts.meaning, name)
                sums.setdefault(key, []).append(batch.region_BSN[row, number].numpy())
    often = {key: values for key, values in sums.items() if len(values) >= MIN_EXAMPLES}
    assert often
    for (kind, meaning, name), values in often.items():
        found = prior.region(Said("", kind, meaning, name, None, None, None))
        np.testing.assert_allclose(found, np.mean(values, axis=0), atol=1e-6)


def test_structures_are_cropped_with_the_volume(store: Store) -> None:
    raw = raw_batch(store, structures=True)
    batch = to_batch(raw, "cpu", augmentation=AugmentationConfig())
    assert batch.structures_BHWD is not None
    starts = crop_cells(raw.seeds_B, SETTINGS, SPEC, AugmentationConfig())
    for row in range(4):
        study = MadeSource(row).load()
        grid = store.grid(store.record(row))
        whole = labels_on(grid, study.structures_XYZ, study.volume.grid, resample=True)
        first = np.array(starts[row]) * SETTINGS.cell_shape
        crop = tuple(slice(a, a + n) for a, n in zip(first, SPEC.shape, strict=True))
        np.testing.assert_array_equal(batch.structures_BHWD[row], whole[crop])
    assert store.record(0).structure_names == ("heart", "nodule", "both")
    assert to_batch(raw_batch(store), "cpu").structures_BHWD is None


# -- texts --------------------------------------------------------------------------------------


def test_stored_vectors_are_the_encoders(store: Store) -> None:
    _, encoder = text_config_for("minilm")
    assert encoder is not None
    assert store.text is not None
    assert store.text.encoder.fingerprint == encoder.fingerprint
    assert store.text.encoder.pad_id == encoder.pad_id
    report = MadeSource(2).load().report
    assert report is not None
    sample = store.sample(2)
    texts = [s.statement for s in report.in_section("findings")]
    expected = encoder.encode_sentences(texts).sentences_SD.numpy()
    np.testing.assert_allclose(sample.sentences_SD, expected, atol=1e-5)
    statements = [s.statement for s in report.sentences]
    tokens, _ = encoder.tokenize_report(statements)
    np.testing.assert_array_equal(sample.tokens_L, tokens.ids_BT[0])
    np.testing.assert_array_equal(sample.special_L, tokens.special_BT[0])
    mean = encoder.encode_report(statements)[0].mean(dim=0)
    np.testing.assert_allclose(sample.report_D, mean, atol=1e-5)
    other = encoder.encode_sentences(["There is a nodule in the left lung."]).sentences_SD
    np.testing.assert_allclose(sample.counterfactuals_CD, other, atol=1e-5)


def test_a_batch_says_what_the_studies_say(store: Store) -> None:
    batch = to_batch(raw_batch(store, 3), "cpu")
    tokens = store.sample(1).tokens_L
    assert batch.sentence_mask_BS.tolist() == [[True] * 4] * 3
    assert batch.kind_BS[1].tolist() == [0, 1, 2, 3]
    assert batch.meaning_BS4[1, 1].tolist() == list(Meaning.of("Lung nodule", "right"))
    assert batch.meaning_BS4[1, 0].tolist() == [-1, 0, 0, 1]
    assert batch.counterfactual_meaning_BC4[1, 0].tolist() == list(
        Meaning.of("Lung nodule", "left")
    )
    assert batch.counterfactual_mask_BC.tolist() == [[True]] * 3
    np.testing.assert_array_equal(batch.facts_BFSL[1], MadeSource(1).load().facts.table_FSL)
    assert batch.tokens_BL[1, : len(tokens)].tolist() == tokens.tolist()
    assert batch.attend_BL[1].sum() == len(tokens)
    assert batch.special_BL[1, len(tokens) :].all()
    assert store.record(1).wordings == ("wording-0", "wording-1", "wording-2", "wording-3")
    assert KINDS == ("organ", "finding", "negative", "unknown")


def test_the_same_text_has_one_vector(store: Store) -> None:
    assert store.text is not None
    # 12 nodule sentences that differ, 3 that all studies share, and one counterfactual.
    assert len(store.text) == 12 + 3 + 1
    with pytest.raises(KeyError):
        store.text.vectors([text_number("never said")])


def test_longer_studies_lose_sentences_and_tokens_by_their_seed(store: Store) -> None:
    def loader() -> RawBatch:
        return raw_batch(store, 6, max_sentences=2, max_tokens=9)

    raw, again = loader(), loader()
    assert raw.sentences_BSD.shape[1] == 2
    assert raw.tokens_BL.shape == (6, 9)
    closing = store.sample(0).tokens_L[-1]
    assert (raw.tokens_BL[:, -1] == int(closing)).all()
    torch.testing.assert_close(raw.sentences_BSD, again.sentences_BSD)
    kinds = {tuple(row) for row in raw.kind_BS.tolist()}
    assert len(kinds) > 1  # not always the first ones
    assert all(a < b for a, b in kinds)  # in the order of the report


def test_a_record_reads_back_as_written() -> None:
    packed = pack_study(MadeSource(4).load(), SETTINGS, "key")
    again = Record.from_bytes(packed.record.to_bytes())
    for name in Record.__dataclass_fields__:
        before, after = getattr(packed.record, name), getattr(again, name)
        if isinstance(before, np.ndarray):
            assert before.dtype == after.dtype
            np.testing.assert_array_equal(before, after)
        else:
            assert before == after


def test_a_study_without_report_or_sentences_is_padding_only(tmp_path: Path) -> None:
    class Bare(MadeSource):
        def load(self, spec: object = None, margin_voxels: object = None) -> Study:
            return Study(self.id, MadeSource(self.seed).load().volume)

    build_store("bare", [Bare(0), MadeSource(1)], tmp_path, SETTINGS, MINILM)
    batch = to_batch(raw_batch(open_store(tmp_path), 2), "cpu")
    assert not batch.sentence_mask_BS[0].any()
    assert not batch.attend_BL[0].any()
    assert batch.special_BL[0].all()
    assert not batch.report_BD[0].any()
    assert (batch.facts_BFSL[0] == -1).all()
    assert batch.attend_BL[1].any()


# -- augmentation -------------------------------------------------------------------------------


def test_crops_are_pieces_of_the_stored_volume_never_mirrored(store: Store) -> None:
    raw = raw_batch(store, 8)
    batch = to_batch(raw, "cpu", augmentation=AugmentationConfig())
    starts = crop_cells(raw.seeds_B, SETTINGS, SPEC, AugmentationConfig())
    for row, start in enumerate(starts):
        first = np.array(start) * SETTINGS.cell_shape
        assert all(0 <= s <= 2 * m for s, m in zip(first, SETTINGS.margin_voxels, strict=True))
        crop = tuple(slice(a, a + n) for a, n in zip(first, SPEC.shape, strict=True))
        expected = store.volume(row)[crop].astype(np.float32) / 1000
        np.testing.assert_allclose(batch.volume_B1HWD[row, 0], expected, atol=1e-6)
    still = to_batch(raw, "cpu", augmentation=AugmentationConfig(crop=False))
    torch.testing.assert_close(still.volume_B1HWD, to_batch(raw, "cpu").volume_B1HWD)


def test_every_place_of_the_margin_is_drawn() -> None:
    starts = crop_cells(torch.arange(4000), SETTINGS, SPEC, AugmentationConfig())
    places = 1 + 2 * np.array(SETTINGS.margin_voxels) // SETTINGS.cell_shape
    assert len(set(starts)) == np.prod(places)


@pytest.mark.parametrize("field", ["shift_hu", "scale", "noise_hu", "blur_mm"])
def test_each_augmentation_is_a_studys_own(store: Store, field: str) -> None:
    config = AugmentationConfig(
        **{field: 0.5 if field == "scale" else 20.0 if field != "blur_mm" else 9.0}
    )
    raw = raw_batch(store, 4)
    plain = to_batch(raw, "cpu", augmentation=AugmentationConfig())
    batch = to_batch(raw, "cpu", augmentation=config)
    assert all((a != b).any() for a, b in zip(batch.volume_B1HWD, plain.volume_B1HWD, strict=True))
    assert batch.volume_B1HWD.abs().max() <= 1
    alone = raw_batch(store, 1, indices=[2])
    single = to_batch(alone, "cpu", augmentation=config)
    torch.testing.assert_close(single.volume_B1HWD[0], batch.volume_B1HWD[2])
    never = config.model_copy(update={"probability": 0.0})
    torch.testing.assert_close(
        to_batch(raw, "cpu", augmentation=never).volume_B1HWD, plain.volume_B1HWD
    )


def test_sizes_of_augmentation_are_as_said() -> None:
    seeds = torch.arange(200)
    flat = torch.full((200, 8, 8, 4), 100.0)
    shift = augment_intensity(flat, seeds, SPEC, AugmentationConfig(shift_hu=30))[:, 0, 0, 0] - 100
    assert -30 <= shift.min() < -25
    assert 25 < shift.max() <= 30
    scale = augment_intensity(flat, seeds, SPEC, AugmentationConfig(scale=0.2))[:, 0, 0, 0] / 100
    assert 0.8 <= scale.min() < 0.85
    assert 1.15 < scale.max() <= 1.2
    zero = torch.zeros(40, 16, 16, 16)
    noise = augment_intensity(zero, seeds[:40], SPEC, AugmentationConfig(noise_hu=50))
    deviations = noise.flatten(1).std(dim=1)
    assert deviations.min() < 5
    assert 40 < deviations.max() < 55
    assert noise.mean(dim=(1, 2, 3)).abs().max() < 5
    points = torch.zeros(3, 24, 24, 24)
    points[:, 12, 12, 12] = 1000.0
    blurred = augment_intensity(points, seeds[:3], SPEC, AugmentationConfig(blur_mm=9))
    sigmas_mm = 9 * uniform(seeds[:3], 4, "intensity/size")[:, 0]
    for image, sigma_mm in zip(blurred, sigmas_mm.tolist(), strict=True):
        expected = np.zeros((24, 24, 24))
        expected[12, 12, 12] = 1000.0
        for axis, spacing in enumerate(SPEC.spacing_mm):
            s = sigma_mm / spacing
            if int(3 * s + 0.5) >= 1:
                expected = gaussian_filter1d(expected, s, axis=axis, truncate=3.0)
        np.testing.assert_allclose(image, expected, atol=1e-2)


@pytest.mark.parametrize("wrong", [{"flip": True}, {"scale": -0.1}, {"probability": 2}])
def test_augmentations_that_do_not_exist_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        AugmentationConfig(**wrong)  # type: ignore[arg-type]


# -- fitting a model ----------------------------------------------------------------------------


def test_a_smaller_model_reads_the_same_store(store: Store) -> None:
    small = SPEC.model_copy(update={"shape": (24, 16, 8), "patch_shape": (4, 4, 2)})
    batch = to_batch(raw_batch(store), "cpu", InputSpec.model_validate(small.model_dump()))
    full = to_batch(raw_batch(store), "cpu")
    torch.testing.assert_close(batch.volume_B1HWD, full.volume_B1HWD[:, :, 4:28, 4:20, 4:12])


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"spacing_mm": (6, 6, 10)}, "spacing_mm"),
        ({"orientation": "RAS"}, "orientation"),
        ({"hu_window": (-1000, 400)}, "hu_window"),
        ({"shape": (48, 24, 16)}, "smaller"),
        ({"patch_shape": (8, 8, 8), "shape": (32, 24, 24)}, "smaller"),
        ({"shape": (33, 24, 16), "patch_shape": (11, 8, 4)}, "patches"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(change: dict[str, object], word: str) -> None:
    spec = InputSpec.model_validate({**SPEC.model_dump(), **change})
    with pytest.raises(SimCroPError, match=word):
        SETTINGS.check_model(spec)
    with pytest.raises(SimCroPError, match="cells"):
        SETTINGS.check_model(SPEC, (3, 2, 2))


def test_cells_are_a_quarter_of_a_patch_where_that_is_whole() -> None:
    assert cell_shape((16, 16, 8)) == (4, 4, 2)
    assert cell_shape((12, 6, 7)) == (3, 2, 7)
    with pytest.raises(ValidationError, match="cells"):
        StoreSettings(spec=SPEC, margin_voxels=(3, 4, 2))


# -- damage -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small") / "s"
    made_store(folder, 2)
    return folder


def everything(folder: Path) -> list[object]:
    """All that can be read of a store, as plain values."""
    store = open_store(folder)
    found: list[object] = [store.settings, store.name, store.ids, store.skipped]
    for index in range(len(store)):
        sample = store.sample(index, structures=True)
        assert sample.structures_XYZ is not None
        assert store.text is not None
        found.append(store.text.encoder)
        found += [sample.volume_XYZ.tobytes(), sample.structures_XYZ.tobytes()]
        found += [sample.record.to_bytes(), sample.sentences_SD.tobytes()]
        found += [sample.tokens_L.tobytes(), sample.special_L.tobytes()]
        found += [sample.counterfactuals_CD.tobytes(), sample.report_D.tobytes()]
    return found


def test_a_flipped_byte_anywhere_is_found(small: Path) -> None:
    before, named = everything(small), list[bool]()
    rng = np.random.default_rng(0)
    files = sorted(p for p in small.rglob("*") if p.is_file() and p.name != ".lock")
    kinds = {p.relative_to(small).parts[0] for p in files}
    assert kinds == {"store.json", "index.json", "records", "volumes", "structures", "text"}
    for file in files:
        data = file.read_bytes()
        for place in {0, len(data) - 1, *rng.integers(0, len(data), 12).tolist()}:
            damaged = bytearray(data)
            damaged[place] ^= 1 << int(rng.integers(8))
            file.write_bytes(damaged)
            try:
                found = everything(small)
            except SimCroPError as e:
                named.append(str(small) in str(e.path))
            else:  # it made no difference to what is read
                assert found == before, (file.name, place)
        file.write_bytes(data)
    assert everything(small) == before
    assert all(named)
    assert len(named) > 100


@pytest.mark.parametrize("part", ["records", "volumes", "structures", "text", "index.json"])
def test_a_missing_file_is_named(small: Path, tmp_path: Path, part: str) -> None:
    shutil.copytree(small, tmp_path / "s")
    place = tmp_path / "s" / part
    if part == "text":
        shutil.rmtree(place)
    else:
        (place if place.is_file() else next(p for p in place.rglob("*") if p.is_file())).unlink()
    with pytest.raises(SimCroPError) as refused:
        everything(tmp_path / "s")
    assert refused.value.code in ("missing-record", "no-text", "damaged-store")


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SimCroPError, match="not a store"):
        open_store(tmp_path)
    (tmp_path / "store.json").write_text('{"schema": 99}')
    with pytest.raises(SimCroPError, match="another version"):
        open_store(tmp_path)


def test_regions_of_the_made_studies_reach_the_input() -> None:
    """The tests above would pass on empty regions."""
    assert all(region(seed, number).sum() > 100 for seed in range(6) for number in (0, 1))
