"""What a model expects to be shown; saved with every model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from simcrop_core.frozen import Frozen
from simcrop_core.geometry import axis_aligned_affine


class InputSpec(Frozen):
    """The model's input: how a scan is oriented, resampled, windowed and cut.

    Defaults are the paper's (section 3: 1.5 x 1.5 x 3.0 mm, 224 x 224 x 112, patches of
    16 x 16 x 8, HU clipped to [-1000, 1000] and mapped to [-1, 1]).
    """

    shape: tuple[int, int, int] = Field(
        (224, 224, 112), description="Voxels of the input along its three axes (H, W, D)."
    )
    spacing_mm: tuple[float, float, float] = Field(
        (1.5, 1.5, 3.0), description="Millimetres from voxel to voxel along the three axes."
    )
    patch_shape: tuple[int, int, int] = Field(
        (16, 16, 8), description="Voxels of one patch along the three axes."
    )
    hu_window: tuple[float, float] = Field(
        (-1000.0, 1000.0), description="Hounsfield units that become -1 and +1; clipped beyond."
    )
    orientation: str = Field(
        "LPS", description="Body direction in which each axis grows (CT-RATE stores LPS)."
    )
    padding: Literal["air", "edge"] = Field(
        "air",
        description="What fills the input beyond the scan: the window's lower end, or the "
        "scan's outermost voxels repeated.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> InputSpec:
        if min(self.shape) < 1 or min(self.patch_shape) < 1:
            raise ValueError("shape and patch_shape must be positive")
        if any(n % p for n, p in zip(self.shape, self.patch_shape, strict=True)):
            raise ValueError(f"patch_shape {self.patch_shape} does not divide shape {self.shape}")
        if not all(0.05 <= s <= 50 for s in self.spacing_mm):
            raise ValueError(f"spacing_mm {self.spacing_mm} is outside 0.05 to 50 mm")
        if not self.hu_window[0] < self.hu_window[1]:
            raise ValueError(f"hu_window {self.hu_window} is not (low, high)")
        axis_aligned_affine(self.orientation, (1, 1, 1), (0, 0, 0), (1, 1, 1))
        return self

    @property
    def grid_shape(self) -> tuple[int, int, int]:
        """Patches along the three axes."""
        (h, w, d), (p, q, r) = self.shape, self.patch_shape
        return h // p, w // q, d // r

    @property
    def patches(self) -> int:
        """Number of patches, N."""
        i, j, k = self.grid_shape
        return i * j * k
