"""Labels as a DICOM Segmentation (SEG): a frame for each label on each slice of the scan it
has a voxel in.

Only a scan that came as single DICOM images can have one: a SEG lies on their slices, refers to
each of them, and belongs to the same patient and study, whose names it repeats from them.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from importlib import metadata
from os import PathLike
from os import path as paths
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcrop_core.errors import SimCroPError
from simcrop_core.geometry import Grid
from simcrop_core.io.dicom import slices_of
from simcrop_core.io.dicom_geometry import StackPlan
from simcrop_core.io.dicom_header import Frame, damaged
from simcrop_core.io.labels import labels_on
from simcrop_core.outputs import whole_file

#: The suffix by which a name asks for this format.
SEG_SUFFIX = ".dcm"
_MOST_LETTERS = 64  # of a DICOM LO value
_ORGAN, _ABNORMAL, _ANY = "AnatomicalStructure", "MorphologicallyAbnormalStructure", "Tissue"
#: A word in a structure's name -> SNOMED CT keywords of its category and of what it is; the first
#: that is found wins. What is not listed is tissue, and its label says the rest.
_WORDS: tuple[tuple[str, str, str], ...] = (
    ("pleural effusion", "BodySubstance", "PleuralEffusion"),
    ("pericardial effusion", "BodySubstance", "PericardialEffusion"),
    ("nodule", _ABNORMAL, "Nodule"),
    ("lung", _ORGAN, "Lung"),
    ("airway", _ORGAN, "AirwayStructure"),
    ("trachea", _ORGAN, "Trachea"),
    ("heart", _ORGAN, "Heart"),
    ("aorta", _ORGAN, "Aorta"),
    ("spine", _ORGAN, "Spine"),
    ("rib", _ORGAN, "Rib"),
    ("liver", _ORGAN, "Liver"),
    ("spleen", _ORGAN, "Spleen"),
    ("adrenal", _ORGAN, "AdrenalGland"),
    ("kidney", _ORGAN, "Kidney"),
    ("gallbladder", _ORGAN, "Gallbladder"),
    ("esophagus", _ORGAN, "Esophagus"),
    ("stomach", _ORGAN, "Stomach"),
    ("vena cava", _ORGAN, "InferiorVenaCava"),
    ("pancreas", _ORGAN, "Pancreas"),
)


def write_seg(
    path: str | PathLike[str],
    labels_XYZ: NDArray[Any],
    grid: Grid,
    names: Mapping[int, str],
    source: str | PathLike[str],
    *,
    series: str | None = None,
    model: str | None = None,
    resample: bool = False,
) -> None:
    """Write a mask as a binary DICOM SEG on the slices of the scan it belongs to.

    Segments are numbered from 1 in the order of their labels, as DICOM wants it. An existing file
    is replaced once the new one is whole.

    Parameters
    ----------
    path
        A name that ends in ``.dcm``.
    labels_XYZ
        Whole numbers from 0, or booleans; 0 is background.
    grid
        Their geometry: the scan's voxels, in any order of axes.
    names
        What the numbers mean; each becomes a segment, also one without a voxel. A number that has
        no name is called ``label 7``.
    source, series
        The DICOM folder or file that was read as the scan, and which series of it (`read_volume`).
    model
        The name of the model that found them; None where a person drew them.
    resample
        Whether labels on other voxels are brought to the scan's (nearest neighbour).

    Raises
    ------
    SimCroPError
        ``suffix``; what `seg_slices` says of the source; ``bad-headers``: they lack what a SEG
        repeats; ``mask-mismatch`` and ``mask-elsewhere``; ``no-labels``: there is nothing to
        write; ``same-file``; ``cannot-write``.
    """
    file, place = Path(path), Path(source)
    check_seg_name(file)
    labels = np.asarray(labels_XYZ)
    if labels.dtype.kind not in "iub":
        raise TypeError(f"Labels are whole numbers, not {labels.dtype}.")
    plan, frames = seg_slices(place, series=series)
    if any(file.exists() and paths.samefile(file, frame.path) for frame in frames):
        raise SimCroPError(
            "The labels would take the place of a slice of the scan",
            code="same-file",
            remedy="Choose another name",
            path=file,
        )
    segments_ZYX, titles = _numbered(
        labels_on(plan.grid, labels, grid, resample=resample, path=file), names, file
    )
    images = [_header(frame) for frame in frames]
    dataset = _dataset(images, segments_ZYX, titles, model, place)
    with whole_file(file) as hidden:
        dataset.save_as(hidden)


def check_seg_name(path: Path) -> None:
    """Refuse a name that does not end as a DICOM file's.

    Raises
    ------
    SimCroPError
        ``suffix``.
    """
    if not path.name.lower().endswith(SEG_SUFFIX) or len(path.name) == len(SEG_SUFFIX):
        raise SimCroPError(
            f"The name must end in {SEG_SUFFIX}",
            code="suffix",
            remedy="Choose such a name",
            path=path,
        )


def seg_slices(
    source: str | PathLike[str], *, series: str | None = None
) -> tuple[StackPlan, list[Frame]]:
    """How a scan's slices lie, and the image of each, if a SEG can lie on them.

    Raises
    ------
    SimCroPError
        ``no-slices``: the scan is no DICOM, or its slices are no images of their own; else what
        `read_volume` says of the source.
    """
    place = Path(source)
    try:
        plan = slices_of(place, series=series)
    except SimCroPError as e:
        if e.code != "not-dicom":
            raise
        raise _no_slices("The scan did not come as DICOM", place) from e
    frames = [plan.frames[lower] for lower, _ in plan.taps]
    if any(weight for _, weight in plan.taps):
        raise _no_slices("The scan's slices lie between its images", place)
    if any(f.pixels is None or f.pixels.frames > 1 for f in frames):
        raise _no_slices("The scan is one file with many images", place)
    return plan, frames


def _no_slices(why: str, path: Path) -> SimCroPError:
    return SimCroPError(
        f"{why}, and a DICOM SEG needs a file for each slice",
        code="no-slices",
        remedy="Write NIfTI (.nii.gz) instead",
        path=path,
    )


def _numbered(
    labels_XYZ: NDArray[Any], names: Mapping[int, str], path: Path
) -> tuple[NDArray[np.unsignedinteger[Any]], list[str]]:
    """Labels numbered 1, 2, ... without gaps, ``(Z, Y, X)``, and what each is called.

    Raises
    ------
    SimCroPError
        ``no-labels``.
    """
    planes_ZYX = labels_XYZ.transpose(2, 1, 0)
    present = {int(label) for plane in planes_ZYX for label in np.unique(plane)}
    if min(present) < 0:
        raise ValueError("Labels are not negative.")
    if present == {0}:
        raise SimCroPError(
            "There is no labelled voxel to write",
            code="no-labels",
            remedy="Draw or compute labels first",
            path=path,
        )
    known = sorted(label for label in present | set(names) if label > 0)
    table = np.array([0, *known])
    segments = np.empty(planes_ZYX.shape, np.uint8 if len(known) < 2**8 else np.uint16)
    for segment, plane in zip(segments, planes_ZYX, strict=True):
        segment[:] = np.searchsorted(table, plane)
    return segments, [_title(names.get(n, ""), n) for n in known]


def _title(name: str, label: int) -> str:
    """A name as DICOM takes it."""
    kept = "".join(c if c.isprintable() and c != "\\" else " " for c in name)
    return " ".join(kept.split())[:_MOST_LETTERS].strip() or f"label {label}"


def _header(frame: Frame) -> Any:
    """A slice's elements without its pixels; those that a SEG must repeat are there, if empty."""
    import pydicom

    try:
        header = pydicom.dcmread(frame.path, stop_before_pixels=True, force=True)
        header.decode()
    except Exception as e:  # pydicom raises what its parts do
        raise damaged(frame.path, "The header of this slice cannot be read as a whole") from e
    for keyword in (
        "PatientID PatientName PatientBirthDate PatientSex StudyID StudyDate StudyTime "
        "AccessionNumber ReferringPhysicianName"
    ).split():
        if keyword not in header:
            setattr(header, keyword, None)
    return header


