"""Writes small DICOM series by pydicom alone, for tests that need a known truth."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)
from pydicom.valuerep import format_number_as_ds

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
SYNTAXES = {
    "implicit": ImplicitVRLittleEndian,
    "explicit": ExplicitVRLittleEndian,
    "big-endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
}
#: Compressed syntaxes by gdcm's name of them; RLE is written by pydicom.
GDCM_SYNTAXES = {
    "jpeg-lossless": "JPEGLosslessProcess14",
    "jpeg-lossless-sv1": "JPEGLosslessProcess14_1",
    "jpeg-ls": "JPEGLSLossless",
    "jpeg-2000": "JPEG2000Lossless",
}


def phantom(shape_ZYX: Sequence[int] = (6, 20, 24), seed: int = 0) -> np.ndarray:
    """int16 Hounsfield units that look like a CT and differ in every slice, row and column."""
    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape_ZYX], indexing="ij")
    body = (x / 0.8) ** 2 + (y / 0.6) ** 2 + 0.1 * z < 1
    hu = np.where(body, 40.0, -1000.0) + 60 * x + 30 * y + 20 * z
    return np.rint(hu + rng.normal(0, 15, hu.shape)).clip(-1024, 3000).astype(np.int16)


def slice_positions(
    n: int,
    *,
    spacing: Sequence[float],
    orientation: Sequence[float] = AXIAL,
    origin: Sequence[float] = (0.0, 0.0, 0.0),
    tilt_deg: float = 0.0,
) -> np.ndarray:
    """(n, 3) LPS millimetres; ``spacing[2]`` along the normal, tilted towards the columns."""
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    step = np.cross(row, column) + np.tan(np.radians(tilt_deg)) * column
    return np.array(origin) + np.arange(n)[:, None] * step * spacing[2]


def slice_dataset(
    stored_YX: np.ndarray,
    *,
    position: Sequence[float],
    spacing: Sequence[float],
    orientation: Sequence[float],
    slope: float,
    intercept: float,
    number: int,
    uids: Mapping[str, str],
    syntax: Any = ExplicitVRLittleEndian,
) -> Dataset:
    """One CT image with the elements that a CT image has to have."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = CTImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = generate_uid()
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.Modality = "CT"
    ds.PatientName, ds.PatientID = "Nobody", "0"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = uids["study"], uids["series"]
    ds.FrameOfReferenceUID = uids["frame"]
    ds.SeriesNumber, ds.AcquisitionNumber, ds.InstanceNumber = 3, 1, number
    ds.SliceThickness = f"{spacing[2]:.6g}"
    ds.ImagePositionPatient = [format_number_as_ds(float(v)) for v in position]
    ds.ImageOrientationPatient = [format_number_as_ds(float(v)) for v in orientation]
    ds.PixelSpacing = [format_number_as_ds(float(v)) for v in (spacing[1], spacing[0])]
    ds.Rows, ds.Columns = stored_YX.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 8 * stored_YX.dtype.itemsize
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(stored_YX.dtype.kind == "i")
    ds.RescaleSlope, ds.RescaleIntercept = f"{slope:.10g}", f"{intercept:.10g}"
    ds.RescaleType = "HU"
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    ds.PixelData = stored_YX.astype(stored_YX.dtype.newbyteorder(order)).tobytes()
    ds["PixelData"].VR = "OW" if stored_YX.dtype.itemsize > 1 else "OB"
    return ds


