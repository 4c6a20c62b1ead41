"""What a scan shows, by a model that has a classification head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from simcrop_core.device import Precision, autocast, evaluating, select_device
from simcrop_core.errors import SimCroPError
from simcrop_core.views import center_notes, center_view, whole_scan
from simcrop_core.volume import CTVolume, Note

if TYPE_CHECKING:
    from simcrop_core.model import SimCroP
    from simcrop_core.model.config import ClassificationConfig


@dataclass(frozen=True, slots=True)
class Classification:
    """Labels of a scan with their probabilities.

    Attributes
    ----------
    probabilities
        Label -> probability, in the order of the head.
    exclusive
        Whether the labels are classes of which one is true; the probabilities then sum to 1.
    model
        What the model says of itself.
    volume_id
        The scan's pseudonym.
    notes
        The scan's notes, and what was not looked at or mirrored, in mm per side.
    """

    probabilities: dict[str, float]
    exclusive: bool
    model: dict[str, Any]
    volume_id: str
    notes: tuple[Note, ...]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "schema": 1,
            "probabilities": {n: round(p, 6) for n, p in self.probabilities.items()},
            "exclusive": self.exclusive,
            "model": self.model,
            "volume": {"id": self.volume_id},
            "notes": [note.to_dict() for note in self.notes],
        }


def classify(
    model: SimCroP, volume: CTVolume, *, device: str = "auto", precision: Precision = "auto"
) -> Classification:
    """Probabilities of the labels of a model's classification head.

    The scan is resampled to the model's spacing; its middle, of the size of the model's input, is
    looked at, reflected where the scan is smaller: as the head was fitted and tested.

    Raises
    ------
    SimCroPError
        The model has no classification head.
    """
    config = classification_head(model)
    assert model.classification is not None
    where = select_device(device)
    view = center_view(whole_scan(volume, model.input_spec), model.input_spec.shape)
    x_B1HWD = torch.from_numpy(view)[None, None].to(where)
    with evaluating(model.to(where)), torch.inference_mode():
        with autocast(where, precision):
            pooled_BD = model.vision(x_B1HWD).pooled_BD.float()
        logits_K = model.classification(pooled_BD)[0]
        found = logits_K.softmax(-1) if config.exclusive else logits_K.sigmoid()
    return Classification(
        probabilities=dict(zip(config.labels, found.cpu().tolist(), strict=True)),
        exclusive=config.exclusive,
        model=model.card(),
        volume_id=volume.pseudonym,
        notes=(*volume.notes, *center_notes(volume, model.input_spec)),
    )


def classification_head(model: SimCroP) -> ClassificationConfig:
    """What the model's classification head tells.

    Raises
    ------
    SimCroPError
        ``no-classification``: it has none.
    """
    config = model.config.classification
    if config is None:
        raise SimCroPError(
            f"The model {model.config.name!r} has no classification head",
            code="no-classification",
            remedy="Use the model of a probe: simcrop-train run probe-ct-rate makes one.",
        )
    return config
