"""A study -> what the store keeps of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcrop_core.errors import SimCroPError
from simcrop_core.geometry import Grid
from simcrop_core.io.labels import labels_on
from simcrop_core.prepare import input_grid
from simcrop_core.resample import resample_linear
from simcrop_core.store.cells import count_dtype, occupancy
from simcrop_core.store.codec import checksum, pack
from simcrop_core.store.record import Record, Stored
from simcrop_core.store.settings import StoreSettings
from simcrop_core.study import KINDS, SentenceFacts, Study
from simcrop_core.volume import CTVolume, Note

_MASKS_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Packed:
    """A study's three files."""

    record: Record
    volume: bytes
    structures: bytes | None


def pack_study(study: Study, settings: StoreSettings, key: str = "") -> Packed:
    """Prepare a study's volume, regions and texts.

    A volume that lies on a grid of the stored shape, spacing and orientation already is taken as
    it is; any other is resampled as :func:`simcrop_core.prepare.prepare` does, with the margin.

    Raises
    ------
    SimCroPError
        Its masks do not fit its volume.
    """
    grid, notes = _grid(study.volume, settings)
    volume = pack(prepared_hu(study.volume, grid, settings))
    structures = None
    if settings.structures and study.structures_XYZ is not None:
        structures = pack(_on(grid, study.structures_XYZ, study.volume.grid).astype(np.uint8))
    names = tuple(study.regions)
    number = {name: row for row, name in enumerate(names)}
    statements, report = _statements(study)
    kept = [(s, text) for s, text in zip(study.sentences, statements, strict=True) if text]
    alternates = [(row, a) for row, (s, _) in enumerate(kept) for a in s.alternates]
    record = Record(
        id=study.id,
        key=key,
        sentences=tuple(text for _, text in kept),
        wordings=tuple(s.wording for s, _ in kept),
        kinds_S=np.array([KINDS.index(s.kind) for s, _ in kept], np.int8),
        meanings_S4=_meanings([s.meaning for s, _ in kept]),
        region_S=np.array([_region(s, number, study.id) for s, _ in kept], np.int32),
        alternates=tuple(a.text for _, a in alternates),
        alternate_of_C=np.array([row for row, _ in alternates], np.int32),
        alternate_meanings_C4=_meanings([a.meaning for _, a in alternates]),
        report=report,
        regions=names,
        regions_RXYZ=_occupancies(study.regions, study.volume.grid, grid, settings),
        facts_FSL=np.asarray(study.facts.table_FSL),
        affine=np.asarray(grid.affine, np.float64),
        notes=tuple((n.code, n.text) for n in (*study.volume.notes, *notes)),
        structure_names=study.structure_names if structures is not None else (),
        volume=Stored(len(volume), checksum(volume)),
        structures=None if structures is None else Stored(len(structures), checksum(structures)),
    )
    return Packed(record, volume, structures)


def prepared_hu(volume: CTVolume, grid: Grid, settings: StoreSettings) -> NDArray[np.int16]:
    """The scan on ``grid`` in whole Hounsfield units, clipped to the window."""
    low, high = settings.spec.hu_window
    if volume.grid.matches(grid):
        values = volume.hu_XYZ.astype(np.float32)
    else:
        fill = low if settings.spec.padding == "air" else None
        values, _ = resample_linear(volume.hu_XYZ, volume.grid, grid, fill=fill)
    return np.rint(np.clip(values, low, high)).astype(np.int16)


def _grid(volume: CTVolume, settings: StoreSettings) -> tuple[Grid, tuple[Note, ...]]:
    spec, scan = settings.spec, volume.grid
    ready = (
        scan.shape == settings.shape
        and scan.axcodes == spec.orientation
        and scan.is_axis_aligned
        and np.allclose(scan.spacing_mm, spec.spacing_mm, atol=1e-6)
    )
    if ready:
        return scan, ()
    return input_grid(volume, spec, settings.placement, settings.margin_voxels)


def _on(grid: Grid, labels_XYZ: NDArray[Any], labels_grid: Grid) -> NDArray[Any]:
    """Labels on another grid by their nearest neighbours; 0 where there is none."""
    try:
        return labels_on(grid, labels_XYZ, labels_grid, resample=True)
    except SimCroPError as e:
        if e.code != "mask-elsewhere":
            raise
        return np.zeros(grid.shape, labels_XYZ.dtype)


def _occupancies(
    regions: Mapping[str, NDArray[np.bool_]], scan: Grid, grid: Grid, settings: StoreSettings
) -> NDArray[Any]:
    # One mask at a time: the mapping may unfold each when it is asked for.
    cell, names = settings.cell_shape, tuple(regions)
    counts = np.zeros((len(names), *settings.cells), count_dtype(cell))
    if scan.matches(grid):
        for row, name in enumerate(names):
            counts[row] = occupancy(regions[name], cell)
        return counts
    for start in range(0, len(names), _MASKS_AT_ONCE):
        # One pass of resampling carries eight masks as bits.
        some = names[start : start + _MASKS_AT_ONCE]
        bits = np.zeros(scan.shape, np.uint8)
        for bit, name in enumerate(some):
            bits |= regions[name].view(np.uint8) << bit
        bits = _on(grid, bits, scan)
        for bit in range(len(some)):
            counts[start + bit] = occupancy((bits & (1 << bit)) != 0, cell)
    return counts


def _statements(study: Study) -> tuple[list[str], tuple[str, ...]]:
    """What is read of each sentence of the Findings, and of Findings and Impression."""
    if study.report is None:
        own = [" ".join(s.text.split()) for s in study.sentences]
        return own, tuple(text for text in own if text)
    findings = [s.statement for s in study.report.in_section("findings")]
    if len(findings) != len(study.sentences):
        raise ValueError(
            f"The study has {len(study.sentences)} sentences and its Findings {len(findings)}."
        )
    impression = [s.statement for s in study.report.in_section("impression")]
    return findings, tuple(text for text in (*findings, *impression) if text.strip())


def _meanings(meanings: list[Any]) -> NDArray[np.int16]:
    return np.array(meanings, np.int16).reshape(len(meanings), 4)


def _region(sentence: SentenceFacts, number: Mapping[str, int], study: str) -> int:
    if sentence.region is None:
        return -1
    if sentence.region not in number:
        raise ValueError(f"Study {study} has no region {sentence.region!r}.")
    return number[sentence.region]
