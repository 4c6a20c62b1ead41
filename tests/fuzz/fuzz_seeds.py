"""One small whole file of every format that is read, made the same each time."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import math
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fuzz_anatomy
import numpy as np
from fuzz_mutations import Anatomy
from fuzz_readers import VOLUME_NAME

SHAPE = (20, 18, 16)
#: As large as a chest, so that the scan as such gives rise to no note.
AFFINE = np.array([[-14.0, 0, 0, 133], [0, -12.0, 0, 102], [0, 0, 9.0, -700], [0, 0, 0, 1.0]])


@dataclass(frozen=True, slots=True)
class Seed:
    """A whole input of which one file is damaged.

    Attributes
    ----------
    format
        Its row in the tally.
    reader
        What opens it, a name in `fuzz_readers.READERS`.
    folder
        Holds its files and nothing else.
    targets
        The files of which one is damaged at a time.
    opened
        What the reader is given, within the folder; empty for the folder itself.
    anatomy
        Of a target's bytes.
    """

    format: str
    reader: str
    folder: Path
    targets: tuple[str, ...]
    opened: str
    anatomy: Callable[[bytes], Anatomy]
    permissive: str = ""


def chest(seed: int = 0) -> np.ndarray:
    """int16 Hounsfield units: a body with two lungs in air, with noise."""
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    hu = np.full(SHAPE, -1000.0)
    hu[x**2 / 0.8 + y**2 / 0.6 < 1] = 40
    for side in (-0.4, 0.4):
        hu[((x - side) / 0.3) ** 2 + (y / 0.5) ** 2 + (z / 0.9) ** 2 < 1] = -850
    noise = np.random.default_rng(seed).normal(0, 15, SHAPE)
    return np.rint(hu + noise).astype(np.int16)


# -- scans --------------------------------------------------------------------------------------

_NRRD = {
    "type": "short",
    "dimension": "3",
    "space": "left-posterior-superior",
    "sizes": " ".join(map(str, SHAPE)),
    "space directions": "(14,0,0) (0,12,0) (0,0,9)",
    "kinds": "domain domain domain",
    "endian": "little",
    "space origin": "(-133,-102,-700)",
}
_META = {
    "ObjectType": "Image",
    "NDims": "3",
    "BinaryData": "True",
    "BinaryDataByteOrderMSB": "False",
    "TransformMatrix": "1 0 0 0 1 0 0 0 1",
    "Offset": "-133 -102 -700",
    "AnatomicalOrientation": "RAI",
    "ElementSpacing": "14 12 9",
    "DimSize": " ".join(map(str, SHAPE)),
    "ElementType": "MET_SHORT",
}


def _volumes(root: Path, variant: int) -> Iterator[Seed]:
    raw = chest(variant).tobytes("F")

    def seed(
        format: str,
        files: dict[str, bytes],
        anatomy: Callable[[bytes], Anatomy],
        target: str = "",
        reader: str = "volume",
    ) -> Seed:
        folder = _filled(root / format, files)
        opened = next(iter(files))
        permissive = "volume_permissive" if reader == "volume" else ""
        return Seed(format, reader, folder, (target or opened,), opened, anatomy, permissive)

    for version in (1, 2):
        plain = _nifti_bytes(chest(variant), version)
        yield seed(f"NIfTI-{version}", {"ct.nii": plain}, fuzz_anatomy.nifti(version, False))
        packed = gzip.compress(plain, 1, mtime=0)
        yield seed(
            f"NIfTI-{version}, gzip", {"ct.nii.gz": packed}, fuzz_anatomy.nifti(version, True)
        )
    mask = gzip.compress(_nifti_bytes((chest(variant) > -500).astype(np.uint8), 1), mtime=0)
    yield seed(
        "NIfTI mask, gzip", {"mask.nii.gz": mask}, fuzz_anatomy.nifti(1, True), reader="labels"
    )
    for encoding, pack in (("raw", bytes), ("gzip", _gzip), ("bzip2", bz2.compress)):
        head = _lines("NRRD0005\n", {**_NRRD, "encoding": encoding}, ": ") + b"\n"
        name = "NRRD" if encoding == "raw" else f"NRRD, {encoding}"
        anatomy = fuzz_anatomy.text_then(b"\n\n", encoding != "raw")
        yield seed(name, {"ct.nrrd": head + pack(raw)}, anatomy)
    head = _lines("NRRD0005\n", {**_NRRD, "encoding": "gzip", "data file": "ct.raw.gz"}, ": ")
    files = {"ct.nhdr": head, "ct.raw.gz": _gzip(raw)}
    yield seed("NRRD, detached header", files, fuzz_anatomy.text)
    yield seed("NRRD, detached data, gzip", files, fuzz_anatomy.gzipped, "ct.raw.gz")
    for packed, data in ((False, raw), (True, zlib.compress(raw))):
        fields = {**_META, "CompressedData": str(packed)}
        if packed:
            fields["CompressedDataSize"] = str(len(data))
        whole = _lines("", {**fields, "ElementDataFile": "LOCAL"}, " = ") + data
        anatomy = fuzz_anatomy.text_then(b"LOCAL\n", packed)
        yield seed("MetaImage" + ", zlib" * packed, {"ct.mha": whole}, anatomy)
        split = {"ct.mhd": _lines("", {**fields, "ElementDataFile": "ct.raw"}, " = "),
                 "ct.raw": data}  # fmt: skip
        yield seed("MetaImage, detached header" + ", zlib" * packed, split, fuzz_anatomy.text)
    for save, name in ((np.savez, "npz"), (np.savez_compressed, "npz, deflate")):
        made = io.BytesIO()
        save(made, ct=chest(variant))
        yield seed(
            name, {"ct.npz": made.getvalue()}, fuzz_anatomy.zipped(True), reader="stated_volume"
        )


def _nifti_bytes(array: np.ndarray, version: int) -> bytes:
    import nibabel

    image = {1: nibabel.Nifti1Image, 2: nibabel.Nifti2Image}[version](array, AFFINE)
    return bytes(image.to_bytes())


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def _lines(first: str, fields: dict[str, str], between: str) -> bytes:
    return (first + "".join(f"{k}{between}{v}\n" for k, v in fields.items())).encode()


def _filled(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def _series(root: Path, variant: int) -> Iterator[Seed]:
    import dicom_builder

    numbers = iter(range(10**11, 10**12))
    dicom_builder.generate_uid = lambda: f"1.2.826.0.1.3680043.8.498.{next(numbers)}"
    hu = dicom_builder.phantom((5, 20, 24), variant)
    for syntax in ("explicit", "implicit", "big-endian", "deflated", "rle", "jpeg-lossless",
                   "jpeg-ls", "jpeg-2000"):  # fmt: skip
        folder = root / f"DICOM, {syntax}"
        # 240 x 200 x 95 mm.
        files = dicom_builder.write_series(
            folder, hu, spacing=(10.0, 10.0, 19.0), transfer_syntax=syntax, shuffle_names=False
        )
        for file in files:
            _settle(file, next(numbers))
        names = tuple(file.name for file in files)
        anatomy = (
            fuzz_anatomy.unknown if syntax in ("big-endian", "deflated") else fuzz_anatomy.dicom
        )
        yield Seed(folder.name, "volume", folder, names, "", anatomy, "series_permissive")
    folder = root / "DICOM, Enhanced CT"
    folder.mkdir()
    dicom_builder.write_enhanced(folder / "ct.dcm", hu, spacing=(10.0, 10.0, 19.0))
    names = ("ct.dcm",)
    yield Seed(
        folder.name, "volume", folder, names, "ct.dcm", fuzz_anatomy.dicom, "series_permissive"
    )


def _settle(file: Path, number: int) -> None:
    """Take out what compressing put in: a new identity, and the time of day."""
    import pydicom

    dataset = pydicom.dcmread(file)
    dataset.SOPInstanceUID = f"1.2.826.0.1.3680043.8.498.{number}"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.StudyDate, dataset.StudyTime = "20240101", "120000"
    dataset.save_as(file)


# -- reports ------------------------------------------------------------------------------------

_FINDINGS = (
    "The trachea and both main bronchi are open. A nodule of 3.5 mm is seen in the right upper "
    "lobe (Se: 3, Im: 86). No pleural effusion was detected. L4-5. disc height is preserved. "
    "Heart size is normal.No pericardial effusion."
)
_IMPRESSION = "1. Nodule in the right upper lobe. 2. Follow-up in 12 months is recommended."


def _reports(root: Path, variant: int) -> Iterator[Seed]:
    findings = _FINDINGS if variant == 0 else f"The lungs are clear. {_FINDINGS[45:]}"
    text = (
        f"CLINICAL INFORMATION: Cough for 2 weeks, Dr. Öz.\nTECHNIQUE: CT without contrast.\n\n"
        f"FINDINGS: {findings}\n- Mild kyphosis\n- Degenerative changes\n\n"
        f"IMPRESSION: {_IMPRESSION}\n"
    ).encode()
    parts = {"findings": findings, "impression": [_IMPRESSION], "technique": "CT.", "age": 61}
    rows = [[f"train_{n}_a_1.nii.gz", "Not given.", "CT.", findings, _IMPRESSION] for n in (2, 1)]
    names = ["VolumeName", "ClinicalInformation_EN", "Technique_EN", "Findings_EN",
             "Impressions_EN"]  # fmt: skip
    both = f'{findings}""{_IMPRESSION}'
    pairs = [[VOLUME_NAME, both], ["train_2_a_1.nii.gz", _FINDINGS]]
    for format, name, data in (
        ("report, text", "report.txt", text),
        ("report, UTF-16 text", "report.txt", text.decode().encode("utf-16")),
        ("report, JSON", "report.json", json.dumps(parts, indent=1).encode()),
        ("report, csv by sections", "reports.csv", _csv([names, *rows])),
        ("report, csv in one text", "reports.csv", _csv([["AccessionNo", "report_text"], *pairs])),
    ):
        folder = _filled(root / format, {name: data})
        yield Seed(format, "report", folder, (name,), name, fuzz_anatomy.text)
    folder = _filled(root / "report, DICOM SR", {"report.dcm": _structured_report(variant)})
    yield Seed(folder.name, "report", folder, ("report.dcm",), "report.dcm", fuzz_anatomy.dicom)


def _csv(rows: list[list[str]]) -> bytes:
    made = io.StringIO()
    csv.writer(made).writerows(rows)
    return made.getvalue().encode()


def _structured_report(variant: int) -> bytes:
    import pydicom
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    def item(kind: str, concept: str, **values: Any) -> Dataset:
        made, name = Dataset(), Dataset()
        name.CodeValue, name.CodingSchemeDesignator, name.CodeMeaning = "1", "99TEST", concept
        made.RelationshipType, made.ValueType = "CONTAINS", kind
        made.ConceptNameCodeSequence = [name]
        for key, value in values.items():
            setattr(made, key, value)
        return made

    whole = item("CONTAINER", "Chest CT Report")
    del whole.RelationshipType
    whole.ContentSequence = [
        item("CONTAINER", title, ContentSequence=[item("TEXT", "Finding", TextValue=text)])
        for title, text in (("Findings", _FINDINGS[45 * variant :]), ("Impression", _IMPRESSION))
    ]
    whole.file_meta = FileMetaDataset()
    whole.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    whole.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    whole.file_meta.MediaStorageSOPInstanceUID = "1.2.826.0.1.3680043.8.498.77"
    whole.SpecificCharacterSet, whole.Modality = "ISO_IR 192", "SR"
    whole.SOPClassUID = whole.file_meta.MediaStorageSOPClassUID
    whole.SOPInstanceUID = whole.file_meta.MediaStorageSOPInstanceUID
    made = io.BytesIO()
    pydicom.dcmwrite(made, whole, enforce_file_format=True)
    return made.getvalue()


# -- models -------------------------------------------------------------------------------------


def _models(root: Path, variant: int) -> Iterator[Seed]:
    import torch

    from simcrop_core.input_spec import InputSpec
    from simcrop_core.model import ModelConfig, TextConfig, VisionConfig, new_model, save_model

    config = ModelConfig(
        name="small",
        input_spec=InputSpec(shape=(16, 16, 8), patch_shape=(8, 8, 4)),
        vision=VisionConfig(depth=2, width=24, heads=4),
        text=TextConfig(source="minilm", width=384),
    )
    for format, target, anatomy in (
        ("model, config.json", "config.json", fuzz_anatomy.sealed_text),
        ("model, model.safetensors", "model.safetensors", fuzz_anatomy.safetensors),
    ):
        folder = root / format / "model"
        save_model(new_model(config, variant), folder)
        yield Seed(format, "model_folder", folder.parent, (f"model/{target}",), "model", anatomy)
    state = _authors_state(variant)
    for zipped in (True, False):
        made = io.BytesIO()
        content = {"model": state, "epoch": 3}
        torch.save(content, made, _use_new_zipfile_serialization=zipped)
        format = "checkpoint .pth, zip" if zipped else "checkpoint .pth, legacy"
        data = made.getvalue()
        if not zipped:  # the old format names a storage by its address in memory
            address = str(state["cls_token"].untyped_storage()._cdata).encode()
            named = [b"X" + struct.pack("<I", len(k)) + k for k in (address, b"94000000000000")]
            data = data.replace(*named)
        folder = _filled(root / format, {"checkpoint.pth": data})
        anatomy = fuzz_anatomy.zipped(True) if zipped else fuzz_anatomy.unknown
        yield Seed(format, "checkpoint", folder, ("checkpoint.pth",), "checkpoint.pth", anatomy)


def _authors_state(variant: int) -> dict[str, Any]:
    """One block of width 64 under the released names, all in one storage."""
    import torch

    draw = torch.Generator().manual_seed(variant)
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, 64),
        "pos_embed": (1, 9, 64),
        "patch_embed.proj.weight": (64, 1, 4, 4, 2),
        "patch_embed.proj.bias": (64,),
        "fc_norm.weight": (64,),
        "fc_norm.bias": (64,),
    }
    for norm in ("norm1", "norm2"):
        shapes |= {f"blocks.0.{norm}.weight": (64,), f"blocks.0.{norm}.bias": (64,)}
    for name, out, into in (("attn.qkv", 192, 64), ("attn.proj", 64, 64), ("mlp.fc1", 256, 64),
                            ("mlp.fc2", 64, 256)):  # fmt: skip
        shapes |= {f"blocks.0.{name}.weight": (out, into), f"blocks.0.{name}.bias": (out,)}
    sizes = [math.prod(shape) for shape in shapes.values()]
    pieces = (torch.randn(sum(sizes), generator=draw) * 0.05).split(sizes)
    return {n: p.view(shape) for p, (n, shape) in zip(pieces, shapes.items(), strict=True)}


# -- what the software itself writes ------------------------------------------------------------


def _results(root: Path, variant: int) -> Iterator[Seed]:
    from simcrop_core.alignment_result import AlignedSentence, AlignmentResult
    from simcrop_core.encoded import Encoded, VolumeCard
    from simcrop_core.geometry import Grid
    from simcrop_core.patches import PatchGrid
    from simcrop_core.volume import CTVolume, Note

    draw = np.random.default_rng(variant)
    volume = CTVolume(chest(variant), Grid(SHAPE, AFFINE), notes=(Note("made", "Made for a test"),))
    patches = PatchGrid(Grid((4, 4, 4), np.diag([24.0, 24.0, 24.0, 1.0])), (16, 16, 8))
    inside = np.arange(64) < 60
    folder = root / "encoded scan"
    folder.mkdir()
    features = draw.normal(size=(64, 12)).astype(np.float32)
    card = VolumeCard.of(volume)
    Encoded(features, patches, inside, card, "abc", "center", "fp32").save(folder / "scan.npz")
    yield Seed(folder.name, "encoded", folder, ("scan.npz",), "scan.npz", fuzz_anatomy.zipped(True))
    sentences = tuple(
        AlignedSentence(text, "findings", (9 * k, 9 * k + 8), 0.5 + k, 70.0)
        for k, text in enumerate(("A nodule", "No fluid", "Ça va bi"))
    )
    similarity = draw.normal(size=(3, 64)).astype(np.float32)
    top = np.argsort(-similarity[:, :60], axis=1)[:, :5].astype(np.int64)
    says = {"id": "abc", "name": "small", "trained": "untrained", "source": "made"}
    result = AlignmentResult(sentences, similarity, top, inside, patches, says, card)
    for target, anatomy in (
        ("alignment.json", fuzz_anatomy.text),
        ("alignment.npz", fuzz_anatomy.zipped(True)),
    ):
        folder = root / f"alignment, {target}"
        result.write(folder / "result")
        yield Seed(folder.name, "alignment", folder, (f"result/{target}",), "result", anatomy)


def _manifests(root: Path, variant: int) -> Iterator[Seed]:
    rows = [["study", "ct", "report", "volume_name", "series"],
            [f"one-{variant}", "scans/one.nii.gz", "one.txt", "", ""],
            ["two", "scans/two", "reports.csv", "train_2_a_1", "1.2.3"],
            ["Üç 3", "/data/three.nrrd", "three.json", "", ""]]  # fmt: skip
    folder = _filled(root / "batch manifest", {"studies.csv": _csv(rows)})
    yield Seed(folder.name, "manifest", folder, ("studies.csv",), "studies.csv", fuzz_anatomy.text)


def built_seeds(root: Path, variant: int = 0) -> list[Seed]:
    """All seeds that need no data from elsewhere, under ``root``.

    Another ``variant`` has the same formats with other content, to splice with.
    """
    builders = (_volumes, _series, _reports, _models, _results, _manifests)
    return [seed for builder in builders for seed in builder(root, variant)]


def real_seeds(root: Path, data: Path) -> list[Seed]:
    """Real scans where there are any, copied so that nothing is written beside them."""

    def copied(format: str, files: list[Path]) -> Path:
        folder = root / format
        folder.mkdir(parents=True)
        for file in files:
            (folder / file.name).write_bytes(file.read_bytes())
        return folder

    found: list[Seed] = []
    for format, pattern, anatomy in (
        ("real NRRD", "ct/*/ct-*.nrrd", fuzz_anatomy.text_then(b"\n\n", True)),
        ("real NIfTI, gzip", "ct/totalseg-*/ct_*.nii.gz", fuzz_anatomy.nifti(1, True)),
        ("real MetaImage", "ct/*/*.mha", fuzz_anatomy.text_then(b"LOCAL\n", False)),
    ):
        for file in sorted(data.glob(pattern))[:1]:
            folder = copied(format, [file])
            name = file.name
            found.append(Seed(format, "volume", folder, (name,), name, anatomy))
    for format, pattern, most in (
        ("real DICOM", "ct/nsclc-*/**/*.dcm", 6),
        ("real DICOM, JPEG 2000", "ct/*jpeg2000/CT.*", 6),
    ):
        files = sorted(data.glob(pattern))[:most]
        if files:
            folder = copied(format, files)
            names = tuple(file.name for file in files)
            found.append(
                Seed(format, "volume", folder, names, "", fuzz_anatomy.dicom, "series_permissive")
            )
    return found
