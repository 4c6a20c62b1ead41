"""Files that appear whole or not at all: written hidden, synced, then renamed into place."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from simcrop_core.errors import SimCroPError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A hidden path beside ``path`` to write to; renamed to ``path`` if the block succeeds."""
    path = Path(path)
    with _refusals(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # The suffix stays, since writers choose the format by it.
        hidden = path.with_name(f".{os.getpid()}-{os.urandom(4).hex()}-{path.name}")
        try:
            yield hidden
            _sync(hidden)
            os.replace(hidden, path)
            _sync(path.parent)
        finally:
            hidden.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A hidden folder to fill; its entries replace those of ``folder`` if the block succeeds.

    Entries of ``folder`` under other names are left alone.
    """
    folder = Path(folder)
    with _refusals(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists() and not folder.is_dir():
            raise SimCroPError(
                "This is a file, and a folder is to be written.",
                path=folder,
                code="not-a-folder",
                remedy="Name another folder.",
            )
        hidden = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            yield hidden
            for written in sorted(hidden.rglob("*")):
                _sync(written)
            folder.mkdir(exist_ok=True)
            for entry in sorted(hidden.iterdir()):
                _move_into(entry, folder)
            _sync(folder)
        finally:
            shutil.rmtree(hidden, ignore_errors=True)


def _move_into(entry: Path, folder: Path) -> None:
    """Rename ``entry`` into ``folder``, over an earlier one (a folder is swapped, not merged)."""
    target = folder / entry.name
    if target.is_dir() and not target.is_symlink():
        aside = entry.with_name(f"{entry.name}.replaced")
        os.rename(target, aside)
        os.rename(entry, target)
        shutil.rmtree(aside, ignore_errors=True)
    else:
        os.replace(entry, target)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:  # some network file systems cannot sync a folder
        if not path.is_dir():
            raise
    finally:
        os.close(descriptor)


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    try:
        yield
    except (PermissionError, FileExistsError, NotADirectoryError, IsADirectoryError) as e:
        raise SimCroPError(
            f"It cannot be written ({e.strerror or e}).",
            path=path,
            code="not-writable",
            remedy="Name a place where you may write.",
        ) from e
    except OSError as e:
        if isinstance(e, FileNotFoundError) or e.errno is None:
            raise
        raise SimCroPError(
            f"Writing stopped: {e.strerror}.",
            path=path,
            code="write-failed",
            remedy="Nothing was left half-written; make room or name another place, and repeat.",
        ) from e
