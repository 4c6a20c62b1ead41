"""Feed thousands of damaged files to everything that reads a file, and count how it ends.

Every file is read in a process of its own. What may happen: loaded exactly, loaded with a note,
refused in a sentence; or, where a format has no checksum and the damage made another valid file,
loaded as that other file. All else is a defect. Run as ``python tests/fuzz/campaign.py``; the exit
code is 1 if there was a defect.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a parent with threads cannot be forked safely
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from fuzz_mutations import Damaged, damage  # noqa: E402
from fuzz_process import Ending, ProcessLimits, Read, end_of  # noqa: E402
from fuzz_readers import READERS, preload  # noqa: E402
from fuzz_seeds import Seed, built_seeds, real_seeds  # noqa: E402

GOOD = ("identical", "note", "refused", "changed")
DEFECTS = (
    "silent", "exception", "crash", "timeout", "memory", "bad refusal", "noise", "left behind",
)  # fmt: skip
HEADINGS = {
    "identical": "loaded exactly",
    "note": "loaded with a note",
    "refused": "refused",
    "changed": "loaded as another valid file (no checksum)",
}
_MARKS = ("<!-- tally: begin -->", "<!-- tally: end -->")


@dataclass(frozen=True, slots=True)
class Case:
    """One damaged file and how it ended; ``ended`` is one of GOOD or DEFECTS."""

    format: str
    number: int
    reader: str
    mutation: str
    ended: str
    code: str
    text: str
    seconds: float
    grown_mib: float


class Campaign:
    """Seeds, what they give when they are whole, and the damage done to them."""

    def __init__(self, root: Path, seed: int, data: Path | None, only: str = "") -> None:
        self.root = root
        self.seed = seed
        self.limits = ProcessLimits()
        seeds = built_seeds(root / "whole")
        others = built_seeds(root / "others", variant=1)
        if data is not None:
            real = real_seeds(root / "whole", data)
            seeds, others = seeds + real, others + real
        self.seeds = [s for s in seeds if only in s.format]
        self._others = {s.format: s for s in others}
        self._whole: dict[tuple[str, str], Read] = {}
        for whole in self.seeds:
            for reader in filter(None, (whole.reader, whole.permissive)):
                ending = end_of(
                    READERS[reader], whole.folder, whole.folder / whole.opened, self.limits
                )
                if ending.read is None:
                    raise RuntimeError(f"{whole.format}: the whole file is {ending.text}")
                self._whole[whole.format, reader] = ending.read

    def cases(self, files: int) -> Iterator[tuple[Seed, int]]:
        """Which seed is damaged in turn, until there are ``files``."""
        for number in range(files):
            yield self.seeds[number % len(self.seeds)], number // len(self.seeds)

    def damaged(self, seed: Seed, number: int) -> tuple[str, Damaged, random.Random]:
        """The file that is damaged in a case and what becomes of it; the same each time."""
        rng = random.Random(f"{self.seed}/{seed.format}/{number}")
        target = rng.choice(seed.targets)
        data = (seed.folder / target).read_bytes()
        other = self._others[seed.format]
        others = [(other.folder / name).read_bytes() for name in other.targets]
        others = [o for o in others if o != data]
        return target, damage(rng, data, seed.anatomy(data), others), rng

    def run(self, seed: Seed, number: int, keep: Path | None) -> Case:
        target, damaged, rng = self.damaged(seed, number)
        reader = seed.permissive if seed.permissive and rng.random() < 0.3 else seed.reader
        folder = self._laid_out(seed, target, damaged.data)
        ending = end_of(READERS[reader], folder, folder / seed.opened, self.limits)
        ended = self._class(ending, self._whole[seed.format, reader], damaged)
        if ended == "silent" and self._is_another_whole_file(seed, target, reader, ending):
            ended = "changed"
        if keep is not None and ended in DEFECTS:
            shutil.copytree(folder, keep / f"{ended}-{seed.format}-{number}", dirs_exist_ok=True)
        shutil.rmtree(folder)
        return Case(
            seed.format, number, reader, damaged.mutation, ended, ending.code, ending.text,
            round(ending.seconds, 3), round(ending.grown_mib, 1),
        )  # fmt: skip

    def _laid_out(self, seed: Seed, target: str, data: bytes) -> Path:
        """A new folder with a seed's files, ``data`` in place of ``target``."""
        folder = Path(tempfile.mkdtemp(prefix="case-", dir=self.root))
        for file in seed.folder.rglob("*"):
            if file.is_file():
                copy = folder / file.relative_to(seed.folder)
                copy.parent.mkdir(parents=True, exist_ok=True)
                if str(file.relative_to(seed.folder)) == target:
                    copy.write_bytes(data)
                else:
                    os.link(file, copy)
        return folder

    def _is_another_whole_file(self, seed: Seed, target: str, reader: str, ending: Ending) -> bool:
        """Whether splicing left all of the other file's content, with its own checksums."""
        folder = self._laid_out(
            seed, target, (self._others[seed.format].folder / target).read_bytes()
        )
        other = end_of(READERS[reader], folder, folder / seed.opened, self.limits)
        shutil.rmtree(folder)
        return other.read is not None and ending.read == other.read

    @staticmethod
    def _class(ending: Ending, whole: Read, damaged: Damaged) -> str:
        if ending.kind != "loaded":
            return ending.kind
        assert ending.read is not None
        if set(ending.read.notes) - set(whole.notes):
            return "note"
        if ending.read.fingerprint == whole.fingerprint:
            return "identical"
        if damaged.sealed and (ending.read.vital != whole.vital or not whole.vital):
            return "silent"
        return "changed"


