"""What a run is, as one frozen tree; imports no torch.

``data`` what is seen, ``model`` what learns, ``objective`` what it learns from, ``optim`` how, and
``run`` for how long and on what. Unknown keys and combinations that make no sense are refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, Self, get_args

from pydantic import BaseModel, Field, create_model, model_validator

from simcrop_core.frozen import Frozen
from simcrop_core.model.config import ModelConfig, TextConfig, TextDecoderConfig
from simcrop_core.objectives.config import ObjectiveConfig
from simcrop_core.phantoms import VALIDATION_SEED
from simcrop_core.store.settings import AugmentationConfig


def _changes(config: type[BaseModel], without: frozenset[str] = frozenset()) -> type[BaseModel]:
    """The same fields with the same limits, all optional: None leaves the preset's value."""
    fields: dict[str, Any] = {}
    for name, field in config.model_fields.items():
        if name in without:
            continue
        part = _part(field.annotation)
        if part is not None:
            changes = _changes(part, _NO_CHANGES.get(part, frozenset()))
            fields[name] = (changes, Field(default=changes(), description=field.description))
            continue
        limited: Any = field.annotation
        for limit in field.metadata:
            limited = Annotated[limited, limit]
        text = f"{field.description} None: as in the preset."
        fields[name] = (limited | None, Field(default=None, description=text))
    return create_model(f"{config.__name__}Changes", __base__=Frozen, **fields)


