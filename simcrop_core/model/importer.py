"""The authors' checkpoint, and others with the same names, as models of ours."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from simcrop_core.errors import SimCroPError
from simcrop_core.input_spec import InputSpec
from simcrop_core.model.checkpoint import expected_shapes, fill, misfits
from simcrop_core.model.config import (
    CXR_BERT,
    ImageDecoderConfig,
    ModelConfig,
    PositionKind,
    Provenance,
    VisionConfig,
    bad_config,
)
from simcrop_core.model.foreign import ForeignWeights, read_foreign_weights
from simcrop_core.model.image_decoder import ImageDecoder
from simcrop_core.model.simcrop import SimCroP, without_weights
from simcrop_core.model.text import text_config_for
from simcrop_core.model.vision import Shape3, token_positions
from simcrop_core.volume import Note

_HEAD_WIDTH = 64
_ENCODER_NAMES = ("cls_token", "pos_embed", "patch_embed", "blocks", "fc_norm")
_DECODER_NAMES = {
    "decoder_embed": "embed",
    "decoder_blocks": "blocks",
    "decoder_norm": "norm",
    "decoder_pred": "pred",
}


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What became of a checkpoint.

    Attributes
    ----------
    source
        The checkpoint's name, without its folder.
    depth, width, heads, grid_shape, patch_shape, position
        The encoder as it was inferred.
    used
        Names in the checkpoint that were taken.
    unused
        Names that were not.
    initialised
        Parts of the model that the checkpoint does not have and that start fresh.
    notes
        What a person should know.
    """

    source: str
    depth: int
    width: int
    heads: int
    grid_shape: Shape3
    patch_shape: Shape3
    position: PositionKind
    used: tuple[str, ...]
    unused: tuple[str, ...]
    initialised: tuple[str, ...]
    notes: tuple[Note, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """What became of the checkpoint, for a person to read."""
        lines = [f"{len(self.used)} weights of {self.source} were used."]
        if self.unused:
            lines.append(f"Not used: {', '.join(self.unused)}")
        if self.initialised:
            lines.append(f"Not in the checkpoint, fresh: {', '.join(self.initialised)}")
        return [*lines, *(note.text for note in self.notes)]


def import_checkpoint(
    path: str | PathLike[str],
    *,
    text_encoder: str | None = None,
    input_spec: InputSpec | None = None,
    heads: int | None = None,
    name: str | None = None,
) -> tuple[SimCroP, ImportReport]:
    """Make a model of a checkpoint with timm's names, such as the one the authors released.

    Depth, width, patch and grid follow from names and shapes; a position embedding of ``n ** 3``
    rows means a cubic grid, any other needs ``input_spec``. The file is opened in a process of
    its own that loads tensors only; nothing in it is run.

    Parameters
    ----------
    path
        A ``.pth`` file (``{"model": ...}``, ``{"state_dict": ...}`` or bare names) or safetensors.
    text_encoder
        ``"minilm"``, a folder, or a hub id in the person's cache; CXR-BERT by default.
    input_spec
        How scans are prepared; by default the paper's spacing and window on the inferred grid.
    heads
        Attention heads, which shapes do not tell; width / 64 by default.
    name
        What to call the model; the checkpoint's name by default.

    Raises
    ------
    SimCroPError
        The file is no such checkpoint; weights are missing or of wrong shape (they are listed);
        the grid is ambiguous; or the file holds more than weights.
    """
    path = Path(path).expanduser()
    foreign = read_foreign_weights(path)
    _refuse_other_kinds(foreign, path)
    tensors = dict(foreign.tensors)
    notes: list[Note] = []
    layout = _Layout.infer(tensors, input_spec, heads, path, notes)
    decoder = _decoder_config(tensors, layout, notes)
    text, encoder = text_config_for(text_encoder or CXR_BERT)
    try:
        config = ModelConfig(
            name=name or path.stem or "imported",
            input_spec=layout.input_spec,
            vision=layout.vision,
            text=text,
            image_decoder=decoder,
            provenance=Provenance(
                trained="as its source says; not verified",
                source=f"imported from {path.name}, sha256 {_sha256(path)[:16]}",
            ),
        )
    except ValidationError as e:
        raise bad_config(e, path=path) from e
    model = without_weights(config)
    state, used = _renamed(tensors, decoder is not None)
    initialised = _complete(model, state, layout, notes)
    faults = misfits(expected_shapes(model), {k: tuple(v.shape) for k, v in state.items()})
    if faults:
        raise SimCroPError(
            f"The checkpoint does not fit an encoder of {layout.vision.depth} blocks ({faults})",
            code="weights-mismatch",
            remedy="Get the checkpoint again from its source.",
            path=path,
        )
    broken = [n for n, tensor in state.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise SimCroPError(
            f"Weights are not finite numbers: {', '.join(broken[:5])}",
            code="weights-not-finite",
            remedy="Get the checkpoint again, or take an earlier one of the same training.",
            path=path,
        )
    fill(model, {key: tensor.contiguous() for key, tensor in state.items()})
    if encoder is not None:
        model.use_text_encoder(encoder)
    unused = tuple(sorted((set(tensors) - used) | set(foreign.other)))
    return model.eval(), ImportReport(
        source=path.name,
        depth=layout.vision.depth,
        width=layout.vision.width,
        heads=layout.vision.heads,
        grid_shape=layout.input_spec.grid_shape,
        patch_shape=layout.input_spec.patch_shape,
        position=layout.vision.position,
        used=tuple(sorted(used)),
        unused=unused,
        initialised=initialised,
        notes=tuple(notes),
    )


def _refuse_other_kinds(foreign: ForeignWeights, path: Path) -> None:
    """Refuse an encoder of which a part is there, but not as real numbers: it is not missing."""
    odd = [name for name in foreign.other if name.partition(".")[0] in _ENCODER_NAMES]
    if odd:
        more = f" and {len(odd) - 5} more" if len(odd) > 5 else ""
        raise SimCroPError(
            f"Weights of the encoder are not stored as floating-point numbers: "
            f"{', '.join(sorted(odd)[:5])}{more}",
            code="weights-mismatch",
            remedy="Save the checkpoint again as float32, float16 or bfloat16.",
            path=path,
        )


# -- what the names and shapes tell -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Layout:
    """The encoder a checkpoint was made by."""

    vision: VisionConfig
    input_spec: InputSpec

    @classmethod
    def infer(
        cls,
        tensors: Mapping[str, Tensor],
        input_spec: InputSpec | None,
        heads: int | None,
        path: Path,
        notes: list[Note],
    ) -> _Layout:
        width, patch_shape = _patch_embedding(tensors, path)
        depth = _depth(tensors, path)
        has_cls = "cls_token" in tensors
        spec = _input_spec(tensors, patch_shape, has_cls, input_spec, path)
        hidden = tensors.get("blocks.0.mlp.fc1.weight")
        ratio = 4.0 if hidden is None or hidden.ndim != 2 else hidden.shape[0] / width
        if heads is None and width % _HEAD_WIDTH:
            raise SimCroPError(
                f"The number of attention heads cannot be told from a width of {width}",
                code="heads-unknown",
                remedy="Give the number of heads.",
                path=path,
            )
        try:
            vision = VisionConfig(
                depth=depth,
                width=width,
                heads=heads or width // _HEAD_WIDTH,
                mlp_ratio=ratio,
                cls_token=has_cls,
                position=_position_kind(tensors, spec.grid_shape, width, has_cls),
            )
        except ValidationError as e:
            raise bad_config(e, path=path) from e
        grid = " x ".join(map(str, spec.grid_shape))
        notes.append(
            Note(
                "layout-inferred",
                f"The encoder was inferred to have {depth} blocks of width {width} with "
                f"{vision.heads} heads on a grid of {grid} patches.",
            )
        )
        return cls(vision, spec)


def _patch_embedding(tensors: Mapping[str, Tensor], path: Path) -> tuple[int, Shape3]:
    weight = tensors.get("patch_embed.proj.weight")
    if weight is None or weight.ndim != 5 or weight.shape[1] != 1 or min(weight.shape) < 1:
        found = "it is missing" if weight is None else f"its shape is {tuple(weight.shape)}"
        raise SimCroPError(
            "This is not a checkpoint of a 3D vision encoder: patch_embed.proj.weight should be "
            f"(width, 1, p, q, r), but {found}",
            code="not-an-encoder",
            remedy="Choose the checkpoint of the pre-trained encoder.",
            path=path,
        )
    width, _, p, q, r = weight.shape
    return width, (p, q, r)


def _block_numbers(tensors: Mapping[str, Tensor], stem: str) -> set[int]:
    matches = (re.match(rf"{stem}\.(\d{{1,4}})\.", name) for name in tensors)
    return {int(match.group(1)) for match in matches if match}


def _depth(tensors: Mapping[str, Tensor], path: Path) -> int:
    numbers = _block_numbers(tensors, "blocks")
    if not numbers or numbers != set(range(len(numbers))):
        have = ", ".join(map(str, sorted(numbers)[:20])) or "none"
        raise SimCroPError(
            f"Blocks of the encoder are missing from the checkpoint (it has {have})",
            code="weights-mismatch",
            remedy="Get the checkpoint again from its source.",
            path=path,
        )
    return len(numbers)


def _input_spec(
    tensors: Mapping[str, Tensor],
    patch_shape: Shape3,
    has_cls: bool,
    input_spec: InputSpec | None,
    path: Path,
) -> InputSpec:
    """The given input settings if they fit, else the paper's on the grid that the rows tell."""
    table = tensors.get("pos_embed")
    patches = None
    if table is not None and table.ndim == 3:
        patches = table.shape[1] - has_cls
    if input_spec is not None:
        if input_spec.patch_shape != patch_shape or patches not in (None, input_spec.patches):
            raise SimCroPError(
                f"The checkpoint has {patches} patches of {patch_shape} voxels, the given input "
                f"settings {input_spec.patches} of {input_spec.patch_shape}",
                code="grid-mismatch",
                remedy="Give the input settings that the checkpoint was trained with.",
                path=path,
            )
        return input_spec
    side = None if patches is None else round(max(patches, 0) ** (1 / 3))
    if not side or side**3 != patches:
        rows = "no position embedding" if patches is None else f"{patches} patches"
        raise SimCroPError(
            f"The grid of patches cannot be told from a checkpoint with {rows}",
            code="ambiguous-grid",
            remedy="Give the shape of the model's input.",
            path=path,
        )
    p, q, r = patch_shape
    try:
        return InputSpec(shape=(side * p, side * q, side * r), patch_shape=patch_shape)
    except ValidationError as e:
        raise bad_config(e, path=path) from e


def _position_kind(
    tensors: Mapping[str, Tensor], grid: Shape3, width: int, has_cls: bool
) -> PositionKind:
    """A formula's name where the table follows it (other grids can then be computed)."""
    table = tensors.get("pos_embed")
    if table is None:
        return "official2axis"
    kinds: tuple[PositionKind, ...] = ("official2axis", "sincos3d")
    for kind in kinds:
        if kind == "loaded" or width % 2 or width < 6:
            continue
        formula = token_positions(kind, grid, width, has_cls)
        if formula.shape == table.shape and bool((formula - table).abs().max() < 1e-4):
            return kind
    return "loaded"


def _decoder_config(
    tensors: Mapping[str, Tensor], layout: _Layout, notes: list[Note]
) -> ImageDecoderConfig | None:
    """The decoder of masked modelling if the checkpoint has one whole; None otherwise."""
    embed = tensors.get("decoder_embed.weight")
    if embed is None or embed.ndim != 2:
        return None
    width = embed.shape[0]
    try:
        config = ImageDecoderConfig(
            depth=len(_block_numbers(tensors, "decoder_blocks")),
            width=width,
            heads=max(1, width // _HEAD_WIDTH),
            position="loaded",
        )
    except ValidationError:
        fits = False
    else:
        fits = _decoder_fits(config, tensors, layout)
    if not fits:
        notes.append(
            Note(
                "decoder-unused",
                "The image decoder in the checkpoint is incomplete or built differently and was "
                "left out.",
            )
        )
        return None
    notes.append(
        Note(
            "decoder-heads-assumed",
            f"The image decoder was taken over; its {config.heads} attention heads are an "
            "assumption, because the checkpoint does not tell.",
        )
    )
    return config


def _decoder_fits(
    config: ImageDecoderConfig, tensors: Mapping[str, Tensor], layout: _Layout
) -> bool:
    spec, vision = layout.input_spec, layout.vision
    with torch.device("meta"):
        decoder = ImageDecoder(
            config, vision.width, spec.grid_shape, spec.patch_shape, vision.cls_token
        )
    state, _ = _renamed(tensors, True)
    part = {
        name.removeprefix("image_decoder."): tuple(tensor.shape)
        for name, tensor in state.items()
        if name.startswith("image_decoder.")
    }
    return not misfits(expected_shapes(decoder), part)


def _renamed(
    tensors: Mapping[str, Tensor], with_decoder: bool
) -> tuple[dict[str, Tensor], set[str]]:
    """The weights under this model's names, and the checkpoint's names that were taken."""
    state, used = {}, set()
    for name, tensor in tensors.items():
        first, _, rest = name.partition(".")
        new = None
        if first in _ENCODER_NAMES:
            new = f"vision.{name}"
        elif with_decoder and first in _DECODER_NAMES:
            new = f"image_decoder.{_DECODER_NAMES[first]}.{rest}"
        elif with_decoder and name == "mask_token":
            new = "image_decoder.mask_token"
        elif with_decoder and name == "decoder_pos_embed":
            new = "image_decoder.pos_embed"
        if new is not None:
            state[new] = tensor
            used.add(name)
    return state, used


def _complete(
    model: SimCroP, state: dict[str, Tensor], layout: _Layout, notes: list[Note]
) -> tuple[str, ...]:
    """Fresh values for what such checkpoints lack by design; their names."""
    fresh: list[str] = []
    vision = layout.vision
    if not any(name.startswith("vision.fc_norm.") for name in state):
        state["vision.fc_norm.weight"] = torch.ones(vision.width)
        state["vision.fc_norm.bias"] = torch.zeros(vision.width)
        fresh += ["vision.fc_norm.weight", "vision.fc_norm.bias"]
        notes.append(
            Note(
                "fc-norm-initialised",
                "The checkpoint has no fc_norm: pooled features are normalised without learned "
                "scale and shift.",
            )
        )
    if "vision.pos_embed" not in state and vision.position != "loaded":
        state["vision.pos_embed"] = token_positions(
            vision.position, layout.input_spec.grid_shape, vision.width, vision.cls_token
        )
        fresh.append("vision.pos_embed")
        notes.append(
            Note(
                "positions-computed",
                "The checkpoint has no position embedding: the authors' two-axis formula was used.",
            )
        )
    if isinstance(model.text_projection, torch.nn.Linear):
        model.text_projection.to_empty(device="cpu")
        model.initialise(0, parts=("text_projection",))
        for key, tensor in model.text_projection.state_dict().items():
            state[f"text_projection.{key}"] = tensor
            fresh.append(f"text_projection.{key}")
        notes.append(
            Note(
                "projection-initialised",
                "Sentence and patch vectors differ in width, so that an untrained projection lies "
                "between them: similarities mean nothing before it is trained.",
            )
        )
    return tuple(fresh)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
