"""How likely a sentence is true of a scan, from its similarities with the scan's patches.

Shapes in names: S sentences; N patches.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from simcrop_core.model.config import PresenceConfig


class Presence(nn.Module):
    """Similarities of a sentence with all patches -> one score -> a probability.

    The score is a soft maximum, the log-sum-exp of Pinheiro and Collobert ("From image-level to
    pixel-level labeling with convolutional networks", 2015)::

        S = 1/b (log sum_p exp(b s_p) - log N)

    It lies between the mean (b near 0) and the maximum (b large); b is learned, and so are
    temperature tau and bias of the probability, sigmoid(S / tau + bias).
    """

    def __init__(self, config: PresenceConfig) -> None:
        super().__init__()
        self.config = config
        self.log_sharpness = nn.Parameter(torch.zeros(()))
        self.log_temperature = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(()))

    def initialise(self) -> None:
        """The configuration's values; nothing is random."""
        nn.init.constant_(self.log_sharpness, math.log(self.config.sharpness))
        nn.init.constant_(self.log_temperature, math.log(self.config.temperature))
        nn.init.zeros_(self.bias)

    def pool(self, similarity_SN: Tensor, mask_N: Tensor | None = None) -> Tensor:
        """Scores ``(S,)`` float32; patches where ``mask_N`` is False have no part.

        Any number of axes may stand before S; ``mask_N`` then broadcasts as ``(..., 1, N)``.
        """
        similarity_SN = similarity_SN.float()
        b = self.log_sharpness.float().exp()
        if mask_N is None:
            count = torch.full((), float(similarity_SN.shape[-1]), device=similarity_SN.device)
        else:
            count = mask_N.sum(dim=-1).float()
            similarity_SN = similarity_SN.masked_fill(~mask_N, -torch.inf)
        return (torch.logsumexp(b * similarity_SN, dim=-1) - count.log()) / b

    def logits(self, scores_S: Tensor) -> Tensor:
        """Log odds of scores."""
        return scores_S.float() / self.log_temperature.float().exp() + self.bias.float()

    def forward(self, similarity_SN: Tensor, mask_N: Tensor | None = None) -> Tensor:
        """Probabilities ``(S,)``."""
        return torch.sigmoid(self.logits(self.pool(similarity_SN, mask_N)))
