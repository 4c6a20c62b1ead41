"""What a linear probe gains and loses by features that are computed once.

    python benchmarks/probe.py [--model DIR] [--train 64] [--test 96] [--steps 200] [--batch 16]
        [--views 1 2 4 8 16] [--json PATH]

Phantoms are written as coarse NIfTI files; a linear head is fitted on the 18 findings of CT-RATE
on features of a frozen encoder: with a fresh random view of every scan in every pass, as the
method's authors do (twice, with two seeds: how much chance alone changes), and with so many views
of each scan computed once. Seconds are processor time; the areas under the curve are of scans that
were not fitted on, with 95 % intervals; the last column is the mean difference of the
probabilities from those of fresh views. Without ``--model`` the encoder has random weights: the
comparison of the ways does not need a good one.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from made_phantoms import cpu_seconds, labels_of, phantom_on, random_model
from numpy.typing import NDArray

from simcrop_core.datasets.scans import ScanSource
from simcrop_core.evaluate.classification import auc_by_label
from simcrop_core.evaluate.intervals import Estimate
from simcrop_core.finetune.features import FeatureMaker
from simcrop_core.finetune.head import fit_head, probabilities
from simcrop_core.input_spec import InputSpec
from simcrop_core.io import write_volume
from simcrop_core.model import SimCroP, load_model
from simcrop_core.phantoms import VALIDATION_SEED
from simcrop_core.statements import FINDINGS
from simcrop_core.train.classification_tasks import Share

_SHAPE, _SPACING = (64, 56, 44), (6.0, 6.0, 8.0)
_SPEC = InputSpec(shape=(48, 48, 40), spacing_mm=_SPACING, patch_shape=(8, 8, 8))


@dataclass(frozen=True)
class Row:
    """One way of fitting a head."""

    way: str
    seed: int
    encoded: int
    seconds: float
    auc: float
    low: float
    high: float
    difference: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a model folder")
    parser.add_argument("--train", type=int, default=64)
    parser.add_argument("--test", type=int, default=96)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--views", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    model = load_model(arguments.model) if arguments.model else random_model(_SPEC, 3)
    with tempfile.TemporaryDirectory() as folder:
        train, train_NK = _scans(Path(folder), range(arguments.train))
        first = VALIDATION_SEED
        test, test_NK = _scans(Path(folder), range(first, first + arguments.test))
        rows = _compare(model, train, train_NK, test, test_NK, arguments)
    print(f"{'views':<14} {'encoded':>6} {'CPU s':>8}   {'AUC (95 %)':<24} |p - p fresh|")
    for row in rows:
        area = Estimate(row.auc, row.low, row.high, 0)
        name = f"{row.way}, seed {row.seed}" if row.way == "fresh" else row.way
        print(
            f"{name:<14} {row.encoded:>6} {row.seconds:>8.1f}   {area!s:<24} {row.difference:.4f}"
        )
    if arguments.json is not None:
        facts = {k: v for k, v in vars(arguments).items() if k not in ("json", "model")}
        facts = {"model": model.card(), **facts}
        facts["rows"] = [asdict(row) for row in rows]
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n")


def _compare(
    model: SimCroP,
    train: list[ScanSource],
    train_NK: NDArray[np.int16],
    test: list[ScanSource],
    test_NK: NDArray[np.int16],
    arguments: argparse.Namespace,
) -> list[Row]:
    steps, batch = arguments.steps, arguments.batch
    share = Share("", 1.5e-3 * 10, steps, steps // 10, batch, 1, 0.0)
    tested_ND = np.concatenate(list(FeatureMaker(model).testing(test)))
    rows: list[Row] = []
    fresh: list[NDArray[np.float32]] = []

    def fitted(way: str, seed: int, made: Callable[[], tuple[Callable[..., object], list[int]]]):
        start = cpu_seconds()
        views, encoded = made()
        head = fit_head(
            views, train_NK, tested_ND.shape[1], 0, share,  # type: ignore[arg-type]
            weight_decay=1e-5, clip_norm=1.0, seed=seed,
        ).head  # fmt: skip
        seconds = cpu_seconds() - start
        found_NK = probabilities(head, tested_ND, 0)
        fresh.append(found_NK)
        area = auc_by_label(found_NK, test_NK, FINDINGS, draws=500).overall
        assert area is not None
        away = float(np.abs(found_NK - fresh[0]).mean())
        rows.append(Row(way, seed, sum(encoded), seconds, area.value, area.low, area.high, away))
        print(rows[-1], flush=True)

    for seed in (0, 1):

        def anew(seed: int = seed) -> tuple[Callable[..., object], list[int]]:
            maker, count = FeatureMaker(model, seed=seed), []

            def views(chosen: NDArray[np.intp], epoch: int) -> NDArray[np.float32]:
                count.append(len(chosen))
                made = maker.training([train[row] for row in chosen], [epoch])
                return np.concatenate(list(made))

            return views, count

        fitted("fresh", seed, anew)
    for number in arguments.views:

        def once(number: int = number) -> tuple[Callable[..., object], list[int]]:
            table = np.stack(list(FeatureMaker(model).training(train, range(number))))
            return lambda chosen, epoch: table[chosen, epoch % number], [table.shape[0] * number]

        fitted(str(number), 0, once)
    return rows


def _scans(folder: Path, seeds: range) -> tuple[list[ScanSource], NDArray[np.int16]]:
    """Phantoms as files, and their labels ``(N, 18)``; what is open counts as absent."""
    sources, labels = [], []
    for seed in seeds:
        study = phantom_on(seed, _SHAPE, _SPACING)
        path = folder / f"{study.id}.nii.gz"
        write_volume(path, study.volume)
        sources.append(ScanSource(study.id, str(path)))
        labels.append(list(labels_of(study).values()))
    return sources, np.array(labels, np.int16)


if __name__ == "__main__":
    main()
