"""Decompression in children: one that dies or hangs costs one refusal."""

from __future__ import annotations

import io
import os
import signal
import struct
import sys

import numpy as np
import pytest
from dicom_builder import phantom, write_series
from pydicom import dcmread
from pydicom.encaps import generate_frames

from simcrop_core.errors import SimCroPError
from simcrop_core.io import dicom_codec
from simcrop_core.io.dicom import read_dicom


@pytest.fixture(scope="module")
def compressed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compressed")
    hu = phantom((3, 16, 12))
    files = write_series(folder, hu, transfer_syntax="jpeg-2000")
    ds = dcmread(files[1])
    described = {
        "transfer_syntax": str(ds.file_meta.TransferSyntaxUID),
        "rows": 16,
        "columns": 12,
        "bits_allocated": 16,
        "bits_stored": 16,
        "pixel_representation": 0,
        "photometric_interpretation": "MONOCHROME2",
    }
    return next(generate_frames(ds.PixelData, number_of_frames=1)), described, hu[1] + 1024, folder


@pytest.fixture
def pool():
    pool = dicom_codec.CodecPool(2)
    yield pool
    pool.close()


def test_a_child_gives_what_the_codec_gives(pool, compressed):
    encoded, described, expected, _ = compressed
    for future in [pool.submit(encoded, described) for _ in range(6)]:
        np.testing.assert_array_equal(future.result(), expected)
    assert 1 <= len(pool._all) <= 2


def test_a_codec_that_refuses_leaves_the_child_alive(pool, compressed):
    encoded, described, expected, _ = compressed
    with pytest.raises(dicom_codec.CodecError):
        pool.submit(b"\xff\x4f\xff\x51" + bytes(40), described).result()
    np.testing.assert_array_equal(pool.submit(encoded, described).result(), expected)
    assert len(pool._all) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_child_ended_from_outside_is_replaced(pool, compressed):
    encoded, described, expected, _ = compressed
    pool.submit(encoded, described).result()
    first = pool._all[0].pid
    os.kill(first, signal.SIGKILL)
    np.testing.assert_array_equal(pool.submit(encoded, described).result(), expected)
    assert pool._all[0].pid != first


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_child_that_hangs_is_ended(pool, compressed, monkeypatch):
    encoded, described, expected, _ = compressed
    pool.submit(encoded, described).result()
    os.kill(pool._all[0].pid, signal.SIGSTOP)
    monkeypatch.setattr(dicom_codec, "PATIENCE_S", 0.2)
    with pytest.raises(dicom_codec.CodecError, match="too long"):
        pool.submit(encoded, described).result()
    monkeypatch.setattr(dicom_codec, "PATIENCE_S", 60)
    np.testing.assert_array_equal(pool.submit(encoded, described).result(), expected)


def test_closing_leaves_no_child(compressed):
    encoded, described, _, _ = compressed
    pool = dicom_codec.CodecPool(1)
    pool.submit(encoded, described).result()
    (child,) = pool._all
    pool.close()
    assert child.poll() is not None


def test_a_dying_codec_becomes_a_refusal_that_names_the_slice(compressed, monkeypatch):
    # The child is made to run a program that ends at once, as after a fault in C++.
    *_, folder = compressed
    pool = dicom_codec.CodecPool(1)
    monkeypatch.setattr(dicom_codec, "_shared", (os.getpid(), pool))
    monkeypatch.setattr(dicom_codec, "__name__", "this.is.no.module")
    try:
        with pytest.raises(SimCroPError) as caught:
            read_dicom(folder)
    finally:
        pool.close()
    assert caught.value.code == "damaged"
    assert str(caught.value.path).endswith(".dcm")
    assert "JPEG 2000" in caught.value.problem


def test_a_child_that_cannot_be_started_is_a_refusal(compressed, monkeypatch):
    *_, folder = compressed
    pool = dicom_codec.CodecPool(1)
    monkeypatch.setattr(dicom_codec, "_shared", (os.getpid(), pool))
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(SimCroPError):
        read_dicom(folder)
    pool.close()


def test_the_served_protocol(compressed):
    encoded, described, expected, _ = compressed
    import json

    words = json.dumps(described).encode()
    good = struct.pack("<II", len(words), len(encoded)) + words + encoded
    bad = struct.pack("<II", len(words), 4) + words + b"junk"
    answers = io.BytesIO()
    dicom_codec.serve(io.BytesIO(good + bad + good), answers)
    raw = answers.getvalue()
    size = 10 + expected.size * 2
    assert raw[:1] == raw[size + 10 : size + 11] == b"u"
    assert raw[size : size + 1] == b"!"
    np.testing.assert_array_equal(
        np.frombuffer(raw[10:size], np.uint16).reshape(expected.shape), expected
    )
    assert len(raw) == 2 * size + 10
