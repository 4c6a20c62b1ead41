"""Data sets: where studies come from, with what is known of them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path

from simcrop_core.datasets.btcv import btcv_dataset
from simcrop_core.datasets.cc_ccii import cc_ccii_dataset
from simcrop_core.datasets.ct_rate import ct_rate_dataset
from simcrop_core.datasets.dataset import Dataset, DatasetSource, Fault
from simcrop_core.datasets.lists import CaseList, MaskList, is_json, read_case_list, read_mask_list
from simcrop_core.datasets.luna16 import luna16_dataset
from simcrop_core.datasets.manifest import read_manifest_dataset
from simcrop_core.datasets.phantoms import STORE_NAMES, phantom_dataset, phantom_sources
from simcrop_core.datasets.preflight import Preflight, preflight
from simcrop_core.datasets.radchestct import radchestct_dataset
from simcrop_core.errors import SimCroPError

__all__ = [
    "STORE_NAMES",
    "CaseList",
    "Dataset",
    "DatasetSource",
    "Fault",
    "MaskList",
    "Preflight",
    "btcv_dataset",
    "cc_ccii_dataset",
    "ct_rate_dataset",
    "is_json",
    "luna16_dataset",
    "open_dataset",
    "phantom_dataset",
    "phantom_sources",
    "preflight",
    "public_name",
    "radchestct_dataset",
    "read_case_list",
    "read_manifest_dataset",
    "read_mask_list",
]


#: Kind on the command line -> its name for people, and what opens it.
_PUBLIC: dict[str, tuple[str, Callable[[Path, Path | None, str | None], Dataset]]] = {
    "ct-rate": ("CT-RATE", ct_rate_dataset),
    "radchestct": ("RadChestCT", radchestct_dataset),
    "cc-ccii": ("CC-CCII", cc_ccii_dataset),
    "luna16": ("LUNA16", luna16_dataset),
    "btcv": ("BTCV", btcv_dataset),
}
_KINDS = (*_PUBLIC, "phantoms")


def public_name(source: str) -> str | None:
    """The name of the public data set that a word on the command line is of; None for others."""
    kind, colon, _ = source.partition(":")
    return _PUBLIC[kind][0] if colon and kind in _PUBLIC else None


def open_dataset(
    source: str,
    *,
    cases: Path | None = None,
    split: str | None = None,
    classes: bool = False,
) -> Dataset:
    """The data set that a word on the command line names.

    Parameters
    ----------
    source
        A manifest's path, ``phantoms:FIRST-STOP`` (the last not included), or a public data set
        by its kind and folder: ``ct-rate:ROOT``, ``radchestct:ROOT``, ``cc-ccii:ROOT``,
        ``luna16:ROOT``, ``btcv:ROOT``.
    cases, split
        Of public data sets: a list of scans; ``"train"``, ``"valid"`` or ``"test"``.
    classes
        Of phantoms: label maps of the classes that a segmentation head learns, in place of those
        of all structures.

    Raises
    ------
    SimCroPError
        It names nothing, or what it names cannot be read.
    """
    kind, colon, rest = source.partition(":")
    if classes and kind != "phantoms":
        raise SimCroPError(
            "Only phantoms have label maps of classes",
            code="option",
            remedy="Leave --classes out, or name phantoms:FIRST-STOP.",
        )
    if colon and kind in _PUBLIC:
        return _PUBLIC[kind][1](Path(os.path.expanduser(rest)), cases, split)
    if cases is not None or split is not None:
        raise SimCroPError(
            "Only public data sets have lists of cases and splits",
            code="option",
            remedy="Leave --list and --split out, or name a public one, such as ct-rate:ROOT.",
        )
    if colon and kind == "phantoms":
        match = re.fullmatch(r"([0-9]{1,9})-([0-9]{1,9})", rest)
        if match is None:
            raise SimCroPError(
                f"{source!r} does not name phantoms",
                code="option",
                remedy="Give a range of seeds such as phantoms:0-2400, whose end is not included.",
            )
        return phantom_dataset(int(match[1]), int(match[2]), "classes" if classes else "structures")
    path = Path(os.path.expanduser(source))  # Path's own fails for unknown people
    if colon and not path.exists():
        meant = get_close_matches(kind.lower(), _KINDS, 1, 0.7)
        if meant:
            raise SimCroPError(
                f"{source!r} names no data set",
                code="option",
                remedy=f"Did you mean {meant[0]}:{rest}?",
            )
    return read_manifest_dataset(path)
