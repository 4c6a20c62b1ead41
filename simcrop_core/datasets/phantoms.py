"""Phantoms as a data set: each seed a study, made where the model's input lies."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from simcrop_core.datasets.dataset import Dataset, Fault
from simcrop_core.errors import SimCroPError
from simcrop_core.input_spec import InputSpec
from simcrop_core.phantoms import VALIDATION_SEED, refuse_straddling
from simcrop_core.report import Report
from simcrop_core.study import Study
from simcrop_core.volume import CTVolume

if TYPE_CHECKING:
    from simcrop_core.phantoms.study import Labels

_ID = re.compile(r"phantom-(\d{6,})")


@dataclass(frozen=True, slots=True)
class PhantomSource:
    """A phantom by its seed; ``labels`` as :func:`~simcrop_core.phantoms.study.make_phantom`."""

    seed: int
    labels: Labels = "structures"

    @property
    def id(self) -> str:
        return f"phantom-{self.seed:06d}"

    @property
    def patient(self) -> str:
        """None: no two phantoms are of one person."""
        return ""

    def stamp(self) -> str:
        """The seed, the kind of labels, and what makes phantoms of seeds."""
        labels = "" if self.labels == "structures" else f" {self.labels}"
        return f"{self.seed}{labels} {_generator()}"

    def load(
        self, spec: InputSpec | None = None, margin_voxels: tuple[int, int, int] = (0, 0, 0)
    ) -> Study:
        """The phantom on its scanner's grid, or straight on the model's input with its margin."""
        from simcrop_core.phantoms.study import make_phantom, prepared_grid

        grid = None if spec is None else prepared_grid(self.seed, spec, margin_voxels)
        return make_phantom(self.seed, grid, labels=self.labels)

    def read(self) -> CTVolume:
        """The scan on its scanner's grid."""
        return self.load().volume

    def read_report(self) -> Report:
        """The report alone, which needs no scan."""
        from simcrop_core.phantoms.language import write_report
        from simcrop_core.phantoms.study import survey

        return Report.from_text(write_report(survey(self.seed)).text)

    def faults(self) -> Iterator[Fault]:
        """None: there is no file."""
        return iter(())


#: A store holds label maps of one kind, and is called by it.
STORE_NAMES: dict[Labels, str] = {"structures": "phantoms", "classes": "phantoms with classes"}


def phantom_dataset(first: int, stop: int, labels: Labels = "structures") -> Dataset:
    """The phantoms of seeds ``first`` to ``stop - 1``.

    Raises
    ------
    SimCroPError
        ``no-studies``, or ``evaluation-phantoms``: some are for training and some are not.
    """
    if not 0 <= first < stop:
        raise SimCroPError(
            f"There are no phantoms from {first} to {stop}",
            code="no-studies",
            remedy="Give a range such as phantoms:0-2400, whose end is not included.",
        )
    refuse_straddling(first, stop)
    return Dataset(STORE_NAMES[labels], phantom_sources(range(first, stop), labels))


def phantom_sources(
    seeds: Iterable[int], labels: Labels = "structures"
) -> tuple[PhantomSource, ...]:
    """The phantoms of these seeds."""
    return tuple(PhantomSource(seed, labels) for seed in seeds)


def is_for_evaluation(study: str) -> bool:
    """Whether a study is a phantom that is never trained on, by its id."""
    match = _ID.fullmatch(study)
    return match is not None and int(match[1]) >= VALIDATION_SEED


@cache
def _generator() -> str:
    """Digest of the code that makes phantoms: other code makes others."""
    digest = hashlib.sha256()
    folder = files("simcrop_core.phantoms")
    for file in sorted(folder.iterdir(), key=lambda f: f.name):
        if file.name.endswith(".py"):
            digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:16]
