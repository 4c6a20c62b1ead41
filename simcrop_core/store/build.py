"""Making a store: many studies in parallel, resumable, on this machine or a Dask cluster.

A study's record is written last and names the digest of what it was made from, so that it alone
says whether the study is done; the index is made from the records. Each file appears whole or not
at all.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simcrop_core.cluster import refuse_in_worker
from simcrop_core.errors import SimCroPError
from simcrop_core.outputs import refuse_unwritable, whole_file
from simcrop_core.store.cluster import Submit, here, workers_for
from simcrop_core.store.codec import checksum
from simcrop_core.store.encode import TextSettings, encode_texts
from simcrop_core.store.index import SCHEMA, IndexRow, Part, index_checksum, study_path
from simcrop_core.store.pack import pack_study
from simcrop_core.store.place import (
    agree_on_settings,
    check_ids,
    clear_partial,
    locked,
    remove_own,
)
from simcrop_core.store.record import Record, Stored
from simcrop_core.store.settings import StoreSettings
from simcrop_core.study import StudySource

if TYPE_CHECKING:
    from simcrop_core.device import Progress

_INDEX_EVERY_S = 20.0
_DAY_S = 86_400.0


@dataclass(slots=True)
class BuildTally:
    """How a preparation ended.

    Attributes
    ----------
    prepared, done_before, skipped
        Studies written now; found done; left out, now or before.
    encoded
        Different texts that were encoded now.
    speechless
        Studies of the store without a sentence of the Findings.
    dropped
        Studies that an earlier preparation put into the store and this data set does not have:
        they are no longer part of it.
    problems
        ``(id, problem)`` of the studies left out.
    """

    prepared: int = 0
    done_before: int = 0
    skipped: int = 0
    encoded: int = 0
    speechless: int = 0
    dropped: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def build_store(
    name: str,
    sources: Sequence[StudySource],
    folder: Path,
    settings: StoreSettings,
    text: TextSettings,
    *,
    workers: int = 1,
    scheduler: str | None = None,
    verify: bool = False,
    retry: bool = False,
    progress: Progress | None = None,
) -> BuildTally:
    """Prepare every study of a data set into ``folder``.

    Studies that are done already, from the same files and settings, are left as they are; a
    preparation that was stopped goes on where it was. Studies that cannot be read are recorded
    with the reason and left out; they are tried again when their files change, or when asked.

    Parameters
    ----------
    name, sources
        The data set, and its studies in order; their ids are names of files.
    folder, settings, text
        Where to, how volumes are prepared, and which encoder reads the texts.
    workers
        Processes on this machine; 1 works in this one. More are for scripts that do their work
        under ``if __name__ == "__main__":``.
    scheduler
        Address of a Dask scheduler whose workers see the same files; overrides ``workers``.
    verify
        Compare the checksums of what is done, and make damaged studies again.
    retry
        Try again the studies that were left out.
    progress
        Called with what is done, how far, and of how many.

    Raises
    ------
    SimCroPError
        The folder holds another store; ids cannot name files; all studies are unreadable; the
        scheduler does not answer.
    """
    refuse_in_worker()
    check_ids(sources)
    refuse_unwritable(folder)
    with locked(folder):
        new = agree_on_settings(folder, name, settings)
        build = _Build(sources, folder, settings, progress)
        clear_partial(folder, _DAY_S if scheduler else 0)
        build.find_done(verify, retry)
        with workers_for(workers, scheduler) as submit:
            build.prepare(submit)
            if not build.rows:
                if new:
                    remove_own(folder)
                raise _nothing(folder, build.tally)
            build.tally.speechless = sum(row.sentences == 0 for row in build.rows.values())
            records = (build.record(i) for i in sorted(build.rows))
            # On this machine one encoder with all cores, or the GPU, beats one a worker.
            encoders = here if scheduler is None else submit
            build.tally.encoded = encode_texts(folder, records, text, encoders, progress)
    return build.tally


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of a study in a worker: a row of the index, or why there is none."""

    row: IndexRow | None
    code: str = ""
    problem: str = ""


def prepare_study(source: StudySource, folder: str, settings: StoreSettings, key: str) -> _Outcome:
    """Read, prepare and write one study; a refusal is returned, never raised."""
    try:
        study = source.load(settings.spec, settings.margin_voxels)
        if study.id != source.id:
            raise ValueError(f"Source {source.id} gave study {study.id}.")
        packed = pack_study(study, settings, key)
        place = Path(folder)
        files: list[tuple[Part, bytes]] = [("volumes", packed.volume)]
        if packed.structures is not None:
            files.append(("structures", packed.structures))
        data = packed.record.to_bytes()
        for part, content in (*files, ("records", data)):
            with whole_file(study_path(place, part, study.id)) as hidden:
                hidden.write_bytes(content)
        return _Outcome(IndexRow.of(packed.record, Stored(len(data), checksum(data))))
    except SimCroPError as e:
        if e.code == "cannot-write":
            raise  # a full disk is no fault of the study's
        return _Outcome(None, e.code, f"{e.problem} {e.remedy}")
    except MemoryError:
        return _Outcome(None, "memory", "Memory ran out.")
    except Exception as e:  # one study must not end the preparation, whatever it is
        problem = f"A defect in SimCroP ({type(e).__name__}: {e})."
        return _Outcome(None, "defect", " ".join(problem.split()))


