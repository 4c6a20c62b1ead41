"""Reading and preparing in one go gives what the two steps give, whatever file and faults."""

from __future__ import annotations

import gzip
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from time import sleep
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 (the name its users know)
import torch
from dicom_builder import phantom, write_series
from hypothesis import given, settings
from hypothesis import strategies as st
from made_ct import AFFINE, chest, oblique_affine, save_nifti
from numpy.typing import NDArray

from simcrop_core import ingest
from simcrop_core.errors import SimCroPError
from simcrop_core.geometry import Grid, axis_aligned_affine
from simcrop_core.ingest import read_and_prepare
from simcrop_core.input_spec import InputSpec
from simcrop_core.io import payload, read_volume
from simcrop_core.prepare import Placement, Preparation, prepare
from simcrop_core.resample import begin_resampling, resample_linear

SMALL = InputSpec(shape=(32, 32, 16), patch_shape=(8, 8, 4), spacing_mm=(6.0, 6.0, 11.0))


@pytest.fixture(autouse=True)
def _small_files_come_as_slowly_as_large_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """In stretches, between which the second thread has its turn."""
    unpack = payload.Payload.readinto

    def slowly(self: payload.Payload, target: memoryview) -> None:
        sleep(0.002)
        unpack(self, target)

    monkeypatch.setattr(payload.Payload, "readinto", slowly)
    monkeypatch.setattr(payload, "_STRETCH", 5000)


