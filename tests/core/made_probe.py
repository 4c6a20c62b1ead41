"""A tiny model, and public data sets of phantoms with their lists, for tests of probes."""

from __future__ import annotations

from pathlib import Path

from made_public import (
    LUNA_UID,
    cc_ccii_list,
    ct_rate_list,
    labels_of,
    luna16_list,
    make_cc_ccii,
    make_ct_rate,
    make_luna16,
    make_radchestct,
    radchestct_list,
)

from simcrop_core.finetune.config import ProbeConfig
from simcrop_core.input_spec import InputSpec
from simcrop_core.model import ModelConfig, SimCroP, TextConfig, VisionConfig, new_model

#: Smaller than a phantom along two axes and larger along one: cut and reflected.
SPEC = InputSpec(shape=(32, 24, 40), spacing_mm=(10.0, 10.0, 9.0), patch_shape=(8, 8, 8))


def tiny_model(seed: int = 0, trained: str = "untrained", spec: InputSpec = SPEC) -> SimCroP:
    config = ModelConfig.model_validate(
        {
            "name": "tiny",
            "input_spec": spec,
            "vision": VisionConfig(depth=2, width=24, heads=2),
            "text": TextConfig(source="minilm", width=384),
            "provenance": {"trained": trained},
        }
    )
    return new_model(config, seed)


def ct_rate_task(root: Path, training: range, testing: range) -> dict[str, str]:
    """Folders of CT-RATE in both layouts with its lists, by field of the probe's data."""
    data, lists = root / "ct-rate", root / "lists"
    train = {f"train_{n}_a_1": n for n in training}
    test = {f"valid_{n}_a_1": n for n in testing}
    make_ct_rate(data, train | test)
    for name in ("train_list.csv", "train_list_1.csv", "train_list_10.csv"):
        ct_rate_list(lists / "CT-Rate" / name, train)
    for name in ("val_list.csv", "test_list.csv"):
        ct_rate_list(lists / "CT-Rate" / name, test)
    return {"root": str(data), "lists": str(lists)}


def radchestct_task(
    root: Path, training: range, validation: range, testing: range
) -> dict[str, str]:
    data, lists = root / "radchestct", root / "lists"
    splits = {
        "train_list": {f"trn{n:05d}": n for n in training},
        "val_list": {f"val{n:05d}": n for n in validation},
        "test_list": {f"tst{n:05d}": n for n in testing},
    }
    for name, seeds in splits.items():
        make_radchestct(data, seeds, "authors")
        radchestct_list(lists / "RadChestCT" / f"{name}.csv", seeds)
    radchestct_list(lists / "RadChestCT" / "train_list_10.csv", splits["train_list"])
    return {"root": str(data), "lists": str(lists)}


def cc_ccii_task(root: Path, training: range, testing: range) -> dict[str, str]:
    data, lists = root / "cc-ccii", root / "lists"
    make_cc_ccii(data, {str(n): n for n in (*training, *testing)})
    for name, seeds in (
        ("train_list", training), ("train_list_1", training), ("train_list_10", training),
        ("val_list", testing), ("test_list", testing),
    ):  # fmt: skip
        cc_ccii_list(lists / "CC-CCII" / f"{name}.csv", {str(n): n % 3 for n in seeds})
    return {"root": str(data), "lists": str(lists)}


def luna16_task(root: Path, training: range, testing: range) -> dict[str, str]:
    data, lists = root / "luna16", root / "lists"
    uid = {n: f"{LUNA_UID}{n + 1}" for n in (*training, *testing)}
    make_luna16(data, {name: n for n, name in uid.items()}, "authors")
    for name, seeds in (
        ("train_list", training), ("train_list_10", training),
        ("val_list", testing), ("test_list", testing),
    ):  # fmt: skip
        labels = {uid[n]: labels_of(n)["Lung nodule"] for n in seeds}
        luna16_list(lists / "LUNA16" / f"{name}.csv", labels)
    return {"root": str(data), "lists": str(lists)}


def probe(task: str, folders: dict[str, str], model: object, **changes: object) -> ProbeConfig:
    """A short probe; fields of the head by ``head``."""
    head = {"steps": 12, "warmup": 2, "batch_size": 4, "lr": 1e-2}
    return ProbeConfig.model_validate(
        {
            "name": f"probe-{task}",
            "model": str(model),
            "data": {"task": task, "workers": 0, **folders},
            "head": head | dict(changes.pop("head", {})),  # type: ignore[call-overload]
            "views": 3,
            "draws": 50,
            "start_validation": 0,
            "accelerator": "cpu",
            **changes,
        }
    )
