"""How good the starter model is: on unseen phantoms, on real scans, under paraphrase; how fast.

    python benchmarks/starter.py [--model starter] [--peer FOLDER] [--phantoms 200] [--json FILE]
                                 [--card FILE]

* Phantoms from seed 900,000 on, which no training sees, many of their wordings held out as well:
  pointing, sides and presence (``simcrop evaluate grounding``), beside chance and a prior that
  never looks at the image; and, with ``--peer``, beside another model on the same phantoms.
* Dice of the segmentation head on some of them.
* Real scans, if ``SIMCROP_TEST_DATA`` names the folder that holds them.
* Ten wordings of the same statement, and the same with left and right swapped.
* Seconds of one core to encode a scan.

``--card`` writes the figures between the marks in a model card.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from starter_card import written
from starter_real import measure as measure_real
from starter_real import read_scans
from starter_words import measure as measure_words

from simcrop_core.align import encode
from simcrop_core.encoded import Encoded
from simcrop_core.evaluate.cases import phantom_cases, seen_midline_mm
from simcrop_core.evaluate.grounding import evaluate_grounding
from simcrop_core.evaluate.prior import Prior
from simcrop_core.evaluate.segmentation import LabelledCase, evaluate_segmentation
from simcrop_core.input_spec import InputSpec
from simcrop_core.model import load_model
from simcrop_core.model.simcrop import SimCroP
from simcrop_core.phantoms import VALIDATION_SEED
from simcrop_core.phantoms.study import make_phantom, prepared_grid
from simcrop_core.prepare import prepare


def grounding(
    models: Sequence[tuple[str, SimCroP]], phantoms: int, learnt: int, workers: int
) -> dict[str, Any]:
    """Each model on the same phantoms."""
    prior_of: dict[InputSpec, Prior] = {}
    facts = {}
    for name, model in models:
        spec = model.input_spec
        if spec not in prior_of:
            prior_of[spec] = Prior.of(phantom_cases(range(learnt), spec, workers=workers))
        seeds = range(VALIDATION_SEED, VALIDATION_SEED + phantoms)
        cases = phantom_cases(seeds, spec, workers=workers)
        result = evaluate_grounding(
            model, cases, prior_of[spec], total=phantoms, device="cpu", precision="fp32"
        )
        facts[name] = result.to_dict()
        print("\n".join([f"-- {name}", *result.lines(), ""]), flush=True)
    return facts


def segmentation(model: SimCroP, phantoms: int) -> dict[str, Any]:
    """Dice and surface distances on phantoms at the model's own resolution."""

    def cases() -> Iterator[LabelledCase]:
        for seed in range(VALIDATION_SEED, VALIDATION_SEED + phantoms):
            study = make_phantom(seed, prepared_grid(seed, model.input_spec), labels="classes")
            assert study.structures_XYZ is not None
            names = dict(enumerate(study.structure_names, 1))
            yield LabelledCase(
                study.id, study.volume, study.structures_XYZ, study.volume.grid, names
            )

    result = evaluate_segmentation(model, cases(), total=phantoms, device="cpu", precision="fp32")
    print("\n".join(["-- segmentation", *result.lines(), ""]), flush=True)
    return result.to_dict()


def speed(model: SimCroP, runs: int = 5) -> dict[str, Any]:
    """Seconds of one core for the encoder alone, on an input that is ready."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    seed = VALIDATION_SEED
    volume = make_phantom(seed, prepared_grid(seed, model.input_spec)).volume
    prepared = prepare(volume, model.input_spec)
    seconds = []
    for _ in range(runs):
        started = time.process_time()
        encode(model, volume, prepared=prepared, device="cpu", precision="fp32")
        seconds.append(time.process_time() - started)
    torch.set_num_threads(before)
    shape = model.input_spec.shape
    return {"input": list(shape), "encode_s": sorted(seconds)[runs // 2], "threads": 1}


def words(model: SimCroP, phantoms: int, scans: dict[str, Any]) -> dict[str, Any]:
    """Paraphrases and sides on phantoms and, where there are any, on real scans."""

    def all_scans() -> Iterator[tuple[Encoded, float]]:
        for seed in range(VALIDATION_SEED, VALIDATION_SEED + phantoms):
            volume = make_phantom(seed, prepared_grid(seed, model.input_spec)).volume
            yield encode(model, volume, device="cpu"), seen_midline_mm(volume)
        for volume, _ in scans.values():
            encoded = encode(model, volume, placement="lungs", device="cpu")
            yield encoded, seen_midline_mm(volume)

    return {"scans": phantoms + len(scans), **measure_words(model, all_scans())}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="starter", help="its name or folder")
    parser.add_argument("--peer", help="another model to stand beside it, on the phantoms alone")
    parser.add_argument("--phantoms", type=int, default=200)
    parser.add_argument("--prior-phantoms", type=int, default=400)
    parser.add_argument("--segmented", type=int, default=40, help="phantoms for the Dice")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--card", type=Path, help="renew the figures in this model card")
    arguments = parser.parse_args()
    model = load_model(arguments.model)
    models = [("model", model)]
    if arguments.peer:
        models.append(("peer", load_model(arguments.peer)))
    data = os.environ.get("SIMCROP_TEST_DATA")
    scans = read_scans(Path(data)) if data else {}
    facts: dict[str, Any] = {
        "model": model.card(),
        "phantoms": arguments.phantoms,
        "prior_phantoms": arguments.prior_phantoms,
        "speed": speed(model),
        "real": measure_real(model, scans),
        "words": words(model, 8, scans),
        "segmentation": segmentation(model, arguments.segmented),
        "grounding": grounding(
            models, arguments.phantoms, arguments.prior_phantoms, arguments.workers
        ),
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n")
    text = written(facts)
    if arguments.card:
        card = arguments.card.read_text(encoding="utf-8")
        before, begin, rest = card.partition(BEGIN)
        _, end, after = rest.partition(END)
        if not begin or not end:
            parser.error(f"{arguments.card} has no place for the figures: {BEGIN} and {END}")
        arguments.card.write_text(before + BEGIN + text + END + after, encoding="utf-8")
    print(text)
    return 0


BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"

if __name__ == "__main__":
    sys.exit(main())
