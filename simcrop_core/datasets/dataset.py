"""What every data set is: a name and the sources of its studies, in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from simcrop_core.input_spec import InputSpec
from simcrop_core.report import Report
from simcrop_core.study import SentenceFacts, Study, StudySource
from simcrop_core.volume import CTVolume


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is missing or damaged.

    Attributes
    ----------
    study
        Id of the study, or "" for the data set as a whole.
    part
        ``"volume"``, ``"report"``, ``"metadata"``, ``"labels"``, ``"mask"`` or ``"truth"``.
    code
        A short stable name: ``"missing"``, ``"empty"``, ``"damaged"`` and those of the readers.
    problem
        One sentence.
    file
        The file it is about, or "".
    blocks
        Whether the study cannot be prepared for it.
    """

    study: str
    part: str
    code: str
    problem: str
    file: str = ""
    blocks: bool = False


class DatasetSource(StudySource, Protocol):
    """A source that can also be looked over quickly."""

    def faults(self) -> Iterator[Fault]:
        """What is missing or damaged, as far as can be told without reading all voxels."""
        ...


class ReadableScan(Protocol):
    """A source whose scan can be read without all else that is known of it."""

    @property
    def id(self) -> str:
        """As in :class:`~simcrop_core.study.StudySource`."""
        ...

    def stamp(self) -> str:
        """As in :class:`~simcrop_core.study.StudySource`."""
        ...

    def read(self) -> CTVolume:
        """The scan.

        Raises
        ------
        SimCroPError
            It cannot be read.
        """
        ...


class ScanFile(ReadableScan, Protocol):
    """Such a source whose scan lies in one file."""

    @property
    def path(self) -> Path:
        """Where the scan lies."""
        ...


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set.

    Attributes
    ----------
    name
        Short; it is written into the store.
    sources
        One a study, in order.
    faults
        Of the data set as a whole, found on opening it.
    """

    name: str
    sources: tuple[DatasetSource, ...]
    faults: tuple[Fault, ...] = ()

    def __len__(self) -> int:
        return len(self.sources)

    def __repr__(self) -> str:
        return f"Dataset({self.name}: {len(self)} studies)"

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(source.id for source in self.sources)

    def study(
        self,
        index: int,
        spec: InputSpec | None = None,
        margin_voxels: tuple[int, int, int] = (0, 0, 0),
    ) -> Study:
        """A study; arguments as in :meth:`simcrop_core.study.StudySource.load`.

        Raises
        ------
        SimCroPError
            It cannot be read.
        """
        return self.sources[index].load(spec, margin_voxels)


def plain_sentences(report: Report | None) -> tuple[SentenceFacts, ...]:
    """The sentences of a report's Findings, of which nothing further is known."""
    if report is None:
        return ()
    return tuple(SentenceFacts(s.text) for s in report.in_section("findings"))
