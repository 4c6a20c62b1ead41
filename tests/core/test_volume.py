"""CTVolume: immutable, told apart by what it holds, telling nothing of where it came from."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest
from made_ct import AFFINE, SHAPE, chest

from simcrop_core import CTVolume, Grid, Note


@pytest.fixture
def volume() -> CTVolume:
    return CTVolume(chest(), Grid(SHAPE, AFFINE), Path("/somewhere/Jane_Doe.nii"), "NIfTI")


def test_values_cannot_be_changed(volume: CTVolume) -> None:
    with pytest.raises(ValueError, match="read-only"):
        volume.hu_XYZ[0, 0, 0] = 5
    with pytest.raises(dataclasses.FrozenInstanceError):
        volume.grid = None  # type: ignore[misc, assignment]


def test_values_are_not_copied() -> None:
    hu = chest()
    assert np.shares_memory(CTVolume(hu, Grid(SHAPE, AFFINE)).hu_XYZ, hu)


@pytest.mark.parametrize("dtype", [np.int32, np.float64, np.uint16, np.bool_])
def test_other_types_are_refused(dtype: type) -> None:
    with pytest.raises(TypeError, match="int16 or float32"):
        CTVolume(chest().astype(dtype), Grid(SHAPE, AFFINE))


def test_array_must_fit_its_grid() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        CTVolume(chest().transpose(2, 1, 0), Grid(SHAPE, AFFINE))


def test_digest_ignores_memory_order_and_source_but_nothing_else(volume: CTVolume) -> None:
    same = CTVolume(np.ascontiguousarray(chest()), Grid(SHAPE, AFFINE), notes=(Note("a", "b"),))
    assert same.sha256 == volume.sha256
    assert same.pseudonym == volume.pseudonym
    other = np.array(chest())
    other[3, 4, 5] += 1
    assert CTVolume(other, Grid(SHAPE, AFFINE)).sha256 != volume.sha256
    moved = AFFINE.copy()
    moved[0, 3] += 0.001
    assert CTVolume(chest(), Grid(SHAPE, moved)).sha256 != volume.sha256
    wider = CTVolume(chest().astype(np.float32), Grid(SHAPE, AFFINE))
    assert wider.sha256 != volume.sha256


def test_pseudonym_and_repr_hide_the_name(volume: CTVolume) -> None:
    for text in (volume.pseudonym, repr(volume)):
        assert "Jane" not in text
        assert "somewhere" not in text


def test_repr_tells_what_it_is(volume: CTVolume) -> None:
    text = repr(volume.with_notes([Note("x", "y")]))
    for part in ("NIfTI", "48 x 44 x 50", "4.4 x 4.8 x 4.1 mm", "211 x 211 x 205 mm", "LPS"):
        assert part in text
    assert "int16" in text
    assert "1 note)" in text
    assert "note" not in repr(volume)
    assert "2 notes" in repr(volume.with_notes([Note("x", "y"), Note("x", "z")]))


def test_notes_are_added_to_a_new_volume(volume: CTVolume) -> None:
    noted = volume.with_notes([Note("tilt", "It is tilted")])
    assert volume.notes == ()
    assert noted.notes == (Note("tilt", "It is tilted."),)
    assert noted.notes[0].to_dict() == {"code": "tilt", "text": "It is tilted."}


def test_note_is_one_printable_sentence() -> None:
    assert Note("a", "two\nlines\x1b[31m").text == "two lines [31m."
    assert Note("a", "Done.").text == "Done."


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_copy_in_another_process_cannot_be_written_either(order: str) -> None:
    volume = CTVolume(np.array(chest(), order=order), Grid(SHAPE, AFFINE))
    digest = volume.sha256
    for copied in (pickle.loads(pickle.dumps(volume)), copy.deepcopy(volume)):
        np.testing.assert_array_equal(copied.hu_XYZ, volume.hu_XYZ)
        assert copied.sha256 == digest
        with pytest.raises(ValueError, match="read-only"):
            copied.hu_XYZ[0, 0, 0] = 7
        np.testing.assert_array_equal(copied.grid.affine, AFFINE)
        with pytest.raises(ValueError, match="read-only"):
            copied.grid.affine[0, 0] = 7
