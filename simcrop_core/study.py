"""A study with what is known of it: what data sets and phantoms give, and training reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from simcrop_core.input_spec import InputSpec
from simcrop_core.report import Report
from simcrop_core.statements import Facts, Meaning
from simcrop_core.volume import CTVolume

#: ``organ``: a normal statement; ``finding``: something is there; ``negative``: it is not.
Kind = Literal["organ", "finding", "negative", "unknown"]
#: In the order of their numbers, wherever a kind is one.
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Alternate:
    """The same sentence with one thing changed (side, level or presence): a counterfactual."""

    text: str
    meaning: Meaning


@dataclass(frozen=True, slots=True)
class SentenceFacts:
    """What is known of one sentence of the Findings.

    Attributes
    ----------
    text
        As in the report.
    kind
        See :data:`Kind`.
    meaning
        What it states; ``Meaning()`` where that is not known.
    region
        Key into :attr:`Study.regions` of the part of the scan it speaks of, or None.
    alternates
        Counterfactuals.
    wording
        Which wording of a phantom's report it is, such as ``"lung-nodule/present/seen/03"``;
        empty elsewhere. Those with ``/unseen/`` are held out from training.
    category
        A name under which a data set files it, for tables; empty where it has none.
    """

    text: str
    kind: Kind = "unknown"
    meaning: Meaning = field(default_factory=Meaning)
    region: str | None = None
    alternates: tuple[Alternate, ...] = ()
    wording: str = ""
    category: str = ""


@dataclass(frozen=True, eq=False)
class Study:
    """One volume with its report and truth.

    Attributes
    ----------
    id
        Unique in its data set; never a patient's name.
    volume
        The scan.
    report
        The report, or None.
    sentences
        One for each sentence of the report's Findings, in the order of the report.
    regions
        Boolean masks on the volume's own grid, ``(X, Y, Z)``, by name.
    facts
        What is true of the study.
    structures_XYZ, structure_names
        uint8 label map on the volume's grid and the names of labels 1, 2, ...; or None.
    """

    id: str
    volume: CTVolume
    report: Report | None = None
    sentences: tuple[SentenceFacts, ...] = ()
    regions: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    facts: Facts = field(default_factory=Facts.unknown)
    structures_XYZ: NDArray[np.uint8] | None = None
    structure_names: tuple[str, ...] = ()


class StudySource(Protocol):
    """Where one study comes from: small, so that it can be sent to another process."""

    @property
    def id(self) -> str:
        """As in :class:`Study`."""
        ...

    @property
    def patient(self) -> str:
        """Whose study it is: a word that all studies of a patient share, never written down.

        Studies of one patient are never on both sides of a split. "" where nobody knows: the
        study then counts as the only one of its patient.
        """
        ...

    def stamp(self) -> str:
        """What changes when the study's files do; quick, reads no voxel, raises nothing."""
        ...

    def load(
        self, spec: InputSpec | None = None, margin_voxels: tuple[int, int, int] = (0, 0, 0)
    ) -> Study:
        """The study.

        A source that makes its scans may make it where the model's input lies, on the grid of
        ``spec`` widened by a margin; one that reads files gives the scan as it is.

        Raises
        ------
        SimCroPError
            It cannot be read.
        """
        ...
