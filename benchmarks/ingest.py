"""File to model input, against MONAI's transforms on the same file in the same run.

Run: python benchmarks/ingest.py [--rounds 3] [--json PATH]

Three files of a scan are made: a .nii.gz with the noise of a real scan, a .nii.gz without noise
(unpacking takes most of the reading, and depends on the noise), and an uncompressed DICOM series.
Each round reads and prepares all with every library in turn; medians are compared. SimCroP reads
to the gzip checksum; in one go (`read_and_prepare`), and in two steps (`read_volume`, `prepare`)
for comparison. SimpleITK (read and resample only, no windowing) is a second yardstick.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

SHAPE = (512, 512, 300)
SPACING_MM = (0.74, 0.74, 1.12)


def make_scan(noise: bool = True) -> np.ndarray:
    """HU of the sample study at a clinical scan's resolution, (X, Y, Z).

    With a CT's noise and a constant outside the round field of view, it compresses to about 0.45
    of its size, as real chest CTs do: unpacking is a large part of reading.
    """
    from scipy.ndimage import zoom

    from simcrop_core.sample import sample_study

    small = sample_study().volume.hu_XYZ.astype(np.float32)
    if not noise:
        small = np.rint(small / 150) * 150
    factors = [n / m for n, m in zip(SHAPE, small.shape, strict=True)]
    hu = zoom(small, factors, order=1)[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    if noise:
        hu += np.random.default_rng(0).normal(0, 12, hu.shape).astype(np.float32)
    x, y = (np.arange(n) - (n - 1) / 2 for n in SHAPE[:2])
    hu[x[:, None] ** 2 + y[None, :] ** 2 > (SHAPE[0] / 2) ** 2] = -1024
    return np.clip(np.rint(hu), -1024, 3071).astype(np.int16)


def write_nifti(hu_XYZ: np.ndarray, path: Path) -> None:
    import nibabel as nib

    affine = np.diag([-SPACING_MM[0], -SPACING_MM[1], SPACING_MM[2], 1.0])
    nib.save(nib.Nifti1Image(hu_XYZ, affine), path)


def write_dicom(hu_XYZ: np.ndarray, folder: Path) -> None:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    folder.mkdir()
    series, study, frame = generate_uid(), generate_uid(), generate_uid()
    for z in range(SHAPE[2]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        slice_ = Dataset()
        slice_.file_meta = meta
        slice_.SOPClassUID, slice_.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        slice_.StudyInstanceUID, slice_.SeriesInstanceUID = study, series
        slice_.FrameOfReferenceUID = frame
        slice_.Modality, slice_.InstanceNumber = "CT", z + 1
        slice_.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        slice_.ImagePositionPatient = [-190, -190, round(z * SPACING_MM[2], 3)]
        slice_.PixelSpacing = list(SPACING_MM[:2])
        slice_.SliceThickness = SPACING_MM[2]
        slice_.Rows, slice_.Columns = SHAPE[1], SHAPE[0]
        slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
        slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit = 16, 16, 15
        slice_.PixelRepresentation = 0
        slice_.RescaleSlope, slice_.RescaleIntercept = 1, -1024
        slice_.PixelData = (hu_XYZ[:, :, z].T + 1024).astype("<u2").tobytes()
        slice_.save_as(folder / f"{z:04d}.dcm", enforce_file_format=True)


def ours(path: Path) -> np.ndarray:
    from simcrop_core import read_and_prepare

    return read_and_prepare(path)[1].input_1HWD[0].numpy()


def ours_in_two_steps(path: Path) -> np.ndarray:
    from simcrop_core import prepare, read_volume

    return prepare(read_volume(path)).input_1HWD[0].numpy()


def monai(path: Path) -> np.ndarray:
    from monai.transforms import (
        Compose,
        LoadImage,
        Orientation,
        ResizeWithPadOrCrop,
        ScaleIntensityRange,
        Spacing,
    )

    reader = "PydicomReader" if path.is_dir() else None
    steps = Compose(
        [
            LoadImage(reader=reader, image_only=True, ensure_channel_first=True),
            Orientation(axcodes="LPS", labels=None),
            Spacing(pixdim=(1.5, 1.5, 3.0), mode="bilinear"),
            ScaleIntensityRange(a_min=-1000, a_max=1000, b_min=-1, b_max=1, clip=True),
            ResizeWithPadOrCrop((224, 224, 112), value=-1),
        ]
    )
    return steps(str(path))[0].numpy()


def simpleitk(path: Path) -> np.ndarray:
    import SimpleITK as sitk  # noqa: N813 (the name its users know)

    if path.is_dir():
        names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(path))
        image = sitk.ReadImage(names)
    else:
        image = sitk.ReadImage(str(path))
    shape, spacing = np.array([224, 224, 112]), np.array([1.5, 1.5, 3.0])
    size = np.array(image.GetSize())
    direction = np.array(image.GetDirection()).reshape(3, 3)
    center = np.array(image.TransformContinuousIndexToPhysicalPoint(((size - 1) / 2).tolist()))
    resampled = sitk.Resample(
        image,
        shape.tolist(),
        sitk.Transform(),
        sitk.sitkLinear,
        (center - direction @ ((shape - 1) / 2 * spacing)).tolist(),
        spacing.tolist(),
        image.GetDirection(),
        -1000.0,
        sitk.sitkFloat32,
    )
    return sitk.GetArrayFromImage(resampled)


LIBRARIES: dict[str, Callable[[Path], np.ndarray]] = {
    "simcrop": ours,
    "simcrop, in two steps": ours_in_two_steps,
    "monai": monai,
    "simpleitk": simpleitk,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", metavar="PATH", help="write the figures here")
    arguments = parser.parse_args()
    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        hu = make_scan()
        files = {
            "nii.gz, noisy": Path(folder) / "noisy.nii.gz",
            "nii.gz, smooth": Path(folder) / "smooth.nii.gz",
            "DICOM series": Path(folder) / "dicom",
        }
        write_nifti(hu, files["nii.gz, noisy"])
        write_nifti(make_scan(noise=False), files["nii.gz, smooth"])
        write_dicom(hu, files["DICOM series"])
        del hu
        for kind, path in files.items():
            times: dict[str, list[float]] = {name: [] for name in LIBRARIES}
            for _ in range(arguments.rounds + 1):  # the first round warms caches and imports
                for name, read in LIBRARIES.items():
                    start = time.perf_counter()
                    read(path)
                    times[name].append(time.perf_counter() - start)
            medians = {name: statistics.median(t[1:]) for name, t in times.items()}
            medians["monai_over_simcrop"] = medians["monai"] / medians["simcrop"]
            medians["simpleitk_over_simcrop"] = medians["simpleitk"] / medians["simcrop"]
            results[kind] = {name: round(value, 3) for name, value in medians.items()}
        packed = {
            kind: path.stat().st_size / (np.prod(SHAPE) * 2)
            for kind, path in files.items()
            if path.is_file()
        }
    print(f"512 x 512 x 300 to 224 x 224 x 112, {os.cpu_count()} cores, seconds (median)")
    for kind, share in packed.items():
        print(f"{kind} is {share:.2f} of its unpacked size")
    for kind, figures in results.items():
        print(
            f"{kind:15s} simcrop {figures['simcrop']:.2f} "
            f"(in two steps {figures['simcrop, in two steps']:.2f})  monai {figures['monai']:.2f} "
            f"({figures['monai_over_simcrop']:.1f} x)  simpleitk {figures['simpleitk']:.2f} "
            f"({figures['simpleitk_over_simcrop']:.1f} x)"
        )
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
