"""How prepared volumes are best kept: size, speed of unpacking, and of reading a random crop.

Run: python benchmarks/store.py [--rounds 5] [--json PATH]

Volumes are 256 x 256 x 128 int16 (the paper's input with a margin of one patch): scans prepared
as for training (those in the folder SIMCROP_TEST_DATA, else the built-in sample with the noise of
a scan), and white noise, which nothing compresses. Every format reads from files in the page
cache, one thread a volume; checksums are compared only where the format does so by itself, and
in the row "store", which is what training uses. Formats take turns in every round; medians.
Rates of one core are by processor time; those of all cores by the clock, so the machine should
have nothing else to do (its load is noted).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simcrop_core.geometry import Grid, axis_aligned_affine
from simcrop_core.input_spec import InputSpec
from simcrop_core.store import Loader, Store, StoreSettings, build_store, open_store
from simcrop_core.store.codec import pack, unpack
from simcrop_core.store.encode import TextSettings
from simcrop_core.store.pack import prepared_hu
from simcrop_core.study import Study
from simcrop_core.volume import CTVolume

SETTINGS = StoreSettings()
SHAPE, CROP = SETTINGS.shape, SETTINGS.spec.shape
MEGABYTE = 1e6


@dataclass(frozen=True)
class Format:
    """How a volume is written to a file or folder, and read: whole, and a crop at ``start``."""

    name: str
    write: Callable[[Path, np.ndarray], None]
    read: Callable[[Path], np.ndarray]
    crop: Callable[[Path, tuple[slice, ...]], np.ndarray] | None = None

    def read_crop(self, path: Path, crop: tuple[slice, ...]) -> np.ndarray:
        if self.crop is not None:
            return self.crop(path, crop)
        return np.ascontiguousarray(self.read(path)[crop])


def formats() -> list[Format]:
    return [
        Format("npy, np.load mapped", _write_npy, _read_npy, _crop_npy),
        Format("raw int16, mapped", _write_raw, _read_raw, _crop_raw),
        Format("safetensors", _write_safetensors, _read_safetensors, _crop_safetensors),
        *(
            _zarr(codec, level, chunks)
            for codec, level in (("zstd", 3), ("blosc-lz4", 5))
            for chunks in ((64, 64, 32), (64, 256, 128))
        ),
        _blosc2_array(),
        *(
            _blosc2(*which)
            for which in (
                ("LZ4", 5, ("SHUFFLE",)),
                ("LZ4", 5, ("BITSHUFFLE",)),
                ("LZ4HC", 5, ("SHUFFLE",)),
                ("LZ4HC", 5, ("BITSHUFFLE",)),
                ("LZ4HC", 5, ("DELTA", "SHUFFLE")),
                ("LZ4HC", 9, ("SHUFFLE",)),
                ("ZSTD", 1, ("SHUFFLE",)),
                ("ZSTD", 1, ("BITSHUFFLE",)),
                ("ZSTD", 5, ("BITSHUFFLE",)),
                ("ZSTD", 5, ("DELTA", "SHUFFLE")),
            )
        ),
        Format("store: Blosc2 chunk as chosen", _write_store, _read_store),
    ]


def _write_npy(path: Path, volume: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, volume)


def _read_npy(path: Path) -> np.ndarray:
    return np.array(np.load(path, mmap_mode="r"))


def _crop_npy(path: Path, crop: tuple[slice, ...]) -> np.ndarray:
    return np.array(np.load(path, mmap_mode="r")[crop])


def _write_raw(path: Path, volume: np.ndarray) -> None:
    path.write_bytes(volume.tobytes())


def _read_raw(path: Path) -> np.ndarray:
    return np.array(np.memmap(path, np.int16, "r", shape=SHAPE))


def _crop_raw(path: Path, crop: tuple[slice, ...]) -> np.ndarray:
    return np.array(np.memmap(path, np.int16, "r", shape=SHAPE)[crop])


def _write_safetensors(path: Path, volume: np.ndarray) -> None:
    from safetensors.numpy import save_file

    save_file({"volume": volume}, path)


def _read_safetensors(path: Path) -> np.ndarray:
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        return np.asarray(file.get_tensor("volume"))


def _crop_safetensors(path: Path, crop: tuple[slice, ...]) -> np.ndarray:
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        return np.asarray(file.get_slice("volume")[crop])


def _zarr(codec: str, level: int, chunks: tuple[int, int, int]) -> Format:
    """Zarr 3: a volume is one shard; small chunks for crops, or large ones for speed."""
    import zarr

    zarr.config.set({"threading.max_workers": 1, "async.concurrency": 1})

    def write(path: Path, volume: np.ndarray) -> None:
        from zarr.codecs import BloscCodec, ZstdCodec

        compressor: Any = ZstdCodec(level=level)
        if codec == "blosc-lz4":
            compressor = BloscCodec(cname="lz4", clevel=level, shuffle="bitshuffle", typesize=2)
        array = zarr.create_array(
            path,
            shape=SHAPE,
            dtype="int16",
            chunks=chunks,
            shards=SHAPE,
            compressors=compressor,
            overwrite=True,
        )
        array[...] = volume

    def read(path: Path) -> np.ndarray:
        return np.asarray(zarr.open_array(path, mode="r")[...])

    def crop(path: Path, part: tuple[slice, ...]) -> np.ndarray:
        return np.asarray(zarr.open_array(path, mode="r")[part])

    size = "x".join(str(n) for n in chunks)
    return Format(f"Zarr 3 sharded, {codec} {level}, chunks {size}", write, read, crop)


def _blosc2_array() -> Format:
    import blosc2

    def write(path: Path, volume: np.ndarray) -> None:
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)
        params = {
            "codec": blosc2.Codec.LZ4HC,
            "clevel": 5,
            "filters": [blosc2.Filter.SHUFFLE],
            "filters_meta": [0],
            "nthreads": 1,
        }
        blosc2.asarray(volume, urlpath=str(path), chunks=(64, 64, 64), mode="w", cparams=params)

    def opened(path: Path) -> Any:
        return blosc2.open(str(path), mode="r", dparams=blosc2.DParams(nthreads=1))

    return Format(
        "Blosc2 array, LZ4HC 5 shuffle",
        write,
        lambda path: opened(path)[...],
        lambda path, part: opened(path)[part],
    )


def _blosc2(codec: str, level: int, filters: tuple[str, ...]) -> Format:
    import blosc2

    def write(path: Path, volume: np.ndarray) -> None:
        chunk = blosc2.compress2(
            volume,
            codec=blosc2.Codec[codec],
            clevel=level,
            filters=[blosc2.Filter[name] for name in filters],
            filters_meta=[0] * len(filters),
            typesize=2,
            nthreads=1,
        )
        path.write_bytes(chunk)

    name = f"Blosc2 chunk, {codec} {level} {'+'.join(f.lower() for f in filters)}"
    return Format(name, write, _read_chunk)


def _read_chunk(path: Path) -> np.ndarray:
    out = np.empty(SHAPE, np.int16)
    unpack(path.read_bytes(), out)
    return out


def _write_store(path: Path, volume: np.ndarray) -> None:
    from simcrop_core.store.codec import checksum

    chunk = pack(volume)
    path.write_bytes(chunk)
    path.with_suffix(".crc").write_text(str(checksum(chunk)))


def _read_store(path: Path) -> np.ndarray:
    from simcrop_core.store.codec import checksum

    chunk = path.read_bytes()
    if checksum(chunk) != int(path.with_suffix(".crc").read_text()):
        raise ValueError("damaged")
    out = np.empty(SHAPE, np.int16)
    unpack(chunk, out)
    return out


# -- volumes ------------------------------------------------------------------------------------


def scans() -> tuple[str, list[np.ndarray]]:
    """Prepared volumes, and where they come from."""
    folder = os.environ.get("SIMCROP_TEST_DATA")
    if folder:
        from simcrop_core.io import read_volume
        from simcrop_core.prepare import input_grid

        places = ("nsclc-lung1-001/image", "crlm-1004")
        found = []
        for place in places:
            volume = read_volume(Path(folder) / "ct" / place)
            grid, _ = input_grid(volume, SETTINGS.spec, "center", SETTINGS.margin_voxels)
            found.append(prepared_hu(volume, grid, SETTINGS))
        return "two real scans", found
    from simcrop_core.prepare import input_grid
    from simcrop_core.sample import sample_study

    volume = sample_study().volume
    grid, _ = input_grid(volume, SETTINGS.spec, "center", SETTINGS.margin_voxels)
    hu = prepared_hu(volume, grid, SETTINGS)
    noise = np.random.default_rng(0).normal(0, 12, hu.shape)
    return "the sample study with noise", [np.clip(hu + noise, -1000, 1000).astype(np.int16)]


def white_noise() -> list[np.ndarray]:
    hu = np.random.default_rng(1).normal(0, 300, SHAPE)
    return [np.clip(hu, -1000, 1000).astype(np.int16)]


# -- measuring ----------------------------------------------------------------------------------


def measure(volumes: list[np.ndarray], rounds: int, cores: int) -> list[dict[str, Any]]:
    """One row a format."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="simcrop-store-") as folder:
        laid = [_lay(fmt, volumes, Path(folder) / str(n)) for n, fmt in enumerate(formats())]
        times: list[dict[str, list[float]]] = [{"one": [], "all": [], "crop": []} for _ in laid]
        for number in range(rounds):
            for (fmt, paths, _, _), taken in zip(laid, times, strict=True):
                taken["one"].append(_timed(fmt.read, paths))
                taken["all"].append(_timed_by_threads(fmt.read, paths, cores))
                part = _crop(number)
                taken["crop"].append(_timed(lambda p, f=fmt, c=part: f.read_crop(p, c), paths))
        for (fmt, _, size, seconds), taken in zip(laid, times, strict=True):
            whole, cut = np.prod(SHAPE) * 2 / MEGABYTE, np.prod(CROP) * 2 / MEGABYTE
            one, every, crop = (statistics.median(taken[name]) for name in ("one", "all", "crop"))
            rows.append(
                {
                    "format": fmt.name,
                    "megabytes": round(size / MEGABYTE, 2),
                    "ratio": round(float(whole) * MEGABYTE / size, 2),
                    "write_s": round(seconds, 2),
                    "mb_per_s_per_core": round(float(whole) / one),
                    "mb_per_s_all_cores": round(float(whole) / every),
                    "volumes_per_s_all_cores": round(1 / every, 1),
                    "crop_mb_per_s": round(float(cut) / crop),
                }
            )
    return rows


