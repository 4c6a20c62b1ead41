"""CC-CCII, as the authors of the method store it: ``<root>/images_resized/3699.nii.gz``.

The scans were made of pictures of slices and resized, so that no header tells the truth: the
stored array has its slices first, and is taken voxel for voxel as the model's input, 1.5 x 1.5 mm
in slices 3 mm apart, as the authors' code takes it. That slices run from the head down, rows to
the back and columns to the left, as pictures do, is an assumption. The lists give one label of
three classes. They name scans and not patients, of whom some have several.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from simcrop_core.datasets.dataset import Dataset
from simcrop_core.datasets.lists import check_once, read_case_list
from simcrop_core.datasets.scans import (
    ScanSource,
    check_folder,
    check_names,
    first_there,
    refuse_split,
    whole,
    without_suffix,
)
from simcrop_core.datasets.stated_geometry import read_despite_header, with_geometry
from simcrop_core.volume import CTVolume, Note

#: Along the stored axes.
AXCODES = "IPL"
SPACING_MM = (3.0, 1.5, 1.5)
_FOLDER = "images_resized"


@dataclass(frozen=True, slots=True)
class CcCciiSource(ScanSource):
    """A scan of CC-CCII."""

    def read(self) -> CTVolume:
        """The scan; values that do not look like Hounsfield units are taken as they are."""
        path = Path(self.volume)
        volume = read_despite_header(path, AXCODES, SPACING_MM, allow_any_modality=True)
        volume = with_geometry(volume, AXCODES, SPACING_MM, "the data set's")
        text = (
            f"Its slices come first and its voxels are taken for {SPACING_MM[1]:g} x "
            f"{SPACING_MM[2]:g} x {SPACING_MM[0]:g} mm with axes to {AXCODES}: left and right may "
            "be exchanged, and lengths are not true"
        )
        return volume.with_notes([Note("assumed-geometry", text)])


def cc_ccii_dataset(root: Path, cases: Path | None = None, split: str | None = None) -> Dataset:
    """CC-CCII under ``root``.

    Parameters
    ----------
    root
        The folder that holds ``images_resized``.
    cases
        A list of scans with the label 0, 1 or 2: only these, in its order. None: every scan.
    split
        None: its lists are its splits.

    Raises
    ------
    SimCroPError
        The root or the list is missing or broken; no study is left.
    """
    check_folder(root)
    refuse_split(split, "CC-CCII", "Name one of its lists, such as train_list.csv.")
    if cases is None:
        files = (root / _FOLDER).glob("*.nii.gz")
        names = sorted(
            (without_suffix(p.name) for p in files), key=lambda n: (not n.isdigit(), len(n), n)
        )
    else:
        names = [without_suffix(name) for name in read_case_list(cases, classes=3).names]
        check_names(names, r"\d+", "CC-CCII", "3699.nii.gz", cases)
        check_once(names, cases)
    sources = [CcCciiSource(n, first_there([root / _FOLDER / f"{n}.nii.gz"])) for n in names]
    return whole("cc-ccii", sources, (), root)
