"""Many studies: aligned one by one, resumable, on this machine or a Dask cluster."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from simcrop_core.align import Progress, align
from simcrop_core.alignment_result import AlignmentResult
from simcrop_core.device import Precision
from simcrop_core.errors import SimCroPError
from simcrop_core.figure import draw_figure, save_figure
from simcrop_core.io import read_volume
from simcrop_core.model import load_model, model_info
from simcrop_core.outputs import whole_file, whole_folder
from simcrop_core.prepare import Placement
from simcrop_core.report import read_report
from simcrop_core.volume import CTVolume

_COLUMNS = ("study", "ct", "report")
_OPTIONAL = ("volume_name", "series")
_STATUS_COLUMNS = ("study", "status", "code", "message", "seconds")


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """What is done to every study; fields as in `simcrop_core.align.align`."""

    model: str
    text_encoder: str | None = None
    top_k: int = 64
    placement: Placement = "center"
    device: str = "auto"
    precision: Precision = "auto"
    figures: bool = True


@dataclass(frozen=True, slots=True)
class Study:
    """A row of the manifest; paths are absolute."""

    name: str
    ct: str
    report: str
    volume_name: str | None = None
    series: str | None = None


@dataclass(slots=True)
class Tally:
    """How a batch ended."""

    aligned: int = 0
    skipped: int = 0
    failed: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def write_study(
    folder: Path, volume: CTVolume, result: AlignmentResult, figure: bool = True
) -> None:
    """Write a result and its figure; all of it appears, or nothing."""
    with whole_folder(folder) as hidden:
        result.write(hidden)
        if figure:
            save_figure(draw_figure(volume, result), hidden / "figure.png")


def read_manifest(path: Path) -> list[Study]:
    """The studies of a csv with the columns ``study, ct, report`` (and ``volume_name, series``).

    Relative paths start at the manifest's folder.

    Raises
    ------
    SimCroPError
        The file is missing or not a csv, a column is missing or unknown, a name is empty, given
        twice, or cannot be a folder's name.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
    except FileNotFoundError as e:
        raise SimCroPError(
            "There is no such manifest.", path=path, code="not-found", remedy="Check the name."
        ) from e
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise SimCroPError(
            "This cannot be read as a csv file in UTF-8.",
            path=path,
            code="bad-manifest",
            remedy="Write a csv with the columns study, ct and report.",
        ) from e
    columns = set(rows[0]) if rows else set()
    unknown = sorted(str(c) for c in columns - {*_COLUMNS, *_OPTIONAL})
    missing = [c for c in _COLUMNS if c not in columns]
    if not rows or missing or unknown:
        problem = (
            "The manifest has no rows"
            if not rows
            else f"The manifest lacks the column {missing[0]}"
            if missing
            else f"The manifest has a column {unknown[0]!r} that means nothing here"
        )
        raise SimCroPError(
            problem,
            path=path,
            code="bad-manifest",
            remedy="Write a csv with the columns study, ct, report and, if needed, volume_name "
            "and series.",
        )
    studies: list[Study] = []
    seen: set[str] = set()
    for number, row in enumerate(rows, start=2):
        name = (row["study"] or "").strip()
        safe = name and name not in {".", ".."} and all(c.isalnum() or c in "-_. " for c in name)
        if not safe or name.startswith(".") or name.casefold() in seen:
            why = "is given twice" if name.casefold() in seen else "cannot name a folder"
            raise SimCroPError(
                f"Line {number}: the study {name!r} {why}",
                path=path,
                code="bad-manifest",
                remedy="Give each study a name of its own of letters, digits, '-', '_' and '.'.",
            )
        seen.add(name.casefold())
        cells = {c: (row.get(c) or "").strip() for c in (*_COLUMNS[1:], *_OPTIONAL)}
        for column in _COLUMNS[1:]:
            if not cells[column]:
                raise SimCroPError(
                    f"Line {number}: the study {name!r} has no {column}",
                    path=path,
                    code="bad-manifest",
                    remedy="Fill the cell with the path of a file or folder.",
                )
        studies.append(
            Study(
                name,
                str((path.parent / cells["ct"]).absolute()),
                str((path.parent / cells["report"]).absolute()),
                cells["volume_name"] or None,
                cells["series"] or None,
            )
        )
    return studies


