"""From a run's configuration to the model that is trained."""

from __future__ import annotations

from typing import Any

from simcrop_core.input_spec import InputSpec
from simcrop_core.model.checkpoint import load_model
from simcrop_core.model.classification import with_classification
from simcrop_core.model.config import UNTRAINED, ModelConfig, Provenance, model_config_from
from simcrop_core.model.presets import PRESETS, new_model
from simcrop_core.model.simcrop import SimCroP
from simcrop_core.model.text import text_config_for
from simcrop_core.objectives.config import ObjectiveConfig
from simcrop_core.train.config import ModelSource

#: ViT-L has 24 blocks of width 1024; encoders from there on are shared out over the devices.
_LARGE = 24 * 1024**2


def build_model(source: ModelSource, seed: int) -> SimCroP:
    """A fresh model of a preset with its changes, or one from the disk; for training.

    Raises
    ------
    SimCroPError
        The settings do not go together, or a model or text encoder is missing or damaged.
    """
    if source.folder is not None:
        model = load_model(source.folder, text_encoder=source.text_encoder)
        # A classification head fits the encoder that it was fitted on, and no other.
        return with_classification(model, None, None).train()
    assert source.preset is not None
    parts: dict[str, Any] = {
        "input_spec": InputSpec(),
        **{name: part for name, part in PRESETS[source.preset].items() if name != "text"},
    }
    changes = source.changes()
    text_changes = changes.pop("text", {})
    parts["text"], encoder = text_config_for(
        source.text_encoder or PRESETS[source.preset]["text"], text_changes.get("sentence_vector")
    )
    changes["text"] = text_changes
    for name, change in changes.items():
        if isinstance(change, dict):
            parts[name] = _plain(parts.get(name)) | change
        else:
            parts[name] = change
    for name in source.without:
        parts.pop(name, None)
    if source.segmentation_labels is not None:
        stem = _plain(parts["vision"])["stem"]
        parts["segmentation"] = {
            "kind": "pyramid" if stem == "pyramid" else "unetr",
            "labels": source.segmentation_labels,
        }
    if encoder is not None and "text_decoder" in parts:
        parts["text_decoder"] = _plain(parts["text_decoder"]) | {
            "vocabulary_size": encoder.vocabulary_size
        }
    config = model_config_from(
        {
            "name": source.preset,
            "provenance": {"source": f"preset {source.preset}, seed {seed}"},
            **{name: _plain(part) for name, part in parts.items()},
        }
    )
    model = new_model(config, seed)
    if encoder is not None and encoder.config == config.text:
        model.use_text_encoder(encoder)
    return model.train()


def _plain(part: Any) -> Any:
    if part is None:
        return {}
    return part.model_dump() if hasattr(part, "model_dump") else part


def is_large(config: ModelConfig) -> bool:
    """Whether the encoder is as large as ViT-L, so that its state is better shared out."""
    return config.vision.depth * config.vision.width**2 >= _LARGE


def trained_config(
    config: ModelConfig, run_name: str, objective: ObjectiveConfig, step: int
) -> ModelConfig:
    """The model's configuration with what its weights were trained on."""
    trained = f"{objective.kind} pre-training, run {run_name}, step {step}"
    provenance = config.provenance.model_dump() | {"trained": trained}
    head = config.segmentation
    if head is not None and getattr(objective, "segmentation_weight", 0) > 0:
        head = head.model_copy(update={"trained": trained})
    elif head is not None and head.trained != UNTRAINED:
        since = f"{head.trained}, before its encoder went on: {trained}"
        head = head.model_copy(update={"trained": since})
    return config.model_copy(update={"provenance": Provenance(**provenance), "segmentation": head})
