"""One function that reads a CT, whatever it is stored as."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike, scandir
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from simcrop_core.errors import SimCroPError
from simcrop_core.io.checks import finish
from simcrop_core.io.guard import Limits, reading
from simcrop_core.io.hounsfield import Stored
from simcrop_core.io.metaimage import read_metaimage
from simcrop_core.io.nifti import read_nifti
from simcrop_core.io.npz import read_npz
from simcrop_core.io.nrrd import read_nrrd
from simcrop_core.io.payload import Observer
from simcrop_core.io.sniff import Sniffed, sniff
from simcrop_core.io.stated import Stated, option_refused
from simcrop_core.volume import CTVolume, Note

if TYPE_CHECKING:
    from simcrop_core.io.dicom_series import SeriesInfo


def read_volume(
    path: str | PathLike[str],
    *,
    spacing_mm: tuple[float, float, float] | None = None,
    axcodes: str | None = None,
    rescale: tuple[float, float] | None = None,
    series: str | None = None,
    fill_gaps: bool = False,
    allow_missing_geometry: bool = False,
    allow_any_modality: bool = False,
    limits: Limits | None = None,
    observer: Observer | None = None,
) -> CTVolume:
    """Read a CT in Hounsfield units: NIfTI, a DICOM series, NRRD, MetaImage or .npz.

    The file's first bytes decide what it is. The array keeps the axes of the file (of a DICOM
    series: columns, rows, slices); the grid says where they lie in the patient.

    Parameters
    ----------
    path
        A file; or a folder that holds DICOM, or exactly one file of another format.
    spacing_mm, axcodes
        Geometry that the file lacks: millimetres and body directions (``"LPS"``) along the
        array's axes as stored. An .npz file needs both; NIfTI, NRRD and MetaImage take them
        only together with ``allow_missing_geometry``.
    rescale
        ``(slope, intercept)`` from stored values to Hounsfield units, in place of the file's
        own. Not for DICOM, where they belong to each slice.
    series
        DICOM only: which series, where a folder holds several: an id from `list_series`, or the
        full SeriesInstanceUID.
    fill_gaps
        DICOM only: interpolate missing slices, with a Note.
    allow_missing_geometry
        NIfTI, NRRD, MetaImage: read a file that does not say how the patient lies in it. What
        is not stated is assumed (axes to R, A and S), with a Note.
    allow_any_modality
        Read what does not look like CT, with a Note.
    limits
        The largest volume that is read; `Limits()` by default.
    observer
        Told, from another thread, of the voxels that are there already while the rest is
        unpacked; what it sees is the volume's own array. Not of every file: NIfTI, NRRD and
        MetaImage whose voxels are stored as int16 Hounsfield units.

    Returns
    -------
    CTVolume
        With a Note for every decision that was made on the way.

    Raises
    ------
    SimCroPError
        For everything else: what is wrong with which file, and what to do.
    """
    file = Path(path)
    stated = Stated(
        spacing_mm=spacing_mm,
        axcodes=axcodes,
        rescale=rescale,
        allow_missing_geometry=allow_missing_geometry,
        allow_any_modality=allow_any_modality,
        limits=limits or Limits(),
    )
    notes: list[Note] = []
    with reading(file):
        folder = file.is_dir()
    if folder:
        inside = _only_volume(file)
        if inside is None:
            return _read_dicom(file, stated, series, fill_gaps)
        notes.append(Note("file-in-folder", "The folder's only volume was read"))
        file = inside
    found = sniff(file)
    if found.name_says:
        notes.append(
            Note("misnamed", f"The name says {found.name_says}, but this is {_kind(found)}")
        )
    if found.format == "DICOM":
        return _read_dicom(file, stated, series, fill_gaps).with_notes(notes)
    for name, given in (("series", series is not None), ("fill_gaps", fill_gaps)):
        if given:
            raise option_refused(name, "only DICOM has series and single slices", file)
    with np.errstate(all="ignore"):  # impossible numbers are refused below, in a sentence
        volume = finish(
            read_stored(file, found, stated, observer),
            source=file,
            format=found.format,
            allow_any_modality=allow_any_modality,
        )
    return volume.with_notes(notes)


def series_to_choose(path: str | PathLike[str]) -> tuple[SeriesInfo, ...]:
    """The CT series in a DICOM folder among which a person may want to choose, the largest first.

    Scouts, single images, series of other modalities and such without places do not count. Empty
    where reading the folder leaves no choice.

    Raises
    ------
    SimCroPError
        As `list_series` does.
    """
    folder = Path(path)
    with reading(folder):
        if not folder.is_dir() or _only_volume(folder) is not None:
            return ()
    from simcrop_core.io.dicom import list_series

    found = [
        series
        for series in list_series(folder)
        if series.modality == "CT"
        and not series.is_localizer
        and series.plane != "unknown"
        and series.n_slices > 1
    ]
    return tuple(found) if len(found) > 1 else ()


def read_stored(
    path: Path, found: Sniffed, stated: Stated, observer: Observer | None = None
) -> Stored:
    """What a file of any format but DICOM holds, not yet judged to be a CT.

    Raises
    ------
    SimCroPError
        For every fault of the file.
    """
    if found.format == "NIfTI":
        return read_nifti(path, found.compression, stated, observer)
    if found.format == "NPZ":
        return read_npz(path, stated)
    return _READERS[found.format](path, stated, observer)


_READERS: dict[str, Callable[[Path, Stated, Observer | None], Stored]] = {
    "NRRD": read_nrrd,
    "MetaImage": read_metaimage,
}


def _read_dicom(path: Path, stated: Stated, series: str | None, fill_gaps: bool) -> CTVolume:
    for name in ("spacing_mm", "axcodes", "rescale"):
        if getattr(stated, name) is not None:
            raise option_refused(name, "DICOM says it for every slice", path)
    if stated.allow_missing_geometry:
        raise option_refused(
            "allow_missing_geometry", "DICOM without positions cannot be put in order", path
        )
    from simcrop_core.io.dicom import read_dicom

    return read_dicom(
        path,
        series=series,
        fill_gaps=fill_gaps,
        allow_any_modality=stated.allow_any_modality,
        limits=stated.limits,
    )


def _only_volume(folder: Path) -> Path | None:
    """The one file in a folder that is a volume of another format than DICOM.

    None where the folder holds DICOM (a first such file decides) or nothing known: the DICOM
    reader then says what it finds, in subfolders too.

    Raises
    ------
    SimCroPError
        ``several-volumes``: the folder holds more than one.
    """
    with reading(folder), scandir(folder) as entries:
        files = sorted(Path(e.path) for e in entries if e.is_file() and not e.name.startswith("."))
    volumes = []
    for file in files:
        try:
            format = sniff(file).format
        except SimCroPError:
            continue  # a licence, a report, a picture; or damage, which the others outlive
        if format == "DICOM":
            return None
        volumes.append(file)
    if len(volumes) > 1:
        names = ", ".join(repr(v.name) for v in volumes[:3])
        raise SimCroPError(
            f"The folder holds {len(volumes)} volumes ({names}{', ...' * (len(volumes) > 3)})",
            code="several-volumes",
            remedy="Choose one of the files",
            path=folder,
        )
    return volumes[0] if volumes else None


def _kind(found: Sniffed) -> str:
    return f"a {'packed ' if found.compression == 'gzip' else 'plain '}{found.format} file"
