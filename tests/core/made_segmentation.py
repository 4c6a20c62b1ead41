"""A tiny model, and the segmentation data sets made of phantoms, for tests of fine-tuning."""

from __future__ import annotations

import json
from pathlib import Path

from made_public import LUNA_UID, make_btcv, make_luna16, mask_list

from simcrop_core.datasets.luna16 import STRUCTURES
from simcrop_core.input_spec import InputSpec
from simcrop_core.model import ModelConfig, SimCroP, TextConfig, VisionConfig, new_model
from simcrop_core.train.finetuning import SegmentationRunConfig

SPACING = (12.0, 12.0, 12.0)
ROI = (16, 16, 16)


def tiny_encoder(trained: str = "untrained", depth: int = 4, **vision: object) -> SimCroP:
    """An encoder that is just deep enough for a decoder."""
    config = ModelConfig.model_validate(
        {
            "name": "tiny",
            "input_spec": InputSpec(shape=(32, 32, 32), spacing_mm=SPACING, patch_shape=(8, 8, 8)),
            "vision": VisionConfig(depth=depth, width=24, heads=2, **vision),  # type: ignore[arg-type]
            "text": TextConfig(source="minilm", width=384),
            "provenance": {"trained": trained},
        }
    )
    return new_model(config, 0)


def luna16_task(
    root: Path, training: range, testing: range, layout: str = "authors"
) -> dict[str, str]:
    """LUNA16 with its two JSON lists, by field of the run's data."""
    data, lists = root / f"luna16-{layout}", root / f"lists-{layout}"
    uid = {n: f"{LUNA_UID}{n + 1}" for n in (*training, *testing)}
    make_luna16(data, {name: n for n, name in uid.items()}, layout)

    def pairs(seeds: range) -> list[object]:
        places = ((f"images/{uid[n]}.nii.gz", f"masks_processed/{uid[n]}.nii.gz") for n in seeds)
        return [{"image": image, "label": label} for image, label in places]

    for name, seeds in (("dataset_100.json", training), ("dataset_10.json", training[:2])):
        splits = {"training": pairs(seeds), "testing": pairs(testing)}
        mask_list(lists / "LUNA16" / name, STRUCTURES, splits)
    return {"root": str(data), "lists": str(lists)}


def btcv_task(root: Path, training: range, testing: range) -> dict[str, str]:
    """BTCV with the list in its folder; unlabelled scans in ``test``."""
    splits = {
        "training": {f"btcv_{n:03d}": n for n in training},
        "validation": {f"btcv_{n:03d}": n for n in testing},
        "test": {"img0061": 40},
    }
    make_btcv(root / "btcv", splits)
    return {"root": str(root / "btcv")}


def segmentation(
    task: str, folders: dict[str, str], model: object, **changes: object
) -> SegmentationRunConfig:
    """A short run on a CPU; ``data``, ``head``, ``optim`` and ``run`` change single fields."""
    parts: dict[str, dict[str, object]] = {
        "data": {"task": task, "workers": 0, "crops": 4, "spacing_mm": SPACING, **folders},
        "head": {"roi": ROI, "feature_width": 4},
        "optim": {"lr": 3e-3, "warmup": 1, "weight_decay": 1e-5, "beta2": 0.999},
        "run": {
            "steps": 4, "batch_size": 4, "accelerator": "cpu", "validate_every": 2,
            "checkpoint_every": 2, "previews": 0,
        },
    }  # fmt: skip
    for name, part in parts.items():
        part.update(dict(changes.pop(name, {})))  # type: ignore[call-overload]
    more = {"overlap": 0.0} | changes  # few windows
    config = {"name": f"seg-{task}", "model": str(model), **parts, **more}
    return SegmentationRunConfig.model_validate(json.loads(json.dumps(config)))
