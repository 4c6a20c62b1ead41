"""Files that appear whole or not at all: written hidden, synced, then renamed into place."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import secrets
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from simcrop_core.errors import SimCroPError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A hidden path beside ``path`` to write to; renamed to ``path`` if the block succeeds.

    Raises
    ------
    SimCroPError
        ``cannot-write``: nothing new is left behind, and an earlier file is as it was.
    """
    path = Path(path)
    with _refusals(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # The end of the name stays, since writers choose the format by it.
        hidden = path.with_name(f".{secrets.token_hex(6)}-{path.name[-200:]}")
        try:
            yield hidden
            _sync(hidden)
            os.replace(hidden, path)
            _sync(path.parent)
        finally:
            hidden.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: Path, owned: Collection[str] = ()) -> Iterator[Path]:
    """A hidden folder to fill; what is in it takes its place in ``folder`` if the block succeeds.

    Parameters
    ----------
    folder
        The folder to write. Entries that are neither written nor owned are left alone.
    owned
        Names that belong to what is written: earlier ones go even where no new one is written.

    Raises
    ------
    SimCroPError
        ``cannot-write`` or ``not-a-folder``: an earlier folder is as it was.
    """
    folder = Path(folder)
    with _refusals(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        refuse_file(folder)
        place = folder.resolve()
        name = f".{secrets.token_hex(6)}-{place.name[-200:]}"
        # Inside a folder that is there: it may be a mount, or its parent not ours to write.
        hidden = place / name if place.exists() else place.with_name(name)
        hidden.mkdir()
        try:
            yield hidden
            for written in sorted(hidden.rglob("*")):
                _sync(written)
            _put_in_place(hidden, place, set(owned))
            _sync(place)
            _sync(place.parent)
        finally:
            shutil.rmtree(hidden, ignore_errors=True)
            shutil.rmtree(place.with_name(name), ignore_errors=True)


def remove_partial(parent: Path, names: Collection[str] | None) -> None:
    """Remove what killed processes left of files and folders; nobody may be writing now.

    Parameters
    ----------
    parent
        Where they were being written.
    names
        What they would have been called. None: anything, in a folder that holds nothing else.
    """
    for place in (Path(parent), *(Path(parent) / name for name in names or ())):
        for entry in place.iterdir() if place.is_dir() else ():
            if not is_partial(entry.name, names):
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                with suppress(OSError):
                    entry.unlink()


def is_partial(name: str, names: Collection[str] | None) -> bool:
    """Whether an entry is what a killed process left of one of ``names``; None: of anything."""
    left = re.fullmatch(r"\.[0-9a-f]{12}-(.+)", name)
    return left is not None and (names is None or left[1] in {n[-200:] for n in names})


def refuse_file(folder: Path) -> None:
    """Refuse to write a folder where a file is, before anything is computed."""
    if folder.exists() and not folder.is_dir():
        raise SimCroPError(
            "This is a file, and a folder is to be written.",
            path=folder,
            code="not-a-folder",
            remedy="Name another folder.",
        )


def refuse_unwritable(folder: Path) -> None:
    """Refuse a folder that cannot be written, before anything is computed."""
    refuse_file(folder)
    place = folder.absolute()
    there = next(path for path in (place, *place.parents) if os.path.exists(path))
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise SimCroPError(
            "Nothing can be written here.",
            path=there,
            code="cannot-write",
            remedy="Name another folder, or check who may write in this one.",
        )


def refuse_existing(paths: Sequence[Path], *, overwrite: bool) -> None:
    """Refuse to write over what is there already, unless told to; never over a folder."""
    for path in paths:
        if path.is_dir():
            raise SimCroPError(
                "This is a folder, and a file is to be written.",
                path=path,
                code="not-a-file",
                remedy="Name another file.",
            )
        if path.exists() and not overwrite:
            raise SimCroPError(
                "There is a file here already.",
                path=path,
                code="exists",
                remedy="Name another, or allow it with --overwrite.",
            )


def exchange(first: Path, second: Path) -> bool:
    """Swap two folders in one step; False where the system or the file system cannot."""
    names = os.fsencode(first), os.fsencode(second)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        system = platform.system()
        if system == "Linux":
            at_cwd, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
            return int(libc.renameat2(at_cwd, names[0], at_cwd, names[1], swap)) == 0
        if system == "Darwin":
            swap = 2  # RENAME_SWAP
            return int(libc.renamex_np(names[0], names[1], swap)) == 0
    except (OSError, AttributeError, TypeError):
        return False
    return False


def _put_in_place(hidden: Path, folder: Path, owned: set[str]) -> None:
    if not folder.exists():
        os.rename(hidden, folder)
        return
    written = {entry.name for entry in hidden.iterdir()}
    present = {entry.name for entry in folder.iterdir()} - {hidden.name}
    # A swap would leave whoever stands in the folder in the old, deleted one.
    here = Path.cwd()
    stood_in = folder == here or folder in here.parents
    if present and present <= written | owned and not stood_in and _swapped(hidden, folder):
        return
    # Other entries are to stay: ours change places one by one, and all go back if one fails.
    aside = hidden / f".{secrets.token_hex(6)}"
    aside.mkdir()
    done: list[tuple[Path, Path]] = []
    try:
        for name in sorted(written | owned):
            for source, target in ((folder / name, aside / name), (hidden / name, folder / name)):
                if source.exists():
                    os.rename(source, target)
                    done.append((source, target))
    except BaseException:
        for source, target in reversed(done):
            os.rename(target, source)
        raise


def _swapped(hidden: Path, folder: Path) -> bool:
    """Move the hidden folder out beside ``folder`` and swap the two, where that can be done."""
    beside = folder.with_name(hidden.name)
    try:
        os.rename(hidden, beside)
    except OSError:
        return False  # a mount, or a parent that is not ours to write
    try:
        if exchange(beside, folder):
            return True
    except BaseException:
        os.rename(beside, hidden)
        raise
    os.rename(beside, hidden)
    return False


def _sync(path: Path) -> None:
    """Wait until a file or folder is on the disk itself."""
    if path.is_dir() and os.name == "nt":
        return  # folders cannot be opened there
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
    except OSError as e:
        raise SimCroPError(
            f"It cannot be written ({e.strerror or 'input/output error'}).",
            path=path,
            code="cannot-write",
            remedy="Nothing was left half-written; check that there is room and that you may "
            "write there, or name another place.",
        ) from e
