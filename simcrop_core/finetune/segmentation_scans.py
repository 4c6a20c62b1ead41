"""Scans with their structures, listed, checked and resampled once for a fine-tuning.

Shapes in names: H, W, D voxels of the resampled scan.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcrop_core.datasets import open_dataset
from simcrop_core.datasets.scans import ScanSource
from simcrop_core.device import Progress
from simcrop_core.errors import SimCroPError
from simcrop_core.evaluate.segmentation import LabelledCase
from simcrop_core.finetune.features import ahead
from simcrop_core.geometry import Grid
from simcrop_core.input_spec import InputSpec
from simcrop_core.io import labels_on, read_labels
from simcrop_core.model.embedding import Shape3
from simcrop_core.outputs import whole_folder
from simcrop_core.prepare import resampled_grid
from simcrop_core.resample import resample_linear
from simcrop_core.segment import foreground_box, padded
from simcrop_core.train.finetuning import SegmentationDataConfig, SegmentationTask, Split
from simcrop_core.volume import CTVolume

#: To be counted up with every change of what is written for the same scan.
SCANS_VERSION = 1
#: Values in [-1, 1] are stored as whole numbers up to this.
QUANTA = 32767
_IMAGE, _LABELS, _CARD = "image.npy", "labels.npy", "card.json"


# -- lists --------------------------------------------------------------------------------------


def list_of(task: SegmentationTask, data: SegmentationDataConfig, root: Path) -> Path:
    """The JSON list of a share of the training scans.

    Raises
    ------
    SimCroPError
        ``missing``.
    """
    name = task.lists.get(data.fraction, task.lists[1.0])
    folder = root if data.lists is None else Path(data.lists).expanduser()
    if folder.is_file():
        return folder
    for path in (folder / task.folder / name, folder / name):
        if path.is_file():
            return path
    raise SimCroPError(
        f"The list of {task.name} is not there",
        path=folder / name,
        code="missing",
        remedy="Name the folder of the published lists with --set data.lists=FOLDER.",
    )


def open_split(task: SegmentationTask, root: Path, path: Path, split: Split) -> list[ScanSource]:
    """The scans of a split of a list; each has a mask.

    Raises
    ------
    SimCroPError
        The list is broken or another's, the split is empty, or a scan or mask is not there.
    """
    dataset = open_dataset(f"{task.dataset}:{root}", cases=path, split=split)
    sources: list[ScanSource] = list(dataset.sources)  # type: ignore[arg-type]
    for what, absent in (
        ("scans", [s for s in sources if not s.path.exists()]),
        ("masks", [s for s in sources if not s.mask or not Path(s.mask).exists()]),
    ):
        if absent:
            more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
            raise SimCroPError(
                f"Of the {len(sources)} {what} of {path.name} for {split}, {len(absent)} are not "
                f"there: {absent[0].id}{more}",
                path=absent[0].path if what == "scans" else absent[0].mask or root,
                code="missing",
                remedy="Fetch them; simcrop-train prepare --preflight lists all that is missing.",
            )
    return sources


def share_of(sources: Sequence[ScanSource], fraction: float) -> list[ScanSource]:
    """So large a share of the scans, at least one; of two shares the larger holds the smaller."""
    count = max(1, round(fraction * len(sources)))
    chosen = {source.id for source in _shuffled(sources)[:count]}
    return [source for source in sources if source.id in chosen]


def parted(
    sources: Sequence[ScanSource], held_out: int | None
) -> tuple[list[ScanSource], list[ScanSource]]:
    """Scans to train on, and scans held out of them; None: a tenth, 2 to 20, where there are 10.

    Raises
    ------
    SimCroPError
        ``too-few-studies``: none would be left to train on.
    """
    if held_out is None:
        held_out = min(20, max(2, round(len(sources) / 10))) if len(sources) >= 10 else 0
    if held_out >= len(sources):
        raise SimCroPError(
            f"Of {len(sources)} training scans {held_out} are to be held out: none is left to "
            "train on",
            code="too-few-studies",
            remedy="Lower data.held_out.",
        )
    out = {source.id for source in _shuffled(sources)[::-1][:held_out]}
    return [s for s in sources if s.id not in out], [s for s in sources if s.id in out]


def _shuffled(sources: Sequence[ScanSource]) -> list[ScanSource]:
    """In an order that follows from their names alone."""
    return sorted(sources, key=lambda s: hashlib.sha256(s.id.encode()).hexdigest())


def read_case(source: ScanSource) -> LabelledCase:
    """A scan with its structures, to be compared with.

    Raises
    ------
    SimCroPError
        Scan or mask cannot be read, do not belong together, or hold an unknown label.
    """
    volume, labels_XYZ = _read(source)
    names = dict(enumerate(source.structures, start=1))
    return LabelledCase(source.id, volume, labels_XYZ, volume.grid, names)


def check_masks(sources: Sequence[ScanSource], say: Progress) -> None:
    """Read every mask, so that what is wrong is said before anything is trained.

    Raises
    ------
    SimCroPError
        A mask cannot be read, or holds an unknown label.
    """
    for number, source in enumerate(sources):
        say("checking masks", number, len(sources))
        source.renumbered(read_labels(source.mask)[0])


def _read(source: ScanSource) -> tuple[CTVolume, NDArray[np.uint8]]:
    try:
        volume = source.read()
        labels_XYZ, _ = source.read_structures(volume)
    except SimCroPError as e:
        raise SimCroPError(
            f"Scan {source.id}: {e.problem}", code=e.code, remedy=e.remedy, path=e.path
        ) from e
    assert labels_XYZ is not None
    return volume, labels_XYZ


# -- resampled ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class PreparedScan:
    """A resampled scan on the disk.

    Attributes
    ----------
    id
        Of the scan.
    image_HWD
        int16 values of [-1, 1] in steps of 1 / :data:`QUANTA`; read where it is touched.
    labels_HWD
        uint8, 0 is background.
    inside_H, outside_H
        How many voxels of each plane are of a structure; and how many are background above the
        window's middle (tissue and not air), from which crops beside structures are drawn.
    """

    id: str
    image_HWD: NDArray[np.int16]
    labels_HWD: NDArray[np.uint8]
    inside_H: NDArray[np.int64]
    outside_H: NDArray[np.int64]

    def values(self) -> NDArray[np.float32]:
        """All of it in [-1, 1]."""
        return np.asarray(self.image_HWD, np.float32) / np.float32(QUANTA)


class ScanFolder:
    """Resampled scans in a folder, made when first asked for, found again later.

    Parameters
    ----------
    folder
        Where they are kept.
    spec
        Spacing, orientation and window; the rest of it does not matter.
    roi
        Voxels of a crop: what is kept of a scan is no smaller.
    """

    def __init__(self, folder: Path, spec: InputSpec, roi: Shape3, workers: int = 0) -> None:
        self.folder, self.spec, self.roi, self.workers = folder, spec, roi, workers

    def scans(self, sources: Sequence[ScanSource], say: Progress) -> list[PreparedScan]:
        """Those of the sources, in order.

        Raises
        ------
        SimCroPError
            A scan or mask cannot be read, or the folder cannot be written.
        """
        found = []
        for source, scan in ahead(sources, self.scan, min(self.workers, 2)):
            found.append(scan)
            say(f"preparing {source.id}", len(found), len(sources))
        return found

    def scan(self, source: ScanSource) -> PreparedScan:
        """One of them; errors as :meth:`scans`."""
        place = self.folder / self._key(source)
        kept = _opened(place, source.id)
        if kept is None:
            volume, labels_XYZ = _read(source)
            try:
                _write(place, *prepared(volume, labels_XYZ, self.spec, self.roi))
            except SimCroPError:
                # Another run that shares the folder may have been faster.
                if _opened(place, source.id) is None:
                    raise
            kept = _opened(place, source.id)
        if kept is None:
            raise SimCroPError(
                "A prepared scan cannot be read again after it was written",
                path=place,
                code="disk-failed",
                remedy="Check the disk.",
            )
        return kept

    def _key(self, source: ScanSource) -> str:
        spec = self.spec
        how = (spec.spacing_mm, spec.orientation, spec.hu_window, spec.padding, self.roi)
        text = f"{SCANS_VERSION} {how} {source.stamp()}"
        return hashlib.sha256(text.encode()).hexdigest()[:24]


def prepared(
    volume: CTVolume, labels_XYZ: NDArray[np.uint8], spec: InputSpec, roi: Shape3
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """A scan in [-1, 1] and its labels ``(H, W, D)`` at the model's spacing, cut to its body.

    Values are interpolated linearly, labels taken from the nearest voxel. The box of all that is
    above the window's middle is kept (the authors' foreground crop); what is smaller than a crop
    is continued with air, the scan in the middle.
    """
    grid = resampled_grid(volume.grid, spec)
    fill = spec.hu_window[0] if spec.padding == "air" else None
    values, _ = resample_linear(volume.hu_XYZ, volume.grid, grid, fill=fill, window=spec.hu_window)
    labels = _labels_at(grid, labels_XYZ, volume.grid)
    box = foreground_box(values)
    values, ends = padded(values[box], roi)
    return np.ascontiguousarray(values), np.pad(labels[box], ends)


def _labels_at(grid: Grid, labels_XYZ: NDArray[np.uint8], own: Grid) -> NDArray[np.uint8]:
    return np.asarray(labels_on(grid, labels_XYZ, own, resample=True), np.uint8)


def _write(place: Path, values_HWD: NDArray[np.float32], labels_HWD: NDArray[np.uint8]) -> None:
    image_HWD = np.rint(values_HWD * QUANTA).astype(np.int16)
    counts = {
        "inside": (labels_HWD > 0).sum(axis=(1, 2)).tolist(),
        "outside": ((labels_HWD == 0) & (image_HWD > 0)).sum(axis=(1, 2)).tolist(),
    }
    with whole_folder(place) as hidden:
        np.save(hidden / _IMAGE, image_HWD)
        np.save(hidden / _LABELS, labels_HWD)
        card = {"shape": list(image_HWD.shape), **counts}
        (hidden / _CARD).write_text(json.dumps(card) + "\n", encoding="utf-8")


def _opened(place: Path, name: str) -> PreparedScan | None:
    """A scan as it was kept; None of one that is absent or damaged."""
    try:
        card: Any = json.loads((place / _CARD).read_text(encoding="utf-8"))
        image = np.load(place / _IMAGE, mmap_mode="r", allow_pickle=False)
        labels = np.load(place / _LABELS, mmap_mode="r", allow_pickle=False)
        counts = [np.asarray(card[kind], np.int64) for kind in ("inside", "outside")]
        shape = tuple(card["shape"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    whole = image.shape == labels.shape == shape and len(counts[0]) == len(counts[1]) == shape[0]
    if not whole or image.dtype != np.int16 or labels.dtype != np.uint8:
        return None
    return PreparedScan(name, image, labels, counts[0], counts[1])
