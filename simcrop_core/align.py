"""Which patches of a scan look most like each sentence of its report (paper, section 2.2).

The scan goes through the encoder once with all patches visible, every sentence through the text
encoder once. The similarity of sentence and patch is that of Eq. 2; the top K patches by it are
the sentence's evidence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from simcrop_core.alignment_result import QUERY, AlignedSentence, AlignmentResult
from simcrop_core.device import (
    Precision,
    Progress,
    autocast,
    evaluating,
    resolve_precision,
    select_device,
    silent,
)
from simcrop_core.encoded import Encoded, VolumeCard
from simcrop_core.errors import SimCroPError
from simcrop_core.prepare import Placement, Prepared, prepare
from simcrop_core.report import Report
from simcrop_core.volume import CTVolume, Note

if TYPE_CHECKING:
    from simcrop_core.model import SimCroP

__all__ = ["AlignmentResult", "Encoded", "align", "encode", "null_sentences"]

MAX_QUERY_CHARACTERS = 2000


def encode(
    model: SimCroP,
    volume: CTVolume,
    *,
    placement: Placement = "center",
    prepared: Prepared | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    progress: Progress | None = None,
) -> Encoded:
    """Run the vision encoder over a scan, all patches visible.

    Parameters
    ----------
    model, volume
        The model and the scan.
    placement
        Where the model's input lies in the scan, see `simcrop_core.prepare.prepare`. Tiled
        windows overlap; each patch keeps the features of the window in which it lies furthest
        from the border.
    prepared
        What was made of this scan, for this model and placement, on reading it
        (`simcrop_core.ingest.read_and_prepare`); made here if None.
    device, precision
        Where and how to compute; ``"auto"`` takes a GPU if there is one, bf16 on a GPU that has
        it, and fp32 on a CPU.
    progress
        Called with what is done, steps done and steps in all.

    The model is moved to the device and stays there; its training mode is left as it was.

    Raises
    ------
    SimCroPError
        An unknown placement, device or precision; a model whose features are not finite.
    TypeError
        ``volume`` is no `CTVolume`; a path is read by `simcrop_core.io.read_volume`.
    ValueError
        ``prepared`` was made for another model or placement.
    """
    if not isinstance(volume, CTVolume):
        raise TypeError(f"encode takes a CTVolume (see read_volume), not {_kind(volume)}.")
    if prepared is not None and (prepared.spec, prepared.placement) != (
        model.input_spec,
        placement,
    ):
        raise ValueError("The scan was prepared for another model's input or placement.")
    say = progress or silent
    say("preparing", 0, 1)
    if prepared is None:
        prepared = prepare(volume, model.input_spec, placement=placement)
    where = select_device(device)
    with evaluating(model.to(where)), torch.inference_mode(), autocast(where, precision):
        features_ND = _encode_windows(model.vision, prepared, where, say)
    if not np.isfinite(features_ND).all():
        raise SimCroPError(
            f"The model {model.config.name!r} gives features that are not numbers.",
            code="not-finite",
            remedy="Its weights are broken; get or train the model again.",
        )
    return Encoded(
        patches_ND=features_ND,
        patches=prepared.patches,
        inside_N=prepared.inside_N,
        volume=VolumeCard.of(volume, prepared.notes),
        model_id=model.model_id,
        placement=placement,
        precision=resolve_precision(where, precision),
    )


def align(
    model: SimCroP,
    scan: CTVolume | Encoded,
    report: Report | None = None,
    *,
    queries: Sequence[str] = (),
    top_k: int = 64,
    placement: Placement = "center",
    device: str = "auto",
    precision: Precision = "auto",
    progress: Progress | None = None,
) -> AlignmentResult:
    """Find each sentence's evidence in a scan.

    Parameters
    ----------
    model
        The model.
    scan
        A scan, or one that `encode` has been through, which spares the encoder's run.
    report
        Its sentences are aligned in order, all sections.
    queries
        Further sentences in a person's own words.
    top_k
        Patches per sentence (the paper's K = 64). Patches wholly outside the scan never count.
    placement, device, precision, progress
        See `encode`; ``placement`` does not apply to a scan that is encoded already.

    Raises
    ------
    SimCroPError
        No sentence at all; ``top_k`` below 1; a scan encoded by another model; no text encoder.
    TypeError
        ``scan`` or ``report`` is something else, such as a path: `read_volume` and `read_report`
        read those.
    """
    if not isinstance(scan, CTVolume | Encoded):
        raise TypeError(f"align takes a CTVolume (see read_volume) or Encoded, not {_kind(scan)}.")
    if not isinstance(report, Report | None):
        raise TypeError(f"align takes a Report (see read_report), not {_kind(report)}.")
    asked = check_request(model, report, queries, top_k)
    texts = [] if report is None else [sentence.statement for sentence in report.sentences]
    texts += [" ".join(s.text.split()) for s in asked if s.section == QUERY]
    say = progress or silent
    say("reading the sentences", 0, 1)
    vectors = model.to(select_device(device)).encode_text(texts)
    sentences_AD = torch.cat([vectors.sentences_SD, _null_vectors(model).to(vectors.sentences_SD)])
    if isinstance(scan, CTVolume):
        encoded = encode(
            model,
            scan,
            placement=placement,
            device=device,
            precision=precision,
            progress=progress,
        )
    else:
        encoded = scan
    if encoded.model_id != model.model_id:
        raise SimCroPError(
            "The scan was encoded by another model.",
            code="another-model",
            remedy="Encode it again with this model.",
        )
    with torch.inference_mode():
        similarity = model.similarity(
            torch.from_numpy(encoded.patches_ND).to(sentences_AD), sentences_AD
        )
    similarity_AN = similarity.float().cpu().numpy()
    inside = np.flatnonzero(encoded.inside_N)
    k = min(top_k, len(inside))
    notes = [
        *(() if report is None else report.notes),
        *model.text.notes,
        *vectors.notes(),
    ]
    if k < top_k:
        notes.append(
            Note(
                "fewer-patches",
                f"Only {k} patches touch the scan, fewer than the {top_k} asked for.",
            )
        )
    if k == len(inside):
        notes.append(
            Note(
                "all-patches-at-the-top",
                f"All {k} patches in the scan are among the top, so the scores say nothing; ask "
                "for fewer patches per sentence.",
            )
        )
    count = len(asked)
    contrast = _contrast(similarity_AN, inside, k)
    scores, percentiles = against_null(contrast[:count], contrast[count:])
    return AlignmentResult(
        sentences=tuple(
            AlignedSentence(
                s.text, s.section, s.span, round(float(score), 6), round(float(percentile), 4)
            )
            for s, score, percentile in zip(asked, scores, percentiles, strict=True)
        ),
        similarity_SN=np.ascontiguousarray(similarity_AN[:count], dtype=np.float32),
        top_SK=_top(similarity_AN[:count], inside, k),
        inside_N=encoded.inside_N,
        patches=encoded.patches,
        model={**model.card(), "precision": encoded.precision},
        volume=replace(encoded.volume, notes=(*encoded.volume.notes, *notes)),
    )


def _kind(value: object) -> str:
    return type(value).__name__


def check_request(
    model: SimCroP, report: Report | None, queries: Sequence[str], top_k: int
) -> list[AlignedSentence]:
    """What will be aligned, without scores; refuses in a moment what `align` would refuse later.

    Raises
    ------
    SimCroPError
        As `align`.
    """
    if top_k < 1:
        raise SimCroPError(
            f"{top_k} patches per sentence were asked for.",
            code="bad-top-k",
            remedy="Ask for at least 1; the paper takes 64.",
        )
    asked = _sentences(report, queries)
    _ = model.text  # found and loaded, or refused, before the scan is encoded
    return asked


@cache
def null_sentences() -> tuple[str, ...]:
    """The fixed set of sentences that no chest CT supports."""
    text = files("simcrop_core").joinpath("data/null_sentences.txt").read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if line)


# A text encoder is frozen: its vectors of the null sentences are computed once.
_NULL_VECTORS: WeakKeyDictionary[Any, torch.Tensor] = WeakKeyDictionary()


def _null_vectors(model: SimCroP) -> torch.Tensor:
    """Vectors of the null sentences, ``(M, D)``."""
    if model.text not in _NULL_VECTORS:
        _NULL_VECTORS[model.text] = model.encode_text(null_sentences()).sentences_SD
    return _NULL_VECTORS[model.text]


def against_null(
    contrast_S: NDArray[Any], null_M: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores (standard deviations above the null's mean) and percentiles (0 to 100)."""
    spread = float(null_M.std())
    centered = contrast_S - null_M.mean()
    score = centered / spread if spread > 0 else np.zeros_like(centered)
    below = (null_M[None, :] < contrast_S[:, None]).mean(axis=1)
    equal = (null_M[None, :] == contrast_S[:, None]).mean(axis=1)
    return score, 100 * (below + equal / 2)


def _sentences(report: Report | None, queries: Sequence[str]) -> list[AlignedSentence]:
    found = [] if report is None else list(report.sentences)
    asked = [AlignedSentence(s.text, s.section, s.span, 0.0, 0.0) for s in found]
    if isinstance(queries, str):
        raise TypeError("queries is a sequence of sentences, not one string.")
    for given in queries:
        try:
            given.encode()
        except UnicodeEncodeError as e:
            raise SimCroPError(
                "A free-text query holds bytes that are no text.",
                code="bad-query",
                remedy="Write it in the terminal's own encoding, best UTF-8.",
            ) from e
        query = "".join(c if c.isprintable() else " " for c in given).strip()
        if not query:
            raise SimCroPError(
                "A free-text query is empty.",
                code="empty-query",
                remedy="Write a sentence between quotation marks.",
            )
        if len(query) > MAX_QUERY_CHARACTERS:
            raise SimCroPError(
                f"A free-text query has {len(query)} characters.",
                code="long-query",
                remedy=f"Use one sentence of at most {MAX_QUERY_CHARACTERS} characters.",
            )
        asked.append(AlignedSentence(query, QUERY, None, 0.0, 0.0))
    if not asked:
        raise SimCroPError(
            "There is no sentence to align.",
            path=None if report is None else report.source,
            code="no-sentences",
            remedy="Give a report with text, or a free-text query.",
        )
    return asked


def _encode_windows(
    vision: nn.Module, prepared: Prepared, device: torch.device, say: Progress
) -> NDArray[np.float32]:
    """Features of all patches, ``(N, D)`` float32, stitched from the windows."""
    patch, window_shape = prepared.spec.patch_shape, prepared.spec.grid_shape
    features: NDArray[np.float32] | None = None
    depth_best = np.full(prepared.patches.shape, -1)
    # How far each patch of a window lies from the window's border.
    from_border = np.indices(window_shape)
    limits = np.array(window_shape).reshape(3, 1, 1, 1)
    depth = np.minimum(from_border, limits - 1 - from_border).min(axis=0)
    inside = prepared.inside_N.reshape(prepared.patches.shape)
    total = len(prepared.window_starts)
    for number, start in enumerate(prepared.window_starts):
        block = tuple(
            slice(s // p, s // p + n) for s, p, n in zip(start, patch, window_shape, strict=True)
        )
        # A window that holds padding only need not be looked at, unless there is no other.
        if not inside[block].any() and (features is not None or number < total - 1):
            continue
        with _telling(vision, say, number, total):
            tokens = vision(prepared.window(number)[None].to(device)).evidence_BNE[0]
        values = tokens.float().cpu().numpy().reshape(*window_shape, -1)
        if features is None:
            features = np.zeros((*prepared.patches.shape, values.shape[-1]), dtype=np.float32)
        better = depth > depth_best[block]
        features[block][better] = values[better]
        depth_best[block] = np.maximum(depth, depth_best[block])
    say("encoding", 100 * total, 100 * total)
    assert features is not None
    return features.reshape(len(prepared.patches), -1)


@contextmanager
def _telling(vision: nn.Module, say: Progress, number: int, total: int) -> Iterator[None]:
    """Tell of each block of the encoder in one of the windows, in per cent of a window."""
    blocks = list(getattr(vision, "blocks", ()))
    say("encoding", 100 * number, 100 * total)

    def done(block: int) -> None:
        say("encoding", round(100 * (number + (block + 1) / len(blocks))), 100 * total)

    hooks = [
        block.register_forward_hook(lambda *_, index=index: done(index))
        for index, block in enumerate(blocks)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _contrast(
    similarity_AN: NDArray[np.float32], inside: NDArray[np.intp], k: int
) -> NDArray[np.float64]:
    """Mean of the top ``k`` similarities less the mean of all, over the patches in the scan."""
    values = similarity_AN[:, inside].astype(np.float64)
    top = np.partition(values, values.shape[1] - k, axis=1)[:, values.shape[1] - k :]
    return np.asarray(top.mean(axis=1) - values.mean(axis=1))


def _top(similarity_SN: NDArray[np.float32], inside: NDArray[np.intp], k: int) -> NDArray[np.int64]:
    """Flat indices by falling similarity; equal ones in flat order."""
    order = np.argsort(-similarity_SN[:, inside], axis=1, kind="stable")[:, :k]
    return inside[order].astype(np.int64)