def _lay(
    fmt: Format, volumes: list[np.ndarray], folder: Path
) -> tuple[Format, list[Path], float, float]:
    """Write the volumes, check what is read back; mean bytes and seconds a volume."""
    folder.mkdir()
    paths, start = [], time.process_time()
    for number, volume in enumerate(volumes):
        paths.append(folder / f"{number}.bin")
        fmt.write(paths[-1], volume)
    seconds = (time.process_time() - start) / len(volumes)
    for path, volume in zip(paths, volumes, strict=True):
        part = _crop(0)
        if not np.array_equal(fmt.read(path), volume):
            raise AssertionError(f"{fmt.name} does not read what it wrote.")
        if not np.array_equal(fmt.read_crop(path, part), volume[part]):
            raise AssertionError(f"{fmt.name} reads another crop.")
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / len(volumes)
    return fmt, paths, size, seconds


def _crop(number: int) -> tuple[slice, ...]:
    rng = np.random.default_rng(number)
    starts = [int(rng.integers(n - m + 1)) for n, m in zip(SHAPE, CROP, strict=True)]
    return tuple(slice(a, a + m) for a, m in zip(starts, CROP, strict=True))


def _timed(read: Callable[[Path], Any], paths: list[Path]) -> float:
    """Seconds of one core a volume: processor time, which other programs do not lengthen."""
    start = time.process_time()
    for path in paths:
        read(path)
    return (time.process_time() - start) / len(paths)