@pytest.fixture
def prepared_later(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Scans that were prepared only when they had been read."""
    seen: list[Any] = []

    def recorded(volume: Any, *args: Any, **options: Any) -> Any:
        seen.append(volume)
        return prepare(volume, *args, **options)

    monkeypatch.setattr(ingest, "prepare", recorded)
    return seen


def same(path: Path, placement: Placement = "center", **reading: Any) -> None:
    """One go and two steps agree in every bit and every word."""
    volume, prepared = read_and_prepare(path, SMALL, placement=placement, **reading)
    read = read_volume(path, **reading)
    wanted = prepare(read, SMALL, placement=placement)
    assert volume.sha256 == read.sha256
    assert volume.notes == read.notes
    assert np.array_equal(volume.grid.affine, read.grid.affine)
    assert prepared.input_1HWD.stride() == wanted.input_1HWD.stride()
    assert torch.equal(prepared.input_1HWD, wanted.input_1HWD)
    assert np.array_equal(prepared.inside_N, wanted.inside_N)
    assert np.array_equal(prepared.grid.affine, wanted.grid.affine)
    assert prepared.notes == wanted.notes
    assert prepared.window_starts == wanted.window_starts
    assert (prepared.spec, prepared.placement) == (wanted.spec, wanted.placement)


def turned(axcodes: str) -> nib.Nifti1Image:
    """The chest with its axes stored in another order or direction."""
    image = nib.Nifti1Image(chest(), AFFINE)
    start = nib.orientations.io_orientation(AFFINE)
    end = nib.orientations.axcodes2ornt(axcodes)
    return image.as_reoriented(nib.orientations.ornt_transform(start, end))


@pytest.mark.parametrize("placement", ["center", "tiled"])
@pytest.mark.parametrize("axcodes", ["LPS", "RPS", "LAS", "LPI", "RAI", "SLP", "PIR"])
def test_packed_int16_is_prepared_as_it_is_unpacked(
    tmp_path: Path, prepared_later: list[Any], axcodes: str, placement: Placement
) -> None:
    path = tmp_path / "ct.nii.gz"
    turned(axcodes).to_filename(path)
    same(path, placement)
    assert not prepared_later


def test_other_files_of_int16_too(tmp_path: Path, prepared_later: list[Any]) -> None:
    image = sitk.GetImageFromArray(chest().T)
    image.SetSpacing((4.4, 4.8, 4.1))
    for name, packed in (
        ("a.nrrd", True), ("b.nrrd", False), ("c.mha", True), ("d.mha", False), ("e.nii", False),
        ("f.mhd", True),
    ):  # fmt: skip
        sitk.WriteImage(image, tmp_path / name, packed)
        same(tmp_path / name)
    big = save_nifti(tmp_path / "big.nii.gz", endian=">")
    same(big)
    (tmp_path / "folder").mkdir()
    big.rename(tmp_path / "folder" / "ct.nii.gz")
    same(tmp_path / "folder")
    assert not prepared_later


def test_what_is_not_int16_is_prepared_once_it_is_read(
    tmp_path: Path, prepared_later: list[Any]
) -> None:
    hu = chest()
    floats = save_nifti(tmp_path / "float.nii.gz", hu + np.float32(0.25))
    scaled = save_nifti(
        tmp_path / "scaled.nii.gz", hu + np.int16(1024), scl_slope=1, scl_inter=-1024
    )
    np.savez_compressed(tmp_path / "ct.npz", ct=hu)
    write_series(tmp_path / "dicom", phantom((8, 30, 34)), spacing=(4, 5, 6))
    same(floats)
    same(scaled)
    same(tmp_path / "ct.npz", spacing_mm=(4.4, 4.8, 4.1), axcodes="LPS")
    same(tmp_path / "dicom")
    assert len(prepared_later) == 4


def test_lungs_and_oblique_scans_are_prepared_as_ever(tmp_path: Path) -> None:
    same(save_nifti(tmp_path / "a.nii.gz"), "lungs")
    oblique = save_nifti(tmp_path / "b.nii.gz", affine=oblique_affine(12))
    for placement in ("center", "tiled", "lungs"):
        same(oblique, placement)


def test_another_grid_or_other_voxels_are_not_taken_for_the_scans(tmp_path: Path) -> None:
    volume = read_volume(save_nifti(tmp_path / "a.nii.gz"))
    begun = Preparation(volume.hu_XYZ, volume.grid, SMALL, "center")
    moved = volume.grid.affine.copy()
    moved[0, 3] += 1
    assert begun.is_of(volume)
    assert begun.is_of(volume.with_notes(volume.notes))
    assert not begun.is_of(replace(volume, grid=Grid(volume.shape, moved)))
    assert not begun.is_of(replace(volume, hu_XYZ=volume.hu_XYZ.copy(order="F")))
    assert not begun.is_of(replace(volume, hu_XYZ=volume.hu_XYZ.astype(np.float32)))


def test_a_dataset_that_corrects_the_grid_gets_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever comes between reader and preparing, the volume that is given is the one prepared."""
    path = save_nifti(tmp_path / "a.nii.gz")
    moved = AFFINE.copy()
    moved[:3, 0] *= 0.5

    def corrected(*args: Any, **options: Any) -> Any:
        volume = read_volume(*args, **options)
        return replace(volume, grid=Grid(volume.shape, moved))

    monkeypatch.setattr(ingest, "read_volume", corrected)
    volume, prepared = read_and_prepare(path, SMALL)
    assert torch.equal(prepared.input_1HWD, prepare(volume, SMALL).input_1HWD)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_small_grid_and_any_course_of_filling(data: st.DataObject) -> None:
    """Values that are not there yet are not looked at, and the order of work leaves no trace."""
    sizes, steps = st.integers(1, 33), st.floats(0.4, 6)
    shape, wanted = (data.draw(st.tuples(sizes, sizes, sizes)) for _ in range(2))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    codes = data.draw(st.sampled_from(["LPS", "RAS", "PIR", "SRA", "ALI", "IPL"]))
    source = Grid(
        shape,
        axis_aligned_affine(codes, data.draw(st.tuples(steps, steps, steps)), (1, 2, 3), shape),
    )
    target = Grid(
        wanted,
        axis_aligned_affine("LPS", data.draw(st.tuples(steps, steps, steps)), (0, 0, 0), wanted),
    )
    order = data.draw(st.sampled_from(["F", "C"]))
    values = rng.integers(-1200, 1300, shape).astype(np.int16).copy(order=order)
    fill = data.draw(st.sampled_from([None, -1000.0]))
    whole, inside = resample_linear(values, source, target, fill=fill, window=(-1000, 1000))
    coming = np.full(values.size, 20_000, np.int16)
    work = begin_resampling(
        coming.reshape(shape, order=order), source, target, fill=fill, window=(-1000, 1000)
    )
    for end in sorted(data.draw(st.lists(st.integers(0, values.size), max_size=6))):
        coming[:end] = values.ravel(order=order)[:end]
        work.advance(end)
    coming[:] = values.ravel(order=order)
    some, some_inside = work.finish()
    assert np.array_equal(some, whole)
    assert np.array_equal(some_inside, inside)


@settings(max_examples=10, deadline=None)
@given(
    shape=st.tuples(*[st.integers(12, 40)] * 3),
    spacing=st.tuples(*[st.floats(1, 8)] * 3),
    axcodes=st.sampled_from(["LPS", "RAS", "RPI", "SAL", "PIR"]),
    placement=st.sampled_from(["center", "tiled"]),
    stretch=st.integers(1000, 20_000),
)
def test_any_small_file(shape, spacing, axcodes, placement, stretch) -> None:
    affine = axis_aligned_affine(axcodes, spacing, (5, -3, 100), shape)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(payload, "_STRETCH", stretch)
        same(save_nifti(Path(folder) / "ct.nii.gz", chest(shape), affine), placement)


# -- what is told while a file is read ------------------------------------------------------------


class Listener:
    """Keeps what it is told, and what it finds at that moment."""

    def __init__(self) -> None:
        self.told: list[int] = []
        self.sums: list[int] = []
        self.threads: set[int] = set()
        self.grid: Grid
        self.values: NDArray[Any]

    def __call__(self, grid: Grid, values_XYZ: NDArray[Any]) -> Callable[[int], None]:
        self.grid, self.values = grid, values_XYZ
        return self.more

    def more(self, filled: int) -> None:
        self.told.append(filled)
        self.sums.append(int(self.values.ravel(order="F")[:filled].sum(dtype=np.int64)))
        self.threads.add(threading.get_ident())


def test_an_observer_sees_the_volumes_own_voxels_as_they_come(tmp_path: Path) -> None:
    listener = Listener()
    volume = read_volume(save_nifti(tmp_path / "a.nii.gz"), observer=listener)
    assert np.shares_memory(listener.values, volume.hu_XYZ)
    assert np.array_equal(listener.grid.affine, volume.grid.affine)
    assert listener.told
    assert listener.told == sorted(set(listener.told))
    assert set(listener.told) <= {*range(0, volume.hu_XYZ.size, 5000), volume.hu_XYZ.size}
    flat = volume.hu_XYZ.ravel(order="F")
    assert listener.sums == [int(flat[:n].sum(dtype=np.int64)) for n in listener.told]
    assert threading.get_ident() not in listener.threads


def test_an_observer_is_not_told_of_voxels_that_change_their_place(tmp_path: Path) -> None:
    listener = Listener()
    read_volume(save_nifti(tmp_path / "a.nii.gz", chest().astype(np.float32)), observer=listener)
    assert not listener.told


@pytest.mark.parametrize("when", ["at once", "later"])
def test_what_an_observer_raises_is_raised_by_the_reader(tmp_path: Path, when: str) -> None:
    def fails(*_: Any) -> Any:
        raise MemoryError("no room")

    path = save_nifti(tmp_path / "a.nii.gz")
    observer = fails if when == "at once" else lambda *_: fails
    with one_thread_fewer(), pytest.raises(MemoryError, match="no room"):
        read_volume(path, observer=observer)


class one_thread_fewer:  # noqa: N801 - reads as a sentence
    """No thread outlives what is done inside."""

    def __enter__(self) -> None:
        self.before = set(threading.enumerate())

    def __exit__(self, *_: object) -> None:
        assert set(threading.enumerate()) <= self.before


# -- refusals -------------------------------------------------------------------------------------


@pytest.fixture
def faulty(tmp_path: Path) -> Iterator[dict[str, Path]]:
    whole = save_nifti(tmp_path / "a.nii.gz").read_bytes()
    made = {
        "truncated": whole[: len(whole) // 2],
        "damaged": whole[:-8] + bytes(4) + whole[-4:],
        "constant": gzip.compress(gzip.decompress(whole)[:352] + bytes(chest().nbytes)),
    }
    files = {}
    for code, data in made.items():
        files[code] = tmp_path / f"{code}.nii.gz"
        files[code].write_bytes(data)
    return files


@pytest.mark.parametrize("placement", ["center", "tiled", "lungs"])
def test_faults_are_refused_as_by_the_reader(faulty: dict[str, Path], placement: Placement) -> None:
    for code, path in faulty.items():
        with one_thread_fewer(), pytest.raises(SimCroPError) as refused:
            read_and_prepare(path, SMALL, placement=placement)
        with pytest.raises(SimCroPError) as wanted:
            read_volume(path)
        assert refused.value.code == wanted.value.code == code
        assert str(refused.value) == str(wanted.value)


def test_a_scan_too_long_for_tiles_is_refused_after_the_readers_own_refusals(
    tmp_path: Path,
) -> None:
    affine = AFFINE.copy()
    affine[:3, 2] = (0, 0, 19)
    path = save_nifti(tmp_path / "a.nii.gz", chest((40, 40, 120)), affine)
    with pytest.raises(SimCroPError) as refused:
        read_and_prepare(path, SMALL, placement="tiled")
    assert refused.value.code == "scan-too-long"
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(SimCroPError) as refused:
        read_and_prepare(path, SMALL, placement="tiled")
    assert refused.value.code == "truncated"


def test_an_unknown_placement_is_refused_before_the_file_is_looked_for() -> None:
    with pytest.raises(SimCroPError) as refused:
        read_and_prepare("absent.nii.gz", placement="middle")  # type: ignore[arg-type]
    assert refused.value.code == "unknown-placement"


def test_encode_takes_what_was_prepared_for_it_alone(tmp_path: Path) -> None:
    from simcrop_core import create_model
    from simcrop_core.model import VisionConfig

    model = create_model(
        "starter",
        input_spec=SMALL,
        vision=VisionConfig(depth=2, width=48, heads=4),
    )
    encode = import_module("simcrop_core.align").encode
    volume, prepared = read_and_prepare(save_nifti(tmp_path / "a.nii.gz"), SMALL)
    with_it, without = encode(model, volume, prepared=prepared), encode(model, volume)
    assert np.array_equal(with_it.patches_ND, without.patches_ND)
    assert with_it.volume.notes == without.volume.notes
    with pytest.raises(ValueError, match="prepared for another"):
        encode(model, volume, placement="tiled", prepared=prepared)
    with pytest.raises(ValueError, match="prepared for another"):
        encode(model, volume, prepared=prepare(volume))
