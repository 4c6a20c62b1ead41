"""Pictures of where a model points in held-out studies, to be watched as it learns.

Shapes in names: S sentences; N patches; H, W, D voxels towards Left, Posterior and Superior;
Y, X rows and columns of a picture; C colours.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave
from numpy.typing import NDArray
from torch import Tensor

from simcrop_core.input_spec import InputSpec
from simcrop_core.outputs import whole_file
from simcrop_core.study import KINDS
from simcrop_core.study_batch import StudyBatch

_SENTENCES = 3
_FINDING, _ORGAN = KINDS.index("finding"), KINDS.index("organ")
_SHOWN = 0.7  # only what is among the best this share between the mean and the maximum is coloured


def draw_preview(
    batch: StudyBatch, similarity_SN: Tensor, texts: Sequence[str], spec: InputSpec
) -> NDArray[np.uint8]:
    """A few sentences of one study, each in the slices through its region or, if it has none,
    through the patch that it is most like.

    Parameters
    ----------
    batch
        One study.
    similarity_SN
        Of its sentences with all patches, on the CPU.
    texts
        Its sentences.
    spec
        Its input.

    Returns
    -------
    uint8 array ``(Y, X, 3)``
        A row a sentence: axial and coronal slice as a radiologist sees them (the patient's right
        is on the left), the most similar patches in colour, the sentence's true region outlined.
    """
    volume_HWD = batch.volume_B1HWD[0, 0].float().cpu().numpy()
    rows = _choose(batch, len(similarity_SN))
    figure = Figure(figsize=(7.2, 3.3 * max(1, len(rows))), dpi=80, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(max(1, len(rows)), 2, squeeze=False)
    for row, sentence in enumerate(rows):
        heat_HWD = _on_voxels(similarity_SN[sentence], spec)
        region_N = batch.region_BSN[0, sentence].cpu()
        region_HWD = _on_voxels(region_N, spec)
        best = int(similarity_SN[sentence].argmax())
        has_region = bool(batch.region_mask_BS[0, sentence])
        # The same slices each time, where there is a region: what is learnt shows in the colours.
        _, w, d = _centre(int(region_N.argmax()) if has_region else best, spec)
        dh, dw, dd = spec.spacing_mm
        planes = (
            (axes[row, 0], lambda x, d=d: x[:, :, d].T, dw / dh),
            (axes[row, 1], lambda x, w=w: x[:, w, :].T[::-1], dd / dh),
        )
        for axis, cut, aspect in planes:
            _draw_plane(axis, cut(volume_HWD), cut(heat_HWD), cut(region_HWD), aspect)
        hit = ""
        if has_region:
            hit = " [in its region]" if float(region_N[best]) > 0 else " [beside its region]"
        words = texts[sentence] if sentence < len(texts) else ""
        lines = textwrap.wrap(words, 80, max_lines=2, placeholder=" ...")
        axes[row, 0].set_title("\n".join(lines) + hit, loc="left", fontsize=9, wrap=False)
    for axis in axes.flat:
        axis.set_axis_off()
    figure.tight_layout()
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def save_preview(rgb_YXC: NDArray[np.uint8], path: Path) -> None:
    """Write a picture, whole or not at all."""
    with whole_file(path) as hidden:
        imsave(hidden, rgb_YXC, format="png")


def _choose(batch: StudyBatch, count: int) -> list[int]:
    """The same few sentences each time: findings with a region first, then organs, then others."""
    kinds = batch.kind_BS[0, :count].tolist()
    regions = batch.region_mask_BS[0, :count].tolist()
    order = {_FINDING: 0, _ORGAN: 1}
    ranked = sorted(range(count), key=lambda i: (not regions[i], order.get(kinds[i], 2), i))
    return sorted(ranked[:_SENTENCES])


def _on_voxels(values_N: Tensor, spec: InputSpec) -> NDArray[np.float32]:
    h, w, d = spec.patch_shape
    grid = values_N.float().view(spec.grid_shape)
    grid = grid.repeat_interleave(h, 0).repeat_interleave(w, 1).repeat_interleave(d, 2)
    return grid.numpy()


def _centre(patch: int, spec: InputSpec) -> tuple[int, int, int]:
    place = torch.unravel_index(torch.tensor(patch), spec.grid_shape)
    h, w, d = (int(i) * n + n // 2 for i, n in zip(place, spec.patch_shape, strict=True))
    return h, w, d


def _draw_plane(
    axis: Axes,
    volume_YX: NDArray[np.float32],
    heat_YX: NDArray[np.float32],
    region_YX: NDArray[np.float32],
    aspect: float,
) -> None:
    axis.imshow(volume_YX, cmap="gray", vmin=-1, vmax=0.4, aspect=aspect)
    low, high = float(heat_YX.mean()), float(heat_YX.max())
    scaled = (heat_YX - low) / max(high - low, 1e-6)
    colours = matplotlib.colormaps["inferno"](np.clip(scaled, 0, 1))
    colours[..., 3] = np.where(scaled > _SHOWN, 0.45, 0.0)
    axis.imshow(colours, aspect=aspect, interpolation="nearest")
    if (region_YX > 0).any():
        axis.contour(region_YX > 0, levels=[0.5], colors="#22d3ee", linewidths=1)