def _dataset(
    images: Sequence[Any],
    segments_ZYX: NDArray[np.unsignedinteger[Any]],
    titles: Sequence[str],
    model: str | None,
    path: Path,
) -> Any:
    from highdicom.seg import Segmentation
    from pydicom.uid import generate_uid

    number = int(getattr(images[0], "SeriesNumber", None) or 0)
    try:
        with warnings.catch_warnings():
            # Of names that are no names, as they are in scans without identity.
            warnings.simplefilter("ignore")
            dataset = Segmentation(
                source_images=images,
                pixel_array=segments_ZYX,
                segmentation_type="BINARY",
                segment_descriptions=[
                    _description(n, title, model) for n, title in enumerate(titles, start=1)
                ],
                series_instance_uid=generate_uid(),
                series_number=max(1, min(number + 1000, 2**31 - 1)),
                sop_instance_uid=generate_uid(),
                instance_number=1,
                manufacturer="SimCroP Viewer",
                manufacturer_model_name="SimCroP Viewer",
                software_versions=_version(),
                device_serial_number="0",
                content_description="Labels of a chest CT",
                content_label="LABELS",
                series_description="Segmentation",
            )
            dataset.SpecificCharacterSet = "ISO_IR 192"  # names may be of any script
            return dataset
    except (AttributeError, KeyError, TypeError, ValueError) as e:
        raise SimCroPError(
            "The headers of the scan lack what a DICOM SEG must repeat from them",
            code="bad-headers",
            remedy="Write NIfTI (.nii.gz) instead, or export the series again",
            path=path,
        ) from e


def _version() -> str:
    try:
        return metadata.version("simcrop-viewer")
    except metadata.PackageNotFoundError:  # run from its sources
        return "unknown"


def _description(number: int, title: str, model: str | None) -> Any:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentDescription
    from pydicom.sr.codedict import codes

    folded = title.casefold()
    category, kind = next(((c, k) for word, c, k in _WORDS if word in folded), (_ANY, _ANY))
    found = None
    if model is not None:
        found = AlgorithmIdentificationSequence(
            name=_title(model, number), family=codes.DCM.ArtificialIntelligence, version=_version()
        )
    return SegmentDescription(
        segment_number=number,
        segment_label=title,
        segmented_property_category=getattr(codes.SCT, category),
        segmented_property_type=getattr(codes.SCT, kind),
        algorithm_type="MANUAL" if model is None else "AUTOMATIC",
        algorithm_identification=found,
    )
