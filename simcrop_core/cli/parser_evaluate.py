"""What ``simcrop evaluate`` understands."""

from __future__ import annotations

import argparse
from typing import Any

from simcrop_core.cli.options import (
    add_command,
    add_compute_options,
    add_model_option,
    later,
    whole_number,
)


def add_evaluate(commands: Any) -> None:
    """Add the command and its verbs."""
    evaluate = commands.add_parser("evaluate", help="measure how well a model does")
    verbs = evaluate.add_subparsers(title="verbs", metavar="VERB", required=True)
    _add_grounding(verbs)
    _add_segmentation(verbs)


def _add_grounding(verbs: Any) -> None:
    parser = add_command(
        verbs,
        "grounding",
        later("evaluate", "run_grounding"),
        "where a model points, and whether it tells true statements from false",
        description="Measure whether the most similar patch overlaps what a sentence speaks of, "
        "beside chance and a prior that never looks at the image. On phantoms, whose truth is "
        "known, also whether true statements score above false ones; or on your scans: a csv with "
        "the columns study, ct, sentence, mask and, if wanted, report, label, finding, side, "
        "kind, one sentence a row; or dataset.json of ReXGroundingCT.",
        conflict_handler="resolve",
    )
    add_model_option(parser)
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--phantoms", type=whole_number(1), metavar="N", help="so many phantoms (200)"
    )
    what.add_argument("--cases", metavar="FILE", help="your own scans: a csv, or dataset.json")
    parser.add_argument("--seed", type=whole_number(0), help="of the first phantom (900000)")
    parser.add_argument(
        "--prior-phantoms",
        type=whole_number(0),
        metavar="N",
        help="phantoms, from seed 0 on, of which the prior is learnt (200; with --cases 0); 0 "
        "leaves it out",
    )
    parser.add_argument(
        "--scans", metavar="DIR", help="where CT-RATE's volumes are, for a dataset.json (beside it)"
    )
    parser.add_argument("--split", metavar="NAME", help="of a dataset.json (val)")
    parser.add_argument(
        "--placement",
        choices=("center", "lungs"),
        help="where the model's input lies in a larger scan of --cases (center)",
    )
    parser.add_argument(
        "--workers",
        type=whole_number(1),
        default=1,
        metavar="N",
        help="processes that make phantoms (1)",
    )
    parser.add_argument(
        "--picture",
        metavar="FILE",
        help="draw the ten best and the ten worst sentences: .png, .pdf or .svg",
    )
    _json_file(parser)
    add_compute_options(parser)


def _add_segmentation(verbs: Any) -> None:
    parser = add_command(
        verbs,
        "segmentation",
        later("evaluate_segmentation", "run_segmentation"),
        "how well a model labels structures",
        description="Measure Dice and surface distances between the model's labels and true ones, "
        "on the truth's own voxels.",
        conflict_handler="resolve",
    )
    add_model_option(parser, reads_text=False)
    parser.add_argument(
        "--cases",
        required=True,
        metavar="CSV",
        help="a csv with the columns study, ct, labels and, if wanted, names: JSON or a file of "
        'it, {"1": "left lung"}; without it labels are numbered as the model\'s',
    )
    parser.add_argument(
        "--overlap", type=float, default=0.5, help="overlap of neighbouring windows (0.5)"
    )
    _json_file(parser)
    add_compute_options(parser)


def _json_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json",
        nargs="?",
        const=True,
        default=False,
        metavar="FILE",
        help="answer in JSON, or write it to a file",
    )