def align_manifest(
    manifest: Path,
    out: Path,
    request: BatchRequest,
    *,
    workers: int = 1,
    scheduler: str | None = None,
    progress: Progress | None = None,
) -> Tally:
    """Align every study of a manifest into ``out/<study>/``.

    A study whose result is there already, from the same files, model and settings, is skipped. A
    study that is refused is recorded in ``out/status.csv`` and skipped; the next call tries it
    again.

    Parameters
    ----------
    manifest, out, request
        The studies, the folder for the results, what to do.
    workers
        Processes on this machine.
    scheduler
        Address of a Dask scheduler whose workers see the same files; overrides ``workers``.
    progress
        Called with what is done, studies done and studies in all.
    """
    studies = read_manifest(manifest)
    model_id = str(model_info(request.model)["id"])
    keys = {study.name: _key(study, request, model_id) for study in studies}
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise SimCroPError(
            f"The folder cannot be made ({e.strerror}).",
            path=out,
            code="not-writable",
            remedy="Name a place where you may write.",
        ) from e
    tally = Tally()
    waiting: list[Study] = []
    records: dict[str, dict[str, Any]] = {}
    for study in studies:
        if _done(out / study.name, keys[study.name]):
            tally.skipped += 1
            records[study.name] = {"study": study.name, "status": "done before"}
        else:
            waiting.append(study)
    _write_status(out, studies, records)

    def record(outcome: dict[str, Any]) -> None:
        records[outcome["study"]] = outcome
        if outcome["status"] == "aligned":
            tally.aligned += 1
        else:
            tally.failed += 1
            tally.failures.append((outcome["study"], outcome["message"]))
        _write_status(out, studies, records)
        if progress is not None:
            progress("aligning studies", tally.aligned + tally.failed, len(waiting))

    if progress is not None:
        progress("aligning studies", 0, len(waiting))
    if waiting:
        _run(waiting, out.absolute(), request, keys, workers, scheduler, record)
    return tally


def align_study(study: Study, out: str, request: BatchRequest, key: str) -> dict[str, Any]:
    """Align one study in a worker; a refusal is returned, never raised."""
    start = time.monotonic()
    outcome: dict[str, Any] = {"study": study.name, "status": "aligned", "code": "", "message": ""}
    try:
        volume = read_volume(Path(study.ct), series=study.series)
        report = read_report(Path(study.report), volume_name=study.volume_name)
        result = align(
            _model(request.model, request.text_encoder),
            volume,
            report,
            top_k=request.top_k,
            placement=request.placement,
            device=request.device,
            precision=request.precision,
        )
        folder = Path(out) / study.name
        write_study(folder, volume, result, request.figures)
        with whole_file(folder / "request.json") as hidden:
            hidden.write_text(json.dumps({"schema": 1, "key": key}) + "\n", encoding="utf-8")
    except SimCroPError as e:
        outcome |= {"status": "refused", "code": e.code, "message": str(e)}
    except MemoryError:
        outcome |= {"status": "refused", "code": "memory", "message": "Memory ran out."}
    except Exception as e:  # one study must not end the batch, whatever it is
        message = f"A defect in SimCroP ({type(e).__name__}: {' '.join(str(e).split())[:300]})."
        outcome |= {"status": "defect", "code": "defect", "message": message}
    outcome["seconds"] = round(time.monotonic() - start, 2)
    return outcome


@lru_cache(maxsize=1)
def _model(folder: str, text_encoder: str | None) -> Any:
    """The model, loaded once in each worker."""
    return load_model(folder, text_encoder=text_encoder)


def _run(
    studies: list[Study],
    out: Path,
    request: BatchRequest,
    keys: dict[str, str],
    workers: int,
    scheduler: str | None,
    record: Callable[[dict[str, Any]], None],
) -> None:
    from distributed import as_completed

    with _client(workers, scheduler) as client:
        futures = {
            client.submit(
                align_study, study, str(out), request, keys[study.name], pure=False, retries=1
            ): study
            for study in studies
        }
        for future in as_completed(list(futures)):
            if future.status == "finished":
                record(future.result())
            else:  # the worker died of it, twice
                record(
                    {
                        "study": futures[future].name,
                        "status": "defect",
                        "code": "worker-died",
                        "message": "The worker process died, most likely of too little memory.",
                        "seconds": "",
                    }
                )


def _client(workers: int, scheduler: str | None) -> Any:
    from distributed import Client, LocalCluster

    if scheduler is not None:
        try:
            return Client(scheduler, timeout=20)
        except (OSError, ValueError, TimeoutError) as e:
            raise SimCroPError(
                f"No Dask scheduler answers at {scheduler}.",
                code="no-scheduler",
                remedy="Start one with dask scheduler, and check the address.",
            ) from e
    threads = max(1, (os.cpu_count() or 1) // workers)
    # Torch must share the cores among the worker processes.
    os.environ["OMP_NUM_THREADS"] = str(threads)
    return Client(
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            memory_limit=0,
            dashboard_address="127.0.0.1:0",
            host="127.0.0.1",
        )
    )


def _key(study: Study, request: BatchRequest, model_id: str) -> str:
    """Digest of everything a study's result depends on."""
    parts = [
        asdict(study),
        {**asdict(request), "model": model_id, "device": None},
        [_stamp(Path(study.ct)), _stamp(Path(study.report))],
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _stamp(path: Path) -> list[Any]:
    """Size and time of a file, or of all files of a folder."""
    try:
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        return [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in files]
    except OSError:
        return ["absent"]


def _done(folder: Path, key: str) -> bool:
    try:
        stored = json.loads((folder / "request.json").read_text(encoding="utf-8"))
        return bool(stored["key"] == key) and (folder / "alignment.json").is_file()
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _write_status(out: Path, studies: list[Study], records: dict[str, dict[str, Any]]) -> None:
    with whole_file(out / "status.csv") as hidden, hidden.open("w", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _STATUS_COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        for study in studies:
            writer.writerow(records.get(study.name, {"study": study.name, "status": "waiting"}))
