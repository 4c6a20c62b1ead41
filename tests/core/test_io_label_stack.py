"""Stacks of masks in one file: read as nibabel reads them, or refused."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from made_ct import save_nifti

from simcrop_core.errors import SimCroPError
from simcrop_core.io import read_label_stack


@pytest.mark.parametrize("kind", ["u1", "i2", ">i2", "f4", "f8", "i8"])
@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_a_stack_is_read_as_nibabel_reads_it(tmp_path: Path, kind: str, suffix: str) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 3, (3, 7, 5, 6)).astype(kind[-2:])
    path = tmp_path / f"s.{suffix}"
    save_nifti(path, values, np.eye(4), endian=kind[0] if kind[0] == ">" else "<")
    np.testing.assert_array_equal(
        read_label_stack(path),
        np.asarray(nib.load(path).dataobj) != 0,  # type: ignore[attr-defined]
    )


def test_damaged_stacks_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.nii.gz"
    save_nifti(path, np.ones((3, 7, 5, 6), np.uint8), np.eye(4))
    path.write_bytes(path.read_bytes()[:-20])
    for array, says in ((np.full((2, 3, 4, 5), 0.5, np.float32), "whole numbers"),
                        (np.full((2, 3, 4, 5), np.nan, np.float32), "whole numbers"),
                        (np.ones((2, 3), np.uint8), "three or four axes")):  # fmt: skip
        save_nifti(tmp_path / "bad.nii", array, np.eye(4))
        with pytest.raises(SimCroPError, match=says):
            read_label_stack(tmp_path / "bad.nii")
    with pytest.raises(SimCroPError):
        read_label_stack(path)
    (tmp_path / "bad.nii").write_bytes(b"x" * 400)
    with pytest.raises(SimCroPError):
        read_label_stack(tmp_path / "bad.nii")
