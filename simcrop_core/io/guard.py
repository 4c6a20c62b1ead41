"""What a file may ask for before anything is allocated: limits, and the plain faults of a path."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path

from simcrop_core.errors import SimCroPError

#: The most that one byte can become when it is unpacked. Deflate spends at least two bits on a
#: run of 258 bytes (RFC 1951), which bounds gzip and zlib at 1032; a bzip2 block of some 40 bytes
#: can hold 900,000 bytes that are themselves runs of up to 255 in five.
MOST_BYTES_FROM_ONE = {"raw": 1, "gzip": 1032, "zlib": 1032, "deflate": 1032, "bzip2": 1_200_000}


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest volume that is read.

    Attributes
    ----------
    max_voxels
        Voxels in the array. The default takes 512 x 512 x 4096.
    max_bytes
        Bytes of the voxels as the file stores them, once unpacked.
    """

    max_voxels: int = 2**30
    max_bytes: int = 2**33

    def __post_init__(self) -> None:
        if self.max_voxels < 1 or self.max_bytes < 1:
            raise ValueError("Limits must be positive.")

    def check(self, shape: Sequence[int], bytes_per_voxel: float, path: Path) -> int:
        """Bytes that ``shape`` needs, after checking that it is a volume within the limits.

        Raises
        ------
        SimCroPError
            ``not-a-volume`` where a size is not positive, ``too-large`` beyond a limit.
        """
        size = " x ".join(str(n) for n in shape)
        if not shape or min(shape) < 1:
            raise SimCroPError(
                f"The file declares an array of {size or 'no'} voxels",
                code="not-a-volume",
                remedy="Export the scan again",
                path=path,
            )
        voxels = prod(int(n) for n in shape)
        needed = int(voxels * bytes_per_voxel)
        if voxels > self.max_voxels or needed > self.max_bytes:
            raise SimCroPError(
                f"The file declares {size} voxels ({needed / 2**30:.1f} GiB), more than the limit "
                f"of {self.max_voxels} voxels or {self.max_bytes / 2**30:.1f} GiB",
                code="too-large",
                remedy="Crop or resample the scan; from Python, larger limits can be given",
                path=path,
            )
        return needed


def check_held(needed: int, held: int, compression: str, path: Path) -> None:
    """Refuse a payload of ``held`` bytes that cannot unpack to the ``needed`` ones.

    Raises
    ------
    SimCroPError
        ``truncated``: whatever the bytes are, they are too few.
    """
    if held * MOST_BYTES_FROM_ONE[compression] < needed:
        raise SimCroPError(
            f"The file declares {needed} bytes of voxels, and the {held} bytes it has for them "
            "cannot hold so many: it is cut short or damaged",
            code="truncated",
            remedy="Copy or export the file again",
            path=path,
        )


def regular_size(path: Path) -> int:
    """Bytes in a file, after checking that it is one and may be read.

    Raises
    ------
    SimCroPError
        ``missing``, ``no-permission``, ``not-a-file``, ``empty`` or ``unreadable``.
    """
    with reading(path):
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise SimCroPError(
                "This is a folder or a device, not a file",
                code="not-a-file",
                remedy="Choose a file",
                path=path,
            )
        with open(path, "rb"):
            pass
    if status.st_size == 0:
        raise SimCroPError(
            "The file is empty", code="empty", remedy="Copy or export it again", path=path
        )
    return status.st_size


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what the operating system says of ``path`` into one sentence."""
    try:
        yield
    except FileNotFoundError as e:
        raise SimCroPError(
            "There is no such file or folder",
            code="missing",
            remedy="Check the name and that the drive is connected",
            path=path,
        ) from e
    except PermissionError as e:
        raise SimCroPError(
            "You may not read this file",
            code="no-permission",
            remedy="Ask its owner for permission, or copy it to a folder of yours",
            path=path,
        ) from e
    except OSError as e:
        raise SimCroPError(
            f"The file cannot be read ({e.strerror or 'input/output error'})",
            code="unreadable",
            remedy="Check the drive and the connection, and try again",
            path=path,
        ) from e
    except ValueError as e:
        if isinstance(e, SimCroPError) or "null" not in str(e):
            raise
        raise SimCroPError(
            "This is not a possible file name", code="missing", remedy="Check the name"
        ) from e


def beside(header: Path, name: str) -> Path:
    """A data file that a header names: only one in the header's own folder.

    Raises
    ------
    SimCroPError
        ``outside-folder``: the name leads elsewhere, through a path or a link.
    """
    folder = Path(os.path.realpath(header.parent))
    # No path holds a NUL; as a slash it leads out of the folder, and is refused with the rest.
    target = Path(os.path.realpath(folder / name.replace("\0", "/")))
    if target.parent != folder:
        raise SimCroPError(
            "The header names a data file outside of its own folder",
            code="outside-folder",
            remedy="Put the data file beside the header and name it there without a path",
            path=header,
        )
    return target
