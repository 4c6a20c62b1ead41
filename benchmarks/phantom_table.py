"""SimCroP, its parts, its peers and our variants on phantoms with known truth: one table.

    python benchmarks/phantom_table.py --out DIR [--steps 600] [--seeds 0 1] [--rows ...]

Every row is a recipe of ``simcrop-train`` trained for the same number of steps on the same
phantoms, then judged on phantoms from seed 900,000 on, which no run sees:

* probe AUC: logistic regression on frozen pooled features, mean over the findings;
* Dice: ridge regression from frozen patch features to lungs, heart, aorta, spine, liver;
* pointing: does the patch most like a sentence touch the region it speaks of, for organ
  statements, for findings in all and by the lesion's size;
* side: does it lie on the side that the sentence names;
* presence AUC: do sentences score higher where they are true, mean over the findings.

Two rows need no training: chance, and the prior, the mean region of the statement in all phantoms
that the runs train on, which never looks at the image. ``--rows`` chooses some; what is done
already is not done again, so the campaign may be stopped at any time and started anew with the
same words, and several may work on different rows of one folder.
"""

from __future__ import annotations

import argparse
import json
import pickle
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simcrop_core.evaluate.cases import Case, phantom_cases
from simcrop_core.evaluate.dense import linear_segmentation
from simcrop_core.evaluate.grounding import GroundingResult, evaluate_grounding
from simcrop_core.evaluate.intervals import mean_over_studies
from simcrop_core.evaluate.pointing import SIZE_CLASSES
from simcrop_core.evaluate.probe import linear_probe, pooled_features
from simcrop_core.input_spec import InputSpec
from simcrop_core.model.checkpoint import load_model
from simcrop_core.model.simcrop import SimCroP
from simcrop_core.outputs import whole_file
from simcrop_core.phantoms import VALIDATION_SEED
from simcrop_core.phantoms.anatomy_labels import GROUPS, LOBES
from simcrop_core.store import open_store
from simcrop_core.store.prior import learn_prior
from simcrop_core.train.build import build_model
from simcrop_core.train.config import RunConfig
from simcrop_core.train.data import make_phantom_store
from simcrop_core.train.launch import train
from simcrop_core.train.run import Run
from simcrop_core.train.settings import with_settings

DICE_OF = (
    ("lungs", LOBES),
    ("heart", GROUPS["heart"]),
    ("aorta", ("aorta",)),
    ("spine", GROUPS["spine"]),
    ("liver", ("liver",)),
)


@dataclass(frozen=True, slots=True)
class Row:
    """A row: its name in the table, the recipe, and what differs from it."""

    name: str
    recipe: str
    settings: tuple[str, ...] = ()
    trained: bool = True


