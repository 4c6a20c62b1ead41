"""What the campaign has found, so that it stays mended."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from simcrop_core.alignment_result import AlignedSentence, AlignmentResult
from simcrop_core.encoded import Encoded, VolumeCard
from simcrop_core.errors import SimCroPError
from simcrop_core.geometry import Grid
from simcrop_core.patches import PatchGrid
from simcrop_core.volume import CTVolume

PATCHES = PatchGrid(Grid((2, 2, 2), np.diag([24.0, 24.0, 24.0, 1.0])), (16, 16, 8))
CARD = VolumeCard.of(CTVolume(np.zeros((3, 3, 3), np.int16), Grid((3, 3, 3), np.eye(4))))


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    features = np.arange(24, dtype=np.float32).reshape(8, 3)
    path = tmp_path / "scan.npz"
    Encoded(features, PATCHES, np.ones(8, bool), CARD, "id", "center", "fp32").save(path)
    return path


@pytest.fixture
def result(tmp_path: Path) -> Path:
    similarity = np.linspace(0, 1, 8, dtype=np.float32)[None]
    sentence = AlignedSentence("A nodule", "findings", (0, 8), 1.0, 50.0)
    folder = tmp_path / "result"
    AlignmentResult(
        (sentence,),
        similarity,
        np.array([[7, 6]]),
        np.ones(8, bool),
        PATCHES,
        {"id": "a", "name": "m", "trained": "untrained", "source": "made"},
        CARD,
    ).write(folder)
    AlignmentResult.read(folder)
    return folder


def code_of(read: Callable[[Path], object], path: Path) -> str:
    with pytest.raises(SimCroPError) as caught:
        read(path)
    assert str(path) in str(caught.value)
    return caught.value.code


def packed_anew(path: Path, **changed: bytes) -> None:
    """Other content in an archive, under right checksums."""
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()}
    members |= {f"{name}.npy": content for name, content in changed.items()}
    with zipfile.ZipFile(path, "w") as new:
        for name, content in members.items():
            new.writestr(name, content)


def npy(array: np.ndarray) -> bytes:
    made = io.BytesIO()
    np.save(made, array)
    return made.getvalue()


def test_an_encoded_scan_with_too_few_patches_is_refused(scan: Path) -> None:
    packed_anew(scan, patches=npy(np.zeros((7, 3), np.float32)))
    assert code_of(Encoded.load, scan) == "encoded-damaged"


def test_an_array_header_that_is_no_literal_is_refused(scan: Path) -> None:
    whole = npy(np.eye(4))
    packed_anew(scan, affine=whole.replace(b"'shape': (4, 4)", b"'shape': ((, 4)"))
    assert code_of(Encoded.load, scan) == "encoded-damaged"


@pytest.mark.parametrize("method", [1, 8, 99])
def test_an_unknown_way_of_packing_is_refused(scan: Path, method: int) -> None:
    data = bytearray(scan.read_bytes())
    struct.pack_into("<H", data, data.index(b"PK\x01\x02") + 10, method)
    scan.write_bytes(data)
    assert code_of(Encoded.load, scan) == "encoded-damaged"


def test_an_array_header_that_says_less_is_caught_by_the_checksum(scan: Path) -> None:
    data = scan.read_bytes()
    assert data.count(b"'shape': (8, 3)") == 1
    scan.write_bytes(data.replace(b"'shape': (8, 3)", b"'shape': (8, 2)"))
    assert code_of(Encoded.load, scan) == "encoded-damaged"


def test_an_encoded_scan_of_another_version_says_so(scan: Path) -> None:
    with np.load(scan) as stored:
        card = json.loads(stored["card"].tobytes()) | {"schema": 2}
    packed_anew(scan, card=npy(np.frombuffer(json.dumps(card).encode(), np.uint8)))
    assert code_of(Encoded.load, scan) == "encoded-version"


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ('"shape": [\n   3,', '"shape": [\n   0,'),
        ('"shape": [\n   3,', '"shape": [\n   1e400,'),
        ("A nodule", "A \\ud800odule"),
        ('"id": "a"', '"id": {}'),
        ('"span": [\n    0,\n    8\n   ]', '"span": [0]'),
    ],
)
def test_an_alignment_that_could_not_be_used_is_refused(
    result: Path, was: str, becomes: str
) -> None:
    file = result / "alignment.json"
    text = file.read_text(encoding="utf-8")
    assert was in text
    file.write_text(text.replace(was, becomes), encoding="utf-8")
    assert code_of(AlignmentResult.read, result) == "alignment-damaged"


@pytest.mark.parametrize("top", [[[-1, 6]], [[7, 8]], [7], [[[7]]]])
def test_patches_that_are_none_are_refused(result: Path, top: list[object]) -> None:
    packed_anew(result / "alignment.npz", top_k=npy(np.array(top)))
    assert code_of(AlignmentResult.read, result) == "alignment-damaged"


def test_a_flipped_bit_in_a_checkpoint_is_found(tmp_path: Path) -> None:
    """Torch compares no checksum in a file that it maps into memory."""
    import torch

    from simcrop_core.model import import_child

    path = tmp_path / "checkpoint.pth"
    torch.save({"model": {"weight": torch.full((64,), 1.5)}}, path)
    import_child.convert(path, tmp_path)
    data = bytearray(path.read_bytes())
    data[data.index(struct.pack("<ff", 1.5, 1.5)) + 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(import_child.RefusedError) as caught:
        import_child.convert(path, tmp_path)
    assert caught.value.code == "not-a-checkpoint"


def test_a_size_beyond_all_numbers_in_weights_is_refused(tmp_path: Path) -> None:
    from simcrop_core.model.weights_file import read_header

    header = b'{"a":{"dtype":"F32","shape":[1e400],"data_offsets":[0,4]}}'
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0\0\0\0")
    assert code_of(read_header, path) == "damaged-weights"


def test_a_name_that_is_no_text_leaves_one_line_that_can_be_written(tmp_path: Path) -> None:
    name = tmp_path / b"ct\n\xff.nii".decode(errors="surrogateescape")
    error = SimCroPError("It is bad", code="bad", remedy="Get another", path=name)
    assert str(error) == f"{tmp_path}/ct??.nii: It is bad. Get another."
    assert error.path == str(name)
