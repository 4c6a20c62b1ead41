"""``simcrop evaluate grounding``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from simcrop_core.cli.terminal import answer, load, progress_bar
from simcrop_core.errors import SimCroPError
from simcrop_core.phantoms import VALIDATION_SEED, refuse_straddling
from simcrop_core.volume import Note


def run_grounding(arguments: argparse.Namespace) -> int:
    from simcrop_core.evaluate.cases import phantom_cases
    from simcrop_core.evaluate.grounding import evaluate_grounding
    from simcrop_core.evaluate.prior import Prior
    from simcrop_core.outputs import whole_file

    first, count, learnt = arguments.seed, arguments.phantoms, arguments.prior_phantoms
    if first < learnt:
        raise SimCroPError(
            f"The prior is learnt from phantoms 0 to {learnt - 1}, which --seed {first} would "
            "evaluate on.",
            code="seen-phantoms",
            remedy=f"Choose a --seed of {VALIDATION_SEED} or above.",
        )
    refuse_straddling(first, first + count)
    if isinstance(arguments.json, str) and not Path(arguments.json).absolute().parent.is_dir():
        raise SimCroPError(
            "The folder of the --json file is not there",
            path=arguments.json,
            code="cannot-write",
            remedy="Make it, or name another file.",
        )
    with progress_bar(arguments) as progress:
        model = load(arguments)
        _ = model.text  # refused before anything is rendered
        spec = model.input_spec
        prior = None
        if learnt:
            # At half the resolution, where patches allow: regions are all that is looked at.
            patch = tuple(p // 2 if p % 2 == 0 else p for p in spec.patch_shape)
            factor = [p // q for p, q in zip(spec.patch_shape, patch, strict=True)]
            coarse = spec.model_copy(
                update={
                    "shape": tuple(n // f for n, f in zip(spec.shape, factor, strict=True)),
                    "spacing_mm": tuple(
                        s * f for s, f in zip(spec.spacing_mm, factor, strict=True)
                    ),
                    "patch_shape": patch,
                }
            )
            prior = Prior()
            cases = phantom_cases(range(learnt), coarse, workers=arguments.workers)
            for number, case in enumerate(cases):
                progress("learning the prior", number, learnt)
                for said in case.said:
                    prior.add(said)
        result = evaluate_grounding(
            model,
            phantom_cases(range(first, first + count), spec, workers=arguments.workers),
            prior,
            total=count,
            device=arguments.device,
            precision=arguments.precision,
            progress=progress,
        )
    facts = result.to_dict() | {"seed": first, "phantoms": count, "prior_phantoms": learnt}
    notes = _notes(first, count)
    facts["notes"] = [note.to_dict() for note in notes]
    if isinstance(arguments.json, str):
        with whole_file(Path(arguments.json)) as hidden:
            hidden.write_text(json.dumps(facts, indent=1, allow_nan=False) + "\n", "utf-8")
        arguments.json = False
    answer(arguments, facts, [*result.lines(), *(f"Note: {note.text}" for note in notes)])
    return 0


def _notes(first: int, count: int) -> list[Note]:
    """What a reader of the figures must know of the phantoms they are of."""
    if first >= VALIDATION_SEED:
        return []
    return [
        Note(
            "may-be-trained-on",
            f"Phantoms {first} to {first + count - 1} are not kept from training: the model may "
            f"have been trained on them. From seed {VALIDATION_SEED} on none is.",
        )
    ]