def _timed_by_threads(read: Callable[[Path], Any], paths: list[Path], cores: int) -> float:
    """Seconds a volume with as many threads as cores."""
    many = (paths * (4 * cores))[: max(len(paths), 4 * cores)]
    with ThreadPoolExecutor(cores) as pool:
        list(pool.map(read, many[:cores]))
        start = time.perf_counter()
        list(pool.map(read, many))
        return (time.perf_counter() - start) / len(many)


# -- the loader ---------------------------------------------------------------------------------


class _Volumes:
    """A source of studies made of given volumes."""

    def __init__(self, number: int, hu: np.ndarray) -> None:
        self.id, self._hu = f"v{number}", hu

    def stamp(self) -> str:
        return self.id

    def load(self, spec: InputSpec | None = None, margin_voxels: Any = None) -> Study:
        affine = axis_aligned_affine("LPS", SETTINGS.spec.spacing_mm, (0, 0, 0), SHAPE)
        return Study(self.id, CTVolume(self._hu, Grid(SHAPE, affine)))


def measure_loader(volumes: list[np.ndarray], rounds: int, cores: int) -> dict[str, float]:
    """Studies a second that arrive in batches: by threads, and by processes."""
    with tempfile.TemporaryDirectory(prefix="simcrop-store-") as name:
        sources = [_Volumes(n, volumes[n % len(volumes)]) for n in range(32)]
        build_store("bench", sources, Path(name), SETTINGS, TextSettings())
        store = open_store(name)
        threads = [_threads_rate(store, cores) for _ in range(rounds)]
        processes = [_processes_rate(store, cores) for _ in range(rounds)]
    return {
        "threads_studies_per_s": round(statistics.median(threads), 1),
        "processes_studies_per_s": round(statistics.median(processes), 1),
    }


