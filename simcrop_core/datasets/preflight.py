"""What is missing or damaged in a data set, before hours are spent on it."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from simcrop_core.datasets.dataset import Dataset, DatasetSource, Fault

if TYPE_CHECKING:
    from simcrop_core.device import Progress

_THREADS = 16
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Preflight:
    """What was found.

    Attributes
    ----------
    name, studies
        The data set, and how many studies it has.
    faults
        In the order of the studies.
    """

    name: str
    studies: int
    faults: tuple[Fault, ...]

    @property
    def usable(self) -> int:
        """Studies of which nothing that was found keeps them from being prepared; a report may be
        absent."""
        blocked = {f.study for f in self.faults if f.blocks}
        return self.studies - len(blocked - {""})

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "dataset": self.name,
            "studies": self.studies,
            "usable": self.usable,
            "counts": [
                {"part": part, "code": code, "studies": count}
                for (part, code), count in self.counts().items()
            ],
            "faults": [asdict(f) for f in self.faults],
        }

    def counts(self) -> dict[tuple[str, str], int]:
        """How often each kind of fault was found, most first."""
        kinds = Counter((f.part, f.code) for f in self.faults)
        return dict(sorted(kinds.items(), key=lambda item: (-item[1], item[0])))

    def table(self) -> str:
        """The same for people: a summary, then the first studies of each kind."""
        lines = [f"{self.name}: {self.studies} studies, {self.usable} can be prepared"]
        if not self.faults:
            return f"{lines[0]}; nothing is missing or damaged.\n"
        rows = [("part", "fault", "study", "what")]
        for part, code in self.counts():
            kind = [f for f in self.faults if (f.part, f.code) == (part, code)]
            rows += [(part, code, f.study or "-", f.problem) for f in kind[:_SHOWN]]
            if len(kind) > _SHOWN:
                rows.append((part, code, "...", f"and {len(kind) - _SHOWN} more (--json)"))
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines.append("")
        for row in rows:
            cells = [row[column].ljust(widths[column]) for column in range(3)]
            lines.append("  ".join([*cells, row[3]]).rstrip())
        return "\n".join(lines) + "\n"


def preflight(dataset: Dataset, progress: Progress | None = None) -> Preflight:
    """Look over every study of a data set.

    Files are opened and their two ends read, many at a time; 47,000 volumes take minutes.
    """
    faults = list(dataset.faults)

    def look(source: DatasetSource) -> list[Fault]:
        return list(source.faults())

    with ThreadPoolExecutor(_THREADS) as pool:
        for number, found in enumerate(pool.map(look, dataset.sources), 1):
            faults += found
            if progress is not None:
                progress("looking over studies", number, len(dataset))
    return Preflight(dataset.name, len(dataset), tuple(faults))
