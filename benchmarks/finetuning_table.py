"""What pre-training is worth downstream: probes and segmentation on phantoms, one table.

    python benchmarks/phantom_table.py --out DIR --rows mae simcrop grounded pyramid
    python benchmarks/finetuning_table.py --out DIR2 --encoders DIR [--json PATH]

Phantoms are written as NIfTI files in the layouts of CT-RATE and LUNA16, with lists of 1, 10 and
100 % of the training scans; every figure is that of ``simcrop-train run probe-ct-rate`` or
``run seg-luna16`` on them. The phantoms of the training lists are those from seed 0 on, on which
the encoders were pre-trained too, as on CT-RATE; those of the test lists none has seen.

Heads of the probes are fitted in 1,000 steps of 32 scans on all lists; UNETR decoders and encoders
are trained for 300 steps of 4 crops of 48 x 36 x 24 voxels.

What is done already is not done again, so the campaign may be stopped at any time and started
anew with the same words.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from made_phantoms import LUNA_UID, cpu_seconds, labels_of, luna_labels, phantom_on
from phantom_table import ROWS, configured, model_of

from simcrop_core.datasets.luna16 import STRUCTURES
from simcrop_core.finetune.config import ProbeConfig
from simcrop_core.finetune.probe import run_probe
from simcrop_core.finetune.segmentation import run_segmentation
from simcrop_core.io import write_labels, write_volume
from simcrop_core.model import save_model
from simcrop_core.outputs import whole_file
from simcrop_core.phantoms import VALIDATION_SEED
from simcrop_core.study import Study
from simcrop_core.train.finetuning import SegmentationRunConfig

#: The encoders' spacing; their field of view, and a margin for views to be drawn from.
SHAPE, SPACING = (104, 80, 54), (4.0, 4.0, 6.0)
SHARES = {0.01: "train_list_1.csv", 0.1: "train_list_10.csv", 1.0: "train_list.csv"}
COLUMNS = [f"probe {share:.0%}" for share in SHARES] + ["segmentation 10%", "segmentation 100%"]


# -- data ---------------------------------------------------------------------------------------


def write_data(place: Path, train: int, test: int, segmented: int, workers: int) -> None:
    """Both data sets with their lists; what is there is left."""
    asked = {"train": train, "test": test, "segmented": segmented}
    if (place / "done.json").exists():
        there = json.loads((place / "done.json").read_text())
        if there != asked:
            raise SystemExit(f"{place} holds data of other numbers: {there}.")
        return
    unseen = range(VALIDATION_SEED, VALIDATION_SEED + test)
    names = {f"train_{n + 1}_a_1": n for n in range(train)}
    tests = {f"valid_{seed - VALIDATION_SEED + 1}_a_1": seed for seed in unseen}
    both = names | tests
    with ProcessPoolExecutor(workers) as pool:
        make = partial(write_scan, place, unseen[:segmented])
        labels = dict(zip(both, pool.map(make, both, both.values()), strict=True))
    write_ct_rate_lists(place, labels, names, tests)
    folder = place / "lists" / "LUNA16"
    folder.mkdir(parents=True, exist_ok=True)
    for share, name in ((0.1, "dataset_10.json"), (1.0, "dataset_100.json")):
        pairs = {
            "training": [luna_pair(n) for n in range(max(1, round(share * train)))],
            "testing": [luna_pair(n) for n in unseen[:segmented]],
        }
        numbered = {str(n): text for n, text in enumerate(("background", *STRUCTURES))}
        (folder / name).write_text(json.dumps({"labels": numbered, **pairs}))
    (place / "done.json").write_text(json.dumps(asked))


def write_scan(place: Path, segmented: range, name: str, seed: int) -> dict[str, int]:
    """A phantom as a scan of each data set; its labels."""
    study = phantom_on(seed, SHAPE, SPACING)
    split, patient, scan = name.split("_")[0], name.rsplit("_", 2)[0], name.split("_")[2]
    folder = place / "ct-rate" / split / patient / f"{patient}_{scan}"
    folder.mkdir(parents=True, exist_ok=True)
    write_volume(folder / f"{name}.nii.gz", study.volume)
    if split == "train" or seed in segmented:
        write_luna(place / "luna16", study, seed)
    return labels_of(study)


def write_luna(root: Path, study: Study, seed: int) -> None:
    image, mask = (root / path for path in luna_pair(seed).values())
    for path in (image, mask):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(image, study.volume)
    write_labels(mask, luna_labels(study), study.volume.grid)


def luna_pair(seed: int) -> dict[str, str]:
    name = f"{LUNA_UID}{seed}.nii.gz"
    return {"image": f"images/{name}", "label": f"masks_processed/{name}"}


def write_ct_rate_lists(
    place: Path, labels: dict[str, dict[str, int]], train: dict[str, int], test: dict[str, int]
) -> None:
    root, lists = place / "ct-rate", place / "lists" / "CT-Rate"
    lists.mkdir(parents=True, exist_ok=True)
    facts = {
        "RescaleIntercept": 0, "RescaleSlope": 1, "XYSpacing": f"[{SPACING[0]}, {SPACING[1]}]",
        "ZSpacing": SPACING[2], "NumberofSlices": SHAPE[2],
    }  # fmt: skip
    rows = {name: {"VolumeName": f"{name}.nii.gz", **labels[name]} for name in labels}
    write_csv(root / "labels.csv", list(rows.values()))
    write_csv(
        root / "metadata.csv", [{"VolumeName": r["VolumeName"], **facts} for r in rows.values()]
    )
    texts = {"Findings_EN": "", "Impressions_EN": ""}
    write_csv(
        root / "reports.csv", [{"VolumeName": r["VolumeName"], **texts} for r in rows.values()]
    )
    names = list(train)
    for share, file in SHARES.items():
        write_csv(lists / file, [rows[name] for name in names[: max(1, round(share * len(names)))]])
    tested = [rows[name] for name in test]
    write_csv(lists / "test_list.csv", tested)
    write_csv(lists / "val_list.csv", tested)


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


# -- encoders and runs --------------------------------------------------------------------------


def encoder_of(key: str, seed: int, arguments: argparse.Namespace) -> Path:
    """The model folder of a row: untrained, or the newest checkpoint of its pre-training."""
    if not ROWS[key].trained:
        place = arguments.out / "models" / f"{key}-{seed}"
        budget = argparse.Namespace(**vars(arguments), steps=100, batch=8, probe=0)
        if not place.exists():
            save_model(model_of(configured(ROWS[key], budget, seed)), place)
        return place
    found = sorted((arguments.encoders / f"{key}-{seed}" / "checkpoints").glob("step-*"))
    if not found:
        raise SystemExit(f"{arguments.encoders} has no checkpoint of {key}-{seed}.")
    return found[-1]


def probed(place: Path, data: Path, model: Path, share: float, seed: int) -> dict[str, Any]:
    config = ProbeConfig.model_validate(
        {
            "name": "probe-ct-rate",
            "model": str(model),
            "data": {
                "task": "ct-rate", "root": str(data / "ct-rate"), "lists": str(data / "lists"),
                "fraction": share, "workers": 1,
            },
            "head": {"steps": 1000, "warmup": 150, "batch_size": 32},
            "accelerator": "cpu",
            "seed": seed,
        }
    )  # fmt: skip
    if not (place / "result.json").exists():
        run_probe(place, config, resume=place.exists())
    found = json.loads((place / "result.json").read_text())["test"]["overall"]
    return dict(found)


def segmented(place: Path, data: Path, model: Path, share: float, seed: int) -> dict[str, Any]:
    config = SegmentationRunConfig.model_validate(
        {
            "name": "seg-luna16",
            "model": str(model),
            "data": {
                "task": "luna16", "root": str(data / "luna16"), "lists": str(data / "lists"),
                "fraction": share, "held_out": 0, "spacing_mm": SPACING, "crops": 4, "workers": 0,
                "prepared": str(place.parent / "scans"),
            },
            "overlap": 0.25,
            "head": {"kind": "unetr", "roi": (48, 36, 24), "feature_width": 8},
            "optim": {"lr": 3e-3, "warmup": 15, "weight_decay": 1e-5, "beta2": 0.999},
            "run": {
                "steps": 300, "batch_size": 4, "previews": 0, "seed": seed,
                "checkpoint_every": 150, "validate_every": 300, "accelerator": "cpu",
            },
        }
    )  # fmt: skip
    if not (place / "result.json").exists():
        run_segmentation(place, config, resume=place.exists())
    found = json.loads((place / "result.json").read_text())["test"]["mean_over_cases"]["dice"]
    return dict(found)


def row_of(key: str, seed: int, data: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """All figures of one encoder; each is an estimate with its 95 % interval."""
    path = arguments.out / "figures" / f"{key}-{seed}.json"
    if path.exists():
        return dict(json.loads(path.read_text()))
    start = cpu_seconds()
    model = encoder_of(key, seed, arguments)
    figures: dict[str, Any] = {}
    for share in SHARES:
        run = arguments.out / "runs" / f"probe-{key}-{seed}-{share:g}"
        figures[f"probe {share:.0%}"] = probed(run, data, model, share, seed)
    for share in (0.1, 1.0):
        run = arguments.out / "runs" / f"seg-{key}-{seed}-{share:g}"
        figures[f"segmentation {share:.0%}"] = segmented(run, data, model, share, seed)
    figures["cpu_seconds"] = round(cpu_seconds() - start)
    path.parent.mkdir(exist_ok=True)
    with whole_file(path) as hidden:
        hidden.write_text(json.dumps(figures) + "\n")
    return figures


def table(rows: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown: mean over the seeds, and the widest of their intervals."""
    lines = ["| | " + " | ".join(COLUMNS) + " |", "|---|" + "---|" * len(COLUMNS)]
    for name, seeds in rows.items():
        cells = []
        for column in COLUMNS:
            found = [seed[column] for seed in seeds]
            value = np.mean([f["value"] for f in found])
            low, high = min(f["low"] for f in found), max(f["high"] for f in found)
            cells.append(f"{value:.3f} ({low:.3f}-{high:.3f})")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the campaign")
    parser.add_argument(
        "--encoders", type=Path, required=True, help="folder of benchmarks/phantom_table.py"
    )
    parser.add_argument(
        "--rows", nargs="+", choices=list(ROWS),
        default=["random", "mae", "simcrop", "grounded", "pyramid"],
    )  # fmt: skip
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--train", type=int, default=400, help="phantoms of the whole lists")
    parser.add_argument("--test", type=int, default=200, help="unseen phantoms for the probes")
    parser.add_argument("--segmented", type=int, default=16, help="of them, for segmentation")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args(words)
    data = arguments.out / "data"
    data.mkdir(parents=True, exist_ok=True)
    write_data(data, arguments.train, arguments.test, arguments.segmented, arguments.workers)
    rows: dict[str, list[dict[str, Any]]] = {}
    started = time.monotonic()
    for seed in arguments.seeds:
        for key in arguments.rows:
            rows.setdefault(ROWS[key].name, []).append(row_of(key, seed, data, arguments))
            minutes = (time.monotonic() - started) / 60
            print(f"{ROWS[key].name}, seed {seed}: done at {minutes:.0f} min", file=sys.stderr)
    print(table(rows))
    if arguments.json:
        facts = {k: getattr(arguments, k) for k in ("train", "test", "segmented", "seeds")}
        arguments.json.write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
