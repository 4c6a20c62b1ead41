"""Fine-tuning for segmentation: its loss, its validation, and how a run of it is put together.

Shapes in names: B crops; C channels (0 is background); H, W, D voxels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from simcrop_core.device import Progress, silent
from simcrop_core.evaluate.pointing import dice
from simcrop_core.finetune.crops import CropBatch, CropLoader, RawCrops, varied
from simcrop_core.finetune.segmentation_scans import PreparedScan, ScanFolder
from simcrop_core.finetune.tuned import FigureValidation, earlier_losses, module_of, trained_on
from simcrop_core.input_spec import InputSpec
from simcrop_core.model.config import ModelConfig
from simcrop_core.model.simcrop import SimCroP
from simcrop_core.objectives.base import LossTerms, Objective, Ranks
from simcrop_core.outputs import remove_partial
from simcrop_core.segment import window_probabilities
from simcrop_core.train.finetuning import SegmentationRunConfig
from simcrop_core.train.launch import Opened
from simcrop_core.train.loop import Training
from simcrop_core.train.run import SCANS_NAME
from simcrop_core.train.stopping import until_stopped

if TYPE_CHECKING:
    from simcrop_core.datasets.scans import ScanSource

_SIDES = "LR"
_ALONG = "SI"


class SegmentationObjective(Objective):
    """Dice loss plus cross-entropy (MONAI's ``DiceCELoss`` with the authors' settings: squared
    probabilities, nothing added above the fraction). Of a decoder with coarser outputs these are
    trained too, each with half the weight of the finer one, as nnU-Net does.

    Parameters
    ----------
    background
        Whether the background is one of the classes of the Dice loss.
    encoder
        Whether the encoder is trained too.
    """

    def __init__(self, *, background: bool, encoder: bool = True) -> None:
        from monai.losses import DiceLoss

        super().__init__()
        self._parts = ("vision.", "segmentation.") if encoder else ("segmentation.",)
        self._dice = DiceLoss(
            include_background=background,
            to_onehot_y=True,
            softmax=True,
            squared_pred=True,
            smooth_nr=0.0,
            smooth_dr=1e-6,
        )

    def trains(self, name: str) -> bool:
        return name.startswith(self._parts)

    def forward(self, model: SimCroP, batch: CropBatch, ranks: Ranks) -> LossTerms:  # type: ignore[override]
        head = model.segmentation
        assert head is not None
        scales = getattr(head, "scales", None)
        logits = [head(batch.volume_B1HWD)] if scales is None else scales(batch.volume_B1HWD)
        weights = [0.5**level for level in range(len(logits))]
        pairs = [self._of_one(one.float(), batch.labels_BHWD) for one in logits]
        total = sum(
            (w * (d + c) for w, (d, c) in zip(weights, pairs, strict=True)),
            start=torch.zeros((), device=batch.labels_BHWD.device),
        )
        finest = pairs[0]
        return LossTerms(total / sum(weights), {"dice": finest[0], "cross_entropy": finest[1]})

    def _of_one(self, logits_BCHWD: Tensor, labels_BHWD: Tensor) -> tuple[Tensor, Tensor]:
        labels = labels_BHWD[:, None].float()
        if logits_BCHWD.shape[2:] != labels.shape[2:]:
            labels = F.interpolate(labels, size=logits_BCHWD.shape[2:], mode="nearest")
        return self._dice(logits_BCHWD, labels), F.cross_entropy(logits_BCHWD, labels[:, 0].long())


# -- data ---------------------------------------------------------------------------------------


@dataclass(eq=False)
class SegmentationData:
    """What a fine-tuning sees.

    Attributes
    ----------
    loader
        Crops to train on.
    held_out
        Scans it is validated on, or None.
    config, spec
        As configured.
    """

    loader: CropLoader
    held_out: list[PreparedScan] | None
    config: SegmentationRunConfig
    spec: InputSpec

    def batch(self, raw: RawCrops, device: torch.device) -> CropBatch:
        """A training batch on the device, varied."""
        letters = self.spec.orientation
        axes = [a for a in range(3) if self.config.mirrors_sides or letters[a] not in _SIDES]
        p, q = (a for a in range(3) if letters[a] not in _ALONG)
        return varied(raw, device, self.config.augmentation, axes, (p, q))


# -- validation ---------------------------------------------------------------------------------


def measure(
    config: SegmentationRunConfig, scans: Sequence[PreparedScan], training: Training, tell: Progress
) -> dict[str, float]:
    """Dice on whole prepared scans, see :func:`figures_of`."""
    model, device, precision = training.module.model, training.fabric.device, config.run.precision
    head = model.segmentation
    assert head is not None
    rows = []
    for number, scan in enumerate(scans):
        tell("validating", number, len(scans))
        found = window_probabilities(
            model, scan.values(), config.overlap, device, precision, silent
        )
        rows.append(dice_by_class(found.argmax(axis=0), scan.labels_HWD, len(head.labels) + 1))
    return figures_of(np.array(rows), head.labels)


def dice_by_class(
    found_HWD: NDArray[np.integer], truth_HWD: NDArray[np.integer], classes: int
) -> list[float]:
    """Dice of each class, the background first; NaN of one that the truth does not hold, as
    MONAI's ``DiceMetric`` counts."""
    values = []
    for label in range(classes):
        truth = truth_HWD == label
        values.append(dice(found_HWD == label, truth) if truth.any() else float("nan"))
    return values


