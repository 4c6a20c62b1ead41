"""The studies of a run: its store (made of phantoms where none is given), dealt out."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from simcrop_core.datasets.phantoms import is_for_evaluation
from simcrop_core.device import Progress, silent
from simcrop_core.errors import SimCroPError
from simcrop_core.input_spec import InputSpec
from simcrop_core.model.config import ModelConfig
from simcrop_core.objectives.base import Ranks
from simcrop_core.phantoms import VALIDATION_SEED
from simcrop_core.phantoms.truth_classes import CLASSES
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
from simcrop_core.store.encode import TextSettings
from simcrop_core.store.store import Split
from simcrop_core.study_batch import StudyBatch
from simcrop_core.train.config import RunConfig
from simcrop_core.train.stopping import until_stopped

PHANTOMS_NAME = "phantoms"
QUARANTINE_NAME = "quarantine.jsonl"
_FEW_PHANTOMS = 16
_TOLD_EVERY = 100
_LOCKED_S = 1.0


@dataclass(eq=False)
class TrainingData:
    """What a process trains on and is validated on.

    Attributes
    ----------
    store
        All studies.
    loader
        Training batches of this process, endless, resumable.
    held_out
        Validation batches of this process, the same each time; None where nothing is held out.
    spec, augmentation
        What is cut out of stored volumes, and how training samples are varied.
    cells
        Cells of a patch along each axis, for a model with the finer level; else None.
    shuffle_reports
        Whether every scan is trained with the report of its neighbour in the batch.
    """

    store: Store
    loader: Loader
    held_out: Loader | None
    spec: InputSpec
    augmentation: AugmentationConfig
    cells: tuple[int, int, int] | None = None
    shuffle_reports: bool = False

    def batch(self, raw: RawBatch, device: torch.device) -> StudyBatch:
        """A training batch on the device."""
        batch = to_batch(raw, device, self.spec, self.augmentation, self.cells)
        return with_wrong_reports(batch) if self.shuffle_reports else batch

    def held_out_batch(self, raw: RawBatch, device: torch.device) -> StudyBatch:
        """A validation batch: the middle of each volume, as it is."""
        return to_batch(raw, device, self.spec, None, self.cells)

    def one_by_one(self) -> Iterator[RawBatch]:
        """The held-out studies of all processes, one at a time."""
        if self.held_out is None:
            return
        yield from Loader(
            self.store,
            batch_size=1,
            seed=self.held_out.seed,
            indices=self.held_out.indices,
            epochs=1,
            shuffle=False,
            workers=1,
        )

    def sentence_mean(self, tell: Progress = silent) -> Tensor:
        """The mean of all sentence vectors of the studies that are trained on, ``(D,)``."""
        assert self.store.text is not None
        total = torch.zeros(self.store.text.encoder.width, dtype=torch.float64)
        count = 0
        for number, index in enumerate(self.loader.indices):
            if number % _TOLD_EVERY == 0:
                tell("reading sentences", number, len(self.loader.indices))
            try:
                sentences = self.store.record(index).sentences
            except SimCroPError as e:
                self.loader.set_aside(index, e)
                continue
            if sentences:
                vectors_SD = torch.from_numpy(self.store.text.vectors_of(sentences))
                total += vectors_SD.double().sum(dim=0)
                count += len(sentences)
        return (total / max(1, count)).float()

    def texts(self, index: int) -> tuple[str, ...]:
        """The sentences of a study, in order."""
        return self.store.record(index).sentences


def with_wrong_reports(batch: StudyBatch) -> StudyBatch:
    """Every scan with the report, regions and facts of the next one in the batch."""
    of_the_scan = {"volume_B1HWD", "seeds_B", "index_B", "structures_BHWD"}
    moved = {
        f.name: value.roll(-1, dims=0)
        for f in fields(batch)
        if f.name not in of_the_scan and isinstance(value := getattr(batch, f.name), Tensor)
    }
    return replace(batch, **moved)


def make_phantom_store(
    config: RunConfig,
    model: ModelConfig,
    folder: Path,
    tell: Progress = silent,
    stop: Callable[[], bool] = lambda: False,
) -> Path:
    """Make the phantoms of a run and prepare them; what is there already is left as it is.

    Runs may share a folder: who comes second waits. ``stop`` is asked after each phantom.

    Returns
    -------
    Path
        The store: in ``data.phantom_folder``, or in the run's own ``folder``.

    Raises
    ------
    StopAskedError
        What was made is kept; the same call goes on with the rest.
    """
    from simcrop_core.datasets import STORE_NAMES, phantom_sources
    from simcrop_core.phantoms.study import Labels

    if segments(config) and (model.segmentation is None or model.segmentation.labels != CLASSES):
        own = () if model.segmentation is None else model.segmentation.labels
        raise SimCroPError(
            f"The label maps of phantoms are of {_named(CLASSES)}, and the model's segmentation "
            f"head knows {_named(own)}",
            code="other-classes",
            remedy="Set model.segmentation_labels as the recipe starter does, or train without "
            "segmentation.",
        )
    data = config.data
    place = Path(data.phantom_folder).expanduser() if data.phantom_folder else folder
    place = place / PHANTOMS_NAME if data.phantom_folder is None else place
    seeds = range(data.phantom_seed, data.phantom_seed + data.phantoms)
    kind: Labels = "classes" if segments(config) else "structures"
    sources = phantom_sources(seeds, kind)
    progress = until_stopped(tell, stop)
    while True:
        try:
            build_store(
                STORE_NAMES[kind],
                sources,
                place,
                store_settings(model.input_spec),
                TextSettings(
                    source=config.model.text_encoder or model.text.source,
                    sentence_vector=model.text.sentence_vector,
                ),
                # A few are made before processes for them would have started.
                workers=max(1, data.workers) if data.phantoms > _FEW_PHANTOMS else 1,
                progress=progress,
            )
            return place
        except SimCroPError as e:
            if e.code != "locked":
                raise
        # Another run makes or looks over the same ones; what it leaves undone is done here.
        progress("waiting for another run's phantoms", 0, data.phantoms)
        time.sleep(_LOCKED_S)


def segments(config: RunConfig) -> bool:
    """Whether a run trains a segmentation head."""
    return getattr(config.objective, "segmentation_weight", 0) > 0


def store_settings(spec: InputSpec) -> StoreSettings:
    """How phantoms are stored for a model: with a margin of one patch on every side."""
    return StoreSettings(spec=spec, margin_voxels=spec.patch_shape)


def open_data(
    config: RunConfig, model: ModelConfig, store_folder: Path, run_folder: Path, ranks: Ranks
) -> TrainingData:
    """The store of a run and its loaders.

    Raises
    ------
    SimCroPError
        The store is damaged or does not fit the model; too few studies; phantoms that are for
        evaluation.
    """
    store = open_store(store_folder, model.text.fingerprint, model.text.sentence_vector)
    store.settings.check_model(model.input_spec, model.vision.cells)
    assert store.text is not None or not len(store)
    held = config.data.held_out
    split = _split(store, held)
    if split.left_out and ranks.rank == 0:
        print(
            f"{split.left_out} studies are neither trained on nor validated on: their patients "
            "are among the held-out studies.",
            file=sys.stderr,
        )
    pieces = config.run.batch_size // config.run.accumulation
    common: dict[str, Any] = {
        "seed": config.run.seed,
        "rank": ranks.rank,
        "world_size": ranks.world_size,
        "workers": config.data.workers,
        "pin_memory": torch.cuda.is_available(),
        "max_tokens": min(part.max_tokens for part in (model.text, model.text_decoder) if part),
        "quarantine": run_folder / QUARANTINE_NAME,
        "structures": segments(config),
    }
    if segments(config):
        check_classes(store, model)
    loader = Loader(store, batch_size=pieces // ranks.world_size, indices=split.trained, **common)
    held_out = None
    if held:
        size = _even_size(held, pieces, ranks.world_size, store_folder)
        held_out = Loader(
            store,
            batch_size=size // ranks.world_size,
            indices=split.held_out,
            epochs=1,
            shuffle=False,
            **common,
        )
    return TrainingData(
        store,
        loader,
        held_out,
        model.input_spec,
        config.data.augmentation,
        model.vision.cells,
        config.data.shuffle_reports,
    )


def check_classes(store: Store, model: ModelConfig) -> None:
    """Refuse a store whose label maps are not of the classes of the model's segmentation head.

    Raises
    ------
    SimCroPError
        ``other-classes``, naming the first such study.
    """
    labels = model.segmentation.labels if model.segmentation is not None else ()
    for index, name in enumerate(store.ids):
        try:
            names = store.record(index).structure_names
        except SimCroPError:
            continue  # a damaged study is set aside when its turn comes
        if names != labels:
            raise SimCroPError(
                f"The label map of {name} is of {_named(names)}, and the model's segmentation "
                f"head knows {_named(labels)}",
                code="other-classes",
                remedy="Prepare phantoms with --classes, or train without segmentation.",
                path=store.folder,
            )


def _named(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + f" and {len(names) - 3} more" * (len(names) > 3) or "nothing"


def _split(store: Store, held: int) -> Split:
    """What is trained on and what is held out; something must be left to train on."""
    if any(is_for_evaluation(name) for name in store.ids):
        raise SimCroPError(
            f"The store holds phantoms from seed {VALIDATION_SEED} on, which are for evaluation "
            "and never trained on",
            code="evaluation-phantoms",
            remedy=f"Prepare phantoms below seed {VALIDATION_SEED} in another folder.",
            path=store.folder,
        )
    if len(store) <= held:
        raise SimCroPError(
            f"The store has {len(store)} studies, and {held} are to be held out",
            code="too-few-studies",
            remedy="Lower data.held_out, or prepare more studies.",
            path=store.folder,
        )
    split = store.split(held)
    if not split.trained:
        raise SimCroPError(
            f"All studies are of the patients of the last {held}, which are to be held out",
            code="too-few-studies",
            remedy="Lower data.held_out, or prepare studies of more patients.",
            path=store.folder,
        )
    return split


def _even_size(held: int, most: int, processes: int, store: Path) -> int:
    """Studies of a validation batch: as many as of a training batch, or more than half of that
    if then none is left over; the same for all processes, since their losses wait for one another.
    Batches much smaller would make contrast across studies easy and the loss another one."""
    sizes = range(processes, min(held, most) + 1, processes)
    if not sizes:
        raise SimCroPError(
            f"{held} held-out studies cannot be dealt out to {processes} processes",
            code="too-few-studies",
            remedy=f"Set data.held_out to 0, or to {processes} or more.",
            path=store,
        )
    whole = [n for n in sizes if held % n == 0 and 2 * n > sizes[-1]]
    return max(whole or sizes)
