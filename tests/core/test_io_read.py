"""The dispatcher: what a path may be, and which options apply to what."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from made_ct import chest, note_codes, save_nifti

from simcrop_core import SimCroPError, read_volume
from simcrop_core.io import Limits


def refused(path: Path | str, code: str, **options: object) -> SimCroPError:
    with pytest.raises(SimCroPError) as caught:
        read_volume(path, **options)  # type: ignore[arg-type]
    assert caught.value.code == code
    assert caught.value.remedy
    return caught.value


def save_nrrd(path: Path) -> Path:
    image = sitk.GetImageFromArray(chest().T)
    image.SetSpacing((4.4, 4.8, 4.1))
    sitk.WriteImage(image, str(path.with_suffix(".nrrd")), True)
    path.with_suffix(".nrrd").rename(path)
    return path


def save_mha(path: Path) -> Path:
    image = sitk.GetImageFromArray(chest().T)
    image.SetSpacing((4.4, 4.8, 4.1))
    sitk.WriteImage(image, str(path.with_suffix(".mha")), True)
    path.with_suffix(".mha").rename(path)
    return path


def test_missing_file(tmp_path: Path) -> None:
    refused(tmp_path / "none.nii.gz", "missing")
    refused(tmp_path / "none" / "deeper", "missing")
    refused("nul\0in the name", "missing")
    (tmp_path / "file").write_text("x")
    assert refused(tmp_path / "file" / "below", "unreadable").path


def test_broken_link_and_endless_link(tmp_path: Path) -> None:
    (tmp_path / "a.nii").symlink_to(tmp_path / "gone.nii")
    refused(tmp_path / "a.nii", "missing")
    (tmp_path / "loop.nii").symlink_to(tmp_path / "loop.nii")
    with pytest.raises(SimCroPError):
        read_volume(tmp_path / "loop.nii")


def test_name_too_long(tmp_path: Path) -> None:
    refused(tmp_path / ("x" * 300), "unreadable")


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "ct.nii.gz").write_bytes(b"")
    refused(tmp_path / "ct.nii.gz", "empty")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes on this system")
def test_pipe_and_device_do_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "ct.nii")
    refused(tmp_path / "ct.nii", "not-a-file")
    refused("/dev/zero", "not-a-file")


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read every file"
)
def test_permission(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "ct.nii")
    path.chmod(0)
    refused(path, "no-permission")


def test_permission_as_the_system_reports_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_nifti(tmp_path / "ct.nii")

    def denied(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", denied)
    refused(path, "no-permission")


def test_disk_error_while_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from simcrop_core.io import payload

    def failing(self: object, target: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(payload._Stretch, "readinto", failing)
    assert "Input/output" in refused(save_nifti(tmp_path / "ct.nii"), "unreadable").problem


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(500), "PNG"),
        (b"%PDF-1.7" + bytes(500), "PDF"),
        (b"<html>not found</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "placeholder"),
        (b"\x93NUMPY\x01\x00" + bytes(500), ".npz"),
        (bytes(5000), "not a scan"),
        (b"the lungs are clear", "not a scan"),
        (b"x", "not a scan"),
        (gzip.compress(b"the lungs are clear" * 50), "gzip"),
    ],
    ids=range(9),
)
def test_not_a_volume(tmp_path: Path, content: bytes, says: str) -> None:
    for name in ("ct.nii.gz", "ct.nrrd", "ct.mha", "ct"):
        (tmp_path / name).write_bytes(content)
        assert says in refused(tmp_path / name, "not-a-volume").problem


@pytest.mark.parametrize(
    ("saver", "format"),
    [(save_nifti, "NIfTI"), (save_nrrd, "NRRD"), (save_mha, "MetaImage")],
)
@pytest.mark.parametrize("name", ["ct.nii.gz", "ct.nrrd", "ct.mha", "ct.npz", "ct.dcm", "ct"])
def test_misnamed_is_read_as_what_it_is_with_a_note(
    tmp_path: Path, saver: object, format: str, name: str
) -> None:
    own = {"NIfTI": "x.nii", "NRRD": "x.nrrd", "MetaImage": "x.mha"}[format]
    saver(tmp_path / own).rename(tmp_path / name)  # type: ignore[operator]
    volume = read_volume(tmp_path / name)
    assert volume.format == format
    np.testing.assert_array_equal(volume.hu_XYZ, chest())
    right = name == "ct" or name == f"ct{Path(own).suffix}"
    assert ("misnamed" in note_codes(volume)) != right


def test_nii_gz_that_is_not_packed_and_nii_that_is(tmp_path: Path) -> None:
    save_nifti(tmp_path / "x.nii").rename(tmp_path / "plain.nii.gz")
    save_nifti(tmp_path / "x.nii.gz").rename(tmp_path / "packed.nii")
    for name in ("plain.nii.gz", "packed.nii"):
        volume = read_volume(tmp_path / name)
        np.testing.assert_array_equal(volume.hu_XYZ, chest())
        assert note_codes(volume) == {"misnamed"}


def test_names_in_capitals_and_without_suffix_need_no_note(tmp_path: Path) -> None:
    save_nifti(tmp_path / "a.nii.gz").rename(tmp_path / "A.NII.GZ")
    assert read_volume(tmp_path / "A.NII.GZ").notes == ()
    assert read_volume(str(tmp_path / "A.NII.GZ")).source == tmp_path / "A.NII.GZ"


def test_path_with_strange_characters(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "Lunge übersät 肺 \n.nii")
    np.testing.assert_array_equal(read_volume(path).hu_XYZ, chest())
    path.write_bytes(b"junk")
    assert "\n" not in refused(path, "not-a-volume").problem


# -- folders ------------------------------------------------------------------------------------


def test_folder_with_one_volume_and_other_files(tmp_path: Path) -> None:
    save_nifti(tmp_path / "ct.nii.gz")
    (tmp_path / "report.txt").write_text("The lungs are clear.")
    (tmp_path / "empty.nii").write_bytes(b"")
    (tmp_path / ".hidden.nii").write_bytes((tmp_path / "ct.nii.gz").read_bytes())
    (tmp_path / "sub").mkdir()
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.hu_XYZ, chest())
    assert volume.source == tmp_path / "ct.nii.gz"
    assert note_codes(volume) == {"file-in-folder"}


def test_folder_with_several_volumes_is_refused(tmp_path: Path) -> None:
    save_nifti(tmp_path / "a.nii.gz")
    save_mha(tmp_path / "b.mha")
    problem = refused(tmp_path, "several-volumes").problem
    assert "a.nii.gz" in problem
    assert "b.mha" in problem


def test_folder_without_a_volume_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SimCroPError):
        read_volume(tmp_path)
    (tmp_path / "report.txt").write_text("The lungs are clear.")
    with pytest.raises(SimCroPError):
        read_volume(tmp_path)


def test_dicom_goes_to_its_reader(real_data: Path, tmp_path: Path) -> None:
    source = real_data / "ct" / "dcmqi-ct-seg"
    for name in ("01.dcm", "02.dcm", "03.dcm"):
        shutil.copy(source / name, tmp_path / name)
    save_nifti(tmp_path / "zz.nii.gz")  # DICOM decides, where there is some
    volume = read_volume(tmp_path)
    assert volume.format == "DICOM"
    assert volume.shape == (512, 512, 3)


# -- options ------------------------------------------------------------------------------------


@pytest.mark.parametrize("saver", [save_nifti, save_nrrd, save_mha])
@pytest.mark.parametrize(
    "options",
    [
        {"series": "1.2.3"},
        {"fill_gaps": True},
        {"spacing_mm": (1, 1, 1)},
        {"axcodes": "LPS"},
    ],
    ids=str,
)
def test_options_that_do_not_apply_are_refused(
    tmp_path: Path, saver: object, options: dict[str, object]
) -> None:
    own = {save_nifti: "x.nii", save_nrrd: "x.nrrd", save_mha: "x.mha"}[saver]  # type: ignore[index]
    error = refused(saver(tmp_path / own), "option", **options)  # type: ignore[operator]
    assert next(iter(options)) in error.problem


@pytest.mark.parametrize(
    "options",
    [
        {"spacing_mm": (1, 1, 1)},
        {"axcodes": "LPS"},
        {"rescale": (1, -1024)},
        {"allow_missing_geometry": True},
    ],
    ids=str,
)
def test_options_that_do_not_apply_to_dicom_are_refused(
    tmp_path: Path, options: dict[str, object]
) -> None:
    (tmp_path / "a.dcm").write_bytes(bytes(128) + b"DICM" + bytes(50))
    for path in (tmp_path, tmp_path / "a.dcm"):
        error = refused(path, "option", **options)
        assert next(iter(options)) in error.problem


@pytest.mark.parametrize(
    "options",
    [
        {"spacing_mm": (1, 1)},
        {"spacing_mm": (1, 1, 0)},
        {"spacing_mm": (1, 1, float("nan"))},
        {"spacing_mm": 3},
        {"spacing_mm": ("a", 1, 1)},
        {"axcodes": "LPX"},
        {"axcodes": "LLS"},
        {"axcodes": 5},
        {"rescale": (0, 1)},
        {"rescale": (1,)},
        {"rescale": (1, float("inf"))},
    ],
    ids=str,
)
def test_options_with_impossible_values_are_refused(
    tmp_path: Path, options: dict[str, object]
) -> None:
    save_nifti(tmp_path / "ct.nii", sform_code=0, qform_code=0)
    refused(tmp_path / "ct.nii", "option", allow_missing_geometry=True, **options)


def test_limits_are_obeyed(tmp_path: Path) -> None:
    voxels = chest().size
    for path in (save_nifti(tmp_path / "a.nii.gz"), save_nrrd(tmp_path / "b.nrrd")):
        read_volume(path, limits=Limits(max_voxels=voxels, max_bytes=2 * voxels))
        refused(path, "too-large", limits=Limits(max_voxels=voxels - 1))
        refused(path, "too-large", limits=Limits(max_bytes=2 * voxels - 1))
    with pytest.raises(ValueError, match="positive"):
        Limits(max_voxels=0)


def test_importing_is_cheap() -> None:
    """Nothing heavy is imported until a file needs it."""
    heavy = "nibabel SimpleITK pydicom scipy torch monai matplotlib"
    code = f"import sys, simcrop_core.io; print([m for m in {heavy.split()!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
