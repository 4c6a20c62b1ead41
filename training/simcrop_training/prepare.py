"""``simcrop-train prepare``: a data set -> a store that training reads from."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from simcrop_core.cli.terminal import progress_bar
from simcrop_core.datasets import is_json, open_dataset, preflight, public_name, read_mask_list
from simcrop_core.errors import SimCroPError
from simcrop_core.input_spec import InputSpec
from simcrop_core.store import BuildTally, StoreSettings, build_store
from simcrop_core.store.encode import TextSettings

_TOLD = 20


def add_prepare_arguments(parser: argparse.ArgumentParser) -> None:
    """Everything that ``simcrop-train prepare`` understands but ``--json`` and ``--debug``."""
    spec, settings = InputSpec(), StoreSettings()
    parser.add_argument(
        "source",
        help="a manifest (csv with the columns study, volume, report), phantoms:FIRST-STOP, or a "
        "public data set: ct-rate:ROOT, radchestct:ROOT, cc-ccii:ROOT, luna16:ROOT, btcv:ROOT",
    )
    parser.add_argument("--store", type=Path, metavar="DIR", help="where the store is written")
    parser.add_argument(
        "--preflight", action="store_true", help="only list what is missing or damaged"
    )
    data = parser.add_argument_group("public data sets")
    data.add_argument("--list", type=Path, metavar="FILE", help="only the scans of this list")
    data.add_argument("--split", choices=("train", "valid", "test"), help="only this split")
    input_ = parser.add_argument_group("volumes")
    for name, what in (("shape", "voxels of the model's input"), ("patch", "voxels of a patch")):
        default = spec.shape if name == "shape" else spec.patch_shape
        input_.add_argument(
            f"--{name}",
            type=_three(int),
            default=default,
            metavar="H,W,D",
            help=f"{what} (default {_text(default)})",
        )
    input_.add_argument(
        "--spacing",
        type=_three(float),
        default=spec.spacing_mm,
        metavar="MM,MM,MM",
        help=f"millimetres from voxel to voxel (default {_text(spec.spacing_mm)})",
    )
    input_.add_argument(
        "--margin",
        type=_three(int),
        metavar="H,W,D",
        help="voxels kept around the input for random crops (default: one patch)",
    )
    input_.add_argument(
        "--placement",
        choices=("center", "lungs"),
        default=settings.placement,
        help="where the input lies in a larger scan (default %(default)s)",
    )
    input_.add_argument(
        "--no-structures", action="store_true", help="leave out label maps of structures"
    )
    input_.add_argument(
        "--classes",
        action="store_true",
        help="phantoms: label maps of the classes of a segmentation head, not of all structures",
    )
    text = parser.add_argument_group("texts")
    text.add_argument(
        "--text-encoder",
        default="minilm",
        metavar="NAME",
        help="minilm, or the folder of an encoder (default %(default)s)",
    )
    text.add_argument(
        "--sentence-vector",
        choices=("cls", "mean"),
        help="what of a text is its vector (default: mean for minilm, else cls)",
    )
    text.add_argument(
        "--vectors",
        choices=("float32", "float16"),
        default="float32",
        help="how vectors are kept (default %(default)s)",
    )
    text.add_argument(
        "--device", default="cpu", help="where the text encoder runs (default %(default)s)"
    )
    work = parser.add_argument_group("work")
    work.add_argument(
        "--workers",
        type=_positive,
        default=os.cpu_count() or 1,
        metavar="N",
        help="processes on this machine (default: its cores)",
    )
    work.add_argument(
        "--scheduler", metavar="ADDRESS", help="a Dask scheduler, whose workers see the same files"
    )
    work.add_argument(
        "--verify", action="store_true", help="compare checksums; make damaged studies again"
    )
    work.add_argument("--retry", action="store_true", help="try again studies that were left out")


def run_prepare(arguments: argparse.Namespace) -> int:
    """Prepare a store, or look a data set over.

    Returns
    -------
    int
        0, also where studies were left out: they are named. 1 where a preflight found faults.

    Raises
    ------
    SimCroPError
        Nothing can be prepared as asked.
    """
    as_json = bool(getattr(arguments, "json", False))
    _refuse_undivided(arguments)
    if arguments.source.startswith("phantoms:") and arguments.placement != "center":
        raise SimCroPError(
            "Phantoms are rendered where the model's input lies, so --placement "
            f"{arguments.placement} would change nothing",
            code="option",
            remedy="Leave --placement out.",
        )
    if arguments.classes and arguments.no_structures:
        raise SimCroPError(
            "Label maps are asked for and left out",
            code="option",
            remedy="Leave out --classes or --no-structures.",
        )
    dataset = open_dataset(
        arguments.source, cases=arguments.list, split=arguments.split, classes=arguments.classes
    )
    with progress_bar(arguments) as progress:
        if arguments.preflight:
            found = preflight(dataset, progress)
        else:
            folder = _store_folder(arguments)
            tally = build_store(
                dataset.name,
                dataset.sources,
                folder,
                settings_from(arguments),
                TextSettings(
                    source=arguments.text_encoder,
                    sentence_vector=arguments.sentence_vector,
                    dtype=arguments.vectors,
                    device=arguments.device,
                ),
                workers=arguments.workers,
                scheduler=arguments.scheduler,
                verify=arguments.verify,
                retry=arguments.retry,
                progress=progress,
            )
    if arguments.preflight:
        print(json.dumps(found.to_dict(), indent=1) if as_json else found.table().rstrip())
        return int(bool(found.faults))
    _tell(tally, folder, as_json)
    return 0


def _refuse_undivided(arguments: argparse.Namespace) -> None:
    """A public data set is never made into one store with the scans it is evaluated on."""
    name = public_name(arguments.source)
    if name is None or arguments.split or arguments.preflight:
        return
    if arguments.list is not None and not _is_divided_list(arguments.list):
        return
    raise SimCroPError(
        f"{name}'s training and validation scans would be put into one store",
        code="no-split",
        remedy="Add --split train, --split valid or a --list of scans for one of them.",
    )


def _is_divided_list(path: Path) -> bool:
    """Whether a list names scans of more than one split, as JSON lists can, whatever it is called.

    Raises
    ------
    SimCroPError
        It is JSON, and no list of images and masks.
    """
    if not is_json(path):
        return False
    listed = read_mask_list(path)
    return sum(map(bool, (listed.training, listed.validation, listed.testing))) > 1


def _tell(tally: BuildTally, folder: Path, as_json: bool) -> None:
    """What was done, and what was left out and why."""
    if as_json:
        print(json.dumps({"store": str(folder), **tally.to_dict()}))
        return
    print(
        f"{tally.prepared} prepared, {tally.done_before} done before, {tally.skipped} left out, "
        f"{tally.encoded} texts encoded: {folder}"
    )
    if tally.speechless:
        print(f"  without a sentence of the Findings: {tally.speechless}")
    if tally.dropped:
        print(
            f"  no longer part of the store, since they were not named now: {tally.dropped}; "
            "name all studies of a store together"
        )
    for name, problem in tally.problems[:_TOLD]:
        print(f"  left out {name}: {problem}")
    if len(tally.problems) > _TOLD:
        print(f"  and {len(tally.problems) - _TOLD} more, in {folder / 'index.json'}")


def settings_from(arguments: argparse.Namespace) -> StoreSettings:
    """How volumes are prepared, as the command line says.

    Raises
    ------
    SimCroPError
        ``bad-config``: the sizes do not go together.
    """
    try:
        spec = InputSpec(
            shape=arguments.shape, spacing_mm=arguments.spacing, patch_shape=arguments.patch
        )
        return StoreSettings(
            spec=spec,
            margin_voxels=spec.patch_shape if arguments.margin is None else arguments.margin,
            placement=arguments.placement,
            structures=not arguments.no_structures,
        )
    except ValidationError as e:
        problem = str(e.errors()[0]["msg"]).removeprefix("Value error, ")
        raise SimCroPError(
            f"These sizes do not go together: {problem}",
            code="bad-config",
            remedy="See simcrop-train prepare --help.",
        ) from e


def _store_folder(arguments: argparse.Namespace) -> Path:
    if arguments.store is None:
        raise SimCroPError(
            "It is not said where the store is to be written",
            code="option",
            remedy="Name a folder with --store, or only look the data over with --preflight.",
        )
    return Path(arguments.store)


def _three(kind: Callable[[str], Any]) -> Callable[[str], tuple[Any, Any, Any]]:
    def read(text: str) -> tuple[Any, Any, Any]:
        try:
            a, b, c = (kind(part) for part in text.split(","))
        except ValueError as e:
            raise argparse.ArgumentTypeError(f"{text!r} is not three numbers such as 1,2,3") from e
        return a, b, c

    return read


def _text(values: Sequence[Any]) -> str:
    return ",".join(f"{v:g}" for v in values)


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value