def write_series(
    folder: Path,
    hu_ZYX: np.ndarray,
    *,
    spacing: Sequence[float] = (0.8, 0.7, 2.5),
    orientation: Sequence[float] = AXIAL,
    origin: Sequence[float] = (-9.0, 5.0, -120.0),
    tilt_deg: float = 0.0,
    positions: np.ndarray | None = None,
    slope: float = 1.0,
    intercept: float = -1024.0,
    dtype: Any = np.uint16,
    transfer_syntax: str = "explicit",
    shuffle_names: bool = True,
    tags: Mapping[str, Any] | None = None,
    edit: Callable[[int, Dataset], None] | None = None,
    prefix: str = "slice",
) -> list[Path]:
    """A series in ``folder``; returns its files from the first slice of the array to the last.

    ``tags`` sets elements of every slice by keyword (None deletes); ``edit(index, dataset)``
    changes single ones before they are written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    n = len(hu_ZYX)
    if positions is None:
        positions = slice_positions(
            n, spacing=spacing, orientation=orientation, origin=origin, tilt_deg=tilt_deg
        )
    names = list(range(n))
    if shuffle_names:
        np.random.default_rng(n).shuffle(names)
    uids = {"study": generate_uid(), "series": generate_uid(), "frame": generate_uid()}
    files = []
    for k in range(n):
        ds = slice_dataset(
            np.rint((hu_ZYX[k].astype(np.float64) - intercept) / slope).astype(dtype),
            position=positions[k],
            spacing=spacing,
            orientation=orientation,
            slope=slope,
            intercept=intercept,
            number=names[k] + 1,
            uids=uids,
            syntax=SYNTAXES.get(transfer_syntax, ExplicitVRLittleEndian),
        )
        for name, value in (tags or {}).items():
            if value is None:
                delattr(ds, name)
            else:
                setattr(ds, name, value)
        if edit is not None:
            edit(k, ds)
        files.append(folder / f"{prefix}{names[k]:04d}.dcm")
        save(ds, files[-1], transfer_syntax)
    return files


def save(ds: Dataset, path: Path, transfer_syntax: str = "explicit") -> None:
    if transfer_syntax == "rle":
        ds.compress(RLELossless)
    ds.save_as(path, enforce_file_format=True)
    if transfer_syntax in GDCM_SYNTAXES:
        transcode(path, GDCM_SYNTAXES[transfer_syntax])


def transcode(path: Path, syntax: str) -> None:
    """Compress a file in place; ``syntax`` as gdcm names it."""
    import gdcm

    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


def encoded_frames(frames: np.ndarray, folder: Path, transfer_syntax: str) -> bytes:
    """uint16 frames as the compressed, encapsulated pixels of one file."""
    from pydicom.encaps import encapsulate, generate_frames

    encoded = []
    hu = frames.astype(np.int32)
    for file in write_series(folder, hu, intercept=0, transfer_syntax=transfer_syntax):
        encoded += generate_frames(pydicom.dcmread(file).PixelData, number_of_frames=1)
    return encapsulate(encoded)


def write_enhanced(
    path: Path,
    hu_ZYX: np.ndarray,
    *,
    spacing: Sequence[float] = (0.8, 0.7, 2.5),
    orientation: Sequence[float] = AXIAL,
    origin: Sequence[float] = (-9.0, 5.0, -120.0),
    order: Sequence[int] | None = None,
    intercepts: Sequence[float] | None = None,
    transfer_syntax: str = "explicit",
    edit: Callable[[Dataset], None] | None = None,
) -> None:
    """One Enhanced CT file; frames stored in ``order``, each with its own intercept."""
    n = len(hu_ZYX)
    positions = slice_positions(n, spacing=spacing, orientation=orientation, origin=origin)
    order = list(range(n)) if order is None else list(order)
    intercepts = [-1024.0] * n if intercepts is None else list(intercepts)
    stored = np.stack([hu_ZYX[k].astype(np.int32) - int(intercepts[k]) for k in order])
    ds = slice_dataset(
        stored[0].astype(np.uint16),
        position=positions[0],
        spacing=spacing,
        orientation=orientation,
        slope=1,
        intercept=0,
        number=1,
        uids={"study": generate_uid(), "series": generate_uid(), "frame": generate_uid()},
        syntax=SYNTAXES.get(transfer_syntax, ExplicitVRLittleEndian),
    )
    for name in (
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "RescaleSlope",
        "RescaleIntercept",
        "RescaleType",
        "SliceThickness",
    ):
        delattr(ds, name)
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = EnhancedCTImageStorage
    ds.NumberOfFrames = n
    ds.PixelData = stored.astype("<u2").tobytes()
    shared = Dataset()
    shared.PlaneOrientationSequence = [Dataset()]
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = list(orientation)
    shared.PixelMeasuresSequence = [Dataset()]
    shared.PixelMeasuresSequence[0].PixelSpacing = [spacing[1], spacing[0]]
    shared.PixelMeasuresSequence[0].SliceThickness = spacing[2]
    ds.SharedFunctionalGroupsSequence = [shared]
    items = []
    for k in order:
        item = Dataset()
        item.PlanePositionSequence = [Dataset()]
        item.PlanePositionSequence[0].ImagePositionPatient = [f"{v:.10g}" for v in positions[k]]
        item.PixelValueTransformationSequence = [Dataset()]
        rescale = item.PixelValueTransformationSequence[0]
        rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = 1, intercepts[k], "HU"
        item.FrameContentSequence = [Dataset()]
        item.FrameContentSequence[0].FrameAcquisitionNumber = 1
        items.append(item)
    ds.PerFrameFunctionalGroupsSequence = items
    if transfer_syntax in GDCM_SYNTAXES:
        ds.PixelData = encoded_frames(stored, path.parent / "single", transfer_syntax)
        ds["PixelData"].is_undefined_length = True
        sample = next((path.parent / "single").iterdir())
        ds.file_meta.TransferSyntaxUID = pydicom.dcmread(sample).file_meta.TransferSyntaxUID
        shutil.rmtree(path.parent / "single")
        transfer_syntax = "as it is"
    if edit is not None:
        edit(ds)
    save(ds, path, transfer_syntax)


# -- privacy ------------------------------------------------------------------------------------

CANARY = "CANARYBIRD"
TEXT = {"AE", "AS", "CS", "DA", "DT", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UR", "UT"}
#: Text that decides whether and how the images are read.
NEEDED = {
    "SpecificCharacterSet",
    "Modality",
    "PhotometricInterpretation",
    "LossyImageCompression",
}


def plant(ds: Dataset) -> int:
    """The canary in every text element of the standard dictionary that is not needed to read."""
    planted = 0
    for tag, (vr, _, _, retired, keyword) in DicomDictionary.items():
        group = tag >> 16
        if vr not in TEXT or not keyword or keyword in NEEDED or group < 8 or retired:
            continue
        if group % 2 or group in (0x5400, 0x7FE0):
            continue
        ds[tag] = pydicom.DataElement(tag, "LO", CANARY)  # their own types would not take it
        planted += 1
    block = ds.private_block(0x0011, CANARY, create=True)
    block.add_new(1, "LO", CANARY)
    item = Dataset()
    item.PatientName = CANARY
    ds.RequestAttributesSequence = [item]
    return planted
