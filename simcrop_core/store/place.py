"""The folder of a store that is being made: one process at a time, one kind of volumes."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from simcrop_core.errors import SimCroPError
from simcrop_core.outputs import remove_partial, whole_file
from simcrop_core.store.index import SCHEMA, read_settings
from simcrop_core.store.settings import StoreSettings
from simcrop_core.study import StudySource

_LONGEST_ID = 150
# What a preparation that was killed at its start may have left.
_OWN = {".lock", "records", "volumes", "structures", "text", "index.json"}


def check_ids(sources: Sequence[StudySource]) -> None:
    seen: set[str] = set()
    for source in sources:
        name = source.id
        named = name and all(c.isalnum() or c in "-_. " for c in name) and not name.startswith(".")
        if not named or len(name) > _LONGEST_ID or name != name.strip():
            raise SimCroPError(
                f"The study {name!r} cannot name a file",
                code="bad-id",
                remedy="Use names of letters, digits, '-', '_' and '.'.",
            )
        if name.casefold() in seen:
            raise SimCroPError(
                f"The study {name!r} is given twice",
                code="bad-id",
                remedy="Give each study a name of its own.",
            )
        seen.add(name.casefold())
    if not sources:
        raise SimCroPError(
            "The data set has no studies", code="no-studies", remedy="Check where it lies."
        )


def agree_on_settings(folder: Path, name: str, settings: StoreSettings) -> bool:
    """Write the settings of a new store, or refuse to mix two kinds; whether it is new."""
    path = folder / "store.json"
    if path.is_file():
        own, own_name = read_settings(folder)
        before, now = own.model_dump(mode="json"), settings.model_dump(mode="json")
        before["spec"], now["spec"] = None, None
        changed = [f for f in now if before[f] != now[f]]
        for f, value in settings.spec.model_dump(mode="json").items():
            if own.spec.model_dump(mode="json")[f] != value:
                changed.append(f)
        if changed or own_name != name:
            what = f"other {' and '.join(changed)}" if changed else f"the data set {own_name!r}"
            raise SimCroPError(
                f"This store was prepared with {what}",
                path=folder,
                code="other-settings",
                remedy="Name another folder, or prepare with the settings it was begun with.",
            )
        return False
    remove_partial(folder, ["store.json"])
    others = sorted(entry.name for entry in folder.iterdir() if entry.name not in _OWN)
    if others:
        raise SimCroPError(
            f"This folder holds other things ({', '.join(others[:3])})",
            path=folder,
            code="exists",
            remedy="Name a new or an empty folder for the store.",
        )
    manifest = {"schema": SCHEMA, "name": name, "settings": settings.model_dump(mode="json")}
    with whole_file(path) as hidden:
        hidden.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return True


def remove_own(folder: Path) -> None:
    """Take away all that a preparation has put into a folder, and the folder if it is empty."""
    for name in (*_OWN, "store.json"):
        path = folder / name
        with suppress(OSError):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a second preparation out; the system frees the lock of a killed process."""
    try:
        import fcntl
    except ImportError:  # Windows: files appear whole all the same, work is only done twice
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as e:
        raise SimCroPError(
            f"The folder cannot be written ({e.strerror})",
            path=folder,
            code="cannot-write",
            remedy="Name a place where you may write.",
        ) from e
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise SimCroPError(
                "Another process is preparing this store",
                path=folder,
                code="locked",
                remedy="Wait until it has ended, or stop it.",
            ) from e
        except OSError:
            pass  # a network file system without locks
        yield
    finally:
        os.close(descriptor)


def clear_partial(folder: Path, age_s: float) -> None:
    """Remove what killed processes left half-written; workers of a cluster may still be writing."""
    for part in ("records", "volumes", "structures"):
        for path in (folder / part).glob("*/.*"):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime >= age_s:
                    path.unlink()