class _Build:
    """The state of a preparation."""

    def __init__(
        self,
        sources: Sequence[StudySource],
        folder: Path,
        settings: StoreSettings,
        progress: Progress | None,
    ) -> None:
        self.sources, self.folder, self.settings = sources, folder, settings
        self.progress = progress
        self.keys = [_key(source, settings) for source in sources]
        self.rows: dict[int, IndexRow] = {}
        self.skipped: dict[int, dict[str, str]] = {}
        self.waiting: list[int] = []
        self.tally = BuildTally()

    def find_done(self, verify: bool, retry: bool) -> None:
        """Which studies are there already, which were left out, and which are to be made."""
        listed, left_out = _read_index(self.folder)
        self.tally.dropped = len(listed.keys() - {source.id for source in self.sources})
        for number, source in enumerate(self.sources):
            key = self.keys[number]
            row = self._done(source.id, key, listed.get(source.id), verify)
            if row is not None:
                self.rows[number] = row
                continue
            past = left_out.get(source.id)
            if past is not None and past.get("key") == key and not retry:
                self._leave_out(number, past["code"], past["problem"])
            else:
                self.waiting.append(number)
        self.tally.done_before = len(self.rows)
        if not self.waiting:
            self._write_index()

    def _done(
        self, name: str, key: str, listed: tuple[IndexRow, str] | None, verify: bool
    ) -> IndexRow | None:
        """The row of a study that was made from the same source, if its files are there."""
        if listed is not None and not verify:
            row, its_key = listed
        else:
            try:
                data = study_path(self.folder, "records", name).read_bytes()
                record = Record.from_bytes(data)
            except (OSError, ValueError, KeyError, TypeError):
                return None
            row, its_key = IndexRow.of(record, Stored(len(data), checksum(data))), record.key
            if listed is not None and listed[0] != row:
                return None
        if its_key != key:
            return None
        parts: list[tuple[Part, Stored | None]] = [
            ("records", row.record),
            ("volumes", row.volume),
            ("structures", row.structures),
        ]
        for part, stored in parts:
            if stored is not None and not _intact(
                study_path(self.folder, part, name), stored, verify
            ):
                return None
        return row

    def prepare(self, submit: Submit) -> None:
        """Make what is waiting."""
        if not self.waiting:
            return
        written, total = time.monotonic(), len(self.waiting)
        self._tell(0, total)
        jobs = (
            (number, (self.sources[number], str(self.folder), self.settings, self.keys[number]))
            for number in self.waiting
        )
        try:
            for count, (number, outcome) in enumerate(submit(prepare_study, jobs), 1):
                if isinstance(outcome, _Outcome) and outcome.row is not None:
                    self.rows[number] = outcome.row
                    self.tally.prepared += 1
                elif isinstance(outcome, _Outcome):
                    self._leave_out(number, outcome.code, outcome.problem)
                else:
                    self._leave_out(number, "worker-died", str(outcome))
                if time.monotonic() - written > _INDEX_EVERY_S:
                    self._write_index()
                    written = time.monotonic()
                self._tell(count, total)
        finally:
            self._write_index()

    def record(self, number: int) -> Record:
        """The record of a study that is done."""
        path = study_path(self.folder, "records", self.rows[number].id)
        return Record.from_bytes(path.read_bytes())

    def _leave_out(self, number: int, code: str, problem: str) -> None:
        name = self.sources[number].id
        self.skipped[number] = {
            "id": name,
            "code": code,
            "problem": problem,
            "key": self.keys[number],
        }
        self.tally.skipped += 1
        self.tally.problems.append((name, problem))

    def _write_index(self) -> None:
        order = sorted(self.rows)
        rows = tuple(self.rows[number] for number in order)
        index: dict[str, Any] = {
            "schema": SCHEMA,
            "store": checksum((self.folder / "store.json").read_bytes()),
            "studies": [row.to_list() for row in rows],
            "keys": [self.keys[number] for number in order],
            "patients": _patients([self.sources[number] for number in order]),
            "skipped": [self.skipped[number] for number in sorted(self.skipped)],
        }
        index["crc32"] = index_checksum(index)
        path = self.folder / "index.json"
        data = json.dumps(index, separators=(",", ":")).encode()
        if path.is_file() and path.read_bytes() == data:
            return
        with whole_file(path) as hidden:
            hidden.write_bytes(data)

    def _tell(self, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress("preparing studies", done, total)


def _patients(sources: Sequence[StudySource]) -> list[int]:
    """For each study the row of the first study of its patient: who it is stays unsaid."""
    first: dict[str, int] = {}
    return [
        first.setdefault(source.patient.strip().casefold(), row) if source.patient.strip() else row
        for row, source in enumerate(sources)
    ]


def _key(source: StudySource, settings: StoreSettings) -> str:
    """Digest of all that a study's files depend on."""
    parts = [SCHEMA, settings.model_dump_json(), source.id, source.stamp()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _intact(path: Path, stored: Stored, verify: bool) -> bool:
    try:
        if not verify:
            return path.stat().st_size == stored.bytes
        data = path.read_bytes()
        return len(data) == stored.bytes and checksum(data) == stored.crc32
    except OSError:
        return False


def _read_index(
    folder: Path,
) -> tuple[dict[str, tuple[IndexRow, str]], dict[str, dict[str, str]]]:
    """What an earlier index lists and leaves out; nothing where it is absent or damaged."""
    try:
        index = json.loads((folder / "index.json").read_bytes())
        if index_checksum(index) != index["crc32"]:
            return {}, {}
        rows = tuple(IndexRow.from_list(row) for row in index["studies"])
        listed = {row.id: (row, key) for row, key in zip(rows, index["keys"], strict=True)}
        return listed, {entry["id"]: entry for entry in index["skipped"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}, {}


def _nothing(folder: Path, tally: BuildTally) -> SimCroPError:
    name, problem = tally.problems[0]
    return SimCroPError(
        f"None of the {tally.skipped} studies could be prepared; {name}: {problem}",
        path=folder,
        code="no-studies",
        remedy="Check the data set with --preflight.",
    )