def run_in_lanes(
    campaign: Campaign, files: int, lanes: int, until: float, keep: Path | None
) -> list[Case]:
    """All cases, in ``lanes`` processes that each take one file at a time."""
    logs = [campaign.root / f"lane-{lane}.jsonl" for lane in range(lanes)]
    children = []
    for lane, log in enumerate(logs):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                with log.open("w") as out:
                    for index, (seed, number) in enumerate(campaign.cases(files)):
                        if index % lanes == lane and time.monotonic() < until:
                            case = campaign.run(seed, number, keep)
                            out.write(json.dumps(asdict(case)) + "\n")
                status = 0
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(status)
        children.append(child)
    statuses = [os.waitpid(child, 0)[1] for child in children]
    if any(statuses):
        raise RuntimeError("The campaign itself failed; see above.")
    cases = [Case(**json.loads(line)) for log in logs for line in log.read_text().splitlines()]
    order = {seed.format: k for k, seed in enumerate(campaign.seeds)}
    return sorted(cases, key=lambda case: (order[case.format], case.number))


def summary(cases: list[Case], seed: int, seconds: float) -> dict[str, Any]:
    """The tally, for the record."""
    formats: dict[str, Counter[str]] = {}
    for case in cases:
        formats.setdefault(case.format, Counter())[case.ended] += 1
    return {
        "seed": seed,
        "files": len(cases),
        "seconds": round(seconds, 1),
        "python": platform.python_version(),
        "ended": dict(Counter(case.ended for case in cases)),
        "formats": {format: dict(counts) for format, counts in formats.items()},
        "mutations": dict(Counter(case.mutation for case in cases).most_common()),
        "refusal_codes": dict(Counter(c.code for c in cases if c.code).most_common()),
        "longest_seconds": max(case.seconds for case in cases),
        "most_memory_mib": max(case.grown_mib for case in cases),
        "defects": [asdict(case) for case in cases if case.ended in DEFECTS],
    }


def table(found: dict[str, Any]) -> str:
    """The tally in Markdown."""
    columns = [*GOOD, *[d for d in DEFECTS if d in found["ended"]]]
    heads = [HEADINGS.get(column, column) for column in columns]
    if len(columns) == len(GOOD):
        heads.append("defects")
    lines = [f"| format | files | {' | '.join(heads)} |", f"|---|{'---:|' * (len(heads) + 1)}"]
    rows = [*found["formats"].items(), ("**all**", found["ended"])]
    for format, counts in rows:
        cells = [sum(counts.values()), *[counts.get(column, 0) for column in columns]]
        cells += [0] * (len(heads) - len(columns))
        lines.append(f"| {format} | {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def write_into(document: Path, found: dict[str, Any], command: str) -> None:
    """Put the tally between its marks in a document."""
    before, rest = document.read_text(encoding="utf-8").split(_MARKS[0])
    after = rest.split(_MARKS[1])[1]
    text = (
        f"`{command}`: {found['files']} files, seed {found['seed']}, Python {found['python']}. "
        f"The slowest took {found['longest_seconds']:.1f} s; the most memory that any took beyond "
        f"the program itself was {found['most_memory_mib']:.0f} MiB.\n\n{table(found)}\n"
    )
    document.write_text(f"{before}{_MARKS[0]}\n{text}{_MARKS[1]}{after}", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=3120, help="how many damaged files")
    parser.add_argument("--seed", type=int, default=1, help="the same seed, the same files")
    parser.add_argument("--minutes", type=float, default=60.0, help="stop after this long")
    parser.add_argument("--only", default="", help="formats whose name contains this")
    parser.add_argument("--lanes", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--json", type=Path, help="write the tally there")
    parser.add_argument("--doc", type=Path, help="put the table between the marks of a document")
    parser.add_argument("--keep", type=Path, help="keep offending files in this folder")
    given = parser.parse_args()
    start = time.monotonic()
    named = os.environ.get("SIMCROP_TEST_DATA")
    preload()
    root = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        campaign = Campaign(root, given.seed, Path(named) if named else None, given.only)
        until = start + 60 * given.minutes
        cases = run_in_lanes(campaign, given.files, given.lanes, until, given.keep)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    found = summary(cases, given.seed, time.monotonic() - start)
    print(table(found))
    for case in cases:
        if case.ended in DEFECTS:
            print(f"\n{case.ended}: {case.format} {case.number} ({case.mutation})\n{case.text}")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if given.doc:
        write_into(given.doc, found, "make fuzz")
    defects = len(found["defects"])
    print(f"\n{len(cases)} files in {found['seconds']:.0f} s, {defects} defects.")
    return 1 if defects else 0


if __name__ == "__main__":
    sys.exit(main())