def _threads_rate(store: Store, cores: int) -> float:
    loader = iter(Loader(store, batch_size=8, seed=0, epochs=3, workers=cores))
    next(loader)
    start = time.perf_counter()
    count = sum(len(raw) for raw in loader)
    return count / (time.perf_counter() - start)


def _processes_rate(store: Store, cores: int) -> float:
    """The same volumes through worker processes and shared memory, as torch's DataLoader does."""
    from torch.utils.data import DataLoader

    data = _StoredVolumes(str(store.folder), len(store) * 3)
    loader = iter(DataLoader(data, batch_size=8, num_workers=cores))  # type: ignore[arg-type]
    next(loader)
    start = time.perf_counter()
    count = sum(len(batch) for batch in loader)
    return count / (time.perf_counter() - start)


class _StoredVolumes:
    def __init__(self, folder: str, count: int) -> None:
        self.folder, self.count = folder, count
        self.store: Store | None = None

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        import torch

        if self.store is None:
            self.store = open_store(self.folder)
        return torch.from_numpy(self.store.sample(index % len(self.store)).volume_XYZ)


# -- telling ------------------------------------------------------------------------------------


def table(rows: list[dict[str, Any]], cores: int) -> str:
    lines = [
        f"| format | MB a volume | ratio | write s | MB/s, 1 core | MB/s, {cores} cores | "
        "crop MB/s, 1 core |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['format']} | {row['megabytes']} | {row['ratio']} | {row['write_s']} | "
            f"{row['mb_per_s_per_core']} | {row['mb_per_s_all_cores']} | {row['crop_mb_per_s']} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="PATH")
    arguments = parser.parse_args()
    cores = min(16, os.cpu_count() or 1)
    where, real = scans()
    results: dict[str, Any] = {
        "machine": platform.processor() or platform.machine(),
        "cores": cores,
        "load_at_start": round(os.getloadavg()[0], 1),
        "shape": SHAPE,
        "crop": CROP,
        "scans": where,
        "rounds": arguments.rounds,
    }
    for name, volumes in (("scan", real), ("noise", white_noise())):
        results[name] = measure(volumes, arguments.rounds, cores)
        print(f"\n{where if name == 'scan' else 'White noise'}\n\n{table(results[name], cores)}")
    results["loader"] = measure_loader(real, arguments.rounds, cores)
    print(f"\nLoader, {cores} cores: {results['loader']}")
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
