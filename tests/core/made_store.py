"""Small studies and a small store for the tests of store, loader and preparation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from made_ct import AFFINE, SHAPE, chest

from simcrop_core.geometry import Grid
from simcrop_core.input_spec import InputSpec
from simcrop_core.report import Report
from simcrop_core.statements import Facts, Meaning
from simcrop_core.store import Store, StoreSettings, build_store, open_store
from simcrop_core.store.encode import TextSettings
from simcrop_core.study import Alternate, SentenceFacts, Study
from simcrop_core.volume import CTVolume

SPEC = InputSpec(shape=(32, 24, 16), spacing_mm=(6.0, 6.0, 12.0), patch_shape=(8, 8, 4))
SETTINGS = StoreSettings(spec=SPEC, margin_voxels=(4, 6, 2))
MINILM = TextSettings(source="minilm")
REPORT = (
    "Findings: Heart size is normal. There is a nodule {n} mm in size in the right lung. No "
    "pleural effusion on the left. The trachea is open.\nImpression: Nodule of {n} mm."
)


def region(seed: int, number: int) -> np.ndarray:
    """A random blob on the scan's own grid."""
    rng = np.random.default_rng([seed, number])
    center = rng.uniform(10, 34, 3)
    x, y, z = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    mask = (x - center[0]) ** 2 + (y - center[1]) ** 2 + 0.5 * (z - center[2]) ** 2
    return np.asarray(mask < rng.uniform(30, 150))


@dataclass(frozen=True)
class MadeSource:
    """A study made of nothing but a seed; ``fault`` makes it refuse to load."""

    seed: int
    fault: str = ""
    version: str = "1"
    patient: str = ""

    @property
    def id(self) -> str:
        return f"made-{self.seed:03d}"

    def stamp(self) -> str:
        return f"{self.seed} {self.fault} {self.version}"

    def faults(self) -> Iterator[object]:
        return iter(())

    def load(self, spec: object = None, margin_voxels: object = None) -> Study:
        from simcrop_core.errors import SimCroPError

        if self.fault:
            raise SimCroPError(self.fault, code="made-up", remedy="Nothing.")
        volume = CTVolume(chest(seed=self.seed), Grid(SHAPE, AFFINE))
        report = Report.from_text(REPORT.format(n=self.seed + 5))
        nodule = Meaning.of("Lung nodule", "right")
        other = Alternate("There is a nodule in the left lung.", Meaning.of("Lung nodule", "left"))
        facts = (
            ("organ", Meaning(), "heart", ()),
            ("finding", nodule, "nodule", (other,)),
            ("negative", Meaning.of("Pleural effusion", "left", present=False), "nodule", ()),
            ("unknown", Meaning(), None, ()),
        )
        sentences = tuple(
            SentenceFacts(s.text, kind, meaning, name, alternates, f"wording-{n}")
            for n, (s, (kind, meaning, name, alternates)) in enumerate(
                zip(report.in_section("findings"), facts, strict=True)
            )
        )
        regions = {"heart": region(self.seed, 0), "nodule": region(self.seed, 1)}
        structures = regions["heart"].astype(np.uint8) + 2 * (regions["nodule"].astype(np.uint8))
        return Study(
            self.id,
            volume,
            report,
            sentences,
            regions,
            Facts.from_occurrences([("Lung nodule", "right", "any")]),
            structures,
            ("heart", "nodule", "both"),
        )


def made_store(folder: Path, count: int = 12) -> Store:
    """A store of so many made studies."""
    build_store("made", [MadeSource(n) for n in range(count)], folder, SETTINGS, MINILM)
    return open_store(folder)
