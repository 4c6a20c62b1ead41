"""What all segmentation heads share; imports no MONAI."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from simcrop_core.model.config import SegmentationConfig
from simcrop_core.model.vision import Shape3, VisionEncoder


class SegmentationHead(nn.Module, ABC):
    """What gives every voxel of a region a label by the encoder's features.

    Parameters
    ----------
    config
        Labels, widths, region, and how the encoder is used.
    encoder
        The model's own vision encoder; used, not owned, so that it is stored once.
    input_shape
        The model's input in voxels: the region where the configuration names none.
    """

    def __init__(
        self, config: SegmentationConfig, encoder: VisionEncoder, input_shape: Shape3
    ) -> None:
        super().__init__()
        self.config = config
        self.roi: Shape3 = config.roi or input_shape
        self._encoder = (encoder,)  # a tuple, so that it is not registered a second time

    @property
    def encoder(self) -> VisionEncoder:
        return self._encoder[0]

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of channels 1, 2, ...; channel 0 is background."""
        return self.config.labels

    @abstractmethod
    def initialise(self) -> None:
        """Fresh weights from torch's random stream."""

    @abstractmethod
    def forward(self, x_B1HWD: Tensor) -> Tensor:
        """Logits ``(B, labels + 1, H, W, D)`` of a prepared region of :attr:`roi` voxels.

        Raises
        ------
        SimCroPError
            The input is not of that shape.
        """
