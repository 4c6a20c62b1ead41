"""Facts about a model on disk, from its configuration and the header of its weights; no torch."""

from __future__ import annotations

from os import PathLike
from typing import Any

from simcrop_core.model.model_folder import WEIGHTS_NAME, locate_model, read_stored_model
from simcrop_core.model.weights_file import read_header


def model_info(name_or_dir: str | PathLike[str]) -> dict[str, Any]:
    """What a model is, ready for JSON; weights are counted, not read.

    Keys: ``name``, ``model_id``, ``folder``, ``trained``, ``source``, ``changes``, ``input_spec``,
    ``vision``, ``text``, ``similarity``, ``segmentation_labels``, ``segmentation_trained``,
    ``parameters`` (by part, and ``total``), ``weights_bytes``, ``config`` (everything).

    Raises
    ------
    SimCroPError
        The folder is no model, or its files are damaged in a way that the headers show.
    """
    folder = locate_model(name_or_dir)
    stored = read_stored_model(folder)
    weights = folder / WEIGHTS_NAME
    parameters: dict[str, int] = {}
    for name, tensor in read_header(weights).items():
        part = name.partition(".")[0]
        parameters[part] = parameters.get(part, 0) + tensor.values
    config = stored.config
    head = config.segmentation
    return {
        "name": config.name,
        "model_id": stored.model_id,
        "folder": str(folder),
        "trained": config.provenance.trained,
        "source": config.provenance.source,
        "changes": list(config.provenance.changes),
        "input_spec": config.input_spec.model_dump(mode="json"),
        "vision": config.vision.model_dump(mode="json"),
        "text": config.text.model_dump(mode="json"),
        "similarity": config.similarity,
        "segmentation_labels": [] if head is None else list(head.labels),
        "segmentation_trained": None if head is None else head.trained,
        "parameters": {**dict(sorted(parameters.items())), "total": sum(parameters.values())},
        "weights_bytes": weights.stat().st_size,
        "config": config.model_dump(mode="json"),
    }
