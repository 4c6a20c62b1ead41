"""How much of the anatomy frozen patch features hold: segmentation by a linear map alone.

Shapes in names: N patches; D the width of a feature; K blocks of a patch; L labels; P voxels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simcrop_core.device import Precision, autocast, evaluating, select_device
from simcrop_core.evaluate.cases import Case
from simcrop_core.model.simcrop import SimCroP
from simcrop_core.model.vision import patchify

Groups = Sequence[tuple[str, Sequence[str]]]


class LinearSegmenter:
    """A ridge regression from a patch's token to the labels of its blocks.

    Each patch is cut into blocks (4 x 4 x 4 unless its size forbids); the map gives every block
    the share of each label. The fit has a closed form, so it has no seed and no schedule, and
    differences between models are differences between their features.

    Parameters
    ----------
    groups
        Name and structures of each label; everything else is background.
    patch_shape
        Voxels of a patch.
    penalty
        Of the ridge, relative to the mean variance of the features.
    """

    def __init__(
        self, groups: Groups, patch_shape: tuple[int, int, int], *, penalty: float = 1e-3
    ) -> None:
        self.groups = groups
        self.patch_shape = patch_shape
        self.block = tuple(p // max(k for k in (1, 2, 4) if p % k == 0) for p in patch_shape)
        self.penalty = penalty
        self._gram: Tensor | None = None
        self._cross: Tensor | None = None
        self._weights: Tensor | None = None

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.groups]

    def add(self, tokens_ND: Tensor, labels_HWD: Tensor) -> None:
        """Learn from one study: its tokens and its map of labels (0 background, then groups)."""
        x = self._with_one(tokens_ND)
        y = self._shares(labels_HWD)
        if self._gram is None or self._cross is None:
            self._gram, self._cross = x.T @ x, x.T @ y
        else:
            self._gram += x.T @ x
            self._cross += x.T @ y
        self._weights = None

    def predict(self, tokens_ND: Tensor, shape: tuple[int, int, int]) -> Tensor:
        """The most likely label of every voxel, ``shape``, uint8."""
        if self._gram is None or self._cross is None:
            raise ValueError("The segmenter has learnt from no study.")
        if self._weights is None:
            D = len(self._gram) - 1
            ridge = torch.full((D + 1,), float(self._gram.diagonal()[:D].mean()) * self.penalty)
            ridge[-1] = 0
            self._weights = torch.linalg.solve(self._gram + ridge.double().diag(), self._cross)
        shares = self._with_one(tokens_ND) @ self._weights
        best_NK = shares.unflatten(1, (-1, len(self.groups) + 1)).argmax(dim=-1)
        (h, w, d), (p, q, r), (a, b, c) = shape, self.patch_shape, self.block
        blocks = best_NK.reshape(h // p, w // q, d // r, p // a, q // b, r // c)
        coarse = blocks.permute(0, 3, 1, 4, 2, 5).reshape(h // a, w // b, d // c)
        for axis, times in enumerate((a, b, c)):
            coarse = coarse.repeat_interleave(times, dim=axis)
        return coarse.to(torch.uint8)

    def labels_of(self, case: Case) -> Tensor:
        """The groups' numbers of every voxel of a case, uint8."""
        if case.structures_HWD is None:
            raise ValueError(f"The case {case.id} was made without its structures.")
        table = np.zeros(256, np.uint8)
        for number, (_, members) in enumerate(self.groups, start=1):
            for member in members:
                table[case.structure_names.index(member) + 1] = number
        return torch.from_numpy(table[case.structures_HWD])

    def _with_one(self, tokens_ND: Tensor) -> Tensor:
        x = tokens_ND.double()
        return torch.cat([x, torch.ones_like(x[:, :1])], dim=1)

    def _shares(self, labels_HWD: Tensor) -> Tensor:
        """How much of each block each label fills, ``(N, K L)``."""
        (p, q, r), (a, b, c) = self.patch_shape, self.block
        voxels_NP = patchify(labels_HWD[None, None], self.patch_shape)[0]
        blocks = voxels_NP.reshape(-1, p // a, a, q // b, b, r // c, c)
        blocks = blocks.permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(1, 3)  # N, K, voxels
        one_hot = torch.nn.functional.one_hot(blocks.long(), len(self.groups) + 1)
        return one_hot.double().mean(dim=2).flatten(1)


def linear_segmentation(
    model: SimCroP,
    train: Iterable[Case],
    test: Iterable[Case],
    groups: Groups,
    *,
    device: str = "auto",
    precision: Precision = "auto",
) -> dict[str, float]:
    """Dice of each group over the test cases' voxels, and ``"mean"`` over the groups.

    Voxels of all test cases are counted together; a group that neither map holds is left out.
    Cases are made with ``structures=True``.
    """
    where = select_device(device)
    segmenter = LinearSegmenter(groups, model.input_spec.patch_shape)
    both, total = np.zeros(len(groups)), np.zeros(len(groups))

    def tokens(case: Case) -> Tensor:
        x = torch.from_numpy(case.input_1HWD)[None].float().to(where)
        with autocast(where, precision):
            return model.vision(x).patches_BND[0].float().cpu()

    with evaluating(model.to(where)), torch.inference_mode():
        for case in train:
            segmenter.add(tokens(case), segmenter.labels_of(case))
        for case in test:
            truth = segmenter.labels_of(case)
            h, w, d = truth.shape
            predicted = segmenter.predict(tokens(case), (h, w, d))
            common, sizes = _counts(predicted.numpy(), truth.numpy(), len(groups))
            both += common
            total += sizes
    found = {
        name: float(2 * b / t)
        for name, b, t in zip(segmenter.names, both, total, strict=True)
        if t > 0
    }
    return found | {"mean": float(np.mean(list(found.values())))} if found else found


def _counts(
    predicted: NDArray[np.uint8], truth: NDArray[np.uint8], groups: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Common voxels of each group, and the sum of both sizes."""
    common = np.bincount(truth[predicted == truth], minlength=groups + 1)
    sizes = np.bincount(truth.ravel(), minlength=groups + 1) + np.bincount(
        predicted.ravel(), minlength=groups + 1
    )
    return common[1:].astype(np.float64), sizes[1:].astype(np.float64)