def figures_of(dice_NC: NDArray[np.floating], labels: Sequence[str]) -> dict[str, float]:
    """``dice`` and ``dice_with_background``: the mean over the scans of each scan's mean over the
    classes that it holds; and the mean of each structure over the scans that hold it."""

    def mean(rows: Sequence[NDArray[np.floating]]) -> float:
        known = [float(np.nanmean(row)) for row in rows if not np.isnan(row).all()]
        return float(np.mean(known)) if known else 0.0

    found = {"dice": mean(list(dice_NC[:, 1:])), "dice_with_background": mean(list(dice_NC))}
    by_label: Mapping[str, float] = {
        f"dice {name}": mean([column])
        for name, column in zip(labels, dice_NC.T[1:], strict=True)
        if not np.isnan(column).all()
    }
    return {**found, **by_label}


# -- all together -------------------------------------------------------------------------------


def assemble(
    config: SegmentationRunConfig,
    training_scans: Sequence[ScanSource],
    held_out: Sequence[ScanSource],
    opened: Opened,
) -> Training:
    """Everything that takes part; scans that are not prepared yet are.

    Raises
    ------
    SimCroPError
        A scan cannot be read.
    """
    tell = until_stopped(opened.tell, opened.asked_to_stop)
    data = _data(config, training_scans, held_out, opened.place, opened.model, tell)
    objective = SegmentationObjective(
        background=config.counts_background, encoder=config.encoder == "tuned"
    )
    return opened.training(
        config,
        module_of(config, opened.model, objective, CropBatch),
        data,
        len(data.loader) / config.run.accumulation,
        FigureValidation(
            config.run.validate_every,
            lambda training, tell: measure(config, data.held_out or (), training, tell),
            "dice_with_background" if config.counts_background else "dice",
            config.patience,
            earlier_losses(opened),
        ),
        lambda before, step: described(before, config, step),
    )


def _data(
    config: SegmentationRunConfig,
    training_scans: Sequence[ScanSource],
    held_out: Sequence[ScanSource],
    place: Path,
    model: SimCroP,
    tell: Progress,
) -> SegmentationData:
    own = config.data
    folder = Path(own.prepared).expanduser() if own.prepared else place / SCANS_NAME
    if not own.prepared:  # nobody else writes here
        remove_partial(folder, None)
    kept = ScanFolder(folder, model.input_spec, config.head.roi, own.workers)
    loader = CropLoader(
        kept.scans(training_scans, tell),
        crops=own.crops,
        batch_size=config.run.part_size,
        size=config.head.roi,
        seed=config.run.seed,
        scan_by_scan=config.protocol == "released",
        workers=own.workers,
    )
    validated = kept.scans(held_out, tell) if held_out else None
    return SegmentationData(loader, validated, config, model.input_spec)


def described(before: ModelConfig, config: SegmentationRunConfig, step: int) -> ModelConfig:
    """The model's configuration with what head and encoder were trained on."""
    trained = (
        f"segmentation of {config.task.name}, {config.data.fraction:.0%} of its training scans, "
        f"{config.protocol}, run {config.name}, step {step}"
    )
    head = before.segmentation
    assert head is not None
    update: dict[str, object] = {"segmentation": head.model_copy(update={"trained": trained})}
    if config.encoder == "tuned":
        update["provenance"] = trained_on(before.provenance, trained, config.name)
    return before.model_copy(update=update)