def _part(annotation: Any) -> type[BaseModel] | None:
    """The configuration that a field holds, where it holds one."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


# What follows from the text encoder that is chosen, and is never set by hand.
_NO_CHANGES = {
    TextConfig: frozenset({"source", "width", "fingerprint"}),
    TextDecoderConfig: frozenset({"vocabulary_size"}),
}
if TYPE_CHECKING:
    ModelChanges = Frozen
else:
    ModelChanges = _changes(
        ModelConfig,
        frozenset({"schema_version", "name", "segmentation", "classification", "provenance"}),
    )


class ModelSource(ModelChanges):
    """The model to train: a preset with changes, or one that is on the disk already.

    Beside its own fields it has those of :class:`ModelConfig`; what is None is as in the preset.
    """

    preset: Literal["starter", "paper", "released", "grounded", "pyramid"] | None = Field(
        default="starter", description="A new model of this kind; None where a folder is given."
    )
    folder: str | None = Field(
        default=None,
        description="A model on the disk to go on from, by folder or name; it must have the "
        "parts that the objective trains.",
    )
    text_encoder: str | None = Field(
        default=None,
        description="minilm, a folder, or a hub id in the person's cache. None: the preset's, or "
        "where the folder's model says.",
    )
    segmentation_labels: tuple[str, ...] | None = Field(
        default=None,
        description="Names of the classes of a segmentation head that is made with the model. "
        "None: no head.",
    )
    without: tuple[Literal["image_decoder", "fusion", "text_decoder", "presence"], ...] = Field(
        default=(), description="Parts of the preset that are left out."
    )

    @model_validator(mode="after")
    def _consistent(self) -> ModelSource:
        if (self.preset is None) == (self.folder is None):
            raise ValueError("Give a preset or a folder for the model: one of the two.")
        changes = self.changes()
        if self.folder is not None and (changes or self.without or self.segmentation_labels):
            raise ValueError(
                "A model from a folder is trained as it is: leave out changes to its parts "
                f"({', '.join(sorted({*changes, *self.without}) or ['segmentation_labels'])})."
            )
        if both := sorted(set(changes) & set(self.without)):
            raise ValueError(f"A part cannot be both changed and left out ({', '.join(both)}).")
        if len({"fusion", "text_decoder"} & set(self.without)) == 1:
            raise ValueError("Fusion and text decoder work together: leave out both or neither.")
        return self

    def changes(self) -> dict[str, Any]:
        """What differs from the preset, by field of :class:`ModelConfig`."""
        own = {"preset", "folder", "text_encoder", "without", "segmentation_labels"}
        found = self.model_dump(exclude=own, exclude_none=True)
        return {name: value for name, value in found.items() if value != {}}


class DataConfig(Frozen):
    """The studies that are seen."""

    store: str | None = Field(
        default=None,
        description="Folder that `simcrop-train prepare` made. None: phantoms are made and "
        "prepared before the first step.",
    )
    phantoms: int = Field(
        default=512, ge=2, le=1_000_000, description="Phantoms to make where no store is given."
    )
    phantom_seed: int = Field(
        default=0, ge=0, le=2**31, description="Seed of the first phantom; the others follow it."
    )
    phantom_folder: str | None = Field(
        default=None,
        description="Where the phantoms' store is kept for other runs to use. None: in this run's "
        "own folder.",
    )
    held_out: int = Field(
        default=32,
        ge=0,
        description="Studies at the end of the store on which the run is validated; neither they "
        "nor other studies of their patients are trained on.",
    )
    augmentation: AugmentationConfig = Field(
        default=AugmentationConfig(), description="How training samples are varied."
    )
    shuffle_reports: bool = Field(
        default=False,
        description="A control: every scan is trained with the report of another study, its "
        "neighbour in the batch, so that nothing true can be learnt of the two together.",
    )
    workers: int = Field(
        default=2, ge=0, le=256, description="Loader's workers for each device; 0: none."
    )

    @model_validator(mode="after")
    def _consistent(self) -> DataConfig:
        if self.store is not None and self.phantom_folder is not None:
            raise ValueError("Phantoms are not made where a store is given.")
        if self.phantom_seed + self.phantoms > VALIDATION_SEED:
            raise ValueError(
                f"Phantoms from seed {VALIDATION_SEED} on are for validation, not for training."
            )
        if self.store is None and self.held_out >= self.phantoms:
            raise ValueError(
                f"Of {self.phantoms} phantoms {self.held_out} cannot be held out: none is left to "
                "train on."
            )
        return self


class OptimConfig(Frozen):
    """AdamW with warm-up and cosine; defaults are the paper's and those of MAE, MRM and ECAMP."""

    lr: float = Field(default=1.5e-4, gt=0, le=10, description="Highest learning rate.")
    min_lr: float = Field(
        default=0.0, ge=0, le=10, description="Learning rate at the horizon and after it."
    )
    weight_decay: float = Field(
        default=0.05, ge=0, le=10, description="Decay of weights; never of 1-D tensors."
    )
    beta1: float = Field(default=0.9, ge=0, lt=1, description="Decay of the mean gradient.")
    beta2: float = Field(default=0.95, ge=0, lt=1, description="Decay of the mean square.")
    warmup: float = Field(
        default=40,
        ge=0,
        description="Linear warm-up, counted as the run is: in epochs, or in steps.",
    )
    horizon: float | None = Field(
        default=None,
        gt=0,
        description="Where the cosine ends, counted as the run is. None: with the run. Past it "
        "the rate stays at its least.",
    )
    clip_norm: float | None = Field(
        default=None, gt=0, description="Longest gradient; a longer one is shortened. None: any."
    )

    @model_validator(mode="after")
    def _consistent(self) -> OptimConfig:
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr {self.min_lr} is above lr {self.lr}.")
        if self.horizon is not None and self.warmup >= self.horizon:
            raise ValueError(
                f"A warm-up of {self.warmup:g} does not end before the horizon {self.horizon:g}."
            )
        return self


