"""A tiny store for runs: studies with a bright box on one side, and sentences that say where."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simcrop_core.geometry import Grid, axis_aligned_affine
from simcrop_core.input_spec import InputSpec
from simcrop_core.statements import Facts, Meaning
from simcrop_core.store import build_store
from simcrop_core.store.encode import TextSettings
from simcrop_core.store.settings import StoreSettings
from simcrop_core.study import SentenceFacts, Study
from simcrop_core.train.config import RunConfig
from simcrop_core.volume import CTVolume

SPEC = InputSpec(shape=(24, 24, 12), spacing_mm=(12.0, 12.0, 24.0), patch_shape=(8, 8, 4))
STUDIES = 22


@dataclass(frozen=True)
class BoxSource:
    """A made study: a box of soft tissue in air, on the left or on the right."""

    number: int
    of: str = ""

    @property
    def id(self) -> str:
        return f"box-{self.number:03d}"

    @property
    def patient(self) -> str:
        return self.of

    def stamp(self) -> str:
        return "1"

    def load(
        self, spec: InputSpec | None = None, margin_voxels: tuple[int, int, int] = (0, 0, 0)
    ) -> Study:
        rng = np.random.default_rng(self.number)
        h, w, d = (n + 2 * m for n, m in zip(SPEC.shape, SPEC.patch_shape, strict=True))
        shape = (h, w, d)
        grid = Grid(shape, axis_aligned_affine("LPS", SPEC.spacing_mm, (0, 0, 0), shape))
        hu = rng.normal(-850, 40, shape).round().astype(np.int16)
        left = self.number % 2 == 0
        x = int(rng.integers(4)) + (21 if left else 11)
        mask = np.zeros(shape, bool)
        mask[x : x + 8, 14:26, 7:13] = True
        hu[mask] += 800
        side, other = ("left", "right") if left else ("right", "left")
        sentences = (
            SentenceFacts(
                f"There is a large opacity on the {side} side.",
                "finding",
                Meaning.of("Lung opacity", side),
                region="opacity",
            ),
            SentenceFacts(
                f"No pleural effusion on the {other} side.",
                "negative",
                Meaning.of("Pleural effusion", other, "any", False),
            ),
            SentenceFacts("The trachea is midline.", "organ"),
        )
        facts = Facts.from_occurrences([("Lung opacity", side, "any")])
        return Study(self.id, CTVolume(hu, grid), None, sentences, {"opacity": mask}, facts)


def make_box_store(folder: Path, studies: int = STUDIES) -> Path:
    build_store(
        "boxes",
        [BoxSource(n) for n in range(studies)],
        folder,
        StoreSettings(spec=SPEC, margin_voxels=SPEC.patch_shape),
        TextSettings(source="minilm"),
    )
    return folder


def tiny_settings(store: Path) -> dict[str, Any]:
    """A run of twelve steps with a model of a few thousand weights, as plain data."""
    return {
        "name": "tiny",
        "data": {"store": str(store), "held_out": 6, "workers": 1},
        "model": {
            "preset": "starter",
            "input_spec": {
                "shape": SPEC.shape,
                "spacing_mm": SPEC.spacing_mm,
                "patch_shape": SPEC.patch_shape,
            },
            "vision": {"depth": 2, "width": 48, "heads": 4},
            "image_decoder": {"depth": 1, "width": 24, "heads": 4},
            "fusion": {"heads": 4},
            "text_decoder": {"depth": 1, "width": 24, "heads": 4, "hidden_width": 48},
        },
        "objective": {"kind": "mae"},
        "optim": {"lr": 1e-3, "warmup": 3},
        "run": {
            "steps": 12,
            "batch_size": 4,
            "checkpoint_every": 3,
            "validate_every": 6,
            "keep": 2,
            "previews": 1,
            "accelerator": "cpu",
        },
    }


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Nested dictionaries, the second over the first."""
    out = dict(base)
    for key, value in changes.items():
        inner = out.get(key)
        out[key] = (
            merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
        )
    return out


def tiny_config(store: Path, **changes: Any) -> RunConfig:
    data = tiny_settings(store)
    if "kind" in changes.get("objective", {}):
        data["objective"] = {}
    return RunConfig.model_validate(merged(data, changes))


def command_settings(store: Path, model_folder: Path, **changes: Any) -> list[str]:
    """What makes the recipe ``smoke`` a tiny run from a model on the disk, for the command."""
    settings = merged(tiny_settings(store), changes)
    settings["model"] = {"preset": None, "folder": str(model_folder)}
    config = RunConfig.model_validate(settings)
    plain = config.model_dump(mode="json", exclude={"schema_version"})
    return [word for item in _flat(plain) for word in ("--set", item)]


def _flat(tree: dict[str, Any], prefix: str = "") -> list[str]:
    """``a.b=c`` for every leaf, values as JSON where they are no text."""
    flat: list[str] = []
    for key, value in tree.items():
        if isinstance(value, dict):
            flat += _flat(value, f"{prefix}{key}.")
        else:
            flat.append(f"{prefix}{key}={value if isinstance(value, str) else json.dumps(value)}")
    return flat
