"""Fine-tuning for classification: views, loss, validation, and how a run of it is put together.

Shapes in names: B views; H, W, D voxels; N scans; K labels or classes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from simcrop_core.counter_random import seed_of
from simcrop_core.device import Progress, autocast, evaluating
from simcrop_core.errors import SimCroPError
from simcrop_core.evaluate.classification import ClassificationResult, accuracy, auc_by_label
from simcrop_core.finetune.features import ahead, dropped_branches
from simcrop_core.finetune.head import batches
from simcrop_core.finetune.lists import Scans
from simcrop_core.finetune.tuned import FigureValidation, earlier_losses, module_of, trained_on
from simcrop_core.input_spec import InputSpec
from simcrop_core.model.config import ModelConfig
from simcrop_core.model.simcrop import SimCroP
from simcrop_core.objectives.base import LossTerms, Objective, Ranks
from simcrop_core.train.finetuning_classification import ClassificationRunConfig
from simcrop_core.train.launch import Opened
from simcrop_core.train.loop import Training
from simcrop_core.views import center_view, draw_view, take_view, whole_scan

# -- what is seen -------------------------------------------------------------------------------


class RawViews(NamedTuple):
    """Views of scans with the rows of their labels, and their seeds."""

    values_BHWD: NDArray[np.float32]
    labels_BK: NDArray[np.int16]
    seeds_B: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ViewBatch:
    """Views side by side, all on one device.

    Attributes
    ----------
    volume_B1HWD, labels_BK
        In [-1, 1]; labels 0 or 1, or one column of classes.
    seeds_B
        int64: each view's only source of randomness in the network.
    """

    volume_B1HWD: Tensor
    labels_BK: Tensor
    seeds_B: Tensor


class ViewLoader:
    """Batches of random views of scans, endless; its place can be kept and found again. The view of
    a scan in a pass follows from the seed, its id and the pass, see :mod:`simcrop_core.views`."""

    def __init__(
        self, scans: Scans, spec: InputSpec, *, batch_size: int, seed: int, workers: int
    ) -> None:
        self.scans, self.spec, self.seed, self.workers = scans, spec, seed, workers
        self.batch_size = min(batch_size, len(scans))
        self.step = 0

    def __len__(self) -> int:
        """Batches of a pass over the scans; the last one may have fewer scans."""
        return math.ceil(len(self.scans) / self.batch_size)

    def state_dict(self) -> dict[str, int]:
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step = int(state["step"])

    def __iter__(self) -> Iterator[RawViews]:
        for number, raw in ahead(itertools.count(self.step), self.batch, self.workers):
            self.step = number + 1
            yield raw

    def batch(self, number: int) -> RawViews:
        """The batch with this number."""
        epoch, within = divmod(number, len(self))
        rows = batches(len(self.scans), self.batch_size, self.seed, epoch)[within]
        values = [self._view(int(row), epoch) for row in rows]
        seeds = [seed_of(self.seed, epoch, int(row)) for row in rows]
        return RawViews(np.stack(values), self.scans.labels_NK[rows], np.array(seeds, np.int64))

    def _view(self, row: int, epoch: int) -> NDArray[np.float32]:
        source = self.scans.sources[row]
        scan = _whole(self.scans, row, self.spec)
        size = (scan.shape[0], scan.shape[1], scan.shape[2])
        wanted = self.spec.shape
        return take_view(scan, draw_view(self.seed, source.id, epoch, size, wanted), wanted)


def _whole(scans: Scans, row: int, spec: InputSpec) -> NDArray[np.float32]:
    source = scans.sources[row]
    try:
        return whole_scan(source.read(), spec)
    except SimCroPError as e:
        raise SimCroPError(
            f"Scan {source.id}: {e.problem}", code=e.code, remedy=e.remedy, path=e.path
        ) from e


@dataclass(eq=False)
class _Data:
    loader: ViewLoader
    held_out: Scans | None

    def batch(self, raw: RawViews, device: torch.device) -> ViewBatch:
        volume_B1HWD = torch.from_numpy(raw.values_BHWD)[:, None].to(device)
        labels_BK = torch.from_numpy(raw.labels_BK.astype(np.int64)).to(device)
        return ViewBatch(volume_B1HWD, labels_BK, torch.from_numpy(raw.seeds_B).to(device))


# -- what is learnt -----------------------------------------------------------------------------


class ClassificationObjective(Objective):
    """Cross-entropy of each label by itself, or of classes; the whole encoder is trained, with
    branches dropped at random."""

    def __init__(self, classes: int, drop_path: float) -> None:
        super().__init__()
        self.classes, self.drop_path = classes, drop_path

    def trains(self, name: str) -> bool:
        return name.startswith(("vision.", "classification."))

    def forward(self, model: SimCroP, batch: ViewBatch, ranks: Ranks) -> LossTerms:  # type: ignore[override]
        head = model.classification
        assert head is not None
        dropped = model.training and self.drop_path > 0
        seeds = batch.seeds_B.tolist() if dropped else []
        streams = [np.random.default_rng([seed, 1]) for seed in seeds]
        with dropped_branches(model.vision, streams, self.drop_path):
            logits_BK = head(model.vision(batch.volume_B1HWD).pooled_BD).float()
        if self.classes:
            loss = F.cross_entropy(logits_BK, batch.labels_BK[:, 0])
        else:
            loss = F.binary_cross_entropy_with_logits(logits_BK, batch.labels_BK.float())
        return LossTerms(loss, {"cross_entropy": loss})


def assemble(
    config: ClassificationRunConfig, trained: Scans, held_out: Scans | None, opened: Opened
) -> Training:
    """Everything that takes part."""
    model = opened.model
    loader = ViewLoader(
        trained,
        model.input_spec,
        batch_size=config.run.part_size,
        seed=config.run.seed,
        workers=config.data.workers,
    )
    objective = ClassificationObjective(config.task.classes, config.drop_path)
    steps_per_pass = len(loader) / config.run.accumulation
    every = config.run.validate_every
    if config.validate_passes is not None:
        every = max(1, round(config.validate_passes * steps_per_pass))
    return opened.training(
        config,
        module_of(config, model, objective, ViewBatch),
        _Data(loader, held_out),
        steps_per_pass,
        FigureValidation(
            every,
            lambda training, say: _measure(config, held_out, training, say),
            "figure",
            config.patience,
            earlier_losses(opened),
        ),
        lambda before, step: _described(before, config, step),
    )


def _described(before: ModelConfig, config: ClassificationRunConfig, step: int) -> ModelConfig:
    trained = (
        f"classification of {config.task.name}, {config.data.fraction:.0%} of its training scans, "
        f"run {config.name}, step {step}"
    )
    head = before.classification
    assert head is not None
    update: dict[str, object] = {
        "classification": head.model_copy(update={"trained": trained}),
        "provenance": trained_on(before.provenance, trained, config.name),
    }
    return before.model_copy(update=update)


# -- figures ------------------------------------------------------------------------------------


def logits_of_scans(
    config: ClassificationRunConfig,
    model: SimCroP,
    scans: Scans,
    say: Progress,
    what: str,
) -> NDArray[np.float32]:
    """``(N, K)`` logits of the middle of each scan."""
    head, spec = model.classification, model.input_spec
    assert head is not None
    rows = []

    def middle(row: int) -> NDArray[np.float32]:
        return center_view(_whole(scans, row, spec), spec.shape)

    with evaluating(model), torch.inference_mode():
        for row, view in ahead(range(len(scans)), middle, config.data.workers):
            say(what, row, len(scans))
            x_B1HWD = torch.from_numpy(view)[None, None].to(model.device)
            with autocast(model.device, config.run.precision):
                logits_BK = head(model.vision(x_B1HWD).pooled_BD)
            rows.append(logits_BK[0].float().cpu().numpy())
    return np.stack(rows)


def figures(
    config: ClassificationRunConfig, scores_NK: NDArray[np.float32], scans: Scans, draws: int
) -> ClassificationResult:
    """Areas under the curve, or accuracy, as the task is measured."""
    task, seed = config.task, config.run.seed
    if task.classes:
        truth_N = scans.labels_NK[:, 0]
        return accuracy(scores_NK, truth_N, task.labels, draws=draws, seed=seed)
    return auc_by_label(scores_NK, scans.labels_NK, task.labels, draws=draws, seed=seed)


def _measure(
    config: ClassificationRunConfig, scans: Scans | None, training: Training, say: Progress
) -> dict[str, float]:
    assert scans is not None
    scores_NK = logits_of_scans(config, training.module.model, scans, say, "validating")
    found = figures(config, scores_NK, scans, 0)
    overall = 0.0 if found.overall is None else found.overall.value
    return {
        "figure": overall,
        **{f"{found.metric} {k}": e.value for k, e in found.by_label.items()},
    }
