"""How a store is prepared and how its studies are augmented; imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, model_validator

from simcrop_core.errors import SimCroPError
from simcrop_core.frozen import Frozen
from simcrop_core.input_spec import InputSpec

Shape = tuple[int, int, int]


class StoreSettings(Frozen):
    """What every volume of a store has in common; a store never mixes two of these."""

    spec: InputSpec = Field(default=InputSpec(), description="How a scan is prepared.")
    margin_voxels: Shape = Field(
        default=(16, 16, 8),
        description="Voxels kept around the model's input on both sides of each axis, for random "
        "crops; whole cells (a quarter of a patch).",
    )
    placement: Literal["center", "lungs"] = Field(
        default="center",
        description="Where the input lies in a larger scan: its centre, or centred on the lungs.",
    )
    structures: bool = Field(
        default=True, description="Whether label maps of the structures are kept where known."
    )

    @model_validator(mode="after")
    def _consistent(self) -> StoreSettings:
        cell = self.cell_shape
        if min(self.margin_voxels) < 0 or any(
            m % c for m, c in zip(self.margin_voxels, cell, strict=True)
        ):
            raise ValueError(f"margin_voxels {self.margin_voxels} is not made of cells of {cell}")
        if not all(abs(n) <= 32767 for n in self.spec.hu_window):
            raise ValueError("hu_window reaches beyond what 16 bits hold")
        return self

    @property
    def cell_shape(self) -> Shape:
        """Voxels of a cell, in which regions are kept: a quarter of a patch along each axis."""
        return cell_shape(self.spec.patch_shape)

    @property
    def shape(self) -> Shape:
        """Voxels of a stored volume: the model's input and its margin."""
        h, w, d = (n + 2 * m for n, m in zip(self.spec.shape, self.margin_voxels, strict=True))
        return h, w, d

    @property
    def cells(self) -> Shape:
        """Cells of a stored volume along the three axes."""
        h, w, d = (n // c for n, c in zip(self.shape, self.cell_shape, strict=True))
        return h, w, d

    def check_model(self, spec: InputSpec, cells: Shape | None = None) -> None:
        """Refuse a model that these volumes do not fit.

        Its input may be smaller than the one the store was prepared for, and its patches may be
        other multiples of the cells; all else must be the same. ``cells`` are those of a patch
        along each axis, for a model with the finer level.

        Raises
        ------
        SimCroPError
            ``other-spec``.
        """
        own, faults = self.spec, []
        for name in ("spacing_mm", "orientation", "hu_window", "padding"):
            if getattr(spec, name) != getattr(own, name):
                faults.append(f"{name} is {getattr(own, name)}, not {getattr(spec, name)}")
        cell = self.cell_shape
        spare = [n - m for n, m in zip(self.shape, spec.shape, strict=True)]
        if min(spare) < 0:
            faults.append(f"volumes are {self.shape}, smaller than the input {spec.shape}")
        if any(n % c for n, c in zip(spec.patch_shape, cell, strict=True)):
            faults.append(f"cells are {cell}, of which patches of {spec.patch_shape} are not made")
        elif any(n % (2 * c) for n, c in zip(spare, cell, strict=True)):
            faults.append(f"the input {spec.shape} cannot be centred in {self.shape} by cells")
        elif cells is not None and any(
            n // c % m for n, c, m in zip(spec.patch_shape, cell, cells, strict=True)
        ):
            faults.append(f"its cells of {cell} voxels do not make {cells} cells a patch")
        if faults:
            raise SimCroPError(
                f"The store does not fit the model: {'; '.join(faults)}",
                code="other-spec",
                remedy="Prepare a store for this model, or choose the model it was prepared for.",
            )


def cell_shape(patch_shape: Sequence[int]) -> Shape:
    """A quarter of a patch along each axis, or a third, a half or all where that is not whole."""
    a, b, c = (p // max(k for k in (1, 2, 3, 4) if p % k == 0) for p in patch_shape)
    return a, b, c


class AugmentationConfig(Frozen):
    """What is done to a training sample; never a left-right flip, for reports name sides.

    Crops alone by default. Each of the others is drawn anew for every sample, uniformly up to
    its field's value.
    """

    crop: bool = Field(
        default=True,
        description="Cut the input at random within the store's margin, else from its middle.",
    )
    shift_hu: float = Field(
        default=0.0, ge=0, le=1000, description="Most that is added to or taken off all values."
    )
    scale: float = Field(
        default=0.0,
        ge=0,
        le=0.9,
        description="Most by which contrast about 0 HU grows or falls (0.1: 0.9 to 1.1).",
    )
    noise_hu: float = Field(
        default=0.0, ge=0, le=1000, description="Largest standard deviation of white noise."
    )
    blur_mm: float = Field(
        default=0.0,
        ge=0,
        le=10,
        description="Largest standard deviation of a Gaussian blur, as of a softer kernel.",
    )
    probability: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="How often shift, scale, noise and blur are each applied to a sample.",
    )
