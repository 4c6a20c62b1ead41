"""Segmentation of a scan by a model that has a segmentation head, on the scan's own voxels."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from simcrop_core.device import Precision, Progress, autocast, evaluating, select_device, silent
from simcrop_core.errors import SimCroPError
from simcrop_core.geometry import Grid
from simcrop_core.prepare import resampled_grid
from simcrop_core.resample import resample_linear
from simcrop_core.volume import CTVolume, Note

if TYPE_CHECKING:
    from simcrop_core.model import SimCroP
    from simcrop_core.model.segmentation_head import SegmentationHead

# Slices of the scan that are labelled at a time; keeps the class maps' memory small.
_SLAB = 16


@dataclass(frozen=True, slots=True, eq=False)
class Segmentation:
    """Labels of a scan.

    Attributes
    ----------
    labels_XYZ
        uint8, on the scan's own grid; 0 is background.
    grid
        The scan's grid.
    names
        Label -> structure.
    model
        What the model says of itself.
    volume_id
        The scan's pseudonym.
    notes
        The scan's notes.
    """

    labels_XYZ: NDArray[np.uint8]
    grid: Grid
    names: dict[int, str]
    model: dict[str, Any]
    volume_id: str
    notes: tuple[Note, ...]

    @property
    def volume_ml(self) -> dict[str, float]:
        """Millilitres of each structure."""
        counts = np.bincount(self.labels_XYZ.ravel(order="K"), minlength=max(self.names) + 1)
        voxel_ml = self.grid.voxel_volume_mm3 / 1000
        return {name: float(counts[label] * voxel_ml) for label, name in self.names.items()}

    def to_dict(self) -> dict[str, Any]:
        """The content of ``labels.json``."""
        return {
            "schema": 1,
            "labels": {str(label): name for label, name in self.names.items()},
            "volume_ml": {name: round(ml, 4) for name, ml in self.volume_ml.items()},
            "model": self.model,
            "volume": {"id": self.volume_id},
            "notes": [note.to_dict() for note in self.notes],
        }


def segment(
    model: SimCroP,
    volume: CTVolume,
    *,
    overlap: float = 0.5,
    device: str = "auto",
    precision: Precision = "auto",
    progress: Progress | None = None,
) -> Segmentation:
    """Label every voxel of a scan.

    The whole scan, resampled to the model's spacing, is covered by overlapping windows (MONAI's
    sliding window, Gaussian weights); the class probabilities are interpolated linearly back to
    the scan's own voxels, where the most probable class wins.

    Parameters
    ----------
    overlap
        Share of a window that neighbouring windows have in common, 0 to below 1.
    device, precision, progress
        See `simcrop_core.align.encode`.

    Raises
    ------
    SimCroPError
        The model has no segmentation head, or ``overlap`` is out of range.
    """
    head = segmentation_head(model, overlap)
    where = select_device(device)
    say = progress or silent
    # The head looks through the model's encoder, so the whole model moves.
    with evaluating(model.to(where)):
        probabilities_CHWD, grid = _probabilities(model, volume, overlap, where, precision, say)
    names = dict(enumerate(head.labels, start=1))
    return Segmentation(
        labels_XYZ=_most_probable(probabilities_CHWD, grid, volume.grid, say),
        grid=volume.grid,
        names=names,
        model=model.card(),
        volume_id=volume.pseudonym,
        notes=volume.notes,
    )


def card_path(labels: Path) -> Path:
    """Where the names and volumes of labels are written: beside them, as ``.json``.

    Raises
    ------
    SimCroPError
        The labels' name ends in none of ``.nii.gz``, ``.nii`` and ``.dcm``.
    """
    for suffix in (".nii.gz", ".nii", ".dcm"):
        if labels.name.endswith(suffix) and len(labels.name) > len(suffix):
            return labels.with_name(f"{labels.name[: -len(suffix)]}.json")
    raise SimCroPError(
        "Labels are written as NIfTI or DICOM SEG.",
        path=labels,
        code="unknown-suffix",
        remedy="Let the name end in .nii.gz, .nii or .dcm.",
    )


def write_segmentation(
    path: str | Path,
    result: Segmentation,
    source: str | Path | None = None,
    series: str | None = None,
) -> None:
    """Write labels as NIfTI or, by a name in ``.dcm``, as DICOM SEG, and, beside them, what they
    are (`Segmentation.to_dict`) as JSON; an earlier pair is replaced once the new one is whole.

    Parameters
    ----------
    source, series
        For DICOM SEG: the DICOM folder or file that was segmented, and which series of it.

    Raises
    ------
    SimCroPError
        As `card_path` and `simcrop_core.io.dicom_seg.write_seg`; or nothing can be written there.
    """
    from simcrop_core.io import write_labels
    from simcrop_core.outputs import whole_file

    path = Path(path)
    text = json.dumps(result.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
    with whole_file(card_path(path)) as hidden:
        hidden.write_text(text + "\n", encoding="utf-8")
        if path.suffix == ".dcm":
            _write_seg(path, result, source, series)
        else:
            write_labels(path, result.labels_XYZ, result.grid)


def _write_seg(
    path: Path, result: Segmentation, source: str | Path | None, series: str | None
) -> None:
    from simcrop_core.io.dicom_seg import write_seg

    if source is None:
        raise SimCroPError(
            "A DICOM SEG lies on the slices of a DICOM series, and the scan did not come from one.",
            path=path,
            code="no-slices",
            remedy="Write NIfTI (.nii.gz) instead.",
        )
    write_seg(
        path,
        result.labels_XYZ,
        result.grid,
        result.names,
        source,
        series=series,
        model=str(result.model.get("name") or "without a name"),
    )


def segmentation_head(model: SimCroP, overlap: float = 0.5) -> SegmentationHead:
    """The model's segmentation head; refuses what :func:`segment` would.

    Raises
    ------
    SimCroPError
        The model has none, or ``overlap`` is out of range.
    """
    if model.segmentation is None:
        raise SimCroPError(
            f"The model {model.config.name!r} has no segmentation head.",
            code="no-segmentation-head",
            remedy="Choose a model that was made or trained for segmentation.",
        )
    if not 0 <= overlap < 1:
        raise SimCroPError(
            f"An overlap of {overlap:g} was asked for.",
            code="bad-overlap",
            remedy="Use 0 or more and less than 1; 0.5 is usual.",
        )
    return model.segmentation


def _probabilities(
    model: SimCroP,
    volume: CTVolume,
    overlap: float,
    device: torch.device,
    precision: Precision,
    say: Progress,
) -> tuple[NDArray[np.float32], Grid]:
    """Class probabilities over the whole scan at the model's spacing, ``(C, H, W, D)``."""
    spec, head = model.input_spec, model.segmentation
    assert head is not None
    whole = resampled_grid(volume.grid, spec)
    settings = model.config.segmentation
    foreground = settings is not None and settings.foreground
    roi = (1, 1, 1) if foreground else head.roi
    # A scan smaller than one window is padded to it, scan in the middle.
    shape = tuple(max(n, r) for n, r in zip(whole.shape, roi, strict=True))
    grid = whole.window([(n - m) // 2 for n, m in zip(whole.shape, shape, strict=True)], shape)
    fill = spec.hu_window[0] if spec.padding == "air" else None
    values, _ = resample_linear(volume.hu_XYZ, volume.grid, grid, fill=fill, window=spec.hu_window)
    if not foreground:
        return window_probabilities(model, values, overlap, device, precision, say), grid
    box = foreground_box(values)
    inner, ends = padded(values[box], head.roi)
    found_CHWD = window_probabilities(model, inner, overlap, device, precision, say)
    kept = tuple(slice(a, n - b) for (a, b), n in zip(ends, inner.shape, strict=True))
    probabilities_CHWD = np.zeros((len(found_CHWD), *values.shape), np.float32)
    probabilities_CHWD[0] = 1
    probabilities_CHWD[(slice(None), *box)] = found_CHWD[(slice(None), *kept)]
    return probabilities_CHWD, grid


def foreground_box(values_HWD: NDArray[np.float32]) -> tuple[slice, slice, slice]:
    """The box of all positive values, that is above the window's middle; the whole where there are
    none."""
    box = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        touched = np.flatnonzero((values_HWD > 0).any(axis=others))
        box.append(slice(int(touched[0]), int(touched[-1]) + 1) if len(touched) else slice(None))
    return box[0], box[1], box[2]


def padded(
    values_HWD: NDArray[np.float32], roi: tuple[int, int, int]
) -> tuple[NDArray[np.float32], list[tuple[int, int]]]:
    """Values with air around them, along each axis no fewer than a window's, the scan in the
    middle; and how many were added before and behind."""
    missing = [max(0, r - n) for n, r in zip(values_HWD.shape, roi, strict=True)]
    ends = [(n // 2, n - n // 2) for n in missing]
    return np.pad(values_HWD, ends, constant_values=-1.0), ends


def window_probabilities(
    model: SimCroP,
    values_HWD: NDArray[np.float32],
    overlap: float,
    device: torch.device,
    precision: Precision,
    say: Progress,
) -> NDArray[np.float32]:
    """Class probabilities ``(C, H, W, D)`` of a prepared scan, window by window.

    Parameters
    ----------
    model
        On ``device``, in evaluation mode, with a segmentation head.
    values_HWD
        In [-1, 1] at the model's spacing; along no axis smaller than a window.
    overlap, device, precision, say
        As in :func:`segment`.
    """
    from monai.inferers import sliding_window_inference

    head = model.segmentation
    assert head is not None
    roi = head.roi
    windows = _window_count(values_HWD.shape, roi, overlap)
    done = 0

    def predict(windows_B1HWD: torch.Tensor) -> torch.Tensor:
        nonlocal done
        say("segmenting", done, windows)
        done += windows_B1HWD.shape[0]
        with autocast(device, precision):
            logits_BCHWD = head(windows_B1HWD)
        return logits_BCHWD.float()

    with torch.inference_mode():
        logits_BCHWD = sliding_window_inference(
            torch.from_numpy(values_HWD)[None, None],
            roi_size=roi,
            sw_batch_size=1,
            predictor=predict,
            overlap=overlap,
            mode="gaussian",
            sw_device=device,
            device=torch.device("cpu"),
        )
        probabilities = torch.softmax(logits_BCHWD[0], dim=0)
    return np.asarray(probabilities.numpy(), np.float32)


def _window_count(shape: tuple[int, ...], roi: tuple[int, ...], overlap: float) -> int:
    count = 1
    for n, r in zip(shape, roi, strict=True):
        step = max(1, int(r * (1 - overlap)))
        count *= 1 if n == r else -(-(n - r) // step) + 1
    return count


def _most_probable(
    probabilities_CHWD: NDArray[np.float32], source: Grid, scan: Grid, say: Progress
) -> NDArray[np.uint8]:
    labels = np.zeros(scan.shape, dtype=np.uint8, order="F")
    for start in range(0, scan.shape[2], _SLAB):
        say("labelling", start, scan.shape[2])
        stop = min(start + _SLAB, scan.shape[2])
        slab = scan.window((0, 0, start), (*scan.shape[:2], stop - start))
        best, _ = resample_linear(probabilities_CHWD[0], source, slab, fill=None)
        chosen = labels[:, :, start:stop]
        for label in range(1, len(probabilities_CHWD)):
            value, _ = resample_linear(probabilities_CHWD[label], source, slab, fill=None)
            better = value > best
            chosen[better] = label
            np.copyto(best, value, where=better)
    say("labelling", scan.shape[2], scan.shape[2])
    return labels