class RunSettings(Frozen):
    """How long, how many at once, and on what."""

    epochs: float | None = Field(
        default=None, gt=0, le=100_000, description="Length in passes over the data; or give steps."
    )
    steps: int | None = Field(
        default=None, ge=1, description="Length in optimiser steps; or give epochs."
    )
    batch_size: int = Field(
        default=48,
        ge=1,
        le=1_000_000,
        description="Studies of an optimiser step, over all devices and accumulation together.",
    )
    accumulation: int = Field(
        default=1,
        ge=1,
        le=10_000,
        description="Parts in which a device works through its share of a batch: less memory. "
        "Studies are contrasted within a part only.",
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="auto: bf16 on a GPU that has it, else fp32."
    )
    accelerator: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="auto: GPUs if there are any."
    )
    devices: int = Field(
        default=1, ge=1, le=1024, description="Devices (or CPU processes) of each computer."
    )
    nodes: int = Field(
        default=1, ge=1, le=10_000, description="Computers, started by torchrun or SLURM."
    )
    strategy: Literal["auto", "ddp", "fsdp"] = Field(
        default="auto",
        description="ddp: each device holds the whole model; fsdp: its share (FSDP2). auto: fsdp "
        "for ViT-L and larger on several devices, else ddp.",
    )
    compile: bool = Field(
        default=False, description="Compile each transformer block: slower start, faster steps."
    )
    seed: int = Field(
        default=0, ge=0, lt=2**31, description="Of weights, order, masks and augmentation."
    )
    checkpoint_every: int = Field(
        default=1000, ge=1, description="Steps from checkpoint to checkpoint."
    )
    validate_every: int = Field(
        default=1000, ge=1, description="Steps from validation to validation; also at the end."
    )
    keep: int = Field(
        default=3, ge=1, le=10_000, description="Newest checkpoints kept; and the best one."
    )
    previews: int = Field(
        default=3,
        ge=0,
        le=64,
        description="Held-out studies of which a picture is drawn at each validation.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> RunSettings:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("Give the length of the run in epochs or in steps: one of the two.")
        parts = self.devices * self.nodes * self.accumulation
        if self.batch_size % parts:
            raise ValueError(
                f"A batch of {self.batch_size} cannot be dealt out evenly to {self.nodes} x "
                f"{self.devices} devices in {self.accumulation} parts each; choose a multiple of "
                f"{parts}."
            )
        if self.strategy == "fsdp" and self.devices * self.nodes == 1:
            raise ValueError("Strategy fsdp shares a model out and needs two devices or more.")
        return self

    @property
    def world_size(self) -> int:
        """Processes of the run."""
        return self.devices * self.nodes

    @property
    def part_size(self) -> int:
        """Studies that a device works on at once."""
        return self.batch_size // (self.world_size * self.accumulation)


class LoopConfig(Protocol):
    """What every configuration has that the training loop and a run's folder work with.

    ``format`` is the word by which the folder's ``config.json`` says whose configuration it is.
    """

    format: ClassVar[str]

    @property
    def name(self) -> str: ...

    @property
    def optim(self) -> OptimConfig: ...

    @property
    def run(self) -> RunSettings: ...

    @property
    def unit(self) -> Literal["epochs", "steps"]: ...

    def model_dump(self, *, mode: str = ...) -> dict[str, Any]: ...


class LoopSettings(Frozen):
    """How it learns and for how long: what every configuration that trains has."""

    if TYPE_CHECKING:  # each declares them itself, where its form shows them
        optim: OptimConfig
        run: RunSettings

    @property
    def unit(self) -> Literal["epochs", "steps"]:
        """What the run's length, warm-up and horizon are counted in."""
        return "epochs" if self.run.epochs is not None else "steps"

    @model_validator(mode="after")
    def _warm_up_ends(self) -> Self:
        length = self.run.steps or self.run.epochs
        if length is not None and self.optim.horizon is None and self.optim.warmup >= length:
            raise ValueError(
                f"A warm-up of {self.optim.warmup:g} {self.unit} does not end within a run of "
                f"{length:g}."
            )
        return self


class RunConfig(LoopSettings):
    """Everything that makes a run; saved with every checkpoint."""

    format: ClassVar[str] = "simcrop-run"

    schema_version: Literal[1] = Field(default=1, description="Version of this layout.")
    name: str = Field(
        min_length=1, max_length=200, description="What people call the run: its recipe."
    )
    data: DataConfig = Field(default=DataConfig(), description="The studies that are seen.")
    model: ModelSource = Field(default=ModelSource(), description="The model to train.")
    objective: ObjectiveConfig = Field(description="What the model learns from.")
    optim: OptimConfig = Field(default=OptimConfig(), description="How it learns.")
    run: RunSettings = Field(description="How long, how many at once, and on what.")
