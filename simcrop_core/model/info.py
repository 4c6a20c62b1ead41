"""Facts about a model on disk, from its configuration and the header of its weights; no torch."""

from __future__ import annotations

from os import PathLike
from typing import Any

from simcrop_core.model.model_folder import WEIGHTS_NAME, locate_model, read_stored_model
from simcrop_core.model.weights_file import read_header


def model_info(name_or_dir: str | PathLike[str]) -> dict[str, Any]:
    """What a model is, ready for JSON; weights are counted, not read.

    Keys: ``name``, ``id``, ``trained``, ``source``, ``changes``, ``parameters`` (by part, and
    ``total``), ``weights_bytes``, then every field of :class:`ModelConfig` under its own name.

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
    config = stored.config.model_dump(mode="json")
    origin = config.pop("provenance")
    return {
        "name": config.pop("name"),
        "id": stored.model_id,
        **origin,
        "parameters": {**dict(sorted(parameters.items())), "total": sum(parameters.values())},
        "weights_bytes": weights.stat().st_size,
        **config,
    }
