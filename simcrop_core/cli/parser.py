"""What the ``simcrop`` command understands."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NoReturn

from simcrop_core import __version__
from simcrop_core.cli.options import (
    add_align_options,
    add_command,
    add_compute_options,
    add_model_option,
    add_report_options,
    add_volume_options,
    choices,
    later,
    numbers,
    whole_number,
)
from simcrop_core.cli.parser_classify import add_classify
from simcrop_core.cli.parser_evaluate import add_evaluate
from simcrop_core.errors import sentence

_PLANES = ("axial", "coronal", "sagittal")


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; ``lists`` gives what its help ends with, when asked."""

    lists: Callable[[], str] | None = None

    def format_help(self) -> str:
        return super().format_help() + ("" if self.lists is None else self.lists())

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {sentence(message)} See {self.prog} --help.\n")


def make_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="simcrop",
        description="A chest CT and its report explain each other: which patches of the scan look "
        "most like each sentence. For research use only, not for diagnosis.",
    )
    parser.add_argument("--version", action="version", version=f"simcrop {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_align(commands)
    _add_segment(commands)
    add_classify(commands)
    _add_figure(commands)
    _add_inspect(commands)
    _add_models(commands)
    _add_batch(commands)
    add_evaluate(commands)
    _add_sample(commands)
    _add_phantom(commands)
    _add_doctor(commands)
    return parser


def _add_align(commands: Any) -> None:
    parser = add_command(
        commands,
        "align",
        later("evidence", "run_align"),
        "find the patches of a scan that look most like each sentence",
        description="Find, for every sentence of a report, the patches of the scan that look "
        "most like it. Writes alignment.json, alignment.npz, heatmaps/ and figure.png.",
    )
    parser.add_argument("ct", metavar="CT", help="DICOM folder or file, NIfTI, NRRD, MHA, npz")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the results")
    add_model_option(parser)
    parser.add_argument(
        "--query",
        action="append",
        default=[],
        metavar="TEXT",
        help="a sentence in your own words (may be given several times)",
    )
    add_align_options(parser)
    parser.add_argument(
        "--encoded",
        metavar="FILE.npz",
        help="keep the encoded scan here, and use it if it is of this scan and model",
    )
    add_report_options(parser)
    add_volume_options(parser)
    add_compute_options(parser)


def _add_segment(commands: Any) -> None:
    parser = add_command(
        commands,
        "segment",
        later("evidence", "run_segment"),
        "label the structures of a scan",
        description="Label every voxel of a scan with a model that has a segmentation head. "
        "Writes the labels on the scan's own voxels, as NIfTI (.nii.gz) or, for a DICOM series, "
        "as DICOM SEG (.dcm), and a .json beside them.",
    )
    parser.add_argument("ct", metavar="CT", help="DICOM folder or file, NIfTI, NRRD, MHA, npz")
    parser.add_argument("--out", required=True, metavar="LABELS.nii.gz", help="file for the labels")
    add_model_option(parser, reads_text=False)
    parser.add_argument(
        "--overlap", type=float, default=0.5, help="overlap of neighbouring windows (0.5)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace earlier labels")
    add_volume_options(parser)
    add_compute_options(parser)


def _add_figure(commands: Any) -> None:
    parser = add_command(
        commands,
        "figure",
        later("figures", "run_figure"),
        "draw sentences and their patches over the scan",
        description="Draw a figure like the paper's Fig. 4 from what simcrop align wrote.",
    )
    parser.add_argument("ct", metavar="CT", help="the scan that was aligned")
    parser.add_argument(
        "--alignment", required=True, metavar="DIR", help="folder that simcrop align wrote"
    )
    parser.add_argument(
        "--out", required=True, metavar="FILE", help="picture to write: .png, .pdf or .svg"
    )
    parser.add_argument(
        "--sentences",
        type=numbers(None, "sentence numbers", whole=True),
        metavar="0,3,4",
        help="sentences to draw, by their index in alignment.json",
    )
    parser.add_argument(
        "--planes", type=choices(_PLANES), metavar="axial,coronal", help="columns of the figure"
    )
    parser.add_argument(
        "--position",
        type=numbers(3, "millimetres"),
        metavar="X,Y,Z",
        help="RAS millimetres of the planes (default: each sentence's best patch)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="any other field of the figure, listed below",
    )
    assert isinstance(parser, _Parser)
    parser.lists = _figure_fields
    add_volume_options(parser)


def _figure_fields() -> str:
    from simcrop_core.figure import FigureSpec

    lines = ["", "fields of --set (values in JSON or plain text):"]
    for name, field in FigureSpec.model_fields.items():
        lines.append(f"  {name}: {field.description} Default: {field.default}.")
    return "\n".join(lines) + "\n"


def _add_inspect(commands: Any) -> None:
    parser = add_command(
        commands,
        "inspect",
        later("inspect", "run_inspect"),
        "say what a file or folder is, as it would be read",
        description="Read a scan, a report, a model folder, an alignment or an encoded scan and "
        "say what it is, with all notes.",
    )
    parser.add_argument("path", metavar="PATH")
    add_volume_options(parser)
    group = parser.add_argument_group("reading a report")
    group.add_argument("--volume-name", metavar="NAME", help="which row of a csv of reports")
    group.add_argument("--encoding", metavar="NAME", help="the report's code page, if not UTF-8")


def _add_models(commands: Any) -> None:
    models = commands.add_parser("models", help="create, import and describe models")
    verbs = models.add_subparsers(title="verbs", metavar="VERB", required=True)
    create = add_command(
        verbs,
        "create",
        later("models", "run_create"),
        "make a model with fresh, untrained weights",
    )
    create.add_argument(
        "preset", metavar="PRESET", help="starter, grounded, pyramid, paper or released"
    )
    create.add_argument("--out", required=True, metavar="DIR", help="folder for the model")
    create.add_argument(
        "--text-encoder", metavar="T", help="minilm, a folder or a hub id, instead of the preset's"
    )
    create.add_argument(
        "--segmentation",
        metavar="NAMES",
        help='add a segmentation head for these structures: "left lung,right lung"',
    )
    create.add_argument(
        "--seed", type=whole_number(0), default=0, help="random seed of the weights (0)"
    )
    create.add_argument("--overwrite", action="store_true", help="replace an earlier model")
    brought = add_command(
        verbs,
        "import",
        later("models", "run_import"),
        "make a model folder from a checkpoint of the authors' code",
    )
    brought.add_argument("checkpoint", metavar="CHECKPOINT.pth")
    brought.add_argument("--out", required=True, metavar="DIR", help="folder for the model")
    brought.add_argument(
        "--text-encoder", metavar="T", help="minilm, a folder or a hub id (default: CXR-BERT)"
    )
    brought.add_argument("--overwrite", action="store_true", help="replace an earlier model")
    copied = add_command(
        verbs,
        "copy",
        later("models", "run_copy"),
        "copy a model, such as a checkpoint of a run, without what only training needs",
    )
    copied.add_argument("model", metavar="MODEL", help="model folder, or its name")
    copied.add_argument("--out", required=True, metavar="DIR", help="folder for the copy")
    copied.add_argument("--name", metavar="NAME", help="the copy's name in results and figures")
    copied.add_argument(
        "--half", action="store_true", help="round weights to half precision, for half the size"
    )
    copied.add_argument("--overwrite", action="store_true", help="replace an earlier model")
    info = add_command(verbs, "info", later("models", "run_info"), "say what a model folder holds")
    info.add_argument("folder", metavar="DIR")


def _add_batch(commands: Any) -> None:
    batch = commands.add_parser("batch", help="the same over many studies")
    verbs = batch.add_subparsers(title="verbs", metavar="VERB", required=True)
    parser = add_command(
        verbs,
        "align",
        later("evidence", "run_batch"),
        "align every study of a manifest",
        description="Align every study of a csv with the columns study, ct, report and, if "
        "needed, volume_name (the row of a csv of reports) and series. What is done already is "
        "skipped; a study that cannot be read is recorded in status.csv and skipped.",
    )
    parser.add_argument("manifest", metavar="MANIFEST.csv")
    parser.add_argument("--out", required=True, metavar="DIR", help="a folder for each study here")
    add_model_option(parser)
    add_align_options(parser)
    parser.add_argument(
        "--workers",
        type=whole_number(1),
        default=1,
        metavar="N",
        help="processes on this machine (1)",
    )
    parser.add_argument("--scheduler", metavar="ADDRESS", help="a Dask scheduler: tcp://host:8786")
    parser.add_argument(
        "--no-figures", action="store_true", help="leave out each study's figure.png"
    )
    parser.add_argument("--encoding", metavar="NAME", help="the reports' code page, if not UTF-8")
    add_volume_options(parser)
    add_compute_options(parser)


def _add_sample(commands: Any) -> None:
    parser = add_command(
        commands,
        "sample",
        later("sample", "run_sample"),
        "write the built-in sample study",
        description="Write a small artificial chest CT and its report, to try the software on.",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the study")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier study")


def _add_phantom(commands: Any) -> None:
    parser = add_command(
        commands,
        "phantom",
        later("phantom", "run_phantom"),
        "make artificial studies with known truth",
        description="Make an artificial chest CT with its report, masks of all structures and "
        "findings, and truth.json, which says what is there and what each sentence states. The "
        "same seed gives the same study. Scans are as large as real ones.",
    )
    parser.add_argument(
        "--seed", type=whole_number(0), required=True, metavar="N", help="which study; from 0 up"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the study")
    parser.add_argument(
        "--count",
        type=whole_number(1),
        metavar="K",
        help="so many studies from this seed on, each in a folder of its own in DIR: "
        "phantom-000000, ...",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace earlier studies")


def _add_doctor(commands: Any) -> None:
    parser = add_command(
        commands, "doctor", later("doctor", "run_doctor"), "say what this machine offers"
    )
    parser.add_argument(
        "--models", action="append", default=[], metavar="DIR", help="look for models here too"
    )


# -- types of arguments -------------------------------------------------------------------------
