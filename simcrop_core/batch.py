"""Many studies: aligned one by one, resumable, on this machine or a Dask cluster."""

from __future__ import annotations

import csv
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from simcrop_core.align import align, check_request, encode
from simcrop_core.cluster import dask_client, refuse_in_worker
from simcrop_core.datasets.manifest import BATCH_FORM
from simcrop_core.device import Precision, Progress
from simcrop_core.errors import SimCroPError
from simcrop_core.ingest import read_and_prepare
from simcrop_core.io.sniff import sniff
from simcrop_core.model import load_model, model_info
from simcrop_core.outputs import remove_partial, whole_file
from simcrop_core.prepare import Placement
from simcrop_core.report import read_report
from simcrop_core.result_folder import REQUEST_NAME, write_result

STATUS_NAME = "status.csv"
_STATUS_EVERY_S = 2.0
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
    reading: tuple[tuple[str, Any], ...] = ()  # options of `read_volume`, by name
    encoding: str | None = None  # of the reports


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


def read_manifest(path: Path) -> list[Study]:
    """The studies of a csv with the columns ``study, ct, report`` (and ``volume_name, series``).

    Relative paths start at the manifest's folder.

    Raises
    ------
    SimCroPError
        The file is missing or not a csv, a column is missing or unknown, a name is empty, given
        twice, or cannot be a folder's name.
    """
    studies: list[Study] = []
    seen: set[str] = set()
    for number, row in BATCH_FORM.read(path)[1]:
        name = row["study"]
        safe = name and all(c.isalnum() or c in "-_. " for c in name)
        if not safe or name.startswith(".") or name.casefold() == STATUS_NAME:
            raise BATCH_FORM.refusal(path, f"Row {number}: the study {name!r} cannot name a folder")
        if name.casefold() in seen:
            raise BATCH_FORM.refusal(path, f"Row {number}: the study {name!r} is given twice")
        seen.add(name.casefold())
        studies.append(
            Study(
                name,
                str((path.parent / row["ct"]).absolute()),
                str((path.parent / row["report"]).absolute()),
                row.get("volume_name") or None,
                row.get("series") or None,
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
    refuse_in_worker()
    studies = read_manifest(manifest)
    model_id = str(model_info(request.model)["id"])
    keys = {study.name: _key(study, request, model_id) for study in studies}
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise SimCroPError(
            f"The folder cannot be made ({e.strerror}).",
            path=out,
            code="cannot-write",
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
    written = time.monotonic()

    def record(outcome: dict[str, Any]) -> None:
        records[outcome["study"]] = outcome
        if outcome["status"] == "aligned":
            tally.aligned += 1
        else:
            tally.failed += 1
            tally.failures.append((outcome["study"], outcome["message"]))
        nonlocal written
        if time.monotonic() - written > _STATUS_EVERY_S:
            _write_status(out, studies, records)
            written = time.monotonic()
        if progress is not None:
            progress("aligning studies", tally.aligned + tally.failed, len(waiting))

    if progress is not None:
        progress("aligning studies", 0, len(waiting))
    if waiting:
        try:
            _run(waiting, out.absolute(), request, keys, workers, scheduler, record)
        finally:
            if scheduler is None:  # a cluster's workers finish what they are at
                remove_partial(out, {study.name for study in waiting})
            for study in waiting:  # finished, but the batch was stopped before it was told
                if study.name not in records and _done(out / study.name, keys[study.name]):
                    records[study.name] = {"study": study.name, "status": "aligned"}
            _write_status(out, studies, records)
    return tally


def align_study(study: Study, out: str, request: BatchRequest, key: str) -> dict[str, Any]:
    """Align one study in a worker; a refusal is returned, never raised."""
    start = time.monotonic()
    outcome: dict[str, Any] = {"study": study.name, "status": "aligned", "code": "", "message": ""}
    try:
        reading = dict(request.reading)
        if study.series is not None:
            reading["series"] = study.series
        model = _model(request.model, request.text_encoder)
        volume, prepared = read_and_prepare(
            Path(study.ct), model.input_spec, placement=request.placement, **reading
        )
        report = read_report(
            Path(study.report), volume_name=study.volume_name, encoding=request.encoding
        )
        check_request(model, report, (), request.top_k)
        encoded = encode(
            model,
            volume,
            placement=request.placement,
            prepared=prepared,
            device=request.device,
            precision=request.precision,
        )
        result = align(model, encoded, report, top_k=request.top_k, device=request.device)
        write_result(Path(out) / study.name, volume, result, figure=request.figures, key=key)
    except SimCroPError as e:
        # Without the path: the study's name says which, and file names may hold patients' names.
        message = f"{e.problem} {e.remedy}"
        outcome |= {"status": "refused", "code": e.code, "message": message}
    except MemoryError:
        outcome |= {"status": "refused", "code": "memory", "message": "Memory ran out."}
    except Exception as e:  # one study must not end the batch, whatever it is
        message = f"A defect in SimCroP ({type(e).__name__}). simcrop align --debug shows it."
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

    with dask_client(workers, scheduler) as client:
        futures = {
            client.submit(
                align_study, study, str(out), request, keys[study.name], pure=False
            ): study
            for study in studies
        }
        for future in as_completed(list(futures)):
            if future.status == "finished":
                record(future.result())
            else:
                record(
                    {
                        "study": futures[future].name,
                        "status": "defect",
                        "code": "worker-died",
                        "message": "The worker process died, most likely of too little memory.",
                        "seconds": "",
                    }
                )


def _key(study: Study, request: BatchRequest, model_id: str) -> str:
    """Digest of everything a study's result depends on."""
    parts = [
        asdict(study),
        {**asdict(request), "model": model_id, "reading": repr(request.reading)},
        [_stamp(Path(study.ct)), _stamp(Path(study.report))],
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _stamp(path: Path) -> list[Any]:
    """Size and time of all files that a path stands for."""
    try:
        if path.is_dir():
            files = [p for p in path.rglob("*") if p.is_file()]
        elif path.suffix.lower() in {".mhd", ".nhdr"} or _is_dicom(path):
            # The header's voxels, or the series' other slices, lie beside it.
            files = [p for p in path.parent.iterdir() if p.is_file()]
        else:
            files = [path]
        return [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in sorted(files)]
    except OSError:
        return ["absent"]


def _is_dicom(path: Path) -> bool:
    try:
        return sniff(path).format == "DICOM"
    except SimCroPError:
        return False


def _done(folder: Path, key: str) -> bool:
    try:
        stored = json.loads((folder / REQUEST_NAME).read_text(encoding="utf-8"))
        return bool(stored["key"] == key) and (folder / "alignment.json").is_file()
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _write_status(out: Path, studies: list[Study], records: dict[str, dict[str, Any]]) -> None:
    with whole_file(out / STATUS_NAME) as hidden, hidden.open("w", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _STATUS_COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        for study in studies:
            writer.writerow(records.get(study.name, {"study": study.name, "status": "waiting"}))
