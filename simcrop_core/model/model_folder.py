"""A model on disk: a folder of ``config.json`` and ``model.safetensors``; read without torch."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from simcrop_core.errors import SimCroPError
from simcrop_core.model.config import SCHEMA_VERSION, ModelConfig, model_config_from

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
CARD_NAME = "MODEL_CARD.md"
FORMAT = "simcrop-model"
PRESET_NAMES = ("paper", "released", "starter", "grounded", "pyramid")
_MAX_CONFIG_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class StoredModel:
    """What ``config.json`` says.

    Attributes
    ----------
    folder
        Where it was read.
    config
        The model's configuration.
    weights_sha256
        Digest that the weights must have.
    model_id
        Short name of weights and settings together.
    """

    folder: Path
    config: ModelConfig
    weights_sha256: str
    model_id: str

    def to_dict(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "model_id": self.model_id,
            "weights_sha256": self.weights_sha256,
            "config": self.config.model_dump(mode="json"),
        }


def models_folder() -> Path:
    """Where models are found by their bare name: ``SIMCROP_MODELS``, else ``~/.simcrop/models``."""
    named = os.environ.get("SIMCROP_MODELS")
    return Path(named).expanduser() if named else Path.home() / ".simcrop" / "models"


def bundled_folder() -> Path:
    """Where the models lie that come with the software."""
    return Path(__file__).resolve().parents[1] / "data" / "models"


def model_names() -> list[str]:
    """The models that can be given by name: the person's own and those that come with this."""
    return sorted(
        {
            folder.name
            for place in (models_folder(), bundled_folder())
            if place.is_dir()
            for folder in place.iterdir()
            if (folder / CONFIG_NAME).is_file() and not folder.name.startswith(".")
        }
    )


def previous_of(folder: Path) -> Path:
    """Where a replaced model waits for the moment in which its successor takes its place."""
    return folder.with_name(f".{folder.name}.previous")


def locate_model(name_or_dir: str | PathLike[str]) -> Path:
    """The folder of a model given by path, or by name.

    Names are looked for in :func:`models_folder`, then in :func:`bundled_folder`.

    Raises
    ------
    SimCroPError
        ``code="no-such-model"``.
    """
    given = Path(name_or_dir).expanduser()
    candidates = [given.absolute()]
    if len(given.parts) == 1:
        candidates += [models_folder() / given, bundled_folder() / given]
    for folder in candidates:
        if folder.is_dir():
            return folder
        if previous_of(folder).is_dir():  # stopped between the two steps of a replacement
            return previous_of(folder)
    remedy = "Check the path, or make a model with `simcrop models create`."
    if given.name in PRESET_NAMES and len(given.parts) == 1:
        remedy = f"Make it first: `simcrop models create {given.name} --out {given.name}`."
    raise SimCroPError(
        "There is no model folder of this name",
        code="no-such-model",
        remedy=remedy,
        path=name_or_dir,
    )


def read_stored_model(folder: Path) -> StoredModel:
    """Read and check ``config.json``; the weights are not looked at.

    Raises
    ------
    SimCroPError
        It is missing, damaged, or not a configuration that this version knows.
    """
    path = folder / CONFIG_NAME
    try:
        if path.exists() and not path.is_file():  # a pipe would never answer
            raise OSError
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            raise _not_a_model(path)
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as e:
        raise SimCroPError(
            f"This folder is not a model: it has no {CONFIG_NAME}",
            code="not-a-model",
            remedy="Choose a folder that was made with `simcrop models create` or `import`.",
            path=folder,
        ) from e
    except OSError as e:
        raise SimCroPError(
            "The model's configuration cannot be read",
            code="unreadable",
            remedy="Check that you may read it.",
            path=path,
        ) from e
    except (ValueError, RecursionError) as e:
        if isinstance(e, SimCroPError):
            raise
        raise _not_a_model(path) from e
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise _not_a_model(path)
    unknown = sorted(set(data) - {"format", "model_id", "weights_sha256", "config"})
    if unknown:
        raise SimCroPError(
            f"The model's configuration has unknown keys: {', '.join(unknown)[:200]}",
            code="bad-config",
            remedy="Correct the configuration or make the model again.",
            path=path,
        )
    config, digest, model_id = (data.get(k) for k in ("config", "weights_sha256", "model_id"))
    if not (isinstance(config, dict) and isinstance(digest, str) and isinstance(model_id, str)):
        raise _not_a_model(path)
    version = config.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise SimCroPError(
            f"The model was saved by a newer version (layout {version})",
            code="newer-model",
            remedy="Update SimCroP.",
            path=path,
        )
    return StoredModel(folder, model_config_from(config, path=path), digest, model_id)


def _not_a_model(path: Path) -> SimCroPError:
    return SimCroPError(
        "The model's configuration is damaged or belongs to something else",
        code="not-a-model",
        remedy="Get the model again, or make it with `simcrop models create` or `import`.",
        path=path,
    )
