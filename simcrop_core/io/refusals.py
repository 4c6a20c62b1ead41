"""The refusals that several readers share."""

from __future__ import annotations

from pathlib import Path

from simcrop_core.errors import SimCroPError


def truncated(path: Path) -> SimCroPError:
    return SimCroPError(
        "The file ends before its last voxel: it is cut short",
        code="truncated",
        remedy="Copy or export the file again",
        path=path,
    )


def damaged(path: Path) -> SimCroPError:
    return SimCroPError(
        "The file's contents do not fit its checksum or its structure: it is damaged",
        code="damaged",
        remedy="Copy or export the file again",
        path=path,
    )


def damaged_header(why: str, path: Path) -> SimCroPError:
    """``why`` continues the sentence: "it has no field 'sizes'"."""
    return SimCroPError(
        f"The file's header is damaged or not supported: {why}",
        code="damaged-header",
        remedy="Copy or export the file again",
        path=path,
    )


def not_a_volume(why: str, path: Path) -> SimCroPError:
    """``why`` is the sentence."""
    return SimCroPError(
        why,
        code="not-a-volume",
        remedy="Choose a file that holds the whole scan: NIfTI, DICOM, NRRD, MetaImage or .npz",
        path=path,
    )


def several_volumes(sizes: tuple[int, ...], path: Path) -> SimCroPError:
    """Four axes and more, and colour."""
    return SimCroPError(
        f"The file holds {' x '.join(map(str, sizes))} values: several volumes, or several values "
        "a voxel",
        code="several-volumes",
        remedy="Export the one volume you want to read",
        path=path,
    )
