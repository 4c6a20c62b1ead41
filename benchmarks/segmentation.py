"""What fine-tuning for segmentation learns on phantoms.

    python benchmarks/segmentation.py [--model DIR] [--train 12] [--test 4] [--steps 300]
        [--heads unetr unet] [--shares 0.25 1] [--json PATH]

Phantoms are written as coarse NIfTI files in LUNA16's layout (left lung, right lung, trachea); each
decoder is trained on each share of the training phantoms and tested on phantoms that are kept for
evaluation. The row of one step with no learning rate is the untrained start. Seconds are processor
time of training and testing together. Without ``--model`` the encoder has random weights.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from made_phantoms import LUNA_UID, cpu_seconds, luna_labels, phantom_on, random_model

from simcrop_core.datasets.luna16 import STRUCTURES
from simcrop_core.finetune.segmentation import FineTuned, run_segmentation
from simcrop_core.input_spec import InputSpec
from simcrop_core.io import write_labels, write_volume
from simcrop_core.model import save_model
from simcrop_core.phantoms import VALIDATION_SEED
from simcrop_core.train.finetuning import SegmentationRunConfig

_SHAPE, _SPACING = (64, 56, 44), (6.0, 6.0, 8.0)
_SPEC = InputSpec(shape=(48, 48, 48), spacing_mm=_SPACING, patch_shape=(8, 8, 8))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a model folder whose patches divide 24 x 24 x 24 voxels")
    parser.add_argument("--train", type=int, default=12)
    parser.add_argument("--test", type=int, default=4)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--heads", nargs="+", default=["unetr", "unet"])
    parser.add_argument("--shares", type=float, nargs="+", default=[0.25, 1.0])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        lists = _write_data(place, range(arguments.train), arguments.test)
        model = arguments.model or str(save_model(random_model(_SPEC, 4), place / "model"))
        for head in arguments.heads:
            for share in (None, *arguments.shares):
                rows.append(_row(place, lists, model, head, share, arguments.steps))
                print(json.dumps(rows[-1]), flush=True)
    if arguments.json is not None:
        facts = {k: v for k, v in vars(arguments).items() if k not in ("json", "model")}
        arguments.json.write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n")


def _row(
    place: Path, lists: Path, model: str, head: str, share: float | None, steps: int
) -> dict[str, Any]:
    """One training; a share of None is the untrained start."""
    start = cpu_seconds()
    config = SegmentationRunConfig.model_validate(
        {
            "name": "phantoms",
            "model": model,
            "data": {
                "task": "luna16", "root": str(place), "lists": str(lists), "crops": 4,
                "fraction": share or 1.0, "held_out": 0, "spacing_mm": _SPACING, "workers": 0,
                "prepared": str(place / "scans"),
            },
            "head": {"kind": head, "roi": (24, 24, 24), "feature_width": 8},
            "optim": {"lr": 3e-3 if share else 1e-30, "warmup": steps // 20 if share else 0},
            "run": {
                "steps": steps if share else 1, "batch_size": 4, "previews": 0,
                "checkpoint_every": steps, "validate_every": steps, "accelerator": "cpu",
            },
        }
    )  # fmt: skip
    result = run_segmentation(place / f"{head}-{share}", config)
    assert isinstance(result, FineTuned)
    written = result.to_dict()["test"]
    return {
        "head": head,
        "share": share,
        "scans": result.scans["training"] if share else 0,
        "dice": written["mean_over_cases"]["dice"],
        "dice_with_background": written["mean_over_cases_with_background"]["dice"],
        "distance_mm": written["mean_over_cases"]["average_surface_distance_mm"],
        "structures": {n: s["dice"] for n, s in written["structures"].items()},
        "cpu_seconds": round(cpu_seconds() - start, 1),
    }


def _write_data(place: Path, training: range, testing: int) -> Path:
    pairs: dict[str, list[dict[str, str]]] = {"training": [], "testing": []}
    for split, seeds in (
        ("training", training),
        ("testing", range(VALIDATION_SEED, VALIDATION_SEED + testing)),
    ):
        for seed in seeds:
            study = phantom_on(seed, _SHAPE, _SPACING)
            image, mask = (f"{f}/{LUNA_UID}{seed}.nii.gz" for f in ("images", "masks_processed"))
            for path in (place / image, place / mask):
                path.parent.mkdir(exist_ok=True)
            write_volume(place / image, study.volume)
            write_labels(place / mask, luna_labels(study), study.volume.grid)
            pairs[split].append({"image": image, "label": mask})
    labels = {str(n): name for n, name in enumerate(("background", *STRUCTURES))}
    path = place / "dataset_100.json"
    path.write_text(json.dumps({"labels": labels, **pairs}))
    return path


if __name__ == "__main__":
    main()
