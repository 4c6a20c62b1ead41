"""``simcrop evaluate grounding``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simcrop_core.cli.terminal import answer, load, progress_bar
from simcrop_core.errors import SimCroPError
from simcrop_core.phantoms import VALIDATION_SEED, refuse_straddling
from simcrop_core.volume import Note

if TYPE_CHECKING:
    from simcrop_core.datasets.grounded_csv import GroundedSource
    from simcrop_core.datasets.rexgrounding import RexSource
    from simcrop_core.device import Progress
    from simcrop_core.evaluate.cases import Case
    from simcrop_core.evaluate.grounding_result import GroundingResult
    from simcrop_core.evaluate.prior import Prior
    from simcrop_core.input_spec import InputSpec
    from simcrop_core.study import Study

    Sources = Sequence[GroundedSource | RexSource]

_PHANTOMS = _PRIOR = 200


def run_grounding(arguments: argparse.Namespace) -> int:
    refuse_outputs(arguments)
    if arguments.cases is not None:
        return _run_cases(arguments)
    return _run_phantoms(arguments)


# -- phantoms -----------------------------------------------------------------------------------


def _run_phantoms(arguments: argparse.Namespace) -> int:
    from simcrop_core.evaluate.cases import phantom_cases

    for option in ("scans", "split", "placement"):
        if getattr(arguments, option) is not None:
            raise _not_for(f"--{option}", "--cases")
    first = VALIDATION_SEED if arguments.seed is None else arguments.seed
    count = _PHANTOMS if arguments.phantoms is None else arguments.phantoms
    learnt = _PRIOR if arguments.prior_phantoms is None else arguments.prior_phantoms
    if first < learnt:
        raise SimCroPError(
            f"The prior is learnt from phantoms 0 to {learnt - 1}, which --seed {first} would "
            "evaluate on.",
            code="seen-phantoms",
            remedy=f"Choose a --seed of {VALIDATION_SEED} or above.",
        )
    refuse_straddling(first, first + count)
    with progress_bar(arguments) as progress:
        model = load(arguments)
        _ = model.text  # refused before anything is rendered
        spec = model.input_spec
        cases = phantom_cases(range(first, first + count), spec, workers=arguments.workers)
        result = _measure(arguments, model, cases, count, learnt, progress)
        notes = _notes(first, count)
        notes += _draw(arguments, result, lambda study: _phantom(study, spec), spec, progress)
    facts = result.to_dict() | {"seed": first, "phantoms": count, "prior_phantoms": learnt}
    give(arguments, facts, result.lines(), notes)
    return 0


def _phantom(study: str, spec: InputSpec) -> Study:
    """A phantom by its id, as it was evaluated."""
    from simcrop_core.phantoms.study import make_phantom, prepared_grid

    seed = int(study.removeprefix("phantom-"))
    return make_phantom(seed, prepared_grid(seed, spec))


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


# -- scans --------------------------------------------------------------------------------------


def _run_cases(arguments: argparse.Namespace) -> int:
    if arguments.seed is not None:
        raise _not_for("--seed", "--phantoms")
    sources = _sources(arguments)
    learnt = arguments.prior_phantoms or 0
    placement = arguments.placement or "center"
    with progress_bar(arguments) as progress:
        model = load(arguments)
        _ = model.text
        spec = model.input_spec
        notes = _checked(sources, progress)
        cases = _cases(sources, spec, placement)
        result = _measure(arguments, model, cases, len(sources), learnt, progress)
        by_id = {source.id: source for source in sources}
        notes += _draw(
            arguments, result, lambda study: by_id[study].load(), spec, progress, placement
        )
    facts = result.to_dict(sentences=True)
    facts |= {"placement": placement, "prior_phantoms": learnt}
    give(arguments, facts, result.lines(), notes)
    return 0


def _sources(arguments: argparse.Namespace) -> Sources:
    from simcrop_core.datasets.grounded_csv import read_grounded_csv
    from simcrop_core.datasets.rexgrounding import read_rexgrounding

    path = Path(arguments.cases)
    if path.suffix.lower() == ".json":
        scans = None if arguments.scans is None else Path(arguments.scans)
        return read_rexgrounding(path, scans, arguments.split or "val")
    for option in ("scans", "split"):
        if getattr(arguments, option) is not None:
            raise _not_for(f"--{option}", "a dataset.json")
    return read_grounded_csv(path)


def _checked(sources: Sources, progress: Progress) -> list[Note]:
    """Read every study once, so that what is wrong is said before anything is measured; the
    notes of all."""
    notes = []
    for number, source in enumerate(sources):
        progress("checking scans and masks", number, len(sources))
        notes += [(source.id, note) for note in source.load().volume.notes]
    return grouped(notes)


def grouped(notes: Iterable[tuple[str, Note]]) -> list[Note]:
    """Each note once, with the studies that it is of."""
    said: dict[Note, list[str]] = {}
    for study, note in notes:
        said.setdefault(note, []).append(study)
    found = []
    for note, studies in said.items():
        more = f" and {len(studies) - 1} more" if len(studies) > 1 else ""
        found.append(Note(note.code, f"{studies[0]}{more}: {note.text}"))
    return found


def _cases(sources: Sources, spec: InputSpec, placement: Any) -> Iterator[Case]:
    from simcrop_core.evaluate.cases import case_of

    for source in sources:
        yield case_of(source.load(), spec, placement=placement)


# -- both ---------------------------------------------------------------------------------------


def _measure(
    arguments: argparse.Namespace,
    model: Any,
    cases: Iterable[Case],
    count: int,
    learnt: int,
    progress: Progress,
) -> GroundingResult:
    from simcrop_core.evaluate.grounding import evaluate_grounding

    prior = _learnt_prior(model.input_spec, learnt, arguments.workers, progress)
    return evaluate_grounding(
        model,
        cases,
        prior,
        total=count,
        device=arguments.device,
        precision=arguments.precision,
        progress=progress,
    )


def _learnt_prior(spec: InputSpec, learnt: int, workers: int, progress: Progress) -> Prior | None:
    """The prior of so many training phantoms."""
    from simcrop_core.evaluate.cases import phantom_cases
    from simcrop_core.evaluate.prior import Prior

    if not learnt:
        return None
    # At half the resolution, where patches allow: regions are all that is looked at.
    patch = tuple(p // 2 if p % 2 == 0 else p for p in spec.patch_shape)
    factor = [p // q for p, q in zip(spec.patch_shape, patch, strict=True)]
    coarse = spec.model_copy(
        update={
            "shape": tuple(n // f for n, f in zip(spec.shape, factor, strict=True)),
            "spacing_mm": tuple(s * f for s, f in zip(spec.spacing_mm, factor, strict=True)),
            "patch_shape": patch,
        }
    )
    prior = Prior()
    for number, case in enumerate(phantom_cases(range(learnt), coarse, workers=workers)):
        progress("learning the prior", number, learnt)
        for said in case.said:
            prior.add(said)
    return prior


def _draw(
    arguments: argparse.Namespace,
    result: GroundingResult,
    study_of: Callable[[str], Study],
    spec: InputSpec,
    progress: Progress,
    placement: Any = "center",
) -> list[Note]:
    """Write the picture, if one is wanted and there is something to show."""
    if arguments.picture is None:
        return []
    from simcrop_core.evaluate.picture import draw_extremes
    from simcrop_core.figure import save_figure

    if not result.pointed:
        return [Note("no-picture", "No sentence has a region, so no picture was drawn.")]
    progress("drawing", 0, 1)
    save_figure(draw_extremes(result, study_of, spec, placement=placement), arguments.picture)
    return []


def _not_for(option: str, partner: str) -> SimCroPError:
    return SimCroPError(
        f"{option} goes with {partner}.", code="option", remedy="Leave it out, or name that too."
    )


def refuse_outputs(arguments: argparse.Namespace) -> None:
    """Refuse what could not be computed on or written, before anything long begins."""
    from simcrop_core.device import resolve_precision, select_device
    from simcrop_core.figure import SUFFIXES

    resolve_precision(select_device(arguments.device), arguments.precision)
    picture = getattr(arguments, "picture", None)
    for option, file in (("--json", arguments.json), ("--picture", picture)):
        if not isinstance(file, str):
            continue
        if Path(file).is_dir():
            raise SimCroPError(
                f"This is a folder, and {option} takes a file",
                path=file,
                code="not-a-file",
                remedy="Name a file in it.",
            )
        if not Path(file).absolute().parent.is_dir():
            raise SimCroPError(
                f"The folder of the {option} file is not there",
                path=file,
                code="cannot-write",
                remedy="Make it, or name another file.",
            )
    if picture is not None and Path(picture).suffix.lower() not in SUFFIXES:
        raise SimCroPError(
            "A picture is written as .png, .pdf or .svg",
            path=picture,
            code="figure-suffix",
            remedy="Let the name of --picture end in one of these.",
        )


def give(
    arguments: argparse.Namespace, facts: dict[str, Any], lines: list[str], notes: list[Note]
) -> None:
    """Print the answer, or write it to the file of ``--json`` and print the tables."""
    from simcrop_core.outputs import whole_file

    facts["notes"] = [note.to_dict() for note in notes]
    if isinstance(arguments.json, str):
        with whole_file(Path(arguments.json)) as hidden:
            hidden.write_text(json.dumps(facts, indent=1, allow_nan=False) + "\n", "utf-8")
        arguments.json = False
    answer(arguments, facts, [*lines, *(f"Note: {note.text}" for note in notes)])
