"""``simcrop align``, ``simcrop segment`` and ``simcrop batch align``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from simcrop_core.cli.terminal import (
    answer,
    in_command_words,
    load,
    note_lines,
    progress_bar,
    read_scan,
    read_words,
    reading_options,
)
from simcrop_core.errors import SimCroPError

if TYPE_CHECKING:
    from simcrop_core.device import Progress
    from simcrop_core.encoded import Encoded
    from simcrop_core.model import SimCroP
    from simcrop_core.volume import CTVolume

_TEXT_WIDTH = 60


def run_align(arguments: argparse.Namespace) -> int:
    from simcrop_core.align import align, check_request
    from simcrop_core.outputs import refuse_unwritable
    from simcrop_core.result_folder import write_result

    out = Path(arguments.out)
    refuse_unwritable(out)
    report = read_words(arguments)
    if report is None and not arguments.query:
        raise SimCroPError(
            "There is nothing to look for in the scan.",
            code="no-sentences",
            remedy="Give a report with --report, or a sentence with --query.",
        )
    with progress_bar(arguments) as progress:
        progress("loading the model", 0, 1)
        model = load(arguments)
        check_request(model, report, arguments.query, arguments.top_k)
        progress("reading the scan", 0, 1)
        volume, encoded = _encoded(arguments, model, progress)
        result = align(
            model,
            encoded,
            report,
            queries=arguments.query,
            top_k=arguments.top_k,
            device=arguments.device,
            progress=progress,
        )
        progress("drawing and writing", 0, 1)
        write_result(out, volume, result)
    lines = [f"{volume!r}", *note_lines(result.volume.notes), "", _HEADER]
    for index, sentence in enumerate(result.sentences):
        text = " ".join(sentence.text.split())
        short = text if len(text) <= _TEXT_WIDTH else text[: _TEXT_WIDTH - 3] + "..."
        best = result.top(index, 1)
        where = (
            "{:7.1f} {:7.1f} {:7.1f}".format(*result.patches.center(int(best[0])))
            if len(best)
            else "none in scan"
        )
        score, percentile = round(sentence.score, 2) + 0.0, sentence.null_percentile
        lines.append(f"{index:3d}  {score:6.2f}  {percentile:5.1f}  {where}  {short}")
    if not model.config.is_trained:
        lines.append(_UNTRAINED)
    lines.append(f"Written to {out}: alignment.json, alignment.npz, heatmaps/, figure.png")
    answer(arguments, result.to_dict(), lines)
    return 0


_HEADER = "  #   score  null%  best patch, RAS mm       sentence"
_UNTRAINED = (
    "The model's weights are untrained: its patches mean nothing yet, they only show the path."
)


def _encoded(
    arguments: argparse.Namespace, model: SimCroP, progress: Progress
) -> tuple[CTVolume, Encoded]:
    """The scan, read and encoded: from ``--encoded`` if that is of this scan and model."""
    from simcrop_core.align import Encoded, encode
    from simcrop_core.device import resolve_precision, select_device
    from simcrop_core.ingest import read_and_prepare

    kept = None if arguments.encoded is None else Path(arguments.encoded)
    prepared = None
    if kept is not None and kept.exists():
        volume = read_scan(arguments)
        encoded = Encoded.load(kept)
        same = (
            encoded.model_id == model.model_id
            and encoded.volume.sha256 == volume.sha256
            and encoded.placement == arguments.placement
            and encoded.precision
            == resolve_precision(select_device(arguments.device), arguments.precision)
        )
        if same:
            return volume, encoded
    else:
        volume, prepared = read_and_prepare(
            Path(arguments.ct),
            model.input_spec,
            placement=arguments.placement,
            **reading_options(arguments),
        )
    encoded = encode(
        model,
        volume,
        placement=arguments.placement,
        prepared=prepared,
        device=arguments.device,
        precision=arguments.precision,
        progress=progress,
    )
    if kept is not None:
        encoded.save(kept)
    return volume, encoded


def run_segment(arguments: argparse.Namespace) -> int:
    from simcrop_core.outputs import refuse_existing
    from simcrop_core.segment import card_path, segment, write_segmentation

    out = Path(arguments.out)
    card = card_path(out)
    if out.exists() and os.path.samefile(out, arguments.ct):
        raise SimCroPError(
            "The labels would take the place of the scan.",
            path=out,
            code="same-file",
            remedy="Name another file with --out.",
        )
    refuse_existing((out, card), overwrite=arguments.overwrite)
    if out.suffix == ".dcm":
        from simcrop_core.io.dicom_seg import seg_slices

        seg_slices(arguments.ct, series=arguments.series)
    with progress_bar(arguments) as progress:
        progress("loading the model", 0, 1)
        model = load(arguments)
        progress("reading the scan", 0, 1)
        volume = read_scan(arguments)
        result = segment(
            model,
            volume,
            overlap=arguments.overlap,
            device=arguments.device,
            precision=arguments.precision,
            progress=progress,
        )
        progress("writing", 0, 1)
        write_segmentation(out, result, arguments.ct, arguments.series)
    lines = [f"{volume!r}", *note_lines(result.notes)]
    lines += [f"{ml:10.1f} ml  {name}" for name, ml in result.volume_ml.items()]
    if result.model["segmentation_trained"] == "untrained":
        lines.append("The segmentation head is untrained: these labels mean nothing yet.")
    lines.append(f"Written to {out} and {card}")
    answer(arguments, result.to_dict(), lines)
    return 0


def run_batch(arguments: argparse.Namespace) -> int:
    from simcrop_core.batch import BatchRequest, align_manifest

    request = BatchRequest(
        model=arguments.model,
        text_encoder=arguments.text_encoder,
        top_k=arguments.top_k,
        placement=arguments.placement,
        device=arguments.device,
        precision=arguments.precision,
        figures=not arguments.no_figures,
        reading=tuple(sorted(reading_options(arguments).items())),
        encoding=arguments.encoding,
    )
    with progress_bar(arguments) as progress:
        tally = align_manifest(
            Path(arguments.manifest),
            Path(arguments.out),
            request,
            workers=arguments.workers,
            scheduler=arguments.scheduler,
            progress=progress,
        )
    lines = [
        f"{tally.aligned} aligned, {tally.skipped} done before, {tally.failed} failed; "
        f"see {Path(arguments.out) / 'status.csv'}"
    ]
    lines += [f"  {study}: {in_command_words(message)}" for study, message in tally.failures]
    answer(arguments, tally.to_dict(), lines)
    if tally.aligned + tally.skipped == 0:
        raise SimCroPError(
            f"None of the {tally.failed} studies could be aligned.",
            path=arguments.manifest,
            code="all-failed",
            remedy=f"{Path(arguments.out) / 'status.csv'} says why.",
        )
    return 0