ROWS = {
    "random": Row("untrained", "phantom-tiny", trained=False),
    "mae": Row("MAE", "mae"),
    "m3ae": Row("M3AE", "m3ae"),
    "mrm": Row("MRM", "mrm"),
    "ct-clip": Row("CT-CLIP", "ct-clip"),
    "m3d-clip": Row("M3D-CLIP", "m3d-clip"),
    "il": Row("SimCroP: IL", "ablation-il"),
    "wl": Row("SimCroP: WL", "ablation-wl"),
    "il-wl": Row("SimCroP: IL + WL", "ablation-il-wl"),
    "sa-il": Row("SimCroP: SA + IL", "ablation-sa-il"),
    "sa-wl": Row("SimCroP: SA + WL", "ablation-sa-wl"),
    "simcrop": Row("SimCroP: SA + IL + WL (the paper's)", "ablation-all"),
    "shuffled": Row("the same, reports shuffled", "ablation-all", ("data.shuffle_reports=true",)),
    "grounded": Row("grounded", "grounded"),
    "pyramid": Row("grounded on a pyramid", "grounded-pyramid"),
    "no-contrast": Row("grounded without contrast", "grounded-no-contrast"),
    "no-presence": Row("grounded without presence", "grounded-no-presence"),
    "regions": Row("grounded, regions alone", "grounded-regions"),
    "no-regions": Row("grounded without regions", "grounded-no-regions"),
    "no-cells": Row("grounded without the finer level", "grounded-no-cells"),
    "linear-stem": Row("grounded, linear patch embedding", "grounded-linear-stem"),
    "no-counterfactuals": Row(
        "grounded without counterfactuals", "grounded", ("objective.counterfactuals=false",)
    ),
    "mask-75": Row("grounded, 75 % masked", "grounded", ("objective.mask_ratio=0.75",)),
    "presence-of-finding": Row(
        "grounded, presence of the finding", "grounded", ('model.presence={"of": "finding"}',)
    ),
}
SWEEPS = {
    **{
        f"k-{k}": Row(f"SimCroP, K = {k}", "ablation-all", (f"objective.top_k={k}",))
        for k in (1, 5, 10, 20, 40, 96)
    },
    **{
        f"gamma-{g}": Row(
            f"SimCroP, gamma = {g / 100:.2f}", "ablation-all",
            (f"objective.report_mask_ratio={g / 100}",),
        )
        for g in (25, 50, 75, 90)
    },
}  # fmt: skip
COLUMNS = {
    "probe": "probe AUC",
    "dice": "Dice",
    "organ": "organs",
    "finding": "findings",
    "small": "< 8 mm",
    "medium": "8-15 mm",
    "large": "15-30 mm",
    "largest": "> 30 mm",
    "side": "side",
    "presence": "presence AUC",
}
SIZES = dict(zip(("small", "medium", "large", "largest"), SIZE_CLASSES, strict=True))


class Judge:
    """Unseen phantoms, and those the probe learns from."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        config = configured(ROWS["mae"], arguments, 0)
        model = model_of(config)
        store = make_phantom_store(config, model.config, arguments.out, progress("the store"))
        spec = model.input_spec
        unseen = range(VALIDATION_SEED, VALIDATION_SEED + arguments.test)
        self.train = rendered(range(arguments.probe), spec, arguments)
        self.test = rendered(unseen, spec, arguments)
        self.prior = learn_prior(open_store(store))

    def figures(self, model: SimCroP) -> dict[str, Any]:
        """All columns of a model, and the grounding's own two rows."""
        found = evaluate_grounding(model, self.test, self.prior)
        figures = {source: grounding_figures(found, source) for source in found_sources()}
        ours = figures["model"]
        presence = found.presence.get("all", {}).get("mean")
        ours["presence"] = None if presence is None else presence.value
        features = [pooled_features(model, cases) for cases in (self.train, self.test)]
        (train_VD, train_VF), (test_VD, test_VF) = features
        ours["probe"] = linear_probe(train_VD, train_VF, test_VD, test_VF).macro
        dice = linear_segmentation(model, self.train, self.test, DICE_OF)
        ours["dice"] = dice.get("mean")
        return figures


def rendered(seeds: range, spec: InputSpec, arguments: argparse.Namespace) -> list[Case]:
    """Phantoms for the judge, kept in the campaign's folder."""
    place = arguments.out / f"cases-{seeds.start}-{seeds.stop}.pickle"
    if place.exists():
        return pickle.loads(place.read_bytes())
    say(f"rendering phantoms {seeds.start} to {seeds.stop - 1}")
    cases = list(phantom_cases(seeds, spec, workers=arguments.workers, structures=True))
    with whole_file(place) as hidden:
        hidden.write_bytes(pickle.dumps(cases))
    return cases


def found_sources() -> tuple[str, ...]:
    return "model", "prior", "chance"


def grounding_figures(found: GroundingResult, source: str) -> dict[str, Any]:
    """Pointing and side of the model, the prior or chance."""
    rows = found.rows()
    figures: dict[str, Any] = {}
    names = {"organ": "organ", "finding": "finding"}
    names |= {column: f"finding {size}" for column, size in SIZES.items()}
    for column, name in names.items():
        pointed = [p for p in rows.get(name, []) if source in p.by]
        if pointed:
            hits = np.array([p.by[source].hit for p in pointed])
            studies = np.array([p.study for p in pointed])
            figures[column] = mean_over_studies(hits, studies).value
    sides = [p.side[source] for p in found.pointed if source in p.side]
    if sides:
        figures["side"] = float(np.mean(sides))
    return figures


