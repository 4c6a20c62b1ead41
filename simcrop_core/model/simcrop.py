"""The model: a vision encoder and a frozen text encoder that meet in one space.

Shapes in names: S sentences; N patches; C cells of a patch; D the width of a vector; E that of a
patch's token and its cells' vectors together.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simcrop_core.errors import SimCroPError
from simcrop_core.input_spec import InputSpec
from simcrop_core.model.config import ModelConfig, model_config_from
from simcrop_core.model.embedding import pool_cells
from simcrop_core.model.fusion import CrossGranularityFusion, TextDecoder
from simcrop_core.model.image_decoder import ImageDecoder
from simcrop_core.model.presence import Presence
from simcrop_core.model.vision import (
    LAYER_NORM_EPS,
    Shape3,
    VisionEncoder,
    resized_positions,
)

if TYPE_CHECKING:
    from simcrop_core.model.segmentation_head import SegmentationHead
    from simcrop_core.model.text import EncodedSentences, TextEncoder


class SimCroP(nn.Module):
    """A SimCroP model (paper, section 2).

    Attributes
    ----------
    config
        What it is made of.
    vision
        The vision encoder.
    text
        The frozen text encoder; found and loaded when first used, never saved with the model.
    image_decoder, fusion, text_decoder
        Parts that only pre-training needs, or None.
    segmentation
        The segmentation head, or None.
    classification
        The linear classification head on ``pooled_BD``, or None.
    presence_head
        Pools similarities into a probability, or None.
    """

    text_mean: Tensor

    def __init__(self, config: ModelConfig, *, text_location: str | None = None) -> None:
        super().__init__()
        self.config = config
        self.text_location = text_location
        spec, vision = config.input_spec, config.vision
        self.vision = VisionEncoder(vision, spec.grid_shape, spec.patch_shape)
        joint, text_width = config.joint_width, config.text.width
        projected = config.projection_width is not None
        self.vision_projection = nn.Linear(vision.width, joint) if projected else nn.Identity()
        self.text_projection = (
            nn.Linear(text_width, joint) if projected or text_width != joint else nn.Identity()
        )
        self.projection_norm = (
            nn.LayerNorm(vision.width, eps=LAYER_NORM_EPS)
            if config.projection_norm
            else nn.Identity()
        )
        self.cell_projection = (
            nn.Linear(vision.cell_width, joint) if vision.cells is not None else nn.Identity()
        )
        if config.text_centred:
            self.register_buffer("text_mean", torch.zeros(text_width))
        self.presence_head = None if config.presence is None else Presence(config.presence)
        self.image_decoder: ImageDecoder | None = None
        self.fusion: CrossGranularityFusion | None = None
        self.text_decoder: TextDecoder | None = None
        self.segmentation: SegmentationHead | None = None
        if config.image_decoder is not None:
            self.image_decoder = ImageDecoder(
                config.image_decoder,
                vision.width,
                spec.grid_shape,
                spec.patch_shape,
                vision.cls_token,
            )
        if config.fusion is not None and config.text_decoder is not None:
            width = config.text_decoder.width
            self.fusion = CrossGranularityFusion(config.fusion, vision.width, text_width, width)
            self.text_decoder = TextDecoder(config.text_decoder)
        if config.segmentation is not None and config.segmentation.kind == "pyramid":
            from simcrop_core.model.pyramid_segmentation import PyramidSegmentation

            self.segmentation = PyramidSegmentation(config.segmentation, self.vision, spec.shape)
        elif config.segmentation is not None and config.segmentation.kind == "unet":
            from simcrop_core.model.unet_segmentation import ResidualUNet

            self.segmentation = ResidualUNet(config.segmentation, self.vision, spec.shape)
        elif config.segmentation is not None:
            from simcrop_core.model.segmentation import SegmentationNet

            self.segmentation = SegmentationNet(config.segmentation, self.vision, spec.shape)
        self.classification = (
            None
            if config.classification is None
            else nn.Linear(vision.width, len(config.classification.labels))
        )
        # Kept beside the registered parts: the text encoder's weights are not the model's own.
        self._text: list[TextEncoder] = []
        self._digest: tuple[Any, str] | None = None

    def initialise(self, seed: int, parts: Sequence[str] | None = None) -> None:
        """Fresh weights, the same for the same seed; each part draws from a stream of its own.

        ``parts`` names the parts to fill; None means all.
        """
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            for name, part in self.named_children():
                if parts is not None and name not in parts:
                    continue
                stream = hashlib.sha256(f"{seed} {name}".encode()).digest()
                torch.manual_seed(int.from_bytes(stream[:7], "little"))
                if isinstance(part, nn.Linear):
                    nn.init.xavier_uniform_(part.weight)
                    nn.init.zeros_(part.bias)
                elif isinstance(part, nn.LayerNorm):
                    part.reset_parameters()
                elif not isinstance(part, nn.Identity):
                    part.initialise()  # type: ignore[operator]
            if self.config.text_centred and parts is None:
                self.text_mean.zero_()

    # -- facts ----------------------------------------------------------------------------------

    @property
    def input_spec(self) -> InputSpec:
        """How a scan is prepared for the model."""
        return self.config.input_spec

    @property
    def model_id(self) -> str:
        """Twelve characters that stand for these weights and settings, in results and caches."""
        return model_id(self.config, self.weights_sha256())

    def card(self) -> dict[str, Any]:
        """What the model says of itself in results and figures."""
        head, classes = self.config.segmentation, self.config.classification
        return {
            "id": self.model_id,
            "name": self.config.name,
            "trained": self.config.provenance.trained,
            "source": self.config.provenance.source,
            **({} if head is None else {"segmentation_trained": head.trained}),
            **({} if classes is None else {"classification_trained": classes.trained}),
        }

    def weights_sha256(self) -> str:
        """Digest of all weights by name; kept until a weight changes."""
        state = sorted(self.state_dict().items())
        key = tuple((t.data_ptr(), 0 if t.is_inference() else t._version) for _, t in state)
        if self._digest is None or self._digest[0] != key:
            self._digest = (key, weights_digest(state))
        return self._digest[1]

    @property
    def device(self) -> torch.device:
        return self.vision.pos_embed.device

    @property
    def text(self) -> TextEncoder:
        """The text encoder.

        Raises
        ------
        SimCroPError
            It is not on this machine or is not the one the model was made with.
        """
        if not self._text:
            from simcrop_core.model.text import TextEncoder

            encoder = TextEncoder.load(self.config.text, self.text_location)
            self._text.append(encoder.to(self.device))
        return self._text[0]

    def use_text_encoder(self, encoder: TextEncoder) -> None:
        """Take an encoder that is loaded already, in place of loading it when first used."""
        self._text[:] = [encoder.to(self.device)]

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> SimCroP:
        # The text encoder follows to another device or precision.
        for encoder in self._text:
            encoder._apply(fn, recurse)
        return super()._apply(fn, recurse)

    # -- text against image ---------------------------------------------------------------------

    def encode_text(self, sentences: Sequence[str]) -> EncodedSentences:
        """Sentence vectors, before projection; see :meth:`TextEncoder.encode_sentences`."""
        return self.text.encode_sentences(sentences)

    def set_text_mean(self, mean_D: Tensor) -> None:
        """Set the sentence vector that is taken off all others before their projection.

        ``mean_D`` is the mean of the training data's sentence vectors, before projection.
        """
        if not self.config.text_centred:
            raise ValueError("Only a model with text_centred has a mean sentence vector.")
        with torch.no_grad():
            self.text_mean.copy_(mean_D)

    def project_patches(self, patches_ND: Tensor) -> Tensor:
        """Patch vectors in the joint space; unit length where the similarity is the cosine."""
        return self._joint(self.joint_patches(patches_ND))

    def project_sentences(self, sentences_SD: Tensor) -> Tensor:
        """Sentence vectors in the joint space; unit length where the similarity is the cosine."""
        return self._joint(self.joint_sentences(sentences_SD))

    def joint_patches(self, patches_ND: Tensor) -> Tensor:
        """Patch vectors in the joint space, of any length."""
        return self.vision_projection(self.projection_norm(patches_ND))

    def joint_sentences(self, sentences_SD: Tensor) -> Tensor:
        """Sentence vectors in the joint space, of any length."""
        if self.config.text_centred:
            sentences_SD = sentences_SD - self.text_mean
        return self.text_projection(sentences_SD)

    def project_cells(self, cells_NCE: Tensor) -> Tensor:
        """Cells' vectors in the joint space; unit length where the similarity is the cosine."""
        return self._joint(self.cell_projection(cells_NCE))

    def _joint(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors, dim=-1) if self.config.similarity == "cosine" else vectors

    def similarity(self, evidence_NE: Tensor, sentences_SD: Tensor) -> Tensor:
        """Sim of every sentence with every patch, ``(S, N)`` float32 (paper, Eq. 2).

        ``evidence_NE`` is the encoder's ``evidence_BNE`` of a scan: its patch tokens and, where
        the model has the finer level, their cells' vectors. A patch's similarity then follows its
        own and its cells' (:func:`~simcrop_core.model.embedding.pool_cells`). Any number of axes
        may stand before N and S.
        """
        patches, cells = self.similarity_levels(evidence_NE, sentences_SD)
        if cells is None:
            return patches
        return pool_cells(patches, cells, self.config.cell_sharpness)

    def similarity_levels(
        self, evidence_NE: Tensor, sentences_SD: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Both levels apart: the patches' own ``(S, N)`` and their cells' ``(S, N, C)`` or None."""
        sentences = self.project_sentences(sentences_SD.float())
        vision = self.config.vision
        evidence = evidence_NE.float()
        expected = vision.width + math.prod(vision.cells or (0,)) * vision.cell_width
        if evidence.shape[-1] != expected:
            raise ValueError(
                f"The evidence has {evidence.shape[-1]} columns, not {expected}; it is the "
                "encoder's evidence_BNE."
            )
        patches_ND = self.project_patches(evidence[..., : vision.width])
        patches_SN = sentences @ patches_ND.transpose(-1, -2)
        if vision.cells is None:
            return patches_SN, None
        cells = evidence[..., vision.width :].unflatten(-1, (-1, vision.cell_width))
        cells = self.project_cells(cells)
        count = cells.shape[-2]
        cells_SM = sentences @ cells.flatten(-3, -2).transpose(-1, -2)
        return patches_SN, cells_SM.unflatten(-1, (-1, count))

    def presence(self, similarity_SN: Tensor, mask_N: Tensor | None = None) -> Tensor:
        """How likely each sentence is true of the scan, ``(S,)`` in [0, 1].

        What the probability is of, see ``PresenceConfig.of``. Patches where ``mask_N`` is False,
        such as those outside the scan, have no part.

        Raises
        ------
        SimCroPError
            The model has no such head.
        """
        if self.presence_head is None:
            raise SimCroPError(
                f"The model {self.config.name!r} was not made to tell whether sentences are true.",
                code="no-presence",
                remedy="Use a model that was trained with a presence term.",
            )
        return self.presence_head(similarity_SN, mask_N)


def without_weights(config: ModelConfig, *, text_location: str | None = None) -> SimCroP:
    """A model on the meta device: names and shapes, no memory; to be given its weights."""
    with torch.device("meta"):
        return SimCroP(config, text_location=text_location)


def weights_digest(state: Sequence[tuple[str, Tensor]]) -> str:
    """SHA-256 over names, types, shapes and values, in the order given."""
    digest = hashlib.sha256()
    for name, tensor in state:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def model_id(config: ModelConfig, weights_sha256: str) -> str:
    """The short name of weights and settings together."""
    whole = hashlib.sha256(f"{config.identity()} {weights_sha256}".encode())
    return whole.hexdigest()[:12]


def resize_position_embedding(model: SimCroP, grid_shape: Shape3) -> SimCroP:
    """A copy of the model for another grid of patches, its position embeddings stretched to it.

    Trilinear; the row of the CLS token stays. The change is recorded in the model's provenance,
    and the stretched positions count as loaded. Nothing is ever resized unasked.

    Parameters
    ----------
    model
        Stays as it is.
    grid_shape
        Patches along the three axes; the input becomes that many patches of the same size.

    Raises
    ------
    SimCroPError
        The new grid does not go together with the model's settings.
    """
    old, spec = model.config, model.config.input_spec
    before = " x ".join(map(str, spec.grid_shape))
    after = " x ".join(map(str, grid_shape))
    shape = tuple(g * p for g, p in zip(grid_shape, spec.patch_shape, strict=True))
    settings = old.model_dump(mode="json")
    settings["input_spec"]["shape"] = shape
    settings["vision"]["position"] = "loaded"
    if old.image_decoder is not None:
        settings["image_decoder"]["position"] = "loaded"
    settings["provenance"]["changes"] = [
        *old.provenance.changes,
        f"position embeddings resized from {before} to {after} patches",
    ]
    config = model_config_from(settings)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name in ("vision.pos_embed", "image_decoder.pos_embed"):
        if name in state:
            state[name] = resized_positions(
                state[name], spec.grid_shape, grid_shape, old.vision.cls_token
            )
    resized = without_weights(config, text_location=model.text_location)
    resized.load_state_dict(state, strict=True, assign=True)
    resized._text[:] = model._text
    return resized.train(model.training)
