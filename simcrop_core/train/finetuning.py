"""What a fine-tuning for segmentation is, as one frozen tree; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from simcrop_core.datasets.btcv import ORGANS
from simcrop_core.datasets.luna16 import STRUCTURES
from simcrop_core.frozen import Frozen
from simcrop_core.train.config import LoopSettings, OptimConfig, RunSettings

Split = Literal["train", "valid", "test"]


@dataclass(frozen=True, slots=True)
class SegmentationTask:
    """A segmentation task of the method's authors.

    Attributes
    ----------
    name
        For people.
    dataset
        Kind of the data set, as :func:`~simcrop_core.datasets.open_dataset` takes it.
    folder
        Of the task among the published lists.
    lists
        The published JSON list by the share of the training scans; it holds all splits.
    testing
        The split on which the figures are.
    structures
        Names of labels 1, 2, ...
    spacing_mm
        To which the authors resample.
    paper
        What the paper gives for SimCroP by share: mean Dice in percent.
    """

    name: str
    dataset: str
    folder: str
    lists: dict[float, str]
    testing: Split
    structures: tuple[str, ...]
    spacing_mm: tuple[float, float, float]
    paper: dict[float, float]


SEGMENTATION_TASKS: dict[str, SegmentationTask] = {
    "btcv": SegmentationTask(
        "BTCV",
        "btcv",
        "BTCV",
        {1.0: "dataset.json"},
        "valid",
        ORGANS,
        (1.5, 1.5, 3.0),
        {1.0: 80.7},
    ),
    "luna16": SegmentationTask(
        "LUNA16",
        "luna16",
        "LUNA16",
        {0.1: "dataset_10.json", 1.0: "dataset_100.json"},
        "test",
        STRUCTURES,
        (1.0, 1.0, 1.0),
        {0.1: 93.5, 1.0: 93.7},
    ),
}


class SegmentationDataConfig(Frozen):
    """The scans, and what is cut from them."""

    task: Literal["btcv", "luna16"] = Field(description="Which task: structures, lists, spacing.")
    root: str | None = Field(default=None, description="Folder of the data set.")
    lists: str | None = Field(
        default=None,
        description="Folder of the published JSON lists, or of the task's own among them, or one "
        "list. None: the data set's folder.",
    )
    fraction: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Share of the training scans. Where no list of this share was published, that "
        "many of the whole list's, always the same ones.",
    )
    held_out: int | None = Field(
        default=None,
        ge=0,
        le=10_000,
        description="Protocol clean: training scans that are not trained on but validated on; 0: "
        "none, the weights are those of the last step. None: a tenth, 2 to 20, where there are 10.",
    )
    spacing_mm: tuple[float, float, float] | None = Field(
        default=None, description="To which scans are resampled. None: as the authors do."
    )
    crops: int = Field(default=16, ge=1, le=10_000, description="Crops of a scan in each pass.")
    prepared: str | None = Field(
        default=None,
        description="Folder of resampled scans for several runs to share, 3 bytes a voxel. None: "
        "in the run's own folder.",
    )
    workers: int = Field(
        default=2, ge=0, le=256, description="Threads that cut crops ahead; 0: none."
    )


class SegmentationHeadConfig(Frozen):
    """The decoder on the encoder."""

    kind: Literal["unetr", "unet", "pyramid"] = Field(
        default="unetr",
        description="unetr: as the method's authors; unet: a residual U-Net that takes the "
        "encoder's features in at every level; pyramid: only on a pyramid's encoder.",
    )
    feature_width: int = Field(default=16, ge=1, le=256, description="Channels of full resolution.")
    roi: tuple[int, int, int] = Field(
        default=(96, 96, 48), description="Voxels of a crop, and of a window in testing."
    )


class SegmentationAugmentation(Frozen):
    """How crops are varied, besides where they are cut; each chance is of its own."""

    flip: float = Field(default=0.2, ge=0, le=1, description="Chance of mirroring, for each axis.")
    mirror_sides: bool | None = Field(
        default=None,
        description="Whether left and right are mirrored too, though labels name sides. None: "
        "only by protocol released.",
    )
    scale: float = Field(default=0.1, ge=0, lt=1, description="Greatest change of values, a share.")
    scale_chance: float = Field(default=0.1, ge=0, le=1, description="Chance of that.")
    shift: float = Field(default=0.1, ge=0, le=1, description="Greatest shift of values.")
    shift_chance: float = Field(default=0.1, ge=0, le=1, description="Chance of that.")
    rotation_degrees: float = Field(
        default=0.0, ge=0, le=45, description="Greatest turn in the axial plane."
    )
    zoom: float = Field(default=0.0, ge=0, lt=0.5, description="Greatest change of size, a share.")
    spatial_chance: float = Field(
        default=0.2, ge=0, le=1, description="Chance of turn and zoom, where they are above 0."
    )
    noise: float = Field(default=0.0, ge=0, le=1, description="Greatest deviation of white noise.")
    noise_chance: float = Field(default=0.1, ge=0, le=1, description="Chance of that.")


class SegmentationRunConfig(LoopSettings):
    """Fine-tuning of a pre-trained encoder with a decoder, for segmentation."""

    format: ClassVar[str] = "simcrop-segmentation"

    schema_version: Literal[1] = Field(default=1, description="Version of this layout.")
    name: str = Field(min_length=1, max_length=200, description="What people call it: its recipe.")
    model: str | None = Field(default=None, description="The pre-trained model, by folder or name.")
    data: SegmentationDataConfig = Field(description="The scans, and what is cut from them.")
    protocol: Literal["clean", "released"] = Field(
        default="clean",
        description="clean: weights are chosen on training scans that were held out, by the Dice "
        "of the structures, and left is never mirrored to right. released: as the authors' code, "
        "which chooses them on the scans that it is tested on, counts the background in Dice, "
        "mirrors all axes, orients to RAS, and gives the encoder two-axis positions and no CLS.",
    )
    head: SegmentationHeadConfig = Field(
        default=SegmentationHeadConfig(), description="The decoder on the encoder."
    )
    augmentation: SegmentationAugmentation = Field(
        default=SegmentationAugmentation(), description="How crops are varied."
    )
    encoder: Literal["tuned", "frozen"] = Field(
        default="tuned", description="Whether the encoder's weights are trained too."
    )
    optim: OptimConfig = Field(
        default=OptimConfig(lr=1e-4, weight_decay=1e-5, beta2=0.999, warmup=50),
        description="How it learns.",
    )
    run: RunSettings = Field(description="How long, how many crops at once, and on what.")
    patience: int | None = Field(
        default=None,
        ge=1,
        description="Validations without a better one after which it ends. None: all steps.",
    )
    overlap: float = Field(
        default=0.5, ge=0, lt=1, description="Of neighbouring windows, in validation and testing."
    )

    @property
    def task(self) -> SegmentationTask:
        return SEGMENTATION_TASKS[self.data.task]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        return self.data.spacing_mm or self.task.spacing_mm

    @property
    def counts_background(self) -> bool:
        """Whether the background is a class of the Dice that is trained and chosen by."""
        return self.protocol == "released"

    @property
    def mirrors_sides(self) -> bool:
        """Whether left and right are mirrored."""
        own = self.augmentation.mirror_sides
        return self.protocol == "released" if own is None else own

    @model_validator(mode="after")
    def _consistent(self) -> SegmentationRunConfig:
        if self.run.world_size > 1:
            raise ValueError("A decoder is fine-tuned on one device: set run.devices to 1.")
        return self