def configured(row: Row, arguments: argparse.Namespace, seed: int) -> RunConfig:
    """The row's run at the campaign's budget."""
    from simcrop_training.recipes import recipe

    settings = [
        f"run.steps={arguments.steps}",
        f"run.batch_size={arguments.batch}",
        f"run.seed={seed}",
        f"run.checkpoint_every={arguments.steps}",
        f"run.validate_every={arguments.steps}",
        "run.previews=0",
        f"optim.warmup={max(1, arguments.steps // 20)}",
        f"data.phantoms={arguments.train}",
        "data.held_out=16",
        f"data.workers={arguments.workers}",
        f"data.phantom_folder={arguments.out / 'phantoms'}",
        *row.settings,
    ]
    return with_settings(recipe(row.recipe), settings)


def model_of(config: RunConfig) -> SimCroP:
    return build_model(config.model, config.run.seed).eval()


def trained(row: Row, arguments: argparse.Namespace, seed: int, folder: Path) -> SimCroP:
    """The row's model at the end of its run."""
    config = configured(row, arguments, seed)
    if not row.trained:
        return model_of(config)
    train(folder, config, resume=True, tell=progress(f"{row.name}, seed {seed}"))
    newest = Run.resume(folder, config)
    try:
        checkpoint = newest.latest()
    finally:
        newest.close()
    assert checkpoint is not None
    return load_model(checkpoint)


def progress(name: str) -> Callable[[str, int, int], None]:
    """A line every half minute."""
    last = [time.monotonic()]

    def tell(text: str, done: int, total: int) -> None:
        if time.monotonic() - last[0] > 30:
            last[0] = time.monotonic()
            say(f"  {name}: {text} ({done} of {total})")

    return tell


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def table(rows: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown: mean over the seeds, and half the range where there are several."""
    lines = [
        "| | " + " | ".join(COLUMNS.values()) + " |",
        "|---|" + "---|" * len(COLUMNS),
    ]
    for name, seeds in rows.items():
        cells = []
        for column in COLUMNS:
            values = [s[column] for s in seeds if s.get(column) is not None]
            if not values:
                cells.append("-")
                continue
            spread = f" ±{(max(values) - min(values)) / 2:.2f}" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.2f}{spread}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the campaign")
    parser.add_argument("--rows", nargs="+", choices=[*ROWS, *SWEEPS], default=list(ROWS))
    parser.add_argument("--sweeps", action="store_true", help="Fig. 3's sweeps of K and gamma")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--train", type=int, default=2400, help="phantoms to train on")
    parser.add_argument("--probe", type=int, default=600, help="of them, for the probe")
    parser.add_argument("--test", type=int, default=200, help="unseen phantoms")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args(words)
    chosen = {name: {**ROWS, **SWEEPS}[name] for name in arguments.rows}
    if arguments.sweeps:
        chosen = SWEEPS
    done = arguments.out / "figures"
    done.mkdir(parents=True, exist_ok=True)
    judge: Judge | None = None
    started = time.monotonic()
    rows: dict[str, list[dict[str, Any]]] = {"chance": [], "prior": []}
    for key, row in chosen.items():
        for seed in arguments.seeds:
            path = done / f"{key}-{seed}-{arguments.steps}x{arguments.batch}.json"
            if not path.exists():
                model = trained(row, arguments, seed, arguments.out / f"{key}-{seed}")
                judge = judge or Judge(arguments)
                path.write_text(json.dumps(judge.figures(model)) + "\n")
                say(f"{row.name}, seed {seed}: done at {(time.monotonic() - started) / 60:.0f} min")
            figures = json.loads(path.read_text())
            rows.setdefault(row.name, []).append(figures["model"])
            rows["chance"], rows["prior"] = [figures["chance"]], [figures["prior"]]
    print(table(rows))
    if arguments.json:
        facts = {
            "steps": arguments.steps,
            "batch": arguments.batch,
            "train": arguments.train,
            "probe": arguments.probe,
            "test": arguments.test,
            "seeds": arguments.seeds,
            "rows": rows,
        }
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
